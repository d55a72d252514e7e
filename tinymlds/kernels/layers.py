"""One layer over one block of 32 samples: forward, backward, and its part of the gradient.

Layouts are those of `cpu.py`: [T, rows, 32], flat, with gates [T, 4, H, 32] in the order r, z, q, n. Sums over inputs
run upwards from the bias; sums over steps and samples of the gradients run over t, then the two vectors of the block, in
16 lanes, which a fixed tree adds up. `docs/numerics.md` has the whole order.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from numba import njit

from tinymlds.kernels import cells, simd
from tinymlds.kernels.cache import target_features
from tinymlds.kernels.simd import LANES, load, store, tile, zero

VECTORS = 2
BLOCK = VECTORS * LANES
"""Samples in a block. It is part of the numerics: the sums over samples are taken block by block."""

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
CELLS = cells.bind(njit(**OPTIONS), cells.Primitives(simd.fma, simd.clamp, simd.sqrt, simd.unless_negative))


class Tiles(NamedTuple):
    """Sizes of register tiles, chosen to fill the registers of a target without spilling. They change no bit."""

    units: int
    """rows of a matrix product (times two vectors)."""
    outer_rows: int
    outer_columns: int


def _tiles() -> Tiles:
    """32 registers of 16 lanes (AVX-512), or 16 of 8 lanes (AVX2; 32 of 4 lanes on ARM hold as much)."""
    return Tiles(12, 6, 4) if "+avx512f" in target_features() else Tiles(3, 3, 2)


def _divisor(size: int, wanted: int) -> int:
    """The largest number up to `wanted` that divides `size`."""
    return max(k for k in range(1, wanted + 1) if size % k == 0)


class Stage(NamedTuple):
    """The three passes of a layer."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    gradient: Callable[..., Any]


@cache
def gru_layer(inputs: int, hidden: int, first: bool) -> Stage:
    """A GRU layer. `w` is where its parameters start; x, h, g, dh below are slices that start at its own rows.

    The first layer has nothing below it, so its backward pass leaves dx alone.
    """
    I, H, ROW = inputs, hidden, hidden * BLOCK
    DX_UNITS = 0 if first else I
    W_HIDDEN, B_INPUT = 3 * H * I, 3 * H * (I + H)
    B_HIDDEN = B_INPUT + 3 * H
    R, Z, Q, N = 0, ROW, 2 * ROW, 3 * ROW  # rows of a step in `gates`
    tiles = _tiles()
    product = tile(_divisor(H, tiles.units), VECTORS)
    UNITS = product.rows
    outer_x = tile(_divisor(H, tiles.outer_rows), _divisor(I, tiles.outer_columns))
    outer_h = tile(_divisor(H, tiles.outer_rows), _divisor(H, tiles.outer_columns))
    biases = tile(_divisor(H, 4), 1)
    p_zero, p_spread, p_add, p_store, p_load = product.zero, product.spread, product.add, product.store, product.load
    p_accumulate = product.accumulate
    gru_forward, gru_backward = CELLS.gru_forward, CELLS.gru_backward

    @njit(**OPTIONS)
    def forward(T, x, h, g, p, w):  # type: ignore[no-untyped-def]
        """h[t + 1] and the gates from x[t] and h[t]; h[0] = 0."""
        for e in range(0, ROW, LANES):
            store(h, e, zero())
        for t in range(T):
            xt, ht, gt = t * I * BLOCK, t * ROW, t * 4 * ROW
            for j in range(0, H, UNITS):
                for k in range(2):  # r, z: b_i + b_h + W_i x + W_h h
                    row = k * H + j
                    a = p_add(p_spread(p, w + B_INPUT + row), p_spread(p, w + B_HIDDEN + row))
                    for i in range(I):
                        a = p_accumulate(a, p, w + row * I + i, I, x, xt + i * BLOCK)
                    for i in range(H):
                        a = p_accumulate(a, p, w + W_HIDDEN + row * H + i, H, h, ht + i * BLOCK)
                    p_store(g, gt + k * ROW + j * BLOCK, BLOCK, a)
                row = 2 * H + j
                a = p_spread(p, w + B_INPUT + row)  # n, the part that is not reset
                for i in range(I):
                    a = p_accumulate(a, p, w + row * I + i, I, x, xt + i * BLOCK)
                p_store(g, gt + N + j * BLOCK, BLOCK, a)
                a = p_spread(p, w + B_HIDDEN + row)  # q
                for i in range(H):
                    a = p_accumulate(a, p, w + W_HIDDEN + row * H + i, H, h, ht + i * BLOCK)
                p_store(g, gt + Q + j * BLOCK, BLOCK, a)
            for e in range(0, ROW, LANES):
                r, z, n, new = gru_forward(
                    load(g, gt + R + e), load(g, gt + Z + e), load(g, gt + N + e), load(g, gt + Q + e), load(h, ht + e)
                )
                store(g, gt + R + e, r)
                store(g, gt + Z + e, z)
                store(g, gt + N + e, n)
                store(h, ht + ROW + e, new)

    @njit(**OPTIONS)
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
            for j in range(0, H, UNITS):  # dL/dh[t]: dh' z + W_h^T (dar, daz, dq)
                a = p_load(carry, j * BLOCK, BLOCK)
                for k in range(3 * H):
                    a = p_accumulate(a, p, w + W_HIDDEN + k * H + j, 1, g, gt + k * BLOCK)
                p_store(carry, j * BLOCK, BLOCK, a)
            for j in range(0, DX_UNITS, UNITS):  # dL/dx[t]: W_i^T (dar, daz, dan)
                a = p_zero()
                for k in range(2 * H):
                    a = p_accumulate(a, p, w + k * I + j, 1, g, gt + k * BLOCK)
                for k in range(2 * H, 3 * H):
                    a = p_accumulate(a, p, w + k * I + j, 1, g, gt + (k + H) * BLOCK)
                p_store(dx, ht + j * BLOCK, BLOCK, a)

    gradient_x = _outer_gradient(outer_x, I, H, (R, Z, N), 4 * ROW, I * BLOCK)
    gradient_h = _outer_gradient(outer_h, H, H, (R, Z, Q), 4 * ROW, ROW)
    gradient_b_input = _bias_gradient(biases, H, (R, Z, N), 4 * ROW)
    gradient_b_hidden = _bias_gradient(biases, H, (R, Z, Q), 4 * ROW)

    @njit(**OPTIONS)
    def gradient(T, x, h, g, out, w):  # type: ignore[no-untyped-def]
        """Add this block's part to the gradient of the layer's parameters."""
        gradient_x(T, g, x, out, w)
        gradient_h(T, g, h, out, w + W_HIDDEN)
        gradient_b_input(T, g, out, w + B_INPUT)
        gradient_b_hidden(T, g, out, w + B_HIDDEN)

    return Stage(forward, backward, gradient)


def _outer_gradient(outer: simd.Tile, columns: int, rows: int, parts: tuple[int, ...], da_step: int, x_step: int) -> Any:
    """dW[part, i, j] += sum over steps and samples of da[t, part, i] x[t, j]; each part has `rows` rows."""
    ROWS, COLUMNS = outer.rows, outer.columns
    o_zero, o_outer, o_collect = outer.zero, outer.outer, outer.collect

    @njit(**OPTIONS)
    def gradient(T, da, x, out, w):  # type: ignore[no-untyped-def]
        for k in range(len(parts)):
            for i in range(0, rows, ROWS):
                for j in range(0, columns, COLUMNS):
                    a = o_zero()
                    for t in range(T):
                        for v in range(0, BLOCK, LANES):
                            left = t * da_step + parts[k] + i * BLOCK + v
                            a = o_outer(a, da, left, BLOCK, x, t * x_step + j * BLOCK + v, BLOCK)
                    o_collect(out, w + (k * rows + i) * columns + j, columns, a)

    return gradient


def _bias_gradient(biases: simd.Tile, rows: int, parts: tuple[int, ...], da_step: int) -> Any:
    """db[part, i] += sum over steps and samples of da[t, part, i]."""
    ROWS = biases.rows
    b_zero, b_load, b_add, b_collect = biases.zero, biases.load, biases.add, biases.collect

    @njit(**OPTIONS)
    def gradient(T, da, out, w):  # type: ignore[no-untyped-def]
        for k in range(len(parts)):
            for i in range(0, rows, ROWS):
                a = b_zero()
                for t in range(T):
                    for v in range(0, BLOCK, LANES):
                        a = b_add(a, b_load(da, t * da_step + parts[k] + i * BLOCK + v, BLOCK))
                b_collect(out, w + k * rows + i, 1, a)

    return gradient


# ------------------------------------------------------------------ one linear map over one block


@cache
def linear_map(inputs: int, outputs: int, activation: str) -> Stage:
    """y = f(W x + b) for every step, with f the activation. `w` is where its parameters start."""
    IN, OUT = inputs, outputs
    BIAS = IN * OUT
    tiles = _tiles()
    up = tile(_divisor(OUT, tiles.units), VECTORS)
    down = tile(_divisor(IN, tiles.units), VECTORS)
    u_spread, u_accumulate, u_store = up.spread, up.accumulate, up.store
    d_zero, d_accumulate, d_store = down.zero, down.accumulate, down.store
    ROWS_UP, ROWS_DOWN = up.rows, down.rows
    activate, activate_backward = _activation(activation)

    @njit(**OPTIONS)
    def forward(T, x, y, p, w):  # type: ignore[no-untyped-def]
        for t in range(T):
            for j in range(0, OUT, ROWS_UP):
                a = u_spread(p, w + BIAS + j)
                for i in range(IN):
                    a = u_accumulate(a, p, w + j * IN + i, IN, x, (t * IN + i) * BLOCK)
                u_store(y, (t * OUT + j) * BLOCK, BLOCK, a)
        activate(T * OUT * BLOCK, y)

    @njit(**OPTIONS)
    def backward(T, y, dy, dx, p, w):  # type: ignore[no-untyped-def]
        """dy becomes the gradient before the activation; dx = W^T dy."""
        activate_backward(T * OUT * BLOCK, y, dy)
        for t in range(T):
            for j in range(0, IN, ROWS_DOWN):
                a = d_zero()
                for i in range(OUT):
                    a = d_accumulate(a, p, w + i * IN + j, 1, dy, (t * OUT + i) * BLOCK)
                d_store(dx, (t * IN + j) * BLOCK, BLOCK, a)

    outer = tile(_divisor(OUT, tiles.outer_rows), _divisor(IN, tiles.outer_columns))
    gradient_w = _outer_gradient(outer, IN, OUT, (0,), OUT * BLOCK, IN * BLOCK)
    gradient_b = _bias_gradient(tile(_divisor(OUT, 4), 1), OUT, (0,), OUT * BLOCK)

    @njit(**OPTIONS)
    def gradient(T, x, dy, out, w):  # type: ignore[no-untyped-def]
        gradient_w(T, dy, x, out, w)
        gradient_b(T, dy, out, w + BIAS)

    return Stage(forward, backward, gradient)


def _activation(name: str) -> tuple[Any, Any]:
    """(y = f(y), dy = dy f'(y)), both in place over `size` floats; for "none" nothing happens."""
    if name == "none":

        @njit(**OPTIONS)
        def nothing(size, y):  # type: ignore[no-untyped-def]
            pass

        @njit(**OPTIONS)
        def nothing_backward(size, y, dy):  # type: ignore[no-untyped-def]
            pass

        return nothing, nothing_backward

    cell, cell_backward = CELLS.activations[name]

    @njit(**OPTIONS)
    def activate(size, y):  # type: ignore[no-untyped-def]
        for e in range(0, size, LANES):
            store(y, e, cell(load(y, e)))

    @njit(**OPTIONS)
    def activate_backward(size, y, dy):  # type: ignore[no-untyped-def]
        for e in range(0, size, LANES):
            store(dy, e, cell_backward(load(y, e), load(dy, e)))

    return activate, activate_backward
