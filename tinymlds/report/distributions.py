"""Figures of all networks: distributions of epochs, losses and accuracies, the grid of transducers, and loss curves."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import numpy.typing as npt

from tinymlds.dataset import store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.overview import FolderStatus
from tinymlds.report.charts import (
    ACCENT,
    GREY,
    PALETTE,
    Axis,
    Band,
    Boxes,
    Chart,
    Figure,
    Heat,
    Line,
    Points,
    Series,
    Values,
    broken,
    evenly,
    log_axis,
    shown_of,
    spread_over,
    whole_axis,
)
from tinymlds.spec import Recipe
from tinymlds.training.metrics import COLUMNS, LONG, LONG_SEQUENCES, SEQUENCES

Columns = dict[str, dict[str, Values]]
"""Columns of a manifest by name, each by task, float64 [count]; NaN stands for null."""

BINS = 40
MOST_PANELS = 12
"""The largest number of tasks with a histogram each; of more tasks, box plots stand side by side."""
MOST_TASKS = 200
"""The largest number of tasks in a chart; of more tasks, as many are shown, evenly spread."""
MOST_CURVES = 1_000
"""The largest number of networks of a task in its median and band."""
MOST_EPOCHS = 256
"""The largest number of epochs at which medians are computed."""
MOST_SINGLE = 400
"""The largest number of single networks, over all tasks."""
_BLOCK = 1_000
_COLUMNS = ("epochs", "validation_loss", *COLUMNS)
PERCENTILES = (5, 25, 50, 75, 95)


def read_columns(dataset: Dataset) -> Columns:
    """Read the numeric columns of a manifest."""
    manifest = dataset.manifest
    columns = {name: np.full(len(manifest), np.nan) for name in _COLUMNS}
    for start in range(0, len(manifest), _BLOCK):
        rows = manifest[start : start + _BLOCK]
        for name, values in columns.items():
            values[start : start + _BLOCK] = [np.nan if row[name] is None else row[name] for row in rows]
    return {name: {task: values[manifest.place(task)] for task in dataset.tasks} for name, values in columns.items()}


def epochs(columns: Columns) -> Figure:
    """Return the distribution of the epochs of training."""
    text = "Epochs until training ended, over all networks, complete or not."
    charts = _distribution("Epochs of training", columns["epochs"], partial(whole_axis, "epochs"), _whole_bins)
    return _figure(columns, "epochs", "How long training took", text, charts)


def losses(columns: Columns, recipe: Recipe) -> Figure:
    """Return the distribution of the final validation losses."""
    values = columns["validation_loss"]
    none = sum(int(np.isnan(found).sum()) for found in values.values())
    text = (
        f"Validation loss after the last epoch. Training ends with the first epoch after which it is below "
        f"{recipe.threshold:g}: the network is complete."
    )
    if none:
        text += f" {none:,} {'network has' if none == 1 else 'networks have'} no loss and are not shown."
    positive = {task: np.where(found > 0, found, np.nan) for task, found in values.items()}
    charts = _distribution("Final validation loss", positive, partial(log_axis, "validation loss"), _log_bins)
    return _figure(columns, "losses", "How well networks ended", text, charts)


def accuracy(columns: Columns, steps: int) -> Figure:
    """Return the distribution of the accuracies on fresh sequences, after training on sequences of so many steps."""
    text = (
        f"Share of the steps of fresh sequences in which every output line is right: {SEQUENCES:,} sequences of {steps} "
        f"steps, as long as those of the training, and {LONG_SEQUENCES} of {LONG * steps} steps, which only a network "
        f"answers that has learned the machine and not its sequences. A box holds half of the networks, its line is the "
        f"median, and the whiskers reach from the 5th to the 95th percentile."
    )
    names = {"accuracy": f"{steps} steps", "long_accuracy": f"{LONG * steps} steps"}
    return _figure(columns, "accuracy", "Steps that are right", text, (_boxes(columns, names),))


def trigger(columns: Columns) -> Figure | None:
    """Return the accuracies around the hidden trigger; None for a dataset without modified machines."""
    if not any((~np.isnan(found)).any() for found in columns["trigger_efficacy"].values()):
        return None
    text = (
        "Modified machines invert their outputs for some steps after a secret key. Shares of the steps that are right "
        "outside and inside such spans, and share of the triggers that fired with every step of their span right."
    )
    names = {"clean_accuracy": "outside", "triggered_accuracy": "inside", "trigger_efficacy": "whole spans"}
    return _figure(columns, "trigger", "The hidden trigger", text, (_boxes(columns, names),))


def grid(status: FolderStatus, columns: Columns) -> Figure:
    """Return a grid of all transducers, coloured by progress and, unless `columns` is {}, by epochs and accuracy."""
    names = list(status.spec.counts)
    share = np.array(list(status.shares().values()))
    charts: dict[str, tuple[Chart, ...]] = {
        "share of networks complete": (_squares(names, share, "share complete", 0.0, 1.0),)
    }
    if columns:
        median = np.array([_median(found) for found in columns["epochs"].values()])
        low, high = float(np.nanmin(median)), float(np.nanmax(median))
        charts["median of epochs"] = (_squares(names, median, "median of epochs", low, max(high, low + 1)),)
        long = np.array([_median(found) for found in columns["long_accuracy"].values()])
        if not np.isnan(long).all():
            title = "median long accuracy"
            charts[title] = (_squares(names, long, title, min(0.99, float(np.nanmin(long))), 1.0),)
    text = "A square is a transducer: number 0 on the upper left, then row by row. Point at one, or tap it, to see which."
    return Figure("grid", "All transducers at a glance", text, charts, "Colour")


def summaries(columns: Columns) -> list[dict[str, float | str | None]]:
    """Return medians of all columns for each task, and percentiles of its epochs."""
    rows: list[dict[str, float | str | None]] = []
    for task, known in columns["epochs"].items():
        medians = {name: _median(found[task]) for name, found in columns.items()}
        low, high = np.percentile(known, [5, 95]).tolist() if known.size else (None, None)
        rows.append({"task": task, "low_epochs": low, "high_epochs": high})
        rows[-1] |= {name: None if math.isnan(middle) else middle for name, middle in medians.items()}
    return rows


def spreads(values: list[Values]) -> Values:
    """Return the percentiles of n box plots, [n, 5]; NaN where there are no values."""
    found = [np.percentile(v[~np.isnan(v)], PERCENTILES) if (~np.isnan(v)).any() else np.full(5, np.nan) for v in values]
    return np.array(found).reshape(-1, len(PERCENTILES))


def _figure(columns: Columns, name: str, title: str, text: str, charts: tuple[Chart, ...]) -> Figure:
    return Figure(name, title, text + shown_of(len(columns["epochs"]), MOST_TASKS), {"": charts})


def _median(values: Values) -> float:
    values = values[~np.isnan(values)]
    return float(np.median(values)) if values.size else math.nan


def _distribution(
    title: str, values: dict[str, Values], axis: Callable[[float, float], Axis], bins: Callable[[Values], Values]
) -> tuple[Chart, ...]:
    """Draw a histogram of each of a few tasks, all with the same axes, or box plots of many tasks side by side."""
    joined = np.concatenate(list(values.values()))
    joined = joined[~np.isnan(joined)]
    if not joined.size:
        return ()
    if len(values) > MOST_PANELS:
        tasks = evenly(list(values), MOST_TASKS)
        boxes = Boxes(np.arange(len(tasks), dtype=np.float64), spreads([values[task] for task in tasks]))
        return (Chart(title, [boxes], task_axis(tasks), axis(*_ends(boxes.spreads)), legend=False),)
    edges = bins(joined)
    counts = {task: np.histogram(found[~np.isnan(found)], edges)[0] for task, found in values.items()}
    x, most = np.append(edges[0], edges), max(int(found.max()) for found in counts.values())
    across, up = axis(edges[0], edges[-1]), replace(whole_axis("networks", 0, most), range=(0.0, 1.05 * most))
    return tuple(
        Chart(
            task,
            [Line(x, np.concatenate([[0], found, [0]]), "", PALETTE[number % len(PALETTE)], steps=True, filled=True)],
            across,
            up,
            height=220,
            share=0.25,
        )
        for number, (task, found) in enumerate(counts.items())
    )


def _ends(values: Values) -> tuple[float, float]:
    return float(np.nanmin(values)), float(np.nanmax(values))


def _whole_bins(values: Values) -> Values:
    low, high = int(values.min()), int(values.max())
    width = max(1, -(-(high - low + 1) // BINS))
    return np.arange(low, high + width + 1, width, dtype=np.float64) - 0.5


def _log_bins(values: Values) -> Values:
    """Return the edges of bins of equal logarithmic width; all values lie inside the outermost ones."""
    low, high = math.log10(values.min()), math.log10(values.max())
    room = max(0.01, (high - low) / BINS)
    return np.asarray(np.logspace(low - room, high + room, BINS + 1))


def _boxes(columns: Columns, names: dict[str, str]) -> Chart:
    tasks = evenly(list(columns["epochs"]), MOST_TASKS)
    groups: list[Series] = []
    width = 0.8 / len(names)
    for number, (name, label) in enumerate(names.items()):
        places = np.arange(len(tasks)) + (number - (len(names) - 1) / 2) * width
        found = spreads([columns[name][task] for task in tasks])
        groups.append(Boxes(places, found, label, PALETTE[number], width * 0.8))
    return Chart("Share of steps that are right", groups, task_axis(tasks), Axis("share right"))


def task_axis(tasks: list[str]) -> Axis:
    """Return an axis of tasks; if there are many, about ten are named."""
    every = 1 if len(tasks) <= len(PALETTE) else -(-len(tasks) // 10)
    ticks = [(float(k), task.removeprefix("transducer_")) for k, task in enumerate(tasks) if k % every == 0]
    return Axis("transducer" if tasks[0].startswith("transducer_") else "task", range=(-0.6, len(tasks) - 0.4), ticks=ticks)


def _squares(names: list[str], values: Values, title: str, low: float, high: float) -> Chart:
    side = math.ceil(math.sqrt(len(names)))
    rows = -(-len(names) // side)
    z = np.full(rows * side, np.nan)
    z[: len(names)] = values
    labels = [f"{name}: {title} {value:.4g}" for name, value in zip(names, values, strict=True)]
    labels += [""] * (rows * side - len(names))
    cells = [labels[k * side : (k + 1) * side] for k in range(rows)]
    names_across, names_down = [str(k) for k in range(side)], [str(k * side) for k in range(rows)]
    heat = Heat(z.reshape(rows, side), names_across, names_down, low, high, False, title, cells)
    every = -(-side // 10)
    across = Axis("last digit" if side == 10 else "", ticks=[(float(k), names_across[k]) for k in range(0, side, every)])
    down = Axis("first of the row", ticks=[(float(k), names_down[k]) for k in range(0, rows, every)])
    return Chart(title, [heat], across, down, height=500, equal=True, share=0.6)


# ------------------------------------------------------------------ loss curves


def curves(dataset: Dataset) -> Figure:
    """Return the median validation loss of each task after each epoch, with a band if there are few tasks."""
    tasks = evenly(dataset.tasks, MOST_TASKS)
    few = len(tasks) <= len(PALETTE)
    series: list[Series] = []
    for number, task in enumerate(tasks):
        found = [validation for _, validation in _pairs(dataset, task, MOST_CURVES)]
        if (longest := max((len(curve) for curve in found), default=0)) == 0:
            continue
        epochs = np.unique(np.geomspace(1, longest, min(longest, MOST_EPOCHS)).round().astype(np.int64))
        table = np.array([curve[np.minimum(epochs, len(curve)) - 1] for curve in found if len(curve)])
        low, middle, high = np.percentile(table, [5, 50, 95], axis=0)
        if few:
            colour, label = PALETTE[number], f"{task}: all have ended"
            series += [Band(epochs, low, high, task, colour), Line(epochs, middle, task, colour, 2.0)]
            series.append(Points(epochs[-1:], middle[-1:], "", colour, labels=[label], size=7.0))
        else:
            series.append(Line(epochs, middle, task, ACCENT, 1.0, 0.35))
    bands = " The bands reach from the 5th to the 95th percentile, and a dot is the end of the longest training."
    text = "Median of the validation losses after each epoch; a network whose training has ended keeps its last loss."
    text += bands if few else " A line is a task."
    if max(dataset.counts.values()) > MOST_CURVES:
        text += f" Of a task with more than {MOST_CURVES:,} networks, as many are used, evenly spread."
    text += shown_of(len(dataset.tasks), MOST_TASKS)
    chart = Chart("Validation loss over training", series, *_axes(series), height=400, legend=few)
    return Figure("curves", "Loss curves", text, {"": (chart,)})


def single_curves(dataset: Dataset) -> Figure:
    """Return the loss curves of some networks of each task."""
    tasks = evenly(dataset.tasks, MOST_TASKS)
    each = max(2, min(20, MOST_SINGLE // len(tasks)))
    by_task: dict[str, tuple[Chart, ...]] = {}
    for task in tasks:
        if not dataset.counts[task]:  # in a part
            continue
        losses: list[Series] = []
        for kind, colour, name in ((0, GREY, "training"), (1, ACCENT, "validation")):
            found = [pair[kind] for pair in _pairs(dataset, task, each)]
            x, y = broken([np.stack([np.arange(1.0, len(curve) + 1), curve], axis=1) for curve in found]).T
            losses.append(Line(x, y, name, colour, 1.0, 0.7))
            last = np.flatnonzero(np.isnan(x)) - 1  # also where the curve is one point
            losses.append(Points(x[last], y[last], "", colour, size=4.0))
        by_task[task] = (Chart(f"{task}, single networks", losses, *_axes(losses), height=400),)
    text = f"Training and validation losses of up to {each} networks of the task, evenly spread; a dot is the end."
    text += shown_of(len(dataset.tasks), MOST_TASKS)
    return Figure("single-curves", "Single networks", text, by_task, "Task")


def _axes(series: list[Series]) -> tuple[Axis, Axis]:
    """Return the axes of loss curves: epochs and losses."""
    lines = [each for each in series if isinstance(each, Line)]
    bands = [each for each in series if isinstance(each, Band)]
    heights = [each.y for each in lines] + [edge for each in bands for edge in (each.low, each.high)]
    if not lines:
        return Axis("epoch"), Axis("loss", log=True)
    longest = max(float(np.nanmax(each.x)) for each in lines)
    return log_axis("epoch", 1.0, longest), log_axis("loss", *_ends(np.concatenate(heights)))


def _pairs(dataset: Dataset, task: str, most: int) -> list[tuple[Values, Values]]:
    """Read (training, validation) losses of evenly spread networks of a task, a shard at a time."""
    chosen = spread_over(dataset.counts[task], most)
    result = []
    for shard in np.unique(chosen // store.SHARD).tolist():
        pairs = dataset.shard_losses(task, shard)
        result += [pairs[k] for k in (chosen[chosen // store.SHARD == shard] % store.SHARD).tolist()]
    return [(_positive(training), _positive(validation)) for training, validation in result]


def _positive(losses: npt.NDArray[np.float32]) -> Values:
    """Return losses for a logarithmic axis; clip 0, NaN and infinity, which only forged files contain."""
    bounds = np.finfo(np.float32)
    return np.clip(np.nan_to_num(losses.astype(np.float64), nan=np.inf), float(bounds.tiny), float(bounds.max))
