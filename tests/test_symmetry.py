"""Symmetries: the description by an interpreter of its own, functions before and after, and the normal form."""

import json
import math

import naive
import numpy as np
import pytest
from hypothesis import strategies as st

from tinymlds import symmetry
from tinymlds.kernels.shape import Shape
from tinymlds.params import from_tensors, to_tensors

U = 2.0**-24
"""The largest relative error of a rounding to float32."""

SHAPES = (
    Shape(),
    Shape(hidden=4, layers=1, maps=1),
    Shape(inputs=3, hidden=8, outputs=2, layers=2, maps=8),
    Shape(hidden=4, layers=3, maps=3, activation="tanh"),
    Shape(hidden=16, layers=1, maps=2, activation="tanh"),
    Shape(hidden=12, layers=4, maps=5, activation="relu"),
    Shape(hidden=4, layers=2, maps=8, activation="relu"),
)
shapes = st.builds(
    Shape,
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
        e = random.permutation(units)
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
    assert [tuple(t["shape"]) for t in described["tensors"]] == [sizes for _, sizes in shape.tensors]
    for generator in described["generators"]:
        # float64, matrices of condition up to about 1000, a hundred operations deep: 4e-11 was the most seen.
        chosen = element(generator, random)
        np.testing.assert_allclose(after(shape, weights, generator["acts"], chosen), before, rtol=0, atol=1e-8)


@pytest.mark.parametrize("shape", [Shape(), SHAPES[3], SHAPES[6]])
def test_no_act_of_a_generator_can_be_forgotten(shape):
    """Columns of the next layer, rows of one gate, ...: leave any one out and the function is another."""
    weights, random = random_weights(shape, 3), np.random.default_rng(5)
    before = outputs(shape, weights)
    for generator in symmetry.describe(shape)["generators"]:
        chosen = element(generator, random)
        for k in range(len(generator["acts"])):
            forgetful = generator["acts"][:k] + generator["acts"][k + 1 :]
            difference = np.abs(after(shape, weights, forgetful, chosen) - before).max()
            assert difference > 1e-6, (generator["kind"], generator["acts"][k])  # the test above allows 1e-8


def test_the_description_counts_the_group():
    described = symmetry.describe(Shape())
    assert described["dimension"] == 4 * 24 + 4 * 156
    assert int(described["components"]) == (math.factorial(12) * 2**12) ** 4 * 2**4
    tanh, relu = (symmetry.describe(Shape(activation=name)) for name in ("tanh", "relu"))
    assert (tanh["dimension"], relu["dimension"]) == (4 * 24, 4 * 24 + 4 * 12)
    assert int(tanh["components"]) == (math.factorial(12) * 2**12) ** 8
    assert int(relu["components"]) == (math.factorial(12) * 2**12) ** 4 * math.factorial(12) ** 4
    assert set(described["kinds"]) == {"permutation", "sign", "bias", "linear", "translation"}


@pytest.mark.parametrize("activation", ["none", "tanh", "relu"])
def test_there_are_no_further_continuous_symmetries(activation):
    """The rank of the outputs' derivative is the number of parameters less the dimension of the group.

    Further ones would make it less, at every network. The outputs are of real inputs, at all steps of 40 sequences.
    """
    shape = Shape(inputs=3, hidden=4, outputs=3, layers=2, maps=3, activation=activation)
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
                rows.append(np.concatenate([gradient[name].ravel() for name, _ in shape.tensors]))
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
        for one, other in zip(weights, changed, strict=True):
            assert np.mean(one != other) > (0.005 if len(chosen) == 1 else 0.5), chosen
            before = outputs(shape, one)
            # With these two, nothing is rounded but sums in another order, in float64. The others round to float32, which
            # nine maps of condition up to 4 carry on: 5e-6 of the largest output was the most seen.
            relative = 1e-12 if set(chosen) <= {"permutation", "sign"} else 5e-5
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
    """Every permutation of four units, every sign, and matrices of both orientations."""
    shape = Shape(hidden=4, layers=1, maps=2)
    H = shape.hidden
    base = to_tensors(shape, np.zeros((1000, shape.size), np.float32))
    base["gru.bias_ih_l0"][:, 2 * H :] = [1, 2, 3, 4]
    base["head.0.weight"][:] = np.eye(H)
    weights = from_tensors(shape, base, 1)
    units = to_tensors(shape, symmetry.transform(shape, weights, 13, kinds=("permutation", "sign")))["gru.bias_ih_l0"]
    assert len(np.unique(units[:, 2 * H :], axis=0)) == 24 * 16  # the chance to miss one of 384 in 1,000 is not small
