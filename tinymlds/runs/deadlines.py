"""Deadlines: the time after which the worker of a unit counts as hung.

A network that trains must never be taken for one that hangs, as it would take as long the next time and so never be made.
So the bound is what its unit takes if every network of it trains to the epoch cap, ten times as slowly as the slowest
network of this run; and never less than ten minutes.
"""

import math
import time
from collections.abc import Callable

from tinymlds.spec import Recipe
from tinymlds.training.loop import Outcome

LEAST_SECONDS = 600.0
"""Least deadline of a unit; it covers the start of its worker, which may have to compile."""

_TIMES_SLOWER = 10
_NUMBERS_PER_SECOND = 1e8
"""Weights times sequences times steps that an epoch gets through in a second at worst, as long as nothing else is known;
with the default recipe a desktop computer from 2020 gets through 5e10."""

_LONGEST_PAUSE = 60.0


class Deadlines:
    """Computes the deadlines of units from the slowest epoch of this run so far."""

    def __init__(self, least_seconds: float = LEAST_SECONDS) -> None:
        self._least = least_seconds
        self._slowest = 0.0

    def add(self, outcome: Outcome) -> None:
        """Learn from a finished network."""
        self._slowest = max(self._slowest, outcome.seconds / max(1, outcome.epochs))

    def seconds(self, recipe: Recipe, networks: int) -> float:
        """Return the deadline of so many networks of a recipe, in whole seconds."""
        untried = recipe.architecture.size * recipe.train_sequences * recipe.steps / _NUMBERS_PER_SECOND
        epoch = _TIMES_SLOWER * self._slowest or untried
        return float(math.ceil(max(self._least, epoch * recipe.max_epochs * networks)))


class Watch:
    """A clock that counts a pause between two looks at it as one minute at most.

    So a run that was stopped, or a computer that slept, does not make every unit late.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = now()
        self._seconds = 0.0

    def look(self) -> float:
        """Return the seconds counted until now."""
        now = self._now()
        self._seconds += min(now - self._last, _LONGEST_PAUSE)
        self._last = now
        return self._seconds
