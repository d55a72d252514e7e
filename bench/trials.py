"""Tries a recipe on the tasks that are hardest to learn; this is how the numbers of the default ones were chosen.

    python bench/trials.py FILE                                        what FILE holds, a line for each recipe and task
    python bench/trials.py FILE --set batch=32 --set lr_decay=25       trains networks, adds them to FILE, and says so
    python bench/trials.py FILE --set optimizer=sgd --set lr=3         the same for another optimizer

Networks that FILE has are not trained again. It has a network a line: its recipe, task, seed, index, status, epochs and
the best validation loss. Networks are those of seed 1 (datasets start at seed 0), so that none is judged by what it was
chosen by. Networks of the same index share initial weights and sequences, whatever the recipe, so recipes that were
tried on the same indices can be compared network by network.
"""

import argparse
import json
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from tinymlds.runs.execution import available_cpus
from tinymlds.spec import Recipe, Setting, recipe_with
from tinymlds.training import backends
from tinymlds.training.loop import Status, train_networks

TASKS = "eightbit_modified,parity_modified"


def trial(changes: dict[str, Any], task: str, seed: int, index: int) -> dict[str, Any]:
    """One network of this recipe, as a line of the file."""
    recipe = recipe_with(Recipe(), changes)
    (outcome,) = train_networks(backends.load("cpu"), Setting(task, seed, recipe), range(index, index + 1))
    best = float(outcome.validation_losses.min()) if outcome.epochs else None
    run = {"task": task, "seed": seed, "index": index}
    return {"recipe": recipe.to_dict(), **run, "status": str(outcome.status), "epochs": outcome.epochs, "best": best}


def show(rows: list[dict[str, Any]]) -> None:
    """Complete networks, their epochs, and the epochs that all of them took together, for each recipe and task."""
    groups = defaultdict(list)
    for row in rows:
        default = Recipe.of(architecture=row["recipe"]["architecture"], optimizer=row["recipe"]["optimizer"]).to_dict()
        changes = {name: value for name, value in row["recipe"].items() if value != default.get(name)}
        changes = {"optimizer": row["recipe"]["optimizer"]} | changes
        groups[row["task"], ", ".join(f"{name} {value}" for name, value in changes.items())].append(row)
    table = Table("task", "indices", "complete", "epochs, median", "epochs, mean of all", "recipe", box=None)
    for (task, changes), found in sorted(groups.items()):
        complete = [row["epochs"] for row in found if row["status"] == Status.COMPLETE]
        indices = sorted(row["index"] for row in found)
        table.add_row(
            task,
            f"{indices[0]}-{indices[-1]}",
            f"{len(complete)}/{len(found)}",
            f"{median(complete):g}" if complete else "-",
            f"{sum(row['epochs'] for row in found) / len(found):.1f}",
            changes or "the default one",
        )
    Console(width=200).print(table)


def parse(assignments: list[str]) -> dict[str, Any]:
    """Fields of the recipe from NAME=VALUE; a value is JSON, or else text."""
    changes = {}
    for name, _, value in (assignment.partition("=") for assignment in assignments):
        try:
            changes[name] = json.loads(value)
        except json.JSONDecodeError:
            changes[name] = value
    return changes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--set", action="append", metavar="NAME=VALUE", help="a field of the recipe")
    parser.add_argument("--tasks", default=TASKS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=8)
    options = parser.parse_args()
    if options.set is not None:
        changes = parse(options.set)
        recipe = recipe_with(Recipe(), changes).to_dict()
        lines = options.file.read_text().splitlines() if options.file.exists() else []
        known = [(row["task"], row["index"]) for row in map(json.loads, lines) if row["recipe"] == recipe]
        with ProcessPoolExecutor(available_cpus()) as pool, options.file.open("a") as file:
            calls = [
                pool.submit(trial, changes, task, options.seed, index)
                for index in range(options.first, options.first + options.count)
                for task in options.tasks.split(",")
                if (task, index) not in known
            ]
            for call in calls:
                file.write(json.dumps(call.result()) + "\n")
                file.flush()
    show([json.loads(line) for line in options.file.read_text().splitlines()])


if __name__ == "__main__":
    main()
