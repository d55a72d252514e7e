"""Permutations as Git Re-Basin describes them, and networks as graphs: enough to permute and to rebuild networks."""

import numpy as np
import pytest
from test_symmetry import SHAPES, outputs, random_weights
from toy_architecture import LinearMaps

import tinymlds
from tinymlds.architectures import symmetry
from tinymlds.architectures.params import from_tensors, to_tensors
from tinymlds.architectures.permutations import graph, permutation_spec
from tinymlds.architectures.recurrent import GruLinear


def permuted(spec, tensors, permutations):
    """What `apply_permutation` of Git Re-Basin does, from the spec alone."""
    result = {name: tensor.copy() for name, tensor in tensors.items()}
    for piece, (name, place) in spec.pieces.items():
        for axis, permutation in enumerate(spec.axes_to_perm[piece]):
            if permutation is not None:
                result[name][place] = np.take(result[name][place], permutations[permutation], axis)
    return result


@pytest.mark.parametrize("shape", SHAPES)
def test_outputs_stay_the_same_under_random_permutations(shape) -> None:
    spec, random, weights = permutation_spec(shape), np.random.default_rng(3), random_weights(shape, 31)
    permutations = {name: random.permutation(size) for name, size in spec.sizes.items()}
    assert len(spec.sizes) == shape.layers + shape.maps - 1, "every layer and every interface of the head"
    changed = from_tensors(shape, permuted(spec, to_tensors(shape, weights), permutations), 0)
    assert np.array_equal(np.sort(changed), np.sort(weights))
    assert not np.array_equal(changed, weights)
    before = outputs(shape, weights)
    np.testing.assert_allclose(outputs(shape, changed), before, rtol=0, atol=1e-12 * max(1.0, np.abs(before).max()))


def test_the_two_tables_say_the_same() -> None:
    for shape in (*SHAPES, LinearMaps()):
        spec = permutation_spec(shape)
        wanted = {name: [] for name in spec.sizes}
        for piece, names in spec.axes_to_perm.items():
            for axis, name in enumerate(names):
                if name is not None:
                    wanted[name].append((piece, axis))
        assert spec.perm_to_axes == wanted


def test_a_spec_as_it_is_documented() -> None:
    spec = tinymlds.symmetry.permutation_spec(GruLinear(hidden=4, layers=1, maps=2))
    assert spec.sizes == {"P_gru.0": 4, "P_head.0": 4}
    assert spec.axes_to_perm["gru.weight_ih_l0[0:4]"] == ("P_gru.0", None)
    assert spec.axes_to_perm["gru.weight_hh_l0[8:12]"] == ("P_gru.0", "P_gru.0")
    assert spec.axes_to_perm["head.0.weight"] == ("P_head.0", "P_gru.0")
    assert spec.axes_to_perm["head.1.weight"] == (None, "P_head.0")
    assert spec.axes_to_perm["head.1.bias"] == (None,)
    assert spec.pieces["gru.weight_ih_l0[4:8]"] == ("gru.weight_ih_l0", (slice(4, 8), slice(0, 9)))
    toy = permutation_spec(LinearMaps())
    assert toy.axes_to_perm == {"0.weight": ("P_0", None), "1.weight": (None, "P_0"), "1.bias": (None,)}


def test_overlapping_permutations_are_refused() -> None:
    class Overlapping(LinearMaps):
        def generators(self):
            act = symmetry.Act("take", "element", "0.weight", 0, 0, 2)
            return (*super().generators(), symmetry.Generator("permutation", "half", 2, (act,)))

    with pytest.raises(tinymlds.UsageError, match=r"0\.weight overlap"):
        permutation_spec(Overlapping())


@pytest.mark.parametrize("shape", [*SHAPES, LinearMaps()])
def test_tensors_are_rebuilt_from_a_graph(shape) -> None:
    weights = np.random.default_rng(4).standard_normal(shape.size).astype(np.float32)
    tensors = to_tensors(shape, weights)
    found = graph(shape, tensors)
    sizes = np.bincount(found.node_group)
    rebuilt = {name: np.full_like(tensor, np.nan) for name, tensor in tensors.items()}
    for group, pieces in enumerate(found.node_features):
        for k, piece in enumerate(pieces):
            name, place = found.spec.pieces[piece]
            rebuilt[name][place] = found.x[found.node_group == group, k]
    for group, pieces in enumerate(found.edge_features):
        mine = found.edge_group == group
        source, target = found.edge_groups[group]
        of, to = found.edge_index[:, mine]
        assert set(found.node_group[of]) == {source}
        assert set(found.node_group[to]) == {target}
        for k, piece in enumerate(pieces):
            matrix = np.empty((sizes[target], sizes[source]), np.float32)
            firsts = np.searchsorted(found.node_group, [target, source])
            matrix[to - firsts[0], of - firsts[1]] = found.edge_attr[mine, k]
            name, place = found.spec.pieces[piece]
            rebuilt[name][place] = matrix
    assert all(np.array_equal(rebuilt[name], tensor) for name, tensor in tensors.items())


def test_the_nodes_of_a_graph() -> None:
    shape = GruLinear()
    found = graph(shape, to_tensors(shape, random_weights(shape, 5)))
    sizes = dict(zip(found.node_groups, np.bincount(found.node_group).tolist(), strict=True))
    units = {f"P_gru.{k}": 12 for k in range(4)} | {f"P_head.{k}": 12 for k in range(4)}
    assert sizes == units | {"GRU layer 0, x 0 to x 8": 9, "linear map 4, y 0 to y 7": 8}
    assert found.edge_index.shape == (2, 12 * 9 + 7 * 144 + 4 * 144 + 96)
    assert (found.x.shape[1], found.edge_attr.shape[1]) == (6, 3), "two biases and one weight of each gate"


def test_a_graph_for_pytorch_geometric(tmp_path) -> None:
    geometric = pytest.importorskip("torch_geometric")
    from forging import make

    network = tinymlds.open(make(tmp_path / "xor"))["xor", 0]
    data, wanted = tinymlds.torch.graph(network), network.to_graph()
    assert isinstance(data, geometric.data.Data)
    assert data.validate()
    for name in ("x", "edge_index", "edge_attr", "node_group", "edge_group"):
        assert np.array_equal(data[name].numpy(), getattr(wanted, name))
