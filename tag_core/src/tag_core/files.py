"""Writing files whole: a kill, a full disk or an error leaves the old file or the new, never half."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Literal

from tag_core.errors import RunFolderError
from tag_core.records import finite


@contextmanager
def atomic(path: Path, mode: Literal["w", "wb"] = "w") -> Iterator[IO[Any]]:
    """Open a hidden temporary file beside ``path`` that takes its place when the block ends well.

    Text is UTF-8; the stray bytes of a file name that is not become ``\\udcXX``, which JSON reads back.

    Raises:
        RunFolderError: the file cannot be written; ``path`` is as it was, the temporary file gone.
    """
    target = os.path.realpath(path)  # a link goes on pointing there
    temporary = os.path.join(os.path.dirname(target), f".tag-{secrets.token_hex(6)}.tmp")
    text: dict[str, Any] = {"encoding": "utf-8", "errors": "backslashreplace", "newline": ""}
    try:
        with open(temporary, mode, **(text if mode == "w" else {})) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except (OSError, RuntimeError) as error:
        cause = error.__context__ if isinstance(error, RuntimeError) else error  # torch.save hides it
        if not isinstance(cause, OSError) or cause.filename not in (None, temporary):
            raise  # the block's own trouble
        hint = "check that its folder is there, that you may write to it, and that its disk has room"
        raise RunFolderError(f"cannot write {path}: {cause.strerror or cause}; {hint}") from error
    finally:
        with suppress(OSError):
            os.unlink(temporary)


def write_text(path: Path, text: str) -> None:
    """Raises RunFolderError; see :func:`atomic`."""
    with atomic(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Indented strict JSON; numbers that JSON cannot say become null. Raises as :func:`atomic` does."""
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")
