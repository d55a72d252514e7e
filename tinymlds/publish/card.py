"""README.md of a package, a dataset card with the header that Hugging Face reads, and its CITATION.cff."""

import json
import shlex
from collections.abc import Iterable
from dataclasses import fields
from importlib import resources
from string import Template
from typing import Any

from tinymlds import tasks, transducers
from tinymlds.publish import snippets
from tinymlds.publish.audit import Audit
from tinymlds.publish.contents import Contents
from tinymlds.publish.diagrams import diagram
from tinymlds.publish.parts import Part, subset_count
from tinymlds.publish.splits import Scheme
from tinymlds.publish.tables import ROW_COLUMNS, TYPES
from tinymlds.spec import Recipe, Spec

MOST_TASKS = 20
"""Transducers of a dataset that get a line each."""

_SIZES = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000))
_HF_TYPES = {"string": "string", "integer": "int64", "float": "float64", "boolean": "bool"}


def card(contents: Contents) -> str:
    """README.md."""
    parts, options, shape = contents.parts, contents.options, contents.parts[0].shape
    text = resources.files("tinymlds.publish").joinpath("README.template.md").read_text("utf-8")
    return Template(text).substitute(
        _snippets(parts),
        header=_header(contents),
        title=_plain(options.title),
        description=contents.description,
        version=options.version,
        datasets_table=_datasets_table(contents),
        tasks_tables="\n\n".join(_tasks_table(part) for part in parts),
        diagrams="".join(_diagrams(parts)),
        layers=f"{shape.layers} GRU layers of {shape.hidden} units and {shape.maps} linear maps",
        parameters=f"{shape.size:,}",
        tensors=len(shape.tensors),
        recipe_table=_recipe_table(parts),
        splits_text="\n".join(_split_line(scheme) for scheme in contents.schemes),
        splits_table=_splits_table(contents.schemes),
        audit_rule=contents.audit.report["rule"],
        audit_table=_audit_table(contents),
        reproduce="\n".join(f"{command(part.full.spec)} --out {part.name}" for part in parts),
        digests=_table(("dataset", "digest"), _digests(parts)),
        sharing=" ".join(_sharing(contents.parts)),
        limits=_failures(contents.audit),
        license=options.license,
        license_url=options.license_url,
        bibtex=options.bibtex(),
    )


def citation(contents: Contents) -> str:
    """CITATION.cff of the package, in the Citation File Format 1.2.0."""
    options = contents.options
    original = "MLDS: A Dataset for Weight-Space Analysis of Neural Networks"
    lines = ["cff-version: 1.2.0", 'message: "If you use this dataset, please cite it, and the one that it reconstructs."']
    lines += ["type: dataset", f"title: {_yaml(options.title)}", "authors:"]
    lines += [f"  - name: {_yaml(name)}" for name in options.credited]
    lines += [f"license: {_yaml(options.license)}"] if " " not in options.license else []
    lines += [f"date-released: {_yaml(options.date)}"] if options.date else []
    lines += [f"url: {_yaml(options.url)}"] if options.url else []
    lines += ["references:", "  - type: software", '    title: "tinymlds"', f"    version: {_yaml(options.version)}"]
    lines += [
        "    authors:",
        '      - name: "The tinymlds developers"',
        "  - type: article",
        f"    title: {_yaml(original)}",
    ]
    lines += ["    authors:", '      - family-names: "Clemens"', '        given-names: "John"', "    year: 2021"]
    return "\n".join([*lines, '    url: "https://arxiv.org/abs/2104.10555"', ""])


def command(spec: Spec) -> str:
    """The command that makes a dataset of this spec, without --out."""
    ids = tuple(task for task, _ in spec.tasks)
    drawn = tuple(map(transducers.task_id, range(len(ids))))
    named = {**{ids_: f"--dataset {name}" for name, ids_ in tasks.DATASETS.items()}}
    if ids in named:
        chosen = named[ids]
    elif len(ids) == 1 and tasks.is_transducer(ids[0]):
        chosen = f"--only {int(ids[0].rsplit('_', 1)[1])}"
    elif ids == drawn:
        chosen = f"--transducers {len(ids)}"
    else:
        chosen = " ".join(f"--machine {task}" for task in ids)
    words = ["tinymlds train", chosen, f"--count {spec.tasks[0][1]}", f"--seed {spec.seed}"]
    for entry in fields(Recipe):
        value = getattr(spec.recipe, entry.name)
        if value != entry.default:
            option = f"--{entry.name.replace('_', '-')}"
            words.append(option if value is True else f"{option} {shlex.quote(str(value))}")
    if spec.checkpoints:
        words.append(f"--checkpoints {','.join(map(str, spec.checkpoints))}")
    return " ".join(words)


# ------------------------------------------------------------------ the header


def _yaml(text: str) -> str:
    """A scalar of YAML: JSON's strings are YAML's too."""
    return json.dumps(text, ensure_ascii=True)


def _plain(text: str) -> str:
    """Text that Markdown shows as it is."""
    return "".join("\\" + sign if sign in "\\`*_{}[]<>#|!" else sign for sign in text)


def _header(contents: Contents) -> str:
    """YAML that the viewer of Hugging Face understands: licence, tags, and the files and columns of every split."""
    options, count = contents.options, sum(len(part.full) for part in contents.parts)
    size = next((name for name, most in _SIZES if count < most), "n>1M")
    lines = ["---", f"pretty_name: {_yaml(options.title)}", f"license: {_yaml(options.license.lower())}"]
    lines += ["task_categories:", "  - other", "tags:"]
    lines += [f"  - {tag}" for tag in ("weight-space", "neural-networks", "gru", "finite-state-machines", "tinymlds")]
    lines += ["size_categories:", f"  - {_yaml(size)}"]
    there = [scheme for scheme in contents.schemes if any(scheme.sides.values())]
    if there:
        lines += ["configs:", *(line for scheme in there for line in _config(scheme))]
        lines += ["dataset_info:", *(line for scheme in there for line in _features(scheme))]
    return "\n".join([*lines, "---"])


def _config(scheme: Scheme) -> Iterable[str]:
    yield f"  - config_name: {scheme.name}"
    if scheme.name == "by_index":
        yield "    default: true"
    yield "    data_files:"
    for side, rows in scheme.sides.items():
        if rows:
            yield f"      - split: {side}"
            yield f"        path: {_yaml(scheme.file_name(side))}"


def _features(scheme: Scheme) -> Iterable[str]:
    """Types of all columns: where a column is null in all rows, nothing could be told from the file."""
    yield f"  - config_name: {scheme.name}"
    yield "    features:"
    for column in ROW_COLUMNS:
        yield f"      - name: {column}"
        yield f"        dtype: {_HF_TYPES[TYPES[column]]}"


# ------------------------------------------------------------------ tables


def _table(header: tuple[str, ...], rows: Iterable[Iterable[Any]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _datasets_table(contents: Contents) -> str:
    rows = []
    for part in contents.parts:
        counts = [str(subset_count(subset)) for subset in part.subsets]
        weights = _bytes(contents, f"{part.folder}/networks/")
        raw = 4 * part.shape.size * len(part.full)
        rows.append(
            (
                f"`{part.name}`",
                len(part.full.tasks),
                f"{len(part.full):,}",
                f"{contents.audit.complete(part.name):,}",
                ", ".join(counts) or "none",
                f"{_bytes(contents, part.folder + '/') / 1e6:,.1f} MB",
                f"{weights / 1e6:,.1f} MB ({weights / raw:.3f} of the raw floats)",
            )
        )
    return _table(("dataset", "tasks", "networks", "complete and audited", "subsets", "size", "weights"), rows)


def _bytes(contents: Contents, under: str) -> int:
    return sum(size for name, size in contents.sizes.items() if name.startswith(under))


def _tasks_table(part: Part) -> str:
    described, under = part.full.description["tasks"], f"{part.folder}/data/"
    rows = [
        (
            f"`{row['task']}`",
            row["alias"],
            row["states"],
            row["symbols"],
            row["count"],
            f"`{part.folder}/data/{row['task']}.dot`",
        )
        for row in described[:MOST_TASKS]
    ]
    if len(described) > MOST_TASKS:
        rows.append((f"... and {len(described) - MOST_TASKS} more", "", "", "", "", f"`{under}`"))
    header = ("task", "the original's name", "states", "symbols", "networks", "minimal machine")
    return f"**{part.name}**\n\n" + _table(header, rows)


def _diagrams(parts: list[Part]) -> Iterable[str]:
    """A picture of each small machine, and of one transducer."""
    shown: set[str] = set()
    for part in parts:
        for task in part.full.tasks:
            kind = "transducer" if tasks.is_transducer(task) else task
            picture = None if kind in shown else diagram(tasks.load(task, part.full.spec.recipe).table)
            if picture:
                shown.add(kind)
                yield f"`{task}` (minimal machine; symbol / output lines that are 1):\n\n```mermaid\n{picture}\n```\n\n"


def _recipe_table(parts: list[Part]) -> str:
    """A column for each dataset, or one if all were made alike."""
    recipes = {part.name: part.full.spec.recipe for part in parts}
    if len(set(recipes.values())) == 1:
        recipes = {"value": parts[0].full.spec.recipe}
    rows = [
        (f"`{entry.name}`", *(f"`{getattr(recipe, entry.name)}`" for recipe in recipes.values()), entry.metadata["text"])
        for entry in fields(Recipe)
    ]
    rows.append(("seed", *(parts_of.full.spec.seed for parts_of in parts[: len(recipes)]), "Seed of the dataset."))
    return _table(("field", *recipes, "meaning"), rows)


def _sharing(parts: list[Part]) -> Iterable[str]:
    """A sentence for each dataset: what the networks of a task share beside the task."""
    for part in parts:
        recipe = part.full.spec.recipe
        sequences = "share their training sequences" if recipe.sequences == "shared" else "have sequences of their own"
        weights = "begin with weights of their own" if recipe.initial == "own" else "all begin with the same weights"
        yield f"Networks of a task of `{part.name}` {sequences} and {weights}."


def _split_line(scheme: Scheme) -> str:
    if scheme.left_out:
        return f"- `{scheme.name}` is not here: {scheme.left_out}."
    line = f"- `{scheme.name}`: {scheme.meaning}."
    for side in ("validation", "test"):
        if names := scheme.groups.get(side, []):
            more = f" and {len(names) - 5} more" if len(names) > 5 else ""
            line += f" In {side}: {', '.join(f'`{name}`' for name in names[:5])}{more}."
    return line


def _splits_table(schemes: list[Scheme]) -> str:
    rows = [(f"`{scheme.name}`", *(len(rows) for rows in scheme.sides.values())) for scheme in schemes if scheme.sides]
    return _table(("split", "train", "validation", "test"), rows)


def _audit_table(contents: Contents) -> str:
    """A line a task; of a dataset of many tasks, a line for all: sums, and the worst of all."""
    rows: list[tuple[Any, ...]] = []
    for dataset in contents.audit.report["datasets"]:
        name, found = dataset["dataset"], dataset["tasks"]
        if len(found) > MOST_TASKS:
            rows.append(_audit_line(f"{name}: all {len(found)} tasks", found))
        else:
            rows += [_audit_line(f"{name}: `{task['task']}`", [task]) for task in found]
    header = (
        "task",
        "networks",
        "complete",
        "passed",
        "other",
        "worst agreement",
        "most like another",
        "worst in spans",
    )
    return _table(header, rows)


def _audit_line(name: str, found: list[dict[str, Any]]) -> tuple[Any, ...]:
    statuses: dict[str, int] = {}
    for task in found:
        for status, number in task["statuses"].items():
            statuses[status] = statuses.get(status, 0) + number
    complete = statuses.pop("complete", 0)
    other = ", ".join(f"{number} {status}" for status, number in statuses.items()) or "-"
    worst, nearest, spans = (
        [task[what]["agreement"] for task in found if task[what]] for what in ("worst", "nearest", "worst_in_spans")
    )
    shares = (f"{choose(values):.3%}" if values else "-" for choose, values in ((min, worst), (max, nearest), (min, spans)))
    return (name, sum(task["networks"] for task in found), complete, sum(task["passed"] for task in found), other, *shares)


def _digests(parts: list[Part]) -> Iterable[tuple[str, str]]:
    for part in parts:
        yield f"`{part.folder}`", f"`{part.full.digest}`"
        for subset in part.subsets:
            yield f"`{part.name}/{subset_count(subset)}`", f"`{subset.digest}`"


def _failures(audit: Audit) -> str:
    failed = audit.failures
    if not failed:
        return "All complete networks passed the audit."
    return (
        f"{len(failed)} complete networks failed the audit (audit.json names them); they are in the folders, in no split."
    )


def _snippets(parts: list[Part]) -> dict[str, str]:
    part = parts[0]
    smallest = f"; subset={subset_count(part.subsets[0])} for fewer" if part.subsets else ""
    names: dict[str, Any] = {"dataset": part.name, "task": part.full.tasks[0], "subset": smallest}
    names |= {"parameters": part.shape.size, "inputs": part.shape.inputs, "outputs": part.shape.outputs}
    pieces = {"safetensors": snippets.SAFETENSORS, "tinymlds": snippets.TINYMLDS}
    pieces |= {"torch": snippets.TORCH, "datasets": snippets.DATASETS}
    return {f"snippet_{name}": text.format(**names) for name, text in pieces.items()}
