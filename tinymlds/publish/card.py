"""README.md of a package, a dataset card with the header that Hugging Face reads, and its CITATION.cff."""

import json
import shlex
from collections.abc import Iterable
from importlib import resources
from string import Template
from typing import Any

from tinymlds.dataset.manifest import SPLITS
from tinymlds.publish import sections, snippets
from tinymlds.publish.contents import PARQUET, Contents
from tinymlds.publish.parts import subset_count
from tinymlds.publish.splits import Scheme
from tinymlds.publish.tables import ROW_COLUMNS, TYPES
from tinymlds.spec import Recipe, Spec
from tinymlds.tasks import catalog, transducers

_SIZES = (("n<1K", 1_000), ("1K<n<10K", 10_000), ("10K<n<100K", 100_000), ("100K<n<1M", 1_000_000))
_HF_TYPES = {"string": "string", "integer": "int64", "float": "float64", "boolean": "bool"}


def card(contents: Contents) -> str:
    """README.md."""
    parts, options, architecture = contents.parts, contents.options, contents.parts[0].architecture
    text = resources.files("tinymlds.publish").joinpath("README.template.md").read_text("utf-8")
    about = architecture.about()
    return Template(text).substitute(
        _snippets(contents),
        header=_header(contents),
        title=_plain(options.title),
        description=contents.description,
        version=options.version,
        repository=f"[its repository](<{options.software_url}>)" if options.software_url else "its repository",
        folders_table=sections.folders_table(contents),
        subsets=_SUBSETS if any(part.subsets for part in parts) else "",
        parquet=f" `{PARQUET}`: the rows of all networks." if PARQUET in contents.sizes else "",
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
        reproduce="\n".join(f"{command(part.full.spec)} --out {part.name}-again" for part in parts),
        cost=", ".join(map(sections.cost, parts)),
        maps=about.note,
        single_line=sections.single_line(parts),
        license=options.license,
        license_url=options.license_url,
        bibtex=options.bibtex(parts),
    )


_SUBSETS = "; `DATASET/N/` its first N networks of each task,\n  which is exactly what a run with that count makes"


def citation(contents: Contents) -> str:
    """CITATION.cff of the package, in the Citation File Format 1.2.0."""
    options = contents.options
    lines = ["cff-version: 1.2.0", 'message: "If you use this dataset, please cite it, and the one that it reconstructs."']
    lines += ["type: dataset", f"title: {_yaml(options.title)}", "authors:"]
    lines += [f"  - name: {_yaml(name)}" for name in options.credited]
    lines += [f"license: {_yaml(options.license)}"] if " " not in options.license else []
    lines += [f"date-released: {_yaml(options.date)}"] if options.date else []
    lines += [f"url: {_yaml(options.url)}"] if options.url else []
    lines += ["references:", "  - type: software", '    title: "tinymlds"', f"    version: {_yaml(options.version)}"]
    lines += [f"    url: {_yaml(options.software_url)}"] if options.software_url else []
    lines += ["    authors:", '      - name: "The tinymlds developers"']
    for title, year, paper in _PAPERS:
        lines += ["  - type: article", f"    title: {_yaml(title)}", "    authors:", '      - family-names: "Clemens"']
        lines += ['        given-names: "John"', f"    year: {year}", f'    url: "https://arxiv.org/abs/{paper}"']
    return "\n".join([*lines, ""])


_PAPERS = (
    ("MLDS: A Dataset for Weight-Space Analysis of Neural Networks", 2021, "2104.10555"),
    ("Learning Device Models with Recurrent Neural Networks", 2018, "1805.07869"),
)


def command(spec: Spec) -> str:
    """The command that makes a dataset of this spec, without --out."""
    ids = tuple(task for task, _ in spec.tasks)
    drawn = tuple(map(transducers.task_id, range(len(ids))))
    named = {**{ids_: f"--dataset {name}" for name, ids_ in catalog.DATASETS.items()}}
    if ids in named:
        chosen = named[ids]
    elif len(ids) == 1 and catalog.is_transducer(ids[0]):
        chosen = f"--only {int(ids[0].rsplit('_', 1)[1])}"
    elif ids == drawn:
        chosen = f"--transducers {len(ids)}"
    else:
        chosen = " ".join(f"--machine {task}" for task in ids)
    words = ["tinymlds train", chosen, f"--count {spec.tasks[0][1]}", f"--seed {spec.seed}"]
    recipe = spec.recipe.options()
    usual = Recipe.of(**{name: recipe[name][1] for name in ("architecture", "optimizer")}).options()
    for name, (each, value) in recipe.items():
        if value != (each.default if name in ("architecture", "optimizer") else usual[name][1]):
            option = f"--{name.replace('_', '-')}"
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
    kinds = contents.parts[0].architecture.about().keywords
    lines += [f"  - {tag}" for tag in ("weight-space", "neural-networks", *kinds, "finite-state-machines", "tinymlds")]
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


# ------------------------------------------------------------------ snippets


_CLASSIFIER = """\
A classifier that is told the weights and says the task, with tinymlds and `torch`:

```python
{}
```

"""


def _snippets(contents: Contents) -> dict[str, str]:
    """The pieces of code, reading a side of a split that has rows; no classifier where `by_index` has none for it."""
    part, schemes = contents.parts[0], contents.schemes
    architecture, recipe = part.architecture, part.full.spec.recipe
    smallest = f"; subset={subset_count(part.subsets[0])} for fewer" if part.subsets else ""
    names: dict[str, Any] = {"dataset": part.name, "task": part.full.tasks[0], "subset": smallest, "steps": recipe.steps}
    names |= {"parameters": architecture.size, "inputs": architecture.inputs, "outputs": architecture.outputs}
    names |= {"build": architecture.about().build, "apply": architecture.about().apply}
    filled = [(scheme, side) for side in SPLITS for scheme in schemes if scheme.sides.get(side)]
    scheme, side = next(iter(filled), (schemes[0], SPLITS[0]))
    names |= {"rows": scheme.file_name(side), "scheme": scheme.name, "side": side}
    pieces = {"safetensors": snippets.SAFETENSORS, "network": snippets.NETWORK, "tinymlds": snippets.TINYMLDS}
    pieces |= {"datasets": snippets.DATASETS}
    learnable = all(any(row["dataset"] == part.name for row in schemes[0].sides[side]) for side in ("train", "test"))
    classifier = _CLASSIFIER.format(snippets.TORCH.format(**names)) if learnable else ""
    return {f"snippet_{name}": text.format(**names) for name, text in pieces.items()} | {"classifier": classifier}
