import hashlib
from pathlib import Path

import numpy as np
import pytest

from tag_core.errors import UserError
from tag_core.media.video import read_clip

pytest.importorskip("sklearn")

from tag_plugins_video.motion import DIRECTIONS, SCALE, SIDE, _split_digits, load_digits, make_motion_data

COUNTS = {"train": 16, "val": 8, "test": 8}


def make(folder, counts=COUNTS, seed=0):
    return sum(1 for _ in make_motion_data(folder, counts, seed))


def digest(folder):
    files = sorted(folder.rglob("*.mp4"))
    return [(str(f.relative_to(folder)), hashlib.sha256(f.read_bytes()).hexdigest()) for f in files]


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motion") / "data"
    assert make(folder) == 32
    return folder


def frames_of(path):
    """The clip's grey frames [8, 32, 32], each pixel of the plane once."""
    frames = read_clip(path, range).frames[..., 0]
    return frames[:, ::SCALE, ::SCALE].astype(int)


def test_each_direction_has_its_share_of_every_split(motion):
    for split, count in COUNTS.items():
        found = {folder.name: len(list(folder.glob("*.mp4"))) for folder in (motion / split).iterdir()}
        assert found == dict.fromkeys(DIRECTIONS, count // 8)


def test_files_are_h264_and_keep_eight_frames(motion):
    import av

    path = next(motion.rglob("*.mp4"))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
    assert read_clip(path, range).frames.shape == (8, SIDE * SCALE, SIDE * SCALE, 3)


def test_the_digit_moves_in_the_direction_of_its_class(motion):
    for path in motion.rglob("*.mp4"):
        frames = frames_of(path)
        direction = np.array(DIRECTIONS[path.parent.name])
        errors = [
            np.abs(np.roll(frames[:-1], tuple(speed * direction), axis=(1, 2)) - frames[1:]).mean()
            for speed in (1, 2, 3)
        ]
        assert min(errors) < 1, path


def test_encoding_leaves_the_rest_of_the_frame_black(motion):
    for path in list(motion.rglob("*.mp4"))[:8]:
        frames = frames_of(path)
        assert (frames > 8).reshape(8, -1).sum(1).max() <= 64  # at most the digit's 8x8 pixels


def test_no_digit_picture_is_in_two_splits():
    digits = load_digits()
    splits = _split_digits(np.arange(len(digits)), seed=3)
    everything = np.concatenate(list(splits.values()))
    assert sorted(everything) == list(range(len(digits)))
    assert min(len(part) for part in splits.values()) > 300


def test_the_same_seed_gives_the_same_files_and_another_one_others(motion, tmp_path):
    make(tmp_path / "same")
    make(tmp_path / "other", seed=1)
    assert digest(tmp_path / "same") == digest(motion)
    assert digest(tmp_path / "other") != digest(motion)


def test_a_complete_folder_is_left_alone_and_a_broken_off_one_completed(motion, tmp_path):
    assert make(motion) == 0
    folder = tmp_path / "data"
    started = make_motion_data(folder, COUNTS)
    for _ in range(5):
        next(started)
    started.close()
    assert make(folder) == 32
    assert digest(folder) == digest(motion)


def test_other_settings_and_foreign_folders_are_refused(motion, tmp_path):
    with pytest.raises(UserError, match="other settings"):
        make(motion, seed=5)
    Path(tmp_path / "mine.txt").touch()
    with pytest.raises(UserError, match="holds something else"):
        make(tmp_path)


def test_the_command_makes_the_folders(tmp_path):
    from click.testing import CliRunner

    from tag_plugins_video.cli import motion_data

    arguments = [str(tmp_path / "m"), "--train", "8", "--val", "0", "--test", "8"]
    result = CliRunner().invoke(motion_data, arguments)
    assert result.exit_code == 0, result.output
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["motion.json", "test", "train"]
    assert "already complete" in CliRunner().invoke(motion_data, arguments).output
