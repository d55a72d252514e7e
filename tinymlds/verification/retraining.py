"""Makes networks again to compare them: losses from weights, the end of training from losses, or all by training."""

from collections.abc import Callable, Iterable

import numpy as np

from tinymlds.dataset.manifest import Row
from tinymlds.dataset.schema import columns_of
from tinymlds.runs.pools import make_pool
from tinymlds.runs.supervisor import Supervisor
from tinymlds.runs.units import Unit
from tinymlds.spec import Recipe, Spec
from tinymlds.training import backends
from tinymlds.training.data import initial_weights, task_data
from tinymlds.training.loop import Floats, Outcome, Status, StopRule, can_diverge_so


class Replay:
    """Checks the networks of a task as far as it is possible without training them."""

    def __init__(self, spec: Spec, task: str) -> None:
        self._spec = spec
        self._setting = spec.setting(task)
        _, self._validation = task_data(self._setting).sequences()
        self._target = backends.evaluator()

    def problems(self, outcome: Outcome) -> list[str]:
        """Return what the losses and weights of a network contradict; each text completes "xor 17 ..."."""
        found, recorded, epochs = [], outcome.validation_losses, reached(self._spec, outcome.epochs)
        if not _can_end_so(outcome, self._spec.recipe):
            found.append(f"did not end as {outcome.status.value} by its losses")
        if not all(np.isfinite(array).all() for array in (outcome.weights, outcome.train_losses, outcome.checkpoints)):
            found.append("has numbers that are not finite")
        if not recorded.size and not self._is_initial(outcome.weights, outcome.index):
            found.append("has other weights than before training, and no epoch")
        if recorded.size and (loss := self._loss(outcome.weights)).tobytes() != recorded[-1].tobytes():
            found.append(f"has validation loss {loss}, and {recorded[-1]} is recorded")
        if len(outcome.checkpoints) != len(epochs):
            found.append(f"has {len(outcome.checkpoints)} checkpoints, and its training reached {len(epochs)}")
        for epoch, weights in zip(epochs, outcome.checkpoints, strict=False):
            if not self._is_from(epoch, weights, outcome):
                found.append(f"has a checkpoint of epoch {epoch} that its losses do not bear out")
        return found

    def _is_from(self, epoch: int, weights: Floats, outcome: Outcome) -> bool:
        """Return whether a checkpoint fits this epoch: it has the initial weights, or the loss that is recorded."""
        if epoch == 0:
            return self._is_initial(weights, outcome.index)
        return self._loss(weights).tobytes() == outcome.validation_losses[epoch - 1 : epoch].tobytes()

    def _is_initial(self, weights: Floats, index: int) -> bool:
        return weights.tobytes() == initial_weights(self._setting, index).tobytes()

    def _loss(self, weights: Floats) -> np.float32:
        return self._target.loss(self._spec.recipe.architecture, weights, self._validation)


def reached(spec: Spec, epochs: int) -> list[int]:
    """The epochs with a checkpoint that a training of so many epochs reaches."""
    return [epoch for epoch in spec.checkpoints if epoch <= epochs]


def _can_end_so(outcome: Outcome, recipe: Recipe) -> bool:
    """Return whether training with these validation losses ends as is recorded, and not sooner."""
    rule = StopRule(recipe)
    verdicts = [rule.after(epoch, float(loss)) for epoch, loss in enumerate(outcome.validation_losses, 1)]
    if outcome.status == Status.DIVERGED:
        return not any(verdicts) and can_diverge_so(outcome.reason, outcome.epochs, recipe)
    return bool(verdicts) and not any(verdicts[:-1]) and verdicts[-1] == (outcome.status, outcome.reason)


def train_again(
    spec: Spec,
    networks: Iterable[tuple[str, int]],
    workers: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> tuple[dict[tuple[str, int], Row], list[tuple[str, int, str]]]:
    """Train networks, calling `progress` with (trained, networks).

    Returns:
        Their columns (`columns_of`), and (task, index, reason) of those that cannot be trained.
    """
    units = [Unit(spec.setting(task), "cpu", index, index + 1, spec.checkpoints) for task, index in networks]
    pool = make_pool(min(workers, len(units)), "cpu", spec.recipe)
    supervisor, made = Supervisor(units, pool), dict[tuple[str, int], Row]()
    try:
        progress(0, len(units))
        for batch in supervisor.run():
            for unit, outcomes, _ in batch:
                made |= {(unit.task, outcome.index): columns_of(outcome) for outcome in outcomes}
            progress(len(made), len(units))
    finally:
        pool.end()
    return made, [(unit.task, unit.start, unit.reason) for unit in supervisor.quarantined]
