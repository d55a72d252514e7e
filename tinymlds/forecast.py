"""What a run would come to, before it is started: networks, bytes and a range for the time (`tinymlds train --dry-run`)."""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from tinymlds import overview, params, tasks
from tinymlds.dataset import graph_files
from tinymlds.farm import Wanted, available_cpus
from tinymlds.kernels import backend as backends
from tinymlds.kernels import rng
from tinymlds.spec import Recipe
from tinymlds.training import expected_epochs, problem
from tinymlds.workers import InProcess, ProcessPool

_TRIAL_SECONDS = 3.0
_MACHINE = 0.8, 1.35
"""How much faster or slower than in the trial a machine may turn out over a long run."""
_ROW_BYTES = 900
"""A row of the manifest with its row of the provenance, roughly."""


@dataclass(frozen=True)
class Forecast:
    """What a run would make."""

    folder: Path
    tasks: int
    networks: int
    """To be made."""
    there: int
    """Made before."""
    bytes: int
    """Of the whole folder when it is sealed; the journal takes about as much again meanwhile."""
    epochs_per_second: float
    """Of all workers together, measured for some seconds."""
    seconds: tuple[float, float]
    """Least and most that the run is expected to take."""
    known: bool
    """Whether the numbers of epochs that this rests on are those of the recipe asked for."""


def forecast(wanted: Wanted, folder: Path, workers: int | None = None, backend: str = "cpu") -> Forecast:
    """What `farm.train` would make of this; trains for some seconds on every worker, and writes nothing.

    Raises:
        UsageError: as `farm.train` would.
        DatasetError: the folder is damaged.
    """
    found = overview.status(folder) if folder.is_dir() and any(folder.iterdir()) else None
    spec = wanted.of(None) if found is None else found.spec.extend(wanted.of(found.spec), str(folder))
    there = {task: found.counts[task].total() if found else 0 for task, _ in spec.tasks}
    missing = {task: count - there[task] for task, count in spec.tasks}
    left = sum(missing.values())
    workers = min(available_cpus() if workers is None else workers, max(1, left))
    speed = _epochs_per_second(spec.tasks[0][0], spec.seed, spec.recipe, backend, workers) if left else math.inf
    expected = {task: expected_epochs(task, spec.recipe) for task in missing}
    known = all(expected.values())
    epochs = {task: found or expected_epochs(task, Recipe()) or (0.0, 0.0) for task, found in expected.items()}
    mean = sum(number * epochs[task][0] for task, number in missing.items())
    spread = math.sqrt(sum(number * epochs[task][1] ** 2 for task, number in missing.items()))
    low = max(0.0, mean - 2.0 * spread) / speed * _MACHINE[0]
    high = (mean + 2.0 * spread) / speed * _MACHINE[1]
    recipe = spec.recipe
    network = 4 * recipe.shape.size * (1 + len(spec.checkpoints)) + _ROW_BYTES
    losses = sum(8 * count * epochs[task][0] for task, count in spec.tasks)
    size = sum(_task_bytes(task, recipe) for task, _ in spec.tasks) + spec.networks * network + int(losses)
    return Forecast(folder, len(spec.tasks), left, spec.networks - left, size, speed, (low, high), known)


def _task_bytes(task: str, recipe: Recipe) -> int:
    """Of the sequences, the table and the graphs of a task."""
    found = tasks.load(task, recipe)
    sequences = 2 * (recipe.train_sequences + recipe.validation_sequences) * recipe.steps
    return sequences + 3 * found.table.next_state.size + sum(len(text) for text in graph_files(found).values())


def _epochs_per_second(task: str, seed: int, recipe: Recipe, backend: str, workers: int) -> float:
    """What all workers make together when all of them work."""
    pool = ProcessPool(workers, backend, recipe) if workers > 1 else InProcess()
    try:
        pool.wait_for_start()
        trials = [pool.submit(_trial, task, seed, recipe, backend) for _ in range(workers)]
        return float(sum(trial.result() for trial in trials))
    finally:
        pool.end()


def _trial(task: str, seed: int, recipe: Recipe, backend: str) -> float:
    """Epochs per second of this process, validation included."""
    target, key = backends.load(backend), tasks.load(task, recipe).stream_key(seed)
    target.prepare(recipe.shape)
    network = target.network(problem(task, seed, recipe), params.initial(recipe.shape, key, 0))
    start, epochs = time.perf_counter(), 0
    while time.perf_counter() - start < _TRIAL_SECONDS:
        epochs += 1
        network.epoch(rng.permutation(key, 0, epochs, recipe.train_sequences), recipe.lr_at(epochs))
        network.validation_loss()
    return epochs / (time.perf_counter() - start)
