"""Pictures in one folder per identity."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from reid_pictures import SHARED, write_pictures

from tag_core.errors import UserError
from tag_plugins_reid.datasets.folder import IdentityFolders

OMNIGLOT = SHARED / "reid" / "omniglot"


def test_every_folder_with_pictures_is_an_identity(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, ["bo/2.jpg", "ann/x/3.png", "ann/1.png"])
    data = IdentityFolders(str(tmp_path))
    found = {data.key(i): data.classes[data.label(i)] for i in range(len(data))}
    assert found == dict(zip(paths, ["bo", "ann/x", "ann"], strict=True))
    assert [data[i]["identity"] for i in range(3)] == ["ann", "ann/x", "bo"]


def test_depth_takes_the_identity_from_the_upper_folders_alone(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["ann/monday/1.png", "ann/tuesday/1.png", "bo/2.png"])
    assert IdentityFolders(str(tmp_path), depth=1).classes == ["ann", "bo"]


def test_the_camera_is_the_group_of_the_expression_in_the_name(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a_7/0879_02.png", "a_7/0879_11.png"])
    assert IdentityFolders(str(tmp_path), camera=r"_(\d+)\.").cameras == [2, 11]


def test_without_a_camera_expression_there_are_no_cameras(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["a/0879_02.png"])
    assert IdentityFolders(str(tmp_path))[0]["camera"] == -1


def test_queries_and_gallery_may_lie_in_folders_of_their_own(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["q/ann/1.png", "g/ann/2.png", "g/bo/3.png"])
    data = IdentityFolders(str(tmp_path / "q"), gallery=[str(tmp_path / "g")])
    assert [(row.identity, role) for row, role in zip(data.rows, data.roles, strict=True)] == [
        ("ann", 0),
        ("ann", 1),
        ("bo", 1),
    ]


def test_several_sources_share_their_identities(tmp_path: Path) -> None:
    write_pictures(tmp_path, ["one/ann/1.png", "two/ann/2.png", "two/bo/3.png"])
    data = IdentityFolders([str(tmp_path / "one"), str(tmp_path / "two")])
    assert [data.label(i) for i in range(3)] == [0, 0, 1]


def test_hidden_folders_and_other_files_are_passed_by(tmp_path: Path) -> None:
    paths = write_pictures(tmp_path, ["ann/1.png", ".thumbs/ann/1.png", "ann/.1.png"])
    (tmp_path / "ann" / "notes.txt").write_text("of Ann")
    data = IdentityFolders(str(tmp_path))
    assert [data.key(i) for i in range(len(data))] == paths[:1]


@pytest.mark.parametrize(
    ("made", "options", "message"),
    [
        ([], {}, "nothing in this folder ends in .bmp"),
        (["ann/1.png", "bo/"], {}, "bo: nothing in this folder ends in"),
        (["1.png", "ann/1.png"], {}, r"1.png: it lies in no identity's folder; expected .*/<identity>/<picture>"),
        (["ann/1.png"], {"camera": r"_(\d+)\."}, r"ann/1.png: the name does not fit camera=_\(\\d\+\)\\. ;"),
    ],
)
def test_what_is_no_data_set_is_told(tmp_path: Path, made: list[str], options: dict[str, str], message: str) -> None:
    write_pictures(tmp_path, [name for name in made if name[-1] != "/"])
    for name in made:
        (tmp_path / name).parent.mkdir(exist_ok=True) if name[-1] != "/" else (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=message):
        IdentityFolders(str(tmp_path), **options)  # type: ignore[arg-type]


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="gone: this folder cannot be read: No such file"):
        IdentityFolders(str(tmp_path / "gone"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"camera": "(_"}, "camera is no regular expression"),
        ({"camera": "_"}, "camera needs a group in parentheses"),
        ({"depth": 0}, "depth must be at least 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        IdentityFolders("x", **options)  # type: ignore[arg-type]


@pytest.mark.skipif(not OMNIGLOT.is_dir(), reason="no Omniglot here")
def test_omniglot_is_characters_by_drawers(tmp_path: Path) -> None:
    with zipfile.ZipFile(OMNIGLOT / "images_background_small1.zip") as archive:
        archive.extractall(tmp_path)
    data = IdentityFolders(str(tmp_path / "images_background_small1"), camera=r"_(\d+)\.")
    assert (len(data), len(data.classes)) == (2720, 136)  # 136 characters by 20 drawers, as published
    assert all(set(data.cameras[i : i + 20]) == set(range(1, 21)) for i in range(0, 2720, 20))
    assert data.classes[0] == "Balinese/character01"
    assert data[0]["image"].shape == (3, 105, 105)
