"""What commands print: text tables, or JSON."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click

json_option = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


def terminal_width(otherwise: int) -> int:
    """Of standard output, where it is a terminal; as shutil would say, which is slow to import."""
    try:
        return os.get_terminal_size().columns
    except OSError:
        return otherwise


def columns(rows: Sequence[Sequence[str]], indent: int = 0) -> str:
    """Aligned columns; on a terminal the last one is wrapped."""
    if not rows:
        return " " * indent + "(none)"
    widths = [max(map(len, column)) for column in list(zip(*rows, strict=True))[:-1]]
    left = indent + sum(widths) + 2 * len(widths)
    room = max(terminal_width(1_000_000), left + 30)
    wrap = textwrap.TextWrapper(room, subsequent_indent=" " * left, break_on_hyphens=False, break_long_words=False)
    lines = []
    for *cells, last in rows:
        head = "".join(f"{cell:<{width}}  " for cell, width in zip(cells, widths, strict=True))
        wrap.initial_indent = " " * indent + head
        lines += wrap.wrap(last) or [wrap.initial_indent.rstrip()]
    return "\n".join(lines)


def values(named: Mapping[str, Any]) -> str:
    """A table of names and values."""
    return columns([(name, f"{x:.4f}" if isinstance(x, float) else str(x)) for name, x in named.items()])
