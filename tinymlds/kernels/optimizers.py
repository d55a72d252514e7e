"""Optimizers: one step for a lane of parameters each, and the numbers that steps differ in.

An optimizer is a frozen dataclass; its definition and its options are those of `torch.optim`, where that has it. `step`
returns the step as a function over a generic lane (`activations.Math`): 16 lanes at a time on a CPU, one float32 on a GPU.
A parameter has two numbers of memory, m and v, 0 at the start; an optimizer that needs less leaves them alone. `register`
adds one from outside.

No NumPy is imported at the top, so that the command line can start at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tinymlds.kernels.options import Registry, check_options, option

if TYPE_CHECKING:
    from tinymlds.kernels.activations import Math
    from tinymlds.kernels.problem import Floats, Rate


Carried = tuple[float, ...]
"""The numbers that the factors of later steps need from those before."""


class Optimizer(ABC):
    """The interface of an optimizer. A subclass is a frozen dataclass with options of its own."""

    name: ClassVar[str]
    """The name in recipes and on the command line."""
    recipe: ClassVar[dict[str, Any]] = {}
    """Fields of the recipe in which the default recipe of this optimizer differs from that of its architecture."""
    start: ClassVar[Carried] = ()
    """The argument `carried` of `factors` before the first step."""
    kernels: ClassVar[dict[str, str]] = {}
    """Of an optimizer that does not treat each parameter by itself: the module that has its `update` and `scratch`, for
    each backend that it runs on; see `kernels/muon.py`. The others run wherever their architecture does."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __post_init__(self) -> None:
        check_options(self)

    @abstractmethod
    def constants(self) -> tuple[float, ...]:
        """Numbers that stay the same over a run; kernels have them as float32."""

    @abstractmethod
    def factors(self, lr: Rate, carried: Carried, steps: int) -> tuple[Floats, Carried]:
        """The numbers in which steps differ, float32 [steps, k], and what is carried to the steps after them.

        Args:
            lr: the learning rate of these steps: one for all of them, or one for each, float64 [steps].
            carried: what the call for the steps before returned, or `start`.
            steps: number of steps.
        """

    @staticmethod
    @abstractmethod
    def step(math: Math) -> Callable[..., Any]:
        """The function step(p, m, v, g, constants, factors) -> p, m, v: new parameters and memory from the gradient g."""


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
"""The optimizers that are known. The first one is the default."""

register = OPTIMIZERS.register


def _columns(steps: int, *numbers: Any) -> Floats:
    """Float32 [steps, k] of k float64 numbers, or arrays [steps] of them."""
    import numpy as np

    return np.stack([np.broadcast_to(each, steps) for each in numbers], axis=1).astype(np.float32)


def _decay(default: float, how: str) -> Any:
    return option(default, f"Weight decay: {how}.", 0.0, 1.0)


_OF_GRADIENT = "this share of the parameters is added to the gradient"
_APART = "parameters shrink by this share of the learning rate in each step"
_LARGEST_SHARE = 0.9999999
"""The largest share of the past in a moving average: below 1 in float32 too."""


# ------------------------------------------------------------------ Adam and its relatives


@register
@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1)."""

    name = "adam"
    start = (1.0, 1.0)

    beta1: float = option(0.9, "Adam's beta1.", 0.0, _LARGEST_SHARE)
    beta2: float = option(0.99, "Adam's beta2.", 0.0, _LARGEST_SHARE)
    eps: float = option(1e-6, "Adam's epsilon.", 1e-30, 1.0)

    def constants(self) -> tuple[float, ...]:
        """beta1, 1 - beta1, beta2, 1 - beta2, eps."""
        return self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.eps

    def factors(self, lr: Rate, carried: Carried, steps: int) -> tuple[Floats, Carried]:
        """lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t); carried are beta1^t and beta2^t.

        The powers are running products in float64, so that no `pow` of any library has a say in a bit.
        """
        import numpy as np

        running = np.empty((2, steps + 1))
        running[:, 0] = carried
        running[:, 1:] = np.array([[self.beta1], [self.beta2]])
        running = np.multiply.accumulate(running, axis=1)
        factors = _columns(steps, lr / (1.0 - running[0, 1:]), 1.0 / np.sqrt(1.0 - running[1, 1:]))
        return factors, (float(running[0, -1]), float(running[1, -1]))

    @staticmethod
    def step(math: Math) -> Callable[..., Any]:
        """m, v: the moments, where bias correction is in the factors."""
        fma, sqrt = math.fma, math.sqrt

        def step(p: Any, m: Any, v: Any, g: Any, constants: Any, factors: Any) -> Any:
            m = fma(m, constants[0], g * constants[1])
            v = fma(v, constants[2], (g * g) * constants[3])
            return p - (m * factors[0]) / fma(sqrt(v), factors[1], constants[4]), m, v

        return step


@register
@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2019, algorithm 2)."""

    name = "adamw"

    weight_decay: float = _decay(0.0003, _APART)

    def factors(self, lr: Rate, carried: Carried, steps: int) -> tuple[Floats, Carried]:
        """Those of Adam, and 1 - lr weight_decay."""
        import numpy as np

        factors, carried = super().factors(lr, carried, steps)
        return np.hstack([factors, _columns(steps, 1.0 - lr * self.weight_decay)]), carried

    @staticmethod
    def step(math: Math) -> Callable[..., Any]:
        """m, v: as in Adam."""
        adam = math.jit(Adam.step(math))

        def step(p: Any, m: Any, v: Any, g: Any, constants: Any, factors: Any) -> Any:
            return adam(p * factors[2], m, v, g, constants, factors)

        return step


@register
@dataclass(frozen=True)
class Lion(Optimizer):
    """Lion (Chen et al. 2023, algorithm 2)."""

    name = "lion"
    recipe = {"lr": 0.0005}  # noqa: RUF012

    beta1: float = option(0.9, "Share of the past in the direction of a step.", 0.0, _LARGEST_SHARE)
    beta2: float = option(0.99, "Share of the past in the moving average.", 0.0, _LARGEST_SHARE)
    weight_decay: float = _decay(0.0, _APART)

    def constants(self) -> tuple[float, ...]:
        """beta1, 1 - beta1, beta2, 1 - beta2."""
        return self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2

    def factors(self, lr: Rate, carried: Carried, steps: int) -> tuple[Floats, Carried]:
        """-lr and 1 - lr weight_decay."""
        return _columns(steps, -lr, 1.0 - lr * self.weight_decay), carried

    @staticmethod
    def step(math: Math) -> Callable[..., Any]:
        """m: the moving average."""
        import numpy as np

        fma, clamp = math.fma, math.clamp
        LARGE, ONE = np.float32(2.0**100), np.float32(1.0)  # twice: the least float32, 2^-149, becomes more than 1

        def step(p: Any, m: Any, v: Any, g: Any, constants: Any, factors: Any) -> Any:
            direction = fma(m, constants[0], g * constants[1])
            sign = clamp((direction * LARGE) * LARGE, -ONE, ONE)  # 0 stays 0, a NaN a NaN
            m = fma(m, constants[2], g * constants[3])
            return fma(sign, factors[0], p * factors[1]), m, v

        return step


@register
@dataclass(frozen=True)
class Muon(AdamW):
    """Muon for matrices (Jordan et al. 2024), AdamW for all other tensors, with one learning rate.

    The momentum (Nesterov's) of a matrix [R, C] is made nearly orthogonal by five Newton-Schulz iterations and scaled by
    0.2 sqrt(max(R, C)), so that its mean square is that of a step of AdamW (Liu et al. 2025, equation 4). That is
    `match_rms_adamw` of `torch.optim.Muon`, which iterates in bfloat16, where this does in float32. What looks at whole
    matrices is in `kernels/muon.py`; `step` is that of the other tensors.
    """

    name = "muon"
    recipe = {"lr": 0.005}  # noqa: RUF012
    kernels = {"cpu": "tinymlds.kernels.muon"}  # noqa: RUF012

    weight_decay: float = _decay(0.01, _APART)
    momentum: float = option(0.95, "Share of the past in the momentum of a matrix.", 0.0, _LARGEST_SHARE)

    def constants(self) -> tuple[float, ...]:
        """Those of Adam, then momentum, 1 - momentum."""
        return (*super().constants(), self.momentum, 1.0 - self.momentum)

    def factors(self, lr: Rate, carried: Carried, steps: int) -> tuple[Floats, Carried]:
        """Those of AdamW, and -lr."""
        import numpy as np

        factors, carried = super().factors(lr, carried, steps)
        return np.hstack([factors, _columns(steps, -lr)]), carried


# ------------------------------------------------------------------ gradient descent


@register
@dataclass(frozen=True)
class Sgd(Optimizer):
    """Stochastic gradient descent: p - lr g."""

    name = "sgd"
    recipe = {"lr": 1.0}  # noqa: RUF012

    weight_decay: float = _decay(0.0, _OF_GRADIENT)

    def constants(self) -> tuple[float, ...]:
        """weight_decay."""
        return (self.weight_decay,)

    def factors(self, lr: Rate, carried: Carried, steps: int) -> tuple[Floats, Carried]:
        """-lr."""
        return _columns(steps, -lr), carried

    @staticmethod
    def step(math: Math) -> Callable[..., Any]:
        """No memory."""
        fma = math.fma

        def step(p: Any, m: Any, v: Any, g: Any, constants: Any, factors: Any) -> Any:
            return fma(fma(p, constants[0], g), factors[0], p), m, v

        return step


@register
@dataclass(frozen=True)
class Momentum(Sgd):
    """SGD with momentum, as PyTorch has it (Sutskever et al. 2013): m = momentum m + g, p - lr m."""

    name = "momentum"
    recipe = {"lr": 0.3}  # noqa: RUF012

    momentum: float = option(0.9, "Share of the past in a step.", 0.0, _LARGEST_SHARE)

    def constants(self) -> tuple[float, ...]:
        """weight_decay, momentum."""
        return self.weight_decay, self.momentum

    @staticmethod
    def step(math: Math) -> Callable[..., Any]:
        """m: the momentum."""
        fma = math.fma

        def step(p: Any, m: Any, v: Any, g: Any, constants: Any, factors: Any) -> Any:
            m = fma(m, constants[1], fma(p, constants[0], g))
            return fma(m, factors[0], p), m, v

        return step


@register
@dataclass(frozen=True)
class Nesterov(Momentum):
    """SGD with Nesterov's momentum, as PyTorch has it: m = momentum m + g, p - lr (g + momentum m)."""

    name = "nesterov"

    @staticmethod
    def step(math: Math) -> Callable[..., Any]:
        """m: the momentum."""
        fma = math.fma

        def step(p: Any, m: Any, v: Any, g: Any, constants: Any, factors: Any) -> Any:
            g = fma(p, constants[0], g)
            m = fma(m, constants[1], g)
            return fma(fma(m, constants[1], g), factors[0], p), m, v

        return step


# ------------------------------------------------------------------ a rate for each parameter


@register
@dataclass(frozen=True)
class RmsProp(Sgd):
    """RMSprop (Tieleman and Hinton 2012): v is a moving average of g^2, p - lr g / (sqrt(v) + eps)."""

    name = "rmsprop"
    recipe = {"lr": 0.003, "lr_decay": 25.0}  # noqa: RUF012

    alpha: float = option(0.99, "Share of the past in the average of squares.", 0.0, _LARGEST_SHARE)
    eps: float = option(1e-8, "RMSprop's epsilon.", 1e-30, 1.0)

    def constants(self) -> tuple[float, ...]:
        """weight_decay, alpha, 1 - alpha, eps."""
        return self.weight_decay, self.alpha, 1.0 - self.alpha, self.eps

    @staticmethod
    def step(math: Math) -> Callable[..., Any]:
        """v: the average of squares."""
        fma, sqrt = math.fma, math.sqrt

        def step(p: Any, m: Any, v: Any, g: Any, constants: Any, factors: Any) -> Any:
            g = fma(p, constants[0], g)
            v = fma(v, constants[1], (g * g) * constants[2])
            return fma(g / (sqrt(v) + constants[3]), factors[0], p), m, v

        return step


@register
@dataclass(frozen=True)
class Adagrad(Sgd):
    """Adagrad (Duchi, Hazan and Singer 2011, with a diagonal): v is the sum of g^2, p - lr g / (sqrt(v) + eps)."""

    name = "adagrad"
    recipe = {"lr": 0.1}  # noqa: RUF012

    eps: float = option(1e-10, "Adagrad's epsilon.", 1e-30, 1.0)

    def constants(self) -> tuple[float, ...]:
        """weight_decay, eps."""
        return self.weight_decay, self.eps

    @staticmethod
    def step(math: Math) -> Callable[..., Any]:
        """v: the sum of squares."""
        fma, sqrt = math.fma, math.sqrt

        def step(p: Any, m: Any, v: Any, g: Any, constants: Any, factors: Any) -> Any:
            g = fma(p, constants[0], g)
            v = fma(g, g, v)
            return fma(g / (sqrt(v) + constants[1]), factors[0], p), m, v

        return step
