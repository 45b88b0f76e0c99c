"""Both tasks as ONNX, on every kind of backbone: any batch, and what PyTorch gives."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from tag_core.builtin.losses import CrossEntropy
from tag_core.engine.export import export
from tag_plugins_reid.losses.arcface import ArcFace
from tag_plugins_reid.losses.triplet import Triplet
from tag_plugins_reid.models.resnet import ResNet
from tag_plugins_reid.models.small import SmallNet
from tag_plugins_reid.models.timm import Timm
from tag_plugins_reid.tasks.embedding import Embedding
from tag_plugins_reid.tasks.pcb import PCB

onnx = pytest.importorskip("onnx", reason="the extra 'export' of tag-core is not installed")
onnxruntime = pytest.importorskip("onnxruntime")

CLASSES = ["a", "b", "c"]
TASKS = {
    "global": lambda: Embedding(ResNet(18), CrossEntropy(), CLASSES, neck="linear", dim=16),
    "gem": lambda: Embedding(
        Timm("mobilenetv3_small_050"), ArcFace(), CLASSES, "gem-learned", "bnneck", 16, turns=4, views=4
    ),
    "transformer": lambda: Embedding(Timm("vit_tiny_patch16_224", size=(64, 32)), Triplet(), CLASSES, normalize=False),
    "pcb": lambda: PCB(SmallNet(4, 3), CrossEntropy(), CLASSES, parts=3, dim=8, whole=True),
    "pcb-chunks": lambda: PCB(SmallNet(4, 3), ArcFace(), CLASSES, 3, "chunk", dim=8, shared=False, embedding="pooled"),
}


def noise(*shape):
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_as_onnx_takes_any_batch(name, tmp_path):
    torch.manual_seed(0)
    task = TASKS[name]()
    for module in task.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
    with torch.no_grad():
        task.train().predict({"image": noise(8, 3, 64, 32)})  # batch norm's statistics, without which signals die out
    sample = {"image": noise(3, 64, 32), "source": "a.jpg", "damage": None, "label": 1, "identity": "b"}
    found = export(task, sample, tmp_path / "m.onnx", {})
    assert found.inputs == {"image": ["batch", 3, 64, 32]}
    assert found.types["image"] == "uint8"
    batch = {"image": noise(5, 3, 64, 32)}
    with torch.no_grad():
        expected = task.eval().predict(batch)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(expected)
    assert expected["embedding"].std(0).max() > 1e-2 * expected["embedding"].abs().max(), "nothing is compared"
    for values, (key, wanted) in zip(
        session.run(None, {"image": batch["image"].numpy()}), expected.items(), strict=True
    ):
        np.testing.assert_allclose(values, wanted, rtol=0, atol=1e-3 * wanted.abs().max(), err_msg=key)


def test_the_command_exports_embeddings_with_weights_that_lack_the_classifier(tmp_path):
    from tag_core.config import resolve

    small = ["task.backbone.width=4", "task.backbone.depth=2"]
    torch.manual_seed(0)
    task = resolve("reid/small", small, needs=()).task.build(classes=CLASSES)
    state = {name: value for name, value in task.state_dict().items() if not name.startswith("head.")}
    torch.save(state, tmp_path / "weights.pt")
    command = [sys.executable, "-m", "tag_core.cli.main", "export", "reid/small", *small, "output=embedding"]
    command += [f"weights={tmp_path / 'weights.pt'}", "--json", "--out", str(tmp_path / "m.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outputs"] == {"embedding": ["batch", 128]}
    notes = json.loads({each.key: each.value for each in onnx.load(tmp_path / "m.onnx").metadata_props}["tag"])
    assert notes["task"]["mean"] == [0.485, 0.456, 0.406]
