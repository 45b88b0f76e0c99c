"""Videos that cannot be read, or only in part: every one is recorded, the run goes on, the exit code is 3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from tag_core.cli.main import main
from tag_core.config import resolve
from tag_core.records import Record, read_records

BAD = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "video" / "bad"

RECIPE = """
extends = "video/motion"
[task.backbone]
width = 4
[data.train]
name = "video/list"
transforms = [{ name = "video/resize", size = [32, 32] }]
[train]
epochs = 1
batch_size = 4
workers = 1
[eval]
workers = 1
"""


def encode(
    path: Path,
    count: int = 12,
    size: tuple[int, int] = (48, 64),
    codec: str = "libx264",
    pts: Sequence[int] | None = None,
    rotation: int = 0,
    faststart: bool = False,
) -> Path:
    """A video of a moving grey ramp; ``size`` is (height, width)."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as container:
        stream: Any = container.add_stream(codec, rate=25, options={"g": "4"} if codec == "libx264" else {})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if codec == "libx264" else "yuvj444p"
        if rotation:
            stream.set_display_rotation(rotation)
        ramp = np.add.outer(np.arange(size[0]), np.arange(size[1]))
        for number in range(count):
            picture = np.repeat(((ramp + 5 * number) % 255).astype(np.uint8)[..., None], 3, axis=2)
            frame = av.VideoFrame.from_ndarray(picture)
            if pts is not None:
                frame.pts = pts[number]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def sound_only(path: Path) -> None:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), "fltp", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def cut(path: Path, faststart: bool) -> None:
    data = encode(path, count=40, faststart=faststart).read_bytes()
    path.write_bytes(data[: len(data) * 3 // 4])


def without_duration(path: Path) -> None:
    data = bytearray(encode(path).read_bytes())
    for box, at in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
        start = data.index(box) + at
        data[start : start + 4] = bytes(4)
    path.write_bytes(data)


def first_frame_zeroed(path: Path) -> None:
    encode(path)
    with av.open(str(path)) as container:
        packet = next(container.demux(video=0))
        at, size = packet.pos or 0, packet.size
    data = bytearray(path.read_bytes())
    data[at : at + size] = bytes(size)
    path.write_bytes(data)


READABLE: dict[str, Callable[[Path], object]] = {
    "one frame": lambda path: encode(path, count=1),
    "zero duration": without_duration,
    "1x1": lambda path: encode(path.with_suffix(".avi"), size=(1, 1), codec="mjpeg").rename(path),
    "17x31": lambda path: encode(path.with_suffix(".avi"), size=(31, 17), codec="mjpeg").rename(path),
    "variable rate": lambda path: encode(path, count=8, pts=[0, 1, 2, 10, 11, 30, 31, 90]),
    "rotated": lambda path: encode(path, rotation=90),
    "sound": encode,
    "sound too": lambda path: encode(path, count=20),
}
IN_PART: dict[str, Callable[[Path], object]] = {"cut off, index first": lambda path: cut(path, faststart=True)}
UNREADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut off, index last": (lambda path: cut(path, faststart=False), "the file is cut off before its index"),
    "empty": (lambda path: path.touch(), "empty file (0 bytes)"),
    "text": (lambda path: path.write_text("not a video\n" * 50), "not a video: a text file"),
    "audio": (sound_only, "no video stream (audio only)"),
    "damaged": (first_frame_zeroed, "the video is damaged: no frame can be decoded"),
    "missing": (lambda path: None, "no such file"),
    "folder": (lambda path: path.mkdir(), "is a folder, with no video in it"),
}
ALL = [*READABLE, *IN_PART, *UNREADABLE]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every file of the tables above, a recipe, weights, and lists of labelled files."""
    place = tmp_path_factory.mktemp("inputs")
    makers = {**READABLE, **IN_PART, **{name: make for name, (make, _) in UNREADABLE.items()}}
    for name, make in makers.items():
        make(place / f"{name}.mp4")
    lines = [f"{place / name}.mp4\t{number % 2}\n" for number, name in enumerate(ALL)]
    (place / "all.txt").write_text("".join(lines))
    (place / "sound.txt").write_text(f"{place}/sound.mp4\t0\n{place}/sound too.mp4\t1\n")
    (place / "recipe.toml").write_text(RECIPE)
    torch.manual_seed(0)
    task = resolve(str(place / "recipe.toml"), needs=()).task.build(classes=["0", "1"])
    torch.save({"model": task.state_dict(), "classes": ["0", "1"]}, place / "weights.pt")
    return place


def common(place: Path) -> list[str]:
    return [f"{place}/recipe.toml", f"weights={place}/weights.pt"]


def check_records(records: list[Record], place: Path) -> None:
    """Each file has its one record: a result, or the reason why there is none."""
    found = {Path(record.source).stem: record for record in records}
    assert list(found) == ALL
    assert len(records) == len(ALL)
    for name, (_, reason) in UNREADABLE.items():
        assert reason in str(found[name].error), name
        assert found[name].scores is None
    for name in (*READABLE, *IN_PART):
        assert found[name].error is None, found[name]
        assert sum(found[name].scores or []) == pytest.approx(1, abs=1e-5)
        assert (found[name].damage is not None) == (name in IN_PART), name
    assert "the file is cut off" in str(found["cut off, index first"].damage)


COVERAGE = f"read {len(READABLE) + 1} of {len(ALL)} inputs, 1 of them damaged (their good part was used); 7 unreadable"


# --- the three commands


def test_prediction_records_every_file_and_goes_on(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    inputs = [f"{place / name}.mp4" for name in ALL]
    assert main(["predict", *common(place), *inputs]) == 3
    out, err = capfd.readouterr()
    check_records([Record.from_dict(json.loads(line)) for line in out.splitlines()], place)
    assert COVERAGE in err


def test_prediction_into_a_folder_records_the_same(place: Path, tmp_path: Path, capfd: Any) -> None:
    inputs = [f"{place / name}.mp4" for name in ALL]
    command = ["predict", *common(place), *inputs, "--out", str(tmp_path / "out"), "eval.shard_size=5"]
    for _ in range(2):  # the second finds everything done, and says the same
        assert main(command) == 3
        assert COVERAGE in capfd.readouterr().err
        check_records(list(read_records(tmp_path / "out" / "predictions.jsonl")), place)


def test_evaluation_scores_what_can_be_read(place: Path, tmp_path: Path, capfd: Any) -> None:
    options = [f"data.test.source={place}/all.txt", "--out", str(tmp_path / "out"), "--json"]
    assert main(["eval", *common(place), *options]) == 3
    out, err = capfd.readouterr()
    assert COVERAGE in err
    assert np.sum(json.loads(out)["tables"]["confusion_matrix"]) == len(READABLE) + 1
    check_records(list(read_records(tmp_path / "out" / "predictions.jsonl")), place)
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert len(metrics["coverage"]["unreadable"]) == len(UNREADABLE)


def test_training_uses_what_can_be_read_and_lists_the_rest(place: Path, tmp_path: Path, capfd: Any) -> None:
    sources = [f"data.train.source={place}/all.txt", f"data.val.source={place}/sound.txt"]
    assert main(["train", f"{place}/recipe.toml", *sources, "train.drop_last=false", "--out", str(tmp_path)]) == 3
    assert f"{len(UNREADABLE)} unreadable" in capfd.readouterr().err
    listed = {Path(record.source).stem: record for record in read_records(tmp_path / "unreadable.jsonl")}
    assert set(listed) == {*UNREADABLE, *IN_PART}
    for name, (_, reason) in UNREADABLE.items():
        assert reason in str(listed[name].error), name
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert rows[-1]["epoch_loss"] > 0


@pytest.mark.parametrize("command", ["predict", "predict --out", "eval", "train"])
def test_strict_stops(place: Path, tmp_path: Path, capfd: Any, command: str) -> None:
    (tmp_path / "list.txt").write_text(f"{place}/sound.mp4 0\n{place}/text.mp4 1\n{place}/empty.mp4 1\n")
    out = ["--out", str(tmp_path / "out")]
    files = [f"{place}/{name}.mp4" for name in ("sound", "text", "empty")]
    one = ["train.batch_size=1", "train.drop_last=false", "eval.batch_size=1"]
    sources = [f"data.train.source={tmp_path}/list.txt", f"data.val.source={place}/sound.txt"]
    arguments = {
        "predict": [*common(place), *files],
        "predict --out": [*common(place), *files, *out],
        "eval": [*common(place), f"data.test.source={tmp_path}/list.txt", *out],
        "train": [f"{place}/recipe.toml", *sources, *out],
    }[command]
    assert main([command.split()[0], *arguments, *one, "--strict"]) == 3
    talk = capfd.readouterr()
    assert f"error: {place}/" in talk.err
    assert ("text.mp4: not a video" in talk.err) != ("empty.mp4: empty file" in talk.err)
    if command == "predict":
        assert [json.loads(line)["source"] for line in talk.out.splitlines()] == files[:1]
    assert not (tmp_path / "out" / "predictions.jsonl").exists()


def test_a_folder_with_nothing_in_it_is_an_input_too(place: Path, tmp_path: Path, capfd: Any) -> None:
    assert main(["predict", *common(place), str(tmp_path), f"{tmp_path}/*.mp4"]) == 3
    records = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert ["is a folder" in records[0]["error"], "no such file" in records[1]["error"]] == [True, True]


def test_a_name_that_is_not_utf8_is_predicted(place: Path, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9 \xe6\xbc\xa2.mp4"))
    path.write_bytes((place / "sound.mp4").read_bytes())
    command = [sys.executable, "-m", "tag_core.cli.main", "predict", *common(place)]
    for encoding in ("utf-8", "ascii"):
        environment = {**os.environ, "PYTHONIOENCODING": encoding}
        done = subprocess.run([*command, path], capture_output=True, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        assert Record.from_dict(json.loads(done.stdout)).labels is not None
    assert main(["predict", *common(place), str(path), "--out", str(tmp_path / "out")]) == 0
    assert next(read_records(tmp_path / "out" / "predictions.jsonl")).source == str(path)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no POSIX permissions")
def test_a_file_that_may_not_be_read_is_recorded(place: Path, tmp_path: Path) -> None:
    for name in ("sound.mp4", "weights.pt", "recipe.toml"):
        (tmp_path / name).write_bytes((place / name).read_bytes())
    (tmp_path / "secret.mp4").write_bytes(b"x")
    (tmp_path / "secret.mp4").chmod(0)
    tmp_path.chmod(0o755)
    # Root may read everything, so it becomes nobody, once all modules are there: nobody may not read those.
    code = (
        "import os, sys\n"
        "from tag_core.cli.main import main\n"
        "command = ['predict', 'recipe.toml', 'weights=weights.pt', 'eval.workers=0', 'sound.mp4']\n"
        "assert main(command) == 0\n"
        "print('---', flush=True)\n"
        "if os.geteuid() == 0: os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "sys.exit(main([*command, 'secret.mp4']))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 3, done.stderr
    sound, secret = (json.loads(line) for line in done.stdout.partition("---\n")[2].splitlines())
    assert "error" not in sound
    assert secret["error"] == "permission denied"
    assert "read 1 of 2 inputs; 1 unreadable (permission denied)" in done.stderr


# --- a decoder that crashes or hangs


WILD = '''
import os, signal, time
from tag_core import Component, hookimpl
from tag_plugins_video.datasets.list_file import VideoList

@hookimpl
def tag_datasets():
    return [Component("list", "wild:WildList", "Videos whose decoder crashes or hangs")]

class WildList(VideoList):
    """As video/list, but for two names."""
    def read(self, item):
        if item.path.endswith("crash.mp4"):
            os.kill(os.getpid(), signal.SIGSEGV)
        if item.path.endswith("hang.mp4"):
            time.sleep(3600)
        return super().read(item)
'''


@pytest.mark.parametrize("command", ["predict", "eval", "train"])
def test_a_decoder_that_crashes_or_hangs_costs_its_file_alone(place: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "wild.py").write_text(WILD)
    names = ["sound 1", "crash", "sound 2", "hang", "sound 3"]
    for name in names:
        (tmp_path / f"{name}.mp4").write_bytes((place / "sound.mp4").read_bytes())
    (tmp_path / "list.txt").write_text("".join(f"{name}.mp4\t{i % 2}\n" for i, name in enumerate(names)))
    options = ["train.timeout=3", "eval.timeout=3", "data.train.name=wild/list", "train.drop_last=false"]
    options += ["--out", str(tmp_path / "out"), "--plugin", str(tmp_path / "wild.py")]
    arguments = {
        "predict": [*common(place), *[str(tmp_path / f"{name}.mp4") for name in names]],
        "eval": [*common(place), f"data.test.source={tmp_path}/list.txt"],
        "train": [
            f"{place}/recipe.toml",
            f"data.train.source={tmp_path}/list.txt",
            f"data.val.source={place}/sound.txt",
        ],
    }[command]
    code = [sys.executable, "-m", "tag_core.cli.main", command]
    done = subprocess.run([*code, *arguments, *options], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 3, done.stderr
    written = tmp_path / "out" / ("unreadable.jsonl" if command == "train" else "predictions.jsonl")
    errors = {Path(record.source).stem: record.error for record in read_records(written) if record.error}
    assert set(errors) == {"crash", "hang"}
    assert "SIGSEGV" in str(errors["crash"])
    assert errors["hang"] == "no answer after 3 s"
    assert "2 unreadable" in done.stderr


# --- real ones


@pytest.mark.skipif(not BAD.is_dir(), reason="shared/data is not here")
def test_the_collection_of_bad_videos(place: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", *common(place), str(BAD)]) == 3
    out, err = capfd.readouterr()
    records = {Path(r["source"]).name: r for r in map(json.loads, out.splitlines())}
    assert sorted(records) == sorted(path.name for path in BAD.iterdir())
    unreadable = {name for name, record in records.items() if "error" in record}
    assert unreadable == {
        f"{name}.mp4" for name in ("audio_only", "first_kf_zeroed", "html", "jpeg_renamed", "trunc50_moovend", "zero")
    }
    damaged = {name for name, record in records.items() if "damage" in record}
    assert {"trunc50_faststart.mp4", "corrupt_mid.mp4"} <= damaged
    assert not {"oneframe.mp4", "opengop.mp4", "vfr.mp4"} & damaged
    assert f"read {len(records) - 6} of {len(records)} inputs, {len(damaged)} of them damaged" in err
