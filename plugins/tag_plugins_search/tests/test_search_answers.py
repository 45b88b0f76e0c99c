"""Answers as records, and scores that plain Python computes again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_data import write_pictures

from tag_core.errors import UserError
from tag_core.records import Record
from tag_plugins_search import IndexFolder, search
from tag_plugins_search.entries import id_of
from tag_plugins_search.evaluation import evaluate


def clustered(count: int, prefix: str, seed: int, spread: float = 1.0) -> list[Record]:
    """Of ten labels, not well apart; every seventh has none."""
    centres = np.random.default_rng(99).standard_normal((10, 12))
    noise = np.random.default_rng(seed)
    return [
        Record(
            source=f"{prefix}{i}.jpg",
            embedding=(centres[i % 10] + spread * noise.standard_normal(12)).tolist(),
            truth=None if i % 7 == 6 else str(i % 10),
        )
        for i in range(count)
    ]


def test_a_neighbour_says_where_it_is(tmp_path: Path) -> None:
    entries = [
        Record(source="a.mp4", frame=3, time=0.5, boxes=[[1, 2, 3, 4]], embedding=[1.0, 0.0], truth="cat"),
        Record(source="b.jpg", embedding=[0.0, 1.0]),
    ]
    index = IndexFolder.build(tmp_path / "index", entries)
    queries = [Record(source="q.jpg", embedding=[1.0, 0.0], extra={"mine": 1}), Record(source="bad.jpg", error="no")]
    first, second = search(index, queries, 5)
    near = {"id": "a.mp4#frame=3&t=0.5&box=1,2,3,4", "distance": 0.0, "source": "a.mp4"}
    near |= {"frame": 3, "time": 0.5, "box": [1, 2, 3, 4], "label": "cat"}
    far = {"id": "b.jpg", "distance": 1.0, "source": "b.jpg"}
    assert first == Record(source="q.jpg", extra={"mine": 1, "neighbours": [near, far]})
    assert second == Record(source="bad.jpg", error="no")


def test_a_query_that_does_not_suit_is_named(tmp_path: Path) -> None:
    index = IndexFolder.build(tmp_path / "index", write_pictures(tmp_path / "p"))
    for record, reason in (
        (Record(source="q.jpg"), "q.jpg: has no embedding"),
        (Record(source="q.jpg", embedding=[1.0]), "q.jpg: .*1 numbers, not 3"),
    ):
        with pytest.raises(UserError, match=reason):
            list(search(index, [record]))


def naive(entries: list[Record], queries: list[Record], depth: int) -> dict[str, Any]:
    """Recall and mAP by sorting Python lists, of cosine distances in double precision."""
    recall: dict[int, list[bool]] = {1: [], 5: [], 10: []}
    precisions = []
    for query in queries:
        others = [e for e in entries if e.source != query.source]
        wanted = sum(e.truth == query.truth for e in others)
        if query.truth is None or not wanted:
            continue
        q = np.array(query.embedding)
        others.sort(key=lambda e: -float(q @ e.embedding / np.linalg.norm(e.embedding)))  # type: ignore[arg-type]
        right = [e.truth == query.truth for e in others]
        for k, found in recall.items():
            found.append(any(right[:k]))
        total = sum(sum(right[: i + 1]) / (i + 1) for i in range(min(depth, len(right))) if right[i])
        precisions.append(total / wanted)
    return {"labelled": len(precisions), "mAP": np.mean(precisions)} | {
        f"recall@{k}": np.mean(found) for k, found in recall.items()
    }


@pytest.mark.parametrize("own", [True, False])
def test_scores_are_those_of_a_plain_sort(tmp_path: Path, own: bool) -> None:
    entries = clustered(300, "e", 0)
    queries = entries[:80] if own else clustered(80, "q", 1)
    queries = [*queries, Record(source="new", embedding=[1.0] * 12, truth="unheard of")]
    truth = naive(entries, queries, 300)
    index = IndexFolder.build(tmp_path / "index", entries)
    found = evaluate(index, iter(queries))
    assert found["queries"] == 81
    assert {name: found[name] for name in truth} == pytest.approx(truth)
    assert [found[f"exact@{k}"] for k in (1, 5, 10)] == [1, 1, 1]
    assert 0.3 < found["mAP"] < 0.9
    shallow = evaluate(index, iter(queries), k=20)
    assert shallow["mAP@20"] == pytest.approx(naive(entries, queries, 20)["mAP"])


@pytest.mark.parametrize(("metric", "scale"), [("cosine", 1.0), ("euclidean", 1e-4), ("euclidean", 1e4)])
def test_exactness_is_the_share_that_exact_search_finds_too(tmp_path: Path, metric: Any, scale: float) -> None:
    entries, queries = clustered(2000, "e", 0), clustered(100, "q", 1)
    for record in (*entries, *queries):
        record.embedding = (scale * np.array(record.embedding)).tolist()
    coarse = {"name": "search/hnsw", "m": 2, "ef_construction": 2, "ef_search": 1}
    index = IndexFolder.build(tmp_path / "index", entries, coarse, metric=metric)
    index.remove([entries[0].source, entries[7].source])
    found = evaluate(index, iter(queries))
    rows = index.vectors(index.numbers().tolist()).astype(float)
    shares = []
    for query in queries:
        asked = np.array(query.embedding)
        far = -(rows @ asked) if metric == "cosine" else np.linalg.norm(rows - asked, axis=1)
        exact = index.numbers()[np.argsort(far)[:10]]
        shares.append(len(set(exact.tolist()) & set(index.search([query.embedding], 10).numbers[0].tolist())) / 10)
    assert found["exact@10"] == pytest.approx(np.mean(shares))
    assert found["exact@10"] < 0.95


def test_an_exact_index_of_long_vectors_near_each_other_is_exact(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(200, 64)) * 10
    given, asked = (
        [Record(source=f"{name}{i}", embedding=row.tolist()) for i, row in enumerate(rows + shift)]
        for name, shift in (("e", 0), ("q", 0.01))
    )
    index = IndexFolder.build(tmp_path / "index", given, metric="euclidean")
    found = evaluate(index, asked)
    assert [found[f"exact@{k}"] for k in (1, 5, 10)] == [1, 1, 1]


def test_expansion_and_re_ranking_reach_the_answers(tmp_path: Path) -> None:
    entries, queries = clustered(300, "e", 0), clustered(80, "q", 1)
    index = IndexFolder.build(tmp_path / "index", entries)
    plain = evaluate(index, iter(queries))["mAP"]
    assert evaluate(index, iter(queries), expand=5)["mAP"] > plain
    assert evaluate(index, iter(queries), rerank=100)["mAP"] != plain
    near = next(iter(search(index, clustered(1, "q", 1), 3, rerank=50))).extra["neighbours"]
    found = index.search([queries[0].embedding], 3, rerank=50)
    assert [item["distance"] for item in near] == found.distances[0].tolist()
    assert [item["id"] for item in near] == [id_of(r) for r in index.records(found.numbers[0].tolist())]


def test_without_labels_there_is_only_exactness(tmp_path: Path) -> None:
    index = IndexFolder.build(tmp_path / "index", write_pictures(tmp_path / "p", 1))
    found = evaluate(index, write_pictures(tmp_path / "q", 1))
    assert found == {"queries": 3, "labelled": 0, "recall@1": None, "recall@5": None, "recall@10": None, "mAP": None,
                     "exact@1": 1.0}  # fmt: skip
