"""An index folder: what is found, what changes, and what is refused."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from tag_core.errors import ConfigError, RunFolderError, UserError
from tag_core.records import Record
from tag_plugins_search import components
from tag_plugins_search.embeddings import read_embeddings
from tag_plugins_search.entries import LONGEST, id_of
from tag_plugins_search.store import IndexFolder

faiss.omp_set_num_threads(1)  # several wait for each other in turns when the processors are busy
INDEXES: list[Any] = ["search/flat", "search/hnsw", {"name": "search/ivf-pq", "probes": 1000, "pq_size": 16}]
DIMENSION = 16
each_index = pytest.mark.parametrize("index", INDEXES, ids=["flat", "hnsw", "ivf-pq"])


def clusters(count: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Vectors about 20 centres, of many lengths."""
    centres = np.random.default_rng(99).standard_normal((20, DIMENSION))
    rng = np.random.default_rng(seed)
    rows = centres[rng.integers(0, 20, count)] + 0.3 * rng.standard_normal((count, DIMENSION))
    return (rows * rng.uniform(0.1, 10, (count, 1))).astype(np.float32)


def records(vectors: npt.NDArray[np.float32], first: int = 0) -> list[Record]:
    return [Record(source=f"{first + i}.jpg", embedding=row.tolist()) for i, row in enumerate(vectors)]


def exact(vectors: npt.NDArray[np.float32], queries: npt.NDArray[np.float32], metric: str) -> npt.NDArray[np.float64]:
    """Distances [Q, N]."""
    x, q = vectors.astype(np.float64), queries.astype(np.float64)
    if metric == "euclidean":
        return np.linalg.norm(q[:, None] - x[None], axis=2)
    return 1 - (q @ x.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(x, axis=1)


def sources(index: IndexFolder, numbers: npt.NDArray[np.int64]) -> list[str]:
    return [record.source for record in index.records(numbers.tolist())]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
@each_index
def test_the_nearest_are_those_of_plain_numpy_with_the_metrics_distances(
    index: Any, metric: Any, tmp_path: Path
) -> None:
    vectors, queries = clusters(2000), clusters(50, seed=1)
    IndexFolder.build(tmp_path / "index", records(vectors), index, metric=metric)
    opened = IndexFolder.open(tmp_path / "index")
    found = opened.search(queries, 5)
    distances = exact(vectors, queries, metric)
    order = distances.argsort(axis=1)[:, :5]
    assert found.distances.dtype == np.float32
    assert found.numbers.dtype == np.int64
    np.testing.assert_allclose(found.distances, np.take_along_axis(distances, found.numbers, 1), rtol=1e-4, atol=1e-6)
    assert (np.diff(found.distances) >= 0).all()
    assert (found.numbers == order).mean() > (0.999 if index == "search/flat" else 0.95)
    assert sources(opened, found.numbers[0]) == [f"{i}.jpg" for i in found.numbers[0]]


@each_index
def test_an_index_that_was_added_to_finds_old_and_new(index: Any, tmp_path: Path) -> None:
    vectors = clusters(1500)
    built = IndexFolder.build(tmp_path / "index", records(vectors[:1000]), index)
    assert built.add(records(vectors[1000:1200], 1000)) == 200
    assert built.add(records(vectors[1200:], 1200)) == 300
    opened = IndexFolder.open(tmp_path / "index")
    for each in (built, opened):
        assert len(each) == 1500
        assert (each.search(vectors, 1).numbers[:, 0] == np.arange(1500)).all()
        assert each.verify() == []
    assert sources(opened, np.array([0, 1000, 1499])) == ["0.jpg", "1000.jpg", "1499.jpg"]


@each_index
def test_removed_entries_are_not_found_and_the_next_ones_are(index: Any, tmp_path: Path) -> None:
    vectors = clusters(1000)
    built = IndexFolder.build(tmp_path / "index", records(vectors), index)
    query = vectors[:1]
    before = built.search(query, 200).numbers[0]
    assert built.remove([f"{i}.jpg" for i in before[:100]]) == 100
    for each in (built, IndexFolder.open(tmp_path / "index")):
        assert len(each) == 900
        after = each.search(query, 100).numbers[0]
        assert not set(after) & set(before[:100])
        assert np.isin(after, before[100:]).mean() > (0.99 if index == "search/flat" else 0.9)
        assert set(each.numbers()) == set(range(1000)) - set(before[:100].tolist())


@each_index
def test_compact_leaves_what_was_not_removed(index: Any, tmp_path: Path) -> None:
    vectors = clusters(1000)
    built = IndexFolder.build(tmp_path / "index", records(vectors), index, embedding={"fingerprint": "a"})
    built.remove([f"{i}.jpg" for i in range(0, 1000, 2)])
    size = sum(path.stat().st_size for path in (tmp_path / "index").iterdir())
    assert built.compact() == 500
    opened = IndexFolder.open(tmp_path / "index")
    assert len(opened) == len(built) == 500
    assert opened.manifest.removed == 0
    assert opened.manifest.embedding == {"fingerprint": "a"}
    assert sources(opened, opened.search(vectors[1::2], 1).numbers[:, 0]) == [f"{i}.jpg" for i in range(1, 1000, 2)]
    assert sum(path.stat().st_size for path in (tmp_path / "index").iterdir()) < 0.6 * size
    assert opened.verify() == []


def test_a_removed_id_may_come_again_with_another_vector(tmp_path: Path) -> None:
    vectors = clusters(10)
    index = IndexFolder.build(tmp_path / "index", records(vectors))
    index.remove(["3.jpg"])
    index.add([Record(source="3.jpg", embedding=(-vectors[3]).tolist())])
    found = index.search(-vectors[3:4], 1)
    assert sources(index, found.numbers[0]) == ["3.jpg"]
    assert found.distances[0, 0] == pytest.approx(0, abs=1e-6)
    assert len(index) == 10
    index.compact()
    assert len(index) == 10


def test_a_source_stands_for_all_of_its_entries(tmp_path: Path) -> None:
    given = [Record(source="a.mp4", frame=i, embedding=row.tolist()) for i, row in enumerate(clusters(5))]
    index = IndexFolder.build(tmp_path / "index", [*given, *records(clusters(3, seed=1))])
    assert index.remove(["a.mp4#frame=2"]) == 1
    assert index.remove(["a.mp4", "a.mp4#frame=0"]) == 4
    assert sorted(sources(index, index.numbers())) == ["0.jpg", "1.jpg", "2.jpg"]


def test_an_index_of_which_all_is_removed_finds_nothing_and_can_be_added_to(tmp_path: Path) -> None:
    vectors = clusters(5)
    index = IndexFolder.build(tmp_path / "index", records(vectors))
    index.remove([f"{i}.jpg" for i in range(5)])
    assert len(index) == 0
    assert index.search(vectors, 3).numbers.shape == (5, 0)
    with pytest.raises(UserError, match="all of its entries are removed"):
        index.compact()
    index.add(records(vectors[:1], 7))
    assert sources(index, index.search(vectors[:1]).numbers[0]) == ["7.jpg"]


def test_more_neighbours_than_there_are_give_all_of_them(tmp_path: Path) -> None:
    index = IndexFolder.build(tmp_path / "index", records(clusters(7)))
    assert sorted(index.search(clusters(1), 100).numbers[0]) == list(range(7))


def test_a_record_comes_back_whole_but_for_its_embedding(tmp_path: Path) -> None:
    given = Record(
        source="Übung/\udce9.mp4", time=[1.5, 3.0], boxes=[[1, 2, 3.5, 4]], labels=["cat"], scores=[0.5], truth="cat",
        embedding=[1.0, 2.0], extra={"camera": 3, "nothing": float("nan")},
    )  # fmt: skip
    index = IndexFolder.build(tmp_path / "index", [given])
    found = index.records([0, -1])
    expected = given.to_dict() | {"embedding": None, "extra": {"camera": 3, "nothing": None}}
    assert found == [Record(**expected)]
    np.testing.assert_allclose(index.vectors([0]), [[1 / 5**0.5, 2 / 5**0.5]], rtol=1e-6)
    assert index.remove([id_of(given)]) == 1


def test_ids_tell_frames_times_and_boxes_of_a_source_apart() -> None:
    assert id_of(Record(source="a.jpg")) == "a.jpg"
    assert id_of(Record(source="a.mp4", frame=3, time=0.12)) == "a.mp4#frame=3&t=0.12"
    assert id_of(Record(source="a.mp4", time=[1, 2.5], boxes=[[0, 1, 2, 3.25]])) == "a.mp4#t=1,2.5&box=0,1,2,3.25"
    assert id_of(Record(source="a.jpg", extra={"id": "sku-7"})) == "sku-7"


def test_auto_is_exact_up_to_a_number_and_a_graph_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(components, "FLAT_UP_TO", 100)
    index = IndexFolder.build(tmp_path / "index", records(clusters(100)))
    assert index.manifest.index == {"name": "search/flat"}
    index.add(records(clusters(1, seed=1), 100))
    assert index.manifest.index["name"] == "search/flat"  # adding one must not take minutes
    index.compact()
    assert IndexFolder.open(tmp_path / "index").manifest.index["name"] == "search/hnsw"
    fixed = IndexFolder.build(tmp_path / "fixed", records(clusters(101)), "flat")
    fixed.compact()
    assert fixed.manifest.index == {"name": "search/flat"}


def test_the_manifest_writes_out_all_options_of_the_index(tmp_path: Path) -> None:
    IndexFolder.build(tmp_path / "index", records(clusters(50)), {"name": "hnsw", "m": 8})
    told = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert told["index"] == {"name": "search/hnsw", "m": 8, "ef_construction": 40, "ef_search": 64}
    assert (told["version"], told["dimension"], told["count"], told["metric"]) == (1, DIMENSION, 50, "cosine")


def test_sources_that_could_not_be_read_are_told_and_left_out(tmp_path: Path) -> None:
    index = IndexFolder.build(tmp_path / "index", [*records(clusters(3)), Record(source="x.jpg", error="no picture")])
    assert len(index) == 3
    assert index.unreadable == {"x.jpg": "no picture"}
    assert index.add([Record(source="y.jpg", error="empty")]) == 0
    assert index.unreadable["y.jpg"] == "empty"


def test_an_embedding_of_another_model_is_refused(tmp_path: Path) -> None:
    index = IndexFolder.build(tmp_path / "index", records(clusters(3)), embedding={"fingerprint": "a", "recipe": "r"})
    index.check_fingerprint("a")
    index.check_fingerprint(None)
    with pytest.raises(UserError, match="another recipe or other weights"):
        IndexFolder.open(tmp_path / "index").check_fingerprint("b")


def _bad_records() -> Iterator[Any]:
    good = records(clusters(3))
    row = [1.0] * DIMENSION
    yield pytest.param([], "no records", id="none")
    yield pytest.param([Record(source="x", error="bad")], "none of 1 sources could be read", id="unreadable")
    yield pytest.param([*good, Record(source="x.jpg")], "x.jpg: has no embedding", id="no embedding")
    yield pytest.param([*good, Record(source="x.jpg", embedding=[1.0, 2.0])], "x.jpg.* 2 numbers, not 16", id="shape")
    yield pytest.param([*good, Record(source="x.jpg", embedding=[])], "x.jpg.* 0 numbers, not 16", id="empty")
    for number in (float("nan"), float("inf"), 1e39):
        bad = Record(source="x.jpg", embedding=[*row[1:], number])
        yield pytest.param([*good, bad], "x.jpg.*not finite", id=str(number))
    yield pytest.param([*good, Record(source="x.jpg", embedding=[0.0] * DIMENSION)], "x.jpg.*all zeros", id="zeros")
    yield pytest.param([*good, Record(source="1.jpg", embedding=row)], "1.jpg: the id is there twice", id="twice")
    for name, value in {"text": ["a"] * DIMENSION, "number": 5, "nested": [[1.0]] * DIMENSION}.items():
        bad = Record(source="x.jpg", embedding=value)  # type: ignore[arg-type]
        yield pytest.param([bad], "x.jpg.*not a list of num", id=name)


@pytest.mark.parametrize(("bad", "told"), list(_bad_records()))
def test_bad_records_build_nothing(bad: list[Record], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        IndexFolder.build(tmp_path / "index", bad)
    assert not (tmp_path / "index").exists()
    (tmp_path / "index").mkdir()
    with pytest.raises(UserError, match=told):
        IndexFolder.build(tmp_path / "index", bad)
    IndexFolder.build(tmp_path / "index", records(clusters(3)))  # the folder is none the worse for it


@pytest.mark.parametrize(("bad", "told"), [case for case in _bad_records() if case.id not in ("none", "unreadable")])
def test_bad_records_add_nothing(bad: list[Record], told: str, tmp_path: Path) -> None:
    index = IndexFolder.build(tmp_path / "index", [*records(clusters(2), 100), records(clusters(2))[1]])
    before = sorted(path.name for path in (tmp_path / "index").iterdir())
    with pytest.raises(UserError, match=told if "[" not in told else None):
        index.add(
            [Record(source=f"new {r.source}" if r.source != "1.jpg" else r.source, embedding=r.embedding) for r in bad]
        )
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == before
    assert len(index) == len(IndexFolder.open(tmp_path / "index")) == 3


def test_an_id_twice_is_told_whatever_lies_between_and_a_source_twice_is_no_fault(tmp_path: Path) -> None:
    vectors = clusters(9000)
    given = records(vectors)
    given[8999] = Record(source="5.jpg", embedding=vectors[0].tolist())
    with pytest.raises(UserError, match=r"5.jpg: the id is there twice \(entries 5 and 8999\);"):
        IndexFolder.build(tmp_path / "index", given)
    index = IndexFolder.build(tmp_path / "index", given[:8999])
    with pytest.raises(UserError, match=r"7.jpg: the id is there twice"):
        index.add([Record(source="7.jpg", embedding=vectors[0].tolist())])
    index.add([Record(source="7.jpg", frame=1, embedding=vectors[0].tolist())])


@pytest.mark.parametrize(
    ("queries", "options", "told"),
    [
        (np.ones((2, 3)), {}, r"shape \[2, 3\]; this index takes \[N, 16\]"),
        (np.ones(DIMENSION), {}, r"shape \[16\]"),
        (np.full((1, DIMENSION), np.nan), {}, "query 0: .*not finite"),
        (np.stack([np.ones(DIMENSION), np.zeros(DIMENSION)]), {}, "query 1: .*all zeros"),
        (np.ones((1, DIMENSION)), {"k": 0}, "k is 0"),
        (np.ones((1, DIMENSION)), {"expand": -1}, "expand -1"),
    ],
)
def test_bad_queries_are_refused(queries: Any, options: Any, told: str, tmp_path: Path) -> None:
    index = IndexFolder.build(tmp_path / "index", records(clusters(5)))
    with pytest.raises(UserError, match=told):
        index.search(queries, **options)


def test_zeros_are_a_place_like_any_other_for_the_euclidean_metric(tmp_path: Path) -> None:
    given = [Record(source="0", embedding=[0.0, 0.0]), Record(source="1", embedding=[3.0, 4.0])]
    index = IndexFolder.build(tmp_path / "index", given, metric="euclidean")
    np.testing.assert_allclose(index.search([[0, 0]], 2).distances, [[0, 5]])
    with pytest.raises(UserError, match="weighs by cosine"):
        index.search([[1, 1]], expand=1)


def test_the_euclidean_metric_refuses_vectors_whose_squared_distances_leave_float32(tmp_path: Path) -> None:
    long = [Record(source=f"{i}.jpg", embedding=(1e25 * row).tolist()) for i, row in enumerate(clusters(30))]
    with pytest.raises(
        UserError, match=r"^0.jpg: its embedding is .*e\+2\d long: .*; leave it out, or take metric cosine"
    ):
        IndexFolder.build(tmp_path / "index", long, metric="euclidean")
    given = records(clusters(30) / np.float32(100) * np.float32(LONGEST))
    index = IndexFolder.build(tmp_path / "index", given, metric="euclidean")
    found = index.search([given[3].embedding], 5, rerank=10)
    assert found.numbers[0, 0] == 3
    assert np.isfinite(found.distances).all()
    opposite = index.search([(-np.array(given[3].embedding)).tolist()], 30)
    assert np.isfinite(opposite.distances).all()
    with pytest.raises(UserError, match=r"^0.jpg: its embedding is .* long"):
        index.add(long[:1])
    with pytest.raises(UserError, match=r"^query 1: its embedding is .* long: .* leave float32$"):
        index.search([given[3].embedding, long[3].embedding])
    by_cosine = IndexFolder.build(tmp_path / "cosine", long)
    assert (by_cosine.search([record.embedding for record in long], 1, rerank=10).numbers[:, 0] == np.arange(30)).all()


def test_of_many_ids_that_are_there_already_the_first_and_the_number_are_told(tmp_path: Path) -> None:
    index = IndexFolder.build(tmp_path / "index", records(clusters(50)))
    again = records(clusters(45), first=30)
    with pytest.raises(UserError, match=r"^30.jpg: the id is there twice \(entries 30 and 50, and 19 more like it\);"):
        index.add(again)


def test_a_name_that_is_no_entry_removes_nothing(tmp_path: Path) -> None:
    index = IndexFolder.build(tmp_path / "index", records(clusters(5)))
    with pytest.raises(UserError, match="no entry or source 'x.jpg'"):
        index.remove(["1.jpg", "x.jpg"])
    assert len(index) == 5
    assert index.remove([]) == 0


@pytest.mark.parametrize("index", [{"name": "search/ivf-pq"}, {"name": "search/ivf-pq", "lists": 100, "pq_bits": 8}])
def test_too_few_vectors_to_train_on_are_told_with_the_way_out(index: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"10 vectors cannot train .*; take search/flat"):
        IndexFolder.build(tmp_path / "index", records(clusters(10)), index)


@pytest.mark.parametrize(
    ("index", "told"),
    [
        ("search/hnws", "did you mean 'search/hnsw'"),
        ({"name": "search/hnsw", "ef": 3}, "ef: search/hnsw has no such option"),
        ({"name": "search/hnsw", "m": 1}, "at least 2"),
        ({"name": "search/ivf-pq", "pq_bits": 5}, "pq_bits 4 or 8"),
        ({"name": "search/ivf-pq", "pq_size": 5}, "5 does not divide the dimension 16"),
    ],
)
def test_wrong_options_of_an_index_are_told(index: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises((ConfigError, UserError), match=told):
        IndexFolder.build(tmp_path / "index", records(clusters(100)), index)


def test_a_folder_that_holds_an_index_is_replaced_only_when_told(tmp_path: Path) -> None:
    IndexFolder.build(tmp_path / "index", records(clusters(5)))
    with pytest.raises(UserError, match="holds an index already"):
        IndexFolder.build(tmp_path / "index", records(clusters(6)))
    assert len(IndexFolder.build(tmp_path / "index", records(clusters(6)), "hnsw", replace=True)) == 6
    (tmp_path / "index" / "manifest.json").write_text("{")
    with pytest.raises(UserError, match="damaged"):
        IndexFolder.open(tmp_path / "index")
    IndexFolder.build(tmp_path / "index", records(clusters(7)), replace=True)
    assert len(IndexFolder.open(tmp_path / "index")) == 7
    assert len(list((tmp_path / "index").iterdir())) == 6  # lock, manifest, four files


def test_a_build_that_was_killed_is_told_and_replaced(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from test_search_store import IndexFolder, clusters, records
def dying():
    yield from records(clusters(5000))
    os.kill(os.getpid(), signal.SIGKILL)
IndexFolder.build(sys.argv[1], dying())
"""
    command = [sys.executable, "-c", code, str(tmp_path / "index")]
    assert subprocess.run(command, cwd=Path(__file__).parent, check=False).returncode == -signal.SIGKILL
    with pytest.raises(
        UserError,
        match=r"index: no index there yet: a build is not finished \(manifest.json is missing\); .* build again",
    ):
        IndexFolder.open(tmp_path / "index")
    IndexFolder.build(tmp_path / "index", records(clusters(5)))
    assert len(IndexFolder.open(tmp_path / "index")) == 5


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match=r"holds something else \(thesis.tex\)"):
        IndexFolder.build(tmp_path, records(clusters(5)))
    assert [path.name for path in tmp_path.iterdir() if path.name != ".tag-lock"] == ["thesis.tex"]
    for path in (tmp_path, tmp_path / "nowhere", tmp_path / "thesis.tex"):
        with pytest.raises(UserError, match="no index there"):
            IndexFolder.open(path)
    for path in (tmp_path / "thesis.tex", tmp_path / "thesis.tex" / "index"):
        with pytest.raises(RunFolderError, match=f"^{path}: cannot be written: a file is in the way; name another"):
            IndexFolder.build(path, records(clusters(5)))


@each_index
def test_files_that_are_short_missing_or_altered_are_told(index: Any, tmp_path: Path) -> None:
    built = IndexFolder.build(tmp_path / "index", records(clusters(500)), index)
    built.remove(["1.jpg"])
    for file in built.manifest.files.values():
        path = tmp_path / "index" / file["name"]
        whole = path.read_bytes()
        for bad in (whole[:-1], whole + b"x", None):
            path.unlink()
            if bad is not None:
                path.write_bytes(bad)
            with pytest.raises(UserError, match=rf"damaged \({path.name}: "):
                IndexFolder.open(tmp_path / "index")
        flipped = bytearray(whole)
        flipped[-len(whole) // 3] ^= 1
        path.write_bytes(flipped)
        try:
            opened = IndexFolder.open(tmp_path / "index")
        except UserError as error:  # the byte is in a header
            told = str(error)
        else:
            told = "damaged"
            assert opened.verify() == [f"{path.name}: damaged: its bytes are not those that were written"]
            for change in (lambda o=opened: o.add(records(clusters(1), 500)), opened.compact):
                with pytest.raises(UserError, match="damaged"):
                    change()
        assert "damaged" in told
        path.write_bytes(whole)
    assert IndexFolder.open(tmp_path / "index").verify() == []


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"version": 1}', "\0"])
def test_a_damaged_manifest_is_told(text: str, tmp_path: Path) -> None:
    IndexFolder.build(tmp_path / "index", records(clusters(5)))
    (tmp_path / "index" / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=r"manifest.json: damaged \("):
        IndexFolder.open(tmp_path / "index")


def test_an_index_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    IndexFolder.build(tmp_path / "index", records(clusters(5)))
    path = tmp_path / "index" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 2, "shards": 4}))
    with pytest.raises(UserError, match="an index of version 2, this is 1; upgrade tag-plugins-search"):
        IndexFolder.open(tmp_path / "index")


def test_two_writers_at_once_are_refused(tmp_path: Path) -> None:
    IndexFolder.build(tmp_path / "index", records(clusters(5)))
    code = """
import sys
from tag_core.records import Record
from tag_plugins_search.store import IndexFolder
def slow():
    yield Record(source="a", embedding=[1.0] * 16)
    for i in range(5000): yield Record(source=str(i), embedding=[1.0] * 16)
    print("inside", flush=True)
    sys.stdin.readline()
IndexFolder.open(sys.argv[1]).add(slow())
"""
    command = [sys.executable, "-c", code, str(tmp_path / "index")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        assert other.stdout.readline() == "inside\n"
        index = IndexFolder.open(tmp_path / "index")
        for change in (lambda: index.add(records(clusters(1), 5)), lambda: index.remove(["1.jpg"]), index.compact):
            with pytest.raises(UserError, match="another process is writing to this index"):
                change()
        assert len(index.search(clusters(2), 3).numbers) == 2
        other.stdin.write("\n")
    assert other.returncode == 0
    assert len(IndexFolder.open(tmp_path / "index")) == 5006
    with pytest.raises(UserError, match="has changed it meanwhile"):
        index.remove(["1.jpg"])
    assert index.add(records(clusters(1), 9000)) == 1  # onto what the other has added
    assert len(index) == 5007


def test_a_reader_goes_on_with_the_index_that_it_opened(tmp_path: Path) -> None:
    vectors = clusters(300)
    writer = IndexFolder.build(tmp_path / "index", records(vectors), "hnsw")
    reader = IndexFolder.open(tmp_path / "index")
    writer.add(records(clusters(50, seed=1), 300))
    writer.remove(["1.jpg"])
    writer.compact()
    assert (reader.search(vectors, 1).numbers[:, 0] == np.arange(300)).all()
    assert sources(reader, np.array([1, 299])) == ["1.jpg", "299.jpg"]


@each_index
def test_a_full_disk_leaves_the_old_index(index: Any, tmp_path: Path) -> None:
    vectors = clusters(3000)
    IndexFolder.build(tmp_path / "index", records(vectors[:1000]), index)
    code = """
import resource, signal, sys
from test_search_store import IndexFolder, RunFolderError, clusters, records
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
opened = IndexFolder.open(sys.argv[1])
failed = 0
for limit in map(int, sys.argv[2:]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        opened.add(records(clusters(3000)[1000:], 1000))
    except RunFolderError as error:
        assert "cannot be written: " in str(error)
        failed += 1
    assert len(opened) == len(IndexFolder.open(sys.argv[1])) == 1000
print(failed)
"""
    limits = ["1000", "70000", "150000", *["300000"] * (index == "search/hnsw")]  # bytes of a file; the graph has more
    command = [sys.executable, "-c", code, str(tmp_path / "index"), *limits]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(limits)
    opened = IndexFolder.open(tmp_path / "index")
    assert opened.verify() == []
    opened.add(records(vectors[1000:], 1000))
    assert (opened.search(vectors[::50], 1).numbers[:, 0] == np.arange(0, 3000, 50)).all()


@each_index
def test_opening_maps_the_files_and_reads_little_of_them(index: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((20_000, 256)).astype(np.float32)
    quick: Any = {"search/hnsw": {"m": 4, "ef_construction": 8}, "search/flat": {}}.get(str(index), {"lists": 16})
    options = {"name": index if isinstance(index, str) else index["name"], **quick}
    for name, count in (("small", 100), ("large", len(vectors))):
        given = (Record(source=f"{i}.jpg", embedding=row) for i, row in enumerate(vectors[:count]))  # type: ignore[arg-type]
        IndexFolder.build(tmp_path / name, given, options)
    code = """
import sys
from pathlib import Path
from tag_plugins_search.store import IndexFolder
def resident():
    line = next(l for l in Path("/proc/self/status").read_text().splitlines() if l.startswith("VmRSS"))
    return int(line.split()[1]) * 1024
small = IndexFolder.open(sys.argv[1])
before = resident()
index = IndexFolder.open(sys.argv[2])
opened = resident() - before
index.vectors(index.numbers())
print(opened, resident() - before)
"""
    command = [sys.executable, "-c", code, str(tmp_path / "small"), str(tmp_path / "large")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    opened, read = map(int, done.stdout.split())
    assert opened < 0.1 * vectors.nbytes
    assert read > vectors.nbytes


def test_query_expansion_searches_with_the_weighted_mean_of_the_neighbours(tmp_path: Path) -> None:
    vectors, queries = clusters(200), clusters(10, seed=1)
    index = IndexFolder.build(tmp_path / "index", records(vectors))
    units, q = (x.astype(np.float64) / np.linalg.norm(x, axis=1)[:, None] for x in (vectors, queries))
    similar = q @ units.T
    near = similar.argsort(axis=1)[:, ::-1][:, :4]
    weights = np.maximum(np.take_along_axis(similar, near, 1), 0) ** 2.0
    mean = q + np.einsum("qk,qkd->qd", weights, units[near])
    expected = 1 - (mean / np.linalg.norm(mean, axis=1)[:, None]) @ units.T
    found = index.search(queries, 5, expand=4, alpha=2.0)
    np.testing.assert_allclose(found.distances, np.sort(expected, axis=1)[:, :5], rtol=1e-4, atol=1e-6)


def test_re_ranking_reorders_the_neighbours_of_a_query_whatever_else_is_asked(tmp_path: Path) -> None:
    vectors, queries = clusters(300), clusters(6, seed=1)
    index = IndexFolder.build(tmp_path / "index", records(vectors))
    plain, found = index.search(queries, 50), index.search(queries, 20, rerank=50)
    assert found.numbers.shape == (6, 20)
    for row in range(6):
        assert set(found.numbers[row]) <= set(plain.numbers[row])
        alone = index.search(queries[row : row + 1], 20, rerank=50)
        assert (alone.numbers[0] == found.numbers[row]).all()
        np.testing.assert_array_equal(alone.distances[0], found.distances[row])
    assert (np.diff(found.distances) >= 0).all()
    assert (found.numbers != plain.numbers[:, :20]).any()


def test_the_readme_s_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8").partition("## From Python\n")[2]
    code = "\n".join(line[4:] for line in readme.splitlines() if line.startswith("    "))
    monkeypatch.chdir(tmp_path)
    vectors = clusters(30)
    for name in ("predictions", "queries"):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{each.to_json()}\n" for each in records(vectors)))
    names: dict[str, Any] = {"vectors": vectors}
    exec(code, names)
    assert names["found"].distances.shape == names["found"].numbers.shape == (30, 10)
    model, found = read_embeddings(["predictions.jsonl"])
    assert len(IndexFolder.build("other.index", found, embedding=model)) == 30


def test_a_query_gives_the_same_whether_asked_alone_or_among_many(tmp_path: Path) -> None:
    vectors = clusters(5000)
    index = IndexFolder.build(tmp_path / "index", records(vectors), metric="euclidean")
    many = index.search(vectors[:100], 5)
    one = index.search(vectors[7:8], 5)
    np.testing.assert_array_equal(one.distances[0], many.distances[7])
    assert many.distances[:, 0].max() == 0  # an entry is at distance 0 of itself, without rounding
