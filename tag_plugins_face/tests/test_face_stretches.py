"""Stretches of videos: each gives its frames, whatever was read before."""

from __future__ import annotations

import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from face_pictures import packets, wipe_packet, write_video

from tag_core.errors import UnreadableInput
from tag_plugins_face.datasets import stretches
from tag_plugins_face.datasets.stretches import StretchReader


def counting(count: int) -> list[np.ndarray]:
    """Frames whose gray level is 5 times their number."""
    return [np.full((32, 48, 3), 5 * number, np.uint8) for number in range(count)]


def numbers(frames: np.ndarray) -> list[int]:
    return [round(float(frame.mean()) / 5) for frame in frames]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """40 frames, a key frame every 12."""
    write_video(tmp_path / "a.mp4", counting(40))
    return tmp_path / "a.mp4"


@pytest.mark.parametrize(
    ("interval", "parts"), [(1, ["0-7", "8-15", "16-23", "24-31", "32-39"]), (3, ["0-23", "24-39"]), (100, ["0-39"])]
)
def test_a_video_is_divided_into_stretches_of_eight_chosen_frames(video: Path, interval: int, parts: list[str]) -> None:
    found = stretches.divide(str(video), interval)
    assert found == [f"{video}#frames={part}" for part in parts]
    reader, read = StretchReader(), []
    for name in found:
        path, first, last = stretches.parse(name) or ("", 0, 0)
        clip = reader.read(path, first, last, interval)
        assert len(clip.indices) <= 8
        assert numbers(clip.frames) == list(clip.indices)
        np.testing.assert_allclose(clip.times, np.array(clip.indices) / 10)
        assert clip.damage is None
        read += clip.indices
    assert read == list(range(0, 40, interval))


def test_only_names_of_stretches_are_taken_apart(video: Path) -> None:
    assert stretches.parse("dir/a#b.mp4#frames=0-7") == ("dir/a#b.mp4", 0, 7)
    for name in ("a.mp4", "a.mp4#frames=", "a.mp4#frames=1", "#frames=0-7", "a.mp4#frames=0-7x", "a.mp4#frames=-1-7"):
        assert stretches.parse(name) is None
    odd = video.rename(f"{video}#frames=0-7")
    assert stretches.parse(str(odd)) is None


def test_what_cannot_be_opened_stays_one_item(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("no video")
    for path in (str(tmp_path / "a.mp4"), str(tmp_path / "none.mp4")):
        assert stretches.divide(path, 1) == [path]
        with pytest.raises(UnreadableInput):
            StretchReader().read(path, 0, 7, 1)


def test_the_video_stays_open_for_the_next_stretch_and_is_left_out_of_a_pickle(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    original = stretches.open_video
    monkeypatch.setattr(stretches, "open_video", lambda path: opened.append(path) or original(path))
    other = write_video(tmp_path / "b.mp4", counting(10))
    reader = StretchReader()
    for first in (0, 8, 32, 16):
        assert reader.read(str(video), first, first + 7, 1).indices[0] == first
    assert reader.read(other, 0, 7, 1).num_frames == 10
    assert opened == [str(video), other]
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.read(str(video), 8, 15, 4).indices == (8, 12)
    assert len(opened) == 3


def _in_a_fork(reader: StretchReader, path: str, answer: Any) -> None:
    answer.send([numbers(reader.read(path, first, first + 7, 1).frames) for first in (8, 16)])


def test_a_forked_process_opens_its_own(video: Path) -> None:
    reader = StretchReader()
    reader.read(str(video), 0, 7, 1)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=_in_a_fork, args=(reader, str(video), theirs))
    process.start()
    assert ours.recv() == [list(range(8, 16)), list(range(16, 24))]
    process.join()
    assert numbers(reader.read(str(video), 8, 15, 1).frames) == list(range(8, 16))


def outcome(reader: StretchReader, path: Path, first: int) -> tuple[list[int], str]:
    try:
        clip = reader.read(str(path), first, first + 7, 1)
    except UnreadableInput as error:
        return [], error.reason
    assert numbers(clip.frames) == list(clip.indices)
    return list(clip.indices), clip.damage or ""


def test_a_damaged_video_keeps_its_good_part_in_whatever_order_it_is_read(video: Path) -> None:
    wipe_packet(video, 12)  # a key frame: 12 to 23 are lost
    assert len(stretches.divide(str(video), 1)) == 5
    fresh = {first: outcome(StretchReader(), video, first) for first in (0, 8, 16, 24, 32)}
    assert [frames for frames, _ in fresh.values()] == [
        list(range(8)),
        [frame for frame in range(8, 12) if frame in fresh[8][0]],
        [],
        list(range(24, 32)),
        list(range(32, 40)),
    ]
    assert [bool(told) for _, told in fresh.values()] == [False, True, True, False, False]
    assert len(fresh[8][0]) >= 1
    assert "of 40 frames are usable" in fresh[8][1]
    assert "of 40 frames are usable" in fresh[16][1]
    for order in ((0, 8, 16, 24, 32), (32, 24, 16, 8, 0), (16, 0, 16, 32)):
        reader = StretchReader()
        assert [outcome(reader, video, first) for first in order] == [fresh[first] for first in order]


def test_a_video_that_is_cut_off_gives_the_frames_it_has(video: Path) -> None:
    video.write_bytes(video.read_bytes()[: packets(video)[30][0]])
    names = stretches.divide(str(video), 1)
    parsed = [stretches.parse(name) for name in names]
    assert all(parsed)
    read = [StretchReader().read(path, first, last, 1) for path, first, last in parsed]  # type: ignore[misc]
    frames = [frame for clip in read for frame in clip.indices]
    assert frames == list(range(len(frames)))
    assert 20 < len(frames) <= 30
    assert all("the file is cut off" in (clip.damage or "") for clip in read)


def test_a_stretch_without_a_chosen_frame_or_behind_the_end_is_refused(video: Path) -> None:
    with pytest.raises(UnreadableInput, match="no frame from 1 to 4 is a multiple of 5"):
        StretchReader().read(str(video), 1, 4, 5)
    with pytest.raises(UnreadableInput, match="only 40 frames"):
        StretchReader().read(str(video), 40, 47, 1)
