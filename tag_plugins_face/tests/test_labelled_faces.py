"""Labelled faces as their picture is cut, scaled and mirrored."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
import torch

from tag_plugins_face.faces import Faces

ROWS = np.array(
    [
        [10, 20, 30, 50, 15, 30, 25, 30, 20, 36, 16, 42, 24, 42],
        [60, 5, 80, 25, *[math.nan] * 10],
        [2, 60, 12, 72, 4, 64, 9, 64, 6, 67, 5, 70, 8, 70],
    ]
)


def faces() -> Faces:
    return Faces.of_rows(ROWS)


def test_rows_become_boxes_and_five_points() -> None:
    found = faces()
    assert len(found) == 3
    assert found.boxes.dtype == found.landmarks.dtype == torch.float32
    assert found.boxes[0].tolist() == [10, 20, 30, 50]
    assert found.landmarks[0].tolist() == [[15, 30], [25, 30], [20, 36], [16, 42], [24, 42]]
    assert found.landmarks[1].isnan().all()
    none = Faces.of_rows(np.zeros((0, 14)))
    assert (len(none), none.boxes.shape, none.landmarks.shape) == (0, (0, 4), (0, 5, 2))


def test_equal_faces_are_equal_and_copies_too() -> None:
    assert faces() == faces()
    assert faces() == pickle.loads(pickle.dumps(faces())) == copy.deepcopy(faces()) == faces().to(torch.device("cpu"))
    assert faces() != faces()[torch.tensor([0, 1])]
    assert faces() != faces().scale(2)
    assert faces() != "faces"


def test_a_crop_keeps_faces_with_their_centre_inside_and_cuts_them_off() -> None:
    found = faces().crop(14, 10, 60, 30)
    assert found.boxes.tolist() == [[0, 10, 16, 30], [46, 0, 60, 15]]  # the third's centre is outside
    assert found.landmarks[0].tolist() == [[1, 20], [11, 20], [6, 26], [2, 30], [10, 30]]
    assert found.landmarks[1].isnan().all()
    assert len(faces().crop(20, 0, 10, 100)) == 0  # the first's centre lies on its edge
    assert faces().crop(0, 0, 100, 100) == faces()


def test_scaling_multiplies() -> None:
    found = faces().scale(0.5)
    np.testing.assert_array_equal(found.boxes, ROWS[:, :4] / 2)
    np.testing.assert_array_equal(found.landmarks.flatten(1), ROWS[:, 4:] / 2)


def test_the_mirrored_left_eye_is_the_right_one() -> None:
    found = faces().mirror(100)
    assert found.boxes[0].tolist() == [70, 20, 90, 50]
    assert found.landmarks[0].tolist() == [[75, 30], [85, 30], [80, 36], [76, 42], [84, 42]]
    assert found.mirror(100) == faces()


@pytest.mark.parametrize("change", [lambda f: f.crop(5, 5, 90, 60), lambda f: f.scale(3), lambda f: f.mirror(90)])
def test_faces_never_change_themselves(change) -> None:
    given = faces()
    change(given)
    assert given == faces()


def test_no_faces_stay_none() -> None:
    none = faces()[torch.zeros(3, dtype=torch.bool)]
    assert none.crop(0, 0, 5, 5) == none.scale(2) == none.mirror(7) == none
