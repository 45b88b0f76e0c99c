import json
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models.video import S3D_Weights, s3d

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


@pytest.mark.parametrize("shape", [(5, 17, 17), (8, 64, 48), (16, 112, 112)])
def test_small_clips_train_too(shape):
    torch.manual_seed(0)
    model = S3D().train()
    features = model(torch.randn(2, 3, *shape))
    features.sum().backward()
    assert features.shape == (2, model.feature_dim)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("shape", [(4, 64, 64), (8, 16, 64)])
def test_clips_that_are_too_small_are_refused(shape):
    with pytest.raises(ValueError, match="S3D needs 5 frames of 17x17 or more"):
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
