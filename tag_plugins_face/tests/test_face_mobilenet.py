import pytest
import torch
from face_pictures import FACE_DATA

from tag_core.engine.weights import read_file
from tag_plugins_face.models.mobilenet import MobileNet


@pytest.mark.parametrize("size", [(64, 96), (33, 7), (1, 1)])
def test_maps_are_an_eighth_a_sixteenth_and_a_thirty_second_of_any_picture(size):
    net = MobileNet().eval()
    with torch.no_grad():
        maps = net.maps(torch.randn(2, 3, *size))
        features = net(torch.randn(2, 3, *size))
    expected = [
        (2, channels, *(-(-side // s) for side in size))
        for channels, s in zip((64, 128, 256), (8, 16, 32), strict=True)
    ]
    assert [tuple(each.shape) for each in maps] == expected
    assert features.shape == (2, net.feature_dim) == (2, 256)


def test_a_wider_network_has_more_channels():
    assert MobileNet(width=1.0).channels == [256, 512, 1024]
    with pytest.raises(ValueError, match="width"):
        MobileNet(width=0)


def test_activations_pass_a_tenth_of_what_is_below_zero():
    net = MobileNet().eval()
    with torch.no_grad():
        net.stage1[0][0].weight.fill_(1.0)
        picture = torch.ones(1, 3, 3, 3)
        up, down = net.stage1[0](picture), net.stage1[0](-picture)
    torch.testing.assert_close(down, -0.1 * up)


@pytest.mark.skipif(not FACE_DATA.is_dir(), reason="the shared data are not here")
def test_the_published_imagenet_weights_name_every_parameter():
    state = read_file(FACE_DATA / "weights" / "mobilenetV1X0.25_pretrain.tar").state
    told = MobileNet().load_state_dict(state, strict=False)
    assert (told.missing_keys, told.unexpected_keys) == ([], ["fc.weight", "fc.bias"])
