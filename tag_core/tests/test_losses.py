import numpy as np
import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from tag_core.builtin.losses import BCE, CrossEntropy, Focal
from tag_core.errors import UserError


@pytest.fixture
def logits():
    return torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 3


LABELS = torch.tensor([0, 3, 1, 1, 2, 0])
MANY = torch.tensor([[1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 0, 1, 1], [1, 0, 0, 0.0]])


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_cross_entropy_with_smoothing_equals_the_textbook(logits):
    target = np.eye(4)[LABELS] * 0.9 + 0.1 / 4
    expected = -(target * np.log(softmax(logits.numpy()))).sum(1).mean()
    assert CrossEntropy(label_smoothing=0.1)(logits, LABELS).item() == pytest.approx(expected, rel=1e-9)


def test_class_weights_make_a_weighted_mean(logits):
    weights = np.array([1.0, 2.0, 0.5, 3.0])
    p = softmax(logits.numpy())[np.arange(6), LABELS]
    expected = (-np.log(p) * weights[LABELS]).sum() / weights[LABELS].sum()
    loss = CrossEntropy(class_weights=weights.tolist()).double()
    assert loss(logits, LABELS).item() == pytest.approx(expected, rel=1e-9)
    assert not loss.state_dict(), "weights of a loss are no part of a model's checkpoint"


def test_bce_as_mean_and_as_youtube_8m_sum(logits):
    x, y = logits.numpy(), MANY.numpy()
    p = 1 / (1 + np.exp(-x))
    elements = -(y * np.log(p) + (1 - y) * np.log(1 - p))
    assert BCE()(logits, MANY).item() == pytest.approx(elements.mean(), rel=1e-9)
    assert BCE(reduction="sum")(logits, MANY).item() == pytest.approx(elements.sum(1).mean(), rel=1e-9)
    weights = np.array([1.0, 4.0, 0.5, 2.0])
    elements = -(weights * y * np.log(p) + (1 - y) * np.log(1 - p))
    loss = BCE(pos_weight=weights.tolist()).double()
    assert loss(logits, MANY).item() == pytest.approx(elements.mean(), rel=1e-9)


@pytest.mark.parametrize("alpha", [None, 0.25])
def test_sigmoid_focal_equals_torchvision(logits, alpha):
    loss = Focal(gamma=2.0, alpha=alpha)(logits.float(), MANY)
    other = sigmoid_focal_loss(logits.float(), MANY, -1 if alpha is None else alpha, 2.0, reduction="mean")
    torch.testing.assert_close(loss, other)


def test_softmax_focal_equals_the_paper(logits):
    p = softmax(logits.numpy())[np.arange(6), LABELS]
    expected = (-((1 - p) ** 1.5) * np.log(p)).mean()
    assert Focal(gamma=1.5)(logits, LABELS).item() == pytest.approx(expected, rel=1e-5)
    assert Focal(gamma=1.5, alpha=0.25)(logits, LABELS).item() == pytest.approx(0.25 * expected, rel=1e-5)


def test_focal_without_focus_is_the_plain_loss(logits):
    logits = logits.float()
    torch.testing.assert_close(Focal(gamma=0.0)(logits, LABELS), CrossEntropy()(logits, LABELS))
    torch.testing.assert_close(Focal(gamma=0.0)(logits, MANY), BCE()(logits, MANY))


@pytest.mark.parametrize(
    ("loss", "targets"),
    [
        (CrossEntropy(label_smoothing=0.1, class_weights=[1.0, 2.0, 3.0, 4.0]), LABELS),
        (BCE(pos_weight=[9.0, 9.0, 9.0, 9.0]), MANY),
        (Focal(gamma=0.5), LABELS),
        (Focal(gamma=2.0), LABELS),
        (Focal(gamma=0.5, alpha=0.25), MANY),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_gradients_are_finite_even_for_saturated_logits(logits, loss, targets, scale):
    logits[0, 0] = 40  # the true class of this sample is certain
    wild = (logits.float() * scale).requires_grad_()
    loss(wild, targets).backward()
    assert wild.grad.isfinite().all()
    assert wild.grad.abs().sum() > 0


def test_cross_entropy_leaves_unknown_labels_out(logits):
    labels = LABELS.clone()
    labels[[1, 4]] = -1
    kept = [0, 2, 3, 5]
    torch.testing.assert_close(CrossEntropy()(logits, labels), CrossEntropy()(logits[kept], LABELS[kept]))
    logits = logits.clone().requires_grad_()
    loss = CrossEntropy(0.1)(logits, torch.full_like(labels, -1))
    loss.backward()
    assert (loss.item(), logits.grad.abs().max()) == (0, 0)


def test_class_indices_do_for_binary_losses(logits):
    one_hot = torch.nn.functional.one_hot(LABELS, 4).double()
    torch.testing.assert_close(BCE()(logits, LABELS), BCE()(logits, one_hot))


def test_half_precision_logits_give_a_full_precision_loss(logits):
    with torch.autocast("cpu", torch.bfloat16):
        for loss, targets in ((CrossEntropy(), LABELS), (BCE(), MANY), (Focal(), LABELS)):
            assert loss(logits.bfloat16(), targets).dtype == torch.float32


def test_the_wrong_number_of_weights_is_told_with_both_numbers(logits):
    with pytest.raises(UserError, match="class_weights has 2 values for 4 classes"):
        CrossEntropy(class_weights=[1.0, 2.0])(logits, LABELS)
    with pytest.raises(UserError, match="pos_weight has 1 values for 4 classes"):
        BCE(pos_weight=[1.0])(logits, MANY)


def test_a_negative_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma must be 0 or more, not -1"):
        Focal(gamma=-1.0)
