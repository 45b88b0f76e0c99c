import numpy as np
import pytest
import torch
from loss_oracles import contrastive, features, slope
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import CircleLoss, ContrastiveLoss, CrossBatchMemory

from tag_core.builtin.losses import CrossEntropy
from tag_core.errors import UserError
from tag_plugins_reid.losses.circle import Circle
from tag_plugins_reid.losses.contrastive import Contrastive
from tag_plugins_reid.losses.triplet import Triplet
from tag_plugins_reid.losses.xbm import XBM


def stream(count=6, size=4):
    """Batches of different features, with their labels."""
    generator = torch.Generator().manual_seed(1)
    for number in range(count):
        yield torch.tensor(features(size, seed=number)), torch.randint(0, 3, (size,), generator=generator)


@pytest.mark.parametrize("reduction", ["nonzero", "anchor"])
def test_each_batch_meets_itself_and_the_last_features_put_in(reduction):
    size, weight = 9, 0.7  # no multiple of a batch, so that it wraps round within one
    loss = XBM(Contrastive(reduction=reduction), dim=5, size=size, weight=weight)
    kept, known = np.zeros((0, 5)), []
    for batch, labels in stream():
        y = labels.tolist()
        others, theirs = np.concatenate([batch.float(), kept])[:size], (y + known)[:size]
        kept, known = np.concatenate([batch.float().flip(0), kept])[:size], (y[::-1] + known)[:size]  # newest first

        def oracle(x, y=y, others=others, theirs=theirs):
            within = contrastive(x, y, reduction=reduction)
            return within + weight * contrastive(x, y, reduction=reduction, others=others, theirs=theirs)

        leaf = batch.clone().requires_grad_()
        value = loss(leaf, labels)
        value.backward()
        assert value.item() == pytest.approx(oracle(batch.numpy()), rel=1e-6)
        torch.testing.assert_close(leaf.grad, torch.tensor(slope(oracle, batch.numpy())), rtol=1e-4, atol=1e-6)
    assert loss.log["memory_filled"] == 1


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Contrastive(), ContrastiveLoss(pos_margin=1, neg_margin=0.5, distance=CosineSimilarity())),
        (Circle(), CircleLoss(m=0.25, gamma=128)),
    ],
)
def test_without_the_batch_itself_it_equals_pytorch_metric_learning(ours, theirs):
    loss, other = XBM(ours, dim=5, size=9, within_batch=False), CrossBatchMemory(theirs, 5, memory_size=9)
    for batch, labels in stream():
        torch.testing.assert_close(loss(batch.float(), labels), other(batch.float(), labels))


def test_a_batch_hard_triplet_finds_its_hardest_in_the_memory():
    loss = XBM(Triplet(0.3), dim=2, size=4, within_batch=False)
    first = torch.tensor([[0.0, 0.0], [5.0, 0.0]])
    second = torch.tensor([[1.0, 0.0], [4.0, 0.0]])
    loss(first, torch.tensor([0, 1]))
    value = loss(second, torch.tensor([0, 1]))
    # both anchors: positive in the memory at 1, nearest negative at 3 in the batch
    assert value.item() == 0
    assert loss.log["positive_distance"].item() == pytest.approx(1)
    assert loss.log["negative_distance"].item() == pytest.approx(3)


def test_the_memory_starts_after_the_batches_asked_for():
    loss, plain = XBM(Contrastive(), dim=5, size=64, start=3), Contrastive()
    for number, (batch, labels) in enumerate(stream(5)):
        value = loss(batch, labels)
        if number < 3:
            torch.testing.assert_close(value, plain(batch, labels))
            assert loss.log["memory_filled"] == 0
        else:
            assert loss.log["memory_filled"].item() == pytest.approx((number - 2) * 4 / 64)
            assert loss.log["memory_loss"] > 0


def test_saved_and_loaded_it_goes_on_as_if_never_stopped():
    whole, first, second = (XBM(Contrastive(), dim=5, size=9, start=1) for _ in range(3))
    batches = list(stream())
    expected = [whole(*batch).item() for batch in batches]
    found = [first(*batch).item() for batch in batches[:4]]
    second.load_state_dict(first.state_dict())
    found += [second(*batch).item() for batch in batches[4:]]
    assert found == expected


def test_evaluation_leaves_the_memory_alone():
    loss = XBM(Contrastive(), dim=5, size=9)
    before = {key: value.clone() for key, value in loss.state_dict().items()}
    batch, labels = next(stream())
    torch.testing.assert_close(loss.eval()(batch, labels), Contrastive()(batch, labels))
    torch.testing.assert_close(loss.state_dict(), before, rtol=0, atol=0)


def test_the_first_of_label_zero_in_a_memory_just_filled_counts():
    """In a peer a memory whose last label is 0 passes for an empty one."""
    loss = XBM(Contrastive(), dim=1, size=2, within_batch=False)
    loss(torch.ones(2, 1), torch.tensor([1, 0]))
    assert loss.log["memory_filled"] == 1


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match="loss must be one over pairs, such as reid/contrastive"):
        XBM(CrossEntropy(), dim=5)
    with pytest.raises(ValueError, match="start needs within_batch"):
        XBM(Contrastive(), dim=5, start=1, within_batch=False)
    with pytest.raises(ValueError, match="size and dim must be at least 1 and start 0 or more, got 0, 5 and 0"):
        XBM(Contrastive(), dim=5, size=0)
    with pytest.raises(UserError, match="memory is for features of 4 numbers, these have 5; set its dim=5"):
        XBM(Contrastive(), dim=4)(*next(stream()))
