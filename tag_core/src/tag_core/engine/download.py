"""Files from public addresses: resumed after a broken connection, verified, kept in a cache."""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tag_core.errors import WeightsError

CHUNK = 1 << 20
TIMEOUT_SECONDS = 30


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
    path = cache / f"{sha256[:8]}-{name}"
    try:
        with _locked(path):
            if not (path.is_file() and _digest(path).startswith(sha256)):
                _fetch_checked(url, sha256, path)
    except OSError as error:
        raise WeightsError(f"{cache}: cannot keep weights ({error.strerror or error}); set TAG_CACHE") from error
    return path


def _fetch_checked(url: str, sha256: str, path: Path) -> None:
    partial = path.with_name(f"{path.name}.part")
    advice = f"download it elsewhere and give the file: weights=/path/to/{path.name[9:]}"
    resumed = partial.is_file() and partial.stat().st_size > 0
    try:
        response = _open(url, partial.stat().st_size if resumed else 0)
    except urllib.error.HTTPError as error:
        raise WeightsError(f"weights {url}: the server answered {error.code} {error.reason}; {advice}") from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise WeightsError(f"weights {url}: cannot be reached ({reason}); {advice}") from error
    if response is not None:
        _save(url, response, partial)
    digest = _digest(partial)
    if digest.startswith(sha256):
        return os.replace(partial, path)
    partial.unlink()
    if resumed:  # what was there may have been of another file
        return _fetch_checked(url, sha256, path)
    raise WeightsError(f"weights {url}: checksum {digest[:16]}... is not {sha256[:16]}...; {advice}")


def _open(url: str, have: int) -> http.client.HTTPResponse | None:
    """The answer of the server; None where it has nothing to add to what we have."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # type: ignore[no-any-return]
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: the part on disk is already the whole file
            raise
        error.close()
        return None


def _save(url: str, response: http.client.HTTPResponse, partial: Path) -> None:
    with response, open(partial, "ab" if response.status == 206 else "wb") as file:
        for chunk in _chunks(url, response, file.tell()):
            file.write(chunk)


def _chunks(url: str, response: http.client.HTTPResponse, have: int) -> Iterator[bytes]:
    expected, broken = have + int(response.headers.get("Content-Length") or -1), False
    try:
        while chunk := response.read(CHUNK):
            have += len(chunk)
            yield chunk
    except (OSError, http.client.HTTPException):
        broken = True
    if broken or have < expected:
        text = f"the connection broke off after {have} bytes; the same command goes on from there"
        raise WeightsError(f"weights {url}: {text}")


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
