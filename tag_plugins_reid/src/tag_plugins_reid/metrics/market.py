"""Retrieval as Market-1501 and its like are evaluated: rank-k, mean average precision, mINP."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Self

import numpy as np
from torch import Tensor

from tag_core.errors import UserError
from tag_core.kinds import Batch, Outputs
from tag_core.retrieval import distances, expand, re_rank, unit
from tag_plugins_reid.ranking import Pictures, score, summary

QUERY, GALLERY, BOTH, JUNK = range(4)
"""Roles of a picture; without one it has ``BOTH``."""
log = logging.getLogger("tag")


class Market:
    """Rank-k, mAP and mINP of ``embedding``: ``rank1``, ``rank5``, ``rank10``, ``map``, ``minp``.

    A picture of the query's identity is right. Left out of a query's ranking are the query itself, pictures of its
    identity from its own camera, and junk (``role`` 3, or identity "-1"); a distractor is a gallery picture whose
    identity no query has. Pictures at equal distances are in the order of their ``source``, so that it does not matter
    how many processes there were. ``queries_without_match`` counts the queries without a right picture in the gallery.
    Without a camera filter and with one set of pictures, rank-k is what metric learning calls recall@k.

    The batch has ``identity`` (names), or else ``label``; and where the data have them, ``camera`` (-1 unknown) and
    ``role`` (0 query, 1 gallery, 2 both: a query against all others, 3 junk). Keeps the embeddings as float32; what
    computing takes beyond copies of them does not grow with their number, but for re-ranking.

    Args:
        ap: common: as mostly computed, over queries with a match; trapezoid: as Market-1501's authors, over all.
        ranks: the k of rank-k.
        distance: cosine, or Euclidean between the embeddings as they are.
        camera_filter: false keeps pictures of the query's identity from its own camera.
        average: each identity's queries are one, the mean of their embeddings (of their directions, for cosine), and so
            is its gallery, whatever the camera; as the Taobao Live solution validates from videos to pictures.
        expand_queries: nearest gallery pictures that each query is expanded with, 0 for none; cosines.
        expand_gallery: the same for gallery pictures, among the gallery, beforehand (database-side augmentation).
        alpha: power of the cosine, which weighs them.
        re_ranking: k-reciprocal re-ranking (arXiv 1701.08398).
        k1: neighbours in its k-reciprocal sets.
        k2: neighbours in its local query expansion; 1 for none.
        lambda_value: weight of the distance itself beside the Jaccard distance.
    """

    def __init__(
        self,
        ap: Literal["common", "trapezoid"] = "common",
        ranks: list[int] = [1, 5, 10],  # noqa: B006
        distance: Literal["cosine", "euclidean"] = "cosine",
        camera_filter: bool = True,
        average: bool = False,
        expand_queries: int = 0,
        expand_gallery: int = 0,
        alpha: float = 3.0,
        re_ranking: bool = False,
        k1: int = 20,
        k2: int = 6,
        lambda_value: float = 0.3,
    ) -> None:
        if not ranks or min(ranks) < 1:
            raise ValueError(f"ranks must be one number or more, each at least 1, not {ranks}")
        if min(k1, k2) < 1:
            raise ValueError(f"k1 and k2 must be at least 1, not {k1} and {k2}")
        if min(expand_queries, expand_gallery, alpha) < 0:
            raise ValueError("expand_queries, expand_gallery and alpha must not be negative")
        if not 0 <= lambda_value <= 1:
            raise ValueError(f"lambda_value must be in 0 to 1, not {lambda_value}")
        if (expand_queries or expand_gallery) and distance != "cosine":
            raise ValueError("query expansion is for distance = 'cosine'")
        self.ap, self.ranks, self.distance, self.camera_filter, self.average = (
            ap,
            ranks,
            distance,
            camera_filter,
            average,
        )
        self.expand_queries, self.expand_gallery, self.alpha = expand_queries, expand_gallery, alpha
        self.re_ranking, self.k1, self.k2, self.lambda_value = re_ranking, k1, k2, lambda_value
        self._warned = False
        self.reset()

    def update(self, outputs: Outputs, batch: Batch) -> None:
        given, identities = outputs.get("embedding"), batch.get("identity", batch.get("label"))
        if not isinstance(given, Tensor) or identities is None:
            raise UserError(
                "metric reid/market needs an embedding and the identity or label of each picture; "
                "this task and data give something else"
            )
        rows = given.detach().float().cpu().numpy()
        sources = batch.get("source", [""] * len(rows))
        if not np.isfinite(rows).all():
            bad = sources[int(np.isfinite(rows).all(axis=1).argmin())]
            raise UserError(f"metric reid/market: the embedding of {bad or 'a picture'} is infinite or nan")
        names = [str(name) for name in _list(identities)]
        roles = np.asarray(_list(batch.get("role", [BOTH] * len(rows))), np.int64)
        kept = np.flatnonzero((roles != JUNK) & (np.array(names, str) != "-1"))
        cameras = np.asarray(_list(batch.get("camera", [-1] * len(rows))), np.int64)
        self.embeddings.append(unit(rows[kept]) if self.distance == "cosine" else rows[kept])
        self.roles += roles[kept].tolist()
        self.cameras += cameras[kept].tolist()
        self.identities += [names[i] for i in kept]
        self.sources += [sources[i] for i in kept]

    def merge(self, other: Self) -> None:
        self.embeddings += other.embeddings
        self.roles += other.roles
        self.cameras += other.cameras
        self.identities += other.identities
        self.sources += other.sources

    def compute(self) -> Mapping[str, Any]:
        order = np.array(sorted(range(len(self.sources)), key=self.sources.__getitem__), np.int64)
        codes = {name: code for code, name in enumerate(dict.fromkeys(self.identities))}
        identities = np.array([codes[name] for name in self.identities], np.int64)[order]
        cameras = np.array(self.cameras, np.int64)[order] if self.camera_filter else np.full(len(order), -1)
        roles = np.array(self.roles, np.int64)[order]
        features = np.concatenate(self.embeddings)[order] if len(order) else np.zeros((0, 0), np.float32)
        if self.average:
            groups, group = np.unique([roles, identities], axis=1, return_inverse=True)
            counts = np.bincount(group.ravel())
            sums = np.zeros((len(counts), features.shape[1]), np.float32)
            np.add.at(sums, group.ravel(), features)
            features = unit(sums) if self.distance == "cosine" else sums / counts[:, None]
            roles, identities, cameras = *groups, np.full(len(counts), -1)
        queries, gallery = np.flatnonzero(roles != GALLERY), np.flatnonzero(roles != QUERY)
        sides = [Pictures(identities[part], cameras[part], part) for part in (queries, gallery)]
        blocks = self._distances(features, queries, gallery) if len(order) else []
        scores = score(blocks, *sides)
        if len(queries) and (scores.first < 0).all() and not self._warned:
            self._warned = True
            log.warning("reid/market: no query has a right answer: %s", _reason(*sides))
        return summary(scores, self.ap, self.ranks)

    def _distances(self, features: np.ndarray, queries: np.ndarray, gallery: np.ndarray) -> Iterable[np.ndarray]:
        asked, found = features[queries], features[gallery]
        if self.expand_gallery:
            found = expand(found, found, self.expand_gallery, self.alpha, np.arange(len(found)))
        if self.expand_queries:
            own = np.full(len(features), -1)
            own[gallery] = np.arange(len(gallery))
            asked = expand(asked, found, self.expand_queries, self.alpha, own[queries])
        if not self.re_ranking:
            return distances(asked, found, self.distance)
        # One embedding a picture: those that are both query and gallery keep the query's.
        features[gallery], features[queries] = found, asked
        return re_rank(features, queries, gallery, self.k1, self.k2, self.lambda_value)

    def reset(self) -> None:
        self.embeddings: list[np.ndarray] = []
        self.roles: list[int] = []
        self.cameras: list[int] = []
        self.identities: list[str] = []
        self.sources: list[str] = []


def _reason(queries: Pictures, gallery: Pictures) -> str:
    """Why nothing in the gallery is right."""
    if not np.isin(queries.identities, gallery.identities).any():
        return "their identities are others than those of the gallery; are both named the same way?"
    same = np.bincount(gallery.identities, minlength=queries.identities.max() + 1)[queries.identities]
    if (same > np.isin(queries.numbers, gallery.numbers)).any():
        return "all others of their identities are from their own camera; see the data's camera, or camera_filter=false"
    return "no identity has a second picture; give two of each at least, by data.val.source or data.test.source"


def _list(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, Tensor) else list(values)
