"""Any executor makes the same networks; what goes wrong with one is said, and loses nothing."""

import json
import os
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

import numpy as np
import pytest
from running import EASY, SMALL, lines_of, run_cli

import tinymlds
from tinymlds.dataset import store
from tinymlds.dataset.journal import Journal
from tinymlds.errors import TinymldsError, UsageError
from tinymlds.runs import clusters
from tinymlds.runs.pools import ExecutorPool
from tinymlds.runs.supervisor import Supervisor
from tinymlds.runs.units import (
    COMPATIBILITY,
    Compatibility,
    Done,
    Unit,
    check_compatibility,
    check_outcomes,
    train_unit,
)
from tinymlds.spec import Recipe, Setting, recipe_with
from tinymlds.training.loop import Status

FOUR = np.zeros(4, np.float32)
UNIT = Unit(Setting("xor", 0, recipe_with(Recipe(), SMALL)), "cpu", 3, 5, (0, 2))


def spawning():
    return ProcessPoolExecutor(1, mp_context=get_context("spawn"))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return tinymlds.train("xor", 9, tmp_path_factory.mktemp("one") / "xor", workers=1, **SMALL).digest


@pytest.mark.parametrize(
    "options",
    [{"executor": "threads", "workers": 3}, {"executor": lambda: ThreadPoolExecutor(2)}, {"executor": spawning}],
    ids=["threads", "ThreadPoolExecutor", "ProcessPoolExecutor"],
)
def test_any_executor_makes_the_same_networks(tmp_path, expected, options):
    executor = options["executor"]
    given = executor() if callable(executor) else executor
    result = tinymlds.train("xor", 9, tmp_path, **{**options, "executor": given}, **SMALL)
    assert (result.digest, result.progress.made) == (expected, 9)
    run, *networks = lines_of(tmp_path / store.PROVENANCE)
    assert run["executor"] == ("threads" if given == "threads" else type(given).__name__)
    host = run["host"]
    assert all(network["worker"].startswith(f"{host}:") for network in networks)
    here = {network["worker"].split(":")[1] == str(os.getpid()) for network in networks}
    assert here == {not isinstance(given, ProcessPoolExecutor)}
    if isinstance(given, Executor):
        assert given.submit(len, "it is left running").result() == 18
        given.shutdown()


def test_status_says_who_works_on_what(tmp_path):
    """Asked from within a run, at every report of its progress."""
    work = {**SMALL, "max_epochs": 40}
    for count in (20, 80, 320):  # on a fast machine a run may be over before anybody is seen at work
        seen, folder = [], tmp_path / str(count)
        look = lambda _progress, seen=seen, folder=folder: seen.append(tinymlds.status(folder))  # noqa: E731
        tinymlds.train("xor", count, folder, executor="threads", workers=2, progress=look, **work)
        if any(found.run.activity.members and any(unit.worker for unit in found.run.activity.under_way) for found in seen):
            break
    known = [found for found in seen if found.run.activity.members]
    assert known, "no report while networks were being made"
    for found in known:
        run = found.run
        assert f"process {os.getpid()} on " in run.holder
        assert (run.info["executor"], run.activity.workers) == ("threads", 2)
        assert len(run.activity.members) <= 2
        assert sum(member.networks for member in run.activity.members) == found.counts["xor"].total()
    names = {member.name for found in known for member in found.run.activity.members}
    working = [unit for found in known for unit in found.run.activity.under_way if unit.worker]
    assert working
    assert {unit.worker for unit in working} <= names
    assert all(unit.since >= known[0].run.activity.since for unit in working)
    assert tinymlds.status(folder).run is None


def test_an_interrupted_run_on_threads_goes_on(tmp_path, expected):
    def interrupt(progress):
        if progress.made:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tinymlds.train("xor", 9, tmp_path, executor="threads", workers=2, progress=interrupt, **SMALL)
    assert tinymlds.train("xor", 9, tmp_path, executor="threads", workers=2).digest == expected


def test_a_broken_executor_ends_the_run_and_loses_nothing(tmp_path, expected):
    with spawning() as executor:
        assert executor.submit(os._exit, 1).exception()
        with pytest.raises(TinymldsError, match=r"executor is broken.*finished networks are safe"):
            tinymlds.train("xor", 9, tmp_path, executor=executor, **SMALL)
    ended = ThreadPoolExecutor(1)
    ended.shutdown()
    with pytest.raises(TinymldsError, match=r"takes no calls.*shutdown"):
        tinymlds.train("xor", 9, tmp_path, executor=ended)
    assert tinymlds.train("xor", 9, tmp_path, workers=1).digest == expected


class Forger(ThreadPoolExecutor):
    """Gives back a network of its own making."""

    def submit(self, work, /, *args, **options):
        def forge():
            done = work(*args, **options)
            return Done(done.worker, [replace(one, weights=one.weights * np.float32("nan")) for one in done.result])

        return super().submit(forge)


def test_what_a_worker_gives_back_is_checked_before_it_is_kept(tmp_path):
    with Forger(1) as forger, pytest.raises(TinymldsError, match=r"worker .* gave back xor 0 with numbers that are not"):
        tinymlds.train("xor", 3, tmp_path, executor=forger, **SMALL)
    journal = Journal.open(tmp_path)
    assert journal.finished("xor") == []
    journal.close()


@pytest.fixture(scope="module")
def outcomes():
    made = train_unit(UNIT)
    check_outcomes(UNIT, made, "w")
    return made


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"index": 5}, "another index"),
        ({"index": True}, "another index"),
        ({"status": "complete"}, "no status"),
        ({"reason": None}, "no status"),
        ({"seconds": float("nan")}, "no duration"),
        ({"seconds": -1.0}, "no duration"),
        ({"weights": lambda one: one.weights.astype(np.float64)}, "shape or type"),
        ({"weights": lambda one: one.weights[1:]}, "shape or type"),
        ({"weights": lambda one: one.weights.tolist()}, "shape or type"),
        ({"train_losses": lambda one: one.train_losses[1:]}, "shape or type"),
        ({"validation_losses": lambda one: one.validation_losses * np.float32("inf")}, "not finite"),
        (
            {"train_losses": lambda _: np.zeros(4, np.float32), "validation_losses": lambda _: np.zeros(4, np.float32)},
            "more ep",
        ),
        ({"checkpoints": lambda one: np.concatenate([one.checkpoints, one.checkpoints])}, "more epochs or checkpoints"),
        ({"checkpoints": lambda one: one.checkpoints[:, 1:]}, "shape or type"),
    ],
)
def test_an_outcome_that_cannot_be_is_refused(outcomes, change, named):
    first, second = outcomes
    changed = replace(second, **{name: value(second) if callable(value) else value for name, value in change.items()})
    with pytest.raises(TinymldsError, match=rf"worker w gave back xor 4 with .*{named}"):
        check_outcomes(UNIT, [first, changed], "w")


@pytest.mark.parametrize("wrong", [None, [], "networks", lambda made: made[:1], lambda made: tuple(made)])
def test_what_is_no_list_of_the_networks_of_a_unit_is_refused(outcomes, wrong):
    with pytest.raises(TinymldsError, match="worker w gave back no list of 2 networks"):
        check_outcomes(UNIT, wrong(outcomes) if callable(wrong) else wrong, "w")


def test_a_worker_with_another_version_is_refused_by_name():
    check_compatibility(COMPATIBILITY, "w")
    with pytest.raises(
        TinymldsError, match=r"worker w has tinymlds \S+ with numerics 2, and this is tinymlds 9 with numerics 7"
    ):
        check_compatibility(Compatibility("9", 7), "w")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"executor": "slurm"}, "no executor 'slurm'; choose one of processes, threads, dask"),
        ({"executor": None}, "no executor None"),
        ({"executor": "dask"}, "needs the address of a scheduler"),
        ({"executor": "threads", "scheduler": "tcp://127.0.0.1:1"}, "and no other, needs the address"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "and no other, needs the address"),
        (
            {"executor": "dask", "scheduler": "localhost"},
            "an address like tcp://HOST:PORT, not 'localhost'",
        ),
        ({"executor": "dask", "scheduler": "tcp://127.0.0.1:1", "workers": 2}, "leave out workers"),
        ({"executor": "threads", "workers": 0}, "workers must be at least 1"),
        ({"executor": "threads", "backend": "cuda"}, "side by side in this process; leave out executor"),
    ],
)
def test_wrong_means_are_refused_before_a_folder_is_made(tmp_path, options, named):
    pytest.importorskip("distributed")
    with pytest.raises(UsageError, match=named):
        tinymlds.train("xor", 1, tmp_path / "xor", **options, **SMALL)
    assert not (tmp_path / "xor").exists()


def test_without_dask_one_is_told_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "distributed", None)
    with pytest.raises(UsageError, match=r"pip install 'tinymlds\[dask\]'"):
        tinymlds.train("xor", 1, tmp_path / "xor", executor="dask", scheduler="tcp://127.0.0.1:1", **SMALL)


def test_the_command_line_takes_executors(tmp_path, expected):
    wanted = "train", "--machine", "xor", "--count", "9", "--executor", "threads"
    dry = run_cli(*wanted, "--dry-run", "--out", tmp_path / "dry", recipe=SMALL)
    assert (dry.returncode, dry.stdout) == (2, "")
    assert "leave out --executor" in dry.stderr
    done = run_cli(*wanted, "--json", "-q", "--out", tmp_path / "xor", recipe=SMALL)
    assert json.loads(done.stdout)["digest"] == expected, done.stderr


def test_names_of_workers_are_left_out_of_a_package(tmp_path):
    tinymlds.train("xor", 8, tmp_path / "xor", executor="threads", workers=2, **EASY)
    named = {line["worker"] for line in lines_of(tmp_path / "xor" / store.PROVENANCE) if "index" in line}
    for hosts, expected in ((True, named), (False, {str(k + 1) for k in range(len(named))})):
        package = tmp_path / str(hosts)
        tinymlds.package([tmp_path / "xor"], package, hosts=hosts, tolerate=True)
        lines = lines_of(package / "xor" / "full" / store.PROVENANCE)
        assert {line["worker"] for line in lines if "index" in line} == expected


def test_a_grown_dataset_remembers_who_made_what(tmp_path):
    tinymlds.train("xor", 2, tmp_path, workers=1, **SMALL)
    first = lines_of(tmp_path / store.PROVENANCE)
    tinymlds.train("xor", 4, tmp_path, executor="threads", workers=1)
    second = lines_of(tmp_path / store.PROVENANCE)
    assert [line for line in second if line["run"] == 1] == first
    assert [line["worker"].count(":") for line in second if "index" in line] == [1, 1, 2, 2]


def test_units_that_an_executor_loses_are_handed_out_again():
    """Somebody else may cancel calls of an executor that is theirs."""

    class Careless(ThreadPoolExecutor):
        lost = 0

        def submit(self, *args, **options):
            future = super().submit(*args, **options)
            if self.lost < 3 and future.cancel():
                self.lost += 1
            return future

    with Careless(1) as executor:
        pool = ExecutorPool(executor, 3)
        made = [
            outcome.index
            for batch in Supervisor([replace(UNIT, start=0, stop=9)], pool).run()
            for done in batch
            for outcome in done.outcomes
        ]
        assert executor.lost == 3
    assert sorted(made) == list(range(9))
    assert {outcome.status for outcome in train_unit(UNIT)} == {Status.EPOCH_CAP}
