import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_oracles import cosines, margin_softmax, same
from pytorch_metric_learning.losses import ArcFaceLoss, CosFaceLoss

from tag_core.builtin.losses import CrossEntropy
from tag_plugins_reid.losses.am_softmax import AMSoftmax
from tag_plugins_reid.losses.arcface import ArcFace
from tag_plugins_reid.losses.circle_softmax import CircleSoftmax
from tag_plugins_reid.losses.cosface import CosFace

LABELS = [0, 3, 1, 2, 0, 2]
CASES = [
    (AMSoftmax(), "cosface", 30.0, 0.35),
    (CosFace(), "cosface", 64.0, 0.35),
    (CosFace(8.0, 0.1), "cosface", 8.0, 0.1),
    (ArcFace(), "arcface", 64.0, 0.5),
    (ArcFace(30.0, 0.3), "arcface", 30.0, 0.3),
    (ArcFace(4.0, 2.0), "arcface", 4.0, 2.0),
    (CircleSoftmax(), "circle", 64.0, 0.35),
    (CircleSoftmax(256.0, 0.25), "circle", 256.0, 0.25),
]


@pytest.mark.parametrize(("loss", "kind", "scale", "margin"), CASES)
def test_value_and_gradient_equal_one_sample_at_a_time(loss, kind, scale, margin):
    for seed in range(4):
        c = cosines(seed=seed)
        value = same(
            loss,
            lambda x: margin_softmax(kind, x, LABELS, scale, margin),
            c,
            LABELS,
            tangent=lambda x, c=c: margin_softmax(kind, x, LABELS, scale, margin, at=c),
        )
        assert value > 0


def test_the_easy_margin_holds_below_ninety_degrees_only():
    c = cosines(seed=1)
    assert {bool(c[i, y] > 0) for i, y in enumerate(LABELS)} == {True, False}
    same(ArcFace(8.0, 0.5, True), lambda x: margin_softmax("arcface", x, LABELS, 8.0, 0.5, easy=True), c, LABELS)


@pytest.mark.parametrize(
    ("ours", "theirs"), [(CosFace(), CosFaceLoss), (ArcFace(64.0, math.radians(28.6)), ArcFaceLoss)]
)
def test_it_equals_pytorch_metric_learning(ours, theirs):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(64, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 5, (64,), generator=generator)
    torch.manual_seed(0)
    other = theirs(num_classes=5, embedding_size=3).double()
    c = F.normalize(features) @ F.normalize(other.W, dim=0)
    assert c[torch.arange(64), labels].min() < math.cos(math.pi - 0.5), "some angle is beyond the fallback"
    torch.testing.assert_close(ours(c, labels), other(features, labels))


def test_the_fallback_begins_where_the_angle_and_the_margin_make_half_a_turn():
    edge = math.cos(math.pi - 0.5)
    before, after = edge + 1e-9, edge - 1e-9
    found = ArcFace(64.0, 0.5).lowered(torch.tensor([before, after], dtype=torch.float64))
    np.testing.assert_allclose(found, [-1, after - 0.5 * math.sin(0.5)], atol=1e-8)


def test_the_fallback_of_the_taobao_solution_is_the_same():
    """It writes m * sin(pi - m), .0886561 for m = .3."""
    found = ArcFace(30.0, 0.3).lowered(torch.tensor([-0.99]))
    assert found.item() == pytest.approx(-0.99 - 0.0886561, abs=1e-6)


@pytest.mark.parametrize("loss", [case[0] for case in CASES] + [ArcFace(easy_margin=True)])
@pytest.mark.parametrize("edge", [1.0, -1.0, 1.0000001, -1.0000001])
def test_cosines_of_one_give_finite_losses_and_gradients(loss, edge):
    c = torch.full((2, 3), edge, requires_grad=True)
    value = loss(c, torch.tensor([0, 2]))
    value.backward()
    assert value.isfinite()
    assert c.grad.isfinite().all()


def test_at_a_cosine_of_one_the_margin_is_whole():
    for edge, expected in ((1.0, math.cos(0.5)), (-1.0, -1 - 0.5 * math.sin(0.5))):
        assert ArcFace().lowered(torch.tensor([edge])).item() == pytest.approx(expected, abs=1e-6)


def test_without_margin_they_are_scaled_cross_entropy():
    c, labels = torch.tensor(cosines()), torch.tensor(LABELS)
    for loss in (AMSoftmax(9.0, 0.0), CosFace(9.0, 0.0), ArcFace(9.0, 0.0)):
        torch.testing.assert_close(loss(c, labels), F.cross_entropy(9 * c, labels), rtol=1e-9, atol=0)


def test_unknown_labels_are_left_out():
    c, labels = torch.tensor(cosines()), torch.tensor(LABELS)
    labels[[1, 4]] = -1
    for loss, *_ in CASES:
        torch.testing.assert_close(loss(c, labels), loss(c[labels >= 0], labels[labels >= 0]))


def test_impossible_options_are_refused():
    with pytest.raises(ValueError, match="scale must be above 0 and margin 0 or more, got 0 and 0.35"):
        AMSoftmax(scale=0)
    with pytest.raises(ValueError, match="scale must be above 0 and margin 0 or more, got 64.0 and -1"):
        CosFace(margin=-1)
    with pytest.raises(ValueError, match="margin must be below pi"):
        ArcFace(margin=28.6)


def test_fast_reids_label_smoothing_is_the_cores_with_a_little_more():
    """fast-reid spreads epsilon over the C - 1 wrong classes; see the README."""
    logits, epsilon, classes = cosines() * 5, 0.1, 4
    target = np.full((6, classes), epsilon / (classes - 1))
    target[range(6), LABELS] = 1 - epsilon
    expected = -(target * np.log(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))).sum(1).mean()
    loss = CrossEntropy(label_smoothing=epsilon * classes / (classes - 1))
    assert loss(torch.tensor(logits), torch.tensor(LABELS)).item() == pytest.approx(expected, rel=1e-9)
