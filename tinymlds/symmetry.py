"""The public path of `tinymlds.architectures.symmetry`."""

from tinymlds.architectures.symmetry import KINDS, canonicalize, describe, transform

__all__ = ["KINDS", "canonicalize", "describe", "transform"]
