"""The CPU backend: Numba loops around the cells, a block of samples at a time.

A block of 32 samples (two vectors of 16 lanes) goes through everything, from its input lines to its part of the gradient,
before the next block starts, so that its activations stay in the cache. All buffers are flat; T steps, H hidden units:

    words   [2, T, 32]              uint16: input and output lines as bits
    x       [T, I, 32]              input lines              target  [T, O, 32]        output lines
    hidden  [layers, T + 1, H, 32]  h; row 0 of T + 1 is h = 0
    gates   [layers, T, 4, H, 32]   r, z, q, n; the backward pass puts dar, daz, dq, dan in their place
    maps    [maps - 1, T, H, 32]    outputs of the hidden linear maps, where an activation follows them
    output  [T, O, 32]              outputs, then their gradient
    even, odd [T, H, 32]            gradients on their way down, in turn      carry [H, 32]   dL/dh on its way back in time
    biases  [layers, 2, H]          b_ih + b_hh of r and z   head           see `head.py`

The order of every sum is fixed by `docs/numerics.md`. The layers themselves are in `gru.py` and `head.py`.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from tinymlds.kernels.block import BLOCK, CELLS, INNER, OPTIONS
from tinymlds.kernels.cache import cached_njit
from tinymlds.kernels.lanes import LANES, bit_lanes, keep, load, store, tree_sum, zero
from tinymlds.kernels.problem import Floats, Words
from tinymlds.kernels.recurrent.head import head, sizes
from tinymlds.kernels.recurrent.layers import gru_layer

if TYPE_CHECKING:
    from tinymlds.architectures.recurrent import Shape


class Work(NamedTuple):
    """Buffers for one block; shapes stand at the top of this file. What a call leaves means nothing to the next."""

    words: Words
    x: Floats
    target: Floats
    hidden: Floats
    gates: Floats
    maps: Floats
    output: Floats
    even: Floats
    odd: Floats
    carry: Floats
    biases: Floats
    head: Floats
    gradient: Floats


class State(NamedTuple):
    """Parameters and Adam's two moments, float32, padded with zeros to a multiple of 16."""

    p: Floats
    m: Floats
    v: Floats


def _aligned(size: int) -> Floats:
    """Float32 zeros that start at a multiple of 64 bytes."""
    raw = np.zeros(size + LANES, np.float32)
    start = (-raw.ctypes.data % 64) // 4
    return raw[start : start + size]


def padded(vector: Floats) -> Floats:
    """A copy with zeros up to the next multiple of 16."""
    copy = _aligned(-(-vector.size // LANES) * LANES)
    copy[: vector.size] = vector
    return copy


def workspace(shape: Shape, steps: int) -> Work:
    """Fresh buffers for sequences of this many steps."""
    unit, row = steps * BLOCK, shape.hidden * BLOCK
    head_sizes = sizes(shape)
    return Work(
        words=np.zeros(2 * unit, np.uint16),
        x=_aligned(unit * shape.inputs),
        target=_aligned(unit * shape.outputs),
        hidden=_aligned(shape.layers * (steps + 1) * row),
        gates=_aligned(shape.layers * steps * 4 * row),
        maps=_aligned(steps * head_sizes.maps),
        output=_aligned(unit * shape.outputs),
        even=_aligned(steps * row),
        odd=_aligned(steps * row),
        carry=_aligned(row),
        biases=_aligned(shape.layers * 2 * shape.hidden),
        head=_aligned(head_sizes.head),
        gradient=padded(np.zeros(shape.size, np.float32)),
    )


# ------------------------------------------------------------------ what a minibatch consists of


class Stages(NamedTuple):
    """The stages of a minibatch in their order; those from `gather` to `gru_gradient` are repeated for each block."""

    start: Any
    """start(p, work): zeroes, and what follows from the parameters alone. An evaluation needs it too."""
    gather: Any
    """gather(T, sequences, order, first, live, work): sequences order[first : first + live], as lines in lanes."""
    gru_forward: Any
    """gru_forward(T, p, work)"""
    head_forward: Any
    """head_forward(T, p, work): work.output."""
    error: Any
    """error(T, live, scale, work): the sum of squared errors; work.output becomes the gradient."""
    head_backward: Any
    """head_backward(T, p, work): down to the GRU in work.even, and this block's part of the head's gradient."""
    gru_backward: Any
    """gru_backward(k, T, p, work): the gates of layer k become their gradients before the activation; top layer first."""
    gru_gradient: Any
    """gru_gradient(k, T, work): this block's part of the gradient of layer k, right after its `gru_backward`."""
    finish: Any
    """finish(p, work): makes work.gradient complete."""
    update: Any
    """update(state, work, adam, step_size, root_scale): a step of Adam."""


@cache
def stages(shape: Shape) -> Stages:
    """The stages for networks of this shape."""
    I, H, O, LAYERS = shape.inputs, shape.hidden, shape.outputs, shape.layers
    ROW = H * BLOCK
    first, other, top = gru_layer(I, H, True), gru_layer(H, H, False), head(shape)
    FIRST_SIZE, OTHER_SIZE = 3 * H * (I + H) + 6 * H, 6 * H * H + 6 * H
    HEAD = FIRST_SIZE + (LAYERS - 1) * OTHER_SIZE
    first_sum_biases, first_forward, first_backward, first_gradient = first
    other_sum_biases, other_forward, other_backward, other_gradient = other
    map_start, map_forward, map_backward, map_finish = top
    squared_error, adam_step = CELLS.squared_error, CELLS.adam

    @njit(**INNER)
    def start(p, work):  # type: ignore[no-untyped-def]
        for e in range(0, work.gradient.size, LANES):
            store(work.gradient, e, zero())
        first_sum_biases(p, 0, work.biases)
        for k in range(1, LAYERS):
            other_sum_biases(p, FIRST_SIZE + (k - 1) * OTHER_SIZE, work.biases[k * 2 * H :])
        map_start(p, HEAD, work.head)

    @njit(**INNER)
    def gather(T, sequences, order, first, live, work):  # type: ignore[no-untyped-def]
        """Lanes beyond `live` are 0."""
        unit = T * BLOCK
        for lane in range(BLOCK):
            for t in range(T):
                if lane < live:
                    work.words[t * BLOCK + lane] = sequences.inputs[order[first + lane], t]
                    work.words[unit + t * BLOCK + lane] = sequences.outputs[order[first + lane], t]
                else:
                    work.words[t * BLOCK + lane] = 0
                    work.words[unit + t * BLOCK + lane] = 0
        for t in range(T):
            for v in range(0, BLOCK, LANES):
                for i in range(I):
                    store(work.x, (t * I + i) * BLOCK + v, bit_lanes(work.words, t * BLOCK + v, i))
                for i in range(O):
                    store(work.target, (t * O + i) * BLOCK + v, bit_lanes(work.words, unit + t * BLOCK + v, i))

    @njit(**INNER)
    def gru_forward(T, p, work):  # type: ignore[no-untyped-def]
        states, gates = (T + 1) * ROW, T * 4 * ROW
        first_forward(T, work.x, work.hidden, work.gates, p, 0, work.biases)
        for k in range(1, LAYERS):
            below, w = work.hidden[(k - 1) * states + ROW :], FIRST_SIZE + (k - 1) * OTHER_SIZE
            h, g = work.hidden[k * states :], work.gates[k * gates :]
            other_forward(T, below, h, g, p, w, work.biases[k * 2 * H :])

    @njit(**INNER)
    def head_forward(T, p, work):  # type: ignore[no-untyped-def]
        x = work.hidden[(LAYERS - 1) * (T + 1) * ROW + ROW :]
        map_forward(T, x, work.maps, work.output, p, HEAD, work.head)

    @njit(**INNER)
    def error(T, live, scale, work):  # type: ignore[no-untyped-def]
        """Order of the sum over the live lanes: t, output line, vector."""
        total = zero()
        for e in range(0, T * O * BLOCK, BLOCK):
            for v in range(0, BLOCK, LANES):
                y = keep(load(work.output, e + v), live - v)  # a dead lane has target 0, so its error is 0
                total, dy = squared_error(y, load(work.target, e + v), total, scale)
                store(work.output, e + v, dy)
        return tree_sum(total)

    @njit(**INNER)
    def head_backward(T, p, work):  # type: ignore[no-untyped-def]
        x = work.hidden[(LAYERS - 1) * (T + 1) * ROW + ROW :]
        map_backward(T, x, work.maps, work.output, work.even, work.odd, work.gradient, p, HEAD, work.head)

    @njit(**INNER)
    def gru_backward(k, T, p, work):  # type: ignore[no-untyped-def]
        h, g = work.hidden[k * (T + 1) * ROW :], work.gates[k * T * 4 * ROW :]
        dy, dx = (work.even, work.odd) if (LAYERS - k) % 2 == 1 else (work.odd, work.even)
        if k == 0:
            first_backward(T, h, g, dy, dx, work.carry, p, 0)
        else:
            other_backward(T, h, g, dy, dx, work.carry, p, FIRST_SIZE + (k - 1) * OTHER_SIZE)

    @njit(**INNER)
    def gru_gradient(k, T, work):  # type: ignore[no-untyped-def]
        h, g = work.hidden[k * (T + 1) * ROW :], work.gates[k * T * 4 * ROW :]
        if k == 0:
            first_gradient(T, work.x, h, g, work.gradient, 0)
        else:
            below = work.hidden[(k - 1) * (T + 1) * ROW + ROW :]
            other_gradient(T, below, h, g, work.gradient, FIRST_SIZE + (k - 1) * OTHER_SIZE)

    @njit(**INNER)
    def finish(p, work):  # type: ignore[no-untyped-def]
        map_finish(work.gradient, p, HEAD, work.head)

    @njit(**INNER)
    def update(state, work, adam, step_size, root_scale):  # type: ignore[no-untyped-def]
        for e in range(0, state.p.size, LANES):
            p, m, v = load(state.p, e), load(state.m, e), load(state.v, e)
            p, m, v = adam_step(p, m, v, load(work.gradient, e), adam, step_size, root_scale)
            store(state.p, e, p)
            store(state.m, e, m)
            store(state.v, e, v)

    return Stages(
        start, gather, gru_forward, head_forward, error, head_backward, gru_backward, gru_gradient, finish, update
    )


# ------------------------------------------------------------------ loops over blocks, compiled once for a shape


class Kernels(NamedTuple):
    """The compiled entry points for a shape."""

    train: Any
    evaluate: Any
    outputs: Any


@cache
def kernels(shape: Shape) -> Kernels:
    """Compile (or load from the cache) the entry points for this shape."""
    I, O, LAYERS = shape.inputs, shape.outputs, shape.layers
    (
        start, gather, gru_forward, head_forward, error, head_backward, gru_backward, gru_gradient, finish, update
    ) = stages(shape)  # fmt: skip
    compiled = cached_njit(f"{type(shape).__module__}.{shape} with Adam", **OPTIONS)

    @compiled
    def train(state, sequences, order, batch, factors, fixed, work, losses):  # type: ignore[no-untyped-def]
        """One epoch: `order.size // batch` minibatches in this order. losses[k] is the mean squared error of the k-th."""
        T = sequences.inputs.shape[1]
        for k in range(losses.size):
            total = np.float32(0.0)
            start(state.p, work)
            for done in range(0, batch, BLOCK):
                live = min(BLOCK, batch - done)
                gather(T, sequences, order, k * batch + done, live, work)
                gru_forward(T, state.p, work)
                head_forward(T, state.p, work)
                total += error(T, live, fixed.mean[1], work)
                head_backward(T, state.p, work)
                for layer in range(LAYERS - 1, -1, -1):
                    gru_backward(layer, T, state.p, work)
                    gru_gradient(layer, T, work)
            finish(state.p, work)
            update(state, work, fixed.adam, factors[k, 0], factors[k, 1])
            losses[k] = total * fixed.mean[0]

    @compiled
    def evaluate(p, sequences, order, work):  # type: ignore[no-untyped-def]
        """Sum of squared errors over the sequences order[0], order[1], ...: blocks are added in this order."""
        T = sequences.inputs.shape[1]
        total = np.float32(0.0)
        start(p, work)
        for done in range(0, order.size, BLOCK):
            live = min(BLOCK, order.size - done)
            gather(T, sequences, order, done, live, work)
            gru_forward(T, p, work)
            head_forward(T, p, work)
            total += error(T, live, np.float32(0.0), work)
        return total

    @compiled
    def outputs(p, x, y, work):  # type: ignore[no-untyped-def]
        """y [N, T, O] from x [N, T, I]."""
        T = x.shape[1]
        start(p, work)
        for done in range(0, x.shape[0], BLOCK):
            live = min(BLOCK, x.shape[0] - done)
            for t in range(T):
                for i in range(I):
                    for lane in range(BLOCK):
                        value = x[done + lane, t, i] if lane < live else np.float32(0.0)
                        work.x[(t * I + i) * BLOCK + lane] = value
            gru_forward(T, p, work)
            head_forward(T, p, work)
            for t in range(T):
                for i in range(O):
                    for lane in range(live):
                        y[done + lane, t, i] = work.output[(t * O + i) * BLOCK + lane]

    return Kernels(train, evaluate, outputs)
