"""The conformance kit: a plugin's tests inherit it, and everything it registers is put through its contract.

::

    from tag_core.testing import PluginContract

    class TestContract(PluginContract):
        plugin = "video"

Each component, recipe and command is one test, named like ``backbone tsn``. None is skipped: what cannot
be built or fed by itself fails and says which example to give. Needs pytest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import nn

from tag_core import contract
from tag_core.catalog import Entry, catalog
from tag_core.cli.plugins import notes
from tag_core.cli.source import read_options
from tag_core.config import build_component
from tag_core.errors import ConfigError, TagError
from tag_core.kinds import GIVEN
from tag_core.plugins import installed
from tag_core.typed import signature

HEAVY = {"torch", "numpy", "pandas", "PIL", "cv2", "av", "scipy", "sklearn", "torchvision", "timm", "pydantic"}
LIST_EVERYTHING = """
import sys
from tag_core.cli.main import main
code = main(["list"]) or main(["plugins"])
print(*sys.modules)
sys.exit(code)
"""


class PluginContract:
    """Inherit as ``TestContract``, set ``plugin``, and give examples where the kit asks for them."""

    plugin: ClassVar[str] = ""
    expected_failures: ClassVar[dict[str, str]] = {}
    """``"kind name"`` -> why it fails for now. The reason is printed; passing after all is a failure."""

    def example_options(self, kind: str, name: str, folder: Path) -> dict[str, Any]:
        """Options to build a component with, as in a recipe; ``folder`` is empty, for files it may need."""
        return {}

    def example_input(self, kind: str, name: str, component: Any) -> Any:
        """What to feed a component; None for the kit's own example.

        Returns:
            backbone: a tensor, batch first; by default a picture [2, 3, 64, 64] or clip [2, 3, 8, 64, 64].
            loss: (logits, targets); by default [4, 5] and class numbers [4].
            metric: two pairs (outputs, batch) of different sizes; by default ``scores`` [N, 5],
                ``logits``, ``embedding`` and ``label`` [N].
            transform: what data sets hand it; by default uint8 frames [8, 3, 64, 64].
            task: a batch with labels in 0 to 4. There is no default.
            index: (vectors [N, D], queries that are the first of them); by default N = 20, D = 8.
        """
        return None

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        if "entry" in metafunc.fixturenames:
            known = {label: why for label, why in self.expected_failures.items() if why}
            marks = {label: pytest.mark.xfail(reason=why, strict=True) for label, why in known.items()}
            entries = _entries(self.plugin).items()
            cases = [pytest.param(entry, id=label, marks=marks.get(label, ())) for label, entry in entries]
            metafunc.parametrize("entry", cases or [pytest.param(None, id="nothing but events")])

    def test_the_plugin_loads_and_says_nothing(self) -> None:
        found = [record for record in installed().records if record.name == self.plugin]
        assert found, (
            f"no plugin {self.plugin!r} is installed: pip install -e . and set plugin = its entry point's name"
        )
        assert found[0].status == "ok", f"plugin {self.plugin} is {found[0].status}: {found[0].reason}"
        remarks = [note for note in notes(found[0]) if not note.startswith("took")]
        assert not remarks, f"plugin {self.plugin}: {'; '.join(remarks)}"

    def test_expected_failures_have_a_reason_and_a_component(self) -> None:
        for label, reason in self.expected_failures.items():
            assert label in _entries(self.plugin), f"expected_failures: {self.plugin} registers no {label!r}"
            assert reason.strip(), f"expected_failures[{label!r}]: say why"
            warnings.warn(f"expected failure of {self.plugin}: {label}: {reason}", stacklevel=1)

    def test_listing_is_light(self) -> None:
        others = ",".join(record.name for record in installed().records if record.name != self.plugin)
        command = [sys.executable, "-c", LIST_EVERYTHING]
        done = subprocess.run(command, env={**os.environ, "TAG_DISABLE": others}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        imported = sorted(HEAVY & set(done.stdout.splitlines()[-1].split()))
        assert not imported, f"listing {self.plugin} imports {', '.join(imported)}; import it where it is used"

    def test_component_keeps_its_contract(self, entry: Entry | None, tmp_path: Path) -> None:
        if entry is None:
            return
        assert entry.item.summary.strip(), "it has no summary"
        if entry.kind == "recipe":
            contract.recipe_resolves(entry.name)
        elif entry.kind == "command":
            contract.command_helps(entry.load())
        else:
            self._described(entry)
            self._behaves(entry, tmp_path)

    @staticmethod
    def _described(entry: Entry) -> None:
        options = [name for name in signature(entry.load(), entry) if name not in GIVEN.get(entry.kind, ())]
        told = {option.name: option.help for option in read_options(entry.component.target)}
        silent = [name for name in options if not told.get(name)]
        assert not silent, f"describe {', '.join(silent)} under 'Args:' in the docstring"

    def _behaves(self, entry: Entry, folder: Path) -> None:
        kind, name = entry.kind, entry.name.partition("/")[2]
        layers = {"backbone": nn.Linear(3, 4), "norm": nn.BatchNorm1d(4), "head": nn.Linear(4, 5)}
        known = {"classes": contract.CLASSES, "model": nn.Sequential(OrderedDict(layers)), "path": folder / "out"}
        known |= {"total_steps": contract.STEPS, "steps_per_epoch": contract.STEPS // 4}
        known |= {"dataset": contract.Pictures(), "batch_size": 8, "seed": 0, "processes": 1}
        given = {key: known[key] for key in GIVEN.get(kind, ())}
        options = self.example_options(kind, name, folder)

        def build() -> Any:
            contract.seed()
            return build_component(kind, entry.name, options, **given)

        try:
            component = build()
        except ConfigError as error:
            pytest.fail(f"give example_options({kind!r}, {name!r}): {error}", pytrace=False)
        except TagError:
            if kind == "distribution":  # it needs what this machine lacks, and says so
                return
            raise
        if kind in ("backbone", "task"):
            assert isinstance(component, nn.Module), f"a {kind} is an nn.Module"
        contract.CHECKS[kind](component, self.example_input(kind, name, component), build, given)


def _entries(plugin: str) -> dict[str, Entry]:
    """Name of the test -> what the plugin registers."""
    entries = [entry for found in catalog().entries.values() for entry in found.values()]
    return {f"{e.kind} {e.name.partition('/')[2]}": e for e in entries if e.plugin.name == plugin}
