"""tag-run features: what is extracted, and that every video is in the store exactly once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import tag_core
from tag_core.errors import ConfigError, RunFolderError, UnreadableInput, UserError, WeightsError
from tag_plugins_video import cli_features, feature_stream, features
from tag_plugins_video.feature_clips import Part, Piece
from tag_plugins_video.feature_store import FeatureStore
from tag_plugins_video.feature_stream import FeatureStream
from tag_plugins_video.features import extract_features, label_inputs
from tag_plugins_video.models.tsn import TSN
from tag_plugins_video.motion import write_clip

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MEAN, STD = 0.1, 0.3  # of the recipe video/motion
FRESH = ["weights=fresh", "distribution=core/cpu", "eval.workers=0", "train.workers=0"]
TINY = [*FRESH, "task.backbone=video/tsn", "task.backbone.encoder=tiny"]


@pytest.fixture
def videos(tmp_path):
    """Videos of 5 to 12 frames in two classes."""
    generator = np.random.default_rng(0)
    for number in range(8):
        path = tmp_path / "videos" / ("cat", "dog")[number % 2] / f"{number}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = generator.integers(0, 256, (5 + number, 4, 4), dtype=np.uint8)
        write_clip(path, coarse.repeat(8, axis=1).repeat(8, axis=2))
    return tmp_path / "videos"


def run(*arguments):
    return CliRunner().invoke(cli_features.features, [str(a) for a in arguments], standalone_mode=False)


def decoded(path):
    """All frames [T, 3, H, W] by PyAV alone, normalised by hand."""
    with av.open(str(path)) as container:
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    return torch.from_numpy((frames.transpose(0, 3, 1, 2) / 255 - MEAN) / STD).float()


def rows(folder):
    store = FeatureStore(str(folder))
    return {video.source: store.read(video) for video in store.videos}


def backbone_of(recipe, *overrides):
    """As it is at the start of a training."""
    torch.manual_seed(0)
    return tag_core.config.resolve(recipe, overrides, needs=()).task.build(classes=["0"]).backbone.eval()


def test_frame_features_are_those_of_the_encoder_on_each_frame(videos, tmp_path):
    coverage = extract_features(
        "video/motion", [str(videos)], tmp_path / "f", TINY, step=2, clip_len=1, dtype="float32"
    )
    assert (coverage.total, coverage.unreadable) == (8, {})
    encoder = backbone_of("video/motion", *TINY).encoder
    found = rows(tmp_path / "f")
    assert list(found) == sorted(map(str, videos.rglob("*.mp4")))
    for path, values in found.items():
        with torch.no_grad():
            wanted = encoder(decoded(path)[::2])
        np.testing.assert_allclose(values, wanted, rtol=1e-4, atol=1e-5)


def test_clip_features_are_those_of_the_backbone_on_sliding_clips(videos, tmp_path):
    extract_features("video/motion", [str(videos)], tmp_path / "f", FRESH, every=0.25, clip_len=3, frame_interval=2)
    backbone = backbone_of("video/motion")
    for path, values in rows(tmp_path / "f").items():
        frames = decoded(path)  # 8 a second: one position every 2 frames
        starts = range(0, len(frames) - 4, 2)
        with torch.no_grad():
            wanted = backbone(torch.stack([frames[s : s + 5 : 2] for s in starts]).transpose(1, 2))
        assert values.dtype == np.float16
        np.testing.assert_allclose(values, wanted, rtol=2e-3, atol=1e-3)


def test_features_of_a_clips_crops_are_averaged(videos, tmp_path):
    crops = [*FRESH, 'data.test.transforms=[{name="video/ten-crop", size=24}]']
    path = str(videos / "cat" / "0.mp4")  # of 5 frames, 32x32
    extract_features("video/motion", [path], tmp_path / "f", crops, step=1, clip_len=5, dtype="float32")
    clip = decoded(path).transpose(0, 1)
    places = [(0, 0), (0, 8), (8, 0), (8, 8), (4, 4)]
    views = [clip[..., y : y + 24, x : x + 24] for y, x in places]
    views += [view.flip(-1) for view in views]
    with torch.no_grad():
        wanted = backbone_of("video/motion")(torch.stack(views)).mean(0)
    np.testing.assert_allclose(rows(tmp_path / "f")[path], wanted[None], rtol=1e-4, atol=1e-5)


def test_pieces_batches_and_workers_change_nothing(videos, tmp_path, monkeypatch):
    options = {"step": 1, "clip_len": 3, "dtype": "float32"}
    extract_features("video/motion", [str(videos)], tmp_path / "a", FRESH, **options)
    monkeypatch.setattr(features, "FRAMES", 6)  # two positions at a time
    monkeypatch.setattr(feature_stream, "VIDEOS", 3)
    more = [*FRESH, "eval.workers=2", "eval.batch_size=3"]
    extract_features("video/motion", [str(videos)], tmp_path / "b", more, **options)
    a, b = rows(tmp_path / "a"), rows(tmp_path / "b")
    assert list(a) == list(b)
    assert [len(values) for values in a.values()] == [len(decoded(path)) - 2 for path in a]
    for path in a:
        np.testing.assert_allclose(a[path], b[path], rtol=1e-4, atol=1e-5)


def test_a_clip_is_as_long_as_the_recipes_unless_told(videos, tmp_path):
    for number, (recipe, options, wanted) in enumerate(
        [
            ("video/motion", [], (8, 1)),  # segments
            (
                "video/motion",
                ['data.test.sampler="dense"', "data.test.clip_len=4", "data.test.frame_interval=2"],
                (4, 2),
            ),
        ]
    ):
        extract_features(recipe, [str(videos)], tmp_path / str(number), [*FRESH, *options])
        about = FeatureStore(str(tmp_path / str(number))).about
        assert (about["clip_len"], about["frame_interval"], about["every"], about["step"]) == (*wanted, 1.0, None)


def test_labels_are_the_folders_below_an_input(videos):
    labels = label_inputs([str(videos), str(videos / "cat"), str(videos / "dog" / "1.mp4"), "none.mp4"])
    assert list(labels.values()) == ["cat"] * 4 + ["dog"] * 4 + [None]
    assert set(label_inputs([str(videos / "cat")]).values()) == {None}


def test_fresh_weights_are_those_that_a_training_starts_from(videos, tmp_path, monkeypatch):
    def initialize(tsn):  # in the place of fetching ImageNet's
        torch.manual_seed(1)
        for parameter in tsn.encoder.parameters():
            torch.nn.init.normal_(parameter, std=0.1)

    monkeypatch.setattr(TSN, "initialize", initialize)
    path = str(videos / "cat" / "0.mp4")
    extract_features("video/motion", [path], tmp_path / "f", TINY, step=1, clip_len=1, dtype="float32")
    backbone = backbone_of("video/motion", *TINY)
    initialize(backbone)
    with torch.no_grad():
        np.testing.assert_allclose(rows(tmp_path / "f")[path], backbone.encoder(decoded(path)), rtol=1e-4, atol=1e-5)


def test_unreadable_videos_are_listed_and_the_run_goes_on(videos, tmp_path):
    (videos / "cat" / "bad.mp4").write_bytes(b"")
    result = run("video/motion", *FRESH, "--step", 1, videos, tmp_path / "none.mp4", tmp_path / "f")
    assert result.return_value == 3
    assert "read 8 of 10 inputs; 2 unreadable" in result.stderr
    assert result.stdout == f"{tmp_path / 'f'}\n"
    lines = [json.loads(line) for line in (tmp_path / "f" / "unreadable.jsonl").read_text().splitlines()]
    reasons = {
        str(videos / "cat" / "bad.mp4"): "empty file (0 bytes)",
        str(tmp_path / "none.mp4"): "no such file or directory",
    }
    assert {line["source"]: line["reason"] for line in lines} == reasons
    again = run("video/motion", *FRESH, "--step", 1, videos, tmp_path / "none.mp4", tmp_path / "f")
    assert again.return_value == 3
    assert len((tmp_path / "f" / "unreadable.jsonl").read_text().splitlines()) == 2


def test_nothing_readable_is_an_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(UnreadableInput, match="and so for every input"):
        extract_features("video/motion", [str(tmp_path / "a.mp4")], tmp_path / "f", FRESH)


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")
def test_of_damaged_videos_the_good_part_is_taken_in_pieces_too(tmp_path, monkeypatch):
    bad = [str(SHARED / "video" / "bad" / name) for name in ("trunc50_faststart.mp4", "corrupt_mid.mp4", "zero.mp4")]
    usable = {bad[0]: 137, bad[1]: 81}  # of 280 frames
    for number, frames in enumerate((256, 64)):
        monkeypatch.setattr(features, "FRAMES", frames)
        coverage = extract_features("video/motion", bad, tmp_path / str(number), TINY, step=2, clip_len=1)
        assert set(coverage.damaged) == set(usable)
        assert set(coverage.unreadable) == {bad[2]}
        lengths = {video.source: video.length for video in FeatureStore(str(tmp_path / str(number))).videos}
        assert lengths == {path: -(-count // 2) for path, count in usable.items()}


def test_a_video_that_is_cut_short_while_it_is_read_keeps_its_good_part():
    stream = FeatureStream(None, ["a", "b"], room=4, batch_size=2, ahead=1)
    parts = [
        (Piece(0, "a", 0), Part(torch.zeros(4, 1), 10, None)),
        (Piece(0, "a", 4), Part(torch.ones(2, 1), 6, "damaged")),  # another worker saw it
        (Piece(0, "a", 8), Part(torch.ones(2, 1), 10, None)),
        (Piece(1, "b", 0), Part(torch.zeros(1, 1), 1, None)),
    ]
    stream._parts = lambda: iter(parts)
    for loaded in stream.batches():
        stream.add(loaded.indices, np.stack([sample["clip"].numpy() for sample in loaded.samples]))
    finished = dict(stream.finished())
    assert np.stack(finished["a"].rows).ravel().tolist() == [0, 0, 0, 0, 1, 1]
    assert (finished["a"].damage, len(finished["b"].rows)) == ("damaged", 1)


class Crashes:
    """Kills its process at one of the videos."""

    def __init__(self, reader):
        self.reader = reader

    def __call__(self, pieces):
        if any(piece.path.endswith("3.mp4") for piece in pieces):
            os.kill(os.getpid(), signal.SIGKILL)
        return self.reader(pieces)


def test_a_video_that_crashes_its_reader_costs_no_other(videos, tmp_path, monkeypatch):
    reader = features.ClipReader
    monkeypatch.setattr(features, "ClipReader", lambda *options: Crashes(reader(*options)))
    options = [*FRESH, "eval.workers=1"]
    coverage = extract_features("video/motion", [str(videos)], tmp_path / "f", options, step=1)
    assert list(coverage.unreadable) == [str(videos / "dog" / "3.mp4")]
    assert "SIGKILL" in coverage.unreadable[str(videos / "dog" / "3.mp4")]
    assert len(rows(tmp_path / "f")) == 7


def test_more_videos_are_added_and_those_there_are_not_made_again(videos, tmp_path):
    first, second = sorted(videos.iterdir())
    options = {"step": 1, "overrides": FRESH}
    extract_features("video/motion", [str(first)], tmp_path / "f", **options)
    before = (tmp_path / "f" / "features.npy").read_bytes()[128:]
    extract_features("video/motion", [str(first), str(second)], tmp_path / "f", **options)
    assert (tmp_path / "f" / "features.npy").read_bytes()[128:].startswith(before)
    assert list(rows(tmp_path / "f")) == sorted(map(str, videos.rglob("*.mp4")))


@pytest.mark.parametrize(
    "change", [{"step": 2}, {"modality": "rgb"}, {"clip_len": 4}, {"overrides": [*FRESH, "train.seed=1"]}]
)
def test_other_settings_or_weights_are_refused(change, videos, tmp_path):
    options = {"step": 1, "overrides": FRESH}
    extract_features("video/motion", [str(videos)], tmp_path / "f", **options)
    with pytest.raises(RunFolderError, match="made otherwise"):
        extract_features("video/motion", [str(videos)], tmp_path / "f", **(options | change))


def test_what_cannot_give_features_is_refused(videos, tmp_path):
    with pytest.raises(WeightsError, match=r"add weights=FILE, or weights=fresh"):
        extract_features("video/motion", [str(videos)], tmp_path / "f")
    with pytest.raises(ConfigError, match="features are made of video files"):
        extract_features("video/nextvlad", [str(videos)], tmp_path / "f", FRESH)
    with pytest.raises(UserError, match="step must be above 0"):
        extract_features("video/motion", [str(videos)], tmp_path / "f", FRESH, step=0)
    with pytest.raises(UserError, match="clip_len must be above 0"):
        extract_features("video/motion", [str(videos)], tmp_path / "f", FRESH, clip_len=0)
    with pytest.raises(UserError, match="cannot be called 'length'"):
        extract_features("video/motion", [str(videos)], tmp_path / "f", FRESH, modality="length")
    assert "name at least one INPUT" in str(run("video/motion", "weights=fresh", tmp_path / "f").exception)
    both = run("video/motion", "--step", 1, "--every", 1, videos, tmp_path / "f")
    assert "either --every or --step" in str(both.exception)
    assert not (tmp_path / "f").exists()


SERVER = """
import os, sys
from tag_core.cli.main import main
from tag_core.config import resolve
from tag_plugins_video import feature_writer, features

feature_writer.COMMIT_SECONDS = 0.02
resolve("video/motion", needs=())
for line in sys.stdin:
    pid = os.fork()
    if not pid:
        os.dup2(2, 1)
        os._exit(main(sys.argv[1:]))
    print(pid, flush=True)
    print(os.waitpid(pid, 0)[1], flush=True)
"""
"""Runs the command again and again, without the time that importing torch takes."""


def test_kills_at_any_instant_leave_every_video_exactly_once(videos, tmp_path):
    for number in range(100):
        path = videos / "cat" / f"copy-{number:02d}.mp4"
        path.write_bytes((videos / "dog" / f"{1 + number % 4 * 2}.mp4").read_bytes())
    (videos / "dog" / "bad.mp4").write_bytes(b"")
    out, index = tmp_path / "f", tmp_path / "f" / "index.jsonl"
    options = [*FRESH, "eval.workers=1", "eval.batch_size=3", "--step", "1", "--dtype", "float32"]
    command = [sys.executable, "-c", SERVER, "features", "video/motion", *options, str(videos), str(out)]
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
    instants, kills, status = random.Random(0), 0, -1
    while status < 0 or os.WIFSIGNALED(status):
        server.stdin.write("again\n")
        pid, before = int(server.stdout.readline()), index.stat().st_size if index.exists() else 0
        if kills < 6:
            while not index.exists() or index.stat().st_size == before:
                time.sleep(0.002)
            time.sleep(instants.uniform(0, 0.05))
            os.kill(pid, signal.SIGKILL)
            kills += 1
        status = int(server.stdout.readline())
    server.stdin.close()
    server.wait()
    assert os.waitstatus_to_exitcode(status) == 3
    assert kills == 6
    found = rows(out)
    inputs = sorted(map(str, videos.rglob("*.mp4")))
    assert list(found) == [path for path in inputs if not path.endswith("bad.mp4")]
    assert len((out / "unreadable.jsonl").read_text().splitlines()) == 1
    extract_features("video/motion", [str(videos)], tmp_path / "g", FRESH, step=1, dtype="float32")
    for path, values in rows(tmp_path / "g").items():
        np.testing.assert_allclose(found[path], values, rtol=1e-4, atol=1e-5)
