"""Ranks by counting are those of walking down a sorted list."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from tag_plugins_reid import ranking
from tag_plugins_reid.ranking import Pictures, places, score, summary


def pictures(identities: list[int], cameras: list[int] | None = None, first: int = 0) -> Pictures:
    numbers = np.arange(first, first + len(identities))
    return Pictures(np.array(identities, int), np.array(cameras or [-1] * len(identities), int), numbers)


def walk(distances: np.ndarray, queries: Pictures, gallery: Pictures) -> list[tuple[int, float, float, float]]:
    """(first, common, trapezoid, inverse penalty) of each query, one ranked picture after the other."""
    results = []
    for row, line in enumerate(distances):
        first, hits, rank, common, trapezoid, penalty, old = -1, 0, 0, 0.0, 0.0, 0.0, 1.0
        right = 0
        for j in sorted(range(len(line)), key=lambda j: (line[j], j)):
            same = queries.identities[row] == gallery.identities[j]
            camera = queries.cameras[row]
            if queries.numbers[row] == gallery.numbers[j] or (same and camera >= 0 and camera == gallery.cameras[j]):
                continue
            if same:
                right += 1
                first = rank if first < 0 else first
                hits += 1
                common += hits / (rank + 1)
                trapezoid += (old + hits / (rank + 1)) / 2
                penalty = rank + 1
            rank += 1
            old = hits / rank
        n = max(right, 1)
        results.append((first, common / n, trapezoid / n, right / penalty if penalty else 0.0))
    return results


def same(found: ranking.Scores, expected: list[tuple[int, float, float, float]]) -> None:
    columns = [found.first, found.common, found.trapezoid, found.inverse_penalty]
    np.testing.assert_allclose(np.stack(columns, axis=1).reshape(-1, 4), np.reshape(expected, (-1, 4)), atol=1e-12)


@st.composite
def retrievals(draw: st.DrawFn) -> tuple[np.ndarray, Pictures, Pictures]:
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    asked, found = draw(st.integers(0, 8)), draw(st.integers(0, 20))
    identities, cameras = draw(st.integers(1, 6)), draw(st.integers(1, 3))
    shared = draw(st.booleans())  # queries are pictures of the gallery
    numbers = [generator.permutation(asked + found)[:count] for count in (asked, found)] if shared else None
    sides = [
        Pictures(
            generator.integers(0, identities, count),
            generator.integers(-1, cameras, count),
            numbers[side] if numbers else np.arange(count) + side * asked,
        )
        for side, count in enumerate((asked, found))
    ]
    if shared:
        of_all = generator.integers(0, identities, asked + found)
        sides = [Pictures(of_all[side.numbers], side.cameras, side.numbers) for side in sides]
    levels = draw(st.sampled_from([1, 3, 1000]))
    return generator.integers(0, levels, (asked, found)).astype(np.float32), sides[0], sides[1]


@settings(max_examples=150, deadline=None)
@given(retrievals(), st.integers(1, 5), st.sampled_from([2, 256]))
def test_scores_are_those_of_a_walk_down_the_ranking(
    case: tuple[np.ndarray, Pictures, Pictures], rows: int, sort_from: int
) -> None:
    distances, queries, gallery = case
    expected = walk(distances, queries, gallery)
    blocks = [distances[start : start + rows].copy() for start in range(0, len(distances), rows)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "_SORT_FROM", sort_from)
        same(score(blocks, queries, gallery), expected)


def test_common_average_precision_is_that_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    distances = generator.random((30, 200), dtype=np.float32)
    queries, gallery = pictures(list(range(10)) * 3), pictures([i % 17 for i in range(200)], first=30)
    expected = [
        average_precision_score(gallery.identities == identity, -line)
        for identity, line in zip(queries.identities, distances, strict=True)
    ]
    np.testing.assert_allclose(score([distances], queries, gallery).common, expected, atol=1e-12)


def test_the_sources_own_example_gives_its_published_numbers() -> None:
    gallery = np.array([[1, 0], [0.9, 0.1], [0.8, 0.6], [0, 1], [0.6, 0.8], [0.95, 0.05], [0.2, 0.98], [0.5, 0.5]])
    identities, cameras = np.array([1, 1, 2, 2, 0, -1, 2, 1]), np.array([1, 2, 1, 3, 2, 4, 2, 3])
    queries = np.array([[1, 0.05], [0.1, 1]])
    gallery /= np.linalg.norm(gallery, axis=1, keepdims=True)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    kept = identities != -1
    sides = pictures([1, 2], [1, 2]), pictures(identities[kept].tolist(), cameras[kept].tolist(), first=2)
    found = score([-queries @ gallery[kept].T], *sides)
    np.testing.assert_allclose(found.trapezoid, [0.7916667, 0.7083333], atol=1e-7)
    np.testing.assert_allclose(found.common, [0.8333333, 0.75], atol=1e-7)
    values = summary(found, "trapezoid", [1])
    assert values["map"] == pytest.approx(0.75)
    assert values["rank1"] == 1
    assert summary(found, "common", [1])["map"] == pytest.approx(0.79166667)


def test_equal_distances_are_ranked_by_gallery_index() -> None:
    gallery = pictures([5, 7, 7, 5, 7], first=1)
    found = score([np.zeros((1, 5), np.float32)], pictures([7]), gallery)
    assert found.first.tolist() == [1]
    assert found.common.tolist() == [pytest.approx((1 / 2 + 2 / 3 + 3 / 5) / 3)]
    assert found.inverse_penalty.tolist() == [3 / 5]


def test_one_sort_and_many_counts_give_the_same_places() -> None:
    line = np.random.default_rng(0).integers(0, 50, 2000).astype(np.float32)
    columns = np.arange(0, 2000, 3)
    assert len(columns) > ranking._SORT_FROM
    assert places(line, columns).tolist() == [int(places(line, np.array([c]))[0]) for c in columns]


def test_the_trapezoid_averages_over_all_queries_and_the_common_form_over_those_with_a_match() -> None:
    found = score([np.array([[1.0, 2.0], [1.0, 2.0]])], pictures([3, 9]), pictures([4, 3], first=2))
    common, trapezoid = summary(found, "common", [1, 2, 50]), summary(found, "trapezoid", [1, 2, 50])
    assert common == {"rank1": 0, "rank2": 1, "rank50": 1, "map": 0.5, "minp": 0.5, "queries_without_match": 1}
    assert trapezoid == {
        "rank1": 0,
        "rank2": 0.5,
        "rank50": 0.5,
        "map": 0.125,
        "minp": 0.25,
        "queries_without_match": 1,
    }


def test_without_any_match_the_common_form_is_nan_and_the_trapezoid_0() -> None:
    found = score([np.ones((1, 2))], pictures([3], [1]), pictures([3, 3], [1, 1], first=1))
    assert np.isnan(summary(found, "common", [1])["map"])
    assert summary(found, "trapezoid", [1])["map"] == 0
    empty = score([], pictures([]), pictures([1]))
    assert np.isnan(summary(empty, "trapezoid", [1])["rank1"])


def test_unknown_cameras_remove_nothing() -> None:
    distances = np.array([[0.0, 1.0]])
    known = score([distances.copy()], pictures([3], [0]), pictures([3, 3], [0, 1], first=1))
    unknown = score([distances.copy()], pictures([3], [-1]), pictures([3, 3], [-1, -1], first=1))
    assert known.common.tolist() == unknown.common.tolist() == [1]
    assert known.inverse_penalty.tolist() == unknown.inverse_penalty.tolist() == [1]
    same(unknown, walk(distances, pictures([3], [-1]), pictures([3, 3], [-1, -1], first=1)))
    gone = score([distances.copy()], pictures([3], [0]), pictures([3, 3], [0, 0], first=1))
    assert gone.first.tolist() == [-1]
