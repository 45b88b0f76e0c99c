"""Learning curves as plain geometry, for the template to draw."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

WIDTH, HEIGHT, MAX_POINTS = 480, 220, 400
Point = tuple[float, float]


class Curve(NamedTuple):
    """``points`` are in pixels, ``last`` is the value at the end."""

    name: str
    points: list[Point]
    last: float


class Chart(NamedTuple):
    """Curves with common axes; a tick is its place in pixels and its text."""

    title: str
    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def charts(rows: Iterable[Mapping[str, Any]]) -> list[Chart]:
    """One chart for all losses, one for each other score."""
    groups: dict[str, dict[str, list[Point]]] = {"loss": {}}
    for row in rows:
        for name, value in row.items():
            if name not in ("epoch", "step") and value is not None:
                curves = groups.setdefault("loss" if "loss" in name else name, {})
                curves.setdefault(name, []).append((row["step"], value))
    return [_chart(title, columns) for title, columns in groups.items() if columns]


def ticks(low: float, high: float) -> list[float]:
    """A few multiples of 1, 2 or 5 times a power of ten, from at most ``low`` to at least ``high``."""
    span = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-99)
    power = 10.0 ** math.floor(math.log10(span))
    step = next(power * part for part in (0.2, 0.5, 1, 2) if span <= power * part * 6)
    first = math.floor(low / step)
    return [i * step for i in range(first, max(math.ceil(high / step), first + 1) + 1)]


def number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:#.4g}"


def _chart(title: str, columns: Mapping[str, list[Point]]) -> Chart:
    steps, values = zip(*(point for points in columns.values() for point in points), strict=True)
    x_ticks, y_ticks = ticks(0, max(steps)), ticks(min(values), max(values))

    def place(x: float, y: float) -> Point:
        down = (y_ticks[-1] - y) / (y_ticks[-1] - y_ticks[0])
        return round(x / x_ticks[-1] * WIDTH, 1), round(down * HEIGHT, 1)

    curves = []
    for name, points in columns.items():
        shown = points[:: math.ceil(len(points) / MAX_POINTS)]
        curves.append(Curve(name, [place(*point) for point in shown], points[-1][1]))
    x_texts = [(place(x, 0)[0], f"{x:,.10g}") for x in x_ticks]
    return Chart(title, curves, x_texts, [(place(0, y)[1], f"{y:,.10g}") for y in y_ticks])
