"""Average precision of face detection, as WIDER FACE defines it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from tag_core.errors import UserError
from tag_core.kinds import Batch, Outputs
from tag_plugins_face.wider import SUBSETS, Tally, Truth, picture_name, read_ground_truth


class WiderAP:
    """Average precision at IoU 0.5 by WIDER FACE's definition, :mod:`tag_plugins_face.wider`.

    Without ``ground_truth`` it is ``ap``, over the faces of the data set, all of which count. With it, it is ``easy``,
    ``medium`` and ``hard`` on WIDER FACE's validation pictures, known by their folder and file name; those that were
    not evaluated have all their faces missed, ``missing_pictures`` is their number, and other pictures are left out.
    nan where there is no face to find.

    Reads ``boxes`` [N, K, 4], ``scores`` [N, K] and ``count`` [N] in pixels of the original pictures, and of the batch
    ``faces`` in pixels of its pictures, which are ``scale`` times as large. Keeps a score and some flags per detection.

    Args:
        ground_truth: folder of WIDER FACE's four ``wider_*_val.mat``.
    """

    def __init__(self, ground_truth: str | None = None) -> None:
        self.folder = ground_truth
        self.truth = None if ground_truth is None else read_ground_truth(ground_truth)
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        """Raises UserError for a task or data of another kind, nan, or two pictures of one name."""
        if not {"boxes", "scores", "count"} <= outputs.keys() or (self.truth is None and "faces" not in batch):
            raise UserError(
                "metric face/wider_ap needs scored boxes, and labelled faces where it has no ground_truth; "
                "this task and data give something else"
            )
        found = zip(*(outputs[name].detach().cpu().numpy() for name in ("boxes", "scores", "count")), strict=True)
        for place, (source, (boxes, scores, count)) in enumerate(zip(batch["source"], found, strict=True)):
            boxes, scores = boxes[:count].astype(np.float64), scores[:count].astype(np.float64)
            if not (np.isfinite(scores).all() and np.isfinite(boxes).all()):
                raise UserError(f"metric face/wider_ap: a box or score of {source} is infinite or nan")
            if self.truth is None:
                scale = batch.get("scale", [1.0] * (place + 1))[place]
                faces = batch["faces"][place].boxes.double().cpu().numpy() / float(scale)
                self.tally.add(boxes, scores, Truth(faces, np.ones((len(faces), 1), bool)))
                continue
            name = picture_name(source)
            self._note({name})
            if name in self.truth:
                self.tally.add(boxes, scores, self.truth[name])

    def merge(self, other: Self) -> None:
        self._note(other.names)
        self.tally.merge(other.tally)

    def compute(self) -> Mapping[str, Any]:
        """Raises UserError if pictures were evaluated, and none of them is in the ground truth."""
        if self.truth is None:
            return {"ap": self.tally.average_precision()[0]}
        missing = self.truth.keys() - self.names
        if self.names and len(missing) == len(self.truth):
            raise UserError(
                f"metric face/wider_ap: none of the {len(self.names)} pictures is in the ground truth {self.folder}: "
                f"they have names like {min(self.names)}, it has {min(self.truth)}; keep WIDER FACE's folders of events"
            )
        whole = Tally(len(SUBSETS))
        whole.merge(self.tally)
        for name in missing:
            whole.add(np.zeros((0, 4)), np.zeros(0), self.truth[name])
        return {**dict(zip(SUBSETS, whole.average_precision(), strict=True)), "missing_pictures": len(missing)}

    def reset(self) -> None:
        self.names: set[str] = set()
        self.tally = Tally(1 if self.truth is None else len(SUBSETS))

    def _note(self, names: set[str]) -> None:
        if twice := self.names & names:
            raise UserError(f"metric face/wider_ap: two pictures have the name {min(twice)}; evaluate them apart")
        self.names |= names
