"""What a file says about itself before any decoder sees it: plain reasons why it is no video."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

_PICTURES = {
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89PNG": "a PNG image",
    b"BM": "a BMP image",
    b"%PDF": "a PDF document",
    b"PK\x03\x04": "a ZIP archive",
}


def why_unreadable(path: str) -> str | None:
    """Why ``path`` cannot be a video, found without decoding, or None."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return "is a folder, not a video"
        if not stat.S_ISREG(mode):
            return "not a regular file"
        with open(path, "rb") as file:
            head = file.read(512)
    except (FileNotFoundError, NotADirectoryError):
        return "no such file"
    except PermissionError:
        return "no permission to read it"
    except (OSError, ValueError) as error:
        return f"cannot be read: {getattr(error, 'strerror', None) or error}"
    if not head:
        return "empty file (0 bytes)"
    kind = _not_a_video(head)
    return f"not a video: {kind}" if kind else None


def _not_a_video(head: bytes) -> str | None:
    for magic, kind in _PICTURES.items():
        if head.startswith(magic) and not (kind == "a BMP image" and head[6:10] != bytes(4)):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "a WebP image"
    text = head.decode("utf-8", errors="ignore")
    if len(text.encode()) < len(head) - 3 or any(ord(c) < 32 and c not in "\t\n\r\f" for c in text):
        return None
    return "an HTML page" if "<html" in text.lower() or "<!doctype html" in text.lower() else "a text file"


def cut_off(path: str) -> str | None:
    """How a container is shorter than its own header says, or None when it is whole or cannot tell."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        head = file.read(64)
        if head[:4] == b"RIFF":
            declared = int.from_bytes(head[4:8], "little")
            return "the file is cut off" if size + 1 < declared + 8 < 2**32 else None
        if head[:4] == b"\x1a\x45\xdf\xa3":
            return "the file is cut off" if _matroska_end(head) > size else None
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return _iso_damage(file, size)
    return None


def _matroska_end(head: bytes) -> int:
    """Where the Segment element ends, 0 when that is not written (RFC 8794 section 4, 9.2)."""
    _, start = _vint(head, 4)
    start += _vint(head, 4)[0]
    if head[start : start + 4] != b"\x18\x53\x80\x67":
        return 0
    length, start = _vint(head, start + 4)
    return start + length if length else 0


def _vint(data: bytes, at: int) -> tuple[int, int]:
    """An EBML number and where it ends; 0 stands for "unknown"."""
    if at >= len(data) or data[at] == 0:
        return 0, at
    width = 9 - data[at].bit_length()
    value = int.from_bytes(data[at : at + width]) & ((1 << 7 * width) - 1)
    return (0 if value == (1 << 7 * width) - 1 else value), at + width


def _iso_damage(file: BinaryIO, size: int) -> str | None:
    """Walk the top-level boxes of an MP4 or MOV file (ISO/IEC 14496-12 section 4.2)."""
    start, has_index, overrun = 0, False, False
    while start + 8 <= size and not overrun:
        file.seek(start)
        header = file.read(16)
        length = int.from_bytes(header[:4])
        if length == 1:
            length = int.from_bytes(header[8:16])
        if length < 8:  # 0: the last box, up to the end of the file; else not a box
            break
        start += length
        overrun = start > size and header[4:8] in (b"mdat", b"moov", b"moof")
        has_index |= header[4:8] == b"moov" and not overrun
    if not has_index:
        return "the file is cut off before its index (no moov box)"
    return "the file is cut off" if overrun else None
