"""The mathematics of training, written once over a generic lane.

A lane is whatever carries float32 arithmetic: 16 lanes at a time on a CPU (`simd.v16`), a single float32 on a GPU, a
NumPy float32 in a test. `bind` takes the compiler of the target and its three primitives and returns the cells compiled
for it; only the loops around them differ between targets.

Every operation is one of: fused multiply-add, add, subtract, multiply, divide, square root (all correctly rounded by
IEEE 754) and clamp. So a cell gives the same bits wherever it runs. Constants are float32, as a float64 literal would
turn a whole expression into float64.

Notation: `r, z, n` are the gates of a GRU as PyTorch defines them, `q` is `W_hn h + b_hn` (what the reset gate
multiplies), `h` the hidden state; a gradient of the loss is `d` and the name of what it belongs to.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_MINUS_ONE = np.float32(-1.0)

TANH_LIMIT = 8.0
"""tanh is evaluated on [-8, 8]; beyond, it is taken at the limit, where it is 1 - 1.8e-7."""

TANH_NUMERATOR = (1.0, 0.13444501, 0.003571602, 2.1894726e-05, 1.5230507e-08)
TANH_DENOMINATOR = (1.0, 0.4677783, 0.026164457, 0.00034112984, 8.5224826e-07)
"""tanh(x) ~ x N(x^2) / D(x^2), constant term first. Fitted by `bench/fit_tanh.py`."""


class Primitives(NamedTuple):
    """What a target has to offer beside `+ - * /` on its lanes."""

    fma: Any
    """fma(x, y, z): x * y + z, rounded once."""
    clamp: Any
    """clamp(x, low, high); a NaN stays a NaN."""
    sqrt: Any
    """IEEE square root."""
    unless_negative: Any
    """unless_negative(u, x): 0 where u <= 0, else x (also where u is a NaN)."""


class Cells(NamedTuple):
    """The cells, compiled for one target. Each takes and returns lanes."""

    tanh: Any
    gru_gates: Any
    gru_state: Any
    gru_backward: Any
    squared_error: Any
    adam: Any
    activations: dict[str, tuple[Any, Any]]
    """name -> (u = f(a), da from u and du), for what may stand between the linear maps of the head."""


def bind(jit: Callable[[Callable[..., Any]], Any], primitives: Primitives) -> Cells:
    """Compile the cells with the decorator `jit` over the primitives of a target."""
    fma, clamp, sqrt, unless_negative = primitives

    def parts(scale: float, factor: float) -> Any:
        """factor tanh(scale x) as numerator and denominator, so that two can share a division.

        Scale and factor are powers of two, so the coefficients for them are rounded no further.
        """
        limit = np.float32(TANH_LIMIT / scale)
        minus_limit = -limit
        n0, n1, n2, n3, n4 = (
            np.float32(c) * np.float32(factor * scale ** (2 * k + 1)) for k, c in enumerate(TANH_NUMERATOR)
        )
        d0, d1, d2, d3, d4 = (np.float32(c) * np.float32(scale ** (2 * k)) for k, c in enumerate(TANH_DENOMINATOR))

        @jit
        def numerator_and_denominator(x: Any) -> Any:
            x = clamp(x, minus_limit, limit)
            s = x * x
            numerator = fma(fma(fma(fma(s, n4, n3), s, n2), s, n1), s, n0)
            denominator = fma(fma(fma(fma(s, d4, d3), s, d2), s, d1), s, d0)
            return x * numerator, denominator

        return numerator_and_denominator

    tanh_parts, half_tanh_parts = parts(1.0, 1.0), parts(0.5, 0.5)

    @jit
    def tanh(x: Any) -> Any:
        numerator, denominator = tanh_parts(x)
        return numerator / denominator

    @jit
    def gru_gates(ar: Any, az: Any) -> Any:
        """r = sigmoid(ar), z = sigmoid(az), with sigmoid(a) = tanh(a / 2) / 2 + 1/2.

        ar, az: W_i x + b_i + W_h h + b_h of the reset and update gates.
        """
        r_top, r_bottom = half_tanh_parts(ar)
        z_top, z_bottom = half_tanh_parts(az)
        one_over_both = _ONE / (r_bottom * z_bottom)
        return fma(r_top * z_bottom, one_over_both, _HALF), fma(z_top * r_bottom, one_over_both, _HALF)

    @jit
    def gru_state(r: Any, z: Any, an: Any, q: Any, h: Any) -> Any:
        """n = tanh(an + r q) and the new state h' = (1 - z) n + z h. an: W_in x + b_in; q: W_hn h + b_hn."""
        n = tanh(fma(r, q, an))
        return n, fma(z, h - n, n)

    @jit
    def gru_backward(r: Any, z: Any, n: Any, q: Any, h: Any, dh_next: Any) -> Any:
        """Undo `gru_state` and `gru_gates`: from dL/dh' to the gradients before the activations.

        h' = fma(z, h - n, n):  dn = dh' (1 - z), dz = dh' (h - n), and dh' z goes straight to h
        n = tanh(an + r q):     dan = dn (1 - n^2), dq = dan r, dr = dan q
        r, z = sigmoid:         dar = dr r (1 - r), daz = dz z (1 - z)
        Returns dar, daz, dan, dq and the part dh' z of dL/dh.
        """
        dh = dh_next * z
        dan = (dh_next - dh) * fma(n * _MINUS_ONE, n, _ONE)
        dq = dan * r
        dar = (dq * q) * (_ONE - r)
        daz = (h - n) * (dh - dh * z)
        return dar, daz, dan, dq, dh

    @jit
    def squared_error(output: Any, target: Any, total: Any, scale: Any) -> Any:
        """total + (output - target)^2, and the gradient (output - target) * scale."""
        difference = output - target
        return fma(difference, difference, total), difference * scale

    @jit
    def adam(p: Any, m: Any, v: Any, g: Any, constants: Any, step_size: Any, root_scale: Any) -> Any:
        """One step of Adam (Kingma and Ba 2015, algorithm 1) for parameters p with gradients g.

        constants: beta1, 1 - beta1, beta2, 1 - beta2, epsilon; step_size: lr / (1 - beta1^t);
        root_scale: 1 / sqrt(1 - beta2^t). Returns the new p, m, v.
        """
        m = fma(m, constants[0], g * constants[1])
        v = fma(v, constants[2], (g * g) * constants[3])
        return p - (m * step_size) / fma(sqrt(v), root_scale, constants[4]), m, v

    @jit
    def tanh_backward(u: Any, du: Any) -> Any:
        return du * fma(u * _MINUS_ONE, u, _ONE)

    @jit
    def relu(a: Any) -> Any:
        return unless_negative(a, a)

    activations = {"tanh": (tanh, tanh_backward), "relu": (relu, unless_negative)}
    return Cells(tanh, gru_gates, gru_state, gru_backward, squared_error, adam, activations)
