"""Units, small blocks of indices of one task: the order to a worker, its work, and the check of what it gives back."""

import math
import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from multiprocessing import connection, parent_process
from typing import Any, NamedTuple

import numpy as np

from tinymlds import __version__
from tinymlds.architectures import Architecture
from tinymlds.errors import TinymldsError
from tinymlds.kernels import NUMERICS
from tinymlds.kernels.optimizers import Optimizer
from tinymlds.kernels.problem import check_arithmetic
from tinymlds.spec import Recipe, Setting
from tinymlds.training import backends
from tinymlds.training.loop import Outcome, Status, train_networks

DEATHS_UNTIL_ALONE = 2


@dataclass(frozen=True)
class Unit:
    """An order for networks `start` ... `stop` - 1 of a task, or every `step`-th of them, with all that a worker needs."""

    setting: Setting
    backend: str
    start: int
    stop: int
    checkpoints: tuple[int, ...] = ()
    causes: tuple[str, ...] = ()
    """The causes of deaths of workers that this unit may have brought about."""
    step: int = 1

    @property
    def task(self) -> str:
        """The task of its networks."""
        return self.setting.task

    @property
    def recipe(self) -> Recipe:
        """The recipe of its networks."""
        return self.setting.recipe

    @property
    def indices(self) -> range:
        """Indices of its networks."""
        return range(self.start, self.stop, self.step)

    @property
    def end(self) -> int:
        """One more than the last index."""
        return self.indices[-1] + 1

    @property
    def deaths(self) -> int:
        """Number of deaths of workers that this unit may have brought about."""
        return len(self.causes)

    @property
    def is_suspect(self) -> bool:
        """The unit has to run alone."""
        return self.deaths >= DEATHS_UNTIL_ALONE

    @property
    def reason(self) -> str:
        """The reason for its quarantine."""
        first = self.causes[0]
        return f"{first} ({self.deaths} times)" if set(self.causes) == {first} else "; ".join(self.causes)

    def singles(self, cause: str) -> list["Unit"]:
        """Return the same networks as units of one, each with one more death to its name."""
        causes = (*self.causes, cause)
        return [replace(self, start=k, stop=k + 1, causes=causes) for k in self.indices]


def train_unit(unit: Unit) -> list[Outcome]:
    """Train the networks of a unit. Runs in a worker."""
    target = _prepared(unit.backend, unit.recipe.architecture, unit.recipe.optimizer)
    return list(train_networks(target, unit.setting, unit.indices, unit.checkpoints))


@lru_cache
def _prepared(name: str, architecture: Architecture, optimizer: Optimizer) -> backends.Backend:
    """A backend with compiled kernels in this process, so that what networks take is what training takes."""
    target = backends.load(name)
    target.prepare(architecture, optimizer)
    return target


def check_outcomes(unit: Unit, outcomes: Any, worker: str) -> None:
    """Raise TinymldsError unless these are the networks of the unit, as far as one can tell without training them."""
    indices = unit.indices
    if not isinstance(outcomes, list) or len(outcomes) != len(indices):
        raise TinymldsError(f"worker {worker} gave back no list of {len(indices)} networks; finished networks are safe")
    for index, outcome in zip(indices, outcomes, strict=True):
        if wrong := _what_is_wrong(unit, index, outcome):
            raise TinymldsError(f"worker {worker} gave back {unit.task} {index} with {wrong}; finished networks are safe")


def _what_is_wrong(unit: Unit, index: int, outcome: Any) -> str:
    if not isinstance(outcome, Outcome) or type(outcome.index) is not int or outcome.index != index:
        return "another index"
    if not (isinstance(outcome.status, Status) and isinstance(outcome.reason, str)):
        return "no status"
    if type(outcome.seconds) is not float or not 0.0 <= outcome.seconds < math.inf:
        return "no duration"
    size = unit.recipe.architecture.size
    losses, kept = (np.size(outcome.validation_losses),), (len(np.atleast_1d(outcome.checkpoints)), size)
    if losses[0] > unit.recipe.max_epochs or kept[0] > len(unit.checkpoints):
        return "more epochs or checkpoints than were asked for"
    arrays = (outcome.weights, (size,)), (outcome.train_losses, losses), (outcome.validation_losses, losses)
    for array, shape in (*arrays, (outcome.checkpoints, kept)):
        if not isinstance(array, np.ndarray) or array.dtype != np.float32 or array.shape != shape:
            return "arrays of another shape or type"
        if not np.isfinite(array).all():
            return "numbers that are not finite"
    return ""


# ------------------------------------------------------------------ in a worker


class Done(NamedTuple):
    """The result of a worker."""

    worker: str
    """Name of the worker: host and process, the thread if there are several, or the name in a cluster."""
    result: Any


TOLD = struct.Struct("<qq")
"""The message of a worker that begins a call: its process and the ticket of the call."""

_tell: connection.Connection
"""The pipe for these messages; set when the worker starts."""


def name_of(process: int) -> str:
    """Return the name of a process of this host."""
    return f"{socket.gethostname()}:{process}"


def work_here(work: Callable[[Any], Any], unit: Any) -> Done:
    """Do the work in this process."""
    return Done(name_of(os.getpid()), work(unit))


def work_in_process(ticket: int, work: Callable[[Any], Any], unit: Any) -> Done:
    """Do the work in a process of our own pool, and tell the parent that it has begun."""
    _tell.send_bytes(TOLD.pack(os.getpid(), ticket))
    return work_here(work, unit)


class Compatibility(NamedTuple):
    """The properties that all processes must share that make networks of one dataset."""

    version: str
    """The version of tinymlds."""
    numerics: int


COMPATIBILITY = Compatibility(__version__, NUMERICS)


def check_compatibility(asked: Compatibility, worker: str) -> None:
    """Raise TinymldsError if this process is another version, or does not do IEEE arithmetic."""
    if asked != COMPATIBILITY:
        have, want = (f"tinymlds {each.version} with numerics {each.numerics}" for each in (COMPATIBILITY, asked))
        raise TinymldsError(f"worker {worker} has {have}, and this is {want}; install the same there")
    try:
        check_arithmetic()
    except ArithmeticError as error:
        raise TinymldsError(f"worker {worker} cannot be used: {error}") from error


def work_elsewhere(
    asked: Compatibility, work: Callable[[Any], Any], unit: Any, begin: Callable[[str], None] = lambda _name: None
) -> Done:
    """Do the work in the process or thread in which an executor runs this; `begin` is called with the worker's name."""
    thread = threading.current_thread()
    name = name_of(os.getpid()) + ("" if thread is threading.main_thread() else f":{thread.name}")
    check_compatibility(asked, name)
    begin(name)
    return Done(name, work(unit))


def begin_worker(stop: connection.Connection, tell: connection.Connection, backend_name: str, recipe: Recipe) -> None:
    """Set up a worker: the parent alone answers Ctrl-C; compiled kernels are loaded before the first unit is."""
    global _tell
    _tell = tell
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    watched: list[Any] = [stop] if parent is None else [stop, parent.sentinel]

    def exit_with_parent() -> None:
        connection.wait(watched)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    try:
        backends.load(backend_name).prepare(recipe.architecture, recipe.optimizer)
    except Exception as error:
        print(f"tinymlds: a worker cannot start: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
