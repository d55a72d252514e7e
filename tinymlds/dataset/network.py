"""One trained network: its weights by PyTorch's names, its outputs, a file of its own."""

import io
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture, params, permutations
from tinymlds.architectures.params import Floats
from tinymlds.architectures.permutations import Graph
from tinymlds.dataset import display, store
from tinymlds.dataset.manifest import Row
from tinymlds.dataset.tensorfile import tensors_bytes
from tinymlds.errors import TinymldsError, UsageError
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

    def to_graph(self) -> Graph:
        """The network as a graph of its units, with weights and biases as features; `tinymlds.torch.graph` makes it PyG's.

        Raises:
            UsageError: the symmetries of the architecture are not known, or a tensor has more than two axes.
        """
        return permutations.graph(self.architecture, self.state_dict())

    def __repr__(self) -> str:
        return display.network_text(self)

    def _repr_html_(self) -> str:
        return display.network_html(self)

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
        target = Path(path)
        if target.suffix not in (".safetensors", ".npz"):
            raise UsageError(f"{target} must end with .safetensors or .npz, which says the format")
        try:
            target.lstat()
        except FileNotFoundError:
            pass
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            raise TinymldsError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from error
        else:
            if not force:
                raise UsageError(f"{target} is there already; to overwrite it, say force (--force)")
        metadata = {"format": FORMAT, "kind": "network", "row": self.row, "shape": asdict(self.architecture)}
        tensors = self.state_dict()
        store.commit(target, tensors_bytes(tensors, metadata) if target.suffix == ".safetensors" else _npz_bytes(tensors))
        return target


_DATE = (1980, 1, 1, 0, 0, 0)
"""The first that a zip file can have: the same network gives the same bytes at any time."""


def _npz_bytes(tensors: dict[str, Floats]) -> bytes:
    """Return the bytes that `numpy.savez` writes, without the time and the operating system."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in tensors.items():
            member = zipfile.ZipInfo(f"{name}.npy", _DATE)
            member.create_system = 3
            with archive.open(member, "w") as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array, "<f4"), allow_pickle=False)
    return buffer.getvalue()
