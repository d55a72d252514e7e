"""The workers of a Dask cluster as a pool. Extra `[dask]`; nothing else imports Dask.

Whoever can reach a Dask scheduler can run code on its workers, and what workers send back is unpickled here: this is for
clusters that one trusts.
"""

import logging
import os
import queue
import re
import sys
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Collection
from concurrent.futures import Future
from functools import partial
from itertools import count
from typing import Any

from tinymlds.errors import TinymldsError, UsageError
from tinymlds.runs.pools import LostError, Pool, WorkerDiedError, free_locks
from tinymlds.runs.units import COMPATIBILITY, Compatibility, Done, check_compatibility

try:
    import distributed
except ImportError:
    distributed = None

for _name in ("batched", "client", "core"):  # what they say of a connection that goes is said here in one line
    logging.getLogger(f"distributed.{_name}").setLevel(logging.CRITICAL)

_SECONDS_TO_CONNECT = 10.0
_SECONDS_TO_TRY_AGAIN = 2.0
_SECONDS_BETWEEN_COUNTS = 2.0
_SECONDS_PER_UNIT = 5.0
_UNITS_PER_SECOND = 50.0
"""Units that a scheduler and a driver on two busy cores handle easily; `bench/cluster.py` measures it."""
_LACKS_US = re.compile("(?:named|module|from) '?tinymlds")
"""Found in Python's messages about a module or a name that is not there."""
_WAITING_PER_WORKER = 1
"""Calls handed out to a worker beside the one that it works on, so that it need not wait for the next."""


class DaskPool(Pool):
    """The workers of a cluster: as many as are there, whichever they are.

    A worker that dies loses its call, and Dask gives it to another one; a call that several workers have died of comes
    back. When the scheduler goes, all calls that were out are lost, and this waits for a scheduler at the same address.
    """

    def __init__(self, scheduler: str) -> None:
        require_address(scheduler)
        self._address = scheduler
        self._calls: dict[str, Future[Done]] = {}
        self._addresses: dict[str, str] = {}
        self._told: queue.SimpleQueue[tuple[str, str, str]] = queue.SimpleQueue()
        self._out: weakref.WeakSet[Future[Done]] = weakref.WeakSet()
        self._name, self._numbers = f"tinymlds-{uuid.uuid4().hex}", count()
        self._said = ""
        try:
            self._link = _Link(scheduler, self._calls, self._told.put, _SECONDS_TO_CONNECT)
        except OSError as error:  # a timeout too
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise TinymldsError(
                f"cannot reach a Dask scheduler at {scheduler} ({why}); is one running? `dask scheduler` starts one"
            ) from error
        except (ValueError, TypeError, RuntimeError) as error:  # no protocol of Dask, or one that needs a certificate
            raise UsageError(f"scheduler cannot be {scheduler!r}: {error}") from error
        self.workers, self._counted = 0, 0.0
        self.tend()

    @property
    def seconds_per_unit(self) -> float:
        """Five seconds, or more if the scheduler would otherwise get too many units a second."""
        return max(_SECONDS_PER_UNIT, self.workers / _UNITS_PER_SECOND)

    @property
    def places(self) -> int:
        """Two places for each thread of a worker; none while the scheduler or the workers are away."""
        return self.workers * (1 + _WAITING_PER_WORKER) if self._link.is_up else 0

    def hand_out(self, work: Callable[[Any], Any], unit: Any) -> Future[Done]:
        key = f"{self._name}-{next(self._numbers)}"
        call: Future[Done] = Future()
        self._out.add(call)
        self._calls[key] = call
        try:
            self._link.submit(key, partial(_work, COMPATIBILITY, self._link.topic, key, work, unit))
        except Exception as error:  # Dask says that the client is closed in several ways
            self._calls.pop(key, None)
            if self._link.is_up:
                raise
            raise LostError(str(error)) from error
        return call

    def begun(self) -> dict[Future[Done], str]:
        found = {}
        while not self._told.empty():
            key, name, address = self._told.get()
            if (call := self._calls.get(key)) is not None:
                self._addresses[key] = address
                found[call] = name
        return found

    def tend(self) -> None:
        """Count the workers, and connect again if the scheduler has gone."""
        if not self._link.is_up:
            self._connect_again()
        elif time.monotonic() - self._counted > _SECONDS_BETWEEN_COUNTS:
            self.workers = self._link.count_threads()
            self._counted = time.monotonic()
            self._addresses = {key: place for key, place in self._addresses.items() if key in self._calls}
            self._say("" if self.workers else f"no workers at {self._address} yet; waiting for them")

    def _connect_again(self) -> None:
        self.workers = 0
        self._say(f"the Dask scheduler at {self._address} has gone; waiting for one there")
        self._link.end()
        for key in list(self._calls):
            if (call := self._calls.pop(key, None)) is not None:
                call.set_exception(LostError("the scheduler has gone"))
        try:
            self._link = _Link(self._address, self._calls, self._told.put, _SECONDS_TO_TRY_AGAIN)
        except OSError:
            return
        self._counted = 0.0

    def _say(self, what: str) -> None:
        """Print a message, but not the same one twice in a row."""
        if what and what != self._said:
            print(f"tinymlds: {what}", file=sys.stderr, flush=True)
        self._said = what

    def end_workers(self, late: Collection[Future[Done]]) -> Collection[Future[Done]]:
        """End the processes of these calls; Dask gives the work of their other threads to other workers."""
        keys = [key for key, call in list(self._calls.items()) if call in late]
        for key in keys:
            self._calls.pop(key, None)
        self._link.drop(keys, {self._addresses[key] for key in keys if key in self._addresses})
        return late

    def end(self) -> None:
        """Cancel everything, and leave the workers to their cluster. They finish the unit that they work on."""
        free_locks(self._out)
        self._calls.clear()
        self._link.end()


class _Link:
    """A connection to a scheduler, with what is out on it; once broken it stays so."""

    def __init__(
        self, address: str, calls: dict[str, Future[Done]], tell: Callable[[tuple[str, str, str]], None], seconds: float
    ) -> None:
        self.topic = f"tinymlds-{uuid.uuid4().hex}"
        self._calls = calls
        self._futures: dict[str, Any] = {}
        self._broken = False
        self._client = distributed.Client(address, timeout=seconds, set_as_default=False, name="tinymlds")
        self._client.subscribe_topic(self.topic, lambda event: tell(tuple(event[1])))
        self._ended: queue.SimpleQueue[Any] = queue.SimpleQueue()
        threading.Thread(target=self._collect, daemon=True, name="tinymlds-dask").start()

    @property
    def is_up(self) -> bool:
        return not self._broken and self._client.status == "running"

    def submit(self, key: str, call: Callable[[], Done]) -> None:
        self._futures[key] = future = self._client.submit(call, key=key, pure=False)
        future.add_done_callback(self._ended.put)

    def count_threads(self) -> int:
        """Count the threads of all workers; 0 if the scheduler does not answer."""
        try:
            threads = self._client.sync(self._client.scheduler.ncores, workers=None, callback_timeout=_SECONDS_TO_CONNECT)
            return sum(threads.values())
        except (OSError, TimeoutError, distributed.CommClosedError):
            return 0

    def drop(self, keys: list[str], addresses: set[str]) -> None:
        """Take calls back, and end the processes of workers."""
        futures = [future for key in keys if (future := self._futures.pop(key, None)) is not None]
        try:
            self._client.cancel(futures, force=True)
            end = partial(self._client.run, _leave, workers=list(addresses), on_error="ignore", asynchronous=True)
            self._client.loop.add_callback(end)  # not waited for, as a process that hangs does not answer
        except Exception:  # the scheduler has gone, so that there is nobody to tell
            self._broken = True

    def end(self) -> None:
        """Forget everything that is out; this waits some seconds for the scheduler at most."""
        self._broken = True
        self._ended.put(None)
        self._futures.clear()
        self._client.close(timeout=_SECONDS_TO_TRY_AGAIN)

    def _collect(self) -> None:
        """Fetch results, many at once, and pass them on; in a thread of its own."""
        while not self._broken:
            futures = [self._ended.get()]
            while not self._ended.empty():
                futures.append(self._ended.get())
            try:
                self._pass_on({future.key: future for future in futures if future is not None})
            except Exception:  # the connection: whatever is out on it is lost, see `DaskPool.tend`
                self._broken = True

    def _pass_on(self, futures: dict[str, Any]) -> None:
        finished = {key: future for key, future in futures.items() if future.status == "finished"}
        results = self._client.gather(finished, errors="skip") if finished else {}
        for key, future in futures.items():
            result: Any = results.get(key)
            if result is None and future.status in ("pending", "lost"):  # its worker has gone with it; Dask makes it again
                future.add_done_callback(self._ended.put)
                continue
            error = None if result is not None else _error_of(future)
            self._futures.pop(key, None)
            if (call := self._calls.pop(key, None)) is None:
                continue  # it was taken back
            if error is None:
                call.set_result(result)
            else:
                self._broken |= isinstance(error, LostError)
                call.set_exception(error)


def _error_of(future: Any) -> BaseException:
    if future.status != "error":
        return LostError(f"Dask calls it {future.status}")
    error = future.exception()
    if isinstance(error, distributed.KilledWorker):
        times = error.allowed_failures + 1
        return WorkerDiedError("its worker died" if times == 1 else f"{times} workers died, one after the other")
    if isinstance(error, TinymldsError):
        return error
    if isinstance(error, RuntimeError | ImportError | AttributeError) and _LACKS_US.search(f"{error} {error.__cause__}"):
        why = error.__cause__ or error
        return TinymldsError(
            f"the cluster cannot run tinymlds ({why}); install {COMPATIBILITY.version} on its scheduler and workers"
        )
    return error if isinstance(error, Exception) else TinymldsError(f"a worker failed: {error!r}")


def require_address(scheduler: str) -> None:
    """Make sure that Dask is installed and this can be the address of a scheduler; else raise UsageError."""
    if distributed is None:
        raise UsageError("executor dask needs Dask: pip install 'tinymlds[dask]'")
    if not re.fullmatch(r"([a-z]+://)?[^\s/]+:\d+", scheduler) and not scheduler.startswith("inproc://"):
        raise UsageError(f"scheduler must be an address like tcp://HOST:PORT, not {scheduler!r}")


# ------------------------------------------------------------------ on a worker


def _work(asked: Compatibility, topic: str, key: str, work: Callable[[Any], Any], unit: Any) -> Done:
    """Do the work on a worker of the cluster, and tell the client that it has begun."""
    worker = distributed.get_worker()
    name = str(worker.name)
    check_compatibility(asked, name)
    worker.log_event(topic, (key, name, worker.address))
    return Done(name, work(unit))


def _leave() -> None:
    os._exit(1)
