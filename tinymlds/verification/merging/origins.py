"""The folders that `merge` takes networks from, sealed or unfinished. Each is first checked as a stranger's."""

import math
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tinymlds.dataset import sealing, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.manifest import Row, is_possible
from tinymlds.dataset.schema import columns_of
from tinymlds.errors import DatasetError
from tinymlds.spec import Spec, canonical_json
from tinymlds.training.loop import Outcome
from tinymlds.verification.checks import Verification, compare_with_training, noting, pick, verify
from tinymlds.verification.merging.ledger import Ledger, identity
from tinymlds.verification.merging.results import Source
from tinymlds.verification.retraining import Replay

_LONGEST_INFO = 1 << 14
_MOST_MERGES = 16


class Checks(NamedTuple):
    """The options of `merge` for the checks that come first."""

    retrain: int
    seed: int
    workers: int
    progress: Callable[[str, int, int], None]


class Sealed:
    """A sealed folder: a part, or a whole dataset. Its manifest is in memory only while it is checked or merged."""

    def __init__(self, number: int, folder: Path, ledger: Ledger) -> None:
        dataset = Dataset(folder)
        self.number, self.folder, self.spec, self._ledger = number, folder, dataset.spec, ledger  # its number in the ledger
        self.source, self._digest = _source(folder, dataset.spec), dataset.digest
        self._dataset: Dataset | None = None

    def check(self, checks: Checks) -> Verification:
        """Verify the folder, and enter the networks of its manifest, whose hash is in the digest, in the ledger."""
        retrain, seed, workers, progress = checks
        found = verify(self.folder, partial(progress, str(self.folder)), retrain=retrain, workers=workers, seed=seed)
        if found.ok:
            with noting(found):
                self._ledger.add_rows(self.number, self._opened().manifest)
        return found

    def _opened(self) -> Dataset:
        dataset = Dataset(self.folder)
        if dataset.digest != self._digest:
            raise DatasetError(f"{self.folder} changed while it was merged; merge it again")
        return dataset

    def pieces(self) -> Iterator[tuple[str, range]]:
        """Yield tasks, and indices between which there are as many networks as in a shard, at most."""
        for task, indices in self.spec.indices.items():
            for piece in store.by_shard(indices):
                yield task, piece

    def entries(self, task: str, indices: range) -> Iterator[Entry]:
        """Yield the networks that the folder has of a piece; raises DatasetError if they are damaged."""
        if self._dataset is None:
            self._dataset = self._opened()
            self._ledger.note_provenance(self._dataset)
        first = self.spec.indices[task].index(indices[0])
        return sealing.entries_from(self._dataset, task, first, self._ledger.made(task, indices))

    def info(self, run: int) -> dict[str, Any]:
        return self._ledger.info(run)

    def close(self) -> None:
        self._dataset = None


class Unfinished:
    """A folder with a journal, of a merge that lacks parts or of a run that has not come to its end."""

    def __init__(self, number: int, folder: Path, journal: Journal, ledger: Ledger) -> None:
        self.number, self.folder, self.spec, self._ledger = number, folder, journal.spec, ledger
        self.source, self._journal, self._runs = _source(folder, journal.spec), journal, journal.runs()

    def check(self, checks: Checks) -> Verification:
        """Enter the networks in the ledger that agree with their weights and losses, as there are no other figures yet."""
        found = Verification(str(self.folder))
        rows: list[Row] = []
        with noting(found):
            total = sum(len(self._finished(task)) for task in self.spec.indices)
            picked = set(pick(total, min(checks.retrain, total), checks.seed))
            for task, outcomes, problems in self._replayed(checks.workers):
                for outcome, why in zip(outcomes, problems, strict=True):
                    columns = columns_of(outcome)
                    if not is_possible({key: (value,) for key, value in columns.items()}, self.spec):
                        why.append("has values that no network has")
                    found.problems += [f"{self.folder}: {task} {outcome.index} {problem}" for problem in why]
                    if not why:
                        self._ledger.add(self.number, [(task, outcome.index, identity(columns))])
                    if found.networks in picked:
                        rows.append({"task": task, **columns})
                    found.networks += 1
                    checks.progress(str(self.folder), found.networks, total)
        if rows:
            compare_with_training(self.spec, rows, checks.workers, found)
            found.retrained, found.retrain_seed = len(rows), checks.seed
        return found

    def _replayed(self, threads: int) -> Iterator[tuple[str, list[Outcome], list[list[str]]]]:
        with ThreadPoolExecutor(threads) as pool:  # kernels run without Python's lock
            for task, indices in self.pieces():
                replay = Replay(self.spec, task)
                outcomes = [entry.outcome for entry in self.entries(task, indices)]
                yield task, outcomes, list(pool.map(replay.problems, outcomes))

    def _finished(self, task: str) -> list[int]:
        return [index for index in self._journal.finished(task) if index in self.spec.indices[task]]

    def pieces(self) -> Iterator[tuple[str, range]]:
        for task in self.spec.indices:
            for piece in store.by_shard(self._finished(task)):
                yield task, range(piece[0], piece[-1] + 1)

    def entries(self, task: str, indices: range) -> Iterator[Entry]:
        return self._journal.entries(task, indices)

    def info(self, run: int) -> dict[str, Any]:
        return self._runs.get(run, {})

    def close(self) -> None:
        self._journal.close()


Origin = Sealed | Unfinished
"""A folder that networks are taken from."""


def _source(folder: Path, spec: Spec) -> Source:
    return Source(str(folder), None if spec.part is None else spec.scope)


class Runs:
    """The runs of a folder as runs of the journal; what is noted of each says which folder it came with."""

    def __init__(self, journal: Journal, origin: Origin, merge: dict[str, Any]) -> None:
        self._journal, self._origin, self._merge = journal, origin, merge
        self._known = {canonical_json(info): run for run, info in journal.runs().items()}
        self._ours: dict[int, int] = {}

    def ours(self, entry: Entry) -> Entry:
        """The entry with its run in the journal; what a stranger says of times may be anything."""
        if entry.run not in self._ours:
            info = self._info(entry.run)
            key = canonical_json(info)
            if key not in self._known:
                self._known[key] = self._journal.start_run(info)
            self._ours[entry.run] = self._known[key]
        outcome = replace(entry.outcome, seconds=_finite(entry.outcome.seconds))
        return Entry(entry.task, self._ours[entry.run], outcome, _finite(entry.finished), entry.worker)

    def _info(self, run: int) -> dict[str, Any]:
        found = {key: value for key, value in self._origin.info(run).items() if key not in ("run", "task", "index")}
        before = found.get("merged")
        merges = [*(before[-_MOST_MERGES:] if isinstance(before, list) else []), self._merge]
        info = {**found, "merged": merges}
        return info if len(canonical_json(info)) < _LONGEST_INFO else {"merged": [self._merge]}


def _finite(number: Any) -> float:
    return number if isinstance(number, float) and math.isfinite(number) else 0.0
