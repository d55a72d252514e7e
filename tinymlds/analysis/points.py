"""Networks as labelled points, with what is needed to split them fairly and to make their initial weights again."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture
from tinymlds.architectures.params import Floats
from tinymlds.dataset.dataset import Dataset
from tinymlds.spec import Recipe
from tinymlds.tasks import catalog
from tinymlds.training.data import initial_weights

Ints = npt.NDArray[np.int64]

LEAST = 10
"""Networks that a class must keep when numbers of epochs are equalised."""


class Source(NamedTuple):
    """What the networks of a task were made from."""

    task: str
    seed: int
    recipe: Recipe


@dataclass(frozen=True, eq=False)
class Points:
    """n networks of one shape."""

    sources: tuple[Source, ...]
    classes: tuple[str, ...]
    """Names of the labels; () where the target is a number."""
    weights: Floats
    """[n, P]."""
    source: Ints
    """[n], places in `sources`."""
    index: Ints
    """[n], the network's index in its task."""
    epochs: Ints
    """[n]."""
    target: npt.NDArray[Any]
    """[n]: labels int64, or numbers float64."""

    @property
    def architecture(self) -> Architecture:
        """Of the networks."""
        return self.sources[0].recipe.architecture

    def __len__(self) -> int:
        return len(self.index)

    def take(self, picked: npt.NDArray[Any]) -> "Points":
        """Those of a mask or of places."""
        arrays = {name: getattr(self, name)[picked] for name in ("weights", "source", "index", "epochs", "target")}
        return replace(self, **arrays)

    def initial(self) -> Floats:
        """The weights before training, [n, P]: drawn again, as they follow from recipe, seed, task and index."""
        keys = [catalog.load(source.task, source.recipe).stream_key(source.seed) for source in self.sources]
        result = np.empty_like(self.weights)
        for place, (source, index) in enumerate(zip(self.source.tolist(), self.index.tolist(), strict=True)):
            result[place] = initial_weights(self.sources[source].recipe, keys[source], index)
        return result


class Wanted(NamedTuple):
    """The complete networks of a task, and their label."""

    dataset: Dataset
    task: str
    label: int = 0


def gather(wanted: Sequence[Wanted], classes: tuple[str, ...] = (), count: int | None = None) -> Points:
    """The points of several tasks of one shape, one after another.

    Args:
        wanted: tasks, and their labels.
        classes: names of the labels; without them the target is the logarithm of the epochs.
        count: only networks with an index below it; None is all.
    """
    sources = tuple(Source(task, dataset.spec.seed, dataset.spec.recipe) for dataset, task, _ in wanted)
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
    """Fill `weights` [n, P] with the first n complete networks; if those are not all, with a shard in memory at a time."""
    if len(weights) == len(dataset.rows(task)):
        weights[:] = dataset.weights(task)
        return
    for row, network in zip(weights, dataset.networks(task, unfinished=False), strict=False):
        row[:] = network.weights


# ------------------------------------------------------------------ equal numbers of epochs


def sharing(points: Points, strata: Ints) -> tuple[int, ...] | None:
    """Labels of the classes that have numbers of epochs in common, in at least LEAST networks of each.

    Classes that share no numbers with the others are left out, those first whose absence keeps most networks.

    Args:
        points: with labels.
        strata: [n]; numbers are common within each stratum (0 everywhere for none).

    Returns:
        None if no two classes share so many.
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
    """Of these networks as many of each class with each number of epochs: epochs say nothing of the class among them.

    A function of the epochs that was chosen elsewhere scores among them what a guess does, to the digit. Those of a class
    and a number that are kept have the lowest indices.

    Args:
        points: with labels.
        kept: labels of classes (`sharing`); others are left out.
        strata: [n]; numbers are equal within each stratum too.
        places: of the networks to choose from: one part of a split. To choose from all and split afterwards would not do:
            what of a cell is in training tells what is missing from it, and so is in the test.

    Returns:
        Places, ascending.
    """
    cells, target = _cells(points, strata, places), points.target[places]
    common = _table(points, cells, places)[list(kept)].min(axis=0)
    order = np.lexsort((points.index[places], cells, target))
    group = target[order] * (len(common) + 1) + cells[order]
    rank = np.arange(len(order)) - np.searchsorted(group, group)
    chosen = order[(rank < common[cells[order]]) & np.isin(target[order], kept)]
    return np.sort(places[chosen])


def _cells(points: Points, strata: Ints, places: npt.NDArray[np.intp]) -> Ints:
    """Number of the stratum and number of epochs of each network at these places."""
    both = np.stack([strata[places], points.epochs[places]])
    return np.asarray(np.unique(both, axis=1, return_inverse=True)[1], np.int64).reshape(-1)


def _table(points: Points, cells: Ints, places: npt.NDArray[np.intp]) -> Ints:
    """[classes, cells]: how many of the networks at these places there are."""
    table = np.zeros((len(points.classes), int(cells.max(initial=-1)) + 1), np.int64)
    np.add.at(table, (points.target[places], cells), 1)
    return table
