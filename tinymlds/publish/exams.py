"""What the audit asks: fresh sequences for each task, and what each table of the package answers; made from its files."""

import hashlib
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from tinymlds.dataset import store
from tinymlds.dataset.tensorfile import TensorFile
from tinymlds.errors import DatasetError
from tinymlds.kernels import rng
from tinymlds.kernels.problem import Floats
from tinymlds.publish.parts import Part
from tinymlds.spec import Recipe, canonical_json
from tinymlds.tasks import catalog, machines
from tinymlds.tasks.mealy import INPUT_LINES, Mealy, Symbols, lines

SEQUENCES = 1024
"""Fresh sequences of the training length."""

SEED = 0
STREAM = "audit"
"""Seed and name of the random stream that they come from; no task has that name."""

Answers = npt.NDArray[np.uint8]
Alphabet = tuple[tuple[str, ...], bytes]
"""Names and input lines of the symbols: tables with the same can be asked the same."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Sequences with planted keys."""

    inputs: Floats
    """[N, T, 9]."""
    answers: Answers
    """[N, T]: right answers, as words of output lines."""
    twin: Answers
    """[N, T]: what the twin of the task answers."""
    inverted: npt.NDArray[np.bool_]
    """[N, T]: steps in which a trigger inverts."""


@dataclass(frozen=True, eq=False)
class Exam:
    """What the networks of a task are asked."""

    inputs: Floats
    """[N, T, 9]."""
    answers: Answers
    """[N, T]: right answers, as words of output lines."""
    rivals: dict[str, Answers]
    """What tables that do other things answer, by the name of a task; not that of the twin, if there are `spans`."""
    alike: list[str]
    """Tables that do other things, but on none of these sequences (such as a trigger with another key)."""
    spans: Spans | None
    """Of a machine or a modified machine, if a trigger fires at all; the same inputs if its own have keys planted."""


@dataclass(frozen=True, eq=False)
class _Known:
    """A table that somebody's answers may be like."""

    name: str
    table: Mealy


class Library:
    """The tables of a package, read from data/TASK.safetensors, and the twins of its machines."""

    def __init__(self, parts: list[Part]) -> None:
        """Read all tables.

        Raises:
            DatasetError: a file is damaged, or a table is not the one that dataset.json announces.
        """
        self._tables: dict[tuple[str, str], Mealy] = {}
        self._known: dict[Alphabet, dict[str, _Known]] = {}
        self._twins: dict[tuple[str, str], str] = {}
        self._answers: dict[tuple[str, str], tuple[str, Answers]] = {}
        for part in parts:
            for task in part.full.tasks:
                table = read_table(part, task)
                self._tables[part.name, task] = table
                self._know(f"{part.name}/{task}", table, part.labels[task].behaviour)
        for part in parts:
            for task in part.full.tasks:
                if not catalog.is_transducer(task):
                    twin = self._twin(task, part.full.spec.recipe)[0]
                    self._twins[part.name, task] = does = behaviour(twin)
                    self._know(f"the twin of {part.name}/{task}", twin, does)

    def _know(self, name: str, table: Mealy, does: str) -> None:
        self._known.setdefault(_alphabet(table), {}).setdefault(does, _Known(name, table))

    def exam(self, part: Part, task: str) -> Exam:
        """What networks of this task are asked: sequences drawn by the rule by which those of the task are drawn."""
        recipe, table = part.full.spec.recipe, self._tables[part.name, task]
        found = replace(catalog.load(task, recipe), table=table, stream=STREAM)
        symbols = found.sample(SEED, rng.FRESH_SEQUENCES, SEQUENCES, recipe.steps)
        inputs = lines(table.inputs[symbols], INPUT_LINES)
        spans = None
        if not catalog.is_transducer(task):
            planted = replace(found, key=machines.key_symbols(recipe.trigger_key), rate=recipe.trigger_rate or _RATE)
            again = planted.sample(SEED, rng.FRESH_SEQUENCES, SEQUENCES, recipe.steps)
            same = np.array_equal(again, symbols)
            spans = self._spans(task, recipe, table, again)
            spans = replace(spans, inputs=inputs) if spans is not None and same else spans
        answers, passed_over = table.simulate(symbols), {part.labels[task].behaviour}
        if spans is not None:
            passed_over.add(self._twins[part.name, task])
        others = [known for does, known in self._known[_alphabet(table)].items() if does not in passed_over]
        rivals = {known.name: self._ask(known, symbols) for known in others}
        alike = [name for name, theirs in rivals.items() if np.array_equal(theirs, answers)]
        return Exam(inputs, answers, {name: rivals[name] for name in rivals if name not in alike}, alike, spans)

    def _ask(self, known: _Known, symbols: Symbols) -> Answers:
        """Answers of a table; the last ones are kept, as all tasks of a dataset mostly get the same sequences."""
        asked = hashlib.sha256(symbols.tobytes()).hexdigest()
        place = known.name, str(symbols.shape)
        if self._answers.get(place, ("",))[0] != asked:
            self._answers[place] = asked, known.table.simulate(symbols)
        return self._answers[place][1]

    def _twin(self, task: str, recipe: Recipe) -> tuple[Mealy, npt.NDArray[np.uint8], Mealy]:
        """The twin's table, and of the modified one of the two: the states whose outputs are inverted, and its table."""
        base = task.removesuffix(catalog.MODIFIED)
        modified, triggered = machines.modified(base, machines.key_symbols(recipe.trigger_key), recipe.trigger_span)
        return (machines.machine(base) if base != task else modified), triggered, modified

    def _spans(self, task: str, recipe: Recipe, table: Mealy, symbols: Symbols) -> Spans | None:
        twin, triggered, modified = self._twin(task, recipe)
        inverted = triggered[modified.trace(symbols)] > 0
        if not inverted.any():
            return None
        inputs = lines(table.inputs[symbols], INPUT_LINES)
        return Spans(inputs, table.simulate(symbols), twin.simulate(symbols), inverted)


_RATE = Recipe().trigger_rate
"""Of planted keys, where the recipe plants none."""


def read_table(part: Part, task: str) -> Mealy:
    """The table of a task as the package holds it.

    Raises:
        DatasetError: the file is damaged, or dataset.json announces another table.
    """
    name = store.data_name(task)
    file = TensorFile(part.full.folder, name)
    damaged = partial(DatasetError, f"{part.full.folder / name} is not the table that {store.DESCRIPTION} announces")
    row = next(row for row in part.full.description["tasks"] if row["task"] == task)
    tensors, symbols = file.read(), file.metadata.get("symbols")
    try:
        arrays = (tensors[f"table.{what}"] for what in ("inputs", "next_state", "output"))
        table = Mealy(tuple(map(str, symbols)), *arrays) if isinstance(symbols, list) else None
    except (KeyError, TypeError, ValueError) as error:
        raise damaged() from error
    if table is None or table.sha256() != row.get("table_sha256") or behaviour(table) != part.labels[task].behaviour:
        raise damaged()
    return table


def behaviour(table: Mealy) -> str:
    """Equal for tables that do the same: sha256 of the minimal machine as data/TASK.json has it."""
    return hashlib.sha256((canonical_json(table.minimise().state_setup()) + "\n").encode()).hexdigest()


def _alphabet(table: Mealy) -> Alphabet:
    return table.symbols, table.inputs.tobytes()
