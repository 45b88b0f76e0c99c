"""``manifest.json``: what an index is, and which files make it up."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from tag_core.errors import UserError
from tag_core.files import write_json

NAME = "manifest.json"
VERSION = 1
Metric = Literal["cosine", "euclidean"]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Written last, and in one rename: it decides which index the folder holds.

    Args:
        dimension: of the vectors.
        metric: cosine (vectors are kept at unit length) or euclidean.
        index: the component, ``name`` and all its options.
        auto: whether the component was chosen by the number of entries.
        embedding: how the vectors were made; ``fingerprint`` tells embeddings of different models apart.
        count: entries in the files, removed ones among them; 0 for an index kept in a database.
        removed: entries that are removed.
        generation: counts the writes; part of the files' names.
        files: role -> {name, bytes, sha256}; none for an index kept in a database.
        folder: where the index was built: what relative sources of its entries are relative to.
        version: of this layout.
    """

    dimension: int
    metric: Metric
    index: Mapping[str, Any]
    auto: bool = False
    embedding: Mapping[str, Any] = field(default_factory=dict)
    count: int = 0
    removed: int = 0
    generation: int = 0
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    folder: str = ""
    version: int = VERSION

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises UserError: no index there, a damaged manifest, or one of a newer version."""
        path = folder / NAME
        try:
            data = {"folder": ""} | json.loads(path.read_text("utf-8"))
            version = data["version"]
            known = {name: data[name] for name in (f.name for f in fields(cls))} if version == VERSION else {}
        except (FileNotFoundError, NotADirectoryError):
            found, hint = "no index there", "make one with 'tag-run search build'"
            if any(folder.glob("payload-*.jsonl")):
                found, hint = "no index there yet: a build is not finished", "if it was killed, build again over it"
            raise UserError(f"{folder}: {found} ({NAME} is missing); {hint}") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: damaged ({error}); build the index again") from error
        if not known:
            raise UserError(f"{folder}: an index of version {version}, this is {VERSION}; upgrade tag-plugins-search")
        return cls(**known)

    def write(self, folder: Path) -> None:
        """Raises RunFolderError."""
        write_json(folder / NAME, asdict(self))
