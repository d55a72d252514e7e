"""The data of figures, prepared once and drawn by two renderers (`page` for browsers, `paper` for papers).

This module needs no plotting library. Arrays are one-dimensional unless stated otherwise; NaN breaks a line.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Values = npt.NDArray[np.float64]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")
"""Colours that readers with any colour vision can tell apart (Okabe and Ito 2008, without the yellow)."""
ACCENT, GREY, WRONG = PALETTE[0], "#8A8F98", PALETTE[1]
DIVERGING = ("#2166AC", "#92C5DE", "#FFFFFF", "#F4A582", "#B2182B")
"""Colours of a scale from negative over 0 to positive, evenly spaced."""


@dataclass(frozen=True)
class Axis:
    """An axis; `ticks` are pairs (position, name) that replace numbers."""

    title: str = ""
    log: bool = False
    range: tuple[float, float] | None = None
    ticks: Sequence[tuple[float, str]] | None = None
    shown: bool = True
    grid: bool = False
    """Draw a line at each of `ticks`."""


@dataclass(frozen=True, eq=False)
class Line:
    """A line; `steps` holds each value until the next one, `filled` fills the area down to 0."""

    x: Array
    y: Array
    name: str = ""
    colour: str = ACCENT
    width: float = 1.5
    opacity: float = 1.0
    steps: bool = False
    filled: bool = False


@dataclass(frozen=True, eq=False)
class Band:
    """The area between two lines."""

    x: Array
    low: Array
    high: Array
    name: str = ""
    colour: str = ACCENT


@dataclass(frozen=True, eq=False)
class Points:
    """Points in one colour, or coloured by `values` from dark to light; `scale` is the title of that colour scale."""

    x: Array
    y: Array
    name: str = ""
    colour: str = ACCENT
    values: Array | None = None
    scale: str = ""
    labels: Sequence[str] | None = None
    """The text shown for each point."""
    size: float = 5.0
    many: bool = False
    """Draw them on the GPU if there is one."""
    reach: Array | None = None
    """Half the length of an error bar along x, for points in one colour."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Box plots at `places`; `spreads` [n, 5] are the percentiles 5, 25, 50, 75 and 95."""

    places: Array
    spreads: Array
    name: str = ""
    colour: str = ACCENT
    width: float = 0.6


@dataclass(frozen=True, eq=False)
class Heat:
    """A heat map of a matrix [rows, columns], from `low` to `high`, row 0 on top; NaN is empty."""

    z: Array
    columns: Sequence[str]
    rows: Sequence[str]
    low: float
    high: float
    diverging: bool = True
    scale: str = ""
    """The title of the colour bar; "" shows none."""
    labels: Sequence[Sequence[str]] | None = None
    """The text shown for each cell, [rows][columns]."""


@dataclass(frozen=True, eq=False)
class Arrows:
    """Arrows; `ends` [n, 4] are x and y of the tail and of the head."""

    ends: Array
    colour: str = GREY


@dataclass(frozen=True, eq=False)
class Texts:
    """Words at positions, on white if `boxed`; `labels` are the full texts."""

    x: Array
    y: Array
    words: Sequence[str]
    labels: Sequence[str] | None = None
    size: float = 10.0
    boxed: bool = False
    colour: str = "#1F2328"


Series = Line | Band | Points | Boxes | Heat | Arrows | Texts


@dataclass(frozen=True, eq=False)
class Chart:
    """A chart with one pair of axes."""

    title: str
    series: Sequence[Series]
    x: Axis = Axis()
    y: Axis = Axis()
    height: int = 340
    """The height on the page, in pixels."""
    equal: bool = False
    """Draw one unit equally long on both axes."""
    legend: bool = True
    share: float = 1.0
    """The share of the width of the page that the chart takes."""


@dataclass(frozen=True, eq=False)
class Figure:
    """Charts shown together under one title."""

    name: str
    """The name in file names and options."""
    title: str
    text: str
    """The caption."""
    charts: dict[str, tuple[Chart, ...]] = field(default_factory=dict)
    """The charts by choice; a single entry if there is no choice."""
    choice: str = ""
    """The label of the choice."""
    bound: float | None = None
    """The heat maps of all charts have the colours of `DIVERGING` from -bound to bound, and share a colour bar."""


def whole_axis(title: str, low: float, high: float) -> Axis:
    """Return an axis whose ticks are whole numbers, about five of them."""
    step = max(1, int(_nice((high - low) / 5)))
    places = range(math.ceil(low / step) * step, int(high) + 1, step)
    return Axis(title, ticks=[(float(k), f"{k:,}") for k in places], grid=True)


def log_axis(title: str, low: float, high: float) -> Axis:
    """Return a logarithmic axis with about eight names: powers of ten, or where these are few 2 and 5 times them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    times, every = ((1,), -(-(last - first) // 8)) if last - first > 3 else ((1, 2, 5), 1)
    places = [(k, power) for power in range(first, last + 1, every) for k in times]
    ticks = [(k * 10.0**power, _power(k, power)) for k, power in places if low <= k * 10.0**power <= high]
    return Axis(title, log=True, ticks=ticks or None, grid=True)


def _nice(number: float) -> float:
    """Return the least of 1, 2 and 5 times a power of ten that is not below the number."""
    power = 10.0 ** math.floor(math.log10(max(number, 1e-300)))
    return next(k * power for k in (1, 2, 5, 10) if k * power >= number * (1 - 1e-9))


def _power(times: int, power: int) -> str:
    if -3 <= power <= 4:
        return f"{times * 10**power:,}" if power >= 0 else f"{times * 10.0**power:.{-power}f}"
    return ("" if times == 1 else f"{times}·") + "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def spread_over(count: int, most: int) -> npt.NDArray[np.int64]:
    """Return at most `most` of the positions 0 ... count - 1, evenly spread and always the same."""
    kept = min(count, most)
    return np.arange(kept, dtype=np.int64) * count // max(kept, 1)


def evenly(names: Sequence[str], most: int) -> list[str]:
    """Return at most `most` of the names, evenly spread and always the same."""
    return [names[k] for k in spread_over(len(names), most)]


def broken(paths: Sequence[Array]) -> Array:
    """Join paths [n, 2] into one line, with NaN between them."""
    return np.concatenate([np.append(path, [[np.nan, np.nan]], axis=0) for path in paths])


def shown_of(total: int, most: int) -> str:
    """Return a sentence on the tasks shown, if there are more than `most`."""
    return "" if total <= most else f" Shown are {most} of the {total:,} tasks, evenly spread."
