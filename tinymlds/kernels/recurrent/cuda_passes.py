"""Recurrent layers and linear maps over a block of 32 samples in a thread block of a GPU; T steps, H hidden units.

A block has 16 threads for each hidden unit. The buffers in the arena, flat, in this order, with the layouts of `passes.py`:

    hidden [layers, T + 1, H, 32]    cells, like hidden, of an LSTM    gates [layers, T, sums, H, 32]
    maps [maps - 1, T, H, 32]    even, odd [T, H, 32]    head: see `cuda_head.HeadLayout`
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinymlds.kernels import BLOCK, LANES
from tinymlds.kernels.cuda import CudaError, inlined
from tinymlds.kernels.gpu.kernel import Passes
from tinymlds.kernels.gpu.layout import MAXIMAL_THREADS, SHARED_FLOATS
from tinymlds.kernels.recurrent import head_start, layer_places, layer_starts
from tinymlds.kernels.recurrent.cells import STATES, SUMS
from tinymlds.kernels.recurrent.cuda_head import head, head_layout
from tinymlds.kernels.recurrent.cuda_layers import layer as recurrent_layer

if TYPE_CHECKING:
    from tinymlds.architectures.recurrent import Recurrent


def threads(shape: Recurrent) -> int:
    """Threads of a block.

    Raises:
        CudaError: more than a block can have.
    """
    if LANES * shape.hidden > MAXIMAL_THREADS:
        raise CudaError(f"the cuda backend takes up to {MAXIMAL_THREADS // LANES} hidden units, not {shape.hidden}")
    return LANES * shape.hidden


def shared_floats(shape: Recurrent) -> int:
    """Floats of shared memory that the passes use."""
    step = len(SUMS[shape.cell.name]) * shape.hidden * BLOCK
    return max(2 * step if 2 * step <= SHARED_FLOATS else step, 2 * shape.hidden * BLOCK)


def own_floats(shape: Recurrent, steps: int) -> int:
    """Floats of all buffers for sequences of this many steps."""
    row, chain = shape.hidden * BLOCK, shape.activation != "none"
    states = shape.layers * (STATES[shape.cell.name] * (steps + 1) + len(SUMS[shape.cell.name]) * steps) * row
    maps = (shape.maps - 1) * steps * row if chain else 0
    return states + maps + 2 * steps * row + (0 if chain else head_layout(shape).size)


def passes(shape: Recurrent) -> Passes:
    """The passes of networks of this shape; see `gpu.kernel.Passes`."""
    I, H, LAYERS, ROW = shape.inputs, shape.hidden, shape.layers, shape.hidden * BLOCK
    MAPS = shape.maps - 1 if shape.activation != "none" else 0
    HEAD, (SECOND, STRIDE) = head_start(shape), layer_starts(shape)
    CELL, SUM_COUNT, STATE_COUNT = shape.cell.name, len(SUMS[shape.cell.name]), STATES[shape.cell.name]
    first_forward, first_backward, first_gradient = recurrent_layer(CELL, I, H, True, layer_places(shape, 0))
    other = recurrent_layer(CELL, H, H, False, layer_places(shape, 1 if LAYERS > 1 else 0))
    other_forward, other_backward, other_gradient = other
    head_start_pass, head_forward, head_backward, head_finish = head(shape)

    @inlined
    def places(T, own):  # type: ignore[no-untyped-def]
        """Offsets of cells, gates, maps, even, odd and the scratch of the head."""
        cells = own + LAYERS * (T + 1) * ROW
        gates = own + STATE_COUNT * LAYERS * (T + 1) * ROW
        maps = gates + LAYERS * T * SUM_COUNT * ROW
        even = maps + MAPS * T * ROW
        return cells, gates, maps, even, even + T * ROW, even + 2 * T * ROW

    @inlined
    def start(T, arena, own, p, thread):  # type: ignore[no-untyped-def]
        scratch = places(T, own)[5]
        head_start_pass(p, HEAD, arena, scratch, thread)

    @inlined
    def forward(T, arena, x, output, own, p, shared, unit, lane):  # type: ignore[no-untyped-def]
        cells, gates, maps, _, _, scratch = places(T, own)
        first_forward(T, arena, x, own, cells, gates, p, 0, shared, unit, lane)
        for layer in range(1, LAYERS):
            h, c = own + layer * (T + 1) * ROW, cells + layer * (T + 1) * ROW
            w = SECOND + (layer - 1) * STRIDE
            other_forward(T, arena, h - T * ROW, h, c, gates + layer * T * SUM_COUNT * ROW, p, w, shared, unit, lane)
        top = own + (LAYERS - 1) * (T + 1) * ROW + ROW
        head_forward(T, arena, top, maps, output, p, HEAD, scratch, unit, lane)

    @inlined
    def backward(T, arena, x, error, own, p, gradient, shared, unit, lane):  # type: ignore[no-untyped-def]
        cells, gates, maps, dh, dx, scratch = places(T, own)
        top = own + (LAYERS - 1) * (T + 1) * ROW + ROW
        head_backward(T, arena, top, maps, error, dh, dx, p, HEAD, scratch, gradient, unit, lane)
        for back in range(LAYERS - 1):
            layer = LAYERS - 1 - back
            h, c = own + layer * (T + 1) * ROW, cells + layer * (T + 1) * ROW
            g = gates + layer * T * SUM_COUNT * ROW
            w = SECOND + (layer - 1) * STRIDE
            other_backward(T, arena, h, c, g, dh, dx, p, w, shared, unit, lane)
            other_gradient(T, arena, h - T * ROW, h, g, gradient, w, unit, lane)
            dh, dx = dx, dh
        first_backward(T, arena, own, cells, gates, dh, dx, p, 0, shared, unit, lane)
        first_gradient(T, arena, x, own, gates, gradient, 0, unit, lane)

    @inlined
    def finish(T, arena, own, p, gradient, thread):  # type: ignore[no-untyped-def]
        scratch = places(T, own)[5]
        head_finish(p, HEAD, arena, scratch, gradient, thread)

    return Passes(start, forward, backward, finish)
