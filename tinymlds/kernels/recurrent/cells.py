"""The cells of recurrent layers: the sums that they are made of, and their mathematics over a generic lane.

Notation is PyTorch's. A GRU has the gates `r, z, n`, and `q` is `W_hn h + b_hn` (what the reset gate multiplies); an LSTM
has `i, f, g, o` and a cell state `c`; a plain RNN has its state alone. `h` is the hidden state; `a` and the name of a gate
what its activation is applied to; a gradient of the loss is `d` and the name of what it belongs to.
"""

from typing import Any, NamedTuple

import numpy as np

from tinymlds.kernels.activations import Math

_HALF = np.float32(0.5)
_ONE = np.float32(1.0)
_MINUS_ONE = np.float32(-1.0)


class Sum(NamedTuple):
    """One of the sums of a step: b_i + W_i x, b_h + W_h h, or all of it, with the rows of a gate."""

    gate: int
    of_input: bool
    of_state: bool


SUMS = {
    "gru": (Sum(0, True, True), Sum(1, True, True), Sum(2, False, True), Sum(2, True, False)),  # r, z, q, n
    "lstm": tuple(Sum(gate, True, True) for gate in range(4)),  # i, f, g, o
    "rnn": (Sum(0, True, True),),
}
"""The sums of each cell, in the order in which they lie in memory."""
STATES = {"gru": 1, "lstm": 2, "rnn": 1}
"""The numbers that a unit of each cell hands on to the next step: h, and c of an LSTM."""


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


class LstmCell(NamedTuple):
    """The functions of an LSTM, compiled for one target."""

    gates: Any
    state: Any
    backward: Any


def lstm_cell(math: Math) -> LstmCell:
    """The LSTM on this mathematics."""
    jit, fma, tanh, tanh_parts, half_tanh_parts = math.jit, math.fma, math.tanh, math.tanh_parts, math.half_tanh_parts

    @jit
    def gates(ai: Any, af: Any, ag: Any, ao: Any) -> Any:
        """i, f, o = sigmoid(ai, af, ao), g = tanh(ag); i and f share a division, and so do g and o."""
        i_top, i_bottom = half_tanh_parts(ai)
        f_top, f_bottom = half_tanh_parts(af)
        g_top, g_bottom = tanh_parts(ag)
        o_top, o_bottom = half_tanh_parts(ao)
        of_i_and_f, of_g_and_o = _ONE / (i_bottom * f_bottom), _ONE / (g_bottom * o_bottom)
        i, f = fma(i_top * f_bottom, of_i_and_f, _HALF), fma(f_top * i_bottom, of_i_and_f, _HALF)
        return i, f, (g_top * o_bottom) * of_g_and_o, fma(o_top * g_bottom, of_g_and_o, _HALF)

    @jit
    def state(i: Any, f: Any, g: Any, o: Any, c: Any) -> Any:
        """The new states c' = f c + i g and h' = o tanh(c')."""
        c = fma(f, c, i * g)
        return c, o * tanh(c)

    @jit
    def backward(i: Any, f: Any, g: Any, o: Any, c: Any, c_next: Any, dh_next: Any, dc_next: Any) -> Any:
        """Undo `state` and `gates`: from dL/dh' and what reaches c' from later steps, dc_next.

        h' = o tanh(c'):   do = dh' tanh(c'), dL/dc' = dc_next + dh' o (1 - tanh(c')^2)
        c' = f c + i g:    df = dc c, di = dc g, dg = dc i, and dc f goes on to c
        Returns dai, daf, dag, dao and dL/dc.
        """
        u = tanh(c_next)
        dc = fma(dh_next * o, fma(u * _MINUS_ONE, u, _ONE), dc_next)
        dai = (dc * g) * fma(i * _MINUS_ONE, i, i)
        daf = (dc * c) * fma(f * _MINUS_ONE, f, f)
        dag = (dc * i) * fma(g * _MINUS_ONE, g, _ONE)
        dao = (dh_next * u) * fma(o * _MINUS_ONE, o, o)
        return dai, daf, dag, dao, dc * f

    return LstmCell(gates, state, backward)


class RnnCell(NamedTuple):
    """The functions of a plain RNN, compiled for one target."""

    state: Any
    backward: Any


def rnn_cell(math: Math) -> RnnCell:
    """The RNN with tanh on this mathematics."""
    return RnnCell(*math.activations["tanh"])
