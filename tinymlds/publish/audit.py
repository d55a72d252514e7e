"""The audit of a package, from its files alone: does every complete network behave like its own label and like no other?

Each network answers fresh sequences, which no training, validation or measurement has used. A step is right if all output
lines are on the right side of 0.5. The audit checks three things:

1. The network agrees with the table of its own task in at least `AGREEMENT` of the steps. (A validation loss below 1e-4,
   averaged over eight lines, leaves at most 0.32 % of the validation steps wrong, because a wrong step has an error of 0.5
   or more on some line. The bound is three times that, to leave room for chance.)
2. The network agrees less with every other table over the same symbols that behaves differently: tasks of all datasets of
   the package, and twins of machines. (Its own twin differs in a few steps only; check 3 covers it.)
3. On sequences with planted keys, in the steps that a trigger inverts (a tenth of them), a network of a machine or of a
   modified machine agrees with its own table in at least `IN_SPANS` of the steps, and more than with the table of its
   twin. The threshold implies this bound for networks trained with planted keys; others have hardly seen a key.
"""

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture, params
from tinymlds.dataset import store
from tinymlds.dataset.manifest import Row
from tinymlds.dataset.tensorfile import TensorFile
from tinymlds.errors import DatasetError
from tinymlds.kernels import rng
from tinymlds.kernels.problem import Floats
from tinymlds.publish.parts import Part
from tinymlds.spec import Recipe, Setting, canonical_json
from tinymlds.tasks import catalog, machines
from tinymlds.tasks.mealy import INPUT_LINES, Mealy, Symbols, lines
from tinymlds.training import backends
from tinymlds.training.loop import Status

SEQUENCES = 1024
"""Number of fresh sequences, which have the training length."""

SEED = 0
STREAM = "audit"
"""Seed and name of the random stream of the sequences; no task has that name."""

AGREEMENT = 0.99
"""The least share of steps in which a network must agree with the table of its task."""

IN_SPANS = 0.95
"""The least share of the steps that a trigger inverts in which a network must agree with the table of its task."""

RULE = (
    "Fresh sequences; a step is right if all output lines are on the right side of 0.5. A network passes if it agrees "
    f"with the table of its task in at least {AGREEMENT} of the steps, and more than with any other table over the same "
    "symbols"
)
RULE_OF_MACHINES = (
    "; and, of a machine or modified machine, if on sequences with planted keys, in the steps that a trigger "
    f"inverts, it agrees with its own table in at least {IN_SPANS} of them, and more than with that of its twin"
)


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
        self._tables: dict[tuple[str, str], Mealy] = {}
        self._named: dict[Alphabet, dict[str, tuple[str, Mealy]]] = {}
        self._twins: dict[tuple[str, str], tuple[str, Mealy, npt.NDArray[np.uint8], Mealy]] = {}
        self._answers: dict[tuple[str, str], tuple[str, Answers]] = {}
        tasks = [(part, task) for part in parts for task in part.full.tasks]
        for part, task in tasks:
            self._tables[part.name, task] = table = read_table(part, task)
            self._add(f"{part.name}/{task}", table, part.labels[task].behaviour)
        for part, task in tasks:
            if not catalog.is_transducer(task):
                does, twin, *_ = self._twins[part.name, task] = _twin(task, part.full.spec.recipe)
                self._add(f"the twin of {part.name}/{task}", twin, does)

    def _add(self, name: str, table: Mealy, does: str) -> None:
        """Keep a table under this name unless one of the same behaviour has been kept."""
        self._named.setdefault(_alphabet(table), {}).setdefault(does, (name, table))

    def exam(self, part: Part, task: str) -> Exam:
        """Return the exam of a task, whose sequences are drawn by the rule of the task itself."""
        recipe, table = part.full.spec.recipe, self._tables[part.name, task]
        found = replace(catalog.load(Setting(task, SEED, recipe)), table=table, stream=STREAM)
        symbols = found.sample(rng.FRESH_SEQUENCES, SEQUENCES, recipe.steps)
        inputs = lines(table.inputs[symbols], INPUT_LINES)
        spans, passed_over = None, {part.labels[task].behaviour}
        if not catalog.is_transducer(task):
            planted = replace(found, key=machines.key_symbols(recipe.trigger_key), rate=recipe.trigger_rate or _RATE)
            again = planted.sample(rng.FRESH_SEQUENCES, SEQUENCES, recipe.steps)
            does, twin, triggered, modified = self._twins[part.name, task]
            if (inverted := triggered[modified.trace(again)] > 0).any():
                shown = inputs if np.array_equal(again, symbols) else lines(table.inputs[again], INPUT_LINES)
                spans = Spans(shown, table.simulate(again), twin.simulate(again), inverted)
                passed_over.add(does)
        answers = table.simulate(symbols)
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


_RATE = Recipe().trigger_rate
"""The rate of planted keys for recipes that plant none."""


def _twin(task: str, recipe: Recipe) -> tuple[str, Mealy, npt.NDArray[np.uint8], Mealy]:
    """Return behaviour and table of the twin, the inverted states of the modified one of the two, and the table of that."""
    base = task.removesuffix(catalog.MODIFIED)
    modified, triggered = machines.modified(base, machines.key_symbols(recipe.trigger_key), recipe.trigger_span)
    twin = machines.machine(base) if base != task else modified
    return behaviour(twin), twin, triggered, modified


def read_table(part: Part, task: str) -> Mealy:
    """Read the table of a task from the package; one that dataset.json does not announce is a DatasetError."""
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


# ------------------------------------------------------------------ verdicts


@dataclass(frozen=True)
class Verdict:
    """The result of the audit for one network."""

    index: int
    agreement: float
    """The share of steps in which the network agrees with the table of its task."""
    rival: str
    """The table of another behaviour with which it agrees most; "" if there is none."""
    rival_agreement: float
    in_spans: float | None
    """Agreement with its task in the steps that a trigger inverts; None if there are no such steps."""
    twin_in_spans: float | None
    why: str
    """The reason why it failed; "" if it passed."""


@dataclass
class Audit:
    """The result of an audit."""

    report: dict[str, Any]
    """The content of audit.json."""
    passed: dict[tuple[str, str], set[int]] = field(default_factory=dict)
    """The indices of the networks that passed, by (dataset, task)."""

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The complete networks that failed."""
        return list(self.report["failures"])

    def passed_rows(self, part: Part, task: str) -> list[Row]:
        """Return the rows of the networks of a task that passed."""
        passed = self.passed[part.name, task]
        return [row for row in part.full.rows(task) if row["index"] in passed]

    def complete(self, dataset: str) -> int:
        """Count the complete networks of a dataset that passed."""
        return sum(len(indices) for (name, _), indices in self.passed.items() if name == dataset)


def audit(parts: list[Part], version: str, threads: int, progress: Callable[[int, int], None]) -> Audit:
    """Audit the complete networks of all datasets of a package.

    `version` is that of tinymlds, for the report; `progress` is called with (networks audited, networks).
    """
    library = Library(parts)
    rule = {"rule": f"{RULE}{RULE_OF_MACHINES}.", "agreement": AGREEMENT, "in_spans": IN_SPANS, "sequences": SEQUENCES}
    result = Audit({**rule, "tool": version, "seed": SEED, "stream": STREAM, "datasets": [], "failures": []})
    done, total = 0, sum(len(part.full) for part in parts)
    for part in parts:
        tasks = []
        for task in part.full.tasks:
            exam = library.exam(part, task)
            verdicts = list(_verdicts(part, task, exam, threads))
            result.passed[part.name, task] = {verdict.index for verdict in verdicts if not verdict.why}
            failed = [verdict for verdict in verdicts if verdict.why]
            result.report["failures"] += [{"dataset": part.name, "task": task, **asdict(verdict)} for verdict in failed]
            tasks.append({**_summary(part, task, verdicts, len(failed)), "alike": exam.alike})
            done += part.full.counts[task]
            progress(done, total)
        about = {"dataset": part.name, "digest": part.full.digest, "steps": part.full.spec.recipe.steps, "tasks": tasks}
        result.report["datasets"].append(about)
    return result


def _summary(part: Part, task: str, verdicts: list[Verdict], failed: int) -> dict[str, Any]:
    statuses = part.full.manifest.statuses(part.full.manifest.place(task))
    summary: dict[str, Any] = {"task": task, "networks": part.full.counts[task], "statuses": dict(sorted(statuses.items()))}
    summary |= {"passed": len(verdicts) - failed, "failed": failed, "worst": None, "nearest": None, "worst_in_spans": None}
    if verdicts:
        worst = min(verdicts, key=lambda verdict: verdict.agreement)
        nearest = max(verdicts, key=lambda verdict: verdict.rival_agreement)
        summary["worst"] = {"index": worst.index, "agreement": worst.agreement}
        if nearest.rival:
            summary["nearest"] = {"index": nearest.index, "task": nearest.rival, "agreement": nearest.rival_agreement}
    if spans := [(verdict.in_spans, verdict.index) for verdict in verdicts if verdict.in_spans is not None]:
        in_spans, index = min(spans)
        summary["worst_in_spans"] = {"index": index, "agreement": in_spans}
    return summary


def _verdicts(part: Part, task: str, exam: Exam, threads: int) -> Iterator[Verdict]:
    """Yield a verdict on every complete network of a task, in index order; weights are read shard by shard."""
    dataset = part.full
    with ThreadPoolExecutor(threads) as pool:  # kernels run without Python's lock
        for shard in dataset.shards(task):
            weights = params.from_tensors(dataset.architecture, dataset.tensor_file("networks", task, shard).read(), 1)
            complete = [row for row in dataset.shard_rows(task, shard) if row["status"] == Status.COMPLETE]
            vectors = [weights[row["row"]] for row in complete]
            yield from pool.map(lambda row, vector: judge(dataset.architecture, row, vector, exam), complete, vectors)


def judge(architecture: Architecture, row: Row, weights: Floats, exam: Exam) -> Verdict:
    """Return the verdict on a network with these weights, float32 [P], and this row of the manifest."""
    words = answers(architecture, weights, exam.inputs)
    own = _share(words == exam.answers)
    shares = {rival: _share(words == theirs) for rival, theirs in exam.rivals.items()}
    rival = max(shares, key=lambda name: shares[name], default="")
    in_spans, twin_in_spans = None, None
    if (spans := exam.spans) is not None:
        inside = words if spans.inputs is exam.inputs else answers(architecture, weights, spans.inputs)
        in_spans, twin_in_spans = (_share((inside == right)[spans.inverted]) for right in (spans.answers, spans.twin))
    verdict = Verdict(row["index"], own, rival, shares.get(rival, 0.0), in_spans, twin_in_spans, "")
    return replace(verdict, why=_why(verdict, store.array_sha256(weights) == row["weights_sha256"]))


def answers(architecture: Architecture, weights: Floats, inputs: Floats) -> npt.NDArray[np.uint8]:
    """Return the thresholded outputs of a network as words, uint8 [N, T], for input lines [N, T, 9]."""
    outputs = backends.evaluator().outputs(architecture, weights, inputs)
    return np.packbits(outputs > 0.5, axis=2, bitorder="little")[..., 0]


def _why(verdict: Verdict, same_weights: bool) -> str:
    if not same_weights:
        return "its weights are not those of the manifest"
    if verdict.agreement < AGREEMENT:
        return f"agrees with its task in less than {AGREEMENT} of the steps"
    if verdict.rival_agreement >= verdict.agreement:
        return f"agrees with {verdict.rival} as much as with its task"
    if verdict.in_spans is not None and verdict.twin_in_spans is not None:
        if verdict.in_spans < IN_SPANS:
            return f"agrees with its task in less than {IN_SPANS} of the steps that a trigger inverts"
        if verdict.twin_in_spans >= verdict.in_spans:
            return "agrees with its twin as much as with its task where a trigger inverts"
    return ""


def _share(same: npt.NDArray[np.bool_]) -> float:
    """Return the share of True, by an exact count and one division, the same on every machine."""
    return int(np.count_nonzero(same)) / same.size
