import math
import pickle

import pytest
import torch
from torch import nn

from tag_core.builtin.losses import BCE, CrossEntropy
from tag_core.errors import UserError
from tag_plugins_video.models.attention_cluster import AttentionCluster
from tag_plugins_video.models.attention_lstm import AttentionLSTM
from tag_plugins_video.models.c3d_tiny import C3DTiny
from tag_plugins_video.tasks.tagging import Tagging, dequantise

CLASSES = ["a", "b", "c", "d"]
LABELS = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])


def build(loss=None, **options):
    torch.manual_seed(0)
    backbone = AttentionCluster({"rgb": 6, "audio": 3}, clusters=2, hidden=(8, 5))
    task = Tagging(backbone, loss or BCE(reduction="sum"), CLASSES, **options)
    nn.init.normal_(task.head.weight, std=3.0)
    return task.eval()


def batch(count=3, frames=7, **more):
    generator = torch.Generator().manual_seed(0)
    inputs = {n: torch.randn(count, frames, d, generator=generator) for n, d in (("rgb", 6), ("audio", 3))}
    names = [f"video {i}" for i in range(count)]
    length = torch.tensor([frames, 4, 2][:count])
    return {**inputs, "length": length, "source": names, "damage": [None] * count, **more}


def test_scores_are_sigmoids_and_the_loss_is_summed_over_classes_and_averaged_over_videos():
    task, data = build(), batch(label=LABELS)
    outputs = task.predict(data)
    logits = outputs["logits"].double()
    torch.testing.assert_close(outputs["scores"].double(), 1 / (1 + (-logits).exp()))
    likelihood = torch.where(LABELS > 0, outputs["scores"], 1 - outputs["scores"]).double()
    torch.testing.assert_close(task(data)["loss"].double(), -likelihood.log().sum(1).mean(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs["loss"], task(data)["loss"])
    torch.testing.assert_close(task.head(outputs["embedding"]), outputs["logits"])


def test_one_label_a_video_has_softmax_scores():
    task, data = build(CrossEntropy(), multi_label=False), batch(label=torch.tensor([2, 0, -1]))
    outputs = task.predict(data)
    torch.testing.assert_close(outputs["scores"].sum(1), torch.ones(3))
    expected = -outputs["scores"][[0, 1], [2, 0]].log().mean()
    torch.testing.assert_close(task(data)["loss"], expected)
    assert [r.truth for r in task.records(outputs, data)] == ["c", "a", None]


def test_class_numbers_will_do_for_sigmoid_scores_too():
    task, rows = build(), torch.tensor([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0]])
    numbers = task(batch(label=torch.tensor([2, 0, 1])))["loss"]
    torch.testing.assert_close(numbers, task(batch(label=rows))["loss"])


def test_bytes_are_dequantised_as_youtube_8m_says():
    values = dequantise(torch.tensor([0, 128, 255], dtype=torch.uint8)).tolist()
    assert values == pytest.approx([-1.9921875, 0.0156556, 2.0078125], abs=1e-6)
    data = batch()
    quantised = {n: torch.randint(0, 256, data[n].shape, dtype=torch.uint8) for n in ("rgb", "audio")}
    floats = {name: value.double() * 4 / 255 + 4 / 512 - 2 for name, value in quantised.items()}
    with torch.no_grad():
        expected = build().predict({**data, **floats})["logits"]
        torch.testing.assert_close(build().predict({**data, **quantised})["logits"], expected)
    assert build().prepare({**data, **quantised})["rgb"].dtype == torch.float32


def test_floats_are_taken_as_they_are_and_cut_to_the_longest_sequence():
    task, data = build(), batch()
    padded = {name: nn.functional.pad(data[name], (0, 0, 0, 50)) for name in ("rgb", "audio")}
    prepared = task.prepare({**data, **padded})
    assert torch.equal(prepared["rgb"], data["rgb"])
    assert set(prepared) == {"rgb", "audio", "length"}
    assert task.prepare({**data, "rgb": data["rgb"].half()})["rgb"].dtype == torch.float32


def test_lists_of_sequences_are_padded():
    task, data = build(), batch()
    lists = {n: [data[n][i, :length] for i, length in enumerate([7, 4, 2])] for n in ("rgb", "audio")}
    torch.testing.assert_close(task.predict(lists)["logits"], task.predict(data)["logits"])


def test_without_lengths_all_frames_count():
    task, data = build(), batch(frames=5)
    whole = task.predict({**data, "length": torch.tensor([5, 5, 5])})["logits"]
    torch.testing.assert_close(task.predict({n: data[n] for n in ("rgb", "audio")})["logits"], whole)
    assert not torch.allclose(task.predict(data)["logits"], whole)


def test_the_penalty_is_half_the_squares_of_the_classifier_alone():
    plain, decayed = build(), build(head_decay=0.01)
    data = batch(label=LABELS)
    nn.init.normal_(plain.head.bias)
    decayed.load_state_dict(plain.state_dict())
    squares = sum((p.detach().double() ** 2).sum().item() for p in (plain.head.weight, plain.head.bias))
    difference = decayed(data)["loss"] - plain(data)["loss"]
    assert difference.item() == pytest.approx(0.005 * squares, rel=1e-4)
    torch.testing.assert_close(decayed.predict(data)["loss"], plain.predict(data)["loss"])


def test_a_record_has_the_best_labels_first_with_truth_and_damage():
    task = build(top_k=2)
    data = batch(label=LABELS)
    data["damage"] = [None, "half of it", None]
    with torch.no_grad():
        outputs = task.predict(data)
    records = list(task.records(outputs, data))
    for i, record in enumerate(records):
        order = outputs["scores"][i].argsort(descending=True)[:2].tolist()
        assert record.labels == [CLASSES[j] for j in order]
        assert record.scores == pytest.approx([float(outputs["scores"][i, j]) for j in order])
    assert [r.source for r in records] == ["video 0", "video 1", "video 2"]
    assert [r.truth for r in records] == ["a; c", "d", ""]
    assert [r.damage for r in records] == [None, "half of it", None]


def test_records_without_labels_have_no_truth_and_at_most_all_classes():
    task, data = build(), batch()
    record = next(iter(task.records(task.predict(data), data)))
    assert (record.truth, record.embedding, sorted(record.labels)) == (None, None, CLASSES)


def test_the_classifier_starts_uniform_with_a_bias_of_zero():
    torch.manual_seed(0)
    task = Tagging(AttentionCluster({"rgb": 4}, hidden=(4, 100)), BCE(), [str(i) for i in range(200)])
    assert task.head.weight.abs().max().item() == pytest.approx(math.sqrt(6 / 300), rel=0.01)
    assert not task.head.bias.any()


def test_a_task_pickles():
    task, data = build(), batch()
    copy = pickle.loads(pickle.dumps(task))
    assert torch.equal(copy.predict(data)["logits"], task.predict(data)["logits"])


def test_the_lstm_learns_the_order_of_frames():
    torch.manual_seed(0)
    backbone = AttentionLSTM({"frames": 2}, embedding=8, lstm=8, hidden=(16, 16), dropout=0.0)
    task = Tagging(backbone, CrossEntropy(), ["rising", "falling"], multi_label=False)
    steps = torch.linspace(-1, 1, 6)
    lengths = torch.randint(3, 7, (32,))
    rising = [torch.stack([steps[:n], torch.zeros(n)], 1) + 0.1 * torch.randn(n, 2) for n in lengths.tolist()]
    label = torch.arange(32) % 2
    data = {"frames": [x.flip(0) if y else x for x, y in zip(rising, label.tolist(), strict=True)], "label": label}
    optimizer = torch.optim.Adam(task.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        task(data)["loss"].backward()
        optimizer.step()
    assert (task.eval().predict(data)["scores"].argmax(1) == label).all()


def test_wrong_inputs_and_options_are_refused():
    with pytest.raises(UserError, match=r"no features audio \(given: rgb\); set task.backbone.modalities"):
        build().predict({"rgb": torch.zeros(1, 2, 6)})
    with pytest.raises(ValueError, match="backbone takes no feature sequences"):
        Tagging(C3DTiny(), BCE(), CLASSES)
    with pytest.raises(ValueError, match="top_k must be at least 1"):
        build(top_k=0)
    with pytest.raises(ValueError, match="head_decay 0 or more"):
        build(head_decay=-1.0)
