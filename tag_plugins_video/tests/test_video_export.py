"""Every backbone as ONNX: any batch, any length, and what PyTorch gives."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tag_core.builtin.losses import BCE, CrossEntropy
from tag_core.engine.export import export
from tag_plugins_video.datasets.flow import FlowFolder
from tag_plugins_video.datasets.folder import VideoFolder
from tag_plugins_video.datasets.youtube8m import YouTube8M
from tag_plugins_video.models.attention_cluster import AttentionCluster
from tag_plugins_video.models.attention_lstm import AttentionLSTM
from tag_plugins_video.models.c3d import C3D
from tag_plugins_video.models.c3d_tiny import C3DTiny
from tag_plugins_video.models.nextvlad import NeXtVLAD
from tag_plugins_video.models.p3d import P3D
from tag_plugins_video.models.s3d import S3D
from tag_plugins_video.models.stnet import StNet
from tag_plugins_video.models.tsn import TSN
from tag_plugins_video.motion import DIRECTIONS, make_motion_data
from tag_plugins_video.tasks.classification import Classification
from tag_plugins_video.tasks.tagging import Tagging
from tag_plugins_video.transforms.crop import CenterCrop

onnx = pytest.importorskip("onnx", reason="the extra 'export' of tag-core is not installed")
onnxruntime = pytest.importorskip("onnxruntime")

CLASSES = ["a", "b", "c"]
MODALITIES = {"rgb": 6, "audio": 3}
CLIPS = {
    "tsn": (lambda: TSN("tiny"), (4, 3, 32, 32), 7),
    "tsn-attention": (lambda: TSN("resnet18", consensus="attention"), (2, 3, 32, 32), 3),
    "s3d": (S3D, (16, 3, 32, 32), 25),
    "p3d": (lambda: P3D(variants="CAB"), (16, 3, 32, 32), 35),
    "p3d-flow": (lambda: P3D(channels=2, shortcut="pad"), (32, 2, 32, 32), 16),
    "c3d": (lambda: C3D(width=1 / 16), (16, 3, 112, 112), 33),
    "c3d-small": (lambda: C3D("ucf101", width=1 / 16, last_pool="ceil"), (16, 3, 128, 128), 40),
    "c3d-tiny": (lambda: C3DTiny(4), (8, 3, 24, 40), 5),
    "stnet": (lambda: StNet(snippet=2), (4, 3, 32, 32), 10),
}
LEAST = {"s3d": 13, "p3d": 16, "p3d-flow": 16, "c3d": 16, "c3d-small": 16, "stnet": 2}
"""Frames that a graph needs: those that the model does, but 13 for S3D's windows of two."""
SEQUENCES = {
    "attention-cluster": lambda: AttentionCluster(MODALITIES, clusters=2, hidden=(8, 5)),
    "attention-lstm": lambda: AttentionLSTM(MODALITIES, embedding=4, lstm=4, hidden=(8, 5)),
    "attention-lstm-plain": lambda: AttentionLSTM(MODALITIES, embedding=4, lstm=4, hidden=(8, 5), peepholes=False),
    "nextvlad": lambda: NeXtVLAD(MODALITIES, clusters=3, groups=3, hidden=8),
}


def noise(*shape):
    """Bytes; where there are two channels, floats, as of optical flow."""
    generator = np.random.default_rng(0)
    if shape[-3:-2] == (2,):
        return torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))
    return torch.from_numpy(generator.integers(0, 256, shape, dtype=np.uint8))


def classifier(backbone):
    """With weights that do not let the signal die out, some by batch norm's statistics once ``settled``."""
    torch.manual_seed(0)
    task = Classification(backbone(), CrossEntropy(), CLASSES)
    for module in task.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
        elif isinstance(module, torch.nn.Conv3d | torch.nn.Linear) and isinstance(task.backbone, C3D):
            torch.nn.init.kaiming_normal_(module.weight)  # its published start is all but constant
            torch.nn.init.zeros_(module.bias)
    torch.nn.init.normal_(task.head.weight)
    return task


def settled(task, batch):
    with torch.no_grad():
        task.train().predict(batch)
    return task.eval()


def assert_same(file, task, batch):
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.numpy() for name, value in batch.items()})
    with torch.no_grad():
        expected = task.predict(batch)
    assert [output.name for output in session.get_outputs()] == list(expected)
    features = expected["embedding"]
    assert features.std(0).max() > 1e-2 * features.abs().max(), "the samples are alike: nothing is compared"
    for value, name in zip(found, expected, strict=True):
        size = expected[name].abs().max()
        np.testing.assert_allclose(value, expected[name], rtol=0, atol=1e-3 * size)


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_model_as_onnx_takes_any_batch_and_length(name, tmp_path):
    backbone, shape, frames = CLIPS[name]
    task = settled(classifier(backbone), {"clip": noise(4, *shape)})
    sample = {"clip": noise(*shape), "source": "a.mp4", "damage": None, "time": (0.0, 1.0), "label": 1}
    found = export(task, sample, tmp_path / "m.onnx", {})
    assert found.inputs == {"clip": ["batch", "time", *shape[1:]]}
    assert found.outputs["embedding"] == ["batch", task.backbone.feature_dim]
    assert found.types["clip"] == ("float32" if name == "p3d-flow" else "uint8")
    assert found.least == {name: {"time": least} for name, least in LEAST.items()}.get(name, {})
    assert_same(tmp_path / "m.onnx", task, {"clip": noise(3, frames, *shape[1:])})


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_model_of_sequences_as_onnx_heeds_lengths(name, tmp_path):
    torch.manual_seed(0)
    task = Tagging(SEQUENCES[name](), BCE(), CLASSES).eval()
    sample = {"rgb": noise(9, 6), "audio": noise(9, 3), "length": 7, "source": "a", "damage": None}
    found = export(task, sample, tmp_path / "m.onnx", {})
    assert found.inputs == {"rgb": ["batch", "time", 6], "audio": ["batch", "time", 3], "length": ["batch"]}
    batch = {"rgb": noise(4, 20, 6), "audio": noise(4, 20, 3), "length": torch.tensor([20, 11, 1, 0])}
    assert_same(tmp_path / "m.onnx", task, batch)


def test_views_are_averaged_in_the_graph_as_in_pytorch(tmp_path):
    task = classifier(lambda: C3DTiny(4)).eval()
    found = export(task, {"clip": noise(3, 8, 3, 32, 32)}, tmp_path / "m.onnx", {})
    assert found.inputs == {"clip": ["batch", "clip_1", "time", 3, 32, 32]}
    assert_same(tmp_path / "m.onnx", task, {"clip": noise(2, 10, 4, 3, 32, 32)})


def test_data_sets_make_up_examples_of_the_shape_of_their_samples():
    options = {"source": [], "labelled": False}
    folder = VideoFolder(**options, sampler="dense", clip_len=6, num_clips=2, transforms=[CenterCrop(64)])
    assert folder.example()["clip"].shape == (2, 6, 3, 64, 64)
    assert VideoFolder(**options, num_segments=5, short_side=48).example()["clip"].shape == (5, 3, 48, 48)
    flow = FlowFolder(**options, clip_len=4, sampler="dense", transforms=[CenterCrop(32)]).example()["clip"]
    assert (flow.shape, flow.dtype) == ((4, 2, 32, 32), torch.float32)
    stored = YouTube8M(**options, max_frames=12, dequantize=False).example()
    assert {n: v.shape for n, v in stored.items() if n in ("rgb", "audio")} == {"rgb": (12, 1024), "audio": (12, 128)}
    assert (stored["rgb"].dtype, stored["length"]) == (torch.uint8, 12)
    assert YouTube8M(**options, num_frames=5).example()["rgb"].dtype == torch.float32


@pytest.fixture(scope="module")
def motion(tmp_path_factory):
    """A clip, and weights of the recipe video/motion."""
    from tag_core.config import resolve

    folder = tmp_path_factory.mktemp("motion")
    list(make_motion_data(folder / "data", {"test": 8}))
    torch.manual_seed(0)
    task = resolve("video/motion", needs=()).task.build(classes=list(DIRECTIONS))
    torch.nn.init.normal_(task.head.weight)
    torch.save({"model": task.state_dict(), "classes": list(DIRECTIONS)}, folder / "weights.pt")
    return sorted((folder / "data").rglob("*.mp4"))[0], folder / "weights.pt"


def tag_run(*arguments):
    command = [sys.executable, "-m", "tag_core.cli.main", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("file_format", ["onnx", "torch"])
def test_the_command_exports_a_recipe_that_predicts_as_tag_does(file_format, motion, tmp_path):
    from tag_core import predict

    clip, weights = motion
    file = tmp_path / "model"
    told = tag_run("export", "video/motion", f"weights={weights}", clip, "--out", file, "--format", file_format)
    assert told.splitlines()[0].split(maxsplit=3) == ["input", "clip", "uint8", "[batch, time, 3, 32, 32]"]
    frames = VideoFolder([str(clip)], labelled=False, num_segments=8, short_side=32)[0]["clip"].unsqueeze(0)
    if file_format == "onnx":
        scores = onnxruntime.InferenceSession(file).run(["scores"], {"clip": frames.numpy()})[0][0]
        notes = json.loads({each.key: each.value for each in onnx.load(file).metadata_props}["tag"])
    else:
        files = {"tag.json": ""}
        scores = torch.export.load(file, extra_files=files).module()({"clip": frames})["scores"][0].detach().numpy()
        notes = json.loads(files["tag.json"])
    (record,) = predict("video/motion", clip, [f"weights={weights}", "task.top_k=8"])
    assert dict(zip(notes["classes"], scores.tolist(), strict=True)) == pytest.approx(
        dict(zip(record.labels, record.scores, strict=True)), abs=1e-4
    )
    assert notes["preparation"]["num_segments"] == 8
    assert notes["task"]["mean"] == [0.1, 0.1, 0.1]
    assert "uint8 is scaled to [0, 1] and normalised" in notes["reads"].replace("\n", " ")


def test_the_command_exports_embeddings_alone_without_a_file(motion, tmp_path):
    told = tag_run(
        "export", "video/motion", f"weights={motion[1]}", "output=embedding", "--json", "--out", tmp_path / "m.onnx"
    )
    assert json.loads(told)["outputs"] == {"embedding": ["batch", 48]}


def test_a_graph_in_the_place_of_weights_scores_and_predicts_as_pytorch(motion, tmp_path):
    from tag_core import evaluate, export, predict

    clip, weights = motion
    data = [f"data.test.source={clip.parents[1]}", "eval.workers=0", "distribution=core/cpu", "task.top_k=8"]
    export("video/motion", overrides=[f"weights={weights}", *data], out=tmp_path / "m.onnx")
    given = {"torch": f"weights={weights}", "graph": f"weights={tmp_path / 'm.onnx'}"}
    found = {name: evaluate("video/motion", [each, *data], out=tmp_path / name) for name, each in given.items()}
    assert found["torch"].scores.pop("val_loss") > 0
    assert found["graph"].scores == pytest.approx(found["torch"].scores)
    assert found["graph"].tables == found["torch"].tables
    clips = sorted(clip.parents[1].rglob("*.mp4"))
    records = {name: list(predict("video/motion", clips, [each, *data])) for name, each in given.items()}
    assert len(records["torch"]) == 8
    for mine, theirs in zip(records["graph"], records["torch"], strict=True):
        assert mine.scores == pytest.approx(theirs.scores, abs=1e-5)
        assert (mine.source, mine.labels, mine.time) == (theirs.source, theirs.labels, theirs.time)
