"""For the engine's tests: videos read in stretches, and a task that finds what is bright in their frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from tag_core.errors import UnreadableInput
from tag_core.media.sources import VIDEO_SUFFIXES, expand_inputs
from tag_core.media.video import open_video
from tag_core.records import Record


class Stretches:
    """A few frames of a video each.

    Args:
        source: videos, or stretches ``a.mp4#0``.
        labelled: nothing is.
        length: frames of a stretch.
    """

    def __init__(self, source: list[str], labelled: bool = True, length: int = 4) -> None:
        self.length, self.items = length, self.expand(source, length)

    @classmethod
    def expand(cls, inputs: Sequence[str], length: int = 4) -> list[str]:
        found = []
        for path in expand_inputs(inputs, VIDEO_SUFFIXES):
            try:
                with open_video(path) as video:
                    found += [f"{path}#{start}" for start in range(0, video.num_frames, length)]
            except UnreadableInput:
                found.append(path)
        return found

    def __len__(self) -> int:
        return len(self.items)

    def key(self, index: int) -> str:
        return self.items[index]

    def file(self, index: int) -> str:
        return self.items[index].partition("#")[0]

    def __getitem__(self, index: int) -> list[dict[str, Any]]:
        path, _, start = self.items[index].partition("#")
        with open_video(path) as video:
            numbers = range(int(start or 0), min(int(start or 0) + self.length, video.num_frames))
            pictures = torch.from_numpy(video.frames(numbers)).permute(0, 3, 1, 2)
        return [{"source": self.key(index), "image": p, "frame": n} for n, p in zip(numbers, pictures, strict=True)]


class Bright(nn.Module):
    """A box around each cell of 8x8 pixels; found are those that are brighter than half."""

    any_size: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.zeros(()))
        self.fused = False

    def fuse(self) -> None:
        self.fused = True

    def dense(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        cells = nn.functional.avg_pool2d(batch["image"].float() / 255, 8).mean(1)
        assert self.fused or torch.compiler.is_exporting() or batch.keys() == {"image"}, "it is fused to predict"
        scores = cells * self.gain.exp()
        rows, columns = torch.arange(cells.shape[1]), torch.arange(cells.shape[2])
        corners = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], 2).flatten(0, 1) * 8.0
        boxes = torch.cat([corners, corners + 8], 1).expand(cells.shape[0], -1, -1)
        return {"scores": scores.flatten(1), "boxes": boxes.contiguous()}

    def select(self, outputs: Any, batch: dict[str, Any]) -> dict[str, Any]:
        order = outputs["scores"].argsort(1, descending=True)[:, :3]
        scores = outputs["scores"].gather(1, order)
        return {"scores": scores, "boxes": outputs["boxes"].gather(1, order[..., None].expand(-1, -1, 4))}

    def predict(self, batch: dict[str, Any]) -> dict[str, Any]:
        return self.select(self.dense(batch), batch)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": self.dense(batch)["scores"].mean()}

    def records(self, outputs: dict[str, Any], batch: dict[str, Any]) -> Iterator[Record]:
        rows = zip(batch["source"], batch["frame"].tolist(), outputs["scores"], outputs["boxes"], strict=True)
        for source, frame, scores, boxes in rows:
            yield Record(source=source, frame=frame, scores=scores.tolist(), boxes=boxes.tolist())


def write_video(path: str, lights: Sequence[tuple[int, int]], side: int = 64) -> None:
    """A dark video with one bright cell a frame, at these columns and rows."""
    import av

    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", rate=10, options={"crf": "0", "bf": "0"})
        stream.width = stream.height = side
        stream.pix_fmt = "yuv444p"
        for column, row in lights:
            frame = np.zeros((side, side, 3), np.uint8)
            frame[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 255
            out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(stream.encode())
