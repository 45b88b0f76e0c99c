"""Index tables worked out by hand from the published formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tag_core.media.sampling import dense, segments


@pytest.mark.parametrize(
    ("num_frames", "num_segments", "length", "expected"),
    [
        (10, 3, 1, [1, 5, 8]),  # ticks of 10/3: 1.67, 5.0, 8.33
        (20, 8, 1, [1, 3, 6, 8, 11, 13, 16, 18]),  # ticks of 2.5
        (3, 5, 1, [0, 0, 1, 2, 2]),  # ticks of 0.6: 0.3, 0.9, 1.5, 2.1, 2.7
        (1, 3, 1, [0, 0, 0]),
        (11, 2, 2, [2, 3, 7, 8]),  # 10 starts, ticks of 5: 2.5, 7.5
        (3, 2, 5, [0, 1, 2, 2, 2, 0, 1, 2, 2, 2]),  # shorter than one snippet: the last frame repeats
    ],
)
def test_segments_take_the_centre_of_each_part(num_frames, num_segments, length, expected):
    assert segments(num_frames, num_segments, length).tolist() == [expected]


def test_two_clips_of_segments_share_the_centres_of_twice_as_many_segments():
    assert segments(12, 3, num_clips=2).tolist() == [[1, 5, 9], [3, 7, 11]]


def test_random_segments_draw_one_frame_from_each_part():
    torch.manual_seed(0)
    drawn = np.concatenate([segments(20, 3, random=True) for _ in range(300)])
    for column, allowed in enumerate([range(6), range(6, 12), range(12, 18)]):  # 20 // 3 = 6
        assert set(drawn[:, column]) == set(allowed)


def test_random_segments_of_a_video_that_is_just_long_enough_are_sorted_draws():
    torch.manual_seed(0)
    drawn = [segments(6, 4, length=5, random=True)[0].reshape(4, 5)[:, 0] for _ in range(50)]
    assert {tuple(starts) for starts in drawn} > {(0, 0, 0, 1), (0, 1, 1, 1)}
    assert all((np.diff(starts) >= 0).all() for starts in drawn)


def test_random_segments_of_too_short_a_video_all_take_the_first_frame():
    assert segments(3, 5, random=True).tolist() == [[0, 0, 0, 0, 0]]


@pytest.mark.parametrize(
    ("num_frames", "clip_len", "interval", "num_clips", "starts"),
    [
        (100, 16, 2, 1, [34]),  # room 100 - 30 - 1 = 69
        (100, 16, 2, 3, [0, 34, 69]),  # 0, 34.5, 69; half goes to even
        (100, 1, 1, 4, [0, 33, 66, 99]),
        (10, 16, 1, 2, [0, 0]),
    ],
)
def test_dense_test_clips_spread_evenly(num_frames, clip_len, interval, num_clips, starts):
    found = dense(num_frames, clip_len, interval, num_clips)
    assert found.tolist() == [[(s + j * interval) % num_frames for j in range(clip_len)] for s in starts]


def test_a_clip_longer_than_the_video_loops_or_repeats_its_last_frame():
    assert dense(3, 5).tolist() == [[0, 1, 2, 0, 1]]
    assert dense(3, 5, out_of_bound="repeat_last").tolist() == [[0, 1, 2, 2, 2]]
    assert dense(10, 4, 4).tolist() == [[0, 4, 8, 2]]
    assert dense(10, 4, 4, out_of_bound="repeat_last").tolist() == [[0, 4, 8, 8]]  # 8 is the clip's last


def test_dense_random_starts_lie_in_equal_parts():
    torch.manual_seed(0)
    drawn = np.stack([dense(100, 16, 2, 3, random=True)[:, 0] for _ in range(600)])  # 69 starts, parts of 23
    for column, allowed in enumerate([range(23), range(23, 46), range(46, 69)]):
        assert set(drawn[:, column]) == set(allowed)


def test_dense_random_starts_of_short_videos_follow_the_published_cases():
    torch.manual_seed(0)
    drawn = [tuple(dense(34, 16, 2, 8, random=True)[:, 0]) for _ in range(50)]  # 3 starts for 8 clips
    assert {start for starts in drawn for start in starts} == {0, 1, 2}
    assert all(list(starts) == sorted(starts) for starts in drawn)
    assert dense(32, 16, 2, 4, random=True)[:, 0].tolist() == [0, 0, 0, 1]  # round(k / 4), half to even
    assert dense(20, 16, 2, 4, random=True)[:, 0].tolist() == [0, 0, 0, 0]


@given(
    num_frames=st.integers(1, 400),
    parts=st.integers(1, 12),
    length=st.integers(1, 9),
    clips=st.integers(1, 4),
    random=st.booleans(),
)
def test_every_index_is_a_frame_of_the_video(num_frames, parts, length, clips, random):
    found = {
        "segments": (segments(num_frames, parts, length, clips, random), (clips, parts * length)),
        "dense": (dense(num_frames, length, parts, clips, random), (clips, length)),
        "last": (dense(num_frames, length, parts, clips, random, "repeat_last"), (clips, length)),
    }
    for name, (indices, shape) in found.items():
        assert indices.shape == shape, name
        assert indices.min() >= 0, name
        assert indices.max() < num_frames, name
        assert indices.dtype == np.int64, name


def test_random_sampling_is_decided_by_the_torch_seed():
    def draw():
        torch.manual_seed(7)
        return [segments(90, 8, random=True), dense(90, 8, 2, 2, random=True)]

    assert all((a == b).all() for a, b in zip(draw(), draw(), strict=True))
