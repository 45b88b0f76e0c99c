import pickle

import numpy as np
import pytest
from PIL import Image

from tag_core.errors import UnreadableInput
from tag_plugins_video.datasets.frames import FrameFolders

STEP = 10


def write_frames(folder, names, size=(24, 16)):
    folder.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(names):
        Image.new("RGB", size, (STEP * i,) * 3).save(folder / name)
    return str(folder)


def frame_numbers(clip):
    return (clip.float().mean(dim=(-3, -2, -1)) / STEP).round().int().tolist()


def numbered(count):
    return [f"img_{i:05d}.jpg" for i in range(1, count + 1)]


def test_a_folder_of_pictures_is_a_video(tmp_path):
    write_frames(tmp_path / "run" / "v1", numbered(9))
    write_frames(tmp_path / "walk" / "v2", numbered(3))
    data = FrameFolders(str(tmp_path), num_segments=3, fps=10.0)
    sample = data[0]
    assert (data.classes, len(data)) == (["run", "walk"], 2)
    assert frame_numbers(sample["clip"]) == [1, 4, 7]
    assert sample["clip"].shape == (3, 3, 16, 24)
    assert sample["time"] == pytest.approx((0.1, 0.7))
    assert frame_numbers(pickle.loads(pickle.dumps(data))[1]["clip"]) == [0, 1, 2]


def test_names_sort_by_their_numbers(tmp_path):
    folder = write_frames(tmp_path / "v", [f"f{i}.png" for i in range(12)])
    data = FrameFolders([folder], labelled=False, num_segments=12)
    assert frame_numbers(data[0]["clip"]) == list(range(12))


def test_a_template_leaves_other_pictures_out(tmp_path):
    folder = tmp_path / "v"
    write_frames(folder, numbered(4))
    write_frames(folder, ["flow_00001.jpg", "cover.jpg"])
    data = FrameFolders([str(folder)], labelled=False, template="img_{:05d}.jpg", num_segments=4)
    assert frame_numbers(data[0]["clip"]) == [0, 1, 2, 3]


def test_a_list_limits_the_number_of_frames(tmp_path):
    write_frames(tmp_path / "v", numbered(8))
    (tmp_path / "list.txt").write_text("v 4 1\n")
    for template in ("img_{:05d}.jpg", ""):
        data = FrameFolders(str(tmp_path / "list.txt"), layout="list", template=template, num_segments=2)
        assert frame_numbers(data[0]["clip"]) == [1, 3]
        assert data.label(0) == 1


def test_paddle_sampling_centres_snippets_as_its_reader_of_stored_frames(tmp_path):
    folder = write_frames(tmp_path / "v", numbered(20))
    data = FrameFolders([folder], labelled=False, sampler="paddle", num_segments=2, clip_len=3)
    assert frame_numbers(data[0]["clip"]) == [3, 4, 5, 13, 14, 15]  # (10 - 3) // 2


def test_frames_are_resized_to_the_short_side(tmp_path):
    folder = write_frames(tmp_path / "v", numbered(2))
    assert FrameFolders([folder], labelled=False, short_side=8)[0]["clip"].shape == (8, 3, 8, 12)


def test_folders_that_cannot_be_read_say_why(tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken"
    write_frames(broken, numbered(2))
    (broken / "img_00002.jpg").write_text("no picture")
    mixed = tmp_path / "mixed"
    write_frames(mixed, ["1.jpg"])
    write_frames(mixed, ["2.jpg"], size=(30, 30))
    (tmp_path / "short.txt").write_text("broken 9 0\n")
    sources = [str(empty), str(tmp_path / "none"), str(broken), str(mixed)]
    data = FrameFolders(sources, labelled=False)
    reasons = ["no frames in this folder", "No such file", r"frame img_00002\.jpg", "frames of different sizes"]
    for i, reason in enumerate(reasons):
        with pytest.raises(UnreadableInput, match=reason):
            data[i]
    listed = FrameFolders(str(tmp_path / "short.txt"), layout="list", template="img_{:05d}.jpg")
    with pytest.raises(UnreadableInput, match=r"frame img_0000\d\.jpg"):
        listed[0]


def test_prediction_expands_to_the_folders_that_hold_pictures(tmp_path):
    first = write_frames(tmp_path / "a" / "v1", numbered(1))
    second = write_frames(tmp_path / "b" / "v2", numbered(1))
    assert FrameFolders.expand([str(tmp_path)]) == [first, second]
    assert FrameFolders.expand([first]) == [first]


def test_a_template_without_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no place for a number"):
        FrameFolders([str(tmp_path)], labelled=False, template="img.jpg")


def test_colours_come_in_the_order_red_green_blue(tmp_path):
    Image.fromarray(np.full((4, 4, 3), (250, 120, 10), dtype=np.uint8)).save(tmp_path / "1.png")
    clip = FrameFolders([str(tmp_path)], labelled=False, num_segments=1)[0]["clip"]
    assert clip[0, :, 0, 0].tolist() == [250, 120, 10]
