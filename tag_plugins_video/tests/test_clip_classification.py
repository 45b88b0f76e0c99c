import pickle

import pytest
import torch
from torch import nn

from tag_core.errors import UserError
from tag_plugins_video.models.c3d_tiny import C3DTiny
from tag_plugins_video.tasks.classification import Classification
from tag_plugins_video.tasks.clips import KINETICS_MEAN, KINETICS_STD

CLASSES = ["a", "b", "c", "d"]


def build(**options):
    torch.manual_seed(0)
    options = {"loss": nn.CrossEntropyLoss(), **options}
    task = Classification(C3DTiny(width=4), classes=CLASSES, **options)
    nn.init.normal_(task.head.weight, std=20.0)
    return task.eval()


def batch(*shape, **more):
    clip = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    names = [f"{i}.mp4" for i in range(shape[0])]
    return {"clip": clip, "source": names, "damage": [None] * shape[0], **more}


def test_integers_are_scaled_normalised_and_turned_to_channels_first():
    task = build()
    clip = batch(2, 5, 3, 8, 9)["clip"]
    mean, std = (torch.tensor(v, dtype=torch.float64).view(3, 1, 1) for v in (KINETICS_MEAN, KINETICS_STD))
    expected = ((clip.double() / 255 - mean) / std).permute(0, 2, 1, 3, 4).float()
    torch.testing.assert_close(task.prepare(clip), expected)


def test_clips_of_other_than_three_channels_take_a_mean_for_each_of_theirs():
    torch.manual_seed(0)
    options = {"classes": CLASSES, "loss": nn.CrossEntropyLoss(), "mean": (0.5, 0.25), "std": (0.1, 0.2)}
    task = Classification(C3DTiny(width=4, channels=2), **options).eval()
    clip = batch(2, 5, 2, 8, 9)["clip"]
    prepared = task.prepare(clip)
    torch.testing.assert_close(prepared[:, 1], (clip[:, :, 1] / 255 - 0.25) / 0.2)
    assert task.predict({"clip": clip})["scores"].shape == (2, 4)
    with pytest.raises(UserError, match=r"clips of 3 channels: task.mean and task.std have 2"):
        task.prepare(batch(2, 5, 3, 8, 9)["clip"])
    for wrong in ({"mean": (0.5,)}, {"mean": (), "std": ()}, {"std": (0.1, 0.0)}):
        with pytest.raises(ValueError, match="a number for each channel"):
            Classification(C3DTiny(), **{**options, **wrong})


def test_the_first_weights_of_the_classifier_are_normal_or_within_a_bound():
    torch.manual_seed(0)
    options = {"classes": [str(i) for i in range(400)], "loss": nn.CrossEntropyLoss()}
    normal = Classification(C3DTiny(width=64), **options).head.requires_grad_(False)
    even = Classification(C3DTiny(width=64), head_bound=2048**-0.5, **options).head.requires_grad_(False)
    assert float(normal.weight.std()) == pytest.approx(0.01, rel=0.02)
    assert float(normal.weight.abs().max()) > 0.03
    assert float(even.weight.abs().max()) == pytest.approx(2048**-0.5, rel=0.001)
    assert float(even.weight.std()) == pytest.approx((1 / 2048 / 3) ** 0.5, rel=0.02)  # of an even distribution
    assert not normal.bias.any()
    assert not even.bias.any()


def test_floats_are_taken_as_they_are():
    clip = torch.randn(2, 5, 3, 8, 9)
    assert torch.equal(build().prepare(clip), clip.permute(0, 2, 1, 3, 4))


def test_scores_are_the_mean_of_the_views_probabilities_or_of_their_logits():
    data = batch(2, 3, 4, 3, 8, 8)
    with torch.no_grad():
        single = [build().predict({"clip": data["clip"][:, v]}) for v in range(3)]
        logits = torch.stack([out["logits"] for out in single])
        scores, by_logits = build().predict(data), build(views="logits").predict(data)
    torch.testing.assert_close(scores["scores"], logits.softmax(-1).mean(0))
    torch.testing.assert_close(by_logits["scores"], logits.mean(0).softmax(-1))
    torch.testing.assert_close(scores["logits"], logits.mean(0))
    torch.testing.assert_close(scores["embedding"], torch.stack([o["embedding"] for o in single]).mean(0))
    assert not torch.allclose(scores["scores"], by_logits["scores"], atol=1e-4)


def test_training_counts_every_view_as_a_sample():
    task = build()
    data = batch(2, 3, 4, 3, 8, 8, label=torch.tensor([1, 3]))
    flat = {"clip": data["clip"].flatten(0, 1), "label": torch.tensor([1, 1, 1, 3, 3, 3])}
    torch.testing.assert_close(task(data)["loss"], task(flat)["loss"])


def test_the_loss_of_a_prediction_is_that_of_its_logits():
    task, label = build(), torch.tensor([1, 3])
    outputs = task.predict(batch(2, 4, 3, 8, 8, label=label))
    torch.testing.assert_close(outputs["loss"], nn.functional.cross_entropy(outputs["logits"], label))
    assert "loss" not in task.predict(batch(2, 4, 3, 8, 8))


def test_the_loss_reaches_every_parameter():
    task = build(dropout=0.5).train()
    task(batch(4, 4, 3, 8, 8, label=torch.tensor([0, 1, 2, 3])))["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.parameters())


def test_dropout_acts_in_training_only():
    task, data = build(dropout=0.9), batch(2, 4, 3, 8, 8, label=torch.tensor([0, 1]))
    assert torch.equal(task(data)["loss"], task(data)["loss"])
    task.train()
    assert not torch.equal(task(data)["loss"], task(data)["loss"])


def test_a_record_has_the_best_labels_first_with_truth_time_and_damage():
    task = build(top_k=2)
    data = batch(2, 4, 3, 8, 8, label=torch.tensor([1, 3]), time=[(0.0, 1.0), (0.5, 2.0)])
    data["damage"] = [None, "half of it"]
    with torch.no_grad():
        outputs = task.predict(data)
    records = list(task.records(outputs, data))
    for i, record in enumerate(records):
        order = outputs["scores"][i].argsort(descending=True)[:2].tolist()
        assert record.labels == [CLASSES[j] for j in order]
        assert record.scores == pytest.approx([float(outputs["scores"][i, j]) for j in order])
    assert [record.source for record in records] == ["0.mp4", "1.mp4"]
    assert [record.truth for record in records] == ["b", "d"]
    assert (records[1].time, records[1].damage) == ([0.5, 2.0], "half of it")


def test_records_without_labels_have_no_truth_and_at_most_all_classes():
    task = build(top_k=10)
    data = batch(1, 4, 3, 8, 8)
    record = next(iter(task.records(task.predict(data), data)))
    assert record.truth is None
    assert record.embedding is None
    assert sorted(record.labels) == CLASSES


def test_several_labels_have_independent_scores():
    task = build(multi_label=True, loss=nn.BCEWithLogitsLoss())
    label = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1]])
    data = batch(2, 4, 3, 8, 8, label=label)
    outputs = task.predict(data)
    torch.testing.assert_close(outputs["scores"], outputs["logits"].sigmoid())
    assert [r.truth for r in task.records(outputs, data)] == ["a; c", "d"]
    assert torch.isfinite(task(data)["loss"])


def test_a_task_pickles_and_its_state_holds_weights_only():
    task = build()
    copy = pickle.loads(pickle.dumps(task))
    data = batch(1, 4, 3, 8, 8)
    assert torch.equal(copy.predict(data)["logits"], task.predict(data)["logits"])
    assert not {"mean", "std"} & set(task.state_dict())
    assert {"head.weight", "head.bias"} < set(task.state_dict())


def test_wrong_shapes_and_options_are_refused():
    with pytest.raises(ValueError, match=r"must be \[N, T, C, H, W\] or"):
        build().predict({"clip": torch.zeros(3, 4, 8, 8)})
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        build(top_k=0)
