"""A recurrent layer of any cell."""

from functools import cache
from typing import Any, NamedTuple

from tinymlds.kernels import BLOCK
from tinymlds.kernels.cuda import (
    MATH,
    cuda,
    fma,
    inlined,
    load,
    load2,
    load2_shared,
    separate,
    separated,
    store2,
    store2_shared,
)
from tinymlds.kernels.gpu import layout
from tinymlds.kernels.gpu.layout import FLOAT, ZERO
from tinymlds.kernels.gpu.sums import add_to, outer_gradient, row_sum
from tinymlds.kernels.recurrent import LayerPlaces
from tinymlds.kernels.recurrent.cells import STATES, SUMS, gru_cell, lstm_cell, rnn_cell


class Layer(NamedTuple):
    """The passes of a layer."""

    forward: Any
    backward: Any
    gradient: Any


class Elements(NamedTuple):
    """What a cell does with the sums of a step in `a` [sums, 2], for one of the two samples of a thread."""

    forward: Any
    """forward(a, k, h, c): the gates in place of their sums; the new h and c."""
    backward: Any
    """backward(a, k, h, new_h, c, new_c, dh, dc): gradients in place of the gates; what is left of dh, and the new dc."""


@cache
def _gru() -> Elements:
    gru_gates, gru_state, gru_backward = gru_cell(MATH)

    @inlined
    def forward(a, k, h, c):  # type: ignore[no-untyped-def]
        a[k], a[2 + k] = gru_gates(a[k], a[2 + k])
        a[6 + k], h = gru_state(a[k], a[2 + k], a[6 + k], a[4 + k], h)
        return h, c

    @inlined
    def backward(a, k, h, new_h, c, new_c, dh, dc):  # type: ignore[no-untyped-def]
        dar, daz, dan, dq, dh = gru_backward(a[k], a[2 + k], a[6 + k], a[4 + k], h, dh)
        a[k], a[2 + k], a[4 + k], a[6 + k] = dar, daz, dq, dan
        return dh, dc

    return Elements(forward, backward)


@cache
def _lstm() -> Elements:
    lstm_gates, lstm_state, lstm_backward = lstm_cell(MATH)

    @inlined
    def forward(a, k, h, c):  # type: ignore[no-untyped-def]
        i, f, g, o = lstm_gates(a[k], a[2 + k], a[4 + k], a[6 + k])
        a[k], a[2 + k], a[4 + k], a[6 + k] = i, f, g, o
        c, h = lstm_state(i, f, g, o, c)
        return h, c

    @inlined
    def backward(a, k, h, new_h, c, new_c, dh, dc):  # type: ignore[no-untyped-def]
        dai, daf, dag, dao, dc = lstm_backward(a[k], a[2 + k], a[4 + k], a[6 + k], c, new_c, dh, dc)
        a[k], a[2 + k], a[4 + k], a[6 + k] = dai, daf, dag, dao
        return ZERO, dc

    return Elements(forward, backward)


@cache
def _rnn() -> Elements:
    rnn_state, rnn_backward = rnn_cell(MATH)

    @inlined
    def forward(a, k, h, c):  # type: ignore[no-untyped-def]
        return rnn_state(a[k]), c

    @inlined
    def backward(a, k, h, new_h, c, new_c, dh, dc):  # type: ignore[no-untyped-def]
        a[k] = rnn_backward(new_h, dh)
        return ZERO, dc

    return Elements(forward, backward)


ELEMENTS = {"gru": _gru, "lstm": _lstm, "rnn": _rnn}


@cache
def layer(cell: str, inputs: int, hidden: int, first: bool, places: LayerPlaces) -> Layer:
    """The passes of a layer; `w` is where its parameters start in `p`, and the other offsets are those of its own rows.

    The first layer has nothing below it, so its backward pass leaves dx alone.
    """
    I, H, ROW, FIRST, COUNT, CELLS = inputs, hidden, hidden * BLOCK, first, len(SUMS[cell]), STATES[cell] > 1
    GATE, OF_INPUT, OF_STATE = zip(*SUMS[cell], strict=True)
    W_HIDDEN, B_INPUT, B_HIDDEN = places
    GATES = 1 + max(GATE)
    SPLIT = COUNT - GATES  # 1 for a GRU, whose last gate has a sum for the state and, after it, one for the input
    ALL, DOWN, STEP = I + H, 1 if FIRST else GATES * H, COUNT * ROW
    UP_WEIGHTS, DOWN_WEIGHTS, NUMBERS = GATES * ALL, GATES * H, 2 * COUNT
    TWO_BUFFERS = 2 * STEP <= layout.SHARED_FLOATS
    elements_forward, elements_backward = ELEMENTS[cell]()
    gradient_x = outer_gradient(GATES, I, H, STEP)
    gradient_h = outer_gradient(GATES, H, H, STEP)
    LAST = GATES - 1

    @separated
    def forward(T, arena, x, h, c, g, p, w, shared, unit, lane):  # type: ignore[no-untyped-def]
        """h[t + 1], c[t + 1] and the gates from x[t], h[t] and c[t]; h[0] = c[0] = 0."""
        separate()
        weights = cuda.local.array(UP_WEIGHTS, FLOAT)
        biases = cuda.local.array(COUNT, FLOAT)
        a = cuda.local.array(NUMBERS, FLOAT)  # both samples of each sum
        for gate in range(GATES):
            row = gate * H + unit
            for i in range(I):
                weights[gate * ALL + i] = load(p, w + row * I + i)
            for i in range(H):
                weights[gate * ALL + I + i] = load(p, w + W_HIDDEN + row * H + i)
            b_i, b_h = load(p, w + B_INPUT + row), load(p, w + B_HIDDEN + row)
            if SPLIT and gate == LAST:
                biases[gate], biases[gate + 1] = b_h, b_i
            else:
                biases[gate] = b_i + b_h
        own = unit * BLOCK + 2 * lane
        h0, h1, c0, c1 = ZERO, ZERO, ZERO, ZERO
        store2(arena, h + own, h0, h1)
        if CELLS:
            store2(arena, c + own, c0, c1)
        for t in range(T):
            for s in range(COUNT):
                a[2 * s], a[2 * s + 1] = biases[s], biases[s]
            for i in range(I):
                x0, x1 = load2(arena, x + (t * I + i) * BLOCK + 2 * lane)
                for gate in range(GATES):
                    k = 2 * (gate + 1 if SPLIT and gate == LAST else gate)
                    a[k] = fma(weights[gate * ALL + i], x0, a[k])
                    a[k + 1] = fma(weights[gate * ALL + i], x1, a[k + 1])
            if t > 0:  # h[0] = 0 adds nothing
                cuda.syncthreads()
                for i in range(H):
                    x0, x1 = load2_shared(shared, (t & 1) * ROW + i * BLOCK + 2 * lane)
                    for gate in range(GATES):
                        a[2 * gate] = fma(weights[gate * ALL + I + i], x0, a[2 * gate])
                        a[2 * gate + 1] = fma(weights[gate * ALL + I + i], x1, a[2 * gate + 1])
            h0, c0 = elements_forward(a, 0, h0, c0)
            h1, c1 = elements_forward(a, 1, h1, c1)
            for s in range(COUNT):
                store2(arena, g + t * STEP + s * ROW + own, a[2 * s], a[2 * s + 1])
            if CELLS:
                store2(arena, c + (t + 1) * ROW + own, c0, c1)
            store2(arena, h + (t + 1) * ROW + own, h0, h1)
            store2_shared(shared, ((t + 1) & 1) * ROW + own, h0, h1)
        cuda.syncthreads()

    @separated
    def backward(T, arena, h, c, g, dh, dx, p, w, shared, unit, lane):  # type: ignore[no-untyped-def]
        """Gates become their gradients before the activation; dx from dh; last step first."""
        separate()
        hidden_weights = cuda.local.array(DOWN_WEIGHTS, FLOAT)
        input_weights = cuda.local.array(DOWN, FLOAT)
        a = cuda.local.array(NUMBERS, FLOAT)
        for k in range(GATES * H):
            hidden_weights[k] = load(p, w + W_HIDDEN + k * H + unit)
            if not FIRST:
                input_weights[k] = load(p, w + k * I + unit)
        own = unit * BLOCK + 2 * lane
        e0, e1, dc0, dc1 = ZERO, ZERO, ZERO, ZERO  # dL/dh and dL/dc on their way back in time
        c0, c1, new_c0, new_c1 = ZERO, ZERO, ZERO, ZERO
        for back in range(T):
            t = T - 1 - back
            for s in range(COUNT):
                a[2 * s], a[2 * s + 1] = load2(arena, g + t * STEP + s * ROW + own)
            h0, h1 = load2(arena, h + t * ROW + own)
            new_h0, new_h1 = load2(arena, h + (t + 1) * ROW + own)
            if CELLS:
                c0, c1 = load2(arena, c + t * ROW + own)
                new_c0, new_c1 = load2(arena, c + (t + 1) * ROW + own)
            d0, d1 = load2(arena, dh + t * ROW + own)
            e0, dc0 = elements_backward(a, 0, h0, new_h0, c0, new_c0, d0 + e0, dc0)
            e1, dc1 = elements_backward(a, 1, h1, new_h1, c1, new_c1, d1 + e1, dc1)
            buffer = (t & 1) * STEP if TWO_BUFFERS else 0
            if not TWO_BUFFERS:
                cuda.syncthreads()
            for s in range(COUNT):
                store2(arena, g + t * STEP + s * ROW + own, a[2 * s], a[2 * s + 1])
                store2_shared(shared, buffer + own + s * ROW, a[2 * s], a[2 * s + 1])
            cuda.syncthreads()
            x0, x1 = ZERO, ZERO
            for k in range(
                GATES * H
            ):  # dL/dh[t]: what the cell left, and W_h^T times gradients; dL/dx[t]: W_i^T times them
                d0, d1 = load2_shared(shared, buffer + k * BLOCK + 2 * lane)
                e0, e1 = fma(hidden_weights[k], d0, e0), fma(hidden_weights[k], d1, e1)
                if not FIRST:
                    if SPLIT and k >= LAST * H:
                        d0, d1 = load2_shared(shared, buffer + (k + H) * BLOCK + 2 * lane)
                    x0, x1 = fma(input_weights[k], d0, x0), fma(input_weights[k], d1, x1)
            if not FIRST:
                store2(arena, dx + t * ROW + own, x0, x1)
        cuda.syncthreads()

    @separated
    def gradient(T, arena, x, h, g, out, w, unit, lane):  # type: ignore[no-untyped-def]
        """Add this block's part of the gradient."""
        separate()
        own = g + unit * BLOCK + 2 * lane
        gradient_x(0, T, arena, own, own + (COUNT - 1) * ROW, x, out, w + unit * I, H * I, lane, True)
        gradient_h(1, T, arena, own, own + LAST * ROW, h, out, w + W_HIDDEN + unit * H, H * H, lane, True)  # h[0] = 0
        for s in range(COUNT):
            total, row = row_sum(T, arena, own + s * ROW, STEP, lane), GATE[s] * H + unit
            add_to(out, w + B_INPUT + row, total, lane == 0 and OF_INPUT[s])
            add_to(out, w + B_HIDDEN + row, total, lane == 0 and OF_STATE[s])
        cuda.syncthreads()

    return Layer(forward, backward, gradient)
