import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.video import S3D_Weights, s3d

from tag_core.engine.weights import load_weights, read_weights
from tag_plugins_video.models.s3d import S3D
from tag_plugins_video.tasks.classification import Classification

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def task_like(reference, num_classes):
    """A task with the weights of torchvision's model, by way of the named layout."""
    task = Classification(S3D(), nn.CrossEntropyLoss(), [str(i) for i in range(num_classes)])
    task.load_state_dict(S3D.layouts["torchvision"](reference.state_dict()))
    return task.eval()


def randomised(num_classes):
    """torchvision's model with batch norm statistics that are not the initial ones."""
    torch.manual_seed(0)
    reference = s3d(num_classes=num_classes)
    for module in reference.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.8, 1.2)
    nn.init.normal_(reference.classifier[1].weight, std=0.2)
    return reference.eval()


@pytest.mark.parametrize("shape", [(14, 224, 224), (32, 224, 256)])
def test_logits_equal_torchvisions(shape):
    reference = randomised(400)
    task = task_like(reference, 400)
    x = torch.randn(1, *shape[:1], 3, *shape[1:])
    with torch.no_grad():
        expected = reference(x.transpose(1, 2))
        outputs = task.predict({"clip": x})
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(outputs["logits"], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(outputs["scores"], expected.softmax(1), rtol=1e-4, atol=1e-6)


def test_the_task_for_kinetics_has_the_published_number_of_parameters():
    task = Classification(S3D(), nn.CrossEntropyLoss(), [str(i) for i in range(400)])
    assert sum(p.numel() for p in task.parameters()) == 8_320_048


@pytest.mark.parametrize("shape", [(8, 17, 17), (9, 64, 48), (16, 112, 112)])
def test_small_clips_train_too(shape):
    torch.manual_seed(0)
    model = S3D().train()
    features = model(torch.randn(2, 3, *shape))
    features.sum().backward()
    assert features.shape == (2, model.feature_dim)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("shape", [(7, 64, 64), (8, 16, 64)])
def test_clips_that_are_too_small_are_refused(shape):
    with pytest.raises(ValueError, match="S3D needs 8 frames of 17x17 or more"):
        S3D()(torch.randn(1, 3, *shape))


def test_the_layout_does_not_fit_other_state_dicts():
    with pytest.raises(KeyError):
        S3D.layouts["torchvision"]({"backbone.conv1.weight": torch.zeros(1)})


def test_published_weights_are_those_of_torchvision():
    published = S3D.published_weights["kinetics-400"]
    meta = S3D_Weights.KINETICS400_V1.meta
    assert published.url == "https://download.pytorch.org/models/s3d-d76dad2f.pth"
    assert published.sha256 == "d76dad2f"
    assert list(published.classes) == meta["categories"]
    assert "68.368" in published.summary
    assert "88.05" in published.summary


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")
def test_the_layout_covers_the_published_keys():
    layouts = json.loads((SHARED / "video" / "model_state_dict_layouts.json").read_text())
    listed = next(keys for name, keys in layouts.items() if name.startswith("torchvision.s3d(num_classes=400"))
    state = {key: torch.zeros(shape) for key, shape, _ in listed}
    task = Classification(S3D(), nn.CrossEntropyLoss(), [str(i) for i in range(400)])
    mapped = S3D.layouts["torchvision"](state)
    own = {key: value.shape for key, value in task.state_dict().items()}
    assert {key: value.shape for key, value in mapped.items()} == own


class Separable(nn.Module):
    """A spatial, then a temporal convolution, in the names of kylemin/S3D (specification, section 3.1)."""

    def __init__(self, inputs, outputs, side, stride=1):
        super().__init__()
        pad = side // 2
        self.conv_s = nn.Conv3d(inputs, outputs, (1, side, side), (1, stride, stride), (0, pad, pad), bias=False)
        self.bn_s = nn.BatchNorm3d(outputs, eps=1e-3)
        self.conv_t = nn.Conv3d(outputs, outputs, (side, 1, 1), (stride, 1, 1), (pad, 0, 0), bias=False)
        self.bn_t = nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x):
        return self.bn_t(self.conv_t(self.bn_s(self.conv_s(x)).relu())).relu()


class Pointwise(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv, self.bn = nn.Conv3d(inputs, outputs, 1, bias=False), nn.BatchNorm3d(outputs, eps=1e-3)

    def forward(self, x):
        return self.bn(self.conv(x)).relu()


class Mixed(nn.Module):
    def __init__(self, inputs, one, two, three, four):
        super().__init__()
        self.branch0 = nn.Sequential(Pointwise(inputs, one))
        self.branch1 = nn.Sequential(Pointwise(inputs, two[0]), Separable(*two, 3))
        self.branch2 = nn.Sequential(Pointwise(inputs, three[0]), Separable(*three, 3))
        self.branch3 = nn.Sequential(nn.MaxPool3d(3, 1, 1), Pointwise(inputs, four))

    def forward(self, x):
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(x)], dim=1)


class Kylemin(nn.Module):
    """The graph of section 3.1, row by row."""

    def __init__(self, num_classes):
        super().__init__()
        plane = nn.MaxPool3d((1, 3, 3), (1, 2, 2), (0, 1, 1))
        self.base = nn.Sequential(
            *(Separable(3, 64, 7, 2), plane, Pointwise(64, 64), Separable(64, 192, 3), plane),
            Mixed(192, 64, (96, 128), (16, 32), 32),
            Mixed(256, 128, (128, 192), (32, 96), 64),
            nn.MaxPool3d(3, 2, 1),
            Mixed(480, 192, (96, 208), (16, 48), 64),
            Mixed(512, 160, (112, 224), (24, 64), 64),
            Mixed(512, 128, (128, 256), (24, 64), 64),
            Mixed(512, 112, (144, 288), (32, 64), 64),
            Mixed(528, 256, (160, 320), (32, 128), 128),
            nn.MaxPool3d(2, 2),
            Mixed(832, 256, (160, 320), (32, 128), 128),
            Mixed(832, 384, (192, 384), (48, 128), 128),
        )
        self.fc = nn.Sequential(nn.Conv3d(1024, num_classes, 1))

    def forward(self, x):
        maps = self.base(x)
        times = [maps[:, :, t : t + 2].mean((2, 3, 4), keepdim=True) for t in range(maps.shape[2] - 1)]
        return self.fc(torch.cat(times, dim=2)).mean((2, 3, 4))


def kylemin(num_classes):
    torch.manual_seed(0)
    model = Kylemin(num_classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm3d):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.1, 0.1)
        elif isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight)
    return model.eval()


@pytest.mark.parametrize(("shape", "window"), [((24, 96, 64), "2x7x7"), ((16, 256, 288), "2xHxW")])
def test_weights_in_the_layout_of_kylemin_give_its_logits(shape, window, tmp_path):
    """No file of that repository is at hand: its graph stands in, with random weights."""
    model = kylemin(11)
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, tmp_path / "S3D_kinetics400.pt")
    task = Classification(S3D(window), nn.CrossEntropyLoss(), [str(i) for i in range(11)]).eval()
    report = load_weights(read_weights(str(tmp_path / "S3D_kinetics400.pt"), Classification, S3D), task, strict=True)
    assert report == f"{len(model.state_dict())} tensors loaded (layout kylemin)"
    x = torch.randn(1, shape[0], 3, *shape[1:])
    with torch.no_grad():
        expected = model(x.transpose(1, 2))
        logits = task.predict({"clip": x})["logits"]
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("extra", [{}, {"fc.0.weight": 1, "fc.0.bias": 1, "base.5.branch0.conv.weight": 1}])
def test_the_layout_of_kylemin_does_not_fit_other_state_dicts(extra):
    with pytest.raises(KeyError):
        S3D.layouts["kylemin"]({key: torch.zeros(1, 1) for key in extra})
