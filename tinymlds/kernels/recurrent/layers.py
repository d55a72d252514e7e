"""A GRU layer over one block of 32 samples: forward, backward, and its part of the gradient.

Layouts are those of `passes.py`: [T, rows, 32], flat, with gates [T, 4, H, 32] in the order r, z, q, n. Sums over inputs
run upwards from the bias; `docs/numerics.md` has the whole order.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from numba import njit

from tinymlds.kernels import BLOCK, LANES, divisor
from tinymlds.kernels.block import INNER, MATH, outer_gradient, row_sums, tiles_of_target
from tinymlds.kernels.lanes import load, store, tile, zero
from tinymlds.kernels.recurrent import LayerPlaces
from tinymlds.kernels.recurrent.cells import gru_cell

CELL = gru_cell(MATH)


class GruLayer(NamedTuple):
    """The passes of a GRU layer."""

    sum_biases: Callable[..., Any]
    forward: Callable[..., Any]
    backward: Callable[..., Any]
    gradient: Callable[..., Any]


@cache
def gru_layer(inputs: int, hidden: int, first: bool, places: LayerPlaces) -> GruLayer:
    """A GRU layer. `w` is where its parameters start; x, h, g, dh below are slices that start at its own rows.

    The first layer has nothing below it, so its backward pass leaves dx alone.
    """
    I, H, ROW = inputs, hidden, hidden * BLOCK
    DX_UNITS = 0 if first else I
    W_HIDDEN, B_INPUT, B_HIDDEN = places
    R, Z, Q, N = 0, ROW, 2 * ROW, 3 * ROW  # rows of a step in `gates`
    tiles = tiles_of_target()
    product = tile(divisor(H, tiles.units), tiles.vectors)
    UNITS, WIDTH = product.rows, product.columns * LANES
    outer_x = tile(divisor(H, tiles.outer_rows), divisor(I, tiles.outer_columns))
    outer_h = tile(divisor(H, tiles.outer_rows), divisor(H, tiles.outer_columns))
    p_zero, p_spread, p_store, p_load = product.zero, product.spread, product.store, product.load
    p_accumulate = product.accumulate
    gru_gates, gru_state, gru_backward = CELL

    @njit(**INNER)
    def sum_biases(p, w, sums):  # type: ignore[no-untyped-def]
        """sums [2 H] = b_i + b_h of r and z, as the sums of these gates start with both."""
        for i in range(2 * H):
            sums[i] = p[w + B_INPUT + i] + p[w + B_HIDDEN + i]

    @njit(**INNER)
    def forward(T, x, h, g, p, w, sums):  # type: ignore[no-untyped-def]
        """h[t + 1] and the gates from x[t] and h[t]; h[0] = 0."""
        for e in range(0, ROW, LANES):
            store(h, e, zero())
        for t in range(T):
            xt, ht, gt = t * I * BLOCK, t * ROW, t * 4 * ROW
            states = H if t > 0 else 0  # h[0] = 0 adds nothing
            for j in range(0, H, UNITS):
                for v in range(0, BLOCK, WIDTH):
                    at = gt + j * BLOCK + v
                    for k in range(2):  # r, z: b_i + b_h + W_i x + W_h h
                        row = k * H + j
                        a = p_spread(sums, row)
                        for i in range(I):
                            a = p_accumulate(a, p, w + row * I + i, I, x, xt + i * BLOCK + v)
                        for i in range(states):
                            a = p_accumulate(a, p, w + W_HIDDEN + row * H + i, H, h, ht + i * BLOCK + v)
                        p_store(g, at + k * ROW, BLOCK, a)
                    row = 2 * H + j
                    a = p_spread(p, w + B_INPUT + row)  # n, the part that is not reset
                    for i in range(I):
                        a = p_accumulate(a, p, w + row * I + i, I, x, xt + i * BLOCK + v)
                    p_store(g, at + N, BLOCK, a)
                    a = p_spread(p, w + B_HIDDEN + row)  # q
                    for i in range(states):
                        a = p_accumulate(a, p, w + W_HIDDEN + row * H + i, H, h, ht + i * BLOCK + v)
                    p_store(g, at + Q, BLOCK, a)
            # Two loops: in a single one the chain of operations of an element is so long that a core sees too few
            # independent ones at a time; it took a quarter longer (Xeon with AVX-512).
            for e in range(0, ROW, LANES):
                r, z = gru_gates(load(g, gt + R + e), load(g, gt + Z + e))
                store(g, gt + R + e, r)
                store(g, gt + Z + e, z)
            for e in range(0, ROW, LANES):
                n, new = gru_state(
                    load(g, gt + R + e), load(g, gt + Z + e), load(g, gt + N + e), load(g, gt + Q + e), load(h, ht + e)
                )
                store(g, gt + N + e, n)
                store(h, ht + ROW + e, new)

    @njit(**INNER)
    def backward(T, h, g, dh, dx, carry, p, w):  # type: ignore[no-untyped-def]
        """Gates become their gradients before the activation; dx from dh; last step first."""
        for e in range(0, ROW, LANES):
            store(carry, e, zero())
        for t in range(T - 1, -1, -1):
            ht, gt = t * ROW, t * 4 * ROW
            for e in range(0, ROW, LANES):
                dar, daz, dan, dq, through = gru_backward(
                    load(g, gt + R + e),
                    load(g, gt + Z + e),
                    load(g, gt + N + e),
                    load(g, gt + Q + e),
                    load(h, ht + e),
                    load(dh, ht + e) + load(carry, e),
                )
                store(g, gt + R + e, dar)
                store(g, gt + Z + e, daz)
                store(g, gt + N + e, dan)
                store(g, gt + Q + e, dq)
                store(carry, e, through)
            for j in range(0, H if t > 0 else 0, UNITS):  # dL/dh[t]: dh' z + W_h^T (dar, daz, dq)
                for v in range(0, BLOCK, WIDTH):
                    a = p_load(carry, j * BLOCK + v, BLOCK)
                    for k in range(3 * H):
                        a = p_accumulate(a, p, w + W_HIDDEN + k * H + j, 1, g, gt + k * BLOCK + v)
                    p_store(carry, j * BLOCK + v, BLOCK, a)
            for j in range(0, DX_UNITS, UNITS):  # dL/dx[t]: W_i^T (dar, daz, dan)
                for v in range(0, BLOCK, WIDTH):
                    a = p_zero()
                    for k in range(2 * H):
                        a = p_accumulate(a, p, w + k * I + j, 1, g, gt + k * BLOCK + v)
                    for k in range(2 * H, 3 * H):
                        a = p_accumulate(a, p, w + k * I + j, 1, g, gt + (k + H) * BLOCK + v)
                    p_store(dx, ht + j * BLOCK + v, BLOCK, a)

    gradient_x = outer_gradient(outer_x, I, I, H, 4 * ROW, I * BLOCK)
    gradient_h = outer_gradient(outer_h, H, H, H, 4 * ROW, ROW)
    gradient_b = row_sums(H, 4 * ROW)

    @njit(**INNER)
    def gradient(T, x, h, g, out, w):  # type: ignore[no-untyped-def]
        """Add this block's part of the gradient, gate by gate, as the rows of a gate are in the cache then."""
        for k in range(4):
            da, row = g[k * ROW :], min(k, 2) * H  # k: r, z, q, n; q and n share the rows of n
            if k != 2:
                gradient_x(0, T, da, x, out, w + row * I)
            if k != 3:
                gradient_h(1, T, da, h, out, w + W_HIDDEN + row * H)  # h[0] = 0
            gradient_b(T, da, out, w + row + (B_HIDDEN if k == 2 else B_INPUT), w + row + B_HIDDEN if k < 2 else -1)

    return GruLayer(sum_biases, forward, backward, gradient)
