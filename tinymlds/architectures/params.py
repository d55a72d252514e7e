"""The parameter vector: its tensors by PyTorch's names, and its initial values."""

import math

import numpy as np
import numpy.typing as npt

from tinymlds.architectures.recurrent import Shape
from tinymlds.kernels import rng

Floats = npt.NDArray[np.float32]


def initial(shape: Shape, key: rng.Key, index: int) -> Floats:
    """Initial weights of network `index`, float32 [P]: uniform in [-k, k) with k = 1 / sqrt(H), as PyTorch does.

    (nn.GRU draws everything from there, and so does nn.Linear with H inputs.) A value is (u - 2^23) 2^-23 k for a 24-bit
    integer u: two exact operations and one rounding.
    """
    u = (rng.words(key, rng.INITIAL_WEIGHTS, index, shape.size) >> np.uint32(8)).astype(np.float32)
    unit = (u - np.float32(2**23)) * np.float32(2.0**-23)
    return unit * np.float32(1.0 / np.sqrt(shape.hidden))


def places(shape: Shape) -> dict[str, slice]:
    """Where each tensor is in the parameter vector, by its name."""
    found, start = {}, 0
    for name, sizes in shape.tensors:
        found[name] = slice(start, start + math.prod(sizes))
        start += math.prod(sizes)
    return found


def to_tensors(shape: Shape, vectors: Floats) -> dict[str, Floats]:
    """The named tensors [..., *shape] of parameter vectors [..., P]; views, not copies."""
    where = places(shape)
    return {name: vectors[..., where[name]].reshape(*vectors.shape[:-1], *sizes) for name, sizes in shape.tensors}


def from_tensors(shape: Shape, tensors: dict[str, Floats], leading: int) -> Floats:
    """Parameter vectors [..., P] from named tensors with `leading` axes in front, float32."""
    parts = [tensors[name].reshape(*tensors[name].shape[:leading], -1) for name, _ in shape.tensors]
    return np.concatenate(parts, axis=-1).astype(np.float32, copy=False)
