"""A run's folder: what was run, with what, and what came of it."""

from __future__ import annotations

import json
import logging
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, Self

import tomli_w
import torch

from tag_core.config import Recipe
from tag_core.engine.data import Coverage
from tag_core.errors import RunFolderError
from tag_core.files import write_json, write_text
from tag_core.plugins import installed
from tag_core.records import Record, finite

log = logging.getLogger("tag")


class Run:
    """One train, eval or predict run and its folder.

    Args:
        folder: where its files go.
        kind: ``train``, ``eval`` or ``predict``.
        recipe: resolved.
        main: whether this process writes; on other ranks every writing method does nothing.
    """

    def __init__(self, folder: Path, kind: str, recipe: Recipe, main: bool = True) -> None:
        self.folder, self.kind, self.recipe, self.main = folder, kind, recipe, main
        self._scores = folder / "scores.jsonl"
        self._unreadable = 0

    def __enter__(self) -> Self:
        """Create the folder and describe the run in it.

        Raises:
            RunFolderError: the folder cannot be made or written.
        """
        if not self.main:
            return self
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._handler = logging.FileHandler(self.folder / "log.txt", encoding="utf-8")
        except OSError as error:
            raise RunFolderError(f"{self.folder}: cannot be written: {error.strerror}; choose --out") from error
        self._handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
        log.addHandler(self._handler)
        if log.level == logging.NOTSET:  # called from Python: log.txt gets everything all the same
            log.setLevel(logging.INFO)
        write_text(self.folder / "recipe.toml", tomli_w.dumps(self.recipe.to_dict()))
        write_json(self.folder / "plugins.json", _origins(self.recipe))
        write_json(self.folder / "environment.json", _environment())
        installed().event("tag_run_started", run=self)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Tell the plugins how it ended, and close the log."""
        if self.main:
            outcome = "done" if kind is None else "interrupted" if kind is KeyboardInterrupt else "failed"
            installed().event("tag_run_finished", run=self, outcome=outcome)
            log.removeHandler(self._handler)
            self._handler.close()

    def add_scores(self, row: Mapping[str, Any]) -> None:
        """Append a row to ``scores.jsonl``."""
        if self.main:
            with open(self._scores, "a", encoding="utf-8") as file:
                file.write(json.dumps(finite(row)) + "\n")

    def cut_scores(self, rows: int) -> None:
        """Forget the rows that a killed run wrote after its last checkpoint."""
        if self.main:
            kept = self._scores.read_text("utf-8").splitlines()[:rows] if self._scores.is_file() else []
            write_text(self._scores, "".join(f"{line}\n" for line in kept))

    def write_unreadable(self, coverage: Coverage) -> None:
        """``unreadable.jsonl``: a record for each input that could not be read, or only in part."""
        records = [Record(source=source, error=reason) for source, reason in coverage.unreadable.items()]
        records += [Record(source=source, damage=damage) for source, damage in coverage.damaged.items()]
        if self.main and len(records) > self._unreadable:
            self._unreadable = len(records)
            path = self.folder / "unreadable.jsonl"
            write_text(path, "".join(f"{record.to_json()}\n" for record in records))
            log.info("%d inputs cannot be read, or only in part; see %s", len(records), path)


def check_folder(folder: Path, kind: str) -> None:
    """Whether a run of this kind may write here, before anything is done for it.

    Raises:
        RunFolderError: another training is in it, or files that are not a run's.
    """
    names = {path.name for path in folder.iterdir() if path.name[0] != "."} if folder.is_dir() else set()
    if kind != "train" and "checkpoints" in names:
        raise RunFolderError(
            f"{folder}: it is the folder of a training, which is not written over; choose another --out"
        )
    if names and names.isdisjoint(("recipe.toml", "predictions", "predictions.jsonl", "log.txt")):
        raise RunFolderError(f"{folder}: it holds other files, such as {min(names)}; choose another --out")


def default_folder(kind: str, name: str) -> Path:
    """``runs/<recipe>-<kind>-<time>``, in the current directory."""
    stem = Path(name).stem if name.endswith(".toml") else Path(name).name
    return Path("runs") / f"{stem}-{kind}-{time.strftime('%Y%m%d-%H%M%S')}"


def _origins(recipe: Recipe) -> list[dict[str, str]]:
    """Where each component of the recipe came from."""
    return [
        {
            "kind": entry.kind,
            "name": entry.name,
            "target": entry.component.target,
            "package": entry.plugin.package,
            "version": entry.plugin.version,
        }
        for entry in {(spec.entry.kind, spec.entry.name): spec.entry for spec in recipe.specs()}.values()
    ]


def _environment() -> dict[str, Any]:
    """What the numbers depend on: versions, platform, command."""
    wanted = ("torch", "torchvision", "numpy", "av", "timm", "torchmetrics", "pydantic")
    versions = {d.name: d.version for d in distributions() if d.name in wanted or d.name.startswith("tag-")}
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": dict(sorted(versions.items())),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
