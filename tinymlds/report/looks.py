"""Figures of single networks: the weights, and the behaviour on some sequences, step by step."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Matrix
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
_FEW_ROWS = 16
"""The largest number of rows of a matrix that is drawn low."""


@dataclass(frozen=True, eq=False)
class Look:
    """The figures of one network."""

    network: Network
    weights: tuple[Chart, ...]
    hidden: list[tuple[Chart, ...]]
    """The activations of each traced module, for each sequence."""
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
    return Looks(networks, {task: diagram(dataset.spec.setting(task)) for task in asked}, text)


def choose(dataset: Dataset) -> tuple[list[tuple[str, int]], str]:
    """Choose networks evenly over tasks and indices, complete ones if a task has any, and describe the choice."""
    most = max(1, min(MOST_NETWORKS, MOST_FLOATS // dataset.architecture.size))
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
    found, spec = catalog.load(dataset.spec.setting(task)), dataset.spec
    choice = found.sample(rng.FRESH_SEQUENCES, 32, spec.recipe.steps)
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
        trace = network.architecture.trace(network.state_dict(), asked.inputs)
    result = Look(network, _weights(network), [], [])
    for k, commands in enumerate(asked.commands):
        result.hidden.append(_activations({name: found[k] for name, found in trace.items()}, commands))
        result.answers.append((_answers(outputs[k], asked.expected[k], commands, asked.live),))
    return result


def largest(weights: Floats) -> float:
    """Return the largest magnitude of the finite weights."""
    return max(float(np.abs(weights[np.isfinite(weights)]).max(initial=0.0)), 1e-30)


def _weights(network: Network) -> tuple[Chart, ...]:
    """Draw a heat map of each module, with the biases as the last columns."""
    tensors, bound = network.state_dict(), largest(network.weights)
    return tuple(_matrix(each, [tensors[name] for name in each.tensors], bound) for each in network.architecture.matrices())


def _matrix(matrix: Matrix, parts: list[Floats], bound: float) -> Chart:
    title, _, rows, columns = matrix
    z = np.concatenate([part.reshape(len(rows), -1) for part in parts], axis=1)
    height = 190 if len(rows) <= _FEW_ROWS else 330
    return Chart(title, [Heat(z, columns, rows, -bound, bound)], _sparse(columns), _sparse(rows), height, share=0.25)


def _sparse(names: list[str]) -> Axis:
    """Return an axis with ticks where the first word of a name changes; there is no room for more."""
    words = [name.split(" ", maxsplit=1)[0] for name in names]
    starts = [k for k, word in enumerate(words) if k == 0 or word != words[k - 1]]
    return Axis(ticks=[(float(k), words[k]) for k in starts])


def _activations(trace: dict[str, Floats], commands: list[str]) -> tuple[Chart, ...]:
    """Draw a heat map [units, steps] of each traced module."""
    steps = [f"step {k + 1}: {command}" for k, command in enumerate(commands)]
    ticks = [(float(k), str(k + 1)) for k in range(0, len(commands), -(-len(commands) // 8))]
    charts = []
    for name, found in trace.items():
        heat = Heat(found.T, steps, [str(unit) for unit in range(found.shape[1])], -1.0, 1.0)
        charts.append(Chart(name, [heat], Axis("step", ticks=ticks), Axis("unit"), 240, share=0.25))
    return tuple(charts)


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
