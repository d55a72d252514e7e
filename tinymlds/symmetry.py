"""The public path of `tinymlds.architectures.symmetry`."""

from tinymlds.architectures.symmetry import KINDS as KINDS
from tinymlds.architectures.symmetry import canonicalize as canonicalize
from tinymlds.architectures.symmetry import describe as describe
from tinymlds.architectures.symmetry import transform as transform
