import numpy as np
import pytest
import torch

from tag_plugins_video.models.c3d_tiny import C3DTiny
from tag_plugins_video.tasks.byol import BYOL


def build(**options):
    torch.manual_seed(0)
    return BYOL(C3DTiny(width=4), **{"dim": 8, "hidden": 16, "momentum": 0.9, **options})


def batch(count=4):
    return {"clip": torch.randint(0, 256, (count, 2, 4, 3, 16, 16), dtype=torch.uint8)}


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_loss_is_that_of_the_paper_both_ways():
    task, data = build().eval(), batch()
    task.target.module[1][-1].bias.data += 1  # another network than the online one
    with torch.no_grad():
        clips = [task.prepare(data["clip"][:, view]) for view in (0, 1)]
        predicted = [unit(task.predictor(task.projector(task.backbone(clip))).numpy()) for clip in clips]
        target = [unit(task.target(clip).numpy()) for clip in clips]
        loss = float(task(data)["loss"])
    ways = [((predicted[a] - target[b]) ** 2).sum(1).mean() for a, b in ((0, 1), (1, 0))]
    assert loss == pytest.approx(sum(ways), rel=1e-5)


def test_gradients_reach_the_online_network_and_nothing_else():
    task = build().train()
    task(batch())["loss"].backward()
    with_gradient = {name.split(".")[0] for name, p in task.named_parameters() if p.grad is not None}
    assert with_gradient == {"backbone", "projector", "predictor"}


def test_a_forward_pass_moves_the_target_in_training_only():
    task = build().train()
    task(batch())  # the first one copies
    task.backbone.layers[0][0].weight.data += 1
    before = task.target.module[0].layers[0][0].weight.clone()
    task.eval()(batch())
    assert torch.equal(task.target.module[0].layers[0][0].weight, before)
    task.train()(batch())
    torch.testing.assert_close(task.target.module[0].layers[0][0].weight, before + 0.1)


def test_a_batch_of_one_video_trains():
    assert build().train()(batch(1))["loss"].isfinite()
