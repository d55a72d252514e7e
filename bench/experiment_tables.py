"""Markdown tables of analyses, as docs/experiments.md has them.

python bench/experiment_tables.py bench/results/experiments-2026-11-28.jsonl
"""

import json
import sys
from pathlib import Path
from typing import Any

FORMS = ("plain", "moved", "transformed", "canonical", "initial", "equalised")


def cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    if row["status"] == "skipped":
        return "skipped"
    return f"{row['mean']:.2f} ± {row['half_width']:.2f}"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Models and features down, forms across."""
    by_rung = {row["rung"]: row for row in rows}
    heads = dict.fromkeys(rung.rsplit("/", 1)[0] for rung in by_rung)
    forms = [form for form in FORMS if any(f"{head}/{form}" in by_rung for head in heads)]
    lines = ["| | " + " | ".join(forms) + " |", "|---" * (len(forms) + 1) + "|"]
    return lines + [
        f"| {head} | " + " | ".join(cell(by_rung.get(f"{head}/{form}")) for form in forms) + " |" for head in heads
    ]


def main() -> None:
    found: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
    for path in sys.argv[1:]:
        for analysis in map(json.loads, Path(path).read_text().splitlines()):
            for row in analysis["rows"]:
                found.setdefault((row["experiment"], row["case"], "--held-out" in row["command"]), []).append(row)
    for (experiment, case, held_out), rows in found.items():
        done = next((row for row in rows if row["status"] == "done"), rows[0])
        title = f"{experiment}, {case}{', held out' if held_out else ''}"
        print(f"\n**{title}** ({done['metric']}, a guess gets {done['chance']:.2f})\n")
        print("\n".join(table(rows)))
        reasons = dict.fromkeys(f"{row['rung']}: {text}" for row in rows for text in (*row["notes"], row["reason"]) if text)
        print("\n" + "\n".join(f"- {text}" for text in reasons) if reasons else "")


if __name__ == "__main__":
    main()
