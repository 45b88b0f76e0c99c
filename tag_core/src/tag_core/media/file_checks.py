"""What a file says about itself before any decoder sees it."""

from __future__ import annotations

import os


def why_unreadable(path: str, what: str = "video") -> str | None:
    """Why ``path`` cannot be a video, or None. Text is refused: libav would read lists of other files as video."""
    try:
        if os.path.isdir(path):
            return f"is a folder, with no {what} in it"
        if os.path.exists(path) and not os.path.isfile(path):
            return "not a regular file"
        with open(path, "rb") as file:
            head = file.read(512)
    except (OSError, ValueError) as error:
        return (getattr(error, "strerror", None) or str(error)).lower()
    if not head:
        return "empty file (0 bytes)"
    text = head.decode("utf-8", errors="ignore")
    whole = len(text.encode()) >= len(head) - 3  # the last character may be cut
    return f"not a {what}: a text file" if whole and all(c >= " " or c in "\t\n\r\f" for c in text) else None


def cut_off(path: str) -> str | None:
    """That an AVI or Matroska file is shorter than its header says, or None. (MP4 lists its packets instead.)"""
    with open(path, "rb") as file:
        head = file.read(128)
    end = 0
    if head[:4] == b"RIFF":
        length = int.from_bytes(head[4:8], "little")
        end = 0 if length == 2**32 - 1 else length + 7  # 8 bytes of header; the last byte may be padding
    elif head[:4] == b"\x1a\x45\xdf\xa3":
        end = _matroska_end(head)
    return "the file is cut off" if os.path.getsize(path) < end else None


def _matroska_end(head: bytes) -> int:
    """Where the Segment element ends, 0 when that is not written (RFC 8794, section 4)."""
    start = head.find(b"\x18\x53\x80\x67") + 4
    if start < 4 or start == len(head) or head[start] == 0:
        return 0
    width = 9 - head[start].bit_length()
    unknown = (1 << 7 * width) - 1
    length = int.from_bytes(head[start : start + width]) & unknown
    return 0 if length == unknown else start + width + length


def why_not_opened(path: str) -> str:
    """What to say of a file that libav does not open; the index of an MP4 or MOV file often comes last."""
    with open(path, "rb") as file:
        iso = file.read(8)[4:] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
    return f"{'the file is cut off before its index ends' if iso else 'not a video'}, or damaged beyond reading"
