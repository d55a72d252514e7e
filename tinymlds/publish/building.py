"""Building a package in a folder beside it, which is renamed to the package once it is whole."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tinymlds.dataset import store
from tinymlds.dataset.lock import RunLock
from tinymlds.errors import TinymldsError, UsageError, refusing

UNFINISHED = ".incomplete"
_MARK = "package-under-way"
_OURS = {_MARK, store.LOCK, f"{store.LOCK}-journal"}


class AuditFailedError(TinymldsError):
    """Networks failed the audit; the unfinished package stays, with the report."""


@contextlib.contextmanager
def building(out: Path) -> Iterator[Path]:
    """Provide the folder OUT.incomplete to build a package in, and rename it to OUT at the end.

    Files of an interrupted run are removed first. After an error other than a failed audit, the folder is removed.

    Raises:
        UsageError: OUT exists, OUT.incomplete holds other files, or another run builds there.
        TinymldsError: the file system refused.
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
