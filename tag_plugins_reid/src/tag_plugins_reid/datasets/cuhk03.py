"""CUHK03 by its split files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from typing import Any, Literal

from tag_core.errors import UserError
from tag_core.kinds import Transform
from tag_plugins_reid.datasets.base import PictureDataset, Row, present, read_json

Part = Literal["train", "query", "gallery"]
Listed = list[tuple[str, str, str]]


class CUHK03(PictureDataset):
    """CUHK03 by a split file: torchreid's splits JSON, classic or new, or the new protocol's configuration ``.mat``.

    The pictures lie as torchreid extracts them from cuhk-03.mat, in ``images_detected`` and ``images_labeled`` with
    names like ``1_001_1_01.png``; the archive cuhk-03.mat itself is not read. CUHK03-NP, which has folders as
    Market-1501, is for ``reid/market`` with ``pattern=cuhk03-np``.

    Args:
        source: splits_*.json, or cuhk03_new_protocol_config_*.mat.
        split: 'train', or 'test' for the queries and the gallery.
        split_id: which one of the JSON's splits; the classic protocol has 20.
        root: folder with images_detected and images_labeled; default: the split file's.
        labelled: False takes pictures, folders or patterns without identities.
        classes: identities in index order; default: those of the split, sorted.
        transforms: applied in order to uint8 [3, H, W].
    """

    def __init__(
        self,
        source: str | list[str],
        split: Literal["train", "test"] = "train",
        split_id: int = 0,
        root: str | None = None,
        labelled: bool = True,
        classes: list[str] | None = None,
        transforms: list[Transform] = [],  # noqa: B006 (read only; a list is what recipes show)
    ) -> None:
        read = partial(read_split, split_id=split_id, root=root)
        parts: list[Part] = ["train", "gallery"] if split == "train" else ["query", "gallery"]
        readers = [partial(read, part=part) for part in parts]
        super().__init__(source, source if split == "test" else None, labelled, classes, transforms, *readers)


def read_split(file: str, part: Part, split_id: int, root: str | None) -> list[Row]:
    """The rows of a part of a split.

    Raises:
        UserError: the file is missing, no such split file, or none of its pictures is there.
    """
    folder = os.path.dirname(file) if root is None else root
    listed = _from_mat(file, part) if file.endswith(".mat") else _from_json(file, part, split_id)
    return present([Row(os.path.join(folder, path), identity, camera) for path, identity, camera in listed], file)


def _from_json(file: str, part: Part, split_id: int) -> Listed:
    """``[[path, identity, camera], ...]`` of the part; of the paths, which are of another machine, the last folder."""
    splits = read_json(file)
    splits = splits if isinstance(splits, list) else [splits]
    if not 0 <= split_id < len(splits):
        raise UserError(f"{file}: it has {len(splits)} splits, numbered from 0; split_id is {split_id}")
    rows = splits[split_id].get(part) if isinstance(splits[split_id], dict) else None
    if not (isinstance(rows, list) and rows):
        raise UserError(f"{file}: no list under {part!r}; expected [{{'train': [[path, identity, camera], ...], ...}}]")
    listed = []
    for number, row in enumerate(rows):
        if not (isinstance(row, list) and len(row) >= 3 and isinstance(row[0], str) and row[0]):
            raise UserError(f"{file}: {part}, entry {number}: expected [path, identity, camera], got {str(row)[:60]}")
        listed.append(("/".join(row[0].replace("\\", "/").split("/")[-2:]), str(row[1]), str(row[2])))
    return listed


def _from_mat(file: str, part: Part) -> Listed:
    """The new protocol's configuration: file names, identities, and which are in the part, counted from 1."""
    config = _load_mat(file)
    names, labels, chosen = config["filelist"], config["labels"], config[f"{part}_idx"]
    if len(names) != len(labels) or not chosen or min(chosen) < 1 or max(chosen) > len(names):
        raise UserError(f"{file}: {part}_idx does not fit {len(names)} names and {len(labels)} labels")
    folder = "images_labeled" if "labeled" in os.path.basename(file) else "images_detected"
    listed = []
    for name, label in ((names[index - 1], labels[index - 1]) for index in chosen):
        fields = name.split("_")
        if len(fields) != 4:
            raise UserError(f"{file}: {name[:60]!r} is no name of a picture like 1_001_1_01.png")
        listed.append((f"{folder}/{name}", str(label), fields[2]))
    return listed


_READ_MAT = """
import json, sys
import numpy as np
from scipy.io import loadmat
found = loadmat(sys.argv[1])
names = ("labels", "train_idx", "query_idx", "gallery_idx")
config = {name: np.ravel(found[name]).astype(int).tolist() for name in names}
config["filelist"] = [str(np.ravel(name)[0]) for name in np.ravel(found["filelist"])]
json.dump(config, sys.stdout)
"""


def _load_mat(file: str) -> dict[str, Any]:
    """Numbers and names of the file, read in a process of its own: scipy crashes on some damaged files."""
    if not os.path.isfile(file):
        raise UserError(f"{file}: no such file")
    done = subprocess.run([sys.executable, "-c", _READ_MAT, os.path.abspath(file)], capture_output=True, text=True)
    if done.returncode == 0:
        return json.loads(done.stdout)  # type: ignore[no-any-return]
    reason = (done.stderr.strip().splitlines() or [""])[-1]
    if reason.startswith("NotImplementedError"):
        raise UserError(f"{file}: MATLAB 7.3, as cuhk-03.mat is; name cuhk03_new_protocol_config_*.mat")
    raise UserError(f"{file}: not CUHK03's configuration of the new protocol, or damaged ({reason})")
