"""NeXtVLAD against the formulas in numpy, one frame, group and cluster at a time."""

import numpy as np
import pytest
import torch
from torch import nn

from tag_plugins_video.models.nextvlad import NeXtVLAD
from tag_plugins_video.tasks.tagging import Tagging

LENGTHS = [9, 4, 1, 6]
SIZES = {"clusters": 3, "groups": 2, "expansion": 2, "hidden": 8, "gating_reduction": 4}


def randomised(**options):
    torch.manual_seed(0)
    model = NeXtVLAD({"rgb": 6, "audio": 4}, **{**SIZES, **options})
    for name, tensor in model.state_dict().items():
        if tensor.dim() == 1:
            nn.init.uniform_(tensor, 0.5, 1.5) if name.endswith(("var", "weight")) else nn.init.normal_(tensor)
    return model


def arrays(module):
    return {key: value.detach().numpy().astype(np.float64) for key, value in module.state_dict().items()}


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def norm(w, name, x):
    scaled = (x - w[f"{name}.running_mean"]) / np.sqrt(w[f"{name}.running_var"] + 1e-5)
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def pooling(w, frames, clusters, groups):
    """Frames [T, D] to [f * K]."""
    size = w["centres"].shape[1]
    vlad = np.zeros((clusters, size))
    for frame in frames:
        wide = w["expand.weight"] @ frame + w["expand.bias"]
        alpha = sigmoid(w["group_attention.weight"] @ wide + w["group_attention.bias"])
        assigned = norm(w, "assign_norm", w["assign.weight"] @ wide)
        for g in range(groups):
            exponents = np.exp(assigned[g * clusters : (g + 1) * clusters])
            for k in range(clusters):
                share = alpha[g] * exponents[k] / exponents.sum()
                vlad[k] += share * (wide[g * size : (g + 1) * size] - w["centres"][k])
    flat = np.zeros(size * clusters)
    for k in range(clusters):
        for f in range(size):
            flat[f * clusters + k] = vlad[k, f] / np.sqrt((vlad[k] ** 2).sum())
    return norm(w, "norm", flat)


@pytest.mark.parametrize("options", [{}, {"clusters": 5, "groups": 4, "gating_reduction": 1}, {"expansion": 1}])
def test_features_equal_the_formulas_for_every_length(options):
    model = randomised(**options).eval()
    inputs = {"rgb": torch.randn(4, 9, 6), "audio": torch.randn(4, 9, 4)}
    with torch.no_grad():
        features = model({**inputs, "length": torch.tensor(LENGTHS)}).numpy()
    w, sizes = arrays(model), {**SIZES, **options}
    for row, length in enumerate(LENGTHS):
        parts = [
            pooling(arrays(model.pooling[n]), inputs[n][row, :length].numpy(), sizes["clusters"], sizes["groups"])
            for n in inputs
        ]
        hidden = norm(w, "fc.1", w["fc.0.weight"] @ np.concatenate(parts))
        narrow = np.maximum(norm(w, "gate.1", w["gate.0.weight"] @ hidden), 0)
        expected = hidden * sigmoid(w["gate.3.weight"] @ narrow)
        np.testing.assert_allclose(features[row], expected, rtol=1e-3, atol=1e-4)


def test_the_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        task = Tagging(NeXtVLAD(), nn.BCEWithLogitsLoss(), [str(i) for i in range(3862)])
    assert sum(p.numel() for p in task.parameters()) == 89_088_550
    assert task.backbone.fc[0].in_features == 36_864


def test_the_layers_that_a_batch_norm_or_a_gate_follows_have_no_bias():
    assert {n for n, _ in randomised().named_parameters() if n.startswith(("fc.0", "gate.0", "gate.3"))} == {
        "fc.0.weight",
        "gate.0.weight",
        "gate.3.weight",
    }


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"rgb: 2 \* 5 features cannot be split into 4 groups"):
        NeXtVLAD({"rgb": 5}, groups=4)
    with pytest.raises(ValueError, match="gating_reduction must be between 1 and hidden = 8"):
        NeXtVLAD({"rgb": 8}, hidden=8, gating_reduction=9)
