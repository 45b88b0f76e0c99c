import pytest
import torch

from tag_plugins_reid.models.small import SmallNet


@pytest.mark.parametrize(("width", "depth", "convs"), [(8, 1, 1), (4, 3, 2), (2, 5, 1)])
def test_width_and_depth_say_how_wide_and_low_the_last_map_is(width, depth, convs):
    net = SmallNet(width, depth, convs=convs)
    maps = net.maps(torch.randn(2, 3, 32, 16))
    assert maps.shape == (2, width * 2 ** (depth - 1), 32 // 2 ** (depth - 1), 16 // 2 ** (depth - 1))
    assert net.feature_dim == maps.shape[1]
    assert sum(isinstance(module, torch.nn.Conv2d) for module in net.modules()) == depth * convs


def test_features_are_the_mean_of_the_map():
    net = SmallNet(4, 3).eval()
    pictures = torch.randn(2, 3, 16, 16)
    torch.testing.assert_close(net(pictures), net.maps(pictures).flatten(2).mean(2))


def test_with_one_channel_only_the_mean_of_the_colours_counts():
    torch.manual_seed(0)
    grey, colour = SmallNet(4, 2, channels=1).eval(), SmallNet(4, 2).eval()
    pictures = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(grey(pictures), grey(pictures.roll(1, 1)))
    assert not torch.allclose(colour(pictures), colour(pictures.roll(1, 1)))


def test_nothing_below_one_is_taken():
    with pytest.raises(ValueError, match="width, depth and convs must be at least 1, got 0, 4 and 1"):
        SmallNet(width=0)
