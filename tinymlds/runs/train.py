"""Makes populations: from what is asked for to a sealed dataset folder.

A run opens or creates the folder's journal, trains what is missing on a pool of workers, keeps every finished network in
the journal, and seals the folder when all are there. The same call again goes on where the last one stopped.
"""

import os
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinymlds.dataset import reader, schema, sealing, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.journal import DamagedNetworkError, Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.errors import TinymldsError, UsageError, going_on
from tinymlds.runs import notebook
from tinymlds.runs.execution import Progress, Resources, available_cpus, check_resources, fill
from tinymlds.runs.spawning import stop_if_imported
from tinymlds.spec import Spec, canonical_json, parse_part, recipe_with
from tinymlds.tasks import catalog
from tinymlds.training.loop import require_backend


@dataclass(frozen=True)
class RunResult:
    """The result of a run."""

    folder: Path
    digest: str
    progress: Progress
    damaged: int = 0
    """Networks that a disk had damaged in the journal; they were made again."""


def train(
    machine: str | None = None,
    count: int | None = None,
    out: str | Path | None = None,
    *,
    modified: bool = False,
    dataset: str | None = None,
    transducers: int | None = None,
    only: int | None = None,
    seed: int | None = None,
    checkpoints: tuple[int, ...] | None = None,
    part: str | tuple[int, int] | None = None,
    workers: int | None = None,
    backend: str = "cpu",
    executor: str | Executor = "processes",
    scheduler: str | None = None,
    progress: Callable[[Progress], None] | None = None,
    **recipe: Any,
) -> RunResult:
    """Make `count` networks of a machine, or of every task of a dataset, into a folder; what `tinymlds train` does.

    The same call again goes on after an interruption; a larger count extends the folder. With more than one worker,
    processes are spawned: call it under `if __name__ == "__main__":`.

    Args:
        machine: a task, in any case: eightbit, direct, invert, xor, parity, xor_modified, transducer_042, or the original's
            name of it; or the name of a dataset.
        count: networks 0 ... count - 1 are attempted, of each task.
        out: the folder; default is the task id or the name of the dataset, of a part like xor-2-of-8.
        modified: the machine's modified twin.
        dataset: instead of a machine, "ds1" (the machines), "ds2" (their modified twins) or "ds3" (transducers).
        transducers: the first so many of ds3; default is 100.
        only: this transducer of ds3 alone.
        seed: seed of the dataset; default is the folder's, or 0.
        checkpoints: epochs at whose end weights are stored, ascending, 0 for before the first; default is the folder's, or
            none.
        part: "2/8" or (2, 8): only the second of eight parts, each with every eighth network of a task. All of them,
            made anywhere, are the dataset once they are merged (see `merge`). None is the whole.
        workers: processes or threads; default is one for each CPU that this process may use. 1 process is this one. With
            "cuda", networks that are under way at once; default is as many as the device has room for.
        backend: "cpu", or "cuda" for an NVIDIA GPU. They make the same networks.
        executor: what runs the workers: "processes", "threads", "dask" (a cluster that you trust), or any
            `concurrent.futures.Executor`, which is left running. They make the same networks.
        scheduler: with "dask", the address of the cluster's scheduler, like "tcp://HOST:8786".
        progress: called about twice a second; default is a bar in a notebook, and nothing elsewhere.
        recipe: fields of the recipe; default is the folder's, or those of `tinymlds.spec.Recipe`.

    Raises:
        UsageError: a wrong argument, or a folder with other tasks, another recipe, seed, checkpoints or part, or a larger
            count than asked for; or a script that trains while its own workers import it.
        DatasetError: the folder is damaged.
        TinymldsError: the file system refused, or networks had to be quarantined.
    """
    name, tasks = catalog.choose(machine, modified, dataset, transducers, only)
    request = Request(name, tasks, count, seed, checkpoints, recipe, None if part is None else parse_part(part))
    return make(request, out, check_resources(backend, workers, executor, scheduler), progress or notebook.progress())


def make(request: "Request", out: str | Path | None, resources: Resources, report: Callable[[Progress], None]) -> RunResult:
    """Make the networks of a request into its folder; `train` describes what it raises."""
    stop_if_imported()
    folder = request.folder(out)
    check_folder(folder)

    def spec_for(base: Spec | None) -> Spec:
        spec = request.spec_for(base, folder)
        require_backend(resources.backend, spec.recipe)
        return spec

    if not folder.exists():
        spec_for(None)  # complain before a folder is made
    prepare_folder(folder)
    with RunLock(folder), going_on("finished networks are safe"):
        journal = sealing.open_to_grow(folder, spec_for)
        if isinstance(journal, Dataset):
            return RunResult(folder, journal.digest, Progress(len(journal), len(journal), 0, 0, 0.0, 0.0))
        try:
            final, damaged = fill(journal, missing(journal), resources, report), 0
            while True:
                _require_all(folder, journal)
                try:
                    digest = sealing.seal(folder, journal, min(resources.workers, available_cpus()))
                    return RunResult(folder, digest, final, damaged)
                except DamagedNetworkError:
                    if not (found := journal.forget_damaged()):
                        raise
                    damaged += found
                final = final.and_then(fill(journal, missing(journal), resources, report))
        finally:
            journal.close()


def generate(
    machine: str | None = None,
    out: str | Path | None = None,
    *,
    modified: bool = False,
    dataset: str | None = None,
    transducers: int | None = None,
    only: int | None = None,
    seed: int = 0,
    **recipe: Any,
) -> Path:
    """Write the sequences and tables of tasks, and a manifest of them, without training; for the arguments see `train`.

    Raises:
        UsageError: a wrong argument, or a folder that holds something else.
        TinymldsError: the file system refused.
    """
    name, tasks = catalog.choose(machine, modified, dataset, transducers, only)
    folder = Path(out if out is not None else f"{name}-sequences")
    spec = Request(name, tasks, 1, seed, (), recipe).spec_for(None, folder)
    if spec.recipe.sequences == "own":
        raise UsageError("generate writes the sequences that the networks of a task share; leave out sequences=own")
    check_folder(folder)
    prepare_folder(folder)
    with RunLock(folder):
        if (folder / store.JOURNAL).exists() or ((folder / store.SUMS).exists() and not _has_sequences(folder, spec)):
            raise UsageError(f"{folder} holds networks or other sequences; choose another --out")
        sealing.seal_sequences(folder, spec)
    return folder


def _has_sequences(folder: Path, spec: Spec) -> bool:
    text = (canonical_json(schema.describe(spec, "sequences")) + "\n").encode()
    return reader.read_bytes(folder, store.DESCRIPTION) == text


def check_folder(folder: Path) -> None:
    """Make sure that the folder is not there yet, or empty, or one of ours; else raise UsageError."""
    try:
        folder.lstat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # too long, or with a character that a name cannot have
        raise UsageError(f"{str(folder)[:80]!r} cannot be the name of a folder ({error}); choose another --out") from error
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file; choose another --out")
    ours = {store.JOURNAL, store.LOCK, store.SUMS}
    try:
        foreign = folder.exists() and any(folder.iterdir()) and not any((folder / name).exists() for name in ours)
    except OSError as error:
        raise TinymldsError(f"cannot read {folder}: {error.strerror or error}; choose another --out") from error
    if foreign:
        raise UsageError(f"{folder} is not empty and not a tinymlds dataset; choose another --out")


def prepare_folder(folder: Path) -> None:
    """Make sure that the folder exists and can be written to; else raise TinymldsError."""
    store.make_folder(folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise TinymldsError(f"cannot write to {folder}: no permission, or a read-only disk; choose another --out")


@dataclass(frozen=True)
class Request:
    """A request for networks. None, and fields that `recipe` lacks, mean the folder's value, or else the default."""

    name: str
    """Name of the task or of the dataset."""
    tasks: tuple[str, ...]
    count: int | None
    seed: int | None
    checkpoints: tuple[int, ...] | None
    recipe: dict[str, Any]
    part: tuple[int, int] | None = None
    """The part of the dataset; None is the whole. It is never taken from the folder."""

    def folder(self, out: str | Path | None) -> Path:
        """The folder `out`; if it is None, one named after the task or dataset, like xor or xor-2-of-8."""
        name = self.name if self.part is None else "{}-{}-of-{}".format(self.name, *self.part)
        return Path(name if out is None else out)

    def spec_for(self, base: Spec | None, folder: Path) -> Spec:
        """Return the spec of this request, for a folder with the spec `base`, which has to fit, or for a new one."""
        if self.count is None:
            raise UsageError("say how many networks to make of each task, like --count 20")
        known = base or Spec(())
        recipe = recipe_with(known.recipe, self.recipe)
        wanted = Spec(
            tuple((task, self.count) for task in self.tasks),
            known.seed if self.seed is None else self.seed,
            recipe,
            known.checkpoints if self.checkpoints is None else tuple(self.checkpoints),
            self.part,
        )
        for task in self.tasks:
            catalog.load(wanted.setting(task))  # complain now if it cannot be made
        return wanted if base is None else base.extend(wanted, str(folder))


def missing(journal: Journal) -> list[tuple[str, range]]:
    """Return the runs of indices that have no network yet, with their tasks."""
    gaps = []
    for task, indices in journal.spec.indices.items():
        start = journal.base.get(task, 0)
        runs: list[range] = []
        finished = (indices.index(index) for index in journal.finished(task) if index in indices)
        for place in [*finished, len(indices)]:
            if place > start:
                runs.append(indices[start:place])
            start = max(start, place + 1)
        gaps += [(task, run) for run in _joined(runs)]
    return gaps


def _joined(runs: list[range]) -> list[range]:
    """Join single indices at equal distances, as where a part is missing, to one run."""
    joined: list[range] = []
    for run in runs:
        last = joined[-1] if joined else range(0)
        distance = run.start - last[-1] if last else 0
        if last and len(run) == 1 and (len(last) == 1 or last.step == distance):  # runs of neighbours are further apart
            joined[-1] = range(last.start, run.start + 1, distance)
        else:
            joined.append(run)
    return joined


def _require_all(folder: Path, journal: Journal) -> None:
    number = sum(len(indices) for _, indices in missing(journal))
    if number:
        reasons = "; ".join(f"{task} {index}: {reason}" for task, index, reason in journal.quarantined()[:5])
        raise TinymldsError(
            f"{number} networks of {folder} are missing ({reasons}{'; …' if number > 5 else ''}); "
            f"the others are safe. The same command tries them again"
        )
