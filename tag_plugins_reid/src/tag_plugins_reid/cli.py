"""The plugin's sub-commands: ``tag-run reid ...``."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("reid")
def reid() -> None:
    """Tools for retrieval models."""


@reid.command("import-params")
@click.argument("params", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), metavar="OUT.toml")
def import_params(params: Path, out: Path) -> None:
    """Turn a PARAMS.json of pytorch-reid into a recipe, OUT.toml.

    Keys that it leaves out have that program's defaults. Each key that has no effect, or that a recipe cannot hold, is
    told with the reason.
    """
    from tag_core.config import resolve
    from tag_core.errors import UserError
    from tag_core.files import write_text
    from tag_plugins_reid.params import read_params

    tables, remarks = read_params(params)
    resolve(tables, needs=())
    if out.exists():
        raise UserError(f"{out}: is there already; give another name, or remove it")
    import tomli_w

    write_text(out, f"# From {params.name} of pytorch-reid.\n{tomli_w.dumps(tables)}")
    for key, why in remarks.items():
        click.echo(f"{key}: {why}", err=True)
    click.echo(out)
