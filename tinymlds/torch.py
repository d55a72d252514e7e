"""The bridge to PyTorch, and the only file that imports it (extra `[torch]`)."""

from collections import OrderedDict
from typing import Any

from tinymlds.dataset import Network
from tinymlds.errors import UsageError
from tinymlds.kernels.shape import Shape

try:
    import torch
    from torch import nn
except ImportError as error:
    raise UsageError("tinymlds.torch needs PyTorch: pip install 'tinymlds[torch]'") from error

_ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class GruLinear(nn.Module):
    """GRU layers, then linear maps: `.gru` (nn.GRU, batch_first) and `.head` (nn.Sequential of nn.Linear)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.gru = nn.GRU(shape.inputs, shape.hidden, shape.layers, batch_first=True)
        maps: OrderedDict[str, nn.Module] = OrderedDict(
            (str(k), nn.Linear(shape.hidden, outputs)) for k, outputs in enumerate(shape.map_outputs)
        )
        self.head = nn.Sequential(maps)
        self.activation = None if shape.activation == "none" else _ACTIVATIONS[shape.activation]()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Outputs [B, T, 8] for inputs [B, T, 9]."""
        y: torch.Tensor = self.gru(x)[0]
        for k, linear in enumerate(self.head):
            y = linear(y)
            if self.activation is not None and k + 1 < len(self.head):
                y = self.activation(y)
        return y


def module(network: Network) -> GruLinear:
    """A network as a torch.nn.Module, its weights copied; `state_dict()` has the names of `Network.state_dict()`."""
    result = GruLinear(network.shape)
    state: dict[str, Any] = {name: torch.tensor(array) for name, array in network.state_dict().items()}
    result.load_state_dict(state)
    return result
