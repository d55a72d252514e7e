"""Trains networks on a backend: epochs, validation, the stop rule, the record. No files, no processes."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from tinymlds.errors import UsageError
from tinymlds.kernels.problem import LONGEST_JOB, Job, Problem, Stretch
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import catalog
from tinymlds.training.backends import Backend
from tinymlds.training.data import initial_weights, problem

Floats = npt.NDArray[np.float32]


class Status(StrEnum):
    """How the training of a network ended."""

    COMPLETE = "complete"
    EPOCH_CAP = "epoch_cap"
    STALLED = "stalled"
    DIVERGED = "diverged"


@dataclass(frozen=True, eq=False)
class Outcome:
    """A trained network and the record of its training."""

    index: int
    status: Status
    reason: str
    weights: Floats
    """float32 [P]; of the last finite epoch if the network diverged."""
    train_losses: Floats
    """float32 [epochs]: mean of the minibatch losses of each epoch."""
    validation_losses: Floats
    """float32 [epochs]: at the end of each epoch."""
    checkpoints: Floats
    """float32 [c, P]: weights at the epochs that were asked for, as far as training went."""
    seconds: float

    @property
    def epochs(self) -> int:
        """Finite epochs that were trained."""
        return int(self.validation_losses.size)


_SECONDS_PER_JOB = 1.0
_DIVERGED = {
    "training loss": "training loss is not finite at step {}",
    "weights": "weights are not finite after step {}",
    "validation loss": "validation loss is not finite after step {}",
}
"""Reasons by what was not finite; steps count from the start of training, from 1."""


def can_diverge_so(reason: str, epochs: int, recipe: Recipe) -> bool:
    """Whether training whose first `epochs` epochs were finite can have ended with this reason."""
    steps = recipe.train_sequences // recipe.batch
    for template in _DIVERGED.values():
        start = template.removesuffix("{}")
        number = reason.removeprefix(start)
        if reason.startswith(start) and len(number) < _LONGEST_STEP and number.isascii() and number.isdecimal():
            return str(int(number)) == number and epochs * steps < int(number) <= (epochs + 1) * steps
    return False


_LONGEST_STEP = 20


class StopRule:
    """Decides after each epoch whether training goes on."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._patience = recipe.patience if recipe.stop == "threshold" else 0
        self._best = np.inf
        self._best_epoch = 0

    def after(self, epoch: int, validation_loss: float) -> tuple[Status, str] | None:
        """None to go on; else the status and the reason. Epochs count from 1."""
        recipe = self._recipe
        if validation_loss < recipe.stop_below or (recipe.stop == "max_epochs" and epoch == recipe.max_epochs):
            return Status.COMPLETE, ""
        if validation_loss < self._best * (1.0 - recipe.patience_gain):
            self._best, self._best_epoch = validation_loss, epoch
        if epoch >= recipe.max_epochs:
            return Status.EPOCH_CAP, f"not below the threshold after {epoch} epochs"
        if self._patience and epoch - self._best_epoch >= self._patience:
            return Status.STALLED, f"no better validation loss since epoch {self._best_epoch}"
        return None

    def last_epoch(self) -> int:
        """The epoch at which training ends if no validation loss is better than those seen so far."""
        last = self._recipe.max_epochs
        return min(last, self._best_epoch + self._patience) if self._patience else last


class _Trainee:
    """The record of a network in training: what it has come to so far, and when it ends."""

    def __init__(self, index: int, recipe: Recipe, initial: Floats, checkpoints: tuple[int, ...]) -> None:
        self._index, self._recipe, self._rule, self._checkpoints = index, recipe, StopRule(recipe), checkpoints
        self._kept = [initial] if 0 in checkpoints else []
        self._train_losses: list[np.float32] = []
        self._validation_losses: list[np.float32] = []
        self._seconds = 0.0
        self._verdict: tuple[Status, str] | None = None

    @property
    def epochs(self) -> int:
        """Finite epochs so far."""
        return len(self._validation_losses)

    def job(self, place: int, task: int, most: int) -> Job:
        """Epochs to train next: up to `most`, the next checkpoint, or where the stop rule may end it."""
        last = min([self._rule.last_epoch(), *(epoch for epoch in self._checkpoints if epoch > self.epochs)])
        return Job(place, task, self._index, self.epochs + 1, min(most, last - self.epochs))

    def add(self, stretch: Stretch, seconds: float, weights: Callable[[], Floats]) -> Outcome | None:
        """Take note of a stretch of training, and of the seconds that it took; the outcome, if training has ended.

        It ends with an epoch after which the stop rule may end training, or weights are to be kept; `weights` gives those
        at its end, or those of the last finite epoch.
        """
        self._seconds += seconds
        self._train_losses += list(stretch.train_losses)
        for validation_loss in stretch.validation_losses:
            self._validation_losses.append(validation_loss)
            self._verdict = self._rule.after(self.epochs, float(validation_loss))
        if stretch.not_finite:
            steps = self.epochs * (self._recipe.train_sequences // self._recipe.batch)
            self._verdict = Status.DIVERGED, _DIVERGED[stretch.not_finite].format(steps + stretch.step)
        elif self.epochs in self._checkpoints:
            self._kept.append(weights())
        if self._verdict is None:
            return None
        record = np.array(self._train_losses, np.float32), np.array(self._validation_losses, np.float32)
        stored = np.array(self._kept, np.float32).reshape(-1, self._recipe.architecture.size)
        return Outcome(self._index, *self._verdict, weights(), *record, stored, self._seconds)


# ------------------------------------------------------------------ the loop


def require_backend(backend: str, recipe: Recipe) -> None:
    """Make sure that networks of this recipe can be trained on the backend of this name.

    Raises:
        UsageError: they cannot.
    """
    if backend not in recipe.architecture.kernels:
        able = ", ".join(recipe.architecture.kernels)
        raise UsageError(f"there are no kernels for {recipe.architecture.name} on {backend}; use --backend {able}")
    if recipe.optimizer.kernels and backend not in recipe.optimizer.kernels:
        able = ", ".join(recipe.optimizer.kernels)
        raise UsageError(f"there are no kernels for optimizer {recipe.optimizer.name} on {backend}; use --backend {able}")
    if backend != "cpu" and recipe.sequences == "own":
        raise UsageError("networks that draw their own sequences are trained on the CPU only; use --backend cpu")


def train_networks(
    backend: Backend, setting: Setting, indices: range, checkpoints: tuple[int, ...] = ()
) -> Iterator[Outcome]:
    """Train the networks of these indices of a setting; see `train_population`."""
    for batch in train_population(backend, [(setting, index) for index in indices], checkpoints):
        for _, outcome in batch:
            yield outcome


def train_population(
    backend: Backend,
    wanted: Iterable[tuple[Setting, int]],
    checkpoints: tuple[int, ...] = (),
    most: int = 2**31 - 1,
) -> Iterator[list[tuple[str, Outcome]]]:
    """Train networks on a backend: side by side on a device, one after another on the CPU.

    Args:
        backend: what to train on.
        wanted: setting and index of each network, in the order in which they are begun; of one seed and recipe.
        checkpoints: epochs at whose end weights are kept, ascending; 0 is before the first.
        most: networks that are under way at the same time at most.

    Yields:
        Task and outcome of the networks that have ended since, also when that is none; about once a second, or as often as
        all of them train an epoch, if that takes longer. While a device computes, the caller has the time to store them.
    """
    wanted = list(wanted)
    own = any(setting.recipe.sequences == "own" for setting, _ in wanted)
    for group in [[network] for network in wanted] if own else [wanted]:
        settings = list(dict.fromkeys(setting for setting, _ in group))
        problems = [problem(setting, group[0][1]) for setting in settings]
        numbered = [(settings.index(setting), index) for setting, index in group]
        for batch in train_on(backend, problems, settings, numbered, checkpoints, most):
            yield [(settings[number].task, outcome) for number, outcome in batch]


def train_on(
    backend: Backend,
    problems: Sequence[Problem],
    settings: Sequence[Setting],
    wanted: Sequence[tuple[int, int]],
    checkpoints: tuple[int, ...] = (),
    most: int = 2**31 - 1,
) -> Iterator[list[tuple[int, Outcome]]]:
    """The loop of `train_population`, on these problems, with initial weights and orders by these settings.

    `wanted`, and what is yielded, has the number of a problem in place of a setting.
    """
    recipe = settings[0].recipe
    keys = [catalog.load(setting).stream_key for setting in settings]
    population = backend.population(problems, keys, recipe.lr_at, recipe.stop_below, min(most, len(wanted)))
    initial = ((number, index, initial_weights(settings[number], index)) for number, index in wanted)
    ready: deque[tuple[int, int, Floats]] = deque()
    seats: dict[int, tuple[int, _Trainee]] = {}  # place -> number of the problem, and record
    finished: list[tuple[int, Outcome]] = []
    longest = 1
    while True:
        _prepare(ready, initial, population.places - len(seats))
        for place in range(population.places):
            if place not in seats and ready:
                number, index, weights = ready.popleft()
                population.admit(place, weights)
                seats[place] = number, _Trainee(index, recipe, weights, checkpoints)
        if not seats:
            yield finished
            return
        jobs = [trainee.job(place, number, longest) for place, (number, trainee) in seats.items()]
        population.start(jobs)
        yield finished
        _prepare(ready, initial, len(seats))
        stretches = population.finish()
        finished = []
        epochs = [max(1, stretch.train_losses.size) for stretch in stretches]
        for job, stretch, trained in zip(jobs, stretches, epochs, strict=True):
            share = population.seconds * trained / sum(epochs)
            outcome = seats[job.place][1].add(stretch, share, partial(population.weights, job.place))
            if outcome is not None:
                finished.append((job.task, outcome))
                del seats[job.place]
        longest = max(1, min(LONGEST_JOB, round(_SECONDS_PER_JOB * max(epochs) / population.seconds)))


def _prepare(ready: deque[tuple[int, int, Floats]], initial: Iterator[tuple[int, int, Floats]], count: int) -> None:
    """Have the initial weights of the next `count` networks ready, as far as there are any."""
    ready.extend(islice(initial, max(0, count - len(ready))))
