"""Training steps of the rivals on the same batches, for `test_step.py` and `compare.py`."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from reference import TorchBackend

from tinymlds.architectures import params
from tinymlds.kernels import rng
from tinymlds.spec import Recipe, Setting
from tinymlds.training import data
from tinymlds.training.backends import Backend, Floats
from tinymlds.training.backends.cpu import CpuBackend

TASK, SEED = "xor", 0
BATCHES = (16, 32, 64, 128, 1024)
GRID = (
    *(replace(Recipe(), batch=batch) for batch in BATCHES),
    Recipe.of(batch=128, steps=32),
    Recipe.of(batch=128, hidden=32),
    Recipe.of(batch=128, hidden=64),
    *(Recipe.of(architecture=name, batch=batch) for name in ("lstm-linear", "rnn-linear") for batch in (32, 128)),
)

RIVALS: dict[str, Callable[[], Any]] = {
    "tinymlds": CpuBackend,
    "torch": TorchBackend,
    "torch compiled": lambda: TorchBackend(compiled=True),
}
"""Name -> a fresh backend."""

LOSS_TOLERANCE = 5e-6
"""Largest relative difference between losses of two rivals over the same first steps. Float32 rounds at 6e-8; means of up
to 131,072 terms in another order, and a few of Adam's steps on top, make 2.4e-7 (measured: 8 steps at any B, 64 at
B = 128), and 1.8e-6 with torch.compile at B = 1024. Without bias correction the second loss is off by 0.2."""

WEIGHT_TOLERANCE = 5e-6
"""Largest difference between their weights then (measured: 2.7e-7 at B = 16, less above). Adam moves every weight by up to
0.003 a step, however small its gradient, so a gradient that is wrong or missing shows a thousandfold."""


def cpu_seconds(work: Callable[[], Any]) -> float:
    """CPU seconds of this process that `work` takes."""
    start = time.process_time()
    work()
    return time.process_time() - start


class Stepper:
    """A network of the task, ready to make training steps on one thread. Each step takes the next batch."""

    def __init__(self, backend: Backend, recipe: Recipe, index: int = 0) -> None:
        key = rng.stream_key(SEED, TASK)
        self.sample_steps = recipe.batch * recipe.steps
        """Of one step: sequences x time steps."""
        self._batch, self._lr = recipe.batch, recipe.lr
        self._order = rng.permutation(key, index, 1, recipe.train_sequences)
        self._next = 0
        self._network = backend.network(
            data.problem(Setting(TASK, SEED, recipe)), params.initial(recipe.architecture, key, index)
        )

    @property
    def weights(self) -> Floats:
        """The parameter vector as it stands, float32 [P]."""
        return self._network.weights

    def __call__(self, steps: int) -> Floats:
        """Make steps; their losses, float32 [steps]."""
        wanted = np.arange(self._next, self._next + steps * self._batch) % self._order.size
        self._next += wanted.size
        return self._network.epoch(self._order[wanted], self._lr)


def warm_up(backend: Backend) -> None:
    """Have everything compiled that training and validation with the default recipe need."""
    recipe = Recipe()
    network = backend.network(data.problem(Setting(TASK, SEED, recipe)), np.zeros(recipe.architecture.size, np.float32))
    network.epoch(np.arange(recipe.batch, dtype=np.uint32), recipe.lr)
    network.validation_loss()
