"""Deliberately bad plugins, installed as real packages: the others work, and the culprit is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scratch_site import ScratchSite

HEAD = "from tag_core import Command, Component, RecipeFile, hookimpl\n"


def hook(name: str, *lines: str) -> str:
    return f"{HEAD}@hookimpl\ndef {name}():\n" + "".join(f"    {line}\n" for line in lines)


X = "return [Component('x', 'good_pkg.net:Net', 'X')]"
SOURCES = {
    "raises": "raise RuntimeError('no licence\\nfound')",
    "exits": "raise SystemExit('go away')",
    "syntax": "def broken(:",
    "imports": "import a_package_nobody_has",
    "misspelt": hook("tag_bakbones", X),
    "arguments": f"{HEAD}@hookimpl\ndef tag_run_started(runs): ...\n@hookimpl\ndef tag_backbones():\n    {X}\n",
    "hook-raises": hook("tag_backbones", "return 1 / 0"),
    "hook-exits": hook("tag_backbones", "raise SystemExit(3)"),
    "hook-number": hook("tag_backbones", "return 42"),
    "hook-strings": hook("tag_backbones", "return ['x']"),
    "hook-recipe": hook("tag_backbones", "return [RecipeFile('x', 'p:x.toml', 'X')]"),
    "hook-twice": hook("tag_backbones", "return [Component('x', 'a:b', 'X'), Component('x', 'c:d', 'X')]"),
    "bad-name": hook("tag_backbones", "return [Component('A B', 'a:b', 'X')]"),
    "bad-target": hook("tag_backbones", "return [Component('x', 'a.b.C', 'X')]"),
    "bad-summary": hook("tag_backbones", "return [Component('x', 'a:b', None)]"),
}
FAILED = {
    "raises": "RuntimeError: no licence found",
    "exits": "SystemExit: go away",
    "syntax": "SyntaxError",
    "imports": "No module named 'a_package_nobody_has'",
    "misspelt": "there is no hook 'tag_bakbones'; did you mean 'tag_backbones'",
    "arguments": "runs",
    "hook-raises": "tag_backbones failed: ZeroDivisionError",
    "hook-exits": "SystemExit: 3",
    "hook-number": "tag_backbones failed: TypeError: 'int' object is not iterable",
    "hook-strings": "tag_backbones must return Component objects, not 'x'",
    "hook-recipe": "tag_backbones must return Component objects, not RecipeFile",
    "hook-twice": "tag_backbones returns x more than once",
    "bad-name": "name 'A B': use lower-case letters",
    "bad-target": "must read 'package.module:attribute'",
    "bad-summary": "every part must be text",
    "future": "needs tag-core >=99, this is tag-core",
    "requirement": "InvalidRequirement",
    "no-module": "No module named 'nowhere'",
    "no-value": "Empty module name",
    "function": "No module named 'json:dumps'",
    "Bad_Space": "use lower-case letters",
    "twin": "claimed by twin-one and by twin-two; uninstall or rename one of them",
}
FLAWED = {
    "noisy": "prints on import: 'hello from noisy'",
    "no-target": "broken target no_target_pkg.models:Missing: no_target_pkg.models has no 'Missing'",
    "no-recipe": "no_recipe_pkg:x.toml cannot be read",
    "unmarked": "tag_losses is not marked @hookimpl",
    "train-command": "its command 'train' is hidden",
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> ScratchSite:
    site = ScratchSite(tmp_path_factory.mktemp("bad"))
    site.install_good()
    for name, source in SOURCES.items():
        module = name.replace("-", "_") + "_plugin"
        site.install(f"bad-{name}", {name: module}, {f"{module}.py": source})
    plugin = hook("tag_backbones", X)
    site.install("bad-future", {"future": "future_plugin"}, {"future_plugin.py": plugin}, ["tag-core>=99"])
    site.install("bad-requirement", {"requirement": "r_plugin"}, {"r_plugin.py": plugin}, ["tag_core >=<1"])
    site.install("bad-space", {"Bad_Space": "space_plugin"}, {"space_plugin.py": plugin})
    site.install("bad-no-module", {"no-module": "nowhere.plugin", "no-value": "", "function": "json:dumps"}, {})
    for twin in ("one", "two"):
        site.install(f"twin-{twin}", {"twin": f"twin_{twin}"}, {f"twin_{twin}.py": plugin})
    noisy = f"print('hello from noisy')\n{hook('tag_backbones', 'print(1)', X)}"
    site.install("noisy", {"noisy": "noisy_plugin"}, {"noisy_plugin.py": noisy})
    missing = ["Component('x', 'no_target_pkg.models:Missing', 'X')", "Component('y', 'no_target_pkg.none:Y', 'Y')"]
    crash = "Component('z', 'no_target_pkg.crash:Z', 'Z')"
    files = {"__init__.py": "", "models.py": "import os", "crash.py": "import sys\nsys.exit('crashed')\nclass Z: ..."}
    files["plugin.py"] = hook("tag_backbones", f"return [{', '.join([*missing, crash])}]")
    packed = {f"no_target_pkg/{name}": text for name, text in files.items()}
    site.install("no-target", {"no-target": "no_target_pkg.plugin"}, packed)
    recipe = hook("tag_recipes", "return [RecipeFile('x', 'no_recipe_pkg:x.toml', 'X')]")
    site.install("no-recipe", {"no-recipe": "no_recipe_pkg"}, {"no_recipe_pkg/__init__.py": recipe})
    site.install("unmarked", {"unmarked": "unmarked_plugin"}, {"unmarked_plugin.py": "def tag_losses(): return []"})
    command = hook("tag_commands", "return [Command('train', 'train_plugin:x', 'X')]") + "\nx = 1\n"
    site.install("train-command", {"train-command": "train_plugin"}, {"train_plugin.py": command})
    return site


@pytest.fixture(scope="module")
def plugins(site: ScratchSite) -> dict[str, list[dict[str, Any]]]:
    done = site.run("plugins", "--json")
    assert done.returncode == 0, done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for row in json.loads(done.stdout):
        found.setdefault(row["name"], []).append(row)
    return found


@pytest.mark.parametrize("name", FAILED)
def test_a_plugin_that_cannot_be_used_is_shown_with_its_package_and_the_reason(name: str, plugins: Any) -> None:
    for row in plugins[name]:
        assert row["status"] == "failed"
        assert row["package"]
        assert FAILED[name] in row["reason"]
        assert "\n" not in row["reason"]


@pytest.mark.parametrize("name", FLAWED)
def test_a_plugin_that_works_in_part_is_shown_with_what_is_wrong(name: str, plugins: Any) -> None:
    (row,) = plugins[name]
    assert row["status"] == "flawed"
    assert FLAWED[name] in " ".join(row["notes"])


def test_both_packages_that_claim_a_name_are_set_aside(plugins: Any) -> None:
    assert [row["package"] for row in plugins["twin"]] == ["twin-one", "twin-two"]


def test_a_garbled_entry_point_file_is_one_more_broken_plugin(tmp_path: Path) -> None:
    site = ScratchSite(tmp_path)
    site.install_good()
    garbled = site.packages / "garbled-1.0.dist-info"
    garbled.mkdir()
    (garbled / "entry_points.txt").write_bytes(b"[tag.plugins]\nno equals sign\n\xff\xfe = \xff\n")
    status = {row["package"]: row["status"] for row in json.loads(site.run("plugins", "--json").stdout)}
    assert (status["garbled"], status["tag-good"]) == ("failed", "ok")


def test_good_plugins_are_not_touched_by_all_this(plugins: Any, site: ScratchSite) -> None:
    for name in ("core", "tensorboard", "good"):
        assert [(row["status"], row["notes"]) for row in plugins[name]] == [("ok", [])]
    program = "import tag_core; print(tag_core.load('good/net', width=3).feature_dim, tag_core.load('cross-entropy'))"
    done = site.python("-c", program)
    assert (done.returncode, done.stdout) == (0, "3 CrossEntropy()\n"), done.stderr


def test_lists_hold_what_works_and_mention_what_does_not(site: ScratchSite) -> None:
    done = site.run("list", "backbone", "--json")
    names = [row["name"] for row in json.loads(done.stdout)]
    assert "good/net" in names
    assert "noisy/x" in names
    assert not {f"{name}/x" for name in FAILED} & set(names)
    assert "not listed: " in done.stderr
    assert "raises" in done.stderr.split("not listed: ")[1].splitlines()[0]


@pytest.mark.parametrize("arguments", [["list"], ["recipes"], ["plugins"], ["--help"], ["show", "good/net"]])
def test_what_a_plugin_prints_never_reaches_standard_output(arguments: list[str], site: ScratchSite) -> None:
    done = site.run(*arguments)
    assert done.returncode == 0
    assert done.stdout.count("hello from noisy") == (1 if arguments == ["plugins"] else 0)  # quoted as a note there


@pytest.mark.parametrize("name", sorted({*FAILED} - {"Bad_Space"}))
def test_asking_for_a_broken_plugins_component_repeats_the_cause(name: str, site: ScratchSite) -> None:
    done = site.run("show", f"{name}/x")
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{name}/x: plugin {name} is failed: " in done.stderr
    assert FAILED[name] in done.stderr
    assert "Traceback" not in done.stderr


def test_a_recipe_that_names_broken_components_gets_all_causes_at_once(site: ScratchSite) -> None:
    broken = {
        "task.backbone": "no-target/x",
        "task.loss": "raises/x",
        "optimizer": "exits/x",
        "schedule": "detection/x",
        "data.train": "twin/x",
        "metrics": '["no-target/y"]',
    }
    done = site.run("check", "good/first", *(f"{key}={name}" for key, name in broken.items()))
    assert (done.returncode, done.stdout) == (2, "")
    for cause in (
        "task.backbone: backbone no-target/x (from no-target 1.0): no_target_pkg.models has no 'Missing'",
        "task.loss: raises/x: plugin raises is failed: RuntimeError: no licence found",
        "optimizer: exits/x: plugin exits is failed: SystemExit: go away",
        "schedule: schedule 'detection/x': plugin 'detection' is not installed; pip install tag-plugins-detection",
        "data.train: twin/x: plugin twin is failed: the name 'twin' is claimed by twin-one and by twin-two",
        "metrics.0: 'no-target/y' is a backbone, not a metric",
    ):
        assert cause in done.stderr
    assert "Traceback" not in done.stderr


def test_training_a_broken_plugins_recipe_repeats_the_cause(site: ScratchSite) -> None:
    done = site.run("train", "raises/x")
    assert (done.returncode, done.stdout) == (2, "")
    assert "raises/x: plugin raises is failed: RuntimeError: no licence found" in done.stderr


@pytest.mark.parametrize(
    ("name", "cause"),
    [("y", "No module named 'no_target_pkg.none'"), ("z", "SystemExit: crashed"), ("x", "has no 'Missing'")],
)
def test_a_target_that_cannot_be_imported_is_a_plugin_error(name: str, cause: str, site: ScratchSite) -> None:
    program = f"""
from tag_core.catalog import catalog
from tag_core.errors import PluginError
try:
    catalog().get("backbone", "no-target/{name}").load()
except PluginError as error:
    print(error)
"""
    done = site.python("-c", program)
    assert done.stdout.startswith(f"backbone no-target/{name} (from no-target 1.0): "), done.stderr
    assert cause in done.stdout


@pytest.mark.parametrize("name", [*FAILED])
def test_strict_refuses_to_start_with_a_broken_plugin(name: str, site: ScratchSite) -> None:
    done = site.run("list", TAG_STRICT="1", TAG_DISABLE=",".join({*FAILED} - {name}))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"plugin {name} (" in done.stderr
    assert FAILED[name] in done.stderr


def test_disabled_plugins_are_not_even_imported(site: ScratchSite) -> None:
    everything = ",".join([*FAILED, *FLAWED])
    done = site.run("plugins", "--json", TAG_DISABLE=everything, TAG_STRICT="1")
    assert done.returncode == 0, done.stderr
    status = {row["name"]: (row["status"], row["reason"]) for row in json.loads(done.stdout)}
    assert status["raises"] == ("disabled", "switched off by TAG_DISABLE")
    assert status["good"] == ("ok", "")
    asked = site.run("show", "raises/x", TAG_DISABLE="raises")
    assert (asked.returncode, asked.stdout) == (2, "")
    assert "raises/x: plugin raises is disabled: switched off by TAG_DISABLE" in asked.stderr


def test_a_plugin_that_takes_five_seconds_to_import_works_and_is_named(tmp_path: Path) -> None:
    site = ScratchSite(tmp_path)
    site.install_good()
    site.install("slow", {"slow": "slow_plugin"}, {"slow_plugin.py": "import time\ntime.sleep(5)\n"})
    done = site.run("plugins", "--json")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["slow"]["status"] == "flawed"
    assert rows["slow"]["notes"][0].startswith("took 5.")
    assert rows["good"]["status"] == "ok"


def test_names_that_are_not_there_get_help(site: ScratchSite) -> None:
    for name, help_ in {
        "good/nett": "did you mean 'good/net'",
        "corss-entropy": "did you mean 'cross-entropy'",
        "detection/bags": "plugin 'detection' is not installed; pip install tag-plugins-detection",
        "nothing/like-it": "no component or recipe named 'nothing/like-it'",
    }.items():
        done = site.run("show", name)
        assert (done.returncode, done.stdout) == (2, "")
        assert help_ in done.stderr


def test_a_bare_name_in_several_plugins_must_be_written_in_full(site: ScratchSite) -> None:
    site.install("more", {"more": "more_plugin"}, {"more_plugin.py": hook("tag_backbones", X.replace("'x'", "'net'"))})
    done = site.run("show", "net")
    assert (done.returncode, done.stdout) == (2, "")
    assert "backbone 'net' is in several plugins: write good/net or more/net" in done.stderr
    assert site.run("show", "first").stdout.startswith("recipe good/first")


def test_commands_of_one_name_are_called_by_their_full_names(tmp_path: Path) -> None:
    site = ScratchSite(tmp_path)
    for name in ("one", "two"):
        command = hook("tag_commands", f"return [Command('flow', '{name}_plugin:flow', 'Flow of {name}')]")
        source = f"{command}\nimport click\n@click.command()\ndef flow():\n    click.echo('{name}')\n"
        site.install(name, {name: f"{name}_plugin"}, {f"{name}_plugin.py": source})
    assert site.run("flow").returncode == 2
    help_ = site.run("--help").stdout
    for name in ("one", "two"):
        assert f"{name}/flow" in help_
        assert site.run(f"{name}/flow").stdout == f"{name}\n"


ONE_FILE = (
    hook("tag_losses", "return [Component('mine', f'{__name__}:Mine', 'My own')]")
    + '''
class Mine:
    """My own loss.

    Args:
        scale: times this.
    """

    def __init__(self, scale: float = 1.0) -> None: ...
'''
)


@pytest.mark.parametrize("arguments", [["--plugin", "{}", "show", "{}/mine"], ["show", "{}/mine", "--plugin={}"]])
def test_a_plugin_may_be_a_file_named_before_or_after_the_command(arguments: list[str], site: ScratchSite) -> None:
    (site.cwd / "my_own.py").write_text(ONE_FILE)
    done = site.run(*(a.format("my-own" if "/" in a else "my_own.py") for a in arguments))
    assert done.returncode == 0, done.stderr
    assert "loss my-own/mine" in done.stdout
    assert "times this." in done.stdout


def test_a_plugin_may_be_a_module_that_is_not_installed(site: ScratchSite) -> None:
    package = site.cwd / "tag_plugins_local"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "plugin.py").write_text(ONE_FILE)
    done = site.run("list", "loss", "--json", "--plugin", "tag_plugins_local.plugin")
    assert "local/mine" in [row["name"] for row in json.loads(done.stdout)]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("absent.py", "--plugin absent.py: FileNotFoundError: [Errno 2] No such file"),
        ("absent.module", "--plugin absent.module: ModuleNotFoundError: No module named 'absent'"),
        ("wave.py", "--plugin wave.py: a module 'wave' exists already; rename the file"),
        ("good.py", "--plugin good.py: the name 'good' is claimed by --plugin and by tag-good; uninstall or rename"),
        ("_.py", "--plugin _.py: namespace '-': use lower-case letters"),
        ("wrong.py", "--plugin wrong.py: there is no hook 'tag_nothing'"),
    ],
)
def test_an_unusable_plugin_option_is_the_users_error(source: str, reason: str, tmp_path: Path) -> None:
    site = ScratchSite(tmp_path)
    site.install_good()
    folder = site.cwd / "files"
    folder.mkdir()
    for name in ("wave.py", "good.py", "_.py"):
        (folder / name).write_text(ONE_FILE)
    (folder / "wrong.py").write_text(hook("tag_nothing", "return []"))
    done = site.run("list", "--plugin", f"files/{source}" if source.endswith(".py") else source)
    assert (done.returncode, done.stdout) == (2, "")
    assert reason in done.stderr.replace("files/", "")
    assert "Traceback" not in done.stderr
