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
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tag_core.errors import UserError

VIDEO_SUFFIXES = frozenset(
    [".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".wmv", ".3gp"]
)
IMAGE_SUFFIXES = frozenset([".jpg", ".jpeg", ".jfif", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff"])
_MOST_CLASSES = 10_000_000


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
    for root in as_list(source):
        if not os.path.isdir(root):
            raise UserError(f"{root}: no such folder")
        names = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name[0] != ".")
        if not names:
            raise UserError(f"{root}: no class folders in it; expected {root}/<class>/<file>")
        for name in names:
            folder = os.path.join(root, name)
            found = list(_find(folder, suffixes, folders))
            if not found:
                some = ", ".join(sorted(suffixes)[:4])
                raise UserError(f"{folder}: nothing in this class folder ends in {some}, ...; fill it or remove it")
            rows += [_Row(folder, path, (name,)) for path in found]
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

    Fields are separated by tabs, or by blanks where the line has no tab (a path may hold blanks where
    only one label follows).

    Args:
        label_map: file of class names, one a line in index order, or ``name index`` on every line.
        multi_label: ``path label label ...``.
        num_frames: ``folder num_frames label ...``.

    Raises:
        UserError: naming the line that is malformed or whose label is out of range.
    """
    rows = []
    first, form = (2, "folder num_frames label") if num_frames else (1, "path label")
    for file in as_list(source):
        for where, line in read_lines(file):
            if "\t" in line:
                fields = [field.strip() for field in line.split("\t") if field.strip()]
            else:
                fields = line.split() if multi_label or num_frames else line.rsplit(None, 1)
            labels = tuple(fields[first:])
            if (
                not labels
                or (len(labels) > 1 and not multi_label)
                or (num_frames and not (fields[1].isdecimal() and len(fields[1]) < 7))
            ):
                raise UserError(f"{where}: expected '{form}', got {line!r}")
            rows.append(_Row(where, _resolve(file, root, fields[0]), labels, int(fields[1]) if num_frames else None))
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
    for file in as_list(source):
        for where, row in read_table(file):
            for column in (path_column, label_column):
                if row.get(column) in (None, ""):
                    have = ", ".join(str(key) for key in row)
                    raise UserError(f"{where}: no value in column {column!r} (columns: {have})")
            labels = [row[label_column]]
            if multi_label:
                labels = labels[0] if isinstance(labels[0], list) else str(labels[0]).split(";")
            names = tuple(str(label).strip() for label in labels)
            rows.append(_Row(where, _resolve(file, root, str(row[path_column])), names))
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
    """Class names: one a line in index order, or ``name index`` on every line, with indices from 0 in any order."""
    names = [name for _, name in read_lines(path)]
    pairs = [(name.rpartition(" ")[2], name.rpartition(" ")[0]) for name in names]
    if sorted(index for index, _ in pairs) != sorted(map(str, range(len(pairs)))):
        return names
    return [name for _, name in sorted(pairs, key=lambda pair: int(pair[0]))]


def _index(rows: list[_Row], classes: Sequence[str] | None, label_map: str | None, named: bool = False) -> Listing:
    known = list(classes) if classes is not None else None
    if known is None and label_map is not None:
        known = read_label_map(label_map)
    given = {label for row in rows for label in row.labels}
    numbered = not named and all(label.removeprefix("-").isdecimal() for label in given)
    if numbered:
        position = {label: int(label[:4000]) for label in given}  # Python refuses to read 4300 digits
    else:
        known = sorted(given) if known is None else known
        position = {name: i for i, name in enumerate(known)}
    count = min(max(position.values(), default=-1) + 1, _MOST_CLASSES) if known is None else len(known)
    for row in rows:
        for label in row.labels:
            if not 0 <= position.get(label, -1) < count:
                raise UserError(f"{row.where}: label {label[:40]!r} is not one of the {count} classes")
    items = (Item(row.path, tuple(position[label] for label in row.labels), row.num_frames) for row in rows)
    return Listing(tuple(items), [str(i) for i in range(count)] if known is None else known)


def _find(folder: str, suffixes: frozenset[str], folders: bool) -> Iterator[str]:
    for parent, below, names in os.walk(folder):
        below.sort()
        files = [n for n in sorted(names) if os.path.splitext(n)[1].lower() in suffixes and n[0] != "."]
        if folders:
            yield from [parent] if files else []
        else:
            yield from (os.path.join(parent, name) for name in files)


def read_lines(path: str, comments: bool = False) -> list[tuple[str, str]]:
    """Lines of a UTF-8 file with where they are, without empty ones and, unless asked for, without ``#`` comments.

    Raises:
        UserError: it cannot be read, or nothing is left.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text (byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', error)}") from None
    lines = [(f"{path}, line {number}", line.strip()) for number, line in enumerate(text.split("\n"), 1)]
    lines = [(where, line) for where, line in lines if line and (comments or not line.startswith("#"))]
    if not lines:
        raise UserError(f"{path}: nothing is listed in it")
    return lines


def read_table(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of CSV or TSV with a header, or of JSON Lines, by column, with where they are.

    Raises:
        UserError: naming the line that is no row.
    """
    lines = read_lines(path)
    if path.endswith((".csv", ".tsv")):
        if len(lines) == 1:
            raise UserError(f"{path}: nothing is listed below its header")
        reader = csv.DictReader((line for _, line in lines), delimiter="\t" if path.endswith(".tsv") else ",")
        try:
            yield from ((lines[reader.line_num - 1][0], row) for row in reader)
        except csv.Error as error:
            raise UserError(f"{path}: no table: {error}") from None
        return
    for where, line in lines:
        try:
            yield where, dict(json.loads(line))
        except (ValueError, TypeError, RecursionError):
            raise UserError(f"{where}: no JSON object with named columns: {line[:60]}") from None


def _resolve(file: str, root: str | None, path: str) -> str:
    return os.path.join(root if root is not None else os.path.dirname(file), path)


def as_list(source: str | Sequence[str]) -> list[str]:
    return [source] if isinstance(source, str) else list(source)


def unique(paths: Sequence[str]) -> list[str]:
    """The paths, told apart: where one comes again, the second has ``#2`` behind it, and so on."""
    seen: Counter[str] = Counter()
    keys = []
    for path in paths:
        seen[path] += 1
        keys.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return keys


def file_of(key: str) -> str:
    """The path of a key that :func:`unique` may have numbered: ``a.jpg#2`` is of ``a.jpg``."""
    return re.sub(r"(?<=.)#\d+\Z", "", key, flags=re.DOTALL)
