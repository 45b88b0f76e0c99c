"""Records of labelled clips and sequences, shared by the tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tag_core.kinds import Batch, Outputs
from tag_core.records import Record


def label_records(outputs: Outputs, batch: Batch, classes: Sequence[str], top_k: int) -> Iterator[Record]:
    """A record per sample: its ``top_k`` best of ``scores`` [N, classes], and what the batch knows of it."""
    best, order = (part.tolist() for part in outputs["scores"].float().topk(min(top_k, len(classes)), dim=1))
    truth = batch["label"].tolist() if "label" in batch else None
    for i, source in enumerate(batch["source"]):
        record = Record(source=source, scores=best[i], damage=batch["damage"][i])
        record.labels = [classes[j] for j in order[i]]
        if "time" in batch:
            record.time = list(batch["time"][i])
        if truth is not None:
            record.truth = _names(truth[i], classes)
        yield record


def _names(label: int | list[float], classes: Sequence[str]) -> str | None:
    """Of the true classes, by index or as a 0/1 vector; -1 is unknown."""
    if isinstance(label, int):
        return classes[label] if label >= 0 else None
    return "; ".join(name for name, present in zip(classes, label, strict=True) if present > 0)
