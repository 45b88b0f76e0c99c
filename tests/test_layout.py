"""The repository is laid out as its pages say, and the packages tested are the ones in it."""

from __future__ import annotations

import ast
import importlib
import io
import re
import subprocess
import tokenize
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DISTS = sorted(path.parent for path in [*ROOT.glob("*/pyproject.toml"), *ROOT.glob("plugins/*/pyproject.toml")])
LONGEST_MODULE, CORE_CODE = 400, 5600
BLANK = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def tracked() -> list[Path]:
    """Files that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in set(done.stdout.split("\0")) - {""} if (path := ROOT / name).is_file()]


def texts(*suffixes: str) -> dict[Path, str]:
    found = {}
    for path in tracked():
        if not suffixes or path.suffix in suffixes:
            try:
                found[path.relative_to(ROOT)] = path.read_text("utf-8")
            except UnicodeDecodeError:
                continue
    assert found
    return found


def project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))["project"]


def local_modules() -> set[str]:
    """Every module of the local packages that some test imports."""
    names: set[str] = set()
    for path in ROOT.rglob("tests/*.py"):
        if ".venv" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module)
            elif isinstance(node, ast.Import):
                names.update(alias.name for alias in node.names)
    packages = {folder.name for folder in DISTS}
    return {name for name in names if name.split(".")[0] in packages} | packages


def test_every_package_that_tests_import_is_the_one_under_its_own_src() -> None:
    homes = {folder.name: folder / "src" / folder.name for folder in DISTS}
    modules = local_modules()
    assert len(modules) > 20
    for name in sorted(modules):
        module = importlib.import_module(name)
        assert module.__file__, f"{name} is an accidental namespace package"
        assert Path(module.__file__).resolve().is_relative_to(homes[name.split(".")[0]])


def test_test_files_have_names_of_their_own() -> None:
    files = [path for path in tracked() if path.suffix == ".py" and path.parent.name == "tests"]
    twice = [
        name for name, count in Counter(path.name for path in files if path.name != "conftest.py").items() if count > 1
    ]
    assert not twice
    assert not [path for path in files if path.name == "__init__.py"]


def test_no_module_is_longer_than_one_sitting() -> None:
    lines = {str(path): len(text.splitlines()) for path, text in texts(".py").items() if "src" in path.parts}
    assert not {path: count for path, count in lines.items() if count > LONGEST_MODULE}


def test_the_core_does_not_grow_unnoticed() -> None:
    """Lines that are not blank, comment or docstring."""
    core = {path: text for path, text in texts(".py").items() if path.is_relative_to("tag_core/src")}
    assert sum(len(code_lines(text)) for text in core.values()) <= CORE_CODE


def code_lines(text: str) -> set[int]:
    tree = ast.parse(text)
    expressions = [
        node for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    told = {number for node in expressions for number in range(node.lineno, (node.end_lineno or 0) + 1)}
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    lines = {n for t in tokens if t.type not in BLANK for n in range(t.start[0], t.end[0] + 1)}
    return lines - told


@pytest.mark.parametrize("folder", DISTS, ids=lambda folder: folder.name)
def test_each_distribution_has_what_an_index_page_needs(folder: Path) -> None:
    about = project(folder)
    assert about["name"] == folder.name.replace("_", "-")
    assert about["readme"] == "README.md"
    assert about["license"] == "Apache-2.0"
    assert about["requires-python"] == ">=3.11"
    assert (folder / "README.md").read_text("utf-8").startswith(f"# {about['name']}\n")
    assert (folder / "LICENSE").read_text("utf-8") == (ROOT / "LICENSE").read_text("utf-8")
    assert (folder / "src" / folder.name / "py.typed").is_file()
    assert list((folder / "tests").glob("test_*_contract.py"))
    if folder.name != "tag_core":
        assert f"tag-core>={project(ROOT / 'tag_core')['version'].rpartition('.')[0]}" in str(about["dependencies"])
        assert list(about["entry-points"]["tag.plugins"].values()) == [f"{folder.name}.plugin"]


def test_all_distributions_have_one_version_and_the_changelog_knows_it() -> None:
    versions = {project(folder)["version"] for folder in DISTS}
    assert len(versions) == 1
    assert f"## {versions.pop()}" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_root_is_no_distribution_and_carries_the_licence() -> None:
    assert "project" not in tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert "Apache License" in (ROOT / "LICENSE").read_text("utf-8")
    assert not (ROOT / "__init__.py").exists()


def test_the_makefile_installs_every_distribution() -> None:
    dists = re.search(r"^DISTS\s*:=\s*(.*)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
    assert dists is not None
    assert sorted(dists[1].split()) == [str(folder.relative_to(ROOT)) for folder in DISTS]


def test_versions_are_pinned_plainly_and_every_requirement_has_one() -> None:
    lines = [line.strip() for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines()]
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert not [line for line in pinned if not re.fullmatch(r"[\w.-]+==[\w.+!]+", line)]
    names = {normal(line.partition("==")[0]) for line in pinned}
    wanted = [line.partition(";")[0].strip() for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()]
    assert not {normal(line) for line in wanted if line and not line.startswith("#")} - names


def test_no_file_names_a_machine_or_a_package_index() -> None:
    paths = re.compile(r"(?<![\w.~/-])/(?:home|Users|root|work)/\w+")
    index = re.compile(
        r"--(?:extra-)?index-url|--trusted-host|pypi\.org/simple|files\.pythonhosted|\w+://[^\s]*/simple\b"
    )
    here = Path(__file__).relative_to(ROOT) if Path(__file__).is_relative_to(ROOT) else None
    found = [
        f"{path}:{number}: {line.strip()[:100]}"
        for path, text in texts().items()
        if path != here
        for number, line in enumerate(text.splitlines(), 1)
        if paths.search(line) or index.search(line)
    ]
    assert not found


def test_no_large_file_is_kept() -> None:
    assert not [str(path) for path in tracked() if path.stat().st_size > 300_000]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
