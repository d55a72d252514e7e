"""The loops of the CPU around the passes of an architecture: minibatch after minibatch, a block of samples at a time.

A block of 32 samples (two vectors of 16 lanes) goes through everything, from its input lines to its part of the gradient,
before the next block starts, so that its activations stay in the cache. The order of every sum is fixed by
`docs/numerics.md`.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numba import njit

from tinymlds.kernels import BLOCK, LANES
from tinymlds.kernels.block import INNER, MATH, OPTIONS
from tinymlds.kernels.cache import cached_njit, is_compiled
from tinymlds.kernels.lanes import bit_lanes, keep, load, store, tree_sum, zero
from tinymlds.kernels.problem import Floats, Words

if TYPE_CHECKING:
    from tinymlds.architectures import Architecture
    from tinymlds.kernels.optimizers import Optimizer


class Work(NamedTuple):
    """Buffers for one block, flat. What a call leaves means nothing to the next."""

    words: Words
    """uint16 [2, T, 32]: input and output lines as bits."""
    x: Floats
    """[T, I, 32]: input lines."""
    target: Floats
    """[T, O, 32]: output lines."""
    output: Floats
    """[T, O, 32]: outputs, then their gradient."""
    gradient: Floats
    """[P], padded with zeros to a multiple of 16."""
    own: Any
    """The buffers of the architecture, as its kernels name them."""


class State(NamedTuple):
    """Parameters and the optimizer's memory of them, float32, padded with zeros to a multiple of 16."""

    p: Floats
    m: Floats
    v: Floats
    scratch: Floats
    """What an optimizer with kernels of its own needs beside them."""


class Passes(NamedTuple):
    """The passes of an architecture over a block, which its kernels give; called by compiled code."""

    start: Any
    """start(p, work): before the blocks of a minibatch, and before an evaluation."""
    forward: Any
    """forward(T, p, work): work.output from work.x."""
    backward: Any
    """backward(T, p, work): from the gradient in work.output, this block's part of work.gradient is added."""
    finish: Any
    """finish(p, work): after the blocks of a minibatch, completes work.gradient."""


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


def workspace(architecture: Architecture, steps: int) -> Work:
    """Fresh buffers for sequences of this many steps."""
    unit = steps * BLOCK
    sizes = _kernels_of(architecture).buffers(architecture, steps)
    return Work(
        words=np.zeros(2 * unit, np.uint16),
        x=_aligned(unit * architecture.inputs),
        target=_aligned(unit * architecture.outputs),
        output=_aligned(unit * architecture.outputs),
        gradient=padded(np.zeros(architecture.size, np.float32)),
        own=type(sizes)(*map(_aligned, sizes)),
    )


def initial_state(architecture: Architecture, optimizer: Optimizer, weights: Floats) -> State:
    """The state before the first step, from initial weights [P]."""
    nothing, own = np.zeros_like(weights), optimizer.kernels
    scratch = import_module(own["cpu"]).scratch(architecture) if own else _aligned(0)
    return State(padded(weights), padded(nothing), padded(nothing), scratch)


def _kernels_of(architecture: Architecture) -> Any:
    """The module with the CPU kernels of an architecture: `passes(architecture)` and `buffers(architecture, steps)`."""
    return import_module(architecture.kernels["cpu"])


# ------------------------------------------------------------------ what surrounds the passes


class Surroundings(NamedTuple):
    """The functions around the passes, for one number of input and of output lines."""

    clear: Any
    """clear(work): the gradient becomes zero."""
    gather: Any
    """gather(T, sequences, order, first, live, work): sequences order[first : first + live], as lines in lanes."""
    error: Any
    """error(T, live, scale, work): the sum of squared errors; work.output becomes the gradient."""


@cache
def surroundings(inputs: int, outputs: int) -> Surroundings:
    """Return the functions around the passes of any architecture with these lines."""
    I, O = inputs, outputs
    squared_error = MATH.squared_error

    @njit(**INNER, inline="always")
    def clear(work):  # type: ignore[no-untyped-def]
        for e in range(0, work.gradient.size, LANES):
            store(work.gradient, e, zero())

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
    def error(T, live, scale, work):  # type: ignore[no-untyped-def]
        """Order of the sum over the live lanes: t, output line, vector."""
        total = zero()
        for e in range(0, T * O * BLOCK, BLOCK):
            for v in range(0, BLOCK, LANES):
                y = keep(load(work.output, e + v), live - v)  # a dead lane has target 0, so its error is 0
                total, dy = squared_error(y, load(work.target, e + v), total, scale)
                store(work.output, e + v, dy)
        return tree_sum(total)

    return Surroundings(clear, gather, error)


@cache
def update_of(architecture: Architecture, optimizer: type[Optimizer]) -> Any:
    """update(state, work, constants, factors): a step of this optimizer."""
    if optimizer.kernels:
        return import_module(optimizer.kernels["cpu"]).update(architecture)
    step = njit(**INNER)(optimizer.step(MATH))

    @njit(**INNER)
    def update(state, work, constants, factors):  # type: ignore[no-untyped-def]
        for e in range(0, state.p.size, LANES):
            p, m, v = load(state.p, e), load(state.m, e), load(state.v, e)
            p, m, v = step(p, m, v, load(work.gradient, e), constants, factors)
            store(state.p, e, p)
            store(state.m, e, m)
            store(state.v, e, v)

    return update


# ------------------------------------------------------------------ entry points, compiled once for an architecture


@cache
def passes_of(architecture: Architecture) -> Passes:
    """The passes of an architecture. Two kinds with equal sizes are not equal, so each gets its own."""
    found: Passes = _kernels_of(architecture).passes(architecture)
    return found


def _identity(*parts: Any) -> str:
    """Name the kinds that a kernel is compiled for, as no other kinds are named."""
    kinds = (part if isinstance(part, type) else type(part) for part in parts)
    return " ".join(f"{kind.__module__}.{part}" for kind, part in zip(kinds, parts, strict=True))


@cache
def training(architecture: Architecture, optimizer: type[Optimizer]) -> Any:
    """Compile (or load from the cache) the loop that trains networks of this architecture with this optimizer."""
    clear, gather, error = surroundings(architecture.inputs, architecture.outputs)
    start, forward, backward, finish = passes_of(architecture)
    update = update_of(architecture, optimizer)

    @cached_njit(_identity(architecture, optimizer), **OPTIONS)
    def train(state, sequences, order, batch, factors, fixed, work, losses):  # type: ignore[no-untyped-def]
        """One epoch: `order.size // batch` minibatches in this order. losses[k] is the mean squared error of the k-th."""
        T = sequences.inputs.shape[1]
        for k in range(losses.size):
            total = np.float32(0.0)
            clear(work)
            start(state.p, work)
            for done in range(0, batch, BLOCK):
                live = min(BLOCK, batch - done)
                gather(T, sequences, order, k * batch + done, live, work)
                forward(T, state.p, work)
                total += error(T, live, fixed.mean[1], work)
                backward(T, state.p, work)
            finish(state.p, work)
            update(state, work, fixed.optimizer, factors[k])
            losses[k] = total * fixed.mean[0]

    return train


def compiles(architecture: Architecture, optimizer: type[Optimizer]) -> bool:
    """Whether this loop is not in the cache on the disk, so that the first network waits for the compiler."""
    return not is_compiled(training(architecture, optimizer))


class Evaluation(NamedTuple):
    """The compiled loops that need no optimizer."""

    evaluate: Any
    outputs: Any


@cache
def evaluation(architecture: Architecture) -> Evaluation:
    """Compile (or load from the cache) the loops that compute losses and outputs of this architecture."""
    I, O = architecture.inputs, architecture.outputs
    _, gather, error = surroundings(I, O)
    start, forward, _, _ = passes_of(architecture)
    compiled = cached_njit(_identity(architecture), **OPTIONS)

    @compiled
    def evaluate(p, sequences, order, work):  # type: ignore[no-untyped-def]
        """Sum of squared errors over the sequences order[0], order[1], ...: blocks are added in this order."""
        T = sequences.inputs.shape[1]
        total = np.float32(0.0)
        start(p, work)
        for done in range(0, order.size, BLOCK):
            live = min(BLOCK, order.size - done)
            gather(T, sequences, order, done, live, work)
            forward(T, p, work)
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
            forward(T, p, work)
            for t in range(T):
                for i in range(O):
                    for lane in range(live):
                        y[done + lane, t, i] = work.output[(t * O + i) * BLOCK + lane]

    return Evaluation(evaluate, outputs)
