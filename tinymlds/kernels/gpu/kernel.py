"""The kernel itself: epochs of a network, minibatch after minibatch."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from tinymlds.kernels.cuda import SHARED_ALIGNMENT, cuda, inlined, kernel, load, store
from tinymlds.kernels.gpu import layout
from tinymlds.kernels.gpu.layout import (
    BEFORE,
    BLOCK,
    CAUSE,
    DONE,
    EPOCH_MEAN,
    ERROR_SCALE,
    FIRST_MOMENT,
    FLOAT,
    LANES,
    LOSS,
    LOSS_MEAN,
    PARAMETERS,
    SECOND_MOMENT,
    STEP,
    THRESHOLD,
    VALIDATION,
    VALIDATION_MEAN,
    WEIGHTS,
    ZERO,
    threads,
)
from tinymlds.kernels.gpu.minibatch import minibatch
from tinymlds.kernels.recurrent.cuda_head import head
from tinymlds.kernels.recurrent.cuda_layers import gru_layer

if TYPE_CHECKING:
    from tinymlds.architectures.recurrent import Shape

ARGUMENTS = (
    ("int32", 2), ("int64", 0), ("int64", 0), *(("uint16", 3),) * 4, ("uint64", 2), ("uint64", 1), ("float32", 3),
    ("float32", 1), ("float32", 3), ("float32", 2), ("float32", 3), ("int32", 2),
)  # fmt: skip
"""Types of the arguments of `train`."""


@inlined
def _finite(x):  # type: ignore[no-untyped-def]
    return x - x == ZERO


@cache
def train(shape: Shape) -> Any:
    """The kernel for networks of this shape, to be launched with a block for each row of `jobs`:

    train(jobs, T, batch, sequences..., keys, halves, factors, fixed, state, arenas, records, results), where

    jobs        int32 [n, 5]              the fields of a `problem.Job` for each thread block
    sequences   uint16 [tasks, N, T]      inputs and outputs to train on, inputs and outputs to validate with
    keys        uint64 [tasks, 2]         the key of a task's streams
    halves      uint64 [3]                `rng.halves` of the number of training sequences
    factors     float32 [epochs, steps, 2]  Adam's factors of each step
    fixed       float32 [10]              numbers of the run, in the places of `layout`
    state       float32 [places, 4, P]    weights, moments, and the weights before the latest epoch
    arenas      float32 [places, size]    see `layout.Arena`
    records     float32 [n, epochs, 2]    training and validation loss of each epoch
    results     int32 [n, 3]              the columns of `layout`
    """
    I, H, O, LAYERS, P, THREADS = shape.inputs, shape.hidden, shape.outputs, shape.layers, shape.size, threads(shape)
    ROW = H * BLOCK
    chain = shape.activation != "none"
    MAPS = shape.maps - 1 if chain else 0
    GRADIENT = -(-P // BLOCK) * BLOCK
    FIRST_SIZE, OTHER_SIZE = 3 * H * (I + H) + 6 * H, 6 * H * H + 6 * H
    HEAD = FIRST_SIZE + (LAYERS - 1) * OTHER_SIZE
    SHARED = 8 * ROW if 8 * ROW <= layout.SHARED_FLOATS else 4 * ROW
    first_forward, first_backward, first_gradient = gru_layer(I, H, True)
    other_forward, other_backward, other_gradient = gru_layer(H, H, False)
    head_start, head_forward, head_backward, head_finish = head(shape)
    place_in_order, gather, mistakes, update = minibatch(shape)

    @kernel(THREADS)
    def train(  # type: ignore[no-untyped-def]
        jobs, T, batch, train_inputs, train_outputs, validation_inputs, validation_outputs, keys, halves, factors, fixed,
        state, arenas, records, results
    ):  # fmt: skip
        shared = cuda.shared.array(SHARED, FLOAT, SHARED_ALIGNMENT)
        chosen = cuda.shared.array(BLOCK, np.int32)
        job, thread = cuda.blockIdx.x, cuda.threadIdx.x
        unit, lane = thread // LANES, thread % LANES
        place, task, index, first, epochs = jobs[job, 0], jobs[job, 1], jobs[job, 2], jobs[job, 3], jobs[job, 4]
        p, m, v = state[place, PARAMETERS], state[place, FIRST_MOMENT], state[place, SECOND_MOMENT]
        before = state[place, BEFORE]
        arena = arenas[place]
        x = 0
        target = x + T * I * BLOCK
        hidden = target + T * O * BLOCK
        gates = hidden + LAYERS * (T + 1) * ROW
        maps = gates + LAYERS * T * 4 * ROW
        output = maps + MAPS * T * ROW
        error = output + T * O * BLOCK
        even = error + T * O * BLOCK
        odd = even + T * ROW
        gradient_at = odd + T * ROW
        head = gradient_at + GRADIENT
        gradient = arena[gradient_at : gradient_at + P]
        train_size, validation_size = train_inputs.shape[1], validation_inputs.shape[1]
        steps = train_size // batch
        top = hidden + (LAYERS - 1) * (T + 1) * ROW + ROW
        done, cause, step = 0, 0, 0
        if first == 1:
            for e in range(thread, P, THREADS):
                store(m, e, ZERO)
                store(v, e, ZERO)
        while done < epochs and cause == 0:
            epoch = first + done
            for e in range(thread, P, THREADS):
                store(before, e, load(p, e))
            loss_sum = ZERO
            for k in range(steps + 1):
                training = k < steps
                size = batch if training else validation_size
                for e in range(thread, P if training else 0, THREADS):
                    store(gradient, e, ZERO)
                head_start(p, HEAD, arena, head, thread)
                total = ZERO
                for begun in range(0, size, BLOCK):
                    live = min(BLOCK, size - begun)
                    if training:
                        if thread < live:
                            position = k * batch + begun + thread
                            chosen[thread] = place_in_order(position, train_size, halves, keys[task], index, epoch)
                        cuda.syncthreads()
                        gather(T, train_inputs[task], train_outputs[task], chosen, live, arena, x, target, thread)
                    else:
                        if thread < live:
                            chosen[thread] = begun + thread
                        cuda.syncthreads()
                        gather(T, validation_inputs[task], validation_outputs[task], chosen, live, arena, x, target, thread)
                    first_forward(T, arena, x, hidden, gates, p, 0, shared, unit, lane)
                    for layer in range(1, LAYERS):
                        h = hidden + layer * (T + 1) * ROW
                        w = FIRST_SIZE + (layer - 1) * OTHER_SIZE
                        below = h - T * ROW
                        other_forward(T, arena, below, h, gates + layer * T * 4 * ROW, p, w, shared, unit, lane)
                    head_forward(T, arena, top, maps, output, p, HEAD, head, unit, lane)
                    total += mistakes(T, live, fixed[ERROR_SCALE], arena, output, target, error, shared, unit, lane)
                    if training:
                        head_backward(T, arena, top, maps, error, even, odd, p, HEAD, head, gradient, unit, lane)
                        dh, dx = even, odd
                        for back in range(LAYERS - 1):
                            layer = LAYERS - 1 - back
                            h, g = hidden + layer * (T + 1) * ROW, gates + layer * T * 4 * ROW
                            w = FIRST_SIZE + (layer - 1) * OTHER_SIZE
                            other_backward(T, arena, h, g, dh, dx, p, w, shared, unit, lane)
                            other_gradient(T, arena, h - T * ROW, h, g, gradient, w, unit, lane)
                            dh, dx = dx, dh
                        first_backward(T, arena, hidden, gates, dh, dx, p, 0, shared, unit, lane)
                        first_gradient(T, arena, x, hidden, gates, gradient, 0, unit, lane)
                if training:
                    head_finish(p, HEAD, arena, head, gradient, thread)
                    update(p, m, v, gradient, fixed, factors[epoch - 1, k, 0], factors[epoch - 1, k, 1], thread)
                    loss = total * fixed[LOSS_MEAN]
                    loss_sum += loss
                    if cause == 0 and not _finite(loss):
                        cause, step = LOSS, k + 1
                    if k == steps - 1 and cause == 0:
                        broken = np.int32(0)
                        for e in range(thread, P, THREADS):
                            if not _finite(load(p, e)):
                                broken = np.int32(1)
                        if cuda.syncthreads_or(broken):
                            cause, step = WEIGHTS, steps
                    if cause != 0:
                        break
                else:
                    loss = total * fixed[VALIDATION_MEAN]
                    if not _finite(loss):
                        cause, step = VALIDATION, steps
            if cause == 0:
                if thread == 0:
                    records[job, done, 0] = loss_sum * fixed[EPOCH_MEAN]
                    records[job, done, 1] = loss
                done += 1
                if loss < fixed[THRESHOLD]:
                    break
            else:
                for e in range(thread, P, THREADS):
                    store(p, e, load(before, e))
        if thread == 0:
            results[job, DONE], results[job, CAUSE], results[job, STEP] = done, cause, step

    return train
