"""Charts as PNG or SVG for papers, drawn by Matplotlib from the same data as the page."""

from functools import singledispatch
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullLocator

from tinymlds.errors import refusing
from tinymlds.report.charts import DIVERGING, Arrows, Axis, Band, Boxes, Chart, Figure, Heat, Line, Points, Series, Texts

_WIDTH = 9.0
"""The width of a picture, in inches."""
_PIXELS = 100
"""Pixels of the page for each inch of a picture."""
_LETTERS = 80
"""Letters of tick names that fit below axes as wide as the picture; longer names are turned."""
_INSIDE = 4
"""The largest number of entries of a legend inside the axes."""
_DIVERGING = LinearSegmentedColormap.from_list("diverging", DIVERGING)
_STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.hashsalt": "tinymlds",
    "svg.fonttype": "none",
}
_METADATA: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
"""Metadata without dates and versions, so that equal pictures have equal bytes."""


def save(figure: Figure, folder: Path, form: str) -> list[Path]:
    """Write a figure as NAME.png or NAME.svg, or as NAME-CHOICE for each choice, and return the paths."""
    paths = []
    for choice, charts in figure.charts.items():
        name = f"{figure.name}-{choice.replace(' ', '-')}" if choice else figure.name
        path = folder / f"{name}.{form}"
        with matplotlib.rc_context(_STYLE), refusing(f"write {path}"):
            canvas = _draw(charts, figure.bound)
            folder.mkdir(parents=True, exist_ok=True)
            canvas.savefig(path, format=form, dpi=150, metadata=_METADATA[form])
        paths.append(path)
    return paths


def _draw(charts: tuple[Chart, ...], bound: float | None) -> Canvas:
    across = min(len(charts), round(1 / charts[0].share))
    down = -(-len(charts) // across)
    heights = [max(chart.height for chart in charts[k * across : (k + 1) * across]) / _PIXELS for k in range(down)]
    canvas = Canvas(figsize=(_WIDTH, sum(heights) + 0.3), layout="constrained")
    grid = canvas.add_gridspec(down, across, height_ratios=heights)
    for k, chart in enumerate(charts):
        _chart(canvas.add_subplot(grid[divmod(k, across)]), chart)
    if bound is not None:
        canvas.colorbar(ScalarMappable(Normalize(-bound, bound), _DIVERGING), ax=canvas.axes, shrink=0.5)
    return canvas


def _chart(axes: Axes, chart: Chart) -> None:
    axes.set_title(chart.title, fontsize=9, loc="left")
    for series in chart.series:
        draw(series, axes)
    _axis(axes, chart.x, "x", chart.share)
    _axis(axes, chart.y, "y", chart.share)
    if chart.equal:
        axes.set_aspect("equal")
    if not chart.x.shown:
        axes.set_axis_off()
    if chart.legend and (named := axes.get_legend_handles_labels())[1]:
        many: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)} if len(named[1]) > _INSIDE else {}
        axes.legend(*named, frameon=False, fontsize=8, **many)


def _axis(axes: Axes, axis: Axis, side: str, share: float) -> None:
    axes.set(**{f"{side}label": axis.title})
    if axis.log:
        axes.set(**{f"{side}scale": "log"})
    if axis.range is not None:
        axes.set(**{f"{side}lim": axis.range})
    if axis.ticks is not None:
        axes.set(**{f"{side}ticks": [place for place, _ in axis.ticks]})
        getattr(axes, f"{side}axis").set_minor_locator(NullLocator())
        if axis.grid:
            getattr(axes, f"{side}axis").grid(True, color="#E3E6EA", lw=0.6)
        names = [_plain(name) for _, name in axis.ticks]
        axes.set(**{f"{side}ticklabels": names})
        if side == "x" and sum(map(len, names)) > _LETTERS * share:
            axes.tick_params(axis="x", rotation=60)


def _plain(text: str) -> str:
    """Escape a text so that Matplotlib finds no formula in it."""
    return text.replace("$", r"\$")


@singledispatch
def draw(series: Series, _: Axes) -> None:
    """Draw a series."""
    raise TypeError(f"cannot draw {type(series).__name__}")


@draw.register
def _line(line: Line, axes: Axes) -> None:
    style = "steps-post" if line.steps else "default"
    label = _plain(line.name) or None
    axes.plot(line.x, line.y, color=line.colour, lw=line.width, alpha=line.opacity, drawstyle=style, label=label)
    if line.filled:
        step: Any = "post" if line.steps else None
        axes.fill_between(line.x, line.y, step=step, color=line.colour, alpha=0.18, lw=0)


@draw.register
def _band(band: Band, axes: Axes) -> None:
    axes.fill_between(band.x, band.low, band.high, color=band.colour, alpha=0.18, lw=0)


@draw.register
def _points(points: Points, axes: Axes) -> None:
    area = (points.size * 0.75) ** 2
    alpha, flat = (0.75, True) if points.many else (1.0, False)
    if points.reach is not None:
        axes.errorbar(points.x, points.y, xerr=points.reach, fmt="none", ecolor=points.colour, elinewidth=1.2, capsize=2)
    if points.values is None:
        kinds: dict[str, Any] = {"color": points.colour, "label": _plain(points.name) or None}
        axes.scatter(points.x, points.y, s=area, lw=0, alpha=alpha, rasterized=flat, zorder=3, **kinds)
        return
    drawn = axes.scatter(points.x, points.y, s=area, lw=0, alpha=alpha, rasterized=flat, c=points.values, cmap="cividis")
    axes.figure.colorbar(drawn, ax=axes, label=points.scale)


@draw.register
def _boxes(boxes: Boxes, axes: Axes) -> None:
    keys = ("whislo", "q1", "med", "q3", "whishi")
    kept = ~np.isnan(boxes.spreads[:, 0])
    stats: list[dict[str, Any]] = [dict(zip(keys, row, strict=True)) for row in boxes.spreads[kept].tolist()]
    places: list[float] = boxes.places[kept].tolist()
    lines: Any = {f"{part}props": {"color": boxes.colour} for part in ("box", "median", "whisker", "cap")}
    drawn = axes.bxp(stats, positions=places, widths=boxes.width, showfliers=False, **lines)
    if boxes.name and drawn["boxes"]:
        drawn["boxes"][0].set_label(_plain(boxes.name))


@draw.register
def _heat(heat: Heat, axes: Axes) -> None:
    colours = _DIVERGING if heat.diverging else "cividis"
    drawn = axes.imshow(heat.z, vmin=heat.low, vmax=heat.high, cmap=colours, aspect="auto", interpolation="nearest")
    if heat.scale:
        axes.figure.colorbar(drawn, ax=axes, label=heat.scale)


@draw.register
def _arrows(arrows: Arrows, axes: Axes) -> None:
    for a, b, c, d in arrows.ends:
        axes.annotate("", (c, d), (a, b), arrowprops={"arrowstyle": "-|>", "color": arrows.colour, "lw": 1, "shrinkB": 0})


@draw.register
def _texts(texts: Texts, axes: Axes) -> None:
    ground = {"facecolor": "white", "alpha": 0.85, "lw": 0, "pad": 0.5} if texts.boxed else None
    for x, y, word in zip(texts.x, texts.y, texts.words, strict=True):
        size = texts.size * 0.75
        axes.text(x, y, _plain(word), size=size, color=texts.colour, ha="center", va="center", bbox=ground, zorder=4)
