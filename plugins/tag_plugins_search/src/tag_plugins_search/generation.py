"""Files that change together: written beside the old ones, flushed, and put in force by renaming the manifest."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tag_core.errors import RunFolderError, UserError
from tag_plugins_search.manifest import NAME, Manifest

LOCK = ".tag-lock"
SUFFIXES = {
    "vectors": "faiss",
    "ids": "npy",
    "payload": "jsonl",
    "offsets": "npy",
    "index": "faiss",
    "removed": "npy",
}
"""Role of a file -> its suffix."""
OURS = re.compile(rf"(?:{'|'.join(SUFFIXES)})-(\d+)\.(?:{'|'.join(set(SUFFIXES.values()))})|\.tag-.*")


def path_of(folder: Path, role: str, generation: int) -> Path:
    return folder / f"{role}-{generation}.{SUFFIXES[role]}"


def last_generation(folder: Path) -> int:
    """The number of the newest files in the folder, 0 without any."""
    found = (OURS.fullmatch(name) for name in os.listdir(folder))
    return max((int(match[1]) for match in found if match and match[1]), default=0)


def described(path: Path) -> dict[str, Any]:
    """Flush a file to the disk, and what the manifest says of it."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"name": path.name, "bytes": file.tell(), "sha256": digest}


def commit(folder: Path, manifest: Manifest) -> None:
    """Put a manifest in force, whose files are all on the disk. Raises RunFolderError."""
    _flush_names(folder)
    manifest.write(folder)
    _flush_names(folder)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; afterwards, whatever happened, files that its manifest does not name are deleted.

    A folder that it made is deleted too if nothing is in it then.

    Raises:
        UserError: another process is writing to it, or it holds something that is no index.
        RunFolderError: it cannot be written.
    """
    try:
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        with open(folder / LOCK, "w") as lock:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's it is not forked workers' too
            except BlockingIOError:
                raise UserError(f"{folder}: another process is writing to this index; wait until it is done") from None
            if not (folder / NAME).exists() and (others := [n for n in os.listdir(folder) if not OURS.fullmatch(n)]):
                raise UserError(f"{folder}: holds something else ({min(others)}); name a new or empty folder")
            try:
                yield
            finally:
                _sweep(folder)
                if made and os.listdir(folder) == [LOCK]:  # nothing came of it
                    (folder / LOCK).unlink()
                    with contextlib.suppress(OSError):
                        folder.rmdir()
    except (FileExistsError, NotADirectoryError) as error:
        raise RunFolderError(f"{folder}: cannot be written: a file is in the way; name another folder") from error
    except OSError as error:
        hint = "check that you may write there and that its disk has room"
        raise RunFolderError(f"{folder}: cannot be written: {error.strerror or error}; {hint}") from error


def wrong_sizes(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each file that is missing, or shorter or longer than the manifest says."""
    problems = []
    for about in files.values():
        try:
            size = (folder / about["name"]).stat().st_size
        except OSError as error:
            problems.append(f"{about['name']}: {error.strerror}")
        else:
            if size != about["bytes"]:
                problems.append(f"{about['name']}: {size} bytes, not {about['bytes']}")
    return problems


def wrong_checksums(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each file whose bytes are not those that were written; reads all of them."""
    problems = wrong_sizes(folder, files)
    for about in files.values() if not problems else ():
        with open(folder / about["name"], "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != about["sha256"]:
                problems.append(f"{about['name']}: damaged: its bytes are not those that were written")
    return problems


def _sweep(folder: Path) -> None:
    """Delete what a kill, an error or the generation before left."""
    with contextlib.suppress(UserError):  # an unreadable manifest: whose files those are is not known
        kept = {about["name"] for about in Manifest.read(folder).files.values()} if (folder / NAME).exists() else set()
        for name in os.listdir(folder):
            if OURS.fullmatch(name) and name not in kept and name != LOCK:
                (folder / name).unlink(missing_ok=True)


def _flush_names(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
