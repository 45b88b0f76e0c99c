"""Pictures by identity in a JSON file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from reid_pictures import write_pictures

from tag_core.errors import UserError
from tag_plugins_reid.datasets.class_mapping import ClassMapping


def write(folder: Path, mapping: Any) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "class_mapping.json").write_text(json.dumps(mapping))
    return str(folder)


def test_the_folder_with_the_file_is_enough_and_paths_are_relative_to_it(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, ["bo/c1.png", "ann/c2.png"])
    source = write(tmp_path, {"bo": ["bo/c1.png"], "ann": ["ann/c2.png"]})
    data = ClassMapping(source, camera=r"c(\d)")
    assert data.classes == ["ann", "bo"]
    assert [(s["source"], s["label"], s["identity"], s["camera"]) for s in (data[0], data[1])] == [
        (paths[0], 1, "bo", 1),
        (paths[1], 0, "ann", 2),
    ]


def test_root_is_the_folder_of_the_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", ["1.png"])
    file = write(tmp_path / "lists", {"ann": ["1.png"]}) + "/class_mapping.json"
    assert ClassMapping(file, root=str(tmp_path / "pictures"))[0]["image"].shape == (3, 12, 8)


def test_queries_and_gallery_are_two_files(tmp_path: Path) -> None:
    for folder in ("q", "g"):
        write_pictures(tmp_path / folder, ["1.png", "2.png"])
    query, gallery = write(tmp_path / "q", {"ann": ["1.png"]}), write(tmp_path / "g", {"ann": ["1.png", "2.png"]})
    assert ClassMapping(query, gallery).roles == [0, 1, 1]


def test_an_identity_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "m.json").write_text('{"ann": ["1.png"], "ann": ["2.png"]}')
    with pytest.raises(UserError, match=r"m.json: cannot be read as JSON: 'ann' is there twice"):
        ClassMapping(str(tmp_path / "m.json"))


def test_a_mapping_whose_pictures_are_all_missing_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="m.*: its pictures are not there, the first as .*/1.png"):
        ClassMapping(write(tmp_path, {"ann": ["1.png"]}))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ([], 'expected {"identity"'),
        ({}, 'expected {"identity"'),
        ({"ann": []}, "identity 'ann' needs a list of one path"),
        ({"ann": "1.png"}, "identity 'ann' needs a list of one path"),
        ({"ann": ["1.png", 3]}, "identity 'ann' needs a list of one path"),
    ],
)
def test_another_json_is_refused(tmp_path: Path, mapping: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ClassMapping(write(tmp_path, mapping))


def test_a_file_that_is_missing_or_no_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"class_mapping.json: cannot be read as JSON: No such file"):
        ClassMapping(str(tmp_path))
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(UserError, match=r"a.json: cannot be read as JSON: Expecting"):
        ClassMapping(str(tmp_path / "a.json"))
