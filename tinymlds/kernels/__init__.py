"""The numerics: everything that decides a bit of a trained network, and nothing that it could do without.

- `activations.py` the mathematics over a generic lane; `optimizers.py` the steps
- `lanes.py` the lanes of a CPU; `block.py` sums over a block of samples; `minibatch.py` the loops around an architecture
- `cuda.py` the same for a thread of a GPU; `gpu/` the kernel around an architecture
- `recurrent/` the passes of recurrent networks, on both
- `rng.py` random numbers by counter; `problem.py` what is trained on what; `options.py` options of configurations
- `cache.py` compiled code on disk

An architecture names the modules with its passes. For "cpu" such a module has `buffers(architecture, steps)`, a NamedTuple
of sizes, and `passes(architecture)`, a `minibatch.Passes`; for "cuda" it has `threads`, `shared_floats`, `own_floats` and
`passes`, a `gpu.kernel.Passes`.
"""

NUMERICS = 2
"""The numerics version: raised by any change that changes a bit of a trained network."""

LANES = 16
"""Samples that are computed side by side; sums over samples are taken lane by lane, and lanes are added up by a tree."""

BLOCK = 2 * LANES
"""Samples in a block; the sums over samples are taken block by block."""


def divisor(size: int, most: int) -> int:
    """The largest number up to `most` that divides `size`."""
    return max(k for k in range(1, most + 1) if size % k == 0)
