"""The recipe: how every network of a dataset is made."""

import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tinymlds.architectures import ARCHITECTURES, Architecture
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.errors import UsageError
from tinymlds.kernels.optimizers import OPTIMIZERS, Adam, Optimizer
from tinymlds.kernels.options import Option, check_options, option, options_of

if TYPE_CHECKING:
    from tinymlds.kernels.problem import Rate

_LARGEST_DATA = 2**30
_COMMAND = "(set|clear) [0-7]"
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
    lr_schedule: str = option(
        "inverse",
        "How the rate falls: by lr_decay, or in a straight line to 0 after max_epochs.",
        subject=_RATE,
        choices=("inverse", "linear"),
        later=True,
    )
    warmup: int = option(0, "First steps, in which the rate rises in a straight line.", 0, 2**31, subject=_RATE, later=True)
    batch: int = option(32, "Sequences in a minibatch, a multiple of 16.", 16, 2**20, subject=_DATA)
    threshold: float = option(1e-4, "Validation loss below which a network is complete.", 0.0, math.inf, subject=_STOP)
    max_epochs: int = option(256, "Epochs after which a network is given up (epoch_cap).", 1, 2**20, subject=_STOP)
    patience: int = option(
        64, "Epochs without a better validation loss before a network is stalled; 0: never.", 0, 2**20, subject=_STOP
    )
    patience_gain: float = option(0.1, "Share by which a loss must fall to count as better.", 0.0, 0.999, subject=_STOP)
    stop: str = option(
        "threshold",
        "When a network is complete: below the threshold, or after max_epochs whatever its loss.",
        subject=_STOP,
        choices=("threshold", "max_epochs"),
        later=True,
    )
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

    @property
    def stop_below(self) -> float:
        """The validation loss below which training ends: 0 if that is not what ends it."""
        return self.threshold if self.stop == "threshold" else 0.0

    def lr_at(self, epoch: int) -> "Rate":
        """The learning rate of an epoch, or of each of its steps; epochs count from 1. float64, IEEE operations only."""
        lr = self.lr
        if self.lr_schedule == "linear":
            lr *= 1.0 - (epoch - 1) / self.max_epochs
        elif self.lr_decay:
            lr /= 1.0 + (epoch - 1) / self.lr_decay
        minibatches = self.train_sequences // self.batch
        before = (epoch - 1) * minibatches
        if before >= self.warmup:
            return lr
        import numpy as np

        return lr * np.minimum(1.0, np.arange(before + 1, before + minibatches + 1) / self.warmup)


_CHOICES = (
    Option("architecture", "", "str", "gru-linear", "Kind of network.", "Architecture", None, None, None, False),
    Option("optimizer", "", "str", "adam", "Optimizer.", "Optimizer", None, None, None, False),
)
"""The two options that say which others a recipe has."""


def known_options() -> dict[str, Option]:
    """Every option that some recipe has, by name; its subject says whose it is if not all recipes have it.

    What differs between those that have it is told together: the text, and a default of None.
    """
    found: dict[str, Option] = {}
    registries: tuple[dict[str, Any], ...] = (ARCHITECTURES, OPTIMIZERS)
    for choice, kinds in zip(_CHOICES, registries, strict=True):
        found[choice.name] = choice._replace(choices=tuple(kinds))
        owners: dict[str, dict[str, Option]] = {}
        for name, kind in kinds.items():
            for each in options_of(kind):
                owners.setdefault(each.name, {})[name] = each
        for option_name, owned in owners.items():
            first, *others = owned.values()
            found[option_name] = first._replace(
                subject=f"{choice.subject} {', '.join(owned)}",
                text=" ".join(dict.fromkeys(each.text for each in owned.values())),
                default=first.default if all(each.default == first.default for each in others) else None,
            )
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
