"""decord as a second reader: used only where the packet index proves its frame numbers right."""

from __future__ import annotations

import numpy as np

from tag_core.errors import UserError
from tag_core.media.pyav_reader import Video, scaled

try:
    import decord
except ImportError:
    decord = None


class DecordVideo(Video):
    """Decodes H.264 with closed GOPs by decord and everything else, also what decord refuses, by PyAV.

    Wrong frames were measured for decord on H.265, open GOPs, discarded packets and MPEG-TS. Resized frames
    differ from PyAV's by the rounding of its filter, and errors that its decoder conceals stay unnoticed.
    """

    def __init__(self, path: str) -> None:
        if decord is None:
            raise UserError("reader 'decord': decord is not installed. Install tag-core[decord], or use 'auto'.")
        decord.logging.set_level(decord.logging.QUIET)
        super().__init__(path)

    def _read(self, wanted: np.ndarray, short_side: int | None) -> np.ndarray:
        if self._decord_is_exact():
            context = self._stream.codec_context
            width, height = scaled(context.width, context.height, short_side)
            try:
                video = decord.VideoReader(self.path, width=width, height=height, num_threads=1)
                if len(video) == self.num_frames:
                    return np.asarray(video.get_batch(wanted.tolist()).asnumpy())
            except (RuntimeError, decord.DECORDError):
                pass
        return super()._read(wanted, short_side)

    def _decord_is_exact(self) -> bool:
        context = self._stream.codec_context
        h264 = context.name == "h264" and context.pix_fmt == "yuv420p"
        if self._counted or not (h264 and self._index.closed):
            return False
        if not self._opened().format.name.startswith(("mov,", "matroska")):
            return False
        if self._turns is None:
            super()._read(np.zeros(1, np.int64), None)
        return self._turns == 0 and not self._counted
