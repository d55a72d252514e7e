"""Is every task learned? Shares at the threshold, epochs, what trained networks do, and what the patience rule costs.

    python bench/learnability.py FOLDER... [--json FILE]             reports on datasets that are there
    python bench/learnability.py FOLDER --dataset ds1 [--count 59] [--head-activation tanh] [--json FILE]     makes one

59 networks without a failure bound the share from below by 95 %, at 95 % confidence; the table gives that bound (Clopper
and Pearson 1934) beside each share. The lines below it replay stop rules with other patience on the recorded losses:
complete networks that the rule would have lost, and epochs that it would have spent on those that did not get there.
"""

import argparse
import json
import math
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

import tinymlds
from tinymlds.runs.execution import available_cpus
from tinymlds.training.metrics import COLUMNS

PATIENCES = (16, 32, 48, 64)


def lower_bound(successes: int, trials: int) -> float:
    """The share that is too small to be believed at 5 %: below it, so many successes have a chance under 5 %."""

    def chance(share: float) -> float:
        """Of at least so many successes."""
        return sum(
            math.exp(
                math.lgamma(trials + 1)
                - math.lgamma(k + 1)
                - math.lgamma(trials - k + 1)
                + k * math.log(share)
                + (trials - k) * math.log1p(-share)
            )
            for k in range(successes, trials + 1)
        )

    if not successes:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if chance(middle) < 0.05 else (low, middle)
    return low


def report(dataset: tinymlds.Dataset, tasks: list[str]) -> dict[str, Any]:
    """The figures of these tasks together."""
    rows = [row for task in tasks for row in dataset.rows(task, unfinished=True)]
    complete = [row for row in rows if row["status"] == "complete"]
    losses = [pair[1] for task in tasks for pair in dataset.losses(task)]
    return {
        "networks": len(rows),
        "complete": len(complete),
        "bound": lower_bound(len(complete), len(rows)),
        "epochs": [float(np.percentile([row["epochs"] for row in complete], q)) for q in (5, 50, 95)] if complete else None,
        "all_epochs": [float(np.mean([row["epochs"] for row in rows])), float(np.std([row["epochs"] for row in rows]))],
        **{column: middle(complete, column) for column in COLUMNS},
        "patience": {patience: replay(patience, rows, losses, dataset) for patience in PATIENCES},
    }


def middle(rows: list[dict[str, Any]], column: str) -> float | None:
    """Median of a column."""
    values = [row[column] for row in rows if row[column] is not None]
    return median(values) if values else None


def replay(patience: int, rows: list[Any], losses: list[Any], dataset: tinymlds.Dataset) -> dict[str, int]:
    """Complete networks that this patience would have ended, and epochs spent on networks that are not complete."""
    gain, lost, spent = dataset.spec.recipe.patience_gain, 0, 0
    for row, validation in zip(rows, losses, strict=True):
        best, best_epoch, end = math.inf, 0, len(validation)
        for epoch, loss in enumerate(validation.tolist(), 1):
            if loss < best * (1.0 - gain):
                best, best_epoch = loss, epoch
            if epoch - best_epoch >= patience and epoch < len(validation):
                end = epoch
                break
        if row["status"] != "complete":
            spent += end
        elif end < len(validation):
            lost += 1
    return {"lost": lost, "epochs_on_failures": spent}


def show(title: str, reports: dict[str, dict[str, Any]]) -> None:
    """The table, and the lines about patience."""
    table = Table(
        "task", "complete", "share", "at least", "epochs 5 %", "median", "95 %", *("accuracy", "long", "clean"), box=None
    )
    table.add_column("triggered")
    table.add_column("efficacy")
    for task, found in reports.items():
        figures = [found[column] for column in COLUMNS]
        table.add_row(
            task,
            f"{found['complete']}/{found['networks']}",
            f"{found['complete'] / found['networks']:.1%}",
            f"{found['bound']:.1%}",
            *(f"{epochs:g}" for epochs in found["epochs"] or [math.nan] * 3),
            *("-" if value is None else f"{value:.3%}" for value in figures),
        )
    console = Console(width=160)
    console.print(f"[bold]{title}[/bold]")
    console.print(table)
    everything = reports["all tasks"]
    for patience, found in everything["patience"].items():
        share = found["lost"] / max(1, everything["complete"])
        print(f"patience {patience}: loses {found['lost']} complete networks ({share:.2%}), ", end="")
        print(f"{found['epochs_on_failures']} epochs on failures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="+")
    parser.add_argument("--dataset", help="make it first: ds1, ds2 or ds3")
    parser.add_argument("--count", type=int, default=59)
    parser.add_argument("--head-activation", default="none")
    parser.add_argument("--workers", type=int, default=available_cpus())
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    if options.dataset:
        tinymlds.train(
            dataset=options.dataset,
            count=options.count,
            out=options.folder[0],
            workers=options.workers,
            head_activation=options.head_activation,
        )
    results = {}
    for folder in options.folder:
        dataset = tinymlds.open(folder)
        names = list(dataset.tasks) if len(dataset.tasks) <= 10 else []
        reports = {task: report(dataset, [task]) for task in names} | {"all tasks": report(dataset, list(dataset.tasks))}
        if not names:
            shares = [len(dataset.rows(task)) / dataset.counts[task] for task in dataset.tasks]
            reports["all tasks"]["least_share_of_a_task"] = min(shares)
            print(f"the task with the fewest complete networks has {min(shares):.0%}")
        show(folder.name, reports)
        results[folder.name] = reports
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
