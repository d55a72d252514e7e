"""The interface that every backend satisfies, and the place to get one.

A backend trains populations: networks of one architecture on one or several `Problem`s; on the CPU a population has one
place. It knows nothing of tasks, files or stop rules, and makes the bits that `docs/numerics.md` fixes.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture
from tinymlds.kernels.optimizers import Optimizer
from tinymlds.kernels.problem import Floats, Job, Problem, Rate, Sequences, Stretch
from tinymlds.kernels.rng import Key


class Network(Protocol):
    """A network in training. Its buffers belong to the backend."""

    @property
    def weights(self) -> Floats:
        """A copy of the parameter vector, float32 [P]."""
        ...

    def epoch(self, order: npt.NDArray[np.uint32], lr: Rate) -> Floats:
        """Train an epoch on the training sequences in this order, at this rate; each minibatch's loss, float32."""
        ...

    def validation_loss(self) -> np.float32:
        """Mean squared error over all validation sequences, steps and output lines."""
        ...


class Population(Protocol):
    """Networks that train side by side on a device, each in its place."""

    places: int
    """How many there is room for."""
    seconds: float
    """That the device worked on the jobs that were finished last."""

    def admit(self, place: int, weights: Floats) -> None:
        """Put a network with these initial weights, float32 [P], into a place; its first job starts with epoch 1."""
        ...

    def start(self, jobs: Sequence[Job]) -> None:
        """Begin these jobs, at most one for a place; returns while they run."""
        ...

    def finish(self) -> list[Stretch]:
        """Wait for the jobs, and say what came of each, in their order.

        Raises:
            RuntimeError: the device failed.
        """
        ...

    def weights(self, place: int) -> Floats:
        """A copy of the parameter vector in a place, float32 [P]; of the last finite epoch if it diverged."""
        ...


class Backend(Protocol):
    """A target that networks are trained on."""

    name: str

    def prepare(self, architecture: Architecture, optimizer: Optimizer) -> None:
        """Compile the kernels, so that training does not wait for it.

        Raises:
            ArithmeticError: this process flushes subnormal numbers to zero, which would change bits.
        """
        ...

    def population(
        self, problems: Sequence[Problem], keys: Sequence[Key], lr_at: Callable[[int], Rate], threshold: float, most: int
    ) -> Population:
        """An empty population, which runs epochs and the order of their sequences by itself.

        Args:
            problems: what networks may be trained on: the same architecture, sizes, batch and optimizer.
            keys: of the stream that the order of sequences is drawn from, for each problem.
            lr_at: the learning rate of an epoch, from 1.
            threshold: a network whose validation loss is below it is done; 0: none is.
            most: places that are wanted at most.

        Raises:
            RuntimeError: no device, too little memory on it, or an architecture that does not fit it.
            ArithmeticError: what was compiled does not keep to the numerics.
        """
        ...


class DeviceBackend(Backend, Protocol):
    """A target that trains many networks side by side."""

    device: str
    """The name that the device gives itself."""


class Evaluator(Protocol):
    """Computes losses and outputs of networks that are there."""

    def loss(self, architecture: Architecture, weights: Floats, sequences: Sequences) -> np.float32:
        """Mean squared error of a network on sequences: the figure that the stop rule looks at."""
        ...

    def outputs(self, architecture: Architecture, weights: Floats, inputs: Floats) -> Floats:
        """Outputs [N, T, O] of a network for inputs [N, T, I], all float32."""
        ...


NAMES = ("cpu", "cuda")


def evaluator() -> Evaluator:
    """The CPU, which every network can be evaluated on."""
    from tinymlds.training.backends.cpu import CpuBackend  # Numba takes a second to import, and reading needs none

    return CpuBackend()


def load(name: str) -> Backend:
    """The backend of this name that trains in worker processes: "cpu".

    Raises:
        ValueError: there is no such backend.
    """
    if name == "cpu":
        from tinymlds.training.backends.cpu import CpuBackend

        return CpuBackend()
    raise ValueError(f"there is no backend {name!r}; use one of {', '.join(NAMES)}")


def load_device(name: str) -> DeviceBackend | None:
    """The backend of this name if it trains side by side on a device ("cuda"), or None if it does not.

    Raises:
        RuntimeError: its package is not installed, or there is no device; the message says which.
    """
    if name == "cuda":
        from tinymlds.training.backends.cuda import CudaBackend

        return CudaBackend()
    return None
