"""Each package's README lists everything that the package registers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tag_core.catalog import Entry, catalog
from tag_core.cli.source import read_options
from tag_core.kinds import GIVEN, KINDS

ROOT = Path(__file__).resolve().parents[1]
READMES = {
    "core": "tag_core",
    "video": "tag_plugins_video",
    "reid": "tag_plugins_reid",
    "face": "tag_plugins_face",
    "search": "plugins/tag_plugins_search",
}


def rows(plugin: str) -> dict[str, str]:
    """First cell -> the rest, of every table row."""
    text = (ROOT / READMES[plugin] / "README.md").read_text("utf-8")
    return {cells[0].strip("` "): cells[1] for cells in re.findall(r"^\| (.*?) \|(.*)\|$", text, re.MULTILINE)}


def registered(kinds: list[str]) -> list[Entry]:
    return [e for kind in kinds for e in catalog().entries[kind].values() if e.plugin.name in READMES]


@pytest.mark.parametrize("entry", registered(["recipe"]), ids=lambda entry: entry.name)
def test_every_recipe_is_listed(entry: Entry) -> None:
    assert entry.name in rows(entry.plugin.name)


@pytest.mark.parametrize("entry", registered(list(KINDS)), ids=lambda entry: f"{entry.kind}-{entry.name}")
def test_every_option_is_listed_with_its_default(entry: Entry) -> None:
    table = rows(entry.plugin.name)
    told = table[entry.name] + table.get(f"every {entry.kind.replace('dataset', 'data set')}", "")
    listed = set(re.findall(r"`(.*?)`", told))
    options = [o for o in read_options(entry.component.target) if o.name not in GIVEN.get(entry.kind, ())]
    assert {o.name if o.default is None else f"{o.name}={o.default}" for o in options} <= listed
