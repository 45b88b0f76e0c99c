"""``tag-run plugins`` and ``tag-run doctor``: is everything sound?"""

from __future__ import annotations

import importlib
import json
import platform

import click

from tag_core.catalog import Entry, catalog, missing_target
from tag_core.cli.main import COMMANDS
from tag_core.cli.tables import columns, json_option
from tag_core.discovery import installed_version
from tag_core.errors import UserError
from tag_core.plugins import PluginRecord, installed
from tag_core.recipe import parse_toml

REQUIRED = ("tag-core", "torch", "av", "torchmetrics")
OPTIONAL = ("torchvision", "decord", "pyarrow", "tensorboard")


@click.command()
@json_option
def plugins(as_json: bool) -> None:
    """Plugins that were found: working, disabled or set aside, with the reason."""
    table, rows = [], []
    for r in installed().records:
        remarks = notes(r)
        status = "flawed" if r.status == "ok" and remarks else r.status
        table.append((r.name, r.origin, status, "; ".join([r.reason, *remarks] if r.reason else remarks)))
        about = {"name": r.name, "package": r.package, "version": r.version, "status": status, "reason": r.reason}
        rows.append({**about, "notes": remarks})
    click.echo(json.dumps(rows, indent=1) if as_json else columns(table))


@click.command()
@json_option
def doctor(as_json: bool) -> int:
    """Check this installation: plugins, libraries, GPUs. Exits 2 on a fault."""
    rows = [("python", platform.python_version(), "")]
    rows += [_library(package) for package in (*REQUIRED, *OPTIONAL)]
    for record in installed().records:
        faults = [record.reason] if record.status == "failed" else notes(record)
        rows.append((f"plugin {record.name}", f"{record.origin}, {record.status}", "; ".join(faults)))
    found = [dict(zip(("name", "found", "fault"), row, strict=True)) for row in rows]
    click.echo(json.dumps(found, indent=1) if as_json else columns(rows))
    count = sum(bool(fault) for _, _, fault in rows)
    click.echo(f"{count} fault{'s' if count > 1 else ''} found" if count else "all is well", err=True)
    return 2 if count else 0


def notes(record: PluginRecord) -> list[str]:
    """Remarks from loading, and what is registered but not there; told from the files, without importing."""
    entries = [entry for found in catalog().entries.values() for entry in found.values() if entry.plugin is record]
    return [*record.notes, *(flaw for entry in entries if (flaw := _flaw(entry)))]


def _flaw(entry: Entry) -> str | None:
    if entry.kind == "recipe":
        try:
            parse_toml(catalog().recipe_text(entry), entry.name)
        except UserError as error:
            return " ".join(str(error).split())
        return None
    if entry.kind == "command" and entry.item.name in COMMANDS:
        return f"its command {entry.item.name!r} is hidden by tag-run's own"
    problem = missing_target(entry.item.target)
    return problem and f"broken target {problem}"


def _library(package: str) -> tuple[str, str, str]:
    """Its name, version (and the GPUs, of torch), and what is wrong with it."""
    version = installed_version(package)
    if package in OPTIONAL and version == "0":
        return package, "not installed (optional)", ""
    try:
        module = importlib.import_module(package.replace("-", "_"))
        gpus = [module.cuda.get_device_name(i) for i in range(module.cuda.device_count())] if package == "torch" else []
    except Exception as error:
        return package, version, f"cannot be used: {error}"
    return package, ", ".join([version, *gpus]), ""
