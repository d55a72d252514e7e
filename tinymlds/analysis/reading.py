"""Strict reading of the JSON of an analysis, which may be untrusted; imports no library of the extra.

Every key, type and range is checked, and so are values that follow from others: the mean from the scores, the sum of a
confusion matrix from the networks tested. A command is accepted only if a shell would run it as a single `tinymlds
analyze`, because people copy it from a page.
"""

import math
import os
import re
import shlex
import stat
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar, cast

from tinymlds.analysis.results import FORMAT, METRICS, Results, Row
from tinymlds.dataset import reader
from tinymlds.dataset.manifest import SPLITS
from tinymlds.errors import AnalysisError, DatasetError

LIMIT = 1 << 23
"""The largest number of bytes of a file."""
MOST_SEEDS = 1000
MOST_RUNGS = 200
"""The largest number of different rungs, each a line on a page; the ladder has about fifty."""
_LONG, _LONGEST = 4096, 1 << 16
_NAME = "[a-z0-9_]{1,64}"
"""The name of a case or a class: a task, or a word."""
_EXPERIMENT = "[a-z][a-z0-9-]{0,63}"
_RUNG = "[a-z]{1,32}/[a-z]{1,32}/[a-z-]{1,32}"
_DIGEST = "[0-9a-f]{64}"
_WIDEST = 10.0
"""The largest half-width in units of the range of a score; two scores at its ends give 6.4."""
_CLOSE = 1e-9
"""The tolerance of a mean, because libraries sum in different orders."""

T = TypeVar("T")


class _WrongError(ValueError):
    """A problem of a file."""


def read_results(path: str | Path) -> Results:
    """Read the results in a file that `tinymlds analyze --out` wrote.

    Raises:
        AnalysisError: the file is missing, too long, of another format, or impossible as a result of an analysis.
    """
    place = Path(path)
    try:
        return _results(reader.parse_json(_read(place), "it"))
    except (DatasetError, _WrongError) as error:
        again = "`tinymlds analyze DIR --experiment NAME --out FILE` makes one"
        raise AnalysisError(f"{place} is no analysis that can be shown: {error}; {again}") from error


def _read(path: Path) -> bytes:
    """Read the bytes of a regular file, or of a link to one, without waiting for the writer of a pipe."""
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _WrongError("it is not a file")
            data = file.read(LIMIT + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise _WrongError(str(getattr(error, "strerror", None) or error)) from error
    if len(data) > LIMIT:
        raise _WrongError(f"it has more than {LIMIT >> 20} MB; ask some rungs or cases at a time (--rungs, --cases)")
    return data


# ------------------------------------------------------------------ values


def _object(value: Any, keys: set[str], what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _WrongError(f"{what} is not an object")
    for key in sorted(keys ^ value.keys()):
        raise _WrongError(f"{what} {'lacks' if key in keys else 'has a field too many,'} {key!r}")
    return value


def _text(value: Any, what: str, pattern: str | None = None, most: int = _LONG) -> str:
    if not isinstance(value, str) or len(value) > most or not value.isprintable():
        raise _WrongError(f"{what} is not a line of text")
    if pattern is not None and not re.fullmatch(pattern, value):
        raise _WrongError(f"{what} cannot be {value!r}")
    return value


def _number(value: Any, what: str, low: float = -math.inf, high: float = math.inf) -> float:
    if type(value) not in (int, float) or not low <= value <= high:
        raise _WrongError(f"{what} is not a number from {low:g} to {high:g}")
    return cast(float, value)  # a whole number stays one


def _whole(value: Any, what: str, low: int = 0, high: int = 2**63 - 1) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _WrongError(f"{what} is not a whole number from {low} to {high}")
    return value


def _truth(value: Any, what: str) -> bool:
    if not isinstance(value, bool):
        raise _WrongError(f"{what} is neither true nor false")
    return value


def _name(value: Any, what: str) -> str:
    return _text(value, what, _NAME)


def _list(value: Any, what: str, each: Callable[[Any, str], T], count: int | None = None) -> tuple[T, ...]:
    """Return the checked values of a list, of length `count` if it is given."""
    if not isinstance(value, list) or (count is not None and len(value) != count):
        raise _WrongError(f"{what} is not a list{'' if count is None else f' of {count}'}")
    return tuple(each(part, what) for part in value)


def _mapping(value: Any, what: str, each: Callable[[Any, str], T]) -> dict[str, T]:
    """Return the checked values of an object whose keys are not fixed."""
    if not isinstance(value, dict):
        raise _WrongError(f"{what} is not an object")
    return {_text(key, f"a name in {what}"): each(part, f"{what}, {key}") for key, part in value.items()}


def _command(value: Any, what: str) -> str:
    """Return a command line that a shell runs as a single `tinymlds analyze`."""
    text = _text(value, what, most=_LONGEST)
    try:
        words = shlex.split(text)
    except ValueError:
        words = []
    if words[:2] != ["tinymlds", "analyze"] or shlex.join(words) != text:
        raise _WrongError(f"{what} is not a command of tinymlds analyze")
    return text


# ------------------------------------------------------------------ the whole


def _results(value: Any) -> Results:
    if not isinstance(value, dict) or value.get("kind") != "analysis":
        raise _WrongError("it is not of the kind 'analysis'")
    if value.get("format") != FORMAT:
        raise _WrongError(f"its format is {value.get('format')!r}, and this tinymlds reads {FORMAT}; make it again")
    found = _object(value, {"format", "kind"} | {field.name for field in fields(Results)}, "it")
    _text(found["experiment"], "the experiment", _EXPERIMENT)
    datasets = _datasets(found["datasets"])
    _mapping(found["versions"], "versions", _text)
    if not isinstance(found["splits"], list) or not 2 <= len(found["splits"]) <= MOST_SEEDS:
        raise _WrongError(f"splits are not a list of 2 to {MOST_SEEDS}")
    splits = tuple(_split(each, number) for number, each in enumerate(found["splits"]))
    common = {key: found[key] for key in ("experiment", "versions")}
    common["datasets"] = {each["folder"]: each["digest"] for each in datasets}
    rows = _list(found["rows"], "rows", lambda row, _: _row(row, common, len(splits)))
    names = [f"{row.case}/{row.rung}" for row in rows]
    if not rows or len(set(names)) != len(names):
        raise _WrongError("rows are none, or a rung of a case occurs twice")
    if len({row.rung for row in rows}) > MOST_RUNGS:
        raise _WrongError(f"it has more than {MOST_RUNGS} rungs")
    if len({row.metric for row in rows if row.status == "done"}) > 1:
        raise _WrongError("its rows have different metrics")
    provenance = _object(found["provenance"], {"seconds"}, "provenance")
    seconds = _mapping(provenance["seconds"], "seconds", lambda each, what: _number(each, what, 0.0))
    if seconds.keys() != set(names):
        raise _WrongError("seconds are not those of the rows")
    _command(found["command"], "command")
    _text(found["interval"], "interval")
    if found["published"] is not None:
        published = _object(found["published"], {"rung", "metric", "score", "what", "source"}, "published")
        for key in ("rung", "metric", "what", "source"):
            _text(published[key], f"published, {key}")
        _number(published["score"], "published, score", -1.0, 1.0)
    checked = {key: each for key, each in found.items() if key not in ("format", "kind")}
    return Results(**{**checked, "datasets": datasets, "splits": splits, "rows": rows})


def _datasets(value: Any) -> tuple[dict[str, Any], ...]:
    datasets = _list(value, "datasets", _dataset)
    if not datasets or datasets[0]["held_out"]:
        raise _WrongError("datasets are none, or begin with one held out")
    first = datasets[0]
    for each in datasets:
        recipe = [name for name in each["differs"] if name != "seed"]
        if ("seed" in each["differs"]) != (each["seed"] != first["seed"]) or bool(recipe) != (
            each["recipe"] != first["recipe"]
        ):
            raise _WrongError(f"{each['folder']} differs from the first dataset in other things than it says")
        if ("matched" in recipe) != (each["matched"] != first["matched"]):
            raise _WrongError(f"{each['folder']} differs from the first dataset in matched, or does not")
    return datasets


def _dataset(value: Any, what: str) -> dict[str, Any]:
    found = _object(value, {"folder", "digest", "seed", "held_out", "matched", "recipe", "differs", "complete"}, what)
    _text(found["folder"], "a folder")
    _text(found["digest"], "a digest", _DIGEST)
    _whole(found["seed"], "a seed")
    _truth(found["held_out"], "held_out")
    _truth(found["matched"], "matched")
    _text(found["recipe"], "a recipe", _DIGEST)
    _list(found["differs"], "differs", _name)
    _mapping(found["complete"], "complete", _whole)
    return found


def _split(value: Any, number: int) -> dict[str, Any]:
    what = f"split {number}"
    found = _object(value, {"seed", "rule", "indices", "validation", "test"}, what)
    count = _whole(found["indices"], f"{what}, indices", 3)
    parts = [
        _list(found[name], f"{what}, {name}", lambda each, part: _whole(each, part, 0, count - 1)) for name in SPLITS[1:]
    ]
    both = [index for indices in parts for index in indices]
    if found["seed"] != number or not all(parts) or len(set(both)) != len(both) or len(both) >= count:
        raise _WrongError(f"{what} is no division of its indices into three parts")
    _text(found["rule"], f"{what}, rule")
    return {**found, "seed": number}


# ------------------------------------------------------------------ a row


def _row(value: Any, common: dict[str, Any], seeds: int) -> Row:
    """Return a row; `common` are the fields that equal those of the whole."""
    found = _object(value, {field.name for field in fields(Row)}, "a row")
    case, rung = _text(found["case"], "a case", _NAME), _text(found["rung"], "a rung", _RUNG)
    what = f"row {case}/{rung}"
    for key, wanted in common.items():
        if found[key] != wanted:
            raise _WrongError(f"{what} has other {key} than the whole")
    command = _command(found["command"], f"{what}, command")
    if found["status"] == "skipped":
        reason = _text(found["reason"], f"{what}, reason", ".+")
        row = Row(case=case, rung=rung, command=command, status="skipped", reason=reason, **common)
        if found != {key: list(each) if isinstance(each, tuple) else each for key, each in asdict(row).items()}:
            raise _WrongError(f"{what} was skipped, and has results")
        return row
    if found["status"] != "done" or found["reason"] != "":
        raise _WrongError(f"{what} is neither done nor skipped")
    _check_scored(found, what, seeds)
    return Row.from_json(found)


def _check_scored(found: dict[str, Any], what: str, seeds: int) -> None:
    """Check the fields of a rung that has results."""
    metric = _text(found["metric"], f"{what}, metric", "|".join(METRICS))
    low, high = METRICS[metric]
    scores = _list(found["scores"], f"{what}, scores", lambda each, part: _number(each, part, low, high), seeds)
    mean = _number(found["mean"], f"{what}, mean", low, high)
    if abs(mean - math.fsum(scores) / seeds) > _CLOSE:
        raise _WrongError(f"{what} has not the mean of its scores")
    _mapping(found["others"], f"{what}, others", lambda each, part: _list(each, part, _number, seeds))
    networks = _object(found["networks"], set(SPLITS), f"{what}, networks")
    for part in SPLITS:
        _list(networks[part], f"{what}, {part}", lambda each, part: _whole(each, part, 1), seeds)
    classes = _list(found["classes"], f"{what}, classes", _name)
    if (metric == "spearman") != (not classes) or len(classes) == 1 or len(set(classes)) != len(classes):
        raise _WrongError(f"{what} has classes that do not go with its metric")
    _number(found["chance"], f"{what}, chance", low, high)
    _number(found["half_width"], f"{what}, half_width", 0.0, _WIDEST * (high - low))
    confusion, size = found["confusion"], len(classes)
    if not classes and confusion is not None:
        raise _WrongError(f"{what} has a confusion matrix without classes")
    if classes:
        rows = _list(confusion, f"{what}, confusion", lambda row, part: _list(row, part, _whole, size), size)
        if sum(map(sum, rows)) != sum(networks["test"]):
            raise _WrongError(f"{what} has a confusion matrix of other networks than it tested")
    _list(found["chosen"], f"{what}, chosen", lambda each, part: _mapping(each, part, _number), seeds)
    _list(found["notes"], f"{what}, notes", _text)
