from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loss_oracles import features, margin_softmax, slope, unit

from tag_core.errors import UserError
from tag_plugins_reid.losses.arcface import ArcFace
from tag_plugins_reid.losses.contrastive import Contrastive
from tag_plugins_reid.losses.xbm_softmax import XBMSoftmax

WEIGHTS = features(3, seed=9)


def table(embeddings, weights):
    cosines = F.normalize(embeddings) @ F.normalize(weights).T
    return {"cosines": cosines, "embeddings": embeddings, "class_weights": weights}


def test_value_and_gradients_are_those_of_batch_and_memory_in_a_row():
    loss, size = XBMSoftmax(ArcFace(30.0, 0.3), dim=5, size=6), 6
    kept, known = np.zeros((0, 5)), []
    for number in range(4):
        batch, labels = features(4, seed=number), np.random.default_rng(number).integers(0, 3, 4).tolist()
        kept = np.concatenate([kept, batch.astype(np.float32)])[-size:]
        known = (known + labels)[-size:]

        def oracle(x, weights, y=labels + known, memory=kept):
            joined = unit(np.concatenate([x, memory]))
            return margin_softmax("arcface", joined @ unit(weights).T, y, 30.0, 0.3)

        x, weights = (torch.tensor(a, requires_grad=True) for a in (batch, WEIGHTS))
        value = loss(table(x, weights), torch.tensor(labels))
        value.backward()
        assert value.item() == pytest.approx(oracle(batch, WEIGHTS), rel=1e-5)
        np.testing.assert_allclose(x.grad, slope(partial(oracle, weights=WEIGHTS), batch), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(weights.grad, slope(partial(oracle, batch), WEIGHTS), rtol=1e-3, atol=1e-5)


def test_saved_and_loaded_it_goes_on_as_if_never_stopped():
    whole, first, second = (XBMSoftmax(ArcFace(), dim=5, size=6) for _ in range(3))
    batches = [
        (table(torch.tensor(features(4, seed=n)), torch.tensor(WEIGHTS)), torch.tensor([0, 1, 2, n])) for n in range(3)
    ]
    expected = [whole(*batch).item() for batch in batches]
    found = [first(*batch).item() for batch in batches[:2]]
    second.load_state_dict(first.state_dict())
    assert [*found, second(*batches[2]).item()] == expected


def test_in_evaluation_and_with_cosines_alone_it_is_the_loss_itself():
    inputs, labels = table(torch.tensor(features(4)), torch.tensor(WEIGHTS)), torch.tensor([0, 1, 2, 1])
    loss, expected = XBMSoftmax(ArcFace(), dim=5), ArcFace()(inputs["cosines"], labels)
    torch.testing.assert_close(loss(inputs["cosines"], labels), expected)
    torch.testing.assert_close(loss.eval()(inputs, labels), expected)
    assert loss.memory.filled() == 0


def test_what_does_not_fit_is_told():
    with pytest.raises(ValueError, match=r"a softmax with a margin, such as reid/arcface; for pairs there is reid/xbm"):
        XBMSoftmax(Contrastive(), dim=5)
    inputs = table(torch.tensor(features(4)), torch.tensor(WEIGHTS))
    with pytest.raises(UserError, match="set its dim=5"):
        XBMSoftmax(ArcFace(), dim=512)(inputs, torch.tensor([0, 1, 2, 1]))
    del inputs["class_weights"]
    with pytest.raises(UserError, match="needs class_weights of the task, which gives cosines, embeddings"):
        XBMSoftmax(ArcFace(), dim=5)(inputs, torch.tensor([0, 1, 2, 1]))
