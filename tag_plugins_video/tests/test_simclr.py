import numpy as np
import pytest
import torch
from torch import nn

from tag_plugins_video.models.c3d_tiny import C3DTiny
from tag_plugins_video.tasks.simclr import SimCLR, nt_xent


def by_hand(first, second, temperature):
    """Equation 1 and algorithm 1 of the paper, as loops: the loss of each of the 2N clips."""
    z = np.concatenate([first, second])
    n, losses = len(first), []
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        others = sum(np.exp(z[i] @ z[k] / temperature) for k in range(2 * n) if k != i)
        losses.append(-np.log(np.exp(z[i] @ z[j] / temperature) / others))
    return np.array(losses)


def unit(*shape):
    rows = np.random.default_rng(0).standard_normal(shape)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_loss_is_that_of_the_paper_for_any_part_of_the_batch():
    first, second = unit(2, 6, 8)
    a, b, expected = torch.tensor(first), torch.tensor(second), by_hand(first, second, 0.1)
    assert float(nt_xent(a, a, b, 0, 0.1)) == pytest.approx(expected[:6].mean(), rel=1e-9)
    assert float(nt_xent(b[2:5], b, a, 2, 0.1)) == pytest.approx(expected[8:11].mean(), rel=1e-9)


def test_the_task_compares_projections_of_unit_length():
    torch.manual_seed(0)
    task = SimCLR(C3DTiny(width=4), dim=8, temperature=0.5).eval()
    clips = torch.randint(0, 256, (5, 2, 4, 3, 16, 16), dtype=torch.uint8)
    with torch.no_grad():
        z = [nn.functional.normalize(task.projector(task.backbone(task.prepare(clips[:, v]))), dim=1) for v in (0, 1)]
        loss = float(task({"clip": clips})["loss"])
    assert loss == pytest.approx(by_hand(z[0].numpy(), z[1].numpy(), 0.5).mean(), rel=1e-5)


def test_the_loss_reaches_every_parameter():
    torch.manual_seed(0)
    task = SimCLR(C3DTiny(width=4)).train()
    task({"clip": torch.randint(0, 256, (4, 2, 4, 3, 16, 16), dtype=torch.uint8)})["loss"].backward()
    # The projection's last bias moves all clips alike, but not along one line: it has a gradient too.
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.parameters())


def test_a_temperature_of_nothing_is_refused():
    with pytest.raises(ValueError, match="temperature must be above 0"):
        SimCLR(C3DTiny(), temperature=0)
