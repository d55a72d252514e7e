"""What is trained on what, the same for every backend: sequences, problem, the factors of Adam's steps."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinymlds.kernels.shape import Adam, Shape

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint16]


class Sequences(NamedTuple):
    """Input and output lines of N sequences of T steps; bit i of a word is line i."""

    inputs: Words
    """uint16 [N, T]."""
    outputs: Words
    """uint16 [N, T]."""


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
