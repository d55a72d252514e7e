"""What is asked for, as frozen dataclasses: the recipe, the tasks and their counts, the seed.

A network is a function of `(numerics version, task, recipe, seed, index)`. Everything in a `Recipe` may reach the weights,
and nothing else of a `Spec` but the seed does.
"""

import json
import math
import re
import sys
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

from tinymlds.architectures.recurrent import NUMERICS, Adam, Shape
from tinymlds.errors import UsageError

FORMAT = 2
"""Version of the dataset folder. 2: modified machines and transducers, and measured columns in the manifest."""


LARGEST_COUNT = 2**31
_LARGEST_DATA = 2**30
_LARGEST_SHOWN = 10**40
_LARGEST_FLOAT = sys.float_info.max
_COMMAND = "(set|clear) [0-7]"


def canonical_json(value: Any) -> str:
    """JSON with one spelling: sorted keys, no spaces, ASCII, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _field(
    default: Any, text: str, low: float | None = None, high: float | None = None, choices: Any = None, later: bool = False
) -> Any:
    return field(default=default, metadata={"text": text, "low": low, "high": high, "choices": choices, "later": later})


@dataclass(frozen=True)
class Recipe:
    """How every network of a dataset is made. The defaults are the project's recipe for MLDS.

    The trigger concerns modified machines, and with `matched` all machines; states, edits and family concern transducers.
    A field that joined this format after datasets had been made is `later`: JSON leaves it out where it has its default, so
    that those keep their digests.
    """

    architecture: str = _field("gru-linear", "GRU layers, then linear maps.", choices=("gru-linear",))
    hidden: int = _field(12, "Hidden units of each layer, a multiple of 4.", 4, 64)
    gru_layers: int = _field(4, "GRU layers.", 1, 4)
    linear_maps: int = _field(5, "Linear maps after them, the output included.", 1, 8)
    head_activation: str = _field("none", "Activation between the linear maps.", choices=("none", "tanh", "relu"))
    steps: int = _field(16, "Steps of a sequence.", 1, 4096)
    train_sequences: int = _field(65536, "Training sequences, a multiple of the batch.", 1, 2**24)
    validation_sequences: int = _field(2048, "Validation sequences.", 1, 2**24)
    optimizer: str = _field("adam", "Optimizer.", choices=("adam",))
    lr: float = _field(0.003, "Learning rate of Adam in the first epoch.", 0.0, 1e6)
    lr_decay: float = _field(100.0, "Epochs in which it halves: lr / (1 + (epoch - 1) / lr_decay); 0: constant.", 0, 1e6)
    beta1: float = _field(0.9, "Adam's beta1.", 0.0, 0.9999999)
    beta2: float = _field(0.99, "Adam's beta2.", 0.0, 0.9999999)
    eps: float = _field(1e-6, "Adam's epsilon.", 1e-30, 1.0)
    batch: int = _field(32, "Sequences in a minibatch, a multiple of 16.", 16, 2**20)
    threshold: float = _field(1e-4, "Validation loss below which a network is complete.", 0.0, math.inf)
    max_epochs: int = _field(256, "Epochs after which a network is given up (epoch_cap).", 1, 2**20)
    patience: int = _field(64, "Epochs without a better validation loss before a network is stalled; 0: never.", 0, 2**20)
    patience_gain: float = _field(0.1, "Share by which a loss must fall to count as better.", 0.0, 0.999)
    trigger_key: str = _field("set 7, clear 7, set 7", "Commands that fire the trigger of a modified machine.")
    trigger_span: int = _field(4, "Outputs that it inverts.", 1, 64)
    trigger_rate: float = _field(0.046875, "Chance at each free step that a key is planted there.", 0.0, 1.0)
    matched: bool = _field(False, "A machine and its modified twin share initial weights, batch order and sequences.")
    states: int = _field(8, "States of a transducer.", 2, 64)
    edits: int = _field(0, "Transitions in which transducers differ from the base of their family; 0: no family.", 0, 16)
    family: int = _field(0, "The transducer that a family is made from (with edits).", 0, 9999)
    initial: str = _field(
        "own",
        "Initial weights of each network, or one draw shared by all of a task.",
        choices=("own", "shared"),
        later=True,
    )
    sequences: str = _field(
        "shared",
        "Training sequences shared by all networks of a task, or drawn for each.",
        choices=("shared", "own"),
        later=True,
    )

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            _check(entry.name, value, entry.type, dict(entry.metadata))
            if entry.type is float:  # 1 and 1.0 are one recipe, and have one spelling
                object.__setattr__(self, entry.name, float(value))
        if self.hidden % 4:
            raise UsageError(f"hidden must be a multiple of 4, not {self.hidden}")
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

    def to_dict(self) -> dict[str, Any]:
        """Every field, but for those of `later` that have their default."""
        kept = (f for f in fields(self) if not (f.metadata["later"] and getattr(self, f.name) == f.default))
        return {entry.name: getattr(self, entry.name) for entry in kept}

    @property
    def stored_sequences(self) -> int:
        """Training sequences that a dataset stores of a task: none if each network draws its own."""
        return self.train_sequences if self.sequences == "shared" else 0

    @property
    def shape(self) -> Shape:
        """The sizes of a network of this recipe."""
        return Shape(hidden=self.hidden, layers=self.gru_layers, maps=self.linear_maps, activation=self.head_activation)

    @property
    def adam(self) -> Adam:
        """The constants of the optimizer."""
        return Adam(self.beta1, self.beta2, self.eps)

    def lr_at(self, epoch: int) -> float:
        """The learning rate of an epoch; epochs count from 1. float64, IEEE operations only."""
        return self.lr / (1.0 + (epoch - 1) / self.lr_decay) if self.lr_decay else self.lr


def _check(name: str, value: int | float | str, kind: Any, limits: dict[str, Any]) -> None:
    """One field against its type and limits.

    Raises:
        UsageError: it does not fit.
    """
    types: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
    expected = types[getattr(kind, "__name__", kind)]
    if not isinstance(value, expected) or isinstance(value, bool) != (expected == (bool,)):
        raise UsageError(f"{name} must be of type {expected[-1].__name__}, not {value!r}")
    if limits["choices"] is not None and value not in limits["choices"]:
        raise UsageError(f"{name} must be one of {', '.join(limits['choices'])}, not {value!r}")
    if isinstance(value, str | bool):
        return
    if not limits["low"] <= value <= min(limits["high"], _LARGEST_FLOAT):  # no conversion: 10**400 is no float
        shown = value if isinstance(value, float) or abs(value) < _LARGEST_SHOWN else "a number of many digits"
        raise UsageError(f"{name} must be between {limits['low']} and {limits['high']}, not {shown}")


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
            if lacking := {f.name for f in fields(Recipe) if not f.metadata["later"]} - data["recipe"].keys():
                raise ValueError(f"its recipe lacks {', '.join(sorted(lacking))}")
            tasks = tuple((row["task"], row["count"]) for row in data["tasks"])
            if not all(isinstance(task, str) for task, _ in tasks):
                raise ValueError("a task that is no name")
            try:
                part = tuple(data["part"]) if "part" in data else None
                return Spec(tasks, data["seed"], Recipe(**data["recipe"]), tuple(data["checkpoints"]), part)
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
        for entry in fields(Recipe):
            old, new = getattr(self.recipe, entry.name), getattr(other.recipe, entry.name)
            if old != new:
                return entry.name, str(old), str(new)
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


def recipe_with(base: Recipe, changes: dict[str, Any]) -> Recipe:
    """The recipe with the fields of `changes` that are not None.

    Raises:
        UsageError: an unknown field, or a value that does not fit.
    """
    known = {entry.name for entry in fields(Recipe)}
    if unknown := set(changes) - known:
        raise UsageError(f"the recipe has no field {', '.join(sorted(unknown))}; it has {', '.join(sorted(known))}")
    return replace(base, **{name: value for name, value in changes.items() if value is not None})
