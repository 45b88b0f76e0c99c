"""``report.html``: one file that shows a run and needs nothing else."""

from __future__ import annotations

import base64
import heapq
import io
import json
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import ChainableUndefined, Environment, Template

from tag_core.errors import RunFolderError, UnreadableInput
from tag_core.files import write_text
from tag_core.recipe import parse_toml
from tag_core.records import Record, read_records
from tag_core.report.charts import HEIGHT, WIDTH, charts, finite, percent, readable, value_text
from tag_core.report.pictures import is_right, look

EXAMPLES = {
    "Best predictions": "Right, with the highest confidence.",
    "Worst predictions": "Wrong, with the highest confidence.",
    "Surest predictions": "With the highest confidence; the truth is not known.",
    "Least sure predictions": "With the lowest confidence; the truth is not known.",
}
CARDS, MAX_MATRIX, MAX_PAIRS, MAX_INPUTS = 6, 40, 30, 200


def write_report(folder: Path) -> Path:
    """Write ``report.html`` from what a run's folder holds; a part that is not there is left out.

    Raises:
        UserError: a file of the folder is malformed, or the report cannot be written.
    """
    metrics, environment, rows = (_read(folder / name) for name in ("metrics.json", "environment.json", "scores.jsonl"))
    path = folder / "recipe.toml"
    recipe, began = (_text(path), time.localtime(path.stat().st_mtime)) if path.is_file() else ("", None)
    examples, pairs, coverage = _survey(folder / "predictions.jsonl")
    classes, matrix = _matrix(metrics, pairs)
    page = _template().render(
        name=folder.resolve().name,
        recipe=parse_toml(recipe, str(path)),
        recipe_text=recipe,
        date=time.strftime("%d %B %Y, %H:%M", began) if began else "",
        headline=_headline(metrics.get("scores", {}), rows, coverage),
        scores=metrics.get("scores", {}),
        charts=charts(rows),
        classes=classes,
        matrix=matrix if len(classes) <= MAX_MATRIX else [],
        pairs=_confused(classes, matrix) if len(classes) > MAX_MATRIX else [],
        per_class=_per_class(classes, matrix),
        examples={title: (EXAMPLES[title], [_card(r) for r in found]) for title, found in examples.items()},
        coverage=metrics.get("coverage") or coverage,
        environment=environment,
        command=shlex.join(environment.get("command", [])),
        plugins=_read(folder / "plugins.json"),
        size=(WIDTH, HEIGHT),
        max_inputs=MAX_INPUTS,
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


@cache
def _template() -> Template:
    environment = Environment(autoescape=True, undefined=ChainableUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(percent=percent, readable=readable, value=value_text)
    return environment.from_string(files("tag_core.report").joinpath("template.html").read_text("utf-8"))


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


def _read(path: Path) -> Any:
    """JSON, or JSON Lines of which the last may be half written; an empty table where there is no file."""
    text = _text(path)
    try:
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.splitlines() if line.endswith("}")]
        return json.loads(text or "{}")
    except ValueError as error:
        raise RunFolderError(f"{path}: not JSON: {error}; remove it to have the report without it") from error


def _survey(path: Path) -> tuple[dict[str, list[Record]], Counter[tuple[str, str]], dict[str, Any]]:
    """The telling records by heading, how often which truth got which label, and the coverage."""
    heaps: dict[str, list[tuple[float, int, Record]]] = {title: [] for title in EXAMPLES}
    pairs, sources, unreadable, damaged = Counter[tuple[str, str]](), set(), dict[str, str](), dict[str, str]()
    for number, record in enumerate(read_records(path)) if path.is_file() else ():
        sources.add(record.source)
        if record.error is not None:
            unreadable[record.source] = record.error
        elif record.damage:
            damaged[record.source] = record.damage
        if not (record.labels and record.scores and finite(score := record.scores[0])):
            continue
        keys = {"Surest predictions": score, "Least sure predictions": -score}
        if record.truth is not None:
            pairs[record.truth, record.labels[0]] += 1
            keys = {"Best predictions" if is_right(record) else "Worst predictions": score}
        for title, key in keys.items():
            push = heapq.heappush if len(heaps[title]) < CARDS else heapq.heappushpop
            push(heaps[title], (key, -number, record))
    examples = {title: [record for *_, record in sorted(heap, reverse=True)] for title, heap in heaps.items() if heap}
    return examples, pairs, {"total": len(sources), "unreadable": unreadable, "damaged": damaged}


def _headline(scores: dict[str, Any], rows: list[dict[str, Any]], coverage: dict[str, Any]) -> tuple[str, str]:
    """The one number that matters, and what it is."""
    name = next((name for name in scores if name != "val_loss"), next(iter(scores), None))
    losses = [row[key] for row in rows for key in ("train_loss", "epoch_loss") if finite(row.get(key))]
    if name:
        part = "validation" if rows else "test"
        return value_text(scores[name], name), f"{readable(name)} on the {part} data"
    if losses:
        return value_text(losses[-1]), "training loss at the end"
    return (f"{coverage['total']:,}", "inputs predicted") if coverage["total"] else ("", "")


def _matrix(metrics: dict[str, Any], pairs: Counter[tuple[str, str]]) -> tuple[list[str], list[list[int]]]:
    """Class names and counts [truth][prediction]: the metric's, or counted from single-label predictions."""
    classes, matrix = metrics.get("classes", []), metrics.get("tables", {}).get("confusion_matrix", [])
    if not matrix and pairs and {name for pair in pairs for name in pair} <= set(classes):
        matrix = [[pairs[truth, label] for label in classes] for truth in classes]
    return classes, matrix


def _confused(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[tuple[str, str, int, float]]:
    """Truth, what it was taken for, how often, and that as a share of the truth; the most frequent first."""
    cells = [(i, j, count) for i, row in enumerate(matrix) for j, count in enumerate(row) if count and i != j]
    worst = heapq.nlargest(MAX_PAIRS, cells, key=lambda cell: cell[2])
    return [(classes[i], classes[j], count, count / sum(matrix[i])) for i, j, count in worst]


def _per_class(classes: Sequence[str], matrix: Sequence[Sequence[int]]) -> list[dict[str, Any]]:
    """Samples, recall and precision of each class, the worst recall first."""
    table = []
    for i, (row, column) in enumerate(zip(matrix, zip(*matrix, strict=True), strict=True)):
        recall, precision = (row[i] / count if count else None for count in (sum(row), sum(column)))
        table.append({"name": classes[i], "samples": sum(row), "recall": recall, "precision": precision})
    return sorted(table, key=lambda entry: (entry["recall"] is None, entry["recall"]))


def _card(record: Record) -> dict[str, Any]:
    best = list(zip(record.labels or [], record.scores or [], strict=False))[:3]
    card = {"record": record, "right": is_right(record), "name": Path(record.source).name, "best": best}
    jpeg = io.BytesIO()
    try:
        look(record).save(jpeg, "JPEG", quality=80)
    except UnreadableInput as error:
        return {**card, "trouble": error.reason}
    return {**card, "picture": f"data:image/jpeg;base64,{base64.b64encode(jpeg.getvalue()).decode()}"}
