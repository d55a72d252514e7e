"""How recurrent networks are computed: cells, layers and linear maps, for a CPU and for CUDA.

- `cells.py` the mathematics of a cell over a generic lane
- `layers.py`, `head.py` the passes of a layer and of the linear maps over a block of samples; `passes.py` all of them
- `cuda_layers.py`, `cuda_head.py`, `cuda_passes.py` the same for a thread block of a GPU

Where parameters lie is asked of the architecture, here, once for both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tinymlds.architectures.recurrent import Recurrent


class LayerPlaces(NamedTuple):
    """Offsets of the parameters of a layer from its first tensor."""

    weight_hh: int
    bias_ih: int
    bias_hh: int


class HeadPlaces(NamedTuple):
    """Offsets of the parameters of the linear maps from the first map."""

    stride: int
    """From one map to the next."""
    bias: int
    """From the weight of an inner map to its bias."""
    last: int
    last_bias: int


def layer_places(shape: Recurrent, layer: int) -> LayerPlaces:
    """Return the offsets of a layer's tensors."""
    at = shape.offsets()
    start = at[f"{shape.cell.name}.weight_ih_l{layer}"]
    return LayerPlaces(*(at[f"{shape.cell.name}.{part}_l{layer}"] - start for part in LayerPlaces._fields))


def layer_starts(shape: Recurrent) -> tuple[int, int]:
    """Return the offset of the second layer, and the distance of the layers above it; the first one begins at 0."""
    at = shape.offsets()
    starts = [at[f"{shape.cell.name}.weight_ih_l{layer}"] for layer in range(shape.layers)]
    second = starts[1] if len(starts) > 1 else 0
    return second, starts[2] - second if len(starts) > 2 else 0


def head_start(shape: Recurrent) -> int:
    """Return the offset of the first linear map."""
    return shape.offsets()["head.0.weight"]


def head_places(shape: Recurrent) -> HeadPlaces:
    """Return the offsets of the tensors of the linear maps."""
    at, start, last = shape.offsets(), head_start(shape), shape.maps - 1
    stride = at["head.1.weight"] - start if last else 0
    ends = (at[f"head.{last}.{part}"] - start for part in ("weight", "bias"))
    return HeadPlaces(stride, at["head.0.bias"] - start, *ends)
