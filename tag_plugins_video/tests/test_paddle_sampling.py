"""Index tables worked out by hand from the published code."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tag_plugins_video.datasets.paddle import paddle


@pytest.mark.parametrize(
    ("num_frames", "num_segments", "length", "centre", "expected"),
    [
        (30, 3, 5, "frame", [4, 5, 6, 7, 8, 14, 15, 16, 17, 18, 24, 25, 26, 27, 28]),
        (30, 3, 5, "snippet", [2, 3, 4, 5, 6, 12, 13, 14, 15, 16, 22, 23, 24, 25, 26]),
        (30, 3, 1, "snippet", [4, 14, 24]),
        (15, 3, 5, "frame", [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0, 1]),  # wraps round
        (4, 3, 5, "frame", [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2]),  # parts shorter than a snippet
        (2, 3, 1, "frame", [0, 1, 0]),  # fewer frames than segments
    ],
)
def test_paddle_takes_snippets_as_its_two_readers_do(num_frames, num_segments, length, centre, expected):
    assert paddle(num_frames, num_segments, length, centre=centre).tolist() == [expected]


def test_paddle_random_snippets_stay_inside_their_part():
    torch.manual_seed(0)
    drawn = np.concatenate([paddle(30, 3, 5, random=True) for _ in range(200)])
    assert set(drawn[:, 0]) == set(range(6))
    assert set(drawn[:, 10]) == set(range(20, 26))
    assert (np.diff(drawn[:, :5]) == 1).all()


@given(
    num_frames=st.integers(1, 400),
    parts=st.integers(1, 12),
    length=st.integers(1, 9),
    random=st.booleans(),
)
def test_every_index_of_paddle_sampling_is_a_frame_of_the_video(num_frames, parts, length, random):
    indices = paddle(num_frames, parts, length, random)
    assert indices.shape == (1, parts * length)
    assert indices.min() >= 0
    assert indices.max() < num_frames
    assert indices.dtype == np.int64
