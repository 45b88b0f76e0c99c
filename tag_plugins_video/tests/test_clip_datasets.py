"""Data sets of real H.264 files: every frame carries its own number as a grey level."""

import pickle
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from tag_core.errors import UnreadableInput, UserError
from tag_plugins_video.datasets.folder import VideoFolder
from tag_plugins_video.datasets.list_file import VideoList
from tag_plugins_video.datasets.table import VideoTable
from tag_plugins_video.transforms.colour import Flip
from tag_plugins_video.transforms.crop import RandomCrop
from tag_plugins_video.transforms.views import ThreeCrop

STEP = 8


def write_video(path, num_frames=20, height=32, width=48):
    """Frame i is grey of level STEP * i."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(num_frames):
            picture = np.full((height, width, 3), STEP * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return str(path)


def frame_numbers(clip):
    return (clip.float().mean(dim=(-3, -2, -1)) / STEP).round().int().tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    for name in ("run/a.mp4", "run/b.mp4", "walk/c.mp4"):
        write_video(root / name)
    return root


def test_a_sample_holds_the_sampled_frames_with_label_time_and_source(folder):
    data = VideoFolder(str(folder), num_segments=4)
    sample = data[2]
    assert data.classes == ["run", "walk"]
    assert frame_numbers(sample["clip"]) == [2, 7, 12, 17]  # ticks of 5, their centres
    assert sample["clip"].shape == (4, 3, 32, 48)
    assert sample["clip"].dtype == torch.uint8
    assert (sample["source"], sample["label"], sample["damage"]) == (data.key(2), data.label(2), None)
    assert sample["source"].endswith("walk/c.mp4")
    assert sample["time"] == pytest.approx((0.2, 1.7))


def test_dense_clips_are_views(folder):
    data = VideoFolder(str(folder), sampler="dense", clip_len=3, frame_interval=2, num_clips=2)
    assert frame_numbers(data[0]["clip"]) == [[0, 2, 4], [15, 17, 19]]


def test_paddle_sampling_takes_its_own_frames(folder):
    data = VideoFolder(str(folder), sampler="paddle", num_segments=2, clip_len=3)
    assert frame_numbers(data[0]["clip"]) == [4, 5, 6, 14, 15, 16]


def test_views_of_clips_and_crops_multiply(folder):
    data = VideoFolder(str(folder), num_segments=2, num_clips=2, transforms=[ThreeCrop(32)])
    clip = data[0]["clip"]
    assert clip.shape == (6, 2, 3, 32, 32)
    assert frame_numbers(clip) == [[2, 12]] * 3 + [[7, 17]] * 3


def test_the_decoder_resizes_to_the_short_side(folder):
    assert VideoFolder(str(folder), num_segments=1, short_side=16)[0]["clip"].shape == (1, 3, 16, 24)


def test_random_sampling_and_transforms_repeat_under_a_seed(folder):
    data = VideoFolder(str(folder), num_segments=4, random=True, transforms=[RandomCrop(24), Flip()])
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append([data[i]["clip"] for i in range(3)])
    assert all(torch.equal(a, b) for a, b in zip(*drawn, strict=True))
    others = {tuple(frame_numbers(data[0]["clip"])) for _ in range(10)}
    assert len(others) > 1


def test_a_data_set_pickles_and_its_copy_gives_the_same_sample(folder):
    data = VideoFolder(str(folder), num_segments=4, transforms=[RandomCrop(32)])
    copy = pickle.loads(pickle.dumps(data))
    torch.manual_seed(0)
    first = data[1]["clip"]
    torch.manual_seed(0)
    assert torch.equal(first, copy[1]["clip"])


def test_listing_opens_no_video(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "x.mp4").write_text("not a video")
    data = VideoFolder(str(tmp_path))
    assert len(data) == 1
    with pytest.raises(UnreadableInput, match=r"x\.mp4"):
        data[0]


def test_prediction_takes_files_folders_and_missing_names_without_labels(folder):
    data = VideoFolder([str(folder / "walk"), "missing.mp4"], labelled=False, num_segments=1)
    assert [Path(data.key(i)).name for i in range(len(data))] == ["c.mp4", "missing.mp4"]
    assert "label" not in data[0]
    with pytest.raises(UnreadableInput):
        data[1]


def test_a_list_file_gives_labels_in_the_order_of_training(folder, tmp_path):
    (folder / "list.txt").write_text("run/a.mp4 run\nwalk/c.mp4 walk\n")
    data = VideoList(str(folder / "list.txt"), classes=["walk", "run"], num_segments=1)
    assert [data.label(i) for i in range(2)] == [1, 0]
    assert data[0]["label"] == 1


def test_several_labels_become_a_vector_of_zeros_and_ones(folder):
    (folder / "multi.txt").write_text("run/a.mp4 0 2\nwalk/c.mp4 1\n")
    data = VideoList(str(folder / "multi.txt"), multi_label=True, num_segments=1)
    assert data[0]["label"].tolist() == [1.0, 0.0, 1.0]
    assert data.label(0) == [0, 2]


def test_a_path_listed_twice_has_two_keys(folder):
    (folder / "twice.txt").write_text("run/a.mp4 0\nrun/a.mp4 0\n")
    data = VideoList(str(folder / "twice.txt"), num_segments=1)
    assert data.key(1) == data.key(0) + "#2"
    assert data[1]["source"] == data.key(1)
    assert torch.equal(data[1]["clip"], data[0]["clip"])


def test_a_table_names_its_columns(folder):
    (folder / "t.csv").write_text("file,what\nrun/a.mp4,run\nwalk/c.mp4,walk\n")
    data = VideoTable(str(folder / "t.csv"), path_column="file", label_column="what", num_segments=1)
    assert (data.classes, data.label(1)) == (["run", "walk"], 1)
    assert frame_numbers(data[1]["clip"]) == [10]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_segments": 0}, "num_segments must be at least 1"),
        ({"sampler": "paddle", "num_clips": 2}, "takes one clip"),
        ({"frame_interval": 2}, "frame_interval belongs to sampler 'dense'"),
    ],
)
def test_options_that_do_not_go_together_are_refused(folder, options, message):
    with pytest.raises(ValueError, match=message):
        VideoFolder(str(folder), **options)


def test_a_missing_folder_is_the_users_to_fix():
    with pytest.raises(UserError, match="no such folder"):
        VideoFolder("no/such/folder")
