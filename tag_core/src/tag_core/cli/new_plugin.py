"""``tag-run new-plugin``."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from string import Template

import click

from tag_core.discovery import installed_version
from tag_core.errors import UserError
from tag_core.plugins import FIRST_PARTY, installed

FILES = {
    "pyproject.toml": "pyproject.toml",
    "README.md": "README.md",
    "tests/test_contract.py": "test_contract.py",
    "src/{module}/plugin.py": "plugin.py",
    "src/{module}/backbone.py": "backbone.py",
    "src/{module}/loss.py": "loss.py",
    "src/{module}/pictures.py": "pictures.py",
    "src/{module}/task.py": "task.py",
    "src/{module}/recipes/first.toml": "first.toml",
}
"""File of the new package -> template."""


@click.command("new-plugin")
@click.argument("name")
@click.option("--out", type=click.Path(), default=".", help="Folder to write into; the current one by default.")
def new_plugin(name: str, out: str) -> None:
    """Write the package tag-plugins-NAME: a backbone, a loss, a recipe that trains, and their tests.

    NAME becomes the namespace: its components are NAME/small, NAME/poly and so on.
    """
    folder = write_plugin(name, Path(out))
    click.echo(str(folder))
    click.echo(f"next: cd {folder}; pip install -e '.[test]'; pytest; tag-run train {name}/first", err=True)


def write_plugin(name: str, out: Path) -> Path:
    """Write the package into ``out``; returns its folder.

    Raises:
        UserError: the name cannot be used, or the folder exists or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"{name!r} cannot name a plugin: use lower-case letters, digits and '-', as in my-model")
    taken = {*FIRST_PARTY, *(record.name for record in installed().records)}
    if name in taken:
        raise UserError(f"the name {name!r} is taken by another plugin (see 'tag-run plugins'); choose another")
    folder, module = out / f"tag-plugins-{name}", f"tag_plugins_{name.replace('-', '_')}"
    values = {"name": name, "module": module, "requires": _requirement(installed_version("tag-core"))}
    try:
        folder.mkdir(parents=True)
        for path, template in FILES.items():
            text = (files("tag_core") / "templates" / f"{template}.tmpl").read_text("utf-8")
            target = folder / path.format(module=module)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(text).substitute(values), "utf-8")
        (folder / "src" / module / "__init__.py").write_text(f'"""The plugin {name} for Tag."""\n', "utf-8")
    except FileExistsError:
        raise UserError(f"{folder} exists already; remove it, or choose another name or --out") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def _requirement(version: str) -> str:
    """``>=0.1,<0.2`` for 0.1.3: the same minor version before 1.0, the same major one after."""
    major, minor, *_ = (int(part) for part in re.findall(r"\d+", f"{version}.0"))
    return f">={major}.{minor},<{f'0.{minor + 1}' if major == 0 else major + 1}"
