"""Videos together with their optical flow."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tag_core.errors import UnreadableInput, UserError
from tag_core.kinds import Dataset
from tag_core.media.sources import VIDEO_SUFFIXES, expand_inputs
from tag_plugins_video.datasets.base import ClipDataset
from tag_plugins_video.flow_store import SUFFIX, FlowStore


class TwoStream:
    """Videos and their flow for the task ``video/two-stream``.

    A sample is one of ``rgb``, with ``flow``, the clip that ``flow`` makes of the same video. A video's flow is
    the file in ``flow_source`` with the video's path below some folder, as 'tag-run flow' names it:
    ``clips/up/a.mp4`` has ``up/a.mp4.flow``. A video without flow cannot be read.

    Args:
        source: what ``rgb`` lists.
        flow_source: folder that 'tag-run flow' made of these videos.
        rgb: a data set of video files, such as video/folder; the four options of every data set are set here.
        flow: video/flow, likewise.
        labelled: False takes files, folders or patterns without labels.
        classes: names in index order; default: those of ``rgb``.
        random: choose frames at random (training), in both streams.
    """

    def __init__(
        self,
        source: str | list[str],
        flow_source: str,
        rgb: Callable[..., Dataset],
        flow: Callable[..., Dataset],
        labelled: bool = True,
        classes: list[str] | None = None,
        random: bool = False,
    ) -> None:
        if not Path(flow_source).is_dir():
            raise UserError(f"flow_source: {flow_source}: no such folder; make it: tag-run flow VIDEOS {flow_source}")
        self.rgb: Any = rgb(source=source, labelled=labelled, classes=classes, random=random)
        if not isinstance(self.rgb, ClipDataset):
            raise ValueError("rgb must be a data set of video files, such as video/folder")
        self.classes, self.flow_source = self.rgb.classes, flow_source
        made = {
            str(Path(path).relative_to(flow_source)): path for path in expand_inputs([flow_source], frozenset([SUFFIX]))
        }
        self.flows = [_find(made, item.path) for item in self.rgb.items]
        found = list(dict.fromkeys(path for path in self.flows if path))
        self.flow: Any = flow(source=found, labelled=False, random=random)
        self.places = {path: index for index, path in enumerate(found)}

    @classmethod
    def expand(cls, inputs: Sequence[str]) -> list[str]:
        """The videos that prediction reads for these files, folders and patterns."""
        return expand_inputs(inputs, VIDEO_SUFFIXES)

    def __len__(self) -> int:
        return len(self.rgb)

    def __getitem__(self, index: int) -> dict[str, Any]:
        video, path = self.rgb.items[index].path, self.flows[index]
        if path is None:
            reason = f"no optical flow of it in {self.flow_source}; make it with 'tag-run flow'"
            raise UnreadableInput(self.key(index), reason)
        sample = dict(self.rgb[index])
        try:
            with FlowStore(path) as store:
                if store.video_bytes not in (None, os.path.getsize(video)):
                    raise UnreadableInput(path, "made of another video; set flow_source, or make it anew")
            flow = self.flow[self.places[path]]
        except UnreadableInput as error:
            raise UnreadableInput(self.key(index), f"its flow: {error}") from error
        damage = "; ".join(text for text in (sample["damage"], flow["damage"]) if text)
        return {**sample, "flow": flow["clip"], "damage": damage or None}

    def key(self, index: int) -> str:
        return self.rgb.key(index)  # type: ignore[no-any-return]

    def label(self, index: int) -> int | list[int]:
        return self.rgb.label(index)  # type: ignore[no-any-return]


def _find(made: dict[str, str], video: str) -> str | None:
    """The flow of a video among files by their path in the flow folder; the longest such path wins."""
    parts = Path(video).absolute().parts[1:]
    names = (str(Path(*parts[start:])) + SUFFIX for start in range(len(parts)))
    return next((made[name] for name in names if name in made), None)
