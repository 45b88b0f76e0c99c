import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tag_core.builtin.optimizers import sgd
from tag_core.engine.weights import load_weights, read_weights
from tag_core.errors import UserError
from tag_plugins_video.models.c3d import C3D
from tag_plugins_video.tasks.classification import Classification

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")
LAYERS = ["conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b", "fc6", "fc7"]


def task_of(backbone, num_classes):
    return Classification(backbone, nn.CrossEntropyLoss(), [str(i) for i in range(num_classes)], dropout=0.5).eval()


def lively(task):
    """Biases and weights large enough that every layer shows in the logits."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in task.named_parameters():
        fan_in = max(1, parameter[0].numel())
        std = 0.1 if name.endswith("bias") else (2 / fan_in) ** 0.5
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * std)
    return task


def c3d_pytorch(task):
    """The task's weights in the names of the Sports-1M port."""
    names = {"conv1a": "conv1", "conv2a": "conv2"}
    own = task.state_dict()
    state = {f"{names.get(k, k)}.{p}": own[f"backbone.{k}.{p}"] for k in LAYERS for p in ("weight", "bias")}
    return state | {"fc8.weight": own["head.weight"], "fc8.bias": own["head.bias"]}


def reference(state, x):
    """The port's network layer by layer, from its table in section 4 of the specification."""

    def conv(x, name):
        return F.relu(F.conv3d(x, state[f"{name}.weight"], state[f"{name}.bias"], padding=1))

    x = F.max_pool3d(conv(x, "conv1"), (1, 2, 2))
    x = F.max_pool3d(conv(x, "conv2"), 2)
    x = F.max_pool3d(conv(conv(x, "conv3a"), "conv3b"), 2)
    x = F.max_pool3d(conv(conv(x, "conv4a"), "conv4b"), 2)
    x = F.max_pool3d(conv(conv(x, "conv5a"), "conv5b"), 2, padding=(0, 1, 1))
    x = x.flatten(1)
    for name in ("fc6", "fc7"):
        x = F.relu(F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"]))
    return F.linear(x, state["fc8.weight"], state["fc8.bias"])


@pytest.mark.parametrize(("num_classes", "count"), [(487, 79_991_015), (101, 78_409_573)])
def test_tasks_have_the_published_numbers_of_parameters(num_classes, count):
    """The specification's count with 487 classes; with 101 it gives 78.4 million."""
    with torch.device("meta"):
        task = task_of(C3D(), num_classes)
    assert sum(p.numel() for p in task.parameters()) == count


def test_the_net_for_ucf101_has_its_layers_and_their_parameters():
    with torch.device("meta"):
        task = task_of(C3D("ucf101"), 101)
    channels = [3, 64, 128, 256, 256, 256]
    count = sum(27 * a * b + b for a, b in zip(channels, channels[1:], strict=False))
    count += 256 * 4 * 4 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 101 + 101
    assert sum(p.numel() for p in task.parameters()) == count
    assert [m.out_channels for m in task.modules() if isinstance(m, nn.Conv3d)] == channels[1:]


def test_shapes_between_the_groups_are_the_published_ones():
    model, seen = C3D().eval(), []
    for module in model.modules():
        if isinstance(module, nn.Conv3d | nn.Linear):
            module.register_forward_hook(lambda m, inputs, output: seen.append(list(inputs[0].shape[1:])))
    with torch.no_grad():
        assert model(torch.randn(1, 3, 16, 112, 112)).shape == (1, 4096)
    assert seen == [
        [3, 16, 112, 112],
        [64, 16, 56, 56],
        [128, 8, 28, 28],
        [256, 8, 28, 28],
        [256, 4, 14, 14],
        [512, 4, 14, 14],
        [512, 2, 7, 7],
        [512, 2, 7, 7],
        [8192],
        [4096],
    ]


def test_logits_equal_the_port_written_out_layer_by_layer():
    task = lively(task_of(C3D(width=0.25), 7))
    x = torch.randn(2, 16, 3, 112, 112, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(c3d_pytorch(task), x.transpose(1, 2))
        logits = task.predict({"clip": x})["logits"]
    assert expected.std() > 0.01
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)


def test_the_last_pooling_of_caffe_looks_at_other_places_than_that_of_the_ports():
    row = torch.tensor([1.0, 2, 3, 4, 5, 6, 7])
    maps = row.expand(1, 1, 2, 7, 7)
    pooled = {name: C3D(width=1 / 64, last_pool=name)._pool(maps, 5)[0, 0, 0, 0] for name in ("pad", "ceil")}
    assert pooled["pad"].tolist() == [1, 3, 5, 7]
    assert pooled["ceil"].tolist() == [2, 4, 6, 7]


@pytest.mark.parametrize("last_pool", ["pad", "ceil"])
@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 64, 64), (24, 128, 112), (32, 112, 171)])
def test_other_sizes_give_one_row_a_clip_and_train(shape, last_pool):
    torch.manual_seed(0)
    model = C3D(width=1 / 32, last_pool=last_pool).train()
    features = model(torch.randn(2, 3, *shape))
    features.sum().backward()
    assert features.shape == (2, model.feature_dim)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("shape", [(15, 112, 112), (8, 112, 112), (16, 15, 112), (16, 112, 12)])
def test_clips_that_are_too_small_are_refused(shape):
    frames, height, width = shape
    few = f"C3D needs 16 frames or more, got {frames}; set data.train.clip_len=16"
    with pytest.raises(UserError, match=few if frames < 16 else f"pictures of 16x16 or more, got {height}x{width}"):
        C3D(width=1 / 64)(torch.randn(1, 3, *shape))


def test_a_width_without_channels_is_refused():
    with pytest.raises(ValueError, match="leaves no channels"):
        C3D(width=0.001)


@pytest.mark.parametrize("width", [1 / 16, 0.5])
def test_weights_of_the_port_load_with_nothing_missing_or_unexpected(width, tmp_path):
    task, other = lively(task_of(C3D(width=width), 101)), task_of(C3D(width=width), 101)
    torch.save(c3d_pytorch(task), tmp_path / "c3d.pickle")
    report = load_weights(read_weights(str(tmp_path / "c3d.pickle"), Classification, C3D), other, strict=True)
    assert report.endswith("tensors loaded (layout c3d-pytorch)")
    assert all(torch.equal(value, task.state_dict()[key]) for key, value in other.state_dict().items())


@needs_shared
def test_the_layout_of_mmaction_covers_the_published_keys():
    layouts = json.loads((SHARED / "video" / "model_state_dict_layouts.json").read_text())
    listed = next(keys for title, keys in layouts.items() if title.startswith("mmaction.C3D()"))
    with torch.device("meta"):
        task = task_of(C3D(), 101)
        alone = {key: torch.zeros(shape) for key, shape, _ in listed}
        head = {"cls_head.fc_cls.weight": torch.zeros(101, 4096), "cls_head.fc_cls.bias": torch.zeros(101)}
    own = {key: value.shape for key, value in task.state_dict().items()}
    whole = {f"backbone.{key}": value for key, value in alone.items()} | head
    mapped = {key: value.shape for key, value in C3D.layouts["mmaction2"](whole).items()}
    assert mapped == own
    backbone = {key: value.shape for key, value in C3D.layouts["mmaction2"](alone).items()}
    assert backbone == {key: shape for key, shape in own.items() if key.startswith("backbone.")}


def test_weights_of_mmaction_come_through_unchanged(tmp_path):
    task, other = lively(task_of(C3D(width=1 / 16), 5)), task_of(C3D(width=1 / 16), 5)
    own = task.state_dict()
    names = {
        f"backbone.{k}.{p}": f"backbone.{k}.{'conv.' if 'conv' in k else ''}{p}"
        for k in LAYERS
        for p in ("weight", "bias")
    }
    names |= {f"head.{p}": f"cls_head.fc_cls.{p}" for p in ("weight", "bias")}
    torch.save({"state_dict": {names[key]: value for key, value in own.items()}}, tmp_path / "c3d.pth")
    report = load_weights(read_weights(str(tmp_path / "c3d.pth"), Classification, C3D), other, strict=True)
    assert report.endswith("tensors loaded (layout mmaction2)")
    assert all(torch.equal(value, own[key]) for key, value in other.state_dict().items())


@pytest.mark.parametrize("layout", list(C3D.layouts))
def test_the_layouts_do_not_fit_other_state_dicts(layout):
    with pytest.raises(KeyError):
        C3D.layouts[layout]({"backbone.conv1a.weight": torch.zeros(1), "fc8.weight": torch.zeros(1)})


def test_the_net_for_ucf101_starts_as_published():
    """``c3d_train_ucf101``: Gaussians of .01, .005 and .01; biases 0 in the first and last layer, else 1."""
    torch.manual_seed(0)
    task = task_of(C3D("ucf101"), 101)
    spreads = {"conv1a": 0.01, "conv3a": 0.01, "conv5a": 0.01, "fc6": 0.005, "fc7": 0.005}
    for name, spread in spreads.items():
        layer = task.backbone.get_submodule(name)
        assert float(layer.weight.detach().std()) == pytest.approx(spread, rel=0.05)
        assert torch.equal(layer.bias, torch.full_like(layer.bias, 0.0 if name == "conv1a" else 1.0))
    assert float(task.head.weight.detach().std()) == pytest.approx(0.01, rel=0.05)
    assert not task.head.bias.any()


def test_a_fresh_net_passes_its_input_on_undiminished():
    torch.manual_seed(0)
    with torch.no_grad():
        features = C3D(width=1 / 8).eval()(torch.randn(4, 3, 16, 32, 32))
    assert 0.3 < float(features.square().mean().sqrt()) < 30
    assert float(features.std(0).mean()) > 0.03


@pytest.mark.parametrize("net", ["sports1m", "ucf101"])
def test_the_published_rate_of_biases_can_be_said_by_name(net):
    task = task_of(C3D(net, width=1 / 64), 4)
    biases = {name: 2.0 for name, _ in task.named_parameters() if name.endswith("bias")}
    for group in sgd(task, lr=0.003, weight_decay=0.005, lr_factors=biases).param_groups:
        bias = group["params"][0].ndim == 1
        assert group["lr"] == pytest.approx(0.006 if bias else 0.003)
        assert group["weight_decay"] == (0 if bias else 0.005)
