"""Loss curves: the median and band of each task, and curves of single networks."""

import numpy as np
import numpy.typing as npt

from tinymlds.dataset import store
from tinymlds.dataset.dataset import Dataset
from tinymlds.report import charts
from tinymlds.report.charts import ACCENT, GREY, PALETTE, Axis, Band, Chart, Figure, Line, Points, Series, Values

MOST_TASKS = 200
MOST_NETWORKS = 1_000
"""The largest number of networks of a task in its median and band."""
MOST_EPOCHS = 256
"""The largest number of epochs at which medians are computed."""
MOST_SINGLE = 400
"""The largest number of single networks, over all tasks."""
_EPOCHS, _LOSS = Axis("epoch", log=True), Axis("loss", log=True)


def curves(dataset: Dataset) -> Figure:
    """Return the median validation loss of each task after each epoch, with a band if there are few tasks."""
    tasks = charts.evenly(dataset.tasks, MOST_TASKS)
    few = len(tasks) <= len(PALETTE)
    series: list[Series] = []
    for number, task in enumerate(tasks):
        found = [validation for _, validation in _pairs(dataset, task, MOST_NETWORKS)]
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
    if max(dataset.counts.values()) > MOST_NETWORKS:
        text += f" Of a task with more than {MOST_NETWORKS:,} networks, as many are used, evenly spread."
    text += charts.shown_of(len(dataset.tasks), MOST_TASKS)
    chart = Chart("Validation loss over training", series, _EPOCHS, _LOSS, height=400, legend=few)
    return Figure("curves", "Loss curves", text, {"": (chart,)})


def single_curves(dataset: Dataset) -> Figure:
    """Return the loss curves of some networks of each task."""
    tasks = charts.evenly(dataset.tasks, MOST_TASKS)
    each = max(2, min(20, MOST_SINGLE // len(tasks)))
    by_task: dict[str, tuple[Chart, ...]] = {}
    for task in tasks:
        if not dataset.counts[task]:  # in a part
            continue
        losses: list[Series] = []
        for kind, colour, name in ((0, GREY, "training"), (1, ACCENT, "validation")):
            found = [pair[kind] for pair in _pairs(dataset, task, each)]
            x, y = charts.broken([np.stack([np.arange(1.0, len(curve) + 1), curve], axis=1) for curve in found]).T
            losses.append(Line(x, y, name, colour, 1.0, 0.7))
            last = np.flatnonzero(np.isnan(x)) - 1  # also where the curve is one point
            losses.append(Points(x[last], y[last], "", colour, size=4.0))
        by_task[task] = (Chart(f"{task}, single networks", losses, _EPOCHS, _LOSS, height=400),)
    text = f"Training and validation losses of up to {each} networks of the task, evenly spread; a dot is the end."
    text += charts.shown_of(len(dataset.tasks), MOST_TASKS)
    return Figure("single-curves", "Single networks", text, by_task, "Task")


def _pairs(dataset: Dataset, task: str, most: int) -> list[tuple[Values, Values]]:
    """Read (training, validation) losses of evenly spread networks of a task, a shard at a time."""
    chosen = charts.spread_over(dataset.counts[task], most)
    result = []
    for shard in np.unique(chosen // store.SHARD).tolist():
        pairs = dataset.shard_losses(task, shard)
        result += [pairs[k] for k in (chosen[chosen // store.SHARD == shard] % store.SHARD).tolist()]
    return [(_positive(training), _positive(validation)) for training, validation in result]


def _positive(losses: npt.NDArray[np.float32]) -> Values:
    """Return losses for a logarithmic axis; clip 0, NaN and infinity, which only forged files contain."""
    bounds = np.finfo(np.float32)
    return np.clip(np.nan_to_num(losses.astype(np.float64), nan=np.inf), float(bounds.tiny), float(bounds.max))
