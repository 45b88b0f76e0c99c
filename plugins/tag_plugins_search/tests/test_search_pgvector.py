"""Indexes in PostgreSQL: against plain numpy, and whatever goes wrong in between. A real server is started."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
import pytest
from postgres_server import server, why_not

import tag_core
from tag_core.cli.main import main
from tag_core.errors import ConfigError, UserError
from tag_core.records import Record
from tag_plugins_search.evaluation import evaluate
from tag_plugins_search.store import IndexFolder

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not() or "-")
VECTORS = np.random.default_rng(0).standard_normal((400, 16)).astype(np.float32)
QUERIES = np.random.default_rng(1).standard_normal((30, 16)).astype(np.float32)


@pytest.fixture(scope="module")
def dsn() -> Iterator[str]:
    with server() as found:
        yield found


@pytest.fixture
def table(dsn: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> dict[str, Any]:
    """The index as ``build`` takes it, in a table of this test's own."""
    monkeypatch.setenv("TAG_POSTGRES", dsn)
    return {"name": "search/pgvector", "table": f"t{abs(hash(request.node.name))}"}


def records(vectors: np.ndarray = VECTORS, prefix: str = "") -> list[Record]:
    return [Record(source=f"{prefix}{i}.jpg", embedding=row.tolist(), truth="x") for i, row in enumerate(vectors)]


def tables(dsn: str, name: str) -> list[str]:
    with psycopg.connect(dsn) as connection:
        query = "SELECT relname FROM pg_class WHERE relkind = 'r' AND relname LIKE %s ORDER BY 1"
        return [row[0] for row in connection.execute(query, [f"{name}%"])]


def exact(vectors: np.ndarray, metric: str) -> np.ndarray:
    """Distances of QUERIES to vectors in double precision."""
    q, v = QUERIES.astype(float), vectors.astype(float)
    if metric == "euclidean":
        return np.linalg.norm(q[:, None] - v, axis=2)
    return 1 - (q @ v.T) / np.linalg.norm(q, axis=1)[:, None] / np.linalg.norm(v, axis=1)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_it_finds_what_numpy_finds(tmp_path: Path, table: dict[str, Any], metric: Any) -> None:
    index = IndexFolder.build(tmp_path / "index", records(), {**table, "ef_search": 400}, metric=metric)
    truth = exact(VECTORS, metric)
    for k in (1, 10, 400):
        found = IndexFolder.open(tmp_path / "index").search(QUERIES, k)
        assert (found.numbers == np.argsort(truth, axis=1)[:, :k]).all()
        np.testing.assert_allclose(found.distances, np.sort(truth, axis=1)[:, :k], atol=2e-6)
    assert [record.source for record in index.records([3, 0, -1])] == ["3.jpg", "0.jpg"]
    assert index.records([0])[0] == Record(source="0.jpg", truth="x")
    assert len(index) == 400


def test_its_exactness_is_told_of_long_vectors_near_each_other(tmp_path: Path, table: dict[str, Any]) -> None:
    rows = (np.random.default_rng(0).normal(size=(200, 64)) * 10).astype(np.float32)
    index = IndexFolder.build(tmp_path / "index", records(rows), {**table, "ef_search": 1001}, metric="euclidean")
    found = evaluate(index, records(rows + np.float32(0.01), "q"))
    assert [found[f"exact@{k}"] for k in (1, 5, 10)] == [1, 1, 1]


def test_hnsw_is_nearly_exact_and_as_good_as_its_options(tmp_path: Path, table: dict[str, Any]) -> None:
    rows, queries = (np.random.default_rng(seed).standard_normal((n, 64)) for seed, n in ((2, 3000), (3, 30)))
    truth = np.argsort(np.linalg.norm(queries[:, None] - rows, axis=2), axis=1)[:, :10]
    recall = {}
    for name, options in {"fine": {}, "coarse": {"m": 2, "ef_construction": 4, "ef_search": 1}}.items():
        index = IndexFolder.build(
            tmp_path / name, records(rows), {**table, "table": name, **options}, metric="euclidean"
        )
        pairs = zip(index.search(queries, 10).numbers.tolist(), truth.tolist(), strict=True)
        recall[name] = np.mean([len(set(found) & set(right)) / 10 for found, right in pairs])
    assert recall["fine"] > 0.97
    assert recall["coarse"] < 0.7, "the graph was not used"


def test_added_entries_are_found_and_removed_ones_are_not(tmp_path: Path, table: dict[str, Any]) -> None:
    index = IndexFolder.build(tmp_path / "index", records(VECTORS[:300]), table, metric="euclidean")
    assert index.add(records(VECTORS[300:], "new/")) == 100
    assert index.remove(["5.jpg", "new/7.jpg"]) == 2
    for opened in (index, IndexFolder.open(tmp_path / "index")):
        assert len(opened) == 398
        kept = np.setdiff1d(np.arange(400), [5, 307])
        assert (opened.numbers() == kept).all()
        found = opened.search(QUERIES, 398)
        assert (found.numbers == kept[np.argsort(exact(VECTORS[kept], "euclidean"), axis=1)]).all()
        np.testing.assert_allclose(opened.vectors([307 - 1, 3]), VECTORS[[306, 3]])
    index.compact()
    assert len(IndexFolder.open(tmp_path / "index")) == 398
    assert index.add(records(VECTORS[5:6], "more/")) == 1 == index.remove(["0.jpg"])
    assert index.verify() == []


def test_answers_stay_complete_although_most_near_entries_are_removed(tmp_path: Path, table: dict[str, Any]) -> None:
    vectors = np.random.default_rng(2).standard_normal((2000, 16)).astype(np.float32)
    index = IndexFolder.build(tmp_path / "index", records(vectors), table, metric="euclidean")
    nearest = np.argsort(exact(vectors, "euclidean")[0])
    index.remove([f"{number}.jpg" for number in nearest[:900]])
    assert (index.search(QUERIES[:1], 10).numbers[0] == nearest[900:910]).all()


def test_a_wrong_addition_changes_nothing(tmp_path: Path, table: dict[str, Any]) -> None:
    index = IndexFolder.build(tmp_path / "index", records(), table)
    new = Record(source="new.jpg", embedding=[1.0] * 16)
    nan = [float("nan")] * 16
    for wrong, reason in (
        (Record(source="7.jpg", embedding=[1.0] * 16), "7.jpg: the id is there twice"),
        (Record(source="short.jpg", embedding=[1.0]), "short.jpg: its embedding has 1 numbers, not 16"),
        (Record(source="nan.jpg", embedding=nan), "nan.jpg: .* not finite"),
        (Record(source="zero.jpg", embedding=[0.0] * 16), "zero.jpg: .* all zeros"),
        (Record(source="\udc80.jpg", embedding=[1.0] * 16), "not UTF-8"),
    ):
        with pytest.raises(UserError, match=reason):
            index.add([new, wrong])
        assert len(IndexFolder.open(tmp_path / "index")) == 400
    with pytest.raises(UserError, match=r"no entry or source 'new.jpg'"):
        index.remove(["0.jpg", "new.jpg"])
    assert len(index) == 400


def test_a_rebuilt_index_replaces_its_own_table_and_no_other(tmp_path: Path, table: dict[str, Any], dsn: str) -> None:
    name = table["table"]
    IndexFolder.build(tmp_path / "index", records(), table)
    with pytest.raises(UserError, match=f"table {name}_1 is there already"):
        IndexFolder.build(tmp_path / "other", records(), table)
    with psycopg.connect(dsn) as connection:
        connection.execute(f"CREATE TABLE {name}_7 (a int)")
    index = IndexFolder.build(tmp_path / "index", records(VECTORS[:9]), table, replace=True)
    assert len(index) == 9
    assert tables(dsn, name) == [f"{name}_2", f"{name}_7"]


def test_what_a_build_left_that_was_killed_before_its_manifest_is_taken_away(
    tmp_path: Path, table: dict[str, Any], dsn: str
) -> None:
    IndexFolder.build(tmp_path / "index", records(), table)
    name = table["table"]
    with psycopg.connect(dsn) as connection:
        connection.execute(f"CREATE TABLE {name}_2 (a int)")
        owner = f"index of tag-plugins-search in {(tmp_path / 'index').resolve()}"
        connection.execute(f"COMMENT ON TABLE {name}_2 IS '{owner}'")
    assert len(IndexFolder.open(tmp_path / "index")) == 400
    index = IndexFolder.build(tmp_path / "index", records(VECTORS[:9]), table, replace=True)
    assert len(index) == 9
    assert tables(dsn, name) == [f"{name}_2"]
    shutil.rmtree(tmp_path / "index")
    assert len(IndexFolder.build(tmp_path / "index", records(), table)) == 400
    assert tables(dsn, name) == [f"{name}_1"]


def test_the_commands_are_those_of_every_index(
    tmp_path: Path, table: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    file, folder = tmp_path / "records.jsonl", str(tmp_path / "index")
    file.write_text("".join(f"{record.to_json()}\n" for record in records()))
    options = ["--index", "search/pgvector", f"table={table['table']}", "ef_search=400"]
    assert main(["search", "build", "--embeddings", str(file), *options, folder]) == 0
    assert main(["search", "remove", folder, "3.jpg"]) == 0
    assert main(["search", "compact", folder]) == 0
    assert main(["search", "verify", folder]) == 0
    capsys.readouterr()
    assert main(["search", "show", folder, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["entries"], shown["index"], shown["options"]["ef_search"]) == (399, "search/pgvector", 400)
    assert main(["search", "query", folder, str(file), "--k", "1"]) == 0
    nearest = [json.loads(line)["extra"]["neighbours"][0]["id"] for line in capsys.readouterr().out.splitlines()]
    assert [name for i, name in enumerate(nearest) if i != 3] == [f"{i}.jpg" for i in range(400) if i != 3]
    assert main(["search", "eval", folder, str(file), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["exact@10"] == 1


def test_a_table_that_is_gone_or_another_is_told(tmp_path: Path, table: dict[str, Any], dsn: str) -> None:
    IndexFolder.build(tmp_path / "index", records(), table)
    name = f"{table['table']}_1"
    with psycopg.connect(dsn) as connection:
        connection.execute(f"DROP INDEX {name}_embedding_idx; ALTER TABLE {name} ALTER embedding TYPE vector")
    with pytest.raises(UserError, match="not this index's"):
        IndexFolder.open(tmp_path / "index")
    with psycopg.connect(dsn) as connection:
        connection.execute(f"DROP TABLE {name}")
    with pytest.raises(UserError, match="its table is not in this database"):
        IndexFolder.open(tmp_path / "index")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"dsn": "postgresql://me:secret@db/shop"}, "dsn holds a password"),
        ({"dsn": "host=db password=secret"}, "dsn holds a password"),
        ({"dsn": "nonsense"}, "not an address of PostgreSQL"),
        ({"table": "a; DROP TABLE b"}, "lower-case letters"),
        ({"m": 200}, "m is 2 to 100"),
    ],
)
def test_wrong_options_are_told(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason) as told:
        tag_core.load("search/pgvector", **options)
    assert "secret" not in str(told.value)


def test_a_server_that_does_not_answer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAG_POSTGRES", f"host={tmp_path} user=nobody")
    with pytest.raises(UserError, match="no connection to PostgreSQL.*TAG_POSTGRES"):
        IndexFolder.build(tmp_path / "index", records(), "search/pgvector")


def test_more_dimensions_than_hnsw_takes_are_refused(tmp_path: Path, table: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="2000 dimensions at most, these have 2001"):
        IndexFolder.build(tmp_path / "index", [Record(source="a", embedding=[1.0] * 2001)], table)


def test_a_user_who_may_not_make_the_extension_is_told_who_can(
    tmp_path: Path, dsn: str, table: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("CREATE DATABASE bare")
        connection.execute("CREATE ROLE guest LOGIN")
    monkeypatch.setenv("TAG_POSTGRES", dsn.replace("postgres dbname=postgres", "guest dbname=bare"))
    with pytest.raises(UserError, match=r"(?s)no extension vector.*CREATE EXTENSION vector"):
        IndexFolder.build(tmp_path / "index", records(), table)


def test_the_password_of_the_environment_is_not_in_the_manifest(
    tmp_path: Path, dsn: str, table: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAG_POSTGRES", f"{dsn} password=secret")
    IndexFolder.build(tmp_path / "index", records(), {**table, "dsn": "application_name=tag"})
    manifest = (tmp_path / "index" / "manifest.json").read_text()
    assert json.loads(manifest)["index"]["dsn"] == "application_name=tag"
    assert "secret" not in manifest


WRITER = """
import sys
from pathlib import Path
import numpy as np
from tag_core.records import Record
from tag_plugins_search.store import IndexFolder
what, folder, table = sys.argv[1:]
rows = np.random.default_rng(3).standard_normal((2000, 16))
def records():
    for i, row in enumerate(rows):
        if i % 500 == 0:
            print(i, flush=True)
        yield Record(source=f"new/{i}.jpg", embedding=row.tolist())
if what == "add":
    IndexFolder.open(folder).add(records())
else:
    IndexFolder.build(folder, records(), {"name": "search/pgvector", "table": table}, replace=True)
print("done", flush=True)
"""


@pytest.mark.parametrize("what", ["build", "add"])
def test_a_client_that_is_killed_leaves_the_old_index_or_the_new(
    tmp_path: Path, table: dict[str, Any], dsn: str, what: str
) -> None:
    folder, before, after = tmp_path / "index", 400, {"build": 2000, "add": 2400}[what]
    IndexFolder.build(folder, records(), table)
    seen = set()
    for delay in (0.0, 0.1, 0.3, 60):
        command = [sys.executable, "-c", WRITER, what, str(folder), table["table"]]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
        assert process.stdout is not None
        process.stdout.readline()  # it has begun to read
        try:
            process.wait(delay)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
        process.wait()
        index = IndexFolder.open(folder)
        seen.add(len(index))
        assert len(index) in (before, after)
        assert index.verify() == []
        assert index.search(QUERIES, 5).numbers.min() >= 0
        if len(index) == after:
            break
    assert seen == {before, after}, "no kill hit it in the middle, or it never came through"
    assert len(tables(dsn, table["table"])) == 1
