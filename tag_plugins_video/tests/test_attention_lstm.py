"""AttentionLSTM against torch's LSTM, and against the formulas in numpy, one frame at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from tag_plugins_video.models.attention_lstm import LSTM, AttentionLSTM, reverse
from tag_plugins_video.tasks.tagging import Tagging

LENGTHS = [9, 4, 1, 6]
MASK = torch.arange(9) < torch.tensor(LENGTHS).unsqueeze(1)


def randomised(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        nn.init.uniform_(parameter, -0.7, 0.7)
    return module.eval()


def arrays(module):
    return {key: value.detach().numpy().astype(np.float64) for key, value in module.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(weights, gates):
    """Gates [T, 4H] to states [T, H], with the peepholes [3H] that are there."""
    size = gates.shape[1] // 4
    to_input, to_forget, to_output = np.split(weights.get("peepholes", np.zeros(3 * size)), 3)
    state, cell, states = np.zeros(size), np.zeros(size), []
    for step in gates:
        i, f, g, o = np.split(step + weights["recurrent.weight"] @ state + weights["recurrent.bias"], 4)
        new = sigmoid(f + to_forget * cell) * cell + sigmoid(i + to_input * cell) * np.tanh(g)
        state, cell = sigmoid(o + to_output * new) * np.tanh(new), new
        states.append(state)
    return np.array(states)


def attentive_lstm(weights, frames):
    """Frames [T, D] of one modality to [2H]."""

    def dense(name, x):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def part(prefix):
        return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}

    x = np.tanh(dense("embed", frames))
    ahead = lstm(part("forward_lstm."), dense("to_forward", x))
    back = lstm(part("backward_lstm."), dense("to_backward", x)[::-1])[::-1]
    states = np.concatenate([ahead, back], axis=1)
    scores = dense("score", states)[:, 0]
    share = np.exp(scores) / np.exp(scores).sum()
    return sum(a * s for a, s in zip(share, states, strict=True))


@pytest.mark.parametrize("peepholes", [True, False])
def test_one_direction_equals_a_loop_in_numpy(peepholes):
    layer, gates = randomised(LSTM(5, peepholes)), torch.randn(3, 8, 20)
    with torch.no_grad():
        states = layer(gates).numpy()
    for row in range(3):
        np.testing.assert_allclose(states[row], lstm(arrays(layer), gates[row].double().numpy()), rtol=1e-4, atol=1e-6)


def test_peepholes_change_the_states():
    layer, gates = randomised(LSTM(5, peepholes=True)), torch.randn(3, 8, 20)
    with_peepholes = layer(gates)
    nn.init.zeros_(layer.peepholes)
    without = layer(gates)
    assert not torch.allclose(with_peepholes, without, atol=1e-3)
    layer.peepholes = None
    assert torch.equal(layer(gates), without)


def test_both_directions_without_peepholes_equal_torchs_lstm_on_packed_sequences():
    model = randomised(AttentionLSTM({"rgb": 6}, embedding=4, lstm=5, hidden=(8, 7), peepholes=False))
    branch, reference = model.lstm["rgb"], nn.LSTM(4, 5, batch_first=True, bidirectional=True)
    for suffix, project, layer in (
        ("", branch.to_forward, branch.forward_lstm),
        ("_reverse", branch.to_backward, branch.backward_lstm),
    ):
        for theirs, ours in (("ih", project), ("hh", layer.recurrent)):
            getattr(reference, f"weight_{theirs}_l0{suffix}").data.copy_(ours.weight)
            getattr(reference, f"bias_{theirs}_l0{suffix}").data.copy_(ours.bias)
    x = torch.randn(4, 9, 4)
    packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False)
    expected, _ = nn.utils.rnn.pad_packed_sequence(reference(packed)[0], batch_first=True)
    ahead = branch.forward_lstm(branch.to_forward(x))
    back = reverse(branch.backward_lstm(branch.to_backward(reverse(x, MASK))), MASK)
    states = torch.cat([ahead, back], dim=2)
    torch.testing.assert_close(states[MASK], expected[MASK], rtol=1e-5, atol=1e-6)
    gradients = [
        torch.autograd.grad(s[MASK].square().sum(), w)[0]
        for s, w in ((states, branch.backward_lstm.recurrent.weight), (expected, reference.weight_hh_l0_reverse))
    ]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("peepholes", [True, False])
def test_features_equal_the_formulas_for_every_length(peepholes):
    options = {"embedding": 4, "lstm": 5, "hidden": (8, 7), "peepholes": peepholes}
    model = randomised(AttentionLSTM({"rgb": 6, "audio": 3}, **options))
    inputs = {"rgb": torch.randn(4, 9, 6), "audio": torch.randn(4, 9, 3)}
    with torch.no_grad():
        features = model({**inputs, "length": torch.tensor(LENGTHS)}).numpy()
    w = arrays(model)
    for row, length in enumerate(LENGTHS):
        parts = [attentive_lstm(arrays(model.lstm[n]), inputs[n][row, :length].double().numpy()) for n in inputs]
        hidden = np.maximum(w["fc1.weight"] @ np.concatenate(parts) + w["fc1.bias"], 0)
        expected = np.tanh(w["fc2.weight"] @ hidden + w["fc2.bias"])
        np.testing.assert_allclose(features[row], expected, rtol=1e-3, atol=1e-5)


def test_the_gradients_of_the_peephole_lstm_are_those_of_finite_differences():
    layer = randomised(LSTM(3, peepholes=True)).double()
    gates = torch.randn(2, 4, 12, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def states(gates, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), gates)

    assert torch.autograd.gradcheck(states, (gates, *values))


def test_reversing_keeps_padding_at_the_end_and_undoes_itself():
    values = torch.arange(36.0).reshape(4, 9, 1)
    backwards = reverse(values, MASK)
    for row, length in enumerate(LENGTHS):
        assert backwards[row, :length, 0].tolist() == values[row, :length, 0].tolist()[::-1]
        assert backwards[row, length:, 0].tolist() == values[row, length:, 0].tolist()
    assert torch.equal(reverse(backwards, MASK), values)


@pytest.mark.parametrize(("peepholes", "count"), [(True, 108_749_592), (False, 108_737_304)])
def test_the_published_size_has_the_published_number_of_parameters(peepholes, count):
    with torch.device("meta"):
        backbone = AttentionLSTM(peepholes=peepholes)
        task = Tagging(backbone, nn.BCEWithLogitsLoss(), [str(i) for i in range(3862)])
    assert sum(p.numel() for p in task.parameters()) == count


def test_biases_and_peepholes_start_at_zero():
    model = AttentionLSTM({"rgb": 6}, embedding=4, lstm=5, hidden=(8, 7))
    vectors = [p for p in model.parameters() if p.dim() == 1]
    assert len(vectors) == 10
    assert not torch.cat(vectors).any()
