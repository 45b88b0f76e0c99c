import pytest
import torch
from loss_oracles import LABELS, circle, features, same
from pytorch_metric_learning.losses import CircleLoss
from pytorch_metric_learning.reducers import AvgNonZeroReducer

from tag_plugins_reid.losses.circle import Circle


@pytest.mark.parametrize(("scale", "margin"), [(128.0, 0.25), (80.0, 0.4), (1.0, 0.0)])
def test_value_and_gradient_equal_one_pair_at_a_time(scale, margin):
    x = features()
    same(
        Circle(scale, margin),
        lambda y: circle(y, LABELS, scale, margin),
        x,
        LABELS,
        tangent=lambda y: circle(y, LABELS, scale, margin, at=x),
    )


def test_it_equals_pytorch_metric_learning():
    x, labels = torch.tensor(features()), torch.tensor(LABELS)
    other = CircleLoss(m=0.25, gamma=128, reducer=AvgNonZeroReducer())
    torch.testing.assert_close(Circle()(x, labels), other(x, labels))


def test_a_large_scale_does_not_overflow():
    x = torch.tensor(features(), dtype=torch.float32, requires_grad=True)
    loss = Circle(scale=4096.0)(x, torch.tensor(LABELS))
    loss.backward()
    assert loss.isfinite()
    assert x.grad.isfinite().all()


def test_a_scale_of_zero_is_refused():
    with pytest.raises(ValueError, match="scale must be above 0, not 0"):
        Circle(scale=0)
