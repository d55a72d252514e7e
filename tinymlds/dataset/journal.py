"""The journal: finished networks, durably, while work is under way.

SQLite with a rollback journal and synchronous=EXTRA: a transaction that returned has survived a power cut. One process
writes; others may read at any time. The tables of `activity` say how the run goes; one of an earlier version lacks them.
A journal may come from a stranger too: one with other tables than ours, or with a view or a trigger, is refused before
anything is asked of it.
"""

import contextlib
import hashlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tinymlds.dataset import activity, store
from tinymlds.dataset.lock import cannot_write, damaged, require_plain
from tinymlds.dataset.reader import parse_json
from tinymlds.dataset.store import JOURNAL
from tinymlds.errors import DatasetError
from tinymlds.spec import Spec, canonical_json
from tinymlds.training.loop import Outcome, Status

_TABLES = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (run INTEGER PRIMARY KEY, info TEXT NOT NULL);
CREATE TABLE networks (
    task TEXT NOT NULL, "index" INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, epochs INTEGER NOT NULL,
    run INTEGER NOT NULL, seconds REAL NOT NULL, weights BLOB NOT NULL, train_losses BLOB NOT NULL,
    validation_losses BLOB NOT NULL, checkpoints BLOB NOT NULL, finished REAL NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (task, "index"));
CREATE TABLE quarantine (task TEXT NOT NULL, "index" INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (task, "index"))
""".strip().split(";\n")


class DamagedNetworkError(DatasetError):
    """A network in a journal is not what was written; the others may be."""


class Entry(NamedTuple):
    """A finished network as the journal keeps it."""

    task: str
    run: int
    """Number of the run that made it."""
    outcome: Outcome
    finished: float
    """Unix time at which it was finished."""
    worker: str = ""
    """Name of the worker that made it, distinct within a run; "" if it is not known."""


class Journal:
    """The journal of a dataset folder.

    `base` tells, per task, how many networks stay in the shards that were sealed before (whole shards only); the journal
    holds those from there on. In a part these are the first so many of its own.
    """

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection, self._path = connection, path
        tables = {(kind, sql) for kind, sql in self._query("SELECT type, sql FROM sqlite_master") if sql is not None}
        self._activity: activity.ActivityWriter | None = None
        if tables == {("table", sql) for sql in _TABLES + activity.TABLES}:
            self._activity = activity.ActivityWriter(connection)
        elif tables != {("table", sql) for sql in _TABLES}:
            raise damaged(path, "it has other tables")
        about = dict(self._query("SELECT key, value FROM about"))
        if about.keys() != {"spec", "base"} or not all(isinstance(text, str) for text in about.values()):
            raise damaged(path, "it does not say what it is for")
        self.spec = Spec.from_dict(parse_json(about["spec"], str(path)), str(path))
        self.base: dict[str, int] = parse_json(about["base"], str(path))
        counts = self.spec.counts
        if not isinstance(self.base, dict) or any(
            type(count) is not int or count % store.SHARD or not 0 <= count <= counts.get(task, -1)
            for task, count in self.base.items()
        ):
            raise damaged(path, "it goes on from networks that it does not ask for")

    @staticmethod
    def open(folder: Path) -> "Journal | None":
        """Open the journal of a folder; returns None if no work is under way there."""
        path = folder / JOURNAL
        if not path.exists() and not path.is_symlink():
            return None
        require_plain(path)
        try:
            connection = sqlite3.connect(path)
        except sqlite3.Error as error:
            raise damaged(path, error) from error
        try:
            _configure(connection)
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                connection.close()  # a run ended before its first transaction
                return None
            return Journal(connection, path)
        except BaseException as error:
            connection.close()
            if isinstance(error, sqlite3.DatabaseError):
                raise damaged(path, error) from error
            raise

    @staticmethod
    def create(
        folder: Path, spec: Spec, base: dict[str, int], entries: Iterable[Entry], runs: dict[int, dict[str, Any]]
    ) -> "Journal":
        """Make a new journal, with the networks of shards that will be sealed again. All in one transaction."""
        path = folder / JOURNAL
        try:
            connection = sqlite3.connect(path)
            _configure(connection)
            with connection:
                connection.execute("BEGIN IMMEDIATE")
                for statement in _TABLES + activity.TABLES:
                    connection.execute(statement)
                about = {"spec": canonical_json(spec.to_dict()), "base": canonical_json(base)}
                connection.executemany("INSERT INTO about VALUES (?, ?)", about.items())
                connection.executemany(
                    "INSERT INTO runs VALUES (?, ?)", ((run, canonical_json(info)) for run, info in runs.items())
                )
                _insert(connection, activity.ActivityWriter(connection), entries)
        except sqlite3.Error as error:
            raise cannot_write(path, error) from error
        return Journal(connection, path)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def set_spec(self, spec: Spec) -> None:
        """Change the spec, to ask for more networks."""
        self._write("UPDATE about SET value = ? WHERE key = 'spec'", [(canonical_json(spec.to_dict()),)])
        self.spec = spec

    def start_run(self, info: dict[str, Any]) -> int:
        """Record a run (host, versions and so on); returns its number, which goes with each of its networks.

        A journal of an earlier version gets the tables that it lacks.
        """
        run = int(self._query("SELECT coalesce(max(run), 0) + 1 FROM runs")[0][0])
        writer = self._activity or activity.ActivityWriter(self._connection)
        with self._writing():
            if self._activity is None:
                for statement in activity.TABLES:
                    self._connection.execute(statement)
            self._connection.execute("INSERT INTO runs VALUES (?, ?)", (run, canonical_json(info)))
            writer.start(run)
        self._activity = writer
        return run

    def add(self, entries: list[Entry], state: activity.RunState | None = None) -> None:
        """Keep finished networks, and the state of the run that finished them; when this returns they are safe.

        One transaction: if the file system refuses, nothing of this call is kept, and everything before is.
        """
        with self._writing():
            _insert(self._connection, self._activity, entries)
            if self._activity is not None and state is not None:
                self._activity.note(len(entries), state)

    def read_activity(self) -> activity.RunActivity | None:
        """Return the activity of the latest run; None if it is not known."""
        with self._reading():
            return None if self._activity is None else activity.read(self._connection)

    def quarantine(self, task: str, index: int, reason: str) -> None:
        """Record a network that kills its workers or hangs, so that the run can go on without it."""
        self._write("INSERT OR REPLACE INTO quarantine VALUES (?, ?, ?)", [(task, index, reason)])

    def clear_quarantine(self) -> None:
        """Give quarantined networks another chance."""
        self._write("DELETE FROM quarantine", [()])

    def quarantined(self) -> list[tuple[str, int, str]]:
        """Return (task, index, reason) of the networks in quarantine."""
        return self._query('SELECT task, "index", reason FROM quarantine ORDER BY task, "index"')

    def finished(self, task: str) -> list[int]:
        """Return the indices of the task that the journal holds, ascending."""
        found = [row[0] for row in self._query('SELECT "index" FROM networks WHERE task = ? ORDER BY "index"', (task,))]
        if not all(type(index) is int for index in found):  # SQLite itself lets a column hold anything
            raise damaged(self._path, f"an index of {task} that is no whole number")
        return found

    def counts(self) -> dict[str, Counter[str]]:
        """Count the networks in the journal by task and status."""
        result: dict[str, Counter[str]] = {task: Counter() for task, _ in self.spec.tasks}
        for task, status, count in self._query("SELECT task, status, count(*) FROM networks GROUP BY task, status"):
            with self._reading():
                if task not in result:
                    raise ValueError(f"networks of {task!r}, which it does not ask for")
                result[task][Status(status).value] = count
        return result

    def updated(self) -> dict[str, float]:
        """Return for each task the Unix time at which the network added last was finished.

        The time itself stands behind the weights, so the latest of all times would take reading all of them.
        """
        last = "SELECT max(rowid) FROM networks GROUP BY task"
        latest = dict(self._query(f"SELECT task, finished FROM networks WHERE rowid IN ({last})"))
        if not all(isinstance(time, float) for time in latest.values()):
            raise damaged(self._path, "a time that is no number")
        return latest

    def entries(self, task: str, indices: range) -> Iterator[Entry]:
        """Yield the finished networks among these indices, ascending; DamagedNetworkError: one is not what was written."""
        for index, entry in self._read(task, indices):
            if entry is None:
                raise DamagedNetworkError(
                    f"{self._path} is damaged ({task} {index} is not what was written); the command that makes its dataset "
                    f"makes that network again"
                )
            yield entry

    def forget_damaged(self) -> int:
        """Remove the networks that are not what was written, so that they are made again. Returns how many there were."""
        damaged = [
            (task, index)
            for task in self.spec.indices
            for piece in store.by_shard(self.finished(task))
            for index, entry in self._read(task, range(piece[0], piece[-1] + 1))
            if entry is None
        ]
        self._write('DELETE FROM networks WHERE task = ? AND "index" = ?', damaged)
        return len(damaged)

    def _read(self, task: str, indices: range) -> Iterator[tuple[int, Entry | None]]:
        """Yield the index of each network that is there, and the network; None if it is not what was written."""
        maker = "''" if self._activity is None else _MAKER
        with self._reading():
            rows = self._connection.execute(
                'SELECT "index", status, reason, weights, train_losses, validation_losses, checkpoints, '
                f"seconds, run, finished, {maker}, sha256 FROM networks "
                'WHERE task = ?1 AND "index" >= ?2 AND "index" < ?3 AND ("index" - ?2) % ?4 = 0 ORDER BY "index"',
                (task, indices.start, indices.stop, indices.step),
            )
            for index, status, reason, *blobs, seconds, run, finished, worker, wanted in rows:
                if type(index) is not int or type(run) is not int:
                    raise ValueError(f"an index or a run of {task} that is no whole number")
                if _row_sha256(task, index, status, reason, blobs) != wanted:
                    yield index, None
                    continue
                weights, train, validation, checkpoints = (np.frombuffer(b, "<f4").astype(np.float32) for b in blobs)
                if weights.size != self.spec.recipe.architecture.size or train.size != validation.size:
                    raise ValueError(f"{task} {index} has another number of weights or losses")
                arrays = weights, train, validation, checkpoints.reshape(-1, weights.size)
                outcome = Outcome(index, Status(status), reason, *arrays, seconds)
                yield index, Entry(task, run, outcome, finished, str(worker))

    def runs(self) -> dict[int, dict[str, Any]]:
        """Return what was recorded of each run."""
        with self._reading():
            runs = self._query("SELECT run, info FROM runs ORDER BY run")
            return {run: {**parse_json(info, str(self._path))} for run, info in runs}

    def _query(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        with self._reading():
            return self._connection.execute(statement, parameters).fetchall()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[None]:
        """Turn what this class never writes into an error of damage; errors of the file system are not damage."""
        try:
            yield
        except (sqlite3.Error, TypeError, ValueError) as error:
            raise damaged(self._path, error) from error

    def _write(self, statement: str, rows: list[tuple[Any, ...]]) -> None:
        with self._writing():
            self._connection.executemany(statement, rows)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Write in one transaction, after waiting for whoever reads the journal at the moment."""
        try:
            with self._connection:
                self._connection.execute("PRAGMA busy_timeout=1000")  # as no signal is handled while SQLite waits
                _patiently(lambda: self._connection.execute("BEGIN IMMEDIATE"))
                yield
                _patiently(self._connection.commit)
        except sqlite3.Error as error:
            raise cannot_write(self._path, error) from error


_MAKER = """coalesce((SELECT name FROM makers JOIN workers USING (worker)
    WHERE makers.task = networks.task AND makers."index" = networks."index"), '')"""


def _patiently(step: Callable[[], object]) -> None:
    """Take a step during which no other process may read; retry for some minutes."""
    deadline = time.monotonic() + _SECONDS_FOR_READERS
    while True:
        try:
            step()
            return
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise


_SECONDS_FOR_READERS = 600.0
"""A reader holds up the writer while it reads: seconds for millions of networks, more on a slow disk."""


def _insert(connection: sqlite3.Connection, writer: activity.ActivityWriter | None, entries: Iterable[Entry]) -> None:
    """Insert networks; one that was made again replaces the one that was there."""
    made = []
    for entry in entries:
        task, run, done, finished, worker = entry
        arrays = done.weights, done.train_losses, done.validation_losses, done.checkpoints
        blobs = [array.astype("<f4").tobytes() for array in arrays]
        sha256 = _row_sha256(task, done.index, done.status.value, done.reason, blobs)
        row = task, done.index, done.status.value, done.reason, done.epochs, run, done.seconds, *blobs, finished, sha256
        connection.execute(f"INSERT OR REPLACE INTO networks VALUES ({', '.join('?' * len(row))})", row)
        made.append((task, done.index, run, worker, finished))
    connection.executemany('DELETE FROM quarantine WHERE task = ? AND "index" = ?', (network[:2] for network in made))
    if writer is not None:
        writer.add_makers(made)


def _row_sha256(task: str, index: int, status: str, reason: str, blobs: list[bytes]) -> str:
    """Hash everything in a row that reaches a dataset; SQLite itself does not notice a changed byte in a blob."""
    digest = hashlib.sha256(canonical_json([task, index, status, reason, [len(blob) for blob in blobs]]).encode())
    for blob in blobs:
        digest.update(blob)
    return digest.hexdigest()


def _configure(connection: sqlite3.Connection) -> None:
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA journal_mode=DELETE")
    connection.execute("PRAGMA synchronous=EXTRA")
    connection.execute("PRAGMA fullfsync=1")  # macOS: through the drive's cache; elsewhere it does nothing
