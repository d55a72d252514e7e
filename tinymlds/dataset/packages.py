"""Packages: several dataset folders put together for publishing, and described by one file, tinymlds.json.

    PKG/tinymlds.json    what is in the package
    PKG/ds1/full/        a dataset folder
    PKG/ds1/100/         a subset of it: the dataset folder that `--count 100` makes

A package may come from a stranger, and is read as strictly as a dataset folder.
"""

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import msgspec
from msgspec import Meta

from tinymlds.dataset import reader, store
from tinymlds.errors import DatasetError, UsageError
from tinymlds.spec import canonical_json, task_names

MARKER = "tinymlds.json"
FORMAT = 1
"""Version of the package format."""

_MARKER_LIMIT = 1 << 20
_NAME = "[A-Za-z0-9_][A-Za-z0-9_.-]{0,254}"

_Name = Annotated[str, Meta(pattern=rf"\A{_NAME}\Z")]
_Folder = Annotated[str, Meta(pattern=rf"\A{_NAME}(/{_NAME})*\Z")]
_Digest = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_Count = Annotated[int, Meta(ge=0)]


class Subset(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A smaller dataset, as `--count` would have made it."""

    count: Annotated[int, Meta(ge=1)]
    """Networks of each task."""
    folder: _Folder
    """Path inside the package, with "/"."""
    digest: _Digest


class DatasetEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A dataset of a package."""

    name: _Name
    folder: _Folder
    digest: _Digest
    networks: _Count
    complete: _Count
    subsets: tuple[Subset, ...]


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of tinymlds.json."""

    format: int
    kind: Literal["package"]
    version: str
    """The version of tinymlds that made the package."""
    title: str
    license: str
    datasets: Annotated[tuple[DatasetEntry, ...], Meta(min_length=1)]


class _Format(msgspec.Struct):
    """The part of tinymlds.json that a package of any format has."""

    format: int
    kind: Literal["package"]


def is_package(folder: Path) -> bool:
    """Return whether the folder has a tinymlds.json, or something of that name, which `read` then refuses."""
    try:
        with reader.reading(folder), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            (folder / MARKER).lstat()
            return True
    except ValueError as error:  # a name that no file can have
        raise DatasetError(f"cannot read {folder}: {error}") from error
    return False


def read(folder: str | Path) -> Package:
    """Return the description of a package; UsageError: it has another format version."""
    path = Path(folder)
    name = str(path / MARKER)
    data = reader.read_bytes(path, MARKER, _MARKER_LIMIT)
    if (found := reader.decode(data, _Format, name).format) != FORMAT:
        raise UsageError(
            f"{name} has package format {found}, and this version of tinymlds knows {FORMAT}; "
            f"use the version of tinymlds that made it"
        )
    package = reader.decode(data, Package, name)
    if data != (canonical_json(msgspec.to_builtins(package)) + "\n").encode():
        _damaged(name, "it is not one line of canonical JSON")
    for dataset in package.datasets:
        if dataset.complete > dataset.networks:
            _damaged(name, f"{dataset.name} has {dataset.complete} complete of {dataset.networks} networks")
        _check_distinct(name, (str(subset.count) for subset in dataset.subsets), "count")
    _check_distinct(name, (dataset.name for dataset in package.datasets), "name")
    places = (place for dataset in package.datasets for place in (dataset.folder, *(s.folder for s in dataset.subsets)))
    _check_distinct(name, places, "folder")
    return package


def _check_distinct(origin: str, values: Iterable[str], what: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            _damaged(origin, f"{what} {value} occurs twice")
        seen.add(value)


def _damaged(origin: str, why: str) -> NoReturn:
    raise DatasetError(f"{origin} is damaged: {why}")


# ------------------------------------------------------------------ from a path to a dataset folder


def locate(path: str | Path, name: str | None = None, subset: int | None = None) -> Path:
    """Return the dataset folder that is meant by the arguments of `tinymlds.open`, which says what this raises.

    A folder of a package is checked for the digest that the package gives for it.
    """
    folder = Path(path)
    if not is_package(folder):
        if name is not None or subset is not None:
            raise UsageError(f"{folder} is not a package (it has no {MARKER}), so there is no dataset to choose in it")
        return folder
    chosen = _choose(folder, read(folder).datasets, name, subset)
    place = reader.folder_inside(folder, chosen.folder)
    sums = reader.read_sums(place)
    if not {store.DESCRIPTION, store.MANIFEST} <= sums.keys() or store.dataset_digest(sums) != chosen.digest:
        raise DatasetError(f"{place} is not the dataset that {folder / MARKER} describes: its digest is another")
    return place


def _choose(
    folder: Path, datasets: tuple[DatasetEntry, ...], name: str | None, subset: int | None
) -> DatasetEntry | Subset:
    names = task_names([dataset.name for dataset in datasets])
    if name is None and len(datasets) > 1:
        raise UsageError(f"{folder} is a package of several datasets, {names}; name one of them")
    found = next((dataset for dataset in datasets if name in (None, dataset.name)), None)
    if found is None:
        raise UsageError(f"{folder} has no dataset {name!r}; it has {names}")
    if subset is None:
        return found
    for smaller in found.subsets:
        if smaller.count == subset:
            return smaller
    counts = ", ".join(str(smaller.count) for smaller in found.subsets) or "none"
    if isinstance(subset, str):
        raise UsageError(f"subset must be a number, not {subset!r}; {found.name} of {folder} has these: {counts}")
    raise UsageError(f"{found.name} of {folder} has no subset {subset!r}; its subsets: {counts}")
