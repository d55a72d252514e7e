"""Diagrams of the minimal machine of a task: states on a circle, transitions as arrows."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from tinymlds.report.charts import GREY, PALETTE, Arrows, Axis, Chart, Figure, Line, Points, Series, Texts, Values, broken
from tinymlds.spec import Setting
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import OUTPUT_LINES, Mealy

MOST_STATES = 16
"""The largest number of states that is drawn; a larger diagram would be unreadable."""
NODE = "#57606A"
"""The colour of states, dark enough for white names, and seen on white and on black."""
_RADIUS = 0.11
_LISTED = 2
"""The largest number of symbols that are named on an arrow for several transitions."""


class _Arrow(NamedTuple):
    """An arrow between two states; `number` counts those between the same two, and `group` is its colour."""

    start: int
    stop: int
    number: int
    group: int
    label: str
    meaning: str


def diagram(setting: Setting) -> Figure:
    """Draw the minimal machine of a task; there is no chart if it has too many states."""
    task, machine = setting.task, catalog.load(setting).table.minimise()
    title, asked = f"The machine of {task}", "What the network was trained to be."
    size = f"{asked} The minimal machine of {task} has {machine.states:,} states and {len(machine.symbols)} symbols"
    if machine.states > MOST_STATES:
        text = f"{size}, too many to draw; the dataset holds it as a graph in data/{task}.dot, which Graphviz reads."
        return Figure("machine", title, text)
    live = [line for line in range(OUTPUT_LINES) if (machine.output >> line & 1).any()]
    few = len(machine.symbols) <= len(PALETTE)
    arrows = list((_each if few else _joined)(machine, _namer(live)))
    names = list(machine.symbols) if few else [""]
    lines = f"the output on line {live[0]}" if len(live) == 1 else "the output lines that are then 1"
    label = f"The colour of an arrow is the symbol, its label {lines}" if few else f"A label is symbol/output: {lines}"
    text = f"{size}; it starts in s0. {label}. Point at a label to see the transition in words."
    return Figure("machine", title, text, {"": (_draw(machine.states, arrows, names),)})


def _namer(live: list[int]) -> Callable[[int], str]:
    """Return a function that names outputs: 0 or 1 if a single line is ever 1, else the lines that are 1."""

    def name(output: int) -> str:
        ones = [str(line) for line in live if output >> line & 1]
        return str(len(ones)) if len(live) == 1 else ",".join(ones) or "-"

    return name


def _each(machine: Mealy, name: Callable[[int], str]) -> Iterator[_Arrow]:
    for state in range(machine.states):
        successors = machine.next_state[state].tolist()
        for k, (symbol, stop) in enumerate(zip(machine.symbols, successors, strict=True)):
            label = name(int(machine.output[state, k]))
            meaning = f"s{state} to s{stop}: {symbol}/{label}"
            yield _Arrow(state, stop, successors[:k].count(stop), k, label, meaning)


def _joined(machine: Mealy, name: Callable[[int], str]) -> Iterator[_Arrow]:
    for state in range(machine.states):
        labels: dict[int, list[str]] = {}
        for k, symbol in enumerate(machine.symbols):
            labels.setdefault(int(machine.next_state[state, k]), []).append(
                f"{symbol}/{name(int(machine.output[state, k]))}"
            )
        for stop, words in labels.items():
            label = "\n".join(words) if len(words) <= _LISTED else f"{len(words)} symbols"
            yield _Arrow(state, stop, 0, 0, label, f"s{state} to s{stop}: {', '.join(words)}")


def _draw(states: int, arrows: list[_Arrow], groups: list[str]) -> Chart:
    angles = np.pi / 2 - 2 * np.pi * np.arange(states) / states
    places = np.stack([np.cos(angles), np.sin(angles)], axis=1) * (states > 1)
    series: list[Series] = []
    labels: list[Series] = []
    for group, name in enumerate(groups):
        colour = PALETTE[group] if name else GREY
        inside = [arrow for arrow in arrows if arrow.group == group]
        paths = [_path(arrow, places, angles) for arrow in inside]
        x, y = broken(paths).T
        series.append(Line(x, y, name, colour, 1.3))
        series.append(Arrows(np.array([[*path[-2], *path[-1]] for path in paths]), colour))
        spots = np.array(
            [path[len(path) // (2 if arrow.start == arrow.stop else 3)] for arrow, path in zip(inside, paths, strict=True)]
        )
        words, full = [arrow.label for arrow in inside], [arrow.meaning for arrow in inside]
        labels.append(Texts(spots[:, 0], spots[:, 1], words, full, 11.0, boxed=True, colour=colour if name else "#1F2328"))
    series.append(Points(places[:, 0], places[:, 1], "", NODE, size=34.0))
    series.append(Texts(places[:, 0], places[:, 1], [f"s{k}" for k in range(states)], size=12.0, colour="#FFFFFF"))
    axis = Axis(range=(-1.5, 1.5), shown=False)
    return Chart("Minimal machine", [*series, *labels], axis, axis, height=640, equal=True, share=0.6)


def _path(arrow: _Arrow, places: Values, angles: Values) -> Values:
    start, stop = places[arrow.start], places[arrow.stop]
    if arrow.start == arrow.stop:
        return _loop(start, angles[arrow.start], 0.13 + 0.06 * arrow.number)
    return _arc(start, stop, 0.1 + 0.12 * arrow.number)


def _arc(start: Values, stop: Values, bend: float) -> Values:
    """Return points [n, 2] of a curve between two states that bends to the left, without the part under the states."""
    t = np.linspace(0, 1, 41)[:, None]
    along = stop - start
    control = (start + stop) / 2 + bend * np.array([-along[1], along[0]])
    path = (1 - t) ** 2 * start + 2 * t * (1 - t) * control + t**2 * stop
    free = (np.hypot(*(path - start).T) > _RADIUS) & (np.hypot(*(path - stop).T) > _RADIUS)
    return np.asarray(path[free])


def _loop(place: Values, angle: float, radius: float) -> Values:
    """Return points [n, 2] of a loop from a state to itself, on the side away from the centre."""
    out = np.array([np.cos(angle), np.sin(angle)])
    turn = np.linspace(0, 2 * np.pi, 41) + angle + np.pi
    path = place + (radius + 0.05) * out + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    return np.asarray(path[np.hypot(*(path - place).T) > _RADIUS])
