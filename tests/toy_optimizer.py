"""Plain gradient descent, registered from outside: all that an optimizer needs is this file."""

from dataclasses import dataclass

import numpy as np

from tinymlds.kernels.optimizers import Optimizer, register
from tinymlds.kernels.options import option


@register
@dataclass(frozen=True)
class Descent(Optimizer):
    """p - lr (g + decay p)."""

    name = "descent"
    recipe = {"lr": 0.5, "lr_decay": 0.0}  # noqa: RUF012

    decay: float = option(0.0, "Share of the parameters that is added to the gradient.", 0.0, 1.0)

    def constants(self):
        return (self.decay,)

    def factors(self, lr, carried, steps):
        return np.full((steps, 1), lr, np.float32), carried

    @staticmethod
    def step(math):
        fma = math.fma

        def step(p, m, v, g, constants, factors):
            return p - fma(p, constants[0], g) * factors[0], m, v

        return step
