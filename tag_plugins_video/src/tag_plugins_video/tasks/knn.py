"""How good are features? The vote of the nearest training clips."""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tag_core.errors import UserError
from tag_core.kinds import Backbone, Batch, Outputs
from tag_core.records import Record
from tag_plugins_video.tasks.clips import KINETICS_MEAN, KINETICS_STD, ClipEncoder
from tag_plugins_video.tasks.labelling import label_records
from tag_plugins_video.tasks.self_supervised import gather, takes_part


class KNN(ClipEncoder):
    """Weighted k-nearest-neighbour classification on a frozen backbone (Wu et al., CVPR 2018; DINO, arXiv 2104.14294).

    The backbone comes from ``weights=FILE``. Training for one epoch fills the bank with the training clips' features
    and labels; nothing is learned, and the loss is 0. Each of a clip's ``k`` nearest features f votes for its label
    with exp(cosine / temperature); ``scores`` are the shares of the votes. Where the last batch has fewer clips than
    there are processes, some of them do not get into the bank.

    Args:
        backbone: maps [N, C, T, H, W] to features [N, D].
        k: neighbours that vote.
        temperature: the smaller, the more the nearest count.
        bank_size: clips that the bank has room for; at least as many as there are for training.
        mean: of the normalisation, per channel of clips in [0, 1].
        std: of the normalisation.
        top_k: labels per record, best first.
    """

    bank: Tensor
    bank_labels: Tensor
    count: Tensor

    def __init__(
        self,
        backbone: Backbone,
        classes: list[str],
        k: int = 20,
        temperature: float = 0.07,
        bank_size: int = 16384,
        mean: tuple[float, ...] = KINETICS_MEAN,
        std: tuple[float, ...] = KINETICS_STD,
        top_k: int = 5,
    ) -> None:
        if min(k, bank_size, top_k) < 1 or temperature <= 0:
            raise ValueError("k, bank_size and top_k must be at least 1, temperature above 0")
        super().__init__(backbone, mean, std)
        self.classes, self.k, self.temperature, self.top_k = list(classes), k, temperature, top_k
        self.backbone.requires_grad_(False)
        self.nothing = nn.Parameter(torch.zeros(()))  # an optimizer wants something to train
        self.register_buffer("bank", torch.zeros(bank_size, backbone.feature_dim))
        self.register_buffer("bank_labels", torch.zeros(bank_size, dtype=torch.int64))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))

    def train(self, mode: bool = True) -> KNN:
        super().train(mode)
        self.backbone.train(False)
        return self

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        label = batch.get("label")
        if label is None or label.dim() != 1:
            raise UserError(
                "video/knn: every clip needs one label; set data.train.labelled = true, multi_label = false"
            )
        with torch.no_grad():
            features = F.normalize(super().predict(batch)["embedding"], dim=1)
            found = torch.cat([features, label[:, None].to(features)], dim=1)
            if self.training:
                self.remember(gather(found)[0] if takes_part(self) else found)
        return {"loss": self.nothing * 0}

    def remember(self, found: Tensor) -> None:
        """Add rows of features and a label to the bank.

        Raises:
            UserError: it has no room for them.
        """
        start, stop = int(self.count), int(self.count) + len(found)
        if stop > len(self.bank):
            raise UserError(
                f"video/knn: the bank has room for {len(self.bank)} clips; set task.bank_size to the number of "
                "training clips, and train.epochs = 1"
            )
        self.bank[start:stop], self.bank_labels[start:stop] = found[:, :-1], found[:, -1].long()
        self.count.fill_(stop)

    def predict(self, batch: Batch) -> Outputs:
        """``scores`` [N, classes], the shares of the votes, and ``embedding`` [N, D]."""
        embedding = super().predict(batch)["embedding"]
        count = int(self.count)
        if not count:
            raise UserError("video/knn: the bank is empty; train for one epoch to fill it")
        queries = F.normalize(embedding, dim=1)
        cosines, nearest = (queries @ self.bank[:count].T).topk(min(self.k, count), dim=1)
        weights = (cosines / self.temperature).softmax(dim=1)
        votes = weights.new_zeros(len(queries), len(self.classes))
        scores = votes.scatter_add_(1, self.bank_labels[nearest], weights)
        return {"scores": scores, "embedding": embedding}

    def records(self, outputs: Outputs, batch: Batch) -> Iterator[Record]:
        return label_records(outputs, batch, self.classes, self.top_k)
