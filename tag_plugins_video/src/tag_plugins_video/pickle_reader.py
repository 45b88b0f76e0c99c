"""The arguments of a pickle's opcodes: numbers, lines, strings."""

from __future__ import annotations

import codecs
import struct
from typing import Any, Literal

from tag_plugins_video.pickle_globals import Blob, Buffer, Refused

_FORMS = {form: struct.Struct(form) for form in ("<B", "<H", "<i", "<I", "<Q", ">d")}
_LONGEST_INTEGER = 1024


class Reader:
    """Goes through ``data``; strings longer than ``inline`` bytes become `Blob`, None reads all of them."""

    def __init__(self, data: Buffer, inline: int | None) -> None:
        self.data, self.inline, self.at = data, inline, 0

    def take(self, length: int) -> bytes:
        taken = self.data[self.at : self.at + length]
        if len(taken) < length:
            raise Refused(f"it ends too early, at byte {len(self.data)}")
        self.at += length
        return taken

    def number(self, form: str) -> Any:
        return _FORMS[form].unpack(self.take(_FORMS[form].size))[0]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise Refused(f"it ends too early, at byte {len(self.data)}")
        found = self.take(end - self.at)
        self.at += 1
        return found

    def string(self, length_form: str, form: Literal["bytes", "text"]) -> bytes | str | Blob:
        length = self.number(length_form)
        if not 0 <= length <= len(self.data) - self.at:
            raise Refused(f"it ends too early, at byte {len(self.data)}")
        blob = Blob(self.at, length, form)
        self.at += length
        return blob if self.inline is not None and length > self.inline else blob.read(self.data)

    def quoted(self) -> bytes:
        text = self.line()
        if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
            raise Refused(f"the string before byte {self.at} has no quotes")
        return codecs.escape_decode(text[1:-1])[0]

    def decimal(self) -> int:
        text = self.line().rstrip(b"L")
        return {b"00": False, b"01": True}[text] if text in (b"00", b"01") else int(text)

    def long(self, length_form: str) -> int:
        if (length := self.number(length_form)) > _LONGEST_INTEGER:
            raise Refused(f"an integer of {length} bytes")
        return int.from_bytes(self.take(length), "little", signed=True)
