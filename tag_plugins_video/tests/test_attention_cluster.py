"""AttentionCluster against the formulas in numpy, one frame and one cluster at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from tag_plugins_video.models.attention_cluster import AttentionCluster, ShiftingAttention
from tag_plugins_video.tasks.tagging import Tagging


def arrays(module):
    return {key: value.numpy().astype(np.float64) for key, value in module.state_dict().items()}


def shifting_attention(weights, frames):
    """[T, D] to [clusters * D]."""
    scores = frames @ weights["scores.weight"].T + weights["scores.bias"]
    parts = []
    for k in range(scores.shape[1]):
        share = np.exp(scores[:, k]) / np.exp(scores[:, k]).sum()
        mean = sum(a * x for a, x in zip(share, frames, strict=True))
        moved = weights["scale"][k] * mean + weights["shift"][k]
        parts.append(moved / np.sqrt((moved**2).sum()) / np.sqrt(scores.shape[1]))
    return np.concatenate(parts)


def test_shifting_attention_equals_the_formula_for_every_length():
    torch.manual_seed(0)
    block, frames = ShiftingAttention(6, 3), torch.randn(4, 9, 6)
    lengths = [9, 4, 1, 6]
    mask = torch.arange(9) < torch.tensor(lengths).unsqueeze(1)
    with torch.no_grad():
        out = block(frames * mask.unsqueeze(2), mask).numpy()
    for row, length in enumerate(lengths):
        expected = shifting_attention(arrays(block), frames[row, :length].numpy().astype(np.float64))
        np.testing.assert_allclose(out[row], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(out, axis=1), 1, rtol=1e-5)  # unit, whatever the number of clusters


def test_features_are_two_tanh_layers_on_the_modalities_in_their_order():
    torch.manual_seed(0)
    model = AttentionCluster({"rgb": 6, "audio": 4}, clusters=[3, 2], hidden=(8, 5)).eval()
    inputs = {"rgb": torch.randn(1, 7, 6), "audio": torch.randn(1, 7, 4)}
    with torch.no_grad():
        features = model({"audio": inputs["audio"], "rgb": inputs["rgb"]})[0].numpy()
    parts = [shifting_attention(arrays(model.attention[n]), inputs[n][0].double().numpy()) for n in inputs]
    w = arrays(model)
    hidden = np.tanh(w["fc1.weight"] @ np.concatenate(parts) + w["fc1.bias"])
    np.testing.assert_allclose(features, np.tanh(w["fc2.weight"] @ hidden + w["fc2.bias"]), rtol=1e-4, atol=1e-6)


def test_the_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        task = Tagging(AttentionCluster(), nn.BCEWithLogitsLoss(), [str(i) for i in range(3862)])
    assert sum(p.numel() for p in task.parameters()) == 57_807_830


def test_weights_start_as_published():
    torch.manual_seed(0)
    block = ShiftingAttention(1000, 400)
    assert block.scores.weight.std().item() == pytest.approx((2 / 1000) ** 0.5, rel=0.02)
    assert block.scores.bias.abs().max().item() == pytest.approx((6 / 400) ** 0.5, rel=0.05)
    assert torch.cat([block.scale, block.shift]).std().item() == pytest.approx((1 / 400**0.5) ** 0.5, rel=0.1)


def test_a_number_of_clusters_for_each_modality_is_needed():
    with pytest.raises(ValueError, match="clusters has 1 numbers for 2 modalities"):
        AttentionCluster(clusters=[32])
    with pytest.raises(ValueError, match="clusters must be at least 1"):
        AttentionCluster(clusters=0)
