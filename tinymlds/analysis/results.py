"""The results of an analysis and their JSON; imports no library of the extra, so that others can show results."""

from dataclasses import asdict, dataclass, fields
from typing import Any

from tinymlds.spec import canonical_json

FORMAT = 2
"""Version of the JSON. Version 2 added the recipe and the differences of the datasets."""

METRICS = {"balanced_accuracy": (0.0, 1.0), "roc_auc": (0.0, 1.0), "spearman": (-1.0, 1.0)}
"""The metrics of rungs, with the least and the greatest value of each."""

PAIRED = ("tampered", "tampered-unseen")
"""Experiments about machines and their twins."""

_MATCHED = (
    "matched pairs: a machine and its twin of one index share initial weights, order and sequences, and are in one part of "
    "every split; pairs_right is the share of the pairs tested whose twin gets the higher score"
)
_UNMATCHED = "not matched: machines and twins {}, which scores may be about; make both with --matched and all else alike"


@dataclass(frozen=True)
class Row:
    """One rung of the ladder, in one case."""

    experiment: str
    case: str
    rung: str
    command: str
    """The command that makes this row again, run in the same folder."""
    datasets: dict[str, str]
    """The digest of each folder."""
    versions: dict[str, str]
    status: str = "done"
    """The status: done or skipped."""
    reason: str = ""
    """The reason why the rung was skipped."""
    metric: str = ""
    chance: float = 0.0
    """The score of a guess."""
    scores: tuple[float, ...] = ()
    """The score of each seed."""
    mean: float | None = None
    half_width: float | None = None
    """Half the width of the 95 % interval of the mean."""
    others: dict[str, list[float]] | None = None
    """Further scores by name, one for each seed."""
    classes: tuple[str, ...] = ()
    confusion: list[list[int]] | None = None
    """The confusion matrix of all seeds together: rows are true classes, columns predicted ones."""
    networks: dict[str, list[int]] | None = None
    """The number of networks for training, validation and test, with each seed."""
    chosen: tuple[dict[str, Any], ...] = ()
    """The settings chosen on the validation networks, with each seed."""
    notes: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Row":
        """Return the row with these fields, which JSON has as lists where they are tuples."""
        tuples = {field.name for field in fields(cls) if field.default == ()}
        given: dict[str, Any] = {name: tuple(value) if name in tuples else value for name, value in found.items()}
        return cls(**given)

    @property
    def at_chance(self) -> bool:
        """Whether the interval contains the score of a guess."""
        return self.mean is not None and self.half_width is not None and abs(self.mean - self.chance) <= self.half_width


@dataclass(frozen=True)
class Results:
    """The results of an analysis, reproducible on the same machine with the same versions except for `provenance`."""

    experiment: str
    command: str
    datasets: tuple[dict[str, Any], ...]
    versions: dict[str, str]
    interval: str
    """A description of the intervals."""
    splits: tuple[dict[str, Any], ...]
    """The split of each seed: its rule, the number of indices (which all tasks have), and those of validation and test."""
    published: dict[str, Any] | None
    """A published score, for comparison."""
    rows: tuple[Row, ...]
    provenance: dict[str, Any]
    """The seconds that each row took."""

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases, in order."""
        return tuple(dict.fromkeys(row.case for row in self.rows))

    @property
    def differing(self) -> tuple[str, ...]:
        """Settings that influence weights and differ between the training datasets: seed, or fields of the recipe."""
        return tuple(dict.fromkeys(name for each in self.datasets if not each["held_out"] for name in each["differs"]))

    @property
    def matched(self) -> bool:
        """Whether networks of an index have the same origin in all datasets that were trained on."""
        return not self.differing and all(dataset["matched"] for dataset in self.datasets if not dataset["held_out"])

    @property
    def pairs(self) -> str:
        """A sentence on what machines and twins share; "" unless the experiment is about twins."""
        if self.experiment not in PAIRED:
            return ""
        differ = (
            f"differ in {', '.join(self.differing)} too" if self.differing else "do not share initial weights and order"
        )
        return _MATCHED if self.matched else _UNMATCHED.format(differ)

    def of_case(self, case: str) -> list[Row]:
        """Return the rows of a case, in order."""
        return [row for row in self.rows if row.case == case]

    def notes_of(self, case: str) -> list[tuple[str, str]]:
        """Return the notes of a case, in order: pairs of a rung, or "every rung", and a note or the reason for skipping."""
        rows = self.of_case(case)
        done = [set(row.notes) for row in rows if row.status == "done"]
        common = set.intersection(*done) if len(done) > 1 else set()
        found = {("every rung" if note in common else row.rung, note): None for row in rows for note in row.notes}
        found |= {(row.rung, f"skipped: {row.reason}"): None for row in rows if row.reason}
        return list(found)

    def to_dict(self) -> dict[str, Any]:
        """Return the content of the JSON."""
        return {"format": FORMAT, "kind": "analysis", **asdict(self)}

    def to_json(self) -> str:
        """Return one line of canonical JSON."""
        return canonical_json(self.to_dict()) + "\n"
