import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.models import ResNet50_Weights, resnet50

from tag_core.engine.weights import load_weights, read_weights
from tag_core.errors import UserError, WeightsError
from tag_plugins_video.models.stnet import StNet, TemporalBlock, TemporalXception
from tag_plugins_video.tasks.classification import Classification


def task_of(backbone, num_classes=400):
    return Classification(backbone, nn.CrossEntropyLoss(), [str(i) for i in range(num_classes)]).eval()


def lively(model):
    """Batch norms and biases that are not the initial ones."""
    generator = torch.Generator().manual_seed(0)
    for key, value in model.state_dict().items():
        if value.dim() == 1 and value.is_floating_point():
            drawn = torch.rand(value.shape, generator=generator)
            value.copy_(0.5 + drawn if key.endswith(("weight", "running_var")) else (drawn - 0.5) * 0.4)
    return model.eval()


def norm(x, bn):
    """Batch norm of evaluation on [T, C, ...], as its formula."""
    shape = (1, -1) + (1,) * (x.dim() - 2)
    scaled = (x - bn.running_mean.view(shape)) / (bn.running_var.view(shape) + 1e-5).sqrt()
    return scaled * bn.weight.view(shape) + bn.bias.view(shape)


def along_time(x, weight, bias):
    """A kernel of three over x [T, C, ...], zeros beyond the ends; weight [out, C, 3]."""
    padded = torch.cat([torch.zeros_like(x[:1]), x, torch.zeros_like(x[:1])])
    rows = [sum(torch.einsum("oc,c...->o...", weight[:, :, k], padded[t + k]) for k in range(3)) for t in range(len(x))]
    return torch.stack(rows) + bias.view(1, -1, *[1] * (x.dim() - 2))


def temporal_block(x, block):
    return x + norm(F.relu(along_time(x, block.conv.weight.flatten(2), block.conv.bias)), block.bn)


def xception(x, module):
    """[T, 2048] to [T, 1024], step by step after section 5.6 of the specification."""
    wide, narrow, bn, _, deep, last = module.branch
    x = norm(x, module.bn)
    y = along_time(x, torch.diag_embed(wide.weight[:, 0].T).permute(1, 2, 0), wide.bias)
    y = F.relu(norm(F.linear(y, narrow.weight[:, :, 0], narrow.bias), bn))
    y = along_time(y, torch.diag_embed(deep.weight[:, 0].T).permute(1, 2, 0), deep.bias)
    y = F.linear(y, last.weight[:, :, 0], last.bias) + F.linear(x, module.skip.weight[:, :, 0], module.skip.bias)
    return F.relu(norm(y, module.end))


def test_a_task_for_kinetics_has_the_published_number_of_parameters():
    with torch.device("meta"):
        task = task_of(StNet())
    counts = {name: sum(p.numel() for p in getattr(task.backbone, name).parameters()) for name in PARTS}
    assert counts == PARTS
    assert sum(p.numel() for p in task.parameters()) == 33_158_864


PARTS = {"temporal2": 787_968, "temporal3": 3_148_800, "xception": 5_266_432}


@pytest.mark.parametrize("segments", [1, 3])
def test_features_equal_the_network_written_out_for_one_clip(segments):
    torch.manual_seed(0)
    model = lively(StNet(snippet=2)).double()
    clips = torch.randn(2, 3, 2 * segments, 48, 40, dtype=torch.float64)
    with torch.no_grad():
        expected = []
        for clip in clips:
            images = [torch.cat([clip[:, 2 * s], clip[:, 2 * s + 1]]) for s in range(segments)]
            x = model.layer2(model.layer1(model.stem(torch.stack(images))))
            x = model.layer3(temporal_block(x, model.temporal2))
            x = model.layer4(temporal_block(x, model.temporal3))
            expected.append(xception(x.mean((2, 3)), model.xception).max(0).values)
        features = model(clips)
    assert features.shape == (2, model.feature_dim)
    assert torch.stack(expected).std(0).mean() > 1e-3
    torch.testing.assert_close(features, torch.stack(expected))


def test_temporal_blocks_follow_the_order_of_the_specification():
    """Convolution, ReLU, batch norm, then the sum: no ReLU behind it."""
    torch.manual_seed(0)
    block = lively(TemporalBlock(6))
    maps = torch.randn(2 * 4, 6, 3, 5)
    with torch.no_grad():
        expected = torch.cat([temporal_block(part, block) for part in maps.split(4)])
        result = block(maps, 4)
    assert (result < 0).any()
    torch.testing.assert_close(result, expected)


def test_the_temporal_xception_equals_its_steps():
    torch.manual_seed(0)
    module = lively(TemporalXception(8, 4))
    features = torch.randn(3, 8, 5)
    with torch.no_grad():
        expected = torch.stack([xception(part.T, module).T for part in features])
        torch.testing.assert_close(module(features), expected)


def test_shapes_of_the_published_input_of_seven_segments():
    model, seen = StNet().eval(), {}
    for name in ("stem", "layer2", "layer3", "layer4", "xception"):
        model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: seen.update({name: list(o.shape)}))
    with torch.no_grad():
        assert model(torch.randn(1, 3, 35, 224, 224)).shape == (1, 1024)
    assert seen == {
        "stem": [7, 64, 56, 56],
        "layer2": [7, 512, 28, 28],
        "layer3": [7, 1024, 14, 14],
        "layer4": [7, 2048, 7, 7],
        "xception": [1, 1024, 7],
    }


def test_the_order_of_segments_and_of_frames_matters():
    torch.manual_seed(0)
    model = lively(StNet(snippet=2))
    clips = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        features = model(clips)
        for order in ([2, 3, 0, 1, 4, 5, 6, 7], [1, 0, 2, 3, 4, 5, 6, 7]):
            assert not torch.allclose(model(clips[:, :, order]), features, rtol=1e-3)


@pytest.mark.parametrize("frames", [1, 4, 8])
def test_clips_that_are_no_whole_super_images_are_refused(frames):
    with pytest.raises(UserError, match=f"a multiple of 5 frames, got {frames}; set data.train.clip_len=5"):
        StNet()(torch.randn(1, 3, frames, 32, 32))


def test_a_grey_still_excites_the_inflated_convolution_as_it_does_the_2d_one():
    torch.manual_seed(0)
    encoder, model = resnet50(), StNet(snippet=5)
    model.load_state_dict({**model.state_dict(), **model.inflate(encoder.state_dict())})
    still = torch.randn(1, 1, 64, 64)
    with torch.no_grad():
        expected = encoder.conv1(still.expand(1, 3, 64, 64))
        torch.testing.assert_close(model.stem[0](still.expand(1, 15, 64, 64)), expected, rtol=1e-4, atol=1e-5)
    weight = model.stem[0].weight
    assert all(torch.equal(weight[:, 0], weight[:, c]) for c in range(15))


def test_weights_of_a_2d_resnet_are_a_start_without_anything_unexpected(tmp_path):
    torch.manual_seed(0)
    encoder, task = lively(resnet50()), task_of(StNet(), 10)
    torch.save(encoder.state_dict(), tmp_path / "resnet50.pth")
    weights = read_weights(str(tmp_path / "resnet50.pth"), Classification, StNet)
    report = load_weights(weights, task, strict=False)
    assert "(layout torchvision-resnet)" in report
    assert "unexpected" not in report
    assert "mismatched" not in report
    fresh = ("backbone.temporal2", "backbone.temporal3", "backbone.xception", "head")
    missing = [key for key in task.state_dict() if key.startswith(fresh) and not key.endswith("num_batches_tracked")]
    assert f"; {len(missing)} missing: " in report
    assert torch.equal(task.backbone.layer4[2].conv3.weight, encoder.layer4[2].conv3.weight)
    assert torch.equal(task.backbone.stem[1].running_var, encoder.bn1.running_var)
    with pytest.raises(WeightsError, match="do not fit"):
        load_weights(weights, task, strict=True)


def test_a_saved_task_loads_as_it_was(tmp_path):
    task, other = lively(task_of(StNet(snippet=2), 10)), task_of(StNet(snippet=2), 10)
    torch.save({"model": task.state_dict()}, tmp_path / "best.pt")
    report = load_weights(read_weights(str(tmp_path / "best.pt"), Classification, StNet), other, strict=True)
    assert report.endswith("tensors loaded (layout tag)")
    assert all(torch.equal(value, task.state_dict()[key]) for key, value in other.state_dict().items())


def test_imagenet_weights_start_the_network(monkeypatch, tmp_path):
    """With the weights already in torch's cache, nothing is fetched."""
    torch.manual_seed(0)
    published = lively(resnet50())
    cache = tmp_path / "hub" / "checkpoints"
    cache.mkdir(parents=True)
    torch.save(published.state_dict(), cache / ResNet50_Weights.DEFAULT.url.rpartition("/")[2])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    model = StNet(encoder_weights="imagenet")
    assert not torch.equal(model.layer3[0].conv1.weight, published.layer3[0].conv1.weight)
    model.initialize()
    assert torch.equal(model.layer3[0].conv1.weight, published.layer3[0].conv1.weight)
    mean = published.conv1.weight.mean(1) / 5
    torch.testing.assert_close(model.stem[0].weight[:, 11], mean)


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    with pytest.raises(WeightsError, match="resnet50: cannot be fetched"):
        StNet(encoder_weights="imagenet").initialize()


def test_the_layout_survives_pickling_and_refuses_other_state_dicts():
    model = pickle.loads(pickle.dumps(StNet(snippet=2)))
    with pytest.raises(KeyError):
        model.layouts["torchvision-resnet"]({"backbone.stem.0.weight": torch.zeros(1)})


def test_two_clips_train_every_part():
    torch.manual_seed(0)
    model = StNet(snippet=2).train()
    model(torch.randn(2, 3, 6, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())
