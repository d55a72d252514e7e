"""The options of a report, and the command lines that make a page or a figure again."""

import re
from dataclasses import dataclass
from pathlib import Path

from tinymlds.dataset.commands import command_line, options
from tinymlds.errors import UsageError

POINTS = 50_000


@dataclass(frozen=True)
class Options:
    """Choices that change the content of a report."""

    canonical: bool = False
    """Map the weights in their canonical form."""
    points: int = POINTS
    """The largest number of networks on the map."""
    networks: tuple[tuple[str, int], ...] = ()
    """Single networks (task and index) to show in addition to those that are always shown."""
    name: str | None = None
    """The dataset to open, if the folder is a package."""
    subset: int | None = None
    """Networks of each task in the subset to open, if the folder is a package."""
    analyses: tuple[Path, ...] = ()
    """Files written by `tinymlds analyze --out`, to show too."""

    def of_map(self) -> list[str]:
        """Return the options of the command line that the map depends on."""
        return options(canonical=self.canonical, points=None if self.points == POINTS else self.points)

    def of_package(self) -> list[str]:
        """Return the options of the command line that choose the dataset of a package."""
        return options(name=self.name, subset=self.subset)

    def of_analyses(self) -> list[str]:
        """Return the options of the command line that name the analyses, which lie beside the dataset."""
        return options(analysis=[path.name for path in self.analyses])


def parse_network(text: str) -> tuple[str, int]:
    """Parse the task and index of a network from text like "xor:17".

    Raises:
        UsageError: the text has another form.
    """
    found = re.fullmatch(r"([^:]+):([0-9]{1,10})", text)
    if not found:
        raise UsageError(f"a network is asked for as TASK:INDEX, like xor:17, not {text!r}")
    return found[1], int(found[2])


def page_command(folder: str, chosen: Options) -> str:
    """Return the command that makes the page, run in the folder above the dataset."""
    networks = options(network=[f"{task}:{index}" for task, index in chosen.networks])
    words = [*chosen.of_package(), *chosen.of_map(), *networks, *chosen.of_analyses()]
    return command_line("report", folder, *words)


def figure_command(folder: str, name: str, chosen: Options, network: str | None = None, analysis: bool = False) -> str:
    """Return the command that makes the figure of this name, run in the folder above the dataset.

    Args:
        folder: the dataset.
        name: the figure.
        chosen: the options of the page.
        network: the network of the figure, as TASK:INDEX; None for figures of many.
        analysis: whether the figure is one of an analysis.
    """
    words = [*chosen.of_package(), *options(figures="figures", only=name)]
    words += chosen.of_map() if name in ("map", "trajectories") else []
    words += chosen.of_analyses() if analysis else []
    return command_line("report", folder, *words, *options(network=network))
