"""manifest.parquet: the rows of all networks of a package in one file, written if pyarrow is installed."""

import io

from tinymlds.dataset.manifest import ROW_TYPES
from tinymlds.publish.audit import Audit
from tinymlds.publish.dictionary import ADDED, COLUMNS, PASSED
from tinymlds.publish.parts import Part
from tinymlds.publish.schemes import extended

TYPES: dict[str, str] = {name: about[0] for name, about in (COLUMNS | ADDED | PASSED).items()}
"""The type of each column: string, integer, float or boolean."""

ROW_COLUMNS = (*sorted(ROW_TYPES), *ADDED)
"""The columns of a row of a split."""

_CHUNK = 1 << 16


def parquet(parts: list[Part], audit: Audit) -> bytes | None:
    """Return all rows with the columns `dataset`, `base`, `modified` and `passed`; None without pyarrow.

    The bytes depend on the version of pyarrow.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        return None
    kinds = {"string": pa.string(), "integer": pa.int64(), "float": pa.float64(), "boolean": pa.bool_()}
    schema = pa.schema([(name, kinds[TYPES[name]]) for name in (*ROW_COLUMNS, "passed")])
    file = io.BytesIO()
    with pq.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in parts:
            for start in range(0, len(part.full.manifest), _CHUNK):
                rows = [
                    {**extended(part, row), "passed": row["index"] in audit.passed[part.name, row["task"]]}
                    for row in part.full.manifest[start : start + _CHUNK]
                ]
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return file.getvalue()
