import pytest
import torch
import torchvision.models

from tag_core.errors import WeightsError
from tag_plugins_reid.models.resnet import ResNet


@pytest.mark.parametrize(("depth", "width"), [(18, 512), (34, 512), (50, 2048), (101, 2048), (152, 2048)])
def test_every_depth_has_torchvisions_parameters_and_features(depth, width):
    with torch.device("meta"):
        net, published = ResNet(depth), torchvision.models.get_model(f"resnet{depth}")
        features = net(torch.empty(2, 3, 64, 32))
    assert features.shape == (2, width)
    assert net.feature_dim == width
    expected = {name: value.shape for name, value in published.state_dict().items() if not name.startswith("fc.")}
    assert {name: value.shape for name, value in net.state_dict().items()} == expected


@pytest.mark.parametrize("depth", [18, 50])
def test_with_stride_two_the_features_are_torchvisions(depth):
    torch.manual_seed(0)
    published = torchvision.models.get_model(f"resnet{depth}").eval()
    net = ResNet(depth, last_stride=2).eval()
    net.load_state_dict({k: v for k, v in published.state_dict().items() if not k.startswith("fc.")})
    published.fc = torch.nn.Identity()
    pictures = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(net(pictures), published(pictures))


@pytest.mark.parametrize("depth", [18, 50])
def test_a_last_stride_of_one_doubles_the_last_map(depth):
    pictures = torch.empty(1, 3, 384, 128, device="meta")
    with torch.device("meta"):
        assert ResNet(depth, last_stride=1).maps(pictures).shape[2:] == (24, 8)
        assert ResNet(depth, last_stride=2).maps(pictures).shape[2:] == (12, 4)


def test_torchvisions_first_weights_are_fetched_when_a_training_begins_and_not_before(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    published = torchvision.models.get_model("resnet50")
    file = tmp_path / "hub" / "checkpoints" / "resnet50-0676ba61.pth"  # those of 2015's recipe; V2 is 11ad3fa6
    file.parent.mkdir(parents=True)
    torch.save(published.state_dict(), file)
    monkeypatch.setattr(
        "torch.hub.download_url_to_file", lambda *args, **kwargs: pytest.fail("nothing is to be fetched")
    )
    net = ResNet(50, pretrained=True)
    assert not torch.equal(net.conv1.weight, published.conv1.weight)
    net.initialize()
    assert torch.equal(net.conv1.weight, published.conv1.weight)
    assert torch.equal(net.layer4[1].bn2.running_var, published.layer4[1].bn2.running_var)


def test_weights_that_cannot_be_fetched_name_the_way_out(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(WeightsError, match=r"resnet18: cannot be fetched \(no network\).*weights=FILE"):
        ResNet(18, pretrained=True).initialize()
