"""Finding components by name, and help where a name is not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tag_core.catalog import Catalog, did_you_mean, missing_target, source_file
from tag_core.component import Component, RecipeFile
from tag_core.errors import PluginError, UnknownName
from tag_core.plugins import PluginRecord, Plugins


def catalog_of(*records: PluginRecord) -> Catalog:
    plugins = Plugins()
    plugins.records += records
    return Catalog(plugins)


def plugin(name: str, *components: str, recipes: str = "") -> PluginRecord:
    record = PluginRecord(name, name, f"pkg-{name}", "1.0")
    record.provides["tag_backbones"] = [Component(c, "collections:OrderedDict", c) for c in components]
    record.provides["tag_recipes"] = [RecipeFile(r, f"{name}:{r}.toml", r) for r in recipes.split()]
    return record


BROKEN = PluginRecord("broken", "broken", "pkg-broken", "1.0", "failed", "no disk")
CATALOG = catalog_of(plugin("a", "net", "tsn", recipes="tsn"), plugin("b", "net", "own"), BROKEN)


def test_a_full_name_and_a_unique_bare_name_find_the_same() -> None:
    assert CATALOG.get("backbone", "own") is CATALOG.get("backbone", "b/own")
    assert CATALOG.get("backbone", "b/own").load() is __import__("collections").OrderedDict


def test_a_recipe_and_a_component_may_share_a_name() -> None:
    assert [entry.kind for entry in CATALOG.find("tsn")] == ["recipe", "backbone"]


@pytest.mark.parametrize(
    ("kind", "name", "text"),
    [
        ("backbone", "net", "backbone 'net' is in several plugins: write a/net or b/net"),
        (
            "backbone",
            "a/nets",
            "no backbone named 'a/nets'; did you mean 'a/net' or 'b/net'?; see 'tag-run list backbone'",
        ),
        ("recipe", "b/own", "'b/own' is a backbone, not a recipe; see 'tag-run list recipe'"),
        ("loss", "a/tsn", "'a/tsn' is a recipe and a backbone, not a loss"),
        ("backbone", "reid/x", "plugin 'reid' is not installed; pip install tag-plugins-reid"),
        ("backbone", "qqq", "no backbone named 'qqq'; see 'tag-run list backbone'"),
    ],
)
def test_a_name_that_is_not_there_says_what_to_do(kind: str, name: str, text: str) -> None:
    with pytest.raises(UnknownName) as caught:
        CATALOG.get(kind, name)
    assert text in str(caught.value)


def test_a_broken_plugins_name_repeats_the_cause() -> None:
    with pytest.raises(PluginError, match="broken/x: plugin broken is failed: no disk"):
        CATALOG.find("broken/x")


def test_near_names_come_nearest_first_and_far_ones_not_at_all() -> None:
    assert did_you_mean("Cosin", ["cosine", "constant"]) == "; did you mean 'cosine'?"
    assert did_you_mean("zzz", ["cosine"]) == ""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "scratch_catalog_pkg"
    (folder / "sub").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise SystemError('imported')\n")
    (folder / "sub" / "__init__.py").write_text(
        "from somewhere import Far\nfrom x import (\n    One,\n    Two as Three,\n)\n"
    )
    (folder / "models.py").write_text("class Net:\n    x = 1\nnet = Net\nBig: type = Net\n# Words\n")
    (folder / "every.py").write_text("from x import *\n")
    (folder / "fast.cpython.so").touch()
    (folder / "fast.so").touch()
    (folder / "r.toml").write_bytes(b"\xff")
    return folder


def test_sources_are_found_without_importing_anything(package: Path) -> None:
    assert source_file("scratch_catalog_pkg") == package / "__init__.py"
    assert source_file("scratch_catalog_pkg.sub") == package / "sub" / "__init__.py"
    assert source_file("scratch_catalog_pkg.models") == package / "models.py"
    assert source_file("scratch_catalog_pkg.none") is None
    assert source_file("scratch_catalog_none.models") is None
    assert "scratch_catalog_pkg" not in sys.modules


@pytest.mark.parametrize(
    ("target", "missing"),
    [
        ("models:Net", False),
        ("models:net", False),
        ("models:Big", False),
        ("models:Absent", True),
        ("models:Words", False),  # too generous, but never a false alarm
        ("sub:Far", False),
        ("sub:One", False),
        ("sub:Three", False),
        ("sub:Two", False),
        ("every:Anything", False),
        ("fast:Anything", False),
        ("none:Net", True),
    ],
)
def test_missing_targets_are_seen_in_the_files(target: str, missing: bool, package: Path) -> None:
    assert (missing_target(f"scratch_catalog_pkg.{target}") is not None) == missing


def test_a_shipped_recipe_that_cannot_be_read_is_the_plugins_fault(package: Path) -> None:
    record = plugin("scratch_catalog_pkg", recipes="r none")
    found = catalog_of(record)
    for name, reason in (("r", "cannot be read"), ("none", "No such file")):
        with pytest.raises(PluginError, match=reason):
            found.recipe_text(found.get("recipe", name))
