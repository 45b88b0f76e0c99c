"""Every reader of lists of pictures, given any bytes, any JSON and damaged files: a result or a Tag error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from reid_pictures import write_pictures
from scipy.io import savemat

from tag_core.errors import UnreadableInput, UserError
from tag_plugins_reid.datasets.base import PictureDataset
from tag_plugins_reid.datasets.class_mapping import ClassMapping
from tag_plugins_reid.datasets.coco import COCOBoxes
from tag_plugins_reid.datasets.cuhk03 import CUHK03
from tag_plugins_reid.datasets.list_file import PictureList
from tag_plugins_reid.datasets.market import MarketPictures

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 12}],
    "annotations": [{"id": 1, "image_id": 1, "bbox": [1, 1, 4, 4], "instance_id": 3, "category_id": 1}],
    "categories": [{"id": 1, "name": "dress"}],
}
SPLIT = [{part: [["x/a.png", 1, 0]] for part in ("train", "query", "gallery")}]
READERS: dict[str, tuple[Callable[[str], PictureDataset], Any]] = {
    "class-mapping": (ClassMapping, {"ann": ["a.png"], "bo": ["a.png"]}),
    "coco": (lambda file: COCOBoxes(file, camera="camera"), COCO),
    "coco-category": (lambda file: COCOBoxes(file, identity="category"), COCO),
    "cuhk03": (lambda file: CUHK03(file, split="test"), SPLIT),
    "list": (PictureList, {"path": "a.png", "identity": "ann", "camera": 3}),
}
SOME = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def attempt(build: Callable[[str], PictureDataset], file: Path) -> None:
    """Read all of it; what goes wrong must be a Tag error."""
    try:
        data = build(str(file))
    except UserError as error:
        assert str(error)  # noqa: PT017 (either outcome is right)
        return
    assert len({data.key(i) for i in range(len(data))}) == len(data) > 0
    for index in range(len(data)):
        try:
            data[index], data.size(index)
        except UnreadableInput as error:
            assert str(error)  # noqa: PT017


def mutated(value: Any, path: list[int], other: Any) -> Any:
    """``value`` with whatever lies at the end of ``path`` replaced."""
    if not path or not isinstance(value, (dict, list)) or not value:
        return other
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy = value.copy()
    copy[key] = mutated(value[key], path[1:], other)
    return copy


@pytest.mark.parametrize("name", READERS)
@SOME
@given(value=JSON)
def test_any_json(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "f.jsonl").write_text(json.dumps(value))
    attempt(READERS[name][0], tmp_path / "f.jsonl")


@pytest.mark.parametrize("name", READERS)
@SOME
@given(path=st.lists(st.integers(0, 5), max_size=5), other=JSON)
def test_right_json_with_one_part_replaced(tmp_path: Path, name: str, path: list[int], other: Any) -> None:
    write_pictures(tmp_path, ["a.png", "x/a.png"])
    build, right = READERS[name]
    (tmp_path / "f.jsonl").write_text(json.dumps(mutated(right, path, other)))
    attempt(build, tmp_path / "f.jsonl")


@pytest.mark.parametrize("name", ["f.txt", "f.csv", "f.tsv", "f.jsonl"])
@SOME
@given(content=st.binary(max_size=80) | st.text("ab.png \t,\n\"'#0-\x00", max_size=80).map(str.encode))
def test_any_list(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    attempt(PictureList, tmp_path / name)


@SOME
@given(name=st.text("01-_csfab", min_size=1, max_size=24), pattern=st.sampled_from(["market1501", "msmt17", "veri"]))
def test_any_name(tmp_path: Path, name: str, pattern: str) -> None:
    folder = tmp_path / name
    write_pictures(folder, [f"{name}.png"])
    attempt(lambda source: MarketPictures(source, gallery=source, pattern=pattern), folder)


@settings(SOME, max_examples=3)  # each starts a process
@given(at=st.floats(0, 1, exclude_max=True), content=st.binary(max_size=12), cut=st.booleans())
def test_a_damaged_configuration(tmp_path: Path, at: float, content: bytes, cut: bool) -> None:
    file = tmp_path / "f_detected.mat"
    names = np.array([["1_001_1_01.png"], ["1_001_2_02.png"]], object)
    parts = {f"{part}_idx": np.array([[1], [2]]) for part in ("train", "query", "gallery")}
    savemat(file, {"filelist": names, "labels": np.array([[1], [1]]), **parts})
    whole = file.read_bytes()
    start = int(at * len(whole))
    file.write_bytes(whole[:start] + content + (b"" if cut else whole[start + len(content) :]))
    attempt(CUHK03, file)
