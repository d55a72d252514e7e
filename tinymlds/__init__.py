"""tinymlds: a factory for populations of small neural networks trained on exactly known tasks.

import tinymlds
tinymlds.train(machine="xor", count=1000, out="xor-1000")   # under `if __name__ == "__main__":`
dataset = tinymlds.open("xor-1000")
weights = dataset.weights("xor")                            # float32 [n, 4364]
network = dataset["xor", 17]
module = tinymlds.torch.module(network)                     # with PyTorch installed
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinymlds import torch as torch
    from tinymlds.analysis.experiments import analyze as analyze
    from tinymlds.architectures import symmetry
    from tinymlds.dataset.dataset import Dataset as Dataset
    from tinymlds.dataset.dataset import open_dataset as open
    from tinymlds.dataset.network import Network as Network
    from tinymlds.dataset.overview import status as status
    from tinymlds.errors import AnalysisError as AnalysisError
    from tinymlds.errors import DatasetError as DatasetError
    from tinymlds.errors import TinymldsError as TinymldsError
    from tinymlds.errors import UsageError as UsageError
    from tinymlds.publish import package as package
    from tinymlds.runs.train import generate as generate
    from tinymlds.runs.train import train as train
    from tinymlds.verification.checks import verify as verify
    from tinymlds.verification.merging import merge as merge

__version__ = "0.1.0"

_HOMES = {
    "AnalysisError": ("errors", "AnalysisError"),
    "Dataset": ("dataset.dataset", "Dataset"),
    "DatasetError": ("errors", "DatasetError"),
    "Network": ("dataset.network", "Network"),
    "TinymldsError": ("errors", "TinymldsError"),
    "UsageError": ("errors", "UsageError"),
    "analyze": ("analysis.experiments", "analyze"),
    "generate": ("runs.train", "generate"),
    "merge": ("verification.merging", "merge"),
    "open": ("dataset.dataset", "open_dataset"),
    "package": ("publish", "package"),
    "status": ("dataset.overview", "status"),
    "train": ("runs.train", "train"),
    "verify": ("verification.checks", "verify"),
}
__all__ = [
    "AnalysisError",
    "Dataset",
    "DatasetError",
    "Network",
    "TinymldsError",
    "UsageError",
    "analyze",
    "generate",
    "merge",
    "open",
    "package",
    "status",
    "symmetry",
    "torch",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: `import tinymlds` alone loads neither Numba nor PyTorch."""
    if name in ("symmetry", "torch"):
        return importlib.import_module(f"tinymlds.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module 'tinymlds' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(importlib.import_module(f"tinymlds.{module}"), attribute)
