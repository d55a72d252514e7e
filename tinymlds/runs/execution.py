"""A run: trains what is missing on a pool of workers or on a device, and keeps every finished network in the journal."""

import math
import os
import platform
import socket
import time
from collections import Counter
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import metadata
from operator import itemgetter
from typing import Any

from tinymlds.dataset.activity import RunState
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.errors import TinymldsError, UsageError
from tinymlds.kernels.problem import check_arithmetic
from tinymlds.runs.pools import ExecutorPool, Pool, make_pool
from tinymlds.runs.supervisor import Supervisor
from tinymlds.runs.units import Unit
from tinymlds.spec import LARGEST_COUNT, Recipe
from tinymlds.training import backends
from tinymlds.training.backends import DeviceBackend
from tinymlds.training.data import EPOCHS_FROM, expected_epochs
from tinymlds.training.loop import Outcome, train_population

EXECUTORS = ("processes", "threads", "dask")
_SECONDS_BETWEEN_NOTES = 5.0
"""A run records its state at least this often while nothing gets finished."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run."""

    done: int
    """Number of networks finished, in earlier runs too."""
    total: int
    made: int
    """Number of networks finished by this run."""
    epochs: int
    """Number of epochs trained by this run, in finished networks."""
    seconds: float
    """Seconds since this run started."""
    seconds_left: float
    """Forecast of the seconds that remain; infinite before the first network."""
    workers: int = 1
    """Number of networks that are trained at the same time; 0 while a cluster has no workers."""
    compiles: bool = False
    """The first network waits for kernels to be compiled, by workers on this machine."""

    @property
    def rate(self) -> float:
        """Networks per second of this run."""
        return self.made / self.seconds if self.seconds else 0.0

    def and_then(self, more: "Progress") -> "Progress":
        """Add the progress of a run that went on, with networks that were found damaged."""
        sums = {name: getattr(self, name) + getattr(more, name) for name in ("made", "epochs", "seconds")}
        return replace(more, **sums)


@dataclass(frozen=True)
class Resources:
    """The resources of a run: backend, workers and executor."""

    backend: str
    workers: int
    """Number of workers; a Dask cluster works with all that it has."""
    executor: str | Executor
    scheduler: str | None = None


def check_resources(
    backend: str = "cpu", workers: int | None = None, executor: str | Executor = "processes", scheduler: str | None = None
) -> Resources:
    """Check and complete resources; `workers` None is one for each CPU, or as many as a device or an executor has.

    What there is not, and a process that does not do IEEE arithmetic, is a UsageError.
    """
    if backend != "cpu" and executor != "processes":
        raise UsageError(f"with backend {backend} networks train side by side in this process; leave out executor")
    try:
        check_arithmetic()
        population = backends.load_device(backend)
        if population is None:
            backends.load(backend)
    except (ValueError, ArithmeticError, RuntimeError) as error:
        raise UsageError(str(error)) from error
    if not isinstance(executor, Executor) and executor not in EXECUTORS:
        raise UsageError(f"there is no executor {executor!r}; choose one of {', '.join(EXECUTORS)}")
    if (executor == "dask") != (scheduler is not None):
        raise UsageError("executor dask, and no other, needs the address of a scheduler: --scheduler tcp://HOST:PORT")
    if executor == "dask":
        from tinymlds.runs import clusters

        clusters.require_address(str(scheduler))
        if workers is not None:
            raise UsageError("a Dask cluster works with all workers that it has; leave out workers")
    if workers is None:
        own = getattr(executor, "_max_workers", None)  # of an executor that says so
        most = own if isinstance(own, int) and own > 0 else available_cpus()
        workers = most if population is None else LARGEST_COUNT
    if type(workers) is not int:
        raise UsageError(f"workers must be a whole number, not {workers!r}")
    if workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")
    return Resources(backend, workers, executor, scheduler)


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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


def fill(
    journal: Journal, gaps: list[tuple[str, range]], resources: Resources, report: Callable[[Progress], None]
) -> Progress:
    """Train what is missing (runs of indices by task), and keep it in the journal."""
    spec, total = journal.spec, journal.spec.networks
    journal.clear_quarantine()
    eta = Eta(gaps, spec.recipe)
    left = eta.networks_left
    state = Progress(total - left, total, 0, 0, 0.0, math.inf if left else 0.0)
    if not left:
        return state
    population = backends.load_device(resources.backend)
    if population is None and resources.executor in ("processes", "threads"):
        state = replace(state, compiles=_compiles(spec.recipe))
    resources = replace(resources, workers=min(resources.workers, left))
    run = journal.start_run(_run_info(resources, population.device if population else None))
    units = [
        Unit(spec.setting(task), resources.backend, gap.start, gap.stop, spec.checkpoints, step=gap.step)
        for task, gap in gaps
    ]
    start = latest = noted = time.monotonic()
    report(state)
    if population is None:
        batches = _on_workers(journal, run, units, resources)
    else:
        batches = _side_by_side(population, run, units, resources.workers)
    with closing(batches):
        for made, now in batches:
            finished = time.time()
            entries = [Entry(task, run, outcome, finished, worker) for task, outcome, worker in made]
            eta.add(entries)
            if entries:
                latest = time.monotonic()
            seconds_left = eta.seconds_left(now.workers, time.monotonic() - latest)
            if entries or now.deaths or time.monotonic() - noted > _SECONDS_BETWEEN_NOTES:
                noted = time.monotonic()
                journal.add(entries, now._replace(seconds_left=seconds_left if math.isfinite(seconds_left) else None))
            state = Progress(
                state.done + len(entries),
                total,
                state.made + len(entries),
                state.epochs + sum(entry.outcome.epochs for entry in entries),
                time.monotonic() - start,
                seconds_left,
                now.workers,
                state.compiles,
            )
            report(state)
    return state


def _compiles(recipe: Recipe) -> bool:
    from tinymlds.kernels import minibatch  # Numba takes a second to import

    return minibatch.compiles(recipe.architecture, type(recipe.optimizer))


_Batches = Generator[tuple[list[tuple[str, Outcome, str]], RunState]]
"""About two a second: task, outcome and worker's name of each network finished since the last, and how the run goes."""


def _on_workers(journal: Journal, run: int, units: list[Unit], resources: Resources) -> _Batches:
    pool = _make_pool(resources, units[0].recipe)
    supervisor = Supervisor(units, pool)
    try:
        for finished in supervisor.run():
            made = [(done.unit.task, outcome, done.worker) for done in finished for outcome in done.outcomes]
            deaths, supervisor.deaths = supervisor.deaths, []
            yield made, RunState(run, pool.workers, None, supervisor.under_way(), deaths)
    finally:
        pool.end()
        for unit in supervisor.quarantined:
            journal.quarantine(unit.task, unit.start, unit.reason)


def _make_pool(resources: Resources, recipe: Recipe) -> Pool:
    if isinstance(resources.executor, Executor):
        return ExecutorPool(resources.executor, resources.workers)
    if resources.executor == "threads":
        return ExecutorPool(ThreadPoolExecutor(resources.workers, "worker"), resources.workers, ours=True)
    if resources.executor == "dask":
        from tinymlds.runs import clusters

        return clusters.DaskPool(str(resources.scheduler))
    return make_pool(resources.workers, resources.backend, recipe)


def _side_by_side(population: DeviceBackend, run: int, units: list[Unit], most: int) -> _Batches:
    """Train up to `most` networks at once on a device; the lowest index first, so that all tasks advance together."""
    wanted = sorted(((unit.setting, index) for unit in units for index in unit.indices), key=itemgetter(1))
    try:
        worker = f"{socket.gethostname()}:{os.getpid()}"
        for batch in train_population(population, wanted, units[0].checkpoints, most):
            yield [(task, outcome, worker) for task, outcome in batch], RunState(run, 1, None, [], [])
    except (RuntimeError, ArithmeticError) as error:
        raise TinymldsError(f"{error}; finished networks are safe") from error


def _run_info(resources: Resources, device: str | None) -> dict[str, Any]:
    """Return what is recorded of a run: it may differ between runs, and never reaches a weight."""
    names = ("tinymlds", "numpy", "numba", "llvmlite", "numba-cuda", "safetensors", "distributed")
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
        "backend": resources.backend,
        "device": device,
        "executor": resources.executor if isinstance(resources.executor, str) else type(resources.executor).__name__,
        "workers": None if resources.executor == "dask" else resources.workers,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return None
