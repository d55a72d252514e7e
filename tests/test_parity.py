"""The float32 kernels of the CPU against PyTorch in float32: gradients by name, outputs, a trajectory of Adam."""

from collections.abc import Iterator
from dataclasses import astuple
from functools import cache
from typing import NamedTuple

import naive
import numpy as np
import pytest

from tinymlds.architectures import params
from tinymlds.architectures.recurrent import GruLinear, LstmLinear, Recurrent, RnnLinear
from tinymlds.kernels import rng
from tinymlds.kernels.optimizers import Adam
from tinymlds.kernels.problem import Floats, Problem, Sequences
from tinymlds.spec import Recipe, Setting
from tinymlds.training import data
from tinymlds.training.backends.cpu import CpuBackend

torch = pytest.importorskip("torch")


LR = 0.003
SHAPES = {
    "default": GruLinear(),
    "tanh": GruLinear(hidden=8, layers=2, maps=3, activation="tanh"),
    "relu": GruLinear(hidden=4, layers=1, maps=2, activation="relu"),
    "lstm": LstmLinear(),
    "rnn": RnnLinear(),
}
BACKEND = CpuBackend()

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Threads of PyTorch that wait for each other make these tests twenty times slower on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def pytorch_module(shape: Recurrent, weights: Floats) -> torch.nn.Module:
    """nn.GRU (batch_first) and nn.Linear with our weights, by name."""
    module = shape.module()
    module.load_state_dict({name: torch.tensor(tensor) for name, tensor in params.to_tensors(shape, weights).items()})
    return module


def batch_of(shape: Recurrent) -> tuple[Sequences, Floats, Floats]:
    """128 sequences of 16 steps with all lines live, as words and as lines x [B, T, I], target [B, T, O]."""
    generator = np.random.default_rng(5)
    words = Sequences(*(generator.integers(0, 1 << lines, (128, 16), np.uint16) for lines in (shape.inputs, shape.outputs)))
    x, target = naive.lines(words.inputs, shape.inputs), naive.lines(words.outputs, shape.outputs)
    return words, x.astype(np.float32), target.astype(np.float32)


@every_shape
def test_gradients_are_those_of_pytorch(shape: Recurrent) -> None:
    sequences, x, target = batch_of(shape)
    weights = params.initial(shape, rng.stream_key(0, "xor"), 0)
    network = BACKEND.network(Problem(shape, sequences, sequences, 128, Adam()), weights)
    loss = network.epoch(np.arange(128, dtype=np.uint32), 0.0)
    gradients = params.to_tensors(shape, network._work.gradient[: shape.size])
    module = pytorch_module(shape, weights)
    torch_loss = torch.nn.functional.mse_loss(module(torch.tensor(x)), torch.tensor(target))
    torch_loss.backward()
    # Two float32 computations that add up 2048 terms in different orders, each about 2e-7 from float64 (measured: 4e-7).
    assert loss.tolist() == pytest.approx([torch_loss.item()], rel=1e-6)
    naive.assert_close(gradients, {name: p.grad.numpy() for name, p in module.named_parameters()}, 5e-6)


@every_shape
def test_outputs_are_those_of_pytorch(shape: Recurrent) -> None:
    _, x, _ = batch_of(shape)
    weights = 2.0 * params.initial(shape, rng.stream_key(0, "xor"), 1)
    with torch.no_grad():
        expected = pytorch_module(shape, weights)(torch.tensor(x)).numpy()
    outputs = BACKEND.outputs(shape, weights, x)
    # Outputs are of order 1 and pass through up to 9 layers of 12 inputs each, each rounded at 6e-8 (measured: 1.7e-6).
    np.testing.assert_allclose(outputs, expected, rtol=0.0, atol=1e-5, equal_nan=False)


# ------------------------------------------------------------------ a hundred steps

RECIPE = Recipe.of(train_sequences=100 * 128, batch=128)
"""The project's recipe with larger batches, on just so many sequences that an epoch has 100 steps."""


class Trajectory(NamedTuple):
    """Losses of the 100 minibatches, and the weights after them."""

    losses: np.ndarray
    weights: np.ndarray


@cache
def start(index: int) -> tuple[Problem, Floats, np.ndarray]:
    """The xor task, the initial weights of a network, and its order in the first epoch."""
    key = rng.stream_key(0, "xor")
    order = rng.permutation(key, index, 1, RECIPE.train_sequences)
    return data.problem(Setting("xor", 0, RECIPE)), params.initial(RECIPE.architecture, key, index), order


def our_trajectory(index: int) -> Trajectory:
    problem, weights, order = start(index)
    network = BACKEND.network(problem, weights)
    return Trajectory(network.epoch(order, LR).astype(np.float64), network.weights.astype(np.float64))


def pytorch_trajectory(index: int, dtype: "torch.dtype") -> Trajectory:
    problem, weights, order = start(index)
    module = pytorch_module(problem.architecture, weights).to(dtype)
    beta1, beta2, eps = astuple(problem.optimizer)
    optimizer = torch.optim.Adam(module.parameters(), lr=LR, betas=(beta1, beta2), eps=eps)
    losses = []
    for chosen in np.split(order, 100):
        x = torch.tensor(naive.lines(problem.train.inputs[chosen], problem.architecture.inputs), dtype=dtype)
        target = torch.tensor(naive.lines(problem.train.outputs[chosen], problem.architecture.outputs), dtype=dtype)
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(module(x), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    final = torch.cat([p.detach().reshape(-1) for p in module.parameters()]).numpy()
    return Trajectory(np.array(losses), final.astype(np.float64))


def distance(a: Trajectory, b: Trajectory) -> tuple[float, float]:
    """Largest relative difference of a loss, and largest difference of a weight; NaN if there is one."""
    return float(np.max(np.abs(a.losses / b.losses - 1.0))), float(np.max(np.abs(a.weights - b.weights)))


@pytest.mark.parametrize("index", [0, 1])
def test_hundred_steps_of_training(index: int) -> None:
    """Weights move by up to 0.3 in these steps, and the loss falls to less than half.

    PyTorch's own float32 ends 4e-7 (weights) and 2e-7 (losses) from float64, ours 4e-7 and 3e-7: rounding differences
    of a gradient, amplified by Adam where a gradient is small beside its own history. The two differ by about as much as
    each differs from float64; the tolerances are eight times that, for other CPUs and versions of PyTorch.
    """
    ours = our_trajectory(index)
    pytorch, exact = (pytorch_trajectory(index, dtype) for dtype in (torch.float32, torch.float64))
    loss_difference, weight_difference = distance(ours, pytorch)
    assert loss_difference <= 3e-6
    assert weight_difference <= 3e-6
    for mine, theirs in zip(distance(ours, exact), distance(pytorch, exact), strict=True):
        assert mine <= 4.0 * theirs  # measured over six networks: between 0.8 and 2.0
    assert exact.losses[-1] < 0.5 * exact.losses[0]
    assert np.abs(exact.weights - start(index)[1]).max() > 0.1
