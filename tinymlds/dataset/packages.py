"""Packages: several dataset folders put together for publishing, and described by one file, tinymlds.json.

    PKG/tinymlds.json    what is in the package
    PKG/ds1/full/        a dataset folder
    PKG/ds1/100/         a subset of it: the dataset folder that `--count 100` makes

A package may come from a stranger, and is read as strictly as a dataset folder.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from tinymlds.dataset import reader, store
from tinymlds.errors import DatasetError, UsageError
from tinymlds.spec import canonical_json, task_names

MARKER = "tinymlds.json"
FORMAT = 1
"""Version of the package format."""

_MARKER_LIMIT = 1 << 20
_LARGEST_NAME = 255

_PACKAGE: dict[str, type] = {"format": int, "kind": str, "version": str, "title": str, "license": str, "datasets": list}
_DATASET: dict[str, type] = {"name": str, "folder": str, "digest": str, "networks": int, "complete": int, "subsets": list}
_SUBSET: dict[str, type] = {"count": int, "folder": str, "digest": str}


@dataclass(frozen=True)
class Subset:
    """A smaller dataset, as `--count` would have made it."""

    count: int
    """Networks of each task."""
    folder: str
    """Inside the package, with "/"."""
    digest: str


@dataclass(frozen=True)
class Packaged:
    """A dataset of a package."""

    name: str
    folder: str
    digest: str
    networks: int
    complete: int
    subsets: tuple[Subset, ...]


@dataclass(frozen=True)
class Package:
    """What tinymlds.json says."""

    version: str
    """Of tinymlds that made the package."""
    title: str
    license: str
    datasets: tuple[Packaged, ...]


def is_package(folder: Path) -> bool:
    """Whether there is a tinymlds.json (or something of that name, which `read` then refuses).

    Raises:
        DatasetError: the file system refused.
    """
    try:
        (folder / MARKER).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise DatasetError(f"cannot read {folder}: {getattr(error, 'strerror', None) or error}") from error
    return True


def read(folder: str | Path) -> Package:
    """The description of a package.

    Raises:
        DatasetError: it is damaged.
        UsageError: it has another format version.
    """
    path = Path(folder)
    name = str(path / MARKER)
    data = reader.read_bytes(path, MARKER, _MARKER_LIMIT)
    value = reader.parse_json(data, name)
    if not isinstance(value, dict) or value.get("kind") != "package" or type(value.get("format")) is not int:
        _damaged(name, "it does not describe a package")
    if value["format"] != FORMAT:
        raise UsageError(
            f"{name} has package format {value['format']}, and this version of tinymlds knows {FORMAT}; "
            f"use the version of tinymlds that made it"
        )
    _check_keys(name, value, _PACKAGE, "the package")
    datasets = tuple(_packaged(name, entry) for entry in value["datasets"])
    _check_distinct(name, (dataset.name for dataset in datasets), "name")
    places = [place for dataset in datasets for place in (dataset.folder, *(smaller.folder for smaller in dataset.subsets))]
    _check_distinct(name, places, "folder")
    if not datasets:
        _damaged(name, "it has no datasets")
    if data != (canonical_json(value) + "\n").encode():
        _damaged(name, "it is not one line of canonical JSON")
    return Package(value["version"], value["title"], value["license"], datasets)


def _packaged(origin: str, value: Any) -> Packaged:
    _check_keys(origin, value, _DATASET, "a dataset")
    if not _is_name(value["name"]):
        _damaged(origin, f"{value['name']!r} is not a name of a dataset")
    _check_place(origin, value)
    if not 0 <= value["complete"] <= value["networks"]:
        _damaged(origin, f"{value['name']} has {value['complete']} complete of {value['networks']} networks")
    subsets = []
    for entry in value["subsets"]:
        _check_keys(origin, entry, _SUBSET, "a subset")
        _check_place(origin, entry)
        if entry["count"] < 1:
            _damaged(origin, f"a subset of {value['name']} has count {entry['count']}")
        subsets.append(Subset(**entry))
    _check_distinct(origin, (str(subset.count) for subset in subsets), "count")
    return Packaged(**{**value, "subsets": tuple(subsets)})


def _check_keys(origin: str, value: Any, types: dict[str, type], what: str) -> None:
    if not isinstance(value, dict) or value.keys() != types.keys():
        _damaged(origin, f"{what} has not the keys {', '.join(types)}")
    for key, kind in types.items():
        if type(value[key]) is not kind:
            _damaged(origin, f"{key} of {what} is not of type {kind.__name__}")


def _check_place(origin: str, value: dict[str, Any]) -> None:
    if not all(_is_name(part) for part in value["folder"].split("/")):
        _damaged(origin, f"{value['folder']!r} is not a folder inside a package")
    if not re.fullmatch("[0-9a-f]{64}", value["digest"]):
        _damaged(origin, f"the digest of {value['folder']} is no sha256")


def _check_distinct(origin: str, values: Iterable[str], what: str) -> None:
    seen = set()
    for value in values:
        if value in seen:
            _damaged(origin, f"{what} {value} occurs twice")
        seen.add(value)


def _is_name(text: str) -> bool:
    return len(text) <= _LARGEST_NAME and reader.is_name(text)


def _damaged(origin: str, why: str) -> NoReturn:
    raise DatasetError(f"{origin} is damaged: {why}")


# ------------------------------------------------------------------ from a path to a dataset folder


def locate(path: str | Path, name: str | None = None, subset: int | None = None) -> Path:
    """The dataset folder that is meant by a path, which is that folder or a package.

    A folder of a package is checked for the digest that the package gives for it.

    Args:
        path: a dataset folder, or a package.
        name: the dataset of the package; may be left out where there is only one.
        subset: networks of each task, for one of the dataset's subsets.

    Raises:
        UsageError: the package has several datasets and none is named, or not the one that is asked for; or there is no
            package to choose from.
        DatasetError: the package is damaged.
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


def _choose(folder: Path, datasets: tuple[Packaged, ...], name: str | None, subset: int | None) -> Packaged | Subset:
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
