"""The folders that `merge` takes networks from, sealed or unfinished. Each is first checked as a stranger's."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tinymlds.dataset import sealing, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.manifest import Row, is_possible
from tinymlds.dataset.schema import columns_of
from tinymlds.errors import DatasetError
from tinymlds.spec import Spec, canonical_json
from tinymlds.training.loop import Outcome
from tinymlds.verification.checks import Verification, compare_with_training, pick, verify
from tinymlds.verification.merging.ledger import Ledger, identity
from tinymlds.verification.merging.results import Source
from tinymlds.verification.retraining import Replay

_LONGEST_INFO = 1 << 14
_MOST_MERGES = 16


@dataclass(frozen=True)
class Checks:
    """The options of the checks that come before a merge."""

    retrain: int
    """Number of networks of each folder to train again."""
    seed: int
    """The seed that picks these networks."""
    workers: int
    progress: Callable[[str, int, int], None]
    """A function that is called with a folder, the number of its networks checked, and that of all."""


class Origin(ABC):
    """A folder that networks are taken from."""

    def __init__(self, number: int, folder: Path, spec: Spec, ledger: Ledger) -> None:
        self.number, self.folder, self.spec, self._ledger = number, folder, spec, ledger  # its number in the ledger
        self.source = Source(str(folder), None if spec.part is None else spec.scope)

    @abstractmethod
    def check(self, checks: Checks) -> Verification:
        """Check all networks, and enter them in the ledger."""

    @abstractmethod
    def pieces(self) -> Iterator[tuple[str, range]]:
        """Yield tasks, and indices between which there are as many networks as in a shard, at most."""

    @abstractmethod
    def entries(self, task: str, indices: range) -> Iterator[Entry]:
        """Yield the networks that the folder has of a piece; raises DatasetError if they are damaged."""

    @abstractmethod
    def info(self, run: int) -> dict[str, Any]:
        """Return what was recorded of a run; {} if nothing."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is open or in memory."""


class Sealed(Origin):
    """A sealed folder: a part, or a whole dataset. Its manifest is in memory only while it is checked or merged."""

    def __init__(self, number: int, folder: Path, ledger: Ledger) -> None:
        """Open the folder and read its spec; raises what `Dataset` raises."""
        dataset = Dataset(folder)
        super().__init__(number, folder, dataset.spec, ledger)
        self._digest = dataset.digest
        self._dataset: Dataset | None = None

    def check(self, checks: Checks) -> Verification:
        """Verify the folder; the networks are those of the manifest, whose hash is in the digest."""

        def progress(done: int, total: int) -> None:
            checks.progress(str(self.folder), done, total)

        found = verify(self.folder, progress, retrain=checks.retrain, workers=checks.workers, seed=checks.seed)
        if found.ok:
            try:
                self._ledger.add_rows(self.number, self._opened().manifest)
            except DatasetError as error:
                found.problems.append(str(error))
        return found

    def _opened(self) -> Dataset:
        """The dataset that was looked at first, opened again."""
        dataset = Dataset(self.folder)
        if dataset.digest != self._digest:
            raise DatasetError(f"{self.folder} changed while it was merged; merge it again")
        return dataset

    def pieces(self) -> Iterator[tuple[str, range]]:
        for task, indices in self.spec.indices.items():
            for piece in store.by_shard(indices):
                yield task, piece

    def entries(self, task: str, indices: range) -> Iterator[Entry]:
        if self._dataset is None:
            self._dataset = self._opened()
            self._ledger.note_provenance(self._dataset)
        first = self.spec.indices[task].index(indices[0])
        return sealing.entries_from(self._dataset, task, first, self._ledger.made(task, indices))

    def info(self, run: int) -> dict[str, Any]:
        return self._ledger.info(run)

    def close(self) -> None:
        self._dataset = None


class Unfinished(Origin):
    """A folder with a journal, of a merge that lacks parts or of a run that has not come to its end."""

    def __init__(self, number: int, folder: Path, journal: Journal, ledger: Ledger) -> None:
        super().__init__(number, folder, journal.spec, ledger)
        self._journal, self._runs = journal, journal.runs()

    def check(self, checks: Checks) -> Verification:
        """Check each network against its weights and losses; an unfinished folder has no other figures yet."""
        found = Verification(str(self.folder))
        rows: list[Row] = []
        try:
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
        except DatasetError as error:
            found.problems.append(str(error))
        if rows:
            compare_with_training(self.spec, rows, checks.workers, found)
            found.retrained, found.retrain_seed = len(rows), checks.seed
        return found

    def _replayed(self, threads: int) -> Iterator[tuple[str, list[Outcome], list[list[str]]]]:
        """Yield task, networks and the problems of each, piece by piece."""
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


class Runs:
    """The runs of a folder as runs of the journal; what is noted of each says which folder it came with."""

    def __init__(self, journal: Journal, origin: Origin, merge: dict[str, Any]) -> None:
        """Prepare to merge the runs of `origin` into `journal`; `merge` is recorded of each."""
        self._journal, self._origin, self._merge = journal, origin, merge
        self._known = {canonical_json(info): run for run, info in journal.runs().items()}
        self._ours: dict[int, int] = {}

    def ours(self, entry: Entry) -> Entry:
        """The entry with its run in the journal; what a stranger says of times may be anything."""
        if entry.run not in self._ours:
            info = canonical_json(self._info(entry.run))
            if info not in self._known:
                self._known[info] = self._journal.start_run(self._info(entry.run))
            self._ours[entry.run] = self._known[info]
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
