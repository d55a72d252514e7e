"""The float32 kernels of the CPU against the oracle, and what their bits may not depend on."""

import math
from dataclasses import astuple

import naive
import numpy as np
import pytest
from numba import njit

from tinymlds.architectures import params
from tinymlds.architectures.recurrent import GruLinear, LstmLinear, Recurrent, RnnLinear
from tinymlds.kernels import LANES
from tinymlds.kernels.activations import TANH_LIMIT
from tinymlds.kernels.block import INNER, MATH, OPTIONS
from tinymlds.kernels.lanes import load, store, tree_sum
from tinymlds.kernels.minibatch import Work
from tinymlds.kernels.optimizers import Adam
from tinymlds.kernels.problem import Floats, Problem, Sequences
from tinymlds.kernels.problem import constants as constants_of
from tinymlds.training.backends import cpu as cpu_backend
from tinymlds.training.backends.cpu import CpuBackend

LR = 0.003
SHAPES = {
    "default": GruLinear(),
    "tanh": GruLinear(hidden=8, layers=2, maps=3, activation="tanh"),
    "relu": GruLinear(hidden=4, layers=1, maps=2, activation="relu"),
    "one_layer": GruLinear(hidden=4, layers=1, maps=1),
    "wide": GruLinear(hidden=20, layers=2, maps=3),  # more units than lanes, and no multiple of them
    "wide_tanh": GruLinear(hidden=32, layers=1, maps=2, activation="tanh"),
    "odd": GruLinear(hidden=13, layers=1, maps=2),  # a prime: tiles of one row
    "largest": GruLinear(hidden=64, layers=1, maps=8),
    "lstm": LstmLinear(),
    "lstm_tanh": LstmLinear(hidden=8, layers=2, maps=3, activation="tanh"),
    "lstm_wide": LstmLinear(hidden=20, layers=2, maps=1),
    "rnn": RnnLinear(),
    "rnn_wide": RnnLinear(hidden=20, layers=1, maps=2, activation="relu"),
}
STEPS = 16
BACKEND = CpuBackend()

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


def random_sequences(count: int, seed: int = 0, steps: int = STEPS) -> Sequences:
    """All nine input lines and all eight output lines are live."""
    generator = np.random.default_rng(seed)
    return Sequences(*(generator.integers(0, top, (count, steps), np.uint16) for top in (1 << 9, 1 << 8)))


def random_weights(shape: Recurrent) -> Floats:
    """Twice PyTorch's initial range, so that gates leave their nearly linear part."""
    bound = 2.0 / math.sqrt(shape.hidden)
    return np.random.default_rng(1).uniform(-bound, bound, shape.size).astype(np.float32)


def doubles(shape: Recurrent, weights: Floats) -> naive.Tensors:
    return {name: tensor.astype(np.float64) for name, tensor in params.to_tensors(shape, weights).items()}


def oracle(shape: Recurrent, weights: Floats, sequences: Sequences, chosen: np.ndarray) -> tuple[float, naive.Tensors]:
    """Loss and gradients over the chosen sequences."""
    x, target = naive.lines(sequences.inputs[chosen], shape.inputs), naive.lines(sequences.outputs[chosen], shape.outputs)
    return naive.loss_and_gradients(doubles(shape, weights), shape.activation, x, target)


def loss_and_gradients(
    shape: Recurrent, weights: Floats, sequences: Sequences, order: np.ndarray, batch: int
) -> tuple[Floats, dict[str, Floats]]:
    """The losses of all minibatches and the gradients of the last one, at these weights (a learning rate of 0)."""
    network = BACKEND.network(Problem(shape, sequences, sequences, batch, Adam()), weights)
    losses = network.epoch(order.astype(np.uint32), 0.0)
    return losses, params.to_tensors(shape, network._work.gradient[: shape.size])


# ------------------------------------------------------------------ against the oracle

# Float32 rounds at 6e-8. Sums run over at most 128 x 16 terms, but in 16 lanes and blocks of 32, so a term meets at most
# about 40 additions, whose errors have either sign; a few dozen roundings lie between a weight and the loss. Measured:
# gradients 2e-7 of the largest entry of their tensor, loss 2e-7.
GRADIENT_TOLERANCE = 2e-6
LOSS_TOLERANCE = 1e-6


@every_shape
@pytest.mark.parametrize("batch", [16, 32, 48, 128])
def test_gradients(shape: Recurrent, batch: int) -> None:
    sequences, weights = random_sequences(3 * batch), random_weights(shape)
    order = np.random.default_rng(2).permutation(3 * batch)[: 2 * batch]
    losses, gradients = loss_and_gradients(shape, weights, sequences, order, batch)
    expected = [oracle(shape, weights, sequences, chosen) for chosen in np.split(order, 2)]
    assert losses.tolist() == pytest.approx([loss for loss, _ in expected], rel=LOSS_TOLERANCE)
    naive.assert_close(gradients, expected[-1][1], GRADIENT_TOLERANCE)


@pytest.mark.parametrize("steps", [1, 2, 33])
def test_gradients_of_other_lengths(steps: int) -> None:
    """At the first step h = 0, and its products are left out."""
    for shape in (SHAPES[name] for name in ("tanh", "wide", "lstm_tanh", "rnn_wide")):
        sequences, weights, order = random_sequences(32, steps=steps), random_weights(shape), np.arange(32)
        losses, gradients = loss_and_gradients(shape, weights, sequences, order, 32)
        loss, expected = oracle(shape, weights, sequences, order)
        assert losses.tolist() == pytest.approx([loss], rel=LOSS_TOLERANCE)
        unused = [name for name in expected if steps == 1 and "weight_hh" in name]
        assert all(not gradients.pop(name).any() and not expected.pop(name).any() for name in unused)
        naive.assert_close(gradients, expected, GRADIENT_TOLERANCE)


@pytest.mark.parametrize("batch", [1, 15, 17, 31, 33])
def test_lanes_beyond_the_batch_add_nothing(batch: int) -> None:
    shape = SHAPES["tanh"]
    sequences, weights, order = random_sequences(64), random_weights(shape), np.arange(batch)
    losses, gradients = loss_and_gradients(shape, weights, sequences, order, batch)
    loss, expected = oracle(shape, weights, sequences, order)
    assert losses.tolist() == pytest.approx([loss], rel=LOSS_TOLERANCE)
    naive.assert_close(gradients, expected, GRADIENT_TOLERANCE)


@every_shape
@pytest.mark.parametrize("count", [1, 16, 50])
def test_outputs_and_loss(shape: Recurrent, count: int) -> None:
    sequences, weights = random_sequences(count), random_weights(shape)
    x, target = naive.lines(sequences.inputs, shape.inputs), naive.lines(sequences.outputs, shape.outputs)
    expected = naive.forward(doubles(shape, weights), shape.activation, x).outputs
    outputs = BACKEND.outputs(shape, weights, x.astype(np.float32))
    # Outputs are of order 1 to 3 and pass through up to 9 layers of 12 inputs each; measured: 8e-7.
    np.testing.assert_allclose(outputs, expected, rtol=0.0, atol=1e-5, equal_nan=False)
    loss = BACKEND.loss(shape, weights, sequences)
    assert float(loss) == pytest.approx(naive.mean_squared_error(expected, target)[0], rel=LOSS_TOLERANCE)


# ------------------------------------------------------------------ what the bits may not depend on


def everything(shape: Recurrent) -> dict[str, Floats]:
    """All that the kernels can compute, batches with partial blocks included."""
    problem = Problem(shape, random_sequences(96), random_sequences(50, 1), 48, Adam())
    network = BACKEND.network(problem, random_weights(shape))
    order = np.arange(96, dtype=np.uint32)
    x = naive.lines(problem.validation.inputs, shape.inputs).astype(np.float32)
    return {
        "losses": np.concatenate([network.epoch(order, LR), network.epoch(order[::-1].copy(), LR)]),
        "gradient": network._work.gradient[: shape.size].copy(),
        "validation loss": np.array([network.validation_loss()]),
        "weights": network.weights,
        "loss": np.array([BACKEND.loss(shape, network.weights, problem.validation)]),
        "outputs": BACKEND.outputs(shape, network.weights, x),
    }


def assert_same_bits(got: dict[str, Floats], expected: dict[str, Floats]) -> None:
    for name, reference in expected.items():
        assert np.isfinite(reference).all(), name
        assert got[name].tobytes() == reference.tobytes(), name


@every_shape
def test_same_call_same_bits(shape: Recurrent) -> None:
    assert_same_bits(everything(shape), everything(shape))


@every_shape
def test_what_lay_in_the_buffers_does_not_matter(shape: Recurrent, monkeypatch: pytest.MonkeyPatch) -> None:
    clean, workspace, poisoned = everything(shape), cpu_backend.workspace, []

    def poisoned_workspace(shape: Recurrent, steps: int) -> Work:
        work = workspace(shape, steps)
        for buffer in (*work[:-1], *work.own):
            buffer.fill(np.nan if buffer.dtype == np.float32 else 0xFFFF)
        poisoned.append(work)
        return work

    monkeypatch.setattr(cpu_backend, "workspace", poisoned_workspace)
    assert_same_bits(everything(shape), clean)
    assert len(poisoned) == 3  # of the network, of `loss` and of `outputs`


def test_other_sequences_do_not_matter() -> None:
    """The first minibatch fills half a block; what would be in the other half belongs to the second."""
    shape = SHAPES["tanh"]
    ours, others, order = random_sequences(32), random_sequences(32, 1), np.arange(32)
    mixed = Sequences(*(np.concatenate([a[:16], b[16:]]) for a, b in zip(ours, others, strict=True)))
    first, second = (loss_and_gradients(shape, random_weights(shape), data, order, 16)[0] for data in (ours, mixed))
    assert np.isfinite(first).all()
    assert first[0] == second[0]
    assert first[1] != second[1]


@every_shape
def test_a_nan_weight_gives_a_nan_loss(shape: Recurrent) -> None:
    """No clamp, selection or product may hide a network that has diverged."""
    sequences = random_sequences(16)
    for name, *_ in shape.tensors():
        weights = random_weights(shape)
        params.to_tensors(shape, weights)[name].reshape(-1)[-1] = np.nan
        losses, _ = loss_and_gradients(shape, weights, sequences, np.arange(16), 16)
        assert np.isnan(losses).all(), name
        assert np.isnan(BACKEND.loss(shape, weights, sequences)), name


# ------------------------------------------------------------------ cells

tanh, adam = MATH.tanh, njit(**INNER)(Adam.step(MATH))


@njit(**OPTIONS)
def tanh_of_all(x, y):
    for e in range(0, x.size, LANES):
        store(y, e, tanh(load(x, e)))


@njit(**OPTIONS)
def adam_of_all(p, m, v, g, constants, factors):
    for e in range(0, p.size, LANES):
        result = adam(load(p, e), load(m, e), load(v, e), load(g, e), constants, factors)
        store(p, e, result[0])
        store(m, e, result[1])
        store(v, e, result[2])


@njit(**OPTIONS)
def tree_sum_of(x):
    return tree_sum(load(x, 0))


def kernel_tanh(x: Floats) -> Floats:
    padded = np.zeros(-(-x.size // LANES) * LANES, np.float32)
    padded[: x.size] = x
    result = np.full_like(padded, np.nan)
    tanh_of_all(padded, result)
    return result[: x.size]


@pytest.fixture(scope="module")
def positive_floats() -> Floats:
    """Every 997th float32 from 0 over the subnormal ones to the largest, and all from 6 to 8, where errors are largest."""
    all_sizes = np.arange(0, 0x7F800000, 997, np.uint32).view(np.float32)
    six, eight = np.array([6.0, 8.0], np.float32).view(np.uint32)
    return np.concatenate([all_sizes, np.arange(six, eight + 1, dtype=np.uint32).view(np.float32)])


def test_tanh_is_within_its_bound(positive_floats: Floats) -> None:
    """Over all float32 the worst is at 6.991: 3.22e-7, or 5.41 ulp: the fit, two polynomials, product, division."""
    exact = np.tanh(positive_floats.astype(np.float64))
    error = np.abs(kernel_tanh(positive_floats) - exact)
    assert np.isfinite(error).all()
    assert error.max() <= 3.3e-7
    assert (error / np.spacing(exact.astype(np.float32))).max() <= 5.5


def test_tanh_is_odd_and_at_most_1(positive_floats: Floats) -> None:
    values = kernel_tanh(positive_floats)
    assert ((values >= 0.0) & (values <= 1.0)).all()
    assert kernel_tanh(-positive_floats).tobytes() == (-values).tobytes()


def test_tanh_keeps_nan_and_takes_infinity_at_the_limit() -> None:
    values = kernel_tanh(np.array([np.nan, np.inf, -np.inf, TANH_LIMIT], np.float32))
    assert np.isnan(values[0])
    assert values[1] == -values[2] == values[3]


def test_tree_sum_adds_neighbours() -> None:
    """The fixed tree, bit for bit, on numbers for which another order gives another sum."""
    generator, orders_matter = np.random.default_rng(3), 0
    for _ in range(20):
        x = level = generator.normal(size=LANES).astype(np.float32)
        while level.size > 1:
            level = level[::2] + level[1::2]
        assert tree_sum_of(x) == level[0]
        orders_matter += level[0] != np.add.accumulate(x)[-1]
    assert orders_matter > 5


def test_adam_cell_is_the_oracle() -> None:
    generator, size, steps, constants = np.random.default_rng(4), 256, 50, Adam()
    p = generator.uniform(-0.3, 0.3, size).astype(np.float32)
    m, v = np.zeros(size, np.float32), np.zeros(size, np.float32)
    tensors = {"p": p.astype(np.float64)}
    reference = naive.Adam(tensors, LR, *astuple(constants))
    fixed = constants_of(Problem(GruLinear(), random_sequences(16), random_sequences(16), 16, constants)).optimizer
    factors, _ = constants.factors(LR, (1.0, 1.0), steps)
    sizes = 10.0 ** generator.uniform(-9.0, 1.0, size)  # from below eps, where only eps keeps a step small
    sizes[:16] = 0.0
    for step in factors:
        g = (generator.normal(size=size) * sizes).astype(np.float32)
        adam_of_all(p, m, v, g, fixed, step)
        reference.step(tensors, {"p": g.astype(np.float64)})
    # 50 steps of a few roundings of 6e-8 each, among them those of the constants; p is of order 0.3 and a step of order
    # 0.003. Measured: p 4e-7, m 3e-7, v 5e-7 of the largest; v, a sum of positive terms, 7e-7 of itself.
    naive.assert_close({"p": p, "m": m, "v": v}, {"p": tensors["p"], "m": reference.m["p"], "v": reference.v["p"]}, 2e-6)
    np.testing.assert_allclose(v, reference.v["p"], rtol=5e-6, atol=0.0, equal_nan=False)


def test_adam_factors() -> None:
    """Against the closed form: one rounding to float32 (2^-24), and t roundings of the running product in float64."""
    constants, steps = Adam(), 5000
    factors, powers = constants.factors(LR, (1.0, 1.0), steps)
    for t in (1, 2, 3, 10, 100, 1000, 5000):
        expected = [LR / (1.0 - constants.beta1**t), 1.0 / math.sqrt(1.0 - constants.beta2**t)]
        assert factors[t - 1].tolist() == pytest.approx(expected, rel=2.0**-24 + 1e-12)
    assert powers == pytest.approx((constants.beta1**steps, constants.beta2**steps), rel=steps * 2.0**-53)


def test_adam_factors_go_on_where_they_stopped() -> None:
    whole, end = Adam().factors(LR, (1.0, 1.0), 300)
    first, powers = Adam().factors(LR, (1.0, 1.0), 128)
    second, powers = Adam().factors(LR, powers, 172)
    assert np.concatenate([first, second]).tobytes() == whole.tobytes()
    assert powers == end
