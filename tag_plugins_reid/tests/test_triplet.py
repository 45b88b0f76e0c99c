import numpy as np
import pytest
import torch
from loss_oracles import LABELS, features, same, triplet, unit
from pytorch_metric_learning.distances import LpDistance
from pytorch_metric_learning.losses import TripletMarginLoss
from pytorch_metric_learning.miners import BatchHardMiner
from pytorch_metric_learning.reducers import MeanReducer

from tag_plugins_reid.losses.triplet import Triplet


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("margin", [0.0, 0.3, 2.0, "soft"])
def test_value_and_gradient_equal_one_triplet_at_a_time(margin, adaptive):
    value = same(Triplet(margin, adaptive), lambda x: triplet(x, LABELS, margin, adaptive), features(), LABELS)
    assert value > 0


def test_normalised_features_are_compared_by_direction_alone():
    loss = Triplet(0.3, normalize=True)
    value = same(loss, lambda x: triplet(unit(x), LABELS), features(), LABELS)
    scaled = torch.tensor(features() * np.arange(1, 9)[:, None])
    assert loss(scaled, torch.tensor(LABELS)).item() == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("margin", [0.3, "soft"])
def test_it_equals_pytorch_metric_learning(margin):
    labels, x = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor(features(6))
    distance = LpDistance(normalize_embeddings=False)
    soft = margin == "soft"
    other = TripletMarginLoss(0 if soft else margin, smooth_loss=soft, distance=distance, reducer=MeanReducer())
    mined = BatchHardMiner(distance=LpDistance(normalize_embeddings=False))(x, labels)
    torch.testing.assert_close(Triplet(margin)(x, labels), other(x, labels, mined))


def test_an_identity_with_one_feature_is_a_negative_but_no_anchor():
    x = torch.tensor([[0.0], [1.0], [3.0]])
    loss = Triplet(2.5)
    # anchors 0 and 1: positive at 1, negatives at 3 and 2; feature 2 has no positive
    assert loss(x, torch.tensor([7, 7, 9])).item() == pytest.approx((0.5 + 1.5) / 2)
    assert {name: value.item() for name, value in loss.log.items()} == pytest.approx(
        {"triplet_right": 1.0, "triplet_active": 2, "positive_distance": 1.0, "negative_distance": 2.5}
    )


def test_unknown_labels_make_no_pair():
    x, labels = torch.tensor(features()), torch.tensor(LABELS)
    labels[[1, 6]] = -1
    known = labels >= 0
    for adaptive in (False, True):
        loss = Triplet(0.3, adaptive)
        torch.testing.assert_close(loss(x, labels), loss(x[known], labels[known]))


def test_far_away_features_keep_their_weights():
    """The peers' softmin has no more weight than its guard of 1e-6 where distances are above 14."""
    x = torch.tensor([[0.0], [1.0], [40.0], [41.0]], dtype=torch.float64)
    loss = Triplet(0.3, adaptive_weights=True)
    loss(x, torch.tensor([0, 0, 1, 1]))
    assert loss.log["negative_distance"].item() == pytest.approx(
        triplet_nearest([40, 41]) / 2 + triplet_nearest([39, 40]) / 2
    )


def triplet_nearest(distances):
    weights = np.exp(-np.array(distances, dtype=float))
    return (weights * distances).sum() / weights.sum()


def test_a_negative_margin_is_refused():
    with pytest.raises(ValueError, match=r"margin must be 0 or more, not -0\.1"):
        Triplet(-0.1)
