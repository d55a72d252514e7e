"""Pools of workers: this process, processes of this machine, threads, or any other `Executor` (for Dask see `clusters`).

A pool is handed units, and says which worker has begun with which. What a worker gives back carries its name.
"""

import math
import os
import queue
import signal
import time
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import count, islice
from typing import Any

from tinymlds.errors import TinymldsError
from tinymlds.runs.spawning import UNGUARDED, WorkerContext, importable_script, stop_if_imported, unguarded
from tinymlds.runs.units import (
    COMPATIBILITY,
    TOLD,
    Done,
    begin_worker,
    name_of,
    work_elsewhere,
    work_here,
    work_in_process,
)
from tinymlds.spec import Recipe

MOST_FAILED_STARTS = 3
MOST_BREAKS = 20
LEAST_SECONDS = 600.0
"""Least deadline of a unit; it covers the start of its worker, which may have to compile."""
_SECONDS_TO_NOTICE = 3.0


class WorkerDiedError(Exception):
    """The worker of this call died; those of other calls live."""


class LostError(Exception):
    """The call is lost, and neither it nor a worker is to blame: it is to be handed out again."""


class Pool(ABC):
    """The workers that a supervisor hands units to."""

    workers: int
    """Number of calls that the workers that are there now work on at the same time."""

    @property
    def seconds_per_unit(self) -> float:
        """Seconds that a unit should take."""
        return 1.0

    @property
    def places(self) -> int:
        """Number of calls that may be handed out, some of them waiting so that no worker has to; 0 if nobody is there."""
        return self.workers + 1

    @abstractmethod
    def hand_out(self, work: Callable[[Any], Any], unit: Any) -> Future[Done]:
        """Hand a unit to a worker.

        BrokenExecutor: the pool is broken; LostError: it cannot be reached at the moment; TinymldsError: it is closed.
        """

    def begun(self) -> dict[Future[Done], str]:
        """Return calls that a worker has begun, and its name or "": at least those since the last call of this method."""
        return {}

    def wait_for_start(self) -> None:
        """Wait until a worker is ready, if workers start with the pool; TinymldsError: none gets that far."""

    def tend(self) -> None:
        """Maintain the pool; called about twice a second."""

    def end_workers(self, late: Collection[Future[Done]]) -> Collection[Future[Done]]:
        """End the workers of these calls, as far as that is possible. Returns all calls that have ended with them."""
        return ()

    def restart(self) -> None:
        """Replace a broken pool; TinymldsError: it cannot be replaced."""

    def end(self) -> None:
        """End all workers that came with the pool, now."""


class InProcess(Pool):
    """No workers: each call runs at once in this process (`--workers 1`)."""

    workers = places = 1

    def hand_out(self, work: Callable[[Any], Any], unit: Any) -> Future[Done]:
        return self.submit(work_here, work, unit)

    def submit(self, work: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run the call and return a finished future; an interruption goes straight to the caller."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:
            future.set_exception(error)
        return future


class ProcessPool(Pool):
    """A process pool that can be ended at once, whatever its workers are doing, and started again.

    Workers wait on a pipe whose other end only this process holds: when it is closed, or this process dies, they exit. Into
    another they write which call they begin: a few bytes at once, so that no lock is needed that one that dies might keep.
    """

    def __init__(self, workers: int, backend_name: str, recipe: Recipe) -> None:
        stop_if_imported()
        self.workers = workers
        self._arguments = (backend_name, recipe)
        self._futures: weakref.WeakSet[Future[Any]] = weakref.WeakSet()
        self._tickets = count()
        self._calls: weakref.WeakValueDictionary[int, Future[Done]] = weakref.WeakValueDictionary()
        self._start()

    def _start(self) -> None:
        context = WorkerContext()
        reader, self._writer = context.Pipe(duplex=False)
        self._begun, tell = context.Pipe(duplex=False)
        self.executor = ProcessPoolExecutor(
            self.workers, mp_context=context, initializer=begin_worker, initargs=(reader, tell, *self._arguments)
        )
        self._for_workers = reader, tell  # kept open: a worker gets its own copies when it starts, at any time
        self._calls.clear()
        self._answered = False
        self._dead_since = math.inf

    def restart(self) -> None:
        self.end()
        self._start()

    def hand_out(self, work: Callable[[Any], Any], unit: Any) -> Future[Done]:
        ticket = next(self._tickets)
        self._calls[ticket] = future = self.submit(work_in_process, ticket, work, unit)
        return future

    def begun(self) -> dict[Future[Done], str]:
        """Calls begin in the order in which they were handed out, so the first count even if no worker has said so."""
        first = (future for future in list(self._calls.values()) if not future.done())
        found = dict.fromkeys(islice(first, self.workers), "")
        while self._begun.poll():
            process, ticket = TOLD.unpack(self._begun.recv_bytes())
            if (future := self._calls.get(ticket)) is not None:
                found[future] = name_of(process)
        return found

    def end_workers(self, late: Collection[Future[Done]]) -> Collection[Future[Done]]:
        ended = list(self._calls.values())
        self.restart()
        return ended

    def submit(self, work: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Hand out a call. This may start a worker, and a worker must not hear Ctrl-C even while it is being started."""
        with importable_script():
            if not hasattr(signal, "pthread_sigmask"):
                future = self.executor.submit(work, *args)
            else:
                before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a new process inherits the mask
                try:
                    future = self.executor.submit(work, *args)
                finally:
                    signal.pthread_sigmask(signal.SIG_SETMASK, before)
        self._futures.add(future)
        return future

    def wait_for_start(self) -> None:
        """Wait for the first answer, so that what goes wrong from then on is some unit's doing."""
        failed = killed = 0
        while not self._answered:
            processes: list[Any] = []
            try:
                first = self.submit(os.getpid)
                processes = self._processes()
                self._answered = bool(first.result(LEAST_SECONDS))
            except TimeoutError:
                failed += 1
                self.restart()
            except BrokenProcessPool:
                self.restart()
                if any(process.exitcode == UNGUARDED for process in processes):
                    raise unguarded() from None
                by_itself = any(process.exitcode == 1 for process in processes)  # as `begin_worker` and Python end it
                failed, killed = failed + by_itself, killed + (not by_itself)
            if failed == MOST_FAILED_STARTS or killed == MOST_BREAKS:
                raise TinymldsError("no worker can start (see above); finished networks are safe")

    def tend(self) -> None:
        """Break the pool if a worker has died and the executor has not noticed for some seconds.

        A worker may die in the middle of a result. Then the executor waits for the rest of it, which cannot come, on a pipe
        that does not end, as other processes can write to it too; and its dead owner keeps the lock on that pipe.
        """
        now = time.monotonic()
        if self.executor._broken or all(process.is_alive() for process in self._processes()):
            self._dead_since = math.inf
        elif now - self._dead_since > _SECONDS_TO_NOTICE:
            _break(self._processes(), self.executor._result_queue)
        else:
            self._dead_since = min(self._dead_since, now)

    def _processes(self) -> list[Any]:
        return list((self.executor._processes or {}).values())

    def end(self) -> None:
        """End all workers now."""
        free_locks(self._futures)
        for end in (self._writer, self._begun, *self._for_workers):
            end.close()
        executor = self.executor
        manager: Any = executor._executor_manager_thread  # a thread, whatever the stubs say
        processes, results = self._processes(), executor._result_queue
        executor.shutdown(wait=False, cancel_futures=True)
        if manager is not None:
            manager.join(_SECONDS_TO_NOTICE)
            if manager.is_alive():  # a worker has ended in the middle of a result; see `tend`
                _break(processes, results)
                manager.join()


def free_locks(futures: Iterable[Future[Any]]) -> None:
    """Free the locks of futures that an interruption left taken by this thread.

    Ctrl-C raises wherever the main thread is: also right after it has taken a future's lock, before the `with` that would
    free it has begun. The executor needs the lock to say what became of the call, and would wait for it for ever.
    """
    for future in list(futures):
        condition: Any = future._condition
        while condition._is_owned():
            condition.release()


class ExecutorPool(Pool):
    """Any `Executor`; threads among others.

    Of others than threads it is not known which calls have begun, nor can their workers be ended: a call that hangs hangs.
    """

    def __init__(self, executor: Executor, workers: int, *, ours: bool = False) -> None:
        self.executor, self.workers = executor, workers
        self._ours = ours
        self._tickets = count()
        self._calls: weakref.WeakValueDictionary[int, Future[Done]] = weakref.WeakValueDictionary()
        self._told: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()

    def hand_out(self, work: Callable[[Any], Any], unit: Any) -> Future[Done]:
        ticket = next(self._tickets)
        try:
            tell = [lambda name: self._told.put((ticket, name))] if isinstance(self.executor, ThreadPoolExecutor) else []
            future = self.executor.submit(work_elsewhere, COMPATIBILITY, work, unit, *tell)
        except BrokenExecutor:
            raise
        except RuntimeError as error:
            raise TinymldsError(f"the executor takes no calls ({error}); finished networks are safe") from error
        self._calls[ticket] = future
        return future

    def begun(self) -> dict[Future[Done], str]:
        found = {}
        while not self._told.empty():
            ticket, name = self._told.get()
            if (future := self._calls.get(ticket)) is not None:
                found[future] = name
        return found

    def restart(self) -> None:
        raise TinymldsError("the executor is broken: a worker of it died; finished networks are safe, run it again")

    def end(self) -> None:
        """Take back what has not begun. Threads end with the unit that they are at; somebody else's executor goes on."""
        futures = list(self._calls.values())
        free_locks(futures)
        for future in futures:
            future.cancel()
        if self._ours:
            self.executor.shutdown(wait=False, cancel_futures=True)


def make_pool(workers: int, backend_name: str, recipe: Recipe) -> ProcessPool | InProcess:
    """Return a pool of processes, or this process alone if there is one worker."""
    return ProcessPool(workers, backend_name, recipe) if workers > 1 else InProcess()


def _break(processes: list[Any], results: Any) -> None:
    """Kill all workers and close our own end of the pipe of results, so that whoever reads from it is told of its end."""
    for process in processes:
        process.kill()
    results._writer.close()
