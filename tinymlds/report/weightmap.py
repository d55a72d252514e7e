"""Maps of weight space: networks as points in planes of the first two principal components."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymlds.analysis.features import statistics
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
    """The first two principal components of some features of networks."""

    mean: Values
    """The mean of the features, [F]."""
    directions: Values
    """Unit vectors, [F, 2]; divided by the scales of the features, where these were scaled."""
    shares: tuple[float, float]
    """The shares of the variance that the components explain."""

    def place(self, features: Floats) -> Values:
        """Return the coordinates [n, 2] of features [n, F]."""
        return (features - self.mean) @ self.directions


@dataclass(frozen=True, eq=False)
class Placed:
    """Networks placed in a plane."""

    title: str
    plane: Plane
    xy: Values
    """The coordinates [n, 2]."""


@dataclass(frozen=True, eq=False)
class WeightMap:
    """Networks placed by statistics of their weights, and by the weights; both are aligned with `rows`."""

    rows: list[Row]
    statistics: Placed
    weights: Placed
    text: str
    """Sentences on how many networks are shown, and from how many the planes were computed."""


def weight_map(dataset: Dataset, options: Options) -> WeightMap | None:
    """Put the networks of a dataset on a map; return None if fewer than two can be placed."""
    chosen, text = _choose(dataset, options.points)
    if len(chosen) < 2:
        return None
    fitted = spread_over(len(chosen), MOST_FITTED)
    sample = [block for _, *block in _read(dataset, chosen[fitted], options)]
    features, weights = (np.concatenate(blocks) for blocks in zip(*sample, strict=True))
    if len(weights) < 2:
        return None
    planes = fit(features, scaled=True), fit(weights)
    xy = np.full((2, len(chosen), 2), np.nan)
    for where, *blocks in _read(dataset, chosen, options):
        xy[:, where] = [plane.place(block) for plane, block in zip(planes, blocks, strict=True)]
    if len(fitted) < len(chosen):
        text += f" The directions were computed from {len(fitted):,} of them, evenly spread."
    finite = np.isfinite(xy).all(axis=(0, 2))
    if not finite.all():
        text += f" Left out: {int((~finite).sum()):,} with weights that are not finite."
    titles = "Statistics of the weights", f"Weights {'in canonical form' if options.canonical else 'as they are'}"
    by_statistics, by_weights = (Placed(*each) for each in zip(titles, planes, xy[:, finite], strict=True))
    return WeightMap(dataset.manifest.rows(chosen[finite]), by_statistics, by_weights, text)


def fit(features: Floats, scaled: bool = False) -> Plane:
    """Return the plane of features [n, F], n > 1, all scaled to unit variance first if `scaled`.

    Principal components are singular vectors of the centred matrix; they are computed as eigenvectors of its product with
    itself on the shorter side. The largest entry of each is positive.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    scale = np.maximum(features.std(axis=0, dtype=np.float64), np.finfo(np.float32).tiny) if scaled else 1.0
    centred = (features - mean) / scale
    tall = len(features) > features.shape[1]
    values, vectors = np.linalg.eigh(centred.T @ centred if tall else centred @ centred.T)
    largest = vectors[:, :-3:-1] if tall else centred.T @ vectors[:, :-3:-1]
    directions = largest / np.maximum(np.linalg.norm(largest, axis=0), np.finfo(np.float64).tiny)
    directions = directions * np.sign(directions[np.abs(directions).argmax(axis=0), np.arange(2)])
    first, second = (
        max(float(value), 0.0) / max(float(values.sum()), np.finfo(np.float64).tiny) for value in values[:-3:-1]
    )
    return Plane(mean, directions / np.reshape(scale, (-1, 1)), (first, second))


def map_figure(dataset: Dataset, found: WeightMap | None) -> Figure:
    """Return the two maps side by side, coloured by task, split or epochs."""
    text = (
        "Each point is a network, placed along the two directions in which networks differ most (principal components). "
        "One map is of statistics of each tensor: mean, standard deviation, norm and quantiles, each with unit variance. "
        "The other is of the weights, which depend on the order of the units and on the initial weights too."
    )
    if found is None:
        return Figure("map", "Maps of weight space", text + " They need two networks or more that did not diverge.")
    labels = [f"{row['task']} {row['index']}, {row['split']}, {row['epochs']} epochs" for row in found.rows]
    numbers = {task: k for k, task in enumerate(dataset.tasks)}
    tasks = np.array([numbers[row["task"]] for row in found.rows])
    splits = np.array([SPLITS.index(row["split"]) for row in found.rows])
    epochs = np.array([row["epochs"] for row in found.rows], np.float64)
    few = len(dataset.tasks) <= len(PALETTE)

    def draw(placed: Placed, frames: list[tuple[float, float] | None]) -> dict[str, Chart]:
        x, y = (
            Axis(f"component {k + 1} ({share:.0%} of the variance)", range=frame)
            for k, (share, frame) in enumerate(zip(placed.plane.shares, frames, strict=True))
        )
        number = _scaled(placed.xy, tasks.astype(np.float64), "number of the task", labels)
        series: dict[str, list[Series]] = {
            "task": _groups(placed.xy, tasks, dataset.tasks, labels) if few else [number],
            "split": _groups(placed.xy, splits, SPLITS, labels),
            "epochs": [_scaled(placed.xy, epochs, "epochs", labels)],
        }
        return {name: Chart(placed.title, drawn, x, y, height=460, share=0.5) for name, drawn in series.items()}

    maps, text, outside = [], f"{text} {found.text}", []
    for placed in (found.statistics, found.weights):
        frames = [_frame(values) for values in placed.xy.T]
        maps.append(draw(placed, frames))
        low, high = np.array([frame or (-np.inf, np.inf) for frame in frames]).T
        outside.append(int(((placed.xy < low) | (placed.xy > high)).any(axis=1).sum()))
    if any(outside):
        text += " Outside of the frames: {:,} and {:,}; a double click on a map of the page shows them too.".format(
            *outside
        )
    return Figure("map", "Maps of weight space", text, {name: (maps[0][name], maps[1][name]) for name in maps[0]}, "Colour")


def _frame(values: Values) -> tuple[float, float] | None:
    """Return the range of an axis: twice that of nine tenths of the networks, which others would shrink to a dot; None
    if this range would leave out no network."""
    low, high = np.percentile(values, [5, 95])
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
        ways.setdefault(row["task"], []).append(found.weights.plane.place(_transformed(dataset, way[finite], options)))
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
        "those of the map of weights above."
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
    """Yield the networks at these positions, shard by shard: (indices into `places`, statistics [n, F], weights [n, P]).

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
            kept = weights[finite]
            yield first + where[finite], statistics(dataset.architecture, kept), _transformed(dataset, kept, options)


def _transformed(dataset: Dataset, weights: Floats, options: Options) -> Floats:
    return canonicalize(dataset.architecture, weights) if options.canonical else weights
