"""One linear map for every step, registered from outside: its description. Its kernels are in `toy_kernels.py`."""

from dataclasses import dataclass

import numpy as np

from tinymlds.architectures import About, Architecture, Matrix, Tensor, register
from tinymlds.architectures.symmetry import Act, Element, Generator, apply
from tinymlds.kernels.options import option


@register
@dataclass(frozen=True)
class LinearMaps(Architecture):
    """y = W2 W1 x + b: two maps without memory, so that there is something to permute between them."""

    name = "linear-maps"
    kernels = {"cpu": "toy_kernels"}  # noqa: RUF012
    recipe = {"lr": 0.01}  # noqa: RUF012

    inputs: int = 9
    outputs: int = 8
    width: int = option(4, "Numbers between the maps.", 1, 64)

    def tensors(self):
        return (
            Tensor("0.weight", (self.width, self.inputs), 0.5, meaning="first map: weights"),
            Tensor("1.weight", (self.outputs, self.width), 0.25, meaning="second map: weights"),
            Tensor("1.bias", (self.outputs,), 0.0, centre=0.125, meaning="second map: biases"),
        )

    def generators(self):
        take = (Act("take", "element", "0.weight", 0, 0, self.width), Act("take", "element", "1.weight", 1, 0, self.width))
        return (Generator("permutation", "0", self.width, take),)

    def settle(self, tensors):
        order = np.argsort(tensors["0.weight"][:, :, 0], axis=1, kind="stable")
        apply(self.generators()[0], tensors, Element(order, order))

    def trace(self, tensors, x):
        return {"between the maps": np.tanh(x @ tensors["0.weight"].T)}

    def module(self):
        from torch import nn

        return nn.Sequential(nn.Linear(self.inputs, self.width, bias=False), nn.Linear(self.width, self.outputs))

    def matrices(self):
        between = [f"unit {k}" for k in range(self.width)]
        inputs, outputs = ([f"{name} {k}" for k in range(size)] for name, size in (("x", self.inputs), ("y", self.outputs)))
        second = Matrix("second map", ("1.weight", "1.bias"), outputs, [*between, "bias"])
        return (Matrix("first map", ("0.weight",), between, inputs), second)

    def about(self):
        build = f"network = nn.Sequential(nn.Linear({self.inputs}, {self.width}, bias=False), "
        return About(
            sizes=f"two linear maps with {self.width} numbers between them",
            initial="Initial weights are uniform, and biases 0.125.",
            keywords=("linear",),
            build=f"{build}nn.Linear({self.width}, {self.outputs}))",
            apply="y = network(x)",
        )
