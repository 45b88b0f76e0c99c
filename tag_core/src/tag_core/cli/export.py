"""``tag-run export``: a model as ONNX."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import click

from tag_core.cli.run import is_override, recipe_argument, start
from tag_core.cli.tables import columns, json_option


@click.command()
@recipe_argument
@click.argument("arguments", nargs=-1, metavar="[KEY=VALUE]... [INPUT]")
@click.option("--out", type=click.Path(), required=True, help="The file, such as model.onnx or model.pt2.")
@click.option("--format", "file_format", type=click.Choice(["onnx", "torch"]), default="onnx", help="torch: .pt2.")
@click.option("--tolerance", type=click.FloatRange(0), default=1e-3, help="Share of an output's largest value.")
@json_option
def export(
    recipe: str,
    arguments: tuple[str, ...],
    out: str,
    file_format: Literal["onnx", "torch"],
    tolerance: float,
    as_json: bool,
) -> None:
    """Write RECIPE's model as a graph that runs without Tag, once it gives what PyTorch gives.

    It is traced with INPUT, or else with made-up data of the shape that data.test gives, and compared at
    another batch size and, where the model allows, another length. How inputs are to be prepared stands in
    the file too. Only embeddings: output=embedding
    """
    inputs = [argument for argument in arguments if not is_override(argument)]
    if len(inputs) > 1:
        raise click.UsageError(f"one INPUT at most, to trace the model with, not {len(inputs)}")
    overrides = [argument for argument in arguments if is_override(argument)]
    if Path(out).exists() and not out.endswith(suffix := {"onnx": ".onnx", "torch": ".pt2"}[file_format]):
        raise click.UsageError(f"--out {out}: is there already, and does not end in {suffix}; choose another file")
    start(recipe, overrides)
    from tag_core import api

    done = api.export(recipe, inputs, overrides, out=out, file_format=file_format, tolerance=tolerance)
    if as_json:
        click.echo(json.dumps({"file": out, **asdict(done)}))
        return
    rows = [("input", name, done.types[name], _axes(axes), "") for name, axes in done.inputs.items()]
    for name, axes in done.outputs.items():
        rows.append(("output", name, done.types[name], _axes(axes), f"differs by {done.differences[name]:.2g} at most"))
    rows += [("least", name, "", str(size), "") for name, size in done.least.items()]
    click.echo(f"{columns(rows)}\n{out}")


def _axes(sizes: list[str | int]) -> str:
    return f"[{', '.join(map(str, sizes))}]"
