"""Maps of weight space: networks as points in the plane of their first two principal components."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import params
from tinymlds.architectures.symmetry import canonicalize
from tinymlds.dataset import store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.manifest import SPLITS, Row
from tinymlds.kernels.problem import Floats
from tinymlds.report.charts import ACCENT, PALETTE, Axis, Chart, Figure, Line, Points, Series, Values, broken, spread_over
from tinymlds.report.options import Options
from tinymlds.training.loop import Status

MOST_FITTED = 1_000
"""The largest number of networks from which the components are computed."""
MOST_TRAJECTORIES = 60


@dataclass(frozen=True, eq=False)
class Plane:
    """The first two principal components of weights."""

    mean: Values
    """The mean of the weights, [P]."""
    directions: Values
    """Unit vectors, [P, 2]."""
    shares: tuple[float, float]
    """The shares of the variance that the components explain."""

    def place(self, weights: Floats) -> Values:
        """Return the coordinates [n, 2] of weights [n, P]."""
        return (weights - self.mean) @ self.directions


@dataclass(frozen=True, eq=False)
class WeightMap:
    """Networks placed in the plane."""

    plane: Plane
    rows: list[Row]
    xy: Values
    """The coordinates [n, 2], aligned with `rows`."""
    text: str
    """Sentences on how many networks are shown, and from how many the plane was computed."""


def weight_map(dataset: Dataset, options: Options) -> WeightMap | None:
    """Put the networks of a dataset on a map; return None if fewer than two can be placed."""
    chosen, text = _choose(dataset, options.points)
    if len(chosen) < 2:
        return None
    fitted = spread_over(len(chosen), MOST_FITTED)
    sample = np.concatenate([block for _, block in _read(dataset, chosen[fitted], options)])
    if len(sample) < 2:
        return None
    plane = fit(sample)
    xy = np.full((len(chosen), 2), np.nan)
    for where, block in _read(dataset, chosen, options):
        xy[where] = plane.place(block)
    if len(fitted) < len(chosen):
        text += f" The two directions were computed from {len(fitted):,} of them, evenly spread."
    finite = np.isfinite(xy).all(axis=1)
    if not finite.all():
        text += f" Left out: {int((~finite).sum()):,} with weights that are not finite."
    return WeightMap(plane, dataset.manifest.rows(chosen[finite]), xy[finite], text)


def fit(weights: Floats) -> Plane:
    """Return the plane of weights [n, P], n > 1; the largest entry of each component is positive.

    Principal components are singular vectors of the centred matrix; they are computed as eigenvectors of its product with
    itself on the shorter side.
    """
    mean = weights.mean(axis=0, dtype=np.float64)
    centred = weights - mean
    tall = len(weights) > weights.shape[1]
    values, vectors = np.linalg.eigh(centred.T @ centred if tall else centred @ centred.T)
    largest = vectors[:, :-3:-1] if tall else centred.T @ vectors[:, :-3:-1]
    directions = largest / np.maximum(np.linalg.norm(largest, axis=0), np.finfo(np.float64).tiny)
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(2)])
    first, second = (
        max(float(value), 0.0) / max(float(values.sum()), np.finfo(np.float64).tiny) for value in values[:-3:-1]
    )
    return Plane(mean, directions, (first, second))


def map_figure(dataset: Dataset, found: WeightMap | None, options: Options) -> Figure:
    """Return the map, coloured by task, split or epochs."""
    form = "Weights were put into their canonical form first. " if options.canonical else ""
    text = (
        "Each point is a network; its coordinates are those of its weights along the two directions in which the networks "
        f"differ most (principal components). {form}"
    )
    if found is None:
        return Figure("map", "A map of weight space", text + "It needs two networks or more that did not diverge.")
    labels = [f"{row['task']} {row['index']}, {row['split']}, {row['epochs']} epochs" for row in found.rows]
    numbers = {task: k for k, task in enumerate(dataset.tasks)}
    tasks = np.array([numbers[row["task"]] for row in found.rows])
    splits = np.array([SPLITS.index(row["split"]) for row in found.rows])
    epochs = np.array([row["epochs"] for row in found.rows], np.float64)
    if len(dataset.tasks) <= len(PALETTE):
        by_task = _groups(found.xy, tasks, dataset.tasks, labels)
    else:
        by_task = [_scaled(found.xy, tasks.astype(np.float64), "number of the task", labels)]
    series: dict[str, list[Series]] = {
        "task": by_task,
        "split": _groups(found.xy, splits, SPLITS, labels),
        "epochs": [_scaled(found.xy, epochs, "epochs", labels)],
    }
    frames = [_frame(values) for values in found.xy.T]
    x, y = (
        Axis(f"component {k + 1} ({share:.1%} of the variance)", range=frame)
        for k, (share, frame) in enumerate(zip(found.plane.shares, frames, strict=True))
    )
    text, beyond = text + found.text, ""
    low, high = np.array([frame or (-np.inf, np.inf) for frame in frames]).T
    if count := int(((found.xy < low) | (found.xy > high)).any(axis=1).sum()):
        beyond = f" ({count:,} outside of the frame)"
        text += f" Outside of the frame: {count:,}; a double click on the page shows them too."
    charts: dict[str, tuple[Chart, ...]] = {
        name: (Chart(f"Networks by {name}{beyond}", drawn, x, y, height=560),) for name, drawn in series.items()
    }
    return Figure("map", "A map of weight space", text, charts, "Colour")


def _frame(values: Values) -> tuple[float, float] | None:
    """Return the range of an axis: twice the range of 99 % of the networks, so that outliers do not shrink the others to a
    dot; None if this range would leave out no network."""
    low, high = np.percentile(values, [0.5, 99.5])
    low, high = low - (high - low) / 2, high + (high - low) / 2
    return None if low <= values.min() and values.max() <= high else (float(low), float(high))


def _groups(xy: Values, groups: npt.NDArray[Any], names: tuple[str, ...], labels: list[str]) -> list[Series]:
    size = _size(len(xy))
    result: list[Series] = []
    for number, name in enumerate(names):
        where = np.flatnonzero(groups == number)
        if where.size:
            inside, (x, y) = [labels[k] for k in where], xy[where].T
            result.append(Points(x, y, name, PALETTE[number], labels=inside, size=size, many=True))
    return result


def _scaled(xy: Values, values: Values, scale: str, labels: list[str]) -> Points:
    return Points(xy[:, 0], xy[:, 1], values=values, scale=scale, labels=labels, size=_size(len(xy)), many=True)


def _size(count: int) -> float:
    return 7.0 if count <= 1_000 else 4.0 if count <= 10_000 else 2.5


def trajectories(dataset: Dataset, found: WeightMap | None, options: Options) -> Figure | None:
    """Return the paths of some networks over the map, by their checkpoints; None for a dataset without checkpoints."""
    if not dataset.spec.checkpoints or found is None:
        return None
    chosen = spread_over(len(found.rows), MOST_TRAJECTORIES)
    ways: dict[str, list[Values]] = {}
    labels: dict[str, list[str]] = {}
    for row in (found.rows[int(k)] for k in chosen):
        way = _way(dataset, row)
        finite = np.isfinite(way).all(axis=1)
        ways.setdefault(row["task"], []).append(found.plane.place(_transformed(dataset, way[finite], options)))
        steps = [*(f"epoch {epoch}" for epoch in dataset.spec.checkpoints[: row["checkpoints"]]), "end"]
        names = [steps[k] for k in np.flatnonzero(finite)]
        labels.setdefault(row["task"], []).extend(f"{row['task']} {row['index']}, {name}" for name in names)
    few = len(dataset.tasks) <= len(PALETTE)
    series: list[Series] = []
    for task, parts in ways.items():
        colour = PALETTE[dataset.tasks.index(task)] if few else ACCENT
        way, points, ends = broken(parts), np.concatenate(parts), np.array([part[-1] for part in parts])
        series.append(Line(way[:, 0], way[:, 1], "", colour, 1.2, 0.6))
        series.append(Points(points[:, 0], points[:, 1], "", colour, labels=labels[task], size=4.0))
        series.append(Points(ends[:, 0], ends[:, 1], task, colour, size=9.0))
    text = (
        f"The way of {len(chosen)} networks over the map, evenly spread among those on it: a small dot is a checkpoint "
        f"(epochs {', '.join(map(str, dataset.spec.checkpoints))}), the large one the end of training. The directions are "
        "those of the map above."
    )
    if options.canonical:
        text += " Every checkpoint has a canonical form of its own; a line jumps where the order of the units changes."
    chart = Chart("Trajectories of training", series, Axis("component 1"), Axis("component 2"), height=560, legend=few)
    return Figure("trajectories", "How networks got there", text, {"": (chart,)})


def _way(dataset: Dataset, row: Row) -> Floats:
    """Return weights [c + 1, P] of one network: the checkpoints that training reached, then the final weights."""
    shard = dataset.shard_of(row["task"], row["index"])
    tensors = dataset.tensor_file("checkpoints", row["task"], shard).read_row(row["row"])
    reached = params.from_tensors(dataset.architecture, tensors, 1)[: row["checkpoints"]]
    return np.concatenate([reached, dataset[row["task"], row["index"]].weights[None]])


def _choose(dataset: Dataset, most: int) -> tuple[npt.NDArray[np.int64], str]:
    """Return the positions in the manifest of the networks on the map, ascending, and a sentence on the choice."""
    manifest = dataset.manifest
    candidates = np.flatnonzero(manifest.complete(slice(None)))
    kind = "complete networks"
    if len(candidates) < 2:
        candidates = np.array([k for k, row in enumerate(manifest) if row["status"] != Status.DIVERGED], np.int64)
        kind = "networks that did not diverge, as fewer than two are complete"
    chosen = candidates[spread_over(len(candidates), most)]
    if len(chosen) < len(candidates):
        return chosen, f"Shown are {len(chosen):,} of {len(candidates):,} {kind}, evenly spread."
    return chosen, f"Shown are all {len(chosen):,} {kind}."


def _read(dataset: Dataset, places: npt.NDArray[np.int64], options: Options) -> Any:
    """Yield the weights of the networks at these positions, shard by shard: (indices into `places`, float32 [n, P]).

    Networks with weights that are not finite are skipped; training never produces them.
    """
    for task, count in dataset.counts.items():
        start = dataset.manifest.place(task).start
        first, stop = np.searchsorted(places, [start, start + count])
        own = places[first:stop] - start
        for shard in np.unique(own // store.SHARD).tolist():
            where = np.flatnonzero(own // store.SHARD == shard)
            tensors = dataset.tensor_file("networks", task, shard).read()
            weights = params.from_tensors(dataset.architecture, tensors, 1)[own[where] % store.SHARD]
            finite = np.isfinite(weights).all(axis=1)
            yield first + where[finite], _transformed(dataset, weights[finite], options)


def _transformed(dataset: Dataset, weights: Floats, options: Options) -> Floats:
    return canonicalize(dataset.architecture, weights) if options.canonical else weights
