"""Tables and sentences of the card on the content of a package: tasks, recipe, splits, audit and cost."""

from collections import Counter
from collections.abc import Iterable
from statistics import median
from typing import Any

from tinymlds.dataset import reader, store
from tinymlds.dataset.manifest import SPLITS
from tinymlds.publish.audit import RULE, RULE_OF_MACHINES
from tinymlds.publish.contents import Contents
from tinymlds.publish.mermaid import diagram
from tinymlds.publish.parts import Part, subset_count
from tinymlds.publish.schemes import Scheme
from tinymlds.spec import Recipe
from tinymlds.tasks import catalog, machines
from tinymlds.training import metrics

MOST_TASKS = 20
"""The largest number of tasks of a dataset with a line each; of more tasks, only the first few are listed."""

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
"""The meaning of the output lines of each machine."""


def table(header: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def has_machines(parts: list[Part]) -> bool:
    """Return whether any task is a machine, modified or not."""
    return any(not catalog.is_transducer(task) for part in parts for task in part.full.tasks)


def has_transducers(parts: list[Part]) -> bool:
    """Return whether any task is a transducer."""
    return any(catalog.is_transducer(task) for part in parts for task in part.full.tasks)


# ------------------------------------------------------------------ folders


def folders_table(contents: Contents) -> str:
    """Return a table with a line for each dataset folder: networks, size, digest."""
    rows: list[tuple[Any, ...]] = []
    for part in contents.parts:
        passed = [contents.audit.passed[part.name, task] for task in part.full.tasks]
        for place, dataset in part.places.items():
            most = None if dataset is part.full else subset_count(dataset)
            complete = sum(most is None or index < most for indices in passed for index in indices)
            size = sum(size for name, size in contents.sizes.items() if name.startswith(f"{place}/"))
            about = (len(dataset.tasks), f"{len(dataset):,}", f"{complete:,}", f"{size / 1e6:,.1f} MB")
            rows.append((f"`{place}`", *about, f"`{dataset.digest}`"))
    return table(("folder", "tasks", "networks", "complete and audited", "size", "digest"), rows)


# ------------------------------------------------------------------ tasks


def encodings(parts: list[Part]) -> Iterable[str]:
    """Yield a paragraph on the input and output lines of machines, and one on those of transducers."""
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
    """Return a table of the tasks of a dataset, or of the first of them."""
    recipe, described = part.full.spec.recipe, part.full.description["tasks"]
    rows = []
    shown = described if len(described) <= MOST_TASKS else described[:_FIRST]
    for row in shown:
        minimal = catalog.load(part.full.spec.setting(row["task"])).table.minimise().states
        states = f"{row['states']} ({minimal})"
        place = f"`{part.folder}/data/{row['task']}.dot`"
        rows.append((f"`{row['task']}`", row["alias"], _does(row["task"], recipe), states, row["symbols"], place))
    if len(described) > len(shown):
        rows.append((f"... and {len(described) - len(shown)} more", "", "", "", "", f"`{part.folder}/data/`"))
    header = ("task", "the original's name", "output", "states (minimal)", "symbols", "minimal machine")
    return f"**{part.name}**\n\n" + table(header, rows)


def _does(task: str, recipe: Recipe) -> str:
    """Return a description of the outputs of a task."""
    if catalog.is_transducer(task):
        return "random"
    base = task.removesuffix(catalog.MODIFIED)
    if base == task:
        return _DOES[task]
    return f"as `{base}`; after {recipe.trigger_key} the next {recipe.trigger_span} outputs are inverted"


def picture(parts: list[Part]) -> str:
    """Return the diagram of the largest machine that is small enough to draw, the first of equals; "" if there is none."""
    best: tuple[int, str] = (0, "")
    for part in parts:
        for task in part.full.tasks[:MOST_TASKS]:
            table = catalog.load(part.full.spec.setting(task)).table
            drawn, states = diagram(table), table.minimise().states
            if drawn and states > best[0]:
                text = f"`{task}` (minimal machine; symbol / output lines that are 1):\n\n```mermaid\n{drawn}\n```\n\n"
                best = states, text
    return best[1]


# ------------------------------------------------------------------ recipe


def recipe_table(parts: list[Part]) -> str:
    """Return a table of the recipe and seed of all datasets, without fields that concern none of the tasks."""
    left_out = (set() if has_transducers(parts) else _OF_TRANSDUCERS) | (set() if _keys(parts) else _OF_TRIGGERS)
    left_out |= set() if has_machines(parts) else {"matched"}
    rows = [
        (f"`{name}`", _values(parts, [part.full.spec.recipe.options()[name][1] for part in parts]), option.text)
        for name, (option, _) in parts[0].full.spec.recipe.options().items()
        if name not in left_out
    ]
    rows.append(("seed", _values(parts, [part.full.spec.seed for part in parts]), "Seed of the dataset."))
    return table(("field", "value", "meaning"), rows)


def _values(parts: list[Part], values: list[Any]) -> str:
    """Return one value if all datasets have the same, else that of each dataset."""
    if len(set(values)) == 1:
        return f"`{values[0]}`"
    return ", ".join(f"`{value}` ({part.name})" for part, value in zip(parts, values, strict=True))


def _keys(parts: list[Part]) -> bool:
    """Return whether keys are planted in the sequences of any task."""
    return any(catalog.load(part.full.spec.setting(task)).key for part in parts for task in part.full.tasks)


def drawing(parts: list[Part]) -> str:
    """Return sentences on the drawing of symbols, on what networks of a task share, and on how machines were trained."""
    text = "Symbols are independent and equally likely"
    text += "; where a task has a trigger (with `matched`: in all machines) keys are planted among them" * _keys(parts)
    shared = {part.name: _shared(part) for part in parts}
    sentences = [f"Networks of a task of `{name}` {what}." for name, what in shared.items()]
    if len(set(shared.values())) == 1:
        sentences = [f"Networks of a task {shared[parts[0].name]}."]
    planted = {
        bool(catalog.load(part.full.spec.setting(task)).key)
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
    """Return the training time of a dataset, from provenance.jsonl."""
    lines = reader.read_lines(part.full.folder, store.PROVENANCE)
    seconds = sum(line["seconds"] for line in lines if isinstance(line.get("seconds"), int | float))
    unit, length = next((u for u in (("h", 3600), ("min", 60)) if seconds >= 10 * u[1]), ("s", 1))
    return f"{seconds / length:.0f} {unit} (`{part.name}`)"


# ------------------------------------------------------------------ splits


def splits_text(contents: Contents) -> str:
    """Return a list of the splits and their purposes."""
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
    """Return a table of the networks, shares and groups of tasks on each side."""
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
    """Return the rule by which a network passes."""
    return f"{RULE}{RULE_OF_MACHINES if has_machines(parts) else ''}."


def audit_table(contents: Contents) -> str:
    """Return a table with a line for each task, or one line for a dataset of many tasks."""
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
    statuses: Counter[str] = Counter()
    for task in found:
        statuses.update(task["statuses"])
    complete = statuses.pop("complete", 0)
    other = ", ".join(f"{number} {status}" for status, number in statuses.items()) or "-"
    rows = [row for task in found for row in contents.audit.passed_rows(part, task["task"])]
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


def hardest(contents: Contents) -> str:
    """Return a sentence on the task with the lowest median long accuracy; "" if no network passed."""
    medians = {
        (part.name, task): median(row["long_accuracy"] for row in rows)
        for part in contents.parts
        for task in part.full.tasks
        if (rows := contents.audit.passed_rows(part, task))
    }
    if not medians:
        return ""
    name, task = min(medians, key=lambda node: medians[node])
    return (
        f"At {metrics.LONG} times the training length half of the networks of `{task}` (`{name}`) are right in at most "
        f"{medians[name, task]:.0%} of the steps, the least of all tasks."
    )


def failures(contents: Contents) -> str:
    """Return a sentence on the result of the audit."""
    if not (failed := contents.audit.failures):
        return "All complete networks passed the audit."
    return (
        f"{len(failed)} complete networks failed the audit (`audit.json` names them); they are in the folders, in no split."
    )


def single_line(parts: list[Part]) -> str:
    """Return a sentence on thresholds and constant output lines; "" unless `eightbit` is beside other machines."""
    bases = {label.base for part in parts for label in part.labels.values()}
    if "eightbit" not in bases or len(bases & set(machines.MACHINES)) < 2:
        return ""
    return (
        " Machines but `eightbit` have one live output line; the seven constant ones are averaged into the loss too, so "
        "the same threshold is stricter for `eightbit`."
    )
