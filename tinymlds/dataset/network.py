"""One trained network: its weights by PyTorch's names, its outputs, a file of its own."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture, params
from tinymlds.architectures.params import Floats
from tinymlds.dataset import saving
from tinymlds.dataset.manifest import Row
from tinymlds.errors import UsageError
from tinymlds.spec import FORMAT
from tinymlds.training import backends


@dataclass(frozen=True, eq=False)
class Network:
    """One trained network."""

    row: Row
    """Its row of the manifest."""
    architecture: Architecture
    weights: Floats
    """The parameter vector, float32 [P]."""

    @property
    def shape(self) -> Architecture:
        """The older name of `architecture`."""
        return self.architecture

    def state_dict(self) -> dict[str, Floats]:
        """The tensors by PyTorch's names, float32: gru.weight_ih_l0 [36, 9] ... head.4.bias [8]."""
        return params.to_tensors(self.architecture, self.weights)

    def forward(self, x: npt.ArrayLike) -> Floats:
        """Outputs [B, T, 8] for inputs x [B, T, 9], both float32; the hidden state starts at 0.

        Raises:
            UsageError: x has another shape.
        """
        try:
            inputs = np.asarray(x, np.float32)
        except (TypeError, ValueError) as error:
            raise UsageError(f"forward takes an array of numbers [B, T, {self.architecture.inputs}] ({error})") from error
        if inputs.ndim != 3 or inputs.shape[2] != self.architecture.inputs:
            raise UsageError(f"forward takes inputs [B, T, {self.architecture.inputs}], not {list(inputs.shape)}")
        return backends.evaluator().outputs(self.architecture, self.weights, inputs)

    def save(self, path: str | Path, force: bool = False) -> Path:
        """Write the network as a file of its own; returns its path.

        As .safetensors with its row of the manifest and its shape as metadata, or as .npz; tensors by PyTorch's names. The
        same network gives the same bytes.

        Args:
            path: ends with .safetensors or .npz.
            force: overwrite what is there.

        Raises:
            UsageError: the path ends otherwise, or there is a file and no `force`.
            TinymldsError: the file system refused.
        """
        metadata = {"format": FORMAT, "kind": "network", "row": self.row, "shape": asdict(self.architecture)}
        return saving.save(path, self.state_dict(), metadata, force)
