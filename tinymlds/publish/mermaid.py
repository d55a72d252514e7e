"""Diagrams of small machines as flowcharts in Mermaid, which code hosts draw."""

from collections import defaultdict

from tinymlds.tasks.mealy import OUTPUT_LINES, Mealy

MOST_STATES = 8
_MOST_SYMBOLS = 4


def diagram(table: Mealy) -> str | None:
    """Draw the minimal machine; None if it has more than `MOST_STATES` states. Symbols with equal effect share an arrow."""
    machine = table.minimise()
    if machine.states > MOST_STATES:
        return None
    lines = ["flowchart LR", '    start(( )) --> s0(("s0"))']
    lines += [f'    s{state}(("s{state}"))' for state in range(1, machine.states)]
    for state in range(machine.states):
        arrows: dict[int, list[str]] = defaultdict(list)
        by_arrow: dict[tuple[int, int], list[str]] = defaultdict(list)
        for k, symbol in enumerate(machine.symbols):
            by_arrow[int(machine.next_state[state, k]), int(machine.output[state, k])].append(symbol)
        for (successor, output), symbols in by_arrow.items():
            named = ", ".join(symbols) if len(symbols) <= _MOST_SYMBOLS else f"{len(symbols)} other symbols"
            arrows[successor].append(f"{named} / {_lines(output)}")
        lines += [f'    s{state} -->|"{"; ".join(labels)}"| s{successor}' for successor, labels in arrows.items()]
    return "\n".join(lines)


def _lines(output: int) -> str:
    on = [str(line) for line in range(OUTPUT_LINES) if output >> line & 1]
    return "line " + " and ".join(on) if on else "none"
