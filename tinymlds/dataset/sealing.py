"""From a journal to a dataset folder and back: sealing finished work, and opening sealed work to add to it.

Sealing derives every file from the journal and from whole shards that were sealed before, commits them one after another
and SHA256SUMS last. If it is interrupted anywhere, the journal is still there and sealing is simply done again.
"""

import contextlib
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from tinymlds.architectures import params
from tinymlds.dataset import reader, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.manifest import Row, splits
from tinymlds.dataset.taskfiles import data_tensors, describe_task, graph_files
from tinymlds.dataset.tensorfile import TensorFile, tensors_bytes
from tinymlds.errors import DatasetError
from tinymlds.spec import FORMAT, Spec, canonical_json
from tinymlds.tasks import catalog
from tinymlds.training.data import task_data
from tinymlds.training.loop import Floats, Outcome, Status
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
    sums[store.MANIFEST] = store.commit_inside(folder, store.MANIFEST, _lines(rows))
    sums[store.PROVENANCE] = store.commit_inside(folder, store.PROVENANCE, _lines(_provenance(folder, journal)))
    description = canonical_json(describe(spec, "networks")) + "\n"
    sums[store.DESCRIPTION] = store.commit_inside(folder, store.DESCRIPTION, description.encode())
    commit_sums(folder, sums)
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
            for name in (store.shard_name(kind, task, shard) for kind in kinds(spec)):
                if name not in old_sums:
                    raise DatasetError(f"{folder / store.SUMS} is damaged: it lacks {name}")
                sums[name] = old_sums[name]
        while following is not None and following["task"] == task:
            yield following
            following = next(old_rows, None)
        for shard, piece in enumerate(store.by_shard(indices[base:]), base // store.SHARD):
            outcomes = [entry.outcome for entry in journal.entries(task, piece)]
            files = shard_files(spec, task, shard, outcomes)
            sums |= {name: store.commit_inside(folder, name, data) for name, data in files}
            yield from _rows(folder, spec, task, shard, outcomes, threads, known(task, piece))


def kinds(spec: Spec) -> tuple[str, ...]:
    """The kinds of shards that a dataset has."""
    return ("networks", "losses", "checkpoints") if spec.checkpoints else ("networks", "losses")


def file_names(spec: Spec, networks: bool = True) -> set[str]:
    """The files that SHA256SUMS lists, of a dataset or of a folder with sequences alone."""
    names = {store.DESCRIPTION, store.MANIFEST}
    names |= {name for task, _ in spec.tasks for name in (store.data_name(task), *store.graph_names(task))}
    if networks:
        shards = [(task, shard) for task, count in spec.counts.items() for shard in range(-(-count // store.SHARD))]
        names |= {store.PROVENANCE, *(store.shard_name(kind, *shard) for kind in kinds(spec) for shard in shards)}
    return names


def describe(spec: Spec, kind: str) -> dict[str, Any]:
    """dataset.json; kind is "networks", or "sequences" for a folder without networks."""
    rows = [
        {**describe_task(task, spec.seed, spec.recipe), **({"count": count} if kind == "networks" else {})}
        for task, count in spec.tasks
    ]
    tensors = spec.recipe.architecture.tensors()
    return {**spec.to_dict(), "kind": kind, "tasks": rows, "tensors": [[each.name, list(each.shape)] for each in tensors]}


def commit_sums(folder: Path, sums: dict[str, str]) -> None:
    """Write SHA256SUMS, the last file of a dataset."""
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    store.commit(folder / store.SUMS, text.encode())


def _lines(rows: Iterable[Row]) -> Iterator[bytes]:
    return ((canonical_json(row) + "\n").encode() for row in rows)


def _seal_task(folder: Path, spec: Spec, task: str) -> dict[str, str]:
    """Table, sequences and graph of a task."""
    found = catalog.load(task, spec.recipe)
    tensors = tensors_bytes(*data_tensors(found, task_data(task, spec.seed, spec.recipe)))
    describe_task(task, spec.seed, spec.recipe)  # will be wanted of all tasks together
    files = {store.data_name(task): tensors, **graph_files(found)}
    return {name: store.commit_inside(folder, name, data) for name, data in files.items()}


def shard_files(spec: Spec, task: str, shard: int, outcomes: list[Outcome]) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of the files of a shard, one after another, from the outcomes of all of its networks."""
    weights = np.stack([outcome.weights for outcome in outcomes])
    epochs = [outcome.validation_losses.size for outcome in outcomes]
    losses = {
        "offsets": np.concatenate([[0], np.cumsum(epochs)]).astype(np.int64),
        "train": np.concatenate([outcome.train_losses for outcome in outcomes]),
        "validation": np.concatenate([outcome.validation_losses for outcome in outcomes]),
    }
    metadata = {"format": FORMAT, "task": task, "first": outcomes[0].index, "count": len(outcomes)}
    if spec.part is not None:
        metadata["step"] = spec.part[1]
    contents = {"networks": params.to_tensors(spec.recipe.architecture, weights), "losses": losses}
    if spec.checkpoints:
        kept = np.full((len(outcomes), len(spec.checkpoints), spec.recipe.architecture.size), np.nan, np.float32)
        for k, outcome in enumerate(outcomes):
            kept[k, : len(outcome.checkpoints)] = outcome.checkpoints
        contents["checkpoints"] = params.to_tensors(spec.recipe.architecture, kept)
        metadata["epochs"] = list(spec.checkpoints)
    for kind, tensors in contents.items():
        yield store.shard_name(kind, task, shard), tensors_bytes(tensors, metadata)


def _rows(
    folder: Path, spec: Spec, task: str, shard: int, outcomes: list[Outcome], threads: int, known: dict[int, Figures]
) -> Iterator[Row]:
    """Rows of a shard that has been written; what the networks do is measured from the weights in the file."""
    shape = spec.recipe.architecture
    name = store.shard_name("networks", task, shard)
    weights = params.from_tensors(shape, TensorFile(folder, name).read(), 1)
    split_of = splits(spec.seed, spec.indices[task][shard * store.SHARD :][: len(outcomes)])

    def figures_of(outcome: Outcome, vector: Floats) -> Figures:
        return known.get(outcome.index) or measure(shape, vector, task, spec.seed, spec.recipe)

    with ThreadPoolExecutor(threads) as pool:  # kernels run without Python's lock
        figures = list(pool.map(figures_of, outcomes, weights))
    for k, outcome in enumerate(outcomes):
        yield {"task": task, "shard": name, "row": k, "split": split_of[k], **columns_of(outcome), **figures[k]}


def columns_of(outcome: Outcome) -> Row:
    """The columns of the manifest that follow from what training gave."""
    train, validation = outcome.train_losses, outcome.validation_losses
    return {
        "index": outcome.index,
        "status": outcome.status.value,
        "reason": outcome.reason,
        "epochs": validation.size,
        "train_loss": store.shortest(train[-1]) if train.size else None,
        "validation_loss": store.shortest(validation[-1]) if validation.size else None,
        "weights_sha256": store.array_sha256(outcome.weights),
        "losses_sha256": store.array_sha256(train, validation),
        "checkpoints": len(outcome.checkpoints),
        "checkpoints_sha256": store.array_sha256(outcome.checkpoints),
    }


def limits(spec: Spec, base: dict[str, int]) -> dict[str, int]:
    """The index below which the first `base` networks of each task are."""
    return {task: spec.indices[task].start + spec.indices[task].step * count for task, count in base.items() if count}


def rows_below(folder: Path, below: dict[str, int]) -> Iterator[Row]:
    """Manifest rows of the networks in shards that stay as they are, in the order of the tasks; see `limits`."""
    if not below:
        return
    for row in reader.read_lines(folder, store.MANIFEST):
        try:
            is_below = row["index"] < below.get(row["task"], 0) and Status(row["status"])
        except (KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{folder / store.MANIFEST} is damaged: a row without a network ({error})") from error
        if is_below:
            yield row


def _provenance(folder: Path, journal: Journal) -> Iterator[dict[str, Any]]:
    """One line a run, then one a network: its run, its seconds, who made it."""
    for run, info in journal.runs().items():
        yield {"run": run, **info}
    if below := limits(journal.spec, journal.base):
        for line in reader.read_lines(folder, store.PROVENANCE):
            task, index = line.get("task"), line.get("index")
            if isinstance(task, str) and isinstance(index, int) and index < below.get(task, 0):
                yield line
    for task, indices in journal.spec.indices.items():
        for piece in store.by_shard(indices[journal.base.get(task, 0) :]):
            for entry in journal.entries(task, piece):
                done = entry.outcome
                yield {
                    "task": task,
                    "index": done.index,
                    "run": entry.run,
                    "seconds": round(done.seconds, 6),
                    "finished": round(entry.finished, 3),
                    **({"worker": entry.worker} if entry.worker else {}),
                }


def seal_sequences(folder: Path, spec: Spec) -> None:
    """Write a folder with the sequences and tables of the spec's tasks, and a manifest row for each task."""
    sums: dict[str, str] = {}
    rows: list[Row] = []
    for task, _ in spec.tasks:
        sums |= _seal_task(folder, spec, task)
        rows.append(sequences_row(folder, spec, task))
    sums[store.MANIFEST] = store.commit_inside(folder, store.MANIFEST, _lines(rows))
    description = canonical_json(describe(spec, "sequences")) + "\n"
    sums[store.DESCRIPTION] = store.commit_inside(folder, store.DESCRIPTION, description.encode())
    commit_sums(folder, sums)


def sequences_row(folder: Path, spec: Spec, task: str) -> Row:
    """The manifest row of a task in a folder with sequences alone, whose file of the task is there."""
    name = store.data_name(task)
    shapes = {key: list(shape) for key, (_, shape) in TensorFile(folder, name).tensors.items()}
    return {**describe_task(task, spec.seed, spec.recipe), "file": name, "shapes": shapes}


def remove_sequences(folder: Path) -> None:
    """Remove what `seal_sequences` may have written before it failed."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    for name in (store.MANIFEST, store.DESCRIPTION):
        with contextlib.suppress(OSError):
            (folder / name).unlink(missing_ok=True)


def reopen(dataset: Dataset, spec: Spec) -> Journal:
    """A journal for a sealed dataset that is asked to grow: networks of its last, partial shards move into the journal.

    Raises:
        DatasetError: a shard that has to be written again is damaged; nothing is changed.
    """
    dataset.check_hash(store.PROVENANCE)
    for name in dataset.sums:
        reader.open_inside(dataset.folder, name).close()
    base = {task: count // store.SHARD * store.SHARD for task, count in dataset.counts.items()}
    runs, where = _read_provenance(dataset, limits(dataset.spec, base))
    entries = [entry for task in dataset.tasks for entry in entries_from(dataset, task, base[task], where)]
    return Journal.create(dataset.folder, spec, base, entries, runs)


Where = dict[tuple[str, int], tuple[int, float, float, str]]
"""(task, index) -> run, seconds, time of finishing, worker."""


def _read_provenance(dataset: Dataset, below: dict[str, int]) -> tuple[dict[int, dict[str, Any]], Where]:
    """What is known of all runs, and of the networks from `below` on."""
    runs: dict[int, dict[str, Any]] = {}
    where: Where = {}
    try:
        for line in reader.read_lines(dataset.folder, store.PROVENANCE):
            if "index" not in line:
                runs[int(line.pop("run"))] = line
            elif line["index"] >= below.get(line["task"], 0):
                where[line["task"], line["index"]] = made_of(line)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise DatasetError(f"{dataset.folder / store.PROVENANCE} is damaged ({error})") from error
    return runs, where


def made_of(line: dict[str, Any]) -> tuple[int, float, float, str]:
    """Run, seconds, time of finishing and worker of a network, from its line of provenance.jsonl.

    Raises:
        KeyError, TypeError, OverflowError: the line does not say.
    """
    run, seconds, finished, worker = line["run"], line["seconds"], line["finished"], line.get("worker", "")
    if type(run) is not int or not isinstance(seconds, int | float) or not isinstance(finished, int | float):
        raise TypeError("a run or a time that is no number")
    if not isinstance(worker, str):
        raise TypeError("a worker without a name")
    return run, float(seconds), float(finished), worker


def entries_from(dataset: Dataset, task: str, first: int, where: Where) -> Iterator[Entry]:
    """The networks of the shard that begins with network `first` of the folder's, as a journal holds them.

    Args:
        dataset: a sealed dataset.
        task: one of its tasks.
        first: a multiple of the networks in a shard.
        where: what is known of the runs of these networks; {} if it does not matter.

    Raises:
        DatasetError: the shard is damaged.
    """
    if first == dataset.counts[task]:
        return
    shard = first // store.SHARD
    for kind in kinds(dataset.spec):
        dataset.check_hash(store.shard_name(kind, task, shard))
    weights = params.from_tensors(dataset.architecture, dataset.tensor_file("networks", task, shard).read(), 1)
    losses, checkpoints = dataset.shard_losses(task, shard), dataset.shard_checkpoints(task, shard)
    for k, row in enumerate(dataset.shard_rows(task, shard)):
        run, seconds, finished, worker = where.get((task, row["index"]), (0, 0.0, 0.0, ""))
        kept = checkpoints[k, : row["checkpoints"]]
        outcome = Outcome(row["index"], Status(row["status"]), row["reason"], weights[k], *losses[k], kept, seconds)
        yield Entry(task, run, outcome, finished, worker)
