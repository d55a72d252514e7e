"""What is trained on what: the shape of a network, the sequences, the optimizer; the same for every backend."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

NUMERICS = 1
"""The numerics version: raised by any change that changes a bit of a trained network."""

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint16]


class Shape(NamedTuple):
    """The sizes of a network: GRU layers, then linear maps.

    The parameter vector holds, layer by layer, what PyTorch calls weight_ih [3H, I], weight_hh [3H, H], bias_ih [3H] and
    bias_hh [3H] (gates in the order r, z, n), then for each linear map weight [out, in] and bias [out].
    """

    inputs: int = 9
    hidden: int = 12
    outputs: int = 8
    layers: int = 4
    maps: int = 5
    activation: str = "none"

    @property
    def layer_inputs(self) -> tuple[int, ...]:
        """Inputs of each GRU layer."""
        return (self.inputs,) + (self.hidden,) * (self.layers - 1)

    @property
    def map_outputs(self) -> tuple[int, ...]:
        """Outputs of each linear map; all have `hidden` inputs."""
        return (self.hidden,) * (self.maps - 1) + (self.outputs,)

    @property
    def tensors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """PyTorch's name and shape of every tensor, in the order of the parameter vector."""
        named: list[tuple[str, tuple[int, ...]]] = []
        rows = 3 * self.hidden
        for layer, inputs in enumerate(self.layer_inputs):
            named.append((f"gru.weight_ih_l{layer}", (rows, inputs)))
            named.append((f"gru.weight_hh_l{layer}", (rows, self.hidden)))
            named.append((f"gru.bias_ih_l{layer}", (rows,)))
            named.append((f"gru.bias_hh_l{layer}", (rows,)))
        for k, outputs in enumerate(self.map_outputs):
            named.append((f"head.{k}.weight", (outputs, self.hidden)))
            named.append((f"head.{k}.bias", (outputs,)))
        return tuple(named)

    @property
    def size(self) -> int:
        """Number of parameters (4,364 for the shape of MLDS)."""
        return sum(int(np.prod(shape)) for _, shape in self.tensors)


class Sequences(NamedTuple):
    """Input and output lines of N sequences of T steps; bit i of a word is line i."""

    inputs: Words
    """uint16 [N, T]."""
    outputs: Words
    """uint16 [N, T]."""


class Adam(NamedTuple):
    """Constants of Adam (Kingma and Ba 2015) that stay the same over a run."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


class Problem(NamedTuple):
    """What all networks of a task share while they train."""

    shape: Shape
    train: Sequences
    validation: Sequences
    batch: int
    adam: Adam


def adam_factors(adam: Adam, lr: float, powers: tuple[float, float], steps: int) -> tuple[Floats, tuple[float, float]]:
    """The two numbers in which Adam's steps differ: lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t).

    The powers are running products in float64, so that no `pow` of any library has a say in a bit.

    Args:
        adam: the constants.
        lr: the learning rate of these steps.
        powers: beta1^t and beta2^t after the steps done so far, (1.0, 1.0) at the start.
        steps: number of steps to come.

    Returns:
        float32 [steps, 2], and the powers after these steps.
    """
    running = np.empty((2, steps + 1))
    running[:, 0] = powers
    running[:, 1:] = np.array([[adam.beta1], [adam.beta2]])
    running = np.multiply.accumulate(running, axis=1)
    factors = np.stack([lr / (1.0 - running[0, 1:]), 1.0 / np.sqrt(1.0 - running[1, 1:])], axis=1)
    return factors.astype(np.float32), (float(running[0, -1]), float(running[1, -1]))


def check_arithmetic() -> None:
    """Make sure that this process does IEEE arithmetic: some libraries switch subnormal numbers off when they are loaded.

    Raises:
        ArithmeticError: subnormal numbers are flushed to zero, which would change bits.
    """
    if np.float32(2.0**-126) * np.float32(0.5) == 0.0:
        raise ArithmeticError("this process flushes subnormal numbers to zero; a library that it loaded switched that on")
