"""Recurrent networks: layers of GRU, LSTM or plain RNN cells, then linear maps.

What needs NumPy or PyTorch is in `recurrent_weights.py` and `recurrent_module.py`, imported when it is asked for.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from tinymlds.architectures import About, Architecture, Matrix, Tensor, register
from tinymlds.errors import UsageError
from tinymlds.kernels.options import option

if TYPE_CHECKING:
    from torch import nn

    from tinymlds.architectures import Floats
    from tinymlds.architectures.symmetry import Generator, Tensors

PARTS = {
    "weight_ih": "weights from the input",
    "weight_hh": "weights from the hidden state",
    "bias_ih": "biases of the input side",
    "bias_hh": "biases of the hidden side",
}
_BUILD = """\
{cell} = nn.{title}({inputs}, {hidden}, {layers}, batch_first=True)   # begins with a hidden state of zeros
head = nn.Sequential(*(nn.Linear({hidden}, outputs) for outputs in {map_outputs}))
network = nn.ModuleDict({{"{cell}": {cell}, "head": head}})"""
_NOTE = """\
There are five affine maps (four "linear layers" and the output); without activations between them they are one
linear map in function, though not in weight space."""
_LEGEND = (
    "Rows of a {title} layer are its gates: {roles}; each has a row for each unit. Columns are what a row reads: x the "
    "inputs, below the units of the layer below, h its own units, and two biases."
)


class Cell(NamedTuple):
    """What has to be known of a cell beside how it is computed."""

    name: str
    """The first part of the names of its tensors, and the name of its module."""
    title: str
    """PyTorch's class."""
    gates: tuple[str, ...]
    """In the order of the rows of its tensors."""
    flipped: str
    """The gate whose rows change sign with a unit; the state is odd in it."""
    summed: tuple[str, ...]
    """The gates in which the two biases are only ever added to each other."""
    roles: str
    """What the gates do, in words."""


@dataclass(frozen=True)
class Recurrent(Architecture):
    """Recurrent layers of one kind of cell, then linear maps.

    The parameter vector holds, layer by layer, what PyTorch calls weight_ih [G H, I], weight_hh [G H, H], bias_ih [G H] and
    bias_hh [G H] for G gates, then for each linear map weight [out, in] and bias [out]. Initial values are uniform in
    [-k, k) with k = 1 / sqrt(H): nn.GRU, nn.LSTM and nn.RNN draw everything from there, and so does nn.Linear with H
    inputs.
    """

    cell: ClassVar[Cell]
    kernels = {  # noqa: RUF012
        "cpu": "tinymlds.kernels.recurrent.passes",
        "cuda": "tinymlds.kernels.recurrent.cuda_passes",
    }

    inputs: int = 9
    hidden: int = option(12, "Hidden units of each layer, a multiple of 4.", 4, 64)
    outputs: int = 8
    layers: int = option(4, "Recurrent layers.", 1, 4)
    maps: int = option(5, "Linear maps after them, the output included.", 1, 8, name="linear_maps")
    activation: str = option(
        "none", "Activation between the linear maps.", name="head_activation", choices=("none", "tanh", "relu")
    )

    @property
    def layer_inputs(self) -> tuple[int, ...]:
        """Inputs of each recurrent layer."""
        return (self.inputs,) + (self.hidden,) * (self.layers - 1)

    @property
    def map_outputs(self) -> tuple[int, ...]:
        """Outputs of each linear map; all have `hidden` inputs."""
        return (self.hidden,) * (self.maps - 1) + (self.outputs,)

    def tensors(self) -> tuple[Tensor, ...]:
        cell, gates = self.cell, ", ".join(self.cell.gates)
        bound, rows, found = 1.0 / math.sqrt(self.hidden), len(cell.gates) * self.hidden, []
        for layer, inputs in enumerate(self.layer_inputs):
            shapes: tuple[tuple[int, ...], ...] = (rows, inputs), (rows, self.hidden), (rows,), (rows,)
            for (part, role), shape in zip(PARTS.items(), shapes, strict=True):
                meaning = f"{cell.title} layer {layer}: {role}" + (f", gates {gates}" if len(cell.gates) > 1 else "")
                found.append(Tensor(f"{cell.name}.{part}_l{layer}", shape, bound, meaning=meaning))
        for k, outputs in enumerate(self.map_outputs):
            shape, place = (outputs, self.hidden), f"linear map {k}"
            found.append(Tensor(f"head.{k}.weight", shape, bound, meaning=f"{place}: weights, [outputs, inputs]"))
            found.append(Tensor(f"head.{k}.bias", (outputs,), bound, meaning=f"{place}: biases"))
        return tuple(found)

    def check(self) -> None:
        super().check()
        if self.hidden % 4:
            raise UsageError(f"hidden must be a multiple of 4, not {self.hidden}")

    def about(self) -> About:
        between = "" if self.activation == "none" else f" with {self.activation} between them"
        cell = self.cell
        chain = f"y = head[0]({cell.name}(x)[0])\nfor linear in head[1:]:\n    y = linear(torch.{self.activation}(y))"
        return About(
            sizes=f"{self.layers} {cell.title} layers of {self.hidden} units and {self.maps} linear maps{between}",
            initial=f"Initial weights and biases are uniform in [-k, k), k = 1/sqrt({self.hidden}).",
            keywords=(cell.name,),
            build=_BUILD.format(**asdict(self), cell=cell.name, title=cell.title, map_outputs=self.map_outputs),
            apply=f"y = head({cell.name}(x)[0])" if self.activation == "none" else chain,
            note=_NOTE if (self.maps, self.activation) == (5, "none") else "",
        )

    def generators(self) -> tuple[Generator, ...]:
        from tinymlds.architectures import recurrent_weights

        return recurrent_weights.generators(self)

    def settle(self, tensors: Tensors) -> None:
        from tinymlds.architectures import recurrent_weights

        recurrent_weights.settle(self, tensors)

    def trace(self, tensors: dict[str, Floats], x: Floats) -> dict[str, Floats]:
        from tinymlds.architectures import recurrent_weights

        return recurrent_weights.trace(self, tensors, x)

    def module(self) -> nn.Module:
        from tinymlds.architectures.recurrent_module import RecurrentModule

        return RecurrentModule(self)

    def matrices(self) -> tuple[Matrix, ...]:
        units = [f"h {unit}" for unit in range(self.hidden)]
        found = []
        for layer, inputs in enumerate(self.layer_inputs):
            columns = [f"{'x' if layer == 0 else 'below'} {k}" for k in range(inputs)] + units + ["bias ih", "bias hh"]
            rows = [f"{gate} {unit}" for gate in self.cell.gates for unit in range(self.hidden)]
            tensors = tuple(f"{self.cell.name}.{part}_l{layer}" for part in PARTS)
            legend = _LEGEND.format(title=self.cell.title, roles=self.cell.roles)
            found.append(Matrix(f"{self.cell.title} layer {layer}", tensors, rows, columns, legend))
        for k, outputs in enumerate(self.map_outputs):
            rows = [f"{'y' if k == self.maps - 1 else 'unit'} {unit}" for unit in range(outputs)]
            columns = [f"{'h' if k == 0 else 'unit'} {unit}" for unit in range(self.hidden)] + ["bias"]
            found.append(Matrix(f"linear map {k}", (f"head.{k}.weight", f"head.{k}.bias"), rows, columns))
        return tuple(found)


@register
@dataclass(frozen=True)
class GruLinear(Recurrent):
    """GRU layers, then linear maps; by default the network of MLDS with 4,364 parameters. See `Recurrent`."""

    name = "gru-linear"
    cell = Cell("gru", "GRU", ("r", "z", "n"), "n", ("r", "z"), "r resets, z updates, n is the new state")

    layers: int = option(4, "GRU layers.", 1, 4, name="gru_layers")


@register
@dataclass(frozen=True)
class LstmLinear(Recurrent):
    """LSTM layers, then linear maps; see `Recurrent`."""

    name = "lstm-linear"
    cell = Cell(
        "lstm",
        "LSTM",
        ("i", "f", "g", "o"),
        "g",
        ("i", "f", "g", "o"),
        "i lets in, f keeps, g is what comes in, o lets out",
    )


@register
@dataclass(frozen=True)
class RnnLinear(Recurrent):
    """Layers of a plain RNN with tanh, then linear maps; see `Recurrent`."""

    name = "rnn-linear"
    cell = Cell("rnn", "RNN", ("h",), "h", ("h",), "h is the new state")
