"""Writing a sealed dataset into a package, whole or cut to its first networks.

A cut dataset equals the one that a run with that count would have sealed. Whole shards are copied; the last shard is
written again from its first networks.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tinymlds.dataset import reader, schema, sealing, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.errors import DatasetError, UsageError
from tinymlds.spec import Spec, canonical_json

_PIECE = 1 << 20


def write(dataset: Dataset, count: int | None, folder: Path, hosts: bool) -> dict[str, str]:
    """Write a dataset folder durably: all of it, or the first `count` networks of each task.

    Every file that is copied is compared with SHA256SUMS; without `hosts`, provenance.jsonl names no host. Returns
    {name: sha256} of every file, SHA256SUMS included.
    """
    sums = {}
    for name, source in _sources(dataset, count, hosts):
        sums[name] = store.commit(folder / name, _copied(dataset, name) if source is None else source)
    store.commit_sums(folder, sums)
    return sums | {store.SUMS: reader.file_sha256(folder, store.SUMS)}


def expected_sums(dataset: Dataset, count: int) -> dict[str, str]:
    """Return the SHA256SUMS of the first `count` networks, without provenance.jsonl; nothing is written."""
    sums = {}
    for name, source in _sources(dataset, count, True):
        if name != store.PROVENANCE:
            sums[name] = dataset.sums[name] if source is None else _sha256(source)
    return sums


def check_count(dataset: Dataset, count: int) -> None:
    """Check the count of a subset."""
    least = min(dataset.counts.values())
    if not 1 <= count < least:
        raise UsageError(
            f"{dataset.folder} has {least} networks of each task; a subset has fewer (1 to {least - 1}), not {count}"
        )


def _sources(dataset: Dataset, count: int | None, hosts: bool) -> Iterator[tuple[str, Iterable[bytes] | None]]:
    """Yield each file of the dataset (or of its first networks) except SHA256SUMS, with its bytes; None if it is copied."""
    if count is None:
        for name in sorted(dataset.sums):
            rewritten = name == store.PROVENANCE and not hosts
            yield name, _provenance(dataset, dataset.spec, hosts) if rewritten else None
        return
    check_count(dataset, count)
    spec = replace(dataset.spec, tasks=tuple((task, count) for task in dataset.tasks))
    yield store.DESCRIPTION, _description(dataset, count)
    yield store.MANIFEST, _manifest(dataset, count)
    yield store.PROVENANCE, _provenance(dataset, spec, hosts)
    for task in dataset.tasks:
        yield from ((name, None) for name in (store.data_name(task), *store.graph_names(task)))
        for shard in range(count // store.SHARD):
            yield from ((store.shard_name(kind, task, shard), None) for kind in schema.kinds(spec))
        if count % store.SHARD:
            shard, networks = divmod(count, store.SHARD)
            entries = sealing.entries_from(dataset, task, count - networks, {})
            outcomes = [entry.outcome for entry in islice(entries, networks)]
            yield from ((name, [data]) for name, data in schema.shard_files(spec, task, shard, outcomes))


def _copied(dataset: Dataset, name: str) -> Iterator[bytes]:
    """Yield the pieces of a file, and compare its hash with SHA256SUMS at the end."""
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


def _description(dataset: Dataset, count: int) -> list[bytes]:
    tasks = [{**row, "count": count} for row in dataset.description["tasks"]]
    return [_line({**dataset.description, "tasks": tasks})]


def _manifest(dataset: Dataset, count: int) -> Iterator[bytes]:
    for task in dataset.tasks:
        start = dataset.manifest.place(task).start
        yield from (_line(dataset.manifest[start + index]) for index in range(count))


def _provenance(dataset: Dataset, spec: Spec, hosts: bool) -> Iterator[bytes]:
    """Yield the lines of the networks of `spec` and of their runs; without `hosts`, workers are numbered, not named."""
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
