"""The forecast of a run before it starts: networks, bytes and a range for the time (`tinymlds train --dry-run`)."""

import math
import os
import shutil
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tinymlds.dataset import overview
from tinymlds.dataset.schema import graph_files
from tinymlds.errors import TinymldsError
from tinymlds.kernels.problem import Job
from tinymlds.runs.execution import Resources
from tinymlds.runs.pools import make_pool
from tinymlds.runs.train import Request, check_folder
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import catalog
from tinymlds.training import backends
from tinymlds.training.data import EPOCHS_FROM, expected_epochs, initial_weights, problem
from tinymlds.training.loop import require_backend

_TRIAL_SECONDS = 3.0
_MACHINE = 0.8, 1.35
"""Time that a long run takes on a machine, at least and at most, in units of the time that the trial forecasts."""
_ROW_BYTES = 900
"""A row of the manifest with its row of the provenance, roughly."""
_MEETING_SECONDS = 0.2


@dataclass(frozen=True)
class Forecast:
    """The forecast of a run."""

    folder: Path
    tasks: int
    networks: int
    """Number of networks to make."""
    there: int
    """Number of networks made before."""
    bytes: int
    """Size of the whole folder when it is sealed."""
    journal_bytes: int
    """Size of the journal, which is there beside the folder's files until it is sealed."""
    free: int
    """Bytes that are free where the folder will be."""
    epochs_per_second: float | None
    """Speed of all workers together, measured for some seconds; None if there is nothing to make."""
    seconds: tuple[float, float]
    """Least and most that the run is expected to take."""
    known: bool
    """The forecast rests on numbers of epochs of the recipe asked for, not of the default one."""


def forecast(request: Request, folder: Path, resources: Resources) -> Forecast:
    """Forecast what `train` would make of a request; trains for some seconds on every worker, and writes nothing."""
    check_folder(folder)
    found = overview.status(folder) if folder.is_dir() and any(folder.iterdir()) else None
    spec = request.spec_for(found.spec if found else None, folder)
    there = {task: found.counts[task].total() if found else 0 for task, _ in spec.tasks}
    counts = spec.counts
    missing = {task: count - there[task] for task, count in counts.items()}
    left = sum(missing.values())
    known = all(expected_epochs(task, spec.recipe) for task in missing)
    epochs = {task: expected_epochs(task, Recipe()) or (0.0, 0.0) for task in missing}
    speed, seconds = None, (0.0, 0.0)
    if left:
        speed = epochs_per_second(spec.setting(spec.tasks[0][0]), resources.backend, min(resources.workers, left))
        low, high = _epochs_range(missing, epochs)
        seconds = low / speed * _MACHINE[0], high / speed * _MACHINE[1]
    recipe = spec.recipe
    network = 4 * recipe.architecture.size * (1 + len(spec.checkpoints)) + _ROW_BYTES
    networks, new = (
        sum(round(count * (network + 8 * epochs[task][0])) for task, count in each.items()) for each in (counts, missing)
    )
    size = sum(_task_bytes(spec.setting(task)) for task, _ in spec.tasks) + networks
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    return Forecast(folder, len(spec.tasks), left, spec.networks - left, size, new, free, speed, seconds, known)


def _epochs_range(missing: dict[str, int], epochs: dict[str, tuple[float, float]]) -> tuple[float, float]:
    """Two standard deviations around the epochs expected of all networks.

    Two things are uncertain: how networks scatter about the mean of their task, and that mean itself, which comes from
    `EPOCHS_FROM` networks and is the same for all transducers.
    """
    mean = sum(number * epochs[task][0] for task, number in missing.items())
    pooled: Counter[tuple[float, float]] = Counter()
    for task, number in missing.items():
        pooled[epochs[task]] += number
    variance = sum((number + number**2 / EPOCHS_FROM) * deviation**2 for (_, deviation), number in pooled.items())
    return max(0.0, mean - 2.0 * math.sqrt(variance)), mean + 2.0 * math.sqrt(variance)


def _task_bytes(setting: Setting) -> int:
    """Return the size of the sequences, the table and the graphs of a task."""
    found, recipe = catalog.load(setting), setting.recipe
    sequences = 2 * (recipe.stored_sequences + recipe.validation_sequences) * recipe.steps
    return sequences + 3 * found.table.next_state.size + sum(len(text) for text in graph_files(found).values())


def epochs_per_second(setting: Setting, backend: str, workers: int) -> float:
    """Measure for some seconds the speed of all workers together."""
    if (population := backends.load_device(backend)) is not None:
        try:
            return _population_trial(population, setting, workers)
        except (RuntimeError, ArithmeticError) as error:
            raise TinymldsError(str(error)) from error
    pool = make_pool(workers, backend, setting.recipe)
    try:
        pool.wait_for_start()
        met: set[int] = set()
        while len(met) < workers:  # compiled kernels are loaded when a worker starts, one after the other
            met |= {call.result() for call in [pool.submit(_meet) for _ in range(workers)]}
        trials = [pool.submit(_trial, setting, backend) for _ in range(workers)]
        return float(sum(trial.result() for trial in trials))
    finally:
        pool.end()


def _meet() -> int:
    """Return the process that this ran in, after keeping it busy, so that others have to take the other calls."""
    time.sleep(_MEETING_SECONDS)
    return os.getpid()


def _trial(setting: Setting, backend: str) -> float:
    """Measure the epochs per second of this process, validation included."""
    target = backends.load(backend)
    target.prepare(setting.recipe.architecture, setting.recipe.optimizer)
    return _population_trial(target, setting, 1)


def _population_trial(backend: backends.Backend, setting: Setting, most: int) -> float:
    """Measure the epochs per second of a backend with as many networks as it has room for."""
    require_backend(backend.name, setting.recipe)
    key = catalog.load(setting).stream_key
    population = backend.population([problem(setting)], [key], setting.recipe.lr_at, 0.0, most)
    for place in range(population.places):
        population.admit(place, initial_weights(setting, place))
    epochs, start = 0, time.perf_counter()
    while not epochs or time.perf_counter() - start < _TRIAL_SECONDS:
        jobs = [Job(place, 0, place, epochs + 1, 1) for place in range(population.places)]
        population.start(jobs)
        population.finish()
        epochs += 1
    return epochs * population.places / (time.perf_counter() - start)
