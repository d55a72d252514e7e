"""Recurrent layers and linear maps over a block of 32 samples on a CPU. All buffers are flat; T steps, H hidden units.

The order of every sum is fixed by `docs/numerics.md`. The layers themselves are in `layers.py` and `head.py`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from numba import njit

from tinymlds.kernels import BLOCK
from tinymlds.kernels.block import INNER
from tinymlds.kernels.minibatch import Passes
from tinymlds.kernels.recurrent import head_start, layer_places, layer_starts
from tinymlds.kernels.recurrent.cells import STATES, SUMS
from tinymlds.kernels.recurrent.head import head, sizes
from tinymlds.kernels.recurrent.layers import layer

if TYPE_CHECKING:
    from tinymlds.architectures.recurrent import Recurrent


class Buffers(NamedTuple):
    """Floats of each buffer of a block, or the buffers themselves."""

    hidden: Any
    """[layers, T + 1, H, 32]: h; row 0 of T + 1 is h = 0."""
    cells: Any
    """[layers, T + 1, H, 32]: c of an LSTM; nothing for others."""
    gates: Any
    """[layers, T, sums, H, 32], in the order of `cells.SUMS`; the backward pass puts gradients in their place."""
    maps: Any
    """[maps - 1, T, H, 32]: outputs of the hidden linear maps, where an activation follows them."""
    even: Any
    """[T, H, 32]: gradients on their way down, in turn with `odd`."""
    odd: Any
    """[T, H, 32]"""
    carry: Any
    """[H, 32]: dL/dh on its way back in time; of an LSTM [2, H, 32], dL/dc too."""
    biases: Any
    """[layers, sums, H]: what the sums start with."""
    head: Any
    """See `head.py`."""


def buffers(shape: Recurrent, steps: int) -> Buffers:
    """How many floats each buffer has for sequences of this many steps."""
    row, head_sizes, sums, states = shape.hidden * BLOCK, sizes(shape), len(SUMS[shape.cell.name]), STATES[shape.cell.name]
    return Buffers(
        hidden=shape.layers * (steps + 1) * row,
        cells=(states - 1) * shape.layers * (steps + 1) * row,
        gates=shape.layers * steps * sums * row,
        maps=steps * head_sizes.maps,
        even=steps * row,
        odd=steps * row,
        carry=states * row,
        biases=shape.layers * sums * shape.hidden,
        head=head_sizes.head,
    )


class Stages(NamedTuple):
    """The parts of the passes. All but `start` and `finish` are repeated for each block."""

    start: Any
    """start(p, work): what follows from the parameters alone."""
    layers_forward: Any
    """layers_forward(T, p, work)"""
    head_forward: Any
    """head_forward(T, p, work): work.output."""
    head_backward: Any
    """head_backward(T, p, work): down to the layers in work.own.even, and this block's part of the head's gradient."""
    layer_backward: Any
    """layer_backward(k, T, p, work): the gates of layer k become their gradients before the activation; top layer first."""
    layer_gradient: Any
    """layer_gradient(k, T, work): this block's part of the gradient of layer k, right after its `layer_backward`."""
    finish: Any
    """finish(p, work): makes work.gradient complete."""


@cache
def stages(shape: Recurrent) -> Stages:
    """The stages for networks of this shape."""
    I, H, LAYERS, ROW = shape.inputs, shape.hidden, shape.layers, shape.hidden * BLOCK
    HEAD, (SECOND, STRIDE) = head_start(shape), layer_starts(shape)
    CELL, SUM_COUNT = shape.cell.name, len(SUMS[shape.cell.name])
    first = layer(CELL, I, H, True, layer_places(shape, 0))
    other = layer(CELL, H, H, False, layer_places(shape, 1)) if LAYERS > 1 else first
    first_sum_biases, first_forward, first_backward, first_gradient = first
    other_sum_biases, other_forward, other_backward, other_gradient = other
    map_start, map_forward, map_backward, map_finish = head(shape)

    @njit(**INNER)
    def start(p, work):  # type: ignore[no-untyped-def]
        own = work.own
        first_sum_biases(p, 0, own.biases)
        for k in range(1, LAYERS):
            other_sum_biases(p, SECOND + (k - 1) * STRIDE, own.biases[k * SUM_COUNT * H :])
        map_start(p, HEAD, own.head)

    @njit(**INNER)
    def layers_forward(T, p, work):  # type: ignore[no-untyped-def]
        own, states, gates = work.own, (T + 1) * ROW, T * SUM_COUNT * ROW
        first_forward(T, work.x, own.hidden, own.cells, own.gates, p, 0, own.biases)
        for k in range(1, LAYERS):
            below, w = own.hidden[(k - 1) * states + ROW :], SECOND + (k - 1) * STRIDE
            h, c, g = own.hidden[k * states :], own.cells[k * states :], own.gates[k * gates :]
            other_forward(T, below, h, c, g, p, w, own.biases[k * SUM_COUNT * H :])

    @njit(**INNER)
    def head_forward(T, p, work):  # type: ignore[no-untyped-def]
        own = work.own
        x = own.hidden[(LAYERS - 1) * (T + 1) * ROW + ROW :]
        map_forward(T, x, own.maps, work.output, p, HEAD, own.head)

    @njit(**INNER)
    def head_backward(T, p, work):  # type: ignore[no-untyped-def]
        own = work.own
        x = own.hidden[(LAYERS - 1) * (T + 1) * ROW + ROW :]
        map_backward(T, x, own.maps, work.output, own.even, own.odd, work.gradient, p, HEAD, own.head)

    @njit(**INNER)
    def layer_backward(k, T, p, work):  # type: ignore[no-untyped-def]
        own, states = work.own, (T + 1) * ROW
        h, c, g = own.hidden[k * states :], own.cells[k * states :], own.gates[k * T * SUM_COUNT * ROW :]
        dy, dx = (own.even, own.odd) if (LAYERS - k) % 2 == 1 else (own.odd, own.even)
        if k == 0:
            first_backward(T, h, c, g, dy, dx, own.carry, p, 0)
        else:
            other_backward(T, h, c, g, dy, dx, own.carry, p, SECOND + (k - 1) * STRIDE)

    @njit(**INNER)
    def layer_gradient(k, T, work):  # type: ignore[no-untyped-def]
        own = work.own
        h, g = own.hidden[k * (T + 1) * ROW :], own.gates[k * T * SUM_COUNT * ROW :]
        if k == 0:
            first_gradient(T, work.x, h, g, work.gradient, 0)
        else:
            below = own.hidden[(k - 1) * (T + 1) * ROW + ROW :]
            other_gradient(T, below, h, g, work.gradient, SECOND + (k - 1) * STRIDE)

    @njit(**INNER)
    def finish(p, work):  # type: ignore[no-untyped-def]
        map_finish(work.gradient, p, HEAD, work.own.head)

    return Stages(start, layers_forward, head_forward, head_backward, layer_backward, layer_gradient, finish)


def passes(shape: Recurrent) -> Passes:
    """The passes of networks of this shape."""
    start, layers_forward, head_forward, head_backward, layer_backward, layer_gradient, finish = stages(shape)
    LAYERS = shape.layers

    @njit(**INNER, inline="always")
    def forward(T, p, work):  # type: ignore[no-untyped-def]
        layers_forward(T, p, work)
        head_forward(T, p, work)

    @njit(**INNER, inline="always")
    def backward(T, p, work):  # type: ignore[no-untyped-def]
        head_backward(T, p, work)
        for k in range(LAYERS - 1, -1, -1):
            layer_backward(k, T, p, work)
            layer_gradient(k, T, work)

    return Passes(start, forward, backward, finish)
