"""A sealed dataset as it goes into a package: whole, or cut to its first networks, which is exactly the dataset that a run
with that count would have sealed. Whole shards are copied; the last one is written again from its first networks.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tinymlds.dataset import reader, reopening, schema, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.errors import DatasetError, UsageError
from tinymlds.spec import Spec, canonical_json

_PIECE = 1 << 20

Source = Callable[[], Iterable[bytes]] | None
"""How the bytes of a file come about; None for a file that is copied as it is."""


def write(dataset: Dataset, count: int | None, folder: Path, hosts: bool) -> dict[str, str]:
    """Write a dataset folder durably: the whole dataset, or its first `count` networks of each task.

    Every file of `dataset` that goes into it is compared with SHA256SUMS on the way.

    Args:
        dataset: the sealed dataset.
        count: networks of each task; None for all.
        folder: where to; it is made.
        hosts: provenance.jsonl keeps the names of hosts.

    Returns:
        {name: sha256} of every file, SHA256SUMS included.

    Raises:
        UsageError: not fewer networks than there are.
        DatasetError: the dataset is damaged.
        TinymldsError: the file system refused.
    """
    sums = {}
    for name, source in _sources(dataset, count, hosts):
        data = _copied(dataset, name) if source is None else source()
        sums[name] = store.commit_inside(folder, name, data)
    store.commit_sums(folder, sums)
    return sums | {store.SUMS: reader.file_sha256(folder, store.SUMS)}


def expected_sums(dataset: Dataset, count: int) -> dict[str, str]:
    """What SHA256SUMS of the first `count` networks has to say, without provenance.jsonl; nothing is written.

    Raises:
        UsageError: not fewer networks than there are.
        DatasetError: a shard that is cut is damaged.
    """
    sums = {}
    for name, source in _sources(dataset, count, True):
        if name != store.PROVENANCE:
            sums[name] = dataset.sums[name] if source is None else _sha256(source())
    return sums


def check_count(dataset: Dataset, count: int) -> None:
    """Raise UsageError unless a subset of `count` networks is one: at least one of each task, and not all.

    Raises:
        UsageError: as said.
    """
    least = min(dataset.counts.values())
    if not 1 <= count < least:
        raise UsageError(
            f"{dataset.folder} has {least} networks of each task; a subset has fewer (1 to {least - 1}), not {count}"
        )


def _sources(dataset: Dataset, count: int | None, hosts: bool) -> Iterator[tuple[str, Source]]:
    """Every file of the dataset (or of its first networks) but SHA256SUMS, and how its bytes come about."""
    if count is None:
        for name in sorted(dataset.sums):
            rewritten = name == store.PROVENANCE and not hosts
            yield name, partial(_provenance, dataset, dataset.spec, hosts) if rewritten else None
        return
    check_count(dataset, count)
    spec = replace(dataset.spec, tasks=tuple((task, count) for task in dataset.tasks))
    yield store.DESCRIPTION, partial(_description, dataset, count)
    yield store.MANIFEST, partial(_manifest, dataset, count)
    yield store.PROVENANCE, partial(_provenance, dataset, spec, hosts)
    for task in dataset.tasks:
        yield from ((name, None) for name in (store.data_name(task), *store.graph_names(task)))
        for shard in range(count // store.SHARD):
            yield from ((store.shard_name(kind, task, shard), None) for kind in schema.kinds(spec))
        if count % store.SHARD:
            yield from _last_shard(dataset, spec, task, count)


def _last_shard(dataset: Dataset, spec: Spec, task: str, count: int) -> Iterator[tuple[str, Source]]:
    shard, networks = divmod(count, store.SHARD)
    entries = reopening.entries_from(dataset, task, count - networks, {})
    outcomes = [entry.outcome for entry in islice(entries, networks)]
    for name, data in schema.shard_files(spec, task, shard, outcomes):
        yield name, partial(_once, data)


def _once(data: bytes) -> Iterable[bytes]:
    return (data,)


def _copied(dataset: Dataset, name: str) -> Iterator[bytes]:
    """The pieces of a file; after the last, its hash is compared with SHA256SUMS."""
    digest = hashlib.sha256()
    with reader.open_inside(dataset.folder, name) as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            yield piece
    if digest.hexdigest() != dataset.sums[name]:
        raise DatasetError(f"{dataset.folder / name} does not match {store.SUMS}; it was changed or damaged")


def _sha256(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()


def _description(dataset: Dataset, count: int) -> Iterable[bytes]:
    tasks = [{**row, "count": count} for row in dataset.description["tasks"]]
    return _once(_line({**dataset.description, "tasks": tasks}))


def _manifest(dataset: Dataset, count: int) -> Iterator[bytes]:
    for task in dataset.tasks:
        start = dataset.manifest.place(task).start
        yield from (_line(dataset.manifest[start + index]) for index in range(count))


def _provenance(dataset: Dataset, spec: Spec, hosts: bool) -> Iterator[bytes]:
    """The lines of the networks of `spec` and of their runs; without the names of hosts, workers are numbered."""
    dataset.check_hash(store.PROVENANCE)
    counts = dict(spec.tasks)

    def stays(line: dict[str, Any]) -> bool:
        task, index = line.get("task"), line.get("index")
        return isinstance(task, str) and type(index) is int and index < counts.get(task, 0)

    lines = partial(reader.read_lines, dataset.folder, store.PROVENANCE)
    numbers: dict[str, str] = {}
    runs = {canonical_json(line.get("run")) for line in lines() if stays(line)}
    for line in lines():
        if stays(line):
            if "worker" in line and not hosts:
                line["worker"] = numbers.setdefault(str(line["worker"]), str(len(numbers) + 1))
            yield _line(line)
        elif "index" not in line and canonical_json(line.get("run")) in runs:
            yield _line({**line, "host": line.get("host", "") if hosts else ""})


def _line(value: dict[str, Any]) -> bytes:
    return (canonical_json(value) + "\n").encode()
