"""The kernels of `toy_architecture.LinearMaps` on a CPU: loops over the lanes of a block."""

from typing import Any, NamedTuple

from numba import njit

from tinymlds.kernels import BLOCK, LANES
from tinymlds.kernels.block import INNER, outer_gradient, row_sums
from tinymlds.kernels.lanes import tile
from tinymlds.kernels.minibatch import Passes


class Buffers(NamedTuple):
    """Floats of each buffer, or the buffers."""

    between: Any
    """[T, width, 32]"""
    gradient: Any
    """The same of their gradients."""


def buffers(shape, steps):
    return Buffers(steps * shape.width * BLOCK, steps * shape.width * BLOCK)


def passes(shape):
    I, W, O = shape.inputs, shape.width, shape.outputs
    at = shape.offsets()
    FIRST, SECOND, BIAS = at["0.weight"], at["1.weight"], at["1.bias"]
    one = tile(1, 1)
    zero, spread, accumulate, store = one.zero, one.spread, one.accumulate, one.store
    first_gradient = outer_gradient(one, I, I, W, W * BLOCK, I * BLOCK)
    second_gradient = outer_gradient(one, W, W, O, O * BLOCK, W * BLOCK)
    bias_gradient = row_sums(O, O * BLOCK)

    @njit(**INNER)
    def nothing(p, work):
        pass

    @njit(**INNER)
    def forward(T, p, work):
        for t in range(T):
            for v in range(0, BLOCK, LANES):
                for j in range(W):
                    a = zero()
                    for i in range(I):
                        a = accumulate(a, p, FIRST + j * I + i, 0, work.x, (t * I + i) * BLOCK + v)
                    store(work.own.between, (t * W + j) * BLOCK + v, 0, a)
                for o in range(O):
                    a = spread(p, BIAS + o)
                    for j in range(W):
                        a = accumulate(a, p, SECOND + o * W + j, 0, work.own.between, (t * W + j) * BLOCK + v)
                    store(work.output, (t * O + o) * BLOCK + v, 0, a)

    @njit(**INNER)
    def backward(T, p, work):
        for t in range(T):
            for v in range(0, BLOCK, LANES):
                for j in range(W):
                    a = zero()
                    for o in range(O):
                        a = accumulate(a, p, SECOND + o * W + j, 0, work.output, (t * O + o) * BLOCK + v)
                    store(work.own.gradient, (t * W + j) * BLOCK + v, 0, a)
        second_gradient(0, T, work.output, work.own.between, work.gradient, SECOND)
        bias_gradient(T, work.output, work.gradient, BIAS, -1)
        first_gradient(0, T, work.own.gradient, work.x, work.gradient, FIRST)

    return Passes(nothing, forward, backward, nothing)
