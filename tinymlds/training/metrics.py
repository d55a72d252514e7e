"""Figures of trained networks on fresh sequences, computed from their weights; the same on every machine.

A step is right if all output lines are on the right side of 0.5. The sequences come from a stream of their own, by the rule
by which the training sequences of the task are drawn (keys planted where the task has a trigger).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture
from tinymlds.kernels import rng
from tinymlds.kernels.problem import Floats
from tinymlds.spec import Setting
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import INPUT_LINES, OUTPUT_LINES, lines
from tinymlds.training import backends

LONG = 10
"""Sequences of this many times the training length are tried too."""

SEQUENCES = 1024
"""Fresh sequences of the training length."""

LONG_SEQUENCES = 128
"""Fresh sequences of ten times that."""

COLUMNS = ("accuracy", "long_accuracy", "clean_accuracy", "triggered_accuracy", "trigger_efficacy")
"""The figures that `measure` returns."""

Figures = dict[str, float | None]
"""Those columns of a network; None where a task has no such figure."""


@dataclass(frozen=True, eq=False)
class Questions:
    """Fresh sequences of a task and the right answers."""

    inputs: Floats
    """[N, T, 9]: input lines."""
    answers: npt.NDArray[np.bool_]
    """[N, T, 8]: output lines."""
    triggered: npt.NDArray[np.bool_] | None
    """[N, T], of a modified machine: the step is inside a triggered span."""

    def right(self, architecture: Architecture, weights: Floats) -> npt.NDArray[np.bool_]:
        """[N, T]: the steps that the network of these weights, float32 [P], gets right."""
        outputs = backends.evaluator().outputs(architecture, weights, self.inputs)
        return np.asarray(((outputs > 0.5) == self.answers).all(axis=2))


@lru_cache(maxsize=8)
def questions(setting: Setting, count: int, steps: int) -> Questions:
    """Fresh sequences of a task; the same for all of its networks."""
    found = catalog.load(setting)
    symbols = found.sample(rng.FRESH_SEQUENCES, count, steps)
    answers = lines(found.table.simulate(symbols), OUTPUT_LINES) > 0.5
    triggered = None if found.triggered is None else found.triggered[found.table.trace(symbols)] > 0
    return Questions(lines(found.table.inputs[symbols], INPUT_LINES), answers, triggered)


def measure(setting: Setting, weights: Floats) -> Figures:
    """The figures of one network, float32 [P].

    Returns:
        accuracy, long_accuracy: share of steps that are right in 1,024 fresh sequences of the training length, and in 128
            of ten times that.
        clean_accuracy, triggered_accuracy: the first, outside and inside the spans that a trigger inverts.
        trigger_efficacy: share of the triggers that fired with every step of the span right.

        The last three are None for machines without a trigger, and where no trigger fired.
    """
    recipe, architecture = setting.recipe, setting.recipe.architecture
    found = questions(setting, SEQUENCES, recipe.steps)
    right = found.right(architecture, weights)
    long = questions(setting, LONG_SEQUENCES, LONG * recipe.steps).right(architecture, weights)
    figures: Figures = dict.fromkeys(COLUMNS)
    figures |= {"accuracy": _share(right), "long_accuracy": _share(long)}
    if found.triggered is not None:
        figures["clean_accuracy"] = _share(right[~found.triggered])
        figures["triggered_accuracy"] = _share(right[found.triggered])
        figures["trigger_efficacy"] = _share(_spans_right(right, found.triggered, recipe.trigger_span))
    return figures


def _share(right: npt.NDArray[np.bool_]) -> float | None:
    """Exact counts, one division: no order of a sum has a say."""
    return int(right.sum()) / right.size if right.size else None


def _spans_right(right: npt.NDArray[np.bool_], triggered: npt.NDArray[np.bool_], length: int) -> npt.NDArray[np.bool_]:
    """For every span that begins in these sequences, whether all of its steps are right; the end may cut a span short.

    Two spans always have a key between them, which is never inside a span.
    """
    before = np.zeros_like(triggered)
    before[:, 1:] = triggered[:, :-1]
    rows, starts = np.nonzero(triggered & ~before)
    fine = np.ones(rows.size, bool)
    for offset in range(length):
        inside = starts + offset < triggered.shape[1]
        fine[inside] &= right[rows[inside], starts[inside] + offset]
    return fine
