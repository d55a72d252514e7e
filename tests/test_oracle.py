"""The oracle itself: against central differences, and against PyTorch in float64."""

import naive
import numpy as np
import pytest

from tinymlds.architectures.recurrent import GruLinear, LstmLinear, Recurrent, RnnLinear

SHAPES = [
    GruLinear(hidden=4, layers=2, maps=3),
    GruLinear(hidden=4, layers=1, maps=3, activation="tanh"),
    GruLinear(hidden=4, layers=2, maps=3, activation="relu"),
    GruLinear(hidden=4, layers=1, maps=1),
    LstmLinear(hidden=4, layers=2, maps=2),
    RnnLinear(hidden=4, layers=2, maps=2),
]
BATCH, STEPS = 3, 5


def case(shape: Recurrent) -> tuple[naive.Tensors, naive.Array, naive.Array]:
    """Weights, inputs [B, T, I] and targets [B, T, O], all of order 1 so that no part of the function is nearly linear."""
    generator = np.random.default_rng(1)
    tensors = {name: generator.uniform(-1.0, 1.0, sizes) for name, sizes, *_ in shape.tensors()}
    x = generator.normal(size=(BATCH, STEPS, shape.inputs))
    return tensors, x, generator.normal(size=(BATCH, STEPS, shape.outputs))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gradients_are_central_differences(shape: Recurrent) -> None:
    tensors, x, target = case(shape)
    _, gradients = naive.loss_and_gradients(tensors, shape.activation, x, target)
    step = 1e-5  # truncation ~ step^2 = 1e-10, rounding ~ 1e-16 / step = 1e-11; each tensor has gradients above 0.01
    numeric = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        for place in np.ndindex(tensor.shape):
            value = tensor[place]
            losses = []
            for moved in (value + step, value - step):
                tensor[place] = moved
                losses.append(naive.mean_squared_error(naive.forward(tensors, shape.activation, x).outputs, target)[0])
            tensor[place] = value
            numeric[name][place] = (losses[0] - losses[1]) / (2.0 * step)
    naive.assert_close(gradients, numeric, 1e-7)


@pytest.mark.parametrize("shape", [*SHAPES, GruLinear(), LstmLinear(), RnnLinear()], ids=str)
def test_loss_and_gradients_are_those_of_pytorch_in_float64(shape: Recurrent) -> None:
    torch = pytest.importorskip("torch")

    tensors, x, target = case(shape)
    loss, gradients = naive.loss_and_gradients(tensors, shape.activation, x, target)
    module = shape.module().double()
    module.load_state_dict({name: torch.tensor(tensor) for name, tensor in tensors.items()})
    torch_loss = torch.nn.functional.mse_loss(module(torch.tensor(x)), torch.tensor(target))
    torch_loss.backward()
    # Float64 rounds at 1.1e-16, and a few hundred operations lie between a weight and the loss (measured: 2e-15).
    assert loss == pytest.approx(torch_loss.item(), rel=1e-12)
    naive.assert_close(gradients, {name: p.grad.numpy() for name, p in module.named_parameters()}, 1e-12)


def test_adam_is_that_of_pytorch_in_float64() -> None:
    torch = pytest.importorskip("torch")
    shape = SHAPES[0]
    tensors, _, _ = case(shape)
    parameters = {name: torch.nn.Parameter(torch.tensor(tensor)) for name, tensor in tensors.items()}
    optimizer = torch.optim.Adam(parameters.values(), lr=0.003, betas=(0.9, 0.999), eps=1e-8)
    adam = naive.Adam(tensors, 0.003, 0.9, 0.999, 1e-8)
    generator = np.random.default_rng(2)
    for _ in range(20):
        gradients = {name: generator.normal(size=tensor.shape) for name, tensor in tensors.items()}
        adam.step(tensors, gradients)
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradients[name])
        optimizer.step()
    # 20 steps of float64, each of a dozen operations.
    naive.assert_close(tensors, {name: p.detach().numpy() for name, p in parameters.items()}, 1e-13)


def test_adam_first_step_by_hand() -> None:
    """After one step m_hat = g and v_hat = g^2, so every parameter moves by lr g / (|g| + eps)."""
    tensors = {"p": np.array([1.0, 1.0, 1.0])}
    naive.Adam(tensors, 0.1, 0.9, 0.999, 1.0).step(tensors, {"p": np.array([3.0, -1.0, 0.0])})
    np.testing.assert_allclose(tensors["p"], [1.0 - 0.075, 1.0 + 0.05, 1.0], rtol=1e-13)  # float64, a dozen operations


def test_sigmoid_is_the_logistic_function() -> None:
    a = np.linspace(-20.0, 20.0, 101)
    np.testing.assert_allclose(naive.sigmoid(a), 1.0 / (1.0 + np.exp(-a)), rtol=0.0, atol=1e-15)  # a few float64 roundings


def test_lines_are_bits() -> None:
    assert naive.lines(np.array([[0b001, 0b110]], np.uint16), 3).tolist() == [[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]]
