"""Recurrent layers and linear maps as a PyTorch module."""

from collections import OrderedDict

import torch
from torch import nn

from tinymlds.architectures.recurrent import Recurrent

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class RecurrentModule(nn.Module):
    """Recurrent layers, then linear maps: `.gru`, `.lstm` or `.rnn` (nn.GRU and so on, batch_first), and `.head`
    (nn.Sequential of nn.Linear)."""

    def __init__(self, shape: Recurrent) -> None:
        super().__init__()
        self._cell = shape.cell.name
        layers = getattr(nn, shape.cell.title)(shape.inputs, shape.hidden, shape.layers, batch_first=True)
        self.add_module(self._cell, layers)
        maps: OrderedDict[str, nn.Module] = OrderedDict(
            (str(k), nn.Linear(shape.hidden, outputs)) for k, outputs in enumerate(shape.map_outputs)
        )
        self.head = nn.Sequential(maps)
        self.activation = None if shape.activation == "none" else _ACTIVATIONS[shape.activation]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs [B, T, O] for inputs [B, T, I]."""
        y: torch.Tensor = self.get_submodule(self._cell)(x)[0]
        for k, linear in enumerate(self.head):
            y = linear(y)
            if self.activation is not None and k + 1 < len(self.head):
                y = self.activation(y)
        return y
