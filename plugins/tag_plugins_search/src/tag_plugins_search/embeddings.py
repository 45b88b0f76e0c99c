"""Where embeddings come from: records that were written, or pictures and videos through an index's own model."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tag_core.errors import UserError, WeightsError
from tag_core.records import Record, read_records

if TYPE_CHECKING:
    from tag_core.engine.predict import Predictor

RECORDS, MODEL = "predictions.jsonl", "model.json"
log = logging.getLogger("tag")


def is_records(path: str | Path) -> bool:
    """Whether it is a file of records or the folder of a run, and no picture or video."""
    return Path(path).suffix == ".jsonl" or (Path(path) / RECORDS).is_file()


def read_embeddings(paths: Sequence[str | Path]) -> tuple[dict[str, Any], Iterator[Record]]:
    """What made them, and the records, one after the other.

    Args:
        paths: files of records, or folders of ``tag-run predict RECIPE output=embedding --out FOLDER``.

    Returns:
        ``fingerprint`` and ``recipe`` of the model, empty where no ``model.json`` lies beside the records.

    Raises:
        UserError: no such file, one that is no JSON Lines, the folder of a training, files that were made by different
            models, or a line that is no record (on reading).
    """
    files = [Path(path) / RECORDS if Path(path).is_dir() else Path(path) for path in paths]
    if missing := [path for path, file in zip(paths, files, strict=True) if not file.is_file()]:
        hint = f"give a file of records, or a folder with {RECORDS}, as 'tag-run predict ... --out FOLDER' makes it"
        raise UserError(f"{missing[0]}: no records there; {hint}")
    for path, file in zip(paths, files, strict=True):
        _check(path, file)
    models = [_model(file.with_name(MODEL)) for file in files]
    for path, model in zip(paths, models, strict=True):
        if model.get("fingerprint") != models[0].get("fingerprint"):
            hint = "they do not compare: make an index of each"
            raise UserError(f"{paths[0]} and {path}: embeddings of different models; {hint}")
    return models[0], chain.from_iterable(map(read_records, files))


def embed(model: Mapping[str, Any], inputs: Sequence[str], overrides: Sequence[str] = ()) -> Iterator[Record]:
    """Embeddings of pictures and videos, by the model that ``read_embeddings`` told of.

    Args:
        inputs: files, folders and patterns.
        overrides: ``key=value`` each, such as weights=FILE where they have moved.

    Raises:
        UserError: the model is not known, or with these overrides is another one.
        WeightsError: its weights are not where they were.
    """
    if "recipe" not in model:
        hint = "embed these with it yourself, and query with the records"
        raise UserError(f"the index does not know its model, for its records had no {MODEL} beside them; {hint}")
    from tag_core.api import predictor_for
    from tag_core.engine.predict import fingerprint

    try:
        with predictor_for({**model["recipe"], "output": "embedding"}, inputs, overrides) as predictor:
            if fingerprint(predictor.recipe, predictor.task) != model["fingerprint"]:
                raise UserError(f"another model than the index's: {_difference(model, predictor, overrides)}")
            for records in predictor.records(range(len(predictor.inputs))):
                yield from records
    except WeightsError as error:
        raise WeightsError(
            f"{error}\nthe index's own model is needed; say where its weights are: weights=FILE"
        ) from error


def _difference(model: Mapping[str, Any], predictor: Predictor, overrides: Sequence[str]) -> str:
    """What makes the predictor another model, and what to do; the model's own recipe can differ by overrides alone."""
    from tag_core.config import resolve
    from tag_core.engine.predict import fingerprint

    own = fingerprint(resolve(model["recipe"], needs=()), predictor.task)
    if own != fingerprint(predictor.recipe, predictor.task):
        options = " ".join(each for each in overrides if each.startswith(("task", "data")))
        return f"its options are changed by {options}: leave that out"
    given = [each for each in overrides if each.startswith("weights")] or ["its weights file now"]
    told = f"{given[0]} holds other weights (or another version of Tag made the index)"
    return f"{told}: give the index's own as weights=FILE, or predict and build again"


def labelled(records: Iterator[Record], labels: str) -> Iterator[Record]:
    """The records, each with its true label.

    Args:
        labels: "" keeps what the records say; "folder" is the name of the folder that the source lies in, none for a
            source without one, such as a.jpg; else a file that lists sources and labels, as ``path label`` lines, or
            as .csv or .jsonl with columns path and label.

    Raises:
        UserError: the file cannot be read, or lists none of the sources (after the last).
    """
    if not labels:
        yield from records
        return
    listed = None if labels == "folder" else _listed(labels)
    total = found = 0
    path = ""
    for record in records:
        if listed is None:
            folder = os.path.dirname(os.path.normpath(record.source))
            record.truth = Path(os.path.abspath(folder)).name or None if folder else None
        else:
            path = os.path.realpath(record.source)
            total, found = total + 1, found + (path in listed)
            record.truth = listed.get(path, record.truth)
        yield record
    if listed is not None and total and not found:
        hint = "ids are paths as they were predicted, from the current folder; a list's are from its own"
        told = f"none of its {len(listed)} labels is for one of the {total} records"
        raise UserError(f"{labels}: {told}: it has {next(iter(listed))}, and they have {path}; {hint}")
    if listed is not None and found < total:
        log.warning("%s: has no label for %d of the %d records", labels, total - found, total)


def _listed(file: str) -> dict[str, str]:
    from tag_core.media.sources import list_file, list_table

    listing = (list_table if file.endswith((".csv", ".tsv", ".jsonl")) else list_file)(file)
    return {os.path.realpath(item.path): listing.classes[item.labels[0]] for item in listing.items}


def _check(path: str | Path, file: Path) -> None:
    """Raises UserError: it is no file of records that embeddings can come from."""
    if not file.with_name(MODEL).exists() and file.with_name("checkpoints").is_dir():
        hint = f"predict first: tag-run predict {file.parent} INPUT... output=embedding --out FOLDER"
        raise UserError(f"{path}: a training, whose records are those of its validation alone; {hint}")
    try:
        with open(file, "rb") as lines:
            found = isinstance(json.loads(lines.readline() or "{}"), dict)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError):
        found = False
    if not found:
        hint = f"give {RECORDS} of 'tag-run predict ... --out FOLDER', or that folder"
        raise UserError(f"{path}: no file of records: its first line is no JSON object; {hint}")


def _model(path: Path) -> dict[str, Any]:
    """Raises UserError: damaged."""
    try:
        if not path.is_file():
            return {}
        found = json.loads(path.read_text("utf-8"))
        return {key: found[key] for key in ("fingerprint", "recipe")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); predict again, or remove it") from error
