"""Runs that are interrupted, extended, or lose a worker: nothing is lost, and the digest is that of an undisturbed run.

Kills, power cuts and failing disks are in test_crashes.py.
"""

import contextlib
import os
import re
import signal
import subprocess
import time

import pytest
from running import ROOT, SMALL, cli_command, run_cli

import tinymlds
from tinymlds.dataset import store
from tinymlds.dataset.journal import Journal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="process groups and SIGKILL are POSIX")

WORK = {**SMALL, "train_sequences": 2048, "max_epochs": 4}
COUNT = 300


def hear_interrupts():
    """Ctrl-C is for this process, also if the tests were started in the background, where nobody hears it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def start(folder, count=COUNT, workers=2):
    command = cli_command("train", "--machine", "xor", "--count", count, "--out", folder, "--workers", workers, recipe=WORK)
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, env=environment, start_new_session=True, preexec_fn=hear_interrupts, stdout=pipe, stderr=pipe, text=True
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
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.05)
    return found


def states(leader):
    """States of the processes of a session: the run that leads it, workers, helpers of multiprocessing. Z have ended."""
    listing = subprocess.check_output(["ps", "-A", "-o", "sess=,stat="], text=True)
    rows = [line.split() for line in listing.splitlines()]
    return [state[0] for session, state in rows if int(session) == leader]


def nothing_left(leader):
    """Whether all processes of a session have ended."""
    return set(states(leader)) <= {"Z"}


def wait_for_first_network(folder):
    wait_until(lambda: (folder / store.JOURNAL).exists() and kept(folder) > 0, "the first network")


def children(pid):
    """Process ids of the workers of a run that have not ended."""
    listing = subprocess.check_output(["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,args="], text=True)
    rows = [line.split(None, 3) for line in listing.splitlines()]
    return [int(row[0]) for row in rows if int(row[1]) == pid and row[2][0] != "Z" and "spawn_main" in row[3]]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    return tinymlds.train("xor", COUNT, folder, workers=1, **WORK).digest


@pytest.mark.slow
def test_extended_from_120_to_300(tmp_path, expected):
    tinymlds.train("xor", 120, tmp_path, workers=1, **WORK)
    assert tinymlds.train("xor", COUNT, tmp_path, workers=1).digest == expected


@pytest.mark.slow
def test_killed_workers_do_not_stop_a_run(tmp_path, expected, share, draw, figure):
    """SIGKILL to a worker when so many networks are finished, and a bit later; the last quarter is left in peace, so
    that no network is alone with a third killer and taken for one."""
    kills, count = share(100, 6), share(1500, COUNT)
    digest = expected if count == COUNT else tinymlds.train("xor", count, tmp_path / "0", workers=1, **WORK).digest
    folder, killed = tmp_path / "killed", 0
    moments = sorted(draw.randrange(1, count * 3 // 4) for _ in range(kills))
    process = start(folder, count)
    wait_for_first_network(folder)
    for number, moment in enumerate(moments):
        wait_until(lambda moment=moment: kept(folder) >= moment, f"network {moment}", seconds=600)
        time.sleep(draw.uniform(0.0, 0.3))
        while killed <= number:
            worker = draw.choice(wait_until(lambda: children(process.pid), "a worker"))
            with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile, with one that was killed before
                os.kill(worker, signal.SIGKILL)
                killed += 1
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    assert tinymlds.status(folder).digest == digest
    assert tinymlds.verify(folder).ok
    figure(killed_workers=killed, networks=count)


def interrupted(process, number, code, within):
    """Ctrl-C reaches the whole group, SIGTERM the run alone; returns the seconds until it has ended, and its errors."""
    (os.killpg if number == signal.SIGINT else os.kill)(process.pid, number)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=60)
    seconds = time.monotonic() - begun
    assert process.returncode == code
    assert "the same command goes on" in errors
    assert "Traceback" not in errors
    wait_until(lambda: nothing_left(process.pid), "the workers to end", within(5))
    return seconds, errors


SIGNALS = pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])


@SIGNALS
@pytest.mark.parametrize("workers", [1, 2])
def test_interrupted(tmp_path, number, code, workers, within, figure):
    """It ends within ten seconds, says how to go on, keeps what was finished."""
    process = start(tmp_path, count=5000, workers=workers)
    wait_for_first_network(tmp_path)
    seconds, _ = interrupted(process, number, code, within)
    assert seconds < within(10)
    assert kept(tmp_path) > 0
    assert not (tmp_path / store.LOCK).exists()
    figure(seconds=round(seconds, 2))


@SIGNALS
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_a_second_time(tmp_path, first, number, code, draw, within, figure):
    """It ends within a second, although its workers are stopped and it waits for them three seconds after the first one."""
    process = start(tmp_path, count=5000)
    wait_for_first_network(tmp_path)
    wait_until(lambda: len(children(process.pid)) == 2, "the second worker")
    for worker in children(process.pid):
        os.kill(worker, signal.SIGSTOP)
    wait_until(lambda: states(process.pid).count("T") == 2, "the workers to stop")
    os.kill(process.pid, first)
    time.sleep(draw.uniform(0.3, 1.0))
    assert process.poll() is None
    seconds, errors = interrupted(process, number, code, within)
    assert seconds < within(1)
    assert "ended at once" in errors
    assert kept(tmp_path) > 0
    figure(seconds=round(seconds, 2))


@pytest.mark.slow
def test_nothing_outlives_a_killed_parent(tmp_path, share, draw, within, figure):
    """SIGKILL to the run at random moments, also while its workers start: five seconds later nothing of it is left."""
    worst, with_workers = 0.0, 0
    for k in range(times := share(50, 3)):
        process = start(tmp_path / str(k), count=5000)
        time.sleep(draw.uniform(0.5, 6.0))
        with_workers += bool(children(process.pid))
        process.kill()
        killed = time.monotonic()
        process.wait()
        wait_until(lambda leader=process.pid: nothing_left(leader), "the orphans to end", within(5))
        worst = max(worst, time.monotonic() - killed)
        process.communicate()
    figure(killed_parents=times, with_workers=with_workers, worst_seconds=round(worst, 2))


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
