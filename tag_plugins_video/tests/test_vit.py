import math

import pytest
import torch

from tag_core.errors import UserError
from tag_plugins_video.models.vit import VideoViT, sine_positions


def build(**options):
    torch.manual_seed(0)
    return VideoViT(**{"dim": 12, "depth": 2, "heads": 2, "patch": 4, "tubelet": 2, **options}).eval()


def test_the_base_size_has_the_parameters_of_its_blocks():
    # A block of width d: 4 d^2 of attention, 8 d^2 of MLP, 13 d of biases and norms (ViT, arXiv 2010.11929).
    model, d = VideoViT(dim=768, heads=12), 768
    expected = 12 * (12 * d * d + 13 * d) + (3 * 2 * 16 * 16 + 1) * d + 2 * d
    assert sum(p.numel() for p in model.parameters()) == expected == 86_236_416


def test_features_are_the_mean_of_the_normalised_tokens_at_any_size():
    model = build()
    for shape, tokens in (((2, 3, 8, 16, 16), 64), ((2, 3, 2, 4, 12), 3)):
        clips = torch.randn(shape)
        encoded = model.encode(model.tokens(clips))
        assert encoded.shape == (2, tokens, 12)
        torch.testing.assert_close(model(clips), encoded.mean(1))


def test_a_token_is_the_linear_image_of_its_tubelet_at_its_position():
    model, clips = build(), torch.randn(1, 3, 4, 8, 12)
    tokens, number = model.tokens(clips)[0], 0
    for t in range(2):
        for h in range(2):
            for w in range(3):
                cut = clips[0, :, 2 * t : 2 * t + 2, 4 * h : 4 * h + 4, 4 * w : 4 * w + 4].flatten()
                place = []
                for p in (t, h, w):
                    place += [math.sin(p / 10000 ** (i / 2)) for i in range(2)]
                    place += [math.cos(p / 10000 ** (i / 2)) for i in range(2)]
                expected = model.embed.weight.flatten(1) @ cut + model.embed.bias + torch.tensor(place)
                torch.testing.assert_close(tokens[number], expected)
                number += 1
    assert number == len(tokens)


def test_positions_are_all_different():
    assert len(torch.unique(sine_positions((8, 14, 14), 192), dim=0)) == 8 * 14 * 14


def test_every_tubelet_reaches_every_token_and_no_other_clip():
    model, clips = build(), torch.randn(2, 3, 4, 8, 8)
    before = model.encode(model.tokens(clips))
    clips[0, :, :2, :4, :4] += 1
    changed = (model.encode(model.tokens(clips)) != before).any(dim=2)
    assert changed[0].all()
    assert not changed[1].any()


def test_sizes_that_leave_something_over_are_refused():
    with pytest.raises(UserError, match="5 frames of 8x8 do not divide into tubelets of 2 frames of 4x4"):
        build()(torch.zeros(1, 3, 5, 8, 8))
    with pytest.raises(ValueError, match="multiple of 6 and of heads"):
        build(dim=16)
