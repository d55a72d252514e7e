"""A network that reads networks and respects their symmetries: units are nodes, weights are edges. The only file of the
analysis that imports PyTorch (extra `[torch]`).

Every unit i of a GRU layer has d numbers a_i that no symmetry touches, and d numbers v_i that change sign with the unit.
Messages are products whose signs cancel or match: with s_i the sign of unit i, rows of gate n go as s_i s_j and those of
r and z as s_j, so that, for instance, sum_j W_n[i, j] v_j goes as s_i, and sum_j W_r[i, j] v_j as 1. Sums run over units,
so their order does not matter. Biases of r and z enter as their sum, and a head without activation as the product of its
maps; so nothing depends on where a network is among its equals, up to rounding.
"""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import numpy as np

from tinymlds.analysis.models import Fitted, Fold
from tinymlds.analysis.statistics import Scores, fitness
from tinymlds.architectures import Architecture, params
from tinymlds.architectures.params import Floats
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.errors import UsageError

try:
    import torch
    from torch import nn
except ImportError as error:
    raise UsageError("the graph network needs PyTorch: pip install 'tinymlds[torch]'") from error

WIDTH = 16
PASSES = 2
STEPS, STEPS_PER_CLASS, EPOCHS = 400, 20, 20
"""Training takes so many steps, or so many for each class, or epochs where those are more."""
PATIENCE, PATIENT_EPOCHS = 200, 2
"""Steps without a fitter network (`statistics.fitness`) after which training ends, or epochs where those are more."""
BATCH = 64
_EVERY, _LOOKS = 25, 4
"""Steps between two looks at the validation networks, or so many looks an epoch where those are further apart."""
_CHUNK = 1024
_TINY = 1e-6


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Have PyTorch use one thread, so that sums have one order; afterwards as many as before.

    The number belongs to the whole process in part, so whoever calls `fit` from several threads wraps all of that too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def fit(fold: Fold, architecture: Architecture, seed: int) -> Fitted:
    """Train on the weights of `fold` [n, P], and keep the network that was fittest on the validation networks.

    Steps and learning rate are planned for STEPS, STEPS_PER_CLASS for each class or EPOCHS epochs, whichever is most. The
    validation networks are looked at every _EVERY steps, or _LOOKS times an epoch where that is less often, and at the end;
    training ends before that when max(PATIENCE, PATIENT_EPOCHS epochs) steps brought nothing fitter.

    Raises:
        UsageError: a head with activation, whose symmetries this network does not have.
    """
    centre, scale = (0.0, 1.0) if fold.classes else (float(fold.train_target.mean()), float(fold.train_target.std()) or 1.0)
    network = GraphNetwork(architecture, fold.classes or 1)
    draw_parameters(network, seed)
    target = fold.train_target if fold.classes else ((fold.train_target - centre) / scale).astype(np.float32)
    weights, targets = torch.from_numpy(fold.train), torch.from_numpy(target)
    loss = _loss(fold)
    epoch = -(-len(weights) // BATCH)
    steps = max(STEPS, STEPS_PER_CLASS * fold.classes, EPOCHS * epoch)
    patience, every = max(PATIENCE, PATIENT_EPOCHS * epoch), max(_EVERY, epoch // _LOOKS)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    random, order = np.random.default_rng(seed), np.empty(0, np.int64)
    best: tuple[tuple[float, float], int, dict[str, Any]] = (-np.inf, 0.0), 0, network.state_dict()
    for step in range(1, steps + 1):
        if len(order) == 0:
            order = random.permutation(len(weights))
        batch, order = torch.from_numpy(order[:BATCH]), order[BATCH:]
        optimizer.zero_grad()
        loss(network(weights[batch]), targets[batch]).backward()
        optimizer.step()
        schedule.step()
        if step % every == 0 or step == steps:
            scores = _Estimator(network, centre, scale).scores(fold.validation)
            found = fitness(fold.metric, fold.validation_target, scores)
            if found > best[0]:
                best = found, step, copy.deepcopy(network.state_dict())
            if step - best[1] >= patience:
                break
    network.load_state_dict(best[2])
    notes = ("its last step fits best",) if best[1] == steps else ()
    return Fitted(_Estimator(network, centre, scale), fold.classes, {"steps": best[1]}, notes)


def _loss(fold: Fold) -> Any:
    if not fold.classes:
        return lambda outputs, target: nn.functional.mse_loss(outputs[:, 0], target)
    counts = np.bincount(fold.train_target, minlength=fold.classes)
    return nn.CrossEntropyLoss(torch.tensor(len(fold.train) / (fold.classes * np.maximum(counts, 1)), dtype=torch.float32))


def draw_parameters(network: nn.Module, seed: int) -> None:
    """New values for all matrices, from a generator of their own, as a process has one for all threads; biases are 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
        for layer in network.modules():
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                layer.bias.zero_()


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """A layer whose values `draw_parameters` gives; no random number of the process is used up."""
    return nn.Linear(inputs, outputs, bias, device="meta").to_empty(device="cpu")


class _Estimator:
    """The network as `Fitted` wants it."""

    def __init__(self, network: "GraphNetwork", centre: float, scale: float) -> None:
        self._network, self._centre, self._scale = network, centre, scale
        self.classes_ = np.arange(network.outputs)

    def scores(self, weights: Floats) -> Scores:
        """Of the kind that the target has."""
        return self.log_probabilities(weights) if self._network.outputs > 1 else self.predict(weights)

    def log_probabilities(self, weights: Floats) -> Scores:
        return np.asarray(torch.log_softmax(self._outputs(weights), dim=1).numpy(), np.float64)

    def predict(self, weights: Floats) -> Scores:
        return np.asarray(self._outputs(weights)[:, 0].numpy() * self._scale + self._centre, np.float64)

    @one_thread()
    def _outputs(self, weights: Floats) -> torch.Tensor:
        with torch.no_grad():
            pieces = [self._network(torch.from_numpy(weights[k : k + _CHUNK])) for k in range(0, len(weights), _CHUNK)]
        return torch.cat(pieces).double()


class GraphNetwork(nn.Module):
    """Outputs [n, outputs] for weights [n, P] of one architecture; the same for networks that differ by symmetries."""

    def __init__(self, architecture: Architecture, outputs: int) -> None:
        super().__init__()
        if not isinstance(architecture, GruLinear) or architecture.activation != "none":
            raise UsageError(f"the graph network knows {GruLinear.name} with heads without activation only")
        self.architecture, self.outputs = architecture, outputs
        self._places = params.places(architecture)
        self.inputs = nn.Parameter(torch.zeros(architecture.inputs, WIDTH))
        self.lines = nn.Parameter(torch.zeros(architecture.outputs, WIDTH))
        self.layers = nn.Parameter(torch.zeros(architecture.layers, WIDTH))
        self.even_bias, self.odd_bias = _linear(5, WIDTH), _linear(2, WIDTH, bias=False)
        self.line_bias = _linear(1, WIDTH)
        self.passes = nn.ModuleList(_Pass() for _ in range(PASSES))
        self.readout = nn.Sequential(
            _linear((2 * architecture.layers + architecture.outputs) * WIDTH, 64), nn.SiLU(), _linear(64, outputs)
        )

    def forward(self, weights: torch.Tensor) -> torch.Tensor:
        """Outputs [n, outputs]."""
        architecture, size = self.architecture, self.architecture.hidden**-0.5
        tensors = self._tensors(weights)
        head, offset = self._head(tensors)
        w_i, w_h = (
            [tensors[f"gru.weight_{part}_l{k}"] * size for k in range(architecture.layers)] for part in ("ih", "hh")
        )
        readers = [*w_i[1:], head * size]
        edges = [_Edges(*each) for each in zip(w_i, w_h, readers, strict=True)]
        even, odd = [], []
        for layer in range(architecture.layers):
            b_i, b_h = (tensors[f"gru.bias_{part}_l{layer}"].reshape(-1, 3, architecture.hidden) for part in ("ih", "hh"))
            gates, b_n = (b_i + b_h)[:, :2], torch.stack([b_i[:, 2], b_h[:, 2]], dim=1)
            invariant = torch.cat([gates, b_n.square(), b_n.prod(dim=1, keepdim=True)], dim=1).transpose(1, 2)
            even.append(self.even_bias(invariant) + self.layers[layer])
            odd.append(self.odd_bias(b_n.transpose(1, 2)))
        inputs, lines = self.inputs.expand(len(weights), -1, -1), self.lines + self.line_bias(offset[..., None])
        for step in self.passes:
            even, odd, lines = step(edges, even, odd, inputs, lines)
        pooled = [torch.cat([a.mean(dim=1), v.square().mean(dim=1)], dim=1) for a, v in zip(even, odd, strict=True)]
        result: torch.Tensor = self.readout(torch.cat([*pooled, lines.flatten(1)], dim=1))
        return result

    def _tensors(self, weights: torch.Tensor) -> dict[str, torch.Tensor]:
        return {name: weights[:, self._places[name]].reshape(-1, *sizes) for name, sizes, *_ in self.architecture.tensors()}

    def _head(self, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """The maps as one: weight [n, O, H] and bias [n, O]."""
        weight, bias = tensors["head.0.weight"], tensors["head.0.bias"]
        for k in range(1, self.architecture.maps):
            factor = tensors[f"head.{k}.weight"]
            weight, bias = factor @ weight, (factor @ bias[..., None])[..., 0] + tensors[f"head.{k}.bias"]
        return weight, bias


States = list[torch.Tensor]


class _Edges:
    """The weights around the units of a GRU layer, as messages need them."""

    def __init__(self, w_i: torch.Tensor, w_h: torch.Tensor, reader: torch.Tensor) -> None:
        rows = w_h.shape[2]
        self.into = torch.cat([w_i, w_h], dim=2)
        """[n, 3H, I + H]: what each gate of a unit reads."""
        self.sizes = self.into[:, 2 * rows :].abs()
        """[n, H, I + H]: of gate n, whose sign the unit shares."""
        self.out = torch.cat([w_h, reader], dim=1).transpose(1, 2)
        """[n, H, 3H + 3H], or 3H + O in the last layer: what reads a unit."""


class _Pass(nn.Module):
    """One round of messages between neighbouring layers."""

    def __init__(self) -> None:
        super().__init__()
        odd = ("below", "own", "back", "above")
        self.odd_sources = nn.ModuleDict({name: _linear(WIDTH, WIDTH, bias=False) for name in odd})
        self.even_sources = nn.ModuleDict({name: _linear(WIDTH, 2 * WIDTH) for name in ("back", "above")})
        self.read_lines = _linear(WIDTH, WIDTH)
        self.odd_messages, self.gate = _linear(2 * WIDTH, WIDTH, bias=False), _linear(WIDTH, WIDTH)
        self.partner = _linear(WIDTH, WIDTH, bias=False)
        self.even_messages = nn.Sequential(_linear(5 * WIDTH, 2 * WIDTH), nn.SiLU(), _linear(2 * WIDTH, WIDTH))
        self.norm, self.line_norm = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.line_messages = _linear(WIDTH, WIDTH)

    def forward(
        self, edges: list[_Edges], even: States, odd: States, inputs: torch.Tensor, lines: torch.Tensor
    ) -> tuple[States, States, torch.Tensor]:
        """New states of units, [n, H, d] for each layer, and of output lines, [n, O, d].

        Args:
            even, odd: states of units that do not change sign with the unit, and that do.
            inputs: states of input lines, [n, I, d], which have no symmetry.
        """
        new_even, new_odd = [], []
        for layer, around in enumerate(edges):
            a, v = even[layer], odd[layer]
            below_a, below_v = (even[layer - 1], odd[layer - 1]) if layer else (inputs, inputs)
            sources = torch.cat([self.odd_sources["below"](below_v), self.odd_sources["own"](v)], dim=1)
            r, z, n = (around.into @ sources).chunk(3, dim=1)
            back = around.out @ torch.cat([*self._readers("back", a, v), *self._above(layer, even, odd, lines)], dim=1)
            moved = v + self.odd_messages(torch.cat([n, back], dim=2)) * torch.sigmoid(self.gate(a))
            moved = moved / (moved.square().mean(dim=2, keepdim=True) + _TINY).sqrt().clamp(min=1.0)
            sizes = around.sizes @ torch.cat([below_a, a], dim=1)
            even_in = torch.cat([a, moved * self.partner(moved), r, z, sizes], dim=2)
            new_even.append(self.norm(a + self.even_messages(even_in)))
            new_odd.append(moved)
        last = edges[-1].out[:, :, -lines.shape[1] :].transpose(1, 2)
        lines = self.line_norm(lines + self.line_messages(last @ odd[-1]))
        return new_even, new_odd, lines

    def _readers(self, name: str, a: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """What the gates r, z and n of units send back along what they read: the last with the sign of the unit."""
        return *self.even_sources[name](a).chunk(2, dim=2), self.odd_sources[name](v)

    def _above(self, layer: int, even: States, odd: States, lines: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if layer + 1 < len(even):
            return self._readers("above", even[layer + 1], odd[layer + 1])
        return (self.read_lines(lines),)
