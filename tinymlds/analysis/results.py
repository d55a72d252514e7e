"""What an analysis comes to, and its JSON. Imports no library of the extra, so that others can show results."""

from dataclasses import asdict, dataclass
from typing import Any

from tinymlds.spec import canonical_json

FORMAT = 2
"""Version of the JSON. 2: datasets have their recipe and what they differ in."""

METRICS = {"balanced_accuracy": (0.0, 1.0), "roc_auc": (0.0, 1.0), "spearman": (-1.0, 1.0)}
"""What rungs are scored by, and between which values a score is."""

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
    """Makes this row again, in the folder where the datasets are."""
    datasets: dict[str, str]
    """Digest of each folder."""
    versions: dict[str, str]
    status: str = "done"
    """done, or skipped."""
    reason: str = ""
    """Why it was skipped."""
    metric: str = ""
    chance: float = 0.0
    """What a guess scores."""
    scores: tuple[float, ...] = ()
    """One for each seed."""
    mean: float | None = None
    half_width: float | None = None
    """Of the 95 % interval of the mean."""
    others: dict[str, list[float]] | None = None
    """Further scores, one for each seed."""
    classes: tuple[str, ...] = ()
    confusion: list[list[int]] | None = None
    """Of all seeds together: row, true class; column, predicted class."""
    networks: dict[str, list[int]] | None = None
    """For training, validation and test, with each seed."""
    chosen: tuple[dict[str, Any], ...] = ()
    """What was chosen on the validation networks, with each seed."""
    notes: tuple[str, ...] = ()

    @property
    def at_chance(self) -> bool:
        """Whether the interval, which is corrected for the networks that seeds share, holds what a guess scores."""
        return self.mean is not None and self.half_width is not None and abs(self.mean - self.chance) <= self.half_width


@dataclass(frozen=True)
class Results:
    """An analysis. Everything but `provenance` is the same each time, on the same machine with the same versions."""

    experiment: str
    command: str
    datasets: tuple[dict[str, Any], ...]
    versions: dict[str, str]
    interval: str
    """What the intervals cover."""
    splits: tuple[dict[str, Any], ...]
    """Of each seed: the rule, how many indices (those that all tasks have), and which are for validation and for test."""
    published: dict[str, Any] | None
    """A figure from the literature to stand beside ours."""
    rows: tuple[Row, ...]
    provenance: dict[str, Any]
    """Seconds for each row."""

    @property
    def cases(self) -> tuple[str, ...]:
        """Names of the cases, in order."""
        return tuple(dict.fromkeys(row.case for row in self.rows))

    @property
    def differing(self) -> tuple[str, ...]:
        """What reaches weights and differs among the datasets that were trained on: seed, or fields of the recipe."""
        return tuple(dict.fromkeys(name for each in self.datasets if not each["held_out"] for name in each["differs"]))

    @property
    def matched(self) -> bool:
        """Whether networks of an index share what they were made from, in all datasets that were trained on."""
        return not self.differing and all(dataset["matched"] for dataset in self.datasets if not dataset["held_out"])

    @property
    def pairs(self) -> str:
        """Of tampered: what a machine and its twin share, in a sentence; "" of other experiments."""
        if self.experiment not in PAIRED:
            return ""
        differ = (
            f"differ in {', '.join(self.differing)} too" if self.differing else "do not share initial weights and order"
        )
        return _MATCHED if self.matched else _UNMATCHED.format(differ)

    def of_case(self, case: str) -> list[Row]:
        """The rungs of a case, in order."""
        return [row for row in self.rows if row.case == case]

    def notes_of(self, case: str) -> list[tuple[str, str]]:
        """What rungs of a case have to say: the rung, or "every rung", and a note, or why it was skipped; in order."""
        rows = self.of_case(case)
        done = [set(row.notes) for row in rows if row.status == "done"]
        common = set.intersection(*done) if len(done) > 1 else set()
        found = {("every rung" if note in common else row.rung, note): None for row in rows for note in row.notes}
        found |= {(row.rung, f"skipped: {row.reason}"): None for row in rows if row.reason}
        return list(found)

    def to_dict(self) -> dict[str, Any]:
        """What JSON gets."""
        return {"format": FORMAT, "kind": "analysis", **asdict(self)}

    def to_json(self) -> str:
        """One line of canonical JSON."""
        return canonical_json(self.to_dict()) + "\n"
