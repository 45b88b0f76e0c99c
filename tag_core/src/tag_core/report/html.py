"""``report.html``: one file that shows a run and needs nothing else."""

from __future__ import annotations

import base64
import heapq
import io
import json
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader

from tag_core.engine.predict import coverage_of
from tag_core.errors import UnreadableInput
from tag_core.files import write_text
from tag_core.recipe import parse_toml
from tag_core.records import MIN_SCORE, Record, read_records
from tag_core.report.charts import HEIGHT, WIDTH, charts, number
from tag_core.report.pictures import best_labels, look, percent

CARDS = 6


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from what a run's folder holds; a part that is not there is left out.

    Raises:
        RunFolderError: the report cannot be written.
    """
    metrics, environment, plugins = (
        json.loads(_text(folder / name) or "{}") for name in ("metrics.json", "environment.json", "plugins.json")
    )
    rows, recipe = _text(folder / "scores.jsonl").splitlines(), _text(folder / "recipe.toml")
    matrix = metrics.get("tables", {}).get("confusion_matrix", [])
    best, worst = _examples(folder)
    jinja = Environment(loader=PackageLoader("tag_core.report", ""), autoescape=True, undefined=ChainableUndefined)
    jinja.filters.update(percent=percent, number=number, shell=shlex.join)
    page = jinja.get_template("template.html").render(
        name=folder.resolve().name,
        recipe=parse_toml(recipe, "recipe.toml"),
        recipe_text=recipe,
        metrics=metrics,
        charts=charts(json.loads(row) for row in rows if row.endswith("}")),  # a kill may have cut the last
        size=(WIDTH, HEIGHT),
        matrix=matrix,
        per_class=_per_class(metrics.get("classes", []), matrix),
        examples={"Best predictions": [_card(r) for r in best], "Worst predictions": [_card(r) for r in worst]},
        coverage=coverage_of(_records(folder)),
        environment=environment,
        plugins=plugins,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def _records(folder: Path) -> Iterator[Record]:
    path = folder / "predictions.jsonl"
    yield from read_records(path) if path.is_file() else ()


def _examples(folder: Path) -> tuple[list[Record], list[Record]]:
    """The surest predictions that are not wrong, and of the others the most wrong or least sure."""

    def labelled() -> Iterator[Record]:
        return (record for record in _records(folder) if record.labels and record.scores)

    def confidence(record: Record) -> float:
        score = (record.scores or [0.0])[0] or 0.0  # None where a diverged model gave nan
        return -score if record.truth is not None and not _is_right(record) else score

    good = heapq.nlargest(CARDS, (record for record in labelled() if confidence(record) > 0), confidence)
    return good, [record for record in heapq.nsmallest(CARDS, labelled(), confidence) if record not in good]


def _is_right(record: Record) -> bool:
    """Whether the best label is the true one, or one of them."""
    truth = str(record.truth)
    return any(label in (truth, *truth.split("; ")) for label in (record.labels or [])[:1])


def _per_class(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Samples, recall, precision and most frequent mistake of each class, the worst recall first."""
    table = []
    for i, (row, column) in enumerate(zip(matrix, zip(*matrix, strict=True), strict=True)):
        recall, precision = (row[i] / count if count else None for count in (sum(row), sum(column)))
        entry = {"name": classes[i], "samples": sum(row), "recall": recall, "precision": precision}
        mistakes = [(count, name) for name, count in zip(classes, row, strict=True) if name != classes[i]]
        times, mistake = max(mistakes, default=(0, ""))
        table.append({**entry, "mistake": f"{mistake} ({times})" if times else ""})
    return sorted(table, key=lambda entry: (entry["recall"] is None, entry["recall"]))


def _card(record: Record) -> dict[str, Any]:
    """A record with its picture, or with what kept it from being drawn."""
    card = {"record": record, "right": _is_right(record), "name": Path(record.source).name, "best": best_labels(record)}
    jpeg = io.BytesIO()
    try:
        look(record.confident(MIN_SCORE)).save(jpeg, "JPEG", quality=80)
    except UnreadableInput as error:
        return {**card, "trouble": error.reason}
    return {**card, "picture": f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"}
