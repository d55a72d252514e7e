"""Networks as labelled points, with what is needed to split them fairly and to make their initial weights again."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinymlds import tasks, training
from tinymlds.dataset import Dataset
from tinymlds.errors import UsageError
from tinymlds.kernels.shape import Shape
from tinymlds.params import Floats
from tinymlds.spec import Recipe

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
    def shape(self) -> Shape:
        """Of the networks."""
        return self.sources[0].recipe.shape

    def __len__(self) -> int:
        return len(self.index)

    def take(self, picked: npt.NDArray[Any]) -> "Points":
        """Those of a mask or of places."""
        arrays = {name: getattr(self, name)[picked] for name in ("weights", "source", "index", "epochs", "target")}
        return replace(self, **arrays)

    def initial(self) -> Floats:
        """The weights before training, [n, P]: drawn again, as they follow from recipe, seed, task and index."""
        keys = [tasks.load(source.task, source.recipe).stream_key(source.seed) for source in self.sources]
        result = np.empty_like(self.weights)
        for place, (source, index) in enumerate(zip(self.source.tolist(), self.index.tolist(), strict=True)):
            result[place] = training.initial_weights(self.sources[source].recipe, keys[source], index)
        return result


class Wanted(NamedTuple):
    """The complete networks of a task, and their label."""

    dataset: Dataset
    task: str
    label: int = 0


def gather(wanted: Sequence[Wanted], classes: tuple[str, ...] = ()) -> Points:
    """The points of several tasks, one after another; without classes, the target is the logarithm of the epochs.

    Raises:
        UsageError: networks of different shapes.
    """
    shapes = {each.dataset.shape for each in wanted}
    if len(shapes) > 1:
        raise UsageError(f"the networks have different shapes, so they cannot be compared: {sorted(shapes)}")
    sources = tuple(Source(task, dataset.spec.seed, dataset.spec.recipe) for dataset, task, _ in wanted)
    rows = [dataset.rows(task) for dataset, task, _ in wanted]
    counts = [len(each) for each in rows]
    weights = np.empty((sum(counts), next(iter(shapes)).size), np.float32)
    stops = np.cumsum(counts)
    for (dataset, task, _), stop, count in zip(wanted, stops, counts, strict=True):
        weights[stop - count : stop] = dataset.weights(task)
    epochs = np.array([row["epochs"] for each in rows for row in each], np.int64)
    index = np.array([row["index"] for each in rows for row in each], np.int64)
    labels = np.repeat(np.array([label for _, _, label in wanted], np.int64), counts)
    target = labels if classes else np.log(np.maximum(epochs, 1))
    return Points(sources, classes, weights, np.repeat(np.arange(len(wanted)), counts), index, epochs, target)


# ------------------------------------------------------------------ equal numbers of epochs


def equalised(points: Points, strata: Ints) -> Points | None:
    """As many networks of each class with each number of epochs, so that epochs say nothing of the class.

    Classes that share no numbers with the others are left out, those first whose absence keeps most networks; those of a
    class and number that are kept have the lowest indices.

    Args:
        points: with labels.
        strata: [n]; numbers are equal within each stratum too (0 everywhere for none).

    Returns:
        None if no two classes would keep LEAST networks each. The labels are renumbered.
    """
    cells = [(stratum, epochs) for stratum, epochs in zip(strata.tolist(), points.epochs.tolist(), strict=True)]
    tables = [
        Counter(cell for cell, label in zip(cells, points.target, strict=True) if label == k) for k in _labels(points)
    ]
    kept = list(_labels(points))
    while len(kept) >= 2 and _shared(tables, kept).total() < LEAST:
        kept = max(([k for k in kept if k != out] for out in kept), key=lambda rest: _shared(tables, rest).total())
    if len(kept) < 2:
        return None
    left = {(label, cell): count for label in kept for cell, count in _shared(tables, kept).items()}
    picked, target = [], []
    for place in np.lexsort((points.index, points.target)).tolist():
        label = int(points.target[place])
        if left.get((label, cells[place]), 0):
            left[label, cells[place]] -= 1
            picked.append(place)
            target.append(kept.index(label))
    chosen = points.take(np.array(picked))
    return replace(chosen, classes=tuple(points.classes[k] for k in kept), target=np.array(target, np.int64))


def _labels(points: Points) -> range:
    return range(len(points.classes))


def _shared(tables: list["Counter[Any]"], kept: list[int]) -> "Counter[Any]":
    """How many networks each of these classes has in common of every cell."""
    common = Counter(tables[kept[0]])
    for label in kept[1:]:
        common &= tables[label]
    return common
