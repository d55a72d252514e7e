"""What does the patience rule cost, and what does it save? Networks that it ended are trained again without it.

    python bench/patience.py FOLDER... [--sample 12] [--json FILE]

Such a network makes the same epochs again and then goes on, to the threshold or to `max_epochs`: the rule has lost those
that are complete then. What it saved are the epochs after the point at which it ended them.
"""

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import tinymlds
from tinymlds.runs.execution import available_cpus
from tinymlds.spec import Recipe, Setting
from tinymlds.training import backends
from tinymlds.training.loop import Status, train_networks


def without_patience(task: str, index: int, seed: int, recipe: Recipe, ended: int) -> dict[str, Any]:
    """How the network ends if nobody loses patience."""
    (outcome,) = train_networks(
        backends.load("cpu"), Setting(task, seed, replace(recipe, patience=0)), range(index, index + 1)
    )
    return {"task": task, "index": index, "ended_after": ended, "status": str(outcome.status), "epochs": outcome.epochs}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--sample", type=int, default=2**31, help="networks of each folder, spread evenly; default: all")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    results = {}
    with ProcessPoolExecutor(available_cpus()) as pool:
        for folder in options.folders:
            dataset = tinymlds.open(folder)
            spec, rows = dataset.spec, dataset.manifest
            stalled = [row for row in rows if row["status"] == Status.STALLED]
            chosen = stalled[:: -(-len(stalled) // options.sample) or 1]
            calls = [
                pool.submit(without_patience, row["task"], row["index"], spec.seed, spec.recipe, row["epochs"])
                for row in chosen
            ]
            again = [call.result() for call in calls]
            figures = {
                "complete": sum(row["status"] == Status.COMPLETE for row in rows),
                "epochs": sum(row["epochs"] for row in rows),
                "stalled": len(stalled),
                "trained_again": len(again),
                "lost": sum(row["status"] == Status.COMPLETE for row in again),
                "epochs_saved": sum(row["epochs"] - row["ended_after"] for row in again),
            }
            print(folder.name, figures, flush=True)
            results[folder.name] = {**figures, "networks": again}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
