"""Merges that are interrupted or killed lose nothing, and the same command ends the same."""

import os
import signal
import subprocess
import time
from contextlib import closing

import pytest
from eight_parts import files, held, merge, networks_in
from running import ROOT, cli_command

import tinymlds
from tinymlds.dataset import store
from tinymlds.dataset.journal import Journal
from tinymlds.errors import TinymldsError
from tinymlds.verification.merging.ledger import identity


def test_merging_can_be_interrupted_anywhere(whole_and_parts, parts, tmp_path, monkeypatch):
    """Fail each transaction and each commit of a merge in turn: what was added stays, and the same merge ends the same."""
    add, commit = Journal.add, store.commit
    steps = []

    def counted(function):
        def fail_at(*arguments):
            steps.append(function)
            if len(steps) == failing:
                raise TinymldsError("no room")
            return function(*arguments)

        return fail_at

    monkeypatch.setattr(Journal, "add", counted(add))
    monkeypatch.setattr(store, "commit", counted(commit))
    failing, kept, result = 0, 0, None
    while result is None:
        failing, steps = failing + 1, []
        try:
            result = merge(parts, tmp_path / "all")
        except TinymldsError:
            now = len(held(tmp_path / "all")[1])
            assert now >= kept
            kept = now
    assert failing > 10
    assert result.ok
    assert files(tmp_path / "all") == files(whole_and_parts / "whole")


def networks_after(folder):
    """What a killed merge has left, sealed or not."""
    journal = Journal.open(folder) if folder.exists() else None
    if journal is not None:
        with closing(journal):
            return networks_in(folder, journal)
    sealed = (folder / store.SUMS).exists()
    return [(row["task"], row["index"], identity(row)) for row in tinymlds.open(folder).manifest] if sealed else []


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="process groups and SIGKILL are POSIX")
def test_killed_merges_lose_nothing(whole_and_parts, parts, tmp_path, share, draw, figure):
    """SIGKILL to the process group at random moments of the time that a merge takes, then the same command; a new folder
    whenever one was finished. The first merge and the last are not disturbed."""
    environment, wanted, kills, finished = os.environ | {"PYTHONPATH": str(ROOT)}, share(50, 2), 0, 0
    folder, before, seconds = tmp_path / "0", [], 0.0
    while kills < wanted or finished < 2:
        start = time.monotonic()
        command = cli_command("merge", *parts, "--out", folder, "--workers", 1, "--quiet")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=environment, start_new_session=True, **quiet) as process:
            try:
                process.wait(timeout=draw.uniform(0.3, seconds) if finished and kills < wanted else None)
                assert process.returncode == 0, process.stderr.read()
                assert files(folder) == files(whole_and_parts / "whole")
                seconds = time.monotonic() - start
                folder, before, finished = tmp_path / f"{finished + 1}", [], finished + 1
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                now = networks_after(folder)
                assert set(before) <= set(now)
                before = now
    figure(kills=kills, finished=finished)
