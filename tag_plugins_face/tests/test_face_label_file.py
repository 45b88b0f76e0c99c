"""label.txt and plain lists: what they say, and what is said of those that are malformed."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from face_pictures import label_line, write_labelled
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tag_core.errors import UserError
from tag_plugins_face.datasets.label_file import read_list

SOME = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
REAL = (
    "449 330 122 149 488.906 373.643 0.0 542.089 376.442 0.0 "
    "515.031 412.83 0.0 485.174 425.893 0.0 538.357 431.491 0.0 0.82"
)
PIXELS = st.floats(-50, 5000).map(lambda value: round(value, 3))
SIDES = st.floats(0.001, 5000).map(lambda value: round(value, 3) + 0.001)


def written(tmp_path: Path, text: str) -> str:
    (tmp_path / "label.txt").write_text(text)
    return str(tmp_path / "label.txt")


def test_a_line_as_retinaface_publishes_it(tmp_path: Path) -> None:
    name = "0--Parade/0_Parade_marchingband_1_849.jpg"
    (row,) = read_list(written(tmp_path, f"# {name}\n{REAL}\n"))
    assert row.path == str(tmp_path / "images" / name)
    points = [488.906, 373.643, 542.089, 376.442, 515.031, 412.83, 485.174, 425.893, 538.357, 431.491]
    np.testing.assert_allclose(row.faces, [[449, 330, 571, 479, *points]], rtol=1e-6)
    assert row.faces.dtype == np.float32


def test_each_picture_has_the_faces_below_it(tmp_path: Path) -> None:
    faces = label_line(1, 2, 3, 4), label_line(5, 6, 7, 8)
    text = f"# a.jpg\n{faces[0]}\n{faces[1]}\n\n# b c.jpg\n#d.jpg\r\n{faces[0]}\r\n"
    rows = read_list(written(tmp_path, text))
    assert [(row.path.rpartition("images/")[2], len(row.faces)) for row in rows] == [
        ("a.jpg", 2),
        ("b c.jpg", 0),
        ("d.jpg", 1),
    ]
    assert rows[1].faces.shape == (0, 14)
    assert rows[0].faces[1, :4].tolist() == [5, 6, 12, 14]


@pytest.mark.parametrize("line", ["10 20 30 40", "10 20 30 40" + " -1.0" * 15, label_line(10, 20, 30, 40, False)])
def test_landmarks_may_be_missing(tmp_path: Path, line: str) -> None:
    (row,) = read_list(written(tmp_path, f"# a.jpg\n{line}\n"))
    assert row.faces[0, :4].tolist() == [10, 20, 40, 60]
    assert np.isnan(row.faces[0, 4:]).all()


@pytest.mark.parametrize("box", ["5 5 0 9", "5 5 9 0", "5 5 -3 9", "0 0 0 0"])
def test_a_face_without_width_or_height_is_left_out_and_the_picture_stays(tmp_path: Path, box: str) -> None:
    rows = read_list(written(tmp_path, f"# a.jpg\n{box}\n{label_line(1, 2, 3, 4)}\n# b.jpg\n{box}\n"))
    assert [len(row.faces) for row in rows] == [1, 0]


@SOME
@given(
    pictures=st.lists(
        st.lists(st.tuples(PIXELS, PIXELS, SIDES, SIDES, st.lists(PIXELS, min_size=10, max_size=10)), max_size=4),
        min_size=1,
        max_size=4,
    )
)
def test_what_is_written_is_read(tmp_path: Path, pictures: list[list[tuple]]) -> None:
    lines = []
    for number, faces in enumerate(pictures):
        lines.append(f"# event/{number}.jpg")
        for *box, points in faces:
            told = " ".join(f"{x} {y} 0.0" for x, y in zip(points[::2], points[1::2], strict=True))
            lines.append(f"{' '.join(map(str, box))} {told} 0.3")
    rows = read_list(written(tmp_path, "\n".join(lines)))
    assert len(rows) == len(pictures)
    for row, faces in zip(rows, pictures, strict=True):
        told = [[x, y, x + w, y + h, *(p if p[0] >= 0 else [math.nan] * 10)] for x, y, w, h, p in faces]
        told = [face for face in told if face[0] < face[2] and face[1] < face[3]]
        np.testing.assert_allclose(row.faces, np.array(told).reshape(-1, 14), rtol=1e-6, atol=1e-6)


@SOME
@given(content=st.binary(max_size=60) | st.text("#ab .1-\n\t/\x00e", max_size=80).map(str.encode))
def test_anything_is_read_or_refused_with_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "label.txt").write_bytes(content)
    try:
        rows = read_list(str(tmp_path / "label.txt"))
    except UserError as error:
        assert str(tmp_path) in str(error)  # noqa: PT017 (either outcome is right)
        return
    assert rows
    assert all(row.path and row.faces.shape[1] == 14 for row in rows)
    assert all((row.faces[:, 2:4] >= row.faces[:, :2]).all() for row in rows)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("# a.jpg\n1 2 3\n", "line 2: expected a face"),
        ("# a.jpg\n1 2 3 4\n\n1 2 3 x\n", "line 4: expected a face"),
        ("# a.jpg\n1 2 nan 4\n", "line 2: expected a face"),
        ("# a.jpg\n1 2 3 1e999\n", "line 2: expected a face"),
        ("# my pictures\nb.jpg\n", "a plain list of pictures has no line that begins with #"),
        ("# a.jpg\n1 2 3 4\n#\n", "line 3: expected '# path'"),
        ("\n \n", "nothing is listed in it"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match="label.txt") as caught:
        read_list(written(tmp_path, text))
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_one_that_is_no_text_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.txt: cannot be read: No such file"):
        read_list(str(tmp_path / "none.txt"))
    (tmp_path / "photo.txt").write_bytes(b"\xff\xd8\xff\xe0 a photo")
    with pytest.raises(UserError, match=r"photo\.txt: not UTF-8 text"):
        read_list(str(tmp_path / "photo.txt"))


def test_a_plain_list_names_pictures_beside_it_or_in_images(tmp_path: Path) -> None:
    write_labelled(tmp_path, count=2)
    (tmp_path / "own.png").write_bytes(b"")
    event = "0--Event0/0_Event0_0.png"
    (tmp_path / "wider_val.txt").write_text(f"/{event}\n{event}\nown.png\n/elsewhere/b.png\nnone.png\n")
    found = [row.path for row in read_list(str(tmp_path / "wider_val.txt"))]
    inside = str(tmp_path / "images" / event)
    assert found == [inside, inside, str(tmp_path / "own.png"), "/elsewhere/b.png", str(tmp_path / "none.png")]
