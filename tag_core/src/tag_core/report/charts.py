"""Learning curves as plain geometry, for the template to draw, and numbers as people read them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeGuard

WIDTH, HEIGHT, MAX_POINTS = 480, 220, 400
Point = tuple[float, float]
_SHARE = re.compile(r"top\d+|rank\d+|(.*_)?(acc(uracy)?|map|ap|recall|precision|f1)(_.*)?", re.IGNORECASE)


class Curve(NamedTuple):
    """``points`` are in pixels, ``last`` and ``best`` are [step, value]."""

    name: str
    points: list[Point]
    last: Point
    best: Point | None


class Chart(NamedTuple):
    """Curves with common axes; a tick is its place in pixels and its text."""

    title: str
    curves: list[Curve]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]


def charts(rows: Iterable[Mapping[str, Any]]) -> list[Chart]:
    """One chart for the losses, one for the scores that are shares, one for each other column."""
    groups: dict[str, dict[str, list[Point]]] = {"Loss": {}, "Scores": {}}
    for row in rows:
        for name, value in row.items():
            if name not in ("epoch", "step") and finite(value):
                groups.setdefault(_title(name), {}).setdefault(name, []).append((float(row["step"]), float(value)))
    if "train_loss" in groups["Loss"]:
        groups["Loss"].pop("epoch_loss", None)  # the same curve, coarser
    order = sorted(groups, key=lambda title: title == "Learning rate")
    return [_chart(title, groups[title]) for title in order if groups[title]]


def ticks(low: float, high: float, count: int = 6) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, from at most ``low`` to at least ``high``."""
    size = max(abs(low), abs(high))
    if high - low <= max(1e-6 * size, 1e-99):  # a flat line
        margin = (size if size > 1e-90 else 1.0) / 10
        low, high = low - margin, high + margin
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def thinned(points: list[Point]) -> list[Point]:
    """At most MAX_POINTS points, each the mean of its neighbours."""
    size = math.ceil(len(points) / MAX_POINTS)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in part) / len(part), sum(y for _, y in part) / len(part)) for part in parts]


def readable(name: str) -> str:
    """``top1`` as 'top-1 accuracy', ``val_loss`` as 'val loss'."""
    return "learning rate" if name == "lr" else re.sub(r"^top(\d+)$", r"top-\1 accuracy", name).replace("_", " ")


def value_text(value: Any, name: str = "") -> str:
    """A score for people: what is a share by its name in percent, others with four digits."""
    if not finite(value) or (_SHARE.fullmatch(name) and 0 <= value <= 1):
        return percent(value)
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def percent(share: Any) -> str:
    return f"{100 * share:.1f} %" if finite(share) else "n/a"


def finite(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _title(name: str) -> str:
    share = _SHARE.fullmatch(name)
    return "Learning rate" if name == "lr" else "Loss" if "loss" in name else "Scores" if share else readable(name)


def _chart(title: str, columns: Mapping[str, list[Point]]) -> Chart:
    drawn = {name: thinned(points) for name, points in columns.items()}
    places, values = zip(*(point for points in drawn.values() for point in points), strict=True)
    steps = max(1.0, *places)
    levels = ticks(0.0 if 0 <= min(values) < max(values) / 2 else min(values), max(values))

    def place(x: float, y: float) -> Point:
        return round(x / steps * WIDTH, 1), round((levels[-1] - y) / (levels[-1] - levels[0]) * HEIGHT, 1)

    choose, curves = {"Loss": min, "Scores": max}.get(title), []
    for name, points in columns.items():
        best = choose(points, key=lambda point: point[1]) if choose else None
        curves.append(Curve(name, [place(*point) for point in drawn[name]], points[-1], best))
    x_ticks = [(place(x, 0)[0], f"{x:,.0f}") for x in ticks(0, steps) if x <= steps and x == int(x)]
    y_ticks = [(place(0, y)[1], value_text(y, next(iter(columns))).replace(".0 %", " %")) for y in levels]
    return Chart(title, curves, x_ticks, y_ticks)
