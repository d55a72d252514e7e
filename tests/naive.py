"""The oracle: the mathematics of a network and its training, as plainly as possible. NumPy only, float64, step by step.

It shares no code with `tinymlds.kernels` and knows nothing of blocks, lanes or orders of sums. Parameters, gradients and
moments are dicts of tensors by PyTorch's names: gru.weight_ih_l0 [3H, I], gru.weight_hh_l0 [3H, H], gru.bias_ih_l0 [3H],
gru.bias_hh_l0 [3H], ..., head.0.weight [out, in], head.0.bias [out], ...; the rows of a GRU are in the order r, z, n, those
of an LSTM i, f, g, o.
Sizes: B samples, T steps, I inputs, H hidden units, O outputs. A gradient of the loss is `d` and a name.
"""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Tensors = dict[str, Array]


def sigmoid(a: Array) -> Array:
    return (np.tanh(a / 2.0) + 1.0) / 2.0


# ------------------------------------------------------------------ layers


class Layer(NamedTuple):
    """The parameters of a recurrent layer."""

    w_i: Array
    w_h: Array
    b_i: Array
    b_h: Array


class Steps(NamedTuple):
    """What the forward pass of a GRU layer leaves: h [B, T + 1, H] with h[:, 0] = 0; gates r, z, n and q each [B, T, H]."""

    h: Array
    r: Array
    z: Array
    n: Array
    q: Array


def gru_forward(layer: Layer, x: Array) -> Steps:
    """x [B, T, I] through a layer, as PyTorch defines it:

    r = sigmoid(W_ir x + b_ir + W_hr h + b_hr)
    z = sigmoid(W_iz x + b_iz + W_hz h + b_hz)
    q = W_hn h + b_hn
    n = tanh(W_in x + b_in + r q)
    h' = (1 - z) n + z h
    """
    B, T, _ = x.shape
    H = layer.w_h.shape[1]
    r, z, n, q = (np.zeros((B, T, H)) for _ in range(4))
    h = np.zeros((B, T + 1, H))
    for t in range(T):
        i_r, i_z, i_n = np.split(x[:, t] @ layer.w_i.T + layer.b_i, 3, axis=1)
        h_r, h_z, q[:, t] = np.split(h[:, t] @ layer.w_h.T + layer.b_h, 3, axis=1)
        r[:, t] = sigmoid(i_r + h_r)
        z[:, t] = sigmoid(i_z + h_z)
        n[:, t] = np.tanh(i_n + r[:, t] * q[:, t])
        h[:, t + 1] = (1.0 - z[:, t]) * n[:, t] + z[:, t] * h[:, t]
    return Steps(h, r, z, n, q)


def gru_backward(layer: Layer, x: Array, steps: Steps, dh: Array) -> tuple[Array, Layer]:
    """Undo `gru_forward`: dx [B, T, I] and the gradients of the parameters from dh [B, T, H], what comes from above."""
    dx = np.zeros_like(x)
    gradient = Layer(*(np.zeros_like(tensor) for tensor in layer))
    dh_next = np.zeros_like(dh[:, 0])  # dL/dh[:, t + 1] from step t + 1
    for t in reversed(range(x.shape[1])):
        h, r, z, n, q = steps.h[:, t], steps.r[:, t], steps.z[:, t], steps.n[:, t], steps.q[:, t]
        d = dh[:, t] + dh_next
        dn = d * (1.0 - z)  # h' = (1 - z) n + z h
        dz = d * (h - n)
        da_n = dn * (1.0 - n**2)  # n = tanh(a_n), a_n = W_in x + b_in + r q
        dr = da_n * q
        dq = da_n * r
        da_z = dz * z * (1.0 - z)  # z = sigmoid(a_z)
        da_r = dr * r * (1.0 - r)  # r = sigmoid(a_r)
        d_input = np.concatenate([da_r, da_z, da_n], axis=1)  # of W_i x + b_i
        d_hidden = np.concatenate([da_r, da_z, dq], axis=1)  # of W_h h + b_h
        gradient.w_i[...] += d_input.T @ x[:, t]
        gradient.w_h[...] += d_hidden.T @ h
        gradient.b_i[...] += d_input.sum(axis=0)
        gradient.b_h[...] += d_hidden.sum(axis=0)
        dx[:, t] = d_input @ layer.w_i
        dh_next = d * z + d_hidden @ layer.w_h
    return dx, gradient


class LstmSteps(NamedTuple):
    """What the forward pass of an LSTM layer leaves: h and c [B, T + 1, H], 0 at first; gates i, f, g, o each [B, T, H]."""

    h: Array
    c: Array
    i: Array
    f: Array
    g: Array
    o: Array


def lstm_forward(layer: Layer, x: Array) -> LstmSteps:
    """x [B, T, I] through a layer, as PyTorch defines it, with a_k = W_ik x + b_ik + W_hk h + b_hk:

    i, f, o = sigmoid(a_i, a_f, a_o), g = tanh(a_g), c' = f c + i g, h' = o tanh(c')
    """
    B, T, _ = x.shape
    H = layer.w_h.shape[1]
    h, c = np.zeros((B, T + 1, H)), np.zeros((B, T + 1, H))
    i, f, g, o = (np.zeros((B, T, H)) for _ in range(4))
    for t in range(T):
        a_i, a_f, a_g, a_o = np.split(x[:, t] @ layer.w_i.T + layer.b_i + h[:, t] @ layer.w_h.T + layer.b_h, 4, axis=1)
        i[:, t], f[:, t], g[:, t], o[:, t] = sigmoid(a_i), sigmoid(a_f), np.tanh(a_g), sigmoid(a_o)
        c[:, t + 1] = f[:, t] * c[:, t] + i[:, t] * g[:, t]
        h[:, t + 1] = o[:, t] * np.tanh(c[:, t + 1])
    return LstmSteps(h, c, i, f, g, o)


def lstm_backward(layer: Layer, x: Array, steps: LstmSteps, dh: Array) -> tuple[Array, Layer]:
    """Undo `lstm_forward`."""
    dx = np.zeros_like(x)
    gradient = Layer(*(np.zeros_like(tensor) for tensor in layer))
    dh_next = dc_next = np.zeros_like(dh[:, 0])
    for t in reversed(range(x.shape[1])):
        i, f, g, o, c = steps.i[:, t], steps.f[:, t], steps.g[:, t], steps.o[:, t], steps.c[:, t]
        d, u = dh[:, t] + dh_next, np.tanh(steps.c[:, t + 1])
        do = d * u  # h' = o u, u = tanh(c')
        dc = d * o * (1.0 - u**2) + dc_next
        di, df, dg = dc * g, dc * c, dc * i  # c' = f c + i g
        da = np.concatenate([di * i * (1 - i), df * f * (1 - f), dg * (1 - g**2), do * o * (1 - o)], axis=1)
        _add_linear(gradient, da, x[:, t], steps.h[:, t])
        dx[:, t] = da @ layer.w_i
        dh_next, dc_next = da @ layer.w_h, dc * f
    return dx, gradient


class RnnSteps(NamedTuple):
    """What the forward pass of a plain RNN layer leaves: h [B, T + 1, H]."""

    h: Array


def rnn_forward(layer: Layer, x: Array) -> RnnSteps:
    """x [B, T, I] through a layer: h' = tanh(W_i x + b_i + W_h h + b_h)."""
    h = np.zeros((x.shape[0], x.shape[1] + 1, layer.w_h.shape[1]))
    for t in range(x.shape[1]):
        h[:, t + 1] = np.tanh(x[:, t] @ layer.w_i.T + layer.b_i + h[:, t] @ layer.w_h.T + layer.b_h)
    return RnnSteps(h)


def rnn_backward(layer: Layer, x: Array, steps: RnnSteps, dh: Array) -> tuple[Array, Layer]:
    """Undo `rnn_forward`."""
    dx = np.zeros_like(x)
    gradient = Layer(*(np.zeros_like(tensor) for tensor in layer))
    dh_next = np.zeros_like(dh[:, 0])
    for t in reversed(range(x.shape[1])):
        da = (dh[:, t] + dh_next) * (1.0 - steps.h[:, t + 1] ** 2)
        _add_linear(gradient, da, x[:, t], steps.h[:, t])
        dx[:, t], dh_next = da @ layer.w_i, da @ layer.w_h
    return dx, gradient


def _add_linear(gradient: Layer, da: Array, x: Array, h: Array) -> None:
    """Add a step's part of the gradient of a = W_i x + b_i + W_h h + b_h."""
    gradient.w_i[...] += da.T @ x
    gradient.w_h[...] += da.T @ h
    gradient.b_i[...] += da.sum(axis=0)
    gradient.b_h[...] += da.sum(axis=0)


CELLS: dict[str, tuple[Any, Any]] = {
    "gru": (gru_forward, gru_backward),
    "lstm": (lstm_forward, lstm_backward),
    "rnn": (rnn_forward, rnn_backward),
}


# ------------------------------------------------------------------ activations between the linear maps


def activate(activation: str, a: Array) -> Array:
    return {"none": lambda: a, "tanh": lambda: np.tanh(a), "relu": lambda: np.maximum(a, 0.0)}[activation]()


def activate_backward(activation: str, u: Array, du: Array) -> Array:
    """da from u = activate(a) and du."""
    return {"none": lambda: du, "tanh": lambda: du * (1.0 - u**2), "relu": lambda: np.where(u > 0.0, du, 0.0)}[activation]()


# ------------------------------------------------------------------ a network


def cell_of(tensors: Tensors) -> str:
    return next(name for name in CELLS if f"{name}.weight_ih_l0" in tensors)


def layers_of(tensors: Tensors) -> list[Layer]:
    parts, cell = ("weight_ih", "weight_hh", "bias_ih", "bias_hh"), cell_of(tensors)
    count = sum(name.startswith(f"{cell}.weight_ih") for name in tensors)
    return [Layer(*(tensors[f"{cell}.{part}_l{k}"] for part in parts)) for k in range(count)]


def linear_maps(tensors: Tensors) -> list[tuple[Array, Array]]:
    count = sum(name.endswith(".weight") for name in tensors)
    return [(tensors[f"head.{k}.weight"], tensors[f"head.{k}.bias"]) for k in range(count)]


class Trace(NamedTuple):
    """A forward pass: the steps of each layer, and the input of each linear map followed by the outputs [B, T, O]."""

    x: Array
    layers: list[Any]
    head: list[Array]

    @property
    def outputs(self) -> Array:
        return self.head[-1]


def forward(tensors: Tensors, activation: str, x: Array) -> Trace:
    """x [B, T, I] through all layers; `activation` stands between the linear maps, not after the last."""
    layers: list[Any] = []
    below = x
    for layer in layers_of(tensors):
        layers.append(CELLS[cell_of(tensors)][0](layer, below))
        below = layers[-1].h[:, 1:]
    head = [below]
    maps = linear_maps(tensors)
    for k, (weight, bias) in enumerate(maps):
        a = head[-1] @ weight.T + bias
        head.append(a if k == len(maps) - 1 else activate(activation, a))
    return Trace(x, layers, head)


def backward(tensors: Tensors, activation: str, trace: Trace, d_outputs: Array) -> Tensors:
    """The gradient of every tensor from d_outputs [B, T, O]."""
    gradients: Tensors = {}
    du = d_outputs
    maps = linear_maps(tensors)
    for k in reversed(range(len(maps))):
        da = du if k == len(maps) - 1 else activate_backward(activation, trace.head[k + 1], du)
        gradients[f"head.{k}.weight"] = np.einsum("bto,bti->oi", da, trace.head[k])
        gradients[f"head.{k}.bias"] = da.sum(axis=(0, 1))
        du = da @ maps[k][0]
    layers, cell = layers_of(tensors), cell_of(tensors)
    for k in reversed(range(len(layers))):
        below = trace.x if k == 0 else trace.layers[k - 1].h[:, 1:]
        du, gradient = CELLS[cell][1](layers[k], below, trace.layers[k], du)
        for name, tensor in zip(("weight_ih", "weight_hh", "bias_ih", "bias_hh"), gradient, strict=True):
            gradients[f"{cell}.{name}_l{k}"] = tensor
    return gradients


def mean_squared_error(outputs: Array, target: Array) -> tuple[float, Array]:
    """The mean over samples, steps and output lines, and its gradient, the shape of the outputs."""
    error = outputs - target
    return float((error**2).mean()), 2.0 * error / error.size


def loss_and_gradients(tensors: Tensors, activation: str, x: Array, target: Array) -> tuple[float, Tensors]:
    """The loss on a batch x [B, T, I], target [B, T, O], and the gradient of every tensor."""
    trace = forward(tensors, activation, x)
    loss, d_outputs = mean_squared_error(trace.outputs, target)
    return loss, backward(tensors, activation, trace, d_outputs)


# ------------------------------------------------------------------ Adam


class Adam:
    """Adam (Kingma and Ba 2015, algorithm 1). `step` modifies the tensors in place."""

    def __init__(self, tensors: Tensors, lr: float, beta1: float, beta2: float, eps: float) -> None:
        self.constants = lr, beta1, beta2, eps
        self.m = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
        self.v = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
        self.t = 0

    def step(self, tensors: Tensors, gradients: Tensors) -> None:
        lr, beta1, beta2, eps = self.constants
        self.t += 1
        for name, g in gradients.items():
            self.m[name] = beta1 * self.m[name] + (1.0 - beta1) * g
            self.v[name] = beta2 * self.v[name] + (1.0 - beta2) * g**2
            m_hat = self.m[name] / (1.0 - beta1**self.t)
            v_hat = self.v[name] / (1.0 - beta2**self.t)
            tensors[name] -= lr * m_hat / (np.sqrt(v_hat) + eps)


# ------------------------------------------------------------------ lines


def lines(words: npt.NDArray[Any], count: int) -> Array:
    """Bits of words [...] as 0.0 or 1.0: [..., count]; line i is bit i."""
    return np.stack([(words >> i) & 1 for i in range(count)], axis=-1).astype(np.float64)


# ------------------------------------------------------------------ comparison


def assert_close(got: dict[str, npt.NDArray[Any]], expected: Tensors, tolerance: float) -> None:
    """Every tensor within `tolerance` of its largest expected entry; a NaN on either side fails, and so do zeros only."""
    assert got.keys() == expected.keys()
    for name, reference in expected.items():
        scale = np.abs(reference).max()
        assert scale > 0.0, f"{name}: a tensor of zeros proves nothing"
        np.testing.assert_allclose(got[name], reference, rtol=0.0, atol=tolerance * scale, equal_nan=False, err_msg=name)
