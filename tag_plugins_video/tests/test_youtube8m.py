"""YouTube-8M's records through the data set: pickles, TFRecord files, and lists of them."""

import gzip
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tfrecord_files import video, write_tfrecord

from tag_core.errors import UnreadableInput, UserError
from tag_core.media.sources import expand_inputs
from tag_plugins_video.datasets.youtube8m import YouTube8M, dequantize
from tag_plugins_video.feature_writer import FeatureWriter

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")


def frames(length, seed=0):
    generator = np.random.default_rng(seed)
    return (
        generator.integers(0, 256, (length, 1024), dtype=np.uint8),
        generator.integers(0, 256, (length, 128), dtype=np.uint8),
    )


def record(name, labels=(1,), length=5, nframes=None):
    rgb, audio = frames(length, seed=length)
    nframes = length if nframes is None else nframes
    return {b"video": name, b"feature": rgb, b"audio": audio, b"label": list(labels), b"nframes": nframes}


def write_pickle(path, records, protocol=2):
    path.write_bytes(pickle.dumps(records, protocol))
    return str(path)


@pytest.fixture
def files(tmp_path):
    """A pickle of two records, a TFRecord file of two, and a list of both."""
    write_pickle(tmp_path / "a.pkl", [record(b"v1", [0, 2]), record(b"v2", [1], length=7, nframes=4)])
    write_tfrecord(tmp_path / "b.tfrecord", [video("v3", [3], *frames(6)), video("v4", [], *frames(2))])
    (tmp_path / "train.list").write_text("a.pkl\nb.tfrecord\n")
    return tmp_path


def test_a_list_of_pickles_and_tfrecord_files_gives_their_records(files):
    data = YouTube8M(str(files / "train.list"), num_classes=4, max_frames=8)
    assert [data.key(i).rpartition("/")[2] for i in range(len(data))] == [
        "a.pkl#v1", "a.pkl#v2", "b.tfrecord#v3", "b.tfrecord#v4",
    ]  # fmt: skip
    samples = [data[i] for i in range(4)]
    assert [sample["length"] for sample in samples] == [5, 4, 6, 2]  # the second says nframes = 4 of 7
    assert [data.label(i) for i in range(4)] == [[0, 2], [1], [3], []]
    assert [sample["label"].tolist() for sample in samples[:2]] == [[1, 0, 1, 0], [0, 1, 0, 0]]
    assert [sample["source"] for sample in samples] == [data.key(i) for i in range(4)]
    assert {tuple(sample["rgb"].shape) for sample in samples} == {(8, 1024)}
    rgb, audio = frames(6)
    np.testing.assert_array_equal(samples[2]["rgb"][:6], dequantize(rgb))
    np.testing.assert_array_equal(samples[2]["audio"][:6], dequantize(audio))
    assert not samples[2]["rgb"][6:].any()


def test_dequantising_gives_the_published_values():
    found = dequantize(np.array([0, 128, 255], np.uint8))
    np.testing.assert_allclose(found, [-1.9921875, 0.0156556, 2.0078125], atol=2e-7)


def test_features_may_stay_bytes(files):
    sample = YouTube8M(str(files / "b.tfrecord"), dequantize=False)[0]
    assert sample["rgb"].dtype == torch.uint8
    np.testing.assert_array_equal(sample["rgb"][:6], frames(6)[0])


def test_eigenvalues_scale_rgb_as_nextvlad_does(files):
    eigenvalues = np.random.default_rng(0).random((2048, 1)).astype(np.float32)
    np.save(files / "e.npy", eigenvalues)
    data = YouTube8M(str(files / "b.tfrecord"), eigenvalues=str(files / "e.npy"))
    x = frames(6)[0] * (4 / 255) + (4 / 512 - 2)
    wanted = (x - 4 / 512) * (np.sqrt(eigenvalues[:1024, 0].astype(float)) + 1e-4)
    np.testing.assert_allclose(data[0]["rgb"][:6], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(data[0]["audio"][:6], dequantize(frames(6)[1]))


@pytest.mark.parametrize("length", [1, 7, 100, 170, 300])
def test_sampled_frames_are_attention_clusters(files, length):
    data = YouTube8M(str(files / "train.list"), num_frames=100)
    wanted = [min(length - 1, int((i + 0.5) * length / 100)) for i in range(100)]
    assert data.choose(length).tolist() == wanted
    random = YouTube8M(str(files / "train.list"), num_frames=100, random=True)
    torch.manual_seed(3)
    found = random.choose(length)
    torch.manual_seed(3)
    draws = torch.rand(100, dtype=torch.float64).tolist()
    assert found.tolist() == [min(length - 1, int((i + u) * length / 100)) for i, u in enumerate(draws)]


def test_sampled_videos_have_all_frames(files):
    sample = YouTube8M(str(files / "b.tfrecord"), num_frames=10)[1]
    assert (sample["length"], sample["rgb"].shape) == (10, (10, 1024))


def test_a_pickled_copy_reads_the_same(files):
    data = YouTube8M(str(files / "train.list"), num_classes=4)
    for copy in (pickle.loads(pickle.dumps(data)), pickle.loads(pickle.dumps(data[0] and data))):
        torch.testing.assert_close(copy[3]["rgb"], data[3]["rgb"], rtol=0, atol=0)
        assert [copy.key(i) for i in range(4)] == [data.key(i) for i in range(4)]


def test_inputs_of_prediction_are_records_and_expand_once(files):
    keys = YouTube8M.expand([str(files / "train.list"), str(files / "*.pkl"), str(files / "none.pkl")])
    names = [key.rpartition("/")[2] for key in keys]
    assert names == ["a.pkl#v1", "a.pkl#v2", "b.tfrecord#v3", "b.tfrecord#v4", "none.pkl"]
    assert YouTube8M.expand(keys) == keys
    again = keys[::-1]
    data = YouTube8M(again, labelled=False)
    assert [data.key(i) for i in range(len(data))] == again
    assert data[3]["source"] == again[3]
    assert "label" not in data[3]
    with pytest.raises(UnreadableInput, match=r"none\.pkl: cannot be opened"):
        data[0]
    with pytest.raises(UnreadableInput, match="no such record"):
        YouTube8M([f"{files}/a.pkl#v9"], labelled=False)[0]


def test_names_of_folders_may_hold_the_sign_of_records(files):
    (files / "c#").mkdir()
    path = write_pickle(files / "c#" / "a.pkl", [record(b"v#1"), record(b"v#1")])
    keys = YouTube8M.expand([path])
    assert keys == [f"{path}#v#1", f"{path}#v#1#2"]
    assert [YouTube8M(keys, labelled=False)[i]["source"] for i in range(2)] == keys


def test_what_cannot_be_read_is_a_sample_that_says_so(tmp_path):
    os.mkdir(tmp_path / "x")
    whole = write_tfrecord(tmp_path / "cut.tfrecord", [video("a", [1], *frames(3)), video("b", [1], *frames(3))])
    os.truncate(whole, os.path.getsize(whole) - 100)
    corrupt = write_tfrecord(tmp_path / "flip.tfrecord", [video("a", [1], *frames(3)), video("b", [1], *frames(3))])
    with open(corrupt, "r+b") as file:
        file.seek(2000)
        file.write(b"????")
    odd = [record(b"ok"), {b"video": b"bare"}, 3, {**record(b"many"), b"audio": frames(2)[1]}, record(b"label", [9])]
    empty = [record(b"none", nframes=0), record(b"ok"), record(b"ok")]
    paths = [whole, corrupt, write_pickle(tmp_path / "odd.pkl", odd + empty), write_pickle(tmp_path / "n.pkl", 7)]
    (tmp_path / "all.list").write_text("\n".join([*paths, "missing.pkl"]))
    data = YouTube8M(str(tmp_path / "all.list"), num_classes=4)
    found = {}
    for index in range(len(data)):
        try:
            found[Path(data.key(index)).name] = data[index]["length"]
        except UnreadableInput as error:
            assert error.source == data.key(index)  # noqa: PT017
            found[Path(data.key(index)).name] = error.reason
    assert found == {
        "cut.tfrecord#a": 3,
        "cut.tfrecord#rest": "cut off within record 1",
        "flip.tfrecord#a": "record 0, byte 12: the data has a wrong checksum",
        "flip.tfrecord#b": 3,
        "odd.pkl#ok": 5,
        "odd.pkl#bare": "record 1 has no arrays 'feature' and 'audio'",
        "odd.pkl#2": "record 2 has no arrays 'feature' and 'audio'",
        "odd.pkl#many": "5 frames of rgb and 2 of audio",
        "odd.pkl#label": "label 9 is not one of the 4 classes",
        "odd.pkl#none": "0 frames of rgb and 0 of audio",
        "odd.pkl#ok#2": 5,
        "odd.pkl#ok#3": 5,
        "n.pkl": "a pickled int, not a list of records",
        "missing.pkl": "cannot be opened: No such file or directory",
    }


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord.gz", "a", "a.pkl"])
def test_files_in_gzip_are_recorded_with_what_to_do(files, name):
    (files / name).write_bytes(gzip.compress((files / ("a.pkl" if "p" in name else "b.tfrecord")).read_bytes()))
    (files / "all.list").write_text(f"{name}\nb.tfrecord\n")
    data = YouTube8M(str(files / "all.list"))
    assert [data.key(i).rpartition("/")[2] for i in range(len(data))] == [name, "b.tfrecord#v3", "b.tfrecord#v4"]
    with pytest.raises(UnreadableInput, match="compressed with gzip, .* unpack it with gunzip"):
        data[0]
    with pytest.raises(UnreadableInput, match="compressed with gzip"):
        YouTube8M(YouTube8M.expand([str(files / name)]), labelled=False)[0]


def test_names_of_classes_come_from_a_map(files):
    (files / "names.txt").write_text("game\ncar\nconcert\n")
    data = YouTube8M(str(files / "a.pkl"), label_map=str(files / "names.txt"))
    assert data.classes == ["game", "car", "concert"]
    assert YouTube8M(str(files / "a.pkl")).classes[3861] == "3861"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_frames": 0}, "must be at least 1"),
        ({"max_frames": 0}, "must be at least 1"),
        ({"random": True}, "set num_frames"),
        ({"dequantize": False, "eigenvalues": "e.npy"}, "set dequantize"),
    ],
)
def test_options_that_make_no_sense_together_are_refused(files, options, problem):
    with pytest.raises(ValueError, match=problem):
        YouTube8M(str(files / "a.pkl"), **options)


def test_a_missing_source_or_scale_is_the_users_to_mend(files):
    for make in (
        lambda: YouTube8M(str(files / "none.list")),
        lambda: YouTube8M(str(files / "a.pkl"), eigenvalues=str(files / "a.pkl")),
    ):
        with pytest.raises(UserError, match=r"none\.list: cannot be read|no \.npy file"):
            make()


def test_a_path_that_cannot_be_one_is_recorded(tmp_path):
    (tmp_path / "list.txt").write_bytes(b"a\0pkl\n")
    records = YouTube8M(str(tmp_path / "list.txt"), num_classes=4)
    with pytest.raises(UnreadableInput, match="null byte"):
        records[0]


def test_stores_of_ones_own_features_are_records_too(files):
    settings = {"dtype": "float16", "modality": "rgb", "fingerprint": "abc"}
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    with FeatureWriter(files / "store", settings) as writer:
        writer.add("v/car/a.mp4", rows, "car", "cut off")
        writer.add("v/2/b.mp4", rows[:1], "2", None)
        writer.add("v/boat/c.mp4", rows[:2], "boat", None)
        writer.finish()
    (files / "both.list").write_text("a.pkl\nstore\n")
    data = YouTube8M(str(files / "both.list"), classes=["game", "car", "2"], max_frames=4)
    names = [data.key(i).partition("#")[2] for i in range(len(data))]
    assert names == ["v1", "v2", "v/car/a.mp4", "v/2/b.mp4", "v/boat/c.mp4"]
    sample = data[2]
    np.testing.assert_array_equal(sample["rgb"], np.concatenate([rows, np.zeros((1, 4))]))
    assert (sample["length"], sample["damage"], sample["label"].tolist()) == (3, "cut off", [0, 1, 0])
    assert "audio" not in sample
    assert [data.label(i) for i in (2, 3, 4)] == [[1], [2], [-1]]
    with pytest.raises(UnreadableInput, match="label boat is not one of the 3 classes"):
        data[4]


def test_videos_of_stores_are_inputs_of_prediction(files):
    with FeatureWriter(files / "store", {"dtype": "float16", "modality": "rgb", "fingerprint": "abc"}) as writer:
        for name in "ab":
            writer.add(f"v/{name}.mp4", np.ones((2, 4)), None, None)
        writer.finish()
    keys = YouTube8M.expand([str(files / "store")])
    assert keys == [f"{files}/store#v/a.mp4", f"{files}/store#v/b.mp4"]
    assert YouTube8M.expand(keys) == keys
    assert YouTube8M(keys[::-1], labelled=False)[1]["source"] == keys[0]
    with pytest.raises(UnreadableInput, match="no such record"):
        YouTube8M([f"{files}/store#gone"], labelled=False)[0]


@needs_shared
def test_the_real_record_has_its_published_shape(tmp_path):
    path = SHARED / "yt8m" / "yt8m_frame_example.pkl"
    shutil.copy(path, tmp_path / "record")  # any name will do
    for source in (str(path), str(tmp_path / "record")):
        data = YouTube8M(source, eigenvalues=str(SHARED / "yt8m" / "eigenvals.npy"))
        sample = data[0]
        assert (len(data), data.key(0)) == (1, f"{source}#SjJ3")
        assert (sample["rgb"].shape, sample["audio"].shape, sample["length"]) == ((300, 1024), (300, 128), 170)
        assert sample["label"].nonzero().tolist() == [[11]]
        eigenvalues = np.load(SHARED / "yt8m" / "eigenvals.npy")
        assert (eigenvalues.dtype, eigenvalues.shape) == (np.float32, (2048, 1))
        assert float(eigenvalues.min()) == pytest.approx(0.0014768, abs=5e-8)
        assert data.scale[:3] - 1e-4 == pytest.approx(np.sqrt([14.738506, 8.340394, 7.0331655]), rel=1e-6)
    assert expand_inputs([str(path)], frozenset()) == [str(path)]
