"""``tag-run doctor``."""

from __future__ import annotations

import importlib
import importlib.util
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click

from tag_core.cli.plugins import notes
from tag_core.cli.tables import columns
from tag_core.plugins import installed

OPTIONAL = {
    "decord": "a second video reader",
    "pyarrow": "the parquet sink",
    "tensorboard": "TensorBoard files",
}


@click.command()
def doctor() -> int:
    """Check this installation: plugins, libraries, devices, room on the disk. Exits 2 on a fault."""
    rows = [("python", platform.python_version(), "")]
    faults = 0
    for package in ("tag-core", "torch", "torchvision", "av", "torchmetrics"):
        text, fault = _library(package)
        rows.append((package, text, fault))
        faults += bool(fault)
    for package, use in OPTIONAL.items():
        here = importlib.util.find_spec(package) is not None
        rows.append((package, _version(package) if here else "not installed", f"optional: {use}"))
    rows.append(("devices", _devices(), ""))
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    rows.append(("disk here", f"{free:.1f} GiB free", "nearly full" if free < 1 else ""))
    for record in installed().records:
        remarks = [record.reason] if record.status == "failed" else notes(record)
        rows.append((f"plugin {record.name}", f"{record.origin}, {record.status}", "; ".join(remarks)))
        faults += bool(remarks)
    click.echo(columns(rows))
    click.echo(f"{faults} fault{'s' if faults != 1 else ''} found" if faults else "all is well", err=True)
    return 2 if faults else 0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _library(package: str) -> tuple[str, str]:
    module = package.replace("-", "_")
    if importlib.util.find_spec(module) is None:
        return "not installed", "" if package == "torchvision" else "missing; reinstall tag-core"
    try:
        importlib.import_module(module)
    except Exception as error:
        return _version(package), f"cannot be imported: {error}"
    return _version(package), ""


def _devices() -> str:
    try:
        import torch

        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return ", ".join(names) or f"CPU, {torch.get_num_threads()} threads"
    except Exception as error:
        return f"unknown ({error})"
