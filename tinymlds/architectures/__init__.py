"""Architectures: the contract, and the registry of those that are known.

An architecture is a frozen dataclass that says what its parameters are. How it is computed stands in `kernels/`, in the
module that `kernels` names for each backend, and is imported only when something is computed. Nothing outside these files
knows an architecture by its name. `register` adds one from outside.

No NumPy is imported here, so that the command line can start at once.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from tinymlds.kernels.options import Registry, check_options

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from torch import nn

    from tinymlds.architectures.symmetry import Generator, Tensors

    Floats = npt.NDArray[np.float32]


class Tensor(NamedTuple):
    """A tensor of the parameters."""

    name: str
    """PyTorch's name: a key of the module's `state_dict()`."""
    shape: tuple[int, ...]
    bound: float = 0.0
    """Initial values are uniform in [-bound, bound) around `centre`."""
    centre: float = 0.0
    meaning: str = ""
    """Module and role, for data dictionaries."""

    @property
    def size(self) -> int:
        """Number of its parameters."""
        return math.prod(self.shape)


class Matrix(NamedTuple):
    """How a report draws the tensors of one module: side by side as one matrix."""

    title: str
    tensors: tuple[str, ...]
    """Names, in the order of the columns; a bias is one column."""
    rows: list[str]
    columns: list[str]
    note: str = ""
    """Sentences on the names of rows and columns."""


class About(NamedTuple):
    """Words and code on an architecture for the data card of a dataset."""

    sizes: str
    """In a few words: "4 GRU layers of 12 units and 5 linear maps"."""
    initial: str
    """A sentence on initial values."""
    keywords: tuple[str, ...]
    build: str
    """PyTorch source that binds `network`, a module whose `state_dict()` has the names of the tensors."""
    apply: str
    """PyTorch source that binds the outputs `y` of `network` for the inputs `x`, [B, T, I]."""
    note: str = ""


class Architecture(ABC):
    """A kind of network and its sizes. A subclass is a frozen dataclass with `inputs`, `outputs` and fields of its own.

    A field that a recipe may set comes from `kernels.options.option`, so that it has a name in recipes, a text and limits.
    """

    name: ClassVar[str]
    """The name in recipes and on the command line."""
    kernels: ClassVar[dict[str, str]]
    """The module with the passes for each backend: "cpu", and "cuda" if there are some. See `kernels/__init__.py`."""
    recipe: ClassVar[dict[str, Any]] = {}
    """Fields of the recipe in which the default recipe of this architecture differs from that of all."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    inputs: int
    outputs: int

    @abstractmethod
    def tensors(self) -> tuple[Tensor, ...]:
        """Every tensor, in the order of the parameter vector. Offsets follow from this, and are restated nowhere."""

    @abstractmethod
    def generators(self) -> tuple[Generator, ...]:
        """Generators of the group of exact symmetries (docs/symmetry.md).

        Raises:
            UsageError: the symmetries of this architecture are not known.
        """

    @abstractmethod
    def settle(self, tensors: Tensors) -> None:
        """Bring named float64 tensors, with an axis of networks in front, into the normal form, in place."""

    @abstractmethod
    def trace(self, tensors: dict[str, Floats], x: Floats) -> dict[str, Floats]:
        """Named activations [B, T, units] in [-1, 1] or [0, 1] for inputs x [B, T, I], for reports and probes.

        They are for the eye: what networks answer comes from the kernels.
        """

    @abstractmethod
    def module(self) -> nn.Module:
        """A PyTorch module with these tensors: outputs [B, T, O] for inputs [B, T, I]."""

    @abstractmethod
    def matrices(self) -> tuple[Matrix, ...]:
        """How a report draws the parameters."""

    @abstractmethod
    def about(self) -> About:
        """The words that describe it to readers of a dataset."""

    def check(self) -> None:
        """Check the options, where a recipe asks for them.

        Raises:
            UsageError: one does not fit.
        """
        check_options(self)

    @cached_property
    def size(self) -> int:
        """Number of parameters, P."""
        return sum(tensor.size for tensor in self.tensors())

    def offsets(self) -> dict[str, int]:
        """Return the offset of each tensor in the parameter vector, by its name."""
        found, start = {}, 0
        for tensor in self.tensors():
            found[tensor.name] = start
            start += tensor.size
        return found


ARCHITECTURES: Registry[Architecture] = Registry("architecture")
"""The architectures that are known. The first one is the default."""

register = ARCHITECTURES.register

from tinymlds.architectures import recurrent as recurrent  # noqa: E402  registers its architectures
