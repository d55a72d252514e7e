"""Sums of gradients over a block of 32 samples, sizes of register tiles, and compiler options, for all layers.

Layouts are [T, rows, 32], flat. Sums run over t, then the two vectors of the block, in 16 lanes, which a fixed tree adds
up; `docs/numerics.md` has the whole order.
"""

from typing import Any, NamedTuple

from numba import njit

from tinymlds.kernels import BLOCK, LANES, activations, divisor, lanes
from tinymlds.kernels.cache import target_features
from tinymlds.kernels.lanes import tile

CACHED_ROWS = 12
"""Rows of a block with 16 steps that fill half of a first-level cache of 48 KB."""

OPTIONS: dict[str, Any] = {"error_model": "numpy", "nogil": True}
INNER: dict[str, Any] = {**OPTIONS, "no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of functions that only compiled code calls: without wrappers for Python, a fifth less time to compile a shape."""
MATH = activations.bind(njit(**INNER), activations.Primitives(lanes.fma, lanes.clamp, lanes.sqrt, lanes.unless_negative))


class Tiles(NamedTuple):
    """Sizes of register tiles, chosen to fill the registers of a target without spilling. They change no bit."""

    units: int
    """Rows of a matrix product ..."""
    vectors: int
    """... and vectors of the block in each of them."""
    outer_rows: int
    outer_columns: int


def tiles_of_target() -> Tiles:
    """32 registers of 16 lanes (AVX-512), or 16 of 8 lanes (AVX2; 32 of 4 lanes on ARM hold as much).

    With 16 registers a product of 6 x 1 vectors takes 12 for sums, 2 for what it multiplies and 1 for a weight. One of
    3 x 2 has as many sums and needs 17, so one of them goes through memory at each step, and all wait for it.
    """
    return Tiles(12, 2, 6, 4) if "+avx512f" in target_features() else Tiles(6, 1, 3, 2)


def outer_gradient(outer: lanes.Tile, columns: int, stride: int, rows: int, da_step: int, x_step: int) -> Any:
    """dW[i, j] += sum over samples and steps from `first` on of da[t, i] x[t, j], for `rows` x `columns` weights.

    Rows of dW lie `stride` floats apart, steps of da and x da_step and x_step.
    """
    ROWS, COLUMNS = outer.rows, outer.columns
    GROUP = max(1, CACHED_ROWS // ROWS) * ROWS  # rows that stay in the first-level cache while all columns pass by
    o_zero, o_outer, o_collect = outer.zero, outer.outer, outer.collect

    @njit(**INNER)
    def gradient(first, T, da, x, out, w):  # type: ignore[no-untyped-def]
        for group in range(0, rows, GROUP):
            for j in range(0, columns, COLUMNS):
                for i in range(group, min(group + GROUP, rows), ROWS):
                    a = o_zero()
                    for t in range(first, T):
                        for v in range(0, BLOCK, LANES):
                            a = o_outer(a, da, t * da_step + i * BLOCK + v, BLOCK, x, t * x_step + j * BLOCK + v, BLOCK)
                    o_collect(out, w + i * stride + j, stride, a)

    return gradient


def row_sums(rows: int, da_step: int) -> Any:
    """out[w + i] += sum over steps and samples of da[t, i]; the same in a second place, unless that is negative."""
    sums = tile(divisor(rows, 12), 1)
    ROWS = sums.rows
    s_zero, s_load, s_add, s_collect = sums.zero, sums.load, sums.add, sums.collect

    @njit(**INNER)
    def gradient(T, da, out, w, second):  # type: ignore[no-untyped-def]
        for i in range(0, rows, ROWS):
            a = s_zero()
            for t in range(T):
                for v in range(0, BLOCK, LANES):
                    a = s_add(a, s_load(da, t * da_step + i * BLOCK + v, BLOCK))
            s_collect(out, w + i, 1, a)
            if second >= 0:
                s_collect(out, second + i, 1, a)

    return gradient
