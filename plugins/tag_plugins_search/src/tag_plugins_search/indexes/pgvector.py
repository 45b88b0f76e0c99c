"""PostgreSQL with pgvector: its options, and how its errors read."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tag_core.errors import UserError
from tag_plugins_search.backend import Entries, Floats, Ints
from tag_plugins_search.manifest import Manifest

if TYPE_CHECKING:
    import psycopg

    from tag_plugins_search.postgres import PostgresBackend

VARIABLE = "TAG_POSTGRES"
HINT = f"the server's address comes from {VARIABLE}, from libpq's PGHOST, PGUSER, ..., or from dsn="


class PgVector:
    """Vectors in a table of PostgreSQL, found through pgvector's HNSW: for more than one machine's memory or writers.

    The folder keeps the manifest alone. Needs ``pip install 'tag-plugins-search[postgres]'``, a server with the
    extension vector, and at most 2,000 dimensions.

    Args:
        dsn: the server, as libpq has it: "host=db dbname=shop" or "postgresql://db/shop". Default: the environment
            variable TAG_POSTGRES, and what that leaves out from libpq's own (PGHOST, PGUSER, PGPASSWORD, ...). It is
            kept in the manifest, and so may not hold a password.
        table: the first part of the table's name; a number follows that counts the builds.
        m: neighbours of a vector in the graph.
        ef_construction: candidates that are weighed when a vector is added.
        ef_search: candidates that are weighed in a search, at least k: more find more, and take longer. Above 1000,
            or with k above 1000, the search is exact.
    """

    def __init__(
        self, dsn: str = "", table: str = "tag_index", m: int = 16, ef_construction: int = 64, ef_search: int = 100
    ) -> None:
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,47}", table):
            raise ValueError(f"table {table!r}: use up to 48 lower-case letters, digits and '_', no digit first")
        if not (2 <= m <= 100 and max(4, 2 * m) <= ef_construction <= 1000 and ef_search >= 1):
            raise ValueError(
                f"m is 2 to 100, ef_construction 2 m to 1000, ef_search at least 1; got {m}, "
                f"{ef_construction}, {ef_search}"
            )
        if dsn and _settings(dsn).get("password"):
            raise ValueError(
                f"dsn holds a password, which the manifest would keep: put it into PGPASSWORD, ~/.pgpass or {VARIABLE}"
            )
        self.dsn, self.table = dsn, table
        self.m, self.ef_construction, self.ef_search = m, ef_construction, ef_search
        self._own: PostgresBackend | None = None

    def backend(self, folder: Path, manifest: Manifest) -> PostgresBackend:
        """Raises UserError: psycopg is missing, or the server cannot be reached."""
        _psycopg()
        from tag_plugins_search.postgres import PostgresBackend

        return PostgresBackend(self, folder, manifest)

    def connect(self) -> psycopg.Connection[Any]:
        """Raises UserError: psycopg is missing, or the server cannot be reached."""
        psycopg = _psycopg()
        given = {**_settings(os.environ.get(VARIABLE, "")), **_settings(self.dsn)}
        try:
            given.setdefault("connect_timeout", "10")
            connection = psycopg.connect(autocommit=True, **{**given, "client_encoding": "UTF8"})
        except psycopg.Error as error:
            raise UserError(f"search/pgvector: no connection to PostgreSQL: {_first_line(error)}; {HINT}") from error
        with contextlib.suppress(psycopg.Error):  # not on every system: the server ends what a killed client began
            connection.execute("SET client_connection_check_interval = 500")
        return connection

    def add(self, vectors: Floats) -> None:
        """By itself, without a folder: append to a temporary table, numbered from 0."""
        rows = np.ascontiguousarray(vectors, np.float32)
        if self._own is None:
            about = Manifest(dimension=rows.shape[1], metric="euclidean", index={"name": "search/pgvector"})
            self._own = self.backend(Path(), about)
            self._own.create(temporary=True)
        start = len(self._own)
        names = [str(number) for number in range(start, start + len(rows))]
        self._own.copy([Entries(names, rows, [{"source": name} for name in names])])

    def search(self, queries: Floats, k: int) -> tuple[Floats, Ints]:
        """Of what ``add`` was given: squared distances and numbers [Q, k]."""
        if self._own is None:
            raise UserError("search/pgvector: nothing was added yet")
        return self._own.search(np.ascontiguousarray(queries, np.float32), k)


def _psycopg() -> Any:
    """Raises UserError: it is not installed."""
    try:
        import psycopg
    except ImportError as error:
        raise UserError("search/pgvector needs psycopg; type: pip install 'tag-plugins-search[postgres]'") from error
    return psycopg


def _settings(dsn: str) -> dict[str, Any]:
    """Raises ValueError for what libpq cannot read."""
    psycopg = _psycopg()
    try:
        found: dict[str, Any] = psycopg.conninfo.conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise ValueError(f"not an address of PostgreSQL: {_first_line(error)}") from error
    return found


@contextlib.contextmanager
def told(what: str) -> Iterator[None]:
    """PostgreSQL's errors as UserError that begins with ``what``."""
    import psycopg

    try:
        yield
    except psycopg.errors.UniqueViolation as error:
        found = re.search(r"\(id\)=\((.*)\) ", error.diag.message_detail or "")
        name = found[1] if found else "an id"
        hint = "remove the old one first, or give records an extra.id of their own"
        raise UserError(f"{name}: the id is there twice; {hint}") from error
    except psycopg.errors.UndefinedTable as error:
        raise UserError(f"{what}: its table is not in this database ({_first_line(error)}); {HINT}") from error
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        raise UserError(f"{what}: PostgreSQL: {_first_line(error)}; nothing was changed") from error
    except psycopg.Error as error:
        raise UserError(f"{what}: PostgreSQL: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
