"""The journal: those of the version before are gone on with, and what it says of a run."""

import sqlite3
import threading
import time
from contextlib import closing

import numpy as np
import pytest
from running import SMALL

import tinymlds
from tinymlds.dataset import reader, sealing, store
from tinymlds.dataset.activity import Death, RunState, UnderWay
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.errors import DatasetError
from tinymlds.spec import Recipe, Spec, recipe_with
from tinymlds.training.loop import Outcome, Status

BEFORE = """
CREATE TABLE about (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE runs (run INTEGER PRIMARY KEY, info TEXT NOT NULL);
CREATE TABLE networks (
    task TEXT NOT NULL, "index" INTEGER NOT NULL, status TEXT NOT NULL, reason TEXT NOT NULL, epochs INTEGER NOT NULL,
    run INTEGER NOT NULL, seconds REAL NOT NULL, weights BLOB NOT NULL, train_losses BLOB NOT NULL,
    validation_losses BLOB NOT NULL, checkpoints BLOB NOT NULL, finished REAL NOT NULL, sha256 TEXT NOT NULL,
    PRIMARY KEY (task, "index"));
CREATE TABLE quarantine (task TEXT NOT NULL, "index" INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (task, "index"));
"""
"""The tables of a journal made before it said who works on what."""

COUNT = 6


@pytest.fixture(scope="module")
def unsealed(tmp_path_factory):
    """The bytes of a journal with all networks of a run in it, and the digest that it is sealed to."""
    folder = tmp_path_factory.mktemp("unsealed") / "xor"

    def refuse(*_):
        raise tinymlds.TinymldsError("not yet")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sealing, "seal", refuse)
        with pytest.raises(tinymlds.TinymldsError, match="not yet"):
            tinymlds.train("xor", COUNT, folder, workers=1, **SMALL)
    data = (folder / store.JOURNAL).read_bytes()
    return data, tinymlds.train("xor", COUNT, folder, workers=1).digest


@pytest.fixture
def journal_before(tmp_path, unsealed):
    """A folder with work under way, as the version before left it: the first three networks are there."""
    (tmp_path / "new").write_bytes(unsealed[0])
    folder = tmp_path / "xor"
    folder.mkdir()
    with closing(sqlite3.connect(folder / store.JOURNAL)) as old:
        old.executescript(BEFORE)
        old.execute("ATTACH ? AS new", (str(tmp_path / "new"),))
        for table in ("about", "runs", "quarantine", 'networks WHERE "index" < 3'):
            old.execute(f"INSERT INTO {table.split()[0]} SELECT * FROM new.{table}")
        old.commit()
    return folder


def tables(folder):
    with closing(sqlite3.connect(folder / store.JOURNAL)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def test_a_journal_of_the_version_before_is_read_as_it_is(journal_before):
    before = (journal_before / store.JOURNAL).read_bytes()
    found = tinymlds.status(journal_before)
    assert (found.counts["xor"].total(), found.in_progress("xor"), found.run) == (3, 3, None)
    with closing(Journal.open(journal_before)) as journal:
        entries = list(journal.entries("xor", range(COUNT)))
    assert [entry.outcome.index for entry in entries] == [0, 1, 2]
    assert {entry.worker for entry in entries} == {""}
    assert (journal_before / store.JOURNAL).read_bytes() == before


def test_a_run_goes_on_with_a_journal_of_the_version_before(journal_before, unsealed):
    old = tables(journal_before)
    seen = []
    result = tinymlds.train("xor", COUNT, journal_before, workers=1, progress=lambda _: seen.append(tables(journal_before)))
    assert seen[0] - old == {"workers", "makers", "under_way", "deaths", "minutes"}
    assert (result.digest, result.progress.made) == (unsealed[1], 3)
    lines = [reader.parse_json(line, "") for line in (journal_before / store.PROVENANCE).read_text().splitlines()]
    assert ["worker" in line for line in lines if "index" in line] == [False] * 3 + [True] * 3


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE deaths",
        "DROP TABLE workers",
        "CREATE TABLE more (x)",
        "CREATE VIEW who AS SELECT * FROM workers",
        "CREATE TRIGGER t AFTER INSERT ON makers BEGIN DELETE FROM networks; END",
        "ALTER TABLE makers ADD COLUMN x",
    ],
)
def test_a_journal_with_other_tables_than_a_version_has_is_refused(tmp_path, unsealed, change):
    (tmp_path / store.JOURNAL).write_bytes(unsealed[0])
    with closing(sqlite3.connect(tmp_path / store.JOURNAL)) as connection:
        connection.execute(change)
    with pytest.raises(DatasetError, match="it has other tables"):
        tinymlds.status(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE workers SET name = x'00'",
        "UPDATE workers SET networks = 'many'",
        "UPDATE minutes SET workers = 'all'",
        "UPDATE minutes SET seconds_left = 'soon'",
        "INSERT INTO under_way VALUES ('xor', 0, 'end', 'w', 1.0)",
        "INSERT INTO deaths VALUES (1e12, 'xor', 0, 1, x'ff', 'it died')",
    ],
)
def test_values_about_workers_that_no_run_writes_are_damage(tmp_path, unsealed, change):
    (tmp_path / store.JOURNAL).write_bytes(unsealed[0])
    assert tinymlds.status(tmp_path).run.activity.members[0].networks == COUNT
    with closing(sqlite3.connect(tmp_path / store.JOURNAL)) as connection, connection:
        connection.execute(change)
    with pytest.raises(DatasetError, match="a row about workers that no run writes"):
        tinymlds.status(tmp_path)


def outcome(index):
    losses, weights = np.zeros(1, np.float32), np.full(Recipe().architecture.size, index, np.float32)
    return Outcome(index, Status.COMPLETE, "", weights, losses, losses, np.zeros((0, weights.size), np.float32), 1.0)


@pytest.fixture
def journal(tmp_path):
    with closing(Journal.create(tmp_path, Spec((("xor", 9),), 0, recipe_with(Recipe(), SMALL)), {}, [], {})) as journal:
        yield journal


def test_a_journal_says_who_works_on_what(journal):
    assert journal.read_activity() is None
    run = journal.start_run({"host": "h"})
    start = time.time()
    assert journal.read_activity()[3:6] == (0, 0.0, None)
    entries = [Entry("xor", run, outcome(k), 100.0 + k, "ab"[k % 2]) for k in range(3)]
    under_way, death = UnderWay("xor", 5, 7, "b", 90.0), Death(start + 1, "xor", 3, 5, "a", "it was lost")
    journal.add(entries, RunState(run, 2, 12.5, [under_way], [death]))
    found = journal.read_activity()
    assert (found.run, found.workers, found.seconds_left) == (run, 2, 12.5)
    assert [tuple(member) for member in found.members] == [("a", 2, 102.0), ("b", 1, 101.0)]
    assert (found.under_way, found.deaths, found.latest_deaths) == ([under_way], 1, [death])
    assert found.networks_per_second == pytest.approx(3 / (found.latest - found.since))
    assert [entry.worker for entry in journal.entries("xor", range(9))] == ["a", "b", "a"]


def test_another_run_starts_with_workers_of_its_own_and_nothing_under_way(journal):
    first = journal.start_run({"host": "h"})
    death = Death(time.time() - 1000, "xor", 3, 5, "a", "it was lost")
    journal.add(
        [Entry("xor", first, outcome(0), 1.0, "a")], RunState(first, 1, 1.0, [UnderWay("xor", 1, 2, "a", 1.0)], [death])
    )
    second = journal.start_run({"host": "h"})
    found = journal.read_activity()
    assert (found.run, found.members, found.under_way) == (second, [], [])
    assert (found.deaths, found.networks_per_second) == (0, 0.0)
    journal.add([Entry("xor", second, outcome(1), 2.0, "a")], RunState(second, 1, 1.0, [], []))
    assert [tuple(member) for member in journal.read_activity().members] == [("a", 1, 2.0)]
    assert [(entry.run, entry.worker) for entry in journal.entries("xor", range(9))] == [(first, "a"), (second, "a")]


def test_a_network_that_is_made_again_has_one_maker(journal):
    run = journal.start_run({})
    for worker in "ab":
        journal.add([Entry("xor", run, outcome(0), 1.0, worker)])
    assert [entry.worker for entry in journal.entries("xor", range(9))] == ["b"]


def change(folder, statement, *parameters):
    with closing(sqlite3.connect(folder / store.JOURNAL)) as connection:
        connection.execute(statement, parameters)
        connection.commit()


@pytest.fixture
def complete(tmp_path, unsealed):
    """A folder whose journal has all networks."""
    (tmp_path / "xor").mkdir()
    (tmp_path / "xor" / store.JOURNAL).write_bytes(unsealed[0])
    return tmp_path / "xor"


def test_networks_that_a_disk_has_damaged_are_made_again_and_no_others(complete, unsealed):
    for index, column in ((1, "weights"), (4, "validation_losses")):
        with closing(sqlite3.connect(complete / store.JOURNAL)) as connection:
            [(data,)] = connection.execute(f'SELECT {column} FROM networks WHERE "index" = ?', (index,))
        change(complete, f'UPDATE networks SET {column} = ? WHERE "index" = ?', data[:-1] + bytes([data[-1] ^ 1]), index)
    with (
        closing(Journal.open(complete)) as journal,
        pytest.raises(DatasetError, match=r"xor 1 is not what was written\); the command"),
    ):
        list(journal.entries("xor", range(COUNT)))
    result = tinymlds.train("xor", COUNT, complete, workers=1, **SMALL)
    assert (result.digest, result.damaged) == (unsealed[1], 2)
    assert (result.progress.made, result.progress.done) == (2, COUNT)
    assert tinymlds.verify(complete).ok


@pytest.mark.parametrize("statement", ['SET "index" = 1.5 WHERE "index" = 1', "SET run = 'x' WHERE \"index\" = 1"])
def test_numbers_that_are_not_whole_are_damage(complete, statement):
    change(complete, f"UPDATE networks {statement}")
    with pytest.raises(DatasetError, match="no whole number"):
        tinymlds.train("xor", COUNT, complete, workers=1, **SMALL)


def test_a_network_that_comes_after_all_leaves_quarantine(journal):
    for index in (1, 2):
        journal.quarantine("xor", index, "its worker died (3 times)")
    journal.add([Entry("xor", journal.start_run({}), outcome(2), 1.0)])
    assert [index for _, index, _ in journal.quarantined()] == [1]


def test_when_the_latest_network_was_finished(journal):
    run = journal.start_run({})
    for index, finished in ((3, 10.0), (0, 30.0), (5, 20.0)):
        journal.add([Entry("xor", run, outcome(index), finished)])
    assert journal.updated() == {"xor": 20.0}, "the one that was put in last"


def test_who_reads_is_waited_for_and_not_for_ever(tmp_path, journal, monkeypatch):
    """SQLite waits a second for itself; the reader takes longer."""
    run = journal.start_run({})
    with closing(sqlite3.connect(tmp_path / store.JOURNAL, check_same_thread=False)) as reader:

        def read():
            reader.execute("BEGIN")
            reader.execute("SELECT * FROM networks").fetchall()

        read()
        threading.Timer(2.5, reader.rollback).start()
        journal.add([Entry("xor", run, outcome(0), 1.0)])
        monkeypatch.setattr("tinymlds.dataset.journal._SECONDS_FOR_READERS", 0.0)
        read()
        with pytest.raises(tinymlds.TinymldsError, match="locked"):
            journal.add([Entry("xor", run, outcome(1), 1.0)])
        reader.rollback()
    journal.add([Entry("xor", run, outcome(2), 1.0)])
    assert journal.finished("xor") == [0, 2]


def test_who_holds_a_folder(tmp_path):
    assert RunLock.holder(tmp_path) is None
    with RunLock(tmp_path):
        assert "process" in RunLock.holder(tmp_path)
        left = (tmp_path / store.LOCK).read_bytes()
    assert RunLock.holder(tmp_path) is None
    (tmp_path / store.LOCK).write_bytes(left)  # as a run leaves it that was killed
    assert RunLock.holder(tmp_path) is None
    with RunLock(tmp_path):
        assert RunLock.holder(tmp_path) is not None
    (tmp_path / store.LOCK).unlink(missing_ok=True)
    with closing(sqlite3.connect(tmp_path / store.LOCK)) as connection:  # of a stranger, whose view never ends
        connection.execute(
            "CREATE VIEW holder AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x FROM c) SELECT x info FROM c"
        )
    assert RunLock.holder(tmp_path) is None
    (tmp_path / store.LOCK).write_text("no lock of ours")
    assert RunLock.holder(tmp_path) is None
    (tmp_path / store.LOCK).unlink()
    (tmp_path / store.LOCK).symlink_to(tmp_path / "elsewhere")
    assert RunLock.holder(tmp_path) is None
    assert not (tmp_path / "elsewhere").exists()
