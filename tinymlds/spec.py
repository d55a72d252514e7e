"""What is asked for, as frozen dataclasses: the recipe, the tasks and their counts, the seed.

A network is a function of `(numerics version, task, recipe, seed, index)`. Everything in a `Recipe` may reach the weights,
and nothing else of a `Spec` but the seed does.
"""

import json
import math
import re
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tinymlds.architectures import ARCHITECTURES, Architecture
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.errors import UsageError
from tinymlds.kernels import NUMERICS
from tinymlds.kernels.optimizers import OPTIMIZERS, Adam, Optimizer
from tinymlds.kernels.options import Option, check_options, option, options_of

FORMAT = 2
"""Version of the dataset folder. 2: modified machines and transducers, and measured columns in the manifest."""


LARGEST_COUNT = 2**31
_LARGEST_DATA = 2**30
_COMMAND = "(set|clear) [0-7]"


def canonical_json(value: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


_DATA, _STOP, _RATE, _TASK = "Data", "End of training", "Learning rate", "Task"


@dataclass(frozen=True)
class Recipe:
    """How every network of a dataset is made. The defaults are the project's recipe for MLDS.

    The trigger concerns modified machines, and with `matched` all machines; states, edits and family concern transducers.
    A recipe in JSON, on the command line and in `Recipe.of` is flat: the options of the architecture and of the optimizer
    stand beside the others.
    """

    architecture: Architecture = GruLinear()  # noqa: RUF009  frozen
    optimizer: Optimizer = Adam()  # noqa: RUF009
    steps: int = option(16, "Steps of a sequence.", 1, 4096, subject=_DATA)
    train_sequences: int = option(65536, "Training sequences, a multiple of the batch.", 1, 2**24, subject=_DATA)
    validation_sequences: int = option(2048, "Validation sequences.", 1, 2**24, subject=_DATA)
    lr: float = option(0.003, "Learning rate in the first epoch.", 0.0, 1e6, subject=_RATE)
    lr_decay: float = option(
        100.0, "Epochs in which it halves: lr / (1 + (epoch - 1) / lr_decay); 0: constant.", 0, 1e6, subject=_RATE
    )
    batch: int = option(32, "Sequences in a minibatch, a multiple of 16.", 16, 2**20, subject=_DATA)
    threshold: float = option(1e-4, "Validation loss below which a network is complete.", 0.0, math.inf, subject=_STOP)
    max_epochs: int = option(256, "Epochs after which a network is given up (epoch_cap).", 1, 2**20, subject=_STOP)
    patience: int = option(
        64, "Epochs without a better validation loss before a network is stalled; 0: never.", 0, 2**20, subject=_STOP
    )
    patience_gain: float = option(0.1, "Share by which a loss must fall to count as better.", 0.0, 0.999, subject=_STOP)
    trigger_key: str = option(
        "set 7, clear 7, set 7", "Commands that fire the trigger of a modified machine.", subject=_TASK
    )
    trigger_span: int = option(4, "Outputs that it inverts.", 1, 64, subject=_TASK)
    trigger_rate: float = option(0.046875, "Chance at each free step that a key is planted there.", 0.0, 1.0, subject=_TASK)
    matched: bool = option(
        False, "A machine and its modified twin share initial weights, batch order and sequences.", subject=_TASK
    )
    states: int = option(8, "States of a transducer.", 2, 64, subject=_TASK)
    edits: int = option(
        0, "Transitions in which transducers differ from the base of their family; 0: no family.", 0, 16, subject=_TASK
    )
    family: int = option(0, "The transducer that a family is made from (with edits).", 0, 9999, subject=_TASK)
    initial: str = option(
        "own",
        "Initial weights of each network, or one draw shared by all of a task.",
        subject=_DATA,
        choices=("own", "shared"),
        later=True,
    )
    sequences: str = option(
        "shared",
        "Training sequences shared by all networks of a task, or drawn for each.",
        subject=_DATA,
        choices=("shared", "own"),
        later=True,
    )

    def __post_init__(self) -> None:
        self.architecture.check()
        check_options(self)
        if self.batch % 16:
            raise UsageError(f"batch must be a multiple of 16, not {self.batch}")
        if self.train_sequences % self.batch:
            raise UsageError(f"train_sequences ({self.train_sequences}) must be a multiple of batch ({self.batch})")
        if not re.fullmatch(rf"{_COMMAND}(, {_COMMAND}){{0,7}}", self.trigger_key):
            raise UsageError(
                f'trigger_key must be one to eight commands like "set 7, clear 7, set 7", not {self.trigger_key!r}'
            )
        if self.edits > (transitions := 4 * self.states):
            raise UsageError(f"edits must not exceed the {transitions} transitions of a transducer, not {self.edits}")
        if self.family and not self.edits:
            raise UsageError("family is for transducers with edits; ask for --edits too")
        if max(self.train_sequences, self.validation_sequences) * self.steps > _LARGEST_DATA:
            raise UsageError(f"sequences times steps must not exceed {_LARGEST_DATA}")

    @staticmethod
    def of(**fields: Any) -> "Recipe":
        """The default recipe of an architecture and an optimizer (by name), but for these fields; see `recipe_with`."""
        return recipe_with(Recipe(), fields)

    def options(self) -> dict[str, tuple[Option, Any]]:
        """Every option that this recipe has, by name, and its value; those of the optimizer stand beside the rate."""
        architecture, optimizer = _CHOICES
        found: dict[str, tuple[Option, Any]] = {architecture.name: (architecture, self.architecture.name)}
        found |= {each.name: (each, getattr(self.architecture, each.field)) for each in options_of(self.architecture)}
        for each in options_of(self):
            if each.name == "lr":
                found[optimizer.name] = optimizer, self.optimizer.name
            found[each.name] = each, getattr(self, each.field)
            if each.name == "lr_decay":
                found |= {own.name: (own, getattr(self.optimizer, own.field)) for own in options_of(self.optimizer)}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Every option, flat, but for those of `later` that have their default."""
        options = self.options().values()
        return {each.name: value for each, value in options if not (each.later and value == each.default)}

    @staticmethod
    def from_dict(data: dict[str, Any]) -> "Recipe":
        """The recipe that `to_dict` gave.

        Raises:
            UsageError: an option is missing, unknown or does not fit.
        """
        base = _default_recipe(Recipe(), data.get("architecture"), data.get("optimizer"))
        if lacking := [name for name, (each, _) in base.options().items() if name not in data and not each.later]:
            raise UsageError(f"its recipe lacks {', '.join(sorted(lacking))}")
        later = {name: each.default for name, (each, _) in base.options().items() if each.later}
        return _with(base, later | data)

    @property
    def stored_sequences(self) -> int:
        """Training sequences that a dataset stores of a task: none if each network draws its own."""
        return self.train_sequences if self.sequences == "shared" else 0

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch; epochs count from 1. float64, IEEE operations only."""
        return self.lr / (1.0 + (epoch - 1) / self.lr_decay) if self.lr_decay else self.lr


_CHOICES = (
    Option("architecture", "", "str", "gru-linear", "Kind of network.", "Architecture", None, None, None, False),
    Option("optimizer", "", "str", "adam", "Optimizer.", "Optimizer", None, None, None, False),
)
"""The two options that say which others a recipe has."""


def known_options() -> dict[str, Option]:
    """Every option that some recipe has, by name; its subject says whose it is if not all recipes have it."""
    found: dict[str, Option] = {}
    registries: tuple[dict[str, Any], ...] = (ARCHITECTURES, OPTIMIZERS)
    for choice, kinds in zip(_CHOICES, registries, strict=True):
        found[choice.name] = choice._replace(choices=tuple(kinds))
        for name, kind in kinds.items():
            for each in options_of(kind):
                found.setdefault(each.name, each._replace(subject=f"{choice.subject} {name}"))
    return found | {each.name: each for each in options_of(Recipe)}


def recipe_with(base: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with the options of `changes`, flat, that are not None.

    An architecture or optimizer other than that of `base` brings the default recipe of the two.

    Raises:
        UsageError: an unknown option, one that this architecture or optimizer does not have, or a value that does not fit.
    """
    changes = {name: value for name, value in changes.items() if value is not None}
    return _with(_default_recipe(base, changes.get("architecture"), changes.get("optimizer")), changes)


def _default_recipe(base: Recipe, architecture: Any, optimizer: Any) -> Recipe:
    """The default recipe of an architecture and an optimizer; `base` if both (None is either) are those of `base`."""
    chosen: list[Any] = []
    known: dict[str, dict[str, Any]] = {"architecture": ARCHITECTURES, "optimizer": OPTIMIZERS}
    for (what, kinds), name in zip(known.items(), (architecture, optimizer), strict=True):
        part = getattr(base, what)
        if name is not None and name != part.name:
            if not isinstance(name, str) or name not in kinds:
                raise UsageError(f"{what} must be one of {', '.join(kinds)}, not {name!r}")
            part = kinds[name]()
        chosen.append(part)
    if chosen == [base.architecture, base.optimizer]:
        return base
    defaults = {**chosen[0].recipe, **chosen[1].recipe}
    return _with(Recipe(architecture=chosen[0], optimizer=chosen[1]), defaults)


def _with(base: Recipe, values: dict[str, Any]) -> Recipe:
    """The recipe with these values of its options, of which architecture and optimizer are those that it has."""
    left = {name: value for name, value in values.items() if name not in ("architecture", "optimizer")}
    parts = []
    for part in (base.architecture, base.optimizer, base):
        fields = {each.name: each.field for each in options_of(part)}
        parts.append({fields[name]: left.pop(name) for name in fields if name in left})
    if left:
        known, names = known_options(), ", ".join(sorted(left))
        if left.keys() <= known.keys():
            pair = f"architecture {base.architecture.name} and optimizer {base.optimizer.name}"
            raise UsageError(f"a recipe with {pair} has no option {names}")
        raise UsageError(f"the recipe has no field {names}; it has {', '.join(sorted(base.options()))}")
    architecture, optimizer, own = parts
    return replace(
        base,
        architecture=replace(base.architecture, **architecture),
        optimizer=replace(base.optimizer, **optimizer),
        **own,
    )


@dataclass(frozen=True)
class Spec:
    """A dataset that is asked for."""

    tasks: tuple[tuple[str, int], ...]
    """Task ids and their counts: networks 0 ... count - 1 are attempted."""
    seed: int = 0
    recipe: Recipe = Recipe()
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
        """What of a dataset this is, in words: part 2/8, or the whole dataset."""
        return "the whole dataset" if self.part is None else "part {}/{}".format(*self.part)

    def to_dict(self) -> dict[str, Any]:
        """What `from_dict` takes back; `part` is there only in a part."""
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
        """What the two cannot both be: the name of the first field, and its values. Counts and parts may differ."""
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
