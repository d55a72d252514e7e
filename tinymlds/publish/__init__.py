"""Packages for publication: datasets with subsets, splits, an audit, a card, and machine-readable descriptions.

The bytes of a package depend on the datasets, the arguments and the version of tinymlds alone, except for
`manifest.parquet`, which is written if pyarrow is installed and depends on its version too.
"""

import contextlib
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tinymlds
from tinymlds.dataset import reader, schema, store
from tinymlds.dataset.commands import unfinished
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.lock import RunLock
from tinymlds.errors import DatasetError, TinymldsError, UsageError, refusing
from tinymlds.publish import audit as auditing
from tinymlds.publish import schemes, subset
from tinymlds.publish.audit import Audit
from tinymlds.publish.card import card, citation
from tinymlds.publish.contents import AUDIT, PARQUET, TEXTS, Contents, derived, indented, parquet, with_weights
from tinymlds.publish.croissant import croissant
from tinymlds.publish.metadata import Metadata, spdx
from tinymlds.publish.parts import Part

__all__ = ["Packaged", "package", "parse_counts"]


UNFINISHED = ".incomplete"
_MARK = "package-under-way"
_OURS = {_MARK, store.LOCK, f"{store.LOCK}-journal"}


class AuditFailedError(TinymldsError):
    """Networks failed the audit; the unfinished package stays, with the report."""


@dataclass(frozen=True)
class Packaged:
    """A finished package."""

    folder: Path
    networks: int
    complete: int
    """Number of complete networks that passed the audit."""
    failed: int
    """Number of complete networks that failed the audit and are published all the same (`tolerate`)."""
    bytes: int
    digests: dict[str, str]
    """The digest of each dataset, by name."""
    empty: tuple[str, ...] = ()
    """The sides of the split `by_index` that no network is in."""


def package(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    subsets: Iterable[int] = (),
    hosts: bool = False,
    tolerate: bool = False,
    weights: bool = False,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    **about: Any,
) -> Packaged:
    """Put sealed datasets into a package that can be published, as `tinymlds package` does.

    Args:
        folders: sealed dataset folders; the name of a folder is the name of the dataset in the package.
        out: the package, which must not exist; it is built in OUT.incomplete.
        subsets: counts; for each count, the first networks of each task become a folder of their own.
        hosts: keep the names of hosts in provenance.jsonl.
        tolerate: publish even if networks fail the audit; those are in no split.
        weights: also write the rows of `by_index` with their weights, for `datasets.load_dataset`.
        workers: threads for the audit.
        progress: called with (networks audited, networks).
        about: title, license, authors, date, url, software_url; see `Metadata`.

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
    if "license" in about:
        about["license"] = spdx(about["license"])
    metadata = Metadata(tinymlds.__version__, title, **about)
    with _building(target) as folder:
        sums: dict[str, str] = {}
        parts = [_add(folder, name, dataset, counts, hosts, sums) for name, dataset in sources.items()]
        audit = auditing.audit(parts, metadata.version, workers, progress)
        if audit.failures and not tolerate:
            store.commit(folder / AUDIT, indented(audit.report))
            raise AuditFailedError(_complaint(audit, folder))
        contents = Contents(parts, schemes.make(parts, audit), audit, metadata)
        _describe(folder, contents, sums, weights)
        size = sum(_sizes(folder, sums).values())
    digests = {part.name: part.full.digest for part in parts}
    complete = sum(audit.complete(part.name) for part in parts)
    empty = tuple(side for side, rows in contents.schemes[0].sides.items() if not rows)
    return Packaged(target, sum(len(part.full) for part in parts), complete, len(audit.failures), size, digests, empty)


def parse_counts(text: str) -> tuple[int, ...]:
    """Parse counts like "100,500"; "" gives none."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(re.fullmatch("[0-9]{1,10}", part) for part in parts):
        raise UsageError(f"subsets must be counts like 100,500, not {text!r}")
    return tuple(int(part) for part in parts)


def _open(folders: Sequence[str | Path], target: Path) -> dict[str, Dataset]:
    if not folders:
        raise UsageError("name at least one dataset folder to package")
    opened: dict[str, Dataset] = {}
    for folder in map(Path, folders):
        name = folder.resolve().name
        if name == "splits" or not reader.is_name(name):
            raise UsageError(f"a dataset in a package cannot be called {name!r}; rename {folder}")
        if name in opened:
            raise UsageError(f"two folders are called {name}; rename one, as a package holds each under its name")
        if folder.resolve() in (target.resolve(), *target.resolve().parents):
            raise UsageError(f"{target} is inside {folder}; choose another --out")
        if (folder / store.JOURNAL).exists():
            raise UsageError(unfinished(folder))
        opened[name] = Dataset(folder).require_whole()
        if opened[name].sums.keys() != schema.file_names(opened[name].spec):
            raise DatasetError(
                f"{folder / store.SUMS} lists other files than the dataset has; `tinymlds verify` says which"
            )
    first = next(iter(opened.values()))
    for dataset in opened.values():
        if dataset.architecture != first.architecture:
            raise UsageError(f"{dataset.folder} and {first.folder} have networks of different shapes; package them apart")
    return opened


def _add(folder: Path, name: str, dataset: Dataset, counts: list[int], hosts: bool, sums: dict[str, str]) -> Part:
    for count in (None, *counts):
        place = f"{name}/{'full' if count is None else count}"
        written = subset.write(dataset, count, folder.joinpath(*place.split("/")), hosts)
        sums |= {f"{place}/{inner}": digest for inner, digest in written.items()}
    smaller = {count: Dataset(folder / name / str(count)) for count in counts}
    return Part(name, Dataset(folder / name / "full"), smaller)


def _describe(folder: Path, contents: Contents, sums: dict[str, str], weights: bool) -> None:
    """Write all files beside the datasets, SHA256SUMS last."""
    for name, data in derived(contents).items():
        sums[name] = store.commit(folder / name, data)
    if (rows := parquet(contents)) is not None:
        sums[PARQUET] = store.commit(folder / PARQUET, rows)
    for name, data in with_weights(contents) if weights else ():
        sums[name] = store.commit(folder / name, data)
    contents = replace(contents, sizes=_sizes(folder, sums))
    for name, text in zip(TEXTS, (card(contents), citation(contents), croissant(contents, sums)), strict=True):
        sums[name] = store.commit(folder / name, text.encode())
    store.commit_sums(folder, sums)


def _sizes(folder: Path, sums: dict[str, str]) -> dict[str, int]:
    return {name: folder.joinpath(*name.split("/")).stat().st_size for name in sums}


def _complaint(audit: Audit, folder: Path) -> str:
    names = [f"{failure['dataset']}/{failure['task']} {failure['index']}" for failure in audit.failures]
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return (
        f"{len(names)} complete networks failed the audit: {shown}; {folder / AUDIT} says why; "
        f"--tolerate publishes the package with them in no split"
    )


# ------------------------------------------------------------------ the folder beside it


@contextlib.contextmanager
def _building(out: Path) -> Iterator[Path]:
    """Provide the folder OUT.incomplete to build a package in, and rename it to OUT at the end.

    Files of an interrupted run are removed first. After an error other than a failed audit, the folder is removed.
    """
    folder = out.with_name(out.name + UNFINISHED)
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out} exists; choose another --out, or remove it first")
    _check_ours(folder)
    try:
        store.make_folder(folder)
    except BaseException:
        with contextlib.suppress(OSError):
            folder.rmdir()  # if it is empty
        raise
    with RunLock(folder), _removed_on_error(folder):
        _empty(folder)
        store.commit(folder / _MARK, b"tinymlds package: the same command starts anew\n")
        yield folder
        store.remove(folder / _MARK)
    with _removed_on_error(folder):
        store.rename_folder(folder, out)


@contextlib.contextmanager
def _removed_on_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except AuditFailedError:
        raise
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _check_ours(folder: Path) -> None:
    with refusing(f"read {folder}"):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise UsageError(f"{folder} is in the way: a package is built in a folder of that name; remove it")
        found = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if found - _OURS and _MARK not in found:
        raise UsageError(f"{folder} holds something else than a package under way; move it, or choose another --out")


def _empty(folder: Path) -> None:
    """Remove the files of an interrupted run; its mark goes last."""
    with refusing(f"remove {folder}"):
        for path in folder.iterdir():
            if path.name not in _OURS:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
