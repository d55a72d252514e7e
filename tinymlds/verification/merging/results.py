"""The result of a merge: the networks taken from each folder, conflicts between folders, and what is missing."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from tinymlds.dataset.journal import Journal
from tinymlds.errors import UsageError
from tinymlds.spec import Spec, parse_part

_MOST_NAMED = 20


@dataclass
class Source:
    """A folder that was to be merged, and what came of it."""

    folder: str
    part: str | None = None
    """The part, like "part 2/8"; None for a whole dataset, finished or not."""
    networks: int = 0
    added: int = 0
    """Number of networks that the output folder did not have."""
    retrained: int = 0
    """Number of networks trained again."""
    digest: str | None = None
    problems: list[str] = field(default_factory=list)
    """Problems of the folder; if there are any, none of its networks was taken."""


@dataclass(frozen=True)
class Conflict:
    """Two folders that hold different networks of the same task and index. Nothing of them was taken; if the first is the
    output folder, it keeps what it had."""

    folders: tuple[str, str]
    networks: int
    """Number of networks in which the folders differ."""
    first: tuple[str, int]
    """Task and index of one of those."""
    right: dict[str, int] | None
    """Number of networks trained again that each folder has right; None if none was trained again."""
    retrained: int = 0
    kept: bool = False
    """The first is the output folder."""

    def __str__(self) -> str:
        one, other = self.folders
        task, index = self.first
        more = f" and in {self.networks - 1} more" if self.networks > 1 else ""
        taken = f"{one} stays as it is" if self.kept else "nothing of them was taken"
        text = f"{one} and {other} hold different networks: {task} {index}{more}; {taken}"
        if self.right is None:
            return f"{text}. --retrain 10 says which is right; leave the other one out"
        counts = " and ".join(f"{number} of {folder}" for folder, number in self.right.items())
        return f"{text}. Of {self.retrained} trained again, {counts} came out as they are there; leave the wrong one out"


@dataclass
class Merged:
    """The result of a merge."""

    folder: Path
    digest: str | None = None
    """None if networks are missing."""
    networks: int = 0
    """Number of networks that there are now."""
    total: int = 0
    """Number of networks when none is missing."""
    sources: list[Source] = field(default_factory=list)
    conflicts: list[Conflict] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    """Parts, if their number is known; else runs of indices."""
    retrain_seed: int | None = None
    """The seed that picked the networks to train again."""

    @property
    def problems(self) -> list[str]:
        """Problems of the folders, and conflicts between them."""
        return [problem for source in self.sources for problem in source.problems] + list(map(str, self.conflicts))

    def refused(self, source: Source) -> bool:
        """Return whether nothing of a folder was taken."""
        return bool(source.problems) or any(source.folder in conflict.folders for conflict in self.conflicts)

    @property
    def ok(self) -> bool:
        """The dataset is there, and nothing was found wrong."""
        return self.digest is not None and not self.problems


def name_missing(journal: Journal, gaps: list[tuple[str, range]], specs: list[Spec]) -> list[str]:
    """Name what is missing: parts, if everything so far came from equally many parts; else runs of indices."""
    numbers = {spec.part[1] for spec in specs if spec.part is not None} or set(_numbers_of_parts(journal))
    if len(numbers) != 1:
        runs = [f"{task} {_in_words(gap)}" for task, gap in gaps[:_MOST_NAMED]]
        return [*runs, *([f"{len(gaps) - len(runs)} more"] if len(gaps) > len(runs) else [])]
    [parts] = numbers
    spec, place = journal.spec, {task: number for number, task in enumerate(journal.spec.indices)}
    lacking = Counter(spec.part_with(place[task], index, parts) for task, gap in gaps for index in gap)
    names = []
    for part, networks in sorted(lacking.items())[:_MOST_NAMED]:
        whole = networks == replace(spec, part=(part, parts)).networks
        names.append(f"part {part}/{parts}" if whole else f"{networks} networks of part {part}/{parts}")
    return [*names, *([f"{len(lacking) - len(names)} more"] if len(lacking) > len(names) else [])]


def _in_words(gap: range) -> str:
    """Describe indices, like 3, 3-9, or 3-9 in steps of 2."""
    text = f"{gap[0]}-{gap[-1]}" if len(gap) > 1 else str(gap[0])
    return text if gap.step == 1 or len(gap) == 1 else f"{text} in steps of {gap.step}"


def _numbers_of_parts(journal: Journal) -> Iterator[int]:
    """Yield the numbers of parts that the merges so far have recorded."""
    for info in journal.runs().values():
        merges = info.get("merged")
        for merge in merges if isinstance(merges, list) else []:
            part = merge.get("part") if isinstance(merge, dict) else None
            with contextlib.suppress(UsageError):  # a stranger's run may say anything
                if isinstance(part, str):
                    yield parse_part(part)[1]
