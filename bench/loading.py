"""How long it takes to open a dataset, to read all its weights, and to read one network.

    python bench/loading.py [--networks 10000] [--rounds 9] [--folder FOLDER] [--json FILE]

The dataset is synthetic (random weights of the recipe's shape, a row like those of real networks for each) and is made once
in FOLDER, or in a temporary one. Every figure is a median over rounds with the files in the system's cache: seconds by
the clock, and of CPU time of the process, which other work on the machine reaches less.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import machine
import numpy as np

import tinymlds
from tinymlds.dataset import sealing
from tinymlds.dataset.dataset import Dataset
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.spec import Recipe, Spec
from tinymlds.training.loop import Outcome, Status
from tinymlds.training.metrics import COLUMNS

TASK, PIECE = "xor", 1000


def make(folder: Path, count: int) -> None:
    """A dataset of `count` networks of the recipe that nobody trained, sealed without measuring what they do."""
    generator, recipe = np.random.default_rng(0), Recipe()
    nothing = np.empty((0, recipe.architecture.size), np.float32)

    def measure(*_: object) -> dict[str, float | None]:
        shares = generator.integers(16_000, 16_385, 2) / 16_384
        return {**dict.fromkeys(COLUMNS), "accuracy": float(shares[0]), "long_accuracy": float(shares[1])}

    def outcome(index: int) -> Outcome:
        epochs = int(generator.integers(1, 12))
        losses = (generator.random((2, epochs)) * 1e-4).astype(np.float32)
        weights = generator.standard_normal(recipe.architecture.size, np.float32)
        return Outcome(index, Status.COMPLETE, "", weights, losses[0], losses[1], nothing, 0.001)

    folder.mkdir(parents=True)
    real, sealing.measure = sealing.measure, measure  # type: ignore[assignment]
    try:
        with RunLock(folder):
            journal = Journal.create(folder, Spec(((TASK, count),), recipe=recipe), {}, [], {})
            run = journal.start_run({})
            for start in range(0, count, PIECE):
                indices = range(start, min(start + PIECE, count))
                journal.add([Entry(TASK, run, outcome(index), 0.0) for index in indices])
            sealing.seal(folder, journal)
            journal.close()
    finally:
        sealing.measure = real


def timed(action: Callable[[], object], rounds: int) -> dict[str, float]:
    """Median seconds of `rounds` calls after one that is not counted."""
    action()
    clock, used = [], []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        action()
        clock.append(time.perf_counter() - wall)
        used.append(time.process_time() - cpu)
    return {"seconds": median(clock), "least": min(clock), "cpu_seconds": median(used)}


def measure(folder: Path, rounds: int) -> dict[str, dict[str, float]]:
    """All figures."""
    dataset = tinymlds.open(folder)
    middle = len(dataset) // 2

    def anew(look: Callable[[Dataset], object]) -> Callable[[], object]:
        return lambda: look(tinymlds.open(folder))

    actions: dict[str, Callable[[], object]] = {
        "open": anew(len),
        "open and all weights": anew(lambda found: found.weights(TASK)),
        "open and one network": anew(lambda found: found[TASK, middle]),
        "all weights": lambda: dataset.weights(TASK),
        "weights of the test split": lambda: dataset.weights(TASK, "test"),
        "one network": lambda: dataset[TASK, middle],
        "all networks, one after another": lambda: sum(1 for _ in dataset),
        "all rows": lambda: dataset.rows(TASK),
    }
    return {name: timed(action, rounds) for name, action in actions.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--folder", type=Path, help="where the dataset is, or is made")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary) / "synthetic"
        if not folder.exists():
            make(folder, options.networks)
        figures = measure(folder, options.rounds)
        networks = len(tinymlds.open(folder))
    for name, found in figures.items():
        print(f"{name:32} {found['seconds'] * 1e3:8.1f} ms, CPU {found['cpu_seconds'] * 1e3:8.1f} ms")
    if options.json:
        about: dict[str, Any] = {"machine": machine.describe(), "networks": networks, "rounds": options.rounds}
        options.json.write_text(json.dumps({**about, "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
