"""``tag-run``: one command, its sub-commands imported only when they are called."""

from __future__ import annotations

import importlib
import os
import sys
from itertools import islice
from typing import TYPE_CHECKING

import click

from tag_core.cli.tables import terminal_width
from tag_core.errors import PluginError, TagError

if TYPE_CHECKING:
    from tag_core.catalog import Entry

COMMANDS = {
    "list": ("tag_core.cli.list:list_command", "Components that are installed, by kind."),
    "show": ("tag_core.cli.show:show", "One component or recipe: options, origin, paper, an example."),
    "plugins": ("tag_core.cli.plugins:plugins", "Plugins that were found, and what is wrong with broken ones."),
    "recipes": ("tag_core.cli.list:recipes", "Recipes that are installed."),
    "doctor": ("tag_core.cli.plugins:doctor", "Check this installation."),
    "check": ("tag_core.cli.run:check", "Resolve and build a recipe, run two batches, write nothing."),
    "train": ("tag_core.cli.run:train", "Train a recipe."),
    "eval": ("tag_core.cli.run:evaluate", "Score a recipe's weights on its test data."),
    "predict": ("tag_core.cli.run:predict", "Predict on files, folders and patterns."),
    "export": ("tag_core.cli.export:export", "Write a model as ONNX, compared with PyTorch."),
    "new-plugin": ("tag_core.cli.new_plugin:new_plugin", "Write a plugin package whose contract test passes."),
}


class LazyGroup(click.Group):
    """A group that knows its sub-commands' names and summaries without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS, *sorted(_plugin_commands())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in COMMANDS:
            module, _, attribute = COMMANDS[cmd_name][0].partition(":")
            command = getattr(importlib.import_module(module), attribute)
        elif entry := _plugin_commands().get(cmd_name):
            command = entry.load()
        else:
            return None
        if not isinstance(command, click.Command):
            raise PluginError(f"command {cmd_name}: {command!r} is no click command; the plugin needs repair")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, summary) for name, (_, summary) in COMMANDS.items()]
        rows += [(name, entry.item.summary) for name, entry in sorted(_plugin_commands().items())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugin_commands() -> dict[str, Entry]:
    """By name; where several plugins have a command of one name, each by its full name, ``plugin/name``."""
    from tag_core.catalog import catalog

    found = [entry for entry in catalog().entries["command"].values() if entry.item.name not in COMMANDS]
    names = [entry.item.name for entry in found]
    return {entry.item.name if names.count(entry.item.name) == 1 else entry.name: entry for entry in found}


def _add_plugins(ctx: click.Context, option: click.Parameter, plugins: tuple[str, ...]) -> None:
    """Eager, because click looks a sub-command up before it runs the group; child processes add them too."""
    before = [source for source in os.environ.get("TAG_PLUGINS", "").split(os.pathsep) if source]
    if plugins:
        os.environ["TAG_PLUGINS"] = os.pathsep.join(dict.fromkeys([*before, *plugins]))


SETTINGS = {"help_option_names": ["-h", "--help"], "terminal_width": min(terminal_width(80), 100)}


@click.group(cls=LazyGroup, context_settings=SETTINGS)
@click.version_option(package_name="tag-core", prog_name="tag-run")
@click.option(
    "--plugin",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=_add_plugins,
    metavar="FILE|MODULE",
    help="Add a plugin that is not installed.",
)
@click.option("--traceback", is_flag=True, help="Show the traceback of an error.")
def cli(traceback: bool) -> None:
    """Train, evaluate and predict with models for videos and images.

    A RECIPE is a name ('tag-run recipes'), a TOML file, or the folder of an earlier run; options are
    set with key=value, such as optimizer.lr=0.01.

    Exit codes: 0 done, 1 failed, 2 something you can put right, 3 some inputs were unreadable,
    130 interrupted.
    """


def run() -> None:
    """The entry point: run and exit."""
    if launcher := os.environ.pop("TAG_LAUNCHED", ""):
        from tag_core.engine.interrupt import end_with

        end_with(int(launcher))
    # Read once, when torch is imported: its threads sleep while they wait, and leave the cores to reading workers.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    sys.exit(main(sys.argv[1:]))


def main(arguments: list[str]) -> int:
    """Run ``tag-run`` with these arguments; returns the exit code."""
    arguments = _global_options_first(arguments)
    show_traceback = "--traceback" in arguments
    colour = False if os.environ.get("NO_COLOR") else None
    try:
        result = cli.main(arguments, prog_name="tag-run", standalone_mode=False, color=colour)
        return result if isinstance(result, int) else 0
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except TagError as error:
        if show_traceback:
            raise
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _global_options_first(arguments: list[str]) -> list[str]:
    """``--plugin X`` and ``--traceback`` are understood anywhere on the line."""
    first, rest, waiting = list[str](), list[str](), iter(arguments)
    for argument in waiting:
        is_global = argument in ("--plugin", "--traceback") or argument.startswith("--plugin=")
        (first if is_global else rest).append(argument)
        if argument == "--plugin":
            first += islice(waiting, 1)
    return first + rest


if __name__ == "__main__":
    run()
