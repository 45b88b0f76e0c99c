"""Writing a feature store, so that a kill at any instant costs little and leaves nothing twice."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, Self

import numpy as np

from tag_core.errors import RunFolderError, UserError
from tag_core.files import write_json
from tag_plugins_video.feature_store import (
    DAMAGE,
    HEADER_BYTES,
    INDEX,
    MATRIX,
    NOTE,
    UNREADABLE,
    VERSION,
    StoredVideo,
    header,
    read_note,
)

LOCK = ".tag-lock"
COMMIT_SECONDS = 1.0


class FeatureWriter:
    """Appends videos to a store, new or begun before; use it in a ``with`` statement.

    Args:
        folder: of the store.
        settings: how the features are made, ``modality``, ``dtype`` and a ``fingerprint`` of the model among them;
            features made otherwise are refused.
        told: what else ``features.json`` is to say.

    Attributes:
        done: the videos that are in the store: source -> damage, None for a sound one.
        unreadable: those that gave nothing: source -> reason.

    Raises:
        RunFolderError: the folder holds something else, features made otherwise or damaged ones, is being
            written to by another process, or cannot be written.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], told: Mapping[str, Any] = {}) -> None:
        self.folder, self.dtype = folder, np.dtype(settings["dtype"])
        self.about: dict[str, Any] = {"version": VERSION, **told, **settings, "dim": None, "complete": False}
        self._pending: dict[str, list[str]] = {INDEX: [], UNREADABLE: []}
        self._committed = time.monotonic()
        with contextlib.ExitStack() as opened, self._writing():
            folder.mkdir(parents=True, exist_ok=True)
            self._lock(opened)
            self._claim(settings)
            self._files = {name: opened.enter_context(_open(folder / name)) for name in (MATRIX, INDEX, UNREADABLE)}
            self._resume()
            write_json(folder / NOTE, self.about)
            self._opened = opened.pop_all()

    def add(self, source: str, rows: np.ndarray, label: str | None, damage: str | None) -> None:
        """Append a video's features [length, D].

        Raises:
            UserError: numbers that the store's type cannot hold.
            RunFolderError: the disk is full, or the like.
        """
        with np.errstate(over="ignore"):
            values = rows.astype(self.dtype)
        if not np.isfinite(values).all():
            hint = "; take --dtype float32" if np.isfinite(rows).all() else ", as the model gives them"
            raise UserError(f"{source}: features that are not finite numbers in {self.dtype}{hint}")
        with self._writing():
            if self.about["dim"] is None:
                self.about["dim"] = values.shape[1]
                write_json(self.folder / NOTE, self.about)
                self._files[MATRIX].write(self._header())
            self._files[MATRIX].write(values.data)
        line = {"source": source, "offset": self._rows, "length": len(rows), "label": label, "damage": damage}
        self._rows += len(rows)
        self.done[source] = damage
        self._append(INDEX, {key: value for key, value in line.items() if value is not None})

    def refuse(self, source: str, reason: str) -> None:
        """Note a video that cannot be read."""
        self.unreadable[source] = reason
        self._append(UNREADABLE, {"source": source, "reason": reason})

    def commit(self) -> None:
        """See to it that no crash loses what was added so far."""
        with self._writing():
            if self.about["dim"] is not None:
                self._files[MATRIX].seek(0)
                self._files[MATRIX].write(self._header())
                self._files[MATRIX].seek(0, os.SEEK_END)
                _flush(self._files[MATRIX])
            for name, lines in self._pending.items():
                self._files[name].write("".join(lines).encode())
                _flush(self._files[name])
                lines.clear()
        self._committed = time.monotonic()

    def finish(self) -> None:
        """Every input is in the store: from now on it can be read."""
        self.commit()
        self.about["complete"] = True
        write_json(self.folder / NOTE, self.about)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._writing(), self._opened:
            self.commit()

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        self._pending[name].append(json.dumps(line) + "\n")
        if time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def _header(self) -> bytes:
        return header(self._rows, self.about["dim"], self.dtype)

    def _lock(self, opened: contextlib.ExitStack) -> None:
        file = opened.enter_context(_open(self.folder / LOCK))
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's it is not the reading workers' too
        except BlockingIOError:
            raise RunFolderError(f"{self.folder}: another process is writing features there") from None

    def _claim(self, settings: Mapping[str, Any]) -> None:
        """Take over the settings of a store that was begun with the same ones."""
        if not (self.folder / NOTE).is_file():
            if any(not name.startswith(".tag-") for name in os.listdir(self.folder)):
                raise RunFolderError(f"{self.folder}: holds something else; name a new or empty folder")
            write_json(self.folder / NOTE, self.about)
            return
        try:
            found = read_note(self.folder)
        except DAMAGE as error:
            raise RunFolderError(f"{self.folder}: {NOTE} is damaged ({error}); delete the folder") from error
        self.about["dim"] = found.get("dim")
        if others := {key: found.get(key) for key, value in settings.items() if found.get(key) != value}:
            told = ", ".join(f"{key} {value}, not {settings[key]}" for key, value in others.items())
            told = "by another recipe or other weights" if list(others) == ["fingerprint"] else told
            raise RunFolderError(f"{self.folder}: holds features made otherwise ({told}); name another folder")

    def _resume(self) -> None:
        """Count what is there, and cut off what a kill left behind it."""
        try:
            lines = {name: [json.loads(line) for line in _whole_lines(self._files[name])] for name in self._pending}
            videos = [StoredVideo(**line) for line in lines[INDEX]]
            self.unreadable = {line["source"]: line["reason"] for line in lines[UNREADABLE]}
            self._rows = videos[-1].offset + videos[-1].length if videos else 0
            size = HEADER_BYTES + self._rows * self.about["dim"] * self.dtype.itemsize if videos else 0
            if self._files[MATRIX].seek(0, os.SEEK_END) < size:
                raise ValueError(f"{MATRIX} lacks rows")
        except DAMAGE as error:
            raise RunFolderError(f"{self.folder}: its features are damaged ({error}); delete the folder") from error
        self.done = {video.source: video.damage for video in videos}
        self.about["dim"] = self.about["dim"] if videos else None
        self._files[MATRIX].truncate(size)
        self._files[MATRIX].seek(0, os.SEEK_END)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            hint = "check that you may write there and that its disk has room, then give the same command again"
            raise RunFolderError(f"{self.folder}: cannot be written: {error.strerror or error}; {hint}") from error


def _whole_lines(file: IO[bytes]) -> Iterable[bytes]:
    """The lines that were written to their end; what follows them is cut off."""
    text = file.read()
    end = text.rfind(b"\n") + 1
    file.truncate(end)
    file.seek(end)
    return text[:end].splitlines()


def _open(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b")


def _flush(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
