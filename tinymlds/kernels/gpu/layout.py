"""Where what lies: in the arena of a network, in its state, in the arguments of the kernel and what it gives back."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from tinymlds.architectures.recurrent import Shape


LANES = 16
BLOCK = 2 * LANES

ZERO, ONE = np.float32(0.0), np.float32(1.0)
FLOAT = np.float32

# Columns of `results`: epochs done, the cause of a divergence (0: none), and the step it was found after.
DONE, CAUSE, STEP = range(3)
NOT_DIVERGED, LOSS, WEIGHTS, VALIDATION = range(4)
# Places in `fixed`.
BETA1, NOT_BETA1, BETA2, NOT_BETA2, EPS, LOSS_MEAN, ERROR_SCALE, EPOCH_MEAN, VALIDATION_MEAN, THRESHOLD = range(10)
# Rows of a network's state.
PARAMETERS, FIRST_MOMENT, SECOND_MOMENT, BEFORE = range(4)

SHARED_FLOATS = 12 * 1024 - BLOCK
"""What a block may have of shared memory, beside the sequences that it chose."""
MAXIMAL_THREADS = 1024


def threads(shape: Shape) -> int:
    """Threads of a block."""
    return LANES * shape.hidden


def largest_hidden() -> int:
    """Hidden units that a thread block can have."""
    return MAXIMAL_THREADS // LANES


class Arena(NamedTuple):
    """Where what lies in an arena, in floats."""

    x: int
    target: int
    hidden: int
    gates: int
    maps: int
    output: int
    error: int
    even: int
    odd: int
    gradient: int
    head: int
    size: int


def arena(shape: Shape, steps: int) -> Arena:
    """The arena of a network for sequences of this many steps."""
    unit, row = steps * BLOCK, shape.hidden * BLOCK
    chain = shape.activation != "none"
    sizes = (
        unit * shape.inputs,
        unit * shape.outputs,
        shape.layers * (steps + 1) * row,
        shape.layers * steps * 4 * row,
        (shape.maps - 1) * steps * row if chain else 0,
        unit * shape.outputs,
        unit * shape.outputs,
        steps * row,
        steps * row,
        -(-shape.size // BLOCK) * BLOCK,
        0 if chain else head_layout(shape).size,
    )
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Arena(*(int(start) for start in starts))


class HeadLayout(NamedTuple):
    """Where what lies in the scratch of a head without an activation; see `kernels/head.py` for the names."""

    products: int
    """S_0 ... S_{K-1}, [O, H] each."""
    constant: int
    """c, [O]."""
    sums: int
    """T_0 ... T_{K-1}, [O, H] each."""
    error_sums: int
    """s, [O]."""
    size: int


def head_layout(shape: Shape) -> HeadLayout:
    """The scratch of a head without an activation."""
    products = shape.maps * shape.outputs * shape.hidden
    sums = products + shape.outputs
    return HeadLayout(0, products, sums, sums + products, sums + products + shape.outputs)
