"""Pictures in lists and tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from reid_pictures import SHARED, write_pictures

from tag_core.errors import UserError
from tag_plugins_reid.datasets.list_file import PictureList

GROCERY = SHARED / "grocery"
ROWS = [("a.png", "ann", 3), ("b c.png", "bo", -1)]


def listed(data: PictureList) -> list[tuple[str, str, int]]:
    return [(Path(row.path).name, row.identity, data.cameras[i]) for i, row in enumerate(data.rows)]


def write(folder: Path, name: str, text: str) -> str:
    write_pictures(folder, ["a.png"])
    (folder / name).write_text(text)
    return str(folder / name)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "# path identity camera\na.png\tann\t3\n\nb c.png\tbo\n"),
        ("list.txt", "a.png, ann, 3\nb c.png, bo\n"),
        ("t.csv", "path,identity,camera\na.png,ann,3\nb c.png,bo,\n"),
        ("t.tsv", "identity\tpath\tcamera\nann\ta.png\t3\nbo\tb c.png\t\n"),
        ("t.jsonl", '{"path": "a.png", "identity": "ann", "camera": 3}\n{"path": "b c.png", "identity": "bo"}\n'),
    ],
)
def test_lists_and_tables_say_the_same(tmp_path: Path, name: str, text: str) -> None:
    assert listed(PictureList(write(tmp_path, name, text))) == ROWS


def test_fields_of_a_list_may_be_separated_by_blanks(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, ["a.png", "b.png"])
    data = PictureList(write(tmp_path, "list.txt", "a.png 7 1\nb.png   7\n"))
    assert [(s["source"], s["identity"], s["camera"]) for s in (data[0], data[1])] == [
        (paths[0], "7", 1),
        (paths[1], "7", -1),
    ]


def test_the_columns_are_chosen_by_name(tmp_path: Path) -> None:
    file = write(tmp_path, "t.csv", "file,who,camera,where\na.png,ann,1,north\n")
    assert listed(PictureList(file, path_column="file", identity_column="who")) == [("a.png", "ann", 1)]
    data = PictureList(file, path_column="file", identity_column="who", camera_column="where")
    assert listed(data) == [("a.png", "ann", 0)]


@pytest.mark.parametrize("name", ["list.txt", "t.csv"])
def test_cameras_need_not_be_read(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name, {"list.txt": "a.png ann 3", "t.csv": "path,identity,camera\na.png,ann,3"}[name])
    assert listed(PictureList(file, camera_column="")) == [("a.png", "ann", -1)]


def test_queries_and_gallery_are_two_lists(tmp_path: Path) -> None:
    data = PictureList(write(tmp_path, "q.txt", "a.png ann"), gallery=write(tmp_path, "g.txt", "a.png ann\nc.png bo"))
    assert data.roles == [0, 1, 1]


def test_root_is_the_folder_of_the_pictures(tmp_path: Path) -> None:
    (path,) = write_pictures(tmp_path / "pictures", ["b.png"])
    data = PictureList(write(tmp_path, "q.txt", "b.png ann"), root=str(tmp_path / "pictures"))
    assert data.key(0) == path


def test_a_list_whose_first_pictures_are_all_missing_is_refused_at_once(tmp_path: Path) -> None:
    told = "q.txt: its pictures are not there, the first as .*/gone.png; paths are relative to the option root"
    with pytest.raises(UserError, match=told) as caught:
        PictureList(write(tmp_path, "q.txt", "gone.png ann\nlost.png bo"))
    assert "separated" not in str(caught.value)
    with pytest.raises(UserError, match=r"folders are separated by /, not by \\$"):
        PictureList(write(tmp_path, "q.txt", "one\\a.png ann"))
    assert len(PictureList(write(tmp_path, "q.txt", "gone.png ann\na.png bo"))) == 2  # which reading then records


def test_a_camera_column_that_no_row_has_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, "t.csv", "path,identity,cam\na.png,ann,1\nb.png,ann,\n")
    assert PictureList(file).cameras == [-1, -1]
    assert PictureList(file, camera_column="cam").cameras == [1, -1]
    with pytest.raises(UserError, match="no value in column 'kam'; choose camera_column among path, identity, cam"):
        PictureList(file, camera_column="kam")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("list.txt", "a.png ann\nb.png\n", "list.txt, line 2: expected 'path identity'"),
        ("list.txt", "b c.png ann 1\n", "list.txt, line 1: expected 'path identity' or 'path identity camera'"),
        ("list.txt", "a.png\t\t1\n", "list.txt, line 1: expected"),
        ("list.txt", "# nothing\n", "nothing is listed in it"),
        (
            "t.csv",
            "path,who\na.png,ann\n",
            "t.csv, line 2: no value in column 'identity'; choose identity_column among path, who",
        ),
        ("t.csv", "path,identity\n", "nothing is listed below its header"),
        ("t.jsonl", '{"path": "a.png"}\n', "t.jsonl, line 1: no value in column 'identity'"),
        ("t.jsonl", '{"path": null, "identity": "x"}\n', "t.jsonl, line 1: no value in column 'path'"),
        ("t.jsonl", "[]3\n", "t.jsonl, line 1: no JSON object"),
    ],
)
def test_what_is_malformed_is_told_with_its_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PictureList(write(tmp_path, name, text))


def test_a_list_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone.txt: cannot be read: No such file"):
        PictureList(str(tmp_path / "gone.txt"))


@pytest.mark.skipif(not GROCERY.is_dir(), reason="no grocery photos here")
def test_the_grocery_lists_are_read_as_they_are_published() -> None:
    data = PictureList(str(GROCERY / "train.txt"), camera_column="")
    assert (len(data), len(data.classes)) == (2640, 81)  # as published
    assert data[0]["image"].shape[0] == 3
