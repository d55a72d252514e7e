"""The linear maps after the GRU, over one block of 32 samples.

With an activation between them they are computed one by one (`_chain`). Without one they are a single linear map in
function, and are computed as such (`_collapsed`): once per minibatch the product of the matrices, then for each block one
small map forwards and backwards, and at the end of the minibatch the gradient of every map out of the gradient of the
product. That takes 288 fused multiply-adds a sample-step in place of 2,016 (four maps 12 x 12 and one 12 x 8).

`Buffers.head` belongs to this file, and so does what `start` leaves there for `forward`, `backward` and `finish`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from numba import njit

from tinymlds.kernels import BLOCK, LANES, divisor
from tinymlds.kernels.block import INNER, MATH, outer_gradient, row_sums, tiles_of_target
from tinymlds.kernels.lanes import load, store, tile, zero
from tinymlds.kernels.recurrent import head_places

if TYPE_CHECKING:
    from tinymlds.architectures.recurrent import Recurrent


class Head(NamedTuple):
    """The passes of the head. `w` is where its parameters start in p, and their gradients in `out`."""

    start: Callable[..., Any]
    """start(p, w, head): before the blocks of a minibatch, and before an evaluation."""
    forward: Callable[..., Any]
    """forward(T, x, maps, y, p, w, head): y from x."""
    backward: Callable[..., Any]
    """backward(T, x, maps, dy, dx, other, out, p, w, head): dx from dy, and this block's part of the gradient."""
    finish: Callable[..., Any]
    """finish(out, p, w, head): after the blocks of a minibatch, what is still missing in the gradient."""


class Sizes(NamedTuple):
    """Floats that a head needs in `passes.Buffers`."""

    maps: int
    """Floats for each step of a block."""
    head: int


def sizes(shape: Recurrent) -> Sizes:
    """Return the floats that `head(shape)` needs."""
    if shape.activation == "none":
        return Sizes(0, _layout(shape).size)
    return Sizes((shape.maps - 1) * shape.hidden * BLOCK, 0)


def head(shape: Recurrent) -> Head:
    """The head of this shape."""
    return _collapsed(shape) if shape.activation == "none" else _chain(shape)


# ------------------------------------------------------------------ one map after another


class _LinearMap(NamedTuple):
    """The passes of one map."""

    forward: Callable[..., Any]
    backward: Callable[..., Any]
    gradient: Callable[..., Any]


@cache
def _linear_map(inputs: int, outputs: int, activation: str, bias: int) -> _LinearMap:
    """y = f(W x + b) for every step, with f the activation. W begins at `w`, and b `bias` after it."""
    IN, OUT, BIAS = inputs, outputs, bias
    tiles = tiles_of_target()
    up, down = tile(divisor(OUT, tiles.units), tiles.vectors), tile(divisor(IN, tiles.units), tiles.vectors)
    u_spread, u_accumulate, u_store = up.spread, up.accumulate, up.store
    d_zero, d_accumulate, d_store = down.zero, down.accumulate, down.store
    ROWS_UP, ROWS_DOWN, WIDTH = up.rows, down.rows, tiles.vectors * LANES
    activate, activate_backward = _activation(activation)

    @njit(**INNER)
    def forward(T, x, y, p, w):  # type: ignore[no-untyped-def]
        for t in range(T):
            for j in range(0, OUT, ROWS_UP):
                for v in range(0, BLOCK, WIDTH):
                    a = u_spread(p, w + BIAS + j)
                    for i in range(IN):
                        a = u_accumulate(a, p, w + j * IN + i, IN, x, (t * IN + i) * BLOCK + v)
                    u_store(y, (t * OUT + j) * BLOCK + v, BLOCK, a)
        activate(T * OUT * BLOCK, y)

    @njit(**INNER)
    def backward(T, y, dy, dx, p, w):  # type: ignore[no-untyped-def]
        """dy becomes the gradient before the activation; dx = W^T dy."""
        activate_backward(T * OUT * BLOCK, y, dy)
        for t in range(T):
            for j in range(0, IN, ROWS_DOWN):
                for v in range(0, BLOCK, WIDTH):
                    a = d_zero()
                    for i in range(OUT):
                        a = d_accumulate(a, p, w + i * IN + j, 1, dy, (t * OUT + i) * BLOCK + v)
                    d_store(dx, (t * IN + j) * BLOCK + v, BLOCK, a)

    outer = tile(divisor(OUT, tiles.outer_rows), divisor(IN, tiles.outer_columns))
    gradient_w = outer_gradient(outer, IN, IN, OUT, OUT * BLOCK, IN * BLOCK)
    gradient_b = row_sums(OUT, OUT * BLOCK)

    @njit(**INNER)
    def gradient(T, x, dy, out, w):  # type: ignore[no-untyped-def]
        gradient_w(0, T, dy, x, out, w)
        gradient_b(T, dy, out, w + BIAS, -1)

    return _LinearMap(forward, backward, gradient)


def _activation(name: str) -> tuple[Any, Any]:
    """(y = f(y), dy = dy f'(y)), both in place over `size` floats; for "none" nothing happens."""
    if name == "none":

        @njit(**INNER)
        def nothing(size, y):  # type: ignore[no-untyped-def]
            pass

        @njit(**INNER)
        def nothing_backward(size, y, dy):  # type: ignore[no-untyped-def]
            pass

        return nothing, nothing_backward

    cell, cell_backward = MATH.activations[name]

    @njit(**INNER)
    def activate(size, y):  # type: ignore[no-untyped-def]
        for e in range(0, size, LANES):
            store(y, e, cell(load(y, e)))

    @njit(**INNER)
    def activate_backward(size, y, dy):  # type: ignore[no-untyped-def]
        for e in range(0, size, LANES):
            store(dy, e, cell_backward(load(y, e), load(dy, e)))

    return activate, activate_backward


def _chain(shape: Recurrent) -> Head:
    """Map after map, each with the activation but the last."""
    H, MAPS = shape.hidden, shape.maps
    ROW = H * BLOCK
    MAP_SIZE, BIAS, LAST, LAST_BIAS = head_places(shape)
    map_forward, map_backward, map_gradient = _linear_map(H, H, shape.activation, BIAS)
    last_forward, last_backward, last_gradient = _linear_map(H, shape.outputs, "none", LAST_BIAS - LAST)

    @njit(**INNER)
    def start(p, w, head):  # type: ignore[no-untyped-def]
        pass

    @njit(**INNER)
    def forward(T, x, maps, y, p, w, head):  # type: ignore[no-untyped-def]
        for k in range(MAPS - 1):
            u = maps[k * T * ROW :]
            map_forward(T, x, u, p, w + k * MAP_SIZE)
            x = u
        last_forward(T, x, y, p, w + LAST)

    @njit(**INNER)
    def backward(T, x, maps, dy, dx, other, out, p, w, head):  # type: ignore[no-untyped-def]
        # The gradients on their way down lie in dx and in `other` in turn, so that the last one is dx.
        above, below = (dx, other) if MAPS % 2 == 1 else (other, dx)
        last_backward(T, dy, dy, above, p, w + LAST)
        last_gradient(T, maps[(MAPS - 2) * T * ROW :] if MAPS > 1 else x, dy, out, w + LAST)
        for k in range(MAPS - 2, -1, -1):
            map_backward(T, maps[k * T * ROW :], above, below, p, w + k * MAP_SIZE)
            map_gradient(T, maps[(k - 1) * T * ROW :] if k > 0 else x, above, out, w + k * MAP_SIZE)
            above, below = below, above

    @njit(**INNER)
    def finish(out, p, w, head):  # type: ignore[no-untyped-def]
        pass

    return Head(start, forward, backward, finish)


# ------------------------------------------------------------------ all maps as one


def _collapsed(shape: Recurrent) -> Head:
    """y = M x + c with M = W_K ... W_1, and the gradient of every map from the sums over dy x^T and dy.

    With S_k = W_K ... W_{k+1} (so S_0 = M), x_0 = x and x_k = W_k x_{k-1} + b_k, the chain rule says that the gradient at
    the output of map k is S_k^T dy. Therefore, with T_k = sum dy x_k^T and s = sum dy,

        c = b_K + S_{K-1} b_{K-1} + ... + S_1 b_1
        dW_k = S_k^T T_{k-1},  db_k = S_k^T s,  T_k = s b_k^T + T_{k-1} W_k^T

    and only T_0 and s are sums over steps and samples. These are kept transposed, with the outputs in the lanes: S_k^T is
    [H, WIDE] and T_k^T, with s as a last row, [H + 1, WIDE]. For dW_k the hidden units are in the lanes. Lanes beyond the
    outputs, or beyond the units, mean nothing.
    """
    H, O, K = shape.hidden, shape.outputs, shape.maps
    layout = _layout(shape)
    WIDE, LONG, S, C, SUMS, LEFT, RESULT, _ = layout
    S_SIZE, T_SIZE = H * WIDE, (H + 1) * WIDE
    MAP_SIZE, BIAS, LAST, LAST_BIAS = head_places(shape)
    tiles = tiles_of_target()
    up, down = tile(divisor(O, tiles.units), tiles.vectors), tile(divisor(H, tiles.units), tiles.vectors)
    vectors = tiles.units * tiles.vectors  # that a tile may have
    wide = tile(divisor(H, max(1, vectors * LANES // WIDE)), WIDE // LANES)
    long = tile(divisor(H, max(1, vectors * LANES // LONG)), LONG // LANES)
    constant = tile(1, WIDE // LANES)
    UP, DOWN, WIDE_ROWS, LONG_ROWS, WIDTH = up.rows, down.rows, wide.rows, long.rows, tiles.vectors * LANES
    u_spread, u_accumulate, u_store = up.spread, up.accumulate, up.store
    d_zero, d_accumulate, d_store = down.zero, down.accumulate, down.store
    w_zero, w_accumulate, w_store = wide.zero, wide.accumulate, wide.store
    l_zero, l_accumulate, l_store = long.zero, long.accumulate, long.store
    c_load, c_accumulate, c_store = constant.load, constant.accumulate, constant.store
    outer = tile(divisor(H, tiles.outer_rows), divisor(O, tiles.outer_columns))
    gradient_w = outer_gradient(outer, O, WIDE, H, H * BLOCK, O * BLOCK)
    gradient_b = row_sums(O, O * BLOCK)

    @njit(**INNER)
    def start(p, w, head):  # type: ignore[no-untyped-def]
        for e in range(SUMS, SUMS + T_SIZE, LANES):
            store(head, e, zero())
        for o in range(O):
            head[C + o] = p[w + LAST_BIAS + o]
            for i in range(H):
                head[S + (K - 1) * S_SIZE + i * WIDE + o] = p[w + LAST + o * H + i]
        c = c_load(head, C, 0)
        for k in range(K - 1, 0, -1):
            above, wk = S + k * S_SIZE, w + (k - 1) * MAP_SIZE
            for j in range(0, H, WIDE_ROWS):  # S_{k-1}^T = W_k^T S_k^T
                a = w_zero()
                for i in range(H):
                    a = w_accumulate(a, p, wk + i * H + j, 1, head, above + i * WIDE)
                w_store(head, above - S_SIZE + j * WIDE, WIDE, a)
            for i in range(H):
                c = c_accumulate(c, p, wk + BIAS + i, 0, head, above + i * WIDE)
        c_store(head, C, 0, c)

    @njit(**INNER)
    def forward(T, x, maps, y, p, w, head):  # type: ignore[no-untyped-def]
        for t in range(T):
            for j in range(0, O, UP):
                for v in range(0, BLOCK, WIDTH):
                    a = u_spread(head, C + j)
                    for i in range(H):
                        a = u_accumulate(a, head, S + i * WIDE + j, 1, x, (t * H + i) * BLOCK + v)
                    u_store(y, (t * O + j) * BLOCK + v, BLOCK, a)

    @njit(**INNER)
    def backward(T, x, maps, dy, dx, other, out, p, w, head):  # type: ignore[no-untyped-def]
        for t in range(T):
            for j in range(0, H, DOWN):
                for v in range(0, BLOCK, WIDTH):
                    a = d_zero()
                    for o in range(O):
                        a = d_accumulate(a, head, S + j * WIDE + o, WIDE, dy, (t * O + o) * BLOCK + v)
                    d_store(dx, (t * H + j) * BLOCK + v, BLOCK, a)
        gradient_w(0, T, x, dy, head, SUMS)
        gradient_b(T, dy, head, SUMS + H * WIDE, -1)

    @njit(**INNER)
    def finish(out, p, w, head):  # type: ignore[no-untyped-def]
        for k in range(1, K):
            sums, wk = SUMS + (k - 1) * T_SIZE, w + (k - 1) * MAP_SIZE
            for i in range(0, H, WIDE_ROWS):  # T_k^T = b_k s^T + W_k T_{k-1}^T
                a = w_accumulate(w_zero(), p, wk + BIAS + i, 1, head, sums + H * WIDE)
                for j in range(H):
                    a = w_accumulate(a, p, wk + i * H + j, H, head, sums + j * WIDE)
                w_store(head, sums + T_SIZE + i * WIDE, WIDE, a)
            c_store(head, sums + T_SIZE + H * WIDE, 0, c_load(head, sums + H * WIDE, 0))
            for o in range(O):
                for j in range(H + 1):
                    head[LEFT + o * LONG + j] = head[sums + j * WIDE + o]
            for i in range(0, H, LONG_ROWS):  # dW_k and db_k = S_k^T (T_{k-1}, s)
                b = l_zero()
                for o in range(O):
                    b = l_accumulate(b, head, S + k * S_SIZE + i * WIDE + o, WIDE, head, LEFT + o * LONG)
                l_store(head, RESULT + i * LONG, LONG, b)
            for i in range(H):
                for j in range(H):
                    out[wk + i * H + j] = head[RESULT + i * LONG + j]
                out[wk + BIAS + i] = head[RESULT + i * LONG + H]
        sums = SUMS + (K - 1) * T_SIZE
        for o in range(O):
            for j in range(H):
                out[w + LAST + o * H + j] = head[sums + j * WIDE + o]
            out[w + LAST_BIAS + o] = head[sums + H * WIDE + o]

    return Head(start, forward, backward, finish)


class _Layout(NamedTuple):
    """Offsets of the parts of `Buffers.head`; all offsets are multiples of 16."""

    wide: int
    """Outputs, rounded up to lanes."""
    long: int
    """Hidden units and one for the bias, rounded up to lanes."""
    products: int
    """S_0^T ... S_{K-1}^T, [H, WIDE] each."""
    constant: int
    """c, [WIDE]."""
    sums: int
    """T_0^T ... T_{K-1}^T, [H + 1, WIDE] each."""
    left: int
    """T_{k-1} and s of the map at hand, [O, LONG]."""
    result: int
    """dW_k and db_k of the map at hand, [H, LONG]."""
    size: int


def _layout(shape: Recurrent) -> _Layout:
    wide, long = -(-shape.outputs // LANES) * LANES, -(-(shape.hidden + 1) // LANES) * LANES
    constant = shape.maps * shape.hidden * wide
    sums = constant + wide
    left = sums + shape.maps * (shape.hidden + 1) * wide
    result = left + shape.outputs * long
    return _Layout(wide, long, 0, constant, sums, left, result, result + shape.hidden * long)
