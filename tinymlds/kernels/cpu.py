"""The CPU backend: Numba loops around the cells, a block of samples at a time.

A block of 32 samples (two vectors of 16 lanes) goes through everything, from its input lines to its part of the gradient,
before the next block starts, so that its activations stay in the cache. All buffers are flat; T steps, H hidden units:

    words   [2, T, 32]              uint16: input and output lines as bits
    x       [T, I, 32]              input lines              target  [T, O, 32]        output lines
    hidden  [layers, T + 1, H, 32]  h; row 0 of T + 1 is h = 0
    gates   [layers, T, 4, H, 32]   r, z, q, n; the backward pass puts dar, daz, dq, dan in their place
    maps    [maps - 1, T, H, 32]    outputs of the hidden linear maps
    output  [T, O, 32]              outputs, then their gradient
    even, odd [T, H, 32]            gradients on their way down, in turn      carry [H, 32]   dL/dh on its way back in time

The order of every sum is fixed by `docs/numerics.md`. The layers themselves are in `layers.py`.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numba import njit

from tinymlds.kernels.cache import cached_njit
from tinymlds.kernels.layers import BLOCK, CELLS, OPTIONS, gru_layer, linear_map
from tinymlds.kernels.problem import Adam, Floats, Problem, Sequences, Shape, Words, adam_factors, check_arithmetic
from tinymlds.kernels.simd import LANES, bit_lanes, keep, load, store, tree_sum, zero


class Work(NamedTuple):
    """Buffers for one block; their shapes stand at the top of this file. What a call leaves in them means nothing."""

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
    gradient: Floats


class State(NamedTuple):
    """Parameters and Adam's two moments, float32, padded with zeros to a multiple of 16."""

    p: Floats
    m: Floats
    v: Floats


class Constants(NamedTuple):
    """Numbers that stay the same over a run, as float32 arrays (a scalar would be a float64)."""

    adam: Floats
    """beta1, 1 - beta1, beta2, 1 - beta2, eps."""
    mean: Floats
    """[0]: 1 / (batch T O), which makes a sum a mean; [1]: 2 / (batch T O), which makes an error a gradient."""


def _aligned(size: int) -> Floats:
    """Float32 zeros that start at a multiple of 64 bytes."""
    raw = np.zeros(size + LANES, np.float32)
    start = (-raw.ctypes.data % 64) // 4
    return raw[start : start + size]


def _padded(vector: Floats) -> Floats:
    """A copy with zeros up to the next multiple of 16."""
    copy = _aligned(-(-vector.size // LANES) * LANES)
    copy[: vector.size] = vector
    return copy


def workspace(shape: Shape, steps: int) -> Work:
    """Fresh buffers for sequences of this many steps."""
    unit, row = steps * BLOCK, shape.hidden * BLOCK
    return Work(
        words=np.zeros(2 * unit, np.uint16),
        x=_aligned(unit * shape.inputs),
        target=_aligned(unit * shape.outputs),
        hidden=_aligned(shape.layers * (steps + 1) * row),
        gates=_aligned(shape.layers * steps * 4 * row),
        maps=_aligned((shape.maps - 1) * steps * row),
        output=_aligned(unit * shape.outputs),
        even=_aligned(steps * row),
        odd=_aligned(steps * row),
        carry=_aligned(row),
        gradient=_padded(np.zeros(shape.size, np.float32)),
    )


def constants(problem: Problem) -> Constants:
    """The constants of a problem, each rounded once from float64."""
    beta1, beta2, eps = problem.adam
    terms = problem.batch * problem.train.inputs.shape[1] * problem.shape.outputs
    return Constants(
        np.array([beta1, 1.0 - beta1, beta2, 1.0 - beta2, eps], np.float32),
        np.array([1.0 / terms, 2.0 / terms], np.float32),
    )


# ------------------------------------------------------------------ a network over one block


class Passes(NamedTuple):
    """The passes of a whole network over the block in `Work`."""

    forward: Any
    backward: Any


@cache
def passes(shape: Shape) -> Passes:
    """Forward and backward through all layers of this shape."""
    H, LAYERS, MAPS = shape.hidden, shape.layers, shape.maps
    ROW = H * BLOCK
    first, other = gru_layer(shape.inputs, H, True), gru_layer(H, H, False)
    hidden_map, last_map = linear_map(H, H, shape.activation), linear_map(H, shape.outputs, "none")
    FIRST_SIZE, OTHER_SIZE = 3 * H * (shape.inputs + H) + 6 * H, 6 * H * H + 6 * H
    MAP_SIZE = H * H + H
    HEAD = FIRST_SIZE + (LAYERS - 1) * OTHER_SIZE
    LAST = HEAD + (MAPS - 1) * MAP_SIZE
    first_forward, first_backward, first_gradient = first
    other_forward, other_backward, other_gradient = other
    map_forward, map_backward, map_gradient = hidden_map
    last_forward, last_backward, last_gradient = last_map

    @njit(**OPTIONS)
    def forward(T, p, work):  # type: ignore[no-untyped-def]
        """work.output from work.x."""
        unit, states, gates = T * ROW, (T + 1) * ROW, T * 4 * ROW
        first_forward(T, work.x, work.hidden, work.gates, p, 0)
        for k in range(1, LAYERS):
            below, w = work.hidden[(k - 1) * states + ROW :], FIRST_SIZE + (k - 1) * OTHER_SIZE
            other_forward(T, below, work.hidden[k * states :], work.gates[k * gates :], p, w)
        x = work.hidden[(LAYERS - 1) * states + ROW :]
        for k in range(MAPS - 1):
            map_forward(T, x, work.maps[k * unit :], p, HEAD + k * MAP_SIZE)
            x = work.maps[k * unit :]
        last_forward(T, x, work.output, p, LAST)

    @njit(**OPTIONS)
    def backward(T, p, work):  # type: ignore[no-untyped-def]
        """Add this block's part to work.gradient, from the gradient of the outputs in work.output."""
        unit, states, gates = T * ROW, (T + 1) * ROW, T * 4 * ROW
        dy, dx = work.even, work.odd
        top = work.hidden[(LAYERS - 1) * states + ROW :]
        x = work.maps[(MAPS - 2) * unit :] if MAPS > 1 else top
        last_backward(T, work.output, work.output, dy, p, LAST)
        last_gradient(T, x, work.output, work.gradient, LAST)
        for k in range(MAPS - 2, -1, -1):
            x = work.maps[(k - 1) * unit :] if k > 0 else top
            map_backward(T, work.maps[k * unit :], dy, dx, p, HEAD + k * MAP_SIZE)
            map_gradient(T, x, dy, work.gradient, HEAD + k * MAP_SIZE)
            dy, dx = dx, dy
        for k in range(LAYERS - 1, 0, -1):
            h, g, w = work.hidden[k * states :], work.gates[k * gates :], FIRST_SIZE + (k - 1) * OTHER_SIZE
            other_backward(T, h, g, dy, dx, work.carry, p, w)
            other_gradient(T, work.hidden[(k - 1) * states + ROW :], h, g, work.gradient, w)
            dy, dx = dx, dy
        first_backward(T, work.hidden, work.gates, dy, dx, work.carry, p, 0)
        first_gradient(T, work.x, work.hidden, work.gates, work.gradient, 0)

    return Passes(forward, backward)


# ------------------------------------------------------------------ loops over blocks, compiled once for a shape


class Kernels(NamedTuple):
    """The compiled entry points for a shape."""

    train: Any
    evaluate: Any
    outputs: Any


@cache
def kernels(shape: Shape) -> Kernels:
    """Compile (or load from the cache) the entry points for this shape."""
    I, O = shape.inputs, shape.outputs
    forward, backward = passes(shape)
    squared_error, adam = CELLS.squared_error, CELLS.adam
    compiled = cached_njit(repr(shape), **OPTIONS)

    @njit(**OPTIONS)
    def gather(T, sequences, order, first, live, work):  # type: ignore[no-untyped-def]
        """Spread the bits of sequences order[first : first + live] over the lanes; lanes beyond `live` are 0."""
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

    @njit(**OPTIONS)
    def error(T, live, scale, work):  # type: ignore[no-untyped-def]
        """Sum of squared errors of the live lanes; work.output becomes the gradient. Order: t, output line, vector."""
        total = zero()
        for e in range(0, T * O * BLOCK, BLOCK):
            for v in range(0, BLOCK, LANES):
                y = keep(load(work.output, e + v), live - v)  # a dead lane has target 0, so its error is 0
                total, dy = squared_error(y, load(work.target, e + v), total, scale)
                store(work.output, e + v, dy)
        return tree_sum(total)

    @compiled
    def train(state, sequences, order, batch, factors, fixed, work, losses):  # type: ignore[no-untyped-def]
        """One epoch: `order.size // batch` minibatches in this order. losses[k] is the mean squared error of the k-th."""
        T = sequences.inputs.shape[1]
        for k in range(losses.size):
            for e in range(0, work.gradient.size, LANES):
                store(work.gradient, e, zero())
            total = np.float32(0.0)
            for start in range(0, batch, BLOCK):
                live = min(BLOCK, batch - start)
                gather(T, sequences, order, k * batch + start, live, work)
                forward(T, state.p, work)
                total += error(T, live, fixed.mean[1], work)
                backward(T, state.p, work)
            losses[k] = total * fixed.mean[0]
            for e in range(0, state.p.size, LANES):
                p, m, v = adam(
                    load(state.p, e),
                    load(state.m, e),
                    load(state.v, e),
                    load(work.gradient, e),
                    fixed.adam,
                    factors[k, 0],
                    factors[k, 1],
                )
                store(state.p, e, p)
                store(state.m, e, m)
                store(state.v, e, v)

    @compiled
    def evaluate(p, sequences, order, work):  # type: ignore[no-untyped-def]
        """Sum of squared errors over the sequences order[0], order[1], ...: blocks are added in this order."""
        T = sequences.inputs.shape[1]
        total = np.float32(0.0)
        for start in range(0, order.size, BLOCK):
            live = min(BLOCK, order.size - start)
            gather(T, sequences, order, start, live, work)
            forward(T, p, work)
            total += error(T, live, np.float32(0.0), work)
        return total

    @compiled
    def outputs(p, x, y, work):  # type: ignore[no-untyped-def]
        """y [N, T, O] from x [N, T, I]."""
        T = x.shape[1]
        for start in range(0, x.shape[0], BLOCK):
            live = min(BLOCK, x.shape[0] - start)
            for t in range(T):
                for i in range(I):
                    for lane in range(BLOCK):
                        value = x[start + lane, t, i] if lane < live else np.float32(0.0)
                        work.x[(t * I + i) * BLOCK + lane] = value
            forward(T, p, work)
            for t in range(T):
                for i in range(O):
                    for lane in range(live):
                        y[start + lane, t, i] = work.output[(t * O + i) * BLOCK + lane]

    return Kernels(train, evaluate, outputs)


# ------------------------------------------------------------------ the backend


def _everything(sequences: Sequences) -> npt.NDArray[np.uint32]:
    return np.arange(sequences.inputs.shape[0], dtype=np.uint32)


class CpuNetwork:
    """A network in training on the CPU; see `backend.Network`."""

    def __init__(self, problem: Problem, weights: Floats) -> None:
        self._problem = problem
        self._kernels = kernels(problem.shape)
        self._work = workspace(problem.shape, problem.train.inputs.shape[1])
        self._fixed = constants(problem)
        self._state = State(_padded(weights), _padded(np.zeros_like(weights)), _padded(np.zeros_like(weights)))
        self._powers = (1.0, 1.0)

    @property
    def weights(self) -> Floats:
        return self._state.p[: self._problem.shape.size].copy()

    def epoch(self, order: npt.NDArray[np.uint32], lr: float) -> Floats:
        losses = np.empty(order.size // self._problem.batch, np.float32)
        factors, self._powers = adam_factors(self._problem.adam, lr, self._powers, losses.size)
        self._kernels.train(
            self._state, self._problem.train, order, self._problem.batch, factors, self._fixed, self._work, losses
        )
        return losses

    def validation_loss(self) -> np.float32:
        return _mean_squared_error(self._problem.shape, self._state.p, self._problem.validation, self._work)


def _mean_squared_error(shape: Shape, padded_weights: Floats, sequences: Sequences, work: Work) -> np.float32:
    total = kernels(shape).evaluate(padded_weights, sequences, _everything(sequences), work)
    return np.float32(total) * np.float32(1.0 / (sequences.inputs.size * shape.outputs))


class CpuBackend:
    """Trains on the CPU, one network at a time in one thread; see `backend.Backend`."""

    name = "cpu"

    def prepare(self, shape: Shape) -> None:
        """Compile or load the kernels of this shape by training on one sequence of zeros; see `backend.Backend`."""
        check_arithmetic()
        nothing = Sequences(np.zeros((1, 1), np.uint16), np.zeros((1, 1), np.uint16))
        network = self.network(Problem(shape, nothing, nothing, 1, Adam()), np.zeros(shape.size, np.float32))
        network.epoch(np.zeros(1, np.uint32), 0.0)
        network.validation_loss()

    def network(self, problem: Problem, weights: Floats) -> CpuNetwork:
        return CpuNetwork(problem, weights)

    def loss(self, shape: Shape, weights: Floats, sequences: Sequences) -> np.float32:
        return _mean_squared_error(shape, _padded(weights), sequences, workspace(shape, sequences.inputs.shape[1]))

    def outputs(self, shape: Shape, weights: Floats, inputs: Floats) -> Floats:
        result = np.empty((*inputs.shape[:2], shape.outputs), np.float32)
        x = np.ascontiguousarray(inputs, np.float32)
        kernels(shape).outputs(_padded(weights), x, result, workspace(shape, inputs.shape[1]))
        return result
