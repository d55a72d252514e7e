"""Requests as frozen dataclasses: the recipe, the tasks and their counts, the seed.

A network is a function of `(numerics version, task, recipe, seed, index)`. Everything in a `Recipe` may reach the weights,
and nothing else of a `Spec` but the seed does.
"""

import json
import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tinymlds.errors import UsageError
from tinymlds.kernels import NUMERICS
from tinymlds.spec.recipe import Recipe as Recipe
from tinymlds.spec.recipe import known_options as known_options
from tinymlds.spec.recipe import recipe_with as recipe_with

FORMAT = 2
"""Version of the dataset folder. 2: modified machines and transducers, and measured columns in the manifest."""

LARGEST_COUNT = 2**31


def canonical_json(value: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


@dataclass(frozen=True)
class Setting:
    """A task under a recipe and a seed: with an index, all that a network follows from."""

    task: str
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class Spec:
    """A dataset that is asked for."""

    tasks: tuple[tuple[str, int], ...]
    """Task ids and their counts: networks 0 ... count - 1 are attempted."""
    seed: int = 0
    recipe: Recipe = Recipe()  # noqa: RUF009  frozen
    checkpoints: tuple[int, ...] = ()
    """Epochs at whose end weights are stored, ascending; 0 is before the first. They never reach a weight."""
    part: tuple[int, int] | None = None
    """(K, N): only every N-th network of each task, so that N parts are the dataset; K counts from 1. None is the whole."""

    def __post_init__(self) -> None:
        if not all(type(epoch) is int and 0 <= epoch <= 2**20 for epoch in self.checkpoints):
            raise UsageError(f"checkpoints must be epochs between 0 and {2**20}, not {list(self.checkpoints)}")
        if list(self.checkpoints) != sorted(set(self.checkpoints)):
            raise UsageError(f"checkpoints must ascend, not {list(self.checkpoints)}")
        for name, value in (("seed", self.seed), *((f"count of {task}", count) for task, count in self.tasks)):
            if type(value) is not int:
                raise UsageError(f"{name} must be a whole number, not {value!r}")
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed must be between 0 and 2^63 - 1, not {self.seed}")
        if len({task for task, _ in self.tasks}) < len(self.tasks):
            raise UsageError("a task is asked for twice")
        for task, count in self.tasks:
            if not 1 <= count <= LARGEST_COUNT:
                raise UsageError(f"count must be between 1 and {LARGEST_COUNT}, not {count} (task {task})")
        if self.part is not None:
            _check_part(self.part)
            if self.tasks and not self.networks:
                raise UsageError(f"{self.scope} has no network of so small a count; make fewer parts")

    @cached_property
    def indices(self) -> dict[str, range]:
        """Indices of the networks of each task: all below its count, or those of the part.

        Part K of N begins with another index at each task, so that parts are even where tasks have few networks.
        """
        if self.part is None:
            return {task: range(count) for task, count in self.tasks}
        first, step = self.part[0] - 1, self.part[1]
        return {task: range((first + number) % step, count, step) for number, (task, count) in enumerate(self.tasks)}

    @staticmethod
    def part_with(number: int, index: int, parts: int) -> int:
        """K of the part K/`parts` that has network `index` of the task in place `number`; the inverse of `indices`."""
        return (index - number) % parts + 1

    def setting(self, task: str) -> Setting:
        """The setting of the networks of a task."""
        return Setting(task, self.seed, self.recipe)

    @property
    def counts(self) -> dict[str, int]:
        """Number of networks of each task: its count, or its share of the part."""
        return {task: len(indices) for task, indices in self.indices.items()}

    @property
    def networks(self) -> int:
        """Number of networks over all tasks."""
        return sum(self.counts.values())

    @property
    def scope(self) -> str:
        """The extent in words: part 2/8, or the whole dataset."""
        return "the whole dataset" if self.part is None else "part {}/{}".format(*self.part)

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as plain data for `from_dict`; `part` is there only in a part."""
        tasks = [{"task": task, "count": count} for task, count in self.tasks]
        part = {} if self.part is None else {"part": list(self.part)}
        return part | {
            "format": FORMAT,
            "numerics": NUMERICS,
            "seed": self.seed,
            "recipe": self.recipe.to_dict(),
            "checkpoints": list(self.checkpoints),
            "tasks": tasks,
        }

    @staticmethod
    def from_dict(data: dict[str, Any], origin: str) -> "Spec":
        """A spec from parsed JSON; keys beside those of `to_dict` are left to others.

        Raises:
            UsageError: another format or numerics version, or something missing or wrong; `origin` names the file.
        """
        try:
            found = {"format": data["format"], "numerics": data["numerics"]}
            for name, known in (("format", FORMAT), ("numerics", NUMERICS)):
                if found[name] != known:
                    raise UsageError(
                        f"{origin} has {name} version {found[name]!r}, and this version of tinymlds knows {known}; "
                        f"use the version of tinymlds that made it"
                    )
            tasks = tuple((row["task"], row["count"]) for row in data["tasks"])
            if not all(isinstance(task, str) for task, _ in tasks):
                raise ValueError("a task that is no name")
            try:
                part = tuple(data["part"]) if "part" in data else None
                return Spec(tasks, data["seed"], Recipe.from_dict(data["recipe"]), tuple(data["checkpoints"]), part)
            except UsageError as error:
                raise ValueError(str(error)) from error
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UsageError(f"{origin} is not a description of a tinymlds dataset ({error})") from error

    def difference(self, other: "Spec") -> tuple[str, str, str] | None:
        """Return name and values of the first field in which the two differ; counts and parts may differ."""
        if self.seed != other.seed:
            return "seed", str(self.seed), str(other.seed)
        ours, theirs = ([task for task, _ in spec.tasks] for spec in (self, other))
        if ours != theirs:
            return "tasks", task_names(ours), task_names(theirs)
        old, new = ({name: value for name, (_, value) in spec.recipe.options().items()} for spec in (self, other))
        for name in ("architecture", "optimizer", *old):  # those two first, as they say what else there is
            if old[name] != new[name]:
                return name, str(old[name]), str(new[name])
        if self.checkpoints != other.checkpoints:
            old_epochs, new_epochs = (str(list(spec.checkpoints) or "none") for spec in (self, other))
            return "checkpoints", old_epochs, new_epochs
        return None

    def extend(self, wanted: "Spec", where: str) -> "Spec":
        """The spec that a folder of this spec has once `wanted` is asked of it: the same with counts at least as large.

        Raises:
            UsageError: seed, tasks, recipe or part differ, or a count is smaller; the message names the field.
        """
        if (found := self.difference(wanted)) is not None:
            name, old, new = found
            raise UsageError(f"{where} was made with {name} {old}, not {new}; choose another --out")
        if self.part != wanted.part:
            raise UsageError(f"{where} holds {self.scope}, not {wanted.scope}; choose another --out, or the same --part")
        for (task, old_count), (_, new_count) in zip(self.tasks, wanted.tasks, strict=True):
            if new_count < old_count:
                raise UsageError(f"{where} has count {old_count} of {task}; it can grow, but not shrink to {new_count}")
        return wanted


def task_names(tasks: list[str]) -> str:
    """Tasks for a message: all, or the first and the last of many."""
    return ", ".join(tasks) if len(tasks) <= 10 else f"{tasks[0]} ... {tasks[-1]} ({len(tasks)})"


def parse_checkpoints(text: str) -> tuple[int, ...]:
    """Epochs from text like "0,1,2,4,8"; "" is none.

    Raises:
        UsageError: it is not that.
    """
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(re.fullmatch("[0-9]{1,7}", part) for part in parts):
        raise UsageError(f"checkpoints must be epochs like 0,1,2,4,8, not {text!r}")
    return tuple(int(part) for part in parts)


LARGEST_PARTS = 2**20
"""Parts that a dataset may be divided into."""


def parse_part(part: str | tuple[int, int]) -> tuple[int, int]:
    """(K, N) from text like "2/8", or from these numbers.

    Raises:
        UsageError: there is no such part.
    """
    if not isinstance(part, str):
        return _check_part(part)
    match = re.fullmatch("([0-9]{1,7})/([0-9]{1,7})", part)
    if match is None:
        raise UsageError(f"a part is written K/N, like 2/8, not {part!r}")
    return _check_part((int(match[1]), int(match[2])))


def _check_part(part: Any) -> tuple[int, int]:
    """The part, if there is one of these numbers.

    Raises:
        UsageError: there is none.
    """
    if not isinstance(part, tuple | list) or len(part) != 2 or not all(type(number) is int for number in part):
        raise UsageError(f"a part is two whole numbers, like 2/8, not {part!r}")
    number, parts = part
    if not 1 <= number <= parts <= LARGEST_PARTS:
        raise UsageError(f"there is no part {number}/{parts}; parts are 1/N ... N/N, of at most {LARGEST_PARTS}")
    return number, parts
