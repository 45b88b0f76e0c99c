"""Loading plugins in this process; ``tests/test_bad_plugins.py`` has the battery with installed packages."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import pytest

from tag_core import Component, hookimpl
from tag_core.errors import PluginError
from tag_core.plugins import PluginRecord, Plugins, load_plugins, namespace_of


def module(name: str, **functions: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    for hook, function in functions.items():
        function.__name__ = hook
        setattr(made, hook, hookimpl(function))
    return made


def added(plugins: Plugins, name: str, **functions: Any) -> PluginRecord:
    record = PluginRecord(name, name, f"pkg-{name}", "1.0")
    plugins.add(record, lambda: module(name, **functions))
    return record


def test_what_hooks_return_is_kept_in_order_with_its_plugin() -> None:
    plugins = Plugins()
    for name in ("b", "a"):
        added(plugins, name, tag_losses=lambda name=name: (Component(f"{name}{i}", "x:Y", "") for i in range(2)))
    found = [(record.name, item.name) for record, item in plugins.provided("tag_losses")]
    assert found == [("b", "b0"), ("b", "b1"), ("a", "a0"), ("a", "a1")]


def test_a_hook_may_return_nothing() -> None:
    plugins = Plugins()
    assert added(plugins, "none", tag_losses=lambda: None).status == "ok"
    assert list(plugins.provided("tag_losses")) == []


def test_a_failed_plugin_gets_no_events() -> None:
    plugins, heard = Plugins(), []
    bad = added(plugins, "bad", tag_losses=lambda: 3, tag_run_finished=lambda outcome: heard.append("bad"))
    good = added(plugins, "good", tag_run_finished=lambda outcome: heard.append(outcome))
    plugins.event("tag_run_finished", run=None, outcome="done")
    assert (bad.status, good.status, heard) == ("failed", "ok", ["done"])


def test_one_module_under_two_names_fails_once_and_stays_registered() -> None:
    plugins, heard = Plugins(), []
    shared = module("shared", tag_run_finished=lambda outcome: heard.append(outcome))
    records = [PluginRecord(name, "shared", "pkg", "1.0") for name in ("one", "two")]
    for record in records:
        plugins.add(record, lambda: shared)
    plugins.event("tag_run_finished", run=None, outcome="done")
    assert [record.status for record in records] == ["ok", "failed"]
    assert heard == ["done"]


def test_a_listener_that_fails_or_prints_disturbs_nobody(capsys: pytest.CaptureFixture[str]) -> None:
    plugins, heard = Plugins(), []

    def leave(run: Any, outcome: str) -> None:
        print("talk")
        sys.exit("enough")

    added(plugins, "first", tag_run_finished=lambda: heard.append("first"))
    added(plugins, "leaves", tag_run_finished=leave)
    added(plugins, "last", tag_run_finished=lambda run: heard.append("last"))
    plugins.event("tag_run_finished", run=None, outcome="done")
    printed = capsys.readouterr()
    assert sorted(heard) == ["first", "last"]
    assert printed.out == ""
    assert "talk" in printed.err
    assert "warning: plugin leaves: tag_run_finished: SystemExit: enough" in printed.err


def test_an_interrupt_while_loading_is_not_a_plugins_failure() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Plugins().add(PluginRecord("x", "x", "pkg", ""), stop)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("folder/My_Model.py", "my-model"),
        ("my_pkg.plugin", "my-pkg"),
        ("my_pkg.models", "models"),
        ("tag_plugins_flow.plugin", "flow"),
        ("tag_plugins_flow", "flow"),
    ],
)
def test_a_plugin_option_has_an_obvious_namespace(source: str, name: str) -> None:
    assert namespace_of(source) == name


def test_a_file_that_fails_leaves_no_half_module_behind(tmp_path: Path) -> None:
    path = tmp_path / "half_done.py"
    path.write_text("x = 1\nraise OSError('no')\n")
    with pytest.raises(PluginError, match="OSError: no"):
        load_plugins([str(path)])
    assert "half_done" not in sys.modules
