import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from tag_core.errors import UnreadableInput, UserError
from tag_plugins_video import cli_flow
from tag_plugins_video.cli_flow import make_one, plan
from tag_plugins_video.datasets.flow import FlowFolder
from tag_plugins_video.flow import FlowSettings, estimator, flow_of, quantise, restore
from tag_plugins_video.flow_store import FlowStore, write_store
from tag_plugins_video.motion import write_clip

cv2 = pytest.importorskip("cv2", reason="the extra 'flow' (OpenCV) is not installed")
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
FAST = ["--workers", "1", "--short-side", "0"]


def drifting(step, frames=5, side=64):
    """A blurred random texture that moves by ``step`` (x, y) pixels a frame, on a torus: uint8 [T, H, W]."""
    noise = np.random.default_rng(0).random((side, side))
    spectrum = np.fft.fft2(noise) * np.exp(-200 * np.add.outer(np.fft.fftfreq(side) ** 2, np.fft.fftfreq(side) ** 2))
    smooth = np.fft.ifft2(spectrum).real
    texture = np.uint8(255 * (smooth - smooth.min()) / np.ptp(smooth))
    return np.stack([np.roll(texture, (step[1] * t, step[0] * t), axis=(0, 1)) for t in range(frames)])


@pytest.fixture
def videos(tmp_path):
    """Two videos in two classes, moving right by 3 and up by 2 pixels a frame."""
    for name, step in {"right": (3, 0), "up": (0, -2)}.items():
        (tmp_path / "videos" / name).mkdir(parents=True)
        write_clip(tmp_path / "videos" / name / "clip.mp4", drifting(step))
    return tmp_path / "videos"


def run(*arguments):
    return CliRunner().invoke(cli_flow.flow, [str(a) for a in arguments])


METHODS = [
    "farneback",
    pytest.param("tvl1", marks=pytest.mark.skipif(not hasattr(cv2, "optflow"), reason="no contrib")),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("step", [(3, 0), (-1, 2), (0, 0)])
def test_flow_of_a_drifting_texture_is_its_drift(method, step):
    flows = list(flow_of(iter(drifting(step)), estimator(method)))
    assert len(flows) == 4
    for flow in flows:
        assert flow.shape == (64, 64, 2)
        np.testing.assert_allclose(np.median(flow[12:-12, 12:-12], axis=(0, 1)), step, atol=0.25)


def test_levels_are_bounded_and_within_half_a_step():
    flow = np.linspace(-30, 30, 2001, dtype=np.float32)
    levels = quantise(flow, 20)
    assert levels.dtype == np.uint8
    assert (levels[0], levels[-1], quantise(np.zeros(1), 20)[0]) == (0, 255, 128)
    assert np.abs(restore(levels, 20) - flow.clip(-20, 20)).max() <= 20 / 255 + 1e-5
    assert quantise(np.array([np.nan, np.inf, -np.inf]), 20).tolist() == [128, 255, 0]


def test_the_store_gives_back_what_it_was_given_within_the_error_of_jpeg(tmp_path):
    rows, columns = np.mgrid[:48, :64].astype(np.float32)
    flows = [quantise(np.stack([columns / 8 - t, rows / 6], axis=-1), 20) for t in range(5)]
    assert write_store(tmp_path / "a.flow", flows[0], flows[1:], {"fps": 25.0, "bound": 20.0}) == 5
    with FlowStore(str(tmp_path / "a.flow")) as store:
        assert (store.num_frames, store.fps, store.bound, store.damage) == (5, 25.0, 20.0, None)
        frames = store.frames([3, 0, 3])
    assert frames.shape == (3, 48, 64, 2)
    assert np.abs(frames.astype(int) - np.stack([flows[i] for i in (3, 0, 3)])).max() <= 4
    assert (tmp_path / "a.flow").stat().st_size < 5 * 48 * 64 * 2 / 2


def test_the_command_keeps_class_folders_and_goes_on_where_it_stopped(videos, tmp_path):
    out = tmp_path / "flow"
    assert run(videos, out, *FAST).exit_code == 0
    files = sorted(out.rglob("*.flow"))
    assert [str(path.relative_to(out)) for path in files] == ["right/clip.mp4.flow", "up/clip.mp4.flow"]
    before = [path.stat().st_mtime_ns for path in files]
    files[1].unlink()
    again = run(videos, out, *FAST)
    assert "1 made, 1 there already, 0 unreadable" in again.output
    assert files[0].stat().st_mtime_ns == before[0]
    assert files[1].stat().st_mtime_ns != before[1]
    assert not list(out.rglob(".tag-*"))


def test_the_same_video_gives_the_same_bytes_in_one_process_and_in_two(videos, tmp_path):
    for name, workers in (("one", "1"), ("two", "2")):
        assert run(videos, tmp_path / name, "--short-side", "0", "--workers", workers).exit_code == 0
    for path in (tmp_path / "one").rglob("*.flow"):
        twin = tmp_path / "two" / path.relative_to(tmp_path / "one")
        assert path.read_bytes() == twin.read_bytes()


def test_videos_that_cannot_be_read_are_listed_and_the_others_made(videos, tmp_path):
    (videos / "up" / "broken.mp4").write_bytes(b"not a video at all")
    write_clip(videos / "up" / "still.mp4", drifting((0, 0), frames=1))
    result = run(videos, tmp_path / "flow", *FAST)
    assert result.exit_code == 0
    rows = [json.loads(line) for line in (tmp_path / "flow" / "unreadable.jsonl").read_text().splitlines()]
    assert [Path(row["source"]).name for row in rows] == ["broken.mp4", "still.mp4"]
    assert rows[1]["reason"] == "a single frame has no motion"
    assert len(list((tmp_path / "flow").rglob("*.flow"))) == 2


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    assert isinstance(run(tmp_path / "a.mp4", tmp_path / "flow", *FAST).exception, UnreadableInput)


def test_other_settings_and_other_folders_are_refused(videos, tmp_path):
    assert run(videos, tmp_path / "flow", *FAST).exit_code == 0
    mixed = run(videos, tmp_path / "flow", *FAST, "--bound", "10")
    assert isinstance(mixed.exception, UserError)
    assert "other settings" in str(mixed.exception)
    assert "something else" in str(run(videos, videos, *FAST).exception)
    assert "bound must be above 0" in str(run(videos, tmp_path / "new", "--bound", "0").exception)
    assert not (tmp_path / "new").exists()


def test_two_videos_for_one_file_are_refused(videos, tmp_path):
    inputs = [str(videos / name / "clip.mp4") for name in ("right", "up")]
    with pytest.raises(UserError, match="would both be"):
        plan(inputs, tmp_path)


def test_tvl1_without_the_contributed_modules_says_what_to_install(monkeypatch):
    monkeypatch.delattr(cv2, "optflow", raising=False)
    with pytest.raises(UserError, match="opencv-contrib-python-headless"):
        estimator("tvl1")


def test_clips_of_the_data_set_show_the_motion_and_flips_turn_it_round(videos, tmp_path):
    run(videos, tmp_path / "flow", *FAST)
    options = {"source": str(tmp_path / "flow"), "sampler": "dense", "clip_len": 6, "mean": 0.5, "std": 1.0}
    right, up = FlowFolder(**options)
    assert (right["label"], up["label"]) == (0, 1)
    assert right["clip"].shape == (6, 2, 64, 64)
    assert right["clip"].dtype == torch.float32
    step = 2 * 20.0
    middle = [
        s["clip"][..., 12:-12, 12:-12].permute(1, 0, 2, 3).flatten(1).median(1).values * step for s in (right, up)
    ]
    np.testing.assert_allclose(middle, [[3, 0], [0, -2]], atol=0.4)
    turned = FlowFolder(**options, flip=1.0)[0]["clip"]
    torch.testing.assert_close(turned[:, 0], -right["clip"][:, 0].flip(-1))
    torch.testing.assert_close(turned[:, 1], right["clip"][:, 1].flip(-1))


@pytest.mark.parametrize("damage", ["empty", "cut", "other", "missing"])
def test_damaged_stores_are_unreadable_inputs(damage, videos, tmp_path):
    path = tmp_path / "clip.flow"
    make_one(str(videos / "up" / "clip.mp4"), path, FlowSettings(short_side=0))
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    elif damage == "other":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("flow.json", "{}" * 1000)
    else:
        path.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
    with pytest.raises(UnreadableInput):
        FlowFolder([str(path)], labelled=False)[0]


def test_a_flipped_bit_in_a_picture_is_noticed(videos, tmp_path):
    path = tmp_path / "clip.flow"
    make_one(str(videos / "up" / "clip.mp4"), path, FlowSettings(short_side=0))
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(UnreadableInput, match="damaged"), FlowStore(str(path)) as store:
        store.frames(range(store.num_frames))


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")
def test_of_a_truncated_video_the_good_part_is_taken(tmp_path):
    source = SHARED / "video" / "bad" / "trunc50_faststart.mp4"
    done = make_one(str(source), tmp_path / "a.flow", FlowSettings(short_side=64))
    assert done.reason is None
    with FlowStore(str(tmp_path / "a.flow")) as store:
        assert store.num_frames == done.count > 10
        assert store.damage
