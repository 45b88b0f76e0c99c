"""The data set face/wider: what its sources list, and what its samples hold."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from face_pictures import draw_face, picture, write_labelled, write_video
from PIL import Image

import tag_core
from tag_core.engine.data import Loader, collate, plan_in_order, same_shapes
from tag_core.errors import ConfigError, UnreadableInput, UserError
from tag_plugins_face.datasets.wider import WiderFace
from tag_plugins_face.faces import Faces
from tag_plugins_face.transforms.resize import Resize

EVENT = "0--Event0/0_Event0_0.png"


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """``in/``: pictures a.png and below/b.png of 160 x 200, a video v.mp4 of 20 such frames, and notes.md."""
    (tmp_path / "in" / "below").mkdir(parents=True)
    for name in ("a.png", "below/b.png"):
        Image.fromarray(picture(0)[0]).save(tmp_path / "in" / name)
    write_video(tmp_path / "in" / "v.mp4", [picture(1)[0]] * 20)
    (tmp_path / "in" / "notes.md").write_text("no picture")
    return tmp_path / "in"


def unlabelled(*paths: object, **options: Any) -> WiderFace:
    return WiderFace([str(path) for path in paths], labelled=False, **options)


def test_labelled_pictures_come_with_their_faces(tmp_path: Path) -> None:
    data = WiderFace(write_labelled(tmp_path))
    assert len(data) == 4
    assert data.classes == ["face"]
    assert data.key(0) == data.file(0) == str(tmp_path / "images" / EVENT)
    image, boxes = picture(0)
    sample = data[0]
    assert isinstance(sample, dict)
    assert list(sample) == ["source", "image", "damage", "scale", "faces", "label"]
    np.testing.assert_array_equal(sample["image"], image.transpose(2, 0, 1))
    assert sample["image"].is_contiguous()
    assert (sample["source"], sample["damage"], sample["scale"], sample["label"]) == (data.key(0), None, 1.0, 0)
    assert sample["faces"].boxes.tolist() == [[x, y, x + w, y + h] for x, y, w, h in boxes]
    known = [bool(face.isfinite().all()) for i in range(4) for face in data[i]["faces"].landmarks]  # type: ignore[call-overload]
    assert known == [number % 3 > 0 for number in range(1, len(known) + 1)]
    x, y, width, height = boxes[0]
    nose = sample["faces"].landmarks[0, 2]
    np.testing.assert_allclose(nose, [x + width / 2, y + 0.6 * height], atol=1e-3)


def test_transforms_change_picture_and_faces_together_in_order(tmp_path: Path) -> None:
    data = WiderFace(write_labelled(tmp_path), transforms=[Resize(320, 5000), Resize(80, 5000)])
    sample = data[0]
    assert isinstance(sample, dict)
    assert sample["image"].shape == (3, 80, 100)
    assert sample["scale"] == 0.5
    plain: Any = WiderFace(write_labelled(tmp_path))[0]
    assert sample["faces"] == plain["faces"].scale(0.5)


def test_pictures_to_score_have_no_faces_from_a_folder_and_from_wider_faces_own_list(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_labelled(tmp_path)
    (tmp_path / "wider_val.txt").write_text(f"/{EVENT}\n")
    for source in (str(tmp_path / "images"), str(tmp_path / "wider_val.txt")):
        data = WiderFace(source)
        sample: Any = data[0]
        assert data.key(0) == str(tmp_path / "images" / EVENT)
        assert len(sample["faces"]) == 0
        assert sample["faces"].landmarks.shape == (0, 5, 2)
        assert f"{source}: no face is labelled" in caplog.text
    assert len(WiderFace([str(tmp_path / "images"), str(tmp_path / "label.txt")])) == 8


def test_a_source_that_lists_nothing_is_refused(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "none"):
        with pytest.raises(UserError, match=r"no label\.txt, no list of pictures .* and no folder with pictures"):
            WiderFace(str(source))
    with pytest.raises(UserError, match=r"none\.txt: cannot be read"):
        WiderFace(str(tmp_path / "none.txt"))
    with pytest.raises(ConfigError, match="frame_interval must be at least 1, got 0"):
        tag_core.load("face/wider", source=str(tmp_path), labelled=False, frame_interval=0)


def test_prediction_takes_pictures_videos_folders_lists_and_patterns(mixed: Path) -> None:
    stretches = [f"{mixed}/v.mp4#frames={part}" for part in ("0-7", "8-15", "16-19")]
    everything = [f"{mixed}/a.png", *stretches, f"{mixed}/below/b.png"]
    assert WiderFace.expand([str(mixed)]) == everything
    (mixed / "list.txt").write_text("v.mp4\na.png\n\nbelow\n")
    listed = [*stretches, f"{mixed}/a.png", f"{mixed}/below/b.png"]
    for inputs in ("list.txt", "l*.txt"):
        assert WiderFace.expand([str(mixed / inputs)]) == listed
    assert WiderFace.expand([str(mixed / "*.png"), "none.jpg"]) == [f"{mixed}/a.png", "none.jpg"]
    assert WiderFace.expand([str(mixed / "v.mp4")], 10) == [f"{mixed}/v.mp4#frames=0-19"]
    for once in (everything, listed):
        assert WiderFace.expand(once) == once == WiderFace.expand(once, 5)
    data = unlabelled(mixed)
    assert [data.key(index) for index in range(len(data))] == everything
    assert [data.file(index) for index in (0, 1, 3, 4)] == [
        f"{mixed}/{n}" for n in ("a.png", "v.mp4", "v.mp4", "below/b.png")
    ]
    assert data.classes == []


def test_a_label_file_can_be_predicted_too(tmp_path: Path) -> None:
    data = unlabelled(write_labelled(tmp_path))
    assert len(data) == 4
    assert "faces" not in data[0]


def test_a_list_in_a_list_is_refused(mixed: Path) -> None:
    (mixed / "list.txt").write_text("a.png\nlist.txt\n")
    with pytest.raises(UserError, match=r"list\.txt: a list that another list names"):
        WiderFace.expand([str(mixed / "list.txt")])


@pytest.mark.parametrize(("interval", "expected"), [(1, range(20)), (3, range(0, 20, 3)), (25, [0])])
def test_videos_give_their_frames_with_numbers_and_times(tmp_path: Path, interval: int, expected: Any) -> None:
    frames = []
    for number in range(20):
        frame = np.full((80, 120, 3), 40, np.uint8)
        draw_face(frame, 4 * number, 20, 32, 40)
        frames.append(frame)
    path = write_video(tmp_path / "v.mp4", frames)
    data = unlabelled(path, frame_interval=interval, transforms=[Resize(40, 500)])
    samples = [sample for index in range(len(data)) for sample in data[index]]
    assert [sample["frame"] for sample in samples] == list(expected)
    assert [sample["time"] for sample in samples] == pytest.approx([frame / 10 for frame in expected])
    assert {sample["source"] for sample in samples} == {data.key(index) for index in range(len(data))}
    for sample in samples:
        assert sample["scale"] == 0.5
        expected_picture: Any = Resize(40, 500)(
            {"image": torch.from_numpy(frames[sample["frame"]]).permute(2, 0, 1), "scale": 1.0}
        )
        assert (sample["image"].int() - expected_picture["image"].int()).abs().float().mean() < 3
    assert samples[0]["damage"] is None


def test_pictures_and_frames_of_one_size_are_batched_apart(mixed: Path) -> None:
    loader = Loader(unlabelled(mixed, frame_interval=4), workers=0, timeout=60)
    (loaded,) = loader.read(plan_in_order(range(3), 8, 0))
    batches = [collate(samples) for samples, _ in same_shapes(loaded)]
    assert [len(batch["source"]) for batch in batches] == [1, 5, 1]
    assert batches[1]["frame"].tolist() == [0, 4, 8, 12, 16]
    assert batches[1]["time"].tolist() == pytest.approx([0, 0.4, 0.8, 1.2, 1.6])
    assert batches[1]["scale"].tolist() == [1.0] * 5


def test_labelled_samples_are_batched_with_a_list_of_faces(tmp_path: Path) -> None:
    data = WiderFace(write_labelled(tmp_path))
    batch = collate([data[0], data[1]])  # type: ignore[list-item]
    assert batch["image"].shape == (2, 3, 160, 200)
    assert [type(faces) for faces in batch["faces"]] == [Faces, Faces]
    assert batch["label"].tolist() == [0, 0]


def test_worker_processes_give_the_same(mixed: Path) -> None:
    found = []
    for workers in (0, 2):
        loader = Loader(unlabelled(mixed), workers=workers, timeout=60)
        found.append([sample for loaded in loader.read(plan_in_order(range(5), 2, 0)) for sample in loaded.samples])
        loader.close()
    assert len(found[0]) == len(found[1]) == 22
    for alone, shared in zip(*found, strict=True):
        assert torch.equal(alone["image"], shared["image"])
        assert (alone["source"], alone.get("frame")) == (shared["source"], shared.get("frame"))


def test_it_pickles_with_a_video_open(mixed: Path) -> None:
    data = unlabelled(mixed / "v.mp4")
    first = data[0]
    again = pickle.loads(pickle.dumps(data))[0]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(first, again, strict=True))


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "b.mp4").write_text("no video")
    (tmp_path / "empty").mkdir()
    names = ("a.png", "b.mp4", "empty", "none.jpg", "none.mp4")
    data = unlabelled(*(tmp_path / name for name in names))
    assert [Path(data.file(index)).name for index in range(len(data))] == list(names)
    for index, reason in enumerate(["text", "text", "no picture and no video", "such file", "such file"]):
        with pytest.raises(UnreadableInput, match=reason):
            data[index]
    Path(data.key(1)).write_bytes(Path(write_video(tmp_path / "c.mp4", [picture(0)[0]])).read_bytes())
    with pytest.raises(UnreadableInput, match="it was unreadable when it was listed"):
        data[1]


def test_an_example_is_made_up_without_a_file() -> None:
    sample = unlabelled(transforms=[Resize(64, 64)]).example()
    assert sample["image"].shape == (3, 64, 64)
    assert sample["image"].dtype == torch.uint8
    assert sample["scale"] == 0.25


def test_a_picture_listed_twice_has_two_keys(tmp_path: Path) -> None:
    file = write_labelled(tmp_path, count=1)
    data = WiderFace([file, file])
    assert [data.key(0), data.key(1)] == [data.rows[0].path, f"{data.rows[0].path}#2"]
