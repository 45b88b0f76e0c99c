"""CUHK03's split files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reid_pictures import write_pictures
from scipy.io import savemat

from tag_core.errors import UserError
from tag_plugins_reid.datasets.cuhk03 import CUHK03

NAMES = ["1_001_1_01.png", "1_001_2_06.png", "2_003_1_01.png", "2_003_2_07.png"]
DETECTED = "cuhk03_new_protocol_config_detected.mat"


def listed(data: CUHK03) -> list[tuple[str, str, int, int]]:
    rows = enumerate(data.rows)
    return [(Path(row.path).name, row.identity, data.cameras[i], data.roles[i]) for i, row in rows]


def write_mat(folder: Path, name: str = DETECTED, **changes: Any) -> str:
    files = np.empty((4, 1), object)
    files[:, 0] = NAMES
    config = {"filelist": files, "labels": np.array([[1], [1], [20], [20]], np.uint16)}
    config |= {"train_idx": np.array([[1], [2]]), "query_idx": np.array([[3]]), "gallery_idx": np.array([[4]])}
    savemat(folder / name, {key: value for key, value in (config | changes).items() if value is not None})
    return str(folder / name)


def write_json(folder: Path, splits: Any) -> str:
    (folder / "splits_new_detected.json").write_text(json.dumps(splits))
    return str(folder / "splits_new_detected.json")


def test_the_new_protocols_configuration_is_read(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images_detected", NAMES)
    source = write_mat(tmp_path)
    data = CUHK03(source)
    assert listed(data) == [("1_001_1_01.png", "1", 1, 2), ("1_001_2_06.png", "1", 2, 2)]
    assert data[1]["image"].shape == (3, 12, 8)
    assert listed(CUHK03(source, split="test")) == [("2_003_1_01.png", "20", 1, 0), ("2_003_2_07.png", "20", 2, 1)]


def test_the_name_of_the_configuration_says_which_pictures(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images_labeled", NAMES)
    source = write_mat(tmp_path, "cuhk03_new_protocol_config_labeled.mat")
    assert CUHK03(source)[0]["source"] == str(tmp_path / "images_labeled" / NAMES[0])


def test_torchreids_splits_are_found_although_they_name_another_machines_folders(tmp_path: Path) -> None:
    write_pictures(tmp_path / "images_detected", NAMES)
    paths = [f"/mnt/reid-data/cuhk03/images_detected/{name}" for name in NAMES]
    split = {
        "train": [[paths[0], 0, 0], [paths[1], 0, 1]],
        "query": [[paths[2], 20, 0]],
        "gallery": [[paths[3], 20, 1]],
    }
    source = write_json(tmp_path, [{"train": []}, split])
    data = CUHK03(source, split_id=1)
    assert listed(data) == [("1_001_1_01.png", "0", 0, 2), ("1_001_2_06.png", "0", 1, 2)]
    assert data[0]["image"].shape == (3, 12, 8)
    data = CUHK03(source, split="test", split_id=1, classes=["20"])
    assert listed(data) == [("2_003_1_01.png", "20", 0, 0), ("2_003_2_07.png", "20", 1, 1)]
    assert data[0]["label"] == -1  # training's identities are numbered anew, from 0


def test_root_is_where_the_folders_of_pictures_lie(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures" / "images_detected", NAMES)
    assert CUHK03(write_mat(tmp_path), root=str(tmp_path / "pictures"))[0]["image"].shape == (3, 12, 8)


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ([], "it has 0 splits"),
        ([3], "no list under 'train'"),
        ([{"train": []}], "no list under 'train'"),
        ([{"train": [["a.png", 1]]}], r"train, entry 0: expected \[path, identity, camera\], got \['a.png', 1\]"),
        ([{"train": [[1, 1, 1]]}], "train, entry 0: expected"),
    ],
)
def test_another_json_is_refused(tmp_path: Path, splits: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CUHK03(write_json(tmp_path, splits))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"labels": None}, "not CUHK03's configuration of the new protocol, or damaged .KeyError: 'labels'"),
        ({"labels": np.array([1])}, "does not fit 4 names and 1 labels"),
        ({"train_idx": np.array([0])}, "train_idx does not fit"),
        ({"train_idx": np.array([5])}, "train_idx does not fit"),
        ({"train_idx": np.array([])}, "train_idx does not fit"),
        ({"filelist": np.array(["a.png"] * 4, object)}, "'a.png' is no name of a picture like 1_001_1_01.png"),
    ],
)
def test_another_mat_file_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CUHK03(write_mat(tmp_path, **changes))


def test_the_archive_of_pictures_itself_and_damaged_files_are_refused(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    (tmp_path / "cuhk-03.mat").write_bytes(header + b"\x89HDF\r\n\x1a\n")
    with pytest.raises(UserError, match=r"MATLAB 7.3, as cuhk-03.mat is; name cuhk03_new_protocol_config"):
        CUHK03(str(tmp_path / "cuhk-03.mat"))
    (tmp_path / "a.mat").write_bytes(b"no mat")
    with pytest.raises(UserError, match="or damaged .*truncated"):
        CUHK03(str(tmp_path / "a.mat"))
    with pytest.raises(UserError, match="no such file"):
        CUHK03(str(tmp_path / "gone.mat"))


def test_a_file_on_which_scipy_itself_crashes_is_refused(tmp_path: Path) -> None:
    content = bytearray(Path(write_mat(tmp_path)).read_bytes())
    place = content.index(b"labels") + 8  # what kind of numbers follow
    content[place] = 200
    (tmp_path / DETECTED).write_bytes(content)
    with pytest.raises(UserError, match="or damaged"):
        CUHK03(str(tmp_path / DETECTED))
