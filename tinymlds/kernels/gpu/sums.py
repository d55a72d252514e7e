"""Sums over samples and steps: gradients of weights and biases, by the lane tree."""

from typing import Any

from tinymlds.kernels import BLOCK, LANES, divisor
from tinymlds.kernels.cuda import cuda, exchange, fma, inlined, load, load2, store
from tinymlds.kernels.gpu.layout import FLOAT, ZERO


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


def outer_gradient(gates: int, columns: int, hidden: int, da_step: int) -> Any:
    """dW[row, i] += sum over samples and steps from `first` on of da[t, row] x[t, i], for a row of each of `gates` gates.

    The gates lie at `da` and then every `hidden` units, but the last one at `da_last`; their weights are `gate_size`
    apart in `out`. A thread that is not `live` takes part in the exchanges and adds nothing.
    """
    GATES, I, ROW = gates, columns, hidden * BLOCK
    COLUMNS = divisor(I, 16)
    PARTS, collect = _collector(GATES * COLUMNS)
    SUMS, PAIRS = PARTS * LANES, 2 * GATES

    @inlined
    def gradient(first, T, arena, da, da_last, x, out, w, gate_size, lane, live):  # type: ignore[no-untyped-def]
        a = cuda.local.array(SUMS, FLOAT)
        d = cuda.local.array(PAIRS, FLOAT)
        for start in range(0, I, COLUMNS):
            for k in range(SUMS):
                a[k] = ZERO
            for t in range(first, T):
                for gate in range(GATES):
                    at = da_last if gate == GATES - 1 else da + gate * ROW
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
def row_sum(T, arena, da, da_step, lane):  # type: ignore[no-untyped-def]
    """The sum over steps and samples of a row, the same in all lanes."""
    total = ZERO
    for t in range(T):
        d0, d1 = load2(arena, da + t * da_step)
        total = (total + d0) + d1
    total = total + exchange(total, 1)
    total = total + exchange(total, 2)
    total = total + exchange(total, 4)
    return total + exchange(total, 8)


@inlined
def add_to(out, to, value, wanted):  # type: ignore[no-untyped-def]
    """out[to] += value, where it is wanted."""
    if wanted:
        store(out, to, load(out, to) + value)
