"""Makes populations: from what is asked for to a sealed dataset folder.

A run opens or creates the folder's journal, trains what is missing on a pool of workers, keeps every finished network in
the journal, and seals the folder when all are there. The same call again goes on where the last one stopped.
"""

import math
import os
import platform
import socket
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from tinymlds import machines, sealing, store
from tinymlds.dataset import Dataset, require_dataset
from tinymlds.errors import TinymldsError, UsageError
from tinymlds.journal import Entry, Journal, RunLock
from tinymlds.kernels import backend as backends
from tinymlds.kernels.problem import check_arithmetic
from tinymlds.spec import Recipe, Spec, canonical_json, recipe_with
from tinymlds.workers import InProcess, ProcessPool, Supervisor, Unit


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

    @property
    def rate(self) -> float:
        """Networks per second of this run."""
        return self.made / self.seconds if self.seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """At this rate; infinite before the first network."""
        return (self.total - self.done) / self.rate if self.made else math.inf


@dataclass(frozen=True)
class RunResult:
    """What a run came to."""

    folder: Path
    digest: str
    progress: Progress


def train(
    machine: str,
    count: int,
    out: str | Path | None = None,
    *,
    seed: int | None = None,
    workers: int | None = None,
    backend: str = "cpu",
    progress: Callable[[Progress], None] = lambda _progress: None,
    **recipe: Any,
) -> RunResult:
    """Make `count` networks of a machine into a dataset folder; what `tinymlds train` does.

    The same call again goes on after an interruption; a larger count extends the folder. With more than one worker,
    processes are spawned: call it under `if __name__ == "__main__":`.

    Args:
        machine: a task id (eightbit, direct, invert, xor, parity) or the original's name of it.
        count: networks 0 ... count - 1 are attempted.
        out: the folder; default is the task id.
        seed: seed of the dataset; default is the folder's, or 0.
        workers: processes; default is one for each CPU that this process may use. 1 trains in this process.
        backend: "cpu".
        progress: called about twice a second.
        recipe: fields of the recipe; default is the folder's, or those of `tinymlds.spec.Recipe`.

    Raises:
        UsageError: a wrong argument, or a folder with another task, recipe or seed, or a larger count than asked for.
        DatasetError: the folder is damaged.
        TinymldsError: the file system refused, or networks had to be quarantined.
    """
    try:
        task = machines.task_id(machine)
        target = backends.load(backend)
        check_arithmetic()
    except (ValueError, ArithmeticError) as error:
        raise UsageError(str(error)) from error
    folder = Path(out if out is not None else task)
    workers = available_cpus() if workers is None else workers
    if workers < 1:
        raise UsageError(f"workers must be at least 1, not {workers}")
    if not folder.exists():
        Spec(((task, count),), seed or 0, recipe_with(Recipe(), recipe))  # complain before a folder is made
    _prepare_folder(folder)
    with RunLock(folder):
        journal = _open_folder(folder, ((task, count),), seed, recipe)
        if isinstance(journal, Dataset):
            return RunResult(folder, journal.digest, Progress(len(journal), len(journal), 0, 0, 0.0))
        try:
            final = _fill(journal, target.name, workers, progress)
            _require_all(folder, journal)
            return RunResult(folder, sealing.seal(folder, journal), final)
        finally:
            journal.close()


def generate(machine: str, out: str | Path, *, seed: int = 0, **recipe: Any) -> Path:
    """Write the sequences and the table of a machine, and a manifest of them, without training.

    Raises:
        UsageError: a wrong argument, or a folder that holds something else.
        TinymldsError: the file system refused.
    """
    try:
        task = machines.task_id(machine)
    except ValueError as error:
        raise UsageError(str(error)) from error
    folder = Path(out)
    spec = Spec(((task, 1),), seed, recipe_with(Recipe(), recipe))
    _prepare_folder(folder)
    with RunLock(folder):
        if (folder / store.JOURNAL).exists() or ((folder / store.SUMS).exists() and not _has_sequences(folder, spec)):
            raise UsageError(f"{folder} holds networks or other sequences; choose another --out")
        sealing.seal_sequences(folder, spec)
    return folder


def _has_sequences(folder: Path, spec: Spec) -> bool:
    """Whether the folder is what `generate` makes of this spec."""
    text = (canonical_json(sealing.describe(spec, "sequences")) + "\n").encode()
    return store.read_bytes(folder, store.DESCRIPTION) == text


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _prepare_folder(folder: Path) -> None:
    """Make sure that the folder exists and is ours to write to.

    Raises:
        UsageError: it holds something else.
        TinymldsError: it cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another --out")
    store.make_folder(folder)
    ours = {store.JOURNAL, store.LOCK, store.SUMS}
    if any(folder.iterdir()) and not any((folder / name).exists() for name in ours):
        raise UsageError(f"{folder} is not empty and not a tinymlds dataset; choose another --out")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TinymldsError(f"cannot write to {folder}: no permission; choose another --out")


def _open_folder(
    folder: Path, tasks: tuple[tuple[str, int], ...], seed: int | None, recipe: dict[str, Any]
) -> Journal | Dataset:
    """The journal to work on; or the sealed dataset, if it has all that is asked for already."""

    def wanted(base: Spec | None) -> Spec:
        default_seed, default_recipe = (0, Recipe()) if base is None else (base.seed, base.recipe)
        return Spec(tasks, default_seed if seed is None else seed, recipe_with(default_recipe, recipe))

    journal = Journal.open(folder)
    if journal is not None:
        try:
            journal.set_spec(journal.spec.extend(wanted(journal.spec), str(folder)))
        except BaseException:
            journal.close()
            raise
        return journal
    if not (folder / store.SUMS).exists():
        return Journal.create(folder, wanted(None), {}, [], {})
    require_dataset(folder)
    dataset = Dataset(folder)
    spec = dataset.spec.extend(wanted(dataset.spec), str(folder))
    if spec == dataset.spec:
        return dataset
    return sealing.reopen(dataset, spec)


def missing(journal: Journal) -> list[tuple[str, range]]:
    """Runs of indices that no network is there for, by task."""
    gaps = []
    for task, count in journal.spec.tasks:
        start = journal.base.get(task, 0)
        for index in [*journal.finished(task), count]:
            if index > start:
                gaps.append((task, range(start, index)))
            start = max(start, index + 1)
    return gaps


def _fill(journal: Journal, backend: str, workers: int, report: Callable[[Progress], None]) -> Progress:
    """Train what is missing."""
    spec, total = journal.spec, journal.spec.networks
    journal.clear_quarantine()
    gaps = missing(journal)
    left = sum(len(indices) for _, indices in gaps)
    state = Progress(total - left, total, 0, 0, 0.0)
    if not left:
        return state
    workers = min(workers, left)
    run = journal.start_run(_run_info(backend, workers))
    units = deque(Unit(task, spec.seed, spec.recipe, backend, gap.start, gap.stop) for task, gap in gaps)
    start = time.monotonic()
    report(state)
    pool = ProcessPool(workers, backend, spec.recipe) if workers > 1 else InProcess()
    supervisor = Supervisor(units, pool, workers)
    try:
        for batch in supervisor.run():
            entries = [Entry(unit.task, run, outcome) for unit, outcomes in batch for outcome in outcomes]
            if entries:
                journal.add(entries)
            state = Progress(
                state.done + len(entries),
                total,
                state.made + len(entries),
                state.epochs + sum(entry.outcome.epochs for entry in entries),
                time.monotonic() - start,
            )
            report(state)
    finally:
        pool.end()
        for unit in supervisor.quarantined:
            journal.quarantine(unit.task, unit.start, f"its worker died {unit.deaths} times")
    return state


def _require_all(folder: Path, journal: Journal) -> None:
    gaps = missing(journal)
    if gaps:
        names = ", ".join(f"{task} {indices.start}" for task, indices in gaps[:5])
        number = sum(len(indices) for _, indices in gaps)
        raise TinymldsError(
            f"{number} networks of {folder} are missing because their workers died again and again ({names}"
            f"{', …' if number > 5 else ''}); the others are safe. The same command tries them again"
        )


def _run_info(backend: str, workers: int) -> dict[str, Any]:
    """What may differ between runs and never reaches a weight."""
    names = ("tinymlds", "numpy", "numba", "llvmlite", "safetensors")
    return {
        "host": socket.gethostname(),
        "machine": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in names},
        "backend": backend,
        "workers": workers,
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return None
