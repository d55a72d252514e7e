"""The mathematics of training, written once over a generic lane: primitives, tanh, activations, the error.

A lane is whatever carries float32 arithmetic: 16 lanes at a time on a CPU (`lanes.v16`), a single float32 on a GPU, a
NumPy float32 in a test. `bind` takes the compiler of the target and its primitives and returns the mathematics compiled
for it; cells (`recurrent/cells.py`) and optimizers (`optimizers.py`) are built on that. Only loops differ between targets.

Every operation is one of: fused multiply-add, add, subtract, multiply, divide, square root (all correctly rounded by
IEEE 754) and clamp. So a cell gives the same bits wherever it runs. Constants are float32, as a float64 literal would
turn a whole expression into float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

_ONE = np.float32(1.0)
_MINUS_ONE = np.float32(-1.0)

TANH_LIMIT = 8.0
"""tanh is evaluated on [-8, 8]; beyond, it is taken at the limit, where it is 1 - 1.8e-7."""

TANH_NUMERATOR = (1.0, 0.13444501, 0.003571602, 2.1894726e-05, 1.5230507e-08)
TANH_DENOMINATOR = (1.0, 0.4677783, 0.026164457, 0.00034112984, 8.5224826e-07)
"""tanh(x) ~ x N(x^2) / D(x^2), constant term first. Fitted by `bench/fit_tanh.py`."""


class Primitives(NamedTuple):
    """The operations that a target offers beside `+ - * /` on its lanes."""

    fma: Any
    """fma(x, y, z): x * y + z, rounded once."""
    clamp: Any
    """clamp(x, low, high); a NaN stays a NaN."""
    sqrt: Any
    """IEEE square root."""
    unless_negative: Any
    """unless_negative(u, x): 0 where u <= 0, else x (also where u is a NaN)."""


class Math(NamedTuple):
    """The mathematics of one target. Each function takes and returns lanes."""

    jit: Callable[[Callable[..., Any]], Any]
    """Compiles a function that only compiled code calls."""
    fma: Any
    clamp: Any
    sqrt: Any
    unless_negative: Any
    tanh_parts: Any
    """tanh_parts(x): numerator and denominator of tanh(x), so that two can share a division."""
    half_tanh_parts: Any
    """half_tanh_parts(x): the same of tanh(x / 2) / 2."""
    tanh: Any
    squared_error: Any
    activations: dict[str, tuple[Any, Any]]
    """name -> (u = f(a), da from u and du), for what may stand between linear maps."""


def bind(jit: Callable[[Callable[..., Any]], Any], primitives: Primitives) -> Math:
    """Compile the mathematics with the decorator `jit` over the primitives of a target."""
    fma, clamp, _, unless_negative = primitives

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
    def squared_error(output: Any, target: Any, total: Any, scale: Any) -> Any:
        """total + (output - target)^2, and the gradient (output - target) * scale."""
        difference = output - target
        return fma(difference, difference, total), difference * scale

    @jit
    def tanh_backward(u: Any, du: Any) -> Any:
        return du * fma(u * _MINUS_ONE, u, _ONE)

    @jit
    def relu(a: Any) -> Any:
        return unless_negative(a, a)

    activations = {"tanh": (tanh, tanh_backward), "relu": (relu, unless_negative)}
    return Math(jit, *primitives, tanh_parts, half_tanh_parts, tanh, squared_error, activations)
