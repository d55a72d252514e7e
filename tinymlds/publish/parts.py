"""The datasets of a package, and how their tasks relate to each other."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tinymlds.dataset.dataset import Dataset
from tinymlds.errors import DatasetError
from tinymlds.tasks import catalog


@dataclass(frozen=True)
class Label:
    """The relation of a task to others."""

    base: str
    """The machine without the trigger, the base of the family of a transducer with edits, or else the task itself."""
    modified: bool
    """Whether the task is a machine with a trigger."""
    family: str | None
    """The name of the family of a transducer with edits, the same in all datasets; None for other tasks."""
    behaviour: str
    """The sha256 of the minimal machine as JSON, equal for tasks that behave alike."""
    stream: str
    """The random stream; networks of one seed, stream and index share initial weights."""


@dataclass(frozen=True)
class Part:
    """A dataset of a package."""

    name: str
    full: Dataset
    """The whole dataset, inside the package."""
    subsets: dict[int, Dataset] = field(default_factory=dict)
    """Datasets of the first networks of each task, by their number, ascending."""

    @property
    def folder(self) -> str:
        """The path of the whole dataset inside the package."""
        return f"{self.name}/full"

    @property
    def places(self) -> dict[str, Dataset]:
        """The whole dataset and its subsets, by their paths inside the package."""
        return {self.folder: self.full} | {f"{self.name}/{count}": cut for count, cut in self.subsets.items()}

    @cached_property
    def labels(self) -> dict[str, Label]:
        """The label of each task, by id.

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
