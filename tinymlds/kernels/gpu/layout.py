"""Offsets: in the arena of a network, in its state, in the arguments of the kernel and in its results."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tinymlds.kernels import BLOCK

if TYPE_CHECKING:
    from tinymlds.architectures import Architecture

ZERO, ONE = np.float32(0.0), np.float32(1.0)
FLOAT = np.float32

# Columns of `results`: epochs done, the cause of a divergence (0: none), and the step it was found after.
DONE, CAUSE, STEP = range(3)
NOT_DIVERGED, LOSS, WEIGHTS, VALIDATION = range(4)
# Places in `fixed`; the optimizer's constants come after them.
LOSS_MEAN, ERROR_SCALE, EPOCH_MEAN, VALIDATION_MEAN, THRESHOLD, CONSTANTS = range(6)
# Rows of a network's state.
PARAMETERS, FIRST_MOMENT, SECOND_MOMENT, BEFORE = range(4)

SHARED_FLOATS = 12 * 1024 - BLOCK
"""Floats of shared memory that a block may use, beside the sequences that it chose."""
MAXIMAL_THREADS = 1024


class Arena(NamedTuple):
    """Offsets of the buffers of a network in its arena, in floats."""

    x: int
    target: int
    output: int
    error: int
    gradient: int
    own: int
    """Those of the architecture."""
    size: int


def arena(architecture: Architecture, own: int, steps: int) -> Arena:
    """The arena of a network for sequences of this many steps, of whose buffers the architecture has `own` floats."""
    unit = steps * BLOCK
    lines = unit * architecture.outputs
    gradient = -(-architecture.size // BLOCK) * BLOCK
    starts = np.cumsum([0, unit * architecture.inputs, lines, lines, lines, gradient, own])
    return Arena(*(int(start) for start in starts))
