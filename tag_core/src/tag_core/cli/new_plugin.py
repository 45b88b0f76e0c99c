"""``tag-run new-plugin``: the files under ``templates/``, with the plugin's name put in."""

from __future__ import annotations

import re
from pathlib import Path
from string import Template

import click

import tag_core
from tag_core.discovery import installed_version
from tag_core.errors import UserError
from tag_core.plugins import FIRST_PARTY, installed

TEMPLATES = Path(tag_core.__file__).parent / "templates"


@click.command("new-plugin")
@click.argument("name")
@click.option("--out", type=click.Path(), default=".", help="Folder to write into; the current one by default.")
def new_plugin(name: str, out: str) -> None:
    """Write the package tag-plugins-NAME: a backbone, a loss, a recipe that trains, and their tests.

    NAME becomes the namespace: its components are NAME/small, NAME/poly and so on.
    """
    folder = write_plugin(name, Path(out))
    click.echo(str(folder))
    click.echo(f"next: cd {folder}; pip install -e '.[test]'; python -m pytest; tag-run train {name}/first", err=True)


def write_plugin(name: str, out: Path) -> Path:
    """Write the package into ``out``; returns its folder.

    Raises:
        UserError: the name cannot be used, or the folder exists or cannot be written.
    """
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(f"{name!r} cannot name a plugin: use lower-case letters, digits and '-', as in my-model")
    if name in {*FIRST_PARTY, *(record.name for record in installed().records)}:
        raise UserError(f"the name {name!r} is taken by another plugin (see 'tag-run plugins'); choose another")
    folder, module = out / f"tag-plugins-{name}", f"tag_plugins_{name.replace('-', '_')}"
    values = {"name": name, "module": module, "requires": _same_minor(installed_version("tag-core"))}
    try:
        folder.mkdir(parents=True)
        for template in TEMPLATES.rglob("*.tmpl"):
            target = folder / str(template.relative_to(TEMPLATES).with_suffix("")).replace("MODULE", module)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(Template(template.read_text("utf-8")).substitute(values), "utf-8")
    except FileExistsError:
        raise UserError(f"{folder} exists already; remove it, or choose another name or --out") from None
    except OSError as error:
        raise UserError(f"{folder} cannot be written: {error.strerror}") from error
    return folder


def _same_minor(version: str) -> str:
    """``>=0.1,<0.2`` for 0.1.3."""
    major, minor = f"{version}.0".split(".")[:2]
    return f">={major}.{minor},<{major}.{int(minor) + 1}"
