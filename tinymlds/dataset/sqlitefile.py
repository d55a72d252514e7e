"""SQLite files of a folder, which may come from a stranger: the check before one is opened, and messages for its errors."""

import os
import sqlite3
import stat
from pathlib import Path

from tinymlds.errors import DatasetError, TinymldsError

_ATTACHED = bytes.fromhex("d9d505f920a163d7")
"""The end of a rollback journal that names a further file, which SQLite would read and may delete. Ours names none."""


def require_plain(path: Path) -> None:
    """Refuse a file, or a rollback journal beside it, that leads SQLite to other files.

    Raises:
        DatasetError: it does, or cannot be read.
    """
    for place in (path, path.with_name(path.name + "-journal")):
        try:
            if not stat.S_ISREG(place.lstat().st_mode):
                raise damaged(place, "not a regular file")
            with place.open("rb") as file:
                start = file.read(20)
                file.seek(max(0, file.seek(0, os.SEEK_END) - len(_ATTACHED)))
                if (place == path and 2 in start[18:20]) or (place != path and file.read() == _ATTACHED):
                    raise damaged(place, "it belongs to further files")
        except FileNotFoundError:
            continue
        except OSError as error:
            raise DatasetError(f"cannot read {place}: {error.strerror or error}") from error


def damaged(path: Path, why: object) -> DatasetError:
    """Return the error for a journal that does not hold what we write; if SQLite could not read it, the error says so."""
    if isinstance(why, sqlite3.OperationalError) and not _is_about_contents(why):
        return DatasetError(f"cannot read {path}: {why}; {_SAFE}")
    return DatasetError(
        f"{path} is damaged ({why}); remove it to start again, from the networks that are sealed if any are"
    )


def cannot_write(path: Path, error: sqlite3.Error) -> TinymldsError:
    """Return the error for a journal that SQLite could not change."""
    if type(error) is sqlite3.DatabaseError:  # "malformed"; what the file system refuses is an OperationalError
        return damaged(path, error)
    return TinymldsError(f"cannot write {path}: {error}; {_SAFE}")


_SAFE = "networks that were kept before are safe, run again once mended"


def _is_about_contents(error: sqlite3.OperationalError) -> bool:
    """Return whether a table or column is missing; file systems and locks of other processes have other error codes."""
    return bool(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF == sqlite3.SQLITE_ERROR)
