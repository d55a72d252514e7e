"""Recurrent layers and linear maps: their symmetries, normal form and activations."""

from collections.abc import Callable, Collection, Iterator

import numpy as np
import numpy.typing as npt

from tinymlds.architectures.params import Floats
from tinymlds.architectures.recurrent import PARTS, Recurrent
from tinymlds.architectures.symmetry import Act, Array, Element, Generator, Tensors, apply, product
from tinymlds.errors import UsageError

# ------------------------------------------------------------------ the group


def generators(shape: Recurrent) -> tuple[Generator, ...]:
    """All symmetries of a shape; transformations made of their elements are the group of docs/symmetry.md.

    Raises:
        UsageError: an activation whose symmetries are not known here.
    """
    if shape.activation not in ("none", "tanh", "relu"):
        raise UsageError(f"symmetries are known for the activations none, tanh and relu, not {shape.activation!r}")
    found: list[Generator] = []
    for layer in range(shape.layers):
        found += _of_layer(shape, layer)
    for k in range(shape.maps - 1):
        found += _of_map(shape, k)
    return tuple(found)


def _rows(shape: Recurrent, tensor: str, operation: str, by: str, gates: Collection[str]) -> Iterator[Act]:
    """The rows of some gates."""
    H = shape.hidden
    for gate in gates:
        start = shape.cell.gates.index(gate) * H
        yield Act(operation, by, tensor, 0, start, start + H, gate)


def _of_layer(shape: Recurrent, layer: int) -> Iterator[Generator]:
    cell, H = shape.cell, shape.hidden
    place, parts = f"{cell.name}.{layer}", tuple(f"{cell.name}.{part}_l{layer}" for part in PARTS)
    readers = (parts[1], _reader(shape, place))
    for kind, operation, gates in (("permutation", "take", cell.gates), ("sign", "multiply", (cell.flipped,))):
        rows = [act for tensor in parts for act in _rows(shape, tensor, operation, "element", gates)]
        yield Generator(kind, place, H, (*rows, *(Act(operation, "element", tensor, 1, 0, H) for tensor in readers)))
    for gate in cell.summed:
        given = _rows(shape, parts[2], "add", "element", (gate,))
        yield Generator("bias", place, H, (*given, *_rows(shape, parts[3], "add", "inverse", (gate,))))


def _of_map(shape: Recurrent, k: int) -> Iterator[Generator]:
    place, H = f"head.{k}", shape.hidden
    weight, bias, reader = f"head.{k}.weight", f"head.{k}.bias", f"head.{k + 1}.weight"

    def all_three(kind: str, rows: str, columns: str, columns_by: str) -> Generator:
        written = (Act(rows, "element", tensor, 0, 0, H) for tensor in (weight, bias))
        return Generator(kind, place, H, (*written, Act(columns, columns_by, reader, 1, 0, H)))

    if shape.activation == "none":
        yield all_three("linear", "left", "right", "inverse")
        next_bias, outputs = f"head.{k + 1}.bias", shape.map_outputs[k + 1]
        image = Act("add_image", "inverse", next_bias, 0, 0, outputs, through=reader)
        yield Generator("translation", place, H, (Act("add", "element", bias, 0, 0, H), image))
        return
    yield all_three("permutation", "take", "take", "element")
    if shape.activation == "tanh":
        yield all_three("sign", "multiply", "multiply", "element")
    else:
        yield all_three("scale", "multiply", "multiply", "inverse")


def _reader(shape: Recurrent, place: str) -> str:
    """The weights whose columns read the numbers of a place."""
    module, number = place.split(".")
    after = int(number) + 1
    if module == "head":
        return f"head.{after}.weight"
    return f"{shape.cell.name}.weight_ih_l{after}" if after < shape.layers else "head.0.weight"


# ------------------------------------------------------------------ the normal form


def settle(shape: Recurrent, tensors: Tensors) -> None:
    """The normal form of each network, in place on float64 tensors [n, *shape].

    Place by place from the input:

    - A layer. Biases of gates in which they are only added (all but n of a GRU): their sum in bias_ih, 0 in bias_hh. Sign
      of a unit: the first of the biases and the row of W_i that is not zero, of the gate that changes sign (n of a GRU, g
      of an LSTM), is positive. Order of the units: W_h[i, i] of that gate ascends, which no other symmetry touches.
    - Maps without activation: inner maps are the identity with bias 0; the last one is the product of all.
    - Maps with tanh: the bias of a unit, or else the first weight of its row that is not zero, is positive; biases ascend.
    - Maps with relu: the largest magnitude of a unit's row of weights and its bias is 1; biases ascend.

    Units that tie are ordered by further numbers (`_layer_ties`; a map's by their rows), and those that agree in all of
    them stay in the order that they came in. Copies under permutation and sign give the same bits; the others round the
    weights that they change, and their normal forms agree to that, unless two units nearly tie or a sign hangs on nearly 0.
    """
    found = {(generator.place, generator.kind): generator for generator in generators(shape)}
    for layer in range(shape.layers):
        _settle_layer(shape, layer, tensors, found)
    if shape.activation == "none":
        _compose(shape, tensors)
    else:
        for k in range(shape.maps - 1):
            _settle_map(shape, k, tensors, found)


Found = dict[tuple[str, str], Generator]
Rows = npt.NDArray[np.intp]


def _settle_layer(shape: Recurrent, layer: int, tensors: Tensors, found: Found) -> None:
    """Biases, signs and order of a layer's units; the places below are settled."""
    cell, H = shape.cell, shape.hidden
    place = f"{cell.name}.{layer}"
    w_i, w_h, b_i, b_h = (tensors[f"{cell.name}.{part}_l{layer}"] for part in PARTS)
    summed = np.repeat([gate in cell.summed for gate in cell.gates], H)
    b_i[:, summed] = (b_i + b_h)[:, summed].astype(np.float32)  # rounded here: ties are as they will be read again
    b_h[:, summed] = 0.0
    start = cell.gates.index(cell.flipped) * H
    own = slice(start, start + H)
    sign = _signs(np.concatenate([b_i[:, own, None], b_h[:, own, None], w_i[:, own]], axis=2))
    apply(found[place, "sign"], tensors, Element(sign, sign))
    diagonal = np.diagonal(w_h[:, own], axis1=1, axis2=2)
    order = _order(diagonal, lambda tied: _layer_ties(w_i[tied], w_h[tied], b_i[tied], b_h[tied], summed))
    apply(found[place, "permutation"], tensors, Element(order, order))


def _layer_ties(w_i: Array, w_h: Array, b_i: Array, b_h: Array, summed: npt.NDArray[np.bool_]) -> Array:
    """Return the keys that order units of a layer with equal W_h[i, i] of the gate that changes sign, [n, H, keys].

    These are their rows of W_i, their biases, then the sorted magnitudes of their rows and columns of W_h. The layer above,
    which reads them, is settled later, so it would be another one the second time.
    """
    n, H = w_h.shape[0], w_h.shape[2]
    gates = w_h.shape[1] // H
    by_gate = w_h.reshape(n, gates, H, H)
    keys = [
        *np.split(w_i, gates, axis=1),
        *(part[..., None] for part in np.split(b_i, gates, axis=1)),
        *(b_h[:, ~summed].reshape(n, -1, H, 1).swapaxes(0, 1)),
        *np.sort(np.abs(by_gate), axis=3).swapaxes(0, 1),
        *np.sort(np.abs(by_gate), axis=2).transpose(1, 0, 3, 2),
    ]
    return np.concatenate(keys, axis=2)


def _settle_map(shape: Recurrent, k: int, tensors: Tensors, found: Found) -> None:
    """Signs or scales, and order, of the units between two maps; the places below are settled."""
    place = f"head.{k}"
    weight, bias = tensors[f"{place}.weight"], tensors[f"{place}.bias"]
    if shape.activation == "tanh":
        sign = _signs(np.concatenate([bias[..., None], weight], axis=2))
        apply(found[place, "sign"], tensors, Element(sign, sign))
    else:
        largest = np.maximum(np.abs(weight).max(axis=2), np.abs(bias))
        largest = np.where(largest > 0.0, largest, 1.0)
        apply(found[place, "scale"], tensors, Element(1.0 / largest, largest))
        for tensor in (weight, bias):
            tensor[...] = tensor.astype(
                np.float32
            )  # rounded here: the largest is 1, and ties are as they will be read again
    order = _order(bias, lambda tied: weight[tied])
    apply(found[place, "permutation"], tensors, Element(order, order))


def _compose(shape: Recurrent, tensors: Tensors) -> None:
    """The product of maps without activation into the last; the inner ones become identities."""
    weight, bias = tensors["head.0.weight"].copy(), tensors["head.0.bias"].copy()
    for k in range(1, shape.maps):
        tensors[f"head.{k - 1}.weight"][...] = np.eye(shape.hidden)
        tensors[f"head.{k - 1}.bias"][...] = 0.0
        weight = product(tensors[f"head.{k}.weight"], weight)
        bias = product(tensors[f"head.{k}.weight"], bias[..., None])[..., 0] + tensors[f"head.{k}.bias"]
    last = shape.maps - 1
    tensors[f"head.{last}.weight"][...], tensors[f"head.{last}.bias"][...] = weight, bias


def _signs(candidates: Array) -> Array:
    """The sign of the first candidate of each unit that is not zero, [n, H] from [n, H, candidates]; 1 where all are."""
    first = np.argmax(candidates != 0.0, axis=2)
    return np.where(np.take_along_axis(candidates, first[..., None], axis=2)[..., 0] < 0.0, -1.0, 1.0)


def _order(first: Array, ties: Callable[[Rows], Array]) -> Rows:
    """The permutation that sorts the units of each network by `first` [n, H]; in the networks where some of these are
    equal, further by `ties(networks)` [networks, H, keys], the first key first, and last by position."""
    order = np.argsort(first, axis=1, kind="stable")
    ranked = np.take_along_axis(first, order, axis=1)
    tied = np.flatnonzero((ranked[:, 1:] == ranked[:, :-1]).any(axis=1))
    if tied.size:
        keys = np.concatenate([first[tied, :, None], ties(tied)], axis=2)
        order[tied] = np.lexsort(keys.transpose(2, 0, 1)[::-1], axis=-1)  # lexsort's last key is the first
    return order


# ------------------------------------------------------------------ activations


def trace(shape: Recurrent, tensors: dict[str, Floats], x: Floats) -> dict[str, Floats]:
    """The states of each layer after each step, [B, T, H], for inputs x [B, T, I]: h, and c of an LSTM.

    With PyTorch's gates, where a_k = W_ik x + b_ik + W_hk h + b_hk is the sum of a gate k:

    GRU:  r, z = sigmoid(a_r, a_z), n = tanh(W_in x + b_in + r (W_hn h + b_hn)), h' = (1 - z) n + z h
    LSTM: i, f, o = sigmoid(a_i, a_f, a_o), g = tanh(a_g), c' = f c + i g, h' = o tanh(c')
    RNN:  h' = tanh(a)
    """
    cell, result = shape.cell, {}
    for layer in range(shape.layers):
        w_i, w_h, b_i, b_h = (tensors[f"{cell.name}.{part}_l{layer}"] for part in PARTS)
        h = c = np.zeros((len(x), shape.hidden), np.float32)
        states, cells = (np.empty((*x.shape[:2], shape.hidden), np.float32) for _ in range(2))
        for t in range(x.shape[1]):
            of_input = np.split(x[:, t] @ w_i.T + b_i, len(cell.gates), axis=1)
            of_state = np.split(h @ w_h.T + b_h, len(cell.gates), axis=1)
            h, c = _step(cell.name, of_input, of_state, h, c)
            states[:, t], cells[:, t] = h, c
        result[f"layer {layer}"] = states
        if cell.name == "lstm":
            result[f"layer {layer}, c"] = cells
        x = states
    return result


def _sigmoid(a: Floats) -> Floats:
    return np.asarray((np.tanh(a / 2) + 1) / 2)


def _step(cell: str, of_input: list[Floats], of_state: list[Floats], h: Floats, c: Floats) -> tuple[Floats, Floats]:
    """The next states, from the two halves of the sums of each gate."""
    sums = [a + b for a, b in zip(of_input, of_state, strict=True)]
    if cell == "gru":
        r, z = _sigmoid(sums[0]), _sigmoid(sums[1])
        return (1 - z) * np.tanh(of_input[2] + r * of_state[2]) + z * h, c
    if cell == "lstm":
        c = _sigmoid(sums[1]) * c + _sigmoid(sums[0]) * np.tanh(sums[2])
        return _sigmoid(sums[3]) * np.tanh(c), c
    return np.tanh(sums[0]), c
