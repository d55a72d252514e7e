"""The ledger of a merge: the networks of all folders, on disk and not in memory."""

import hashlib
import sqlite3
from collections.abc import Iterable
from typing import Any

import msgspec

from tinymlds.dataset import reader, sealing
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.manifest import Row
from tinymlds.dataset.sealing import Made
from tinymlds.errors import TinymldsError
from tinymlds.spec import canonical_json
from tinymlds.training.metrics import COLUMNS, Figures

_TABLES = (
    'CREATE TABLE held (task TEXT, "index" INTEGER, origin INTEGER, identity BLOB, figures TEXT, '
    'PRIMARY KEY (task, "index", origin)) WITHOUT ROWID',
    'CREATE TABLE made (task TEXT, "index" INTEGER, run INTEGER, seconds REAL, finished REAL, worker TEXT, '
    'PRIMARY KEY (task, "index")) WITHOUT ROWID',
    "CREATE TABLE runs (run INTEGER PRIMARY KEY, info TEXT)",
)

_COLUMNS = (
    "index",
    "status",
    "reason",
    "epochs",
    "train_loss",
    "validation_loss",
    "weights_sha256",
    "losses_sha256",
    "checkpoints",
    "checkpoints_sha256",
)
"""The columns that follow from training; they are the same in every folder."""


def identity(columns: Row) -> bytes:
    """Hash the outcome of training, from `columns_of` or from a row of a manifest."""
    return hashlib.sha256(canonical_json([columns[key] for key in _COLUMNS]).encode()).digest()


class Ledger:
    """A temporary database, a file that goes away with it: which networks each folder holds, by their identities.

    It also has the provenance of one sealed folder at a time.
    """

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None)
        for statement in ("PRAGMA journal_mode=OFF", *_TABLES):
            self._run(statement)

    def close(self) -> None:
        """Remove it."""
        self._connection.close()

    def add(self, origin: int, networks: Iterable[tuple[str, int, bytes]]) -> None:
        """Record that a folder holds these networks: task, index, identity."""
        self._add((task, index, origin, digest, None) for task, index, digest in networks)

    def add_rows(self, origin: int, rows: Iterable[Row]) -> None:
        """Record that a folder holds the networks of these rows of a manifest, whose figures have been measured again."""
        self._add(
            (row["task"], row["index"], origin, identity(row), canonical_json([row[column] for column in COLUMNS]))
            for row in rows
        )

    def _add(self, networks: Iterable[tuple[str, int, int, bytes, str | None]]) -> None:
        try:
            self._connection.executemany("INSERT OR REPLACE INTO held VALUES (?, ?, ?, ?, ?)", networks)
        except sqlite3.Error as error:
            raise _no_room(error) from error

    def held(self, origin: int, task: str, indices: range) -> dict[int, bytes]:
        """Return those of these indices that a folder holds, and their identities."""
        found = self._run(
            f'SELECT "index", identity FROM held WHERE {_AMONG} AND origin = ?5', *_among(task, indices), origin
        )
        return dict(found)

    def known(self, task: str, indices: range) -> set[int]:
        """Return those of these indices that any folder holds."""
        found = self._run(f'SELECT DISTINCT "index" FROM held WHERE {_AMONG}', *_among(task, indices))
        return {index for (index,) in found}

    def figures(self, origin: int, task: str, indices: range) -> dict[int, Figures]:
        """Return known figures of the networks that a folder holds among these; another folder may have measured them."""
        statement = (
            f'SELECT "index", b.figures FROM held a JOIN held b USING (task, "index") WHERE {_AMONG} AND a.origin = ?5 '
            "AND a.identity = b.identity AND b.figures IS NOT NULL"
        )
        found = self._run(statement, *_among(task, indices), origin)
        return {index: dict(zip(COLUMNS, reader.parse_json(text, "figures"), strict=True)) for index, text in found}

    def conflicts(self) -> list[tuple[int, int, int]]:
        """Return pairs of folders that hold different networks of the same task and index, and how many."""
        return self._run(f"SELECT a.origin, b.origin, count(*) {_CONFLICTING} GROUP BY a.origin, b.origin")

    def conflicting(self, one: int, other: int, most: int) -> list[tuple[str, int, bytes, bytes]]:
        """Return the first `most` networks in which two folders differ: task, index, both identities."""
        statement = (
            f'SELECT a.task, a."index", a.identity, b.identity {_CONFLICTING} '
            'AND a.origin = ? AND b.origin = ? ORDER BY a.task, a."index" LIMIT ?'
        )
        return self._run(statement, one, other, most)

    def note_provenance(self, dataset: Dataset) -> None:
        """Read provenance.jsonl of a sealed folder, in place of that of another one."""
        self._run("DELETE FROM made")
        self._run("DELETE FROM runs")
        for line in sealing.read_provenance(dataset):
            if isinstance(line, Made):
                self._run("INSERT OR REPLACE INTO made VALUES (?, ?, ?, ?, ?, ?)", *msgspec.structs.astuple(line))
            else:
                self._run("INSERT OR REPLACE INTO runs VALUES (?, ?)", line[0], canonical_json(line[1]))

    def made(self, task: str, indices: range) -> sealing.Makers:
        """Return the provenance of these networks."""
        found = self._run(f"SELECT * FROM made WHERE {_AMONG}", *_among(task, indices))
        return {row[:2]: Made(*row) for row in found}

    def info(self, run: int) -> dict[str, Any]:
        """Return what the provenance says of a run; {} if nothing."""
        found = self._run("SELECT info FROM runs WHERE run = ?", run)
        return dict(reader.parse_json(found[0][0], "a run")) if found else {}

    def _run(self, statement: str, *parameters: Any) -> list[Any]:
        try:
            return self._connection.execute(statement, parameters).fetchall()
        except sqlite3.Error as error:
            raise _no_room(error) from error


_AMONG = 'task = ?1 AND "index" >= ?2 AND "index" < ?3 AND ("index" - ?2) % ?4 = 0'


def _among(task: str, indices: range) -> tuple[str, int, int, int]:
    return task, indices.start, indices.stop, indices.step


_CONFLICTING = (
    'FROM held a JOIN held b ON a.task = b.task AND a."index" = b."index" '
    "WHERE a.origin < b.origin AND a.identity != b.identity"
)


def _no_room(error: sqlite3.Error) -> TinymldsError:
    return TinymldsError(f"cannot use a temporary file: {error}; point SQLITE_TMPDIR at a disk that has room")
