"""Boxes of a COCO file as pictures."""

from __future__ import annotations

import math
import os
from functools import partial
from typing import Any

from tag_core.errors import UserError
from tag_core.kinds import Transform
from tag_plugins_reid.datasets.base import Box, PictureDataset, Row, present, read_json


class COCOBoxes(PictureDataset):
    """The boxes of a COCO annotation file, each cut out of its picture; boxes around crowds are left out.

    Corners are rounded to pixels and kept within the picture. Prediction takes whole pictures.

    Args:
        source: the annotation file, or several; with gallery, that of the queries.
        gallery: annotation file of what is searched; default: every box is searched for among all others.
        labelled: False takes pictures, folders or patterns without boxes.
        root: folder that the file names are relative to; default: the annotation file's.
        classes: identities in index order; default: those of the file, sorted.
        identity: field of an annotation that holds its identity; 'category' for the category's name.
        camera: field of an annotation, or else of its picture, that holds the camera; default: no cameras.
        skip: identities to leave out, such as the 0 that stands for none.
        min_side: leave out boxes that are narrower or lower, in pixels.
        transforms: applied in order to uint8 [3, H, W].
    """

    def __init__(
        self,
        source: str | list[str],
        gallery: str | list[str] | None = None,
        labelled: bool = True,
        root: str | None = None,
        classes: list[str] | None = None,
        identity: str = "instance_id",
        camera: str | None = None,
        skip: list[int | str] = [],  # noqa: B006 (read only; a list is what recipes show)
        min_side: int = 1,
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        if min_side < 1:
            raise ValueError(f"min_side must be at least 1, got {min_side}")
        left_out = frozenset(map(str, skip))
        read = partial(read_boxes, root=root, identity=identity, camera=camera, skip=left_out, min_side=min_side)
        super().__init__(source, gallery, labelled, classes, transforms, read)


def read_boxes(
    file: str, root: str | None, identity: str, camera: str | None, skip: frozenset[str], min_side: int
) -> list[Row]:
    """The rows of one file; the options are those of the data set.

    Raises:
        UserError: naming the annotation without a box, picture or identity, or the field of cameras that none has.
    """
    tables = read_json(file)
    if not isinstance(tables, dict) or not all(isinstance(tables.get(k), list) for k in ("images", "annotations")):
        raise UserError(f"{file}: no COCO annotations; expected {{'images': [...], 'annotations': [...], ...}}")
    images, names = _by_id(file, tables, "images"), _by_id(file, tables, "categories")
    folder, rows = os.path.dirname(file) if root is None else root, []
    for number, found in enumerate(tables["annotations"]):
        where = f"{file}: annotation {number}"
        if not isinstance(found, dict):
            raise UserError(f"{where}: expected an object, got {str(found)[:60]}")
        where += f" (id {str(found.get('id'))[:40]})"
        image = images.get(_scalar(found.get("image_id")))
        if image is None or not isinstance(image.get("file_name"), str):
            raise UserError(f"{where}: no picture with a file_name has its image_id, {str(found.get('image_id'))[:40]}")
        if identity == "category":
            who = names.get(_scalar(found.get("category_id")), {}).get("name")
        else:
            who = found.get(identity)
        if who in (None, ""):
            have = ", ".join(map(str, found))
            raise UserError(
                f"{where}: no identity in {identity!r}; name a field with 'identity' ({have}), or 'category'"
            )
        size = _picture_size(image)
        box = _pixels(where, found.get("bbox"), size)
        if found.get("iscrowd") or str(who) in skip or min(box[2] - box[0], box[3] - box[1]) < min_side:
            continue
        seen = found.get(camera, image.get(camera)) if camera else None
        rows.append(
            Row(os.path.join(folder, image["file_name"]), str(who), "" if seen is None else str(seen), box, size)
        )
    if not rows:
        raise UserError(f"{file}: not one box is left of {len(tables['annotations'])} annotations")
    if camera and not any(row.camera for row in rows):
        raise UserError(f"{file}: no annotation and no picture has a camera in {camera!r}; name another field, or none")
    return present(rows, file)


def _by_id(file: str, tables: dict[str, Any], table: str) -> dict[Any, dict[str, Any]]:
    rows = tables.get(table, [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) and _scalar(row.get("id")) != "" for row in rows):
        raise UserError(f"{file}: {table}: expected objects, each with an id")
    return {row["id"]: row for row in rows}


def _scalar(value: Any) -> Any:
    """A number or text, or else "": what an id can be."""
    return value if isinstance(value, (int, str)) else ""


def _picture_size(image: dict[str, Any]) -> tuple[int, int] | None:
    height, width = image.get("height"), image.get("width")
    return (height, width) if isinstance(height, int) and isinstance(width, int) and height and width else None


def _pixels(where: str, box: Any, size: tuple[int, int] | None) -> Box:
    """Corners in whole pixels of COCO's x, y, width, height."""
    if not (isinstance(box, list) and len(box) == 4 and all(isinstance(v, (int, float)) for v in box)):
        raise UserError(f"{where}: no box; expected bbox = [x, y, width, height], got {str(box)[:60]}")
    if not all(math.isfinite(value) and abs(value) < 1e9 for value in box):
        raise UserError(f"{where}: its box is not finite: {str(box)[:60]}")
    height, width = size or (10**9, 10**9)
    x, y, w, h = box
    x1, y1, x2, y2 = round(x), round(y), round(x + w), round(y + h)
    return max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
