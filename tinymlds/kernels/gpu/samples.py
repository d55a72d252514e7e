"""The parts of a minibatch around the passes: its sequences, its error, a step of the optimizer."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinymlds.kernels import BLOCK, LANES, rng
from tinymlds.kernels.cuda import MATH, RANDOM, cuda, inlined, load, load2, separate, separated, store, store2
from tinymlds.kernels.gpu.layout import ONE, ZERO

if TYPE_CHECKING:
    from tinymlds.architectures import Architecture
    from tinymlds.kernels.optimizers import Optimizer


class Minibatch(NamedTuple):
    """The functions that are not a pass, for networks of one architecture and one optimizer."""

    place_in_order: Any
    gather: Any
    mistakes: Any
    update: Any


@cache
def minibatch(architecture: Architecture, optimizer: type[Optimizer], threads: int) -> Minibatch:
    """The functions for thread blocks of so many threads."""
    I, O, P, THREADS, UNITS = architecture.inputs, architecture.outputs, architecture.size, threads, threads // LANES
    squared_error, step = MATH.squared_error, inlined(optimizer.step(MATH))
    philox, feistel = RANDOM
    ORDER, LOW_WORD = np.uint64(rng.ORDER), np.uint64(0)

    @inlined
    def place_in_order(position, size, halves, keys, index, epoch):  # type: ignore[no-untyped-def]
        """The sequence that comes at this position of an epoch; see `rng.permutation`."""
        key = (keys[0], keys[1])
        a = philox((LOW_WORD, np.uint64(epoch), np.uint64(index), ORDER), key)
        b = philox((np.uint64(1), np.uint64(epoch), np.uint64(index), ORDER), key)
        round_keys = (a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3])
        x = feistel(np.uint64(position), round_keys, halves[0], halves[1], halves[2])
        while x >= np.uint64(size):
            x = feistel(x, round_keys, halves[0], halves[1], halves[2])
        return np.int32(x)

    @separated
    def gather(T, inputs, outputs, chosen, live, arena, x, target, thread):  # type: ignore[no-untyped-def]
        """The lines of the chosen sequences; lanes beyond `live` are 0."""
        separate()
        for e in range(thread, T * BLOCK, THREADS):
            t, sample = e // BLOCK, e % BLOCK
            at = 2 * (sample % LANES) + sample // LANES
            word, expected = 0, 0
            if sample < live:
                word, expected = inputs[chosen[sample], t], outputs[chosen[sample], t]
            for i in range(I):
                store(arena, x + (t * I + i) * BLOCK + at, ONE if (word >> i) & 1 else ZERO)
            for i in range(O):
                store(arena, target + (t * O + i) * BLOCK + at, ONE if (expected >> i) & 1 else ZERO)
        cuda.syncthreads()

    @separated
    def mistakes(T, live, scale, arena, output, target, error, shared, unit, lane):  # type: ignore[no-untyped-def]
        """The sum of squared errors, in every thread; `error` becomes the gradient of the output."""
        separate()
        for k in range(unit, T * O, UNITS):
            at = k * BLOCK + 2 * lane
            y0, y1 = load2(arena, output + at)
            y0, y1 = y0 if lane < live else ZERO, y1 if lane + LANES < live else ZERO
            e0, e1 = load2(arena, target + at)
            store2(arena, output + at, y0, y1)
            store2(arena, error + at, squared_error(y0, e0, ZERO, scale)[1], squared_error(y1, e1, ZERO, scale)[1])
        cuda.syncthreads()
        if unit == 0:
            total = ZERO
            for k in range(T * O):
                y0, y1 = load2(arena, output + k * BLOCK + 2 * lane)
                e0, e1 = load2(arena, target + k * BLOCK + 2 * lane)
                total = squared_error(y0, e0, total, scale)[0]
                total = squared_error(y1, e1, total, scale)[0]
            shared[lane] = total
        cuda.syncthreads()
        s = shared
        low = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]))
        total = low + (((s[8] + s[9]) + (s[10] + s[11])) + ((s[12] + s[13]) + (s[14] + s[15])))
        cuda.syncthreads()
        return total

    @separated
    def update(p, m, v, gradient, constants, factors, thread):  # type: ignore[no-untyped-def]
        """A step of the optimizer."""
        separate()
        for e in range(thread, P, THREADS):
            pe, me, ve = step(load(p, e), load(m, e), load(v, e), load(gradient, e), constants, factors)
            store(p, e, pe)
            store(m, e, me)
            store(v, e, ve)
        cuda.syncthreads()

    return Minibatch(place_in_order, gather, mistakes, update)
