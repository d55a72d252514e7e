"""The numbers that describe a network and its optimizer. No NumPy here, so that the command line can start at once."""

import math
from dataclasses import dataclass

NUMERICS = 2
"""The numerics version: raised by any change that changes a bit of a trained network."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a network: GRU layers, then linear maps.

    The parameter vector holds, layer by layer, what PyTorch calls weight_ih [3H, I], weight_hh [3H, H], bias_ih [3H] and
    bias_hh [3H] (gates in the order r, z, n), then for each linear map weight [out, in] and bias [out].
    """

    inputs: int = 9
    hidden: int = 12
    outputs: int = 8
    layers: int = 4
    maps: int = 5
    activation: str = "none"

    @property
    def layer_inputs(self) -> tuple[int, ...]:
        """Inputs of each GRU layer."""
        return (self.inputs,) + (self.hidden,) * (self.layers - 1)

    @property
    def map_outputs(self) -> tuple[int, ...]:
        """Outputs of each linear map; all have `hidden` inputs."""
        return (self.hidden,) * (self.maps - 1) + (self.outputs,)

    @property
    def tensors(self) -> tuple[tuple[str, tuple[int, ...]], ...]:
        """PyTorch's name and shape of every tensor, in the order of the parameter vector."""
        named: list[tuple[str, tuple[int, ...]]] = []
        rows = 3 * self.hidden
        for layer, inputs in enumerate(self.layer_inputs):
            named.append((f"gru.weight_ih_l{layer}", (rows, inputs)))
            named.append((f"gru.weight_hh_l{layer}", (rows, self.hidden)))
            named.append((f"gru.bias_ih_l{layer}", (rows,)))
            named.append((f"gru.bias_hh_l{layer}", (rows,)))
        for k, outputs in enumerate(self.map_outputs):
            named.append((f"head.{k}.weight", (outputs, self.hidden)))
            named.append((f"head.{k}.bias", (outputs,)))
        return tuple(named)

    @property
    def size(self) -> int:
        """Number of parameters (4,364 for the shape of MLDS)."""
        return sum(math.prod(shape) for _, shape in self.tensors)


@dataclass(frozen=True)
class Adam:
    """Constants of Adam (Kingma and Ba 2015) that stay the same over a run."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
