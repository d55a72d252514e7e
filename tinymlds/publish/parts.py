"""A dataset inside a package, and what users need to know of its tasks to tell them apart."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tinymlds.architectures import Architecture
from tinymlds.dataset.dataset import Dataset
from tinymlds.errors import DatasetError
from tinymlds.tasks import catalog


@dataclass(frozen=True)
class Label:
    """What a task is among others."""

    base: str
    """The machine without the trigger; of a transducer with edits the base of its family; else the task itself."""
    modified: bool
    """A machine with a trigger."""
    family: str | None
    """Names the base of a family, the same in all datasets: number and states; None but for transducers with edits."""
    behaviour: str
    """Equal for tasks that do the same: sha256 of the minimal machine as JSON."""
    stream: str
    """Networks of one seed, stream and index share initial weights."""


@dataclass(frozen=True)
class Part:
    """A dataset of a package."""

    name: str
    full: Dataset
    """The whole dataset, inside the package."""
    subsets: tuple[Dataset, ...] = ()
    """Its first networks, by ascending count."""

    @property
    def folder(self) -> str:
        """Where the whole dataset is, inside the package."""
        return f"{self.name}/full"

    @property
    def architecture(self) -> Architecture:
        """The sizes of its networks."""
        return self.full.architecture

    @cached_property
    def labels(self) -> dict[str, Label]:
        """What its tasks are, by id.

        Raises:
            DatasetError: dataset.json does not describe its tasks.
        """
        return {row["task"]: self._label(row) for row in self.full.description["tasks"]}

    def _label(self, row: dict[str, Any]) -> Label:
        task, recipe = row["task"], self.full.spec.recipe
        try:
            behaviour = str(row["graph_sha256"]["json"])
        except (KeyError, TypeError) as error:
            raise DatasetError(f"{self.full.folder} is damaged: its description of {task} has no hashes") from error
        modified = task.endswith(catalog.MODIFIED)
        base, family = task.removesuffix(catalog.MODIFIED), None
        if recipe.edits and catalog.is_transducer(task):
            base = catalog.task_id(f"transducer_{recipe.family}")
            family = f"{base} with {recipe.states} states"
        return Label(base, modified, family, behaviour, catalog.stream(task, recipe))


def subset_count(dataset: Dataset) -> int:
    """Networks of each task in a subset."""
    return min(dataset.counts.values())
