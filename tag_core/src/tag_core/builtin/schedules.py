"""Learning-rate schedules: optimizer step, counted from 0, to a factor on every learning rate.

All can begin with a linear warm-up, which multiplies the schedule. Schedules that take a share of the training
(cosine, polynomial, one-cycle) begin when the warm-up is over; those that count epochs count from the start.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(kw_only=True)
class Constant:
    """The same learning rate throughout, after the warm-up.

    Args:
        warmup_epochs: length of the warm-up, in epochs.
        warmup_factor: factor at its first step, from where it rises linearly to 1.
    """

    total_steps: int
    steps_per_epoch: int
    warmup_epochs: float = 0.0
    warmup_factor: float = 0.01

    def __post_init__(self) -> None:
        if self.warmup_epochs < 0 or not 0 <= self.warmup_factor <= 1:
            raise ValueError("warmup_epochs must be 0 or more and warmup_factor between 0 and 1")
        self.warmup_steps = round(self.warmup_epochs * self.steps_per_epoch)

    def __call__(self, step: int) -> float:
        if step >= self.warmup_steps:
            return self.decay(step)
        return (self.warmup_factor + (1 - self.warmup_factor) * step / self.warmup_steps) * self.decay(step)

    def decay(self, step: int) -> float:
        """The factor without the warm-up."""
        return 1.0

    def in_steps(self, time: float, unit: str) -> int:
        return round(time * (self.steps_per_epoch if unit == "epoch" else 1))

    def progress(self, step: int) -> float:
        """The share of the steps after the warm-up that is done."""
        return min(1.0, max(0, step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps))


@dataclass(kw_only=True)
class Step(Constant):
    """Multiply by gamma after every so many epochs.

    Args:
        every: epochs (or steps) between changes; a fraction will do.
        gamma: factor at each change.
        unit: whether ``every`` counts epochs or optimizer steps.
    """

    every: float
    gamma: float = 0.1
    unit: Literal["epoch", "step"] = "epoch"

    def decay(self, step: int) -> float:
        return float(self.gamma ** (step // max(1, self.in_steps(self.every, self.unit))))


@dataclass(kw_only=True)
class MultiStep(Constant):
    """Multiply by gamma at each milestone.

    Args:
        milestones: epochs (or steps) at which the factor changes; fractions will do.
        gamma: factor at each milestone.
        unit: whether ``milestones`` are epochs or optimizer steps.
    """

    milestones: list[float]
    gamma: float = 0.1
    unit: Literal["epoch", "step"] = "epoch"

    def decay(self, step: int) -> float:
        return float(self.gamma ** sum(step >= self.in_steps(time, self.unit) for time in self.milestones))


@dataclass(kw_only=True)
class Cosine(Constant):
    """Half a cosine from 1 down to a final factor (SGDR, ICLR 2017, equation 5, without restarts).

    Args:
        final_factor: factor at the end of training.
    """

    final_factor: float = 0.0

    def decay(self, step: int) -> float:
        return _cosine(1.0, self.final_factor, self.progress(step))


@dataclass(kw_only=True)
class Polynomial(Constant):
    """A power of the share of training that is left.

    Args:
        power: exponent; 1 is a straight line.
        final_factor: factor at the end of training.
    """

    power: float = 1.0
    final_factor: float = 0.0

    def decay(self, step: int) -> float:
        return float(self.final_factor + (1 - self.final_factor) * (1 - self.progress(step)) ** self.power)


@dataclass(kw_only=True)
class OneCycle(Constant):
    """One cosine up to the optimizer's learning rate and one down to almost nothing (Smith & Topin).

    Args:
        pct_start: share of the training that goes up.
        div_factor: the first learning rate is the optimizer's divided by this.
        final_div_factor: the last learning rate is the first divided by this.
    """

    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (0 <= self.pct_start < 1 and self.div_factor > 0 and self.final_div_factor > 0):
            raise ValueError("pct_start must be in [0, 1), div_factor and final_div_factor above 0")

    def decay(self, step: int) -> float:
        steps, at = max(1, self.total_steps - self.warmup_steps), max(0, step - self.warmup_steps)
        first, last, peak = 1 / self.div_factor, steps - 1, max(0.0, self.pct_start * steps - 1)
        if at < peak:
            return _cosine(first, 1.0, at / peak)
        down = min(1.0, (at - peak) / (last - peak)) if last > peak else 1.0
        return _cosine(1.0, first / self.final_div_factor, down)


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
