"""Trains networks of one task on a backend: epochs, validation, the stop rule, the record. No files, no processes."""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache, partial
from itertools import islice

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import params
from tinymlds.errors import UsageError
from tinymlds.kernels import rng
from tinymlds.kernels.problem import LONGEST_JOB, Job, Problem, Sequences, Stretch
from tinymlds.spec import Recipe
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import Mealy, Symbols
from tinymlds.training.backends import Backend, PopulationBackend

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


@dataclass(frozen=True, eq=False)
class TaskData:
    """The sequences of a task: symbols and outputs uint8 [N, T]."""

    table: Mealy
    train: Symbols
    train_outputs: npt.NDArray[np.uint8]
    validation: Symbols
    validation_outputs: npt.NDArray[np.uint8]

    def sequences(self) -> tuple[Sequences, Sequences]:
        """Training and validation sequences as lines."""
        pairs = ((self.train, self.train_outputs), (self.validation, self.validation_outputs))
        train, validation = (Sequences(self.table.inputs[x], y.astype(np.uint16)) for x, y in pairs)
        return train, validation


_EPOCHS = {
    "eightbit": (4.6, 0.9),
    "direct": (1.0, 0.0),
    "invert": (1.0, 0.0),
    "xor": (1.3, 0.5),
    "parity": (14.3, 8.7),
    "eightbit_modified": (39.9, 42.6),
    "direct_modified": (1.3, 0.5),
    "invert_modified": (1.1, 0.3),
    "xor_modified": (3.4, 1.2),
    "parity_modified": (52.2, 63.3),
    "transducer": (11.7, 25.3),
}
"""Epochs that networks of the default recipe took, whether they were complete or not: mean and standard deviation over
100 networks of each machine (the modified ones matched) and five of each transducer, seed 0 (`bench/learnability.py`)."""

EPOCHS_FROM = 100
"""Networks that they come from, at least."""

_SECONDS_PER_JOB = 1.0
_DIVERGED = {
    "training loss": "training loss is not finite at step {}",
    "weights": "weights are not finite after step {}",
    "validation loss": "validation loss is not finite after step {}",
}
"""Reasons by what was not finite; steps count from the start of training, from 1."""
_NOTHING = np.empty(0, np.float32)


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


def expected_epochs(task: str, recipe: Recipe) -> tuple[float, float] | None:
    """Mean and standard deviation of the epochs of a network; None for a recipe that nobody has tried."""
    if replace(recipe, matched=False) != Recipe():
        return None
    return _EPOCHS["transducer" if catalog.is_transducer(task) else task]


@lru_cache(maxsize=16)
def task_data(task: str, seed: int, recipe: Recipe) -> TaskData:
    """The table and the sequences that the networks of a task share; see `draw_data`."""
    return draw_data(catalog.load(task, recipe), seed, recipe)


def draw_data(found: catalog.Task, seed: int, recipe: Recipe) -> TaskData:
    """The sequences of a task, drawn from seed and task by the rule of the recipe, and what its table makes of them.

    Where each network draws its own training sequences there are none to share: N = 0.
    """
    table = found.table
    train = found.sample(seed, rng.TRAIN_SEQUENCES, recipe.stored_sequences, recipe.steps)
    validation = found.sample(seed, rng.VALIDATION_SEQUENCES, recipe.validation_sequences, recipe.steps)
    data = TaskData(table, train, table.simulate(train), validation, table.simulate(validation))
    for array in (data.train, data.train_outputs, data.validation, data.validation_outputs):
        array.setflags(write=False)  # every network of the process trains on it
    return data


def own_sequences(task: str, seed: int, recipe: Recipe, index: int) -> tuple[Symbols, npt.NDArray[np.uint8]]:
    """Symbols and outputs, uint8 [N, T], of the training sequences that a network draws for itself."""
    found = catalog.load(task, recipe)
    symbols = found.sample(seed, rng.TRAIN_SEQUENCES, recipe.train_sequences, recipe.steps, index)
    return symbols, found.table.simulate(symbols)


def initial_weights(recipe: Recipe, key: rng.Key, index: int) -> Floats:
    """Initial weights of network `index` of the stream `key`, float32 [P]; `shared` are those of network 0."""
    return params.initial(recipe.shape, key, index if recipe.initial == "own" else 0)


def problem(task: str, seed: int, recipe: Recipe, index: int = 0) -> Problem:
    """What a backend needs to train network `index` of a task; the same for all that share their sequences."""
    shared = _shared_problem(task, seed, recipe)
    if recipe.sequences == "shared":
        return shared
    symbols, outputs = own_sequences(task, seed, recipe, index)
    inputs = task_data(task, seed, recipe).table.inputs
    return shared._replace(train=Sequences(inputs[symbols], outputs.astype(np.uint16)))


@lru_cache(maxsize=16)
def _shared_problem(task: str, seed: int, recipe: Recipe) -> Problem:
    return make_problem(task_data(task, seed, recipe), recipe)


def make_problem(data: TaskData, recipe: Recipe) -> Problem:
    """The problem of these sequences under this recipe."""
    train, validation = data.sequences()
    return Problem(recipe.shape, train, validation, recipe.batch, recipe.adam)


class StopRule:
    """Decides after each epoch whether training goes on."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._best = np.inf
        self._best_epoch = 0

    def after(self, epoch: int, validation_loss: float) -> tuple[Status, str] | None:
        """None to go on; else the status and the reason. Epochs count from 1."""
        recipe = self._recipe
        if validation_loss < recipe.threshold:
            return Status.COMPLETE, ""
        if validation_loss < self._best * (1.0 - recipe.patience_gain):
            self._best, self._best_epoch = validation_loss, epoch
        if epoch >= recipe.max_epochs:
            return Status.EPOCH_CAP, f"not below the threshold after {epoch} epochs"
        if recipe.patience and epoch - self._best_epoch >= recipe.patience:
            return Status.STALLED, f"no better validation loss since epoch {self._best_epoch}"
        return None

    def last_epoch(self) -> int:
        """The epoch at which training ends if no validation loss is better than those seen so far."""
        recipe = self._recipe
        return min(recipe.max_epochs, self._best_epoch + recipe.patience) if recipe.patience else recipe.max_epochs


def train_networks(
    backend: Backend, task: str, seed: int, recipe: Recipe, indices: range, checkpoints: tuple[int, ...] = ()
) -> Iterator[Outcome]:
    """Train the networks of these indices, one after another."""
    key = catalog.load(task, recipe).stream_key(seed)
    for index in indices:
        yield train_network(backend, problem(task, seed, recipe, index), recipe, key, index, checkpoints)


def train_network(
    backend: Backend, setting: Problem, recipe: Recipe, key: rng.Key, index: int, checkpoints: tuple[int, ...] = ()
) -> Outcome:
    """Train one network to its end.

    Args:
        backend: what to train on.
        setting: the sequences and the rest of the problem.
        recipe: when to stop, and the learning rate of each epoch.
        key: the key of the streams that initial weights and orders are drawn from.
        index: which network.
        checkpoints: epochs at whose end weights are kept, ascending; 0 is before the first.
    """
    start = time.perf_counter()
    initial = initial_weights(recipe, key, index)
    network = backend.network(setting, initial)
    trainee = _Trainee(index, recipe, initial, checkpoints)
    outcome = None
    while outcome is None:
        epoch, before = trainee.epochs + 1, network.weights
        losses = network.epoch(rng.permutation(key, index, epoch, recipe.train_sequences), recipe.lr_at(epoch))
        validation_loss = network.validation_loss()
        weights = network.weights
        what, step = _not_finite(losses, weights, validation_loss)
        if what:
            stretch, weights = Stretch(_NOTHING, _NOTHING, what, step), before
        else:
            stretch = Stretch(np.array([mean(losses)]), np.array([validation_loss]), "", 0)
        outcome = trainee.add(stretch, 0.0, partial(np.asarray, weights))
    return replace(outcome, seconds=time.perf_counter() - start)


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
        stored = np.array(self._kept, np.float32).reshape(-1, self._recipe.shape.size)
        return Outcome(self._index, *self._verdict, weights(), *record, stored, self._seconds)


# ------------------------------------------------------------------ many at once


def require_population(recipe: Recipe) -> None:
    """Complain of a recipe that backends for populations do not train: on a device the networks of a task share sequences.

    Raises:
        UsageError: it is one.
    """
    if recipe.sequences == "own":
        raise UsageError("networks that draw their own sequences are trained on the CPU only; use --backend cpu")


def train_population(
    backend: PopulationBackend,
    seed: int,
    recipe: Recipe,
    wanted: Iterable[tuple[str, int]],
    checkpoints: tuple[int, ...] = (),
    most: int = 2**31 - 1,
) -> Iterator[list[tuple[str, Outcome]]]:
    """Train networks side by side on a backend for populations; the same networks as `train_network` makes.

    While the device computes, the caller has the time to store what was yielded.

    Args:
        backend: what to train on.
        seed: seed of the dataset.
        recipe: how they are made; their sequences are shared.
        wanted: task and index of each network, in the order in which they are begun.
        checkpoints: as in `train_network`.
        most: networks that are under way at the same time at most.

    Yields:
        Task and outcome of the networks that have ended since, also when that is none; about once a second, or as often as
        all of them train an epoch, if that takes longer.

    Raises:
        UsageError: a recipe that such backends do not train.
    """
    require_population(recipe)
    wanted = list(wanted)
    numbers = {task: number for number, task in enumerate(dict.fromkeys(task for task, _ in wanted))}
    keys = [catalog.load(task, recipe).stream_key(seed) for task in numbers]
    problems = [problem(task, seed, recipe) for task in numbers]
    population = backend.population(problems, keys, recipe.lr_at, recipe.threshold, min(most, len(wanted)))
    waiting = iter(wanted)
    ready: deque[tuple[int, int, Floats]] = deque()
    seats: dict[int, tuple[int, _Trainee]] = {}  # place -> task and record
    finished: list[tuple[str, Outcome]] = []
    names = list(numbers)
    longest = 1
    while True:
        _prepare(ready, waiting, numbers, keys, recipe, population.places - len(seats))
        for place in range(population.places):
            if place not in seats and ready:
                task, index, initial = ready.popleft()
                population.admit(place, initial)
                seats[place] = task, _Trainee(index, recipe, initial, checkpoints)
        if not seats:
            yield finished
            return
        jobs = [trainee.job(place, task, longest) for place, (task, trainee) in seats.items()]
        population.start(jobs)
        yield finished
        _prepare(ready, waiting, numbers, keys, recipe, len(seats))
        stretches = population.finish()
        finished = []
        epochs = [max(1, stretch.train_losses.size) for stretch in stretches]
        for job, stretch, trained in zip(jobs, stretches, epochs, strict=True):
            share = population.seconds * trained / sum(epochs)
            outcome = seats[job.place][1].add(stretch, share, partial(population.weights, job.place))
            if outcome is not None:
                finished.append((names[job.task], outcome))
                del seats[job.place]
        longest = max(1, min(LONGEST_JOB, round(_SECONDS_PER_JOB * max(epochs) / population.seconds)))


def _prepare(
    ready: deque[tuple[int, int, Floats]],
    waiting: Iterator[tuple[str, int]],
    numbers: dict[str, int],
    keys: list[rng.Key],
    recipe: Recipe,
    count: int,
) -> None:
    """Have the initial weights of the next `count` networks ready, as far as there are any."""
    for task, index in islice(waiting, max(0, count - len(ready))):
        ready.append((numbers[task], index, initial_weights(recipe, keys[numbers[task]], index)))


# ------------------------------------------------------------------


def mean(losses: Floats) -> np.float32:
    """Mean of the minibatch losses, added one after another in float32 (NumPy's own sum has no fixed order)."""
    return np.float32(np.add.accumulate(losses)[-1] * np.float32(1.0 / losses.size))


def _not_finite(losses: Floats, weights: Floats, validation_loss: np.float32) -> tuple[str, int]:
    """What is not finite in an epoch, and the step after which that was found; "" and 0 if all is."""
    broken = np.flatnonzero(~np.isfinite(losses))
    if broken.size:
        return "training loss", int(broken[0]) + 1
    if not np.isfinite(weights).all():
        return "weights", losses.size
    if not np.isfinite(validation_loss):
        return "validation loss", losses.size
    return "", 0
