"""The content of a report: a dataset folder with the figures made from it, in order."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tinymlds.analysis.reading import read_results
from tinymlds.dataset import overview
from tinymlds.dataset.dataset import Dataset, open_dataset
from tinymlds.dataset.overview import FolderStatus
from tinymlds.errors import UsageError
from tinymlds.report import distributions, scores, weightmap
from tinymlds.report.charts import Figure
from tinymlds.report.distributions import Columns
from tinymlds.report.looks import LOOKS, Looks, looks
from tinymlds.report.options import Options
from tinymlds.report.scores import Experiment
from tinymlds.report.weightmap import WeightMap


def silent(_done: int, _total: int) -> None:
    """No progress."""


@dataclass
class Report:
    """A dataset folder, finished or not. Figures are computed on demand."""

    folder: Path
    options: Options
    status: FolderStatus
    dataset: Dataset | None
    """The opened dataset; None until it is finished."""
    experiments: list[Experiment]
    progress: Callable[[int, int], None] = silent
    """Called with (figures made, all)."""

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
    def columns(self) -> Columns:
        """The numeric columns of the manifest; {} without one."""
        return {} if self.dataset is None else distributions.read_columns(self.dataset)

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
        made: list[Figure | None] = []
        if (not only or "grid" in only) and len(self.status.spec.counts) > 1 and overview.transducers(self.status):
            made.append(distributions.grid(self.status, self.columns))
        if self.dataset is not None:
            wanted = [make for name, make in _FIGURES.items() if not only or name in only]
            for number, make in enumerate(wanted, 1):
                made.append(make(self, self.dataset))
                self.progress(number, len(wanted))
        made += (figure for each in self.experiments for figure in each.figures(only))
        return [figure for figure in made if figure is not None]

    def check_names(self, only: tuple[str, ...]) -> None:
        """Raise UsageError unless each name is that of a figure."""
        known = ["grid", *_FIGURES, *LOOKS, *(name for each in self.experiments for name in each.names)]
        for name in only:
            if name not in known:
                raise UsageError(f"there is no figure {name!r}; there are {', '.join(known)}")


def read(folder: Path, options: Options, progress: Callable[[int, int], None] = silent) -> Report:
    """Open a dataset folder for a report."""
    results = [read_results(path) for path in options.analyses]
    status = overview.status(folder, options.name, options.subset)
    dataset = None if status.digest is None else open_dataset(folder, options.name, options.subset)
    return Report(folder, options, status, dataset, scores.named(results, status.digest), progress)


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
        for name, figure in look.figures.items():
            if not only or name in only:
                file = f"{name}-{task}" if name == "machine" else f"{name}-{task}-{index}"
                figures[file] = replace(figure, name=file)
    return list(figures.values())


def date(unix_time: float | None) -> str:
    """Format a time in UTC, so that a page has the same bytes everywhere."""
    return "-" if unix_time is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(unix_time))


def progress(status: FolderStatus) -> list[dict[str, Any]]:
    """Return a row for each task, with the numbers of its networks by how far they are."""
    rows = []
    for task, total in status.spec.counts.items():
        complete, waiting = status.complete(task), status.in_progress(task)
        row = {"task": task, "complete": complete, "other": total - complete - waiting, "in_progress": waiting}
        row |= {"total": total, "parameters": status.spec.recipe.architecture.size}
        rows.append(row | {"updated": date(status.updated.get(task))})
    return rows


_FIGURES: dict[str, Callable[[Report, Dataset], Figure | None]] = {
    "epochs": lambda report, _: distributions.epochs(report.columns),
    "losses": lambda report, dataset: distributions.losses(report.columns, dataset.spec.recipe),
    "curves": lambda _, dataset: distributions.curves(dataset),
    "single-curves": lambda _, dataset: distributions.single_curves(dataset),
    "accuracy": lambda report, dataset: distributions.accuracy(report.columns, dataset.spec.recipe.steps),
    "trigger": lambda report, _: distributions.trigger(report.columns),
    "map": lambda report, dataset: weightmap.map_figure(dataset, report.weight_map),
    "trajectories": lambda report, dataset: weightmap.trajectories(dataset, report.weight_map, report.options),
}
"""The figures of a finished dataset, in order, after `grid`, which an unfinished one has too."""
