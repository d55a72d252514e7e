"""Runs units on a pool of processes and survives what happens to them.

A unit is a small block of indices of one task; running it twice gives the same networks, so a unit whose worker died is
simply run again. A unit that keeps killing its workers is singled out: after its second death it runs alone, so that a
third one is certainly its own doing, and it is handed back as quarantined. A unit that takes far too long (`deadlines`)
has its worker killed, and that is a death too.
"""

import heapq
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace

from tinymlds.deadlines import LEAST_SECONDS, Deadlines, Watch
from tinymlds.errors import TinymldsError
from tinymlds.kernels import backend
from tinymlds.pools import MOST_BREAKS, Pool
from tinymlds.spec import Recipe
from tinymlds.training import Outcome, train_networks

DEATHS_UNTIL_ALONE = 2
DEATHS_UNTIL_QUARANTINE = 3
_SECONDS_PER_UNIT = 1.0
_LARGEST_UNIT = 64


@dataclass(frozen=True)
class Unit:
    """Networks `start` ... `stop` - 1 of a task, or every `step`-th of them, and what a worker needs to make them."""

    task: str
    seed: int
    recipe: Recipe
    backend: str
    start: int
    stop: int
    checkpoints: tuple[int, ...] = ()
    causes: tuple[str, ...] = ()
    """Of each death of a worker that this unit may have brought about."""
    step: int = 1

    @property
    def indices(self) -> range:
        """Of its networks."""
        return range(self.start, self.stop, self.step)

    @property
    def deaths(self) -> int:
        """How many of them there are."""
        return len(self.causes)

    @property
    def reason(self) -> str:
        """Why it is quarantined."""
        first = self.causes[0]
        return f"{first} ({self.deaths} times)" if set(self.causes) == {first} else "; ".join(self.causes)

    def singles(self, cause: str) -> list["Unit"]:
        """The same networks as units of one, each with one more death to its name."""
        causes = (*self.causes, cause)
        return [replace(self, start=k, stop=k + 1, causes=causes) for k in self.indices]


def train_unit(unit: Unit) -> list[Outcome]:
    """Train the networks of a unit. Runs in a worker."""
    target = backend.load(unit.backend)
    return list(train_networks(target, unit.task, unit.seed, unit.recipe, unit.indices, unit.checkpoints))


class _Queue:
    """Runs of indices, the one with the lowest index first, so that all tasks advance together; suspects come last."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._heap: list[tuple[int, int, int, Unit]] = []
        self._added = 0
        for unit in units:
            self.add(unit)

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first(self) -> Unit:
        """The unit that `take` would take."""
        return self._heap[0][-1]

    def add(self, unit: Unit) -> None:
        """Put a unit in its place; among equals, the one that was added first comes first."""
        self._added += 1
        heapq.heappush(self._heap, (unit.deaths, unit.start, self._added, unit))

    def __iter__(self) -> Iterator[Unit]:
        """All units, in no order."""
        return (entry[-1] for entry in self._heap)

    def put_first(self, unit: Unit) -> None:
        """Have this unit, which is in the queue, taken next."""
        [place] = [k for k, entry in enumerate(self._heap) if entry[-1] is unit]
        self._heap[place] = (unit.deaths, -1, 0, unit)
        heapq.heapify(self._heap)

    def take(self, size: Callable[[Unit], int]) -> Unit:
        """Take the first `size(unit)` indices of the first unit; a unit with a death to its name is taken whole."""
        unit = heapq.heappop(self._heap)[-1]
        stop = unit.stop if unit.deaths else min(unit.stop, unit.start + size(unit) * unit.step)
        if stop < unit.stop:
            self.add(replace(unit, start=stop))
        return replace(unit, stop=stop)


@dataclass
class Supervisor:
    """Keeps a pool busy with units until all are done or quarantined."""

    units: Iterable[Unit]
    """Runs of indices, cut into units as they are handed out."""
    pool: Pool
    workers: int
    work: Callable[[Unit], list[Outcome]] = train_unit
    """What a worker does with a unit."""
    least_seconds: float = LEAST_SECONDS
    """What a unit may take in any case before its worker counts as hung."""
    quarantined: list[Unit] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._pending = _Queue(self.units)
        self._running: dict[Future[list[Outcome]], Unit] = {}
        self._since: dict[Future[list[Outcome]], float] = {}
        self._ended: queue.SimpleQueue[Future[list[Outcome]]] = queue.SimpleQueue()
        self._watch, self._deadlines = Watch(), Deadlines(self.least_seconds)
        self._seconds_per_network: dict[str, float] = {}
        self._breaks = 0

    def run(self) -> Iterator[list[tuple[Unit, list[Outcome]]]]:
        """Yield what has finished, about once a second, also when that is nothing.

        Raises:
            TinymldsError: workers die again and again without finishing anything.
        """
        last, batch = time.monotonic(), []
        while self._pending or self._running:
            self._hand_out()
            done = self._wait(0.5)
            if not done:
                self.pool.notice_deaths()
            batch += self._collect(done)
            self._end_overdue()
            if time.monotonic() - last > 0.5:
                yield batch
                last, batch = time.monotonic(), []
        yield batch

    def _wait(self, seconds: float) -> list[Future[list[Outcome]]]:
        """The calls that have ended; waits for the first. It takes no lock that an interruption might keep."""
        done = []
        try:
            done.append(self._ended.get(timeout=seconds))
            while True:
                done.append(self._ended.get_nowait())
        except queue.Empty:
            return [future for future in done if future in self._running]

    def _hand_out(self) -> None:
        self.pool.wait_for_start()
        while self._pending and len(self._running) < self._places():
            self._longest_first_at_the_end()
            unit = self._pending.take(self._unit_size)
            try:
                future = self.pool.submit(self.work, unit)
            except BrokenProcessPool:
                self._pending.add(unit)
                self._restart(self._all_died())
                continue
            self._running[future] = unit
            future.add_done_callback(self._ended.put)

    def _longest_first_at_the_end(self) -> None:
        """So that no worker idles: when all that is left takes less than two of its slowest networks for each worker.

        Networks whose workers died still come last, as they may take others with them.
        """
        if self.workers == 1 or self._pending.first.deaths:
            return
        units = [unit for unit in self._pending if not unit.deaths]
        slowest = max(units, key=self._seconds)
        left = sum(len(unit.indices) * self._seconds(unit) for unit in units)
        if left < 2 * self.workers * self._seconds(slowest):
            self._pending.put_first(slowest)

    def _seconds(self, unit: Unit) -> float:
        """What a network of the unit takes, by the latest ones of its task; if there are none, what a unit should."""
        return self._seconds_per_network.get(unit.task, _SECONDS_PER_UNIT)

    def _places(self) -> int:
        """How many units may be out at once: one a worker and one waiting, or a single one that is under suspicion."""
        suspicious = any(unit.deaths >= DEATHS_UNTIL_ALONE for unit in (self._pending.first, *self._running.values()))
        return 1 if suspicious else self.workers + 1 if self.workers > 1 else 1

    def _unit_size(self, unit: Unit) -> int:
        """Networks that take about a second."""
        return max(1, min(_LARGEST_UNIT, round(_SECONDS_PER_UNIT / max(self._seconds(unit), 1e-3))))

    def _collect(self, done: list[Future[list[Outcome]]]) -> list[tuple[Unit, list[Outcome]]]:
        finished, broken = [], False
        for future in done:
            unit = self._running[future]
            error = future.exception()
            if isinstance(error, BrokenProcessPool):
                broken = True
                continue
            del self._running[future]
            if error is not None:
                raise error
            outcomes = future.result()
            for outcome in outcomes:
                self._deadlines.add(outcome)
            seconds = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
            before = self._seconds_per_network.get(unit.task, seconds)
            self._seconds_per_network[unit.task] = (before + seconds) / 2  # networks of a task differ a lot
            self._breaks = 0
            finished.append((unit, outcomes))
        if broken:
            self._restart(self._all_died())
        return finished

    def _end_overdue(self) -> None:
        """Kill the workers if one of them takes too long over its unit; the units of the others are not to blame.

        Units begin in the order in which they were handed out. So those that came first are with workers, and one that
        waited for a worker begins when we see that an earlier one has ended.
        """
        now = self._watch.look()
        self._since = {future: self._since.get(future, now) for future in list(self._running)[: self.workers]}
        causes = {}
        for future, since in self._since.items():
            unit = self._running[future]
            seconds = self._deadlines.seconds(unit.recipe, len(unit.indices))
            if now - since > seconds and not future.done():
                causes[future] = f"it took longer than {seconds:.0f} s"
        if causes:
            self._restart(causes)

    def _all_died(self) -> dict[Future[list[Outcome]], str]:
        """Of the units that were out, any may have killed the worker that died."""
        return dict.fromkeys(self._running, "its worker died")

    def _restart(self, causes: dict[Future[list[Outcome]], str]) -> None:
        """Start the pool again, and all units that were out; those with a cause have a death to their name.

        Raises:
            TinymldsError: this goes on and on.
        """
        self._breaks += 1
        if self._breaks > MOST_BREAKS:
            raise TinymldsError(
                "workers die again and again and finish nothing; finished networks are safe, try --workers 1"
            )
        for future, unit in self._running.items():
            for again in unit.singles(causes[future]) if future in causes else [unit]:
                if again.deaths >= DEATHS_UNTIL_QUARANTINE:
                    self.quarantined.append(again)
                else:
                    self._pending.add(again)
        self._running.clear()
        self.pool.restart()
