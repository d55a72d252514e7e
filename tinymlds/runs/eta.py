"""The forecast of a run while it goes on."""

import math
from collections import Counter

from tinymlds.dataset.journal import Entry
from tinymlds.spec import Recipe
from tinymlds.training.data import EPOCHS_FROM, expected_epochs


class Eta:
    """Forecasts the rest of a run from its pace and from the epochs that networks of a task take.

    Few networks say little about a task where one network in thirty takes as long as all others together. So what is known
    of the default recipe counts too, as the networks that it comes from.
    """

    def __init__(self, gaps: list[tuple[str, range]], recipe: Recipe) -> None:
        self._left: Counter[str] = Counter()
        self._made: Counter[str] = Counter()
        self._epochs: Counter[str] = Counter()
        self._seconds = 0.0
        for task, indices in gaps:
            self._left[task] += len(indices)
        self._known = {task: expected_epochs(task, recipe) for task in self._left}

    @property
    def networks_left(self) -> int:
        """Networks that are missing."""
        return self._left.total()

    def add(self, entries: list[Entry]) -> None:
        """Learn from finished networks."""
        for entry in entries:
            self._left[entry.task] -= 1
            self._made[entry.task] += 1
            self._epochs[entry.task] += entry.outcome.epochs
            self._seconds += entry.outcome.seconds

    def seconds_left(self, workers: int, waited: float = 0.0) -> float:
        """Forecast the seconds left, `waited` seconds after the latest network; infinite before the first one."""
        if not self._made:
            return math.inf
        pace = self._seconds / max(1, self._epochs.total())
        work = pace * sum(number * self._epochs_of(task) for task, number in self._left.items())
        return max(0.0, work / max(1, min(workers, self.networks_left)) - waited)

    def _epochs_of(self, task: str) -> float:
        """Mean epochs of a network; a task of which nothing is known counts as the mean of the others."""
        made, epochs = self._made[task], float(self._epochs[task])
        if known := self._known[task]:
            return (EPOCHS_FROM * known[0] + epochs) / (EPOCHS_FROM + made)
        return epochs / made if made else self._epochs.total() / self._made.total()
