"""The CUDA kernel: a thread block trains a network, from the order of its sequences to the stop rule, for whole epochs.

A block has 16 threads for each hidden unit. Thread (unit, lane) owns samples `lane` and `lane + 16` of every block of 32
samples, which lie side by side: sample s is at position 2 (s mod 16) + s / 16, so a half-warp reads the 32 samples of a
unit in one go, and both halves of a warp the same ones. The rows of the weights that belong to the thread's unit are in
registers during a pass, and so are the sums of gradients, one for each of its weights and its lane.

What must be kept between passes is in an arena in device memory, one for each network; flat, in this order, with the
layouts of `cpu.py` (T steps, H hidden units):

    x [T, I, 32]    target [T, O, 32]    hidden [layers, T + 1, H, 32]    gates [layers, T, 4, H, 32]: r, z, q, n
    maps [maps - 1, T, H, 32]    output [T, O, 32]    error [T, O, 32]: the gradient of the output
    even, odd [T, H, 32]    gradient [P]    head: see `_collapsed`

Shared memory carries what units tell each other within a step: the new state on the way up, the gradients of the gates on
the way down. Every function ends with a barrier, so that whatever comes next may read what it left.

The order of every sum is that of `docs/numerics.md`, and so the bits are those of the CPU.
"""

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tinymlds.kernels import rng
from tinymlds.kernels.cuda import (
    CELLS,
    RANDOM,
    SHARED_ALIGNMENT,
    cuda,
    exchange,
    fma,
    inlined,
    kernel,
    load,
    load2,
    load2_shared,
    separate,
    separated,
    store,
    store2,
    store2_shared,
)
from tinymlds.kernels.shape import Shape

LANES = 16
BLOCK = 2 * LANES

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_FLOAT = np.float32

# Columns of `results`: epochs done, the cause of a divergence (0: none), and the step it was found after.
DONE, CAUSE, STEP = range(3)
NOT_DIVERGED, LOSS, WEIGHTS, VALIDATION = range(4)
# Places in `fixed`.
BETA1, NOT_BETA1, BETA2, NOT_BETA2, EPS, LOSS_MEAN, ERROR_SCALE, EPOCH_MEAN, VALIDATION_MEAN, THRESHOLD = range(10)
# Rows of a network's state.
PARAMETERS, FIRST_MOMENT, SECOND_MOMENT, BEFORE = range(4)

_SHARED_FLOATS = 12 * 1024 - BLOCK
MAXIMAL_THREADS = 1024


def threads(shape: Shape) -> int:
    """Threads of a block."""
    return LANES * shape.hidden


def largest_hidden() -> int:
    """Hidden units that a thread block can have."""
    return MAXIMAL_THREADS // LANES


class Layout(NamedTuple):
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


def layout(shape: Shape, steps: int) -> Layout:
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
        0 if chain else _head_layout(shape).size,
    )
    starts = np.concatenate([[0], np.cumsum(sizes)])
    return Layout(*(int(start) for start in starts))


# ------------------------------------------------------------------ gradients of weights


def _divisor(size: int, most: int) -> int:
    """The largest number up to `most` that divides `size`."""
    return max(k for k in range(1, most + 1) if size % k == 0)


def _collector(count: int) -> tuple[int, Any]:
    """Sums over the 16 lanes of `count` numbers that each thread has, by the lane tree; how many of the sums each gets.

    A thread gives away half of its numbers for the other half of its neighbour's, and adds: 15/16 of an exchange for each
    number in place of four. Afterwards lane l has the sums of numbers l, l + 16, l + 32, ... in the first places of the
    array, which has 16 places for each of them.
    """
    parts = -(-count // LANES)

    @inlined
    def halve(a, lane, distance, size):  # type: ignore[no-untyped-def]
        upper = (lane & distance) != 0
        for m in range(size):
            first, second = a[2 * m], a[2 * m + 1]
            kept, given = (second, first) if upper else (first, second)
            a[m] = kept + exchange(given, distance)

    ONE, TWO, FOUR, EIGHT = (parts * LANES // 2**k for k in range(1, 5))

    @inlined
    def collect(a, lane):  # type: ignore[no-untyped-def]
        halve(a, lane, 1, ONE)
        halve(a, lane, 2, TWO)
        halve(a, lane, 4, FOUR)
        halve(a, lane, 8, EIGHT)

    return parts, collect


def _outer_gradient(gates: int, columns: int, hidden: int, da_step: int) -> Any:
    """dW[row, i] += sum over samples and steps from `first` on of da[t, row] x[t, i], for a row of each of `gates` gates.

    The gates lie at `da` and then every `hidden` units, but the last of three at `da_last`; their weights are `gate_size`
    apart in `out`. A thread that is not `live` takes part in the exchanges and adds nothing.
    """
    GATES, I, ROW = gates, columns, hidden * BLOCK
    COLUMNS = _divisor(I, 16)
    PARTS, collect = _collector(GATES * COLUMNS)
    SUMS, PAIRS = PARTS * LANES, 2 * GATES

    @inlined
    def gradient(first, T, arena, da, da_last, x, out, w, gate_size, lane, live):  # type: ignore[no-untyped-def]
        a = cuda.local.array(SUMS, _FLOAT)
        d = cuda.local.array(PAIRS, _FLOAT)
        for start in range(0, I, COLUMNS):
            for k in range(SUMS):
                a[k] = _ZERO
            for t in range(first, T):
                for gate in range(GATES):
                    at = da_last if gate == 2 else da + gate * ROW
                    d[2 * gate], d[2 * gate + 1] = load2(arena, at + t * da_step)
                for i in range(COLUMNS):
                    x0, x1 = load2(arena, x + (t * I + start + i) * BLOCK + 2 * lane)
                    for gate in range(GATES):
                        k = gate * COLUMNS + i
                        a[k] = fma(d[2 * gate + 1], x1, fma(d[2 * gate], x0, a[k]))
            collect(a, lane)
            for part in range(PARTS):
                k = part * LANES + lane
                if live and k < GATES * COLUMNS:
                    to = w + (k // COLUMNS) * gate_size + start + k % COLUMNS
                    store(out, to, load(out, to) + a[part])

    return gradient


@inlined
def _row_sum(T, arena, da, da_step, lane):  # type: ignore[no-untyped-def]
    """The sum over steps and samples of a row, the same in all lanes."""
    total = _ZERO
    for t in range(T):
        d0, d1 = load2(arena, da + t * da_step)
        total = (total + d0) + d1
    total = total + exchange(total, 1)
    total = total + exchange(total, 2)
    total = total + exchange(total, 4)
    return total + exchange(total, 8)


@inlined
def _add(out, to, value, wanted):  # type: ignore[no-untyped-def]
    """out[to] += value, where it is wanted."""
    if wanted:
        store(out, to, load(out, to) + value)


# ------------------------------------------------------------------ a GRU layer


class _GruLayer(NamedTuple):
    forward: Any
    backward: Any
    gradient: Any


@cache
def _gru_layer(inputs: int, hidden: int, first: bool) -> _GruLayer:
    """The passes of a GRU layer; `w` is where its parameters start in `p`, and the other offsets are those of its own rows.

    The first layer has nothing below it, so its backward pass leaves dx alone.
    """
    I, H, ROW, FIRST = inputs, hidden, hidden * BLOCK, first
    W_HIDDEN, B_INPUT = 3 * H * I, 3 * H * (I + H)
    B_HIDDEN = B_INPUT + 3 * H
    ALL, DOWN, GATES = I + H, 1 if FIRST else 3 * H, 4 * ROW
    UP_WEIGHTS, DOWN_WEIGHTS = 3 * ALL, 3 * H
    TWO_BUFFERS = 2 * GATES <= _SHARED_FLOATS
    gru_gates, gru_state, gru_backward = CELLS.gru_gates, CELLS.gru_state, CELLS.gru_backward
    gradient_x = _outer_gradient(3, I, H, GATES)
    gradient_h = _outer_gradient(3, H, H, GATES)

    @separated
    def forward(T, arena, x, h, g, p, w, shared, unit, lane):  # type: ignore[no-untyped-def]
        """h[t + 1] and the gates from x[t] and h[t]; h[0] = 0."""
        separate()
        weights = cuda.local.array(UP_WEIGHTS, _FLOAT)
        a = cuda.local.array(8, _FLOAT)  # r, z, n, q, both samples of each
        for gate in range(3):
            row = gate * H + unit
            for i in range(I):
                weights[gate * ALL + i] = load(p, w + row * I + i)
            for i in range(H):
                weights[gate * ALL + I + i] = load(p, w + W_HIDDEN + row * H + i)
        bias_r = load(p, w + B_INPUT + unit) + load(p, w + B_HIDDEN + unit)
        bias_z = load(p, w + B_INPUT + H + unit) + load(p, w + B_HIDDEN + H + unit)
        bias_n, bias_q = load(p, w + B_INPUT + 2 * H + unit), load(p, w + B_HIDDEN + 2 * H + unit)
        own = unit * BLOCK + 2 * lane
        h0, h1 = _ZERO, _ZERO
        store2(arena, h + own, h0, h1)
        for t in range(T):
            a[0], a[1], a[2], a[3] = bias_r, bias_r, bias_z, bias_z
            a[4], a[5], a[6], a[7] = bias_n, bias_n, bias_q, bias_q
            for i in range(I):
                x0, x1 = load2(arena, x + (t * I + i) * BLOCK + 2 * lane)
                for gate in range(3):
                    a[2 * gate] = fma(weights[gate * ALL + i], x0, a[2 * gate])
                    a[2 * gate + 1] = fma(weights[gate * ALL + i], x1, a[2 * gate + 1])
            if t > 0:  # h[0] = 0 adds nothing
                cuda.syncthreads()
                for i in range(H):
                    x0, x1 = load2_shared(shared, (t & 1) * ROW + i * BLOCK + 2 * lane)
                    for gate in range(3):
                        k = 6 if gate == 2 else 2 * gate
                        a[k] = fma(weights[gate * ALL + I + i], x0, a[k])
                        a[k + 1] = fma(weights[gate * ALL + I + i], x1, a[k + 1])
            r0, z0 = gru_gates(a[0], a[2])
            r1, z1 = gru_gates(a[1], a[3])
            n0, h0 = gru_state(r0, z0, a[4], a[6], h0)
            n1, h1 = gru_state(r1, z1, a[5], a[7], h1)
            gt = g + t * GATES + own
            store2(arena, gt, r0, r1)
            store2(arena, gt + ROW, z0, z1)
            store2(arena, gt + 2 * ROW, a[6], a[7])
            store2(arena, gt + 3 * ROW, n0, n1)
            store2(arena, h + (t + 1) * ROW + own, h0, h1)
            store2_shared(shared, ((t + 1) & 1) * ROW + own, h0, h1)
        cuda.syncthreads()

    @separated
    def backward(T, arena, h, g, dh, dx, p, w, shared, unit, lane):  # type: ignore[no-untyped-def]
        """Gates become their gradients before the activation; dx from dh; last step first."""
        separate()
        hidden_weights = cuda.local.array(DOWN_WEIGHTS, _FLOAT)
        input_weights = cuda.local.array(DOWN, _FLOAT)
        for k in range(3 * H):
            hidden_weights[k] = load(p, w + W_HIDDEN + k * H + unit)
            if not FIRST:
                input_weights[k] = load(p, w + k * I + unit)
        own = unit * BLOCK + 2 * lane
        c0, c1 = _ZERO, _ZERO  # dL/dh on its way back in time
        for back in range(T):
            t = T - 1 - back
            gt = g + t * GATES + own
            r0, r1 = load2(arena, gt)
            z0, z1 = load2(arena, gt + ROW)
            q0, q1 = load2(arena, gt + 2 * ROW)
            n0, n1 = load2(arena, gt + 3 * ROW)
            h0, h1 = load2(arena, h + t * ROW + own)
            d0, d1 = load2(arena, dh + t * ROW + own)
            r0, z0, n0, q0, c0 = gru_backward(r0, z0, n0, q0, h0, d0 + c0)
            r1, z1, n1, q1, c1 = gru_backward(r1, z1, n1, q1, h1, d1 + c1)
            store2(arena, gt, r0, r1)
            store2(arena, gt + ROW, z0, z1)
            store2(arena, gt + 2 * ROW, q0, q1)
            store2(arena, gt + 3 * ROW, n0, n1)
            buffer = (t & 1) * GATES if TWO_BUFFERS else 0
            if not TWO_BUFFERS:
                cuda.syncthreads()
            store2_shared(shared, buffer + own, r0, r1)
            store2_shared(shared, buffer + own + ROW, z0, z1)
            store2_shared(shared, buffer + own + 2 * ROW, q0, q1)
            store2_shared(shared, buffer + own + 3 * ROW, n0, n1)
            cuda.syncthreads()
            e0, e1 = _ZERO, _ZERO
            for k in range(2 * H):  # dL/dh[t]: dh' z + W_h^T (dar, daz, dq); dL/dx[t]: W_i^T (dar, daz, dan)
                d0, d1 = load2_shared(shared, buffer + k * BLOCK + 2 * lane)
                c0, c1 = fma(hidden_weights[k], d0, c0), fma(hidden_weights[k], d1, c1)
                if not FIRST:
                    e0, e1 = fma(input_weights[k], d0, e0), fma(input_weights[k], d1, e1)
            for k in range(2 * H, 3 * H):
                d0, d1 = load2_shared(shared, buffer + k * BLOCK + 2 * lane)
                c0, c1 = fma(hidden_weights[k], d0, c0), fma(hidden_weights[k], d1, c1)
                if not FIRST:
                    d0, d1 = load2_shared(shared, buffer + (k + H) * BLOCK + 2 * lane)
                    e0, e1 = fma(input_weights[k], d0, e0), fma(input_weights[k], d1, e1)
            if not FIRST:
                store2(arena, dx + t * ROW + own, e0, e1)
        cuda.syncthreads()

    @separated
    def gradient(T, arena, x, h, g, out, w, unit, lane):  # type: ignore[no-untyped-def]
        """Add this block's part of the gradient."""
        separate()
        own = g + unit * BLOCK + 2 * lane
        gradient_x(0, T, arena, own, own + 3 * ROW, x, out, w + unit * I, H * I, lane, True)
        gradient_h(1, T, arena, own, own + 2 * ROW, h, out, w + W_HIDDEN + unit * H, H * H, lane, True)  # h[0] = 0
        for gate in range(2):
            total = _row_sum(T, arena, own + gate * ROW, GATES, lane)
            _add(out, w + B_INPUT + gate * H + unit, total, lane == 0)
            _add(out, w + B_HIDDEN + gate * H + unit, total, lane == 0)
        _add(out, w + B_HIDDEN + 2 * H + unit, _row_sum(T, arena, own + 2 * ROW, GATES, lane), lane == 0)
        _add(out, w + B_INPUT + 2 * H + unit, _row_sum(T, arena, own + 3 * ROW, GATES, lane), lane == 0)
        cuda.syncthreads()

    return _GruLayer(forward, backward, gradient)


# ------------------------------------------------------------------ the head


@inlined
def _same(a):  # type: ignore[no-untyped-def]
    return a


@inlined
def _same_backward(u, du):  # type: ignore[no-untyped-def]
    return du


def _activation(name: str) -> tuple[Any, Any]:
    """u = f(a), and da from u and du."""
    return CELLS.activations.get(name, (_same, _same_backward))


class _LinearMap(NamedTuple):
    forward: Any
    backward: Any
    gradient: Any


@cache
def _linear_map(inputs: int, outputs: int, units: int, activation: str, below: str) -> _LinearMap:
    """y = f(W x + b) for every step, with f the activation, and `below` the one that x went through.

    W [outputs, inputs] lies at `w` of `p`, b at `b`; all rows of all steps are dealt out to the units of the block.
    """
    IN, OUT, UNITS, DY_STEP = inputs, outputs, units, outputs * BLOCK
    ROUNDS = -(-OUT // UNITS)
    activate, _ = _activation(activation)
    _, activate_backward = _activation(below)
    gradient_w = _outer_gradient(1, IN, OUT, DY_STEP)

    @separated
    def forward(T, arena, x, y, p, w, b, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        for k in range(unit, T * OUT, UNITS):
            t, j = k // OUT, k % OUT
            y0 = load(p, b + j)
            y1 = y0
            for i in range(IN):
                weight = load(p, w + j * IN + i)
                x0, x1 = load2(arena, x + (t * IN + i) * BLOCK + 2 * lane)
                y0, y1 = fma(weight, x0, y0), fma(weight, x1, y1)
            store2(arena, y + k * BLOCK + 2 * lane, activate(y0), activate(y1))
        cuda.syncthreads()

    @separated
    def backward(T, arena, x, dy, dx, p, w, unit, lane):  # type: ignore[no-untyped-def]
        """dx = W^T dy, where dy is the gradient before the activation; then dx goes through the activation below."""
        separate()
        for k in range(unit, T * IN, UNITS):
            t, j = k // IN, k % IN
            d0, d1 = _ZERO, _ZERO
            for i in range(OUT):
                weight = load(p, w + i * IN + j)
                y0, y1 = load2(arena, dy + (t * OUT + i) * BLOCK + 2 * lane)
                d0, d1 = fma(weight, y0, d0), fma(weight, y1, d1)
            u0, u1 = load2(arena, x + k * BLOCK + 2 * lane)
            store2(arena, dx + k * BLOCK + 2 * lane, activate_backward(u0, d0), activate_backward(u1, d1))
        cuda.syncthreads()

    @separated
    def gradient(T, arena, x, dy, out, w, b, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        for turn in range(ROUNDS):
            live = turn * UNITS + unit < OUT
            row = min(turn * UNITS + unit, OUT - 1)
            own = dy + row * BLOCK + 2 * lane
            gradient_w(0, T, arena, own, own, x, out, w + row * IN, 0, lane, live)
            _add(out, b + row, _row_sum(T, arena, own, DY_STEP, lane), live and lane == 0)
        cuda.syncthreads()

    return _LinearMap(forward, backward, gradient)


class _Head(NamedTuple):
    """The passes of the head; `w` is where its parameters start, in `p` and in the gradient `out`, `head` its scratch."""

    start: Any
    """start(p, w, arena, head, thread): before the blocks of a minibatch, and before an evaluation."""
    forward: Any
    """forward(T, arena, x, maps, y, p, w, head, unit, lane): y from x."""
    backward: Any
    """backward(T, arena, x, maps, dy, dx, other, p, w, head, out, unit, lane): dx from dy, and this block's gradient."""
    finish: Any
    """finish(p, w, arena, head, out, thread): after the blocks of a minibatch, what is still missing in the gradient."""


def _chain(shape: Shape) -> _Head:
    """Map after map, each with the activation but the last."""
    H, O, MAPS, ROW, MAP_SIZE = (
        shape.hidden,
        shape.outputs,
        shape.maps,
        shape.hidden * BLOCK,
        shape.hidden**2 + shape.hidden,
    )
    LAST, LAST_BIAS, BIAS = (MAPS - 1) * MAP_SIZE, (MAPS - 1) * MAP_SIZE + H * O, H * H
    EVEN_DOWN, FROM_MAPS = MAPS % 2 == 1, MAPS > 1
    first = _linear_map(H, H, H, shape.activation, "none")
    other = _linear_map(H, H, H, shape.activation, shape.activation)
    last = _linear_map(H, O, H, "none", shape.activation if FROM_MAPS else "none")
    map_forward, map_backward, map_gradient = other
    first_backward = first.backward
    last_forward, last_backward, last_gradient = last

    @separated
    def start(p, w, arena, head, thread):  # type: ignore[no-untyped-def]
        separate()
        pass

    @separated
    def forward(T, arena, x, maps, y, p, w, head, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        for k in range(MAPS - 1):
            u = maps + k * T * ROW
            map_forward(T, arena, x, u, p, w + k * MAP_SIZE, w + k * MAP_SIZE + BIAS, unit, lane)
            x = u
        last_forward(T, arena, x, y, p, w + LAST, w + LAST_BIAS, unit, lane)

    @separated
    def backward(T, arena, x, maps, dy, dx, other, p, w, head, out, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        # The gradients on their way down lie in dx and in `other` in turn, so that the last one is dx.
        above, below = (dx, other) if EVEN_DOWN else (other, dx)
        u = maps + (MAPS - 2) * T * ROW if FROM_MAPS else x
        last_gradient(T, arena, u, dy, out, w + LAST, w + LAST_BIAS, unit, lane)
        last_backward(T, arena, u, dy, above, p, w + LAST, unit, lane)
        for back in range(MAPS - 1):
            k = MAPS - 2 - back
            u = maps + (k - 1) * T * ROW if k > 0 else x
            map_gradient(T, arena, u, above, out, w + k * MAP_SIZE, w + k * MAP_SIZE + BIAS, unit, lane)
            if k > 0:
                map_backward(T, arena, u, above, below, p, w + k * MAP_SIZE, unit, lane)
            else:
                first_backward(T, arena, u, above, below, p, w, unit, lane)
            above, below = below, above

    @separated
    def finish(p, w, arena, head, out, thread):  # type: ignore[no-untyped-def]
        separate()
        pass

    return _Head(start, forward, backward, finish)


class _HeadLayout(NamedTuple):
    """Where what lies in the scratch of a head without an activation; see `head.py` of the CPU for the names."""

    products: int
    """S_0 ... S_{K-1}, [O, H] each."""
    constant: int
    """c, [O]."""
    sums: int
    """T_0 ... T_{K-1}, [O, H] each."""
    error_sums: int
    """s, [O]."""
    size: int


def _head_layout(shape: Shape) -> _HeadLayout:
    products = shape.maps * shape.outputs * shape.hidden
    sums = products + shape.outputs
    return _HeadLayout(0, products, sums, sums + products, sums + products + shape.outputs)


def _collapsed(shape: Shape) -> _Head:
    """All maps as one, y = S_0 x + c; the gradient of every map from T_0 = sum dy x^T and s = sum dy (see `head.py`)."""
    H, O, K, THREADS = shape.hidden, shape.outputs, shape.maps, threads(shape)
    S, C, SUMS, ERRORS, _ = _head_layout(shape)
    SIZE, MAP_SIZE, BIAS = O * H, H * H + H, H * H
    LAST, LAST_BIAS, LAST_S, LAST_SUMS = (
        (K - 1) * MAP_SIZE,
        (K - 1) * MAP_SIZE + O * H,
        S + (K - 1) * SIZE,
        SUMS + (K - 1) * SIZE,
    )
    map_forward, map_backward, map_gradient = _linear_map(H, O, H, "none", "none")

    @separated
    def start(p, w, arena, head, thread):  # type: ignore[no-untyped-def]
        separate()
        for e in range(thread, SIZE, THREADS):
            store(arena, head + LAST_S + e, load(p, w + LAST + e))
            store(arena, head + SUMS + e, _ZERO)
        for o in range(thread, O, THREADS):
            store(arena, head + ERRORS + o, _ZERO)
        cuda.syncthreads()
        for back in range(K - 1):
            above, wk = head + S + (K - 1 - back) * SIZE, w + (K - 2 - back) * MAP_SIZE
            for e in range(thread, SIZE, THREADS):  # S_{k-1} = S_k W_k
                o, j = e // H, e % H
                a = _ZERO
                for i in range(H):
                    a = fma(load(p, wk + i * H + j), load(arena, above + o * H + i), a)
                store(arena, above - SIZE + e, a)
            cuda.syncthreads()
        for o in range(thread, O, THREADS):
            c = load(p, w + LAST_BIAS + o)
            for back in range(K - 1):
                above, wk = head + S + (K - 1 - back) * SIZE, w + (K - 2 - back) * MAP_SIZE
                for i in range(H):
                    c = fma(load(p, wk + BIAS + i), load(arena, above + o * H + i), c)
            store(arena, head + C + o, c)
        cuda.syncthreads()

    @separated
    def forward(T, arena, x, maps, y, p, w, head, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        map_forward(T, arena, x, y, arena, head + S, head + C, unit, lane)

    @separated
    def backward(T, arena, x, maps, dy, dx, other, p, w, head, out, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        map_gradient(T, arena, x, dy, arena, head + SUMS, head + ERRORS, unit, lane)
        map_backward(T, arena, x, dy, dx, arena, head + S, unit, lane)

    @separated
    def finish(p, w, arena, head, out, thread):  # type: ignore[no-untyped-def]
        separate()
        for k in range(K - 1):
            sums, wk = head + SUMS + k * SIZE, w + k * MAP_SIZE
            for e in range(thread, SIZE, THREADS):  # T_k = s b_k^T + T_{k-1} W_k^T
                o, i = e // H, e % H
                a = fma(load(p, wk + BIAS + i), load(arena, head + ERRORS + o), _ZERO)
                for j in range(H):
                    a = fma(load(p, wk + i * H + j), load(arena, sums + o * H + j), a)
                store(arena, sums + SIZE + e, a)
            products = head + S + (k + 1) * SIZE
            for e in range(thread, BIAS, THREADS):  # dW_k = S_k^T T_{k-1}
                i, j = e // H, e % H
                a = _ZERO
                for o in range(O):
                    a = fma(load(arena, products + o * H + i), load(arena, sums + o * H + j), a)
                store(out, wk + e, a)
            for i in range(thread, H, THREADS):  # db_k = S_k^T s
                a = _ZERO
                for o in range(O):
                    a = fma(load(arena, products + o * H + i), load(arena, head + ERRORS + o), a)
                store(out, wk + BIAS + i, a)
            cuda.syncthreads()
        for e in range(thread, SIZE, THREADS):
            store(out, w + LAST + e, load(arena, head + LAST_SUMS + e))
        for o in range(thread, O, THREADS):
            store(out, w + LAST_BIAS + o, load(arena, head + ERRORS + o))
        cuda.syncthreads()

    return _Head(start, forward, backward, finish)


# ------------------------------------------------------------------ the kernel

ARGUMENTS = (
    ("int32", 2), ("int64", 0), ("int64", 0), *(("uint16", 3),) * 4, ("uint64", 2), ("uint64", 1), ("float32", 3),
    ("float32", 1), ("float32", 3), ("float32", 2), ("float32", 3), ("int32", 2),
)  # fmt: skip
"""Types of the arguments of `train`."""


@inlined
def _finite(x):  # type: ignore[no-untyped-def]
    return x - x == _ZERO


@cache
def train(shape: Shape) -> Any:
    """The kernel for networks of this shape, to be launched with a block for each row of `jobs`:

    train(jobs, T, batch, sequences..., keys, halves, factors, fixed, state, arenas, records, results), where

    jobs        int32 [n, 5]              the fields of a `problem.Job` for each thread block
    sequences   uint16 [tasks, N, T]      inputs and outputs to train on, inputs and outputs to validate with
    keys        uint64 [tasks, 2]         the key of a task's streams
    halves      uint64 [3]                `rng.halves` of the number of training sequences
    factors     float32 [epochs, steps, 2]  Adam's factors of each step
    fixed       float32 [10]              numbers of the run, in the places above
    state       float32 [places, 4, P]    weights, moments, and the weights before the latest epoch
    arenas      float32 [places, size]    see `Layout`
    records     float32 [n, epochs, 2]    training and validation loss of each epoch
    results     int32 [n, 3]              the columns above
    """
    I, H, O, LAYERS, P, THREADS = shape.inputs, shape.hidden, shape.outputs, shape.layers, shape.size, threads(shape)
    ROW = H * BLOCK
    chain = shape.activation != "none"
    MAPS = shape.maps - 1 if chain else 0
    GRADIENT = -(-P // BLOCK) * BLOCK
    FIRST_SIZE, OTHER_SIZE = 3 * H * (I + H) + 6 * H, 6 * H * H + 6 * H
    HEAD = FIRST_SIZE + (LAYERS - 1) * OTHER_SIZE
    SHARED = 8 * ROW if 8 * ROW <= _SHARED_FLOATS else 4 * ROW
    first_forward, first_backward, first_gradient = _gru_layer(I, H, True)
    other_forward, other_backward, other_gradient = _gru_layer(H, H, False)
    head_start, head_forward, head_backward, head_finish = _chain(shape) if chain else _collapsed(shape)
    squared_error, adam = CELLS.squared_error, CELLS.adam
    philox, feistel = RANDOM
    ORDER, LOW_WORD = np.uint64(rng.ORDER), np.uint64(0)

    @inlined
    def place_in_order(position, size, halves, keys, index, epoch):  # type: ignore[no-untyped-def]
        """The sequence that comes at this position of an epoch; see `rng.permutation`."""
        key = (keys[0], keys[1])
        a = philox((LOW_WORD, np.uint64(epoch), np.uint64(index), ORDER), key)
        b = philox((np.uint64(1), np.uint64(epoch), np.uint64(index), ORDER), key)
        round_keys = (a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3])
        x = feistel(np.uint64(position), round_keys, halves[0], halves[1], halves[2])
        while x >= np.uint64(size):
            x = feistel(x, round_keys, halves[0], halves[1], halves[2])
        return np.int32(x)

    @separated
    def gather(T, inputs, outputs, chosen, live, arena, x, target, thread):  # type: ignore[no-untyped-def]
        """The lines of the chosen sequences; lanes beyond `live` are 0."""
        separate()
        for e in range(thread, T * BLOCK, THREADS):
            t, sample = e // BLOCK, e % BLOCK
            at = 2 * (sample % LANES) + sample // LANES
            word, expected = 0, 0
            if sample < live:
                word, expected = inputs[chosen[sample], t], outputs[chosen[sample], t]
            for i in range(I):
                store(arena, x + (t * I + i) * BLOCK + at, _ONE if (word >> i) & 1 else _ZERO)
            for i in range(O):
                store(arena, target + (t * O + i) * BLOCK + at, _ONE if (expected >> i) & 1 else _ZERO)
        cuda.syncthreads()

    @separated
    def mistakes(T, live, scale, arena, output, target, error, shared, unit, lane):  # type: ignore[no-untyped-def]
        """The sum of squared errors, in every thread; `error` becomes the gradient of the output."""
        separate()
        for k in range(unit, T * O, H):
            at = k * BLOCK + 2 * lane
            y0, y1 = load2(arena, output + at)
            y0, y1 = y0 if lane < live else _ZERO, y1 if lane + LANES < live else _ZERO
            e0, e1 = load2(arena, target + at)
            store2(arena, output + at, y0, y1)
            store2(arena, error + at, squared_error(y0, e0, _ZERO, scale)[1], squared_error(y1, e1, _ZERO, scale)[1])
        cuda.syncthreads()
        if unit == 0:
            total = _ZERO
            for k in range(T * O):
                y0, y1 = load2(arena, output + k * BLOCK + 2 * lane)
                e0, e1 = load2(arena, target + k * BLOCK + 2 * lane)
                total = squared_error(y0, e0, total, scale)[0]
                total = squared_error(y1, e1, total, scale)[0]
            shared[lane] = total
        cuda.syncthreads()
        s = shared
        low = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
        total = low + (((s[8] + s[9]) + (s[10] + s[11])) + ((s[12] + s[13]) + (s[14] + s[15])))
        cuda.syncthreads()
        return total

    @separated
    def update(p, m, v, gradient, fixed, step_size, root_scale, thread):  # type: ignore[no-untyped-def]
        """A step of Adam."""
        separate()
        constants = (fixed[BETA1], fixed[NOT_BETA1], fixed[BETA2], fixed[NOT_BETA2], fixed[EPS])
        for e in range(thread, P, THREADS):
            pe, me, ve = adam(load(p, e), load(m, e), load(v, e), load(gradient, e), constants, step_size, root_scale)
            store(p, e, pe)
            store(m, e, me)
            store(v, e, ve)
        cuda.syncthreads()

    @kernel(THREADS)
    def train(  # type: ignore[no-untyped-def]
        jobs, T, batch, train_inputs, train_outputs, validation_inputs, validation_outputs, keys, halves, factors, fixed,
        state, arenas, records, results
    ):  # fmt: skip
        shared = cuda.shared.array(SHARED, _FLOAT, SHARED_ALIGNMENT)
        chosen = cuda.shared.array(BLOCK, np.int32)
        job, thread = cuda.blockIdx.x, cuda.threadIdx.x
        unit, lane = thread // LANES, thread % LANES
        place, task, index, first, epochs = jobs[job, 0], jobs[job, 1], jobs[job, 2], jobs[job, 3], jobs[job, 4]
        p, m, v = state[place, PARAMETERS], state[place, FIRST_MOMENT], state[place, SECOND_MOMENT]
        before = state[place, BEFORE]
        arena = arenas[place]
        x = 0
        target = x + T * I * BLOCK
        hidden = target + T * O * BLOCK
        gates = hidden + LAYERS * (T + 1) * ROW
        maps = gates + LAYERS * T * 4 * ROW
        output = maps + MAPS * T * ROW
        error = output + T * O * BLOCK
        even = error + T * O * BLOCK
        odd = even + T * ROW
        gradient_at = odd + T * ROW
        head = gradient_at + GRADIENT
        gradient = arena[gradient_at : gradient_at + P]
        train_size, validation_size = train_inputs.shape[1], validation_inputs.shape[1]
        steps = train_size // batch
        top = hidden + (LAYERS - 1) * (T + 1) * ROW + ROW
        done, cause, step = 0, 0, 0
        if first == 1:
            for e in range(thread, P, THREADS):
                store(m, e, _ZERO)
                store(v, e, _ZERO)
        while done < epochs and cause == 0:
            epoch = first + done
            for e in range(thread, P, THREADS):
                store(before, e, load(p, e))
            loss_sum = _ZERO
            for k in range(steps + 1):
                training = k < steps
                size = batch if training else validation_size
                for e in range(thread, P if training else 0, THREADS):
                    store(gradient, e, _ZERO)
                head_start(p, HEAD, arena, head, thread)
                total = _ZERO
                for begun in range(0, size, BLOCK):
                    live = min(BLOCK, size - begun)
                    if training:
                        if thread < live:
                            position = k * batch + begun + thread
                            chosen[thread] = place_in_order(position, train_size, halves, keys[task], index, epoch)
                        cuda.syncthreads()
                        gather(T, train_inputs[task], train_outputs[task], chosen, live, arena, x, target, thread)
                    else:
                        if thread < live:
                            chosen[thread] = begun + thread
                        cuda.syncthreads()
                        gather(T, validation_inputs[task], validation_outputs[task], chosen, live, arena, x, target, thread)
                    first_forward(T, arena, x, hidden, gates, p, 0, shared, unit, lane)
                    for layer in range(1, LAYERS):
                        h = hidden + layer * (T + 1) * ROW
                        w = FIRST_SIZE + (layer - 1) * OTHER_SIZE
                        below = h - T * ROW
                        other_forward(T, arena, below, h, gates + layer * T * 4 * ROW, p, w, shared, unit, lane)
                    head_forward(T, arena, top, maps, output, p, HEAD, head, unit, lane)
                    total += mistakes(T, live, fixed[ERROR_SCALE], arena, output, target, error, shared, unit, lane)
                    if training:
                        head_backward(T, arena, top, maps, error, even, odd, p, HEAD, head, gradient, unit, lane)
                        dh, dx = even, odd
                        for back in range(LAYERS - 1):
                            layer = LAYERS - 1 - back
                            h, g = hidden + layer * (T + 1) * ROW, gates + layer * T * 4 * ROW
                            w = FIRST_SIZE + (layer - 1) * OTHER_SIZE
                            other_backward(T, arena, h, g, dh, dx, p, w, shared, unit, lane)
                            other_gradient(T, arena, h - T * ROW, h, g, gradient, w, unit, lane)
                            dh, dx = dx, dh
                        first_backward(T, arena, hidden, gates, dh, dx, p, 0, shared, unit, lane)
                        first_gradient(T, arena, x, hidden, gates, gradient, 0, unit, lane)
                if training:
                    head_finish(p, HEAD, arena, head, gradient, thread)
                    update(p, m, v, gradient, fixed, factors[epoch - 1, k, 0], factors[epoch - 1, k, 1], thread)
                    loss = total * fixed[LOSS_MEAN]
                    loss_sum += loss
                    if cause == 0 and not _finite(loss):
                        cause, step = LOSS, k + 1
                    if k == steps - 1 and cause == 0:
                        broken = np.int32(0)
                        for e in range(thread, P, THREADS):
                            if not _finite(load(p, e)):
                                broken = np.int32(1)
                        if cuda.syncthreads_or(broken):
                            cause, step = WEIGHTS, steps
                    if cause != 0:
                        break
                else:
                    loss = total * fixed[VALIDATION_MEAN]
                    if not _finite(loss):
                        cause, step = VALIDATION, steps
            if cause == 0:
                if thread == 0:
                    records[job, done, 0] = loss_sum * fixed[EPOCH_MEAN]
                    records[job, done, 1] = loss
                done += 1
                if loss < fixed[THRESHOLD]:
                    break
            else:
                for e in range(thread, P, THREADS):
                    store(p, e, load(before, e))
        if thread == 0:
            results[job, DONE], results[job, CAUSE], results[job, STEP] = done, cause, step

    return train
