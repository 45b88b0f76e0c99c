"""The plugin ``search`` keeps the contract that every plugin is held to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tag_core.testing import PluginContract

try:
    from postgres_server import server, why_not

    NO_SERVER = why_not()
except ImportError:  # this file was copied by itself
    NO_SERVER = "no server to test with"


@pytest.fixture(scope="module", autouse=True)
def postgres() -> Iterator[None]:
    """A server for search/pgvector, where one can be started."""
    with pytest.MonkeyPatch.context() as patch:
        if NO_SERVER:
            patch.setenv("TAG_POSTGRES", "host=/nowhere")
            yield
            return
        with server() as dsn:
            patch.setenv("TAG_POSTGRES", dsn)
            yield


class TestSearch(PluginContract):
    plugin = "search"
    expected_failures: ClassVar[dict[str, str]] = {"index pgvector": NO_SERVER} if NO_SERVER else {}

    def example_options(self, kind: str, name: str, folder: Path) -> dict[str, Any]:
        return {"index ivf-pq": {"pq_size": 8}}.get(f"{kind} {name}", {})
