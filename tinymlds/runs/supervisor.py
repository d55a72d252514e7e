"""Runs units on a pool of workers and survives what happens to them.

Running a unit twice gives the same networks, so one whose worker died is simply run again. A unit that keeps killing its
workers is singled out: after its second death it runs alone, so that a third one is certainly its own doing, and it is
handed back as quarantined. A unit that takes far too long (`Deadlines`) has its worker killed where a pool can do that,
and that is a death too.
"""

import heapq
import math
import queue
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tinymlds.dataset.activity import Death, UnderWay
from tinymlds.errors import TinymldsError
from tinymlds.runs.pools import LEAST_SECONDS, MOST_BREAKS, LostError, Pool, WorkerDiedError
from tinymlds.runs.units import Done, Unit, check_outcomes, train_unit
from tinymlds.spec import Recipe
from tinymlds.training.loop import Outcome

DEATHS_UNTIL_QUARANTINE = 3
_LARGEST_UNIT = 64
_SECONDS_BETWEEN_LOOKS = 0.5

_TIMES_SLOWER = 10
_NUMBERS_PER_SECOND = 1e8
"""Weights times sequences times steps that an epoch gets through in a second at worst, as long as nothing else is known;
with the default recipe a desktop computer from 2020 gets through 5e10."""
_LONGEST_PAUSE = 60.0


class Deadlines:
    """Computes the time after which the worker of a unit counts as hung, from the slowest epoch of this run so far.

    A network that trains must never be taken for one that hangs, as it would take as long the next time and so never be
    made. So the bound is what its unit takes if every network of it trains to the epoch cap, ten times as slowly as the
    slowest network of this run; and never less than ten minutes.
    """

    def __init__(self, least_seconds: float = LEAST_SECONDS) -> None:
        self._least = least_seconds
        self._slowest = 0.0

    def add(self, outcome: Outcome) -> None:
        """Learn from a finished network."""
        self._slowest = max(self._slowest, outcome.seconds / max(1, outcome.epochs))

    def seconds(self, recipe: Recipe, networks: int) -> float:
        """Return the deadline of so many networks of a recipe, in whole seconds."""
        untried = recipe.architecture.size * recipe.train_sequences * recipe.steps / _NUMBERS_PER_SECOND
        epoch = _TIMES_SLOWER * self._slowest or untried
        return float(math.ceil(max(self._least, epoch * recipe.max_epochs * networks)))


class Watch:
    """A clock that counts a pause between two looks at it as one minute at most.

    So a run that was stopped, or a computer that slept, does not make every unit late.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last = now()
        self._seconds = 0.0

    def look(self) -> float:
        """Return the seconds counted until now."""
        now = self._now()
        self._seconds += min(now - self._last, _LONGEST_PAUSE)
        self._last = now
        return self._seconds


class _Queue:
    """A queue of runs of indices, lowest index first, so that all tasks advance together; suspects come last."""

    def __init__(self, units: Iterable[Unit]) -> None:
        self._heap: list[tuple[int, float, int, Unit]] = []
        self._added = 0
        self._place: Callable[[Unit], float] = lambda unit: unit.start
        self.networks = 0
        """Number of networks in all units."""
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
        self.networks += len(unit.indices)
        heapq.heappush(self._heap, (unit.deaths, self._place(unit), self._added, unit))

    def __iter__(self) -> Iterator[Unit]:
        return (entry[-1] for entry in self._heap)

    def order_by(self, place: Callable[[Unit], float]) -> None:
        """Order the queue by `place(unit)` from now on, lowest first; suspects still come last."""
        self._place = place
        self._heap = [(deaths, place(unit), added, unit) for deaths, _, added, unit in self._heap]
        heapq.heapify(self._heap)

    def take(self, size: Callable[[Unit], int]) -> Unit:
        """Take the first `size(unit)` indices of the first unit; a unit with a death to its name is taken whole."""
        unit = heapq.heappop(self._heap)[-1]
        self.networks -= len(unit.indices)
        stop = unit.stop if unit.deaths else min(unit.stop, unit.start + size(unit) * unit.step)
        if stop < unit.stop:
            self.add(replace(unit, start=stop))
        return replace(unit, stop=stop)


class Finished(NamedTuple):
    """A unit that has been worked on."""

    unit: Unit
    outcomes: list[Outcome]
    worker: str


@dataclass
class _Call:
    unit: Unit
    handed_out: float
    """Unix time at which it was handed out."""
    worker: str = ""
    begun: float = 0.0
    """Unix time at which a worker began; 0 if none has."""
    since: float = math.inf
    """The time at which a worker began, by the supervisor's `Watch`; infinite if none has."""


@dataclass
class Supervisor:
    """Keeps a pool busy with units until all are done or quarantined."""

    units: Iterable[Unit]
    """Runs of indices, cut into units as they are handed out."""
    pool: Pool
    work: Callable[[Unit], list[Outcome]] = train_unit
    """The function that a worker calls with a unit."""
    least_seconds: float = LEAST_SECONDS
    """Least deadline of a unit."""
    quarantined: list[Unit] = field(default_factory=list)
    deaths: list[Death] = field(default_factory=list)
    """Deaths of workers that were noticed; whoever records them elsewhere may empty the list."""

    def __post_init__(self) -> None:
        self._pending = _Queue(self.units)
        self._running: dict[Future[Done], _Call] = {}
        self._ended: queue.SimpleQueue[Future[Done]] = queue.SimpleQueue()
        self._watch, self._deadlines = Watch(), Deadlines(self.least_seconds)
        self._seconds_per_network: dict[str, float] = {}
        self._breaks = 0
        self._look_again_at = math.inf
        self._error: BaseException | None = None

    def under_way(self) -> list[UnderWay]:
        """Return the units that have been handed out and not finished."""
        calls = self._running.values()
        return [UnderWay(c.unit.task, c.unit.start, c.unit.end, c.worker, c.begun or c.handed_out) for c in calls]

    def run(self) -> Iterator[list[Finished]]:
        """Yield what has finished, about twice a second, also when that is nothing.

        Workers that die again and again and finish nothing, or give back what is no network, are a TinymldsError.
        """
        last, batch = time.monotonic(), []
        while self._pending or self._running:
            self._hand_out()
            batch += self._collect(self._wait(_SECONDS_BETWEEN_LOOKS))
            if self._error is not None:
                yield batch
                raise self._error
            if time.monotonic() - last > _SECONDS_BETWEEN_LOOKS:
                self.pool.tend()
                self._note_begun()
                self._end_overdue()
                yield batch
                last, batch = time.monotonic(), []
        yield batch

    def _wait(self, seconds: float) -> list[Future[Done]]:
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
        while self._pending and self._has_place():
            self._longest_first_at_the_end()
            unit = self._pending.take(self._unit_size)
            try:
                future = self.pool.hand_out(self.work, unit)
            except LostError:
                self._pending.add(unit)
                return
            except BrokenExecutor:
                self._pending.add(unit)
                self._restart()
                continue
            self._running[future] = _Call(unit, time.time())
            future.add_done_callback(self._ended.put)

    def _has_place(self) -> bool:
        """Return whether one more unit may be handed out; a suspect is out alone."""
        if not self._running:
            return self.pool.places > 0
        if self._pending.first.is_suspect or next(iter(self._running.values())).unit.is_suspect:
            return False
        return len(self._running) < self.pool.places

    def _longest_first_at_the_end(self) -> None:
        """Hand out long units first once the rest takes less than two of its slowest networks for each worker.

        Networks whose workers died still come last, as they may take others with them. To look takes a step for each unit,
        and there may be one for each network, so it is done only when a tenth less is left than the last time.
        """
        workers = self.pool.workers
        if workers == 1 or self._pending.networks > self._look_again_at or self._pending.first.deaths:
            return
        self._look_again_at = 0.9 * self._pending.networks
        units = [unit for unit in self._pending if not unit.deaths]
        slowest = max(map(self._seconds, units))
        left = sum(len(unit.indices) * self._seconds(unit) for unit in units)
        if left < 2 * workers * slowest:
            self._pending.order_by(lambda unit: -self._seconds(unit))

    def _seconds(self, unit: Unit) -> float:
        """Return the seconds of a network, by the latest ones of its task; if there are none, those of a whole unit."""
        return self._seconds_per_network.get(unit.task, self.pool.seconds_per_unit)

    def _unit_size(self, unit: Unit) -> int:
        return max(1, min(_LARGEST_UNIT, round(self.pool.seconds_per_unit / max(self._seconds(unit), 1e-3))))

    def _note_begun(self) -> None:
        """Take note of who works on what. A cluster begins a call again, elsewhere, if it has lost the worker."""
        now, watch = time.time(), self._watch.look()
        for future, worker in self.pool.begun().items():
            call = self._running.get(future)
            if call is None:
                continue
            moved = bool(call.worker and worker and worker != call.worker)
            if moved:
                self._note_death(call, "it was lost")
            if moved or call.since == math.inf:
                call.begun, call.since = now, watch
            call.worker = worker or call.worker

    def _collect(self, done: list[Future[Done]]) -> list[Finished]:
        finished, broken = [], False
        for future in done:
            error = CancelledError() if future.cancelled() else future.exception()
            if isinstance(error, BrokenExecutor):
                broken = True
                continue
            call = self._running.pop(future)
            if isinstance(error, LostError | CancelledError):
                self._pending.add(call.unit)
            elif isinstance(error, WorkerDiedError):
                self._blame(call, str(error))
            elif isinstance(error, MemoryError | OSError):  # of one worker, at this moment
                self._count_break()
                self._blame(call, f"{type(error).__name__}: {error}")
            elif error is not None:
                self._error = self._error or error
            else:
                try:
                    finished.append(self._finish(call.unit, future.result()))
                except TinymldsError as wrong:
                    self._error = self._error or wrong
        if broken:
            self._note_begun()
            self._restart()
        return finished

    def _finish(self, unit: Unit, done: Done) -> Finished:
        """Check what a worker gave back, and learn from it how long networks take."""
        worker, outcomes = done
        check_outcomes(unit, outcomes, worker)
        for outcome in outcomes:
            self._deadlines.add(outcome)
        seconds = sum(outcome.seconds for outcome in outcomes) / len(outcomes)
        before = self._seconds_per_network.get(unit.task, seconds)
        self._seconds_per_network[unit.task] = (before + seconds) / 2  # networks of a task differ a lot
        self._breaks = 0
        return Finished(unit, outcomes, worker)

    def _end_overdue(self) -> None:
        """End workers that take too long over a unit; units that end with them are not to blame."""
        now = self._watch.look()
        late = {}
        for future, call in self._running.items():
            seconds = self._deadlines.seconds(call.unit.recipe, len(call.unit.indices))
            if now - call.since > seconds and not future.done():
                late[future] = f"it took longer than {seconds:.0f} s"
        ended = self.pool.end_workers(late) if late else ()
        if ended:
            self._count_break()
        for future in ended:
            if future not in self._running:
                continue
            call = self._running.pop(future)
            if future in late:
                self._blame(call, late[future])
            else:
                self._pending.add(call.unit)

    def _restart(self) -> None:
        """Start a broken pool again, and all units that were out, any of which may have killed the worker that died."""
        self._count_break()
        calls = list(self._running.values())
        self._running.clear()
        for call in calls:
            self._blame(call, "its worker died")
        self.pool.restart()

    def _count_break(self) -> None:
        self._breaks += 1
        if self._breaks > MOST_BREAKS:
            raise TinymldsError(
                "workers die again and again and finish nothing; finished networks are safe, try --workers 1"
            )

    def _blame(self, call: _Call, cause: str) -> None:
        """Queue the networks of a unit one by one, each with one more death; or put one into quarantine."""
        self._note_death(call, cause)
        for again in call.unit.singles(cause):
            if again.deaths >= DEATHS_UNTIL_QUARANTINE:
                self.quarantined.append(again)
            else:
                self._pending.add(again)

    def _note_death(self, call: _Call, cause: str) -> None:
        unit = call.unit
        self.deaths.append(Death(time.time(), unit.task, unit.start, unit.end, call.worker, cause))
