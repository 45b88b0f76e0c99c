"""Pickles of JPEG frames: every frame carries its own number as a grey level."""

import io
import os
import pickle

import pytest
from PIL import Image

from tag_core.errors import UnreadableInput, UserError
from tag_plugins_video.datasets.kinetics_pickle import KineticsPickle

STEP = 8


def jpeg(level, size=(24, 16)):
    file = io.BytesIO()
    Image.new("RGB", size, (level,) * 3).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_clip(path, label=1, num_frames=20, protocol=2, **changes):
    clip = {"id": "./a_0_10", "label": label, "frames": [jpeg(STEP * i) for i in range(num_frames)]} | changes
    path.write_bytes(pickle.dumps(tuple(clip.values()), protocol))
    return str(path)


def frame_numbers(sample):
    return (sample["clip"].float().mean(dim=(-3, -2, -1)) / STEP).round().int().tolist()


@pytest.fixture
def listed(tmp_path):
    write_clip(tmp_path / "a.pkl", label=2)
    write_clip(tmp_path / "b.pkl", label=0, num_frames=5, protocol=4)
    (tmp_path / "train.list").write_text("a.pkl\nb.pkl\n")
    return tmp_path


def test_a_list_of_pickles_gives_clips_and_their_labels(listed):
    data = KineticsPickle(str(listed / "train.list"), num_segments=4, clip_len=2, num_classes=3)
    sample = data[0]
    assert (len(data), data.classes, data.label(0), data.label(1)) == (2, ["0", "1", "2"], 2, 0)
    assert frame_numbers(sample) == [1, 2, 6, 7, 11, 12, 16, 17]  # (5 - 2) // 2 + 5 i, as Paddle centres snippets
    assert frame_numbers(data[1]) == [0, 1, 1, 2, 2, 3, 3, 4]  # parts of one frame
    assert (sample["clip"].shape, sample["label"], sample["damage"]) == ((8, 3, 16, 24), 2, None)
    assert sample["source"] == data.key(0) == str(listed / "a.pkl")
    assert sample["time"] == (1 / 25, 17 / 25)
    assert pickle.loads(pickle.dumps(data))[1]["label"] == 0


def test_other_samplers_and_a_short_side_work_too(listed):
    data = KineticsPickle(str(listed / "a.pkl"), sampler="segments", num_segments=4, short_side=8)
    assert frame_numbers(data[0]) == [2, 7, 12, 17]
    assert data[0]["clip"].shape == (4, 3, 8, 12)


def test_names_in_files_are_found_in_the_label_map(tmp_path):
    (tmp_path / "names.txt").write_text("abseiling 0\nbowling 1\n")
    path = write_clip(tmp_path / "a.pkl", label=b"bowling")
    assert KineticsPickle(path, label_map=str(tmp_path / "names.txt"))[0]["label"] == 1


def test_prediction_takes_files_folders_and_lists_without_labels(listed):
    paths = [str(listed / "a.pkl"), str(listed / "b.pkl")]
    assert KineticsPickle.expand([str(listed)]) == KineticsPickle.expand([str(listed / "train.list")]) == paths
    assert "label" not in KineticsPickle(paths, labelled=False)[0]


class Attack:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"frames": []}, "no frames in it"),
        ({"frames": 3}, "no frames in it"),
        ({"frames": [b"no picture"]}, "frame 0: cannot identify"),
        ({"frames": [jpeg(0)[:-300]]}, "frame 0: "),
        ({"frames": ["text"]}, "frame 0 is a str"),
        ({"frames": [jpeg(0), jpeg(0, (8, 8))]}, "frames of different sizes"),
        ({"label": 400}, "label '400' is not one of the 400 classes"),
        ({"label": None}, "label 'None' is not one"),
        ({"more": 1}, "not a pickled"),
    ],
)
def test_clips_that_cannot_be_used_say_why(tmp_path, changes, problem):
    data = KineticsPickle(write_clip(tmp_path / "a.pkl", **changes))
    with pytest.raises(UnreadableInput, match=problem):
        data[0]


def test_a_malicious_clip_is_refused(tmp_path):
    data = KineticsPickle(write_clip(tmp_path / "a.pkl", label=Attack(tmp_path / "owned")))
    with pytest.raises(UnreadableInput, match="only plain data is read"):
        data[0]
    assert not (tmp_path / "owned").exists()


def test_a_list_that_is_missing_or_empty_is_the_users_to_mend(tmp_path):
    (tmp_path / "empty.list").write_text("\n")
    for name in ("empty.list", "missing.list"):
        with pytest.raises(UserError, match=name):
            KineticsPickle(str(tmp_path / name))
    for options in ({"fps": 0}, {"num_classes": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            KineticsPickle(write_clip(tmp_path / "a.pkl"), **options)
