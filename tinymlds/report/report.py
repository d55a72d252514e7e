"""The content of a report: a dataset folder with the figures made from it, in order."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from tinymlds.analysis.reading import read_results
from tinymlds.dataset import overview
from tinymlds.dataset.dataset import Dataset, open_dataset
from tinymlds.dataset.overview import FolderStatus
from tinymlds.errors import UsageError
from tinymlds.report import curves, distributions, scores, weightmap
from tinymlds.report.charts import Figure
from tinymlds.report.distributions import ManifestColumns
from tinymlds.report.looks import Look, Looks, largest, looks
from tinymlds.report.options import Options
from tinymlds.report.scores import Experiment
from tinymlds.report.weightmap import WeightMap

LOOKS = {
    "weights": ("Weights", "Its weights as colours, from -{bound:.3g} (blue) over 0 (white) to {bound:.3g} (red)."),
    "hidden": ("Hidden states", "The hidden units of each layer after each step, from -1 (blue) to 1 (red)."),
    "answers": ("Answers", "What is expected on each output line, and what the network answers; 0.5 tells 0 from 1."),
    "machine": ("The machine", "What the network was trained to be."),
}
"""Figures of single networks: the title and the text of each."""


@dataclass(frozen=True)
class StatusRow:
    """The progress of one task."""

    task: str
    complete: int
    other: int
    in_progress: int
    total: int
    parameters: int
    updated: str


@dataclass
class Report:
    """A dataset folder, finished or not. Figures are computed on demand."""

    folder: Path
    options: Options
    status: FolderStatus
    dataset: Dataset | None
    """The opened dataset; None until it is finished."""
    experiments: list[Experiment]
    rows: list[StatusRow] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [_status_row(self.status, task, total) for task, total in self.status.spec.counts.items()]

    @property
    def name(self) -> str:
        """The name of the folder."""
        return self.folder.resolve().name or "dataset"

    @property
    def title(self) -> str:
        """The name of the folder, and the dataset chosen if it is a package."""
        parts = [self.name, self.options.name, None if self.options.subset is None else f"subset {self.options.subset}"]
        return ", ".join(part for part in parts if part)

    @cached_property
    def columns(self) -> ManifestColumns | None:
        """The numeric columns of the manifest."""
        return None if self.dataset is None else ManifestColumns(self.dataset)

    @cached_property
    def weight_map(self) -> WeightMap | None:
        """The map of weight space."""
        return None if self.dataset is None else weightmap.weight_map(self.dataset, self.options)

    @cached_property
    def looks(self) -> Looks | None:
        """The single networks that are shown."""
        return None if self.dataset is None else looks(self.dataset, self.options)

    def figures(self, only: tuple[str, ...] = ()) -> list[Figure]:
        """Return the figures of many networks and of the analyses, in order: all, or those named in `only`."""
        made = [_grid(self)] if not only or "grid" in only else []
        if self.columns is not None:
            made += [make(self, self.columns) for name, make in _FIGURES.items() if not only or name in only]
        made += (figure for each in self.experiments for figure in each.figures(only))
        return [figure for figure in made if figure is not None]

    def check_names(self, only: tuple[str, ...]) -> None:
        """Raise UsageError unless each name is that of a figure."""
        known = ["grid", *_FIGURES, *LOOKS, *(name for each in self.experiments for name in each.names)]
        for name in only:
            if name not in known:
                raise UsageError(f"there is no figure {name!r}; there are {', '.join(known)}")


def read(folder: Path, options: Options) -> Report:
    """Open a dataset folder for a report.

    Raises:
        DatasetError: not a dataset folder, or a damaged one.
        AnalysisError: a file was not written by `tinymlds analyze --out`.
    """
    results = [read_results(path) for path in options.analyses]
    status = overview.status(folder, options.name, options.subset)
    dataset = None if status.digest is None else open_dataset(folder, options.name, options.subset)
    return Report(folder, options, status, dataset, scores.named(results, status.digest))


def look_figure(found: Looks, look: Look, name: str) -> Figure:
    """Return one of the figures of a single network."""
    title, text = LOOKS[name]
    row = look.network.row
    where = f"{row['task']} {row['index']}"
    if name == "machine":
        drawn = found.diagrams[row["task"]]
        return Figure(name, f"{title} of {row['task']}", f"{text} {drawn.text}", {"": drawn.charts} if drawn.charts else {})
    if name == "weights":
        bound = largest(look.network.weights)
        return Figure(name, f"{title} of {where}", text.format(bound=bound), {"": look.weights})
    each = look.hidden if name == "hidden" else look.answers
    charts = {f"sequence {k + 1}": charts for k, charts in enumerate(each)}
    return Figure(name, f"{title} of {where}", text, charts, "Sequence")


def look_figures(report: Report, only: tuple[str, ...]) -> list[Figure]:
    """Return figures of the networks that the options name, or of the first on the page; each has a name of its own."""
    found, dataset = report.looks, report.dataset
    if found is None or dataset is None:
        return []
    asked = {f"{dataset.task_id(task)}:{index}" for task, index in report.options.networks}
    chosen = [look for look in found.networks if look.name in asked] or found.networks[:1]
    figures = {}  # by name: networks of a task share its machine
    for look in chosen:
        task, index = look.network.row["task"], look.network.row["index"]
        for name in LOOKS if not only else [name for name in LOOKS if name in only]:
            file = f"{name}-{task}" if name == "machine" else f"{name}-{task}-{index}"
            figures[file] = replace(look_figure(found, look, name), name=file)
    return list(figures.values())


def date(unix_time: float | None) -> str:
    """Format a time in UTC, so that a page has the same bytes everywhere."""
    return "-" if unix_time is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_time))


def _status_row(status: FolderStatus, task: str, total: int) -> StatusRow:
    complete, waiting = status.complete(task), status.in_progress(task)
    parameters, updated = status.spec.recipe.architecture.size, date(status.updated.get(task))
    return StatusRow(task, complete, total - complete - waiting, waiting, total, parameters, updated)


def _grid(report: Report) -> Figure | None:
    transducers = overview.transducers(report.status) is not None and len(report.rows) > 1
    return distributions.grid(report.status, report.columns) if transducers else None


_FIGURES: dict[str, Callable[[Report, ManifestColumns], Figure | None]] = {
    "epochs": lambda _, columns: distributions.epochs(columns),
    "losses": lambda _, columns: distributions.losses(columns),
    "curves": lambda _, columns: curves.curves(columns.dataset),
    "single-curves": lambda _, columns: curves.single_curves(columns.dataset),
    "accuracy": lambda _, columns: distributions.accuracy(columns),
    "trigger": lambda _, columns: distributions.trigger(columns),
    "map": lambda report, columns: weightmap.map_figure(columns.dataset, report.weight_map, report.options),
    "trajectories": lambda report, columns: weightmap.trajectories(columns.dataset, report.weight_map, report.options),
}
"""The figures of a finished dataset, in order, after `grid`, which an unfinished one has too."""
