"""Hit@1, PERR, GAP and class AP against published numbers, plain Python and scikit-learn."""

import math
import pickle
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score
from youtube8m_metrics import class_ap, gap, hit_at_1, perr

from tag_core.errors import UserError
from tag_plugins_video.metrics.class_ap import ClassAP
from tag_plugins_video.metrics.gap import GAP
from tag_plugins_video.metrics.hit_at_one import HitAtOne
from tag_plugins_video.metrics.perr import PERR

P = np.array([[0.9, 0.1, 0.4, 0.2], [0.3, 0.8, 0.6, 0.05], [0.5, 0.7, 0.2, 0.95]])
Y = np.array([[1, 0, 1, 0], [0, 0, 1, 0], [0, 1, 0, 1]])


def random_videos():
    """The specification's: 64 videos, 50 classes, 213 labels."""
    generator = np.random.RandomState(0)
    scores = generator.rand(64, 50)
    labels = (generator.rand(64, 50) < 0.06).astype(float)
    labels[labels.sum(1) == 0, 0] = 1
    return scores + 0.5 * labels, labels


def updated(metric, scores, labels):
    metric.update({"scores": torch.as_tensor(scores)}, {"label": torch.as_tensor(labels)})
    return metric


def all_values(scores, labels, k=20):
    values = {}
    for metric in (HitAtOne(), PERR(), GAP(k), ClassAP(k)):
        values |= updated(metric, scores, labels).compute()
    return values


def expected(scores, labels, k=20):
    scores, labels = np.float32(scores).tolist(), np.asarray(labels).tolist()
    precisions = class_ap(scores, labels, k)
    labelled = [ap for ap, column in zip(precisions, zip(*labels, strict=True), strict=True) if sum(column)]
    return {
        "hit_at_1": hit_at_1(scores, labels),
        "perr": perr(scores, labels),
        "gap": gap(scores, labels, k),
        "class_ap": precisions,
        "mean_class_ap": float(np.mean(labelled)) if labelled else math.nan,
    }


def test_the_numbers_of_the_original_on_three_videos():
    values = all_values(P, Y)
    assert values["hit_at_1"] == pytest.approx(0.6667, abs=1e-4)
    assert values["perr"] == pytest.approx(0.6667, abs=1e-4)
    assert values["class_ap"] == pytest.approx([1, 0.5, 1, 1])
    found = {k: updated(GAP(k), P, Y).compute()["gap"] for k in (1, 2, 4, 20)}
    assert found == pytest.approx({1: 0.4, 2: 0.8766667, 4: 0.8528571, 20: 0.8528571}, abs=1e-7)


def test_the_numbers_of_the_original_on_random_videos():
    scores, labels = random_videos()
    values = all_values(scores, labels)
    assert labels.sum() == 213
    assert values["hit_at_1"] == 0.875
    assert values["perr"] == pytest.approx(0.51519717, abs=1e-8)
    assert values["gap"] == pytest.approx(0.58045662, abs=1e-8)


videos = st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 10), st.integers(0, 2**32 - 1))


@settings(deadline=None)
@given(videos, st.sampled_from([2, 5, 1000]), st.sampled_from([0.0, 0.2, 1.0]))
def test_ties_empty_labels_and_single_classes_are_as_in_plain_python(sizes, levels, share):
    num_videos, num_classes, k, seed = sizes
    generator = np.random.default_rng(seed)
    scores = generator.integers(0, levels, (num_videos, num_classes)) / levels
    labels = (generator.random((num_videos, num_classes)) < share).astype(int)
    values, wanted = all_values(scores, labels, k), expected(scores, labels, k)
    assert values.pop("class_ap") == pytest.approx(wanted.pop("class_ap"))
    assert values == pytest.approx(wanted, nan_ok=True)


def test_gap_over_all_classes_is_scikit_learns_average_precision():
    generator = np.random.default_rng(1)
    scores = generator.integers(0, 300, (200, 12)) / 300
    labels = generator.random((200, 12)) < 0.1
    reference = average_precision_score(labels.ravel(), scores.ravel())
    assert updated(GAP(12), scores, labels).compute()["gap"] == pytest.approx(reference, abs=1e-12)
    per_class = average_precision_score(labels, scores, average=None)
    assert updated(ClassAP(12), scores, labels).compute()["class_ap"] == pytest.approx(per_class.tolist(), abs=1e-12)


@pytest.mark.parametrize("make", [HitAtOne, PERR, GAP, ClassAP])
def test_any_split_over_processes_gives_the_same_bits(make):
    generator = np.random.default_rng(2)
    scores = generator.integers(0, 40, (700, 30)) / 40
    labels = generator.random((700, 30)) < 0.1
    whole = updated(make(), scores, labels).compute()
    order = generator.permutation(700)
    parts = [make() for _ in range(3)]
    for i in order:  # more batches than are kept apart
        updated(parts[i % 2], scores[i : i + 1], labels[i : i + 1])
    merged = pickle.loads(pickle.dumps(parts[2]))  # has seen nothing
    for part in parts[:2]:
        merged.merge(pickle.loads(pickle.dumps(part)))
    assert merged.compute() == whole
    merged.reset()
    assert updated(merged, scores, labels).compute() == whole


@pytest.mark.parametrize("make", [HitAtOne, PERR, GAP, ClassAP])
def test_unknown_labels_are_left_out_and_nothing_gives_nan(make):
    scores = np.vstack([P, P])
    labels = np.vstack([Y, np.full_like(Y, -1)])
    assert updated(make(), scores, labels).compute() == updated(make(), P, Y).compute()
    assert all(v != v for v in updated(make(), P, np.full_like(Y, -1)).compute().values() if isinstance(v, float))
    assert all(v != v for v in make().compute().values() if isinstance(v, float))


def test_one_label_a_video_is_one_positive():
    values = all_values(P, np.array([0, 2, -1]))
    wanted = expected(P[:2], np.eye(4)[[0, 2]])
    assert values.pop("class_ap") == pytest.approx(wanted.pop("class_ap"))
    assert values == pytest.approx(wanted)


def test_a_nan_is_the_worst_score():
    values = updated(HitAtOne(), [[math.nan, 0.1], [0.2, math.nan]], [[0, 1], [1, 0]]).compute()
    assert values == {"hit_at_1": 1.0}
    assert updated(GAP(), [[math.nan, 0.1]], [[0, 1]]).compute() == {"gap": 1.0}


def test_negative_scores_sort_and_never_count_for_perr():
    scores, labels = [[-1.0, -0.5, -0.0, 0.0]], [[0, 1, 1, 0]]
    assert all_values(scores, labels)["class_ap"] == [0, 1, 1, 0]
    assert updated(PERR(), scores, labels).compute() == {"perr": 0.0}
    assert updated(GAP(), scores, labels).compute()["gap"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_gap_keeps_83_bytes_a_video():
    metric, generator = GAP(), torch.Generator().manual_seed(0)
    tracemalloc.start()
    for _ in range(600):
        scores = torch.rand(100, 40, generator=generator)
        metric.update({"scores": scores}, {"label": (scores > 0.9).int()})
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    kept = sum(part.nbytes for rows in (metric.scores, metric.hits) for part in rows.parts)
    assert kept == 83 * 60_000
    assert held < 1.1 * kept


@pytest.mark.parametrize("make", [HitAtOne, PERR, GAP, ClassAP])
def test_a_task_without_scores_is_told(make):
    with pytest.raises(UserError, match="needs scores and the labels"):
        make().update({}, {"label": torch.zeros(1, 2)})
    with pytest.raises(UserError, match="needs scores and the labels"):
        make().update({"scores": torch.zeros(1, 3)}, {"label": torch.zeros(1, 2)})


def test_k_is_at_least_1():
    for make in (GAP, ClassAP):
        with pytest.raises(ValueError, match="k must be at least 1"):
            make(0)
