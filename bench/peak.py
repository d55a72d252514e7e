"""How far a training step is from what the core can do: its fused multiply-adds, and the core's measured peak of them."""

import time

import numpy as np
from numba import njit

from tinymlds.kernels.backend import Shape
from tinymlds.kernels.cache import target_features
from tinymlds.kernels.layers import OPTIONS
from tinymlds.kernels.simd import LANES, tile


def products(shape: Shape) -> int:
    """Fused multiply-adds of the matrix products of one trained sample-step (one sequence, one time step).

    A product with an [m, n] matrix is m n of them:
        forward    each GRU layer 3H (I + H), with I the inputs of the layer; each linear map in x out
        gradients of the weights: the same again, an outer product for every matrix
        gradients of the inputs: the same again, but for dx of the first layer, which nobody needs
    Left out: gates, biases, loss and Adam. Counted: the products with h = 0 at the first step, and those of dL/dh there.
    """
    H = shape.hidden
    layers = sum(3 * H * (inputs + H) for inputs in shape.layer_inputs)
    maps = sum(H * outputs for outputs in shape.map_outputs)
    return 3 * (layers + maps) - 3 * H * shape.inputs


def _registers() -> tuple[int, int]:
    """Rows and columns of a tile that stays in registers and hides the latency of a fused multiply-add."""
    return (12, 2) if "+avx512f" in target_features() else (5, 1)


def measure_peak(rounds: int = 7, repeats: int = 1_000_000) -> float:
    """Fused multiply-adds per second of one core on float32 lanes, with nothing to load or store: the best of `rounds`."""
    rows, columns = _registers()
    operations = tile(rows, columns)
    t_load, t_accumulate, t_store = operations.load, operations.accumulate, operations.store

    @njit(**OPTIONS)
    def spin(repeats, factor, start):  # type: ignore[no-untyped-def]
        """start += factor[0] * factor on a tile, again and again; the loads do not depend on the loop, so they leave it."""
        t = t_load(start, 0, LANES * columns)
        for _ in range(repeats):
            t = t_accumulate(t, factor, 0, 0, factor, 0)
        t_store(start, 0, LANES * columns, t)

    factor = np.full(LANES * columns, 1e-3, np.float32)
    start = np.arange(rows * columns * LANES, dtype=np.float32)
    spin(10, factor, start)
    best = np.inf
    for _ in range(rounds):
        begin = time.perf_counter()
        spin(repeats, factor, start)
        best = min(best, time.perf_counter() - begin)
    return repeats * rows * columns * LANES / best
