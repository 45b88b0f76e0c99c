"""``tag-run check``."""

from __future__ import annotations

import click

from tag_core.cli import options


@click.command()
@options.recipe_argument
@options.overrides_argument
def check(recipe: str, overrides: tuple[str, ...]) -> int:
    """Resolve RECIPE, build everything and run two batches forward and backward; write nothing."""
    options.check_early(recipe, overrides)
    from tag_core import api

    options.talk()
    lines, unreadable = api.check(recipe, list(overrides))
    click.echo("\n".join(lines))
    return 3 if unreadable else 0
