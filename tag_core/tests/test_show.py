"""``list`` and ``show`` tell from source files what an import would tell."""

from __future__ import annotations

import inspect
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from toy_catalog import toy as _toy

from tag_core.catalog import catalog
from tag_core.cli.main import cli
from tag_core.cli.source import read_options
from tag_core.errors import UnknownName
from tag_core.kinds import KINDS

toy = _toy
COMPONENTS = [entry for kind in KINDS for entry in catalog().entries[kind].values() if entry.plugin.name == "core"]


def output(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments)
    assert done.exit_code == 0, done.output
    return done.stdout


@pytest.mark.parametrize("entry", COMPONENTS, ids=lambda entry: f"{entry.kind} {entry.name}")
def test_options_read_from_the_source_are_those_of_the_signature(entry: Any) -> None:
    told = {option.name: option.default is None for option in read_options(entry.component.target)}
    parameters = inspect.signature(entry.load()).parameters
    assert told == {name: p.default is p.empty for name, p in parameters.items()}


def test_the_text_of_show_has_origin_paper_options_and_their_notes() -> None:
    text = " ".join(output("show", "core/focal").split())
    assert text.startswith("loss core/focal Focal loss, softmax or sigmoid from tag-core")
    assert "paper: Lin et al., ICCV 2017" in text
    assert "gamma float = 2.0 focusing strength; 0 is cross-entropy" in text
    assert "alpha float | None = None weight of positives" in text


@pytest.mark.parametrize("entry", COMPONENTS, ids=lambda entry: f"{entry.kind} {entry.name}")
def test_notes_of_several_lines_are_told_to_their_end(entry: Any) -> None:
    assert [o.name for o in read_options(entry.component.target) if o.help and o.help[-1] != "."] == []


def test_constants_and_type_names_are_spelt_out() -> None:
    options = {o.name: o for o in read_options("tag_core.builtin.optimizers:sgd")}
    assert options["lr_factors"].default == "{}"


def test_what_the_engine_gives_is_not_shown_as_an_option() -> None:
    (about,) = json.loads(output("show", "core/multi-step", "--json"))
    names = [option["name"] for option in about["options"]]
    assert names[:4] == ["warmup_epochs", "warmup_factor", "milestones", "gamma"]
    assert not {"total_steps", "steps_per_epoch"} & set(names)
    assert [o["name"] for o in about["options"] if o["default"] is None] == ["milestones"]


@pytest.mark.usefixtures("toy")
def test_show_names_a_type_where_it_is_only_named_in_the_source() -> None:
    (about,) = json.loads(output("show", "toy/task", "--json"))
    assert [(o["name"], o["type"], o["default"]) for o in about["options"]] == [
        ("backbone", "Backbone", None),
        ("loss", "Loss", None),
        ("extra", "Backbone | None", "None"),
    ]


def test_the_example_of_show_is_a_recipe_with_the_component_in_it() -> None:
    (about,) = json.loads(output("show", "core/focal", "--json"))
    recipe = about["example"].removeprefix("tag-run train ").split()[0]
    assert about["example"] == f"tag-run train {recipe} data.train.source=FOLDER task.loss=core/focal"
    assert recipe in catalog().entries["recipe"]


@pytest.mark.parametrize("source", ["from pkg.net import Net", "from .net import Net", "from . import Net"])
def test_options_are_found_through_imports_of_a_package(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"package_{abs(hash(source))}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text(source.replace("pkg", name))
    (tmp_path / name / "net.py").write_text(
        "from .sizes import SIZE\nclass Net:\n    def __init__(self, a: int = SIZE): ..."
    )
    (tmp_path / name / "sizes.py").write_text("SIZE = 3")
    monkeypatch.syspath_prepend(tmp_path)
    told = [(o.name, o.type, o.default) for o in read_options(f"{name}:Net")]
    assert told == ([] if source == "from . import Net" else [("a", "int", "3")])


def test_one_kind_may_be_asked_for() -> None:
    rows = json.loads(output("list", "loss", "--json"))
    assert {row["kind"] for row in rows} == {"loss"}
    assert "core/focal" in [row["name"] for row in rows]
    assert json.loads(output("list", "losses", "--json")) == rows
    with pytest.raises(UnknownName, match="no kind 'lose'; did you mean 'loss'"):
        CliRunner().invoke(cli, ["list", "lose"], catch_exceptions=False, standalone_mode=False)


def test_the_table_lists_every_kind_that_has_components() -> None:
    rows = [line.split() for line in output("list").splitlines()]
    assert ["loss", "core/cross-entropy", "Cross-entropy,"] in [row[:3] for row in rows]
    assert {row[0] for row in rows} >= {"optimizer", "schedule", "metric", "sink", "recipe"}


def test_the_doctor_tells_libraries_devices_and_plugins() -> None:
    found = {row["name"]: row for row in json.loads(output("doctor", "--json"))}
    assert {"python", "torch", "decord", "plugin core"} <= set(found)
    assert found["torch"]["found"].startswith(version("torch"))
    assert "plugin core" in output("doctor")
