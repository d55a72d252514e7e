"""What the driver, the journal and Dask can carry, and how much of the workers' time is training.

    python bench/cluster.py [FILE]

Starts a Dask scheduler and two workers of this machine as processes. With trivial units (a network of zeros, which no time
went into) it measures units and networks per second that pools, supervisor and journal get through; with units of the
default recipe, which share of the time from a worker's first unit to its last goes into training. Writes JSON.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

import distributed
import machine
import numpy as np

from tinymlds.dataset import sealing
from tinymlds.dataset.activity import RunState, UnderWay
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.runs.clusters import DaskPool
from tinymlds.runs.pools import ExecutorPool, InProcess, ProcessPool
from tinymlds.runs.supervisor import Supervisor
from tinymlds.runs.units import Unit, train_unit
from tinymlds.spec import Recipe, Setting, Spec
from tinymlds.training import backends
from tinymlds.training.loop import Outcome, Status

WORKERS = 2
SECONDS = 5.0
RECIPE = Recipe()
ROOT = Path(__file__).parent.parent


def nothing(index, seconds):
    losses, weights = np.zeros(20, np.float32), np.zeros(RECIPE.architecture.size, np.float32)
    return Outcome(index, Status.COMPLETE, "", weights, losses, losses, np.zeros((0, weights.size), np.float32), seconds)


def one_network(unit):
    """Trivial, and said to take so long that a unit has one network."""
    return [nothing(index, 10.0) for index in range(unit.start, unit.stop)]


def many_networks(unit):
    """Trivial, and said to take so little that a unit has as many networks as a unit may have."""
    return [nothing(index, 1e-3) for index in range(unit.start, unit.stop)]


def timed(unit):
    """Real; says when it began and ended."""
    begun = time.time()
    made = train_unit(unit)
    return [replace(outcome, reason=json.dumps([begun, time.time()])) for outcome in made]


@contextmanager
def cluster():
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
        free.close()
        address = f"tcp://127.0.0.1:{port}"
        options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", folder]
        commands = [["dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"]]
        commands += [["dask_worker", address, "--name", f"w{k}", *options] for k in range(WORKERS)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        processes = [
            subprocess.Popen([sys.executable, "-m", f"distributed.cli.{name}", *rest], **quiet) for name, *rest in commands
        ]
        try:
            with distributed.Client(address, timeout=60) as client:
                client.wait_for_workers(WORKERS)
            yield address
        finally:
            for process in processes:
                process.kill()
            for process in processes:
                process.wait()


def pools(address):
    """Of each kind one, not started before it is its turn."""
    return {
        "this process": InProcess,
        "processes": lambda: ProcessPool(WORKERS, "cpu", RECIPE),
        "threads": lambda: ExecutorPool(ThreadPoolExecutor(WORKERS), WORKERS, ours=True),
        "dask": lambda: DaskPool(address),
    }


def carried(make_pool, work):
    """Units and networks per second that a supervisor gets through in some seconds."""
    print(f"{work.__name__} on {make_pool}", file=sys.stderr)
    pool = make_pool()
    supervisor = Supervisor([Unit(Setting("xor", 0, RECIPE), "cpu", 0, 10**7)], pool, work)
    units = networks = 0
    start = None
    try:
        for batch in supervisor.run():
            if start is None:
                start = time.perf_counter() if batch else None  # the first batch pays for the start
                continue
            units += len(batch)
            networks += sum(len(done.outcomes) for done in batch)
            if time.perf_counter() - start > SECONDS:
                break
        seconds = time.perf_counter() - start
    finally:
        pool.end()
    return {"units_per_second": round(units / seconds), "networks_per_second": round(networks / seconds)}


def kept(batch, under_way):
    """Networks per second that the journal keeps, in transactions of so many, with so many units under way."""
    spec = Spec((("xor", 10**6),), 0, RECIPE)
    units = [UnderWay("xor", k, k + 1, f"worker-{k}", 0.0) for k in range(under_way)]
    with tempfile.TemporaryDirectory(dir=".") as folder, closing(Journal.create(Path(folder), spec, {}, [], {})) as journal:
        run = journal.start_run({})
        state = RunState(run, under_way, 1.0, units, [])
        number, start = 0, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            indices = range(number, number + batch)
            journal.add([Entry("xor", run, nothing(k, 1.0), 0.0, f"worker-{k % 1000}") for k in indices], state)
            number += batch
        seconds = time.perf_counter() - start
    return {"networks": batch, "under_way": under_way, "networks_per_second": round(number / seconds)}


def sealed(count):
    """Networks per second that sealing gets through, measuring them included, one thread."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        spec = Spec((("xor", count),), 0, RECIPE)
        journal = Journal.create(folder, spec, {}, [Entry("xor", 1, nothing(k, 1.0), 0.0) for k in range(count)], {1: {}})
        start = time.perf_counter()
        sealing.seal(folder, journal, 1)
        return round(count / (time.perf_counter() - start))


def training(make_pool, count):
    """The share of the workers' time that is training, with real networks that are kept in a journal."""
    pool = make_pool()
    spec = Spec((("xor", count), ("eightbit", count // 4)), 0, RECIPE)
    units = [Unit(Setting(task, 0, RECIPE), "cpu", 0, number) for task, number in spec.tasks]
    spans, seconds = {}, 0.0
    with tempfile.TemporaryDirectory(dir=".") as folder, closing(Journal.create(Path(folder), spec, {}, [], {})) as journal:
        run, supervisor = journal.start_run({}), Supervisor(units, pool, timed)
        try:
            for batch in supervisor.run():
                entries = [Entry(d.unit.task, run, o, time.time(), d.worker) for d in batch for o in d.outcomes]
                if entries:
                    journal.add(entries, RunState(run, pool.workers, 1.0, supervisor.under_way(), []))
                for done in batch:
                    begun, ended = json.loads(done.outcomes[0].reason)
                    first, last = spans.get(done.worker, (begun, ended))
                    spans[done.worker] = min(first, begun), max(last, ended)
                    seconds += sum(outcome.seconds for outcome in done.outcomes)
        finally:
            pool.end()
    span = sum(last - first for first, last in spans.values())
    return {"workers": len(spans), "networks": spec.networks, "seconds": round(span, 1), "share": round(seconds / span, 4)}


def main():
    backends.load("cpu").prepare(RECIPE.architecture)
    with cluster() as address:
        makers = pools(address)
        found = {
            "machine": machine.describe(),
            "distributed": distributed.__version__,
            "date": time.strftime("%Y-%m-%d"),
            "units_of_one": {name: carried(make, one_network) for name, make in makers.items()},
            "units_of_many": {name: carried(make, many_networks) for name, make in makers.items()},
            "journal": [kept(batch, under_way) for batch, under_way in ((1, 0), (100, 0), (1000, 0), (1000, 2000))],
            "sealing_networks_per_second": sealed(400),
            "training": {name: training(make, 30) for name, make in makers.items() if name != "this process"},
        }
    text = json.dumps(found, indent=1) + "\n"
    print(text, end="")
    if len(sys.argv) > 1:
        Path(sys.argv[1]).write_text(text)


if __name__ == "__main__":
    main()
