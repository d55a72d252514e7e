"""The options of a report, and the command lines that make a page or a figure again."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def of_package(self) -> list[str]:
        """Return the options of the command line that choose the dataset of a package."""
        return options(name=self.name, subset=self.subset)


def parse_network(text: str) -> tuple[str, int]:
    """Parse the task and index of a network from text like "xor:17"."""
    found = re.fullmatch(r"([^:]+):([0-9]{1,10})", text)
    if not found:
        raise UsageError(f"a network is asked for as TASK:INDEX, like xor:17, not {text!r}")
    return found[1], int(found[2])


def page_command(folder: str, chosen: Options) -> str:
    """Return the command that makes the page, run in the folder above the dataset."""
    networks = [f"{task}:{index}" for task, index in chosen.networks]
    words = options(**_of_map(chosen), network=networks, analysis=[path.name for path in chosen.analyses])
    return command_line("report", folder, *chosen.of_package(), *words)


def figure_command(folder: str, name: str, chosen: Options, network: str | None = None, analysis: bool = False) -> str:
    """Return the command that makes a figure, run in the folder above the dataset; `network` is TASK:INDEX."""
    mapped = _of_map(chosen) if name in ("map", "trajectories") else {}
    analyses = [path.name for path in chosen.analyses] if analysis else None
    words = options(figures="figures", only=name, **mapped, analysis=analyses, network=network)
    return command_line("report", folder, *chosen.of_package(), *words)


def _of_map(chosen: Options) -> dict[str, Any]:
    return {"canonical": chosen.canonical, "points": None if chosen.points == POINTS else chosen.points}
