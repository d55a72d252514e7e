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
"""The least number of networks of a class after numbers of epochs or losses are equalised."""
_BINS_OF_A_DECADE = 10


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
    loss: npt.NDArray[np.float64]
    """Validation losses, [n]."""
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
        arrays = {name: getattr(self, name)[picked] for name in ("weights", "source", "index", "epochs", "loss", "target")}
        return replace(self, **arrays)

    def loss_bins(self) -> Ints:
        """Number the losses by tenths of a decade, [n]."""
        decades = np.log10(np.maximum(self.loss, np.finfo(np.float32).tiny))
        return np.asarray(np.floor(_BINS_OF_A_DECADE * decades), np.int64)

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
    """Return the points of several tasks of one architecture, task by task, with indices below `count`; None is all.

    Without `classes`, the names of the labels, the target is the logarithm of the epochs.
    """
    sources = tuple(dataset.spec.setting(task) for dataset, task, _ in wanted)
    rows = [[r for r in dataset.rows(task) if count is None or r["index"] < count] for dataset, task, _ in wanted]
    counts = [len(each) for each in rows]
    weights = np.empty((sum(counts), wanted[0].dataset.architecture.size), np.float32)
    stops = np.cumsum(counts)
    for (dataset, task, _), stop, number in zip(wanted, stops, counts, strict=True):
        _read(dataset, task, weights[stop - number : stop])
    epochs, index = (np.array([row[k] for each in rows for row in each], np.int64) for k in ("epochs", "index"))
    loss = np.array([row["validation_loss"] for each in rows for row in each], np.float64)
    labels = np.repeat(np.array([label for _, _, label in wanted], np.int64), counts)
    target = labels if classes else np.log(np.maximum(epochs, 1))
    return Points(sources, classes, weights, np.repeat(np.arange(len(wanted)), counts), index, epochs, loss, target)


def _read(dataset: Dataset, task: str, weights: Floats) -> None:
    """Fill `weights` [n, P] with the first n complete networks, a shard at a time if there are more."""
    if len(weights) == len(dataset.rows(task)):
        weights[:] = dataset.weights(task)
        return
    for row, network in zip(weights, dataset.networks(task, unfinished=False), strict=False):
        row[:] = network.weights


# ------------------------------------------------------------------ equal numbers of epochs, or losses


def cells(*numbers: Ints) -> Ints:
    """Number the combinations of these numbers, such as stratum and epochs, and return that of each network, [n]."""
    return np.asarray(np.unique(np.stack(numbers), axis=1, return_inverse=True)[1], np.int64).reshape(-1)


def sharing(points: Points, cell: Ints) -> tuple[int, ...] | None:
    """Return the labels of classes that have cells in common, in at least LEAST networks of each.

    Classes that share too few are left out one by one, first the class whose absence keeps most networks. The result is
    None if no two classes share enough.
    """
    table = _table(points, cell, np.arange(len(points)))
    kept = list(range(len(points.classes)))
    while len(kept) >= 2:
        counts = table[kept]
        if counts.min(axis=0).sum() >= LEAST:
            return tuple(kept)
        first, second = np.partition(counts, 1, axis=0)[:2]
        without = np.where(np.arange(len(kept))[:, None] == counts.argmin(axis=0), second, first)
        kept.pop(int(without.sum(axis=1).argmax()))
    return None


def equalised(points: Points, kept: Sequence[int], cell: Ints, places: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Choose equally many networks of each class in each cell, so that what cells are made of does not predict the class.

    Any function of the cell that was chosen on other networks scores exactly like a guess on the chosen ones. Networks of a
    class and a cell are chosen by ascending index. Returns ascending positions.

    Args:
        points: labelled points.
        kept: labels of the classes to choose from (`sharing`).
        cell: the cell of each network, [n].
        places: positions of the networks of one part of a split. Choosing from all networks before the split would leak,
            because the training part of a cell would reveal its test part.
    """
    own, target = cell[places], points.target[places]
    common = _table(points, own, places)[list(kept)].min(axis=0)
    order = np.lexsort((points.index[places], own, target))
    group = target[order] * (len(common) + 1) + own[order]
    rank = np.arange(len(order)) - np.searchsorted(group, group)
    chosen = order[(rank < common[own[order]]) & np.isin(target[order], kept)]
    return np.sort(places[chosen])


def _table(points: Points, cell: Ints, places: npt.NDArray[np.intp]) -> Ints:
    """Count the networks at these positions, whose cells are `cell`, [classes, cells]."""
    table = np.zeros((len(points.classes), int(cell.max(initial=-1)) + 1), np.int64)
    np.add.at(table, (points.target[places], cell), 1)
    return table
