"""Networks as labelled points, with the data to split them fairly and to reproduce their initial weights."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture
from tinymlds.architectures.params import Floats
from tinymlds.dataset.dataset import Dataset
from tinymlds.spec import Setting
from tinymlds.training.data import initial_weights

Ints = npt.NDArray[np.int64]

LEAST = 10
"""The least number of networks of a class after numbers of epochs are equalised."""


@dataclass(frozen=True, eq=False)
class Points:
    """n networks of one architecture."""

    sources: tuple[Setting, ...]
    classes: tuple[str, ...]
    """Names of the labels; () if the target is a number."""
    weights: Floats
    """Weights, [n, P]."""
    source: Ints
    """Positions in `sources`, [n]."""
    index: Ints
    """Indices of the networks in their tasks, [n]."""
    epochs: Ints
    """Numbers of epochs, [n]."""
    target: npt.NDArray[Any]
    """Labels int64 or numbers float64, [n]."""

    @property
    def architecture(self) -> Architecture:
        """The architecture of the networks."""
        return self.sources[0].recipe.architecture

    def __len__(self) -> int:
        return len(self.index)

    def take(self, picked: npt.NDArray[Any]) -> "Points":
        """Return the points selected by a mask or by positions."""
        arrays = {name: getattr(self, name)[picked] for name in ("weights", "source", "index", "epochs", "target")}
        return replace(self, **arrays)

    def initial(self) -> Floats:
        """Draw the weights before training, [n, P], again from recipe, seed, task and index."""
        result = np.empty_like(self.weights)
        for place, (source, index) in enumerate(zip(self.source.tolist(), self.index.tolist(), strict=True)):
            result[place] = initial_weights(self.sources[source], index)
        return result


class Wanted(NamedTuple):
    """The complete networks of a task, and their label."""

    dataset: Dataset
    task: str
    label: int = 0


def gather(wanted: Sequence[Wanted], classes: tuple[str, ...] = (), count: int | None = None) -> Points:
    """Return the points of several tasks of one architecture, task by task.

    Args:
        wanted: the tasks and their labels.
        classes: names of the labels; without them the target is the logarithm of the epochs.
        count: take networks with indices below it; None takes all.
    """
    sources = tuple(dataset.spec.setting(task) for dataset, task, _ in wanted)
    rows = [[r for r in dataset.rows(task) if count is None or r["index"] < count] for dataset, task, _ in wanted]
    counts = [len(each) for each in rows]
    weights = np.empty((sum(counts), wanted[0].dataset.architecture.size), np.float32)
    stops = np.cumsum(counts)
    for (dataset, task, _), stop, number in zip(wanted, stops, counts, strict=True):
        _read(dataset, task, weights[stop - number : stop])
    epochs = np.array([row["epochs"] for each in rows for row in each], np.int64)
    index = np.array([row["index"] for each in rows for row in each], np.int64)
    labels = np.repeat(np.array([label for _, _, label in wanted], np.int64), counts)
    target = labels if classes else np.log(np.maximum(epochs, 1))
    return Points(sources, classes, weights, np.repeat(np.arange(len(wanted)), counts), index, epochs, target)


def _read(dataset: Dataset, task: str, weights: Floats) -> None:
    """Fill `weights` [n, P] with the first n complete networks, a shard at a time if there are more."""
    if len(weights) == len(dataset.rows(task)):
        weights[:] = dataset.weights(task)
        return
    for row, network in zip(weights, dataset.networks(task, unfinished=False), strict=False):
        row[:] = network.weights


# ------------------------------------------------------------------ equal numbers of epochs


def sharing(points: Points, strata: Ints) -> tuple[int, ...] | None:
    """Return the labels of classes that have numbers of epochs in common, in at least LEAST networks of each.

    Classes that share too few numbers are left out one by one, first the class whose absence keeps most networks.

    Args:
        points: labelled points.
        strata: the stratum of each network, [n]; numbers must agree within a stratum. All 0 means a single stratum.

    Returns:
        The labels; None if no two classes share enough.
    """
    everywhere = np.arange(len(points))
    table = _table(points, _cells(points, strata, everywhere), everywhere)
    kept = list(range(len(points.classes)))
    while len(kept) >= 2:
        counts = table[kept]
        if counts.min(axis=0).sum() >= LEAST:
            return tuple(kept)
        first, second = np.partition(counts, 1, axis=0)[:2]
        without = np.where(np.arange(len(kept))[:, None] == counts.argmin(axis=0), second, first)
        kept.pop(int(without.sum(axis=1).argmax()))
    return None


def equalised(points: Points, kept: Sequence[int], strata: Ints, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Choose equally many networks of each class with each number of epochs, so that epochs do not predict the class.

    Any function of the epochs that was chosen on other networks scores exactly like a guess on the chosen ones. Networks of
    a class and a number are chosen by ascending index.

    Args:
        points: labelled points.
        kept: labels of the classes to choose from (`sharing`).
        strata: the stratum of each network, [n]; numbers are equal within each stratum too.
        places: positions of the networks of one part of a split. Choosing from all networks before the split would leak,
            because the training part of a cell would reveal its test part.

    Returns:
        Positions, ascending.
    """
    cells, target = _cells(points, strata, places), points.target[places]
    common = _table(points, cells, places)[list(kept)].min(axis=0)
    order = np.lexsort((points.index[places], cells, target))
    group = target[order] * (len(common) + 1) + cells[order]
    rank = np.arange(len(order)) - np.searchsorted(group, group)
    chosen = order[(rank < common[cells[order]]) & np.isin(target[order], kept)]
    return np.sort(places[chosen])


def _cells(points: Points, strata: Ints, places: npt.NDArray[np.intp]) -> Ints:
    """Number the combinations of stratum and epochs, and return the number of each network at these positions."""
    both = np.stack([strata[places], points.epochs[places]])
    return np.asarray(np.unique(both, axis=1, return_inverse=True)[1], np.int64).reshape(-1)


def _table(points: Points, cells: Ints, places: npt.NDArray[np.intp]) -> Ints:
    """Count the networks at these positions, [classes, cells]."""
    table = np.zeros((len(points.classes), int(cells.max(initial=-1)) + 1), np.int64)
    np.add.at(table, (points.target[places], cells), 1)
    return table
