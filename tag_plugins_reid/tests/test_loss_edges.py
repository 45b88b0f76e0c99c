"""What every loss of the plugin must bear: hopeless batches, halves, large numbers, scripts of the engine."""

import copy
import pickle

import pytest
import torch

from tag_plugins_reid.losses.am_softmax import AMSoftmax
from tag_plugins_reid.losses.arcface import ArcFace
from tag_plugins_reid.losses.circle import Circle
from tag_plugins_reid.losses.circle_softmax import CircleSoftmax
from tag_plugins_reid.losses.contrastive import Contrastive
from tag_plugins_reid.losses.cosface import CosFace
from tag_plugins_reid.losses.sum import Sum
from tag_plugins_reid.losses.triplet import Triplet
from tag_plugins_reid.losses.xbm import XBM

PAIRS = [Triplet(), Triplet("soft"), Triplet(0.3, True), Triplet("soft", True, True), Circle(), Contrastive()]
PAIRS += [Contrastive(reduction="anchor")]
SOFTMAXES = [AMSoftmax(), CosFace(), ArcFace(), ArcFace(easy_margin=True), CircleSoftmax()]


def told(loss):
    return f"{type(loss).__name__}-{'-'.join(str(v) for k, v in vars(loss).items() if k in ('margin', 'reduction'))}"


def with_memory(loss):
    return XBM(copy.deepcopy(loss), dim=6, size=8)


def run(loss, inputs, labels, autocast=False):
    leaf = inputs.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        value = loss(leaf, torch.as_tensor(labels))
    value.backward()
    assert value.isfinite()
    assert leaf.grad.isfinite().all()
    return value.item(), leaf.grad


def randn(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("wrap", [lambda loss: loss, with_memory], ids=["alone", "with memory"])
@pytest.mark.parametrize("loss", PAIRS, ids=told)
class TestPairs:
    @pytest.mark.parametrize("labels", [[3], [-1], [-1, -1, -1]], ids=["one", "one unknown", "unknown"])
    def test_a_batch_without_pairs_is_a_loss_of_zero_with_a_gradient_of_zero(self, loss, wrap, labels):
        value, gradient = run(wrap(loss), randn(len(labels), 6), labels)
        assert value == 0
        assert not gradient.any()

    @pytest.mark.parametrize("labels", [[2, 2, 2, 2], [0, 1, 2, 3]], ids=["no negatives", "no positives"])
    def test_without_negatives_or_positives_only_the_contrastive_loss_has_pairs(self, loss, wrap, labels):
        value, gradient = run(wrap(loss), randn(4, 6) + 1, labels)  # all in one direction
        assert (value == 0) == (not isinstance(loss, Contrastive))
        assert bool(gradient.any()) == isinstance(loss, Contrastive)

    @pytest.mark.parametrize("rows", ["equal", "zeros", "one zero"])
    def test_equal_features_and_zeros_are_borne(self, loss, wrap, rows):
        x = randn(1, 6).repeat(4, 1) if rows == "equal" else randn(4, 6) * (rows == "one zero")
        x[0] *= rows != "one zero"
        run(wrap(loss), x, [0, 0, 1, 1])

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_under_autocast_it_is_that_of_full_precision(self, loss, wrap, dtype):
        x, labels = (randn(8, 6) * 300).to(dtype), torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])  # squares overflow fp16
        expected, slope = run(wrap(loss), x.float(), labels)
        found, gradient = run(wrap(loss), x, labels, autocast=True)
        assert found == expected == pytest.approx(run(wrap(loss), x.double(), labels)[0], rel=1e-4)
        assert gradient.dtype == dtype
        torch.testing.assert_close(gradient, slope.to(dtype))

    def test_the_order_of_a_batch_does_not_matter(self, loss, wrap):
        x, labels = randn(6, 6), torch.tensor([0, 0, 1, 1, 2, 2])
        order = torch.tensor([4, 1, 5, 0, 3, 2])
        assert run(wrap(loss), x[order], labels[order])[0] == pytest.approx(run(wrap(loss), x, labels)[0], rel=1e-5)


@pytest.mark.parametrize("loss", SOFTMAXES, ids=told)
class TestSoftmaxes:
    def test_one_class_is_a_loss_of_zero_with_a_gradient_of_zero(self, loss):
        value, gradient = run(loss, torch.tensor([[0.3], [-0.9]]), [0, 0])
        assert value == 0
        assert not gradient.any()

    @pytest.mark.parametrize("labels", [[-1, -1], []], ids=["unknown", "empty"])
    def test_without_a_label_the_loss_is_zero(self, loss, labels):
        value, gradient = run(loss, torch.zeros(len(labels), 3), torch.tensor(labels, dtype=torch.int64))
        assert value == 0
        assert not gradient.any()

    def test_one_sample_will_do(self, loss):
        assert run(loss, torch.tensor([[0.1, 0.2, -0.3]]), [1])[0] > 0

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_under_autocast_it_is_that_of_full_precision(self, loss, dtype):
        cosines, labels = randn(8, 5).tanh().to(dtype), torch.arange(8) % 5
        expected, slope = run(loss, cosines.float(), labels)
        found, gradient = run(loss, cosines, labels, autocast=True)
        assert found == expected
        torch.testing.assert_close(gradient, slope.to(dtype))


@pytest.mark.parametrize("loss", [*PAIRS, *SOFTMAXES, with_memory(Triplet()), Sum([Triplet(), ArcFace()])], ids=told)
def test_after_a_batch_it_can_still_be_copied_and_pickled(loss):
    """The engine copies a task for its moving average, and plugins pickle."""
    x, labels = randn(4, 6).tanh().requires_grad_(), torch.tensor([0, 0, 1, 1])
    loss(x, labels).backward()
    torch.testing.assert_close(copy.deepcopy(loss)(x, labels), pickle.loads(pickle.dumps(loss))(x, labels))
