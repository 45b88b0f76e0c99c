"""Text tables for terminals."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence


def columns(rows: Sequence[Sequence[str]], indent: int = 0) -> str:
    """Aligned columns; the last one is wrapped to the terminal."""
    if not rows:
        return " " * indent + "(none)"
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    left = indent + sum(widths) + 2 * len(widths)
    room = max(shutil.get_terminal_size((100, 24)).columns - left, 30)
    lines = []
    for row in rows:
        head = " " * indent + "".join(f"{cell:<{width}}  " for cell, width in zip(row, widths, strict=False))
        wrapped = textwrap.wrap(row[-1], room, break_on_hyphens=False) or [""]
        lines += [(head + wrapped[0]).rstrip(), *(" " * left + line for line in wrapped[1:])]
    return "\n".join(lines)


def plural(kind: str) -> str:
    """``loss`` -> ``losses``; ``index`` -> ``indexes``."""
    return kind + ("es" if kind.endswith(("s", "x")) else "s")
