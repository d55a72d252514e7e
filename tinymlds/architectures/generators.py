"""The symmetry group of the architecture as data: its generators, place by place, and how their elements act on weights.

Every place where one module hands H numbers to the next (a GRU layer's h, the outputs of an inner linear map) has its own
symmetries: they act on the rows that write these numbers and on the columns that read them.
"""

import math
from collections.abc import Collection, Iterator
from dataclasses import asdict
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from tinymlds.architectures.recurrent import Shape
from tinymlds.errors import UsageError

KINDS = ("permutation", "sign", "bias", "linear", "translation", "scale")
"""Every kind of symmetry; a shape has those of its activation."""

Array = npt.NDArray[np.float64]
Tensors = dict[str, Array]

_GATES = ("r", "z", "n")

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
    """What an element of a generator does to one block of one tensor: `start` to `stop` along `axis`."""

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
    """Whose outputs: "gru.0", ..., "head.0", ..."""
    acts: tuple[Act, ...]


class Element(NamedTuple):
    """An element of a generator for each of n networks: [n, H], or [n, H, H] of kind linear."""

    element: npt.NDArray[Any]
    inverse: npt.NDArray[Any]


def generators(shape: Shape) -> tuple[Generator, ...]:
    """All symmetries of a shape; transformations made of their elements are the group of docs/symmetry.md.

    Raises:
        UsageError: an activation whose symmetries are not known here.
    """
    if shape.activation not in ("none", "tanh", "relu"):
        raise UsageError(f"symmetries are known for the activations none, tanh and relu, not {shape.activation!r}")
    found: list[Generator] = []
    for layer in range(shape.layers):
        found += _of_gru(shape, layer)
    for k in range(shape.maps - 1):
        found += _of_map(shape, k)
    return tuple(found)


def _rows(shape: Shape, tensor: str, operation: str, by: str, gates: Collection[str]) -> Iterator[Act]:
    """The rows of some gates."""
    H = shape.hidden
    for gate in gates:
        start = _GATES.index(gate) * H
        yield Act(operation, by, tensor, 0, start, start + H, gate)


def _of_gru(shape: Shape, layer: int) -> Iterator[Generator]:
    place, H = f"gru.{layer}", shape.hidden
    parts = tuple(f"gru.{part}_l{layer}" for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    readers = (parts[1], _reader(shape, place))
    for kind, operation, gates in (("permutation", "take", _GATES), ("sign", "multiply", ("n",))):
        rows = [act for tensor in parts for act in _rows(shape, tensor, operation, "element", gates)]
        yield Generator(kind, place, (*rows, *(Act(operation, "element", tensor, 1, 0, H) for tensor in readers)))
    for gate in ("r", "z"):
        given = _rows(shape, parts[2], "add", "element", (gate,))
        yield Generator("bias", place, (*given, *_rows(shape, parts[3], "add", "inverse", (gate,))))


def _of_map(shape: Shape, k: int) -> Iterator[Generator]:
    place, H = f"head.{k}", shape.hidden
    weight, bias, reader = f"head.{k}.weight", f"head.{k}.bias", f"head.{k + 1}.weight"

    def all_three(kind: str, rows: str, columns: str, columns_by: str) -> Generator:
        written = (Act(rows, "element", tensor, 0, 0, H) for tensor in (weight, bias))
        return Generator(kind, place, (*written, Act(columns, columns_by, reader, 1, 0, H)))

    if shape.activation == "none":
        yield all_three("linear", "left", "right", "inverse")
        next_bias, outputs = f"head.{k + 1}.bias", shape.map_outputs[k + 1]
        image = Act("add_image", "inverse", next_bias, 0, 0, outputs, through=reader)
        yield Generator("translation", place, (Act("add", "element", bias, 0, 0, H), image))
        return
    yield all_three("permutation", "take", "take", "element")
    if shape.activation == "tanh":
        yield all_three("sign", "multiply", "multiply", "element")
    else:
        yield all_three("scale", "multiply", "multiply", "inverse")


def _reader(shape: Shape, place: str) -> str:
    """The weights whose columns read the numbers of a place."""
    module, number = place.split(".")
    after = int(number) + 1
    if module == "head":
        return f"head.{after}.weight"
    return f"gru.weight_ih_l{after}" if after < shape.layers else "head.0.weight"


def describe(shape: Shape) -> dict[str, Any]:
    """The symmetries of a shape as plain data for JSON: enough to apply them, or to build an equivariant network.

    `dimension` counts the continuous parameters of the group, `components` (a decimal number as text; it can be
    large) its connected components.
    """
    found, described = generators(shape), []
    for generator in found:
        dimension, components = _size(generator.kind, shape.hidden)
        acts = [{key: value for key, value in act._asdict().items() if value is not None} for act in generator.acts]
        described.append(
            {
                "kind": generator.kind,
                "place": generator.place,
                "units": shape.hidden,
                "dimension": dimension,
                "components": str(components),
                "acts": acts,
            }
        )
    sizes = [_size(generator.kind, shape.hidden) for generator in found]
    kinds = {generator.kind for generator in found}
    return {
        "format": 1,
        "kind": "symmetries",
        "shape": {**asdict(shape), "parameters": shape.size},
        "tensors": [{"name": name, "shape": list(sizes)} for name, sizes in shape.tensors],
        "gates": list(_GATES),
        "operations": _OPERATIONS,
        "kinds": {kind: dict(zip(("element", "inverse"), _ELEMENTS[kind], strict=True)) for kind in KINDS if kind in kinds},
        "dimension": sum(dimension for dimension, _ in sizes),
        "components": str(math.prod(components for _, components in sizes)),
        "generators": described,
    }


def _size(kind: str, H: int) -> tuple[int, int]:
    """Dimension and number of connected components of a generator's group."""
    return {
        "permutation": (0, math.factorial(H)),
        "sign": (0, 2**H),
        "bias": (H, 1),
        "linear": (H * H, 2),
        "translation": (H, 1),
        "scale": (H, 1),
    }[kind]


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
