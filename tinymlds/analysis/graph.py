"""A graph network that classifies networks and respects their symmetries: units are nodes, weights are edges.

This is the only module of the analysis that imports PyTorch (extra `[torch]`).

Every unit i of a GRU layer has d invariant numbers a_i and d numbers v_i that change sign with the unit. Messages are
products whose signs cancel or match: with s_i the sign of unit i, row i of gate n scales with s_i s_j, and rows of r and z
scale with s_j; so sum_j W_n[i, j] v_j scales with s_i, for instance, and sum_j W_r[i, j] v_j is invariant. Messages are
sums over units, so the order of units does not matter. Biases of r and z enter as their sum, and a head without activation
as the product of its maps. Equivalent networks therefore get equal outputs, up to rounding.
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
"""Training steps, training steps for each class, and epochs; the longest of the three counts."""
PATIENCE, PATIENT_EPOCHS = 200, 2
"""Steps and epochs without better fitness (`statistics.fitness`) after which training ends; the longer one counts."""
BATCH = 64
_EVERY, _LOOKS = 25, 4
"""Steps between two validations, and validations in an epoch; the rarer of the two counts."""
_CHUNK = 1024
_TINY = 1e-6


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Limit PyTorch to one thread, so that sums have one order, and restore the number of threads afterwards.

    The number belongs in part to the whole process, so a caller of `fit` in several threads wraps all of them too.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@one_thread()
def fit(fold: Fold, architecture: Architecture, seed: int) -> Fitted:
    """Train on the weights of `fold` [n, P], and keep the state with the best fitness on the validation networks.

    The learning rate is scheduled for STEPS, STEPS_PER_CLASS for each class or EPOCHS epochs, whichever is longest. Fitness
    is computed every _EVERY steps, or _LOOKS times an epoch if that is rarer, and at the end; training ends early after
    max(PATIENCE, PATIENT_EPOCHS epochs) steps without better fitness.

    Raises:
        UsageError: the networks have a head with activation, whose symmetries differ.
    """
    classes = fold.classes
    centre, scale = (0.0, 1.0) if fold.classes else (float(fold.train_target.mean()), float(fold.train_target.std()) or 1.0)
    network = GraphNetwork(architecture, fold.classes or 1)
    draw_parameters(network, seed)
    target = fold.train_target if fold.classes else ((fold.train_target - centre) / scale).astype(np.float32)
    weights, targets = torch.from_numpy(fold.train), torch.from_numpy(target)
    loss = _loss(fold)

    @one_thread()
    def scores(features: Floats) -> Scores:
        with torch.no_grad():
            pieces = [network(torch.from_numpy(features[k : k + _CHUNK])) for k in range(0, len(features), _CHUNK)]
        outputs = torch.cat(pieces).double()
        return np.asarray(torch.log_softmax(outputs, dim=1) if classes else outputs[:, 0] * scale + centre)

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
            found = fitness(fold.metric, fold.validation_target, scores(fold.validation))
            if found > best[0]:
                best = found, step, copy.deepcopy(network.state_dict())
            if step - best[1] >= patience:
                break
    network.load_state_dict(best[2])
    notes = ("its last step fits best",) if best[1] == steps else ()
    return Fitted(scores, {"steps": best[1]}, notes)


def _loss(fold: Fold) -> Any:
    if not fold.classes:
        return lambda outputs, target: nn.functional.mse_loss(outputs[:, 0], target)
    counts = np.bincount(fold.train_target, minlength=fold.classes)
    return nn.CrossEntropyLoss(torch.tensor(len(fold.train) / (fold.classes * np.maximum(counts, 1)), dtype=torch.float32))


def draw_parameters(network: nn.Module, seed: int) -> None:
    """Draw all matrices from a generator of their own, since threads share that of the process, and set biases to 0."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, parameter.shape[-1] ** -0.5, generator=generator)
        for layer in network.modules():
            if isinstance(layer, nn.Linear) and layer.bias is not None:
                layer.bias.zero_()


def _linear(inputs: int, outputs: int, bias: bool = True) -> nn.Linear:
    """Return a layer without values, which `draw_parameters` sets; this draws no random numbers of the process."""
    return nn.Linear(inputs, outputs, bias, device="meta").to_empty(device="cpu")


class GraphNetwork(nn.Module):
    """Outputs [n, outputs] for weights [n, P] of one architecture, equal for networks that differ by symmetries."""

    def __init__(self, architecture: Architecture, outputs: int) -> None:
        super().__init__()
        if not isinstance(architecture, GruLinear) or architecture.activation != "none":
            raise UsageError(f"the graph network knows {GruLinear.name} with heads without activation only")
        self.architecture = architecture
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
        """Return the outputs [n, outputs]."""
        architecture, size = self.architecture, self.architecture.hidden**-0.5
        tensors = {name: weights[:, self._places[name]].reshape(-1, *sizes) for name, sizes, *_ in architecture.tensors()}
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

    def _head(self, tensors: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the linear maps as one: weight [n, O, H] and bias [n, O]."""
        weight, bias = tensors["head.0.weight"], tensors["head.0.bias"]
        for k in range(1, self.architecture.maps):
            factor = tensors[f"head.{k}.weight"]
            weight, bias = factor @ weight, (factor @ bias[..., None])[..., 0] + tensors[f"head.{k}.bias"]
        return weight, bias


States = list[torch.Tensor]


class _Edges:
    """The weights around the units of a GRU layer, arranged for messages."""

    def __init__(self, w_i: torch.Tensor, w_h: torch.Tensor, reader: torch.Tensor) -> None:
        rows = w_h.shape[2]
        self.into = torch.cat([w_i, w_h], dim=2)
        """Weights into each gate of a unit, [n, 3H, I + H]."""
        self.sizes = self.into[:, 2 * rows :].abs()
        """Magnitudes of the weights into gate n, whose sign changes with the unit, [n, H, I + H]."""
        self.out = torch.cat([w_h, reader], dim=1).transpose(1, 2)
        """Weights from a unit to its readers, [n, H, 3H + 3H], or [n, H, 3H + O] in the last layer."""


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
        """Return new states of units, [n, H, d] for each layer, and of output lines, [n, O, d].

        Args:
            even, odd: states of units that are invariant, and those that change sign with the unit.
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
        """Return the messages of gates r, z and n back along their inputs; only that of n has the sign of the unit."""
        return *self.even_sources[name](a).chunk(2, dim=2), self.odd_sources[name](v)

    def _above(self, layer: int, even: States, odd: States, lines: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if layer + 1 < len(even):
            return self._readers("above", even[layer + 1], odd[layer + 1])
        return (self.read_lines(lines),)
