"""Makes the three datasets that docs/results.md reports, and writes down what it took.

    python bench/make_datasets.py FOLDER [--ds1 100] [--ds2 100] [--ds3 5] [--workers 2]

Folders FOLDER/ds1, FOLDER/ds2 (matched) and FOLDER/ds3 are made or grow; a finished one is only checked. Each is verified:
hashes, every loss and every figure computed again. FOLDER/runs.jsonl gets a line for each run: when it was at what share,
and how long it then thought that it would still take.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import tinymlds
from tinymlds.runs.execution import Progress

DATASETS: dict[str, dict[str, Any]] = {"ds1": {}, "ds2": {"matched": True}, "ds3": {}}
EVERY = 15.0


class Log:
    """Progress to stderr and into a list, every 15 seconds."""

    def __init__(self) -> None:
        self.points: list[tuple[float, float, float]] = []
        """Seconds since the start, share done, forecast of the seconds left."""
        self._last = 0.0

    def __call__(self, state: Progress) -> None:
        """Take note."""
        if state.made and (state.seconds - self._last > EVERY or state.done == state.total):
            self._last = state.seconds
            self.points.append((round(state.seconds, 1), round(state.done / state.total, 4), round(state.seconds_left, 1)))
            print(f"{state.done}/{state.total}, {state.seconds:.0f} s, {state.seconds_left:.0f} s left", file=sys.stderr)


def make(dataset: str, count: int, folder: Path, workers: int | None) -> None:
    """Make or extend one dataset, verify it, and write the line."""
    log = Log()
    result = tinymlds.train(
        dataset=dataset, count=count, out=folder / dataset, workers=workers, progress=log, **DATASETS[dataset]
    )
    start = time.monotonic()
    checked = tinymlds.verify(result.folder)
    line = {
        "dataset": dataset,
        "count": count,
        "made": result.progress.made,
        "epochs": result.progress.epochs,
        "seconds": round(result.progress.seconds, 1),
        "digest": result.digest,
        "bytes": sum(path.stat().st_size for path in result.folder.rglob("*") if path.is_file()),
        "verified": checked.ok,
        "verify_seconds": round(time.monotonic() - start, 1),
        "forecasts": log.points,
    }
    with (folder / "runs.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps({key: value for key, value in line.items() if key != "forecasts"}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for dataset, count in (("ds1", 100), ("ds2", 100), ("ds3", 5)):
        parser.add_argument(f"--{dataset}", type=int, default=count, help="networks of each task; 0: leave it out")
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    for dataset in DATASETS:
        if count := getattr(options, dataset):
            make(dataset, count, options.folder, options.workers)


if __name__ == "__main__":
    main()
