"""The numerics: everything that decides a bit of a trained network, and nothing that it could not do without.

`cells.py` holds the mathematics over a generic lane, `simd.py` the lanes of a CPU, `layers.py` and `cpu.py` the loops,
`rng.py` the random numbers, `backend.py` what a backend takes and gives, `cache.py` the compiled code on disk.
"""
