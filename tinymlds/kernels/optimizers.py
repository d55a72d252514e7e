"""Optimizers: one step for a lane of parameters each, and the numbers that steps differ in.

An optimizer is a frozen dataclass; its options are those of `torch.optim`. `step` returns the step as a function over a
generic lane (`activations.Math`): 16 lanes at a time on a CPU, one float32 on a GPU. A parameter has two numbers of
memory, m and v, 0 at the start; an optimizer that needs less leaves them alone. `register` adds one from outside.

No NumPy is imported at the top, so that the command line can start at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from tinymlds.kernels.options import check_options, option

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tinymlds.kernels.activations import Math

    Floats = npt.NDArray[np.float32]

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

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def __post_init__(self) -> None:
        check_options(self)

    @abstractmethod
    def constants(self) -> tuple[float, ...]:
        """Numbers that stay the same over a run; kernels have them as float32."""

    @abstractmethod
    def factors(self, lr: float, carried: Carried, steps: int) -> tuple[Floats, Carried]:
        """The numbers in which steps differ, float32 [steps, k], and what is carried to the steps after them.

        Args:
            lr: the learning rate of these steps.
            carried: what the call for the steps before returned, or `start`.
            steps: number of steps.
        """

    @staticmethod
    @abstractmethod
    def step(math: Math) -> Callable[..., Any]:
        """The function step(p, m, v, g, constants, factors) -> p, m, v: new parameters and memory from the gradient g."""


OPTIMIZERS: dict[str, type[Optimizer]] = {}
"""The optimizers that are known, by name. The first one is the default."""


def register(optimizer: type[Optimizer]) -> type[Optimizer]:
    """Make an optimizer known under its name; a class decorator. See `architectures.register`.

    Raises:
        ValueError: another one has the name.
    """
    known = OPTIMIZERS.setdefault(optimizer.name, optimizer)
    if (known.__module__, known.__qualname__) != (optimizer.__module__, optimizer.__qualname__):
        raise ValueError(f"there is an optimizer {optimizer.name!r} already: {known.__module__}.{known.__qualname__}")
    return optimizer


@register
@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (Kingma and Ba 2015, algorithm 1)."""

    name = "adam"
    start = (1.0, 1.0)

    beta1: float = option(0.9, "Adam's beta1.", 0.0, 0.9999999)
    beta2: float = option(0.99, "Adam's beta2.", 0.0, 0.9999999)
    eps: float = option(1e-6, "Adam's epsilon.", 1e-30, 1.0)

    def constants(self) -> tuple[float, ...]:
        """beta1, 1 - beta1, beta2, 1 - beta2, eps."""
        return self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.eps

    def factors(self, lr: float, carried: Carried, steps: int) -> tuple[Floats, Carried]:
        """lr / (1 - beta1^t) and 1 / sqrt(1 - beta2^t); carried are beta1^t and beta2^t.

        The powers are running products in float64, so that no `pow` of any library has a say in a bit.
        """
        import numpy as np

        running = np.empty((2, steps + 1))
        running[:, 0] = carried
        running[:, 1:] = np.array([[self.beta1], [self.beta2]])
        running = np.multiply.accumulate(running, axis=1)
        factors = np.stack([lr / (1.0 - running[0, 1:]), 1.0 / np.sqrt(1.0 - running[1, 1:])], axis=1)
        return factors.astype(np.float32), (float(running[0, -1]), float(running[1, -1]))

    @staticmethod
    def step(math: Math) -> Callable[..., Any]:
        """m, v: the moments, where bias correction is in the factors."""
        fma, sqrt = math.fma, math.sqrt

        def step(p: Any, m: Any, v: Any, g: Any, constants: Any, factors: Any) -> Any:
            m = fma(m, constants[0], g * constants[1])
            v = fma(v, constants[2], (g * g) * constants[3])
            return p - (m * factors[0]) / fma(sqrt(v), factors[1], constants[4]), m, v

        return step
