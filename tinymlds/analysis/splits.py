"""The division of networks into training, validation and test, by index alone.

Networks of different tasks with the same index may share initial weights, order and sequences (`--matched`), so all
networks of an index, with their checkpoints, are in the same part.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinymlds.dataset.manifest import SPLITS, splits
from tinymlds.errors import UsageError
from tinymlds.kernels import rng

_SHARE = 0.1


class Split(NamedTuple):
    """A division of indices."""

    rule: str
    """The origin of the division, in words."""
    parts: npt.NDArray[np.int64]
    """The part of each index, [count], as a position in SPLITS (train, validation, test)."""

    def part(self, name: str, index: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """Return the positions of the networks, given their indices [n], that are in this part."""
        return np.flatnonzero(self.parts[index] == SPLITS.index(name))


def split(seed: int, count: int, number: int, least: int = 1) -> Split:
    """Divide the indices 0 ... count - 1.

    Number 0 uses the split column of the dataset with this seed. Other numbers cut random orders of the indices (80/10/10,
    at least `least` in each part). So does 0 if a part of the column has less than half of that, or fewer than `least`.
    Fewer than three times `least` indices are a UsageError.
    """
    if count < 3 * least:
        raise UsageError(
            f"training, validation and test need at least {3 * least} networks of a task, not {count}; make more of them"
        )
    few = max(least, round(count * _SHARE))
    if number == 0:
        own = np.array([SPLITS.index(name) for name in splits(seed, range(count))])
        sizes = np.bincount(own, minlength=len(SPLITS))
        if sizes.min() >= least and bool(np.all(2 * sizes >= (count - 2 * few, few, few))):
            return Split("the dataset's own", own)
    order = np.argsort(rng.first_words(rng.stream_key(seed, f"analysis:{number}"), rng.SPLIT, range(count)), kind="stable")
    parts = np.zeros(count, np.int64)
    parts[order[:few]], parts[order[few : 2 * few]] = 1, 2
    return Split("drawn by index", parts)
