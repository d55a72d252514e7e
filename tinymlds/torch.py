"""The bridge to PyTorch, and the only file that imports it (extra `[torch]`)."""

from collections.abc import Sequence
from typing import Any

from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.manifest import Row
from tinymlds.dataset.network import Network
from tinymlds.errors import UsageError

try:
    import torch
    from torch import nn
except ImportError as error:
    raise UsageError("tinymlds.torch needs PyTorch: pip install 'tinymlds[torch]'") from error


def module(network: Network) -> nn.Module:
    """A network as a torch.nn.Module, its weights copied; `state_dict()` has the names of `Network.state_dict()`."""
    with torch.random.fork_rng(devices=[]):  # the layers draw values, which are replaced; the user's random numbers stay
        result = network.architecture.module()
    state: dict[str, Any] = {name: torch.tensor(array) for name, array in network.state_dict().items()}
    result.load_state_dict(state)
    return result


def graph(network: Network) -> Any:
    """A network as a `torch_geometric.data.Data`: x, edge_index, edge_attr, node_group, edge_group of `Network.to_graph()`.

    Raises:
        UsageError: PyTorch Geometric is not installed, or see `Network.to_graph`.
    """
    try:
        from torch_geometric.data import Data
    except ImportError as error:
        raise UsageError("tinymlds.torch.graph needs PyTorch Geometric: pip install torch-geometric") from error
    arrays = network.to_graph()._asdict()
    return Data(**{name: torch.from_numpy(array) for name, array in arrays.items() if hasattr(array, "dtype")})


class WeightDataset(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """Networks as points: item k is (parameter vector float32 [P], label), of complete networks; for a DataLoader."""

    classes: tuple[str, ...]
    """Task ids; a label is a place in it."""
    weights: torch.Tensor
    """float32 [n, P], read once."""
    labels: torch.Tensor
    """int64 [n]."""

    def __init__(
        self,
        dataset: Dataset,
        split: str | None = "train",
        tasks: Sequence[str] | None = None,
        epoch: int | None = None,
    ) -> None:
        """Read the weights.

        Args:
            dataset: from `tinymlds.open`.
            split: train, validation or test; None is all.
            tasks: the classes, in this order; None is all of the dataset.
            epoch: weights at the end of this epoch, one of the dataset's checkpoints; None is the end of training.

        Raises:
            UsageError: not a dataset, no such split, or no checkpoints of this epoch.
            KeyError: no such task.
            DatasetError: the weights are damaged.
        """
        if not isinstance(dataset, Dataset):
            raise UsageError(f"WeightDataset takes a dataset, as tinymlds.open gives it, not {dataset!r}")
        self.classes = dataset.task_ids(tasks)
        self._dataset, self._split, self._epoch = dataset, split, epoch
        weights, labels = dataset.labelled(split, self.classes, epoch)
        self.weights, self.labels = torch.from_numpy(weights), torch.from_numpy(labels)

    @property
    def rows(self) -> list[Row]:
        """Rows of the manifest, aligned with the items."""
        return [row for task in self.classes for row in self._dataset.rows(task, self._split, self._epoch)]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, k: int) -> tuple[torch.Tensor, int]:
        return self.weights[k], int(self.labels[k])
