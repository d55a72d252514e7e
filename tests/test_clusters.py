"""A Dask cluster of real processes on this machine: the digest of a local run, whatever happens to its processes."""

import gc
import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from running import ROOT, SMALL, lines_of

distributed = pytest.importorskip("distributed")

import tinymlds  # noqa: E402
from tinymlds.dataset import store  # noqa: E402
from tinymlds.errors import TinymldsError  # noqa: E402
from tinymlds.runs import clusters, supervisor, units  # noqa: E402
from tinymlds.runs.clusters import DaskPool  # noqa: E402
from tinymlds.runs.supervisor import Supervisor  # noqa: E402
from tinymlds.runs.units import Compatibility, Unit, train_unit  # noqa: E402
from tinymlds.spec import Recipe, Setting, recipe_with  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name == "nt", reason="signals that kill are POSIX"),
    # A process that is killed while Dask connects to it leaves Dask's socket to the garbage collector. `started` collects
    # it, so that no other test has to answer for it.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
]

WORK = {**SMALL, "train_sequences": 1024, "max_epochs": 4}
"""Some 0.1 s a network."""


class Cluster:
    """A scheduler and workers, each a process."""

    def __init__(self, folder, size=2, **environment):
        self.folder, self._size, self._environment = folder, size, environment
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
        self.workers, self.names = {}, (f"w{k}" for k in itertools.count())
        self.start_scheduler()

    def _start(self, name, program, *arguments):
        environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **self._environment}
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments, "--no-dashboard"]
        with (self.folder / f"{name}.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def start_scheduler(self):
        port = self.address.split(":")[-1]
        self.scheduler = self._start("scheduler", "dask_scheduler", "--host", "127.0.0.1", "--port", port)

    def start_worker(self):
        name = next(self.names)
        options = "--nthreads", "1", "--no-nanny", "--name", name, "--local-directory", str(self.folder)
        self.workers[name] = self._start(name, "dask_worker", self.address, *options)
        return name

    def end_worker(self, name, number=signal.SIGKILL):
        process = self.workers.pop(name)
        process.send_signal(number)
        process.wait(60)

    def restart_scheduler(self):
        """Kill it; its workers end by themselves."""
        self.scheduler.kill()
        self.scheduler.wait(60)
        for process in self.workers.values():
            process.wait(120)
        self.workers.clear()
        self.start_scheduler()

    def fill_up(self):
        """As many workers as at the start."""
        for name in [name for name, process in self.workers.items() if process.poll() is not None]:
            del self.workers[name]
        while len(self.workers) < self._size:
            self.start_worker()

    def end(self):
        processes = [*self.workers.values(), self.scheduler]
        for process in processes:
            process.kill()
        for process in processes:
            process.wait(60)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.end()
    gc.collect()


@pytest.fixture
def cluster(started):
    started.fill_up()
    return started


def train(cluster, folder, count, progress=lambda _: None):
    return tinymlds.train("xor", count, folder, executor="dask", scheduler=cluster.address, progress=progress, **WORK)


def train_until(reached, cluster, folder, count, progress):
    """Train, and go on with more networks as long as a run was too short for what is to happen in it."""
    result = train(cluster, folder, count, progress)
    while not reached():
        count += 100
        result = train(cluster, folder, count, progress)
    return result, count


def local(folder, count):
    return tinymlds.train("xor", count, folder / "local", workers=1, **WORK)


def makers(folder):
    """Names of the workers, network by network; every network is there once."""
    lines = [line for line in lines_of(folder / store.PROVENANCE) if "index" in line]
    assert [line["index"] for line in lines] == list(range(len(lines)))
    return [line["worker"] for line in lines]


def test_the_digest_is_that_of_a_local_run(tmp_path, cluster):
    for count in (30, 120, 480):  # on a fast machine a run may be over before anybody is seen at work
        seen, folder = [], tmp_path / str(count)
        result = train(cluster, folder, count, lambda _, seen=seen, at=folder: seen.append(tinymlds.status(at).run))
        working = {unit.worker for run in seen for unit in run.activity.under_way}
        if working & set(cluster.workers):
            break
    assert working & set(cluster.workers), "no worker was seen at work"
    assert (result.digest, result.progress.made) == (local(tmp_path, count).digest, count)
    assert set(makers(folder)) <= set(cluster.workers)
    assert tinymlds.verify(folder).ok
    assert {run.info["executor"] for run in seen} == {"dask"}


def test_workers_that_are_killed_lose_nothing(tmp_path, cluster, share, draw, figure):
    """At random moments; another worker takes the place of each."""
    wanted, kills = share(50, 2), []
    due = time.monotonic() + draw.uniform(2, 6)

    def kill(progress):
        nonlocal due
        if len(kills) < wanted and progress.workers and progress.done < progress.total and time.monotonic() > due:
            name = draw.choice(sorted(cluster.workers))
            cluster.end_worker(name)
            kills.append(name)
            cluster.start_worker()
            due = time.monotonic() + draw.uniform(0, 4)

    result, count = train_until(lambda: len(kills) == wanted, cluster, tmp_path / "dask", 30 * wanted, kill)
    assert (result.digest, result.progress.done) == (local(tmp_path, count).digest, count)
    assert len(makers(tmp_path / "dask")) == count
    figure(kills=len(kills), networks=count, lost=0)


def test_a_scheduler_that_is_killed_and_started_again_loses_nothing(tmp_path, cluster, capfd):
    """Its workers go with it, and others come later than it does; so there are none for a while, which is said once."""
    restarted, waited = [], []

    def restart(progress):
        if progress.made and progress.done < progress.total and not restarted:
            restarted.append(progress.made)
            cluster.restart_scheduler()
        elif restarted and not waited and "no workers at" in (said := capfd.readouterr().err):
            assert progress.workers == 0
            waited.append(said)
            cluster.fill_up()

    result, count = train_until(lambda: restarted, cluster, tmp_path / "dask", 60, restart)
    assert waited
    assert (result.digest, result.progress.done) == (local(tmp_path, count).digest, count)
    assert len(makers(tmp_path / "dask")) == count


def test_workers_come_and_go_in_the_middle(tmp_path, cluster):
    added, removed, seen = [], [], []

    def change(progress):
        seen.append(progress.workers)
        if progress.made and not added:
            added.append(cluster.start_worker())
        elif added and progress.workers == 3 and not removed:
            removed.append(next(iter(cluster.workers)))
            cluster.end_worker(removed[0], signal.SIGTERM)  # it hands over what it has

    folder = tmp_path / "dask"
    result, count = train_until(lambda: added and added[0] in makers(folder), cluster, folder, 150, change)
    assert (3 in seen, bool(removed)) == (True, True)
    assert result.digest == local(tmp_path, count).digest
    assert set(makers(folder)) <= {*cluster.workers, *removed}


@pytest.fixture
def strict(tmp_path):
    """A cluster of one worker, whose scheduler tries a call once (and not four times)."""
    cluster = Cluster(tmp_path, 1, DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES="0")
    yield cluster
    cluster.end()
    gc.collect()


def misbehave(unit):
    """Network 2 takes far too long, network 5 kills its worker."""
    if unit.start <= 2 < unit.stop:
        time.sleep(3600)
    if unit.start <= 5 < unit.stop:
        os.kill(os.getpid(), signal.SIGKILL)
    return train_unit(unit)


def test_networks_that_kill_or_hang_their_workers_are_quarantined(strict, monkeypatch):
    """Two workers end with each of them, which is enough here, and are replaced. Those that waited there run alone."""
    monkeypatch.setattr(units, "DEATHS_UNTIL_ALONE", 1)
    monkeypatch.setattr(supervisor, "DEATHS_UNTIL_QUARANTINE", 2)
    unit = Unit(Setting("xor", 0, recipe_with(Recipe(), SMALL)), "cpu", 0, 9)
    pool, made = DaskPool(strict.address), set()
    watcher = Supervisor([unit], pool, misbehave, least_seconds=8)  # a new worker imports and loads kernels within it
    try:
        for batch in watcher.run():
            made |= {outcome.index for done in batch for outcome in done.outcomes}
            strict.fill_up()
    finally:
        pool.end()
    reasons = {unit.start: unit.reason for unit in watcher.quarantined}
    assert sorted(reasons) == [2, 5]
    assert "it took longer than" in reasons[2]  # a network may also have waited where the other killed a worker
    assert "its worker died" in reasons[5]
    assert made == set(range(9)) - {2, 5}


def test_a_cluster_with_another_version_is_refused_by_name(tmp_path, cluster, monkeypatch):
    monkeypatch.setattr(clusters, "COMPATIBILITY", Compatibility("9.9", 99))
    with pytest.raises(TinymldsError, match=r"worker w\d+ has tinymlds .* numerics 2, and this is tinymlds 9.9 with"):
        train(cluster, tmp_path / "dask", 3)
    monkeypatch.undo()
    assert train(cluster, tmp_path / "dask", 3).progress.made == 3


def test_an_interrupted_run_leaves_the_cluster_as_it_was(tmp_path, cluster):
    def interrupt(progress):
        if progress.made:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(cluster, tmp_path / "dask", 40, interrupt)
    assert all(process.poll() is None for process in cluster.workers.values())
    assert train(cluster, tmp_path / "dask", 40).digest == local(tmp_path, 40).digest


@pytest.mark.parametrize(
    ("error", "lacks_us"),
    [
        (ModuleNotFoundError("No module named 'tinymlds'"), True),
        (
            AttributeError(
                "Can't get attribute 'train_unit' on <module 'tinymlds.runs.units' from '/x/tinymlds/units.py'>"
            ),
            True,
        ),
        (ImportError("cannot import name 'Done' from 'tinymlds.runs.pools' (/x/tinymlds/pools.py)"), True),
        (RuntimeError("cannot cache function 'loss': no locator available for file '/x/tinymlds/kernels/cpu.py'"), False),
    ],
)
def test_another_version_is_not_blamed_for_what_else_fails(error, lacks_us):
    future = SimpleNamespace(status="error", exception=lambda: error)
    found = clusters._error_of(future)
    assert ("install" in str(found)) == lacks_us
    assert lacks_us or found is error


def test_a_scheduler_that_cannot_be_reached_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(clusters, "_SECONDS_TO_CONNECT", 1.0)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(TinymldsError, match=rf"cannot reach a Dask scheduler at {address}.*`dask scheduler` starts one"):
        tinymlds.train("xor", 1, tmp_path / "dask", executor="dask", scheduler=address, **SMALL)
    for scheme in ("carrier-pigeon", "tls"):
        with pytest.raises(TinymldsError, match=r"scheduler (cannot be|must be an address like)"):
            tinymlds.train("xor", 1, tmp_path / "dask", executor="dask", scheduler=f"{scheme}://127.0.0.1:1", **SMALL)
