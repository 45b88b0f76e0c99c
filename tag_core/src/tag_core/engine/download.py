"""Files from public addresses: resumed after a broken connection, verified, kept in a cache."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from tag_core.errors import WeightsError

T = TypeVar("T")
TIMEOUT_SECONDS = 30


def from_library(
    name: str,
    fetch: Callable[[], T],
    kind: str = "published",
    off: str = "pretrained=false",
    passed: tuple[type[Exception], ...] = (),
) -> T:
    """Weights that a library fetches by itself, for a backbone that has an option for it.

    Args:
        name: of the model, for the error.
        fetch: has the library do it.
        kind: of weights, for the error.
        off: the backbone's option that does without.
        passed: errors that are not about fetching, and go through.

    Raises:
        WeightsError: they cannot be fetched, or there are none.
    """
    try:
        return fetch()
    except passed:
        raise
    except Exception as error:  # each library and its HTTP client have errors of their own
        reason = " ".join(str(error).split())[:160]
        raise WeightsError(
            f"{kind} weights of {name}: cannot be fetched ({reason}); go online once, or set "
            f"task.backbone.{off} and give weights=FILE"
        ) from error


def download(url: str, sha256: str) -> Path:
    """A file from ``url`` in the cache, its checksum verified each time it is asked for.

    The cache is ``$TAG_CACHE``, by default ``~/.cache/tag``. Processes that want the same file wait for
    the first of them; what a broken connection left is gone on with.

    Args:
        sha256: of the file, in hexadecimal; its first eight digits or more.

    Raises:
        WeightsError: the address cannot be reached, the file is not the one that was published, or the
            cache cannot be written.
    """
    sha256 = sha256.lower()
    if len(sha256) < 8 or not set(sha256) <= set("0123456789abcdef"):
        raise WeightsError(f"weights {url}: {sha256!r} is no SHA-256: give eight hexadecimal digits or more")
    cache = Path(os.environ.get("TAG_CACHE") or "~/.cache/tag").expanduser()
    name = Path(urllib.parse.urlsplit(url).path).name or "weights"
    path, partial = cache / f"{sha256[:8]}-{name}", cache / f"{sha256[:8]}-{name}.part"
    advice = f"weights=/path/to/{name} takes a file that was downloaded elsewhere"
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with open(f"{path}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if path.is_file() and _digest(path).startswith(sha256):
                return path
            _fetch(url, partial)
            digest = _digest(partial)
            if digest.startswith(sha256):
                os.replace(partial, path)
                return path
            partial.unlink()
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if type(error) is urllib.error.URLError else error
        text = f"cannot be downloaded to {cache} ({reason}). The same command goes on where it stopped"
        raise WeightsError(f"weights {url}: {text}; TAG_CACHE names another folder; {advice}") from error
    raise WeightsError(f"weights {url}: checksum {digest[:16]}... is not {sha256[:16]}...; {advice}")


def _fetch(url: str, partial: Path) -> None:
    """Append to ``partial`` what it lacks, or write it anew where the server only sends the whole."""
    have = partial.stat().st_size if partial.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # nothing is lacking; the checksum decides
            raise
        return
    with response, open(partial, "ab" if response.status == 206 else "wb") as file:
        shutil.copyfileobj(response, file)
        if response.length:  # read() does not tell of a connection that ends early
            raise OSError(f"the connection broke off after {file.tell()} bytes")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
