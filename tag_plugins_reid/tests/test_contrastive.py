import pytest
import torch
from loss_oracles import LABELS, contrastive, features, same
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.losses import ContrastiveLoss

from tag_plugins_reid.losses.contrastive import Contrastive


@pytest.mark.parametrize("reduction", ["nonzero", "anchor"])
@pytest.mark.parametrize("margins", [(1.0, 0.5), (1.0, 0.0), (-0.1, -0.2)])
def test_value_and_gradient_equal_one_pair_at_a_time(margins, reduction):
    loss = Contrastive(*margins, reduction)
    assert same(loss, lambda x: contrastive(x, LABELS, *margins, reduction), features(), LABELS) > 0


@pytest.mark.parametrize("margins", [(1.0, 0.5), (-0.1, 0.1)])
def test_it_equals_pytorch_metric_learning(margins):
    x, labels = torch.tensor(features()), torch.tensor(LABELS)
    other = ContrastiveLoss(pos_margin=margins[0], neg_margin=margins[1], distance=CosineSimilarity())
    torch.testing.assert_close(Contrastive(*margins)(x, labels), other(x, labels))


def test_the_anchor_form_equals_the_published_code_of_cross_batch_memory():
    x = torch.nn.functional.normalize(torch.tensor(features()))
    labels, total = torch.tensor(LABELS), 0.0
    for row, label in zip(x @ x.T, labels, strict=True):
        positive = row[(labels == label) & (row < 1 - 1e-5)]
        negative = row[(labels != label) & (row > 0.5)]
        total += (1 - positive).sum() + negative.sum()
    torch.testing.assert_close(Contrastive(reduction="anchor")(x, labels), total / len(x))


def test_two_equal_features_are_a_perfect_pair_and_not_left_out_of_the_anchors():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    loss = Contrastive(reduction="anchor")(x, torch.tensor([0, 0, 0, 1]))
    # the pairs (0,2), (1,2) both ways cost 1 each; (0,3), (1,3) both ways cost their cosine, 1
    assert loss.item() == pytest.approx((4 + 4) / 4)
