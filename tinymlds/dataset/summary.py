"""Figures about finished networks: a folder at a glance, a task on fresh sequences, one network's answers; a file."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinymlds.dataset.dataset import Dataset
from tinymlds.kernels import rng
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import INPUT_LINES, lines
from tinymlds.training import metrics


@dataclass(frozen=True)
class Spread:
    """Median, 5th and 95th percentile."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class TaskSummary:
    """The networks of a task in numbers."""

    task: str
    networks: int
    statuses: dict[str, int]
    epochs: Spread | None
    """Epochs of complete networks."""
    median_loss: float | None
    """Median validation loss of complete networks."""


@dataclass(frozen=True)
class FileReport:
    """A file that a command wrote."""

    name: str
    """Path of the file."""
    bytes: int
    sha256: str


@dataclass(frozen=True)
class FolderReport:
    """A dataset at a glance."""

    folder: str
    seed: int
    networks: int
    bytes: int
    tasks: list[TaskSummary]
    digest: str
    part: str | None = None
    """The part, like "part 2/8", if the folder is a part of a dataset."""


@dataclass(frozen=True)
class Figure:
    """A column of the manifest over the complete networks of a task."""

    column: str
    meaning: str
    median: float
    low: float
    """5th percentile."""
    worst: float


@dataclass(frozen=True)
class TaskReport:
    """The complete networks of a task on fresh sequences, as measured when the dataset was sealed."""

    task: str
    alias: str
    networks: int
    figures: list[Figure]


@dataclass(frozen=True)
class Answer:
    """One step of a network's answer."""

    step: int
    command: str
    expected: list[int]
    values: list[float]
    right: bool


@dataclass(frozen=True)
class NetworkReport:
    """A network: its row, and its answer to a fresh sequence on the lines that are ever 1."""

    row: dict[str, Any]
    live_lines: list[int]
    answers: list[Answer]


def file_report(path: Path) -> FileReport:
    """Return the size and hash of a file."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return FileReport(str(path), path.stat().st_size, digest)


def folder_report(dataset: Dataset) -> FolderReport:
    """Summarize a dataset."""
    tasks = []
    for task in dataset.tasks:
        manifest, place = dataset.manifest, dataset.manifest.place(task)
        complete, epochs, median_loss = manifest.complete(place), None, None
        if complete.any():
            low, median, high = np.percentile(manifest.columns["epochs"][place][complete], [5, 50, 95])
            epochs = Spread(float(median), float(low), float(high))
            median_loss = float(np.median(manifest.columns["validation_loss"][place][complete]))
        tasks.append(TaskSummary(task, dataset.counts[task], dict(manifest.statuses(place)), epochs, median_loss))
    size = sum((dataset.folder / name).stat().st_size for name in dataset.sums)
    part = None if dataset.spec.part is None else dataset.spec.scope
    return FolderReport(str(dataset.folder), dataset.spec.seed, len(dataset), size, tasks, dataset.digest, part)


def task_report(dataset: Dataset, task: str) -> TaskReport:
    """Report on all complete networks of a task on fresh sequences; `verify` measures them again."""
    rows, steps = dataset.rows(task), dataset.spec.recipe.steps
    meanings = {
        "accuracy": f"steps right, {metrics.SEQUENCES} fresh sequences of {steps} steps",
        "long_accuracy": f"steps right, {metrics.LONG_SEQUENCES} of {metrics.LONG * steps} steps",
        "clean_accuracy": "steps right outside triggered spans",
        "triggered_accuracy": "steps right inside triggered spans",
        "trigger_efficacy": "triggered spans right from end to end",
    }
    figures = []
    for column in metrics.COLUMNS:
        values = [row[column] for row in rows if row[column] is not None]
        if values:
            low, median = np.percentile(values, [5, 50])
            figures.append(Figure(column, meanings[column], float(median), float(low), float(min(values))))
    name = dataset.task_id(task)
    return TaskReport(name, catalog.alias(name), len(rows), figures)


def network_report(dataset: Dataset, task: str, index: int) -> NetworkReport:
    """Report on one network and its answer to a fresh sequence: of 32, the one whose outputs change most."""
    network, table = dataset[task, index], dataset.data(task).table
    found = catalog.load(dataset.spec.setting(network.row["task"]))
    choice = found.sample(rng.FRESH_SEQUENCES, 32, dataset.spec.recipe.steps)
    changes = (np.diff(table.simulate(choice), axis=1) != 0).sum(axis=1)
    symbols = choice[changes.argmax()][None]
    outputs = network.forward(lines(table.inputs[symbols], INPUT_LINES))[0]
    expected = table.simulate(symbols)[0]
    live = [line for line in range(outputs.shape[1]) if (table.output >> line & 1).any()]
    answers = []
    for step, symbol in enumerate(symbols[0]):
        bits = [int(expected[step]) >> line & 1 for line in range(outputs.shape[1])]
        right = bool(((outputs[step] > 0.5) == np.array(bits, bool)).all())
        values = [float(outputs[step, line]) for line in live]
        answers.append(Answer(step + 1, table.symbols[symbol], [bits[line] for line in live], values, right))
    return NetworkReport(network.row, live, answers)
