"""Trains networks of one task on a backend: epochs, validation, the stop rule, the record. No files, no processes."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tinymlds import params, tasks
from tinymlds.kernels import rng
from tinymlds.kernels.backend import Backend
from tinymlds.kernels.problem import Problem, Sequences
from tinymlds.mealy import Mealy, Symbols
from tinymlds.spec import Recipe

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


def expected_epochs(task: str, recipe: Recipe) -> tuple[float, float] | None:
    """Mean and standard deviation of the epochs of a network; None for a recipe that nobody has tried."""
    if replace(recipe, matched=False) != Recipe():
        return None
    return _EPOCHS["transducer" if tasks.is_transducer(task) else task]


@lru_cache(maxsize=16)
def task_data(task: str, seed: int, recipe: Recipe) -> TaskData:
    """The table and the sequences of a task; see `draw_data`."""
    return draw_data(tasks.load(task, recipe), seed, recipe)


def draw_data(found: tasks.Task, seed: int, recipe: Recipe) -> TaskData:
    """The sequences of a task, drawn from seed and task by the rule of the recipe, and what its table makes of them."""
    table = found.table
    train = found.sample(seed, rng.TRAIN_SEQUENCES, recipe.train_sequences, recipe.steps)
    validation = found.sample(seed, rng.VALIDATION_SEQUENCES, recipe.validation_sequences, recipe.steps)
    data = TaskData(table, train, table.simulate(train), validation, table.simulate(validation))
    for array in (data.train, data.train_outputs, data.validation, data.validation_outputs):
        array.setflags(write=False)  # every network of the process trains on it
    return data


@lru_cache(maxsize=16)
def problem(task: str, seed: int, recipe: Recipe) -> Problem:
    """What a backend needs to train networks of a task."""
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


def train_networks(
    backend: Backend, task: str, seed: int, recipe: Recipe, indices: range, checkpoints: tuple[int, ...] = ()
) -> Iterator[Outcome]:
    """Train the networks of these indices, one after another."""
    key = tasks.load(task, recipe).stream_key(seed)
    for index in indices:
        yield train_network(backend, problem(task, seed, recipe), recipe, key, index, checkpoints)


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
    initial = params.initial(recipe.shape, key, index)
    network = backend.network(setting, initial)
    rule = StopRule(recipe)
    kept = [initial] if 0 in checkpoints else []
    train_losses: list[np.float32] = []
    validation_losses: list[np.float32] = []
    verdict: tuple[Status, str] | None = None
    while verdict is None:
        epoch = len(validation_losses) + 1
        before = network.weights
        losses = network.epoch(rng.permutation(key, index, epoch, recipe.train_sequences), recipe.lr_at(epoch))
        validation_loss = network.validation_loss()
        weights = network.weights
        if reason := _not_finite(losses, weights, validation_loss, (epoch - 1) * losses.size):
            verdict, weights = (Status.DIVERGED, reason), before
        else:
            train_losses.append(mean(losses))
            validation_losses.append(validation_loss)
            verdict = rule.after(epoch, float(validation_loss))
            if epoch in checkpoints:
                kept.append(weights)
    record = np.array(train_losses, np.float32), np.array(validation_losses, np.float32)
    stored = np.array(kept, np.float32).reshape(-1, recipe.shape.size)
    return Outcome(index, *verdict, weights, *record, stored, time.perf_counter() - start)


def mean(losses: Floats) -> np.float32:
    """Mean of the minibatch losses, added one after another in float32 (NumPy's own sum has no fixed order)."""
    return np.float32(np.add.accumulate(losses)[-1] * np.float32(1.0 / losses.size))


def _not_finite(losses: Floats, weights: Floats, validation_loss: np.float32, steps_before: int) -> str:
    """Why an epoch counts as diverged, or "" if all is finite."""
    broken = np.flatnonzero(~np.isfinite(losses))
    if broken.size:
        return f"training loss is not finite at step {steps_before + int(broken[0]) + 1}"
    if not np.isfinite(weights).all():
        return f"weights are not finite after step {steps_before + losses.size}"
    if not np.isfinite(validation_loss):
        return f"validation loss is not finite after step {steps_before + losses.size}"
    return ""
