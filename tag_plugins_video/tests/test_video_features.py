"""The data set video/features: stores of 'tag-run features' as training and prediction data."""

import numpy as np
import pytest
import torch

import tag_core
from tag_core.errors import UnreadableInput, UserError
from tag_plugins_video.datasets.features import VideoFeatures
from tag_plugins_video.feature_writer import FeatureWriter

SETTINGS = {"step": 1, "dtype": "float16", "modality": "frames", "fingerprint": "abc"}
LENGTHS = {"v/cat/a.mp4": 2, "v/dog/b.mp4": 5, "v/cat/c.mp4": 3}


def rows_of(source):
    seed = sum(map(ord, source))
    return np.random.default_rng(seed).random((LENGTHS.get(source, 4), 6)).astype(np.float16)


def write(folder, sources=tuple(LENGTHS), labelled=True, **changes):
    with FeatureWriter(folder, SETTINGS | changes) as writer:
        for source in sources:
            label = source.split("/")[1] if labelled else None
            writer.add(source, rows_of(source), label, "cut off" if source.endswith("c.mp4") else None)
        writer.finish()
    return str(folder)


@pytest.fixture
def store(tmp_path):
    return write(tmp_path / "train")


def test_samples_are_the_rows_of_each_video_padded_to_the_longest(store):
    data = VideoFeatures(store)
    assert data.classes == ["cat", "dog"]
    assert [data.label(i) for i in range(3)] == [0, 1, 0]
    for index, (source, length) in enumerate(LENGTHS.items()):
        sample = data[index]
        assert (sample["source"], data.key(index), sample["length"]) == (source, source, length)
        assert (sample["frames"].shape, sample["frames"].dtype) == ((5, 6), torch.float32)
        np.testing.assert_array_equal(sample["frames"][:length], rows_of(source).astype(np.float32))
        assert not sample["frames"][length:].any()
        assert sample["label"] == data.label(index)
    assert [data[i]["damage"] for i in range(3)] == [None, None, "cut off"]


def test_a_sample_does_not_keep_the_matrix_mapped(store):
    sample = VideoFeatures(store)[0]["frames"]
    assert sample.untyped_storage().nbytes() == 5 * 6 * 4


def test_sequences_are_cut_or_sampled(store):
    assert VideoFeatures(store, max_frames=3)[1]["length"] == 3
    sampled = VideoFeatures(store, num_frames=2)[1]
    np.testing.assert_array_equal(sampled["frames"], rows_of("v/dog/b.mp4")[[1, 3]].astype(np.float32))
    torch.manual_seed(0)
    drawn = {tuple(VideoFeatures(store, num_frames=2, random=True)[1]["frames"][:, 0].tolist()) for _ in range(20)}
    assert len(drawn) > 1
    with pytest.raises(ValueError, match="set num_frames"):
        VideoFeatures(store, random=True)


def test_several_stores_share_their_classes(store, tmp_path):
    more = write(tmp_path / "more", ["v/ant/e.mp4", "v/cat/a.mp4"])
    data = VideoFeatures([store, more])
    assert data.classes == ["ant", "cat", "dog"]
    assert [data.key(i) for i in (3, 4)] == ["v/ant/e.mp4", "v/cat/a.mp4#2"]
    assert [data.label(i) for i in range(5)] == [1, 2, 1, 0, 1]


def test_classes_may_be_given(store, tmp_path):
    (tmp_path / "names.txt").write_text("dog\nbird\ncat\n")
    assert [VideoFeatures(store, classes=["dog", "cat"]).label(i) for i in range(3)] == [1, 0, 1]
    assert [VideoFeatures(store, label_map=str(tmp_path / "names.txt")).label(i) for i in range(3)] == [2, 0, 2]
    with pytest.raises(UserError, match="label 'cat' is not one of the 1 classes"):
        VideoFeatures(store, classes=["dog"])


def test_a_list_labels_and_chooses_videos(store, tmp_path):
    (tmp_path / "list.txt").write_text("dog/b.mp4 loud\ncat/c.mp4 quiet\ncat/none.mp4 quiet\n")
    data = VideoFeatures(store, labels=str(tmp_path / "list.txt"), root="v")
    assert data.classes == ["loud", "quiet"]
    assert [data.label(i) for i in range(3)] == [0, 1, 1]
    np.testing.assert_array_equal(data[0]["frames"], rows_of("v/dog/b.mp4").astype(np.float32))
    with pytest.raises(UnreadableInput, match=r"none\.mp4: no features of it in .*train"):
        data[2]


def test_several_labels_are_a_vector(store, tmp_path):
    (tmp_path / "list.txt").write_text("dog/b.mp4 0 2\ncat/c.mp4 1\n")
    data = VideoFeatures(store, labels=str(tmp_path / "list.txt"), root="v", multi_label=True)
    assert [data[i]["label"].tolist() for i in range(2)] == [[1, 0, 1], [0, 1, 0]]
    assert [data.label(i) for i in range(2)] == [[0, 2], [1]]
    assert VideoFeatures(store, multi_label=True)[1]["label"].tolist() == [0, 1]


def test_videos_without_a_class_folder_need_a_list(tmp_path):
    store = write(tmp_path / "flat", labelled=False)
    with pytest.raises(UserError, match="like 3 of 3 videos; give a file of 'path label' lines"):
        VideoFeatures(store)
    assert "label" not in VideoFeatures(store, labelled=False)[0]


def test_what_is_no_store_is_the_users_to_mend(store, tmp_path):
    with pytest.raises(UserError, match=r"no features of 'tag-run features'.*make it with: tag-run features"):
        VideoFeatures(str(tmp_path / "none"))
    other = write(tmp_path / "other", ["v/cat/z.mp4"], fingerprint="xyz")
    with pytest.raises(UserError, match="different models or settings"):
        VideoFeatures([store, other])


def test_another_name_may_be_given_to_the_features(store):
    assert VideoFeatures(store, modality="rgb")[0]["rgb"].shape == (5, 6)


def test_inputs_of_prediction_are_the_videos_of_stores(store, tmp_path):
    keys = VideoFeatures.expand([str(tmp_path / "tr*"), str(tmp_path / "none")])
    assert keys == [*(f"{store}#{source}" for source in LENGTHS), str(tmp_path / "none")]
    assert VideoFeatures.expand(keys) == keys
    data = VideoFeatures([*keys[::-1], f"{store}#v/gone.mp4"], labelled=False)
    assert [data.key(i) for i in range(5)] == [keys[-1], *reversed(LENGTHS), "v/gone.mp4"]
    np.testing.assert_array_equal(data[1]["frames"][:3], rows_of("v/cat/c.mp4").astype(np.float32))
    with pytest.raises(UnreadableInput, match="no features of 'tag-run features'"):
        data[0]
    with pytest.raises(UnreadableInput, match=r"gone\.mp4: no features of it in the store"):
        data[4]
    assert VideoFeatures.expand([f"{store}#a#b.mp4"]) == [f"{store}#a#b.mp4"]


def test_a_sequence_model_trains_on_a_store_and_predicts_another(tmp_path):
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        with FeatureWriter(tmp_path / part, SETTINGS) as writer:
            for number in range(16):
                label = ("cat", "dog")[number % 2]
                frames = generator.normal(number % 2, 0.1, (2 + number % 5, 6))
                writer.add(f"v/{label}/{part}{number}.mp4", frames, label, None)
            writer.finish()
    recipe = {
        "metrics": ["core/top-k"],
        "task": {
            "name": "video/tagging",
            "multi_label": False,
            "backbone": {
                "name": "video/attention-lstm", "modalities": {"frames": 6}, "embedding": 8, "lstm": 8, "hidden": [8, 8]
            },
            "loss": "core/cross-entropy",
        },
        "data": {"holdout": 0.0, "train": {"name": "video/features", "source": str(tmp_path / "train")}},
        "optimizer": {"name": "core/adamw", "lr": 0.02},
        "train": {"epochs": 8, "batch_size": 8, "workers": 0},
        "eval": {"workers": 0},
        "distribution": "core/cpu",
    }  # fmt: skip
    tag_core.train(recipe, out=tmp_path / "run")
    records = list(tag_core.predict(tmp_path / "run", tmp_path / "test", [f"data.test.source={tmp_path / 'test'}"]))
    assert [record.source for record in records] == [f"v/{('cat', 'dog')[i % 2]}/test{i}.mp4" for i in range(16)]
    assert [record.labels[0] for record in records] == ["cat", "dog"] * 8
