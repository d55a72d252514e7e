"""What can be asked of a report."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tinymlds.errors import UsageError

POINTS = 50_000


@dataclass(frozen=True)
class Options:
    """Choices that change what a report shows."""

    canonical: bool = False
    """Put weights into their canonical form before they go on the map."""
    points: int = POINTS
    """Networks on the map, at most."""
    networks: tuple[tuple[str, int], ...] = ()
    """Networks (task and index) to look at, beside those that are always there."""
    name: str | None = None
    """Of a package: which dataset."""
    subset: int | None = None
    """Of a package: the subset with so many networks of each task."""
    analyses: tuple[Path, ...] = ()
    """Files that `tinymlds analyze --out` wrote, to be shown too."""

    def of_map(self) -> list[str]:
        """The options of the command line that the map depends on."""
        parts = ["--canonical"] if self.canonical else []
        return parts if self.points == POINTS else [*parts, "--points", str(self.points)]

    def of_package(self) -> list[str]:
        """The options of the command line that say which dataset."""
        parts = [] if self.name is None else ["--name", self.name]
        return parts if self.subset is None else [*parts, "--subset", str(self.subset)]

    def of_analyses(self) -> list[str]:
        """The options of the command line that name the analyses, which lie beside the dataset."""
        return [part for path in self.analyses for part in ("--analysis", path.name)]


def parse_network(text: str) -> tuple[str, int]:
    """Task and index from text like "xor:17".

    Raises:
        UsageError: it is not that.
    """
    found = re.fullmatch(r"([^:]+):([0-9]{1,10})", text)
    if not found:
        raise UsageError(f"a network is asked for as TASK:INDEX, like xor:17, not {text!r}")
    return found[1], int(found[2])


def page_command(folder: str, options: Options) -> str:
    """The command that makes the page, from the folder above the dataset."""
    networks = [part for task, index in options.networks for part in ("--network", f"{task}:{index}")]
    chosen = [*options.of_package(), *options.of_map(), *networks, *options.of_analyses()]
    return shlex.join(["tinymlds", "report", folder, *chosen])


def command(folder: str, name: str, options: Options, network: str = "", analysis: bool = False) -> str:
    """The command that makes the figure of this name, from the folder above the dataset; `analysis`: one of an analysis."""
    parts = ["tinymlds", "report", folder, *options.of_package(), "--figures", "figures", "--only", name]
    parts += options.of_map() if name in ("map", "trajectories") else []
    parts += options.of_analyses() if analysis else []
    return shlex.join(parts + (["--network", network] if network else []))
