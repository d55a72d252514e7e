"""Sealing: from a journal to a dataset folder.

Sealing derives every file from the journal and from whole shards that were sealed before, commits them one after another
and SHA256SUMS last. If it is interrupted anywhere, the journal is still there and sealing is simply done again.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

from tinymlds.architectures import params
from tinymlds.dataset import reader, reopening, schema, store
from tinymlds.dataset.journal import Journal
from tinymlds.dataset.manifest import Row, splits
from tinymlds.dataset.taskfiles import data_tensors, describe_task, graph_files
from tinymlds.dataset.tensorfile import TensorFile, tensors_bytes
from tinymlds.errors import DatasetError
from tinymlds.spec import Spec, canonical_json
from tinymlds.tasks import catalog
from tinymlds.training.data import task_data
from tinymlds.training.loop import Floats, Outcome
from tinymlds.training.metrics import Figures, measure

Known = Callable[[str, range], dict[int, Figures]]
"""Figures of networks of a task with these indices, by index, as far as they have been measured already."""


def seal(folder: Path, journal: Journal, threads: int = 1, known: Known = lambda _task, _indices: {}) -> str:
    """Write the dataset that the journal's spec asks for, and remove the journal. Returns the digest.

    Every network of the spec must be in the journal or in a whole shard below its `base`.

    Args:
        folder: the dataset folder.
        journal: its journal.
        threads: threads that measure what networks do.
        known: what has been measured already.

    Raises:
        TinymldsError: the file system refused; the journal is kept.
    """
    store.remove_unfinished(folder)
    spec = journal.spec
    sums: dict[str, str] = {}
    rows = _seal_tasks(folder, journal, threads, known, sums)
    _finish(folder, sums, spec, "networks", {store.MANIFEST: rows, store.PROVENANCE: _provenance(folder, journal)})
    journal.close()
    store.remove(folder / store.JOURNAL)
    return store.dataset_digest(sums)


def _seal_tasks(folder: Path, journal: Journal, threads: int, known: Known, sums: dict[str, str]) -> Iterator[Row]:
    """Write the files of all tasks, note their hashes in `sums`, and give the rows of the manifest, shard by shard."""
    spec = journal.spec
    old_sums = reader.read_sums(folder) if any(journal.base.values()) else {}
    old_rows = reopening.rows_below(folder, reopening.limits(spec, journal.base))
    following = next(old_rows, None)
    for task, indices in spec.indices.items():
        sums |= _seal_task(folder, spec, task)
        base = journal.base.get(task, 0)
        for shard in range(base // store.SHARD):
            for name in (store.shard_name(kind, task, shard) for kind in schema.kinds(spec)):
                if name not in old_sums:
                    raise DatasetError(f"{folder / store.SUMS} is damaged: it lacks {name}")
                sums[name] = old_sums[name]
        while following is not None and following["task"] == task:
            yield following
            following = next(old_rows, None)
        for shard, piece in enumerate(store.by_shard(indices[base:]), base // store.SHARD):
            outcomes = [entry.outcome for entry in journal.entries(task, piece)]
            files = schema.shard_files(spec, task, shard, outcomes)
            sums |= {name: store.commit_inside(folder, name, data) for name, data in files}
            yield from _rows(folder, spec, task, shard, outcomes, threads, known(task, piece))


def _finish(folder: Path, sums: dict[str, str], spec: Spec, kind: str, files: dict[str, Iterable[Row]]) -> None:
    """Write these files of JSON lines, then dataset.json, and SHA256SUMS last."""

    def write(name: str, rows: Iterable[Row]) -> None:
        sums[name] = store.commit_inside(folder, name, ((canonical_json(row) + "\n").encode() for row in rows))

    for name, rows in files.items():
        write(name, rows)
    write(store.DESCRIPTION, [schema.describe(spec, kind)])  # all tasks are remembered by now
    store.commit_sums(folder, sums)


def _seal_task(folder: Path, spec: Spec, task: str) -> dict[str, str]:
    """Write the table, sequences and graph of a task."""
    setting = spec.setting(task)
    found = catalog.load(setting)
    tensors = tensors_bytes(*data_tensors(found, task_data(setting)))
    describe_task(setting)  # will be wanted of all tasks together
    files = {store.data_name(task): tensors, **graph_files(found)}
    return {name: store.commit_inside(folder, name, data) for name, data in files.items()}


def _rows(
    folder: Path, spec: Spec, task: str, shard: int, outcomes: list[Outcome], threads: int, known: dict[int, Figures]
) -> Iterator[Row]:
    """Yield the rows of a shard that has been written; what the networks do is measured from the weights in the file."""
    shape = spec.recipe.architecture
    name = store.shard_name("networks", task, shard)
    weights = params.from_tensors(shape, TensorFile(folder, name).read(), 1)
    split_of = splits(spec.seed, spec.indices[task][shard * store.SHARD :][: len(outcomes)])

    def figures_of(outcome: Outcome, vector: Floats) -> Figures:
        return known.get(outcome.index) or measure(spec.setting(task), vector)

    with ThreadPoolExecutor(threads) as pool:  # kernels run without Python's lock
        figures = list(pool.map(figures_of, outcomes, weights))
    for k, outcome in enumerate(outcomes):
        yield {"task": task, "shard": name, "row": k, "split": split_of[k], **schema.columns_of(outcome), **figures[k]}


def _provenance(folder: Path, journal: Journal) -> Iterator[dict[str, Any]]:
    """Yield a line for each run, then one for each network: its run, its seconds, its worker."""
    for run, info in journal.runs().items():
        yield {"run": run, **info}
    if below := reopening.limits(journal.spec, journal.base):
        for line in reader.read_lines(folder, store.PROVENANCE):
            task, index = line.get("task"), line.get("index")
            if isinstance(task, str) and isinstance(index, int) and index < below.get(task, 0):
                yield line
    for task, indices in journal.spec.indices.items():
        for piece in store.by_shard(indices[journal.base.get(task, 0) :]):
            for entry in journal.entries(task, piece):
                index, seconds, finished = entry.outcome.index, round(entry.outcome.seconds, 6), round(entry.finished, 3)
                yield msgspec.to_builtins(reopening.Made(task, index, entry.run, seconds, finished, entry.worker))


def seal_sequences(folder: Path, spec: Spec) -> None:
    """Write a folder with the sequences and tables of the spec's tasks, and a manifest row for each task."""
    sums: dict[str, str] = {}
    rows: list[Row] = []
    for task, _ in spec.tasks:
        sums |= _seal_task(folder, spec, task)
        rows.append(schema.sequences_row(folder, spec, task))
    _finish(folder, sums, spec, "sequences", {store.MANIFEST: rows})


def remove_sequences(folder: Path) -> None:
    """Remove what `seal_sequences` may have written before it failed."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    for name in (store.MANIFEST, store.DESCRIPTION):
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)
