"""Charts for Plotly: traces and a layout of plain values, with arrays as typed arrays in base64.

All texts from a dataset are escaped, because Plotly interprets tags in texts.
"""

import base64
import html
from functools import singledispatch
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymlds.report.charts import DIVERGING as COLOURS
from tinymlds.report.charts import Arrows, Axis, Band, Boxes, Chart, Heat, Line, Points, Series, Texts

Trace = dict[str, Any]

FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"
_TOP = {"y": 1, "yref": "container", "yanchor": "top", "pad": {"t": 6}}
LAYOUT: dict[str, Any] = {
    "font": {"family": FONT, "size": 12},
    "margin": {"l": 56, "r": 12, "t": 34, "b": 48},
    "hovermode": "closest",
    "legend": {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "itemsizing": "constant"},
    "title": {"font": {"size": 13}, "x": 0, "xref": "paper", **_TOP},
    "dragmode": "pan",
}
"""The layout of all charts; the page merges it with that of each chart, and adds the colours of its own text and ground."""
AXIS = {"automargin": True, "zeroline": False, "ticks": "outside", "ticklen": 4}
"""The settings of all axes."""
SEQUENTIAL = "Cividis"
DIVERGING = [[k / 4, colour] for k, colour in enumerate(COLOURS)]


def figure(chart: Chart) -> dict[str, Any]:
    """Return {"data": traces, "layout": additions to `LAYOUT`} for a chart."""
    data = [trace for series in chart.series for trace in traces(series)]
    heat = any(isinstance(series, Heat) for series in chart.series)
    layout: dict[str, Any] = {"height": chart.height, "xaxis": _axis(chart.x, heat), "yaxis": _axis(chart.y, heat)}
    layout["showlegend"] = chart.legend and not heat and any(trace.get("showlegend") for trace in data)
    if chart.share < 1 and chart.title:
        layout["title"] = {"text": escape(chart.title)}
    layout["margin"] = {"t": 60} if layout["showlegend"] else {}
    if not chart.x.shown:
        layout["margin"] |= {"l": 4, "r": 4, "b": 4}
    if heat:
        layout["yaxis"]["autorange"] = "reversed"
    if chart.equal:
        layout["yaxis"] |= {"scaleanchor": "x", "constrain": "domain"}
        layout["xaxis"]["constrain"] = "domain"
    if any(isinstance(series, Boxes) for series in chart.series):
        layout["boxmode"] = "overlay"
    if annotations := [note for series in chart.series for note in _annotations(series)]:
        layout["annotations"] = annotations
    return {"data": data, "layout": layout}


def escape(text: str) -> str:
    """Escape a text so that Plotly finds no tags in it."""
    return html.escape(text, quote=False)


def _escape_all(texts: Any) -> list[str]:
    return [escape(text) for text in texts]


def typed(array: npt.ArrayLike) -> dict[str, Any]:
    """Encode an array of numbers as float32 in the form that Plotly.js reads."""
    values = np.ascontiguousarray(array, "<f4")
    spec: dict[str, Any] = {"dtype": "f4", "bdata": base64.b64encode(values.tobytes()).decode()}
    if values.ndim > 1:
        spec["shape"] = ", ".join(map(str, values.shape))
    return spec


def _axis(axis: Axis, heat: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"title": {"text": escape(axis.title)}, "showgrid": not heat}
    if axis.log:
        result |= {"type": "log", "exponentformat": "power"}
    if axis.range is not None:
        result["range"] = list(axis.range)
    if axis.ticks is not None:
        result |= {"tickvals": [place for place, _ in axis.ticks], "ticktext": _escape_all(name for _, name in axis.ticks)}
        result |= {} if axis.grid else {"showgrid": False, "ticks": ""}
    if not axis.shown:
        result["visible"] = False
    return result


@singledispatch
def traces(_: Series) -> list[Trace]:
    """Return the traces of a series; arrows have none, see `_annotations`."""
    return []


@traces.register
def _line(line: Line) -> list[Trace]:
    trace: Trace = {
        "type": "scatter",
        "mode": "lines",
        "x": typed(line.x),
        "y": typed(line.y),
        "line": {"color": line.colour, "width": line.width, "shape": "hv" if line.steps else "linear"},
        "opacity": line.opacity,
        **_named(line.name),
    }
    if line.filled:
        trace |= {"fill": "tozeroy", "fillcolor": _faint(line.colour)}
    if not line.name:
        trace["hoverinfo"] = "skip"
    return [trace]


@traces.register
def _band(band: Band) -> list[Trace]:
    edge = {"type": "scatter", "mode": "lines", "x": typed(band.x), "line": {"width": 0}, "showlegend": False}
    edge |= {"hoverinfo": "skip", "legendgroup": escape(band.name)}
    fill = {"y": typed(band.high), "fill": "tonexty", "fillcolor": _faint(band.colour)}
    return [edge | {"y": typed(band.low)}, edge | fill]


@traces.register
def _points(points: Points) -> list[Trace]:
    marker: dict[str, Any] = {"color": points.colour, "size": points.size, "opacity": 0.75 if points.many else 1.0}
    if points.values is not None:
        marker |= {"color": typed(points.values), "colorscale": SEQUENTIAL, "showscale": True}
        marker["colorbar"] = _colour_bar(points.scale)
    trace: Trace = {"type": "scattergl" if points.many else "scatter", "mode": "markers", "marker": marker}
    trace |= {"x": typed(points.x), "y": typed(points.y), **_named(points.name)}
    if points.reach is not None:
        trace["error_x"] = {"type": "data", "array": typed(points.reach), "thickness": 1.5, "width": 3}
    if points.labels is None:
        return [trace | {"hoverinfo": "skip"}]
    return [trace | {"text": _escape_all(points.labels), "hovertemplate": "%{text}<extra></extra>"}]


@traces.register
def _boxes(boxes: Boxes) -> list[Trace]:
    low, lower, middle, upper, high = boxes.spreads.T
    trace: Trace = {"type": "box", "x": typed(boxes.places), "lowerfence": typed(low), "q1": typed(lower)}
    trace |= {"median": typed(middle), "q3": typed(upper), "upperfence": typed(high), "width": boxes.width}
    trace |= {"line": {"color": boxes.colour, "width": 1.4}, "fillcolor": _faint(boxes.colour), **_named(boxes.name)}
    return [trace]


@traces.register
def _heat(heat: Heat) -> list[Trace]:
    trace: Trace = {"type": "heatmap", "z": typed(heat.z), "zmin": heat.low, "zmax": heat.high, "xgap": 0, "ygap": 0}
    trace |= {"showscale": bool(heat.scale), "colorscale": DIVERGING if heat.diverging else SEQUENTIAL}
    if heat.scale:
        trace["colorbar"] = _colour_bar(heat.scale)
    if heat.labels is None:
        names = {"meta": {"columns": _escape_all(heat.columns), "rows": _escape_all(heat.rows)}}
        return [trace | {"hovertemplate": "%{text}: %{z:.4g}<extra></extra>", **names}]
    gaps = {"xgap": 2, "ygap": 2, "text": [_escape_all(row) for row in heat.labels]}
    return [trace | gaps | {"hovertemplate": "%{text}<extra></extra>", "hoverongaps": False}]


@traces.register
def _texts(texts: Texts) -> list[Trace]:
    if texts.labels is None:
        return []
    hidden = {"type": "scatter", "mode": "markers", "marker": {"opacity": 0, "size": 14}, "showlegend": False}
    where = {"x": typed(texts.x), "y": typed(texts.y), "text": _escape_all(texts.labels)}
    return [hidden | where | {"hovertemplate": "%{text}<extra></extra>"}]


def _annotations(series: Series) -> list[dict[str, Any]]:
    if isinstance(series, Arrows):
        look = {"showarrow": True, "arrowhead": 2, "arrowsize": 1.1, "arrowwidth": 1.2, "arrowcolor": series.colour}
        refs = {"axref": "x", "ayref": "y", "text": ""}
        return [{"ax": a, "ay": b, "x": c, "y": d, **refs, **look} for a, b, c, d in series.ends.round(4).tolist()]
    if isinstance(series, Texts):
        font = {"size": series.size, "color": series.colour}
        ground = {"bgcolor": "#FFFFFF", "borderpad": 1} if series.boxed else {}
        placed = zip(series.x.round(4).tolist(), series.y.round(4).tolist(), series.words, strict=True)
        return [
            {"x": x, "y": y, "text": "<br>".join(_escape_all(word.split("\n"))), "showarrow": False, "font": font, **ground}
            for x, y, word in placed
        ]
    return []


def _named(name: str) -> dict[str, Any]:
    return {"name": escape(name), "showlegend": bool(name), "legendgroup": escape(name)}


def _colour_bar(title: str) -> dict[str, Any]:
    return {"title": {"text": escape(title), "side": "right"}, "thickness": 12, "outlinewidth": 0}


def _faint(colour: str) -> str:
    """Return a colour of the form #RRGGBB made mostly transparent."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.18)"
