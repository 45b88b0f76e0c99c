"""Which installed packages claim a namespace, read straight from their ``.dist-info`` folders.

``importlib.metadata`` says the same (a test compares the two), but importing it takes as long as half of
``tag-run --help``, and a single malformed ``entry_points.txt`` anywhere in the environment stops it.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

GROUP = "tag.plugins"
VALUE = re.compile(r"([\w.]+)\s*(?::\s*([\w.]+)\s*)?(\[.*\]\s*)?")
SIMPLE = re.compile(r"(tag[-_.]core)((?:(?:>=|<)\d+(?:\.\d+)*,?)*)", re.IGNORECASE)


@dataclass(frozen=True)
class Claim:
    """One line of a package's entry points: ``name = module``."""

    name: str
    value: str
    package: str
    version: str
    requires: tuple[str, ...] = ()

    def load(self) -> Any:
        """Import what the entry point names."""
        match = VALUE.fullmatch(self.value)
        if not match:
            raise ValueError(f"the entry point {self.value!r} must read 'package.module'")
        found = importlib.import_module(match[1])
        for attribute in match[2].split(".") if match[2] else ():
            found = getattr(found, attribute)
        return found

    def misfit(self) -> str | None:
        """Why the package does not fit the running tag-core, by its own requirements; None if it fits."""
        mine = installed_version("tag-core")
        for text in self.requires:
            if canonical(text).startswith("tag-core") and not _plainly_fits(text, mine):
                from packaging.requirements import Requirement  # slow to import, rarely needed

                wanted = Requirement(text)
                applies = wanted.marker is None or wanted.marker.evaluate({"extra": ""})
                is_core = canonical(wanted.name) == "tag-core"
                if is_core and applies and not wanted.specifier.contains(mine, prereleases=True):
                    return f"needs tag-core {wanted.specifier}, this is tag-core {mine}; upgrade one of them"
        return None


def find_claims(paths: Sequence[str] | None = None) -> list[Claim]:
    """Every claim of the group, in the order of ``sys.path``; a package found twice counts once."""
    claims: list[Claim] = []
    for info in _info_folders(tuple(sys.path if paths is None else paths)).values():
        text = _read(f"{info}/entry_points.txt")
        if GROUP in text and (lines := list(_section(text))):
            package, version, requires = read_metadata(info)
            claims += [Claim(name, value, package, version, requires) for name, value in lines]
    return claims


def installed_version(package: str) -> str:
    """The version of an installed package; "0" where it runs without being installed."""
    info = _info_folders(tuple(sys.path)).get(canonical(package))
    return read_metadata(info)[1] if info else "0"


def canonical(name: str) -> str:
    """A package name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _plainly_fits(requirement: str, version: str) -> bool:
    """True where it is plain to see, as for ``tag-core>=0.1,<0.2`` and 0.1.3; False decides nothing."""
    parts = SIMPLE.fullmatch(requirement.replace(" ", ""))
    if not (parts and re.fullmatch(r"\d+(\.\d+)*", version)):
        return False
    have, bounds = _release(version), re.findall(r"(>=|<)([\d.]+)", parts[2])
    return all(have >= _release(bound) if sign == ">=" else have < _release(bound) for sign, bound in bounds)


def _release(version: str) -> list[int]:
    numbers = [int(number) for number in version.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return numbers


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
    for folder in dict.fromkeys(path or "." for path in paths):
        try:
            names = sorted(os.listdir(folder))
        except OSError:  # a zip file, or nothing there
            continue
        for name in names:
            if name.endswith((".dist-info", ".egg-info")):
                found.setdefault(_name(name), f"{folder}/{name}")
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
