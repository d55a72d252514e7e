"""Symmetries of the architecture: changes of the weights that leave the function of a network as it is.

`describe` says which there are, as data; `transform` draws a random one for each network; `canonicalize` chooses one
network for all that differ by symmetries. docs/symmetry.md has the formulas and says what is proved.

Arithmetic is in float64 in a fixed order, without BLAS, LAPACK or libm, and rounded once, so results have the same bits
on every machine.
"""

import math
from collections.abc import Callable, Collection

import numpy as np
import numpy.typing as npt

from tinymlds.architectures.generators import (
    KINDS,
    Array,
    Element,
    Generator,
    Tensors,
    apply,
    describe,
    generators,
    product,
)
from tinymlds.architectures.params import Floats, from_tensors, to_tensors
from tinymlds.architectures.recurrent import Shape
from tinymlds.errors import UsageError
from tinymlds.kernels import rng

__all__ = ["KINDS", "canonicalize", "describe", "transform"]

_CHUNK = 512  # networks worked on at once: about 20 MB in float64


# ------------------------------------------------------------------ random elements


def transform(shape: Shape, weights: Floats, seed: int, *, kinds: Collection[str] = KINDS) -> Floats:
    """Each network changed by a random symmetry of its own; it computes the same function, up to rounding.

    The symmetry of network i (its place in `weights` with the leading axes flattened) depends on seed, i and shape
    alone; leaving a kind out leaves the others as they were. Matrices are orthogonal times a diagonal between 1/2 and 2
    (their condition is at most 4), scales are between 1/2 and 2, translations between -1 and 1.

    Args:
        weights: float32 [..., P].
        kinds: some of KINDS; those that the shape does not have do nothing. With permutation and sign alone, nothing is
            rounded: every number is one of the network's, or its negative.

    Returns:
        float32 [..., P]

    Raises:
        UsageError: weights of another type, length or not finite; an unknown kind; a result beyond float32.
    """
    if unknown := set(kinds) - set(KINDS):
        raise UsageError(f"there is no symmetry {', '.join(sorted(unknown))}; use some of {', '.join(KINDS)}")
    if type(seed) is not int or not 0 <= seed < 2**63:
        raise UsageError(f"seed must be a whole number between 0 and 2^63 - 1, not {seed!r}")
    key, found = rng.stream_key(seed, "symmetry"), generators(shape)

    def change(tensors: Tensors, first: int) -> None:
        indices = np.arange(first, first + len(tensors["head.0.bias"]), dtype=np.uint64)
        for number, generator in enumerate(found):
            if generator.kind in kinds:
                apply(generator, tensors, _draw(generator.kind, shape.hidden, key, number, indices))

    return _changed(shape, weights, change)


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


def canonicalize(shape: Shape, weights: Floats) -> Floats:
    """The normal form of each network: one for all that differ by symmetries, and with the same function, up to rounding.

    Place by place from the input:

    - A GRU layer. Sign of a unit: the first of b_in, b_hn and its row of W_in that is not zero is positive. Order of the
      units: W_hn[i, i] ascends, which no other symmetry touches. Biases of r and z: their sum in bias_ih, 0 in bias_hh.
    - Maps without activation: inner maps are the identity with bias 0; the last one is the product of all.
    - Maps with tanh: the bias of a unit, or else the first weight of its row that is not zero, is positive; biases ascend.
    - Maps with relu: the largest magnitude of a unit's row of weights and its bias is 1; biases ascend.

    Units that tie are ordered by further numbers (`_gru_ties`; a map's by their rows), and those that agree in all of them
    stay in the order that they came in. Copies under permutation and sign give the same bits; the others round the weights
    that they change, and their normal forms agree to that, unless two units nearly tie or a sign hangs on nearly 0.

    Args:
        weights: float32 [..., P].

    Returns:
        float32 [..., P]; without negative zeros. Canonicalizing again changes no bit.

    Raises:
        UsageError: weights of another type, length or not finite; a result beyond float32.
    """
    found = {(generator.place, generator.kind): generator for generator in generators(shape)}

    def change(tensors: Tensors, _: int) -> None:
        for layer in range(shape.layers):
            _settle_gru(shape, layer, tensors, found)
        if shape.activation == "none":
            _compose(shape, tensors)
        else:
            for k in range(shape.maps - 1):
                _settle_map(shape, k, tensors, found)

    result = _changed(shape, weights, change)
    result += np.float32(0.0)  # -0.0 + 0.0 is 0.0
    return result


Found = dict[tuple[str, str], Generator]
Rows = npt.NDArray[np.intp]


def _settle_gru(shape: Shape, layer: int, tensors: Tensors, found: Found) -> None:
    """Signs, biases and order of a layer's units; the places below are settled."""
    place = f"gru.{layer}"
    w_i, w_h, b_i, b_h = (tensors[f"gru.{part}_l{layer}"] for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    H = shape.hidden
    sign = _signs(np.concatenate([b_i[:, 2 * H :, None], b_h[:, 2 * H :, None], w_i[:, 2 * H :]], axis=2))
    apply(found[place, "sign"], tensors, Element(sign, sign))
    b_i[:, : 2 * H] = (b_i + b_h)[:, : 2 * H].astype(np.float32)  # rounded here: ties are as they will be read again
    b_h[:, : 2 * H] = 0.0
    diagonal = np.diagonal(w_h[:, 2 * H :], axis1=1, axis2=2)
    order = _order(diagonal, lambda tied: _gru_ties(w_i[tied], w_h[tied], b_i[tied], b_h[tied]))
    apply(found[place, "permutation"], tensors, Element(order, order))


def _gru_ties(w_i: Array, w_h: Array, b_i: Array, b_h: Array) -> Array:
    """What orders units of a layer with equal W_hn[i, i], [n, H, keys]: their rows of W_i, their biases, then the sorted
    magnitudes of their rows and columns of W_h. (What reads them is settled later, so it would be another the second time.)
    """
    n, H = w_h.shape[0], w_h.shape[2]
    by_gate = w_h.reshape(n, 3, H, H)
    keys = [
        *np.split(w_i, 3, axis=1),
        *(part[..., None] for part in np.split(b_i, 3, axis=1)),
        b_h[:, 2 * H :, None],
        *np.sort(np.abs(by_gate), axis=3).swapaxes(0, 1),
        *np.sort(np.abs(by_gate), axis=2).transpose(1, 0, 3, 2),
    ]
    return np.concatenate(keys, axis=2)


def _settle_map(shape: Shape, k: int, tensors: Tensors, found: Found) -> None:
    """Signs or scales, and order, of the units between two maps; the places below are settled."""
    place = f"head.{k}"
    weight, bias = tensors[f"{place}.weight"], tensors[f"{place}.bias"]
    if shape.activation == "tanh":
        sign = _signs(np.concatenate([bias[..., None], weight], axis=2))
        apply(found[place, "sign"], tensors, Element(sign, sign))
    else:
        largest = np.maximum(np.abs(weight).max(axis=2), np.abs(bias))
        largest = np.where(largest > 0.0, largest, 1.0)
        apply(found[place, "scale"], tensors, Element(1.0 / largest, largest))
        for tensor in (weight, bias):
            tensor[...] = tensor.astype(
                np.float32
            )  # rounded here: the largest is 1, and ties are as they will be read again
    order = _order(bias, lambda tied: weight[tied])
    apply(found[place, "permutation"], tensors, Element(order, order))


def _compose(shape: Shape, tensors: Tensors) -> None:
    """The product of maps without activation into the last; the inner ones become identities."""
    weight, bias = tensors["head.0.weight"].copy(), tensors["head.0.bias"].copy()
    for k in range(1, shape.maps):
        tensors[f"head.{k - 1}.weight"][...] = np.eye(shape.hidden)
        tensors[f"head.{k - 1}.bias"][...] = 0.0
        weight = product(tensors[f"head.{k}.weight"], weight)
        bias = product(tensors[f"head.{k}.weight"], bias[..., None])[..., 0] + tensors[f"head.{k}.bias"]
    last = shape.maps - 1
    tensors[f"head.{last}.weight"][...], tensors[f"head.{last}.bias"][...] = weight, bias


def _signs(candidates: Array) -> Array:
    """The sign of the first candidate of each unit that is not zero, [n, H] from [n, H, candidates]; 1 where all are."""
    first = np.argmax(candidates != 0.0, axis=2)
    return np.where(np.take_along_axis(candidates, first[..., None], axis=2)[..., 0] < 0.0, -1.0, 1.0)


def _order(first: Array, ties: Callable[[Rows], Array]) -> Rows:
    """The permutation that sorts the units of each network by `first` [n, H]; in the networks where some of these are
    equal, further by `ties(networks)` [networks, H, keys], the first key first, and last by position."""
    order = np.argsort(first, axis=1, kind="stable")
    ranked = np.take_along_axis(first, order, axis=1)
    tied = np.flatnonzero((ranked[:, 1:] == ranked[:, :-1]).any(axis=1))
    if tied.size:
        keys = np.concatenate([first[tied, :, None], ties(tied)], axis=2)
        order[tied] = np.lexsort(keys.transpose(2, 0, 1)[::-1], axis=-1)  # lexsort's last key is the first
    return order


# ------------------------------------------------------------------ both


def _changed(shape: Shape, weights: Floats, change: Callable[[Tensors, int], None]) -> Floats:
    """Weights after `change(tensors, first)`, in place on the float64 tensors of networks first, first + 1, ..."""
    weights = np.asarray(weights)
    if weights.dtype != np.float32 or weights.ndim < 1 or weights.shape[-1] != shape.size:
        found = f"{weights.dtype} {list(weights.shape)}"
        raise UsageError(f"weights must be a float32 array [..., {shape.size}] for this shape, not {found}")
    rows = weights.reshape(math.prod(weights.shape[:-1]), shape.size)
    result = np.empty_like(rows)
    for first in range(0, len(rows), _CHUNK):
        chunk = rows[first : first + _CHUNK]
        if not np.isfinite(chunk).all():
            raise UsageError("weights must be finite; leave out networks that diverged")
        tensors = {name: array.astype(np.float64) for name, array in to_tensors(shape, chunk).items()}
        with np.errstate(over="ignore", invalid="ignore"):
            change(tensors, first)
            changed = from_tensors(shape, {name: array.astype(np.float32) for name, array in tensors.items()}, 1)
        if not np.isfinite(changed).all():
            raise UsageError("the changed weights are too large for float32; leave out networks with weights that large")
        result[first : first + _CHUNK] = changed
    return result.reshape(weights.shape)
