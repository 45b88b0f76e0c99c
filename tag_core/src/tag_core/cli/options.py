"""What the commands that run recipes share."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from tag_core.recipe import KEY

F = TypeVar("F", bound=Callable[..., Any])
TABLES = ("task", "data", "optimizer", "schedule", "train", "eval", "distribution", "metrics", "sinks", "weights")

recipe_argument = click.argument("recipe")
overrides_argument = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
out_option = click.option("--out", type=click.Path(), help="Run folder; a new one under runs/ by default.")
strict_option = click.option("--strict", is_flag=True, help="Stop at the first unreadable input.")
procs_option = click.option("--procs", type=click.IntRange(1), default=1, help="Processes, one per GPU or CPU share.")
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """(key=value overrides, everything else); a path may contain '=' too."""
    overrides: list[str] = []
    others: list[str] = []
    for argument in arguments:
        key = argument.partition("=")[0]
        is_override = "=" in argument and KEY.fullmatch(key) and key.partition(".")[0] in TABLES
        (overrides if is_override else others).append(argument)
    return overrides, others


def check_early(recipe: str, overrides: Sequence[str]) -> None:
    """Read the recipe before torch is imported: a wrong name or key is told at once."""
    from tag_core.recipe import read_tree

    read_tree(recipe, overrides)


def talk() -> None:
    """Send the run's messages to standard error."""
    logger = logging.getLogger("tag")
    logger.setLevel(logging.INFO if int(os.environ.get("RANK", "0")) == 0 else logging.WARNING)
    logger.propagate = False
    if not any(type(handler) is logging.StreamHandler for handler in logger.handlers):
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


def is_main() -> bool:
    return int(os.environ.get("RANK", "0")) == 0
