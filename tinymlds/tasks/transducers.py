"""Random transducers, the tasks of MLDS dataset 3, as Mealy tables.

A transducer has S states and four symbols in and out; symbol k is line k, on the input as on the output. It is drawn again
until it makes sense as a task: `flaw` says what is asked of it. Drawing goes by counter, and transducer K is compared with
those before it only, so it never depends on how many are asked for.

The first hundred with eight states ship as `transducers.json`: they have been shown to be learnable, too, and the file
records how (`bench/draw_transducers.py` made it). All others are drawn here, and nobody has trained them before.
"""

import json
from collections.abc import Container
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from tinymlds.errors import UsageError
from tinymlds.kernels import rng
from tinymlds.tasks.mealy import Mealy

SHIPPED = 100
LARGEST = 9999
SYMBOLS = ("a", "b", "c", "d")
BALANCE_STEPS = 16
"""Outputs are counted over this many steps."""
BALANCE = 0.15, 0.35
"""Least and largest share of each output symbol among them (a fair share is 0.25)."""

_STATES = 8
_ATTEMPTS = 2_000


def task_id(number: int) -> str:
    """The task id of a transducer."""
    return f"transducer_{number:03d}"


def transducer(number: int, states: int = _STATES, edits: int = 0, family: int = 0) -> Mealy:
    """The table of a transducer.

    Args:
        number: 0 ... 9999.
        states: S.
        edits: 0, or how many transitions differ from the base of the family.
        family: number of the transducer that is the base; it is member 0 of the family.

    Raises:
        UsageError: no such transducer can be found.
    """
    return _find(number, states, edits, family if edits else 0)


_INPUTS = np.array([1 << k for k in range(len(SYMBOLS))], np.uint16)


_found: dict[tuple[int, int, int], dict[str, Mealy]] = {}
"""(states, edits, family) -> the transducers of this series that have been found so far, by what they do, in order."""


def _find(number: int, states: int, edits: int, family: int) -> Mealy:
    """Transducer `number` of a series: each is the first draw without a flaw that does not do what an earlier one does."""
    series = _found.setdefault((states, edits, family), {})
    while len(series) <= number:
        table = _next(len(series), states, edits, family, series)
        series[behaviour(table)] = table
    return list(series.values())[number]


def _next(number: int, states: int, edits: int, family: int, known: Container[str]) -> Mealy:
    if not edits and states == _STATES and number < SHIPPED:
        return Mealy(SYMBOLS, _INPUTS, *_shipped()[number])
    base = transducer(family, states) if edits else None
    if base is not None and number == 0:
        return base
    for attempt in range(_ATTEMPTS):
        table = draw(number, attempt, states) if base is None else edit(base, number, attempt, edits, family)
        if not flaw(table) and behaviour(table) not in known:
            return table
    raise UsageError(f"no transducer {number} with {states} states and {edits} edits found in {_ATTEMPTS} draws")


def behaviour(table: Mealy) -> str:
    """Equal for machines that do the same, and for no others: digest of the minimal machine, numbered breadth first."""
    return table.minimise().sha256()


def draw(number: int, attempt: int, states: int) -> Mealy:
    """A table of independent, equally likely transitions, numbered breadth first."""
    cells = states * len(SYMBOLS)
    words = rng.words(rng.stream_key(0, f"transducers:{states}"), rng.TABLES, number, 2 * cells, attempt)
    next_state = rng.below(words[:cells], states).astype(np.uint16).reshape(states, -1)
    output = (1 << rng.below(words[cells:], len(SYMBOLS))).astype(np.uint8).reshape(states, -1)
    table = Mealy(SYMBOLS, _INPUTS, next_state, output)
    smaller = table.minimise()
    return smaller if smaller.states == states else table


def edit(base: Mealy, number: int, attempt: int, edits: int, family: int) -> Mealy:
    """A table that differs from `base` in `edits` transitions: another successor, another output, or both."""
    cells = base.next_state.size
    words = rng.words(rng.stream_key(0, f"edits:{base.states}:{family}:{edits}"), rng.TABLES, number, 2 * cells, attempt)
    chosen = np.argsort(words[:cells], kind="stable")[:edits]
    next_state, output = base.next_state.reshape(-1).copy(), base.output.reshape(-1).copy()
    others = base.states * len(SYMBOLS) - 1  # all transitions that a cell can have, but its own
    for cell, word in zip(chosen, words[cells:], strict=False):
        own = int(next_state[cell]) * len(SYMBOLS) + int(output[cell]).bit_length() - 1
        other = int(rng.below(word[None], others)[0])
        state, symbol = divmod(other + (other >= own), len(SYMBOLS))
        next_state[cell], output[cell] = state, 1 << symbol
    return Mealy(SYMBOLS, _INPUTS, next_state.reshape(base.next_state.shape), output.reshape(base.output.shape))


def flaw(table: Mealy) -> str:
    """Why a table makes no good task, or "": all states reachable and strongly connected, minimal, outputs balanced."""
    if len(_reach(table.next_state.tolist())) < table.states:
        return "not all states can be reached"
    backwards = [sorted({s for s in range(table.states) if t in table.next_state[s]}) for t in range(table.states)]
    if len(_reach(backwards)) < table.states:
        return "not strongly connected"
    if table.minimise().states < table.states:
        return "not minimal"
    shares = output_shares(table)
    if min(shares) < BALANCE[0] or max(shares) > BALANCE[1]:
        return "outputs not balanced"
    return ""


def _reach(successors: list[list[int]]) -> set[int]:
    """The states that can be reached from state 0."""
    seen, todo = {0}, [0]
    while todo:
        for state in successors[todo.pop()]:
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return seen


def output_shares(table: Mealy) -> list[float]:
    """Share of each output symbol over all sequences of 16 steps, counted exactly (and rounded once)."""
    symbols = len(SYMBOLS)
    at = [1] + [0] * (table.states - 1)  # number of words that lead to each state
    counts = [0] * symbols
    for step in range(BALANCE_STEPS):
        following = [0] * table.states
        for state, words in enumerate(at):
            for symbol in range(symbols):
                following[int(table.next_state[state, symbol])] += words
                counts[int(table.output[state, symbol]).bit_length() - 1] += words * symbols ** (BALANCE_STEPS - 1 - step)
        at = following
    return [count / (BALANCE_STEPS * symbols**BALANCE_STEPS) for count in counts]


def shipped_text() -> str:
    """The file of the transducers that ship: JSON, one line for each."""
    return resources.files("tinymlds.tasks").joinpath("transducers.json").read_text("ascii")


@cache
def _shipped() -> list[tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]]:
    """next_state and output of the transducers in the file."""
    rows = json.loads(shipped_text())["transducers"]
    return [(np.array(row["next_state"], np.uint16), np.uint8(1) << np.array(row["output"], np.uint8)) for row in rows]


def distance(base: Mealy, table: Mealy) -> int:
    """Number of transitions (successor or output) in which two tables of one size differ."""
    return int(((base.next_state != table.next_state) | (base.output != table.output)).sum())
