"""Which installed packages claim a namespace, read straight from their ``.dist-info`` folders.

``importlib.metadata`` says the same (a test compares the two), but importing it takes as long as half of
``tag-run --help``, and a single malformed ``entry_points.txt`` anywhere in the environment stops it.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

GROUP = "tag.plugins"
CORE = re.compile(r"tag[-_.]core(?![-_.\w])", re.IGNORECASE)
PLAIN = re.compile(r"tag[-_.]core((?:(?:>=|<)\d+(?:\.\d+){0,2},?)*)", re.IGNORECASE)


class Claim(NamedTuple):
    """One line of a package's entry points, ``name = module``, and what the package requires."""

    name: str
    module: str
    package: str
    version: str
    requires: tuple[str, ...] = ()


def find_claims(paths: Sequence[str] | None = None) -> list[Claim]:
    """Every claim of the group, in the order of ``sys.path``; a package found twice counts once."""
    claims: list[Claim] = []
    for info in _info_folders(tuple(sys.path if paths is None else paths)).values():
        text = _read(f"{info}/entry_points.txt")
        if GROUP in text:
            claims += [Claim(name, module, *read_metadata(info)) for name, module in _section(text)]
    return claims


def misfit(requires: Sequence[str]) -> str | None:
    """Why a package with these requirements does not fit the running tag-core; None if it fits."""
    mine = installed_version("tag-core")
    for text in requires:
        if CORE.match(text) and not _plainly_fits(text, mine):
            from packaging.requirements import Requirement  # slow to import, rarely needed

            wanted = Requirement(text)
            applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
            if applies and not wanted.specifier.contains(mine, prereleases=True):
                return f"needs tag-core {wanted.specifier}, this is tag-core {mine}; upgrade one of them"
    return None


def installed_version(package: str) -> str:
    """The version of an installed package; "0" where it runs without being installed."""
    info = _info_folders(tuple(sys.path)).get(canonical(package))
    return read_metadata(info)[1] if info else "0"


def canonical(name: str) -> str:
    """A package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _plainly_fits(requirement: str, version: str) -> bool:
    """True where it is plain to see, as for ``tag-core>=0.1,<0.2`` and 0.1.3; False decides nothing."""
    parts = PLAIN.fullmatch(requirement.replace(" ", ""))
    if not (parts and PLAIN.fullmatch(f"tag-core<{version}")):
        return False
    have, bounds = _release(version), re.findall(r"(>=|<)([\d.]+)", parts[1])
    return all(have >= _release(bound) if sign == ">=" else have < _release(bound) for sign, bound in bounds)


def _release(version: str) -> list[int]:
    return [int(number) for number in f"{version}.0.0".split(".")[:3]]


def read_metadata(info: str) -> tuple[str, str, tuple[str, ...]]:
    """(name, version, requirements) of a package; the folder's name fills in for a missing file."""
    headers: dict[str, list[str]] = {}
    for line in (_read(f"{info}/METADATA") or _read(f"{info}/PKG-INFO")).partition("\n\n")[0].splitlines():
        key, _, value = line.partition(":")
        headers.setdefault(key, []).append(value.strip())
    name, version = headers.get("Name", [_name(os.path.basename(info))])[0], headers.get("Version", [""])[0]
    return name, version, tuple(headers.get("Requires-Dist", ()))


@cache
def _info_folders(paths: tuple[str, ...]) -> dict[str, str]:
    """Canonical name -> .dist-info or .egg-info folder; the first on the path wins."""
    found: dict[str, str] = {}
    for folder in paths:
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:  # a zip file, or nothing there
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                found.setdefault(_name(name), f"{folder or '.'}/{name}")
    return found


def _name(info: str) -> str:
    """``My.Pkg-1.0.dist-info`` -> ``my-pkg``."""
    return canonical(info.rpartition(".")[0].partition("-")[0])


def _section(text: str) -> Iterator[tuple[str, str]]:
    inside = False
    for line in (line.strip() for line in text.splitlines()):
        if line.startswith("["):
            inside = line == f"[{GROUP}]"
        elif inside and line and not line.startswith(("#", ";")):
            name, _, value = line.partition("=")
            yield name.strip(), value.strip()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
