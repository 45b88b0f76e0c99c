"""Writing files whole: a kill, a full disk or an error leaves the old file or the new, never half."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Literal

from tag_core.errors import RunFolderError
from tag_core.records import _finite

_NEXT = {
    errno.ENOSPC: "free some space, or choose another folder",
    errno.EDQUOT: "free some of your quota, or choose another folder",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.ENOENT: "create the folder first",
    errno.EISDIR: "that is a folder; name a file",
}


@contextmanager
def atomic(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a hidden temporary file beside ``path`` that takes its place when the block ends well.

    Text is UTF-8; the stray bytes of a file name that is not become ``\\udcXX``, which JSON reads
    back. What is not a regular file (``/dev/null``, a pipe) is written directly.

    Raises:
        RunFolderError: the file cannot be written; ``path`` is as it was, the temporary file gone.
    """
    path = Path(path)
    target = Path(os.path.realpath(path))
    direct = os.path.exists(path) and not os.path.isfile(path)
    temporary = path if direct else target.with_name(f".tag-{secrets.token_hex(6)}.tmp")
    text: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    try:
        with open(temporary, mode, **(text if mode == "w" else {})) as file:
            yield file
            file.flush()
            if not direct:
                os.fsync(file.fileno())
        if not direct:
            os.replace(temporary, target)
            _sync(target.parent)
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch.save hides it
        if not isinstance(cause, OSError) or cause.filename not in (None, temporary, str(temporary)):
            raise  # the block's own trouble
        hint = _NEXT.get(cause.errno or 0, "choose a place that you may write to")
        raise RunFolderError(f"cannot write {path}: {cause.strerror or cause}; {hint}") from error
    finally:
        if not direct:
            _remove(temporary)


def write_text(path: Path, text: str) -> None:
    """Raises RunFolderError; see :func:`atomic`."""
    with atomic(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Indented strict JSON; numbers that JSON cannot say become null.

    Raises:
        RunFolderError: see :func:`atomic`.
    """
    write_text(path, json.dumps(_finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def _sync(folder: Path) -> None:
    """Make the renaming itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(temporary: Path) -> None:
    try:
        temporary.unlink(missing_ok=True)
    except OSError:
        return  # the folder has become unwritable: nothing more can be done here
