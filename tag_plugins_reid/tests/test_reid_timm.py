import pytest
import timm
import torch

from tag_core.errors import UserError, WeightsError
from tag_plugins_reid.models.timm import Timm


@pytest.mark.parametrize(
    ("name", "width", "size"),
    [(f"efficientnet_b{n}", width, 64) for n, width in enumerate([1280, 1280, 1408, 1536, 1792, 2048, 2304, 2560])]
    + [("tf_efficientnet_b5.ns_jft_in1k", 2048, 64), ("convnext_atto", 320, 64), ("hrnet_w18_small", 2048, 64)]
    + [("swin_tiny_patch4_window7_224", 768, 224), ("vit_tiny_patch16_224", 192, 224)],
)
def test_models_of_every_make_give_maps_with_channels_first(name, width, size):
    with torch.device("meta"):
        net = Timm(name)
        maps = net.maps(torch.empty(2, 3, size, size))
    assert maps.shape[:2] == (2, width)
    assert maps.shape[2] == maps.shape[3] > 1
    assert net.feature_dim == width


def test_the_features_of_an_efficientnet_are_timms():
    torch.manual_seed(0)
    net = Timm("efficientnet_b0").eval()
    whole = timm.create_model("efficientnet_b0", num_classes=0).eval()
    whole.load_state_dict(net.net.state_dict())
    pictures = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(net(pictures), whole(pictures))


def test_the_map_of_a_transformer_lies_as_its_patches_do():
    torch.manual_seed(0)
    net = Timm("vit_tiny_patch16_224", size=(64, 32)).eval()
    with torch.no_grad():
        tokens = net.net.forward_features(pictures := torch.randn(1, 3, 64, 32))
        maps = net.maps(pictures)
    assert maps.shape == (1, 192, 4, 2)
    for row in range(4):
        for column in range(2):
            torch.testing.assert_close(maps[0, :, row, column], tokens[0, 1 + 2 * row + column])


def test_a_picture_of_another_size_than_a_transformer_takes_names_the_option():
    net = Timm("vit_tiny_patch16_224")
    with pytest.raises(UserError, match=r"for pictures of \[64, 32\]: task.backbone.size=\[64, 32\]"):
        net.maps(torch.randn(1, 3, 64, 32))


def test_tokens_that_are_no_map_are_refused():
    with torch.device("meta"):
        net = Timm("levit_128s")
        with pytest.raises(UserError, match="levit_128s gives 16 tokens that are no map"):
            net.maps(torch.empty(1, 3, 224, 224))


def test_wrong_names_and_sizes_are_refused():
    with pytest.raises(ValueError, match="no model 'efficientnet_b9' in timm; did you mean"):
        Timm("efficientnet_b9")
    with pytest.raises(ValueError, match="any size: leave the option size out"):
        Timm("efficientnet_b0", size=(64, 64))


def test_a_model_without_published_weights_says_so():
    with pytest.raises(WeightsError, match=r"mnasnet_050: cannot be fetched \(.*pretrained=false"):
        Timm("mnasnet_050", pretrained=True).initialize()
