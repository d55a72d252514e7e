"""The code that runs in a worker: check that this process is compatible, do the work, and name the worker."""

import os
import signal
import socket
import struct
import sys
import threading
from collections.abc import Callable
from multiprocessing import connection, parent_process
from typing import Any, NamedTuple

from tinymlds import __version__
from tinymlds.errors import TinymldsError
from tinymlds.kernels import NUMERICS
from tinymlds.kernels.problem import check_arithmetic
from tinymlds.spec import Recipe
from tinymlds.training import backends


class Done(NamedTuple):
    """The result of a worker."""

    worker: str
    """Name of the worker: host and process, the thread if there are several, or the name in a cluster."""
    result: Any


TOLD = struct.Struct("<qq")
"""The message of a worker that begins a call: its process and the ticket of the call."""

_tell: connection.Connection
"""The pipe for these messages; set when the worker starts."""


def name_of(process: int) -> str:
    """Return the name of a process of this host."""
    return f"{socket.gethostname()}:{process}"


def work_here(work: Callable[[Any], Any], unit: Any) -> Done:
    """Do the work in this process."""
    return Done(name_of(os.getpid()), work(unit))


def work_in_process(ticket: int, work: Callable[[Any], Any], unit: Any) -> Done:
    """Do the work in a process of our own pool, and tell the parent that it has begun."""
    _tell.send_bytes(TOLD.pack(os.getpid(), ticket))
    return work_here(work, unit)


class Compatibility(NamedTuple):
    """The properties that all processes must share that make networks of one dataset."""

    version: str
    """The version of tinymlds."""
    numerics: int


COMPATIBILITY = Compatibility(__version__, NUMERICS)


def check_compatibility(asked: Compatibility, worker: str) -> None:
    """Make sure that this process makes the networks that are asked for.

    Raises:
        TinymldsError: it is another version, or does not do IEEE arithmetic.
    """
    if asked != COMPATIBILITY:
        have, want = (f"tinymlds {each.version} with numerics {each.numerics}" for each in (COMPATIBILITY, asked))
        raise TinymldsError(f"worker {worker} has {have}, and this is {want}; install the same there")
    try:
        check_arithmetic()
    except ArithmeticError as error:
        raise TinymldsError(f"worker {worker} cannot be used: {error}") from error


def work_elsewhere(
    asked: Compatibility, work: Callable[[Any], Any], unit: Any, begin: Callable[[str], None] = lambda _name: None
) -> Done:
    """Do the work in the process or thread in which an executor runs this; `begin` is called with the worker's name."""
    thread = threading.current_thread()
    name = name_of(os.getpid()) + ("" if thread is threading.main_thread() else f":{thread.name}")
    check_compatibility(asked, name)
    begin(name)
    return Done(name, work(unit))


def begin_worker(stop: connection.Connection, tell: connection.Connection, backend_name: str, recipe: Recipe) -> None:
    """Set up a worker: the parent alone answers Ctrl-C; compiled kernels are loaded before the first unit is."""
    global _tell
    _tell = tell
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    watched: list[Any] = [stop] if parent is None else [stop, parent.sentinel]

    def exit_with_parent() -> None:
        connection.wait(watched)
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()
    try:
        backends.load(backend_name).prepare(recipe.architecture, recipe.optimizer)
    except Exception as error:
        print(f"tinymlds: a worker cannot start: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        os._exit(1)
