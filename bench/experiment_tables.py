"""Markdown tables of analyses, as docs/experiments.md has them.

python bench/experiment_tables.py bench/results/experiments-2026-11-28.jsonl

Analyses of one experiment are one table if they have different cases (say, a machine each); those of networks held out are
another. Of one case: models and features down, forms across; of several: rungs down, cases across.
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


def cases(rows: Rows) -> set[str]:
    """Their names."""
    return {row["case"] for row in rows}


def main() -> None:
    lines = [line for path in sys.argv[1:] for line in Path(path).read_text().splitlines()]
    tables: list[tuple[str, Rows]] = []
    for analysis in map(json.loads, lines):
        held_out = ", networks held out" * any(dataset["held_out"] for dataset in analysis["datasets"])
        name, rows = analysis["experiment"] + held_out, analysis["rows"]
        alike = [known for title, known in tables if title == name and not cases(known) & cases(rows)]
        if alike:
            alike[0].extend(rows)
        else:
            tables.append((name, rows))
    for name, rows in tables:
        done = next((row for row in rows if row["status"] == "done"), rows[0])
        several = len(cases(rows)) > 1
        print(f"\n**{name}** ({done['metric']}, a guess gets {done['chance']:.2f})\n")
        print("\n".join(by_case(rows) if several else by_form(rows)))
        print("\n" + "\n".join(said(rows)))


if __name__ == "__main__":
    main()
