import math
import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from tag_core.builtin.schedules import Constant, Cosine, MultiStep, OneCycle, Polynomial, Step

TOTAL, EPOCH = 60, 6


def of_torch(build, lr=1.0):
    """The learning rates of a scheduler of torch's, over the whole training."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr, momentum=0.9)
    scheduler = build(optimizer)
    rates = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optimizer.step is never called
        for _ in range(TOTAL):
            rates.append(optimizer.param_groups[0]["lr"])
            scheduler.step()
    return rates


def rates(build, **options):
    schedule = build(total_steps=TOTAL, steps_per_epoch=EPOCH, **options)
    return [schedule(step) for step in range(TOTAL)]


CASES = {
    "constant": (rates(Constant), lambda o: lr_scheduler.LambdaLR(o, lambda step: 1.0)),
    "step": (rates(Step, every=3, gamma=0.5), lambda o: lr_scheduler.StepLR(o, 3 * EPOCH, 0.5)),
    "step in steps": (rates(Step, every=7, unit="step"), lambda o: lr_scheduler.StepLR(o, 7, 0.1)),
    "multi-step in steps": (
        rates(MultiStep, milestones=[11, 40], unit="step"),
        lambda o: lr_scheduler.MultiStepLR(o, [11, 40], 0.1),
    ),
    "step of part of an epoch": (rates(Step, every=7 / EPOCH), lambda o: lr_scheduler.StepLR(o, 7, 0.1)),
    "multi-step": (
        rates(MultiStep, milestones=[2, 5.5], gamma=0.3),
        lambda o: lr_scheduler.MultiStepLR(o, [2 * EPOCH, 33], 0.3),
    ),
    "cosine": (rates(Cosine, final_factor=0.1), lambda o: lr_scheduler.CosineAnnealingLR(o, TOTAL, 0.1)),
    "polynomial": (rates(Polynomial, power=0.9), lambda o: lr_scheduler.PolynomialLR(o, TOTAL, 0.9)),
    "one-cycle": (
        rates(OneCycle, pct_start=0.4, div_factor=10, final_div_factor=100),
        lambda o: lr_scheduler.OneCycleLR(o, 1.0, TOTAL, pct_start=0.4, div_factor=10, final_div_factor=100),
    ),
    "cosine after warm-up": (
        rates(Cosine, warmup_epochs=1.5, warmup_factor=0.1),
        lambda o: lr_scheduler.SequentialLR(
            o,
            [lr_scheduler.LinearLR(o, 0.1, total_iters=9), lr_scheduler.CosineAnnealingLR(o, TOTAL - 9)],
            [9],
        ),
    ),
    "milestones counted from the start, warm-up or not": (
        rates(MultiStep, milestones=[2, 5], warmup_epochs=3, warmup_factor=0.2),
        lambda o: lr_scheduler.ChainedScheduler(
            [
                lr_scheduler.MultiStepLR(o, [2 * EPOCH, 5 * EPOCH]),
                lr_scheduler.LinearLR(o, 0.2, total_iters=3 * EPOCH),
            ]
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_every_step_has_the_rate_of_torch(case):
    mine, build = CASES[case]
    assert mine == pytest.approx(of_torch(build), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("build", "options"),
    [
        (Constant, {}),
        (Step, {"every": 1}),
        (MultiStep, {"milestones": [1, 2]}),
        (Cosine, {}),
        (Polynomial, {"power": 0.5}),
        (OneCycle, {}),
    ],
)
@pytest.mark.parametrize("total", [1, 2, 3, 5])
@pytest.mark.parametrize("warmup", [0.0, 0.5, 100.0])
def test_the_shortest_trainings_have_a_rate_at_every_step_and_beyond(build, options, total, warmup):
    schedule = build(total_steps=total, steps_per_epoch=1, warmup_epochs=warmup, **options)
    factors = [schedule(step) for step in range(total + 3)]
    assert all(math.isfinite(f) and 0 <= f <= 1 for f in factors)


def test_final_factors_are_reached_and_held():
    for build in (Cosine, Polynomial):
        schedule = build(total_steps=10, steps_per_epoch=1, final_factor=0.05)
        assert [schedule(10), schedule(50)] == pytest.approx([0.05, 0.05])
    assert OneCycle(total_steps=10, steps_per_epoch=1)(50) == pytest.approx(1 / 25e4)


@pytest.mark.parametrize(
    ("build", "options"),
    [(Constant, {"warmup_epochs": -1.0}), (Cosine, {"warmup_factor": 2.0}), (OneCycle, {"pct_start": 1.0})],
)
def test_impossible_options_are_refused_by_name(build, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        build(total_steps=10, steps_per_epoch=1, **options)
