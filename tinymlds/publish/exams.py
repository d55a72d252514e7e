"""The exams of the audit: fresh sequences for each task, with the answers of each table, from the files of a package."""

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
from tinymlds.spec import Recipe, Setting, canonical_json
from tinymlds.tasks import catalog, machines
from tinymlds.tasks.mealy import INPUT_LINES, Mealy, Symbols, lines

SEQUENCES = 1024
"""Number of fresh sequences, which have the training length."""

SEED = 0
STREAM = "audit"
"""Seed and name of the random stream of the sequences; no task has that name."""

Answers = npt.NDArray[np.uint8]
Alphabet = tuple[tuple[str, ...], bytes]
"""Names and input lines of the symbols; tables with the same alphabet accept the same sequences."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Sequences with planted keys."""

    inputs: Floats
    """Input lines, [N, T, 9]."""
    answers: Answers
    """Right answers as words of output lines, [N, T]."""
    twin: Answers
    """Answers of the twin of the task, [N, T]."""
    inverted: npt.NDArray[np.bool_]
    """The steps in which a trigger inverts, [N, T]."""


@dataclass(frozen=True, eq=False)
class Exam:
    """Sequences that test the networks of a task."""

    inputs: Floats
    """Input lines, [N, T, 9]."""
    answers: Answers
    """Right answers as words of output lines, [N, T]."""
    rivals: dict[str, Answers]
    """Answers of tables that behave differently, by the name of a task; without the twin if there are `spans`."""
    alike: list[str]
    """Tables that behave differently, but not on these sequences (such as a trigger with another key)."""
    spans: Spans | None
    """Sequences with keys, for machines and modified machines whose trigger fires; the same inputs if these have keys."""


class Library:
    """The tables of a package, read from data/TASK.safetensors, and those of the twins of its machines."""

    def __init__(self, parts: list[Part]) -> None:
        """Read all tables.

        Raises:
            DatasetError: a file is damaged, or a table does not match dataset.json.
        """
        self._tables: dict[tuple[str, str], Mealy] = {}
        self._named: dict[Alphabet, dict[str, tuple[str, Mealy]]] = {}
        self._twins: dict[tuple[str, str], str] = {}
        self._answers: dict[tuple[str, str], tuple[str, Answers]] = {}
        tasks = [(part, task) for part in parts for task in part.full.tasks]
        for part, task in tasks:
            self._tables[part.name, task] = table = read_table(part, task)
            self._add(f"{part.name}/{task}", table, part.labels[task].behaviour)
        for part, task in tasks:
            if not catalog.is_transducer(task):
                twin = self._twin(task, part.full.spec.recipe)[0]
                self._twins[part.name, task] = behaviour(twin)
                self._add(f"the twin of {part.name}/{task}", twin, self._twins[part.name, task])

    def _add(self, name: str, table: Mealy, does: str) -> None:
        """Keep a table under this name unless one of the same behaviour has been kept."""
        self._named.setdefault(_alphabet(table), {}).setdefault(does, (name, table))

    def exam(self, part: Part, task: str) -> Exam:
        """Return the exam of a task, whose sequences are drawn by the rule of the task itself."""
        recipe, table = part.full.spec.recipe, self._tables[part.name, task]
        found = replace(catalog.load(Setting(task, SEED, recipe)), table=table, stream=STREAM)
        symbols = found.sample(rng.FRESH_SEQUENCES, SEQUENCES, recipe.steps)
        inputs = lines(table.inputs[symbols], INPUT_LINES)
        spans = None
        if not catalog.is_transducer(task):
            planted = replace(found, key=machines.key_symbols(recipe.trigger_key), rate=recipe.trigger_rate or _RATE)
            again = planted.sample(rng.FRESH_SEQUENCES, SEQUENCES, recipe.steps)
            same = np.array_equal(again, symbols)
            spans = self._spans(task, recipe, table, again)
            spans = replace(spans, inputs=inputs) if spans is not None and same else spans
        answers, passed_over = table.simulate(symbols), {part.labels[task].behaviour}
        if spans is not None:
            passed_over.add(self._twins[part.name, task])
        others = [named for does, named in self._named[_alphabet(table)].items() if does not in passed_over]
        rivals = {name: self._ask(name, other, symbols) for name, other in others}
        alike = [name for name, theirs in rivals.items() if np.array_equal(theirs, answers)]
        return Exam(inputs, answers, {name: rivals[name] for name in rivals if name not in alike}, alike, spans)

    def _ask(self, name: str, table: Mealy, symbols: Symbols) -> Answers:
        """Return the answers of a table; the last ones are cached, because tasks of a dataset mostly share sequences."""
        asked = hashlib.sha256(symbols.tobytes()).hexdigest()
        place = name, str(symbols.shape)
        if self._answers.get(place, ("",))[0] != asked:
            self._answers[place] = asked, table.simulate(symbols)
        return self._answers[place][1]

    def _twin(self, task: str, recipe: Recipe) -> tuple[Mealy, npt.NDArray[np.uint8], Mealy]:
        """Return the table of the twin, the inverted states of the modified machine of the two, and the table of that."""
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
"""The rate of planted keys for recipes that plant none."""


def read_table(part: Part, task: str) -> Mealy:
    """Read the table of a task from the package.

    Raises:
        DatasetError: the file is damaged, or the table does not match dataset.json.
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
    """Return the sha256 of the minimal machine as in data/TASK.json, equal for tables that behave alike."""
    return hashlib.sha256((canonical_json(table.minimise().state_setup()) + "\n").encode()).hexdigest()


def _alphabet(table: Mealy) -> Alphabet:
    return table.symbols, table.inputs.tobytes()
