"""A run: trains what is missing on a pool of workers or on a device, and keeps every finished network in the journal."""

import math
import platform
import socket
import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from operator import itemgetter
from typing import Any

from tinymlds.errors import TinymldsError
from tinymlds.journal import Entry, Journal
from tinymlds.kernels import backend as backends
from tinymlds.kernels.backend import PopulationBackend
from tinymlds.pace import Forecast
from tinymlds.pools import make_pool
from tinymlds.training import Outcome, train_population
from tinymlds.workers import Supervisor, Unit


@dataclass(frozen=True)
class Progress:
    """How far a run is."""

    done: int
    """Networks finished, those of earlier runs included."""
    total: int
    made: int
    """Networks finished by this run."""
    epochs: int
    """Epochs trained by this run, in finished networks."""
    seconds: float
    """Since this run started."""
    seconds_left: float
    """Forecast; infinite before the first network."""

    @property
    def rate(self) -> float:
        """Networks per second of this run."""
        return self.made / self.seconds if self.seconds else 0.0


def fill(
    journal: Journal,
    gaps: list[tuple[str, range]],
    backend: str,
    workers: int,
    report: Callable[[Progress], None],
) -> Progress:
    """Train what is missing (runs of indices by task), and keep it in the journal."""
    spec, total = journal.spec, journal.spec.networks
    journal.clear_quarantine()
    forecast = Forecast(gaps, spec.recipe)
    left = forecast.networks_left
    state = Progress(total - left, total, 0, 0, 0.0, math.inf if left else 0.0)
    if not left:
        return state
    population = backends.load_population(backend)
    workers = min(workers, left)
    run = journal.start_run(_run_info(backend, workers, population.device if population else None))
    units = [
        Unit(task, spec.seed, spec.recipe, backend, gap.start, gap.stop, spec.checkpoints, step=gap.step)
        for task, gap in gaps
    ]
    start = latest = time.monotonic()
    report(state)
    batches = _on_workers(journal, units, workers) if population is None else _side_by_side(population, units, workers)
    with closing(batches):
        for batch in batches:
            now = time.time()
            entries = [Entry(task, run, outcome, now) for task, outcome in batch]
            if entries:
                journal.add(entries)
                latest = time.monotonic()
            forecast.add(entries)
            state = Progress(
                state.done + len(entries),
                total,
                state.made + len(entries),
                state.epochs + sum(entry.outcome.epochs for entry in entries),
                time.monotonic() - start,
                forecast.seconds_left(workers if population is None else 1, time.monotonic() - latest),
            )
            report(state)
    return state


Batches = Generator[list[tuple[str, Outcome]]]
"""Tasks and outcomes of what has finished, about once a second."""


def _on_workers(journal: Journal, units: list[Unit], workers: int) -> Batches:
    """Train on a pool of processes, each one network at a time."""
    pool = make_pool(workers, units[0].backend, units[0].recipe)
    supervisor = Supervisor(units, pool, workers)
    try:
        for batch in supervisor.run():
            yield [(unit.task, outcome) for unit, outcomes in batch for outcome in outcomes]
    finally:
        pool.end()
        for unit in supervisor.quarantined:
            journal.quarantine(unit.task, unit.start, unit.reason)


def _side_by_side(population: PopulationBackend, units: list[Unit], most: int) -> Batches:
    """Train up to `most` networks at once on a device; the lowest index first, so that all tasks advance together.

    Raises:
        TinymldsError: the device failed.
    """
    wanted = sorted(((unit.task, index) for unit in units for index in unit.indices), key=itemgetter(1))
    one = units[0]
    try:
        yield from train_population(population, one.seed, one.recipe, wanted, one.checkpoints, most)
    except (RuntimeError, ArithmeticError) as error:
        raise TinymldsError(f"{error}; finished networks are safe") from error


def _run_info(backend: str, workers: int, device: str | None) -> dict[str, Any]:
    """What may differ between runs and never reaches a weight."""
    names = ("tinymlds", "numpy", "numba", "llvmlite", "numba-cuda", "safetensors")
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
        "backend": backend,
        "device": device,
        "workers": workers,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return None
