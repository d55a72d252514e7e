"""From a sealed dataset back to a journal: its networks and their provenance, as a journal holds them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinymlds.architectures import params
from tinymlds.dataset import reader, schema, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.manifest import Row
from tinymlds.errors import DatasetError
from tinymlds.spec import Spec
from tinymlds.training.loop import Outcome, Status


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
    for kind in schema.kinds(dataset.spec):
        dataset.check_hash(store.shard_name(kind, task, shard))
    weights = params.from_tensors(dataset.shape, dataset.tensor_file("networks", task, shard).read(), 1)
    losses, checkpoints = dataset.shard_losses(task, shard), dataset.shard_checkpoints(task, shard)
    for k, row in enumerate(dataset.shard_rows(task, shard)):
        run, seconds, finished, worker = where.get((task, row["index"]), (0, 0.0, 0.0, ""))
        kept = checkpoints[k, : row["checkpoints"]]
        outcome = Outcome(row["index"], Status(row["status"]), row["reason"], weights[k], *losses[k], kept, seconds)
        yield Entry(task, run, outcome, finished, worker)


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
