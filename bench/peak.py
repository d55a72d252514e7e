"""How far a training step is from what the core can do: its fused multiply-adds, and the core's measured peak of them."""

import time

import numpy as np
from numba import njit

from tinymlds.architectures.recurrent import Recurrent
from tinymlds.kernels import LANES
from tinymlds.kernels.block import OPTIONS
from tinymlds.kernels.cache import target_features
from tinymlds.kernels.lanes import tile


def layer_products(shape: Recurrent, steps: int) -> float:
    """Fused multiply-adds of a sample-step in the recurrent layers, forwards, on average over the steps of a sequence.

    G H (I + H) for each layer with G gates and I inputs, but G H I at the first step, where h = 0.
    """
    H, G = shape.hidden, len(shape.cell.gates)
    return sum(G * H * (inputs + H * (steps - 1) / steps) for inputs in shape.layer_inputs)


def head_products(shape: Recurrent) -> int:
    """The same in the linear maps as they are computed: without an activation as a single map (see `kernels/head.py`)."""
    outputs = (shape.outputs,) if shape.activation == "none" else shape.map_outputs
    return sum(shape.hidden * count for count in outputs)


def products(shape: Recurrent, steps: int) -> float:
    """Fused multiply-adds of the matrix products of one trained sample-step (one sequence, one time step), on average.

    Forwards, again for the gradients of the weights (an outer product for every matrix), and again for the gradients of
    the inputs, but for dx of the first layer, which nobody needs. Left out: gates, biases, loss, Adam, and what happens
    once per minibatch.
    """
    return 3 * (layer_products(shape, steps) + head_products(shape)) - len(shape.cell.gates) * shape.hidden * shape.inputs


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
