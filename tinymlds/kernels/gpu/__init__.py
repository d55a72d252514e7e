"""The CUDA kernel: a thread block trains a network, from the order of its sequences to the stop rule, for whole epochs.

A block has 16 threads for each unit of its architecture. Thread (unit, lane) owns samples `lane` and `lane + 16` of every
block of 32 samples, which lie side by side: sample s is at position 2 (s mod 16) + s / 16, so a half-warp reads the 32
samples of a unit in one go, and both halves of a warp the same ones. The rows of the weights that belong to the thread's
unit are in registers during a pass, and so are the sums of gradients, one for each of its weights and its lane.

What must be kept between passes is in an arena in device memory, one for each network; flat, in this order (T steps):

    x [T, I, 32]    target [T, O, 32]    output [T, O, 32]    error [T, O, 32]: the gradient of the output
    gradient [P]    the buffers of the architecture, like those of `recurrent/cuda_passes.py`

Shared memory carries what units tell each other within a step: the new state on the way up, the gradients of the gates on
the way down. Every function ends with a barrier, so that whatever comes next may read what it left.

The order of every sum is that of `docs/numerics.md`, and so the bits are those of the CPU.

`kernel.py` is the kernel around the passes of an architecture, `samples.py` its sequences, error and optimizer, `sums.py`
gradients of weights, `layout.py` offsets.
"""
