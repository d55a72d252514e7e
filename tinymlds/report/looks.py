"""Figures of single networks: the weights, and the behaviour on some sequences, step by step."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinymlds.architectures.recurrent import Shape
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.network import Network
from tinymlds.errors import UsageError
from tinymlds.kernels import rng
from tinymlds.report.charts import ACCENT, GREY, WRONG, Array, Axis, Chart, Heat, Line, Points, Series, spread_over
from tinymlds.report.diagram import Diagram, diagram
from tinymlds.report.options import Options
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import INPUT_LINES, OUTPUT_LINES, lines

Floats = npt.NDArray[np.float32]

MOST_NETWORKS = 100
"""The largest number of networks on a page, in addition to those that the options name."""
MOST_OF_A_TASK = 12
MOST_FLOATS = 1_500_000
"""The largest number of weights of all these networks."""
MOST_STEPS = 48
"""The largest number of steps of a sequence that are shown."""
SEQUENCES = 3


@dataclass(frozen=True, eq=False)
class Look:
    """The figures of one network."""

    network: Network
    weights: tuple[Chart, ...]
    hidden: list[tuple[Chart, ...]]
    """The hidden states of each layer, for each sequence."""
    answers: list[tuple[Chart, ...]]
    """The expected outputs and those of the network, for each sequence."""

    @property
    def name(self) -> str:
        """Task and index in the form of the option --network."""
        return f"{self.network.row['task']}:{self.network.row['index']}"


@dataclass(frozen=True, eq=False)
class SampleSequences:
    """Sequences of a task on which its networks are shown."""

    commands: list[list[str]]
    """[N][T]: names of the symbols."""
    inputs: Floats
    """[N, T, 9]."""
    expected: Floats
    """[N, T, 8]."""
    live: list[int]
    """The output lines that the task ever sets to 1."""


@dataclass(frozen=True, eq=False)
class Looks:
    """The part of the page on single networks."""

    networks: list[Look]
    diagrams: dict[str, Diagram]
    text: str


def looks(dataset: Dataset, options: Options) -> Looks:
    """Return the figures of some networks of a dataset, and of those that the options name.

    Raises:
        UsageError: the dataset has no such network.
    """
    chosen, text = choose(dataset)
    for task, index in options.networks:
        try:
            row = dataset[task, index].row
        except KeyError as error:
            raise UsageError(error.args[0]) from error
        chosen.append((row["task"], row["index"]))
    chosen = sorted(set(chosen), key=lambda pair: (dataset.tasks.index(pair[0]), pair[1]))
    asked = {task: sample_sequences(dataset, task) for task in dict(chosen)}
    if dataset.spec.recipe.steps > MOST_STEPS:
        text += f" Sequences are shown up to step {MOST_STEPS} of {dataset.spec.recipe.steps:,}."
    networks = [look(dataset[task, index], asked[task]) for task, index in chosen]
    return Looks(networks, {task: diagram(task, dataset.spec.recipe) for task in asked}, text)


def choose(dataset: Dataset) -> tuple[list[tuple[str, int]], str]:
    """Choose networks evenly over tasks and indices, complete ones if a task has any, and describe the choice."""
    most = max(1, min(MOST_NETWORKS, MOST_FLOATS // dataset.shape.size))
    names = [dataset.tasks[k] for k in spread_over(len(dataset.tasks), most)]
    each = max(1, min(MOST_OF_A_TASK, most // len(names)))
    chosen = []
    for task in names:
        complete = np.flatnonzero(dataset.manifest.complete(dataset.manifest.place(task)))
        places = complete if complete.size else np.arange(dataset.counts[task])
        chosen += [(task, dataset.spec.indices[task][places[k]]) for k in spread_over(len(places), each)]
    text = f"{len(chosen):,} of the {len(dataset):,} networks are on this page, evenly spread over tasks and indices"
    if len(chosen) == len(dataset):
        return chosen, f"All {len(chosen):,} networks are on this page." if len(chosen) > 1 else "It has one network."
    return chosen, f"{text}; the option --network TASK:INDEX adds any other."


def sample_sequences(dataset: Dataset, task: str) -> SampleSequences:
    """Draw 32 fresh sequences of the training length, and return those on which the outputs change most."""
    found, spec = catalog.load(task, dataset.spec.recipe), dataset.spec
    choice = found.sample(spec.seed, rng.FRESH_SEQUENCES, 32, spec.recipe.steps)
    changes = (np.diff(found.table.simulate(choice), axis=1) != 0).sum(axis=1)
    symbols = choice[np.argsort(-changes, kind="stable")[:SEQUENCES]][:, :MOST_STEPS]
    expected = lines(found.table.simulate(symbols), OUTPUT_LINES)
    live = [line for line in range(OUTPUT_LINES) if (found.table.output >> line & 1).any()]
    commands = [[found.table.symbols[symbol] for symbol in row] for row in symbols]
    return SampleSequences(commands, lines(found.table.inputs[symbols], INPUT_LINES), expected, live)


def look(network: Network, asked: SampleSequences) -> Look:
    """Return all figures of a network."""
    outputs = network.forward(asked.inputs)
    with np.errstate(all="ignore"):  # a diverged network's weights may be of any size
        states = hidden_states(network.shape, network.state_dict(), asked.inputs)
    result = Look(network, _weights(network), [], [])
    for k, commands in enumerate(asked.commands):
        result.hidden.append(_hidden([layer[k] for layer in states], commands))
        result.answers.append((_answers(outputs[k], asked.expected[k], commands, asked.live),))
    return result


def hidden_states(shape: Shape, tensors: dict[str, Floats], x: Floats) -> list[Floats]:
    """Return the hidden state of each GRU layer after each step, [B, T, H], for inputs x [B, T, 9].

    With PyTorch's gates: r = sigmoid(W_ir x + b_ir + W_hr h + b_hr), z alike, n = tanh(W_in x + b_in + r (W_hn h + b_hn)),
    h' = (1 - z) n + z h. For the eye: what networks answer comes from the kernels.
    """
    result = []
    for layer in range(shape.layers):
        w_i, w_h, b_i, b_h = (tensors[f"gru.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = np.zeros((len(x), shape.hidden), np.float32)
        states = np.empty((*x.shape[:2], shape.hidden), np.float32)
        for t in range(x.shape[1]):
            i_r, i_z, i_n = np.split(x[:, t] @ w_i.T + b_i, 3, axis=1)
            h_r, h_z, h_n = np.split(h @ w_h.T + b_h, 3, axis=1)
            r, z = _sigmoid(i_r + h_r), _sigmoid(i_z + h_z)
            h = (1 - z) * np.tanh(i_n + r * h_n) + z * h
            states[:, t] = h
        result.append(states)
        x = states
    return result


def _sigmoid(a: Floats) -> Floats:
    return np.asarray((np.tanh(a / 2) + 1) / 2)


def largest(weights: Floats) -> float:
    """Return the largest magnitude of the finite weights."""
    return max(float(np.abs(weights[np.isfinite(weights)]).max(initial=0.0)), 1e-30)


def _weights(network: Network) -> tuple[Chart, ...]:
    """Draw a heat map of each GRU layer and each linear map, with the biases as the last columns."""
    shape, tensors = network.shape, network.state_dict()
    bound = largest(network.weights)
    gates = [f"{gate} {unit}" for gate in "rzn" for unit in range(shape.hidden)]
    units = [f"h {unit}" for unit in range(shape.hidden)]
    charts = []
    for layer, inputs in enumerate(shape.layer_inputs):
        names = [f"{'x' if layer == 0 else 'below'} {k}" for k in range(inputs)] + units + ["bias ih", "bias hh"]
        parts = (tensors[f"gru.{name}_l{layer}"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        charts.append(_matrix(f"GRU layer {layer}", list(parts), names, gates, bound))
    for k, outputs in enumerate(shape.map_outputs):
        parts = (tensors[f"head.{k}.{name}"] for name in ("weight", "bias"))
        rows = [f"{'y' if k == shape.maps - 1 else 'unit'} {unit}" for unit in range(outputs)]
        inputs_of = [f"{'h' if k == 0 else 'unit'} {unit}" for unit in range(shape.hidden)]
        charts.append(_matrix(f"linear map {k}", list(parts), [*inputs_of, "bias"], rows, bound))
    return tuple(charts)


def _matrix(title: str, parts: list[Floats], columns: list[str], rows: list[str], bound: float) -> Chart:
    z = np.concatenate([part.reshape(len(rows), -1) for part in parts], axis=1)
    height = 330 if title.startswith("GRU") else 190
    return Chart(title, [Heat(z, columns, rows, -bound, bound)], _sparse(columns), _sparse(rows), height, share=0.25)


def _sparse(names: list[str]) -> Axis:
    """Return an axis with ticks where the first word of a name changes; there is no room for more."""
    words = [name.split(" ", maxsplit=1)[0] for name in names]
    starts = [k for k, word in enumerate(words) if k == 0 or word != words[k - 1]]
    return Axis(ticks=[(float(k), words[k]) for k in starts])


def _hidden(states: list[Floats], commands: list[str]) -> tuple[Chart, ...]:
    units = [str(unit) for unit in range(states[0].shape[1])]
    steps = [f"step {k + 1}: {command}" for k, command in enumerate(commands)]
    ticks = [(float(k), str(k + 1)) for k in range(0, len(commands), -(-len(commands) // 8))]
    return tuple(
        Chart(
            f"layer {layer}", [Heat(h.T, steps, units, -1.0, 1.0)], Axis("step", ticks=ticks), Axis("unit"), 240, share=0.25
        )
        for layer, h in enumerate(states)
    )


def _answers(outputs: Floats, expected: Floats, commands: list[str], live: list[int]) -> Chart:
    """Draw each output line: the expected values as steps, the answers of the network as points."""
    steps = np.arange(1.0, len(commands) + 1)
    edges = np.append(steps - 0.5, steps[-1] + 0.5)
    series: list[Series] = []
    answers: list[Array] = []
    right: list[Array] = []
    labels: list[str] = []
    for place, line in enumerate(reversed(live)):
        base, y = 1.5 * place, outputs[:, line].astype(np.float64)
        wave = np.append(expected[:, line], expected[-1:, line]) + base
        series.append(Line(edges, wave, "expected" if place == 0 else "", GREY, 2.0, steps=True))
        answers.append(np.clip(y, -0.4, 1.4) + base)
        right.append((y > 0.5) == (expected[:, line] > 0.5))
        labels += [
            f"step {k + 1}: {command}, line {line}: expected {int(expected[k, line])}, answer {y[k]:.3f}"
            for k, command in enumerate(commands)
        ]
    y, fine, x = np.ravel(answers), np.ravel(right).astype(bool), np.tile(steps, len(live))
    for where, name, colour in ((fine, "answer", ACCENT), (~fine, "wrong answer", WRONG)):
        if where.any():
            words = [labels[k] for k in np.flatnonzero(where)]
            series.append(Points(x[where], y[where], name, colour, labels=words, size=7.0))
    names = [(float(k + 1), command) for k, command in enumerate(commands)]
    bases = [(1.5 * place + 0.5, f"line {line}") for place, line in enumerate(reversed(live))]
    top = 1.5 * max(len(live), 1)
    return Chart(
        "Outputs, step by step",
        series,
        Axis("command", range=(0.4, len(commands) + 0.6), ticks=names),
        Axis(range=(-0.5, top), ticks=bases),
        height=190 + 55 * len(live),
    )
