"""How long it takes to merge parts of a dataset, and how much memory: with few networks and with many.

    python bench/merging.py [--networks 2000 8000] [--parts 8] [--workers 1] [--json bench/results/merging.json]

The networks are real, of the recipe's shape, trained for one epoch of few sequences, so that making them takes minutes;
what `merge` does (hashes, one validation loss and the figures of each network, journal, sealing) is what it does with any.
Each merge runs in a process of its own, whose largest resident memory is read at the end, and before it merges.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

import tinymlds

RECIPE: dict[str, Any] = {"train_sequences": 64, "max_epochs": 1}
TASK = "xor"


def peak_megabytes() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def merge_here(folders: list[str], out: str, workers: int) -> None:
    """Merge in this process, and print the figures."""
    from tinymlds.verification import merging

    tinymlds.verify(folders[0], workers=workers)  # compiles or loads the kernels, and opens a part
    before, start, used = peak_megabytes(), time.perf_counter(), time.process_time()
    result = merging.merge(folders, out, workers=workers)
    figures = {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - used}
    print(json.dumps({**figures, "megabytes": peak_megabytes(), "megabytes_before": before, "digest": result.digest}))


def measure(folder: Path, networks: int, parts: int, workers: int) -> dict[str, Any]:
    """Make the parts, merge them, and verify what came out."""
    made = [
        tinymlds.train(TASK, networks, folder / f"{k}", part=(k, parts), workers=workers, **RECIPE).folder
        for k in range(1, parts + 1)
    ]
    command = [sys.executable, __file__, "--workers", str(workers), "--here", str(folder / "all"), *map(str, made)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    if figures["digest"] is None or not tinymlds.verify(folder / "all", workers=workers).ok:
        raise SystemExit("what was merged is not right")
    size = sum(path.stat().st_size for path in (folder / "all").rglob("*") if path.is_file())
    return {"networks": networks, "parts": parts, "megabytes_on_disk": size / 1e6, **figures}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=int, nargs="+", default=[2000, 8000])
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        merge_here(options.here[1:], options.here[0], options.workers)
        return
    found = []
    for networks in options.networks:
        with tempfile.TemporaryDirectory() as temporary:
            found.append(measure(Path(temporary), networks, options.parts, options.workers))
        figures = found[-1]
        times = f"{figures['seconds']:.1f} s, CPU {figures['cpu_seconds']:.1f} s"
        memory = f"{figures['megabytes']:.0f} MB at most ({figures['megabytes_before']:.0f} MB before)"
        print(f"{networks} networks in {options.parts} parts: {times}, {memory}", flush=True)
    if options.json:
        about = {"machine": machine.describe(), "workers": options.workers, "recipe": RECIPE}
        options.json.write_text(json.dumps({**about, "figures": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
