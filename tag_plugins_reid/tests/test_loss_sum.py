import pytest
import torch

from tag_core.builtin.losses import CrossEntropy
from tag_core.config import build_component
from tag_core.errors import ConfigError, UserError
from tag_plugins_reid.losses.arcface import ArcFace
from tag_plugins_reid.losses.sum import Sum
from tag_plugins_reid.losses.triplet import Triplet
from tag_plugins_reid.losses.xbm_softmax import XBMSoftmax

LABELS = torch.tensor([0, 0, 1, 1])


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(0)
    features, logits = torch.randn(4, 6, generator=generator), torch.randn(4, 3, generator=generator)
    return {"features": features, "logits": logits, "cosines": logits.tanh()}


def test_each_part_gets_what_it_takes_and_counts_with_its_weight(inputs):
    loss = Sum([CrossEntropy(), Triplet(), ArcFace()], [1.0, 10.0, 0.5])
    parts = [CrossEntropy()(inputs["logits"], LABELS), Triplet()(inputs["features"], LABELS)]
    parts.append(ArcFace()(inputs["cosines"], LABELS))
    assert loss(inputs, LABELS).item() == pytest.approx((parts[0] + 10 * parts[1] + 0.5 * parts[2]).item())
    assert [loss.log[f"loss_{n}"].item() for n in (1, 2, 3)] == pytest.approx([part.item() for part in parts])
    assert "triplet_active" in loss.log


def test_a_gradient_reaches_every_input_with_its_weight(inputs):
    leaves = {key: value.requires_grad_() for key, value in inputs.items()}
    Sum([CrossEntropy(), Triplet(margin=9.0)], [0.0, 2.0])(leaves, LABELS).backward()
    assert not leaves["logits"].grad.any()
    doubled, once = leaves["features"].grad.clone(), inputs["features"].detach().requires_grad_()
    Triplet(margin=9.0)(once, LABELS).backward()
    torch.testing.assert_close(doubled, 2 * once.grad)


def test_a_plain_tensor_is_for_every_part_and_weights_are_one_by_default(inputs):
    loss = Sum([CrossEntropy(), Triplet()])
    expected = CrossEntropy()(inputs["logits"], LABELS) + Triplet()(inputs["logits"], LABELS)
    torch.testing.assert_close(loss(inputs["logits"], LABELS), expected)


def test_a_part_that_takes_all_gets_the_table_and_its_memory_is_in_the_state(inputs):
    loss = Sum([XBMSoftmax(ArcFace(), dim=6, size=8)])
    inputs |= {"embeddings": inputs["features"], "class_weights": torch.randn(3, 6)}
    assert loss(inputs, LABELS).isfinite()
    assert loss.log["memory_filled"] == 0.5
    assert "losses.0.memory.position" in loss.state_dict()


def test_it_is_one_entry_of_a_recipe():
    parts = [{"name": "core/cross-entropy", "label_smoothing": 0.1}, {"name": "reid/triplet", "margin": "soft"}]
    loss = build_component("loss", "reid/sum", {"losses": parts, "weights": [1, 10]})
    assert [part.margin for part in loss.losses[1:]] == ["soft"]
    with pytest.raises(ConfigError, match="margin"):
        build_component("loss", "reid/sum", {"losses": [{"name": "reid/triplet", "margin": "sof"}]})


def test_what_does_not_fit_is_told(inputs):
    with pytest.raises(ValueError, match="weights must be one per loss: got 1 for 2 losses"):
        Sum([CrossEntropy(), Triplet()], [1.0])
    with pytest.raises(ValueError, match="losses must name at least one"):
        Sum([])
    del inputs["cosines"]
    with pytest.raises(UserError, match=r"ArcFace takes cosines, which this task does not give \(features, logits\)"):
        Sum([ArcFace()])(inputs, LABELS)
