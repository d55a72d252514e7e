"""Tables and sentences of the card: what is in a package, its tasks, recipe, splits, audit and cost."""

from collections.abc import Callable, Iterable
from dataclasses import fields
from statistics import median
from typing import Any

from tinymlds.dataset import reader, store
from tinymlds.dataset.manifest import SPLITS, Row
from tinymlds.publish.audit import RULE, RULE_OF_MACHINES
from tinymlds.publish.contents import Contents
from tinymlds.publish.mermaid import diagram
from tinymlds.publish.parts import Part, subset_count
from tinymlds.publish.schemes import Scheme
from tinymlds.spec import Recipe
from tinymlds.tasks import catalog, machines
from tinymlds.training import metrics

MOST_TASKS = 20
"""Tasks of a dataset that get a line each; if there are more, the first few stand for them."""

_FIRST = 3

_OF_TRIGGERS = {"trigger_key", "trigger_span", "trigger_rate"}
_OF_TRANSDUCERS = {"states", "edits", "family"}

_DOES = {
    "eightbit": "all eight bits of the register, bit b on line b",
    "direct": "bit 0 of the register",
    "invert": "the negation of bit 0",
    "xor": "bit 0 xor bit 1",
    "parity": "1 if an odd number of the eight bits is set",
}
"""What a machine's output lines are."""


def table(header: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    """A table in Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def has_machines(parts: list[Part]) -> bool:
    """Whether a task is a machine, modified or not."""
    return any(not catalog.is_transducer(task) for part in parts for task in part.full.tasks)


def has_transducers(parts: list[Part]) -> bool:
    """Whether a task is a transducer."""
    return any(catalog.is_transducer(task) for part in parts for task in part.full.tasks)


# ------------------------------------------------------------------ what is here


def folders_table(contents: Contents) -> str:
    """A line for each dataset folder: networks, size, digest."""
    rows: list[tuple[Any, ...]] = []
    for part in contents.parts:
        passed = [contents.audit.passed[part.name, task] for task in part.full.tasks]
        for dataset in (part.full, *part.subsets):
            whole = dataset is part.full
            place = part.folder if whole else f"{part.name}/{subset_count(dataset)}"
            complete = sum(len(indices) if whole else sum(k < subset_count(dataset) for k in indices) for indices in passed)
            size = sum(size for name, size in contents.sizes.items() if name.startswith(f"{place}/"))
            about = (len(dataset.tasks), f"{len(dataset):,}", f"{complete:,}", f"{size / 1e6:,.1f} MB")
            rows.append((f"`{place}`", *about, f"`{dataset.digest}`"))
    return table(("folder", "tasks", "networks", "complete and audited", "size", "digest"), rows)


# ------------------------------------------------------------------ tasks


def encodings(parts: list[Part]) -> Iterable[str]:
    """What the lines mean, a paragraph for machines and one for transducers."""
    if has_machines(parts):
        yield (
            "Machines have an 8-bit register of zeros. Symbol 2b is the command `clear b` and sets input line b; symbol "
            "2b + 1 is `set b` and sets lines b and 8. Outputs are read after the command has been applied, on line 0 "
            "(`eightbit`: on all eight); other lines are 0."
        )
    if has_transducers(parts):
        yield (
            "Transducers are random machines: symbol k of four is input line k, each state and symbol leads to a state "
            "and sets one of output lines 0 to 3."
        )


def tasks_table(part: Part) -> str:
    """The tasks of a dataset, or the first of them."""
    recipe, described = part.full.spec.recipe, part.full.description["tasks"]
    rows = []
    shown = described if len(described) <= MOST_TASKS else described[:_FIRST]
    for row in shown:
        minimal = catalog.load(row["task"], recipe).table.minimise().states
        states = f"{row['states']} ({minimal})"
        place = f"`{part.folder}/data/{row['task']}.dot`"
        rows.append((f"`{row['task']}`", row["alias"], _does(row["task"], recipe), states, row["symbols"], place))
    if len(described) > len(shown):
        rows.append((f"... and {len(described) - len(shown)} more", "", "", "", "", f"`{part.folder}/data/`"))
    header = ("task", "the original's name", "output", "states (minimal)", "symbols", "minimal machine")
    return f"**{part.name}**\n\n" + table(header, rows)


def _does(task: str, recipe: Recipe) -> str:
    """What a task is, in words."""
    if catalog.is_transducer(task):
        return "random"
    base = task.removesuffix(catalog.MODIFIED)
    if base == task:
        return _DOES[task]
    return f"as `{base}`; after {recipe.trigger_key} the next {recipe.trigger_span} outputs are inverted"


def picture(parts: list[Part]) -> str:
    """A picture of a machine that is small enough, the first with the most states; "" if there is none."""
    best: tuple[int, str] = (0, "")
    for part in parts:
        for task in part.full.tasks[:MOST_TASKS]:
            table = catalog.load(task, part.full.spec.recipe).table
            drawn, states = diagram(table), table.minimise().states
            if drawn and states > best[0]:
                text = f"`{task}` (minimal machine; symbol / output lines that are 1):\n\n```mermaid\n{drawn}\n```\n\n"
                best = states, text
    return best[1]


# ------------------------------------------------------------------ recipe


def recipe_table(parts: list[Part]) -> str:
    """The recipe and seed of all datasets; fields that concern none of the tasks are left out."""
    left_out = (set() if has_transducers(parts) else _OF_TRANSDUCERS) | (set() if _keys(parts) else _OF_TRIGGERS)
    left_out |= set() if has_machines(parts) else {"matched"}
    rows = [
        (f"`{entry.name}`", _values(parts, [getattr(part.full.spec.recipe, entry.name) for part in parts]), meaning)
        for entry in fields(Recipe)
        if entry.name not in left_out
        for meaning in [entry.metadata["text"]]
    ]
    rows.append(("seed", _values(parts, [part.full.spec.seed for part in parts]), "Seed of the dataset."))
    return table(("field", "value", "meaning"), rows)


def _values(parts: list[Part], values: list[Any]) -> str:
    """One value if all datasets have the same, else that of each."""
    if len(set(values)) == 1:
        return f"`{values[0]}`"
    return ", ".join(f"`{value}` ({part.name})" for part, value in zip(parts, values, strict=True))


def _keys(parts: list[Part]) -> bool:
    """Whether keys are planted in the sequences of a task."""
    return any(catalog.load(task, part.full.spec.recipe).key for part in parts for task in part.full.tasks)


def drawing(parts: list[Part]) -> str:
    """How symbols are drawn, what the networks of a task share, and what sets machines and modified machines apart."""
    text = "Symbols are independent and equally likely"
    text += "; where a task has a trigger (with `matched`: in all machines) keys are planted among them" * _keys(parts)
    shared = [_shared(part) for part in parts]
    alike = len(set(shared)) == 1
    sentences = [f"Networks of a task {shared[0]}."] if alike else []
    sentences += [
        f"Networks of a task of `{part.name}` {what}." for part, what in zip(parts, shared, strict=True) if not alike
    ]
    planted = {
        bool(catalog.load(task, part.full.spec.recipe).key)
        for part in parts
        for task in part.full.tasks
        if not catalog.is_transducer(task)
    }
    if len(planted) == 2:
        sentences.append(
            "Some machines were trained without keys, so they and modified ones differ by more than the trigger."
        )
    return " ".join([f"{text}.", *sentences])


def _shared(part: Part) -> str:
    recipe = part.full.spec.recipe
    sequences = "share their training sequences" if recipe.sequences == "shared" else "have sequences of their own"
    weights = "begin with weights of their own" if recipe.initial == "own" else "all begin with the same weights"
    return f"{sequences} and {weights}"


def cost(part: Part) -> str:
    """The training time of a dataset, from provenance.jsonl."""
    lines = reader.read_lines(part.full.folder, store.PROVENANCE)
    seconds = sum(line["seconds"] for line in lines if isinstance(line.get("seconds"), int | float))
    unit, length = next((u for u in (("h", 3600), ("min", 60)) if seconds >= 10 * u[1]), ("s", 1))
    return f"{seconds / length:.0f} {unit} (`{part.name}`)"


# ------------------------------------------------------------------ splits


def splits_text(contents: Contents) -> str:
    """What each split is for."""
    families = any(label.family for part in contents.parts for label in part.labels.values())
    return "\n".join(_split_line(scheme) for scheme in contents.schemes if families or scheme.name != "by_family")


_PURPOSE = {
    "by_task": " For representations, and for tests of what is common to tasks, on tasks never seen; which task it is "
    "cannot be learned from it, as no task is on two sides."
}


def _split_line(scheme: Scheme) -> str:
    if scheme.left_out:
        return f"- `{scheme.name}` is not here: {scheme.left_out}."
    line = f"- `{scheme.name}`: {scheme.meaning}.{_PURPOSE.get(scheme.name, '')}"
    for side in SPLITS[1:]:
        if names := scheme.groups.get(side, []):
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            line += f" In {side}: {', '.join(f'`{name}`' for name in names[:5])}{more}."
    return line


def splits_table(schemes: list[Scheme]) -> str:
    """Networks of each side, their share, and groups of tasks."""
    rows = []
    for scheme in schemes:
        total = sum(map(len, scheme.sides.values()))
        cells = []
        for side, found in scheme.sides.items():
            share = f" ({len(found) / total:.0%})" if total else ""
            number = len(scheme.groups.get(side, []))
            groups = f", {number} group{'s' * (number != 1)}" if scheme.groups else ""
            cells.append(f"{len(found):,}{share}{groups}")
        rows += [(f"`{scheme.name}`", *cells)] if cells else []
    return table(("split", *SPLITS), rows)


# ------------------------------------------------------------------ checks


def audit_rule(parts: list[Part]) -> str:
    """When a network passes."""
    return f"{RULE}{RULE_OF_MACHINES if has_machines(parts) else ''}."


def audit_table(contents: Contents) -> str:
    """A line a task; of a dataset of many tasks, a line for all."""
    lines: list[tuple[Any, ...]] = []
    for part, dataset in zip(contents.parts, contents.audit.report["datasets"], strict=True):
        found = dataset["tasks"]
        if len(found) > MOST_TASKS:
            lines.append(_audit_line(f"{part.name}: all {len(found)} tasks", contents, part, found))
        else:
            lines += [_audit_line(f"{part.name}: `{task['task']}`", contents, part, [task]) for task in found]
    header = ("task", "networks", "complete", "other", "passed", "epochs", "least agreement", "long_accuracy")
    kept = [k for k, name in enumerate(header) if name != "other" or any(line[k] != "-" for line in lines)]
    return table(tuple(header[k] for k in kept), ([line[k] for k in kept] for line in lines))


def _audit_line(name: str, contents: Contents, part: Part, found: list[dict[str, Any]]) -> tuple[Any, ...]:
    statuses: dict[str, int] = {}
    for task in found:
        for status, number in task["statuses"].items():
            statuses[status] = statuses.get(status, 0) + number
    complete = statuses.pop("complete", 0)
    other = ", ".join(f"{number} {status}" for status, number in statuses.items()) or "-"
    rows = [row for task in found for row in _passed(contents, part, task["task"])]
    least = min((task["worst"]["agreement"] for task in found if task["worst"]), default=None)
    lengths = [row["long_accuracy"] for row in rows]
    return (
        name,
        sum(task["networks"] for task in found),
        complete,
        other,
        sum(task["passed"] for task in found),
        f"{median(row['epochs'] for row in rows):g}" if rows else "-",
        "-" if least is None else f"{least:.3%}",
        f"{median(lengths):.1%}, least {min(lengths):.1%}" if rows else "-",
    )


def _passed(contents: Contents, part: Part, task: str) -> list[Row]:
    passed = contents.audit.passed[part.name, task]
    return [row for row in part.full.rows(task) if row["index"] in passed]


def hardest(contents: Contents) -> str:
    """A sentence on what becomes of the task with the lowest median at `metrics.LONG` times the length; "" if none is."""
    medians = {
        (part.name, task): median(row["long_accuracy"] for row in rows)
        for part in contents.parts
        for task in part.full.tasks
        if (rows := _passed(contents, part, task))
    }
    if not medians:
        return ""
    choose: Callable[[tuple[str, str]], float] = medians.__getitem__
    name, task = min(medians, key=choose)
    return (
        f"At {metrics.LONG} times the training length half of the networks of `{task}` (`{name}`) are right in at most "
        f"{medians[name, task]:.0%} of the steps, the least of all tasks."
    )


def failures(contents: Contents) -> str:
    """What the audit came to."""
    if not (failed := contents.audit.failures):
        return "All complete networks passed the audit."
    return (
        f"{len(failed)} complete networks failed the audit (`audit.json` names them); they are in the folders, in no split."
    )


def single_line(parts: list[Part]) -> str:
    """What a threshold means where most output lines are constant; "" without machines."""
    bases = {label.base for part in parts for label in part.labels.values()}
    if "eightbit" not in bases or len(bases & set(machines.MACHINES)) < 2:
        return ""
    return (
        " Machines but `eightbit` have one live output line; the seven constant ones are averaged into the loss too, so "
        "the same threshold is stricter for `eightbit`."
    )
