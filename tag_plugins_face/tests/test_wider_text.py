"""WIDER FACE's result files, written and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tag_core.errors import UserError
from tag_core.records import Record
from tag_plugins_face.wider_text import WiderText, read_file, read_folder


def found(source: str, *boxes: list[float], scores: list[float] | None = None, **known: int) -> Record:
    return Record(source=source, boxes=list(boxes), scores=scores or [0.5] * len(boxes), **known)


def test_a_file_has_the_name_the_number_and_whole_pixels_as_the_source_writes_them(tmp_path: Path) -> None:
    sink = WiderText(tmp_path / "out")
    score = float(np.float32(0.99989510))
    sink.write(found("val/0--Parade/a.b.jpg", [10.9, 20.2, 30.1, 50.8], [-0.7, -3.2, 4.0, 5.0], scores=[score, 0.02]))
    sink.write(found("val/1--Shop/c.png"))
    sink.close()
    assert (tmp_path / "out/0--Parade/a.b.txt").read_text() == "a.b\n2\n10 20 20 30 0.999895096\n0 -3 4 8 0.02\n"
    assert (tmp_path / "out/1--Shop/c.txt").read_text() == "c\n0\n"
    assert np.float32("0.999895096") == np.float32(score)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    rows = generator.uniform(-5, 900, (30, 5)).astype(np.float32).astype(float)
    rows[:, 2:4] += rows[:, :2]
    sink = WiderText(tmp_path / "out", decimals=4)
    sink.write(found("e/a.jpg", *rows[:, :4].tolist(), scores=rows[:, 4].tolist()))
    sink.write(found("e/b.jpg"))
    sink.close()
    back = read_folder(tmp_path / "out")
    assert sorted(back) == ["e/a", "e/b"]
    np.testing.assert_allclose(back["e/a"][:, :4], rows[:, :4], rtol=0, atol=1.001e-4)
    assert (back["e/a"][:, 4].astype(np.float32) == rows[:, 4].astype(np.float32)).all()
    assert back["e/b"].shape == (0, 5)


def test_frames_of_a_video_have_files_of_their_own_and_unreadable_inputs_none(tmp_path: Path) -> None:
    sink = WiderText(tmp_path / "out")
    for frame in (0, 30):
        sink.write(found("clips/a.mp4", [0, 0, 5, 5], frame=frame))
    sink.write(Record(source="clips/b.mp4", error="no such file"))
    sink.close()
    assert sorted(read_folder(tmp_path / "out")) == ["clips/a_000000", "clips/a_000030"]


def test_an_earlier_folder_is_replaced_when_the_new_one_is_whole(tmp_path: Path) -> None:
    for name in ("old", "new"):
        sink = WiderText(tmp_path / "out")
        sink.write(found(f"e/{name}.jpg", [0, 0, 5, 5]))
        if name == "new":
            assert [*read_folder(tmp_path / "out")] == ["e/old"]
        sink.close()
    assert [*read_folder(tmp_path / "out")] == ["e/new"]
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_what_the_format_cannot_hold_is_refused(tmp_path: Path) -> None:
    sink = WiderText(tmp_path / "out")
    sink.write(found("one/e/a.jpg"))
    with pytest.raises(UserError, match=r"one/e/a.jpg and two/e/a.png would both be e/a.txt"):
        sink.write(found("two/e/a.png"))
    with pytest.raises(UserError, match="needs a score for each box"):
        sink.write(Record(source="e/b.jpg", labels=["cat"], scores=[1.0]))
    for box, score in (([0, 0, 1, float("nan")], 0.5), ([0, 0, 1, 1], float("inf")), ([0, 0, 1, None], 0.5)):
        with pytest.raises(UserError, match="e/b.jpg: a box or score is infinite or nan"):
            sink.write(found("e/b.jpg", box, scores=[score]))
    with pytest.raises(ValueError, match="decimals"):
        WiderText(tmp_path / "out", decimals=-1)


def test_files_of_other_writers_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"0--Parade/caf\xe9 1.jpg\r\n 2\r\n1.5 2 3.25 4 1e-3 \r\n\r\n-1\t2 3 4 .5\r\n\r\n")
    assert read_file(file).tolist() == [[1.5, 2, 4.75, 6, 0.001], [-1, 2, 2, 6, 0.5]]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "line 2: the number of faces is '', and 0 lines follow"),
        ("a\n", "line 2: the number of faces is ''"),
        ("a\nx\n", "line 2: the number of faces is 'x'"),
        ("a\n3\n1 2 3 4 .5\n", "line 2: the number of faces is '3', and 1 lines follow"),
        ("1 2 3 4 .5\n1 2 3 4 .4\n", "line 2: the number of faces is '1 2 3 4 .4'"),
        ("a\n2\n1 2 3 4 .5\n1 2 3 4\n", "line 4: not 'x y width height score': '1 2 3 4'"),
        ("a\n2\n1 2 3 4 5 6\n\n1 2 3 4\n", "line 3: not .*: '1 2 3 4 5 6'"),
        ("a\n1\n1 2 3 four 5\n", "line 3: not .*'1 2 3 four 5'"),
        ("a\n1\n1 2 3 4 nan\n", "line 3: not .*nan"),
        ("a\n1\n1 2 inf 4 .5\n", "line 3: not .*inf"),
        ("a\n1\n1,2,3,4,.5\n", "line 3: not "),
    ],
)
def test_a_broken_file_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(UserError, match=f"a.txt, {told}"):
        read_file(tmp_path / "a.txt")


def test_a_wrong_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n0\n")
    for folder in (tmp_path, tmp_path / "a.txt", tmp_path / "none"):
        with pytest.raises(UserError, match=r"there is no <event>/<picture>.txt in it; .*predictions\.wider"):
            read_folder(folder)
    (tmp_path / "e" / "b.txt").mkdir(parents=True)
    with pytest.raises(UserError, match=r"b\.txt: Is a directory"):
        read_folder(tmp_path)
