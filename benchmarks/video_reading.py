"""Exact video reading against plain decord and plain PyAV, in CPU time.

    python benchmarks/video_reading.py [VIDEO ...]

Each reader opens the file, reads the frames as RGB and closes it, with one decoder thread. A row is the least
CPU time (`time.process_time`) of several interleaved runs; the ratio is Tag's time over the faster of the plain
readers, and the bar is 1.15. "Plain" means what people write: decord's `get_batch`, and PyAV's seek and decode
with `to_ndarray`, both wrong on some files where Tag is not. Exits with 1 when the bar is missed.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np

from tag_core.media.video import Reader, open_video

try:
    import decord
except ImportError:
    decord = None

BAR, RUNS = 1.15, 7
SHARED = Path(os.environ.get("TAG_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
Read = Callable[[str, Sequence[int]], np.ndarray]


def with_tag(reader: Reader) -> Read:
    def read(path: str, indices: Sequence[int]) -> np.ndarray:
        with open_video(path, reader) as video:
            return video.frames(indices)

    return read


def with_decord(path: str, indices: Sequence[int]) -> np.ndarray:
    return decord.VideoReader(path, num_threads=1).get_batch(list(indices)).asnumpy()


def with_pyav(path: str, indices: Sequence[int]) -> np.ndarray:
    """Seek once before the first frame, decode forward, convert what is wanted; assumes a constant rate."""
    pictures, wanted = [], set(indices)
    with av.open(path) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1
        step = 1 / (stream.average_rate * stream.time_base)
        container.seek(int(indices[0] * step), stream=stream)
        for frame in container.decode(stream):
            if round(frame.pts / step) in wanted:
                pictures.append(frame.to_ndarray(format="rgb24"))
                if len(pictures) == len(wanted):
                    break
    return np.stack(pictures)


def encode_sample(path: Path, num_frames: int = 240) -> None:
    """An ordinary H.264 file: 320x240, B-frames, a key frame every 60."""
    rng, (height, width) = np.random.default_rng(0), (240, 320)
    scene = np.kron(rng.integers(0, 255, (height // 8, 2 * width // 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "60", "crf": "23"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for at in range(num_frames):
            picture = np.ascontiguousarray(np.roll(scene, -2 * at, axis=1)[:, :width])
            picture[:, :40] = rng.integers(0, 60, (height, 40, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())


def least_times(readers: dict[str, Read], path: str, indices: Sequence[int]) -> dict[str, float]:
    times = dict.fromkeys(readers, float("inf"))
    expected = readers["tag"](path, indices)
    for _ in range(RUNS):
        for name, read in readers.items():
            start = time.process_time()
            pictures = read(path, indices)
            times[name] = min(times[name], time.process_time() - start)
            if pictures.shape != expected.shape or (pictures != expected).any():
                print(f"note: {name} returned other frames than Tag on {Path(path).name}", file=sys.stderr)
    return times


def compare(path: str) -> list[float]:
    readers: dict[str, Read] = {"tag": with_tag("auto"), "plain PyAV": with_pyav}
    if decord is not None:
        decord.logging.set_level(decord.logging.QUIET)
        readers |= {"tag, decord": with_tag("decord"), "plain decord": with_decord}
    with open_video(path) as video:
        total = video.num_frames
    tasks = {
        "all frames": range(total),
        "8 uniform frames": [int((k + 0.5) * total / 8) for k in range(8)],
        "32-frame clip": range(total // 2 - 16, total // 2 + 16),
    }
    ratios = []
    for task, indices in tasks.items():
        times = least_times(readers, path, indices)
        ratios.append(times["tag"] / min(t for name, t in times.items() if name.startswith("plain")))
        cells = "  ".join(f"{name} {1000 * t:6.1f} ms" for name, t in times.items())
        print(f"{Path(path).name:24} {task:17} ratio {ratios[-1]:.2f}   {cells}")
    return ratios


def main(paths: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "encoded_h264.mp4"
        encode_sample(made)
        real = SHARED / "video" / "videos" / "arm_wrestling_demo.mp4"
        files = paths or [str(made), *([str(real)] if real.is_file() else [])]
        worst = max(ratio for path in files for ratio in compare(path))
    print(f"worst ratio {worst:.2f}, bar {BAR}: {'met' if worst <= BAR else 'MISSED'}")
    return int(worst > BAR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
