"""How workers start beside a user's script: each imports it first, so the script must not train while that happens."""

import contextlib
import os
import sys
from collections.abc import Iterator
from multiprocessing import current_process
from multiprocessing.context import SpawnContext, SpawnProcess
from pathlib import Path

from tinymlds.errors import UsageError

UNGUARDED = 17
"""Exit code of a worker whose import of the main script came upon a call that trains."""
_MESSAGE = (
    "training starts processes, and each of them imports this script: put the call, and what follows it, under "
    'if __name__ == "__main__": (or ask for workers=1, or executor="threads")'
)


class Worker(SpawnProcess):
    """A worker of ours; a process has its name, which follows from the class, before it imports the main script."""


class WorkerContext(SpawnContext):
    """Starts workers; a process pool takes it as its `mp_context`."""

    Process = Worker


def stop_if_imported() -> None:
    """Stop if this call stands in a script that a new process is importing.

    A worker of ours ends without a word, as its parent says it once (`unguarded`). Others get the UsageError.
    """
    process = current_process()
    if getattr(process, "_inheriting", False):  # set by multiprocessing until the main script is imported
        if process.name.startswith(Worker.__name__):
            os._exit(UNGUARDED)
        raise unguarded()


def unguarded() -> UsageError:
    """Return the error that says what a script needs."""
    return UsageError(_MESSAGE)


@contextlib.contextmanager
def importable_script() -> Iterator[None]:
    """Let workers that start meanwhile import the main script only if there is a file: one read from stdin has none."""
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or Path(file).exists():
        yield
        return
    del main.__file__
    try:
        yield
    finally:
        main.__file__ = file
