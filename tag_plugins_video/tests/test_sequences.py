import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tag_core.errors import UserError
from tag_plugins_video.models.attention_cluster import AttentionCluster
from tag_plugins_video.models.attention_lstm import AttentionLSTM
from tag_plugins_video.models.nextvlad import NeXtVLAD
from tag_plugins_video.models.sequences import check_sizes, norm_frames, softmax_over_frames, unpack
from tag_plugins_video.tasks.tagging import Tagging
from tag_plugins_video.unpickle import load

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
RECORD = SHARED / "yt8m" / "yt8m_frame_example.pkl"
SMALL = {
    AttentionCluster: {"clusters": 3, "hidden": (10, 7)},
    AttentionLSTM: {"embedding": 6, "lstm": 5, "hidden": (10, 7)},
    NeXtVLAD: {"clusters": 3, "groups": 2, "hidden": 8, "gating_reduction": 2},
}
MODALITIES = {"rgb": 6, "audio": 4}
every_model = pytest.mark.parametrize("model", SMALL, ids=lambda model: model.__name__)


def build(model, seed=0, modalities=MODALITIES, **options):
    """A small model whose biases, peepholes and batch norms are not the initial ones."""
    torch.manual_seed(seed)
    built = model(modalities=modalities, **{**SMALL[model], "dropout": 0.0, **options})
    for name, tensor in built.state_dict().items():
        if tensor.dim() == 1:
            nn.init.uniform_(tensor, 0.5, 1.5) if "var" in name else nn.init.uniform_(tensor, -0.5, 0.5)
    return built


def sequences(count=4, frames=9, seed=0, modalities=MODALITIES):
    generator = torch.Generator().manual_seed(seed)
    inputs = {name: torch.randn(count, frames, dim, generator=generator) for name, dim in modalities.items()}
    return {**inputs, "length": torch.tensor([frames, 5, 1, 7][:count])}


def padded(inputs, more, fill):
    """The same sequences with other padding, ``more`` frames of it."""
    longer = {}
    for name in MODALITIES:
        value = torch.cat([inputs[name], torch.zeros(len(inputs[name]), more, MODALITIES[name])], dim=1)
        for row, length in enumerate(inputs["length"].tolist()):
            value[row, length:] = fill
        longer[name] = value
    return {**longer, "length": inputs["length"]}


@every_model
@pytest.mark.parametrize(("more", "fill"), [(0, 7.0), (5, -3.0), (2, float("nan"))])
@pytest.mark.parametrize("training", [False, True])
def test_padding_changes_neither_features_nor_gradients_nor_statistics(model, more, fill, training):
    inputs, results = sequences(), []
    for case in (inputs, padded(inputs, more, fill)):
        built = build(model).train(training)
        features = built(case)
        features.square().sum().backward()
        gradients = [p.grad for p in built.parameters()]
        results.append([features, *gradients, *(b.double() for b in built.buffers())])
    for plain, other in zip(*results, strict=True):
        torch.testing.assert_close(other, plain, rtol=1e-4, atol=1e-5)


@every_model
def test_a_sequence_gives_the_same_alone_and_in_a_batch(model):
    built, inputs = build(model).eval(), sequences()
    together = built(inputs)
    for row, length in enumerate(inputs["length"].tolist()):
        alone = built({name: inputs[name][row : row + 1, :length] for name in MODALITIES})
        torch.testing.assert_close(alone, together[row : row + 1])


@every_model
def test_the_order_of_frames_matters_to_the_lstm_alone(model):
    built, inputs = build(model).eval(), sequences(count=2)
    order = torch.tensor([3, 1, 4, 0, 2])  # within the shorter of the two
    shuffled = {name: torch.cat([inputs[name][:, order], inputs[name][:, 5:]], dim=1) for name in MODALITIES}
    same = torch.allclose(built({**shuffled, "length": inputs["length"]}), built(inputs), atol=1e-5)
    assert same == (model is not AttentionLSTM)


@every_model
def test_every_parameter_gets_a_finite_gradient_in_training(model):
    built = build(model, dropout=0.5).train()
    built(sequences()).square().sum().backward()
    for name, parameter in built.named_parameters():
        assert torch.isfinite(parameter.grad).all(), name
        if "assign_norm.bias" not in name:
            assert parameter.grad.abs().sum() > 0, name


@every_model
def test_a_sequence_without_frames_stays_finite(model):
    built = build(model).train()
    inputs = {**sequences(), "length": torch.tensor([0, 5, 1, 0])}
    features = built({**inputs, "rgb": inputs["rgb"].index_fill(0, torch.tensor([0, 3]), float("nan"))})
    features.sum().backward()
    assert features.isfinite().all()
    assert all(p.grad.isfinite().all() for p in built.parameters())


@every_model
def test_one_modality_of_any_name_and_size_is_enough(model):
    built = build(model, modalities={"frames": 2}).eval()
    assert built({"frames": torch.randn(3, 11, 2)}).shape == (3, built.feature_dim)


@every_model
def test_dropout_acts_in_training_only(model):
    built, inputs = build(model, dropout=0.9), sequences()
    assert not torch.allclose(built.train()(inputs), built(inputs))
    fresh = build(model, dropout=0.9).eval()
    torch.testing.assert_close(fresh(inputs), build(model).eval()(inputs))


@every_model
def test_features_that_the_model_was_not_built_for_are_refused(model):
    built, inputs = build(model), sequences()
    with pytest.raises(UserError, match=r"no features 'audio' among rgb, length; set task.backbone.modalities"):
        built({key: inputs[key] for key in ("rgb", "length")})
    with pytest.raises(UserError, match=r"features 'audio' are \[4, 9, 6\], the model expects \[4, 9, 4\]"):
        built({**inputs, "audio": inputs["rgb"]})
    with pytest.raises(UserError, match=r"features 'audio' are \[4, 8, 4\], the model expects \[4, 9, 4\]"):
        built({**inputs, "audio": inputs["audio"][:, 1:]})


@every_model
@pytest.mark.parametrize(
    ("modalities", "problem"),
    [
        ({}, "modalities needs a name"),
        ({"rgb": 0}, "rgb must be at least 1"),
        ({"length": 4}, "cannot be called 'length'"),
        ({"keys": 4}, "cannot be called 'keys'"),
        ({"a.b": 4}, "cannot be called 'a.b'"),
    ],
)
def test_wrong_modalities_are_refused_when_the_model_is_built(model, modalities, problem):
    with pytest.raises(ValueError, match=problem):
        build(model, modalities=modalities)


@every_model
def test_states_load_into_another_copy_and_models_pickle(model):
    first, second, inputs = build(model).eval(), build(model, seed=1).eval(), sequences()
    assert not torch.allclose(first(inputs), second(inputs))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(inputs), second(inputs))
    assert torch.equal(pickle.loads(pickle.dumps(first))(inputs), first(inputs))


@every_model
def test_half_precision_stays_near_full_precision(model):
    built, inputs = build(model).eval(), sequences()
    with torch.autocast("cpu", torch.bfloat16):
        half = built(inputs).float()
    torch.testing.assert_close(half, built(inputs), rtol=0.1, atol=0.1)


def test_sizes_must_be_positive():
    check_sizes({"rgb": 1}, hidden=1)
    with pytest.raises(ValueError, match="hidden must be at least 1, got 0"):
        check_sizes({"rgb": 1}, hidden=0)


def test_unpack_gives_zeros_for_padding_and_the_mask():
    inputs = {"rgb": torch.full((3, 4, 2), 5.0), "length": torch.tensor([4, 2, 0])}
    features, mask = unpack(inputs, {"rgb": 2})
    assert mask.tolist() == [[True] * 4, [True, True, False, False], [True, False, False, False]]
    assert features["rgb"][:, :, 0].tolist() == [[5, 5, 5, 5], [5, 5, 0, 0], [0, 0, 0, 0]]


def test_the_softmax_over_frames_is_that_of_each_sequence_alone():
    scores, mask = torch.randn(2, 5, 3), torch.arange(5) < torch.tensor([[5], [2]])
    weights = softmax_over_frames(scores, mask)
    torch.testing.assert_close(weights[0], scores[0].softmax(0))
    torch.testing.assert_close(weights[1, :2], scores[1, :2].softmax(0))
    assert torch.equal(weights[1, 2:], torch.zeros(3, 3))


def test_batch_norm_over_frames_takes_its_statistics_from_the_frames_that_are_there():
    values, mask = torch.randn(2, 5, 3), torch.arange(5) < torch.tensor([[5], [2]])
    norm = nn.BatchNorm1d(3, momentum=1.0).train()
    present = norm_frames(norm, values, mask)[mask]
    frames = torch.cat([values[0], values[1, :2]])
    expected = (frames - frames.mean(0)) / (frames.var(0, unbiased=False) + 1e-5).sqrt()
    torch.testing.assert_close(present, expected)
    torch.testing.assert_close(norm.running_mean, frames.mean(0))
    torch.testing.assert_close(norm.eval()(frames), norm_frames(norm, values, mask)[mask])


@pytest.mark.skipif(not RECORD.is_file(), reason="shared/data is not here")
@every_model
def test_a_real_youtube_8m_record_goes_through_the_published_model(model):
    record = load(RECORD)
    record = record[0] if isinstance(record, list) else record
    rgb, audio = (torch.from_numpy(np.array(record[key]))[None] for key in (b"feature", b"audio"))
    assert (rgb.shape, audio.shape, rgb.dtype) == ((1, 170, 1024), (1, 170, 128), torch.uint8)
    task = Tagging(model(), nn.BCEWithLogitsLoss(), [str(i) for i in range(3862)]).eval()
    batch = {"rgb": rgb, "audio": audio, "length": torch.tensor([170]), "source": ["video"], "damage": [None]}
    with torch.no_grad():
        outputs = task.predict(batch)
        longer = {name: nn.functional.pad(batch[name], (0, 0, 0, 130), value=255) for name in ("rgb", "audio")}
        again = task.predict({**batch, **longer})
    assert outputs["scores"].shape == (1, 3862)
    assert outputs["scores"].std() > 1e-4
    torch.testing.assert_close(again["logits"], outputs["logits"], rtol=1e-4, atol=1e-5)
    record = next(iter(task.records(outputs, batch)))
    assert len(record.labels) == 20
    assert record.scores == sorted(record.scores, reverse=True)
