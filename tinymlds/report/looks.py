"""Figures of single networks: the weights, and the behaviour on some sequences, step by step."""

from dataclasses import dataclass

import numpy as np

from tinymlds.architectures import Matrix
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.network import Network
from tinymlds.errors import UsageError
from tinymlds.kernels import rng
from tinymlds.kernels.problem import Floats
from tinymlds.report.charts import ACCENT, GREY, WRONG, Axis, Chart, Figure, Heat, Line, Points, Series, evenly, spread_over
from tinymlds.report.diagram import diagram
from tinymlds.report.options import Options
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import INPUT_LINES, OUTPUT_LINES, lines

MOST_NETWORKS = 100
"""The largest number of networks on a page, in addition to those that the options name."""
MOST_FAILED = 20
"""The largest number of networks on a page because they did not reach the threshold."""
MOST_OF_A_TASK = 12
MOST_FLOATS = 1_500_000
"""The largest number of weights of all these networks."""
MOST_STEPS = 48
"""The largest number of steps of a sequence that are shown."""
SEQUENCES = 3
LOOKS = {"weights": "Weights", "hidden": "Hidden states", "answers": "Answers", "machine": "The machine"}
"""The figures of single networks, and their titles."""
_FEW_ROWS = 16
"""The largest number of rows of a matrix that is drawn low."""


@dataclass(frozen=True, eq=False)
class Look:
    """The figures of one network."""

    network: Network
    figures: dict[str, Figure]
    """By the names in `LOOKS`."""

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
    machines: dict[str, Figure]
    """The diagram of each task, which its networks share."""
    text: str


def looks(dataset: Dataset, options: Options) -> Looks:
    """Return the figures of some networks of a dataset, and of those that the options name."""
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
    machines = {task: diagram(dataset.spec.setting(task)) for task in asked}
    networks = [dataset[task, index] for task, index in chosen]
    shown = [Look(one, look(one, asked[one.row["task"]]) | {"machine": machines[one.row["task"]]}) for one in networks]
    return Looks(shown, machines, text)


def choose(dataset: Dataset) -> tuple[list[tuple[str, int]], str]:
    """Choose networks evenly over tasks and indices, complete ones if a task has any, add some that are not, and say so."""
    most = max(1, min(MOST_NETWORKS, MOST_FLOATS // dataset.architecture.size))
    names = evenly(dataset.tasks, most)
    each = max(1, min(MOST_OF_A_TASK, most // len(names)))
    chosen = []
    for task in names:
        complete = np.flatnonzero(dataset.manifest.complete(dataset.manifest.place(task)))
        places = complete if complete.size else np.arange(dataset.counts[task])
        chosen += [(task, dataset.spec.indices[task][places[k]]) for k in spread_over(len(places), each)]
    failed = np.flatnonzero(~dataset.manifest.complete(slice(None)))
    rows = dataset.manifest.rows(failed[spread_over(len(failed), MOST_FAILED)])
    chosen = list(dict.fromkeys([*chosen, *((row["task"], row["index"]) for row in rows)]))
    if len(chosen) == len(dataset):
        return chosen, f"All {len(chosen):,} networks are on this page." if len(chosen) > 1 else "It has one network."
    of = f"{len(chosen):,} of the {len(dataset):,} networks"
    return chosen, f"{of} are on this page, evenly spread over tasks and indices."


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


def look(network: Network, asked: SampleSequences) -> dict[str, Figure]:
    """Return the figures of a network by name, without that of its machine."""
    tensors, outputs = network.state_dict(), network.forward(asked.inputs)
    with np.errstate(all="ignore"):  # a diverged network's weights may be of any size
        trace = network.architecture.trace(tensors, asked.inputs)
    sizes = np.abs(network.weights[np.isfinite(network.weights)])
    bound = max(float(np.quantile(sizes, 0.99)) if sizes.size else 0.0, 1e-30)
    matrices = network.architecture.matrices()
    notes = " ".join(dict.fromkeys(each.note for each in matrices if each.note))
    weights = tuple(_matrix(each, [tensors[name] for name in each.tensors], bound) for each in matrices)
    hidden: dict[str, tuple[Chart, ...]] = {}
    answers: dict[str, tuple[Chart, ...]] = {}
    for k, commands in enumerate(asked.commands):
        hidden[f"sequence {k + 1}"] = _activations({name: found[k] for name, found in trace.items()}, commands)
        answers[f"sequence {k + 1}"] = (_answers(outputs[k], asked.expected[k], commands, asked.live),)
    titles = {name: f"{title} of {network.row['task']} {network.row['index']}" for name, title in LOOKS.items()}
    colours = f"Its weights as colours; the largest hundredth, beyond {bound:.3g}, has the colours of the ends. {notes}"
    states = "What its units hold after each step."
    expected = "What is expected on each output line, and what the network answers; 0.5 tells 0 from 1."
    return {
        "weights": Figure("weights", titles["weights"], colours, {"": weights}, bound=bound),
        "hidden": Figure("hidden", titles["hidden"], states, hidden, "Sequence", 1.0),
        "answers": Figure("answers", titles["answers"], expected, answers, "Sequence"),
    }


def _matrix(matrix: Matrix, parts: list[Floats], bound: float) -> Chart:
    """Draw a heat map of a module, with the biases as the last columns."""
    title, _, rows, columns, _ = matrix
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
    ticks = [(float(k), str(k + 1)) for k in range(0, len(commands), -(-len(commands) // 4))]
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
    labels: list[str] = []
    for place, line in enumerate(reversed(live)):
        wave = np.append(expected[:, line], expected[-1:, line]) + 1.5 * place
        series.append(Line(edges, wave, "expected" if place == 0 else "", GREY, 2.0, steps=True))
        labels += [
            f"step {k + 1}: {command}, line {line}: expected {int(expected[k, line])}, answer {outputs[k, line]:.3f}"
            for k, command in enumerate(commands)
        ]
    given, wanted = outputs[:, live[::-1]].T.astype(np.float64), expected[:, live[::-1]].T
    y = (np.clip(given, -0.4, 1.4) + 1.5 * np.arange(len(live))[:, None]).ravel()
    fine, x = ((given > 0.5) == (wanted > 0.5)).ravel(), np.tile(steps, len(live))
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
