"""A recurrent layer over one block of 32 samples: forward, backward, and its part of the gradient, for any cell.

Layouts are those of `passes.py`: [T, rows, 32], flat, with the sums of a step [T, sums, H, 32] in the order of
`cells.SUMS`; they become the gates, and then their gradients. Sums over inputs run upwards from the bias;
`docs/numerics.md` has the whole order.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from numba import njit

from tinymlds.kernels import BLOCK, LANES, divisor
from tinymlds.kernels.block import INNER, MATH, outer_gradient, row_sums, tiles_of_target
from tinymlds.kernels.lanes import load, store, tile, zero
from tinymlds.kernels.recurrent import LayerPlaces
from tinymlds.kernels.recurrent.cells import SUMS, gru_cell, lstm_cell, rnn_cell


class Layer(NamedTuple):
    """The passes of a layer."""

    sum_biases: Callable[..., Any]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    gradient: Callable[..., Any]


# ------------------------------------------------------------------ what a cell does with the sums of a step


class Elements(NamedTuple):
    """The loops of a cell over the units and samples of a block; `row` is H * 32, the distance of two sums."""

    forward: Callable[..., Any]
    """forward(row, g, gt, h, c, ht): gates from the sums at g[gt], and the next state, at h[ht + row] and c[ht + row]."""
    backward: Callable[..., Any]
    """backward(row, g, gt, h, c, ht, dh, carry): gates become their gradients; carry [2, row]: dL/dh, without what goes
    through the sums, and dL/dc."""


@cache
def _gru() -> Elements:
    R, Z, Q, N = range(4)
    gru_gates, gru_state, gru_backward = gru_cell(MATH)

    # Two loops: in a single one the chain of operations of an element is so long that a core sees too few independent ones
    # at a time; it took a quarter longer (Xeon with AVX-512).
    @njit(**INNER)
    def forward(row, g, gt, h, c, ht):  # type: ignore[no-untyped-def]
        for e in range(0, row, LANES):
            r, z = gru_gates(load(g, gt + R * row + e), load(g, gt + Z * row + e))
            store(g, gt + R * row + e, r)
            store(g, gt + Z * row + e, z)
        for e in range(0, row, LANES):
            at = gt + e
            r, z, q, n = load(g, at + R * row), load(g, at + Z * row), load(g, at + Q * row), load(g, at + N * row)
            n, new = gru_state(r, z, n, q, load(h, ht + e))
            store(g, at + N * row, n)
            store(h, ht + row + e, new)

    @njit(**INNER)
    def backward(row, g, gt, h, c, ht, dh, carry):  # type: ignore[no-untyped-def]
        for e in range(0, row, LANES):
            at, d = gt + e, load(dh, ht + e) + load(carry, e)
            r, z, q, n = load(g, at + R * row), load(g, at + Z * row), load(g, at + Q * row), load(g, at + N * row)
            dar, daz, dan, dq, through = gru_backward(r, z, n, q, load(h, ht + e), d)
            store(g, at + R * row, dar)
            store(g, at + Z * row, daz)
            store(g, at + N * row, dan)
            store(g, at + Q * row, dq)
            store(carry, e, through)

    return Elements(forward, backward)


@cache
def _lstm() -> Elements:
    I, F, G, O = range(4)
    lstm_gates, lstm_state, lstm_backward = lstm_cell(MATH)

    @njit(**INNER)
    def forward(row, g, gt, h, c, ht):  # type: ignore[no-untyped-def]
        for e in range(0, row, LANES):
            at = gt + e
            gates = lstm_gates(load(g, at + I * row), load(g, at + F * row), load(g, at + G * row), load(g, at + O * row))
            store(g, at + I * row, gates[0])
            store(g, at + F * row, gates[1])
            store(g, at + G * row, gates[2])
            store(g, at + O * row, gates[3])
        for e in range(0, row, LANES):
            at = gt + e
            i, f, new, o = load(g, at + I * row), load(g, at + F * row), load(g, at + G * row), load(g, at + O * row)
            cell, state = lstm_state(i, f, new, o, load(c, ht + e))
            store(c, ht + row + e, cell)
            store(h, ht + row + e, state)

    @njit(**INNER)
    def backward(row, g, gt, h, c, ht, dh, carry):  # type: ignore[no-untyped-def]
        for e in range(0, row, LANES):
            at, d = gt + e, load(dh, ht + e) + load(carry, e)
            i, f, new, o = load(g, at + I * row), load(g, at + F * row), load(g, at + G * row), load(g, at + O * row)
            before, after = load(c, ht + e), load(c, ht + row + e)
            dai, daf, dag, dao, dc = lstm_backward(i, f, new, o, before, after, d, load(carry, row + e))
            store(g, at + I * row, dai)
            store(g, at + F * row, daf)
            store(g, at + G * row, dag)
            store(g, at + O * row, dao)
            store(carry, e, zero())
            store(carry, row + e, dc)

    return Elements(forward, backward)


@cache
def _rnn() -> Elements:
    rnn_state, rnn_backward = rnn_cell(MATH)

    @njit(**INNER)
    def forward(row, g, gt, h, c, ht):  # type: ignore[no-untyped-def]
        for e in range(0, row, LANES):
            store(h, ht + row + e, rnn_state(load(g, gt + e)))

    @njit(**INNER)
    def backward(row, g, gt, h, c, ht, dh, carry):  # type: ignore[no-untyped-def]
        for e in range(0, row, LANES):
            d = load(dh, ht + e) + load(carry, e)
            store(g, gt + e, rnn_backward(load(h, ht + row + e), d))
            store(carry, e, zero())

    return Elements(forward, backward)


ELEMENTS = {"gru": _gru, "lstm": _lstm, "rnn": _rnn}


# ------------------------------------------------------------------ the layer


@cache
def layer(cell: str, inputs: int, hidden: int, first: bool, places: LayerPlaces) -> Layer:
    """A layer of this cell. `w` is where its parameters start; x, h, c, g, dh below are slices that start at its own rows.

    The first layer has nothing below it, so its backward pass leaves dx alone.
    """
    I, H, ROW, COUNT = inputs, hidden, hidden * BLOCK, len(SUMS[cell])
    GATE, OF_INPUT, OF_STATE = zip(*SUMS[cell], strict=True)
    DX_UNITS = 0 if first else I
    W_HIDDEN, B_INPUT, B_HIDDEN = places
    tiles = tiles_of_target()
    product = tile(divisor(H, tiles.units), tiles.vectors)
    UNITS, WIDTH = product.rows, product.columns * LANES
    outer_x = tile(divisor(H, tiles.outer_rows), divisor(I, tiles.outer_columns))
    outer_h = tile(divisor(H, tiles.outer_rows), divisor(H, tiles.outer_columns))
    p_zero, p_spread, p_store, p_load = product.zero, product.spread, product.store, product.load
    p_accumulate = product.accumulate
    elements_forward, elements_backward = ELEMENTS[cell]()

    @njit(**INNER)
    def sum_biases(p, w, sums):  # type: ignore[no-untyped-def]
        """sums [sums, H]: where they start, with b_i, b_h or both."""
        for s in range(COUNT):
            for i in range(H):
                b_i, b_h = p[w + B_INPUT + GATE[s] * H + i], p[w + B_HIDDEN + GATE[s] * H + i]
                sums[s * H + i] = b_i + b_h if OF_INPUT[s] and OF_STATE[s] else b_i if OF_INPUT[s] else b_h

    @njit(**INNER)
    def forward(T, x, h, c, g, p, w, sums):  # type: ignore[no-untyped-def]
        """h[t + 1], c[t + 1] and the gates from x[t], h[t] and c[t]; h[0] = c[0] = 0."""
        for e in range(0, ROW, LANES):
            store(h, e, zero())
        for e in range(0, min(ROW, c.size), LANES):
            store(c, e, zero())
        for t in range(T):
            xt, ht, gt = t * I * BLOCK, t * ROW, t * COUNT * ROW
            for j in range(0, H, UNITS):
                for v in range(0, BLOCK, WIDTH):
                    for s in range(COUNT):
                        row = GATE[s] * H + j
                        a = p_spread(sums, s * H + j)
                        for i in range(I if OF_INPUT[s] else 0):
                            a = p_accumulate(a, p, w + row * I + i, I, x, xt + i * BLOCK + v)
                        for i in range(H if OF_STATE[s] and t > 0 else 0):  # h[0] = 0 adds nothing
                            a = p_accumulate(a, p, w + W_HIDDEN + row * H + i, H, h, ht + i * BLOCK + v)
                        p_store(g, gt + s * ROW + j * BLOCK + v, BLOCK, a)
            elements_forward(ROW, g, gt, h, c, ht)

    @njit(**INNER)
    def backward(T, h, c, g, dh, dx, carry, p, w):  # type: ignore[no-untyped-def]
        """Gates become their gradients before the activation; dx from dh; last step first."""
        for e in range(0, carry.size, LANES):
            store(carry, e, zero())
        for t in range(T - 1, -1, -1):
            ht, gt = t * ROW, t * COUNT * ROW
            elements_backward(ROW, g, gt, h, c, ht, dh, carry)
            for j in range(0, H if t > 0 else 0, UNITS):  # dL/dh[t]: what the cell left, and W_h^T times the gradients
                for v in range(0, BLOCK, WIDTH):
                    a = p_load(carry, j * BLOCK + v, BLOCK)
                    for s in range(COUNT):
                        for k in range(H if OF_STATE[s] else 0):
                            at = w + W_HIDDEN + (GATE[s] * H + k) * H + j
                            a = p_accumulate(a, p, at, 1, g, gt + (s * H + k) * BLOCK + v)
                    p_store(carry, j * BLOCK + v, BLOCK, a)
            for j in range(0, DX_UNITS, UNITS):  # dL/dx[t]: W_i^T times the gradients
                for v in range(0, BLOCK, WIDTH):
                    a = p_zero()
                    for s in range(COUNT):
                        for k in range(H if OF_INPUT[s] else 0):
                            at = w + (GATE[s] * H + k) * I + j
                            a = p_accumulate(a, p, at, 1, g, gt + (s * H + k) * BLOCK + v)
                    p_store(dx, ht + j * BLOCK + v, BLOCK, a)

    gradient_x = outer_gradient(outer_x, I, I, H, COUNT * ROW, I * BLOCK)
    gradient_h = outer_gradient(outer_h, H, H, H, COUNT * ROW, ROW)
    gradient_b = row_sums(H, COUNT * ROW)

    @njit(**INNER)
    def gradient(T, x, h, g, out, w):  # type: ignore[no-untyped-def]
        """Add this block's part of the gradient, sum by sum, as the rows of a gate are in the cache then."""
        for s in range(COUNT):
            da, row = g[s * ROW :], GATE[s] * H
            if OF_INPUT[s]:
                gradient_x(0, T, da, x, out, w + row * I)
            if OF_STATE[s]:
                gradient_h(1, T, da, h, out, w + W_HIDDEN + row * H)  # h[0] = 0
            first_bias = B_INPUT if OF_INPUT[s] else B_HIDDEN
            gradient_b(T, da, out, w + row + first_bias, w + row + B_HIDDEN if OF_INPUT[s] and OF_STATE[s] else -1)

    return Layer(sum_biases, forward, backward, gradient)
