"""The numerics: everything that decides a bit of a trained network, and nothing that it could do without.

- `cells.py` the mathematics over a generic lane; `simd.py` the lanes of a CPU; `block.py`, `gru.py`, `head.py`
  (linear maps) and `cpu.py` the loops over them
- `cuda.py` the same for a thread of a GPU; `gpu/` the kernel; `population.py` what lies on the device
- `rng.py` random numbers by counter
- `shape.py` the numbers of a network; `problem.py` what is trained on what; `backend.py` the interface of a backend
- `cache.py` compiled code on disk
"""
