"""Completions that the shell offers at TAB. NumPy and Numba are not imported, so that the answer comes at once."""

import contextlib
import json
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

import typer

MACHINES = ("eightbit", "direct", "invert", "xor", "parity")
DATASETS = ("ds1", "ds2", "ds3")
SHIPPED_TRANSDUCERS = 100

_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
_LONGEST = 1 << 20
"""Bytes of a dataset.json that is looked at; that of a hundred transducers has some 80,000."""


def machines(incomplete: str) -> list[str]:
    """Complete the ids of tasks: machines and their modified twins, transducers once a `t` is typed; and datasets."""
    known = [*DATASETS, *MACHINES, *(f"{machine}_modified" for machine in MACHINES)]
    if incomplete.startswith("t"):
        known += [f"transducer_{number:03d}" for number in range(SHIPPED_TRANSDUCERS)]
    return [task for task in known if task.startswith(incomplete)]


def _one_of(*names: str) -> Callable[[str], list[str]]:
    """Return a completion for these names."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


datasets = _one_of(*DATASETS)
backends = _one_of("cpu", "cuda")
executors = _one_of("processes", "threads", "dask")


def tasks_of_folder(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the tasks of the dataset folder earlier on the line; none if it cannot be read."""
    folder = context.params.get("folder")
    if folder is None:
        return []
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        descriptor = os.open(Path(folder) / "dataset.json", _READ)
        with os.fdopen(descriptor, "rb") as file:
            state = os.fstat(descriptor)  # the file may be a stranger's
            if stat.S_ISREG(state.st_mode) and state.st_size <= _LONGEST:
                names = [row["task"] for row in json.loads(file.read(_LONGEST))["tasks"]]
                return [name for name in names if re.fullmatch("[a-z0-9_]+", name) and name.startswith(incomplete)]
    return []
