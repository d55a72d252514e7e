"""The files of a package that follow from its datasets alone, as bytes."""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinymlds.architectures import symmetry
from tinymlds.dataset import packages
from tinymlds.errors import UsageError
from tinymlds.publish.audit import Audit
from tinymlds.publish.dictionary import ROW_COLUMNS, TYPES, data_dictionary
from tinymlds.publish.metadata import Metadata
from tinymlds.publish.parts import Part
from tinymlds.publish.schemes import Scheme, extended
from tinymlds.spec import canonical_json

AUDIT = "audit.json"
PARQUET = "manifest.parquet"
TEXTS = ("README.md", "CITATION.cff", "croissant.json")
"""Files that also depend on all metadata of the publisher."""
_CHUNK, _WEIGHTS_CHUNK = 1 << 16, 1_000


@dataclass(frozen=True)
class Contents:
    """The content of a package, from which its descriptions are made."""

    parts: list[Part]
    schemes: list[Scheme]
    audit: Audit
    metadata: Metadata
    sizes: Mapping[str, int] = field(default_factory=dict)
    """The sizes of the files by their path in the package; for the card."""

    @property
    def description(self) -> str:
        """A sentence on the package."""
        networks = sum(len(part.full) for part in self.parts)
        tasks = sum(len(part.full.tasks) for part in self.parts)
        parameters = self.parts[0].full.architecture.size
        return (
            f"Weights, losses and training records of {networks:,} recurrent neural networks of {parameters:,} parameters, "
            f"trained on {tasks} finite-state tasks, with the tasks' tables and sequences."
        )


def derived(contents: Contents) -> dict[str, bytes]:
    """Return the files that follow from the datasets, the title, the licence and the version of tinymlds."""
    metadata = contents.metadata
    marker = {
        "format": packages.FORMAT,
        "kind": "package",
        "version": metadata.version,
        "title": metadata.title,
        "license": metadata.license,
        "datasets": [
            {
                "name": part.name,
                "folder": part.folder,
                "digest": part.full.digest,
                "networks": len(part.full),
                "complete": contents.audit.complete(part.name),
                "subsets": [
                    {"count": count, "folder": f"{part.name}/{count}", "digest": smaller.digest}
                    for count, smaller in part.subsets.items()
                ],
            }
            for part in contents.parts
        ],
    }
    files = {
        packages.MARKER: (canonical_json(marker) + "\n").encode(),
        AUDIT: indented(contents.audit.report),
        "DATA_DICTIONARY.csv": data_dictionary(contents.parts).encode(),
        "symmetries.json": indented(symmetry.describe(contents.parts[0].full.architecture)),
    }
    return files | {name: data for scheme in contents.schemes for name, data in scheme.files().items()}


def parquet(contents: Contents) -> bytes | None:
    """Return manifest.parquet, the rows of all networks in one file; None without pyarrow, on whose version it depends."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    schema = _schema(pa, (*ROW_COLUMNS, "passed"))
    file, passed = io.BytesIO(), contents.audit.passed
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in contents.parts:
            for start in range(0, len(part.full.manifest), _CHUNK):
                rows = [
                    {**extended(part, row), "passed": row["index"] in passed[part.name, row["task"]]}
                    for row in part.full.manifest[start : start + _CHUNK]
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return file.getvalue()


def with_weights(contents: Contents) -> Iterator[tuple[str, bytes]]:
    """Yield the rows of each side of `by_index` with the networks' weights, as files (name, bytes) for data loaders.

    Raises:
        UsageError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UsageError("rows with weights are Parquet files, and need pyarrow: pip install pyarrow") from error
    datasets = {part.name: part.full for part in contents.parts}
    vector = pa.list_(pa.float32(), contents.parts[0].full.architecture.size)
    schema = _schema(pa, ROW_COLUMNS).append(pa.field("weights", vector))
    for side, rows in contents.schemes[0].sides.items():
        file = io.BytesIO()
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            for start in range(0, len(rows), _WEIGHTS_CHUNK):
                chunk = rows[start : start + _WEIGHTS_CHUNK]
                weights = [datasets[row["dataset"]][row["task"], row["index"]].weights for row in chunk]
                table = [{**row, "weights": own} for row, own in zip(chunk, weights, strict=True)]
                writer.write_table(pa.Table.from_pylist(table, schema=schema))
        if rows:
            yield weights_name(side), file.getvalue()


def weights_name(side: str) -> str:
    """Return the path of the rows of a side with their weights."""
    return f"weights/{side}.parquet"


def _schema(pa: Any, columns: Iterable[str]) -> Any:
    kinds = {"string": pa.string(), "integer": pa.int64(), "float": pa.float64(), "boolean": pa.bool_()}
    return pa.schema([(name, kinds[TYPES[name]]) for name in columns])


def indented(value: Any) -> bytes:
    """Return indented JSON for human readers, with a unique spelling."""
    return (json.dumps(value, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()
