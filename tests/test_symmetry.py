"""Symmetries: the description by an interpreter of its own, functions before and after, and the normal form."""

import json
import math
import subprocess
import sys

import naive
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from running import SMALL

import tinymlds
from tinymlds.architectures import symmetry
from tinymlds.architectures.params import from_tensors, to_tensors
from tinymlds.architectures.recurrent import GruLinear, LstmLinear, RnnLinear
from tinymlds.training import backends

U = 2.0**-24
"""The largest relative error of a rounding to float32."""

SHAPES = (
    GruLinear(),
    GruLinear(hidden=4, layers=1, maps=1),
    GruLinear(inputs=3, hidden=8, outputs=2, layers=2, maps=8),
    GruLinear(hidden=4, layers=3, maps=3, activation="tanh"),
    GruLinear(hidden=16, layers=1, maps=2, activation="tanh"),
    GruLinear(hidden=12, layers=4, maps=5, activation="relu"),
    GruLinear(hidden=4, layers=2, maps=8, activation="relu"),
    LstmLinear(hidden=8, layers=2, maps=2),
    RnnLinear(hidden=8, layers=2, maps=2, activation="tanh"),
)
shapes = st.builds(
    lambda kind, **sizes: kind(**sizes),
    kind=st.sampled_from([GruLinear, LstmLinear, RnnLinear]),
    inputs=st.integers(1, 9),
    hidden=st.sampled_from([4, 8, 12, 16]),
    outputs=st.integers(1, 8),
    layers=st.integers(1, 4),
    maps=st.integers(1, 8),
    activation=st.sampled_from(["none", "tanh", "relu"]),
)
seeds = st.integers(0, 2**32 - 1)


def random_weights(shape, seed, *leading):
    """Twice as large as initial weights, so that gates and activations leave their linear range."""
    draws = np.random.default_rng(seed).uniform(-2.0, 2.0, (*leading, shape.size))
    return (draws / math.sqrt(shape.hidden)).astype(np.float32)


def outputs(shape, weights, count=8, steps=12):
    """Outputs of a network, float32 or float64 [P], on random real inputs, by the oracle in float64."""
    x = np.random.default_rng(1).normal(size=(count, steps, shape.inputs))
    return naive.forward(to_tensors(shape, np.float64(weights)), shape.activation, x).outputs


# ------------------------------------------------------------------ the description, interpreted here


def element(generator, random):
    """A random element and its inverse, from the words of the description alone."""
    units = generator["units"]
    kind = generator["kind"]
    if kind == "permutation":
        e = np.roll(random.permutation(units), 1)
        e = e if (e != np.arange(units)).any() else e[::-1]  # not the identity
        return {"element": e, "inverse": np.argsort(e)}
    if kind == "sign":
        e = random.choice([-1.0, 1.0], units)
        e[0] = -1.0  # not the identity
        return {"element": e, "inverse": e}
    if kind in ("bias", "translation"):
        e = random.normal(size=units)
        return {"element": e, "inverse": -e}
    if kind == "scale":
        e = random.uniform(0.3, 3.0, units)
        return {"element": e, "inverse": 1 / e}
    assert kind == "linear"
    e = random.normal(size=(units, units))
    return {"element": e, "inverse": np.linalg.inv(e)}


def interpret(acts, tensors, chosen):
    for act in acts:
        tensor, e = tensors[act["tensor"]], chosen[act["by"]]
        block = tensor[act["start"] : act["stop"]] if act["axis"] == 0 else tensor[:, act["start"] : act["stop"]]
        broadcast = e[:, None] if act["axis"] == 0 and block.ndim == 2 else e
        block[...] = {
            "take": lambda block=block, e=e, act=act: np.take(block, e, axis=act["axis"]),
            "multiply": lambda block=block, e=broadcast: block * e,
            "add": lambda block=block, e=broadcast: block + e,
            "left": lambda block=block, e=e: e @ block,
            "right": lambda block=block, e=e: block @ e,
            "add_image": lambda block=block, e=e, act=act: block + tensors[act["through"]] @ e,
        }[act["operation"]]()


def after(shape, weights, acts, chosen):
    """Outputs [N, T, O] once these acts are done."""
    tensors = {name: tensor.copy() for name, tensor in to_tensors(shape, np.float64(weights)).items()}
    interpret(acts, tensors, chosen)
    x = np.random.default_rng(1).normal(size=(8, 12, shape.inputs))
    return naive.forward(tensors, shape.activation, x).outputs


@pytest.mark.parametrize("shape", SHAPES)
def test_the_description_says_enough_to_apply_every_symmetry(shape):
    described = json.loads(json.dumps(symmetry.describe(shape), allow_nan=False))
    weights, random = random_weights(shape, 3), np.random.default_rng(4)
    before = outputs(shape, weights)
    assert [tuple(t["shape"]) for t in described["tensors"]] == [each.shape for each in shape.tensors()]
    for generator in described["generators"]:
        # float64, matrices of condition up to about 1000: 6e-13 was the most seen in thirty draws of each.
        chosen = element(generator, random)
        np.testing.assert_allclose(after(shape, weights, generator["acts"], chosen), before, rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", [GruLinear(), SHAPES[3], SHAPES[6], *SHAPES[7:]])
def test_no_act_of_a_generator_can_be_forgotten(shape):
    """Columns of the next layer, rows of one gate, ...: leave any one out and the function is another."""
    weights, random = random_weights(shape, 3), np.random.default_rng(5)
    before = outputs(shape, weights)
    for generator in symmetry.describe(shape)["generators"]:
        chosen = element(generator, random)
        for k in range(len(generator["acts"])):
            forgetful = generator["acts"][:k] + generator["acts"][k + 1 :]
            difference = np.abs(after(shape, weights, forgetful, chosen) - before).max()
            assert difference > 1e-6, (generator["kind"], generator["acts"][k])  # the test above allows 1e-10


def test_the_description_counts_the_group():
    described = symmetry.describe(GruLinear())
    assert described["dimension"] == 4 * 24 + 4 * 156
    assert int(described["components"]) == (math.factorial(12) * 2**12) ** 4 * 2**4
    tanh, relu = (symmetry.describe(GruLinear(activation=name)) for name in ("tanh", "relu"))
    assert (tanh["dimension"], relu["dimension"]) == (4 * 24, 4 * 24 + 4 * 12)
    assert int(tanh["components"]) == (math.factorial(12) * 2**12) ** 8
    assert int(relu["components"]) == (math.factorial(12) * 2**12) ** 4 * math.factorial(12) ** 4
    assert set(described["kinds"]) == {"permutation", "sign", "bias", "linear", "translation"}


@pytest.mark.parametrize("activation", ["none", "tanh", "relu"])
def test_there_are_no_further_continuous_symmetries(activation):
    """The rank of the outputs' derivative is the number of parameters less the dimension of the group.

    Further ones would make it less, at every network. The outputs are of real inputs, at all steps of 40 sequences.
    """
    shape = GruLinear(inputs=3, hidden=4, outputs=3, layers=2, maps=3, activation=activation)
    tensors = to_tensors(shape, np.float64(random_weights(shape, 6)) * 1.5)
    x = np.random.default_rng(7).normal(size=(40, 6, shape.inputs)) * 2
    rows = []
    for n in range(len(x)):
        trace = naive.forward(tensors, activation, x[n : n + 1])
        for t in range(x.shape[1]):
            for o in range(shape.outputs):
                d_outputs = np.zeros((1, x.shape[1], shape.outputs))
                d_outputs[0, t, o] = 1.0
                gradient = naive.backward(tensors, activation, trace, d_outputs)
                rows.append(np.concatenate([gradient[name].ravel() for name, *_ in shape.tensors()]))
    values = np.linalg.svd(np.array(rows), compute_uv=False)
    rank = shape.size - symmetry.describe(shape)["dimension"]
    zero = values[0] * 1e-14 * shape.size  # float64
    assert values[rank - 1] > 10 * zero, values[rank - 3 : rank + 3]
    assert values[rank] < zero, values[rank - 3 : rank + 3]


# ------------------------------------------------------------------ transform


@pytest.mark.parametrize("shape", SHAPES)
def test_a_transformed_network_computes_the_same(shape):
    weights = random_weights(shape, 8, 3)
    kinds = {generator["kind"] for generator in symmetry.describe(shape)["generators"]}
    for chosen in (*[(kind,) for kind in sorted(kinds)], symmetry.KINDS):
        changed = symmetry.transform(shape, weights, 9, kinds=chosen)
        assert (changed.shape, changed.dtype) == (weights.shape, np.float32)
        assert (weights != changed).any(), chosen
        for one, other in zip(weights, changed, strict=True):
            before = outputs(shape, one)
            # With these two, nothing is rounded but sums in another order, in float64. The others round to float32, which
            # maps of condition up to 4 carry on: 7e-7 of the largest output was the most seen.
            relative = 1e-12 if set(chosen) <= {"permutation", "sign"} else 1e-5
            np.testing.assert_allclose(outputs(shape, other), before, rtol=0, atol=relative * np.abs(before).max())


def test_a_network_s_symmetry_depends_on_its_place_and_the_seed():
    shape = SHAPES[2]
    weights = random_weights(shape, 10, 2, 300)  # more than one chunk
    changed = symmetry.transform(shape, weights, 11)
    flat = symmetry.transform(shape, weights.reshape(600, -1)[:550], 11)
    assert np.array_equal(changed.reshape(600, -1)[:550], flat)
    assert not np.array_equal(changed, symmetry.transform(shape, weights, 12))
    twins = symmetry.transform(shape, np.repeat(weights[:1, :1], 50, axis=1), 11)[0]
    assert len(np.unique(twins, axis=0)) == 50
    only = symmetry.transform(shape, weights, 11, kinds=("permutation", "sign"))
    gru_n = to_tensors(shape, only)["gru.weight_hh_l1"][..., 2 * shape.hidden :, :]
    assert np.array_equal(gru_n, to_tensors(shape, changed)["gru.weight_hh_l1"][..., 2 * shape.hidden :, :])


def test_all_components_are_reached():
    """Every signed permutation of four units, and matrices of both orientations."""
    shape = GruLinear(hidden=4, layers=1, maps=2)
    tensors = to_tensors(shape, np.zeros((8000, shape.size), np.float32))
    tensors["gru.bias_ih_l0"][:, 2 * shape.hidden :] = [1, 2, 3, 4]
    tensors["head.0.weight"][:] = np.eye(shape.hidden)
    weights = from_tensors(shape, tensors, 1)
    found = to_tensors(shape, symmetry.transform(shape, weights, 13))
    # 8,000 draws: the chance that one of 24 * 16 does not come is below 1e-6.
    assert len(np.unique(found["gru.bias_ih_l0"][:, 2 * shape.hidden :], axis=0)) == math.factorial(4) * 2**4
    only = to_tensors(shape, symmetry.transform(shape, weights, 13, kinds=["linear"]))["head.0.weight"]
    positive = np.linalg.det(only) > 0
    assert 0.4 < positive.mean() < 0.6  # standard deviation 0.006
    assert np.linalg.cond(only).max() < 4.001
    assert np.linalg.norm(only.mean(axis=0)) < 0.2


# ------------------------------------------------------------------ the normal form


def head_bounds(shape, weights):
    """How far rounding each number of a head without activation once can move its product: per output, float64 [n, O]."""
    tensors = {name: np.abs(np.float64(tensor)) for name, tensor in to_tensors(shape, weights).items()}
    weight, bias = tensors["head.0.weight"], tensors["head.0.bias"]
    for k in range(1, shape.maps):
        weight = tensors[f"head.{k}.weight"] @ weight
        bias = np.einsum("noi,ni->no", tensors[f"head.{k}.weight"], bias) + tensors[f"head.{k}.bias"]
    return (shape.maps + 2) * U * np.maximum(weight.max(axis=2), bias)


def assert_one_form(shape, transformed, got, expected):
    """Normal forms `got` of `transformed` [n, P], against those of the networks that these were made from.

    Signs and orders are exact; a bias of r or z, or of any gate of an LSTM or RNN, is a sum of two rounded numbers; a
    number of a head is the product of as many rounded ones as there are maps, or with relu a quotient by maxima, which are
    such quotients themselves.
    """
    got, expected = to_tensors(shape, got), to_tensors(shape, expected)
    cell, gates = shape.cell.name, len(shape.cell.summed) * shape.hidden
    for name, tensor in expected.items():
        if name.startswith(f"{cell}.bias_ih"):
            given = np.abs(to_tensors(shape, transformed)[name]).max() + 2.0
            np.testing.assert_allclose(got[name][:, :gates], tensor[:, :gates], rtol=0, atol=4 * U * given)
            assert np.array_equal(got[name][:, gates:], tensor[:, gates:])
        elif name.startswith(cell) or shape.activation == "tanh":
            assert np.array_equal(got[name], tensor), name
        elif shape.activation == "none" and name.startswith(f"head.{shape.maps - 1}"):
            error = np.abs(np.float64(got[name]) - tensor).reshape(*tensor.shape[:2], -1).max(axis=2)
            assert (error <= head_bounds(shape, transformed)).all(), name
        elif shape.activation == "none":
            assert np.array_equal(got[name], tensor), name
        else:
            np.testing.assert_allclose(got[name], tensor, rtol=(2 * shape.maps + 2) * U, atol=1e-30)


def assume_no_near_ties(shape, canonical):
    """With relu, biases that order units are rounded by a scale; nearly equal ones may change places, those at 1 do not."""
    if shape.activation == "relu":
        for k in range(shape.maps - 1):
            bias = to_tensors(shape, canonical)[f"head.{k}.bias"]
            assume(((np.diff(bias, axis=1) > 1e-5) | (np.abs(bias[:, 1:]) == 1)).all())


@settings(max_examples=40, deadline=None)
@given(shapes, seeds, seeds)
def test_two_copies_have_one_normal_form(shape, seed, other_seed):
    weights = random_weights(shape, seed, 3)
    canonical = symmetry.canonicalize(shape, weights)
    exact = symmetry.transform(shape, weights, other_seed, kinds=("permutation", "sign"))
    assert symmetry.canonicalize(shape, exact).tobytes() == canonical.tobytes()
    assume_no_near_ties(shape, canonical)
    once = symmetry.transform(shape, weights, other_seed)
    assert_one_form(shape, once, symmetry.canonicalize(shape, once), canonical)
    twice = symmetry.transform(shape, once, other_seed)
    assert_one_form(shape, twice, symmetry.canonicalize(shape, twice), symmetry.canonicalize(shape, once))


@settings(max_examples=40, deadline=None)
@given(shapes, seeds, st.sampled_from(["any", "few values", "sparse", "tiny", "zero"]))
def test_the_normal_form_of_a_normal_form_is_itself(shape, seed, values):
    """Whatever the weights: with many ties, many zeros of either sign, or numbers that underflow."""
    weights = random_weights(shape, seed, 2)
    random = np.random.default_rng(seed)
    if values == "few values":
        weights = np.round(weights * 2)
    if values == "sparse":
        weights *= random.choice([-0.0, 0.0, 0.0, 1.0], weights.shape).astype(np.float32)
    if values == "tiny":
        weights *= np.float32(1e-38)
    if values == "zero":
        weights *= np.float32(0.0)
    canonical = symmetry.canonicalize(shape, weights)
    assert symmetry.canonicalize(shape, canonical).tobytes() == canonical.tobytes()
    assert not (np.signbit(canonical) & (canonical == 0)).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_the_normal_form_computes_the_same(shape):
    weights = random_weights(shape, 14, 4)
    for one, other in zip(weights, symmetry.canonicalize(shape, weights), strict=True):
        before = outputs(shape, one)
        # Rounded once to float32: 1e-7 of the largest output was the most seen.
        np.testing.assert_allclose(outputs(shape, other), before, rtol=0, atol=2e-6 * np.abs(before).max())


@pytest.mark.parametrize("shape", SHAPES)
def test_the_normal_form_is_as_described(shape):
    H, cell = shape.hidden, shape.cell
    start = cell.gates.index(cell.flipped) * H
    tensors = to_tensors(shape, symmetry.canonicalize(shape, random_weights(shape, 15, 4)))
    for layer in range(shape.layers):
        assert (tensors[f"{cell.name}.bias_ih_l{layer}"][:, start : start + H] > 0).all()
        assert not tensors[f"{cell.name}.bias_hh_l{layer}"][:, : len(cell.summed) * H].any()
        diagonal = np.diagonal(tensors[f"{cell.name}.weight_hh_l{layer}"][:, start : start + H], axis1=1, axis2=2)
        assert (np.diff(diagonal, axis=1) >= 0).all()
    for k in range(shape.maps - 1):
        weight, bias = tensors[f"head.{k}.weight"], tensors[f"head.{k}.bias"]
        assert (np.diff(bias, axis=1) >= 0).all()
        if shape.activation == "none":
            assert np.array_equal(weight, np.broadcast_to(np.eye(H), weight.shape))
            assert not bias.any()
        elif shape.activation == "tanh":
            assert (bias > 0).all()
        else:
            assert (np.maximum(np.abs(weight).max(axis=2), np.abs(bias)) == 1).all()


@pytest.mark.parametrize("shape", [SHAPES[2], SHAPES[3], SHAPES[5], *SHAPES[7:]])
def test_ties_are_broken_by_further_numbers(shape):
    """All that orders units or gives them signs first is equal or zero; copies still have the same bits."""
    H, cell = shape.hidden, shape.cell
    start = cell.gates.index(cell.flipped) * H
    own, others = range(start, start + H), [k for k in range(len(cell.gates) * H) if not start <= k < start + H]
    tensors = {name: tensor.copy() for name, tensor in to_tensors(shape, random_weights(shape, 16, 20)).items()}
    for layer in range(shape.layers):
        tensors[f"{cell.name}.bias_ih_l{layer}"][:, own] = 0
        tensors[f"{cell.name}.bias_hh_l{layer}"][:, own] = 0
        tensors[f"{cell.name}.weight_ih_l{layer}"][:, others] = 0.5
        tensors[f"{cell.name}.weight_hh_l{layer}"][:, own, range(H)] = 0.25
    for k in range(shape.maps - 1):
        tensors[f"head.{k}.bias"][:] = 0
    weights = from_tensors(shape, tensors, 1)
    copies = symmetry.transform(shape, weights, 17, kinds=("permutation", "sign"))
    assert symmetry.canonicalize(shape, copies).tobytes() == symmetry.canonicalize(shape, weights).tobytes()


def test_different_networks_have_different_normal_forms():
    """Nothing but coordinates is lost: any number that is changed by a hundredth shows."""
    shape = SHAPES[3]
    weights = random_weights(shape, 18)
    changed = np.repeat(weights[None], shape.size, axis=0)
    changed[np.diag_indices(shape.size)] *= np.float32(1.01)
    forms = symmetry.canonicalize(shape, np.concatenate([weights[None], changed]))
    assert len(np.unique(forms, axis=0)) == 1 + shape.size


# ------------------------------------------------------------------ trained networks, bad input


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"hidden": 8, "gru_layers": 2, "linear_maps": 3, "head_activation": "tanh"},
        {"hidden": 4, "gru_layers": 1, "linear_maps": 2, "head_activation": "relu"},
    ],
)
def test_trained_networks_compute_the_same(tmp_path, sizes):
    recipe = {**SMALL, "train_sequences": 2048, "lr": 0.01, **sizes}
    tinymlds.train("xor", 3, tmp_path / "xor", workers=1, **recipe)
    dataset = tinymlds.open(tmp_path / "xor")
    weights, shape = dataset.weights("xor", unfinished=True), dataset["xor", 0].shape
    x = np.random.default_rng(19).integers(0, 2, (20, 16, shape.inputs)).astype(np.float32)
    compute = backends.load("cpu").outputs
    transformed = symmetry.transform(shape, weights, 20)
    copies = symmetry.canonicalize(shape, transformed)
    for network in range(3):
        before = compute(shape, weights[network], x)
        for other in (transformed, copies, symmetry.canonicalize(shape, weights)):
            # Float32 over 16 steps and nine layers, as between us and PyTorch: 3e-6 was the most seen.
            np.testing.assert_allclose(compute(shape, other[network], x), before, rtol=0, atol=1e-5)
    assert_one_form(shape, transformed, copies, symmetry.canonicalize(shape, weights))


def test_bad_input_is_refused():
    shape = SHAPES[1]
    good = random_weights(shape, 21, 2)
    bad = good.copy()
    bad[1, 5] = np.nan
    for function in (symmetry.canonicalize, lambda shape, weights: symmetry.transform(shape, weights, 0)):
        for weights, words in (
            (good[:, 1:], rf"float32 array \[..., {shape.size}\]"),
            (good.astype(np.float64), "float32 array"),
            (np.float32(1.0), "float32 array"),
            (bad, "finite"),
            (np.where(np.isnan(bad), np.float32(np.inf), bad), "finite"),
            (np.full((1, GruLinear().size), 3e38, np.float32), "float32"),
        ):
            with pytest.raises(tinymlds.UsageError, match=words):
                function(GruLinear() if weights.shape[-1:] == (GruLinear().size,) else shape, weights)
        assert function(shape, good[:0]).shape == (0, shape.size)
        assert function(shape, good[0]).shape == (shape.size,)
    with pytest.raises(tinymlds.UsageError, match="no symmetry rotation"):
        symmetry.transform(shape, good, 0, kinds=("sign", "rotation"))
    with pytest.raises(tinymlds.UsageError, match="seed"):
        symmetry.transform(shape, good, -1)
    with pytest.raises(tinymlds.UsageError, match="activations"):
        symmetry.describe(GruLinear(activation="gelu"))


def test_weights_given_are_left_alone():
    for shape in SHAPES:
        weights = random_weights(shape, 22, 2)
        kept = weights.copy()
        symmetry.transform(shape, weights, 23)
        symmetry.canonicalize(shape, weights)
        assert np.array_equal(weights, kept)


def test_numba_is_not_needed():
    code = "import sys, tinymlds; tinymlds.symmetry.describe; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
