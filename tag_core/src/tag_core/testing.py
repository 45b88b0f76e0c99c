"""The conformance kit: a plugin's tests inherit it, and everything it registers is put through its contract.

::

    from tag_core.testing import PluginContract

    class TestContract(PluginContract):
        plugin = "video"

Each component, recipe and command is one test, named like ``backbone tsn``. None is skipped: what cannot
be built or fed by itself fails with the name of the example to give. Needs pytest.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any, ClassVar

import pytest
from torch import nn

from tag_core import contract
from tag_core.catalog import Entry, catalog
from tag_core.cli.plugins import notes
from tag_core.cli.source import read_options
from tag_core.component import RecipeFile
from tag_core.config import build_component
from tag_core.errors import ConfigError
from tag_core.kinds import GIVEN
from tag_core.plugins import PluginRecord, installed
from tag_core.typed import signature

HEAVY = {"torch", "numpy", "pandas", "PIL", "cv2", "av", "scipy", "sklearn", "torchvision", "timm", "pydantic"}
LIST_EVERYTHING = """
import json, sys
from tag_core.cli.main import main
codes = [main(["list", "--json"]), main(["plugins", "--json"])]
print(json.dumps([codes, sorted(sys.modules)]))
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
            cases = [pytest.param(e, id=label, marks=self._marks(label)) for label, e in _entries(self.plugin).items()]
            metafunc.parametrize("entry", cases or [pytest.param(None, id="nothing but events")])

    def _marks(self, label: str) -> list[pytest.MarkDecorator]:
        reason = self.expected_failures.get(label)
        return [pytest.mark.xfail(reason=reason, strict=True)] if reason else []

    def test_the_plugin_loads_and_says_nothing(self) -> None:
        record = _record(self.plugin)
        assert record.status == "ok", f"plugin {self.plugin} is {record.status}: {record.reason}"
        remarks = [note for note in notes(record) if not note.startswith("took")]
        assert not remarks, f"plugin {self.plugin}: {'; '.join(remarks)}"

    def test_expected_failures_have_a_reason_and_a_component(self) -> None:
        for label, reason in self.expected_failures.items():
            assert label in _entries(self.plugin), f"expected_failures: {self.plugin} registers no {label!r}"
            assert reason.strip(), f"expected_failures[{label!r}]: say why"
            warnings.warn(f"expected failure of {self.plugin}: {label}: {reason}", stacklevel=1)

    def test_listing_is_light(self) -> None:
        record, others = _record(self.plugin), [r.name for r in installed().records if r.name != self.plugin]
        environment = {**os.environ, "TAG_DISABLE": ",".join(others)}
        done = subprocess.run([sys.executable, "-c", LIST_EVERYTHING], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        codes, modules = json.loads(done.stdout.splitlines()[-1])
        assert codes == [0, 0], done.stderr
        module = record.module.partition(":")[0]
        own = f"{module.rpartition('.')[0]}." if "." in module else "\n"
        imported = {m for m in modules if m in HEAVY or (m.startswith(own) and not f"{module}.".startswith(f"{m}."))}
        assert not imported, f"listing {self.plugin} imports {', '.join(sorted(imported))}; import it where it is used"

    def test_component_keeps_its_contract(self, entry: Entry | None, tmp_path: Path) -> None:
        if entry is None:
            return
        assert entry.item.summary.strip(), "it has no summary"
        if isinstance(entry.item, RecipeFile):
            contract.check_recipe(entry.name)
        elif entry.kind == "command":
            contract.check_command(entry.load())
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
        model = nn.ModuleDict({"backbone": nn.Linear(3, 4), "norm": nn.BatchNorm1d(4), "head": nn.Linear(4, 5)})
        known = {"classes": contract.CLASSES, "model": model, "path": folder / "out"}
        known |= {"total_steps": contract.STEPS, "steps_per_epoch": contract.STEPS // 4}
        given = {key: known[key] for key in GIVEN.get(kind, ())}
        options = self.example_options(kind, name, folder)

        def build() -> Any:
            contract.seed()
            return build_component(kind, entry.name, options, **given)

        if kind == "distribution":
            return contract.check_distribution(build)
        try:
            component = build()
        except ConfigError as error:
            pytest.fail(f"give example_options({kind!r}, {name!r}): {error}", pytrace=False)
        inputs, why = self.example_input(kind, name, component), ""
        if inputs is None:
            inputs, why = contract.default_input(kind, component)
        if inputs is None:
            pytest.fail(f"give example_input({kind!r}, {name!r}){why}", pytrace=False)
        contract.CHECKS[kind](component, inputs, build, given)
        return None


def _record(plugin: str) -> PluginRecord:
    found = [record for record in installed().records if record.name == plugin]
    assert found, f"no plugin {plugin!r} is installed; pip install -e . first, and set plugin = its entry point's name"
    return found[0]


def _entries(plugin: str) -> dict[str, Entry]:
    """Name of the test -> what the plugin registers."""
    entries = [entry for found in catalog().entries.values() for entry in found.values()]
    return {f"{e.kind} {e.name.partition('/')[2]}": e for e in entries if e.plugin.name == plugin}
