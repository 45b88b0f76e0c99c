import json
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet18, resnet50

from tag_core.engine.weights import load_weights, read_weights
from tag_core.errors import WeightsError
from tag_plugins_video.models import encoders
from tag_plugins_video.models.encoders import make_encoder
from tag_plugins_video.models.tsn import TSN
from tag_plugins_video.tasks.classification import Classification

LAYOUTS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "video" / "model_state_dict_layouts.json"


def clips(frames=3, size=32):
    return torch.randn(2, 3, frames, size, size, generator=torch.Generator().manual_seed(0))


def test_a_resnet50_for_kinetics_has_the_published_number_of_parameters():
    task = Classification(TSN("resnet50"), nn.CrossEntropyLoss(), [str(i) for i in range(400)])
    assert sum(p.numel() for p in task.parameters()) == 24_327_632


def test_average_consensus_of_features_equals_the_average_of_class_scores():
    torch.manual_seed(0)
    backbone = TSN("resnet50").eval()
    reference = resnet50(num_classes=7).eval()
    state = {k: v for k, v in reference.state_dict().items() if not k.startswith("fc.")}
    backbone.encoder.load_state_dict(state)
    x = clips(size=64)
    with torch.no_grad():
        per_frame = torch.stack([reference(x[:, :, i]) for i in range(3)])
        torch.testing.assert_close(reference.fc(backbone(x)), per_frame.mean(0), rtol=1e-5, atol=1e-5)


def test_max_and_attention_consensus_follow_their_formulas():
    torch.manual_seed(0)
    x = clips()
    for consensus in ("max", "attention"):
        backbone = TSN("tiny", consensus=consensus).eval()
        with torch.no_grad():
            frames = torch.stack([backbone.encoder(x[:, :, i]) for i in range(3)], dim=1)
            if consensus == "max":
                expected = frames.max(dim=1).values
            else:
                scores = torch.exp(frames @ backbone.attention.weight[0] + backbone.attention.bias)
                expected = torch.einsum("ns,nsd->nd", scores / scores.sum(1, keepdim=True), frames)
            torch.testing.assert_close(backbone(x), expected)


def test_the_order_of_frames_does_not_matter_to_any_consensus():
    for consensus in ("average", "max", "attention"):
        backbone = TSN("tiny", consensus=consensus).eval()
        torch.testing.assert_close(backbone(clips()), backbone(clips().flip(2)))


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("tiny", 64),
        ("tiny-grid", 1024),
        ("resnet18", 512),
        ("mobilenet_v3_small", 1024),
        ("shufflenet_v2_x0_5", 1024),
        ("googlenet", 1024),
        ("timm/resnet10t", 512),
        ("timm/mobilenetv3_small_050", 1024),
    ],
)
def test_encoders_of_both_libraries_give_the_features_they_declare(name, features):
    encoder, declared = make_encoder(name)
    encoder.train()
    assert encoder(torch.randn(2, 3, 64, 64)).shape == (2, declared) == (2, features)


def test_encoder_names_that_do_not_exist_get_the_nearest():
    with pytest.raises(ValueError, match=r"no encoder 'resnet5' in torchvision; did you mean .*resnet50"):
        TSN("resnet5")
    with pytest.raises(ValueError, match=r"no encoder 'resnet10tt' in timm; did you mean .*resnet10t"):
        TSN("timm/resnet10tt")
    with pytest.raises(ValueError, match="does not end in a linear classifier"):
        TSN("squeezenet1_0")


def test_weights_that_cannot_be_fetched_say_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    backbone = TSN("resnet18", encoder_weights="imagenet")  # building one fetches nothing
    with pytest.raises(WeightsError, match=r"resnet18: cannot be fetched .*encoder_weights=''"):
        backbone.initialize()
    with pytest.raises(ValueError, match="no ImageNet weights"):
        TSN("tiny", encoder_weights="imagenet")


def test_imagenet_weights_fill_the_encoder(monkeypatch, tmp_path):
    """With the weights already in torch's cache, nothing is fetched."""
    from torchvision.models import ResNet18_Weights, resnet18

    published = resnet18()
    name = ResNet18_Weights.DEFAULT.url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(published.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    backbone = TSN("resnet18", encoder_weights="imagenet")
    backbone.initialize()
    assert torch.equal(backbone.encoder.conv1.weight, published.conv1.weight)
    assert isinstance(backbone.encoder.fc, nn.Identity)


def test_partial_batch_norm_freezes_all_but_the_first():
    backbone = TSN("tiny", partial_bn=True).train()
    first, *others = [m for m in backbone.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.running_mean.clone() for norm in others]
    backbone(clips()).sum().backward()
    assert first.training
    assert first.weight.grad is not None
    for norm, mean in zip(others, before, strict=True):
        assert torch.equal(norm.running_mean, mean)
        assert norm.weight.grad is None
    assert not first.running_mean.eq(0).all()


def test_partial_batch_norm_survives_pickling():
    backbone = pickle.loads(pickle.dumps(TSN("tiny", partial_bn=True))).train()
    norms = [m for m in backbone.encoder.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.training for norm in norms] == [True, False, False]


@pytest.mark.skipif(not LAYOUTS.is_file(), reason="shared/data is not here")
def test_mmactions_state_dict_fills_the_model_and_nothing_is_left_over(tmp_path):
    layouts = json.loads(LAYOUTS.read_text())
    listed = next(keys for title, keys in layouts.items() if title.startswith("mmaction.TSN("))
    state = {key: torch.randn(shape) for key, shape, _ in listed}
    torch.save({"state_dict": state}, tmp_path / "tsn.pth")
    task = Classification(TSN("resnet18"), nn.CrossEntropyLoss(), [str(i) for i in range(10)])
    report = load_weights(read_weights(str(tmp_path / "tsn.pth"), Classification, TSN), task, strict=True)
    assert report == "122 tensors loaded (layout mmaction2)"
    own = task.state_dict()
    assert len(own) == 122
    expected = {
        "backbone.encoder.layer2.0.downsample.0.weight": "backbone.layer2.0.downsample.conv.weight",
        "backbone.encoder.layer2.0.downsample.1.running_var": "backbone.layer2.0.downsample.bn.running_var",
        "backbone.encoder.layer4.1.bn2.bias": "backbone.layer4.1.conv2.bn.bias",
        "backbone.encoder.conv1.weight": "backbone.conv1.conv.weight",
        "head.weight": "cls_head.fc_cls.weight",
    }
    for key, theirs in expected.items():
        assert torch.equal(own[key], state[theirs])


def test_a_file_of_the_encoders_own_weights_starts_it(tmp_path):
    reference = resnet18()
    torch.save(reference.state_dict(), tmp_path / "resnet18.pth")
    task = Classification(TSN("resnet18"), nn.CrossEntropyLoss(), ["a", "b"])
    weights = read_weights(str(tmp_path / "resnet18.pth"), Classification, TSN)
    report = load_weights(weights, task, strict=False)
    assert report.startswith("120 tensors loaded (layout encoder); 2 missing: head.weight, head.bias; 2 unexpected")
    frame = torch.randn(1, 3, 64, 64)
    reference.fc = nn.Identity()
    with torch.no_grad():
        torch.testing.assert_close(task.eval().backbone(frame.unsqueeze(2)), reference.eval()(frame))
    with pytest.raises(WeightsError, match=r"2 missing: head\.weight"):
        load_weights(weights, task, strict=True)


def test_programming_errors_while_building_an_encoder_are_not_called_network_errors():
    with pytest.raises(TypeError):
        encoders._fetch("x", lambda: int(None))
