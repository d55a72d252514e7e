"""The splits of a package: rows of complete networks that passed the audit, as JSON Lines for training, validation, test.

Related networks are always on one side: those of the same weights or initial weights (`by_index`), those of a machine with
and without its trigger and of tasks that behave alike (`by_task`), and those of a family (`by_family`).
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field

from tinymlds.dataset.manifest import SPLITS, Row
from tinymlds.errors import DatasetError
from tinymlds.publish.audit import Audit
from tinymlds.publish.parts import Label, Part
from tinymlds.spec import canonical_json
from tinymlds.tasks.catalog import is_transducer

Node = tuple[str, str]
"""A task of a dataset: (dataset, task)."""

LEAST_GROUPS = 3
"""The least number of groups of tasks that a split divides."""


@dataclass(frozen=True)
class Scheme:
    """A way to split the networks of a package."""

    name: str
    meaning: str
    sides: dict[str, list[Row]] = field(default_factory=dict)
    """Rows by side; {} if the split is left out."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """Names of the groups of tasks on each side; {} if networks are divided, not tasks."""
    left_out: str = ""
    """The reason why the split is left out, or ""."""

    def file_name(self, side: str) -> str:
        """Return the path of a side in the package."""
        return f"splits/{self.name}/{side}.jsonl"

    def files(self) -> dict[str, bytes]:
        """Return the files of this split; none if it is left out."""
        return {
            self.file_name(side): b"".join((canonical_json(row) + "\n").encode() for row in rows)
            for side, rows in self.sides.items()
        }


def make(parts: list[Part], audit: Audit) -> list[Scheme]:
    """Return all schemes, including those that are left out."""
    rows = {
        (part.name, task): [extended(part, row) for row in audit.passed_rows(part, task)]
        for part in parts
        for task in part.full.tasks
    }
    labels = {(part.name, task): label for part in parts for task, label in part.labels.items()}
    schemes = [_by_index(rows), *(_divided(name, rows, labels) for name in _MEANINGS)]
    for scheme in schemes:
        if problem := leak(scheme, parts):
            raise DatasetError(f"the split {scheme.name} would leak: {problem}")
    return schemes


def extended(part: Part, row: Row) -> Row:
    """Return a row of the manifest with the columns that a package adds: dataset, base, modified."""
    label = part.labels[row["task"]]
    return {**row, "dataset": part.name, "base": label.base, "modified": label.modified}


def _by_index(rows: dict[Node, list[Row]]) -> Scheme:
    every = [row for found in rows.values() for row in found]
    sides = {side: [row for row in every if row["split"] == side] for side in SPLITS}
    return Scheme("by_index", "new networks of known tasks, divided by index, the same for all tasks", sides)


_MEANINGS = {
    "by_task": "new tasks; a machine stays with its twin, and tasks that do the same stay together",
    "by_family": "new families of transducers with edits, each whole",
}


def _ties(scheme: str, node: Node, label: Label) -> set[Hashable]:
    """Return the ties of a task; tasks that share one are on the same side."""
    ties: set[Hashable] = {("does", label.behaviour)}
    if scheme == "by_family":
        ties.add(("family", label.family))
    elif not is_transducer(node[1]):
        ties.add(("machine", label.base))
    return ties


def _divided(name: str, rows: dict[Node, list[Row]], labels: dict[Node, Label]) -> Scheme:
    """Divide the tasks so that each group of tied tasks is on one side; by_family has transducers with edits only."""
    nodes = [node for node in rows if rows[node] and (name == "by_task" or labels[node].family)]
    groups = grouped({node: _ties(name, node, labels[node]) for node in nodes})
    if len(groups) < LEAST_GROUPS:
        why = f"{len(groups)} groups of tasks in this package; a split takes {LEAST_GROUPS} at least"
        return Scheme(name, _MEANINGS[name], left_out=why)
    named = {" + ".join(f"{dataset}/{task}" for dataset, task in group): group for group in groups}
    side_of = drawn(name, named)
    names = {side: [each for each in named if side_of[each] == side] for side in SPLITS}
    sides = {side: [row for each in names[side] for node in named[each] for row in rows[node]] for side in SPLITS}
    return Scheme(name, _MEANINGS[name], sides, names)


def grouped(ties: dict[Node, set[Hashable]]) -> list[list[Node]]:
    """Group tasks that share a tie, directly or through others; groups and tasks keep the order of `ties`."""
    parent = {node: node for node in ties}

    def root(node: Node) -> Node:
        while parent[node] != node:
            node = parent[node]
        return node

    first: dict[Hashable, Node] = {}
    for node, shared in ties.items():
        for tie in shared:
            parent[root(node)] = root(first.setdefault(tie, node))
    groups = defaultdict(list)
    for node in ties:
        groups[root(node)].append(node)
    return list(groups.values())


def drawn(scheme: str, names: Iterable[str]) -> dict[str, str]:
    """Draw a side for each name: a tenth (at least one) for test and for validation, the rest for training.

    The order is that of sha256 over the names, so it depends on the names alone.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(f"tinymlds:{scheme}:{name}".encode()).digest())
    tenth = max(1, round(len(order) / 10))
    return {name: "test" if k < tenth else "validation" if k < 2 * tenth else "train" for k, name in enumerate(order)}


def leak(scheme: Scheme, parts: list[Part]) -> str:
    """Return a message on two related rows on different sides of a split, or "".

    Rows are related if they have the same weights; in `by_index` also if they have the same initial weights, as networks of
    one seed, stream and index do; and in the other schemes if a tie connects their tasks. (There, networks on two sides may
    begin with the same weights if two datasets of one seed have a transducer of the same number; their tasks differ.)
    """
    labels = {(part.name, task): label for part in parts for task, label in part.labels.items()}
    seeds = {part.name: part.full.spec.seed for part in parts}
    seen: dict[Hashable, tuple[str, Row]] = {}
    for side, rows in scheme.sides.items():
        for row in rows:
            node = row["dataset"], row["task"]
            keys: set[Hashable] = {("weights", row["weights_sha256"])}
            if scheme.name == "by_index":
                keys.add(("initial weights", seeds[node[0]], labels[node].stream, row["index"]))
            else:
                keys |= _ties(scheme.name, node, labels[node])
            for key in keys:
                other_side, other = seen.setdefault(key, (side, row))
                if other_side != side:
                    one, two = (f"{found['dataset']}/{found['task']} {found['index']}" for found in (other, row))
                    return f"{one} ({other_side}) and {two} ({side}) share {key}"
    return ""
