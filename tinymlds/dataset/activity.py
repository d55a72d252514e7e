"""The activity of a run: tables of the journal that say which worker does what. No dataset depends on them.

They are written in the transaction that keeps finished networks, so that they cost no further flush of the disk. A journal
of an earlier version lacks them; `start_run` adds them.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

TABLES = """
CREATE TABLE workers (
    worker INTEGER PRIMARY KEY, run INTEGER NOT NULL, name TEXT NOT NULL, networks INTEGER NOT NULL, latest REAL NOT NULL);
CREATE TABLE makers (
    task TEXT NOT NULL, "index" INTEGER NOT NULL, worker INTEGER NOT NULL, PRIMARY KEY (task, "index")) WITHOUT ROWID;
CREATE TABLE under_way (
    task TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, worker TEXT NOT NULL, since REAL NOT NULL);
CREATE TABLE deaths (
    time REAL NOT NULL, task TEXT NOT NULL, start INTEGER NOT NULL, stop INTEGER NOT NULL, worker TEXT NOT NULL,
    cause TEXT NOT NULL);
CREATE TABLE minutes (
    minute INTEGER PRIMARY KEY, run INTEGER NOT NULL, since REAL NOT NULL, latest REAL NOT NULL, networks INTEGER NOT NULL,
    workers INTEGER NOT NULL, seconds_left REAL)
""".strip().split(";\n")

_MINUTES = 5
"""The rate of a run is measured over this many minutes."""
_LATEST_DEATHS = 10


class UnderWay(NamedTuple):
    """Networks `start` ... `stop` - 1 of a task, handed out and not finished."""

    task: str
    start: int
    stop: int
    worker: str
    """Name of the worker that has begun with it; "" if none has, or if it is not known."""
    since: float
    """Unix time at which it was begun; if that is not known, at which it was handed out."""


class Death(NamedTuple):
    """A worker that died, was lost or was ended, and what it worked on."""

    time: float
    task: str
    start: int
    stop: int
    worker: str
    """Name of the worker; "" if it is not known."""
    cause: str


class RunState(NamedTuple):
    """The state of a run at the moment, as the run writes it."""

    run: int
    workers: int
    """Units that are worked on at the same time, with the workers that are there now."""
    seconds_left: float | None
    under_way: list[UnderWay]
    deaths: list[Death]
    """Deaths since the state was written last."""


class WorkerActivity(NamedTuple):
    """A worker of a run."""

    name: str
    networks: int
    """Number of networks that the worker has made in this run."""
    latest: float
    """Unix time at which the latest of its networks was finished."""


class RunActivity(NamedTuple):
    """The latest run of a journal: its workers, its rate, what is under way."""

    run: int
    since: float
    """Unix time at which the run started."""
    latest: float
    """Unix time of the latest note."""
    workers: int
    networks_per_second: float
    """Rate over the last five minutes of the run."""
    seconds_left: float | None
    """Forecast at `latest`; None before the first network."""
    members: list[WorkerActivity]
    under_way: list[UnderWay]
    deaths: int
    latest_deaths: list[Death]


class ActivityWriter:
    """Writes the tables of one connection to a journal."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._numbers: dict[tuple[int, str], int] = {}

    def start(self, run: int) -> None:
        """Record that a run starts, with nothing under way."""
        self._connection.execute("DELETE FROM under_way")
        self._note_minute(run, 0, 0, None)

    def add_makers(self, made: Iterable[tuple[str, int, int, str, float]]) -> None:
        """Record who made networks: task, index, run, worker ("" if unknown) and time of finishing."""
        networks: Counter[int] = Counter()
        latest: dict[int, float] = {}
        rows = []
        for task, index, run, name, finished in made:
            if name:
                number = self._number(run, name)
                rows.append((task, index, number))
                networks[number] += 1
                latest[number] = max(finished, latest.get(number, 0.0))
        self._connection.executemany("INSERT OR REPLACE INTO makers VALUES (?, ?, ?)", rows)
        self._connection.executemany(
            "UPDATE workers SET networks = networks + ?, latest = max(latest, ?) WHERE worker = ?",
            [(count, latest[number], number) for number, count in networks.items()],
        )

    def note(self, networks: int, now: RunState) -> None:
        """Record the state of the run, and how many networks it has just finished."""
        self._connection.execute("DELETE FROM under_way")
        self._connection.executemany("INSERT INTO under_way VALUES (?, ?, ?, ?, ?)", now.under_way)
        self._connection.executemany("INSERT INTO deaths VALUES (?, ?, ?, ?, ?, ?)", now.deaths)
        self._note_minute(now.run, networks, now.workers, now.seconds_left)

    def _note_minute(self, run: int, networks: int, workers: int, seconds_left: float | None) -> None:
        now = time.time()
        self._connection.execute(
            "INSERT INTO minutes VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (minute) DO UPDATE SET "
            "since = iif(run = excluded.run, since, excluded.since), "
            "networks = iif(run = excluded.run, networks, 0) + excluded.networks, run = excluded.run, "
            "latest = excluded.latest, workers = excluded.workers, seconds_left = excluded.seconds_left",
            (int(now // 60), run, now, now, networks, workers, seconds_left),
        )

    def _number(self, run: int, name: str) -> int:
        """Return the number of a worker; a new worker gets one."""
        if (run, name) not in self._numbers:
            [found] = self._connection.execute("SELECT max(worker) FROM workers WHERE run = ? AND name = ?", (run, name))
            number = found[0]
            if number is None:
                cursor = self._connection.execute("INSERT INTO workers VALUES (NULL, ?, ?, 0, 0.0)", (run, name))
                number = cursor.lastrowid
            self._numbers[run, name] = int(number)
        return self._numbers[run, name]


_MOST_ROWS = 20_000
"""Workers, and units under way, that are read: more than any cluster has. A journal may come from a stranger."""


def read(connection: sqlite3.Connection) -> RunActivity | None:
    """Read the activity of the latest run; None if no run has started. ValueError: a row that no run writes."""

    def rows(types: tuple[Any, ...], query: str, *values: Any) -> list[Any]:
        found = connection.execute(f"SELECT {query}", values).fetchall()
        for row in found:  # SQLite itself lets a column hold anything
            if not all(isinstance(value, kind) for value, kind in zip(row, types, strict=True)):
                raise ValueError("a row about workers that no run writes")
        return found

    minutes = rows(
        (int, int, float, float, int, int, float | None),
        f"* FROM minutes WHERE run = (SELECT max(run) FROM runs) ORDER BY minute DESC LIMIT {_MINUTES}",
    )
    if not minutes:
        return None
    newest, run, _, latest, _, workers, seconds_left = minutes[0]
    recent = [row for row in minutes if row[0] > newest - _MINUTES]
    seconds = latest - recent[-1][2]
    rate = sum(row[4] for row in recent) / seconds if seconds > 0 else 0.0
    [(since,)] = rows((float,), "min(since) FROM minutes WHERE run = ?", run)
    members = rows(
        (str, int, float),
        "substr(name, 1, 200), networks, latest FROM workers WHERE run = ? ORDER BY networks DESC, name LIMIT ?",
        *(run, _MOST_ROWS),
    )
    under_way = rows(
        (str, int, int, str, float),
        "substr(task, 1, 200), start, stop, substr(worker, 1, 200), since FROM under_way ORDER BY since LIMIT ?",
        _MOST_ROWS,
    )
    [(deaths,)] = rows((int,), "count(*) FROM deaths WHERE time >= ?", since)
    latest_deaths = rows(
        (float, str, int, int, str, str),
        "time, substr(task, 1, 200), start, stop, substr(worker, 1, 200), substr(cause, 1, 500) FROM deaths "
        "WHERE time >= ? ORDER BY time DESC LIMIT ?",
        *(since, _LATEST_DEATHS),
    )
    lists = [WorkerActivity(*row) for row in members], [UnderWay(*row) for row in under_way]
    told = [Death(*row) for row in reversed(latest_deaths)]
    return RunActivity(run, since, latest, workers, rate, seconds_left, *lists, deaths, told)
