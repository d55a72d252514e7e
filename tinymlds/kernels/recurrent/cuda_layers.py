"""A GRU layer."""

from functools import cache
from typing import Any, NamedTuple

from tinymlds.kernels import BLOCK
from tinymlds.kernels.cuda import MATH, cuda, fma, load, load2, load2_shared, separate, separated, store2, store2_shared
from tinymlds.kernels.gpu import layout
from tinymlds.kernels.gpu.layout import FLOAT, ZERO
from tinymlds.kernels.gpu.sums import add_to, outer_gradient, row_sum
from tinymlds.kernels.recurrent import LayerPlaces
from tinymlds.kernels.recurrent.cells import gru_cell

CELL = gru_cell(MATH)


class GruLayer(NamedTuple):
    """The passes of a layer."""

    forward: Any
    backward: Any
    gradient: Any


@cache
def gru_layer(inputs: int, hidden: int, first: bool, places: LayerPlaces) -> GruLayer:
    """The passes of a GRU layer; `w` is where its parameters start in `p`, and the other offsets are those of its own rows.

    The first layer has nothing below it, so its backward pass leaves dx alone.
    """
    I, H, ROW, FIRST = inputs, hidden, hidden * BLOCK, first
    W_HIDDEN, B_INPUT, B_HIDDEN = places
    ALL, DOWN, GATES = I + H, 1 if FIRST else 3 * H, 4 * ROW
    UP_WEIGHTS, DOWN_WEIGHTS = 3 * ALL, 3 * H
    TWO_BUFFERS = 2 * GATES <= layout.SHARED_FLOATS
    gru_gates, gru_state, gru_backward = CELL
    gradient_x = outer_gradient(3, I, H, GATES)
    gradient_h = outer_gradient(3, H, H, GATES)

    @separated
    def forward(T, arena, x, h, g, p, w, shared, unit, lane):  # type: ignore[no-untyped-def]
        """h[t + 1] and the gates from x[t] and h[t]; h[0] = 0."""
        separate()
        weights = cuda.local.array(UP_WEIGHTS, FLOAT)
        a = cuda.local.array(8, FLOAT)  # r, z, n, q, both samples of each
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
        h0, h1 = ZERO, ZERO
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
        hidden_weights = cuda.local.array(DOWN_WEIGHTS, FLOAT)
        input_weights = cuda.local.array(DOWN, FLOAT)
        for k in range(3 * H):
            hidden_weights[k] = load(p, w + W_HIDDEN + k * H + unit)
            if not FIRST:
                input_weights[k] = load(p, w + k * I + unit)
        own = unit * BLOCK + 2 * lane
        c0, c1 = ZERO, ZERO  # dL/dh on its way back in time
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
            e0, e1 = ZERO, ZERO
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
            total = row_sum(T, arena, own + gate * ROW, GATES, lane)
            add_to(out, w + B_INPUT + gate * H + unit, total, lane == 0)
            add_to(out, w + B_HIDDEN + gate * H + unit, total, lane == 0)
        add_to(out, w + B_HIDDEN + 2 * H + unit, row_sum(T, arena, own + 2 * ROW, GATES, lane), lane == 0)
        add_to(out, w + B_INPUT + 2 * H + unit, row_sum(T, arena, own + 3 * ROW, GATES, lane), lane == 0)
        cuda.syncthreads()

    return GruLayer(forward, backward, gradient)
