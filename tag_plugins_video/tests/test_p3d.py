import json
import pickle
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tag_core.builtin.optimizers import sgd
from tag_core.engine.weights import load_weights, read_weights
from tag_core.errors import UserError
from tag_plugins_video.models.p3d import P3D
from tag_plugins_video.tasks.classification import Classification

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not here")


def task_of(backbone, num_classes=400):
    return Classification(backbone, nn.CrossEntropyLoss(), [str(i) for i in range(num_classes)]).eval()


def published(name):
    """Random tensors in the published layout: names and shapes of its state dict."""
    layouts = json.loads((SHARED / "video" / "model_state_dict_layouts.json").read_text())
    listed = next(keys for title, keys in layouts.items() if title.startswith(f"qijiezhao.{name}("))
    generator = torch.Generator().manual_seed(0)
    state = {}
    for key, shape, _ in listed:
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif len(shape) > 1:
            state[key] = torch.randn(shape, generator=generator) * (2 / max(1, torch.Size(shape[1:]).numel())) ** 0.5
        else:
            state[key] = 0.5 + torch.rand(shape, generator=generator)
    return state


def reference(state, x, blocks, cycle="ABC"):
    """The network in the published names, from section 2.1 of the specification: logits [N, classes]."""

    def norm(x, name):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

    def unit(x, at, conv, bn, **options):
        return F.relu(norm(F.conv3d(x, state[f"{at}.{conv}.weight"], **options), f"{at}.{bn}"))

    def flat(x, name, **options):
        return F.conv2d(x, state[f"{name}.weight"], **options)

    x = F.conv3d(x, state["conv1_custom.weight"], stride=(1, 2, 2), padding=(0, 3, 3))
    x = F.max_pool3d(F.relu(norm(x, "bn1")), (2, 3, 3), 2, (0, 1, 1))
    number = 0
    for stage in (1, 2, 3):
        for block in range(blocks[stage - 1]):
            at, first = f"layer{stage}.{block}", block == 0
            stride = (1, 2, 2) if first and stage > 1 else 1
            y = unit(x, at, "conv1", "bn1", stride=stride)
            s = unit(y, at, "conv2", "bn2", padding=(0, 1, 1))
            letter = cycle[number % len(cycle)]
            if letter == "A":
                y = unit(s, at, "conv3", "bn3", padding=(1, 0, 0))
            elif letter == "B":
                y = s + unit(y, at, "conv3", "bn3", padding=(1, 0, 0))
            else:
                y = s + unit(s, at, "conv3", "bn3", padding=(1, 0, 0))
            y = norm(F.conv3d(y, state[f"{at}.conv4.weight"]), f"{at}.bn4")
            if first:
                x = F.conv3d(x, state[f"{at}.downsample.0.weight"], stride=stride)
                x = norm(x, f"{at}.downsample.1")
            x, number = F.relu(x + y), number + 1
        x = F.max_pool3d(x, (2, 1, 1), (2, 1, 1))
    assert x.shape[2] == 1
    x = x[:, :, 0]
    for block in range(blocks[3]):
        at, stride = f"layer4.{block}", 2 if block == 0 else 1
        y = F.relu(norm(flat(x, f"{at}.conv1", stride=stride), f"{at}.bn1"))
        y = F.relu(norm(flat(y, f"{at}.conv_normal", padding=1), f"{at}.bn_normal"))
        y = norm(flat(y, f"{at}.conv4"), f"{at}.bn4")
        if block == 0:
            x = norm(flat(x, f"{at}.downsample.0", stride=2), f"{at}.downsample.1")
        x = F.relu(x + y)
    x = F.avg_pool2d(x, x.shape[2], 1).view(-1, 2048)
    return F.linear(x, state["fc.weight"], state["fc.bias"])


@pytest.mark.parametrize(
    ("depth", "channels", "count"),
    [(63, 3, 25_745_232), (131, 3, 48_088_400), (199, 3, 66_492_240), (199, 2, 66_489_104)],
)
def test_tasks_for_kinetics_have_the_published_numbers_of_parameters(depth, channels, count):
    with torch.device("meta"):
        task = task_of(P3D(depth, channels=channels))
    assert sum(p.numel() for p in task.parameters()) == count


def test_p3d_199_has_192_spatiotemporal_and_10_plane_convolutions():
    with torch.device("meta"):
        modules = list(P3D(199).modules())
    assert sum(isinstance(m, nn.Conv3d) for m in modules) == 192
    assert sum(isinstance(m, nn.Conv2d) for m in modules) == 10


def test_shapes_between_the_stages_are_the_published_ones():
    model, seen = P3D(63).eval(), {}
    for name in ("stem.2", "stem", "layer1", "layer2", "layer3", "layer4"):
        model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: list(o.shape)}))
    with torch.no_grad():
        assert model(torch.randn(1, 3, 16, 160, 160)).shape == (1, 2048)
    assert seen == {
        "stem.2": [1, 64, 16, 80, 80],
        "stem": [1, 64, 8, 40, 40],
        "layer1": [1, 256, 8, 40, 40],
        "layer2": [1, 512, 4, 20, 20],
        "layer3": [1, 1024, 2, 10, 10],
        "layer4": [1, 2048, 5, 5],
    }


@needs_shared
@pytest.mark.parametrize("name", ["P3D63", "P3D199"])
def test_published_weights_load_with_nothing_missing_or_unexpected(name, tmp_path):
    state = published(name)
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, tmp_path / "p3d.pth.tar")
    task = task_of(P3D(int(name[3:])), len(state["fc.bias"]))
    report = load_weights(read_weights(str(tmp_path / "p3d.pth.tar"), type(task), P3D), task, strict=True)
    assert len(state) == len(task.state_dict())
    assert report == f"{len(state)} tensors loaded (layout pseudo-3d-pytorch)"
    values = sorted(float(v.double().sum()) for v in state.values())
    assert sorted(float(v.double().sum()) for v in task.state_dict().values()) == pytest.approx(values)


@needs_shared
def test_a_saved_task_loads_as_it_was(tmp_path):
    task, other = task_of(P3D(63), 10), task_of(P3D(63), 10)
    torch.save({"model": task.state_dict()}, tmp_path / "best.pt")
    report = load_weights(read_weights(str(tmp_path / "best.pt"), type(task), P3D), other, strict=True)
    assert report.endswith("(layout tag)")
    assert all(torch.equal(value, task.state_dict()[key]) for key, value in other.state_dict().items())


@needs_shared
@pytest.mark.parametrize("cycle", ["ABC", "AB", "A", "B", "C"])
def test_logits_of_published_weights_equal_the_specification_written_out(cycle):
    state = published("P3D63")
    task = task_of(P3D(63, variants=cycle), 10)
    task.load_state_dict(P3D.layouts["pseudo-3d-pytorch"](state))
    x = torch.randn(2, 16, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = reference(state, x.transpose(1, 2), (3, 4, 6, 3), cycle)
        logits = task.predict({"clip": x})["logits"]
    assert expected.std(0).mean() > 1e-3 * expected.abs().mean()
    torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(("side", "kernel"), [(160, 5), (224, 7), (288, 9)])
def test_the_published_pooling_gives_the_same_where_it_has_one_place(side, kernel):
    model, maps = P3D(63).eval(), []
    model.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        features = model(torch.randn(1, 3, 16, side, side))
    pooled = F.avg_pool2d(maps[0], kernel, 1)
    assert pooled.shape == (1, 2048, 1, 1)
    torch.testing.assert_close(features, pooled.view(-1, 2048), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("side", "left"), [(160, 5), (224, 7), (256, 8), (288, 9), (299, 10)])
def test_the_last_maps_have_the_published_sizes(side, left):
    maps = []
    with torch.device("meta"):
        model = P3D(63).eval()
        model.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output))
        model(torch.empty(1, 3, 16, side, side))
    assert maps[0].shape == (1, 2048, left, left)


def test_one_row_a_clip_at_299_pixels_where_the_published_view_makes_four():
    model, maps = P3D(63).eval(), []
    model.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output))
    with torch.no_grad():
        features = model(torch.randn(1, 3, 16, 299, 299))
    assert F.avg_pool2d(maps[0], 9, 1).view(-1, 2048).shape == (4, 2048)
    assert features.shape == (1, 2048)


def test_longer_clips_keep_one_row_each_and_average_their_remaining_times():
    model, maps = P3D(63).eval().double(), []
    model.layer4.register_forward_hook(lambda module, inputs, output: maps.append(output))
    clips = torch.randn(2, 3, 32, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        features = model(clips)
        alone = model(clips[1:])
    assert maps[0].shape[:2] == (4, 2048)
    torch.testing.assert_close(features, maps[0].mean((2, 3)).reshape(2, 2, 2048).mean(1))
    torch.testing.assert_close(features[1:], alone)


def test_shortcuts_without_parameters_are_every_second_place_and_zeros():
    model = P3D(63, shortcut="pad").eval()
    first = model.layer2[0]
    maps = torch.randn(1, 256, 4, 9, 9)
    expected = torch.cat([maps[:, :, :, ::2, ::2], torch.zeros(1, 256, 4, 5, 5)], 1)
    assert torch.equal(first.downsample(maps), expected)
    flat = torch.randn(2, 1024, 5, 5)
    assert torch.equal(model.layer4[0].downsample(flat), F.pad(flat[:, :, ::2, ::2], (0, 0, 0, 0, 0, 1024)))
    assert not list(first.downsample.parameters())
    assert model(torch.randn(1, 3, 16, 40, 40)).shape == (1, 2048)


def test_pictures_in_place_of_flow_are_refused_with_the_remedy():
    with pytest.raises(UserError, match="P3D takes clips of 2 channels, these have 3 .* a backbone with channels = 3"):
        P3D(channels=2)(torch.randn(1, 3, 16, 32, 32))


def test_flow_of_two_channels_goes_in():
    assert P3D(63, channels=2).eval()(torch.randn(1, 2, 17, 40, 56)).shape == (1, 2048)


@pytest.mark.parametrize("frames", [1, 8, 15])
def test_clips_that_are_too_short_are_refused(frames):
    with pytest.raises(UserError, match=f"P3D needs 16 frames or more, got {frames}; set data.train.clip_len=16"):
        P3D(63)(torch.randn(1, 3, frames, 32, 32))


@pytest.mark.parametrize("variants", ["", "ABD", "abc"])
def test_other_cycles_of_blocks_are_refused(variants):
    with pytest.raises(ValueError, match="cycle of the letters A, B and C"):
        P3D(63, variants)


def test_the_layout_does_not_fit_other_state_dicts():
    with pytest.raises(KeyError):
        P3D.layouts["pseudo-3d-pytorch"]({"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)})


def test_convolutions_start_with_the_published_spread():
    torch.manual_seed(0)
    model = P3D(63)
    for conv, fan_out in (
        (model.layer3[0].spatial, 3 * 256),
        (model.layer3[0].temporal, 3 * 256),
        (model.stem[0], 448),
    ):
        assert float(conv.weight.detach().std()) == pytest.approx((2 / fan_out) ** 0.5, rel=0.03)


def test_partial_batch_norm_trains_the_first_and_the_plane_ones():
    model = pickle.loads(pickle.dumps(P3D(63, partial_bn=True))).train()
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    assert [m.training for m in norms] == [True] + [False] * (len(norms) - 1)
    assert [m.weight.requires_grad for m in norms] == [m.training for m in norms]
    assert all(m.training and m.weight.requires_grad for m in model.modules() if isinstance(m, nn.BatchNorm2d))


def test_rates_of_the_published_groups_can_be_said_by_prefix():
    """Section 2.4 for flow: first convolution times 5, biases times 2, no decay of biases and norms."""
    task = task_of(P3D(63, channels=2), 4)
    groups = sgd(task, lr=0.1, weight_decay=5e-4, lr_factors={"backbone.stem.0": 5, "head.bias": 2}).param_groups
    names = {id(parameter): name for name, parameter in task.named_parameters()}
    rates = {names[id(p)]: (group["lr"] / 0.1, group["weight_decay"]) for group in groups for p in group["params"]}
    assert rates.keys() == dict(task.named_parameters()).keys()
    assert rates.pop("backbone.stem.0.weight") == pytest.approx((5, 5e-4))
    assert rates.pop("head.bias") == pytest.approx((2, 0))
    assert not [name for name in rates if name.endswith(".bias") and "bn" not in name and ".1." not in name]
    shapes = dict(task.named_parameters())
    assert all(rate == pytest.approx((1, 5e-4 if shapes[name].ndim > 1 else 0)) for name, rate in rates.items())
