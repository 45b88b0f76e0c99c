"""Tasks that find things: videos in stretches, results of any number, boxes drawn and cut out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from toy_finder import Bright, write_video

import tag_core
from tag_core.api import predict_to_folder
from tag_core.engine.predict import coverage_of
from tag_core.media.image import read_image
from tag_core.media.video import open_video
from tag_core.records import Record, read_records
from tag_core.report.crops import rectangles, with_crops

LIGHTS = [(i % 8, i // 4) for i in range(10)]


@pytest.fixture
def recipe(tmp_path: Path) -> dict[str, Any]:
    """With weights, and beside them a.mp4 of ten frames and b.mp4, which is none."""
    torch.save(Bright().state_dict(), tmp_path / "w.pt")
    write_video(str(tmp_path / "a.mp4"), LIGHTS)
    (tmp_path / "b.mp4").write_bytes(b"no video")
    return {
        "task": {"name": "toy-plugin/bright"},
        "data": {"test": {"name": "toy-plugin/stretches"}},
        "eval": {"workers": 0, "batch_size": 2},
        "distribution": "core/cpu",
        "weights": str(tmp_path / "w.pt"),
    }


@pytest.mark.parametrize("length", [4, 3])
def test_a_video_gives_a_record_for_every_frame_and_bears_its_own_name(
    recipe: dict[str, Any], tmp_path: Path, length: int
) -> None:
    recipe["data"]["test"]["length"] = length
    records = list(tag_core.predict(recipe, [tmp_path / "a.mp4", tmp_path / "b.mp4"]))
    assert [(r.source, r.frame) for r in records[:-1]] == [(str(tmp_path / "a.mp4"), i) for i in range(10)]
    for record, (column, row) in zip(records, LIGHTS, strict=False):
        assert record.boxes is not None
        assert record.boxes[0] == [8 * column, 8 * row, 8 * column + 8, 8 * row + 8]
    assert records[-1].source == str(tmp_path / "b.mp4")
    assert records[-1].error


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_of_predictions_covers_files_not_stretches(
    recipe: dict[str, Any], tmp_path: Path, workers: int
) -> None:
    recipe["eval"]["workers"] = workers
    coverage = predict_to_folder(recipe, tmp_path, out=tmp_path / "out", visualize=True)
    assert (coverage.total, list(coverage.unreadable)) == (2, [str(tmp_path / "b.mp4")])
    assert len(list(read_records(tmp_path / "out" / "predictions.jsonl"))) == 11
    with open_video(str(tmp_path / "out" / "pictures" / "00001-a.mp4")) as video:
        assert video.num_frames == 10


def test_a_graph_selects_as_the_task_does(recipe: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra 'export' is not installed")
    pytest.importorskip("onnxscript")
    (tmp_path / "c").mkdir()
    write_video(str(tmp_path / "c" / "c.mp4"), LIGHTS[:1], side=48)
    expected = list(tag_core.predict(recipe, [tmp_path / "a.mp4", tmp_path / "c"]))
    torch.manual_seed(0)
    from tag_core.engine.export import export

    sample = {"source": "a", "image": torch.randint(0, 255, (3, 64, 64), dtype=torch.uint8), "frame": 3}
    export(Bright(), sample, tmp_path / "m.onnx", {"task": {"name": "toy-plugin/bright"}, "classes": ["0"]})
    found = list(tag_core.predict(recipe, [tmp_path / "a.mp4", tmp_path / "c"], [f"weights={tmp_path / 'm.onnx'}"]))
    assert [(r.source, r.frame, r.boxes) for r in found] == [(r.source, r.frame, r.boxes) for r in expected]
    assert len(found) == 11


def test_crops_hold_what_the_boxes_hold_and_say_where_they_are_from(recipe: dict[str, Any], tmp_path: Path) -> None:
    printed = list(tag_core.predict(recipe, tmp_path / "a.mp4", crops=tmp_path / "crops"))
    predict_to_folder(recipe, tmp_path / "a.mp4", out=tmp_path / "out", crops=tmp_path / "again")
    assert len(printed) == 10
    listed = list(read_records(tmp_path / "crops" / "crops.jsonl"))
    assert sorted(p.name for p in (tmp_path / "crops").glob("*.png")) == sorted(Path(r.source).name for r in listed)
    assert [r.extra["frame"] for r in listed] == list(range(10)), "one box of a frame is bright enough"
    for record, (column, row) in zip(listed, LIGHTS, strict=True):
        assert record.extra["of"] == str(tmp_path / "a.mp4")
        assert record.extra["box"] == [8 * column, 8 * row, 8 * column + 8, 8 * row + 8]
        picture = read_image(record.source)
        assert picture.shape == (8, 8, 3)
        assert picture.min() > 200
        np.testing.assert_array_equal(picture, read_image(tmp_path / "again" / Path(record.source).name))


def test_every_box_is_cropped_where_asked(recipe: dict[str, Any], tmp_path: Path) -> None:
    list(tag_core.predict(recipe, tmp_path / "a.mp4", crops=tmp_path / "crops", min_score=0))
    assert len(list((tmp_path / "crops").glob("*.png"))) == 30


def test_boxes_beyond_the_picture_are_cut_at_its_edge_or_left_out(tmp_path: Path) -> None:
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(tmp_path / "a.png")
    boxes = [[-2.0, -2.0, 2.0, 2.0], [9.0, 9.0, 12.0, 12.0], [3.0, 0.0, 9.0, 1.0]]
    record = Record(source=str(tmp_path / "a.png"), boxes=boxes)
    assert list(with_crops([record], tmp_path / "crops", rectangles, 0.5)) == [record]
    shapes = [read_image(r.source).shape for r in read_records(tmp_path / "crops" / "crops.jsonl")]
    assert shapes == [(2, 2, 3), (1, 1, 3)]


def test_a_source_that_has_moved_is_told_and_passed_by(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    records = [Record(source=str(tmp_path / f"{name}.png"), boxes=[[0.0, 0.0, 2.0, 2.0]]) for name in "ab"]
    with caplog.at_level(logging.WARNING, "tag"):
        assert len(list(with_crops(records, tmp_path / "crops", rectangles, 0.5))) == 2
    assert "no crops of" in caplog.text
    assert len(list((tmp_path / "crops").glob("*.png"))) == 1


def test_a_video_that_is_read_in_part_is_damaged_not_unreadable() -> None:
    records = [Record(source="a.mp4", frame=0), Record(source="a.mp4", error="cut off"), Record(source="b", error="no")]
    coverage = coverage_of(records)
    assert (coverage.total, coverage.damaged, coverage.unreadable) == (2, {"a.mp4": "cut off"}, {"b": "no"})
