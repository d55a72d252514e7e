"""The inputs and results of training that all backends share: sequences, problem, jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from tinymlds.architectures import Architecture
    from tinymlds.kernels.optimizers import Optimizer

Floats = npt.NDArray[np.float32]
Words = npt.NDArray[np.uint16]
Rate = float | npt.NDArray[np.float64]
"""The learning rate of an epoch: one for all of its steps, or float64 [steps]."""


class Sequences(NamedTuple):
    """Input and output lines of N sequences of T steps; bit i of a word is line i."""

    inputs: Words
    """uint16 [N, T]."""
    outputs: Words
    """uint16 [N, T]."""


class Problem(NamedTuple):
    """All that the networks of a task share while they train."""

    architecture: Architecture
    train: Sequences
    validation: Sequences
    batch: int
    optimizer: Optimizer


LONGEST_JOB = 64
"""Epochs that a job may have."""


class Job(NamedTuple):
    """An order to train a network of a population for some epochs."""

    place: int
    """Its place in the population."""
    task: int
    """Which of the population's problems it trains on."""
    network: int
    """Which network of its task it is (its index), for the order of its sequences."""
    epoch: int
    """The first epoch to train, from 1."""
    epochs: int
    """Epochs to train at most; it ends earlier when its validation loss is below the threshold, or it diverges."""


class Stretch(NamedTuple):
    """The result of a job."""

    train_losses: Floats
    """float32 [e]: mean of the minibatch losses of each finite epoch."""
    validation_losses: Floats
    """float32 [e]: at the end of each."""
    not_finite: str
    """Not finite in the epoch after them: "training loss", "weights" or "validation loss"; "" if all was finite."""
    step: int
    """The step of that epoch (from 1) after which that was found; 0 if nothing was."""


class Constants(NamedTuple):
    """Numbers that stay the same over a run, as float32 arrays (a scalar would be a float64)."""

    optimizer: Floats
    """The optimizer's constants."""
    mean: Floats
    """[0]: 1 / (batch T O), which makes a sum a mean; [1]: 2 / (batch T O), which makes an error a gradient."""


def constants(problem: Problem) -> Constants:
    """The constants of a problem, each rounded once from float64."""
    terms = problem.batch * problem.train.inputs.shape[1] * problem.architecture.outputs
    return Constants(np.array(problem.optimizer.constants(), np.float32), np.array([1.0 / terms, 2.0 / terms], np.float32))


def check_arithmetic() -> None:
    """Make sure that this process does IEEE arithmetic: some libraries switch subnormal numbers off when they are loaded.

    Raises:
        ArithmeticError: subnormal numbers are flushed to zero, which would change bits.
    """
    if np.float32(2.0**-126) * np.float32(0.5) == 0.0:
        raise ArithmeticError("this process flushes subnormal numbers to zero; a library that it loaded switched that on")
