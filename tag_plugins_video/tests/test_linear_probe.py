import pytest
import torch
from torch import nn

from tag_plugins_video.models.c3d_tiny import C3DTiny
from tag_plugins_video.tasks.linear_probe import LinearProbe


def build():
    torch.manual_seed(0)
    return LinearProbe(C3DTiny(width=4), nn.CrossEntropyLoss(), classes=["a", "b", "c"])


def batch(count=6):
    clip = torch.randint(0, 256, (count, 4, 3, 16, 16), dtype=torch.uint8)
    return {"clip": clip, "label": torch.arange(count) % 3}


def test_training_leaves_the_backbone_and_its_statistics_untouched():
    task = build().train()
    before = {key: value.clone() for key, value in task.backbone.state_dict().items()}
    head = task.head[1].weight.clone()
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], 0.1, weight_decay=0.1)
    for _ in range(3):
        task(batch())["loss"].backward()
        optimizer.step()
    assert all(torch.equal(value, before[key]) for key, value in task.backbone.state_dict().items())
    assert not torch.equal(task.head[1].weight, head)
    assert {name for name, p in task.named_parameters() if p.grad is not None} == {"head.1.weight", "head.1.bias"}


def test_the_classifier_sees_features_of_mean_0_and_variance_1():
    task, data = build().train(), batch()
    task.backbone.eval()
    features = task.backbone(task.prepare(data["clip"])).detach()
    normal = (features - features.mean(0)) / (features.var(0, unbiased=False) + 1e-5).sqrt()
    logits = normal @ task.head[1].weight.T + task.head[1].bias
    torch.testing.assert_close(task(data)["loss"], nn.functional.cross_entropy(logits, data["label"]))


def test_training_mode_does_not_reach_the_backbone():
    task = build().train()
    assert task.training
    assert task.head.training
    assert not any(module.training for module in task.backbone.modules())


def test_a_batch_of_one_clip_trains():
    assert build().train()(batch(1))["loss"].isfinite()


def test_predictions_are_those_of_a_classifier():
    task = build().eval()
    outputs = task.predict(batch())
    torch.testing.assert_close(outputs["scores"].sum(1), torch.ones(6))
    assert outputs["embedding"].shape == (6, 16)
    assert outputs["loss"].item() == pytest.approx(1.1, abs=0.1)
