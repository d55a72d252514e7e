"""A run: trains what is missing on a pool of workers or on a device, and keeps every finished network in the journal."""

import math
import os
import platform
import socket
import time
from collections.abc import Callable, Generator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from importlib import metadata
from operator import itemgetter
from typing import Any

from tinymlds.dataset.activity import Death, RunState, UnderWay
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.errors import TinymldsError, UsageError
from tinymlds.kernels.problem import check_arithmetic
from tinymlds.runs.eta import Eta
from tinymlds.runs.pools import ExecutorPool, Pool, make_pool
from tinymlds.runs.supervisor import Supervisor
from tinymlds.runs.units import Unit
from tinymlds.spec import LARGEST_COUNT, Recipe
from tinymlds.training import backends
from tinymlds.training.backends import DeviceBackend
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

    @property
    def name(self) -> str:
        """Name of the executor."""
        return self.executor if isinstance(self.executor, str) else type(self.executor).__name__


def check_resources(
    backend: str = "cpu", workers: int | None = None, executor: str | Executor = "processes", scheduler: str | None = None
) -> Resources:
    """Check and complete resources; `workers` None is one for each CPU, or as many as a device or an executor has.

    Raises:
        UsageError: no such backend or executor, no device or package for it, less than one worker, or a process that does
            not do IEEE arithmetic.
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
        workers = _most_workers(executor) if population is None else LARGEST_COUNT
    if type(workers) is not int:
        raise UsageError(f"workers must be a whole number, not {workers!r}")
    if workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")
    return Resources(backend, workers, executor, scheduler)


def _most_workers(executor: str | Executor) -> int:
    """Return the number of workers of an executor if it says so, or else of CPUs."""
    known = getattr(executor, "_max_workers", None)
    return known if isinstance(known, int) and known > 0 else available_cpus()


def available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


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
    resources = replace(resources, workers=min(resources.workers, left))
    run = journal.start_run(_run_info(resources, population.device if population else None))
    units = [
        Unit(spec.setting(task), resources.backend, gap.start, gap.stop, spec.checkpoints, step=gap.step)
        for task, gap in gaps
    ]
    start = latest = noted = time.monotonic()
    report(state)
    if population is None:
        batches = _on_workers(journal, units, resources)
    else:
        batches = _side_by_side(population, units, resources.workers)
    with closing(batches):
        for batch in batches:
            now = time.time()
            entries = [Entry(task, run, outcome, now, worker) for task, outcome, worker in batch.made]
            eta.add(entries)
            if entries:
                latest = time.monotonic()
            seconds_left = eta.seconds_left(batch.workers, time.monotonic() - latest)
            if entries or batch.deaths or time.monotonic() - noted > _SECONDS_BETWEEN_NOTES:
                noted = time.monotonic()
                left_or_none = seconds_left if math.isfinite(seconds_left) else None
                journal.add(entries, RunState(run, batch.workers, left_or_none, batch.under_way, batch.deaths))
            state = Progress(
                state.done + len(entries),
                total,
                state.made + len(entries),
                state.epochs + sum(entry.outcome.epochs for entry in entries),
                time.monotonic() - start,
                seconds_left,
                batch.workers,
            )
            report(state)
    return state


@dataclass(frozen=True)
class _Batch:
    """The networks finished since the last batch, and the state of the run."""

    made: list[tuple[str, Outcome, str]]
    """Task, outcome, and the worker's name."""
    workers: int = 1
    under_way: list[UnderWay] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)


_Batches = Generator[_Batch]
"""Batches, about two a second."""


def _on_workers(journal: Journal, units: list[Unit], resources: Resources) -> _Batches:
    """Train on a pool of workers, each one network at a time."""
    pool = _make_pool(resources, units[0].recipe)
    supervisor = Supervisor(units, pool)
    try:
        for finished in supervisor.run():
            made = [(done.unit.task, outcome, done.worker) for done in finished for outcome in done.outcomes]
            deaths, supervisor.deaths = supervisor.deaths, []
            yield _Batch(made, pool.workers, supervisor.under_way(), deaths)
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


def _side_by_side(population: DeviceBackend, units: list[Unit], most: int) -> _Batches:
    """Train up to `most` networks at once on a device; the lowest index first, so that all tasks advance together."""
    wanted = sorted(((unit.setting, index) for unit in units for index in unit.indices), key=itemgetter(1))
    try:
        worker = f"{socket.gethostname()}:{os.getpid()}"
        for batch in train_population(population, wanted, units[0].checkpoints, most):
            yield _Batch([(task, outcome, worker) for task, outcome in batch])
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
        "executor": resources.name,
        "workers": None if resources.executor == "dask" else resources.workers,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return None
