"""Markdown tables of analyses, as docs/experiments.md has them.

python bench/experiment_tables.py bench/results/experiments-2026-11-28.jsonl

Analyses of one experiment (say, of a machine each) are one table; those of networks held out are another. Of one case:
models and features down, forms across; of several: rungs down, cases across.
"""

import json
import sys
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]

FORMS = ("plain", "moved", "transformed", "canonical", "initial", "equalised")


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["status"] == "skipped":
        return "skipped"
    return f"{row['mean']:.2f} ± {row['half_width']:.2f}"


def table(cells: dict[tuple[str, str], str], columns: list[str]) -> list[str]:
    """A line for each first name of a cell, in the order in which they come."""
    names = dict.fromkeys(name for name, _ in cells)
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    return lines + [f"| {name} | " + " | ".join(cells.get((name, each), "") for each in columns) + " |" for name in names]


def by_form(rows: Rows) -> list[str]:
    """Models and features down, forms across."""
    cells = {tuple(row["rung"].rsplit("/", 1)): cell(row) for row in rows}
    return table(cells, [form for form in FORMS if any(form == found for _, found in cells)])


def by_case(rows: Rows) -> list[str]:
    """Rungs down, cases across."""
    cells = {(row["rung"], row["case"]): cell(row) for row in rows}
    return table(cells, list(dict.fromkeys(row["case"] for row in rows)))


def said(rows: Rows) -> list[str]:
    """Notes, and reasons why rungs were skipped, once for all rungs and cases that have them."""
    found: dict[str, list[str]] = {}
    for row in rows:
        for text in (*row["notes"], row["reason"]):
            if text:
                found.setdefault(text, []).append(f"{row['case']}/{row['rung']}")
    return [
        f"- {text}: {places[0]}{f' and {len(places) - 1} more' if places[1:] else ''}" for text, places in found.items()
    ]


def main() -> None:
    lines = [line for path in sys.argv[1:] for line in Path(path).read_text().splitlines()]
    together: dict[tuple[str, bool], Rows] = {}
    for analysis in map(json.loads, lines):
        held_out = any(dataset["held_out"] for dataset in analysis["datasets"])
        together.setdefault((analysis["experiment"], held_out), []).extend(analysis["rows"])
    for (experiment, held_out), rows in together.items():
        done = next((row for row in rows if row["status"] == "done"), rows[0])
        several = len({row["case"] for row in rows}) > 1
        where = ", networks held out" * held_out
        print(f"\n**{experiment}{where}** ({done['metric']}, a guess gets {done['chance']:.2f})\n")
        print("\n".join(by_case(rows) if several else by_form(rows)))
        print("\n" + "\n".join(said(rows)))


if __name__ == "__main__":
    main()
