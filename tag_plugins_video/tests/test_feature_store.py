"""The feature store by itself: written, read, resumed, damaged."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag_core.errors import RunFolderError, TagError, UnreadableInput, UserError
from tag_plugins_video.datasets.features import VideoFeatures
from tag_plugins_video.datasets.youtube8m import YouTube8M
from tag_plugins_video.feature_store import FeatureStore
from tag_plugins_video.feature_writer import FeatureWriter

SETTINGS = {"step": 1, "dtype": "float16", "modality": "frames", "fingerprint": "abc"}
ROWS = np.random.default_rng(0).random((9, 4)).astype(np.float32)


def write(folder, finish=True, **changes):
    """Three videos of 2, 3 and 4 positions, one that cannot be read."""
    with FeatureWriter(folder, SETTINGS | changes) as writer:
        writer.add("v/cat/a.mp4", ROWS[:2], "cat", None)
        writer.refuse("v/cat/b.mp4", "empty file")
        writer.add("v/dog/c.mp4", ROWS[2:5], "dog", "cut off")
        writer.add("d.mp4", ROWS[5:], None, None)
        if finish:
            writer.finish()
    return folder


def test_a_store_gives_back_what_was_written(tmp_path):
    store = FeatureStore(str(write(tmp_path / "s")))
    told = [(v.source, v.offset, v.length, v.label, v.damage) for v in store.videos]
    assert told == [
        ("v/cat/a.mp4", 0, 2, "cat", None),
        ("v/dog/c.mp4", 2, 3, "dog", "cut off"),
        ("d.mp4", 5, 4, None, None),
    ]
    assert (store.modality, store.dim, store.dtype) == ("frames", 4, "float16")
    for copy in (store, pickle.loads(pickle.dumps(store))):
        np.testing.assert_array_equal(copy.read(copy.videos[1]), ROWS[2:5].astype(np.float16))
    lines = (tmp_path / "s" / "unreadable.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"source": "v/cat/b.mp4", "reason": "empty file"}]


def test_the_matrix_is_one_npy_file_that_numpy_maps(tmp_path):
    write(tmp_path / "s", dtype="float32")
    matrix = np.load(tmp_path / "s" / "features.npy", mmap_mode="r")
    assert isinstance(matrix, np.memmap)
    np.testing.assert_array_equal(matrix, ROWS)


def test_videos_are_added_to_a_finished_store_and_keep_their_places(tmp_path):
    write(tmp_path / "s")
    with FeatureWriter(tmp_path / "s", SETTINGS) as writer:
        assert writer.done == {"v/cat/a.mp4": None, "v/dog/c.mp4": "cut off", "d.mp4": None}
        assert writer.unreadable == {"v/cat/b.mp4": "empty file"}
        writer.add("e.mp4", ROWS[:1], None, None)
        writer.finish()
    store = FeatureStore(str(tmp_path / "s"))
    assert [video.source for video in store.videos] == ["v/cat/a.mp4", "v/dog/c.mp4", "d.mp4", "e.mp4"]
    np.testing.assert_array_equal(store.features, np.concatenate([ROWS, ROWS[:1]]).astype(np.float16))


def test_an_unfinished_store_is_not_read(tmp_path):
    write(tmp_path / "s", finish=False)
    with pytest.raises(UnreadableInput, match="unfinished; give the same 'tag-run features' command again"):
        FeatureStore(str(tmp_path / "s"))


@pytest.mark.parametrize("kept", range(0, 100, 9))
def test_what_a_kill_leaves_behind_the_last_whole_line_is_written_over(kept, tmp_path):
    folder = write(tmp_path / "s", finish=False)
    index = (folder / "index.jsonl").read_bytes()
    (folder / "index.jsonl").write_bytes(index[:kept])  # the matrix has more rows than it counts
    with FeatureWriter(folder, SETTINGS) as writer:
        done = list(writer.done)
        assert done == ["v/cat/a.mp4", "v/dog/c.mp4"][: index[:kept].count(b"\n")]
        writer.add("new.mp4", ROWS[:3], None, None)
        writer.finish()
    store = FeatureStore(str(folder))
    assert [video.source for video in store.videos] == [*done, "new.mp4"]
    assert (folder / "features.npy").stat().st_size == 128 + len(store.features) * 4 * 2
    np.testing.assert_array_equal(store.read(store.videos[-1]), ROWS[:3].astype(np.float16))


def test_a_kill_after_the_last_rows_were_written_and_not_counted_leaves_a_sound_store(tmp_path):
    folder = write(tmp_path / "s", finish=False)
    lines = (folder / "index.jsonl").read_text().splitlines(keepends=True)
    (folder / "index.jsonl").write_text("".join(lines[:2]))
    with FeatureWriter(folder, SETTINGS) as writer:
        writer.refuse("d.mp4", "gone")
        writer.finish()
    assert len(FeatureStore(str(folder)).features) == 5


def test_a_second_writer_is_refused(tmp_path):
    code = f"""
import sys
from pathlib import Path
from tag_plugins_video.feature_writer import FeatureWriter
try:
    FeatureWriter(Path(sys.argv[1]), {SETTINGS!r})
except Exception as error:
    print(error)
"""
    with FeatureWriter(tmp_path / "s", SETTINGS):
        command = [sys.executable, "-c", code, str(tmp_path / "s")]
        assert "another process is writing" in subprocess.run(command, capture_output=True, text=True).stdout
    assert not subprocess.run(command, capture_output=True, text=True).stdout


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"step": 2}, "step 1, not 2"),
        ({"dtype": "float32"}, "dtype float16, not float32"),
        ({"fingerprint": "xyz"}, "another recipe or other weights"),
    ],
)
def test_features_made_otherwise_are_refused(changes, told, tmp_path):
    write(tmp_path / "s")
    with pytest.raises(RunFolderError, match=told):
        FeatureWriter(tmp_path / "s", SETTINGS | changes)
    assert len(FeatureStore(str(tmp_path / "s")).videos) == 3


def test_folders_of_something_else_are_refused(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(RunFolderError, match="something else"):
        FeatureWriter(tmp_path, SETTINGS)
    with pytest.raises(RunFolderError, match="cannot be written"):
        FeatureWriter(tmp_path / "notes.txt", SETTINGS)


def test_a_matrix_that_lacks_rows_is_not_gone_on_with(tmp_path):
    write(tmp_path / "s")
    with open(tmp_path / "s" / "features.npy", "r+b") as file:
        file.truncate(130)
    with pytest.raises(RunFolderError, match="lacks rows"):
        FeatureWriter(tmp_path / "s", SETTINGS)


def test_numbers_that_float16_cannot_hold_are_refused(tmp_path):
    with FeatureWriter(tmp_path / "s", SETTINGS) as writer:
        with pytest.raises(UserError, match="take --dtype float32"):
            writer.add("a.mp4", np.full((1, 4), 1e6, np.float32), None, None)
        with pytest.raises(UserError, match="as the model gives them"):
            writer.add("a.mp4", np.full((1, 4), np.nan, np.float32), None, None)
        writer.add("a.mp4", ROWS[:1], None, None)
        writer.finish()
    assert len(FeatureStore(str(tmp_path / "s")).features) == 1


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_bytes_in_its_files_give_samples_or_tag_errors(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp() / "fuzzed-store"
    if not folder.exists():
        write(folder)
        (folder / ".whole").mkdir()
        for path in folder.glob("[fiu]*"):
            (folder / ".whole" / path.name).write_bytes(path.read_bytes())
    for path in (folder / ".whole").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    path = folder / data.draw(st.sampled_from(["features.json", "features.npy", "index.jsonl"]))
    content = bytearray(path.read_bytes())
    how = data.draw(st.sampled_from(["change", "cut", "replace", "number"]))
    if how == "change":
        for _ in range(data.draw(st.integers(1, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    elif how == "cut":
        del content[data.draw(st.integers(0, len(content))) :]
    elif how == "replace":
        content = data.draw(st.binary(max_size=200) | st.sampled_from([b"[]", b"{}", b"[" * 100000, b"null"]))
    else:
        digits = [at for at, byte in enumerate(content) if 48 <= byte <= 57]
        at = data.draw(st.sampled_from(digits or [0]))
        content[at : at + 1] = data.draw(st.sampled_from([b"-1", b"1e999", b"9" * 30, b'"x"', b"[1]", b"true"]))
    path.write_bytes(content)
    for labelled in (True, False):
        for kind in (VideoFeatures, YouTube8M):
            try:
                dataset = kind(str(folder), labelled=labelled, classes=["cat", "dog"])
                for index in range(len(dataset)):
                    try:
                        sample = dataset[index]
                        assert sample["source"] == dataset.key(index)
                    except UnreadableInput as error:
                        assert error.source == dataset.key(index)  # noqa: PT017
            except TagError:
                pass
    try:
        with FeatureWriter(folder, SETTINGS):
            pass
    except TagError:
        pass
