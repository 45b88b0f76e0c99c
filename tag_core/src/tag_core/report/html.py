"""``report.html``: one file that shows a run and needs nothing else."""

from __future__ import annotations

import base64
import heapq
import io
import json
import shlex
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined, Template

from tag_core.errors import RunFolderError, UnreadableInput
from tag_core.files import write_text
from tag_core.recipe import parse_toml
from tag_core.records import Record, read_records
from tag_core.report.charts import HEIGHT, WIDTH, charts, finite, percent, readable, value_text
from tag_core.report.pictures import is_right, look

EXAMPLES, MAX_MATRIX, MAX_PAIRS, MAX_INPUTS, MAX_LOG = 6, 40, 30, 200, 200


@dataclass
class Best:
    """The ``size`` records of the greatest key."""

    size: int = EXAMPLES
    heap: list[tuple[float, int, Record]] = field(default_factory=list)

    def offer(self, key: float, number: int, record: Record) -> None:
        (heapq.heappush if len(self.heap) < self.size else heapq.heappushpop)(self.heap, (key, -number, record))

    def __iter__(self) -> Iterator[Record]:
        return (record for _, _, record in sorted(self.heap, reverse=True))


@dataclass
class Predictions:
    """What one pass over ``predictions.jsonl`` tells."""

    right: Best = field(default_factory=Best)
    wrong: Best = field(default_factory=Best)
    sure: Best = field(default_factory=Best)
    unsure: Best = field(default_factory=Best)
    pairs: Counter[tuple[str, str]] = field(default_factory=Counter)
    sources: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)
    damaged: dict[str, str] = field(default_factory=dict)

    def add(self, number: int, record: Record) -> None:
        self.sources.add(record.source)
        if record.error is not None:
            self.unreadable[record.source] = record.error
            return
        if record.damage:
            self.damaged[record.source] = record.damage
        if not record.labels or not record.scores or not finite(score := record.scores[0]):
            return
        if record.truth is None:
            self.sure.offer(score, number, record)
            self.unsure.offer(-score, number, record)
            return
        self.pairs[record.truth, record.labels[0]] += 1
        (self.right if is_right(record) else self.wrong).offer(score, number, record)


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from what a run's folder holds; a part that is not there is left out.

    Raises:
        RunFolderError: a file of the folder is malformed, or the report cannot be written.
        UserError: a line of ``predictions.jsonl`` is not a record.
    """
    predictions = Predictions()
    if (folder / "predictions.jsonl").is_file():
        for number, record in enumerate(read_records(folder / "predictions.jsonl")):
            predictions.add(number, record)
    metrics, environment = _json(folder / "metrics.json"), _json(folder / "environment.json")
    recipe_text, rows = _text(folder / "recipe.toml"), _rows(folder / "scores.jsonl")
    recipe = parse_toml(recipe_text, str(folder / "recipe.toml"))
    classes, matrix = _matrix(metrics, predictions)
    page = _template().render(
        name=folder.resolve().name,
        recipe=recipe,
        recipe_text=recipe_text,
        date=_date(folder),
        headline=_headline(recipe, metrics, rows, predictions),
        scores=[(readable(name), value_text(value, name)) for name, value in metrics.get("scores", {}).items()],
        charts=charts(rows),
        classes=classes,
        matrix=matrix if len(classes) <= MAX_MATRIX else [],
        pairs=_confused(classes, matrix) if len(classes) > MAX_MATRIX else [],
        per_class=_per_class(classes, matrix),
        examples=_examples(predictions),
        coverage=_coverage(metrics, predictions),
        environment=environment,
        command=shlex.join(environment.get("command", [])),
        plugins=_json(folder / "plugins.json"),
        log=_text(folder / "log.txt").splitlines()[-MAX_LOG:],
        size=(WIDTH, HEIGHT),
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=percent, readable=readable, value=value_text)
    return environment.from_string(files("tag_core.report").joinpath("template.html").read_text("utf-8"))


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def _json(path: Path) -> Any:
    try:
        return json.loads(_text(path) or "{}")
    except ValueError as error:
        raise RunFolderError(f"{path}: not JSON: {error}; delete it to have a report without it") from error


def _rows(path: Path) -> list[dict[str, Any]]:
    """Rows of scores; the last one may be cut off where a run was killed."""
    rows = []
    for line in _text(path).splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            continue
    return rows


def _date(folder: Path) -> str:
    """When the run last wrote something of its own."""
    names = ("log.txt", "environment.json", "recipe.toml")
    times = [(folder / name).stat().st_mtime for name in names if (folder / name).is_file()]
    return time.strftime("%d %B %Y, %H:%M", time.localtime(max(times))) if times else ""


def _headline(
    recipe: dict[str, Any], metrics: dict[str, Any], rows: list[dict[str, Any]], predictions: Predictions
) -> tuple[str, str]:
    """The one number that matters, and what it is."""
    scores = metrics.get("scores", {})
    wanted = str(recipe.get("train", {}).get("best") or "").lstrip("-")
    name = wanted if wanted in scores else next((n for n in scores if n != "val_loss"), next(iter(scores), None))
    epochs = 1 + max((int(row["epoch"]) for row in rows if finite(row.get("epoch"))), default=0)
    if name and rows:
        return value_text(scores[name], name), f"{readable(name)} on the validation data, best of {epochs} epochs"
    if name:
        return value_text(scores[name], name), f"{readable(name)} on the test data"
    losses = [(key, row[key]) for row in rows for key in ("train_loss", "epoch_loss") if finite(row.get(key))]
    if losses:
        return value_text(losses[-1][1]), f"training loss after {epochs} epochs"
    return (f"{len(predictions.sources):,}", "inputs predicted") if predictions.sources else ("", "")


def _matrix(metrics: dict[str, Any], predictions: Predictions) -> tuple[list[str], list[list[int]]]:
    """Class names and counts [truth][prediction]: the metric's, or counted from single-label predictions."""
    classes, matrix = metrics.get("classes", []), metrics.get("tables", {}).get("confusion_matrix")
    if matrix:
        return classes or [str(i) for i in range(len(matrix))], matrix
    known = set(classes)
    if not predictions.pairs or not all(name in known for pair in predictions.pairs for name in pair):
        return classes, []
    return classes, [[predictions.pairs[truth, label] for label in classes] for truth in classes]


def _per_class(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Support, recall and precision of each class, the worst recall first."""
    predicted = [sum(column) for column in zip(*matrix, strict=True)]
    table = []
    for i, row in enumerate(matrix):
        support = sum(row)
        recall, precision = (row[i] / count if count else None for count in (support, predicted[i]))
        table.append({"name": classes[i], "support": support, "recall": recall, "precision": precision})
    return sorted(table, key=lambda entry: (entry["recall"] is None, entry["recall"]))


def _confused(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[tuple[str, str, int, float]]:
    """Truth, what it was taken for, how often, and that as a share of the truth; the most frequent first."""
    pairs = [
        (classes[i], classes[j], count, count / sum(row))
        for i, row in enumerate(matrix)
        for j, count in enumerate(row)
        if count and i != j
    ]
    return heapq.nlargest(MAX_PAIRS, pairs, key=lambda pair: pair[2:])


def _examples(predictions: Predictions) -> list[tuple[str, str, list[dict[str, Any]]]]:
    """Headings and cards of the most telling predictions."""
    groups = (
        ("Best predictions", "Right, with the highest confidence.", predictions.right),
        ("Worst predictions", "Wrong, with the highest confidence.", predictions.wrong),
        ("Surest predictions", "With the highest confidence; the truth is not known.", predictions.sure),
        ("Least sure predictions", "With the lowest confidence; the truth is not known.", predictions.unsure),
    )
    return [(title, what, [_card(record) for record in best]) for title, what, best in groups if best.heap]


def _card(record: Record) -> dict[str, Any]:
    card: dict[str, Any] = {"record": record, "right": is_right(record), "picture": None, "trouble": None}
    card["name"] = Path(record.source).name
    card["best"] = list(zip(record.labels or [], record.scores or [], strict=False))[:3]
    try:
        jpeg = io.BytesIO()
        look(record).save(jpeg, "JPEG", quality=80)
        card["picture"] = f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"
    except UnreadableInput as error:
        card["trouble"] = error.reason
    return card


def _coverage(metrics: dict[str, Any], predictions: Predictions) -> dict[str, Any]:
    """How many inputs there were, and which of them gave trouble: a limited list of [source, reason]."""
    found = metrics.get("coverage") or {
        "total": len(predictions.sources),
        "unreadable": predictions.unreadable,
        "damaged": predictions.damaged,
    }
    troubles = [("Unreadable", found["unreadable"]), ("Damaged, the good part was used", found["damaged"])]
    return {
        "total": found["total"],
        "read": found["total"] - len(found["unreadable"]),
        "troubles": [(t, list(m.items())[:MAX_INPUTS], len(m) - MAX_INPUTS) for t, m in troubles if m],
    }
