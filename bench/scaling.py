"""Epochs per second of 1, 2, ... worker processes together: does a second core double the speed?

    python bench/scaling.py [--workers 1 2 4] [--rounds 5] [--json FILE]

Every number of workers trains for some seconds in each round, in turn; the ratio is that of the medians to the first.
"""

import argparse
import json
from pathlib import Path
from statistics import median

import machine

from tinymlds.runs.dry_run import epochs_per_second
from tinymlds.runs.train import available_cpus
from tinymlds.spec import Recipe

TASK, SEED = "xor", 0


def main() -> None:
    cpus = available_cpus()
    powers = [2**k for k in range(cpus.bit_length()) if 2**k <= cpus]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=powers)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    rates: dict[int, list[float]] = {workers: [] for workers in options.workers}
    for _ in range(options.rounds):
        for workers, found in rates.items():
            found.append(epochs_per_second(TASK, SEED, Recipe(), "cpu", workers))
    first = median(rates[options.workers[0]])
    for workers, found in rates.items():
        rate = median(found)
        spread = f"{min(found):.2f} - {max(found):.2f}"
        print(
            f"{workers} workers: {rate:.2f} epochs/s ({spread}), {rate / first:.2f} times as many as {options.workers[0]}"
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine.describe(), "epochs_per_second": rates}, indent=1) + "\n")


if __name__ == "__main__":
    main()
