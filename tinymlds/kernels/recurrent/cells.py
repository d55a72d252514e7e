"""The cells of recurrent layers over a generic lane.

Notation: `r, z, n` are the gates of a GRU as PyTorch defines them, `q` is `W_hn h + b_hn` (what the reset gate
multiplies), `h` the hidden state; a gradient of the loss is `d` and the name of what it belongs to.
"""

from typing import Any, NamedTuple

import numpy as np

from tinymlds.kernels.activations import Math

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_MINUS_ONE = np.float32(-1.0)


class GruCell(NamedTuple):
    """The functions of a GRU, compiled for one target."""

    gates: Any
    state: Any
    backward: Any


def gru_cell(math: Math) -> GruCell:
    """The GRU on this mathematics."""
    jit, fma, tanh, half_tanh_parts = math.jit, math.fma, math.tanh, math.half_tanh_parts

    @jit
    def gates(ar: Any, az: Any) -> Any:
        """r = sigmoid(ar), z = sigmoid(az), with sigmoid(a) = tanh(a / 2) / 2 + 1/2.

        ar, az: W_i x + b_i + W_h h + b_h of the reset and update gates.
        """
        r_top, r_bottom = half_tanh_parts(ar)
        z_top, z_bottom = half_tanh_parts(az)
        one_over_both = _ONE / (r_bottom * z_bottom)
        return fma(r_top * z_bottom, one_over_both, _HALF), fma(z_top * r_bottom, one_over_both, _HALF)

    @jit
    def state(r: Any, z: Any, an: Any, q: Any, h: Any) -> Any:
        """n = tanh(an + r q) and the new state h' = (1 - z) n + z h. an: W_in x + b_in; q: W_hn h + b_hn."""
        n = tanh(fma(r, q, an))
        return n, fma(z, h - n, n)

    @jit
    def backward(r: Any, z: Any, n: Any, q: Any, h: Any, dh_next: Any) -> Any:
        """Undo `state` and `gates`: from dL/dh' to the gradients before the activations.

        h' = fma(z, h - n, n):  dn = dh' (1 - z), dz = dh' (h - n), and dh' z goes straight to h
        n = tanh(an + r q):     dan = dn (1 - n^2), dq = dan r, dr = dan q
        r, z = sigmoid:         dar = dr r (1 - r), daz = dz z (1 - z)
        Returns dar, daz, dan, dq and the part dh' z of dL/dh.
        """
        dh = dh_next * z
        dan = (dh_next - dh) * fma(n * _MINUS_ONE, n, _ONE)
        dq = dan * r
        dar = (dq * q) * (_ONE - r)
        daz = (h - n) * (dh - dh * z)
        return dar, daz, dan, dq, dh

    return GruCell(gates, state, backward)
