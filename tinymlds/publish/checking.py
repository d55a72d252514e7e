"""Checking that the files of a package follow from its datasets.

Subsets are cut again, the audit is repeated, and splits, data dictionary, symmetries and tinymlds.json are made again; all
must be equal byte by byte. The texts for readers (README.md, CITATION.cff, croissant.json) only have to exist.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from tinymlds.dataset import packages, reader, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.manifest import SPLITS
from tinymlds.errors import DatasetError, UsageError
from tinymlds.publish import audit as auditing
from tinymlds.publish import schemes, subset
from tinymlds.publish.contents import PARQUET, TEXTS, Contents, derived, weights_name
from tinymlds.publish.metadata import Metadata
from tinymlds.publish.parts import Part


def problems(folder: Path, threads: int = 1) -> Iterator[str]:
    """Yield a line for each problem of a package whose files have been compared with SHA256SUMS.

    Raises:
        DatasetError: a file is too damaged to go on.
    """
    package = packages.read(folder)
    parts = [_open(folder, packaged) for packaged in package.datasets]
    for part in parts:
        for count, smaller in part.subsets.items():
            wanted = subset.expected_sums(part.full, count)
            found = {name: digest for name, digest in smaller.sums.items() if name != store.PROVENANCE}
            for name in sorted(wanted.keys() | found.keys()):
                if wanted.get(name) != found.get(name):
                    yield f"{smaller.folder / name} is not what {part.full.folder} gives"
    try:
        metadata = Metadata(package.version, package.title, package.license)
    except UsageError as error:
        raise DatasetError(f"{folder / packages.MARKER} is damaged: {error}") from error
    audit = auditing.audit(parts, package.version, threads, lambda _done, _total: None)
    contents = Contents(parts, schemes.make(parts, audit), audit, metadata)
    sums, files = reader.read_sums(folder), derived(contents)
    for name, data in files.items():
        if name in sums and sums[name] != hashlib.sha256(data).hexdigest():
            yield f"{folder / name} is not what its datasets give"
    datasets = [entry for part in parts for entry in part.places.items()]
    inner = {f"{place}/{name}" for place, dataset in datasets for name in (*dataset.sums, store.SUMS)}
    for name in sorted(inner ^ (set(sums) - files.keys() - set(TEXTS) - {PARQUET, *map(weights_name, SPLITS)})):
        yield f"{folder / name} is no file of this package, or not in {store.SUMS}"
    for name in sorted((files.keys() | set(TEXTS)) - sums.keys()):
        yield f"{folder / name} is missing in {store.SUMS}"


def _open(folder: Path, packaged: packages.DatasetEntry) -> Part:
    full, *smaller = (
        Dataset(reader.folder_inside(folder, place)) for place in (packaged.folder, *(s.folder for s in packaged.subsets))
    )
    for dataset in (full, *smaller):
        if dataset.spec.part is not None:
            raise DatasetError(f"{dataset.folder} is {dataset.spec.scope} of a dataset, and a package holds whole ones")
    counted = {min(dataset.counts.values()): dataset for dataset in smaller}
    return Part(packaged.name, full, dict(sorted(counted.items())))
