"""Frame i is the i-th frame of a sequential decode, on every file; what cannot be read says why."""

from __future__ import annotations

import gc
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tag_core.errors import UnreadableInput
from tag_core.media.video import Video, open_video, read_clip

SHARED = Path(os.environ.get("TAG_SHARED_DATA", Path(__file__).resolve().parents[2].parent / "shared" / "data"))
FOLDERS = (SHARED / "video" / "videos", SHARED / "video" / "bad")
REAL = sorted(path for folder in FOLDERS if folder.is_dir() for path in folder.iterdir())
NO_FRAMES = {"audio_only", "first_kf_zeroed", "html", "jpeg_renamed", "trunc50_moovend", "zero"}
needs_data = pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")

try:
    import decord
except ImportError:
    decord = None
READERS = ["pyav", pytest.param("decord", marks=pytest.mark.skipif(decord is None, reason="no decord"))]


def pictures(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """Frames that move and differ from each other everywhere, so that a wrong frame shows."""
    rng = np.random.default_rng(count)
    scene = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1 + count, 3)).astype(np.uint8)
    scene = np.kron(scene, np.ones((8, 8, 1), np.uint8))
    return np.stack([scene[:height, 3 * k : 3 * k + width] for k in range(count)])


def encode(
    path: Path,
    codec: str = "libx264",
    count: int = 40,
    size: tuple[int, int] = (48, 64),
    options: dict[str, str] | None = None,
    pts: Sequence[int] | None = None,
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    movflags: str | None = None,
    scene: np.ndarray | None = None,
) -> Path:
    # x264's macroblock tree reads memory that it has not written: the same pictures do not always give the same file.
    repeatable = {"x264-params": "mbtree=0"} if codec == "libx264" else {}
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        stream: Any = container.add_stream(codec, rate=25, options=repeatable | (options or {}))
        stream.height, stream.width, stream.pix_fmt = *size, pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        for k, picture in enumerate(pictures(count, *size) if scene is None else scene):
            frame = av.VideoFrame.from_ndarray(picture)
            if pts is not None:
                frame.pts = pts[k]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sequential(path: Path) -> np.ndarray:
    """The reference: PyAV, from the first frame to the last or to the first error."""
    found: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream: Any = container.streams.best("video")
        stream.codec_context.thread_count = 1
        try:
            frame: Any
            for frame in container.decode(stream):
                picture = frame.to_ndarray(format="rgb24")
                found.append(np.rot90(picture, round(frame.rotation / 90) % 4))
        except av.FFmpegError:
            pass
    return np.stack(found)


def assert_exact(path: Path, reader: Any, expected: np.ndarray) -> None:
    total, rng = len(expected), np.random.default_rng(0)
    wishes = [[total - 1], [int(rng.integers(total))], sorted(rng.integers(0, total, 5).tolist())]
    wishes.append(rng.integers(0, total, 7).tolist())
    everything = read_clip(path, range, reader=reader)
    np.testing.assert_array_equal(everything.frames, expected)
    with open_video(path, reader) as shared:
        for wish in [*wishes, *wishes]:
            np.testing.assert_array_equal(shared.frames(wish), expected[wish])
        for part in np.array_split(np.arange(total), min(total, 5)):  # one decode goes on where it was
            np.testing.assert_array_equal(shared.frames(part), expected[part])
    for wish in wishes[:2]:
        clip = read_clip(path, lambda n, wish=wish: wish, reader=reader)
        np.testing.assert_array_equal(clip.frames, expected[wish])


ENCODINGS: dict[str, tuple[str, str, dict[str, str]]] = {
    "h264 as it comes": ("mp4", "libx264", {}),
    "h264 closed GOP": ("mp4", "libx264", {"g": "7", "bf": "3"}),
    "h264 open GOP": ("mp4", "libx264", {"x264-params": "open-gop=1:keyint=8:bframes=3:b-adapt=0"}),
    "h264 without B-frames": ("mkv", "libx264", {"g": "9", "bf": "0"}),
    "h264 intra refresh": ("mp4", "libx264", {"x264-params": "intra-refresh=1:keyint=10"}),
    "h264 many B-frames": ("mkv", "libx264", {"x264-params": "keyint=20:bframes=8:b-pyramid=2:b-adapt=0"}),
    "h264 interlaced": ("mp4", "libx264", {"x264-params": "interlaced=1:keyint=12"}),
    "h264 in ts": ("ts", "libx264", {"g": "10"}),
    "h264 in avi": ("avi", "libx264", {"g": "10"}),
    "h264 in flv": ("flv", "libx264", {"g": "10"}),
    "h264 without a container": ("h264", "libx264", {"g": "10"}),
    "h265 as it comes": ("mp4", "libx265", {"x265-params": "log-level=none"}),
    "h265 closed GOP": ("mp4", "libx265", {"x265-params": "keyint=8:min-keyint=8:open-gop=0:log-level=none"}),
    "h265 open GOP": ("mp4", "libx265", {"x265-params": "keyint=8:min-keyint=8:open-gop=1:log-level=none"}),
    "h265 open GOP in ts": ("ts", "libx265", {"x265-params": "keyint=8:min-keyint=8:open-gop=1:log-level=none"}),
    "h265 in mkv": ("mkv", "libx265", {"x265-params": "keyint=10:open-gop=1:bframes=4:log-level=none"}),
    "mpeg4 in avi": ("avi", "mpeg4", {"g": "12"}),
    "mpeg4 with B-frames in avi": ("avi", "mpeg4", {"g": "12", "bf": "2"}),
    "mpeg2 in ts": ("ts", "mpeg2video", {"g": "12", "bf": "2"}),
    "vp8": ("webm", "libvpx", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10", "cpu-used": "8"}),
    "vp9": ("webm", "libvpx-vp9", {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "10", "cpu-used": "8"}),
    "av1": ("mkv", "libsvtav1", {"g": "12", "preset": "12", "svtav1-params": "lp=1"}),
    "motion jpeg": ("avi", "mjpeg", {}),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", ENCODINGS)
def test_every_frame_of_an_encoded_file_is_the_one_of_a_sequential_decode(
    name: str, reader: Any, tmp_path: Path
) -> None:
    extension, codec, options = ENCODINGS[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV cannot encode {codec}")
    path = tmp_path / f"made.{extension}"
    encode(path, codec, options=options, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
    expected = sequential(path)
    assert len(expected) >= 38  # an interlaced or raw stream may lose its first or last frames, not more
    assert_exact(path, reader, expected)


@needs_data
@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("path", [p for p in REAL if p.stem not in NO_FRAMES], ids=lambda path: path.name)
def test_every_frame_of_a_real_file_is_the_one_of_a_sequential_decode(path: Path, reader: Any) -> None:
    assert_exact(path, reader, sequential(path))


@pytest.mark.parametrize("reader", READERS)
def test_uneven_and_late_time_stamps_give_the_right_frames_and_times(reader: Any, tmp_path: Path) -> None:
    gaps = np.random.default_rng(0).integers(1, 9, 40)
    stamps = 1000 + np.cumsum(gaps)
    path = tmp_path / "uneven.mp4"
    encode(path, options={"g": "8"}, pts=stamps.tolist())
    assert_exact(path, reader, sequential(path))
    with open_video(path, reader) as video:
        np.testing.assert_allclose(video.times(range(40)), (stamps - stamps[0]) / 25, atol=1e-6)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_rotation_metadata_is_applied(degrees: int, tmp_path: Path) -> None:
    path = tmp_path / "rotated.mp4"
    encode(path, rotation=degrees, count=5)
    upright = tmp_path / "upright.mp4"
    encode(upright, count=5)
    expected = np.rot90(sequential(upright), degrees // 90, axes=(1, 2))
    with open_video(path) as video:
        np.testing.assert_array_equal(video.frames(range(5)), expected)
        assert video.frames([1], short_side=24).shape == ((1, 24, 32, 3) if degrees == 180 else (1, 32, 24, 3))


@needs_data
@pytest.mark.skipif(decord is None, reason="no decord")
def test_rotation_agrees_with_decord() -> None:
    path = str(SHARED / "video" / "videos" / "nasa_13013_rotated.mp4")
    expected = decord.VideoReader(path).get_batch([0, 9]).asnumpy()
    with open_video(path) as video:
        np.testing.assert_array_equal(video.frames([0, 9]), expected)


@pytest.mark.parametrize("short_side", [24, 48, 96])
def test_resized_frames_are_those_of_a_bilinear_resize(short_side: int, tmp_path: Path) -> None:
    waves = 128 + 100 * np.sin(np.add.outer(np.arange(48) / 3, np.arange(64) / 2))
    grey = np.repeat(waves[None, ..., None], 3, axis=3).astype(np.uint8)  # chroma has half the pixels
    path = encode(tmp_path / "waves.mkv", options={"qp": "1"}, scene=grey)
    width = short_side * 64 // 48
    with open_video(path) as video:
        small, full = video.frames([0], short_side), video.frames([0])
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(full).permute(0, 3, 1, 2).float(), (short_side, width), mode="bilinear", antialias=True
    )
    assert small.shape == (1, short_side, width, 3)
    assert np.abs(small - expected.permute(0, 2, 3, 1).numpy()).mean() < 2


@pytest.mark.parametrize("size", [(1, 1), (17, 31), (31, 17)])
@pytest.mark.parametrize("codec", ["libx264", "ffv1"])
def test_odd_sizes_are_read(size: tuple[int, int], codec: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.mkv"
    encode(path, codec, count=3, size=size, pix_fmt="yuv444p")
    assert_exact(path, "pyav", sequential(path))


def test_one_frame_has_a_duration_or_none_but_is_read(tmp_path: Path) -> None:
    path = tmp_path / "one.mp4"
    encode(path, count=1)
    clip = read_clip(path, lambda n: [0] * (4 * n))
    assert clip.frames.shape == (4, 48, 64, 3)
    assert (clip.num_frames, clip.damage, clip.times.tolist()) == (1, None, [0, 0, 0, 0])


def test_a_zero_duration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "still.mp4"
    encode(path, count=1)
    data = bytearray(path.read_bytes())
    for box, offset in ((b"mvhd", 20), (b"tkhd", 24), (b"mdhd", 20)):
        at = data.index(box) + offset
        data[at : at + 4] = bytes(4)
    at = data.index(b"stts") + 16
    data[at : at + 4] = bytes(4)
    path.write_bytes(data)
    with open_video(path) as video:
        assert video.frames([0]).shape == (1, 48, 64, 3)
        assert np.isfinite([video.fps, *video.times([0])]).all()


def test_frame_numbers_out_of_range_and_a_closed_video_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    encode(path, count=5)
    video = open_video(path)
    for wrong in ([5], [-1], [0, 99]):
        with pytest.raises(IndexError, match="frames 0 to 4"):
            video.frames(wrong)
    video.close()
    video.close()
    with pytest.raises(RuntimeError, match="closed"):
        video.frames([0])


# -- damaged files ----------------------------------------------------------------------------------------------


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """60 frames with a key frame every 20 and the index in front."""
    options = {"x264-params": "keyint=20:min-keyint=20:scenecut=0"}
    return encode(tmp_path / "sound.mp4", count=60, options=options, movflags="faststart")


def packets(path: Path) -> list[tuple[int, int]]:
    with av.open(str(path)) as container:
        return [(p.pos or 0, p.size) for p in container.demux(video=0) if p.size]


def test_a_file_damaged_in_the_middle_gives_the_frames_before(sound: Path) -> None:
    expected, data, (at, size) = sequential(sound), bytearray(sound.read_bytes()), packets(sound)[20]
    data[at : at + size] = bytes(size)
    sound.write_bytes(data)
    asked: list[int] = []

    def everything(count: int) -> Sequence[int]:
        asked.append(count)
        return range(count)

    clip = read_clip(sound, everything)
    assert asked == [60, clip.num_frames]
    assert 15 <= clip.num_frames <= 20
    assert clip.damage == f"the video is damaged: {clip.num_frames} of 60 frames are usable"
    np.testing.assert_array_equal(clip.frames, expected[: clip.num_frames])
    with open_video(sound) as video, pytest.raises(UnreadableInput, match="of 60 frames are usable"):
        video.frames([30])


def test_only_the_needed_part_of_a_file_is_decoded(sound: Path) -> None:
    expected, data, (at, size) = sequential(sound), bytearray(sound.read_bytes()), packets(sound)[20]
    data[at : at + size] = bytes(size)
    sound.write_bytes(data)
    with open_video(sound) as video:
        np.testing.assert_array_equal(video.frames([3, 44]), expected[[3, 44]])
        assert video.damage is None


def test_a_file_without_seek_points_is_decoded_once_for_all_parts_in_order(tmp_path: Path) -> None:
    class Counting(Video):
        opened = 0

        def _open(self) -> Any:
            self.opened += 1
            return super()._open()

    encode(tmp_path / "a.avi", "mpeg4", count=40)
    with Counting(str(tmp_path / "a.avi")) as video:
        before = video.opened
        for first in range(0, 40, 8):
            video.frames(range(first, first + 8, 3))
        assert video.opened == before + 1
        video.frames([38])
        assert video.opened == before + 2  # the last call has read this far already


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("b.mkv", "libx264"), ("c.avi", "mpeg4")])
def test_a_truncated_file_gives_its_good_part(name: str, codec: str, tmp_path: Path) -> None:
    path = tmp_path / name
    encode(path, codec, count=60, size=(96, 128), movflags="faststart" if codec == "libx264" else None)
    expected = sequential(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    clip = read_clip(path, range)
    assert 20 < clip.num_frames < 50
    of_all = "" if name == "b.mkv" else " of 60"  # Matroska does not say how many there were
    assert clip.damage is not None
    assert clip.damage.startswith(f"the file is cut off: {clip.num_frames}{of_all} frames are usable")
    np.testing.assert_array_equal(clip.frames[:20], expected[:20])


def test_reading_a_damaged_file_twice_gives_the_same_clip(sound: Path) -> None:
    data = bytearray(sound.read_bytes())
    for at in range(len(data) // 2, len(data), 997):
        data[at] ^= 255
    sound.write_bytes(data)
    first, second = (read_clip(sound, lambda n: [0, n // 2, n - 1]) for _ in range(2))
    np.testing.assert_array_equal(first.frames, second.frames)
    assert (first.indices, first.damage) == (second.indices, second.damage)


# -- unreadable files -------------------------------------------------------------------------------------------


def audio_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def picture(path: Path, kind: str) -> None:
    Image.fromarray(pictures(1)[0]).save(path, kind)


def index_at_the_end_cut_off(path: Path) -> None:
    encode(path)
    path.write_bytes(path.read_bytes()[:-1200])


def no_frames(path: Path) -> None:
    encode(path)
    data = bytearray(path.read_bytes())
    for table, at in ((b"stsz", 12), (b"stts", 8), (b"stsc", 8), (b"stco", 8)):
        start = data.index(table) + at
        data[start : start + 4] = bytes(4)
    path.write_bytes(data)


def first_key_frame_zeroed(path: Path) -> None:
    encode(path)
    data, (at, size) = bytearray(path.read_bytes()), packets(path)[0]
    data[at : at + size] = bytes(size)
    path.write_bytes(data)


UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder, with no video in it"),
    "pipe": (lambda path: os.mkfifo(path), "not a regular file"),
    "empty": (lambda path: path.touch(), "empty file (0 bytes)"),
    "text": (lambda path: path.write_text("Grüße, this is no video\n" * 90), "not a video: a text file"),
    "playlist": (lambda path: path.write_text("#EXTM3U\n#EXTINF:1,\nother.ts\n"), "not a video: a text file"),
    "html": (lambda path: path.write_text("<!DOCTYPE html><html>404</html>"), "not a video: a text file"),
    "jpeg": (lambda path: picture(path, "jpeg"), "not a video: a picture"),
    "png": (lambda path: picture(path, "png"), "not a video: a picture"),
    "webp": (lambda path: picture(path, "webp"), "not a video: a picture"),
    "tiff": (lambda path: picture(path, "tiff"), "not a video: a picture"),
    "noise": (
        lambda path: path.write_bytes(np.random.default_rng(0).bytes(4000)),
        "not a video, or damaged beyond reading",
    ),
    "audio only": (audio_only, "no video stream (audio only)"),
    "cut off": (index_at_the_end_cut_off, "the file is cut off before its index ends, or damaged beyond reading"),
    "no frames": (no_frames, "no frame can be decoded"),
    "bad start": (first_key_frame_zeroed, "the video is damaged: no frame can be decoded"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_an_unreadable_file_says_why(name: str, tmp_path: Path) -> None:
    make, reason = UNREADABLE[name]
    path = tmp_path / "input.mp4"
    make(path)
    with pytest.raises(UnreadableInput) as caught:
        read_clip(path, range)
    assert caught.value.source == str(path)
    assert reason in caught.value.reason
    assert "Errno" not in caught.value.reason


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no POSIX permissions")
def test_a_file_without_read_permission_says_so(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    encode(path, count=2)
    path.chmod(0)
    code = (
        "import os, sys\n"
        "from tag_core.media.video import open_video\n"
        "import tag_core.media.pyav_reader\n"
        "from tag_core.errors import UnreadableInput\n"
        "folder = os.open(os.path.dirname(sys.argv[1]), os.O_RDONLY)\n"
        "os.fchdir(folder)\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: open_video('secret.mp4')\n"
        "except UnreadableInput as error: print(error.reason)\n"
    )
    tmp_path.chmod(stat.S_IRWXU | stat.S_IXOTH | stat.S_IROTH)
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "permission denied\n"


def test_odd_names_and_foreign_metadata_are_no_obstacle(tmp_path: Path) -> None:
    sample = tmp_path / "sample.mkv"
    encode(sample, count=3)
    data = sample.read_bytes().replace(b"Lavf", b"\xff\xfe\xfd\xfc")
    names = ["a:b.mp4", "http:x.mp4", "100%d 漢字.mp4", "#?.mp4", os.fsdecode(b"latin\xe9.mp4")]
    for name in names:
        path = tmp_path / name
        path.write_bytes(data)
        assert read_clip(path, range).num_frames == 3
    with pytest.raises(UnreadableInput):
        open_video("a\0b.mp4")
    with pytest.raises(UnreadableInput, match="no such file"):
        open_video("http://localhost/x.mp4")


@needs_data
def test_nothing_is_written_to_stderr_and_the_log_level_of_av_is_kept(capfd: pytest.CaptureFixture[str]) -> None:
    before = av.logging.get_level()
    readers: list[Any] = ["pyav", "decord" if decord is not None else "auto"]
    for reader in readers:
        for path in REAL:
            try:
                read_clip(path, lambda n: [0, n // 2, n - 1], 32, reader)
            except UnreadableInput:
                continue
    assert capfd.readouterr() == ("", "")
    assert av.logging.get_level() == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="memory and handles are counted in /proc")
def test_500_opens_lose_no_memory_and_no_file_handles(sound: Path, tmp_path: Path) -> None:
    damaged, cut, text = tmp_path / "damaged.mp4", tmp_path / "cut.mp4", tmp_path / "text.mp4"
    data, (at, size) = bytearray(sound.read_bytes()), packets(sound)[20]
    cut.write_bytes(data[:3000])
    data[at : at + size] = bytes(size)
    damaged.write_bytes(data)
    text.write_text("no video")

    def open_all(rounds: int) -> tuple[int, int]:
        for _ in range(rounds):
            for path in (sound, damaged, cut, text):
                try:
                    read_clip(path, lambda n: [0, n - 1])
                except UnreadableInput:
                    continue
            with open_video(sound) as video, pytest.raises(IndexError):
                video.frames([1000])
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        return resident, len(os.listdir("/proc/self/fd"))

    memory, handles = open_all(20)
    memory_after, handles_after = open_all(100)
    assert handles_after == handles
    assert memory_after - memory < 8 * 2**20


# -- fuzzing ----------------------------------------------------------------------------------------------------


def read_or_refuse(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        clip = read_clip(path, lambda n: [0, n // 2, n - 1], short_side=16)
    except UnreadableInput as refusal:
        reason = refusal.reason
    else:
        reason = clip.damage or "sound"
        assert len(clip.frames) == len(clip.indices) == len(clip.times) == 3
    assert reason
    assert "\n" not in reason


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    folder = tmp_path_factory.mktemp("seeds")
    files = [("a.mp4", "libx264"), ("b.mkv", "libx264"), ("c.avi", "mpeg4"), ("d.mp4", "libx265")]
    return [encode(folder / name, codec, 12).read_bytes() for name, codec in files]


fuzzed = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@fuzzed
@given(
    data=st.binary(max_size=2000),
    head=st.sampled_from([b"", b"\0\0\0\x18ftypmp42", b"RIFF", b"\x1a\x45\xdf\xa3", b"\0\0\1"]),
)
def test_random_bytes_are_read_or_refused(data: bytes, head: bytes, tmp_path: Path) -> None:
    read_or_refuse(tmp_path / "fuzz.mp4", head + data)


@fuzzed
@given(
    choice=st.integers(0, 3),
    edits=st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=8)), max_size=12),
    keep=st.floats(0.3, 1),
)
def test_changed_bytes_of_real_videos_are_read_or_refused(
    choice: int, edits: list[tuple[float, bytes]], keep: float, seeds: list[bytes], tmp_path: Path
) -> None:
    data = bytearray(seeds[choice % len(seeds)])
    for where, replacement in edits:
        at = int(where * (len(data) - 1))
        data[at : at + len(replacement)] = replacement
    read_or_refuse(tmp_path / "fuzz.mp4", bytes(data[: int(keep * len(data))]))


@fuzzed
@given(
    box=st.sampled_from(
        [b"stsz", b"stts", b"stsc", b"stco", b"ctts", b"stss", b"mdhd", b"tkhd", b"avcC", b"elst", b"stsd", b"trak"]
    ),
    offset=st.integers(-4, 40),
    value=st.integers(0, 2**32 - 1),
)
def test_false_tables_of_an_mp4_are_read_or_refused(
    box: bytes, offset: int, value: int, seeds: list[bytes], tmp_path: Path
) -> None:
    data = bytearray(seeds[0])
    at = data.find(box) + 4 + offset
    if at < len(data) - 4:
        struct.pack_into(">I", data, at, value)
    read_or_refuse(tmp_path / "fuzz.mp4", bytes(data))
