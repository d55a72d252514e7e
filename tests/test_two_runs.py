"""Two runs and one folder: many start at the same moment, exactly one works, the others say who and leave."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from running import ROOT, SMALL

from tinymlds.dataset import store
from tinymlds.dataset.journal import Journal

pytestmark = pytest.mark.skipif(os.name == "nt", reason="SIGTERM of POSIX ends the run that is left")

STARTER = """
import sys
from tinymlds import cli
from tinymlds.runs import train as runs
from tinymlds.training import backends

make = runs.make

def make_when_told(*arguments, **options):
    print("ready", flush=True)
    sys.stdin.read()
    return make(*arguments, **options)

backends.load("cpu")
runs.make = make_when_told
cli.main()
"""
"""The command line, but it waits for the end of its input when it has started up: Python, the imports and the parsing of
its arguments are behind it then, which take seconds when eight do so at once."""


def starter(folder):
    """A process that waits to make networks into the folder."""
    recipe = [part for name, value in SMALL.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    arguments = ["train", "--machine", "xor", "--count", "100000", "--workers", "1", "-q", "--out", str(folder), *recipe]
    pipe = subprocess.PIPE
    command = [sys.executable, "-c", STARTER, *arguments]
    return subprocess.Popen(
        command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    )


def wait_for_first_network(folder):
    """Wait until the journal has one, a minute at most."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (folder / store.JOURNAL).exists() and (journal := Journal.open(folder)) is not None:
            with contextlib.closing(journal):
                if journal.finished("xor"):
                    return
        time.sleep(0.05)


def first_line(process, begun):
    """What a process says first on stderr, and how long after `begun`; or "" when it has ended without a word."""
    return process.stderr.readline(), time.monotonic() - begun


def race(folder, starters):
    """Start them all at once; returns the one that works, and of the others their line, the seconds until they said it and
    those until their process had ended. Between the two there is only the end of Python, which is 0.15 s of CPU time each.
    """
    processes = [starter(folder) for _ in range(starters)]
    for process in processes:
        assert process.stdout.readline() == "ready\n", process.stderr.read()
    left, begun = {}, time.monotonic()
    with ThreadPoolExecutor(starters) as threads:
        for process in processes:
            process.stdin.close()
        said = {process: threads.submit(first_line, process, begun) for process in processes}
        while len(left) < starters - 1 and time.monotonic() - begun < 60:
            for process in processes:
                if process not in left and process.poll() is not None:
                    left[process] = (*said[process].result(), time.monotonic() - begun)
            time.sleep(0.01)
        working = [process for process in processes if process.poll() is None]
        wait_for_first_network(folder)
        for process in working:
            process.send_signal(signal.SIGTERM)
    return working, left


@pytest.mark.parametrize("starters", [2, 8])
def test_one_folder_one_run(tmp_path, starters, share, within, figure):
    worst = [0.0, 0.0]
    for k in range(times := share(50, 2)):
        folder = tmp_path / str(k)
        working, left = race(folder, starters)
        assert len(working) == 1, left.values()
        [holder] = working
        for process, (line, said, ended) in left.items():
            assert process.returncode in (1, 2), line
            assert re.search(rf"another run works on .* \(process {holder.pid} on ", line), line
            assert process.stderr.read() == ""
            assert said < within(2)
            worst = [max(worst[0], said), max(worst[1], ended)]
        holder.wait(timeout=60)
        assert holder.returncode == 143
        assert not (folder / store.LOCK).exists()
        with contextlib.closing(Journal.open(folder)) as journal:
            assert journal.finished("xor") == list(range(len(journal.finished("xor"))))
            assert len(journal.runs()) == 1
        for process in (holder, *left):
            process.stdout.close()
            process.stderr.close()
    figure(starters=starters, times=times, seconds_to_the_line=round(worst[0], 2), seconds_to_the_end=round(worst[1], 2))
