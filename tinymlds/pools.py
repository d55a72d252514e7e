"""Pools of workers: this process, or processes of this machine that may be ended at any time."""

import math
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Any, Protocol

from tinymlds.deadlines import LEAST_SECONDS
from tinymlds.errors import TinymldsError
from tinymlds.kernels import backend
from tinymlds.spec import Recipe

MOST_FAILED_STARTS = 3
MOST_BREAKS = 20
_SECONDS_TO_NOTICE = 3.0


class Pool(Protocol):
    """What a supervisor needs of its workers."""

    def submit(self, work: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Hand out a call."""
        ...

    def wait_for_start(self) -> None:
        """Wait until a worker is ready."""
        ...

    def notice_deaths(self) -> None:
        """Break the pool if a worker has died unnoticed."""
        ...

    def restart(self) -> None:
        """Replace a broken pool."""
        ...

    def end(self) -> None:
        """End all workers now."""
        ...


class InProcess:
    """No workers: each call runs at once in this process (`--workers 1`)."""

    def submit(self, work: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Run the call and return a finished future; an interruption goes straight to the caller."""
        future: Future[Any] = Future()
        try:
            future.set_result(work(*args))
        except Exception as error:
            future.set_exception(error)
        return future

    def wait_for_start(self) -> None:
        """Nothing to wait for."""

    def notice_deaths(self) -> None:
        """Nobody to die."""

    def restart(self) -> None:
        """Nothing to restart."""

    def end(self) -> None:
        """Nothing to end."""


class ProcessPool:
    """A process pool that can be ended at once, whatever its workers are doing, and started again.

    Workers wait on a pipe whose other end only this process holds: when it is closed, or this process dies, they exit.
    """

    def __init__(self, workers: int, backend_name: str, recipe: Recipe) -> None:
        self.workers = workers
        self._arguments = (backend_name, recipe)
        self._futures: weakref.WeakSet[Future[Any]] = weakref.WeakSet()
        self._start()

    def _start(self) -> None:
        context = get_context("spawn")
        reader, self._writer = context.Pipe(duplex=False)
        self.executor = ProcessPoolExecutor(
            self.workers, mp_context=context, initializer=_begin_worker, initargs=(reader, *self._arguments)
        )
        self._reader = reader  # kept open: a worker gets its own copy when it starts, at any time
        self._answered = False
        self._dead_since = math.inf

    def restart(self) -> None:
        """Replace a broken pool."""
        self.end()
        self._start()

    def submit(self, work: Callable[..., Any], /, *args: Any) -> Future[Any]:
        """Hand out a call. This may start a worker, and a worker must not hear Ctrl-C even while it is being started."""
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
        """Wait until a worker is ready, so that what goes wrong from then on is some unit's doing.

        Raises:
            TinymldsError: no worker gets that far.
        """
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
                by_itself = any(process.exitcode == 1 for process in processes)  # as `_begin_worker` and Python end it
                failed, killed = failed + by_itself, killed + (not by_itself)
            if failed == MOST_FAILED_STARTS or killed == MOST_BREAKS:
                raise TinymldsError("no worker can start (see above); finished networks are safe")

    def notice_deaths(self) -> None:
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
        _free_locks(self._futures)
        self._writer.close()
        self._reader.close()
        executor = self.executor
        manager: Any = executor._executor_manager_thread  # a thread, whatever the stubs say
        processes, results = self._processes(), executor._result_queue
        executor.shutdown(wait=False, cancel_futures=True)
        if manager is not None:
            manager.join(_SECONDS_TO_NOTICE)
            if manager.is_alive():  # a worker has ended in the middle of a result; see `notice_deaths`
                _break(processes, results)
                manager.join()


def _free_locks(futures: Iterable[Future[Any]]) -> None:
    """Free the locks of futures that an interruption left taken by this thread.

    Ctrl-C raises wherever the main thread is: also right after it has taken a future's lock, before the `with` that would
    free it has begun. The executor needs the lock to say what became of the call, and would wait for it for ever.
    """
    for future in list(futures):
        condition: Any = future._condition
        while condition._is_owned():
            condition.release()


def make_pool(workers: int, backend_name: str, recipe: Recipe) -> Pool:
    """So many processes; one worker is this process."""
    return ProcessPool(workers, backend_name, recipe) if workers > 1 else InProcess()


def _break(processes: list[Any], results: Any) -> None:
    """Kill all workers and close our own end of the pipe of results, so that whoever reads from it is told of its end."""
    for process in processes:
        process.kill()
    results._writer.close()


def _begin_worker(stop: connection.Connection, backend_name: str, recipe: Recipe) -> None:
    """Set up a worker: the parent alone answers Ctrl-C; compiled kernels are loaded before the first unit is."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    watched: list[Any] = [stop] if parent is None else [stop, parent.sentinel]

    def exit_with_parent() -> None:
        connection.wait(watched)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    try:
        backend.load(backend_name).prepare(recipe.shape)
    except Exception as error:
        print(f"tinymlds: a worker cannot start: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
