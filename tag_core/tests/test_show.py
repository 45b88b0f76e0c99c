"""``list`` and ``show`` tell from source files what an import would tell."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from click.testing import CliRunner
from toy_catalog import toy as _toy

from tag_core.catalog import catalog
from tag_core.cli.main import cli
from tag_core.cli.source import read_options
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
    assert "form Literal['softmax', 'sigmoid'] = 'softmax'" in text


def test_constants_and_type_names_are_spelt_out() -> None:
    options = {o.name: o for o in read_options("tag_core.builtin.optimizers:sgd")}
    assert (options["frozen"].default, options["lr_factors"].default) == ("[]", "{}")


def test_what_the_engine_gives_is_not_shown_as_an_option() -> None:
    (about,) = json.loads(output("show", "core/multi-step", "--json"))
    names = [option["name"] for option in about["options"]]
    assert names == ["warmup_epochs", "warmup_factor", "milestones", "gamma", "unit"]
    assert [o["name"] for o in about["options"] if o["default"] is None] == ["milestones"]


@pytest.mark.usefixtures("toy")
def test_show_names_a_type_where_it_is_only_named_in_the_source() -> None:
    (about,) = json.loads(output("show", "toy/task", "--json"))
    assert [(o["name"], o["type"], o["default"]) for o in about["options"]] == [
        ("backbone", "Backbone", None),
        ("loss", "Loss", None),
        ("extra", "Backbone | None", "None"),
    ]


@pytest.mark.parametrize("kind", ["loss", "losses"])
def test_a_kind_may_be_asked_for_in_the_singular_or_plural(kind: str) -> None:
    rows = json.loads(output("list", kind, "--json"))
    assert {row["kind"] for row in rows} == {"loss"}
    assert "core/focal" in [row["name"] for row in rows]


def test_the_table_lists_every_kind_that_has_components() -> None:
    text = output("list")
    assert "\nlosses\n  core/cross-entropy  Cross-entropy" in text
    assert "\nsinks\n" in text
