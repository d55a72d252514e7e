"""DATA_DICTIONARY.csv: the columns, tensors and fields of a package, each with its place, type, unit and meaning.

The fixed entries are in `dictionary.csv`; fields of the recipe and tensors of the networks are added for each package.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from dataclasses import fields
from importlib import resources
from string import Template

from tinymlds.publish.parts import Part
from tinymlds.spec import Recipe
from tinymlds.training import metrics

HEADER = ("name", "where", "type", "shape_or_unit", "meaning")

Table = dict[str, tuple[str, ...]]
"""Type, shape or unit, and meaning of each entry, by its name."""


def _tables() -> dict[str, Table]:
    """Return the tables of `dictionary.csv` by name."""
    template = Template(resources.files("tinymlds.publish").joinpath("dictionary.csv").read_text("utf-8"))
    text = template.substitute(sequences=metrics.SEQUENCES, long_sequences=metrics.LONG_SEQUENCES, long=metrics.LONG)
    tables: dict[str, Table] = {}
    for table, name, *about in list(csv.reader(io.StringIO(text)))[1:]:
        tables.setdefault(table, {})[name] = tuple(about)
    return tables


_TABLES = _tables()
COLUMNS, ADDED, PASSED = (_TABLES[name] for name in ("manifest", "splits", "parquet"))
"""The columns of manifest.jsonl, those that rows of the splits have beside them, and that of manifest.parquet."""

_ROLES = {
    "weight_ih": "weights from the input, gates r, z, n",
    "weight_hh": "weights from the hidden state, gates r, z, n",
    "bias_ih": "biases of the input side, gates r, z, n",
    "bias_hh": "biases of the hidden side, gates r, z, n",
    "weight": "weights, [outputs, inputs]",
    "bias": "biases",
}
_KINDS = {"int": "integer", "float": "float", "str": "string", "bool": "boolean"}


def data_dictionary(parts: list[Part]) -> str:
    """Return the file for a package of these datasets, without entries that none of them has."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_rows(parts))
    return text.getvalue()


def _rows(parts: list[Part]) -> Iterator[tuple[str, ...]]:
    families = any(label.family for part in parts for label in part.labels.values())
    triggers = any(label.modified for part in parts for label in part.labels.values())
    yield from _placed("manifest", "DATASET/*/manifest.jsonl, splits/*/*.jsonl, manifest.parquet")
    yield from _placed("splits", "splits/*/*.jsonl, manifest.parquet")
    yield from _placed("parquet", "manifest.parquet")
    yield from _placed("description", "DATASET/*/dataset.json", set() if families else {"tasks[].family"})
    for entry in fields(Recipe):
        kind = entry.type if isinstance(entry.type, str) else entry.type.__name__
        meaning = entry.metadata["text"]
        if entry.metadata["later"]:
            meaning += f" There only where it differs from the default, which is {entry.default}."
        yield f"recipe.{entry.name}", "DATASET/*/dataset.json", _KINDS[kind], "", meaning
    yield from _tensor_rows(parts)
    yield from _placed("losses", "DATASET/*/losses/*.safetensors")
    yield from _placed("data", "DATASET/*/data/*.safetensors", set() if triggers else {"table.triggered"})
    yield from _placed("provenance", "DATASET/*/provenance.jsonl")


def _placed(table: str, where: str, left_out: Iterable[str] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the rows of a table, whose entries are found at `where`."""
    return ((name, where, *about) for name, about in _TABLES[table].items() if name not in left_out)


def _tensor_rows(parts: list[Part]) -> Iterator[tuple[str, ...]]:
    checkpoints = any(part.full.spec.checkpoints for part in parts)
    for name, sizes in parts[0].shape.tensors:
        layer, role = _role(name)
        one = ", ".join(map(str, sizes))
        yield name, "DATASET/*/networks/*.safetensors", "float32", f"[n, {one}]", f"{layer}: {role}"
        if checkpoints:
            where, meaning = "DATASET/*/checkpoints/*.safetensors", f"{layer}: {role}; NaN if not reached"
            yield name, where, "float32", f"[n, c, {one}]", meaning


def _role(tensor: str) -> tuple[str, str]:
    """Return the layer and the role of a tensor in words."""
    if tensor.startswith("gru."):
        role, layer = tensor.removeprefix("gru.").rsplit("_l", 1)
        return f"GRU layer {layer}", _ROLES[role]
    _, number, role = tensor.split(".")
    return f"linear map {number}", _ROLES[role]
