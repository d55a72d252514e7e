"""Muon on a CPU: what it does to matrices, around the step of the other tensors (`optimizers.Muon`).

A matrix [R, C] lies in a buffer as X [n, w]: the longer side n is its rows, the shorter one k its lanes, padded with zeros
to a multiple of 16, w. In this layout X^T X takes no transpose, and all matrices of one row of lanes are read alike. The
order of every sum is fixed by `docs/numerics.md`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numba import njit

from tinymlds.kernels import LANES
from tinymlds.kernels.block import INNER, MATH
from tinymlds.kernels.lanes import clamp, fma, load, sqrt, store, tree_sum, unless_negative, zero
from tinymlds.kernels.optimizers import Muon

if TYPE_CHECKING:
    from tinymlds.architectures import Architecture
    from tinymlds.kernels.problem import Floats

ITERATIONS = 5
COEFFICIENTS = (3.4445, -4.775, 2.0315)
EPSILON = 1e-7
"""Of the Newton-Schulz iteration, as published and in `torch.optim.Muon`."""

_MOST = np.float32(np.finfo(np.float32).max)


def scale_of(rows: int, columns: int) -> float:
    """The factor of the steps of a matrix: the mean square of a step is then that of AdamW (Liu et al. 2025)."""
    return 0.2 * math.sqrt(max(rows, columns))


def _matrices(architecture: Architecture) -> list[tuple[int, int, int]]:
    """Offset, rows and columns of each matrix."""
    offsets = architecture.offsets()
    return [(offsets[tensor.name], *tensor.shape) for tensor in architecture.tensors() if len(tensor.shape) == 2]


def _padded(count: int) -> int:
    return -(-count // LANES) * LANES


def scratch(architecture: Architecture) -> Floats:
    """What `update` needs beside the state: +1 for each parameter of a matrix and -1 for each other one, and buffers."""
    found, most = np.full(_padded(architecture.size), -1.0, np.float32), 0
    for offset, rows, columns in _matrices(architecture):
        found[offset : offset + rows * columns] = 1.0
        n, w = max(rows, columns), _padded(min(rows, columns))
        most = max(most, 2 * (n + w) * w)
    return np.concatenate([found, np.zeros(most, np.float32)])


@njit(**INNER)
def _orthogonalise(g, offset, rows, columns, scale, buffer):  # type: ignore[no-untyped-def]
    """g[offset ...], a matrix [rows, columns], becomes `scale` times a matrix with singular values near 1.

    X / |X|, then five times X (a 1 + b A + c A A) with A = X^T X.
    """
    n, k = max(rows, columns), min(rows, columns)
    a, b, c = np.float32(COEFFICIENTS[0]), np.float32(COEFFICIENTS[1]), np.float32(COEFFICIENTS[2])
    w = -(-k // LANES) * LANES
    A = 2 * n * w
    B = A + w * w
    along, across = (columns, 1) if rows >= columns else (1, columns)
    X, Y = 0, n * w
    square = zero()
    for i in range(n):
        for j in range(w):
            buffer[X + i * w + j] = g[offset + i * along + j * across] if j < k else np.float32(0.0)
        for j in range(0, w, LANES):
            x = load(buffer, X + i * w + j)
            square = fma(x, x, square)
    norm = clamp(sqrt(zero() + tree_sum(square)), np.float32(EPSILON), _MOST)
    for e in range(0, n * w, LANES):
        store(buffer, X + e, load(buffer, X + e) / norm)
    for _ in range(ITERATIONS):
        for i in range(k):
            for j in range(0, w, LANES):
                total = zero()
                for row in range(n):
                    total = fma(load(buffer, X + row * w + j), buffer[X + row * w + i], total)
                store(buffer, A + i * w + j, total)
        for i in range(k):
            for j in range(0, w, LANES):
                total = zero()
                for l in range(k):
                    total = fma(load(buffer, A + l * w + j), buffer[A + i * w + l], total)
                store(buffer, B + i * w + j, fma(total, c, load(buffer, A + i * w + j) * b))
        for i in range(n):
            for j in range(0, w, LANES):
                total = load(buffer, X + i * w + j) * a
                for l in range(k):
                    total = fma(load(buffer, B + l * w + j), buffer[X + i * w + l], total)
                store(buffer, Y + i * w + j, total)
        X, Y = Y, X
    for i in range(n):
        for j in range(k):
            g[offset + i * along + j * across] = buffer[X + i * w + j] * scale


def update(architecture: Architecture) -> Any:
    """update(state, work, constants, factors): a step of Muon for networks of this architecture."""
    adamw, orthogonalise = njit(**INNER)(Muon.step(MATH)), _orthogonalise
    MATRICES = np.array(_matrices(architecture), np.int64)
    SCALES = np.array([scale_of(rows, columns) for _, rows, columns in MATRICES], np.float32)
    BUFFERS, MINUS = _padded(architecture.size), np.float32(-1.0)

    @njit(**INNER)
    def choose(kind, of_matrix, other):  # type: ignore[no-untyped-def]
        return unless_negative(kind, of_matrix) + unless_negative(kind * MINUS, other)

    @njit(**INNER)
    def update(state, work, constants, factors):  # type: ignore[no-untyped-def]
        momentum, rest = constants[5], constants[6]
        for e in range(0, state.p.size, LANES):
            kind, g, m = load(state.scratch, e), load(work.gradient, e), load(state.m, e)
            new = fma(m, momentum, g * rest)
            store(state.m, e, choose(kind, new, m))
            store(work.gradient, e, choose(kind, fma(new, momentum, g * rest), g))
        buffer = state.scratch[BUFFERS:]
        for q in range(MATRICES.shape[0]):
            orthogonalise(work.gradient, MATRICES[q, 0], MATRICES[q, 1], MATRICES[q, 2], SCALES[q], buffer)
        for e in range(0, state.p.size, LANES):
            kind, g = load(state.scratch, e), load(work.gradient, e)
            p, m, v = load(state.p, e), load(state.m, e), load(state.v, e)
            of_matrix = fma(g, factors[3], p * factors[2])
            p, new, v = adamw(p, m, v, g, constants, factors)
            store(state.p, e, choose(kind, of_matrix, p))
            store(state.m, e, choose(kind, m, new))
            store(state.v, e, v)

    return update
