"""Late fusion of two streams: what a video looks like, and how it moves."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from tag_core.kinds import Batch, Outputs, Task
from tag_core.records import Record
from tag_plugins_video.tasks.labelling import label_records


class TwoStream(nn.Module):
    """Two classifiers, of pictures and of optical flow; their scores are averaged (arXiv 1406.2199, section 2).

    Reads what data set video/two-stream gives: ``clip`` for the one, ``flow`` in its place for the other.
    The streams share nothing, so training them together, by the sum of their losses, is training each.

    Args:
        rgb: the task of the pictures, such as video/classification; ``weights.rgb`` are its weights.
        flow: the task of the flow; ``weights.flow`` are its weights.
        rgb_weight: of the pictures' scores in the mean.
        flow_weight: of the flow's scores.
        top_k: labels per record, best first.
    """

    def __init__(
        self,
        rgb: Callable[..., Task],
        flow: Callable[..., Task],
        classes: list[str],
        rgb_weight: float = 1.0,
        flow_weight: float = 1.0,
        top_k: int = 5,
    ) -> None:
        if min(rgb_weight, flow_weight) < 0 or rgb_weight + flow_weight <= 0 or top_k < 1:
            given = f"{rgb_weight}, {flow_weight} and {top_k}"
            raise ValueError(f"rgb_weight and flow_weight: one above 0 and none below, top_k 1 or more; got {given}")
        super().__init__()
        self.rgb, self.flow, self.classes = rgb(classes=classes), flow(classes=classes), list(classes)
        self.share = flow_weight / (rgb_weight + flow_weight)
        self.top_k = top_k

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        rgb, flow = self.rgb(batch)["loss"], self.flow(_flow_of(batch))["loss"]
        return {"loss": rgb + flow}

    def predict(self, batch: Batch) -> Outputs:
        """``scores`` [N, classes], the weighted mean; ``embedding`` of both; with labels the sum of the losses."""
        rgb, flow = self.rgb.predict(batch), self.flow.predict(_flow_of(batch))
        outputs = {"scores": torch.lerp(rgb["scores"], flow["scores"], self.share)}
        outputs["embedding"] = torch.cat([rgb["embedding"], flow["embedding"]], dim=1)
        if "label" in batch:
            outputs["loss"] = rgb["loss"] + flow["loss"]
        return outputs

    def records(self, outputs: Outputs, batch: Batch) -> Iterator[Record]:
        return label_records(outputs, batch, self.classes, self.top_k)


def _flow_of(batch: Batch) -> Batch:
    """The batch as a task of flow reads it."""
    return {**batch, "clip": batch["flow"]}
