"""The data that networks train on: sequences of a task, initial weights, and what is known of how long they take."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import params
from tinymlds.kernels import rng
from tinymlds.kernels.problem import Problem, Sequences
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import Mealy, Symbols

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class TaskData:
    """The sequences of a task: symbols and outputs uint8 [N, T]."""

    table: Mealy
    train: Symbols
    train_outputs: npt.NDArray[np.uint8]
    validation: Symbols
    validation_outputs: npt.NDArray[np.uint8]

    def sequences(self) -> tuple[Sequences, Sequences]:
        """Training and validation sequences as lines."""
        pairs = ((self.train, self.train_outputs), (self.validation, self.validation_outputs))
        train, validation = (Sequences(self.table.inputs[x], y.astype(np.uint16)) for x, y in pairs)
        return train, validation


@lru_cache(maxsize=16)
def task_data(setting: Setting) -> TaskData:
    """The table and the sequences that the networks of a setting share; see `draw_data`."""
    return draw_data(catalog.load(setting))


def draw_data(found: catalog.Task) -> TaskData:
    """The sequences of a task, drawn from seed and task by the rule of the recipe, and what its table makes of them.

    Where each network draws its own training sequences there are none to share: N = 0.
    """
    table, recipe = found.table, found.setting.recipe
    train = found.sample(rng.TRAIN_SEQUENCES, recipe.stored_sequences, recipe.steps)
    validation = found.sample(rng.VALIDATION_SEQUENCES, recipe.validation_sequences, recipe.steps)
    data = TaskData(table, train, table.simulate(train), validation, table.simulate(validation))
    for array in (data.train, data.train_outputs, data.validation, data.validation_outputs):
        array.setflags(write=False)  # every network of the process trains on it
    return data


def own_sequences(setting: Setting, index: int) -> tuple[Symbols, npt.NDArray[np.uint8]]:
    """Symbols and outputs, uint8 [N, T], of the training sequences that a network draws for itself."""
    found, recipe = catalog.load(setting), setting.recipe
    symbols = found.sample(rng.TRAIN_SEQUENCES, recipe.train_sequences, recipe.steps, index)
    return symbols, found.table.simulate(symbols)


def initial_weights(setting: Setting, index: int) -> Floats:
    """Initial weights of a network, float32 [P]; with `initial` shared they are those of network 0."""
    recipe = setting.recipe
    key = catalog.load(setting).stream_key
    return params.initial(recipe.architecture, key, index if recipe.initial == "own" else 0)


def problem(setting: Setting, index: int = 0) -> Problem:
    """Return the problem of a network; the same for all that share their sequences."""
    shared = _shared_problem(setting)
    if setting.recipe.sequences == "shared":
        return shared
    symbols, outputs = own_sequences(setting, index)
    inputs = task_data(setting).table.inputs
    return shared._replace(train=Sequences(inputs[symbols], outputs.astype(np.uint16)))


@lru_cache(maxsize=16)
def _shared_problem(setting: Setting) -> Problem:
    return make_problem(task_data(setting), setting.recipe)


def make_problem(data: TaskData, recipe: Recipe) -> Problem:
    """The problem of these sequences under this recipe."""
    train, validation = data.sequences()
    return Problem(recipe.architecture, train, validation, recipe.batch, recipe.optimizer)


# ------------------------------------------------------------------ how long training takes

_EPOCHS = {
    "eightbit": (4.6, 0.9),
    "direct": (1.0, 0.0),
    "invert": (1.0, 0.0),
    "xor": (1.3, 0.5),
    "parity": (14.3, 8.7),
    "eightbit_modified": (39.9, 42.6),
    "direct_modified": (1.3, 0.5),
    "invert_modified": (1.1, 0.3),
    "xor_modified": (3.4, 1.2),
    "parity_modified": (52.2, 63.3),
    "transducer": (11.7, 25.3),
}
"""Epochs that networks of the default recipe took, whether they were complete or not: mean and standard deviation over
100 networks of each machine (the modified ones matched) and five of each transducer, seed 0 (`bench/learnability.py`)."""

EPOCHS_FROM = 100
"""Networks that they come from, at least."""


def expected_epochs(task: str, recipe: Recipe) -> tuple[float, float] | None:
    """Mean and standard deviation of the epochs of a network; None for a recipe that nobody has tried."""
    if replace(recipe, matched=False) != Recipe():
        return None
    return _EPOCHS["transducer" if catalog.is_transducer(task) else task]
