"""Listing what people have: class folders, list files, tables, plain paths. No media file is opened.

Every function that lists labelled data returns a :class:`Listing`; ``classes`` given to it (the order
of the training data) fixes what a label means, otherwise folders and names sort, and integer labels
count from 0. Paths in a file are relative to the file's folder unless ``root`` says otherwise.
"""

from __future__ import annotations

import csv
import glob
import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tag_core.errors import UserError

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".wmv", ".3gp"]
)
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"])
INTEGER = re.compile(r"-?[0-9]+")


@dataclass(frozen=True)
class Item:
    """One video, image or frame folder; ``labels`` are indices into the listing's classes."""

    path: str
    labels: tuple[int, ...] = ()
    num_frames: int | None = None


@dataclass(frozen=True)
class Listing:
    items: tuple[Item, ...]
    classes: list[str]


@dataclass(frozen=True)
class _Row:
    where: str
    path: str
    labels: tuple[str, ...]
    num_frames: int | None = None


def list_folders(
    source: str | Sequence[str],
    suffixes: frozenset[str] = VIDEO_SUFFIXES,
    classes: Sequence[str] | None = None,
    folders: bool = False,
) -> Listing:
    """A folder per class: ``source/<class>/**/<file>``; several sources share their classes.

    Args:
        folders: the samples are folders of files with these suffixes, not the files.

    Raises:
        UserError: no such folder, no class folder, one without a file, or a class not in ``classes``.
    """
    rows = []
    for root in _as_list(source):
        names = sorted(p.name for p in _folder(root).iterdir() if p.is_dir() and not p.name.startswith("."))
        if not names:
            raise UserError(f"{root}: no class folders in it; expected {root}/<class>/<file>")
        for name in names:
            found = list(_find(os.path.join(root, name), suffixes, folders))
            if not found:
                raise UserError(
                    f"{root}/{name}: nothing in this class folder ends in {_some(suffixes)}; fill it or remove it"
                )
            rows += [_Row(os.path.join(root, name), path, (name,)) for path in found]
    return _index(rows, classes, None, named=True)


def list_file(
    source: str | Sequence[str],
    root: str | None = None,
    classes: Sequence[str] | None = None,
    label_map: str | None = None,
    multi_label: bool = False,
    num_frames: bool = False,
) -> Listing:
    """Lines of ``path label``; ``#`` starts a comment. Labels are integers from 0, or names.

    Fields are separated by tabs where the line has one, else by blanks (then a path may hold blanks
    only where there is one label and no ``num_frames``).

    Args:
        label_map: file of class names, one a line in index order, or ``name index`` on every line.
        multi_label: ``path label label ...``.
        num_frames: ``folder num_frames label ...``.

    Raises:
        UserError: naming the line that is malformed or whose label is out of range.
    """
    rows = []
    for file in _as_list(source):
        for number, line in _lines(file):
            where = f"{file}, line {number}"
            fields = _fields(line, single=not (multi_label or num_frames))
            count = _count(where, fields) if num_frames else None
            labels = tuple(fields[2 if num_frames else 1 :])
            if not labels or (len(labels) > 1 and not multi_label):
                form = "path num_frames label" if num_frames else "path label"
                raise UserError(f"{where}: expected '{form}', got {line!r}")
            rows.append(_Row(where, _resolve(file, root, fields[0]), labels, count))
    return _index(rows, classes, label_map)


def list_table(
    source: str | Sequence[str],
    path_column: str = "path",
    label_column: str = "label",
    root: str | None = None,
    classes: Sequence[str] | None = None,
    label_map: str | None = None,
    multi_label: bool = False,
) -> Listing:
    """CSV (or TSV) with a header, or JSON Lines, with named columns.

    Several labels of one row are a list in JSON and separated by ``;`` in CSV.

    Raises:
        UserError: naming the line and the missing or malformed column.
    """
    rows = []
    for file in _as_list(source):
        for number, row in _table(file):
            where = f"{file}, line {number}"
            for column in (path_column, label_column):
                if row.get(column) in (None, ""):
                    have = ", ".join(str(key) for key in row)
                    raise UserError(f"{where}: no value in column {column!r} (columns: {have})")
            labels = _cell(row[label_column], multi_label)
            rows.append(_Row(where, _resolve(file, root, str(row[path_column])), labels))
    return _index(rows, classes, label_map)


def expand_inputs(inputs: Sequence[str], suffixes: frozenset[str], folders: bool = False) -> list[str]:
    """What prediction reads: files as given, folders searched, patterns expanded; in order, once each.

    A file is taken whatever its suffix. A name that nothing answers to and a folder with nothing in it
    are kept: reading them then gives a record that says so. Doing it twice changes nothing.

    Args:
        suffixes: of the files to take from folders, sorted.
        folders: take the folders that hold such files, not the files.
    """
    found: list[str] = []
    for name in inputs:
        if os.path.isdir(name):
            found += list(_find(name, suffixes, folders)) or [name]
        elif not os.path.lexists(name) and glob.has_magic(name):
            matches = sorted(glob.glob(name, recursive=True))
            found += expand_inputs(matches, suffixes, folders) if matches else [name]
        else:
            found.append(name)
    return list(dict.fromkeys(found))


def read_label_map(path: str) -> list[str]:
    """Class names: one a line in index order, or ``name index`` with the indices 0..n-1 in any order."""
    lines = [line for _, line in _lines(path)]
    pairs = [line.rsplit(None, 1) for line in lines]
    ends = [pair[-1] for pair in pairs]
    if all(len(pair) == 2 for pair in pairs) and sorted(ends) == sorted(map(str, range(len(ends)))):
        return [name for name, _ in sorted(pairs, key=lambda pair: int(pair[1]))]
    return lines


def _index(rows: list[_Row], classes: Sequence[str] | None, label_map: str | None, named: bool = False) -> Listing:
    known = list(classes) if classes is not None else read_label_map(label_map) if label_map else None
    numbers = not named and all(INTEGER.fullmatch(label) for row in rows for label in row.labels)
    if known is None:
        labels = {label for row in rows for label in row.labels}
        known = [str(i) for i in range(max(map(int, labels)) + 1)] if numbers else sorted(labels)
    position = {name: index for index, name in enumerate(known)}
    items = []
    for row in rows:
        indices = [int(label) if numbers else position.get(label, -1) for label in row.labels]
        for label, index in zip(row.labels, indices, strict=True):
            if not 0 <= index < len(known):
                raise UserError(f"{row.where}: label {label!r} is not one of the {len(known)} classes")
        items.append(Item(row.path, tuple(indices), row.num_frames))
    return Listing(tuple(items), known)


def _find(folder: str, suffixes: frozenset[str], folders: bool) -> Iterator[str]:
    for parent, below, names in os.walk(folder):
        below.sort()
        files = [n for n in sorted(names) if os.path.splitext(n)[1].lower() in suffixes and n[0] != "."]
        if folders:
            yield from [parent] if files else []
        else:
            yield from (os.path.join(parent, name) for name in files)


def _lines(path: str) -> list[tuple[int, str]]:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not lines:
        raise UserError(f"{path}: nothing is listed in it")
    return lines


def _table(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    lines = _lines(path)
    if path.endswith((".csv", ".tsv")):
        reader = csv.DictReader((line for _, line in lines), delimiter="\t" if path.endswith(".tsv") else ",")
        yield from ((lines[reader.line_num - 1][0], row) for row in reader)
        return
    for number, line in lines:
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: expected an object with named columns, got {line[:60]}")
        yield number, row


def _cell(value: Any, multi_label: bool) -> tuple[str, ...]:
    if not multi_label:
        return (str(value),)
    parts = value if isinstance(value, list) else str(value).split(";")
    return tuple(str(part).strip() for part in parts)


def _fields(line: str, single: bool) -> list[str]:
    if "\t" in line:
        return [field.strip() for field in line.split("\t") if field.strip()]
    return line.rsplit(None, 1) if single else line.split()


def _count(where: str, fields: list[str]) -> int:
    if len(fields) < 3 or not fields[1].isdecimal() or int(fields[1]) < 1:
        raise UserError(f"{where}: expected 'folder num_frames label', got {' '.join(fields)!r}")
    return int(fields[1])


def _resolve(file: str, root: str | None, path: str) -> str:
    return os.path.join(root if root is not None else os.path.dirname(file), path)


def _folder(path: str) -> Path:
    if not os.path.isdir(path):
        reason = "is a file, not a folder of class folders" if os.path.exists(path) else "no such folder"
        raise UserError(f"{path}: {reason}")
    return Path(path)


def _as_list(source: str | Sequence[str]) -> list[str]:
    return [source] if isinstance(source, str) else list(source)


def _some(suffixes: frozenset[str]) -> str:
    return ", ".join(sorted(suffixes)[:4]) + ", ..."
