"""An index in a table of PostgreSQL; the folder keeps the manifest, whose generation is part of the table's name."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, LiteralString

import numpy as np
import psycopg
from psycopg import sql

from tag_core.errors import UserError
from tag_core.records import finite
from tag_plugins_search.backend import Entries, Floats, Ints
from tag_plugins_search.generation import commit, writing
from tag_plugins_search.indexes.pgvector import HINT, told
from tag_plugins_search.manifest import NAME, Manifest

if TYPE_CHECKING:
    from tag_plugins_search.indexes.pgvector import PgVector

MOST_DIMENSIONS = 2000  # of an HNSW index over vectors in single precision
MOST_EF = 1000
QUERIES = 256  # at a time
SIGNATURE = b"PGCOPY\n\xff\r\n\0" + bytes(8)


class PostgresBackend:
    """See :class:`tag_plugins_search.backend.Backend`, whose methods these are.

    A build makes a table of its own in one transaction, then the manifest names it, then the old one is dropped.
    Adding and removing are one transaction each. Numbers are never used again.

    Raises:
        UserError: no connection, or a table that is not there or holds vectors of another dimension.
    """

    def __init__(self, component: PgVector, folder: Path, manifest: Manifest) -> None:
        self.component, self.folder, self.manifest = component, folder, manifest
        self.connection = component.connect()
        self._count: int | None = None
        if manifest.generation:
            self._check()

    def build(self, entries: Iterable[Entries]) -> None:
        with writing(self.folder):
            old = Manifest.read(self.folder).generation if (self.folder / NAME).exists() else 0
            self.manifest = replace(self.manifest, generation=old + 1)
            with told(str(self.folder)), self.connection.transaction():
                self._make_room()
                self.create()
                self.copy(entries)
                options = {name: sql.Literal(getattr(self.component, name)) for name in ("m", "ef_construction")}
                query: LiteralString = "CREATE INDEX ON {table} USING hnsw (embedding vector_l2_ops)"
                self._run(query + " WITH (m = {m}, ef_construction = {ef_construction})", **options)
            self._run("ANALYZE {table}")
            commit(self.folder, self.manifest)
            self._drop_old()

    def add(self, entries: Iterable[Entries]) -> None:
        with writing(self.folder), told(str(self.folder)), self.connection.transaction():
            self.copy(entries)

    def remove(self, numbers: Ints) -> None:
        self._count = None
        with writing(self.folder), told(str(self.folder)):
            self._run("DELETE FROM {table} WHERE number = ANY(%s)", [numbers.tolist()])

    def compact(self) -> None:
        with writing(self.folder), told(str(self.folder)):
            self._run("VACUUM ANALYZE {table}")

    def __len__(self) -> int:
        if self._count is None:  # counting reads the whole table
            self._count = int(self._rows("SELECT count(*) FROM {table}")[0][0])
        return self._count

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        distances = np.full((len(queries), k), np.inf, np.float32)
        numbers = np.full((len(queries), k), -1, np.int64)
        ef = max(self.component.ef_search, k)
        todo = np.arange(len(queries))
        if ef <= MOST_EF:
            self._find(queries, todo, distances, numbers, f"SET LOCAL hnsw.ef_search = {ef}")
            todo = np.flatnonzero(numbers[:, -1] < 0)  # removed entries can leave too few
        if len(todo):
            self._find(queries, todo, distances, numbers, "SET LOCAL enable_indexscan = off")
        return distances, numbers

    def numbers(self) -> Ints:
        rows = self._rows("SELECT number FROM {table} ORDER BY number")
        return np.array([number for (number,) in rows], np.int64)

    def find(self, ids: Sequence[str]) -> Ints:
        found = dict(self._rows("SELECT id, number FROM {table} WHERE id = ANY(%s)", [_texts(ids)]))
        return np.array([found.get(each, -1) for each in ids], np.int64)

    def of_sources(self, sources: Sequence[str]) -> Mapping[str, list[int]]:
        query: LiteralString = "SELECT source, array_agg(number) FROM {table} WHERE source = ANY(%s) GROUP BY source"
        return dict(self._rows(query, [_texts(sources)]))

    def payload(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        found = dict(self._rows("SELECT number, payload FROM {table} WHERE number = ANY(%s)", [_integers(numbers)]))
        return [found[int(number)] for number in numbers]

    def vectors(self, numbers: Sequence[int]) -> Floats:
        query: LiteralString = "SELECT number, embedding::real[] FROM {table} WHERE number = ANY(%s)"
        found = dict(self._rows(query, [_integers(numbers)]))
        rows = [found[int(number)] for number in numbers]
        return np.array(rows, np.float32).reshape(len(rows), self.manifest.dimension)

    def verify(self) -> list[str]:
        valid: LiteralString = (
            "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass AND NOT indisvalid"
        )
        try:
            self._rows(
                "SELECT count(id), count(source), sum(vector_norm(embedding)), sum(length(payload::text)) FROM {table}"
            )
            return [f"index {name} is not valid" for (name,) in self._rows(valid, [self.table])]
        except UserError as error:
            return [str(error)]

    @property
    def table(self) -> str:
        return f"{self.component.table}_{self.manifest.generation}"

    def create(self, temporary: bool = False) -> None:
        """The table, empty, and the extension that it needs."""
        dimension = self.manifest.dimension
        if dimension > MOST_DIMENSIONS:
            raise UserError(f"search/pgvector takes {MOST_DIMENSIONS} dimensions at most, these have {dimension}")
        try:
            self.connection.execute("CREATE EXTENSION IF NOT EXISTS vector")
        except psycopg.Error as error:
            hint = "install pgvector on the server, and let its administrator type: CREATE EXTENSION vector"
            raise UserError(f"search/pgvector: the database has no extension vector ({error}); {hint}") from error
        self._run(
            "CREATE {temporary} TABLE {table} (number bigint GENERATED BY DEFAULT AS IDENTITY (MINVALUE 0) PRIMARY KEY,"
            " id text NOT NULL UNIQUE, source text NOT NULL, embedding vector({dimension}) NOT NULL,"
            " payload jsonb NOT NULL)",
            temporary=sql.SQL("TEMPORARY" if temporary else ""),
            dimension=sql.Literal(dimension),
        )
        self._run("CREATE INDEX ON {table} (source)")
        self._run("COMMENT ON TABLE {table} IS {owner}", owner=sql.Literal(self._owner))

    def copy(self, entries: Iterable[Entries]) -> None:
        self._count = None
        query = self._query("COPY {table} (id, source, embedding, payload) FROM STDIN (FORMAT binary)")
        with self.connection.cursor() as cursor, cursor.copy(query) as copy:
            copy.write(SIGNATURE)
            for block in entries:
                copy.write(b"".join(_binary(block)))
            copy.write(struct.pack(">h", -1))

    @property
    def _owner(self) -> str:
        return f"index of tag-plugins-search in {self.folder.resolve()}"

    def _check(self) -> None:
        query: LiteralString = (
            "SELECT atttypmod FROM pg_attribute WHERE attrelid = %s::regclass AND attname = 'embedding'"
        )
        (found,) = self._rows(query, [self.table])[0]
        if found != self.manifest.dimension:
            told = f"table {self.table} has vectors of {found} dimensions, the manifest says {self.manifest.dimension}"
            raise UserError(f"{self.folder}: {told}: it is not this index's; {HINT}")

    def _make_room(self) -> None:
        """Drop what a killed build left; a table that is not this folder's stays.

        Raises:
            UserError: there is such a table.
        """
        query = "SELECT obj_description(to_regclass(%s), 'pg_class'), to_regclass(%s) IS NOT NULL"
        owner, exists = self.connection.execute(query, [self.table, self.table]).fetchone() or (None, False)
        if exists and owner != self._owner:
            hint = f"choose another with table=NAME, or drop it: DROP TABLE {self.table}"
            raise UserError(f"{self.folder}: table {self.table} is there already ({owner or 'not of Tag'}); {hint}")
        self._run("DROP TABLE IF EXISTS {table}")

    def _drop_old(self) -> None:
        """Of this index, all tables but the one in use."""
        query = "SELECT relname, obj_description(oid, 'pg_class') FROM pg_class WHERE relkind = 'r' AND relname ~ %s"
        found = self.connection.execute(query, [rf"^{self.component.table}_\d+$"]).fetchall()
        for name, owner in found:
            if name != self.table and owner == self._owner:
                self.connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(name)))

    def _find(self, queries: Floats, todo: Ints, distances: Floats, numbers: Ints, setting: LiteralString) -> None:
        """Fill in the rows ``todo`` of the answers."""
        k = numbers.shape[1]
        query: LiteralString = (
            "SELECT q.row, n.number, n.distance FROM unnest(%s::text[]) WITH ORDINALITY AS q (vector, row)"
            " CROSS JOIN LATERAL (SELECT number, embedding <-> q.vector::vector AS distance FROM {table}"
            " ORDER BY embedding <-> q.vector::vector LIMIT %s) AS n ORDER BY q.row, n.distance, n.number"
        )
        for start in range(0, len(todo), QUERIES):
            part = todo[start : start + QUERIES]
            texts = [json.dumps(query.tolist()) for query in queries[part]]
            with told(str(self.folder)), self.connection.transaction():
                self.connection.execute(setting)
                found = self.connection.execute(self._query(query), [texts, k]).fetchall()
            table = np.array(found, np.float64).reshape(-1, 3)
            rows = table[:, 0].astype(np.int64) - 1
            columns = np.arange(len(rows)) - np.searchsorted(rows, rows)
            numbers[part[rows], columns] = table[:, 1].astype(np.int64)
            distances[part[rows], columns] = table[:, 2] ** 2

    def _query(self, query: LiteralString, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(query).format(table=sql.Identifier(self.table), **parts)

    def _run(self, query: LiteralString, values: Sequence[Any] | None = None, **parts: sql.Composable) -> None:
        self.connection.execute(self._query(query, **parts), values)

    def _rows(self, query: LiteralString, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with told(str(self.folder)):
            rows: list[tuple[Any, ...]] = self.connection.execute(self._query(query), values).fetchall()
        return rows


def _binary(block: Entries) -> Iterator[bytes]:
    """Rows of COPY's binary format; pgvector's is two 16-bit numbers and floats, jsonb's a version and text."""
    count, dimension = block.vectors.shape
    rows, head = block.vectors.astype(">f4"), struct.pack(">hh", dimension, 0)
    for number in range(count):
        payload = json.dumps(finite(block.payload[number]), ensure_ascii=False)
        texts = _utf8(block.ids[number]), _utf8(block.payload[number]["source"])
        yield struct.pack(">h", 4)
        for field in (*texts, head + rows[number].tobytes(), b"\1" + _utf8(payload)):
            yield struct.pack(">i", len(field)) + field


def _utf8(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        shown = text[:80].encode(errors="backslashreplace").decode()
        raise UserError(f"{shown}: not UTF-8 text, which PostgreSQL cannot keep; rename the file") from None


def _texts(names: Sequence[str]) -> list[str]:
    """Without those that PostgreSQL cannot hold, and so has not."""
    return [name for name in names if "\0" not in name and name.encode(errors="ignore").decode() == name]


def _integers(numbers: Sequence[int]) -> list[int]:
    return [int(number) for number in numbers]
