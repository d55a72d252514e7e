"""The supervisor with real worker processes that really die."""

import functools
import os
import re
import signal
import struct
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import numpy as np
import pytest
from running import SMALL

import tinymlds
from tinymlds.dataset.journal import Journal
from tinymlds.errors import TinymldsError
from tinymlds.runs import execution, supervisor
from tinymlds.runs.pools import LEAST_SECONDS, InProcess, ProcessPool
from tinymlds.runs.supervisor import Deadlines, Supervisor, Watch
from tinymlds.runs.units import Unit, train_unit
from tinymlds.spec import Recipe, Setting, recipe_with
from tinymlds.training.loop import Outcome, Status

RECIPE = recipe_with(Recipe(), SMALL)
TOO_LONG = r"it took longer than \d+ s"
"""Three seconds in these tests, and more if an epoch took a tenth of a second on a busy machine."""
posix = pytest.mark.skipif(os.name == "nt", reason="signals that kill and stop are POSIX")
pipes_of_bytes = pytest.mark.skipif(os.name == "nt", reason="pipes of Windows have messages, and no half ones")


def die_at_five(unit):
    """Train, but network 5 kills its worker, like a crash in native code would."""
    if unit.start <= 5 < unit.stop:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_unit(unit)


def first_time_at_five(unit):
    """Whether this is the first time that network 5 is to be made; a file outside tells."""
    mark = Path(os.environ["TINYMLDS_TEST_MARK"])
    if not unit.start <= 5 < unit.stop or mark.exists():
        return False
    mark.touch()
    return True


def die_once(unit):
    """Network 5 kills its worker the first time only."""
    if first_time_at_five(unit):
        os.kill(os.getpid(), signal.SIGKILL)
    return train_unit(unit)


def die_within_a_result(unit):
    """Network 5 kills its worker in the middle of sending a result, the first time only."""
    if first_time_at_five(unit):
        begin_a_result()
        os.kill(os.getpid(), signal.SIGKILL)
    return train_unit(unit)


def exit_within_a_result(unit):
    """As when the parent ends the pool while this worker sends a result."""
    begin_a_result()
    os._exit(1)


def begin_a_result():
    """Write the head of a message to the pipe of results, with its lock held, as `SimpleQueue.put` does."""
    frame = sys._getframe()
    while "result_queue" not in frame.f_locals:
        frame = frame.f_back
    queue = frame.f_locals["result_queue"]
    if queue._wlock is not None:  # Windows has no lock there
        queue._wlock.acquire()
    queue._writer._send(struct.pack("!i", 10_000) + b"not all of it")


def die_always(unit):
    os.kill(os.getpid(), signal.SIGKILL)


def hang_at_five(unit):
    """Network 5 takes far too long."""
    if unit.start <= 5 < unit.stop:
        time.sleep(3600)
    return train_unit(unit)


def stop_at_five(unit):
    """Network 5 stops its worker, so that no thread of it can do anything any more."""
    if unit.start <= 5 < unit.stop:
        os.kill(os.getpid(), signal.SIGSTOP)
    return train_unit(unit)


def hang_once(unit):
    """Network 5 takes far too long the first time only."""
    if first_time_at_five(unit):
        time.sleep(3600)
    return train_unit(unit)


def fail_at_five(unit):
    if unit.start <= 5 < unit.stop:
        raise ValueError("network five")
    return train_unit(unit)


def supervise(work, pool, count=12, **options):
    supervisor = Supervisor([Unit(Setting("xor", 0, RECIPE), "cpu", 0, count)], pool, work, **options)
    outcomes = {}
    try:
        for batch in supervisor.run():
            for finished in batch:
                outcomes |= {outcome.index: outcome.weights.tobytes() for outcome in finished.outcomes}
    finally:
        pool.end()
    return outcomes, supervisor


@pytest.fixture(scope="module")
def undisturbed():
    return supervise(train_unit, InProcess())[0]


def test_in_process_and_pool_agree(undisturbed):
    assert sorted(undisturbed) == list(range(12))
    assert supervise(train_unit, ProcessPool(2, "cpu", RECIPE))[0] == undisturbed


@pytest.mark.parametrize("work", [die_once, pytest.param(die_within_a_result, marks=pipes_of_bytes)])
def test_a_worker_that_dies_once_loses_nothing(undisturbed, tmp_path, monkeypatch, work):
    """Within a result the executor alone would wait forever for the rest of it."""
    monkeypatch.setenv("TINYMLDS_TEST_MARK", str(tmp_path / "died"))
    outcomes, supervisor = supervise(work, ProcessPool(2, "cpu", RECIPE))
    assert (tmp_path / "died").exists()
    assert outcomes == undisturbed
    assert supervisor.quarantined == []


@pipes_of_bytes
def test_a_pool_ends_although_a_result_is_half_sent():
    pool = ProcessPool(1, "cpu", RECIPE)
    pool.wait_for_start()
    [process] = pool.executor._processes.values()
    future = pool.submit(exit_within_a_result, None)
    process.join()
    pool.end()
    assert isinstance(future.exception(), BrokenProcessPool)


@posix
def test_a_pool_ends_although_an_interruption_left_the_lock_of_a_call_taken():
    """As Ctrl-C between the taking of the lock and the `with` that would free it; the call ends while it is taken."""
    pool = ProcessPool(1, "cpu", RECIPE)
    pool.wait_for_start()
    future = pool.submit(time.sleep, 1.0)
    while not future.running():
        time.sleep(0.01)
    for _ in range(2):
        future._condition.acquire()
    try:
        while pool.executor._pending_work_items:  # until the executor has the result, and waits for the lock
            time.sleep(0.01)
        signal.signal(signal.SIGALRM, late)
        signal.alarm(60)  # a bound that no load can break
        pool.end()
        signal.alarm(0)
        assert not future._condition._is_owned()
        assert future.result(60) is None
    finally:
        while future._condition._is_owned():
            future._condition.release()


def late(*_):
    raise TimeoutError("it takes far too long")


def test_a_network_that_always_kills_its_worker_is_quarantined_alone(undisturbed):
    outcomes, supervisor = supervise(die_at_five, ProcessPool(2, "cpu", RECIPE))
    assert [(unit.start, unit.stop) for unit in supervisor.quarantined] == [(5, 6)]
    assert supervisor.quarantined[0].reason == "its worker died (3 times)"
    assert outcomes == {index: weights for index, weights in undisturbed.items() if index != 5}


@posix
def test_a_network_that_always_hangs_is_quarantined_alone(undisturbed):
    """A network takes milliseconds; so three seconds are short for a hung one, and long for any other that runs alone."""
    outcomes, supervisor = supervise(stop_at_five, ProcessPool(2, "cpu", RECIPE), least_seconds=3)
    assert [(unit.start, unit.stop) for unit in supervisor.quarantined] == [(5, 6)]
    assert re.match(TOO_LONG, supervisor.quarantined[0].reason)
    assert supervisor.quarantined[0].deaths == 3
    assert outcomes == {index: weights for index, weights in undisturbed.items() if index != 5}


def test_a_worker_that_hangs_once_loses_nothing(undisturbed, tmp_path, monkeypatch):
    monkeypatch.setenv("TINYMLDS_TEST_MARK", str(tmp_path / "hung"))
    outcomes, supervisor = supervise(hang_once, ProcessPool(2, "cpu", RECIPE), least_seconds=3)
    assert (tmp_path / "hung").exists()
    assert outcomes == undisturbed
    assert supervisor.quarantined == []


@pytest.mark.parametrize(
    ("work", "reason"),
    [(hang_at_five, TOO_LONG), pytest.param(die_at_five, "its worker died", marks=posix)],
)
def test_a_run_names_what_it_could_not_make_and_why(tmp_path, monkeypatch, work, reason):
    with monkeypatch.context() as patch:
        patch.setattr(execution, "Supervisor", functools.partial(Supervisor, work=work, least_seconds=3))
        with pytest.raises(TinymldsError, match=rf"1 networks of .* are missing \(xor 5: {reason}.*the others are safe"):
            tinymlds.train("xor", 8, tmp_path, workers=2, **SMALL)
    journal = Journal.open(tmp_path)
    assert [(task, index) for task, index, _ in journal.quarantined()] == [("xor", 5)]
    assert re.match(reason, journal.quarantined()[0][2])
    assert journal.finished("xor") == [0, 1, 2, 3, 4, 6, 7]
    journal.close()
    assert tinymlds.train("xor", 8, tmp_path, workers=1).progress.made == 1


def outcome(seconds, epochs):
    losses = np.zeros(epochs, np.float32)
    return Outcome(0, Status.STALLED, "", losses, losses, losses, losses, seconds)


def test_a_network_that_trains_is_never_late():
    """Not at a tenth of the slowest pace, whatever the recipe; and before there is a pace, not with a slow computer."""
    default, deadlines = Recipe(), Deadlines()
    assert deadlines.seconds(default, 1) == pytest.approx(256 * 4364 * 65536 * 16 / 1e8, abs=1)
    deadlines.add(outcome(0.2, 2))
    assert deadlines.seconds(default, 1) == LEAST_SECONDS
    assert deadlines.seconds(default, 8) == 10 * 0.1 * 256 * 8
    deadlines.add(outcome(600.0, 0))  # diverged in its first epoch
    deadlines.add(outcome(0.1, 1))
    assert deadlines.seconds(default, 2) == 10 * 600 * 256 * 2


def test_time_in_which_the_run_was_stopped_does_not_count():
    clock = iter([100.0, 101.0, 150.0, 90_150.0, 90_151.0])
    watch = Watch(lambda: next(clock))
    assert [watch.look() for _ in range(4)] == [1.0, 50.0, 110.0, 111.0]


def test_networks_that_all_kill_their_workers_are_all_quarantined():
    outcomes, supervisor = supervise(die_always, ProcessPool(2, "cpu", RECIPE), count=3)
    assert outcomes == {}
    assert [unit.start for unit in sorted(supervisor.quarantined, key=lambda unit: unit.start)] == [0, 1, 2]


@pytest.mark.slow
def test_a_run_in_which_nothing_gets_finished_ends():
    with pytest.raises(TinymldsError, match="again and again"):
        supervise(die_always, ProcessPool(2, "cpu", RECIPE), count=1000)


def test_workers_that_cannot_start_end_the_run(capfd):
    with pytest.raises(TinymldsError, match="no worker can start"):
        supervise(train_unit, ProcessPool(2, "no such backend", RECIPE))
    assert "a worker cannot start: ValueError: there is no backend" in capfd.readouterr().err


@pytest.mark.parametrize("make_pool", [InProcess, lambda: ProcessPool(2, "cpu", RECIPE)])
def test_an_error_in_a_worker_reaches_the_caller(make_pool):
    with pytest.raises(ValueError, match="network five"):
        supervise(fail_at_five, make_pool())


def run_out_of_memory_at_five(unit):
    if unit.start <= 5 < unit.stop:
        raise MemoryError("no room")
    return train_unit(unit)


def test_a_network_that_a_worker_has_no_memory_for_does_not_end_the_run(undisturbed):
    outcomes, supervisor = supervise(run_out_of_memory_at_five, InProcess())
    assert outcomes == {index: weights for index, weights in undisturbed.items() if index != 5}
    assert [(unit.start, unit.reason) for unit in supervisor.quarantined] == [(5, "MemoryError: no room (3 times)")]


def test_what_is_finished_is_given_out_before_an_error(undisturbed, monkeypatch):
    """Units of one network, all in one batch: those before the one that fails are there."""
    monkeypatch.setattr(supervisor, "_LARGEST_UNIT", 1)
    monkeypatch.setattr(supervisor, "_SECONDS_BETWEEN_LOOKS", 3600.0)
    batches = Supervisor([Unit(Setting("xor", 0, RECIPE), "cpu", 0, 12)], InProcess(), fail_at_five).run()
    made = {outcome.index: outcome.weights.tobytes() for done in next(batches) for outcome in done.outcomes}
    assert made == {index: undisturbed[index] for index in range(5)}
    with pytest.raises(ValueError, match="network five"):
        next(batches)


def test_handing_out_many_runs_of_one_network_is_not_quadratic(monkeypatch):
    """Where the end of a run is looked for, every unit is looked at; so that is done now and then."""
    seen, iterate = [], supervisor._Queue.__iter__
    monkeypatch.setattr(supervisor._Queue, "__iter__", lambda queue: (seen.append(unit) or unit for unit in iterate(queue)))
    pool, count = InProcess(), 2000
    pool.workers = 2
    losses, weights = np.zeros(1, np.float32), np.zeros(RECIPE.architecture.size, np.float32)
    arrays = weights, losses, losses, np.zeros((0, weights.size), np.float32)
    units = [Unit(Setting("xor", 0, RECIPE), "cpu", 2 * k, 2 * k + 1) for k in range(count)]
    work = lambda unit: [Outcome(k, Status.COMPLETE, "", *arrays, 1.0) for k in unit.indices]  # noqa: E731
    done = [outcome.index for batch in Supervisor(units, pool, work).run() for each in batch for outcome in each.outcomes]
    assert done == [2 * k for k in range(count)]
    assert count < len(seen) < 15 * count


def test_ending_a_pool_does_not_wait_for_its_workers():
    pool = ProcessPool(2, "cpu", RECIPE)
    futures = [pool.executor.submit(time.sleep, 600) for _ in range(2)]
    while not all(future.running() for future in futures):
        time.sleep(0.05)
    processes = list(pool.executor._processes.values())
    start = time.monotonic()
    pool.end()
    assert time.monotonic() - start < 60  # not 600: a bound that no load can break
    assert not any(process.is_alive() for process in processes)
