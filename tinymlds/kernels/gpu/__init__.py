"""The CUDA kernel: a thread block trains a network, from the order of its sequences to the stop rule, for whole epochs.

A block has 16 threads for each hidden unit. Thread (unit, lane) owns samples `lane` and `lane + 16` of every block of 32
samples, which lie side by side: sample s is at position 2 (s mod 16) + s / 16, so a half-warp reads the 32 samples of a
unit in one go, and both halves of a warp the same ones. The rows of the weights that belong to the thread's unit are in
registers during a pass, and so are the sums of gradients, one for each of its weights and its lane.

What must be kept between passes is in an arena in device memory, one for each network; flat, in this order, with the
layouts of `kernels/cpu.py` (T steps, H hidden units):

    x [T, I, 32]    target [T, O, 32]    hidden [layers, T + 1, H, 32]    gates [layers, T, 4, H, 32]: r, z, q, n
    maps [maps - 1, T, H, 32]    output [T, O, 32]    error [T, O, 32]: the gradient of the output
    even, odd [T, H, 32]    gradient [P]    head: see `layout.HeadLayout`

Shared memory carries what units tell each other within a step: the new state on the way up, the gradients of the gates on
the way down. Every function ends with a barrier, so that whatever comes next may read what it left.

The order of every sum is that of `docs/numerics.md`, and so the bits are those of the CPU.

`kernel.py` is the kernel, `gru.py` and `head.py` its layers, `minibatch.py` what it does beside them, `sums.py` gradients
of weights, `layout.py` where what lies.
"""
