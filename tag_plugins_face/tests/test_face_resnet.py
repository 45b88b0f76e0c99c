import pytest
import torch
import torchvision.models

from tag_core.errors import WeightsError
from tag_plugins_face.models.resnet import ResNet50


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Weights in the place where torchvision keeps what it has fetched."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    torch.manual_seed(0)
    network = torchvision.models.resnet50().eval()
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    torch.save(network.state_dict(), folder / torchvision.models.ResNet50_Weights.IMAGENET1K_V1.url.rpartition("/")[2])
    return network


def test_weights_are_fetched_when_a_training_begins_and_features_are_then_torchvisions(published):
    net = ResNet50(pretrained=True).eval()
    assert not torch.equal(net.conv1.weight, published.conv1.weight)
    net.initialize()
    published.fc = torch.nn.Identity()
    picture = torch.randn(1, 3, 50, 70)
    with torch.no_grad():
        torch.testing.assert_close(net(picture), published(picture))
        shapes = [tuple(each.shape) for each in net.maps(picture)]
    assert shapes == [(1, 512, 7, 9), (1, 1024, 4, 5), (1, 2048, 2, 3)]


def test_without_pretrained_nothing_is_fetched(published):
    net = ResNet50()
    net.initialize()
    assert not torch.equal(net.conv1.weight, published.conv1.weight)


def test_weights_that_cannot_be_fetched_name_the_way_out(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    with pytest.raises(WeightsError, match=r"resnet50: cannot be fetched \(no network\).*weights=FILE"):
        ResNet50(pretrained=True).initialize()
