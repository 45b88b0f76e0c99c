"""Several losses as one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, cast

from torch import Tensor, nn

from tag_core.errors import UserError
from tag_core.kinds import Loss


class Sum(nn.Module):
    """The weighted sum of losses, each of what it takes: ``logits``, ``cosines``, ``features`` or all of them.

    Called with a table of these, or with one tensor for every part. Logged: every part's value, ``loss_1`` and so on
    in their order, and what the parts log.

    Args:
        losses: the parts.
        weights: one per part; default: 1 each.
    """

    takes: ClassVar[str] = "all"

    def __init__(self, losses: list[Loss], weights: list[float] | None = None) -> None:
        if not losses:
            raise ValueError("losses must name at least one")
        if weights is not None and len(weights) != len(losses):
            raise ValueError(f"weights must be one per loss: got {len(weights)} for {len(losses)} losses")
        super().__init__()
        self.losses = nn.ModuleList(cast("list[nn.Module]", losses))
        self.weights = weights or [1.0] * len(losses)
        self.log: dict[str, Tensor] = {}

    def forward(self, inputs: Tensor | Mapping[str, Tensor], labels: Tensor) -> Tensor:
        values = [loss(_taken(loss, inputs), labels) for loss in self.losses]
        self.log = {f"loss_{number}": value.detach() for number, value in enumerate(values, 1)}
        for loss in self.losses:
            self.log |= getattr(loss, "log", {})
        return cast(Tensor, sum(weight * value for weight, value in zip(self.weights, values, strict=True)))


def _taken(loss: nn.Module, inputs: Tensor | Mapping[str, Tensor]) -> Tensor | Mapping[str, Tensor]:
    takes = getattr(loss, "takes", "logits")
    if isinstance(inputs, Tensor) or takes == "all":
        return inputs
    if takes not in inputs:
        name = type(loss).__name__
        raise UserError(f"loss reid/sum: {name} takes {takes}, which this task does not give ({', '.join(inputs)})")
    return inputs[takes]
