import numpy as np
import pytest
import torch
from torch import nn

from tag_core.errors import UserError
from tag_plugins_video.tasks.knn import KNN

CLASSES = ["a", "b", "c"]


class Pixels(nn.Module):
    """The pixels of [N, 3, 2, 1, 1] themselves, with a batch norm that training would move."""

    feature_dim = 6

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(6)

    def forward(self, clips):
        return self.norm(clips.flatten(1))


def build(**options):
    return KNN(Pixels(), classes=CLASSES, **{"bank_size": 50, **options})


def batch(count, seed):
    generator = torch.Generator().manual_seed(seed)
    clip = torch.randn(count, 2, 3, 1, 1, generator=generator)
    label = torch.randint(0, 3, (count,), generator=generator)
    return {"clip": clip, "label": label, "source": list(map(str, range(count))), "damage": [None] * count}


def filled(**options):
    task = build(**options).train()
    for part in (batch(20, 0), batch(17, 1)):
        task(part)
    return task.eval()


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (5, 0.07), (20, 0.5), (100, 1.0)])
def test_votes_are_those_of_scikit_learn(k, temperature):
    neighbors = pytest.importorskip("sklearn.neighbors")
    parts = [batch(20, 0), batch(17, 1)]
    features = [Pixels().eval()(part["clip"].transpose(1, 2)).detach().numpy() for part in [*parts, batch(30, 2)]]
    reference = neighbors.KNeighborsClassifier(
        min(k, 37), weights=lambda d: np.exp((1 - d) / temperature), metric="cosine", algorithm="brute"
    )
    reference.fit(np.concatenate(features[:2]), torch.cat([part["label"] for part in parts]).numpy())
    scores = filled(k=k, temperature=temperature).predict(batch(30, 2))["scores"]
    np.testing.assert_allclose(scores.numpy(), reference.predict_proba(features[2]), atol=1e-4)


def test_filling_the_bank_leaves_the_backbone_and_its_statistics_untouched():
    task = build().train()
    before = {key: value.clone() for key, value in task.backbone.state_dict().items()}
    loss = task(batch(20, 0))["loss"]
    loss.backward()
    assert loss.item() == 0
    assert all(torch.equal(value, before[key]) for key, value in task.backbone.state_dict().items())
    assert [name for name, p in task.named_parameters() if p.requires_grad] == ["nothing"]
    assert float(task.nothing.grad) == 0


def test_records_tell_labels_by_their_votes():
    task, data = filled(k=5), batch(4, 2)
    records = list(task.records(task.predict(data), data))
    assert [record.truth for record in records] == [CLASSES[i] for i in data["label"].tolist()]
    assert all(sum(record.scores) == pytest.approx(1, abs=1e-5) for record in records)


def test_an_empty_bank_and_one_without_room_say_what_to_do():
    with pytest.raises(UserError, match="bank is empty; train for one epoch"):
        build().eval().predict(batch(2, 0))
    task = build(bank_size=30).train()
    task(batch(20, 0))
    with pytest.raises(UserError, match=r"room for 30 clips; set task\.bank_size"):
        task(batch(17, 1))


def test_clips_without_a_label_of_their_own_are_refused():
    for label in ({}, {"label": torch.zeros(4, 3)}):
        with pytest.raises(UserError, match=r"every clip needs one label; set data\.train\.labelled = true"):
            build().train()({"clip": batch(4, 0)["clip"], **label})
