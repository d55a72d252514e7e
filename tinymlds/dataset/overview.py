"""The state of a dataset folder, finished or not; the folder is only read."""

import contextlib
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinymlds.dataset import packages, reader, sealing, store
from tinymlds.dataset.activity import RunActivity
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.journal import Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.errors import TinymldsError
from tinymlds.spec import Spec
from tinymlds.tasks import catalog
from tinymlds.training.loop import Status

MILESTONES = (100, 1_000, 10_000)
"""Networks of each transducer at which the original published."""


@dataclass(frozen=True)
class FolderStatus:
    """The state of a folder, finished or not."""

    folder: Path
    spec: Spec
    counts: dict[str, Counter[str]]
    """Networks by task and status."""
    digest: str | None
    """None while work is under way."""
    quarantined: list[tuple[str, int, str]]
    updated: dict[str, float]
    """Unix time at which the latest network of each task was finished; tasks without networks are left out."""
    run: "RunStatus | None" = None
    """The latest run of a folder in which work is under way, if it is known."""
    at_work: bool = False
    """Whether a process works on the folder."""

    @property
    def waiting(self) -> str:
        """What to call networks that are missing: in progress, or to do if nobody is at work on them."""
        return "in progress" if self.at_work else "to do"

    def complete(self, task: str) -> int:
        """Count the networks of a task that reached the threshold."""
        return self.counts[task][Status.COMPLETE]

    def shares(self) -> dict[str, float]:
        """Return the share of complete networks of each task; 1 where a part has none of the task to make."""
        return {task: self.complete(task) / count if count else 1.0 for task, count in self.spec.counts.items()}

    def in_progress(self, task: str) -> int:
        """Count the networks of a task that were asked for and have not been trained to an end."""
        return len(self.spec.indices[task]) - self.counts[task].total()


@dataclass(frozen=True)
class RunStatus:
    """The latest run of a folder in which work is under way: who works on what, and how fast."""

    holder: str | None
    """The process that works on the folder, and its host; None if the run was interrupted."""
    info: dict[str, Any]
    """Host, backend, executor, versions, start: the line of the run in the provenance."""
    activity: RunActivity
    """The activity as the run wrote it last, at `activity.latest`."""

    @property
    def seconds_left(self) -> float | None:
        """Forecast of the seconds from now on; None if there is none, or if nobody works."""
        if self.holder is None or self.activity.seconds_left is None:
            return None
        return max(0.0, self.activity.seconds_left - (time.time() - self.activity.latest))


@dataclass(frozen=True)
class Transducers:
    """The page of dataset 3: how far all transducers are, with complete networks only."""

    complete: int
    total: int
    milestones: dict[int, int]
    """For each number of networks of a transducer: how many networks there are towards it, over all transducers."""
    shares: dict[str, int]
    """Number of transducers at 0 %, under 25 %, 25-75 %, over 75 % and 100 % of what is asked for."""


def status(folder: str | Path, name: str | None = None, subset: int | None = None) -> FolderStatus:
    """Return the state of a dataset folder, sealed or under way, or of a dataset of a package (see `tinymlds.open`).

    Raises:
        DatasetError: not a dataset folder.
        UsageError: the package has not what is asked for.
    """
    path = packages.locate(folder, name, subset)
    with reader.reading(path):
        journal = Journal.open(path) if path.is_dir() else None
    if journal is None:
        dataset = Dataset(path)
        counts = {task: dataset.manifest.statuses(dataset.manifest.place(task)) for task in dataset.tasks}
        return FolderStatus(path, dataset.spec, counts, dataset.digest, [], _last(path, dict(dataset.spec.tasks)))
    with contextlib.closing(journal), reader.reading(path):
        counts = journal.counts()
        below = sealing.limits(journal.spec, journal.base)
        for row in sealing.rows_below(path, below):
            counts[row["task"]][row["status"]] += 1
        updated = _last(path, below) | journal.updated()
        activity, run, holder = journal.read_activity(), None, RunLock.holder(path)
        if activity is not None:
            run = RunStatus(holder, journal.runs()[activity.run], activity)
        return FolderStatus(path, journal.spec, counts, None, journal.quarantined(), updated, run, holder is not None)


def describe_run(run: RunStatus | None) -> dict[str, Any] | None:
    """Return a run in plain types, for JSON."""
    if run is None:
        return None
    activity = run.activity._asdict()
    activity |= {name: [row._asdict() for row in activity[name]] for name in ("members", "under_way", "latest_deaths")}
    return {"holder": run.holder, "info": run.info, **activity, "seconds_left": run.seconds_left}


def _last(folder: Path, counts: dict[str, int]) -> dict[str, float]:
    """Return when the latest of the first `counts[task]` networks of each task was finished, by the provenance."""
    updated: dict[str, float] = {}
    for line in sealing.provenance_below(folder, counts):
        if isinstance(finished := line.get("finished"), float):
            updated[line["task"]] = max(finished, updated.get(line["task"], 0.0))
    return updated


def transducers(found: FolderStatus) -> Transducers | None:
    """The page of dataset 3, for a folder with transducers only; else None."""
    if not all(catalog.is_transducer(task) for task, _ in found.spec.tasks):
        return None
    complete = {task: found.complete(task) for task, _ in found.spec.tasks}
    asked = max(found.spec.counts.values())
    milestones = [m for m in MILESTONES if m < asked] + [asked]
    shares = dict.fromkeys(("0 %", "under 25 %", "25-75 %", "over 75 %", "100 %"), 0)
    for share in found.shares().values():
        level = sum((share > 0, share >= 0.25, share > 0.75, share == 1))
        shares[list(shares)[level]] += 1
    return Transducers(
        sum(complete.values()),
        found.spec.networks,
        {m: sum(min(number, m) for number in complete.values()) for m in milestones},
        shares,
    )


def below(folder: Path) -> list[dict[str, Any]]:
    """Return a row for each dataset folder and package in a folder: folder, networks, asked (for), seed, state."""
    with reader.reading(folder):
        paths = sorted(path for path in folder.iterdir() if path.is_dir())
    rows: list[dict[str, Any]] = []
    for path in paths:
        row = dict.fromkeys(("networks", "asked", "seed", "state"))
        if packages.is_package(path):
            row["state"] = "a package"
        elif any((path / name).exists() for name in (store.SUMS, store.JOURNAL)):
            try:
                found = status(path)
                there, state = sum(map(Counter.total, found.counts.values())), "finished" if found.digest else found.waiting
                row = {"networks": there, "asked": found.spec.networks, "seed": found.spec.seed, "state": state}
            except TinymldsError as error:
                row["state"] = str(error)
        if row["state"]:
            rows.append({"folder": path, **row})
    return rows
