"""Loss curves: median and band of each task, and those of single networks."""

import numpy as np
import numpy.typing as npt

from tinymlds.dataset import store
from tinymlds.dataset.dataset import Dataset
from tinymlds.report.charts import ACCENT, GREY, PALETTE, Axis, Band, Chart, Figure, Line, Points, Series, spread_over

Values = npt.NDArray[np.float64]

MOST_TASKS = 200
MOST_NETWORKS = 1_000
"""Networks of a task that its median and band are of."""
MOST_EPOCHS = 256
"""Epochs at which they are computed."""
MOST_SINGLE = 400
"""Curves of single networks."""


def curves(dataset: Dataset) -> Figure:
    """The median of the validation losses of each task, epoch by epoch, and a band for few tasks."""
    tasks = [dataset.tasks[k] for k in spread_over(len(dataset.tasks), MOST_TASKS)]
    few = len(tasks) <= len(PALETTE)
    series: list[Series] = []
    for number, task in enumerate(tasks):
        found = _sampled(dataset, task, MOST_NETWORKS)
        if (longest := max((len(curve) for curve in found), default=0)) == 0:
            continue
        epochs = np.unique(np.geomspace(1, longest, min(longest, MOST_EPOCHS)).round().astype(np.int64))
        table = np.array([curve[np.minimum(epochs, len(curve)) - 1] for curve in found if len(curve)])
        low, middle, high = np.percentile(table, [5, 50, 95], axis=0)
        if few:
            series.append(Band(epochs, low, high, task, PALETTE[number]))
            series.append(Line(epochs, middle, task, PALETTE[number], 2.0))
            series.append(
                Points(epochs[-1:], middle[-1:], "", PALETTE[number], labels=[f"{task}: all have ended"], size=7.0)
            )
        else:
            series.append(Line(epochs, middle, task, ACCENT, 1.0, 0.35))
    text = (
        "Median of the validation losses after each epoch; a network whose training has ended keeps its last loss."
        + (
            " The bands reach from the 5th to the 95th percentile, and a dot is the end of the longest training."
            if few
            else " A line is a task."
        )
        + _note(dataset, max(dataset.counts.values()) > MOST_NETWORKS, len(tasks))
    )
    chart = Chart("Validation loss over training", series, _epochs(), _loss(), height=400, legend=few)
    return Figure("curves", "Loss curves", text, {"": (chart,)})


def single_curves(dataset: Dataset) -> Figure:
    """Curves of some networks of each task."""
    tasks = [dataset.tasks[k] for k in spread_over(len(dataset.tasks), MOST_TASKS)]
    each = max(2, min(20, MOST_SINGLE // len(tasks)))
    charts: dict[str, tuple[Chart, ...]] = {}
    for task in tasks:
        if not dataset.counts[task]:  # in a part
            continue
        losses: list[Series] = []
        for kind, colour, name in ((0, GREY, "training"), (1, ACCENT, "validation")):
            x, y = _joined([pair[kind] for pair in _pairs(dataset, task, each)])
            losses.append(Line(x, y, name, colour, 1.0, 0.7))
            last = np.flatnonzero(np.isnan(x)) - 1  # also where the curve is one point
            losses.append(Points(x[last], y[last], "", colour, size=4.0))
        charts[task] = (Chart(f"{task}, single networks", losses, _epochs(), _loss(), height=400),)
    text = f"Training and validation losses of up to {each} networks of the task, evenly spread; a dot is the end."
    return Figure("single-curves", "Single networks", text + _note(dataset, False, len(tasks)), charts, "Task")


def _note(dataset: Dataset, sampled: bool, tasks: int) -> str:
    text = f" Of a task with more than {MOST_NETWORKS:,} networks, as many are used, evenly spread." if sampled else ""
    if tasks < len(dataset.tasks):
        text += f" Shown are {tasks} of the {len(dataset.tasks):,} tasks, evenly spread."
    return text


def _epochs() -> Axis:
    return Axis("epoch", log=True)


def _loss() -> Axis:
    return Axis("loss", log=True)


def _pairs(dataset: Dataset, task: str, most: int) -> list[tuple[Values, Values]]:
    """(training, validation) losses of networks of a task that are evenly spread, a shard at a time."""
    chosen = spread_over(dataset.counts[task], most)
    result = []
    for shard in np.unique(chosen // store.SHARD).tolist():
        pairs = dataset.shard_losses(task, shard)
        result += [pairs[k] for k in (chosen[chosen // store.SHARD == shard] % store.SHARD).tolist()]
    return [(_positive(training), _positive(validation)) for training, validation in result]


def _sampled(dataset: Dataset, task: str, most: int) -> list[Values]:
    return [validation for _, validation in _pairs(dataset, task, most)]


def _positive(losses: npt.NDArray[np.float32]) -> Values:
    """Losses for a logarithmic axis: 0, NaN and infinity, which only a forged file holds, become what can be shown."""
    bounds = np.finfo(np.float32)
    return np.clip(np.nan_to_num(losses.astype(np.float64), nan=np.inf), float(bounds.tiny), float(bounds.max))


def _joined(losses: list[Values]) -> tuple[Values, Values]:
    """Curves one after another with NaN between them."""
    gap = np.array([np.nan])
    x = [part for curve in losses for part in (np.arange(1.0, len(curve) + 1), gap)]
    y = [part for curve in losses for part in (curve, gap)]
    return np.concatenate(x), np.concatenate(y)
