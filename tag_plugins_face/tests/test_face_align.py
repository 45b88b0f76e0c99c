"""Faces come to their standard places."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tag_plugins_face.align import TEMPLATE, aligned, similarity


@given(st.floats(-180, 180), st.floats(0.1, 9), st.floats(-500, 500), st.floats(-500, 500))
def test_a_turn_scale_and_shift_is_found_again(angle: float, scale: float, x: float, y: float) -> None:
    cos, sin = scale * math.cos(math.radians(angle)), scale * math.sin(math.radians(angle))
    expected = np.array([[cos, -sin, x], [sin, cos, y]])
    moved = TEMPLATE @ expected[:, :2].T + expected[:, 2]
    np.testing.assert_allclose(similarity(TEMPLATE, moved), expected, atol=1e-8)


def test_no_other_turn_scale_and_shift_is_nearer() -> None:
    generator = np.random.default_rng(0)
    points = TEMPLATE + generator.normal(0, 5, (5, 2))
    matrix = similarity(points, TEMPLATE)

    def error(m: np.ndarray) -> float:
        return float(np.square(points @ m[:, :2].T + m[:, 2] - TEMPLATE).sum())

    for _ in range(200):
        a, b, x, y = generator.normal(0, [0.01, 0.01, 0.5, 0.5])
        assert error(matrix + np.array([[a, -b, x], [b, a, y]])) > error(matrix)


def test_a_mirrored_face_is_not_mirrored_back() -> None:
    mirrored = TEMPLATE * [-1, 1] + [112, 0]
    assert np.linalg.det(similarity(mirrored, TEMPLATE)[:, :2]) > 0


@pytest.mark.parametrize("angle", [0, 37, -120])
def test_what_is_at_the_landmarks_comes_to_the_template(angle: float) -> None:
    turned = np.array([[math.cos(a), math.sin(a)] for a in (math.radians(angle), math.radians(angle + 90))]).T * 1.7
    landmarks = (TEMPLATE - 56) @ turned.T + 200
    image = np.zeros((400, 400, 3), np.uint8)
    rows, columns = np.mgrid[:400, :400]
    for number, (x, y) in enumerate(landmarks, 1):
        image[np.hypot(columns - x, rows - y) < 5] = 50 * number
    face = aligned(image, landmarks)
    assert face.shape == (112, 112, 3)
    for number, (x, y) in enumerate(TEMPLATE, 1):
        assert face[round(y), round(x), 0] == 50 * number


def test_landmarks_in_one_point_give_a_picture_all_the_same() -> None:
    assert aligned(np.full((50, 50, 3), 7, np.uint8), np.full((5, 2), 20.0)).shape == (112, 112, 3)
