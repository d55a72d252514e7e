"""The lock that keeps a dataset folder, or a file of results, to one run, and says who that is.

It is an SQLite file, like the journal; such files may come from a stranger, and are checked here before one is opened.
"""

import contextlib
import os
import socket
import sqlite3
import stat
import time
import uuid
from pathlib import Path

from tinymlds.dataset.store import LOCK
from tinymlds.errors import DatasetError, TinymldsError, UsageError

_SECONDS_TO_WAIT = 0.5
_SAFE = "networks that were kept before are safe, run again once mended"
_ATTACHED = bytes.fromhex("d9d505f920a163d7")
"""The end of a rollback journal that names a further file, which SQLite would read and may delete. Ours names none."""


class RunLock:
    """Keeps a place to one run. The operating system frees it when its process ends, however it ends.

    The place is a dataset folder, or what else only one run may work on. The lock is a reserved lock on an SQLite file of
    its own, by default inside the folder: others may still read who holds it, and are refused with a UsageError that says
    so. Taking it waits a moment for others: for one that writes that it is the holder, so that it can be named, and for
    one that only reads who that is.
    """

    def __init__(self, place: Path, path: Path | None = None) -> None:
        self._place, self._path = place, place / LOCK if path is None else path
        self._token = uuid.uuid4().hex

    def __enter__(self) -> "RunLock":
        while True:
            self._take()
            if self._is_current():
                return self
            self._connection.close()  # the last holder removed the file between our open and our lock

    def _take(self) -> None:
        if self._path.is_symlink():
            raise TinymldsError(f"{self._path} is a link; remove it if no run works here")
        try:
            self._connection = sqlite3.connect(self._path, timeout=_SECONDS_TO_WAIT, isolation_level=None)
            self._connection.execute("BEGIN IMMEDIATE")
            self._connection.execute("CREATE TABLE IF NOT EXISTS holder (token TEXT, info TEXT)")
            self._connection.execute("DELETE FROM holder")
            info = f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}"
            self._connection.execute("INSERT INTO holder VALUES (?, ?)", (self._token, info))
            self._connection.execute("COMMIT")
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise TinymldsError(f"cannot write {self._path}: {error}") from error
            raise UsageError(f"another run works on {self._place} ({self._read_holder()}); wait or stop it") from error
        except sqlite3.DatabaseError as error:
            raise TinymldsError(f"{self._path} is damaged ({error}); remove it if no run works here") from error

    @staticmethod
    def holder(folder: Path) -> str | None:
        """Describe the process that works on a folder; None if there is none, or if the lock is not ours."""
        path, info = folder / LOCK, None
        if not path.exists() or path.is_symlink():
            return None
        try:
            require_plain(path)
            with contextlib.closing(sqlite3.connect(path, timeout=0.0, isolation_level=None)) as connection:
                if [kind for kind, _ in connection.execute("SELECT type, sql FROM sqlite_master")] != ["table"]:
                    return None
                info = connection.execute("SELECT info FROM holder").fetchone()
                connection.execute("BEGIN IMMEDIATE")  # possible only if nobody holds it
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "readonly" in str(error):  # who may not write cannot tell, so believe the file
                return str(info[0]) if info else "it has just started"
        except (sqlite3.Error, DatasetError):
            pass
        return None

    def _is_current(self) -> bool:
        """Return whether the file that we hold is still the one at the path."""
        place = f"{self._path.absolute().as_uri()}?mode=ro"
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(place, uri=True)) as reader:
            return bool(reader.execute("SELECT token FROM holder").fetchone() == (self._token,))
        return False

    def _read_holder(self) -> str:
        try:
            return str(self._connection.execute("SELECT info FROM holder").fetchone()[0])
        except (sqlite3.Error, TypeError):
            return "it has just started"

    def __exit__(self, *exception: object) -> None:
        if os.name != "nt":  # while we hold it, so that nobody can take a file that is about to go
            self._remove()
        self._connection.close()
        if os.name == "nt":
            self._remove()

    def _remove(self) -> None:
        """A file that has to stay is in nobody's way: the disk refuses, which must not hide what it refused before, or
        (on Windows) another run has taken it meanwhile."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def require_plain(path: Path) -> None:
    """Refuse a file, or a rollback journal beside it, that leads SQLite to other files."""
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
    code = getattr(why, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if isinstance(why, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:  # no missing table or column
        return DatasetError(f"cannot read {path}: {why}; {_SAFE}")
    return DatasetError(
        f"{path} is damaged ({why}); remove it to start again, from the networks that are sealed if any are"
    )


def cannot_write(path: Path, error: sqlite3.Error) -> TinymldsError:
    """Return the error for a journal that SQLite could not change."""
    if type(error) is sqlite3.DatabaseError:  # "malformed"; what the file system refuses is an OperationalError
        return damaged(path, error)
    return TinymldsError(f"cannot write {path}: {error}; {_SAFE}")
