"""The linear maps: one after another with activations, or all as one."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from tinymlds.kernels import BLOCK, LANES
from tinymlds.kernels.cuda import MATH, cuda, fma, inlined, load, load2, separate, separated, store, store2
from tinymlds.kernels.gpu.layout import ZERO
from tinymlds.kernels.gpu.sums import add_to, outer_gradient, row_sum
from tinymlds.kernels.recurrent import head_places

if TYPE_CHECKING:
    from tinymlds.architectures.recurrent import Recurrent


@inlined
def _same(a):  # type: ignore[no-untyped-def]
    return a


@inlined
def _same_backward(u, du):  # type: ignore[no-untyped-def]
    return du


def _activation(name: str) -> tuple[Any, Any]:
    """u = f(a), and da from u and du."""
    return MATH.activations.get(name, (_same, _same_backward))


class _LinearMap(NamedTuple):
    forward: Any
    backward: Any
    gradient: Any


@cache
def _linear_map(inputs: int, outputs: int, units: int, activation: str, below: str) -> _LinearMap:
    """y = f(W x + b) for every step, with f the activation, and `below` the one that x went through.

    W [outputs, inputs] lies at `w` of `p`, b at `b`; all rows of all steps are dealt out to the units of the block.
    """
    IN, OUT, UNITS, DY_STEP = inputs, outputs, units, outputs * BLOCK
    ROUNDS = -(-OUT // UNITS)
    activate, _ = _activation(activation)
    _, activate_backward = _activation(below)
    gradient_w = outer_gradient(1, IN, OUT, DY_STEP)

    @separated
    def forward(T, arena, x, y, p, w, b, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        for k in range(unit, T * OUT, UNITS):
            t, j = k // OUT, k % OUT
            y0 = load(p, b + j)
            y1 = y0
            for i in range(IN):
                weight = load(p, w + j * IN + i)
                x0, x1 = load2(arena, x + (t * IN + i) * BLOCK + 2 * lane)
                y0, y1 = fma(weight, x0, y0), fma(weight, x1, y1)
            store2(arena, y + k * BLOCK + 2 * lane, activate(y0), activate(y1))
        cuda.syncthreads()

    @separated
    def backward(T, arena, x, dy, dx, p, w, unit, lane):  # type: ignore[no-untyped-def]
        """dx = W^T dy, where dy is the gradient before the activation; then dx goes through the activation below."""
        separate()
        for k in range(unit, T * IN, UNITS):
            t, j = k // IN, k % IN
            d0, d1 = ZERO, ZERO
            for i in range(OUT):
                weight = load(p, w + i * IN + j)
                y0, y1 = load2(arena, dy + (t * OUT + i) * BLOCK + 2 * lane)
                d0, d1 = fma(weight, y0, d0), fma(weight, y1, d1)
            u0, u1 = load2(arena, x + k * BLOCK + 2 * lane)
            store2(arena, dx + k * BLOCK + 2 * lane, activate_backward(u0, d0), activate_backward(u1, d1))
        cuda.syncthreads()

    @separated
    def gradient(T, arena, x, dy, out, w, b, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        for turn in range(ROUNDS):
            live = turn * UNITS + unit < OUT
            row = min(turn * UNITS + unit, OUT - 1)
            own = dy + row * BLOCK + 2 * lane
            gradient_w(0, T, arena, own, own, x, out, w + row * IN, 0, lane, live)
            add_to(out, b + row, row_sum(T, arena, own, DY_STEP, lane), live and lane == 0)
        cuda.syncthreads()

    return _LinearMap(forward, backward, gradient)


class Head(NamedTuple):
    """The passes of the head; `w` is where its parameters start, in `p` and in the gradient `out`, `head` its scratch."""

    start: Any
    """start(p, w, arena, head, thread): before the blocks of a minibatch, and before an evaluation."""
    forward: Any
    """forward(T, arena, x, maps, y, p, w, head, unit, lane): y from x."""
    backward: Any
    """backward(T, arena, x, maps, dy, dx, other, p, w, head, out, unit, lane): dx from dy, and this block's gradient."""
    finish: Any
    """finish(p, w, arena, head, out, thread): after the blocks of a minibatch, what is still missing in the gradient."""


@cache
def head(shape: Recurrent) -> Head:
    """The head of this shape."""
    return _collapsed(shape) if shape.activation == "none" else _chain(shape)


def _chain(shape: Recurrent) -> Head:
    """Map after map, each with the activation but the last."""
    H, O, MAPS, ROW = shape.hidden, shape.outputs, shape.maps, shape.hidden * BLOCK
    MAP_SIZE, BIAS, LAST, LAST_BIAS = head_places(shape)
    EVEN_DOWN, FROM_MAPS = MAPS % 2 == 1, MAPS > 1
    first = _linear_map(H, H, H, shape.activation, "none")
    other = _linear_map(H, H, H, shape.activation, shape.activation)
    last = _linear_map(H, O, H, "none", shape.activation if FROM_MAPS else "none")
    map_forward, map_backward, map_gradient = other
    first_backward = first.backward
    last_forward, last_backward, last_gradient = last

    @separated
    def start(p, w, arena, head, thread):  # type: ignore[no-untyped-def]
        separate()
        pass

    @separated
    def forward(T, arena, x, maps, y, p, w, head, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        for k in range(MAPS - 1):
            u = maps + k * T * ROW
            map_forward(T, arena, x, u, p, w + k * MAP_SIZE, w + k * MAP_SIZE + BIAS, unit, lane)
            x = u
        last_forward(T, arena, x, y, p, w + LAST, w + LAST_BIAS, unit, lane)

    @separated
    def backward(T, arena, x, maps, dy, dx, other, p, w, head, out, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        # The gradients on their way down lie in dx and in `other` in turn, so that the last one is dx.
        above, below = (dx, other) if EVEN_DOWN else (other, dx)
        u = maps + (MAPS - 2) * T * ROW if FROM_MAPS else x
        last_gradient(T, arena, u, dy, out, w + LAST, w + LAST_BIAS, unit, lane)
        last_backward(T, arena, u, dy, above, p, w + LAST, unit, lane)
        for back in range(MAPS - 1):
            k = MAPS - 2 - back
            u = maps + (k - 1) * T * ROW if k > 0 else x
            map_gradient(T, arena, u, above, out, w + k * MAP_SIZE, w + k * MAP_SIZE + BIAS, unit, lane)
            if k > 0:
                map_backward(T, arena, u, above, below, p, w + k * MAP_SIZE, unit, lane)
            else:
                first_backward(T, arena, u, above, below, p, w, unit, lane)
            above, below = below, above

    @separated
    def finish(p, w, arena, head, out, thread):  # type: ignore[no-untyped-def]
        separate()
        pass

    return Head(start, forward, backward, finish)


def _collapsed(shape: Recurrent) -> Head:
    """All maps as one, y = S_0 x + c; the gradient of every map from T_0 = sum dy x^T and s = sum dy (see `head.py`)."""
    H, O, K, THREADS = shape.hidden, shape.outputs, shape.maps, LANES * shape.hidden
    S, C, SUMS, ERRORS, _ = head_layout(shape)
    SIZE = O * H
    MAP_SIZE, BIAS, LAST, LAST_BIAS = head_places(shape)
    LAST_S, LAST_SUMS = S + (K - 1) * SIZE, SUMS + (K - 1) * SIZE
    map_forward, map_backward, map_gradient = _linear_map(H, O, H, "none", "none")

    @separated
    def start(p, w, arena, head, thread):  # type: ignore[no-untyped-def]
        separate()
        for e in range(thread, SIZE, THREADS):
            store(arena, head + LAST_S + e, load(p, w + LAST + e))
            store(arena, head + SUMS + e, ZERO)
        for o in range(thread, O, THREADS):
            store(arena, head + ERRORS + o, ZERO)
        cuda.syncthreads()
        for back in range(K - 1):
            above, wk = head + S + (K - 1 - back) * SIZE, w + (K - 2 - back) * MAP_SIZE
            for e in range(thread, SIZE, THREADS):  # S_{k-1} = S_k W_k
                o, j = e // H, e % H
                a = ZERO
                for i in range(H):
                    a = fma(load(p, wk + i * H + j), load(arena, above + o * H + i), a)
                store(arena, above - SIZE + e, a)
            cuda.syncthreads()
        for o in range(thread, O, THREADS):
            c = load(p, w + LAST_BIAS + o)
            for back in range(K - 1):
                above, wk = head + S + (K - 1 - back) * SIZE, w + (K - 2 - back) * MAP_SIZE
                for i in range(H):
                    c = fma(load(p, wk + BIAS + i), load(arena, above + o * H + i), c)
            store(arena, head + C + o, c)
        cuda.syncthreads()

    @separated
    def forward(T, arena, x, maps, y, p, w, head, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        map_forward(T, arena, x, y, arena, head + S, head + C, unit, lane)

    @separated
    def backward(T, arena, x, maps, dy, dx, other, p, w, head, out, unit, lane):  # type: ignore[no-untyped-def]
        separate()
        map_gradient(T, arena, x, dy, arena, head + SUMS, head + ERRORS, unit, lane)
        map_backward(T, arena, x, dy, dx, arena, head + S, unit, lane)

    @separated
    def finish(p, w, arena, head, out, thread):  # type: ignore[no-untyped-def]
        separate()
        for k in range(K - 1):
            sums, wk = head + SUMS + k * SIZE, w + k * MAP_SIZE
            for e in range(thread, SIZE, THREADS):  # T_k = s b_k^T + T_{k-1} W_k^T
                o, i = e // H, e % H
                a = fma(load(p, wk + BIAS + i), load(arena, head + ERRORS + o), ZERO)
                for j in range(H):
                    a = fma(load(p, wk + i * H + j), load(arena, sums + o * H + j), a)
                store(arena, sums + SIZE + e, a)
            products = head + S + (k + 1) * SIZE
            for e in range(thread, H * H, THREADS):  # dW_k = S_k^T T_{k-1}
                i, j = e // H, e % H
                a = ZERO
                for o in range(O):
                    a = fma(load(arena, products + o * H + i), load(arena, sums + o * H + j), a)
                store(out, wk + e, a)
            for i in range(thread, H, THREADS):  # db_k = S_k^T s
                a = ZERO
                for o in range(O):
                    a = fma(load(arena, products + o * H + i), load(arena, head + ERRORS + o), a)
                store(out, wk + BIAS + i, a)
            cuda.syncthreads()
        for e in range(thread, SIZE, THREADS):
            store(out, w + LAST + e, load(arena, head + LAST_SUMS + e))
        for o in range(thread, O, THREADS):
            store(out, w + LAST_BIAS + o, load(arena, head + ERRORS + o))
        cuda.syncthreads()

    return Head(start, forward, backward, finish)


class HeadLayout(NamedTuple):
    """Offsets of the parts of the scratch of a head without an activation; see `head.py` for the names."""

    products: int
    """S_0 ... S_{K-1}, [O, H] each."""
    constant: int
    """c, [O]."""
    sums: int
    """T_0 ... T_{K-1}, [O, H] each."""
    error_sums: int
    """s, [O]."""
    size: int


def head_layout(shape: Recurrent) -> HeadLayout:
    """The scratch of a head without an activation."""
    products = shape.maps * shape.outputs * shape.hidden
    sums = products + shape.outputs
    return HeadLayout(0, products, sums, sums + products, sums + products + shape.outputs)
