"""What a picture shows, in numbers: prepared once, and drawn by two renderers (`page` for browsers, `figures` for papers).

Nothing here knows of a plotting library. Arrays are one-dimensional if nothing else is said; NaN breaks a line.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#4D4D4D")
"""Colours that people with any colour vision can tell apart (Okabe and Ito 2008, without the yellow)."""
ACCENT, GREY, WRONG = PALETTE[0], "#8A8F98", PALETTE[1]


@dataclass(frozen=True)
class Axis:
    """An axis; `ticks` are (position, name) where the numbers would say nothing."""

    title: str = ""
    log: bool = False
    range: tuple[float, float] | None = None
    ticks: Sequence[tuple[float, str]] | None = None
    shown: bool = True


@dataclass(frozen=True, eq=False)
class Line:
    """A line; `steps` holds each value until the next, `filled` down to 0."""

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
    """Points in one colour, or, with `values`, on a scale from dark to light that `scale` names."""

    x: Array
    y: Array
    name: str = ""
    colour: str = ACCENT
    values: Array | None = None
    scale: str = ""
    labels: Sequence[str] | None = None
    """What each point is."""
    size: float = 5.0
    many: bool = False
    """To be drawn by the GPU where there is one."""
    reach: Array | None = None
    """Half of the length of a bar through each point, along x; for points in one colour."""


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes and whiskers; `spreads` [n, 5] are the percentiles 5, 25, 50, 75 and 95, `places` where they stand."""

    places: Array
    spreads: Array
    labels: Sequence[str]
    name: str = ""
    colour: str = ACCENT
    width: float = 0.6


@dataclass(frozen=True, eq=False)
class Heat:
    """A matrix [rows, columns] as colours from `low` to `high`, row 0 on top; NaN is empty."""

    z: Array
    columns: Sequence[str]
    rows: Sequence[str]
    low: float
    high: float
    diverging: bool = True
    scale: str = ""
    """What the colours mean; shows a bar of them."""
    labels: Sequence[Sequence[str]] | None = None
    """[rows][columns]: what each cell is."""


@dataclass(frozen=True, eq=False)
class Arrows:
    """Arrowheads: `ends` [n, 4] are x and y of the tail and of the head."""

    ends: Array
    colour: str = GREY


@dataclass(frozen=True, eq=False)
class Texts:
    """Words at places, with a white ground if `boxed`; `labels` are what each stands for in full."""

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
    """One pair of axes."""

    title: str
    series: Sequence[Series]
    x: Axis = Axis()
    y: Axis = Axis()
    height: int = 340
    """Pixels on the page."""
    equal: bool = False
    """One unit is as long on both axes."""
    legend: bool = True
    share: float = 1.0
    """Share of the page's width that it asks for."""


@dataclass(frozen=True, eq=False)
class Figure:
    """Charts that belong together."""

    name: str
    """For files and options."""
    title: str
    text: str
    """What is seen, in sentences."""
    charts: dict[str, tuple[Chart, ...]] = field(default_factory=dict)
    """By what can be chosen: one entry if there is nothing to choose."""
    choice: str = ""
    """What is chosen."""


def spread_over(count: int, most: int) -> npt.NDArray[np.int64]:
    """At most `most` of the places 0 ... count - 1, evenly spread and always the same."""
    kept = min(count, most)
    return np.arange(kept, dtype=np.int64) * count // max(kept, 1)
