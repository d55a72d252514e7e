"""The options of a configuration: fields of a frozen dataclass that have a text, limits, and a name in recipes."""

import dataclasses
import sys
from typing import Any, NamedTuple

from tinymlds.errors import UsageError

_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}
_LARGEST_SHOWN = 10**40


class Option(NamedTuple):
    """An option of a class."""

    name: str
    """In recipes and on the command line."""
    field: str
    """The attribute of the class."""
    type: str
    """"int", "float", "str" or "bool"."""
    default: Any
    text: str
    subject: str
    """Options of one subject stand together in help and tables."""
    low: float | None
    high: float | None
    choices: tuple[str, ...] | None
    later: bool
    """It joined the format after datasets had been made: JSON leaves it out where it has its default."""

    def check(self, value: Any) -> Any:
        """The value, if it fits; 1 and 1.0 are one float, and have one spelling.

        Raises:
            UsageError: it does not fit.
        """
        expected = _TYPES[self.type]
        if not isinstance(value, expected) or isinstance(value, bool) != (expected == (bool,)):
            raise UsageError(f"{self.name} must be of type {expected[-1].__name__}, not {value!r}")
        if self.choices is not None and value not in self.choices:
            raise UsageError(f"{self.name} must be one of {', '.join(self.choices)}, not {value!r}")
        if self.low is None or self.high is None:
            return value
        number: Any = value
        if not self.low <= number <= min(self.high, sys.float_info.max):  # no conversion: 10**400 is no float
            shown = value if isinstance(value, float) or abs(number) < _LARGEST_SHOWN else "a number of many digits"
            raise UsageError(f"{self.name} must be between {self.low} and {self.high}, not {shown}")
        return float(number) if self.type == "float" else value


def option(
    default: Any,
    text: str,
    low: float | None = None,
    high: float | None = None,
    *,
    name: str = "",
    subject: str = "",
    choices: tuple[str, ...] | None = None,
    later: bool = False,
) -> Any:
    """A dataclass field that is an option.

    Args:
        default: its default.
        text: one line of help.
        low: the least number.
        high: the largest number.
        name: in recipes, if it is not that of the field.
        subject: what it is about.
        choices: the values that it may have.
        later: it joined the format after datasets had been made.
    """
    about = {"name": name, "text": text, "subject": subject, "low": low, "high": high, "choices": choices, "later": later}
    return dataclasses.field(default=default, metadata={"option": about})


def options_of(kind: Any) -> list[Option]:
    """The options of a dataclass or of an instance, in the order of its fields."""
    found = []
    for field in dataclasses.fields(kind):
        if "option" in field.metadata:
            about = field.metadata["option"]
            name = about["name"] or field.name
            type_name = field.type if isinstance(field.type, str) else field.type.__name__
            found.append(Option(field=field.name, type=type_name, default=field.default, **about | {"name": name}))
    return found


def check_options(configuration: Any) -> None:
    """Check all options of a frozen dataclass; for its `__post_init__`.

    Raises:
        UsageError: one does not fit.
    """
    for each in options_of(configuration):
        object.__setattr__(configuration, each.field, each.check(getattr(configuration, each.field)))
