"""Positions along a video, and the clips read there."""

import numpy as np
import pytest
import torch

from tag_core.engine.pool import Failure
from tag_plugins_video.datasets.folder import VideoFolder
from tag_plugins_video.feature_clips import ClipReader, Part, Piece, Positions
from tag_plugins_video.motion import write_clip


def at(num_frames, fps=25.0):
    return np.arange(num_frames) / fps


@pytest.mark.parametrize(
    ("positions", "times", "starts"),
    [
        (Positions(1.0, None), at(76), [0, 25, 50, 75]),
        (Positions(1.0, None), at(75), [0, 25, 50]),
        (Positions(0.5, None), at(30), [0, 12, 25]),  # the frame on screen after 0.5 s began after 0.48 s
        (Positions(1.0, None), at(4, fps=0.5), [0, 0, 1, 1, 2, 2, 3]),  # a frame stays on screen for two seconds
        (Positions(1.0, None), np.array([0, 0.1, 0.2, 3.5]), [0, 2, 2, 2]),  # variable frame rate
        (Positions(1.0, None), at(1), [0]),
        (Positions(1.0, None), at(31, fps=29.97), [0, 29]),
        (Positions(None, 2), np.zeros(5), [0, 2, 4]),
        (Positions(None, 9), np.zeros(5), [0]),
    ],
)
def test_positions_are_regular_in_time_or_in_frames(positions, times, starts):
    assert positions(times)[:, 0].tolist() == starts


def test_seconds_that_rounding_makes_late_still_count():
    times = np.array([round(i * 90000 / 30000 * 1001) for i in range(3000)]) * (1 / 90000)
    starts = Positions(1.001, None)(times)[:, 0]
    assert starts.tolist() == list(range(0, 3000, 30))


def test_clips_start_at_their_position_and_the_last_one_fits():
    assert Positions(None, 2, 4)(at(9)).tolist() == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7]]
    assert Positions(None, 1, 2, 3)(at(6)).tolist() == [[0, 3], [1, 4], [2, 5]]


def test_of_a_video_shorter_than_a_clip_the_last_frame_repeats():
    assert Positions(1.0, None, 4, 2)(at(3)).tolist() == [[0, 2, 2, 2]]


@pytest.mark.parametrize(
    "options",
    [
        {"every": None, "step": None},
        {"every": 1.0, "step": 1},
        {"every": 0.0, "step": None},
        {"every": float("nan"), "step": None},
        {"every": None, "step": 0},
        {"every": 1.0, "step": None, "clip_len": 0},
    ],
)
def test_positions_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match=r"above 0|either every"):
        Positions(**options)


def test_times_that_tell_nothing_or_jump_are_refused():
    with pytest.raises(ValueError, match="take --step"):
        Positions(1.0, None)(np.zeros(5))
    with pytest.raises(ValueError, match="more than 1000000 positions"):
        Positions(1.0, None)(np.array([0, 1e9]))


@pytest.fixture
def reader(tmp_path):
    """Videos of 10 frames, 3 and 10, and a file that is none; frame i has the grey level 20 i."""
    for name, length in {"a": 10, "b": 3, "d": 10}.items():
        frames = np.arange(length, dtype=np.uint8)[:, None, None] * 20
        write_clip(tmp_path / f"{name}.mp4", np.broadcast_to(frames, (length, 32, 32)))
    (tmp_path / "c.mp4").write_bytes(b"no video")
    videos = VideoFolder([], labelled=False)
    return lambda room, **options: ClipReader(videos, Positions(**{"every": None, "step": 1} | options), room)


def levels(part):
    return (part.clips.float().mean((2, 3, 4)) / 20).round().int().tolist()


def test_pieces_are_read_until_the_room_is_used_up(reader, tmp_path):
    pieces = [Piece(i, str(tmp_path / f"{name}.mp4")) for i, name in enumerate("bcad")]
    parts = reader(room=8)(pieces)
    assert [type(part) for part in parts] == [Part, Failure, Part]  # no room for the last
    assert [levels(part) for part in (parts[0], parts[2])] == [[[0], [1], [2]], [[0], [1], [2], [3], [4]]]
    assert (parts[0].total, parts[2].total) == (3, 10)


def test_a_video_that_fits_into_one_call_is_not_cut(reader, tmp_path):
    parts = reader(room=10)([Piece(i, str(tmp_path / f"{name}.mp4")) for i, name in enumerate("bad")])
    assert [len(part.clips) for part in parts] == [3, 10]


def test_a_video_in_pieces_is_the_video_whole(reader, tmp_path):
    path = str(tmp_path / "a.mp4")
    whole = reader(room=100, clip_len=3)([Piece(0, path)])[0]
    read = reader(room=3, clip_len=3)
    pieces = [read([Piece(0, path, start)])[0] for start in range(0, 8, 3)]
    assert levels(whole) == [[i, i + 1, i + 2] for i in range(8)]
    assert torch.equal(torch.cat([piece.clips for piece in pieces]), whole.clips)
    assert {piece.total for piece in pieces} == {8}


def test_a_piece_behind_the_end_of_a_video_is_empty(reader, tmp_path):
    part = reader(room=3)([Piece(0, str(tmp_path / "b.mp4"), 6)])[0]
    assert (len(part.clips), part.total) == (0, 3)
