"""The kernel itself: epochs of a network, minibatch after minibatch."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tinymlds.kernels import BLOCK, LANES
from tinymlds.kernels.cuda import SHARED_ALIGNMENT, cuda, inlined, kernel, load, store
from tinymlds.kernels.gpu.layout import (
    BEFORE,
    CAUSE,
    CONSTANTS,
    DONE,
    EPOCH_MEAN,
    ERROR_SCALE,
    FIRST_MOMENT,
    FLOAT,
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
)
from tinymlds.kernels.gpu.samples import minibatch

if TYPE_CHECKING:
    from tinymlds.architectures import Architecture
    from tinymlds.kernels.optimizers import Optimizer


class Passes(NamedTuple):
    """The passes of an architecture over a block, which its CUDA kernels give; its buffers begin at `own`."""

    start: Any
    """start(T, arena, own, p, thread): before the blocks of a minibatch, and before an evaluation."""
    forward: Any
    """forward(T, arena, x, output, own, p, shared, unit, lane): output from x."""
    backward: Any
    """backward(T, arena, x, error, own, p, gradient, shared, unit, lane): adds this block's part of the gradient."""
    finish: Any
    """finish(T, arena, own, p, gradient, thread): after the blocks of a minibatch, completes the gradient."""


def kernels_of(architecture: Architecture) -> Any:
    """The module with the CUDA kernels of an architecture: `passes`, `threads`, `shared_floats` and `own_floats`."""
    return import_module(architecture.kernels["cuda"])


ARGUMENTS = (
    ("int32", 2), ("int64", 0), ("int64", 0), *(("uint16", 3),) * 4, ("uint64", 2), ("uint64", 1), ("float32", 3),
    ("float32", 1), ("float32", 3), ("float32", 2), ("float32", 3), ("int32", 2),
)  # fmt: skip
"""Types of the arguments of `train`."""


@inlined
def _finite(x):  # type: ignore[no-untyped-def]
    return x - x == ZERO


@cache
def train(architecture: Architecture, optimizer: type[Optimizer]) -> Any:
    """The kernel for networks of this architecture with this optimizer, to be launched with a block for each row of `jobs`:

    train(jobs, T, batch, sequences..., keys, halves, factors, fixed, state, arenas, records, results), where

    jobs        int32 [n, 5]              the fields of a `problem.Job` for each thread block
    sequences   uint16 [tasks, N, T]      inputs and outputs to train on, inputs and outputs to validate with
    keys        uint64 [tasks, 2]         the key of a task's streams
    halves      uint64 [3]                `rng.halves` of the number of training sequences
    factors     float32 [epochs, steps, k]  the optimizer's factors of each step
    fixed       float32 [n]               numbers of the run, in the places of `layout`
    state       float32 [places, 4, P]    weights, the optimizer's memory, and the weights before the latest epoch
    arenas      float32 [places, size]    see `layout.Arena`
    records     float32 [n, epochs, 2]    training and validation loss of each epoch
    results     int32 [n, 3]              the columns of `layout`
    """
    kernels = kernels_of(architecture)
    I, O, P, THREADS = architecture.inputs, architecture.outputs, architecture.size, kernels.threads(architecture)
    SHARED, GRADIENT = kernels.shared_floats(architecture), -(-P // BLOCK) * BLOCK
    start, forward, backward, finish = kernels.passes(architecture)
    place_in_order, gather, mistakes, update = minibatch(architecture, optimizer, THREADS)

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
        output = target + T * O * BLOCK
        error = output + T * O * BLOCK
        gradient_at = error + T * O * BLOCK
        own = gradient_at + GRADIENT
        gradient = arena[gradient_at : gradient_at + P]
        train_size, validation_size = train_inputs.shape[1], validation_inputs.shape[1]
        steps = train_size // batch
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
                start(T, arena, own, p, thread)
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
                    forward(T, arena, x, output, own, p, shared, unit, lane)
                    total += mistakes(T, live, fixed[ERROR_SCALE], arena, output, target, error, shared, unit, lane)
                    if training:
                        backward(T, arena, x, error, own, p, gradient, shared, unit, lane)
                if training:
                    finish(T, arena, own, p, gradient, thread)
                    update(p, m, v, gradient, fixed[CONSTANTS:], factors[epoch - 1, k], thread)
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
