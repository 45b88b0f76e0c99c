"""Nearest neighbours, query expansion and re-ranking are what plain loops give."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tag_core import retrieval
from tag_core.retrieval import distances, expand, nearest, re_rank, smallest, unit


def random(rows: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((rows, dim)).astype(np.float32)


def naive_re_rank(
    features: np.ndarray, queries: np.ndarray, gallery: np.ndarray, k1: int, k2: int, weight: float
) -> np.ndarray:
    """As the paper words it: sets of Python, dense float64, pair by pair."""
    points = features.astype(np.float64)
    number = len(points)
    d = ((points[:, None] - points[None]) ** 2).sum(-1)
    d /= np.maximum(d.max(axis=1, keepdims=True), 1e-30)
    near = [sorted(range(number), key=lambda j, i=i: (d[i, j], j)) for i in range(number)]

    def reciprocal(i: int, k: int) -> set[int]:
        return {j for j in near[i][:k] if i in near[j][:k]}

    v = np.zeros((number, number))
    for i in range(number):
        first = reciprocal(i, k1 + 1)
        joined = set(first)
        for candidate in first:
            others = reciprocal(candidate, int(np.around(k1 / 2)) + 1)
            if 3 * len(others & first) > 2 * len(others):
                joined |= others
        for j in joined:
            v[i, j] = np.exp(-d[i, j])
        v[i] /= max(v[i].sum(), 1e-30)
    if k2 > 1:
        v = np.stack([v[near[i][:k2]].mean(0) for i in range(number)])
    result = np.empty((len(queries), len(gallery)))
    for row, i in enumerate(queries):
        for column, j in enumerate(gallery):
            least = np.minimum(v[i], v[j]).sum()
            # The sum of maxima, if both sum to 1; of many equal pictures, some have no neighbours, and sum to 0.
            jaccard = 1 - least / (2 - least)
            result[row, column] = (1 - weight) * jaccard + weight * d[i, j]
    return result


def test_rows_get_length_1_and_zeros_stay_zeros() -> None:
    assert unit([[3, 4], [0, 0], [0, -2]]).tolist() == [[np.float32(0.6), np.float32(0.8)], [0, 0], [0, -1]]
    for size in (1e-40, 1e-25, 1e-8, 1e8, 1e25, 3e38):
        np.testing.assert_allclose(
            unit(np.array([[size, -size], [0, 0]])), [[0.5**0.5, -(0.5**0.5)], [0, 0]], rtol=1e-4
        )
    assert unit(np.zeros((3, 0))).shape == (3, 0)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_distances_come_in_blocks_that_together_are_all_pairs(
    monkeypatch: pytest.MonkeyPatch, dtype: type[np.floating]
) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK", 40)
    monkeypatch.setattr(retrieval, "_SLICE", 6)
    queries, gallery = random(23).astype(dtype), random(13, seed=1).astype(dtype)
    blocks = list(distances(queries, gallery))
    assert [len(block) for block in blocks] == [3] * 7 + [2]
    q, g = queries.astype(float), gallery.astype(float)
    np.testing.assert_allclose(np.concatenate(blocks), ((q[:, None] - g) ** 2).sum(-1), atol=1e-5)
    cosines = np.concatenate(list(distances(queries, gallery, "cosine")))
    np.testing.assert_allclose(cosines, -q @ g.T, atol=1e-5)


def test_a_memory_mapped_gallery_is_never_converted_whole(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(retrieval, "_SLICE", 100)
    np.save(tmp_path / "gallery.npy", random(4000, 256).astype(np.float16))
    gallery = np.load(tmp_path / "gallery.npy", mmap_mode="r")
    tracemalloc.start()
    _, indices = nearest(gallery[77:78], gallery, 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert indices.tolist() == [[77]]
    assert peak < gallery.size * 4 / 4


@pytest.mark.parametrize(("length", "k"), [(1, 1), (5, 3), (5, 9), (400, 3), (400, 21), (999, 1), (40, 0)])
def test_the_smallest_are_those_of_a_stable_sort(length: int, k: int) -> None:
    generator = np.random.default_rng(0)
    for values in (generator.standard_normal(length), generator.integers(0, 4, length).astype(np.float32)):
        assert smallest(values, k).tolist() == values.argsort(kind="stable")[:k].tolist()


def test_equal_pictures_are_neighbours_in_the_order_of_the_gallery() -> None:
    gallery = np.tile(random(3), (4, 1))
    _, indices = nearest(gallery[1:2], gallery, 4)
    assert indices.tolist() == [[1, 4, 7, 10]]


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_equal_pictures_are_at_equal_distances_whatever_the_shape(
    monkeypatch: pytest.MonkeyPatch, distance: Literal["cosine", "euclidean"]
) -> None:
    monkeypatch.setattr(retrieval, "_SLICE", 50)
    for dim in (3, 8, 64, 512):
        for number in (*range(2, 40), 51, 65, 127, 641):
            row, queries = random(1, dim, number), random(1 + number % 5, dim, 1)
            gallery = np.repeat(unit(row), number, 0)
            gallery[number // 2] *= -1
            gallery[gallery == 0] = 0
            found = np.concatenate(list(distances(unit(queries), gallery, distance)))
            others = np.delete(found, number // 2, axis=1)
            assert (others == others[:, :1]).all(), (dim, number)
            assert (found[:, number // 2] != found[:, 0]).all()


def test_neighbours_are_those_of_a_full_sort_and_ones_own_place_comes_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK", 90)
    queries, gallery = random(11), random(30, seed=1)
    queries[4] = gallery[7]
    full = ((queries[:, None].astype(float) - gallery) ** 2).sum(-1)
    values, indices = nearest(queries, gallery, 30)
    assert indices.tolist() == full.argsort(axis=1).tolist()
    np.testing.assert_allclose(values, np.sort(full, axis=1), atol=1e-5)
    assert indices[4, 0] == 7
    own = np.full(11, -1)
    own[4] = 7
    values, indices = nearest(queries, gallery, 99, own=own)
    assert (indices[4, -1], values[4, -1]) == (7, np.inf)
    assert indices[[0, 3, 5, 10]].tolist() == full[[0, 3, 5, 10]].argsort(axis=1).tolist()


@pytest.mark.parametrize("alpha", [0.0, 1.0, 3.0])
@pytest.mark.parametrize("k", [1, 4, 50])
def test_query_expansion_is_the_weighted_mean_of_the_query_and_its_neighbours(alpha: float, k: int) -> None:
    queries, gallery = random(5), random(20, seed=1)
    found = expand(queries, gallery, k, alpha)
    for query, row in zip(unit(queries).astype(float), found, strict=True):
        cosines = unit(gallery) @ query
        best = sorted(range(20), key=lambda j: -cosines[j])[:k]
        terms = [query] + [cosines[j] ** alpha * unit(gallery)[j] for j in best if cosines[j] > 0]
        mean = np.mean(terms, axis=0)
        np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_database_side_augmentation_takes_each_picture_itself_once() -> None:
    gallery = unit(np.abs(random(9)))
    found = expand(gallery, gallery, 2, 3.0, own=np.arange(9))
    for i in range(9):
        cosines = gallery @ gallery[i]
        best = [j for j in np.argsort(-cosines) if j != i][:2]
        total = gallery[i] + sum(cosines[j] ** 3 * gallery[j] for j in best)
        np.testing.assert_allclose(found[i], total / np.linalg.norm(total), atol=1e-6)


def test_without_neighbours_a_query_stays_what_it_is() -> None:
    np.testing.assert_array_equal(expand(random(3), random(0), 5), unit(unit(random(3))))


@pytest.mark.parametrize(("k1", "k2", "weight"), [(20, 6, 0.3), (5, 1, 0.3), (6, 3, 0.0), (3, 9, 1.0), (90, 90, 0.5)])
def test_re_ranking_is_what_the_paper_defines(monkeypatch: pytest.MonkeyPatch, k1: int, k2: int, weight: float) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK", 300)
    monkeypatch.setattr(retrieval, "_PAIRS", 50)
    features = unit(random(70) + 2 * random(9, seed=1)[np.arange(70) % 9])
    queries, gallery = np.random.default_rng(0).permutation(70)[:15], np.arange(15, 70)
    expected = naive_re_rank(features, queries, gallery, k1, k2, weight)
    found = np.concatenate(list(re_rank(features, queries, gallery, k1, k2, weight)))
    np.testing.assert_allclose(found, expected, atol=1e-6, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 25),
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(1, 6),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.integers(0, 2**32 - 1),
)
def test_re_ranking_agrees_on_anything_ties_and_overlap_of_queries_and_gallery_included(
    number: int, top: int, k1: int, k2: int, weight: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    features = generator.integers(-top, top + 1, (number, 2)).astype(np.float32)  # exact, and full of ties
    queries = np.flatnonzero(generator.random(number) < 0.7)
    gallery = np.flatnonzero(generator.random(number) < 0.7)
    blocks = [np.empty((0, len(gallery))), *re_rank(features, queries, gallery, k1, k2, weight)]
    expected = naive_re_rank(features, queries, gallery, k1, k2, weight)
    np.testing.assert_allclose(np.concatenate(blocks), expected, atol=1e-6, rtol=0)


def test_re_ranking_takes_less_memory_than_half_a_matrix_of_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "_BLOCK", 1 << 16)
    features = random(3000)
    tracemalloc.start()
    for _ in re_rank(features, np.arange(20), np.arange(20, 3000)):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3000 * 3000 * 4 / 2
