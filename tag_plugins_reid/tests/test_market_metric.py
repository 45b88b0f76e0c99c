"""``reid/market``: rank-k, mAP and mINP of what tasks and data sets give."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from tag_core import api
from tag_core.errors import UserError
from tag_core.retrieval import expand, re_rank, unit
from tag_plugins_reid.metrics.market import Market
from tag_plugins_reid.ranking import Pictures, score, summary

QUERY, GALLERY, BOTH, JUNK = range(4)
SOURCE_EXAMPLE = {
    "embedding": list(
        zip([1, 0.1, 1, 0.9, 0.8, 0, 0.6, 0.95, 0.2, 0.5], [0.05, 1, 0, 0.1, 0.6, 1, 0.8, 0.05, 0.98, 0.5], strict=True)
    ),
    "identity": ["0001", "0002", "0001", "0001", "0002", "0002", "0000", "-1", "0002", "0001"],
    "camera": [1, 2, 1, 2, 1, 3, 2, 4, 2, 3],
    "role": [QUERY, QUERY] + [GALLERY] * 8,
}
"""The example of the source system, whose own evaluation gives AP .7916667 and .7083333 for it."""


def values(metric: Market, embedding: Any, start: int = 0, stop: int | None = None, **batch: Any) -> dict[str, float]:
    """What it computes after one more update with pictures ``start`` to ``stop``."""
    part = slice(start, stop)
    tensors = {key: torch.tensor(batch[key])[part] for key in ("camera", "role", "label") if key in batch}
    lists = {key: batch[key][part] for key in ("identity", "source") if key in batch}
    metric.update({"embedding": torch.as_tensor(np.asarray(embedding), dtype=torch.float32)[part]}, tensors | lists)
    return dict(metric.compute())


def people(number: int = 60, seed: int = 0) -> dict[str, Any]:
    """Pictures that are found more often than by chance, of 4 cameras, in no order."""
    generator = np.random.default_rng(seed)
    identities = generator.integers(0, 8, number)
    centres = generator.standard_normal((8, 6))
    return {
        "embedding": (centres[identities] + generator.standard_normal((number, 6))).astype(np.float32),
        "identity": [f"person {i}" for i in identities],
        "camera": generator.integers(0, 4, number).tolist(),
        "role": generator.choice([QUERY, GALLERY, GALLERY, JUNK], number).tolist(),
        "source": [f"{i:03d}.jpg" for i in generator.permutation(number)],
    }


def by_hand(distances: np.ndarray, data: dict[str, Any], queries: np.ndarray, gallery: np.ndarray) -> dict[str, float]:
    """Scores of a matrix of distances that was computed elsewhere."""
    codes = np.unique(data["identity"], return_inverse=True)[1]
    cameras = np.array(data["camera"])
    sides = [Pictures(codes[part], cameras[part], part) for part in (queries, gallery)]
    return summary(score([distances], *sides), "common", [1, 5, 10])


def test_the_sources_example_gives_the_sources_numbers() -> None:
    found = values(Market("trapezoid"), **SOURCE_EXAMPLE)
    assert found["map"] == pytest.approx((0.7916667 + 0.7083333) / 2, abs=1e-7)
    assert found["rank1"] == found["rank10"] == 1
    assert values(Market("common"), **SOURCE_EXAMPLE)["map"] == pytest.approx((0.8333333 + 0.75) / 2, abs=1e-7)


def test_junk_is_nowhere_in_the_ranking_whether_by_role_or_by_name() -> None:
    one = SOURCE_EXAMPLE | {"role": [QUERY, QUERY] + [GALLERY] * 5 + [JUNK, GALLERY, GALLERY]}
    renamed = one | {"identity": [name.replace("-1", "0001") for name in SOURCE_EXAMPLE["identity"]]}
    assert values(Market(), **SOURCE_EXAMPLE) == values(Market(), **one) == values(Market(), **renamed)
    all_junk = values(Market(), **(SOURCE_EXAMPLE | {"role": [JUNK] * 10}))
    assert np.isnan(all_junk["map"])
    assert all_junk["queries_without_match"] == 0


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_averaged_each_identity_is_one_query_and_one_entry(distance: Literal["cosine", "euclidean"]) -> None:
    data = people(200)
    data["embedding"] += 8 * np.random.default_rng(1).standard_normal(data["embedding"].shape).astype(np.float32)
    roles, names = np.array(data["role"]), np.array(data["identity"])
    points = data["embedding"].astype(float)
    if distance == "cosine":
        points /= np.linalg.norm(points, axis=1, keepdims=True)
    people_there = np.unique(names)
    sides = [
        np.stack([points[(roles == role) & (names == name)].mean(0) for name in people_there])
        for role in (QUERY, GALLERY)
    ]
    if distance == "cosine":
        sides = [side / np.linalg.norm(side, axis=1, keepdims=True) for side in sides]
    apart = np.linalg.norm(sides[0][:, None] - sides[1], axis=2)
    places = (apart < apart.diagonal()[:, None]).sum(1)
    found = values(Market(distance=distance, average=True, ranks=[1, 2]), **data)
    assert found["rank1"] == pytest.approx((places < 1).mean())
    assert found["rank2"] == pytest.approx((places < 2).mean())
    assert found["map"] == pytest.approx((1 / (places + 1)).mean())
    assert 0 < found["map"] < 1


def test_a_distractor_stays_in_the_ranking_and_is_never_right() -> None:
    data = {
        "embedding": [[1, 0], [1, 0.1], [1, 0.2]],
        "identity": ["a", "0000", "a"],
        "role": [QUERY, GALLERY, GALLERY],
    }
    assert values(Market(), **data)["map"] == 0.5


def test_without_roles_every_picture_is_a_query_against_all_others() -> None:
    data = people()
    features = unit(data["embedding"])
    everything = np.arange(60)
    expected = by_hand(-features @ features.T, data, everything, everything)
    assert values(Market(), **{**data, "role": [BOTH] * 60, "source": [""] * 60}) == pytest.approx(expected)
    del data["role"]
    assert values(Market(), **data) == pytest.approx(expected)


def test_cameras_are_optional_and_unknown_ones_remove_nothing() -> None:
    data = people()
    filtered = values(Market(), **data)
    unknown = values(Market(), **(data | {"camera": [-1] * 60}))
    unfiltered = values(Market(camera_filter=False), **data)
    del data["camera"]
    assert values(Market(), **data) == unknown == unfiltered != filtered


def test_one_camera_for_all_leaves_no_match_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    metric, one = Market(), people() | {"camera": [2] * 60}
    found = values(metric, **one)
    assert np.isnan(found["map"])
    assert found["queries_without_match"] == people()["role"].count(QUERY)
    values(Market(), **(one | {"role": [BOTH] * 60}))
    metric.reset()
    values(metric, **one)  # every validation of a training
    values(Market(camera_filter=False), **one)
    assert [text.partition(": ")[2] for text in caplog.messages] == [
        "no query has a right answer: all others of their identities are from their own camera; "
        "see the data's camera, or camera_filter=false"
    ] * 2


@pytest.mark.parametrize(
    ("role", "why"),
    [([QUERY] * 30 + [GALLERY] * 30, "are others than those of the gallery"), ([BOTH] * 60, "has a second picture")],
)
def test_why_no_query_has_a_right_answer_is_told(role: list[int], why: str, caplog: pytest.LogCaptureFixture) -> None:
    strangers = people() | {"identity": [f"person {i}" for i in range(60)], "role": role}
    assert np.isnan(values(Market(), **strangers)["map"])
    assert len(caplog.messages) == 1
    assert why in caplog.messages[0]


def test_labels_serve_where_the_data_have_no_identities() -> None:
    data = people()
    expected = values(Market(), **(data | {"role": [BOTH] * 60}))
    data["label"] = np.unique(data.pop("identity"), return_inverse=True)[1].tolist()
    assert values(Market(), **(data | {"role": [BOTH] * 60})) == expected
    data["label"][0] = -1
    unlabelled = values(Market(), **(data | {"role": [BOTH] * 60}))
    assert unlabelled == values(Market(), start=1, **(data | {"role": [BOTH] * 60}))


def test_ties_are_in_the_order_of_sources_whatever_order_the_pictures_came_in() -> None:
    data = people() | {"embedding": np.ones((60, 3))}
    whole = values(Market(), **data)
    first, second = Market(), Market()
    values(second, stop=25, **data)
    values(first, start=25, **data)
    first.merge(second)
    assert dict(first.compute()) == whole
    order = np.argsort(data["source"])
    roles = np.array(data["role"])[order]
    arranged = {"identity": np.array(data["identity"])[order], "camera": np.array(data["camera"])[order]}
    queries, gallery = np.flatnonzero(roles == QUERY), np.flatnonzero(roles == GALLERY)
    assert whole == by_hand(np.zeros((len(queries), len(gallery))), arranged, queries, gallery)


def test_the_euclidean_distance_sees_lengths_and_the_cosine_does_not() -> None:
    data = people()
    scaled = data["embedding"] * np.linspace(0.1, 10, 60)[:, None].astype(np.float32)
    plain, other = values(Market(), **data), values(Market(), **(data | {"embedding": scaled}))
    assert plain == pytest.approx(other)
    assert values(Market(distance="euclidean"), **data) != plain
    roles = np.array(data["role"])
    queries, gallery = np.flatnonzero(roles == QUERY), np.flatnonzero(roles == GALLERY)
    squared = ((scaled[queries, None].astype(float) - scaled[gallery]) ** 2).sum(-1)
    found = values(Market(distance="euclidean"), **(data | {"embedding": scaled}))
    assert found == pytest.approx(by_hand(squared, data, queries, gallery))


def test_re_ranking_and_expansion_rank_by_the_cores_functions() -> None:
    data = people(seed=3)
    roles = np.array(data["role"])
    queries, gallery = np.flatnonzero(roles == QUERY), np.flatnonzero(roles == GALLERY)
    features = unit(data["embedding"])
    both = np.concatenate([features[queries], features[gallery]])
    places = np.arange(len(queries)), np.arange(len(queries), len(both))
    again = np.concatenate(list(re_rank(both, *places, 5, 3, 0.2)))
    found = values(Market(re_ranking=True, k1=5, k2=3, lambda_value=0.2), **data)
    assert found == pytest.approx(by_hand(again, data, queries, gallery))
    stored = expand(features[gallery], features[gallery], 2, 2.0, np.arange(len(gallery)))
    asked = expand(features[queries], stored, 3, 2.0)
    found = values(Market(expand_queries=3, expand_gallery=2, alpha=2.0), **data)
    assert found == pytest.approx(by_hand(-asked @ stored.T, data, queries, gallery))
    assert found["map"] != values(Market(), **data)["map"]


def test_expansion_of_a_picture_that_is_query_and_gallery_leaves_itself_out() -> None:
    data = people() | {"role": [BOTH] * 60}
    features = unit(data["embedding"])
    asked = expand(features, features, 4, 3.0, np.arange(60))
    expected = by_hand(-asked @ features.T, data, np.arange(60), np.arange(60))
    assert values(Market(expand_queries=4), **data) == pytest.approx(expected)
    together = values(Market(expand_queries=4, re_ranking=True), **data)
    assert 0 < together["map"] <= 1


def test_nothing_seen_or_only_queries_or_only_gallery_gives_nan() -> None:
    for re_ranking in (False, True):
        assert np.isnan(Market(re_ranking=re_ranking).compute()["rank1"])
        only = values(Market(re_ranking=re_ranking), **(people() | {"role": [QUERY] * 60}))
        assert np.isnan(only["map"])
        assert only["queries_without_match"] == 60
        assert np.isnan(values(Market(re_ranking=re_ranking), **(people() | {"role": [GALLERY] * 60}))["map"])


def test_more_ranks_than_pictures_are_no_trouble() -> None:
    found = values(Market(ranks=[1, 1000]), **people())
    assert found["rank1000"] == 1
    assert values(Market("trapezoid", ranks=[1000]), **SOURCE_EXAMPLE)["rank1000"] == 1


def test_half_precision_embeddings_are_taken_as_float32() -> None:
    data = people()
    half = torch.tensor(data["embedding"]).bfloat16()
    metric = Market()
    metric.update({"embedding": half}, {"identity": data["identity"]})
    assert metric.embeddings[0].dtype == np.float32
    assert metric.compute()["rank10"] > 0.5


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_embedding_that_is_no_number_is_refused_with_its_picture(bad: float) -> None:
    embedding = torch.ones(3, 2)
    embedding[1, 0] = bad
    with pytest.raises(UserError, match="embedding of b.jpg is infinite or nan"):
        Market().update({"embedding": embedding}, {"identity": list("xyz"), "source": ["a.jpg", "b.jpg", "c.jpg"]})


def test_outputs_without_an_embedding_are_refused() -> None:
    with pytest.raises(UserError, match="needs an embedding and the identity or label"):
        Market().update({"scores": torch.ones(2, 3)}, {"label": torch.ones(2)})


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"ranks": []}, "ranks must be one number or more"),
        ({"k1": 0}, "k1 and k2 must be at least 1"),
        ({"alpha": -1.0}, "must not be negative"),
        ({"lambda_value": 2.0}, "in 0 to 1"),
        ({"expand_queries": 2, "distance": "euclidean"}, "query expansion is for distance = 'cosine'"),
        ({"ap": "linear"}, "'common' or 'trapezoid'"),
    ],
)
def test_wrong_options_say_what_would_be_right(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        api.load("reid/market", kind="metric", **options)
