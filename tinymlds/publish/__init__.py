"""Packages for others: datasets with subsets, splits, an audit, a card, and descriptions for machines.

A package is a function of the datasets, the options and the version of tinymlds; packaging again gives the same bytes
(`manifest.parquet`, which is there if pyarrow is, depends on pyarrow's version too).
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tinymlds
from tinymlds.dataset import reader, schema, store
from tinymlds.dataset.dataset import Dataset
from tinymlds.errors import DatasetError, UsageError
from tinymlds.publish import audit as auditing
from tinymlds.publish import splits, subset
from tinymlds.publish.audit import Audit
from tinymlds.publish.building import AuditFailedError, building
from tinymlds.publish.card import card, citation
from tinymlds.publish.contents import AUDIT, PARQUET, TEXTS, Contents, derived, report_text
from tinymlds.publish.croissant import croissant
from tinymlds.publish.options import Options
from tinymlds.publish.parts import Part
from tinymlds.publish.tables import parquet

__all__ = ["Packaged", "package", "parse_counts"]

_RESERVED = {"splits"}


@dataclass(frozen=True)
class Packaged:
    """What `package` made."""

    folder: Path
    networks: int
    complete: int
    """Complete networks that passed the audit."""
    failed: int
    """Complete networks that did not, and are published all the same (`tolerate`)."""
    bytes: int
    digests: dict[str, str]
    """Of each dataset."""


def package(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    subsets: Iterable[int] = (),
    hosts: bool = False,
    tolerate: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    **about: Any,
) -> Packaged:
    """Put sealed datasets into a package that can be published; what `tinymlds package` does.

    Args:
        folders: sealed dataset folders; the name of a folder is the name of the dataset in the package.
        out: the package, which must not exist; it is built in OUT.incomplete.
        subsets: counts; of each dataset its first so many networks of each task become a folder of their own.
        hosts: keep the names of hosts in provenance.jsonl.
        tolerate: publish although networks fail the audit; they are in no split.
        workers: threads for the audit.
        progress: called with (networks audited, networks).
        about: title, license, authors, date, url, software_url; see `Options`.

    Raises:
        UsageError: a wrong argument, or `out` exists.
        DatasetError: a dataset is damaged; nothing is left behind.
        TinymldsError: networks failed the audit (OUT.incomplete stays, with audit.json), or the file system refused.
    """
    target = Path(out)
    sources = _open(folders, target)
    counts = sorted(set(subsets))
    for dataset in sources.values():
        for count in counts:
            subset.check_count(dataset, count)
    title = about.pop("title", None) or f"tinymlds: {', '.join(sources)}"
    options = Options(tinymlds.__version__, title, **about)
    with building(target) as folder:
        sums: dict[str, str] = {}
        parts = [_add(folder, name, dataset, counts, hosts, sums) for name, dataset in sources.items()]
        audit = auditing.audit(parts, options.version, workers, progress)
        if audit.failures and not tolerate:
            _commit(folder, AUDIT, report_text(audit), sums)
            raise AuditFailedError(_complaint(audit, folder))
        _describe(folder, Contents(parts, splits.make(parts, audit), audit, options), sums)
        size = sum(_sizes(folder, sums).values())
    digests = {part.name: part.full.digest for part in parts}
    complete = sum(audit.complete(part.name) for part in parts)
    return Packaged(target, sum(len(part.full) for part in parts), complete, len(audit.failures), size, digests)


def parse_counts(text: str) -> tuple[int, ...]:
    """Counts from text like "100,500"; "" is none.

    Raises:
        UsageError: it is not that.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(re.fullmatch("[0-9]{1,10}", part) for part in parts):
        raise UsageError(f"subsets must be counts like 100,500, not {text!r}")
    return tuple(int(part) for part in parts)


def _open(folders: Sequence[str | Path], target: Path) -> dict[str, Dataset]:
    """The datasets by their names.

    Raises:
        UsageError: none, two of one name, networks of different shapes, or a folder that the package would be inside of.
        DatasetError: a folder is damaged, or not a finished dataset.
    """
    if not folders:
        raise UsageError("name at least one dataset folder to package")
    opened: dict[str, Dataset] = {}
    for folder in map(Path, folders):
        name = folder.resolve().name
        if name in _RESERVED or not reader.is_name(name):
            raise UsageError(f"a dataset in a package cannot be called {name!r}; rename {folder}")
        if name in opened:
            raise UsageError(f"two folders are called {name}; rename one, as a package holds each under its name")
        if folder.resolve() in (target.resolve(), *target.resolve().parents):
            raise UsageError(f"{target} is inside {folder}; choose another --out")
        if (folder / store.JOURNAL).exists():
            raise UsageError(f"{folder} is not finished; the command that started it goes on with it")
        opened[name] = Dataset(folder).require_whole()
        if opened[name].sums.keys() != schema.file_names(opened[name].spec):
            raise DatasetError(
                f"{folder / store.SUMS} lists other files than the dataset has; `tinymlds verify` says which"
            )
    first = next(iter(opened.values()))
    for dataset in opened.values():
        if dataset.shape != first.shape:
            raise UsageError(f"{dataset.folder} and {first.folder} have networks of different shapes; package them apart")
    return opened


def _add(folder: Path, name: str, dataset: Dataset, counts: list[int], hosts: bool, sums: dict[str, str]) -> Part:
    """Put a dataset and its subsets into the package, and open them there."""
    for count in (None, *counts):
        place = f"{name}/{'full' if count is None else count}"
        written = subset.write(dataset, count, folder.joinpath(*place.split("/")), hosts)
        sums |= {f"{place}/{inner}": digest for inner, digest in written.items()}
    smaller = tuple(Dataset(folder / name / str(count)) for count in counts)
    return Part(name, Dataset(folder / name / "full"), smaller)


def _describe(folder: Path, contents: Contents, sums: dict[str, str]) -> None:
    """Write everything beside the datasets; SHA256SUMS last."""
    for name, data in derived(contents).items():
        _commit(folder, name, data, sums)
    if (rows := parquet(contents.parts, contents.audit)) is not None:
        _commit(folder, PARQUET, rows, sums)
    contents = replace(contents, sizes=_sizes(folder, sums))
    for name, text in zip(TEXTS, (card(contents), citation(contents), croissant(contents, sums)), strict=True):
        _commit(folder, name, text.encode(), sums)
    store.commit_sums(folder, sums)


def _commit(folder: Path, name: str, data: bytes, sums: dict[str, str]) -> None:
    sums[name] = store.commit_inside(folder, name, data)


def _sizes(folder: Path, sums: dict[str, str]) -> dict[str, int]:
    return {name: folder.joinpath(*name.split("/")).stat().st_size for name in sums}


def _complaint(audit: Audit, folder: Path) -> str:
    names = [f"{failure['dataset']}/{failure['task']} {failure['index']}" for failure in audit.failures]
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return (
        f"{len(names)} complete networks failed the audit: {shown}; {folder / AUDIT} says why; "
        f"--tolerate publishes the package with them in no split"
    )
