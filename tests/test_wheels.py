"""Wheels hold what they must, and install and work as a user would install them, away from the checkout.

The scratch environments are new venvs. So that nothing is fetched, third-party packages are links to this
environment's, but only those that the wheels' own metadata ask for (and pytest): a dependency that is used and
not declared is missing there, as it would be for a user. Of the local packages nothing is linked. pip itself then
installs the wheels from their folder, with its resolver, and no index.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from email.message import Message
from email.parser import Parser
from importlib.metadata import Distribution, distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
DISTS = sorted(path.parent for path in [*ROOT.glob("*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")])
CORE = ROOT / "tag_core"
INSTALLED = {canonicalize_name(dist.name): dist for dist in distributions()}


def dist_name(folder: Path) -> str:
    return folder.name.replace("_", "-")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel of every distribution."""
    out = tmp_path_factory.mktemp("dist")
    for folder in DISTS:
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return out


def open_wheel(wheels: Path, folder: Path) -> zipfile.ZipFile:
    (path,) = wheels.glob(f"{folder.name}-*.whl")
    return zipfile.ZipFile(path)


def metadata(wheels: Path, folder: Path) -> Message:
    with open_wheel(wheels, folder) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        return Parser().parsestr(wheel.read(name).decode())


def needed(requirements: list[str], extras: frozenset[str] = frozenset()) -> Iterator[Distribution]:
    """Installed third-party packages that these requirements ask for, and those they need in turn."""
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = [(text, extras) for text in requirements]
    while waiting:
        text, extras = waiting.pop()
        wanted = Requirement(text)
        name = canonicalize_name(wanted.name)
        applies = wanted.marker is None or any(wanted.marker.evaluate({"extra": e}) for e in extras or {""})
        key = (name, frozenset(wanted.extras))
        if name.startswith("tag-") or not applies or key in seen:
            continue
        seen.add(key)
        assert name in INSTALLED, f"{name} is required but not installed here"
        waiting += [(inner, key[1]) for inner in INSTALLED[name].requires or ()]
        yield INSTALLED[name]


class Environment:
    """A venv with links to what the wheels need."""

    def __init__(self, folder: Path, requirements: list[str]) -> None:
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        venv.create(folder / "venv", symlinks=True)
        self.bin = folder / "venv" / "bin"
        (self.site,) = (folder / "venv" / "lib").glob("python*/site-packages")
        for dist in needed(requirements):
            for top in {file.parts[0] for file in dist.files or () if file.parts[0] not in ("..", "__pycache__")}:
                if not (self.site / top).exists():
                    (self.site / top).symlink_to(dist.locate_file(top))

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("TAG_", "PYTHON", "PYTEST_"))}
        environment = {**kept, "PYTHONNOUSERSITE": "1", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
        return subprocess.run(
            [str(word) for word in command], env=environment, cwd=self.work, capture_output=True, text=True, timeout=600
        )

    def pip_install(self, wheels: Path, *names: str) -> None:
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python"), "--disable-pip-version-check"]
        done = self.run(*pip, "install", "--no-index", "--find-links", wheels, *names)
        assert done.returncode == 0, done.stdout + done.stderr

    def tag_run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        done = self.run(self.bin / "tag-run", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture(scope="module", params=DISTS, ids=dist_name)
def installed(request: pytest.FixtureRequest, wheels: Path, tmp_path_factory: pytest.TempPathFactory):
    """tag-core alone, then with each plugin alone: (distribution's folder, environment)."""
    folder: Path = request.param
    requirements = [
        *(metadata(wheels, CORE).get_all("Requires-Dist") or []),
        *(metadata(wheels, folder).get_all("Requires-Dist") or []),
        *("pytest", "hypothesis", "pyarrow"),  # the extra `test` of tag-core
    ]
    environment = Environment(tmp_path_factory.mktemp(folder.name), requirements)
    environment.pip_install(wheels, *dict.fromkeys(["tag-core", dist_name(folder)]))
    return folder, environment


@pytest.mark.parametrize("folder", DISTS, ids=dist_name)
def test_a_wheel_holds_all_of_its_source_folder_and_nothing_else(wheels: Path, folder: Path) -> None:
    source = folder / "src"
    files = {str(p.relative_to(source)) for p in source.rglob("*") if p.is_file() and "__pycache__" not in p.parts}
    with open_wheel(wheels, folder) as wheel:
        packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert packed == files
    assert not [name for name in packed if Path(name).match("test_*.py")]


def test_what_is_not_python_is_in_the_wheels_too(wheels: Path) -> None:
    names = {name for folder in DISTS for name in open_wheel(wheels, folder).namelist()}
    packages = {folder.name for folder in DISTS}
    wanted = {"tag_core/report/template.html", "tag_core/templates/pyproject.toml.tmpl"}
    wanted |= {f"{package}/py.typed" for package in packages}
    wanted |= {f"tag_plugins_video/recipes/{name}.toml" for name in ("tsn", "s3d", "motion", "motion-frame")}
    assert wanted <= names


@pytest.mark.parametrize("folder", DISTS, ids=dist_name)
def test_a_wheel_says_who_it_is_and_under_what_licence(wheels: Path, folder: Path) -> None:
    about = metadata(wheels, folder)
    assert about["Name"] == dist_name(folder)
    assert about["License-Expression"] == "Apache-2.0"
    assert about["Requires-Python"] == ">=3.11"
    assert "Tag" in about["Summary"]
    assert len(about.get_payload()) > 300, "the README is its description"
    with open_wheel(wheels, folder) as wheel:
        assert [name for name in wheel.namelist() if name.endswith("licenses/LICENSE")]


def test_nothing_comes_from_the_checkout(installed: tuple[Path, Environment]) -> None:
    folder, environment = installed
    script = f"import tag_core, {folder.name}; print(tag_core.__file__); print({folder.name}.__file__)"
    done = environment.run(environment.bin / "python", "-c", script)
    assert done.returncode == 0, done.stderr
    assert all(Path(line).is_relative_to(environment.site) for line in done.stdout.splitlines())


def test_list_and_doctor_work(installed: tuple[Path, Environment]) -> None:
    folder, environment = installed
    listed = environment.tag_run("list")
    assert "core/cross-entropy" in listed.stdout
    assert ("video/tsn" in listed.stdout) == (folder.name == "tag_plugins_video")
    doctor = environment.tag_run("doctor")
    assert "all is well" in doctor.stderr
    names = re.findall(r"^plugin (\S+) .*, ok$", doctor.stdout, re.MULTILINE)
    assert len(names) == len(set(names))
    own = {"tag_core": {"core", "tensorboard"}}.get(folder.name, {folder.name.removeprefix("tag_plugins_")})
    assert {"core", "tensorboard"} | own == set(names)


def test_the_contract_test_passes(installed: tuple[Path, Environment]) -> None:
    folder, environment = installed
    (contract,) = (folder / "tests").glob("test_*_contract.py")
    for path in (folder / "tests").glob("*.py"):  # and what it imports
        if path == contract or not path.name.startswith(("test_", "conftest")):
            shutil.copy(path, environment.work)
    done = environment.run(environment.bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", contract.name)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\d+ passed", done.stdout)
