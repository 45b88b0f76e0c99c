import pytest
import torch

from tag_plugins_video.models.c3d_tiny import C3DTiny


@pytest.mark.parametrize("shape", [(8, 32, 32), (1, 1, 1), (16, 64, 48)])
def test_any_clip_gives_the_declared_features(shape):
    model = C3DTiny(width=8).eval()
    assert model(torch.randn(2, 3, *shape)).shape == (2, model.feature_dim) == (2, 32)


def test_it_is_small():
    assert 20_000 < sum(p.numel() for p in C3DTiny().parameters()) < 60_000


def test_it_tells_a_clip_from_its_reverse():
    torch.manual_seed(0)
    model = C3DTiny().eval()
    clip = torch.randn(1, 3, 8, 32, 32)
    assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-4)
