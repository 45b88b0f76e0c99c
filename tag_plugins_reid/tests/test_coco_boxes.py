"""Boxes of a COCO file as pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from reid_pictures import SHARED, pixels, write_pictures

from tag_core.errors import UserError
from tag_plugins_reid.datasets.coco import COCOBoxes

COCO = SHARED / "detection" / "instances_val2014_100.json"
IMAGE = {"id": 1, "file_name": "a.png", "height": 12, "width": 8, "camera": 5}
BOX = {"id": 10, "image_id": 1, "bbox": [1, 2, 4, 6], "instance_id": 77, "category_id": 3}


def write(folder: Path, annotations: list[Any], images: Any = (IMAGE,), **more: Any) -> str:
    write_pictures(folder, ["a.png"])
    tables = {"images": images, "annotations": annotations, "categories": [{"id": 3, "name": "dress"}], **more}
    (folder / "boxes.json").write_text(json.dumps(tables))
    return str(folder / "boxes.json")


def test_every_box_is_a_sample_with_a_key_of_its_own(tmp_path: Path) -> None:
    path = str(tmp_path / "a.png")
    data = COCOBoxes(write(tmp_path, [BOX, BOX | {"id": 11, "bbox": [0, 0, 8, 12], "instance_id": 5}]))
    assert [data.key(i) for i in range(2)] == [path, f"{path}#2"]
    first, second = data[0], data[1]
    assert (first["identity"], first["label"], first["box"], first["camera"]) == ("77", 1, [1.0, 2.0, 5.0, 8.0], -1)
    assert np.array_equal(first["image"].numpy(), pixels(path)[:, 2:8, 1:5])
    assert np.array_equal(second["image"].numpy(), pixels(path))
    assert [data.size(i) for i in range(2)] == [(6, 4), (12, 8)]


def test_the_identity_is_any_field_or_the_category(tmp_path: Path) -> None:
    file = write(tmp_path, [BOX])
    assert [COCOBoxes(file, identity=name).classes for name in ("id", "category")] == [["10"], ["dress"]]


def test_the_camera_is_a_field_of_the_annotation_or_its_picture(tmp_path: Path) -> None:
    file = write(tmp_path, [BOX, BOX | {"camera": 2, "bbox": [0, 0, 4, 6], "drawer": "north"}])
    assert COCOBoxes(file).cameras == [-1, -1]
    assert COCOBoxes(file, camera="camera").cameras == [5, 2]
    assert COCOBoxes(file, camera="drawer").cameras == [-1, 0]
    with pytest.raises(UserError, match="no annotation and no picture has a camera in 'camra'"):
        COCOBoxes(file, camera="camra")


def test_corners_are_rounded_and_kept_in_the_picture(tmp_path: Path) -> None:
    data = COCOBoxes(write(tmp_path, [BOX | {"bbox": [-3.2, 1.6, 20.0, 3.0]}]))
    assert data.rows[0].box == (0, 2, 8, 5)


def test_crowds_small_boxes_and_skipped_identities_are_left_out(tmp_path: Path) -> None:
    annotations = [
        BOX,
        BOX | {"instance_id": 0},
        BOX | {"iscrowd": 1},
        BOX | {"bbox": [1, 1, 3, 10]},
        BOX | {"bbox": [9, 1, 5, 5]},
    ]
    data = COCOBoxes(write(tmp_path, annotations), skip=[0], min_side=4)
    assert [row.box for row in data.rows] == [(1, 2, 5, 8)]


def test_queries_and_gallery_are_two_files(tmp_path: Path) -> None:
    file = write(tmp_path, [BOX, BOX | {"bbox": [0, 0, 4, 6]}])
    assert COCOBoxes(file, gallery=file).roles == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"bbox": None}, r"annotation 0 \(id 10\): no box; expected bbox = \[x, y, width, height\], got None"),
        ({"bbox": [1, 2, 3]}, "no box; expected"),
        ({"bbox": [1, 2, 3, "4"]}, "no box; expected"),
        ({"bbox": [1, 2, 3, float("nan")]}, "its box is not finite"),
        ({"image_id": 2}, "no picture with a file_name has its image_id, 2"),
        ({"instance_id": None}, r"no identity in 'instance_id'; name a field with 'identity' \(id, image_id, bbox"),
    ],
)
def test_an_annotation_that_lacks_something_is_told(tmp_path: Path, annotation: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        COCOBoxes(write(tmp_path, [BOX | annotation]))


@pytest.mark.parametrize(
    ("annotations", "more", "message"),
    [
        ([], {}, "not one box is left of 0 annotations"),
        ([3], {}, "annotation 0: expected an object, got 3"),
        ([BOX], {"images": {}}, "no COCO annotations"),
        ([BOX], {"images": [3]}, "images: expected objects, each with an id"),
        ([BOX], {"categories": [{"name": "x"}]}, "categories: expected objects, each with an id"),
    ],
)
def test_another_json_is_refused(tmp_path: Path, annotations: list[Any], more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        COCOBoxes(write(tmp_path, annotations, **more))


@pytest.mark.skipif(not COCO.is_file(), reason="no COCO annotations here")
def test_boxes_of_real_coco_annotations_are_those_that_numpy_finds_large_enough(tmp_path: Path) -> None:
    tables = json.loads(COCO.read_text())
    write_pictures(tmp_path, [image["file_name"] for image in tables["images"]])
    sizes = {image["id"]: (image["width"], image["height"]) for image in tables["images"]}
    wanted = []
    for found in tables["annotations"]:
        low, high = np.array(found["bbox"][:2]), np.array(found["bbox"][:2]) + found["bbox"][2:]
        corners = np.concatenate([np.rint(low), np.minimum(np.rint(high), sizes[found["image_id"]])])
        if not found["iscrowd"] and (corners[2:] - corners[:2]).min() >= 32:
            wanted.append(tuple(corners.astype(int).tolist()))
    assert [
        row.box for row in COCOBoxes(str(COCO), root=str(tmp_path), identity="category", min_side=32).rows
    ] == wanted
