"""What is in a dataset folder, finished or not, without changing it."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tinymlds import sealing, store
from tinymlds.dataset import Dataset
from tinymlds.errors import DatasetError
from tinymlds.journal import Journal
from tinymlds.spec import Spec


@dataclass(frozen=True)
class FolderStatus:
    """What is in a folder, finished or not."""

    folder: Path
    spec: Spec
    counts: dict[str, Counter[str]]
    """Networks by task and status."""
    digest: str | None
    """None while work is under way."""
    quarantined: list[tuple[str, int, str]]
    updated: float
    """Unix time of the last change."""


def status(folder: str | Path) -> FolderStatus:
    """What is in a dataset folder, sealed or under way.

    Raises:
        DatasetError: not a dataset folder.
    """
    path = Path(folder)
    journal = Journal.open(path) if path.is_dir() else None
    if journal is None:
        dataset = Dataset(path)
        counts = {task: Counter(row["status"] for row in dataset.rows(task, unfinished=True)) for task in dataset.tasks}
        return FolderStatus(path, dataset.spec, counts, dataset.digest, [], (path / store.SUMS).stat().st_mtime)
    try:
        counts = {task: Counter() for task, _ in journal.spec.tasks}
        for task, found in journal.counts().items():
            counts[task].update({status.value: number for status, number in found.items()})
        for row in sealing.rows_below(path, journal.base):
            counts[row["task"]][row["status"]] += 1
        updated = (path / store.JOURNAL).stat().st_mtime
        return FolderStatus(path, journal.spec, counts, None, journal.quarantined(), updated)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from error
    finally:
        journal.close()
