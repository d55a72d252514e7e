"""Merges parts of a dataset that were made anywhere into the dataset: `tinymlds.merge`.

Every folder is checked first, and what it holds compared with all others; only then networks go into the journal of the
output folder, a shard at a time. So the outcome depends on which folders are given, and not on their order, grouping or
number, and an interrupted merge is simply done again. Only files are read; nothing in them is executed.

`origins` are the folders that networks come from, `ledger` is what they hold, `results` what a merge came to.
"""

import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tinymlds.dataset import packages, sealing, store
from tinymlds.dataset.commands import unfinished
from tinymlds.dataset.dataset import Dataset, read_description, require_dataset
from tinymlds.dataset.journal import DamagedNetworkError, Entry, Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.dataset.schema import columns_of
from tinymlds.errors import DatasetError, UsageError, going_on
from tinymlds.runs.execution import available_cpus, check_resources
from tinymlds.runs.train import check_folder, missing, prepare_folder
from tinymlds.spec import Spec
from tinymlds.verification.merging.ledger import Ledger, identity
from tinymlds.verification.merging.origins import Checks, Origin, Runs, Sealed, Unfinished
from tinymlds.verification.merging.results import Conflict, Merged, Source, name_missing
from tinymlds.verification.retraining import train_again

_OUT = 0
"""The number of the output folder in the ledger."""


def merge(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    retrain: int = 0,
    seed: int | None = None,
    workers: int | None = None,
    progress: Callable[[str, int, int], None] = lambda _folder, _done, _total: None,
) -> Merged:
    """Merge parts of a dataset into the dataset; what `tinymlds merge` does.

    Folders may be parts (`train(..., part=(2, 8))`), whole datasets with other counts, and what an earlier merge made of
    some parts. They need the same seed, tasks, recipe and checkpoints; the result has the largest count. What it comes to
    does not depend on their order or grouping, nor on whether one is given twice, and with all parts it has the bytes and
    the digest of one run. As long as networks are missing it is an unfinished folder: further parts can be merged into it,
    and `train` completes it.

    Each folder is first checked as a stranger's (see `verify`). From one that is wrong nothing is taken, nor from two that
    have different networks of the same index; the others are merged.

    Args:
        folders: what to merge; `out` itself may be among them.
        out: the dataset folder; what it holds already stays.
        retrain: so many networks of each folder, picked at random, are trained again before it is accepted, and as many of
            those in which folders differ.
        seed: picks them; default is a new one, which the result names.
        workers: processes that train, and threads that check; default is one for each CPU that this process may use.
        progress: called with (folder, networks of it that were checked, all of them).

    Raises:
        UsageError: a wrong argument, or folders that are not of one dataset.
        DatasetError: a folder is no dataset, or `out` is damaged.
        TinymldsError: the file system refused; what was merged before is safe.
    """
    if type(retrain) is not int or retrain < 0 or (seed is not None and (type(seed) is not int or seed < 0)):
        raise UsageError("retrain and seed must be whole numbers, at least 0")
    seed = secrets.randbits(63) if seed is None else seed
    checks = Checks(retrain, seed, check_resources("cpu", workers).workers, progress)
    target = Path(out)
    check_folder(target)
    paths = _chosen([folders] if isinstance(folders, str | Path) else folders, target)
    with closing(Ledger()) as ledger, ExitStack() as stack:
        merged = Merged(target, retrain_seed=checks.seed if retrain else None)
        origins: list[Origin] = []
        for number, path in enumerate(paths, _OUT + 1):
            try:
                origin = stack.enter_context(closing(_open(path, number, ledger)))
            except DatasetError as error:
                merged.sources.append(Source(str(path), problems=[str(error)]))
                continue
            merged.sources.append(origin.source)
            origins.append(origin)
        _require_one_dataset(target, origins)
        prepare_folder(target)
        with RunLock(target), going_on("networks that were taken over are safe"):
            good = [origin for origin in origins if _check(origin, checks)]
            for networks in _held(target, ledger):
                ledger.add(_OUT, networks)
            merged.conflicts = _conflicts(ledger, good, target, checks)
            _merge_into(target, [origin for origin in good if not merged.refused(origin.source)], merged, ledger, checks)
    return merged


def _chosen(folders: Sequence[str | Path], target: Path) -> list[Path]:
    """Return the folders to read, each once, without the output folder."""
    if not folders:
        raise UsageError("name at least one folder to merge")
    chosen: dict[Path, Path] = {}
    for path in map(Path, folders):
        place, out = path.resolve(), target.resolve()
        if not (path / store.JOURNAL).exists():
            require_dataset(path)
        if place == out:
            continue
        if out in place.parents or place in out.parents:
            raise UsageError(f"{target} is inside {path}, or the other way round; choose another --out")
        if packages.is_package(path):
            raise UsageError(f"{path} is a package; merge one of its datasets, as in {path}/NAME/full")
        chosen.setdefault(place, path)
    return list(chosen.values())


def _open(path: Path, number: int, ledger: Ledger) -> Origin:
    journal = Journal.open(path) if path.is_dir() else None
    if journal is None:
        return Sealed(number, path, ledger)
    try:
        if journal.spec.part is not None:
            raise UsageError(unfinished(path))
        if any(journal.base.values()):
            raise UsageError(f"{path} is a dataset that grows; finish it first, or merge into it: --out {path}")
        return Unfinished(number, path, journal, ledger)
    except BaseException:
        journal.close()
        raise


def _require_one_dataset(target: Path, origins: list[Origin]) -> None:
    """Raise UsageError unless the folders, and the output folder if it is there, are of one dataset."""
    known = [(target, found)] if (found := _spec_of(target)) else []
    known += [(origin.folder, origin.spec) for origin in origins]
    if found is not None and found.part is not None:
        raise UsageError(f"{target} is {found.scope} of a dataset; choose another --out for the whole")
    for folder, spec in known[1:]:
        first, first_spec = known[0]
        if (difference := first_spec.difference(spec)) is not None:
            name, ours, theirs = difference
            raise UsageError(
                f"{folder} was made with {name} {theirs}, and {first} with {ours}; they are not of one dataset"
            )


def _spec_of(folder: Path) -> Spec | None:
    journal = Journal.open(folder) if folder.is_dir() else None
    if journal is not None:
        with closing(journal):
            return journal.spec
    if not (folder / store.SUMS).exists():
        return None
    description = read_description(folder)
    if description["kind"] != "networks":
        raise UsageError(f"{folder} holds sequences without networks; choose another --out")
    return Spec.from_dict(description, str(folder / store.DESCRIPTION))


def _check(origin: Origin, checks: Checks) -> bool:
    """Check a folder; return whether nothing was found wrong."""
    found, source = origin.check(checks), origin.source
    source.networks, source.retrained, source.digest = found.networks, found.retrained, found.digest or None
    source.problems += found.problems
    return found.ok


def _held(folder: Path, ledger: Ledger) -> Iterator[Iterable[tuple[str, int, bytes]]]:
    """Yield in batches task, index and identity of networks in the output folder, which is ours and was checked before.

    Of those in its journal only networks that other folders hold too; one that is not what was written is forgotten.
    """
    journal = Journal.open(folder)
    if journal is None:
        if (folder / store.SUMS).exists():
            yield ((row["task"], row["index"], identity(row)) for row in Dataset(folder).manifest)
        return
    with closing(journal):
        rows = sealing.rows_below(folder, sealing.limits(journal.spec, journal.base))
        yield ((row["task"], row["index"], identity(row)) for row in rows)
        for task, indices in journal.spec.indices.items():
            for piece in store.by_shard(indices):
                wanted = sorted(ledger.known(task, piece))
                if wanted:
                    entries = _intact(journal, task, range(wanted[0], wanted[-1] + 1))
                    yield [(task, entry.outcome.index, identity(columns_of(entry.outcome))) for entry in entries]


def _intact(journal: Journal, task: str, indices: range) -> list[Entry]:
    """Return the networks of a journal of ours that are what was written; others are removed from it."""
    try:
        return list(journal.entries(task, indices))
    except DamagedNetworkError:
        journal.forget_damaged()
        return list(journal.entries(task, indices))


# ------------------------------------------------------------------ conflicts


def _conflicts(ledger: Ledger, good: list[Origin], target: Path, checks: Checks) -> list[Conflict]:
    """Return the pairs of folders that disagree; with `retrain`, also which has some of the networks in question right."""
    names = {_OUT: str(target), **{origin.number: origin.source.folder for origin in good}}
    trained: dict[tuple[str, int], bytes] = {}
    conflicts = []
    for one, other, networks in ledger.conflicts():
        if not {one, other} <= names.keys():  # one of them has been refused already
            continue
        found = ledger.conflicting(one, other, max(1, checks.retrain))
        right = None
        if checks.retrain:
            wanted = [(task, index) for task, index, *_ in found if (task, index) not in trained]
            made, _ = train_again(good[0].spec, wanted, checks.workers) if wanted else ({}, [])
            trained |= {network: identity(columns) for network, columns in made.items()}
            right = {names[one]: 0, names[other]: 0}
            for task, index, *identities in found:
                for number, digest in zip((one, other), identities, strict=True):
                    right[names[number]] += trained.get((task, index)) == digest
        number = len(found) if right else 0
        conflicts.append(Conflict((names[one], names[other]), networks, found[0][:2], right, number, one == _OUT))
    return conflicts


# ------------------------------------------------------------------ into the output folder


def _merge_into(target: Path, accepted: list[Origin], merged: Merged, ledger: Ledger, checks: Checks) -> None:
    """Add what the accepted folders have, and seal the output folder if that is all."""
    specs = [origin.spec for origin in accepted]
    if not specs and not any((target / name).exists() for name in (store.JOURNAL, store.SUMS)):
        return  # there is nothing at all
    journal = sealing.open_to_grow(target, lambda base: _union([*([base] if base else []), *specs]))
    if isinstance(journal, Dataset):
        merged.digest, merged.networks, merged.total = journal.digest, len(journal), len(journal)
        return
    with closing(journal):
        for origin in accepted:
            try:
                origin.source.added = _add(journal, origin, ledger, checks)
            except DatasetError as error:
                origin.source.problems.append(str(error))
            finally:
                origin.close()
        merged.total = journal.spec.networks
        if not (gaps := missing(journal)):
            try:
                threads = min(checks.workers, available_cpus())
                merged.digest = sealing.seal(target, journal, threads, partial(ledger.figures, _OUT))
            except DamagedNetworkError:
                if not journal.forget_damaged():
                    raise
                gaps = missing(journal)
        merged.networks = merged.total - sum(len(indices) for _, indices in gaps)
        merged.missing = name_missing(journal, gaps, specs) if gaps else []


def _union(specs: list[Spec]) -> Spec:
    """Return the spec of the whole dataset with the largest counts of these."""
    counts = (max(task_counts) for task_counts in zip(*((count for _, count in spec.tasks) for spec in specs), strict=True))
    names = (task for task, _ in specs[0].tasks)
    return replace(specs[0], tasks=tuple(zip(names, counts, strict=True)), part=None)


def _add(journal: Journal, origin: Origin, ledger: Ledger, checks: Checks) -> int:
    """Put the networks of a folder that the journal lacks into it, a shard in a transaction. Returns how many."""
    runs, lacking, added = Runs(journal, origin, _noted(origin, checks)), _lacking(origin, ledger), 0
    while batch := list(islice(lacking, store.SHARD)):
        journal.add([runs.ours(entry) for entry, _ in batch])
        ledger.add(_OUT, [(entry.task, entry.outcome.index, digest) for entry, digest in batch])
        added += len(batch)
    return added


def _lacking(origin: Origin, ledger: Ledger) -> Iterator[tuple[Entry, bytes]]:
    """Yield the networks of a folder that the output folder lacks, and their identities."""
    for task, indices in origin.pieces():
        there = ledger.held(_OUT, task, indices)
        if all(index in there for index in indices):
            continue
        checked = ledger.held(origin.number, task, indices)
        for entry in origin.entries(task, indices):
            index, digest = entry.outcome.index, identity(columns_of(entry.outcome))
            if index in there or index not in checked:  # a run may still be adding to an unfinished folder
                continue
            if checked[index] != digest:
                raise DatasetError(f"{origin.folder} changed while it was merged: {task} {index}; merge it again")
            yield entry, digest


def _noted(origin: Origin, checks: Checks) -> dict[str, Any]:
    """Return what the provenance says of a folder that was merged."""
    source = origin.source
    noted: dict[str, Any] = {"folder": origin.folder.resolve().name, "networks": source.networks}
    if origin.spec.part is not None:
        noted["part"] = "{}/{}".format(*origin.spec.part)
    if source.digest is not None:
        noted["digest"] = source.digest
    if source.retrained:
        noted |= {"retrained": source.retrained, "retrain_seed": checks.seed}
    return noted
