import copy
import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, confusion_matrix

from tag_core.builtin.metrics import ConfusionMatrix, MeanClassAccuracy, MultilabelMAP, TopK
from tag_core.errors import UserError

CLASSES = [f"class {i}" for i in range(7)]
BUILD = {
    "top-k": lambda: TopK([1, 3]),
    "confusion-matrix": lambda: ConfusionMatrix(CLASSES),
    "mean-class-accuracy": lambda: MeanClassAccuracy(CLASSES),
    "multilabel-map": MultilabelMAP,
}


def data(name, n=90):
    """Scores and labels; some samples are unlabelled, some scores equal, one class has no positives."""
    rng = np.random.default_rng(0)
    scores = rng.random((n, 7)).round(2 if name == "multilabel-map" else 8)
    if name == "multilabel-map":
        labels = (rng.random((n, 7)) < 0.2).astype(float)
        labels[:, 5] = 0
        labels[rng.random((n, 7)) < 0.1] = -1
    else:
        labels = rng.integers(-1, 6, n)
    return scores, labels


def feed(metric, scores, labels, size=20):
    for start in range(0, len(scores), size):
        part = slice(start, start + size)
        metric.update({"scores": torch.tensor(scores[part])}, {"label": torch.tensor(labels[part])})
    return metric


def test_top_k_equals_a_sort():
    scores, labels = data("top-k")
    known = labels >= 0
    order = np.argsort(-scores[known], 1)
    expected = {f"top{k}": (order[:, :k] == labels[known, None]).any(1).mean() for k in (1, 3)}
    assert feed(TopK([1, 3]), scores, labels).compute() == pytest.approx(expected)


def test_k_above_the_number_of_classes_counts_as_all():
    scores, labels = data("top-k")
    assert feed(TopK([1, 50]), scores, labels).compute()["top50"] == 1.0


def test_confusion_matrix_and_mean_class_accuracy_equal_scikit_learn():
    scores, labels = data("confusion-matrix")
    truth, found = labels[labels >= 0], scores.argmax(1)[labels >= 0]
    matrix = feed(ConfusionMatrix(CLASSES), scores, labels).compute()["confusion_matrix"]
    assert matrix == confusion_matrix(truth, found, labels=range(7)).tolist()
    mean = feed(MeanClassAccuracy(CLASSES), scores, labels).compute()["mean_class_accuracy"]
    with pytest.warns(UserWarning, match="y_pred contains classes not in y_true"):
        assert mean == pytest.approx(balanced_accuracy_score(truth, found))


def test_multilabel_map_equals_scikit_learn_with_ties_and_unknown_labels():
    scores, labels = data("multilabel-map")
    expected = []
    for c in (0, 1, 2, 3, 4, 6):
        known = labels[:, c] >= 0
        expected.append(average_precision_score(labels[known, c], scores[known, c]))
    assert feed(MultilabelMAP(), scores, labels).compute()["map"] == pytest.approx(np.mean(expected), abs=1e-7)


def test_multilabel_map_tells_tiny_probabilities_apart():
    scores = np.array([[1e-9], [3e-9], [2e-9], [4e-9]]).repeat(2, axis=1)
    labels = np.array([[0.0], [1.0], [0.0], [1.0]]).repeat(2, axis=1)
    assert feed(MultilabelMAP(), scores, labels).compute() == {"map": 1.0}


def precision_at_hits(scores, labels):
    """Average precision; tied scores are all found at once."""
    precisions = [labels[scores >= score].mean() for score in scores[labels == 1]]
    return np.mean(precisions) if precisions else math.nan


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 5), st.sampled_from([1, 2, 4, 10**6]), st.integers(0, 2**32 - 1))
def test_ties_unknown_labels_and_single_classes_are_as_in_numpy(n, num_classes, levels, seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, levels, (n, num_classes)) / levels
    labels, several = rng.integers(-1, num_classes, n), rng.integers(-1, 2, (n, num_classes))
    own = np.take_along_axis(scores, labels.clip(0)[:, None], axis=1)
    better, as_good = (scores > own).sum(1)[labels >= 0], (scores >= own).sum(1)[labels >= 0]
    for k, share in zip((1, 2), feed(TopK([1, 2]), scores, labels).compute().values(), strict=True):
        if len(better):  # of equal scores any may be taken
            assert (as_good <= k).mean() - 1e-9 <= share <= (better < k).mean() + 1e-9
    matrix, classes = np.zeros((num_classes, num_classes), int), [str(c) for c in range(num_classes)]
    np.add.at(matrix, (labels[labels >= 0], scores.argmax(1)[labels >= 0]), 1)
    assert feed(ConfusionMatrix(classes), scores, labels).compute() == {"confusion_matrix": matrix.tolist()}
    recalls = [row[c] / row.sum() for c, row in enumerate(matrix) if row.sum()]
    mean = feed(MeanClassAccuracy(classes), scores, labels).compute()["mean_class_accuracy"]
    assert mean == pytest.approx(np.mean(recalls) if recalls else math.nan, nan_ok=True)
    known = several >= 0
    found = [precision_at_hits(scores[known[:, c], c], several[known[:, c], c]) for c in range(num_classes)]
    positive = [value for value in found if not math.isnan(value)]
    value = feed(MultilabelMAP(), scores, several).compute()["map"]
    assert value == pytest.approx(np.mean(positive) if positive else math.nan, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("name", BUILD)
def test_merged_halves_equal_one_even_when_one_of_them_saw_nothing(name):
    scores, labels = data(name)
    whole = feed(BUILD[name](), scores, labels).compute()
    first, second = feed(BUILD[name](), scores[:31], labels[:31]), feed(BUILD[name](), scores[31:], labels[31:])
    idle = pickle.loads(pickle.dumps(BUILD[name]()))
    idle.merge(pickle.loads(pickle.dumps(second)))
    idle.merge(first)
    assert idle.compute() == whole


@pytest.mark.parametrize("name", BUILD)
def test_reset_forgets_everything(name):
    scores, labels = data(name)
    metric = feed(BUILD[name](), scores, labels)
    expected = metric.compute()
    metric.reset()
    assert feed(metric, scores, labels).compute() == expected


@pytest.mark.parametrize("name", ["top-k", "mean-class-accuracy", "multilabel-map"])
def test_nothing_to_compute_from_is_nan(name):
    assert all(math.isnan(value) for value in BUILD[name]().compute().values())
    labels = -np.ones((4, 7) if name == "multilabel-map" else 4, dtype=int)
    metric = feed(BUILD[name](), np.random.default_rng(0).random((4, 7)), labels)
    assert all(math.isnan(value) for value in metric.compute().values())


@pytest.mark.parametrize("name", ["top-k", "mean-class-accuracy", "confusion-matrix"])
def test_the_state_does_not_grow(name):
    scores, labels = data(name)
    metric = feed(BUILD[name](), scores, labels)
    size = len(pickle.dumps(metric))
    assert len(pickle.dumps(feed(copy.deepcopy(metric), scores, labels))) == size


@pytest.mark.parametrize("name", BUILD)
@pytest.mark.parametrize("batch", [{}, {"label": torch.zeros(2, 2, 2)}, {"label": ["a", "b"]}])
def test_labels_that_do_not_fit_are_told_with_the_name_of_the_metric(name, batch):
    with pytest.raises(UserError, match=name):
        BUILD[name]().update({"scores": torch.rand(2, 7)}, batch)


@pytest.mark.parametrize("k", [[], [0, 1]])
def test_k_below_one_is_refused(k):
    with pytest.raises(ValueError, match="k must be"):
        TopK(k)


def part_of_two(rank, folder):
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    merged = {}
    for name, build in BUILD.items():
        scores, labels = data(name)
        gathered = [None, None]
        dist.all_gather_object(gathered, feed(build(), scores[rank::2], labels[rank::2]))
        gathered[0].merge(gathered[1])
        merged[name] = gathered[0].compute()
    (folder / f"{rank}.pickle").write_bytes(pickle.dumps(merged))
    dist.destroy_process_group()


def test_two_processes_merge_to_what_one_computes(tmp_path):
    torch.multiprocessing.spawn(part_of_two, (tmp_path,), nprocs=2)
    one = {name: feed(build(), *data(name)).compute() for name, build in BUILD.items()}
    for rank in range(2):
        assert pickle.loads((tmp_path / f"{rank}.pickle").read_bytes()) == one
