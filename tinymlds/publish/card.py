"""The README.md of a package, a dataset card with the header that Hugging Face reads, and its CITATION.cff."""

import json
from collections.abc import Iterable
from importlib import resources
from string import Template
from typing import Any

from tinymlds.dataset.commands import train_command
from tinymlds.dataset.manifest import SPLITS
from tinymlds.publish import sections
from tinymlds.publish.contents import PARQUET, Contents, weights_name
from tinymlds.publish.dictionary import ROW_COLUMNS, TYPES
from tinymlds.publish.schemes import Scheme

_SIZES = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000))
_HF_TYPES = {"string": "string", "integer": "int64", "float": "float64", "boolean": "bool"}


def card(contents: Contents) -> str:
    """Return README.md."""
    parts, metadata, architecture = contents.parts, contents.metadata, contents.parts[0].full.architecture
    about = architecture.about()
    return _template("README.template.md").substitute(
        _snippet_values(contents),
        header=_header(contents),
        title=_plain(metadata.title),
        description=contents.description,
        version=metadata.version,
        repository=f"[its repository](<{metadata.software_url}>)" if metadata.software_url else "its repository",
        folders_table=sections.folders_table(contents),
        subsets=_SUBSETS if any(part.subsets for part in parts) else "",
        parquet=(f" `{PARQUET}`: the rows of all networks." if PARQUET in contents.sizes else "") + _weights(contents),
        encodings="\n\n".join(sections.encodings(parts)),
        tasks_tables="\n\n".join(map(sections.tasks_table, parts)),
        picture=sections.picture(parts),
        layers=about.sizes,
        initial=about.initial,
        parameters=f"{architecture.size:,}",
        tensors=len(architecture.tensors()),
        drawing=sections.drawing(parts),
        recipe_table=sections.recipe_table(parts),
        splits_text=sections.splits_text(contents),
        splits_table=sections.splits_table(contents.schemes),
        audit_rule=sections.audit_rule(parts),
        audit_table=sections.audit_table(contents),
        hardest=sections.hardest(contents),
        failures=sections.failures(contents),
        first=parts[0].name,
        reproduce="\n".join(train_command(part.full.spec, f"{part.name}-again") for part in parts),
        cost=", ".join(map(sections.cost, parts)),
        maps=about.note,
        single_line=sections.single_line(parts),
        license=metadata.license,
        license_url=metadata.license_url,
        bibtex=metadata.bibtex(parts),
    )


_SUBSETS = "; `DATASET/N/` its first N networks of each task,\n  which is exactly what a run with that count makes"


def _weights(contents: Contents) -> str:
    if not any(weights_name(side) in contents.sizes for side in SPLITS):
        return ""
    return (
        '\n- `weights/`: the rows of `by_index` with the weights, for `datasets.load_dataset(PACKAGE, data_dir="weights")`.'
    )


def citation(contents: Contents) -> str:
    """Return CITATION.cff, in the Citation File Format 1.2.0."""
    metadata = contents.metadata
    lines = ["cff-version: 1.2.0", 'message: "If you use this dataset, please cite it, and the one that it reconstructs."']
    lines += ["type: dataset", f"title: {_yaml(metadata.title)}", "authors:"]
    lines += [f"  - name: {_yaml(name)}" for name in metadata.credited]
    lines += [f"license: {_yaml(metadata.license)}"] if " " not in metadata.license else []
    lines += [f"date-released: {_yaml(metadata.date)}"] if metadata.date else []
    lines += [f"url: {_yaml(metadata.url)}"] if metadata.url else []
    lines += ["references:", "  - type: software", '    title: "tinymlds"', f"    version: {_yaml(metadata.version)}"]
    lines += [f"    url: {_yaml(metadata.software_url)}"] if metadata.software_url else []
    lines += ["    authors:", '      - name: "The tinymlds developers"']
    for title, year, paper in _PAPERS:
        lines += ["  - type: article", f"    title: {_yaml(title)}", "    authors:", '      - family-names: "Clemens"']
        lines += ['        given-names: "John"', f"    year: {year}", f'    url: "https://arxiv.org/abs/{paper}"']
    return "\n".join([*lines, ""])


_PAPERS = (
    ("MLDS: A Dataset for Weight-Space Analysis of Neural Networks", 2021, "2104.10555"),
    ("Learning Device Models with Recurrent Neural Networks", 2018, "1805.07869"),
)


# ------------------------------------------------------------------ the header


def _yaml(text: str) -> str:
    """Return a YAML scalar; strings of JSON are valid YAML."""
    return json.dumps(text, ensure_ascii=True)


def _plain(text: str) -> str:
    """Escape a text so that Markdown shows it unchanged."""
    return "".join("\\" + sign if sign in "\\`*_{}[]<>#|!" else sign for sign in text)


def _header(contents: Contents) -> str:
    """Return the YAML header for Hugging Face: licence, tags, and the files and columns of every split."""
    metadata, count = contents.metadata, sum(len(part.full) for part in contents.parts)
    size = next((name for name, most in _SIZES if count < most), "n>1M")
    lines = ["---", f"pretty_name: {_yaml(metadata.title)}", f"license: {_yaml(metadata.license.lower())}"]
    lines += ["task_categories:", "  - other", "tags:"]
    kinds = contents.parts[0].full.architecture.about().keywords
    lines += [f"  - {tag}" for tag in ("weight-space", "neural-networks", *kinds, "finite-state-machines", "tinymlds")]
    lines += ["size_categories:", f"  - {_yaml(size)}"]
    there = [scheme for scheme in contents.schemes if any(scheme.sides.values())]
    if there:
        lines += ["configs:", *(line for scheme in there for line in _config(scheme)), "dataset_info:"]
    for scheme in there:  # types of all columns: a file whose column is null in all rows does not reveal its type
        lines += [f"  - config_name: {scheme.name}", "    features:"]
        for column in ROW_COLUMNS:
            lines += [f"      - name: {column}", f"        dtype: {_HF_TYPES[TYPES[column]]}"]
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


# ------------------------------------------------------------------ snippets


def _template(name: str) -> Template:
    return Template(resources.files("tinymlds.publish").joinpath(name).read_text("utf-8"))


def _snippet_values(contents: Contents) -> dict[str, Any]:
    """Return what the pieces of code need; they read a side of a split that has rows.

    The classifier is left out where `by_index` has no rows of the dataset to train on or to test on.
    """
    part, schemes = contents.parts[0], contents.schemes
    architecture, recipe = part.full.architecture, part.full.spec.recipe
    smallest = f"; subset={min(part.subsets)} for fewer" if part.subsets else ""
    names: dict[str, Any] = {"dataset": part.name, "task": part.full.tasks[0], "subset": smallest, "steps": recipe.steps}
    names |= {"weights": architecture.size, "inputs": architecture.inputs, "outputs": architecture.outputs}
    names |= {"build": architecture.about().build, "apply": architecture.about().apply}
    filled = [(scheme, side) for side in SPLITS for scheme in schemes if scheme.sides.get(side)]
    scheme, side = next(iter(filled), (schemes[0], SPLITS[0]))
    names |= {"rows": scheme.file_name(side), "scheme": scheme.name, "side": side}
    learnable = all(any(row["dataset"] == part.name for row in schemes[0].sides[side]) for side in ("train", "test"))
    return names | {"classifier": _template("classifier.template.md").substitute(names) if learnable else ""}
