"""The splits of a package: rows of complete networks that passed the audit, as JSON Lines for training, validation, test.

Two networks that share more than chance are never on two sides: the same weights or initial weights (`by_index`), the same
machine with and without its trigger, tasks that do the same (`by_task`), members of a family (`by_family`).
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


@dataclass(frozen=True)
class Scheme:
    """A way to split a package."""

    name: str
    meaning: str
    sides: dict[str, list[Row]] = field(default_factory=dict)
    """Rows by side; {} if it is left out."""
    groups: dict[str, list[str]] = field(default_factory=dict)
    """Names of the groups on each side; {} where networks, not tasks, are divided."""
    left_out: str = ""
    """Why there is none, or ""."""

    def file_name(self, side: str) -> str:
        """Path of a side in the package."""
        return f"splits/{self.name}/{side}.jsonl"

    def files(self) -> dict[str, bytes]:
        """The files of this split; none if it is left out."""
        return {
            self.file_name(side): b"".join((canonical_json(row) + "\n").encode() for row in rows)
            for side, rows in self.sides.items()
        }


def make(parts: list[Part], audit: Audit) -> list[Scheme]:
    """All schemes, those that are left out too.

    Raises:
        DatasetError: networks on two sides of a split share what they must not share.
    """
    rows = {(part.name, task): _rows(part, task, audit) for part in parts for task in part.full.tasks}
    labels = {(part.name, task): label for part in parts for task, label in part.labels.items()}
    schemes = [_by_index(rows), _by_task(rows, labels), _by_family(rows, labels)]
    for scheme in schemes:
        if problem := leak(scheme, parts):
            raise DatasetError(f"the split {scheme.name} would leak: {problem}")
    return schemes


def extended(part: Part, row: Row) -> Row:
    """A row of the manifest with the columns that a package adds: dataset, base, modified."""
    label = part.labels[row["task"]]
    return {**row, "dataset": part.name, "base": label.base, "modified": label.modified}


def _rows(part: Part, task: str, audit: Audit) -> list[Row]:
    passed = audit.passed[part.name, task]
    return [extended(part, row) for row in part.full.rows(task) if row["index"] in passed]


def _by_index(rows: dict[Node, list[Row]]) -> Scheme:
    sides: dict[str, list[Row]] = {side: [] for side in SPLITS}
    for row in (row for of_task in rows.values() for row in of_task):
        sides[row["split"]].append(row)
    return Scheme("by_index", "new networks of known tasks, divided by index, the same for all tasks", sides)


def _by_task(rows: dict[Node, list[Row]], labels: dict[Node, Label]) -> Scheme:
    """Machines stay with their twins, whatever their dataset, and tasks that do the same stay together."""
    ties = {node: _ties("by_task", node, labels[node]) for node in rows if rows[node]}
    meaning = "new tasks; a machine stays with its twin, and tasks that do the same stay together"
    return _divided("by_task", meaning, rows, ties)


def _by_family(rows: dict[Node, list[Row]], labels: dict[Node, Label]) -> Scheme:
    """Transducers with edits, by the base that they come from."""
    ties = {node: _ties("by_family", node, labels[node]) for node in rows if rows[node] and labels[node].family}
    meaning = "new families of transducers with edits, each whole"
    return _divided("by_family", meaning, rows, ties)


def _ties(scheme: str, node: Node, label: Label) -> set[Hashable]:
    """What keeps the networks of a task on one side with those of others."""
    ties: set[Hashable] = {("does", label.behaviour)}
    if scheme == "by_family":
        ties.add(("family", label.family))
    elif not is_transducer(node[1]):
        ties.add(("machine", label.base))
    return ties


def _divided(name: str, meaning: str, rows: dict[Node, list[Row]], ties: dict[Node, set[Hashable]]) -> Scheme:
    """A scheme that puts each group of tasks that are tied to each other on one side."""
    groups = grouped(ties)
    if len(groups) < LEAST_GROUPS:
        why = f"{len(groups)} groups of tasks in this package; a split takes {LEAST_GROUPS} at least"
        return Scheme(name, meaning, left_out=why)
    side_of = drawn(name, [_group_name(group) for group in groups])
    sides: dict[str, list[Row]] = {side: [] for side in SPLITS}
    names: dict[str, list[str]] = {side: [] for side in SPLITS}
    for group in groups:
        side = side_of[_group_name(group)]
        names[side].append(_group_name(group))
        for node in group:
            sides[side] += rows[node]
    return Scheme(name, meaning, sides, names)


def grouped(ties: dict[Node, set[Hashable]]) -> list[list[Node]]:
    """Tasks that share a tie, directly or through others, in one group; groups and tasks in the order of `ties`."""
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


def _group_name(group: list[Node]) -> str:
    return " + ".join(f"{dataset}/{task}" for dataset, task in group)


def drawn(scheme: str, names: Iterable[str]) -> dict[str, str]:
    """A side for each name: a tenth (one at least) for test and for validation, the rest for training.

    The order is that of sha256 over the names, so it depends on them alone.
    """
    order = sorted(names, key=lambda name: hashlib.sha256(f"tinymlds:{scheme}:{name}".encode()).digest())
    tenth = max(1, round(len(order) / 10))
    return {name: "test" if k < tenth else "validation" if k < 2 * tenth else "train" for k, name in enumerate(order)}


def leak(scheme: Scheme, parts: list[Part]) -> str:
    """What rows on two sides of a split have in common and must not, or "".

    In all schemes that is the weights; in `by_index` also the initial weights, which networks of one seed, stream and
    index share; in the others whatever ties tasks together. (There, networks on two sides may begin with the same weights
    if two datasets of one seed have a transducer of the same number; their tasks differ.)
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
