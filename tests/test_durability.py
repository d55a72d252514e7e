"""Runs that are interrupted, extended, or lose a worker: nothing is lost, and the digest is that of an undisturbed run.

Kills, power cuts and failing disks are in test_crashes.py.
"""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest
from running import ROOT, SMALL, cli_command, run_cli

import tinymlds
from tinymlds import store
from tinymlds.journal import Journal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="process groups and SIGKILL are POSIX")

WORK = {**SMALL, "train_sequences": 2048, "max_epochs": 4}
COUNT = 300


def start(folder, count=COUNT, workers=2):
    command = cli_command("train", "--machine", "xor", "--count", count, "--out", folder, "--workers", workers, recipe=WORK)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command, env=environment, start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def kept(folder):
    """Networks in the journal of a folder."""
    journal = Journal.open(folder)
    if journal is None:
        return 0
    try:
        return len(journal.finished("xor"))
    finally:
        journal.close()


def wait_until(condition, what, seconds=120.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)


def wait_for_first_network(folder):
    wait_until(lambda: (folder / store.JOURNAL).exists() and kept(folder) > 0, "the first network")


def children(pid):
    """Process ids of the direct children of a process."""
    listing = subprocess.check_output(["ps", "-A", "-ww", "-o", "pid=,ppid=,args="], text=True)
    rows = [line.split(None, 2) for line in listing.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == pid and "spawn_main" in row[2]]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return tinymlds.train("xor", COUNT, folder, workers=1, **WORK).digest


@pytest.mark.slow
def test_extended_from_120_to_300(tmp_path, expected):
    tinymlds.train("xor", 120, tmp_path, workers=1, **WORK)
    assert tinymlds.train("xor", COUNT, tmp_path, workers=1).digest == expected


@pytest.mark.slow
def test_a_killed_worker_does_not_stop_the_run(tmp_path, expected):
    process = start(tmp_path)
    wait_for_first_network(tmp_path)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert tinymlds.status(tmp_path).digest == expected


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted(tmp_path, number, code, workers):
    """Ctrl-C reaches the whole group; SIGTERM the run alone. It ends, says how to go on, keeps what was finished."""
    process = start(tmp_path, count=5000, workers=workers)
    wait_for_first_network(tmp_path)
    workers_alive = children(process.pid)
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    assert kept(tmp_path) > 0
    wait_until(lambda: not any(map(alive, workers_alive)), "the workers to end")
    assert not (tmp_path / store.LOCK).exists()


def test_workers_do_not_outlive_a_killed_parent(tmp_path):
    process = start(tmp_path, count=5000)
    wait_for_first_network(tmp_path)
    orphans = children(process.pid)
    assert len(orphans) == 2
    process.kill()
    process.communicate()
    wait_until(lambda: not any(map(alive, orphans)), "the orphans to end", seconds=30)


def test_status_while_a_run_is_under_way(tmp_path):
    process = start(tmp_path, count=5000)
    wait_for_first_network(tmp_path)
    shown = run_cli("status", tmp_path)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert shown.returncode == 0, shown.stderr
    assert "under way" in shown.stdout
    counts = re.search(r"xor +(\d+) +(\d+) +(\d+) +5000", shown.stdout)
    assert counts
    assert sum(map(int, counts.groups())) == 5000
    opened = run_cli("verify", tmp_path)
    assert (opened.returncode, "is not finished" in opened.stderr) == (1, True)
