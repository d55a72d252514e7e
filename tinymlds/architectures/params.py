"""The parameter vector: its tensors by PyTorch's names, and its initial values."""

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture
from tinymlds.kernels import rng

Floats = npt.NDArray[np.float32]


def initial(architecture: Architecture, key: rng.Key, index: int) -> Floats:
    """Initial weights of network `index`, float32 [P]: of each tensor uniform in [-bound, bound) around its centre.

    A value is (u - 2^23) 2^-23 bound for a 24-bit integer u, the upper bits of the word of its place in the stream: two
    exact operations and one rounding; then a centre that is not 0 is added.
    """
    u = (rng.words(key, rng.INITIAL_WEIGHTS, index, architecture.size) >> np.uint32(8)).astype(np.float32)
    weights: Floats = (u - np.float32(2**23)) * np.float32(2.0**-23)
    for tensor, place in zip(architecture.tensors(), places(architecture).values(), strict=True):
        weights[place] *= np.float32(tensor.bound)
        if tensor.centre:
            weights[place] += np.float32(tensor.centre)
    return weights


def places(architecture: Architecture) -> dict[str, slice]:
    """Return the slice of each tensor in the parameter vector, by its name."""
    starts = architecture.offsets()
    return {each.name: slice(starts[each.name], starts[each.name] + each.size) for each in architecture.tensors()}


def to_tensors(architecture: Architecture, vectors: Floats) -> dict[str, Floats]:
    """The named tensors [..., *shape] of parameter vectors [..., P]; views, not copies."""
    where = places(architecture)
    leading = vectors.shape[:-1]
    return {each.name: vectors[..., where[each.name]].reshape(*leading, *each.shape) for each in architecture.tensors()}


def from_tensors(architecture: Architecture, tensors: dict[str, Floats], leading: int) -> Floats:
    """Parameter vectors [..., P] from named tensors with `leading` axes in front, float32."""
    named = (tensors[each.name] for each in architecture.tensors())
    parts = [tensor.reshape(*tensor.shape[:leading], -1) for tensor in named]
    return np.concatenate(parts, axis=-1).astype(np.float32, copy=False)
