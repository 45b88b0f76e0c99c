"""The plugin ``search``: what it registers. Nothing heavy is imported here."""

from __future__ import annotations

from tag_core import Command, Component, hookimpl

PACKAGE = "tag_plugins_search"
HNSW = "Efficient and Robust Approximate Nearest Neighbor Search Using HNSW Graphs, TPAMI 2020 (arXiv 1603.09320)"
IVF_PQ = "Product Quantization for Nearest Neighbor Search, TPAMI 2011"


@hookimpl
def tag_indexes() -> list[Component]:
    at = f"{PACKAGE}.indexes"
    return [
        Component("flat", f"{at}.flat:Flat", "Exact: compares with every vector"),
        Component("hnsw", f"{at}.hnsw:HNSW", "A graph of neighbours: fast, nearly exact", paper=HNSW),
        Component("ivf-pq", f"{at}.ivf_pq:IVFPQ", "Lists of short codes: smallest and fastest", paper=IVF_PQ),
        Component(
            "pgvector", f"{at}.pgvector:PgVector", "A table of PostgreSQL, with the extension pgvector", paper=HNSW
        ),
    ]


@hookimpl
def tag_commands() -> list[Command]:
    return [Command("search", f"{PACKAGE}.cli:search", "Nearest neighbours: build and query indexes of embeddings")]
