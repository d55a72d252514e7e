"""Everything that a report on a dataset folder shows, in order."""

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
"""Figures of single networks: titles, and what is seen."""


@dataclass(frozen=True)
class StatusRow:
    """A task on the status page."""

    task: str
    complete: int
    other: int
    in_progress: int
    total: int
    parameters: int
    updated: str


@dataclass
class Report:
    """A dataset folder, finished or not. Figures are computed when they are asked for."""

    folder: Path
    options: Options
    status: FolderStatus
    dataset: Dataset | None
    """None while work is under way."""
    experiments: list[Experiment]
    rows: list[StatusRow] = field(init=False)

    def __post_init__(self) -> None:
        self.rows = [_status_row(self.status, task, total) for task, total in self.status.spec.counts.items()]

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name or "dataset"

    @property
    def title(self) -> str:
        """The folder's name, and of a package which dataset."""
        parts = [self.name, self.options.name, None if self.options.subset is None else f"subset {self.options.subset}"]
        return ", ".join(part for part in parts if part)

    @cached_property
    def columns(self) -> ManifestColumns | None:
        """The manifest's numbers."""
        return None if self.dataset is None else ManifestColumns(self.dataset)

    @cached_property
    def weight_map(self) -> WeightMap | None:
        """The networks on the map."""
        return None if self.dataset is None else weightmap.weight_map(self.dataset, self.options)

    @cached_property
    def looks(self) -> Looks | None:
        """The networks that can be looked at."""
        return None if self.dataset is None else looks(self.dataset, self.options)

    def figures(self, only: tuple[str, ...] = ()) -> list[Figure]:
        """The figures about the population, in order: all, or those of these names."""
        made = (make(self) for name, make in _FIGURES.items() if not only or name in only)
        of_experiments = (figure for each in self.experiments for figure in each.figures(only))
        return [figure for figure in (*made, *of_experiments) if figure is not None]

    def check_names(self, only: tuple[str, ...]) -> None:
        """Raise UsageError unless these are names of figures."""
        known = [*_FIGURES, *LOOKS, *(name for each in self.experiments for name in each.names)]
        for name in only:
            if name not in known:
                raise UsageError(f"there is no figure {name!r}; there are {', '.join(known)}")


def read(folder: Path, options: Options) -> Report:
    """Open a dataset folder for a report.

    Raises:
        DatasetError: not a dataset folder, or a damaged one.
        AnalysisError: a file is not what `tinymlds analyze --out` writes.
    """
    results = [read_results(path) for path in options.analyses]
    status = overview.status(folder, options.name, options.subset)
    dataset = None if status.digest is None else open_dataset(folder, options.name, options.subset)
    return Report(folder, options, status, dataset, scores.named(results, status.digest))


def look_figure(found: Looks, look: Look, name: str) -> Figure:
    """One of the figures of a single network."""
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


def look_figures(report: "Report", only: tuple[str, ...]) -> list[Figure]:
    """Figures of the networks that are asked for, or else of the first that the page shows, with names of their own."""
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
    """A time as it is shown, in UTC, so that a page has the same bytes everywhere."""
    return "-" if unix_time is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_time))


def _status_row(status: FolderStatus, task: str, total: int) -> StatusRow:
    complete, waiting = status.complete(task), status.in_progress(task)
    parameters, updated = status.spec.recipe.shape.size, date(status.updated.get(task))
    return StatusRow(task, complete, total - complete - waiting, waiting, total, parameters, updated)


def _grid(report: Report) -> Figure | None:
    transducers = overview.transducers(report.status) is not None and len(report.rows) > 1
    return distributions.grid(report.status, report.columns) if transducers else None


def _of_columns(make: Callable[[ManifestColumns], Figure | None]) -> Callable[[Report], Figure | None]:
    return lambda report: None if report.columns is None else make(report.columns)


def _of_dataset(make: Callable[[Dataset], Figure]) -> Callable[[Report], Figure | None]:
    return lambda report: None if report.dataset is None else make(report.dataset)


def _map(report: Report) -> Figure | None:
    if report.dataset is None:
        return None
    return weightmap.map_figure(report.dataset, report.weight_map, report.options)


def _trajectories(report: Report) -> Figure | None:
    if report.dataset is None:
        return None
    return weightmap.trajectories(report.dataset, report.weight_map, report.options)


_FIGURES: dict[str, Callable[[Report], Figure | None]] = {
    "grid": _grid,
    "epochs": _of_columns(distributions.epochs),
    "losses": _of_columns(distributions.losses),
    "curves": _of_dataset(curves.curves),
    "single-curves": _of_dataset(curves.single_curves),
    "accuracy": _of_columns(distributions.accuracy),
    "trigger": _of_columns(distributions.trigger),
    "map": _map,
    "trajectories": _trajectories,
}
