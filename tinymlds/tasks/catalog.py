"""Every task by its id: its table, and the rule by which its sequences are drawn.

Ids are those of the machines (`xor`), of their modified twins (`xor_modified`) and of the transducers (`transducer_042`).
"""

import re
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymlds.errors import UsageError, nearest
from tinymlds.kernels import rng
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import machines
from tinymlds.tasks import transducers as drawn
from tinymlds.tasks.mealy import Mealy, Symbols

MODIFIED = "_modified"

DATASETS: dict[str, tuple[str, ...]] = {
    "ds1": machines.MACHINES,
    "ds2": tuple(name + MODIFIED for name in machines.MACHINES),
    "ds3": tuple(drawn.task_id(number) for number in range(drawn.SHIPPED)),
}
"""The three datasets of the original and their tasks."""


@dataclass(frozen=True, eq=False)
class Task:
    """A task of a recipe. Its arrays are shared and cannot be written to."""

    setting: Setting
    table: Mealy
    stream: str
    """Name of the random stream of its networks: the id, or with `matched` that of the machine without the trigger."""
    key: tuple[int, ...] = ()
    """Symbols that are planted in its sequences; () for none."""
    rate: float = 0.0
    """Chance at each free step that the key is planted there."""
    triggered: npt.NDArray[np.uint8] | None = None
    """[S], of a modified machine: 1 for a state whose outputs are inverted."""

    @property
    def id(self) -> str:
        """The task id."""
        return self.setting.task

    @property
    def stream_key(self) -> rng.Key:
        """The key of the streams that its networks draw from."""
        return rng.stream_key(self.setting.seed, self.stream)

    def sample(self, purpose: int, count: int, steps: int, network: int | None = None) -> Symbols:
        """Sequences of independent, equally likely symbols with keys planted among them, uint8 [count, steps].

        At each step that is not inside a planted key, and that leaves room for one, a key begins with probability `rate`.
        Given the index of a network they come from a stream of its own.
        """
        seed = self.setting.seed
        stream = self.stream_key if network is None else rng.stream_key(seed, f"{self.stream}:{network}")
        symbols = self.table.sample(stream, purpose, count, steps)
        if not self.key or not self.rate:
            return symbols
        length = len(self.key)
        chance = rng.words(stream, purpose, 1, count * steps).reshape(count, steps)
        begins = chance.astype(np.uint64) < np.uint64(round(self.rate * 2**32))
        free_from = np.zeros(count, np.int64)
        for step in range(steps - length + 1):
            rows = np.flatnonzero(begins[:, step] & (free_from <= step))
            symbols[rows, step : step + length] = np.array(self.key, np.uint8)
            free_from[rows] = step + length
        return symbols


def task_id(name: str) -> str:
    """The task id for an id or an original name, in any case (xor, SimpleXORMachine, ParityModified, transducer_7).

    Raises:
        UsageError: there is no such task.
    """
    for known, task in _named().items():
        if name.lower() == known.lower():
            return task
    if (number := _transducer(name.lower())) is not None:
        return drawn.task_id(number)
    all_known = ", ".join((*machines.MACHINES, *DATASETS))
    raise UsageError(
        f"there is no task or dataset {name!r}{nearest(name, [*_named(), *DATASETS])}; there are {all_known}, "
        f"twins like xor_modified, and transducer_000 to transducer_{drawn.LARGEST}"
    )


@cache
def _named() -> dict[str, str]:
    """Ids of machines and twins by their names, which are ids and the original's names."""
    ids = [*machines.MACHINES, *(machine + MODIFIED for machine in machines.MACHINES)]
    return {name: task for task in ids for name in (task, alias(task))}


def choose(
    machine: str | None = None,
    modified: bool = False,
    dataset: str | None = None,
    transducers: int | None = None,
    only: int | None = None,
) -> tuple[str, tuple[str, ...]]:
    """Return a name and the task ids for the options of `train` and `generate`.

    Args:
        machine: a task, or the name of a dataset; or
        dataset: "ds1", "ds2" or "ds3".
        modified: the machine's modified twin.
        transducers: the first so many of ds3; default is 100.
        only: this transducer alone.

    Raises:
        UsageError: not exactly one thing is asked for, or it does not exist.
    """
    if dataset is None and machine is not None and machine.lower() in DATASETS:
        machine, dataset = None, machine
    dataset = None if dataset is None else dataset.lower()
    if machine is None and dataset is None and (transducers is not None or only is not None):
        dataset = "ds3"
    if (machine is None) == (dataset is None):
        raise UsageError(f"name a task (such as xor) or a dataset ({', '.join(DATASETS)}), and not both")
    if (transducers is not None or only is not None) and dataset != "ds3":
        raise UsageError("transducers and only are for the dataset ds3; leave out the others")
    if machine is not None:
        task = task_id(machine)
        if modified and task in machines.MACHINES:
            task += MODIFIED
        if modified and not task.endswith(MODIFIED):
            raise UsageError(f"{task} has no modified twin; the machines {', '.join(machines.MACHINES)} have one")
        return task, (task,)
    if modified:
        raise UsageError("modified goes with a machine; the dataset ds2 holds the modified twins")
    if dataset not in DATASETS:
        raise UsageError(
            f"there is no dataset {dataset!r}{nearest(str(dataset), DATASETS)}; there are {', '.join(DATASETS)}"
        )
    if transducers is not None and only is not None:
        raise UsageError("ask either for transducers (the first so many) or for only one")
    if only is not None:
        task = task_id(f"transducer_{only}")
        return task, (task,)
    if transducers is not None:
        if not 1 <= transducers <= drawn.LARGEST + 1:
            raise UsageError(f"transducers must be between 1 and {drawn.LARGEST + 1}, not {transducers}")
        return dataset, tuple(drawn.task_id(number) for number in range(transducers))
    return dataset, DATASETS[dataset]


def alias(task: str) -> str:
    """The original's name of a task; transducers had none."""
    base = task.removesuffix(MODIFIED)
    if base not in machines.ALIASES:
        return task
    original = machines.ALIASES[base]
    return original if base == task else original.removesuffix("Machine") + "Modified"


def is_transducer(task: str) -> bool:
    """Return whether a task id is that of a transducer."""
    return _transducer(task) is not None


def _transducer(name: str) -> int | None:
    found = re.fullmatch(r"transducer_([0-9]{1,4})", name)
    return int(found[1]) if found else None


def stream(task: str, recipe: Recipe) -> str:
    """Name of the random stream of a task's networks: those of one seed, stream and index share initial weights."""
    return task.removesuffix(MODIFIED) if recipe.matched else task


def family(task: Task) -> dict[str, Any]:
    """How a transducer with edits relates to the base of its family; {} for other tasks.

    Returns:
        base: the base transducer; distance: transitions (successor or output) in which the tables differ; telling: length
        of a shortest sequence of symbols that tells the two apart, 0 for the base itself.
    """
    recipe = task.setting.recipe
    if not recipe.edits or _transducer(task.id) is None:
        return {}
    base = drawn.transducer(recipe.family, recipe.states)
    word = base.difference(task.table) or []
    about = {"base": drawn.task_id(recipe.family), "distance": drawn.distance(base, task.table), "telling": len(word)}
    return {"family": about}


@lru_cache(maxsize=256)
def load(setting: Setting) -> Task:
    """The task of a setting.

    Raises:
        UsageError: there is no such task.
    """
    task, recipe = setting.task, setting.recipe
    if task_id(task) != task:
        raise UsageError(f"{task!r} is not a task id; it is {task_id(task)!r}")
    if (number := _transducer(task)) is not None:
        return Task(setting, _frozen(drawn.transducer(number, recipe.states, recipe.edits, recipe.family)), task)
    base = task.removesuffix(MODIFIED)
    key = machines.key_symbols(recipe.trigger_key)
    if base == task:
        planted = (key, recipe.trigger_rate) if recipe.matched else ((), 0.0)
        return Task(setting, _frozen(machines.machine(task)), stream(task, recipe), *planted)
    table, triggered = machines.modified(base, key, recipe.trigger_span)
    triggered.setflags(write=False)
    return Task(setting, _frozen(table), stream(task, recipe), key, recipe.trigger_rate, triggered)


def _frozen(table: Mealy) -> Mealy:
    for array in (table.inputs, table.next_state, table.output):
        array.setflags(write=False)
    return table
