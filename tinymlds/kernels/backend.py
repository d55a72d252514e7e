"""The interface that every backend satisfies, and the place to get one.

A backend trains networks of one `Shape` on one `Problem`. It knows nothing of tasks, files or stop rules: it makes
an epoch of training, a validation loss, or the outputs of a network, always with the bits that `docs/numerics.md` fixes.
"""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from tinymlds.kernels.problem import Floats, Problem, Sequences
from tinymlds.kernels.shape import Shape


class Network(Protocol):
    """A network in training. Its buffers belong to the backend."""

    @property
    def weights(self) -> Floats:
        """A copy of the parameter vector, float32 [P]."""
        ...

    def epoch(self, order: npt.NDArray[np.uint32], lr: float) -> Floats:
        """Train an epoch on the training sequences in this order, at this learning rate; each minibatch's loss, float32."""
        ...

    def validation_loss(self) -> np.float32:
        """Mean squared error over all validation sequences, steps and output lines."""
        ...


class Backend(Protocol):
    """A target that networks are trained on."""

    name: str

    def prepare(self, shape: Shape) -> None:
        """Compile what networks of this shape need, so that training does not wait for it.

        Raises:
            ArithmeticError: this process flushes subnormal numbers to zero, which would change bits.
        """
        ...

    def network(self, problem: Problem, weights: Floats) -> Network:
        """A network with these initial weights, float32 [P], ready to train."""
        ...

    def loss(self, shape: Shape, weights: Floats, sequences: Sequences) -> np.float32:
        """Mean squared error of a network on sequences: the figure that the stop rule looks at."""
        ...

    def outputs(self, shape: Shape, weights: Floats, inputs: Floats) -> Floats:
        """Outputs [N, T, O] of a network for inputs [N, T, I], all float32."""
        ...


def load(name: str) -> Backend:
    """The backend of this name: "cpu".

    Raises:
        ValueError: there is no backend of this name.
    """
    if name == "cpu":
        from tinymlds.kernels.cpu import CpuBackend  # Numba takes a second to import, and reading a dataset needs none

        return CpuBackend()
    raise ValueError(f"there is no backend {name!r}; use 'cpu'")
