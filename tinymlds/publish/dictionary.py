"""DATA_DICTIONARY.csv: the columns, tensors and fields of a package, each with its place, type, unit and meaning.

The fixed entries are in `dictionary.csv`; fields of the recipe and tensors of the networks are added for each package.
"""

import csv
import io
from collections.abc import Iterable, Iterator
from importlib import resources
from string import Template

from tinymlds.dataset.manifest import ROW_TYPES
from tinymlds.publish.parts import Part
from tinymlds.training import metrics

HEADER = ("name", "where", "type", "shape_or_unit", "meaning")

Table = dict[str, tuple[str, ...]]
"""Type, architecture or unit, and meaning of each entry, by its name."""


def _tables() -> dict[str, Table]:
    template = Template(resources.files("tinymlds.publish").joinpath("dictionary.csv").read_text("utf-8"))
    text = template.substitute(sequences=metrics.SEQUENCES, long_sequences=metrics.LONG_SEQUENCES, long=metrics.LONG)
    tables: dict[str, Table] = {}
    for table, name, *about in list(csv.reader(io.StringIO(text)))[1:]:
        tables.setdefault(table, {})[name] = tuple(about)
    return tables


_TABLES = _tables()
COLUMNS, ADDED, PASSED = (_TABLES[name] for name in ("manifest", "splits", "parquet"))
"""The columns of manifest.jsonl, those that rows of the splits have beside them, and that of manifest.parquet."""
TYPES: dict[str, str] = {name: about[0] for name, about in (COLUMNS | ADDED | PASSED).items()}
"""The type of each column: string, integer, float or boolean."""
ROW_COLUMNS = (*sorted(ROW_TYPES), *ADDED)
"""The columns of a row of a split."""

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
    for name, (option, _) in parts[0].full.spec.recipe.options().items():
        meaning = option.text
        if option.later:
            meaning += f" There only where it differs from the default, which is {option.default}."
        yield f"recipe.{name}", "DATASET/*/dataset.json", _KINDS[option.type], "", meaning
    yield from _tensor_rows(parts)
    yield from _placed("losses", "DATASET/*/losses/*.safetensors")
    yield from _placed("data", "DATASET/*/data/*.safetensors", set() if triggers else {"table.triggered"})
    yield from _placed("provenance", "DATASET/*/provenance.jsonl")


def _placed(table: str, where: str, left_out: Iterable[str] = ()) -> Iterator[tuple[str, ...]]:
    return ((name, where, *about) for name, about in _TABLES[table].items() if name not in left_out)


def _tensor_rows(parts: list[Part]) -> Iterator[tuple[str, ...]]:
    checkpoints = any(part.full.spec.checkpoints for part in parts)
    for name, shape, *_, meaning in parts[0].full.architecture.tensors():
        one = ", ".join(map(str, shape))
        yield name, "DATASET/*/networks/*.safetensors", "float32", f"[n, {one}]", meaning
        if checkpoints:
            where = "DATASET/*/checkpoints/*.safetensors"
            yield name, where, "float32", f"[n, c, {one}]", f"{meaning}; NaN if not reached"
