"""Symmetries of architectures: changes of the weights that leave the function of a network as it is.

An architecture gives the generators of its group as data: every place where one module hands numbers to the next has its
own, which act on the rows that write these numbers and on the columns that read them. `describe` says which there are;
`transform` draws a random element for each network; `canonicalize` chooses one network for all that differ by symmetries.
docs/symmetry.md has the formulas and says what is proved.

Arithmetic is in float64 in a fixed order, without BLAS, LAPACK or libm, and rounded once, so results have the same bits
on every machine.
"""

import math
from collections.abc import Callable, Collection
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture
from tinymlds.architectures.params import Floats, from_tensors, to_tensors
from tinymlds.errors import UsageError
from tinymlds.kernels import rng

KINDS = ("permutation", "sign", "bias", "linear", "translation", "scale")
"""Every kind of symmetry that is known; an architecture has some of them."""

Array = npt.NDArray[np.float64]
Tensors = dict[str, Array]


_CHUNK = 512  # networks worked on at once: about 20 MB in float64

_OPERATIONS = {
    "take": "block[i] becomes block[e[i]] along the axis",
    "multiply": "block[i] becomes block[i] * e[i] along the axis",
    "add": "block[i] becomes block[i] + e[i] along the axis",
    "left": "block becomes e @ block",
    "right": "block becomes block @ e",
    "add_image": "block becomes block + through @ e, where through is the tensor of that name",
}
_ELEMENTS = {
    "permutation": ("a permutation of 0 ... units - 1", "the permutation that undoes it"),
    "sign": ("units numbers, each 1 or -1", "the same"),
    "bias": ("units real numbers", "their negatives"),
    "linear": ("an invertible matrix [units, units]", "its inverse"),
    "translation": ("units real numbers", "their negatives"),
    "scale": ("units positive numbers", "their reciprocals"),
}


class Act(NamedTuple):
    """The action of an element of a generator on one block of one tensor: `start` to `stop` along `axis`."""

    operation: str
    by: str
    """e is the "element", or its "inverse"."""
    tensor: str
    axis: int
    start: int
    stop: int
    gate: str | None = None
    """The gate whose rows these are."""
    through: str | None = None


class Generator(NamedTuple):
    """A family of symmetries of one kind at one place. Its acts are done one after another, in this order."""

    kind: str
    place: str
    """The module whose outputs these are, like "gru.0"."""
    units: int
    """How many numbers the place has, H."""
    acts: tuple[Act, ...]


class Element(NamedTuple):
    """An element of a generator for each of n networks: [n, H], or [n, H, H] of kind linear."""

    element: npt.NDArray[Any]
    inverse: npt.NDArray[Any]


def describe(architecture: Architecture) -> dict[str, Any]:
    """The symmetries of an architecture as plain data for JSON: enough to apply them, or to build an equivariant network.

    `dimension` counts the continuous parameters of the group, `components` (a decimal number as text; it can be
    large) its connected components.
    """
    found, described = architecture.generators(), []
    for generator in found:
        dimension, components = _size(generator)
        acts = [{key: value for key, value in act._asdict().items() if value is not None} for act in generator.acts]
        described.append(
            {
                "kind": generator.kind,
                "place": generator.place,
                "units": generator.units,
                "dimension": dimension,
                "components": str(components),
                "acts": acts,
            }
        )
    sizes = [_size(generator) for generator in found]
    kinds = {generator.kind for generator in found}
    return {
        "format": 1,
        "kind": "symmetries",
        "shape": {**asdict(architecture), "parameters": architecture.size},
        "tensors": [{"name": each.name, "shape": list(each.shape)} for each in architecture.tensors()],
        "gates": list(dict.fromkeys(act.gate for generator in found for act in generator.acts if act.gate)),
        "operations": _OPERATIONS,
        "kinds": {kind: dict(zip(("element", "inverse"), _ELEMENTS[kind], strict=True)) for kind in KINDS if kind in kinds},
        "dimension": sum(dimension for dimension, _ in sizes),
        "components": str(math.prod(components for _, components in sizes)),
        "generators": described,
    }


def _size(generator: Generator) -> tuple[int, int]:
    """Dimension and number of connected components of a generator's group."""
    H = generator.units
    return {
        "permutation": (0, math.factorial(H)),
        "sign": (0, 2**H),
        "bias": (H, 1),
        "linear": (H * H, 2),
        "translation": (H, 1),
        "scale": (H, 1),
    }[generator.kind]


# ------------------------------------------------------------------ how an element acts


def apply(generator: Generator, tensors: Tensors, element: Element) -> None:
    """Change tensors [n, *shape], in place, by an element for each network."""
    for act in generator.acts:
        block = tensors[act.tensor][(slice(None),) * (act.axis + 1) + (slice(act.start, act.stop),)]
        e = element.element if act.by == "element" else element.inverse
        along = e if block.ndim == 2 else np.expand_dims(e, 2 - act.axis)  # [n, H] beside [n, rows, columns]
        if act.operation == "take":
            block[...] = np.take_along_axis(block, along, axis=act.axis + 1)
        elif act.operation == "multiply":
            block *= along
        elif act.operation == "add":
            block += along
        elif act.operation == "left":
            block[...] = product(e, block if block.ndim == 3 else block[..., None]).reshape(block.shape)
        elif act.operation == "right":
            block[...] = product(block, e)
        elif act.through is not None:  # add_image
            block += product(tensors[act.through], e[..., None])[..., 0]


def product(a: Array, b: Array) -> Array:
    """a @ b of matrices [n, p, q] and [n, q, s], each sum in the order of q, nothing fused."""
    result = a[:, :, 0, None] * b[:, None, 0, :]
    for j in range(1, a.shape[2]):
        result += a[:, :, j, None] * b[:, None, j, :]
    return result


# ------------------------------------------------------------------ random elements


def transform(architecture: Architecture, weights: Floats, seed: int, *, kinds: Collection[str] = KINDS) -> Floats:
    """Each network changed by a random symmetry of its own; it computes the same function, up to rounding.

    The symmetry of network i (its place in `weights` with the leading axes flattened) depends on seed, i and architecture
    alone; leaving a kind out leaves the others as they were. Matrices are orthogonal times a diagonal between 1/2 and 2
    (their condition is at most 4), scales are between 1/2 and 2, translations between -1 and 1.

    Args:
        weights: float32 [..., P].
        kinds: some of KINDS; those that the architecture does not have do nothing. With permutation and sign alone,
            nothing is rounded: every number is one of the network's, or its negative.

    Returns:
        float32 [..., P]

    Raises:
        UsageError: weights of another type, length or not finite; an unknown kind; a result beyond float32.
    """
    if unknown := set(kinds) - set(KINDS):
        raise UsageError(f"there is no symmetry {', '.join(sorted(unknown))}; use some of {', '.join(KINDS)}")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise UsageError(f"seed must be a whole number between 0 and 2^63 - 1, not {seed!r}")
    key, found = rng.stream_key(seed, "symmetry"), architecture.generators()

    def change(tensors: Tensors, first: int) -> None:
        indices = np.arange(first, first + len(next(iter(tensors.values()))), dtype=np.uint64)
        for number, generator in enumerate(found):
            if generator.kind in kinds:
                apply(generator, tensors, _draw(generator.kind, generator.units, key, number, indices))

    return _changed(architecture, weights, change)


def _draw(kind: str, H: int, key: rng.Key, number: int, indices: npt.NDArray[np.uint64]) -> Element:
    """An element for each network, from the stream of (network, generator)."""
    words = _words(key, number, indices, H * (H + 1) if kind == "linear" else H)
    if kind == "permutation":
        order = np.argsort(words, axis=1, kind="stable")
        return Element(order, np.argsort(order, axis=1, kind="stable"))
    uniform: Array = words.astype(np.float64) * 2.0**-32
    if kind == "sign":
        sign = np.where(uniform < 0.5, -1.0, 1.0)
        return Element(sign, sign)
    if kind in ("bias", "translation"):
        return Element(2.0 * uniform - 1.0, 1.0 - 2.0 * uniform)
    scale = 0.5 + 1.5 * uniform[:, :H]
    if kind == "scale":
        return Element(scale, 1.0 / scale)
    scale *= np.where(words[:, :H] & 1, -1.0, 1.0)  # an even number of reflections alone has no determinant below 0
    rotation = _orthogonal(2.0 * uniform[:, H:].reshape(-1, H, H) - 1.0)
    return Element(rotation * scale[:, None, :], rotation.swapaxes(1, 2) / scale[:, :, None])


def _words(key: rng.Key, number: int, indices: npt.NDArray[np.uint64], count: int) -> npt.NDArray[np.uint32]:
    """The first `count` words of generator `number`'s stream of each network, uint32 [n, count]."""
    position, index = np.broadcast_arrays(np.arange(-(-count // 4), dtype=np.uint64), indices[:, None])
    counter = (position, np.full_like(position, number), index, np.full_like(position, rng.SYMMETRIES))
    return np.stack(rng.philox(counter, key), axis=2).astype(np.uint32).reshape(len(indices), -1)[:, :count]


def _orthogonal(vectors: Array) -> Array:
    """The product of the reflections I - 2 v v^T / v^T v of H vectors [n, H, H]."""
    result = np.broadcast_to(np.eye(vectors.shape[2]), vectors.shape).copy()
    for k in range(vectors.shape[1]):
        v = vectors[:, k, :, None]
        square = product(v.swapaxes(1, 2), v)
        result -= v * (product(v.swapaxes(1, 2), result) * (2.0 / square))
    return result


# ------------------------------------------------------------------ the normal form


def canonicalize(architecture: Architecture, weights: Floats) -> Floats:
    """The normal form of each network: one for all that differ by symmetries, and with the same function, up to rounding.

    The `settle` of an architecture says what the normal form is; for GRU layers and linear maps see `recurrent_weights`.

    Args:
        weights: float32 [..., P].

    Returns:
        float32 [..., P]; without negative zeros. Canonicalizing again changes no bit.

    Raises:
        UsageError: weights of another type, length or not finite; a result beyond float32.
    """
    result = _changed(architecture, weights, lambda tensors, _: architecture.settle(tensors))
    result += np.float32(0.0)  # -0.0 + 0.0 is 0.0
    return result


# ------------------------------------------------------------------ both


def _changed(architecture: Architecture, weights: Floats, change: Callable[[Tensors, int], None]) -> Floats:
    """Weights after `change(tensors, first)`, in place on the float64 tensors of networks first, first + 1, ..."""
    weights = np.asarray(weights)
    if weights.dtype != np.float32 or weights.ndim < 1 or weights.shape[-1] != architecture.size:
        found = f"{weights.dtype} {list(weights.shape)}"
        raise UsageError(f"weights must be a float32 array [..., {architecture.size}] for this architecture, not {found}")
    rows = weights.reshape(math.prod(weights.shape[:-1]), architecture.size)
    result = np.empty_like(rows)
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        if not np.isfinite(chunk).all():
            raise UsageError("weights must be finite; leave out networks that diverged")
        tensors = {name: array.astype(np.float64) for name, array in to_tensors(architecture, chunk).items()}
        with np.errstate(over="ignore", invalid="ignore"):
            change(tensors, first)
            changed = from_tensors(architecture, {name: array.astype(np.float32) for name, array in tensors.items()}, 1)
        if not np.isfinite(changed).all():
            raise UsageError("the changed weights are too large for float32; leave out networks with weights that large")
        result[first : first + _CHUNK] = changed
    return result.reshape(weights.shape)
