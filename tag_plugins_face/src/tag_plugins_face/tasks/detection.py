"""Faces in pictures, with five landmarks each: RetinaFace (Deng et al., CVPR 2020) without its mesh branch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.nn.utils.rnn import pad_sequence
from torchvision.ops import nms as suppress

from tag_core.errors import UserError
from tag_core.kinds import Backbone, Batch, Outputs
from tag_core.records import Record
from tag_plugins_face.align import aligned
from tag_plugins_face.anchors import Sizes, cached_anchors, cells, make_anchors
from tag_plugins_face.boxes import Variances, decode_boxes, decode_landmarks
from tag_plugins_face.faces import Faces
from tag_plugins_face.matching import MultiBoxLoss
from tag_plugins_face.models.pyramid import Pyramid

StateDict = dict[str, Tensor]
HEADS = {"ClassHead": 2, "BboxHead": 4, "LandmarkHead": 10}
"""The public files' heads, and how many numbers each tells of an anchor: background, face; box; landmarks."""


def from_retinaface(state: StateDict) -> StateDict:
    """Keys of the public repository biubug6/Pytorch_Retinaface and its forks to those of :class:`Detection`.

    Raises:
        KeyError: this is not such a state dict.
    """
    mapped = {}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part not in HEADS:
            mapped[f"backbone.{rest}" if part == "body" else f"pyramid.{key.replace('X', 'x')}"] = value
    for level in range(3):
        for kind in ("weight", "bias"):
            found = {values: state[f"{head}.{level}.conv1x1.{kind}"] for head, values in HEADS.items()}
            if any(len(value) % values for values, value in found.items()):
                raise KeyError(f"heads of level {level}")
            anchors = [value.view(-1, values, *value.shape[1:]) for values, value in found.items()]
            mapped[f"pyramid.heads.{level}.{kind}"] = torch.cat(anchors, 1).flatten(0, 1)
    return mapped


class Detection(nn.Module):
    """Box, score and landmarks (left eye, right eye, nose, left and right mouth corner, as seen) of every face.

    Reads ``image`` [N, 3, H, W], RGB from 0 to 255 and of any size, and in training ``faces``, in its pixels. What is
    found is given in pixels of the original picture: of ``image``, divided by ``scale`` where the batch has one.

    Args:
        backbone: gives maps of three sizes.
        width: channels of the pyramid's maps, a multiple of 4.
        sizes: sides in pixels of a cell's anchors, by map.
        strides: pixels from a cell of each map to the next, as the backbone has them.
        variances: scale of the offsets of centres and landmarks, and of sizes.
        mean: of red, green and blue, taken off; the network sees blue, green, red.
        threshold: score above which there is a face.
        top_k: boxes of highest score that are compared with one another, at most.
        nms: IoU above which the box of the lower score is dropped.
        keep: faces of a picture, at most.
        match_iou: IoU from which an anchor is to find a face in training.
        drop_iou: a face whose best anchor has less IoU is left out of training.
        negatives: anchors that count as background in training, per matched one.
        box_weight: of the loss of boxes.
        class_weight: of the loss of face or background.
        landmark_weight: of the loss of landmarks.
    """

    any_size = True
    layouts: ClassVar[dict[str, Callable[[StateDict], StateDict]]] = {"retinaface": from_retinaface}
    mean: Tensor
    loss_weights: Tensor

    def __init__(
        self,
        backbone: Backbone,
        width: int = 64,
        sizes: Sizes = ((16, 32), (64, 128), (256, 512)),
        strides: tuple[int, int, int] = (8, 16, 32),
        variances: Variances = (0.1, 0.2),
        mean: tuple[float, float, float] = (123, 117, 104),
        threshold: float = 0.02,
        top_k: int = 5000,
        nms: float = 0.4,
        keep: int = 750,
        match_iou: float = 0.35,
        drop_iou: float = 0.2,
        negatives: int = 7,
        box_weight: float = 2.0,
        class_weight: float = 1.0,
        landmark_weight: float = 1.0,
    ) -> None:
        channels = getattr(backbone, "channels", None)
        if not isinstance(channels, (list, tuple)) or len(channels) != 3:
            raise ValueError("backbone must give three maps and have their channels, as face/mobilenet0.25 does")
        if len(sizes) != 3 or not all(of_map and min(of_map) > 0 for of_map in sizes):
            raise ValueError(f"sizes must be those of 3 maps, each one or more above 0, got {sizes}")
        if width < 4 or width % 4 or min(*strides, *variances, top_k, keep) <= 0:
            raise ValueError("width must be a multiple of 4, and strides, variances, top_k and keep above 0")
        if not (0 <= threshold < 1 and 0 <= nms <= 1 and 0 < match_iou <= 1 and 0 <= drop_iou <= 1):
            raise ValueError("threshold, nms, match_iou and drop_iou must lie between 0 and 1")
        super().__init__()
        self.backbone: Any = backbone
        self.pyramid = Pyramid(channels, width, [len(of_map) for of_map in sizes], sum(HEADS.values()))
        self.loss = MultiBoxLoss(variances, match_iou, drop_iou, negatives)
        self.sizes, self.strides, self.variances = sizes, strides, variances
        self.threshold, self.top_k, self.nms, self.keep = threshold, top_k, nms, keep
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).view(-1, 1, 1), persistent=False)
        weights = torch.tensor([class_weight, box_weight, landmark_weight], dtype=torch.float32)
        self.register_buffer("loss_weights", weights, persistent=False)

    def offsets(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """[N, 3, H, W] to [N, A, 16]: logits of background and face, offsets of box and landmarks; and anchors [A, 4].

        Raises:
            UserError: the backbone's maps have other strides.
        """
        maps = self.backbone.maps(pictures.to(self.mean.device).flip(1).to(self.mean).sub_(self.mean.flip(0)))
        grid = tuple((each.shape[2], each.shape[3]) for each in maps)
        exporting = torch.compiler.is_exporting()
        if not exporting and grid != cells(pictures.shape[2], pictures.shape[3], self.strides):
            raise UserError(f"task.strides={list(self.strides)}: the backbone's maps have others")
        make = make_anchors if exporting else cached_anchors
        return self.pyramid(maps).float(), make(grid, self.sizes, self.strides, self.mean.device)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """``loss``, the weighted sum of ``class_loss``, ``box_loss`` and ``landmark_loss``."""
        offsets, anchors = self.offsets(batch["image"])
        faces = [Faces(each.boxes.to(anchors), each.landmarks.to(anchors)) for each in batch["faces"]]
        losses = torch.stack(self.loss(*_split(offsets), anchors, faces))
        told = dict(zip(("class_loss", "box_loss", "landmark_loss"), losses, strict=True))
        return {"loss": (losses * self.loss_weights).sum(), **told}

    def dense(self, batch: Batch) -> dict[str, Tensor]:
        """Boxes [N, A, 4], scores [N, A] and landmarks [N, A, 5, 2] of all anchors, in pixels of the image."""
        offsets, anchors = self.offsets(batch["image"])
        boxes, landmarks = self._decode(offsets, anchors)
        return {"boxes": boxes, "scores": _scores(offsets), "landmarks": landmarks}

    def predict(self, batch: Batch) -> dict[str, Tensor]:
        """What :meth:`select` makes of :meth:`dense`; only anchors of a score above the threshold are decoded."""
        offsets, anchors = self.offsets(batch["image"])
        scores = _scores(offsets)
        chosen = [self._candidates(each) for each in scores]
        decoded = [self._decode(of_one[index], anchors[index]) for of_one, index in zip(offsets, chosen, strict=True)]
        found = [(b, s[i], p) for (b, p), s, i in zip(decoded, scores, chosen, strict=True)]
        return self._padded([self._distinct(*each) for each in found], batch)

    def select(self, outputs: Outputs, batch: Batch) -> dict[str, Tensor]:
        """The faces of each picture, in pixels of the original, highest score first and padded with zeros.

        ``boxes`` [N, K, 4], ``scores`` [N, K], ``landmarks`` [N, K, 5, 2] and ``count`` [N] of them.
        """
        chosen = [self._candidates(each) for each in outputs["scores"]]
        values = zip(outputs["boxes"], outputs["scores"], outputs["landmarks"], strict=True)
        found = [(b[i], s[i], p[i]) for (b, s, p), i in zip(values, chosen, strict=True)]
        return self._padded([self._distinct(*each) for each in found], batch)

    def _decode(self, offsets: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor]:
        _, boxes, landmarks = _split(offsets)
        return decode_boxes(boxes, anchors, self.variances), decode_landmarks(landmarks, anchors, self.variances)

    def _candidates(self, scores: Tensor) -> Tensor:
        """The highest scores' places [K] of [A]."""
        index = torch.nonzero(scores > self.threshold).flatten()
        return index[scores[index].argsort(descending=True, stable=True)[: self.top_k]]

    def _distinct(self, boxes: Tensor, scores: Tensor, landmarks: Tensor) -> tuple[Tensor, ...]:
        """Non-maximum suppression; a box from pixel 3 to pixel 5 counts as 3 pixels long."""
        kept = suppress(boxes + boxes.new_tensor([0, 0, 1, 1]), scores, self.nms)[: self.keep]
        return boxes[kept], scores[kept], landmarks[kept]

    def _padded(self, found: Sequence[tuple[Tensor, ...]], batch: Batch) -> dict[str, Tensor]:
        boxes, scores, landmarks = (pad_sequence(list(each), batch_first=True) for each in zip(*found, strict=True))
        if "scale" in batch:
            scale = batch["scale"].to(boxes)[:, None, None]
            boxes, landmarks = boxes / scale, landmarks / scale[..., None]
        count = torch.tensor([len(scores) for _, scores, _ in found], device=boxes.device)
        return {"boxes": boxes, "scores": scores, "landmarks": landmarks, "count": count}

    def records(self, outputs: Outputs, batch: Batch) -> Iterator[Record]:
        """One record per sample; its lists are empty where no face is found."""
        found = zip(*(outputs[name].tolist() for name in ("boxes", "scores", "landmarks", "count")), strict=True)
        for i, (boxes, scores, landmarks, count) in enumerate(found):
            record = Record(source=batch["source"][i], boxes=boxes[:count], scores=scores[:count])
            record.keypoints, record.damage = landmarks[:count], batch["damage"][i]
            if "frame" in batch:
                record.frame, record.time = int(batch["frame"][i]), float(batch["time"][i])
            yield record

    def crops(self, image: np.ndarray, record: Record) -> list[np.ndarray]:
        """The record's faces out of its picture [H, W, 3], as :func:`~tag_plugins_face.align.aligned` cuts them."""
        return [aligned(image, np.array(landmarks)) for landmarks in record.keypoints or ()]

    def fuse(self) -> None:
        """Fold batch norms into the convolutions in front of them: faster, and no longer fit for training."""
        for module in list(self.modules()):
            names = [name for name, _ in module.named_children()]
            for first, second in pairwise(names):
                conv, norm = getattr(module, first), getattr(module, second)
                follows = isinstance(module, nn.Sequential) or second == first.replace("conv", "bn")
                if follows and isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    setattr(module, first, fuse_conv_bn_eval(conv, norm))
                    setattr(module, second, nn.Identity())


def _split(offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits [..., 2], offsets of boxes [..., 4] and of landmarks [..., 5, 2]."""
    return offsets[..., :2], offsets[..., 2:6], offsets[..., 6:].reshape(*offsets.shape[:-1], 5, 2)


def _scores(offsets: Tensor) -> Tensor:
    """The softmax of the logits of background and face, as the face's share."""
    return (offsets[..., 1] - offsets[..., 0]).sigmoid()
