"""Plots as plain numbers, for a page that draws them as SVG. Pure.

All lengths are in the units of the drawing; the origin is its upper left corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Bar", "Plot", "Tick", "bar_plot", "nice_ticks", "number", "seconds", "time_ticks"]

_HEIGHT = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 14, 12, 30


@dataclass(frozen=True)
class Bar:
    """A bar; `kind` is its CSS class, `title` what a pointer that rests on it shows."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    title: str


@dataclass(frozen=True)
class Tick:
    """A mark on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Plot:
    """A bar plot.

    Attributes:
        bars: those of one column stand upon each other.
        x_ticks, y_ticks: marks below and at the left.
        width, height: of the drawing.
        left, base: where the axes are.
    """

    bars: Sequence[Bar]
    x_ticks: Sequence[Tick]
    y_ticks: Sequence[Tick]
    width: int
    height: int = _HEIGHT
    left: float = _LEFT
    base: float = _HEIGHT - _BOTTOM

    @property
    def right(self) -> float:
        """Where the axes end."""
        return self.width - _RIGHT


def bar_plot(
    columns: Sequence[Sequence[int]], kinds: Sequence[str], upper: float, *, scale: float = 1.0, width: int = 640
) -> Plot:
    """Columns of equal width from 0 to `upper` seconds.

    Args:
        columns: for each, how many there are of each kind; stacked in that order, from below.
        kinds: the CSS classes.
        upper: where the x axis ends, in seconds.
        scale: what a count is multiplied with for the y axis.
        width: of the drawing.
    """
    highest = max((sum(column) for column in columns), default=0) * scale
    y_values = nice_ticks(highest)
    top = y_values[-1] or 1.0
    across, height = width - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    step = across / max(1, len(columns))
    bars = []
    for index, column in enumerate(columns):
        base = float(_HEIGHT - _BOTTOM)
        for kind, count in zip(kinds, column, strict=True):
            if not count:
                continue
            tall = height * count * scale / top
            base -= tall
            low, high = (upper * (index + side) / len(columns) for side in (0, 1))
            title = f"{seconds(low)} to {seconds(high)}: {count} {kind}"
            bars.append(Bar(_LEFT + index * step + 0.5, base, max(1.0, step - 1), tall, kind, title))
    return Plot(
        bars,
        [Tick(_LEFT + across * value / upper, seconds(value)) for value in time_ticks(upper)],
        [Tick(_HEIGHT - _BOTTOM - height * value / top, number(value)) for value in y_values],
        width,
    )


def nice_ticks(upper: float) -> list[float]:
    """Round numbers from 0 on, four to seven of them; the last one is not below `upper`."""
    if not upper > 0 or not math.isfinite(upper):
        return [0.0, 1.0]
    magnitude = 10.0 ** math.floor(math.log10(upper / 4))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if upper / (factor * magnitude) <= 5)
    return [step * index for index in range(math.ceil(upper / step - 1e-9) + 1)]


#: Steps that people count time in, in seconds, from a second on.
_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)


def time_ticks(upper: float) -> list[float]:
    """Round durations from 0 up to `upper` seconds."""
    if upper <= 5:
        return [value for value in nice_ticks(upper) if value <= upper * (1 + 1e-9)]
    step = next((step for step in _TIME_STEPS if upper / step <= 8), 86400.0 * math.ceil(upper / 86400 / 8))
    return [step * index for index in range(math.floor(upper / step) + 1)]


def number(value: float) -> str:
    """A number for people: ``12,340``, ``3.2``, ``0.004``."""
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def seconds(value: float) -> str:
    """A duration for people: ``340 ms``, ``2.4 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if value == 0:
        return "0"
    if value < 1:
        return f"{value * 1000:.3g} ms"
    if value < 60:
        return f"{value:.3g} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min" + (f" {whole % 60} s" if whole % 60 else "")
    minutes = round(value / 60)
    return f"{minutes // 60} h" + (f" {minutes % 60} min" if minutes % 60 else "")
