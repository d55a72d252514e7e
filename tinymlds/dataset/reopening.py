"""From a sealed dataset back to a journal: its networks and their provenance, as a journal holds them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from tinymlds.architectures import params
from tinymlds.dataset import reader, schema, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.manifest import Row
from tinymlds.errors import DatasetError
from tinymlds.spec import Spec
from tinymlds.training.loop import Outcome, Status


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

    Raises:
        DatasetError: a shard that has to be written again is damaged; nothing is changed.
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


def read_provenance(dataset: Dataset) -> Iterator[Made | tuple[int, dict[str, Any]]]:
    """Yield the lines of provenance.jsonl: those of networks, and (number, what was noted) of runs.

    Raises:
        DatasetError: it is damaged.
    """
    dataset.check_hash(store.PROVENANCE)
    try:
        for line in reader.read_lines(dataset.folder, store.PROVENANCE):
            yield msgspec.convert(line, Made) if "index" in line else (msgspec.convert(line.pop("run"), _Number), line)
    except (KeyError, ValueError, OverflowError) as error:
        raise DatasetError(f"{dataset.folder / store.PROVENANCE} is damaged ({error})") from error


def entries_from(dataset: Dataset, task: str, first: int, makers: Makers) -> Iterator[Entry]:
    """Yield the networks of the shard that begins with network `first` of the folder's, as a journal holds them.

    Args:
        dataset: a sealed dataset.
        task: one of its tasks.
        first: a multiple of the networks in a shard.
        makers: the provenance of these networks; {} if it does not matter.

    Raises:
        DatasetError: the shard is damaged.
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
