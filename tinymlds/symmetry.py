"""The public path of `tinymlds.architectures.symmetry` and of `tinymlds.architectures.permutations`."""

from tinymlds.architectures.permutations import Graph, PermutationSpec, permutation_spec
from tinymlds.architectures.symmetry import KINDS, canonicalize, describe, transform

__all__ = ["KINDS", "Graph", "PermutationSpec", "canonicalize", "describe", "permutation_spec", "transform"]
