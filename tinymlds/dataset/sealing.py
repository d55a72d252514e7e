"""From a journal to a sealed dataset folder, and back to a journal where one is to grow.

Sealing derives every file from the journal and from whole shards that were sealed before, commits them one after another
and SHA256SUMS last. If it is interrupted anywhere, the journal is still there and sealing is simply done again.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tinymlds.architectures import params
from tinymlds.dataset import reader, schema, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.manifest import Row, splits
from tinymlds.dataset.schema import data_tensors, describe_task, graph_files
from tinymlds.dataset.tensorfile import TensorFile, tensors_bytes
from tinymlds.errors import DatasetError
from tinymlds.spec import Spec, canonical_json
from tinymlds.tasks import catalog
from tinymlds.training.data import task_data
from tinymlds.training.loop import Floats, Outcome, Status
from tinymlds.training.metrics import Figures, measure

Known = Callable[[str, range], dict[int, Figures]]
"""Figures of networks of a task with these indices, by index, as far as they have been measured already."""

_Number = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]


class Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A network's line of provenance.jsonl: who made it, when, in how many seconds."""

    task: str
    index: _Number
    run: _Number
    seconds: float
    finished: float
    """Unix time at which it was finished."""
    worker: str = ""
    """Name of the worker; "" if it is not known."""


Makers = dict[tuple[str, int], Made]
"""The provenance of networks by task and index."""


def seal(folder: Path, journal: Journal, threads: int = 1, known: Known = lambda _task, _indices: {}) -> str:
    """Write the dataset that the journal's spec asks for, and then remove the journal. Returns the digest.

    Every network of the spec must be in the journal or in a whole shard below its `base`. What networks do is measured in
    `threads` threads, as far as it is not `known`.
    """
    store.remove_unfinished(folder)
    sums: dict[str, str] = {}
    sums[store.MANIFEST] = _commit_rows(folder / store.MANIFEST, _seal_tasks(folder, journal, threads, known, sums))
    sums[store.PROVENANCE] = _commit_rows(folder / store.PROVENANCE, _provenance(folder, journal))
    _finish(folder, sums, journal.spec, "networks")
    journal.close()
    store.remove(folder / store.JOURNAL)
    return store.dataset_digest(sums)


def _seal_tasks(folder: Path, journal: Journal, threads: int, known: Known, sums: dict[str, str]) -> Iterator[Row]:
    """Write the files of all tasks, note their hashes in `sums`, and give the rows of the manifest, shard by shard."""
    spec = journal.spec
    old_sums = reader.read_sums(folder) if any(journal.base.values()) else {}
    old_rows = rows_below(folder, limits(spec, journal.base))
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
            sums |= {name: store.commit(folder / name, data) for name, data in files}
            yield from _rows(folder, spec, task, shard, outcomes, threads, known(task, piece))


def _commit_rows(path: Path, rows: Iterable[Row]) -> str:
    return store.commit(path, ((canonical_json(row) + "\n").encode() for row in rows))


def _finish(folder: Path, sums: dict[str, str], spec: Spec, kind: str) -> None:
    """Write dataset.json, for which all tasks are remembered by now, and SHA256SUMS last."""
    sums[store.DESCRIPTION] = _commit_rows(folder / store.DESCRIPTION, [schema.describe(spec, kind)])
    store.commit_sums(folder, sums)


def _seal_task(folder: Path, spec: Spec, task: str) -> dict[str, str]:
    setting = spec.setting(task)
    found = catalog.load(setting)
    tensors = tensors_bytes(*data_tensors(found, task_data(setting)))
    describe_task(setting)  # will be wanted of all tasks together
    files = {store.data_name(task): tensors, **graph_files(found)}
    return {name: store.commit(folder / name, data) for name, data in files.items()}


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
    yield from provenance_below(folder, limits(journal.spec, journal.base))
    for task, indices in journal.spec.indices.items():
        for piece in store.by_shard(indices[journal.base.get(task, 0) :]):
            for entry in journal.entries(task, piece):
                index, seconds, finished = entry.outcome.index, round(entry.outcome.seconds, 6), round(entry.finished, 3)
                yield msgspec.to_builtins(Made(task, index, entry.run, seconds, finished, entry.worker))


def seal_sequences(folder: Path, spec: Spec) -> None:
    """Write a folder with the sequences and tables of the spec's tasks, and a manifest row for each task."""
    was_sealed = (folder / store.SUMS).exists()
    sums: dict[str, str] = {}
    rows: list[Row] = []
    try:
        for task, _ in spec.tasks:
            sums |= _seal_task(folder, spec, task)
            rows.append(schema.sequences_row(folder, spec, task))
        sums[store.MANIFEST] = _commit_rows(folder / store.MANIFEST, rows)
        _finish(folder, sums, spec, "sequences")
    except BaseException:
        if not was_sealed:  # half a folder would be nobody's, and refused the next time
            shutil.rmtree(folder / "data", ignore_errors=True)
            for name in (store.MANIFEST, store.DESCRIPTION):
                with contextlib.suppress(OSError):
                    (folder / name).unlink(missing_ok=True)
        raise


# ------------------------------------------------------------------ back to a journal


def open_to_grow(folder: Path, spec_for: Callable[[Spec | None], Spec]) -> Journal | Dataset:
    """Open the journal of a folder, or make one; or open the sealed dataset, if it has all that is asked for already.

    `spec_for` returns what is asked for, given the spec of the folder, or None for a new folder.
    """
    journal = Journal.open(folder)
    if journal is not None:
        try:
            if (spec := spec_for(journal.spec)) != journal.spec:
                journal.set_spec(spec)
        except BaseException:
            journal.close()
            raise
        return journal
    if not (folder / store.SUMS).exists():
        return Journal.create(folder, spec_for(None), {}, [], {})
    dataset = Dataset(folder)
    spec = spec_for(dataset.spec)
    return dataset if spec == dataset.spec else _reopen(dataset, spec)


def _reopen(dataset: Dataset, spec: Spec) -> Journal:
    """Make a journal for a sealed dataset that is to grow; networks of its last, partial shards move into the journal.

    If a file is damaged, nothing is changed.
    """
    for name in dataset.sums:
        reader.open_inside(dataset.folder, name).close()
    base = {task: count // store.SHARD * store.SHARD for task, count in dataset.counts.items()}
    runs: dict[int, dict[str, Any]] = {}
    makers: Makers = {}
    below = limits(dataset.spec, base)
    for line in read_provenance(dataset):
        if not isinstance(line, Made):
            runs[line[0]] = line[1]
        elif line.index >= below.get(line.task, 0):
            makers[line.task, line.index] = line
    entries = [entry for task in dataset.tasks for entry in entries_from(dataset, task, base[task], makers)]
    return Journal.create(dataset.folder, spec, base, entries, runs)


def read_provenance(dataset: Dataset) -> Iterator[Made | tuple[int, dict[str, Any]]]:
    """Yield the lines of provenance.jsonl: those of networks, and (number, what was noted) of runs."""
    dataset.check_hash(store.PROVENANCE)
    try:
        for line in reader.read_lines(dataset.folder, store.PROVENANCE):
            yield msgspec.convert(line, Made) if "index" in line else (msgspec.convert(line.pop("run"), _Number), line)
    except (KeyError, ValueError, OverflowError) as error:
        raise DatasetError(f"{dataset.folder / store.PROVENANCE} is damaged ({error})") from error


def entries_from(dataset: Dataset, task: str, first: int, makers: Makers) -> Iterator[Entry]:
    """Yield the networks of the shard that begins with network `first` of the folder's, as a journal holds them.

    `makers` is the provenance of these networks; {} if it does not matter.
    """
    if first == dataset.counts[task]:
        return
    shard = first // store.SHARD
    for kind in schema.kinds(dataset.spec):
        dataset.check_hash(store.shard_name(kind, task, shard))
    weights = params.from_tensors(dataset.architecture, dataset.tensor_file("networks", task, shard).read(), 1)
    losses, checkpoints = dataset.shard_losses(task, shard), dataset.shard_checkpoints(task, shard)
    for k, row in enumerate(dataset.shard_rows(task, shard)):
        made = makers.get((task, row["index"])) or Made(task, row["index"], 0, 0.0, 0.0)
        kept = checkpoints[k, : row["checkpoints"]]
        outcome = Outcome(row["index"], Status(row["status"]), row["reason"], weights[k], *losses[k], kept, made.seconds)
        yield Entry(task, made.run, outcome, made.finished, made.worker)


def limits(spec: Spec, base: dict[str, int]) -> dict[str, int]:
    """Return the index below which the first `base` networks of each task are."""
    return {task: spec.indices[task].start + spec.indices[task].step * count for task, count in base.items() if count}


def rows_below(folder: Path, below: dict[str, int]) -> Iterator[Row]:
    """Yield the manifest rows of the networks in shards that stay as they are, in the order of the tasks; see `limits`."""
    if not below:
        return
    for row in reader.read_lines(folder, store.MANIFEST):
        try:
            is_below = row["index"] < below.get(row["task"], 0) and Status(row["status"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{folder / store.MANIFEST} is damaged: a row without a network ({error})") from error
        if is_below:
            yield row


def provenance_below(folder: Path, below: dict[str, int]) -> Iterator[dict[str, Any]]:
    """Yield the lines of provenance.jsonl of these networks."""
    for line in reader.read_lines(folder, store.PROVENANCE) if below else ():
        task, index = line.get("task"), line.get("index")
        if isinstance(task, str) and isinstance(index, int) and index < below.get(task, 0):
            yield line
