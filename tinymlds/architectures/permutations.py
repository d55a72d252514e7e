"""The permutations among the symmetries, in the vocabulary of Git Re-Basin, and networks as graphs.

Ainsworth, Hayase and Srinivasa 2022 (arXiv 2209.04836) describe which axes of which tensors are permuted together by
`perm_to_axes` and `axes_to_perm`. Where a permutation acts on blocks of an axis, such as the gates of a layer, a tensor is
taken as several pieces, called as NumPy would index them: "gru.weight_ih_l0[0:12]".
"""

from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture
from tinymlds.architectures.params import Floats
from tinymlds.errors import UsageError

Integers = npt.NDArray[np.int64]
_KINDS = ("permutation", "linear")  # the permutations are among the invertible matrices


class PermutationSpec(NamedTuple):
    """Which axes of which tensors, or pieces of them, the same permutation acts on, without a change of the function.

    To apply permutations p, take `np.take(piece, p[name], axis)` for each named axis of each piece.
    """

    perm_to_axes: dict[str, list[tuple[str, int]]]
    """For each permutation, like "P_gru.0", the pieces and axes that it acts on."""
    axes_to_perm: dict[str, tuple[str | None, ...]]
    """For each piece, the permutation of each of its axes; None is an axis that stays, such as inputs and outputs."""
    sizes: dict[str, int]
    """How many units each permutation permutes."""
    pieces: dict[str, tuple[str, tuple[slice, ...]]]
    """For each piece, the tensor and where in it the piece is."""


def permutation_spec(architecture: Architecture) -> PermutationSpec:
    """Return the permutations of an architecture; they follow from its generators.

    Raises:
        UsageError: its symmetries are not known, or permutations overlap.
    """
    blocks: dict[tuple[str, int], dict[tuple[int, int], str]] = {}
    sizes: dict[str, int] = {}
    for generator in architecture.generators():
        if generator.kind in _KINDS:
            sizes[name := f"P_{generator.place}"] = generator.units
            for act in generator.acts:
                blocks.setdefault((act.tensor, act.axis), {})[act.start, act.stop] = name
    spec = PermutationSpec({name: [] for name in sizes}, {}, sizes, {})
    for tensor, shape, *_ in architecture.tensors():
        axes = [_cut(size, blocks.get((tensor, axis), {}), tensor) for axis, size in enumerate(shape)]
        for parts in product(*axes):
            places = tuple(place for place, _ in parts)
            spec.pieces[piece := _piece(tensor, shape, places)] = tensor, places
            spec.axes_to_perm[piece] = tuple(name for _, name in parts)
            for axis, (_, permutation) in enumerate(parts):
                if permutation is not None:
                    spec.perm_to_axes[permutation].append((piece, axis))
    return spec


def _cut(size: int, known: dict[tuple[int, int], str], tensor: str) -> list[tuple[slice, str | None]]:
    """Cut an axis where the blocks of permutations end: each part with its permutation."""
    parts = list(pairwise(sorted({0, size, *(edge for block in known for edge in block)})))
    if not known.keys() <= set(parts):
        raise UsageError(f"permutations of {tensor} overlap, which this description has no words for")
    return [(slice(*part), known.get(part)) for part in parts]


def _piece(tensor: str, shape: tuple[int, ...], places: tuple[slice, ...]) -> str:
    words = [
        ":" if place == slice(0, size) else f"{place.start}:{place.stop}" for place, size in zip(places, shape, strict=True)
    ]
    while words and words[-1] == ":":
        words.pop()
    return f"{tensor}[{', '.join(words)}]" if words else tensor


class Graph(NamedTuple):
    """A network as a graph: nodes are units, inputs and outputs, and an edge leads from what is read to what reads it.

    Weights between the same two nodes (the gates of a layer) are features of one edge; biases are features of nodes. This
    is the parameter graph of Lim et al. 2024 (arXiv 2312.04501) and Kofinas et al. 2024 (arXiv 2403.12143).
    """

    x: Floats
    """Features of the nodes, [N, F]; those that a group has fewer of are 0."""
    edge_index: Integers
    """Source and target of each edge, [2, E]."""
    edge_attr: Floats
    """Features of the edges, [E, G]."""
    node_group: Integers
    """The group of each node, [N], a place in `node_groups`; a permutation of the nodes of one group is a symmetry."""
    edge_group: Integers
    """The group of each edge, [E], a place in `edge_groups`."""
    node_groups: tuple[str, ...]
    """Names: "P_gru.0" for units that can be permuted; inputs and outputs after the matrix that they stand in."""
    edge_groups: tuple[tuple[int, int], ...]
    """The groups of source and target."""
    node_features: tuple[tuple[str, ...], ...]
    """For each group of nodes, the pieces of tensors (see `PermutationSpec`) that its features are."""
    edge_features: tuple[tuple[str, ...], ...]
    """For each group of edges, the pieces; a piece [targets, sources] is the group's column of `edge_attr`, row by row."""
    spec: PermutationSpec


def graph(architecture: Architecture, tensors: dict[str, Floats]) -> Graph:
    """Return a network, given by its tensors, as a graph.

    Raises:
        UsageError: a tensor has more than two axes, or see `permutation_spec`.
    """
    spec = permutation_spec(architecture)
    groups: dict[str, int] = {}  # size by name
    nodes: dict[str, list[str]] = {}
    edges: dict[tuple[str, str], list[str]] = {}
    for piece, (tensor, places) in spec.pieces.items():
        if len(places) > 2:
            raise UsageError(f"{tensor} has {len(places)} axes, and an edge of a graph joins two nodes")
        ends = [
            name or _fixed(architecture, tensor, axis, place)
            for axis, (name, place) in enumerate(zip(spec.axes_to_perm[piece], places, strict=True))
        ]
        groups |= {end: place.stop - place.start for end, place in zip(ends, places, strict=True)}
        if len(ends) == 1:
            nodes.setdefault(ends[0], []).append(piece)
        else:
            edges.setdefault((ends[1], ends[0]), []).append(piece)
    names, sizes = list(groups), list(groups.values())
    firsts = dict(zip(names, np.cumsum([0, *sizes]).tolist(), strict=False))
    values = {piece: tensors[tensor][places] for piece, (tensor, places) in spec.pieces.items()}
    x = np.zeros((sum(sizes), max(map(len, nodes.values()), default=0)), np.float32)
    for name, pieces in nodes.items():
        for k, piece in enumerate(pieces):
            x[firsts[name] : firsts[name] + groups[name], k] = values[piece]
    indices, features = [], []
    for (source, target), pieces in edges.items():
        to, of = np.indices((groups[target], groups[source])).reshape(2, -1)
        indices.append(np.stack([of + firsts[source], to + firsts[target]]))
        features.append(np.stack([values[piece].reshape(-1) for piece in pieces], axis=1))
    widest = max(each.shape[1] for each in features)
    return Graph(
        x,
        np.concatenate(indices, axis=1).astype(np.int64),
        np.concatenate([np.pad(each, ((0, 0), (0, widest - each.shape[1]))) for each in features]),
        np.repeat(np.arange(len(sizes)), sizes),
        np.repeat(np.arange(len(features)), [len(each) for each in features]),
        tuple(names),
        tuple((names.index(source), names.index(target)) for source, target in edges),
        tuple(tuple(nodes.get(name, ())) for name in names),
        tuple(map(tuple, edges.values())),
        spec,
    )


def _fixed(architecture: Architecture, tensor: str, axis: int, place: slice) -> str:
    """Return a name for nodes that no permutation moves; the tensors of a matrix share its rows and not its columns."""
    matrix = next(each for each in architecture.matrices() if tensor in each.tensors)
    if axis == 0:
        names, start = matrix.rows, place.start
    else:
        shapes = {each.name: each.shape for each in architecture.tensors()}
        before = matrix.tensors[: matrix.tensors.index(tensor)]
        names, start = matrix.columns, sum(shapes[name][1] if len(shapes[name]) > 1 else 1 for name in before) + place.start
    return f"{matrix.title}, {names[start]} to {names[start + place.stop - place.start - 1]}"
