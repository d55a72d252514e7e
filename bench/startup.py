"""How long one waits before the first network, and how much memory a worker takes.

    python bench/startup.py [--rounds 5] [--json FILE]

Everything runs in processes of its own; "cold" has an empty cache of compiled kernels, "warm" the one that it left. The
memory is the largest resident size that any worker of a run of `count` networks has had (not on Windows).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import machine

HIDDEN = (12, 32, 64)
COUNTS = (20, 200)
CLI = "import sys; from tinymlds.cli import main; sys.argv[0] = 'tinymlds'; main()"
PREPARE = """
import time
from tinymlds.training.backends.cpu import CpuBackend
from tinymlds.architectures.recurrent import GruLinear
start = time.perf_counter()
CpuBackend().prepare(GruLinear(hidden={hidden}))
print(time.perf_counter() - start)
"""
MEMORY = """
import resource, sys, tinymlds
if __name__ == "__main__":
    tinymlds.train(machine="direct", count={count}, out=sys.argv[1], workers=2)
    print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


def run(*arguments: str, cache: str | None = None) -> str:
    """What python prints with these arguments."""
    environment = os.environ | {"PYTHONPATH": str(machine.ROOT)} | ({"NUMBA_CACHE_DIR": cache} if cache else {})
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True, env=environment)
    return done.stdout


def seconds(*arguments: str, cache: str | None = None) -> float:
    """Wall seconds of a python process."""
    start = time.perf_counter()
    run(*arguments, cache=cache)
    return time.perf_counter() - start


def measure(rounds: int) -> dict[str, Any]:
    """All figures, in seconds and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        cache, numbers = f"{folder}/cache", iter(range(1000))
        train = ("-c", CLI, "train", "--machine", "direct", "--count", "1", "--workers", "1", "--quiet", "--out")
        figures: dict[str, Any] = {
            "python alone": median(seconds("-c", "pass") for _ in range(rounds)),
            "import tinymlds": median(seconds("-c", "import tinymlds") for _ in range(rounds)),
            "--help": median(seconds("-c", CLI, "--help") for _ in range(rounds)),
            "first network, cold": seconds(*train, f"{folder}/cold", cache=cache),
            "first network, warm": median(seconds(*train, f"{folder}/{next(numbers)}", cache=cache) for _ in range(rounds)),
        }
        for hidden in HIDDEN:
            program = PREPARE.format(hidden=hidden)
            figures[f"compilation, H = {hidden}"] = float(run("-c", program, cache=f"{folder}/{hidden}"))
        for count in COUNTS if sys.platform != "win32" else ():
            script = Path(folder) / f"memory{count}.py"
            script.write_text(MEMORY.format(count=count))
            figures[f"worker's memory, {count} networks"] = int(run(str(script), f"{folder}/m{count}", cache=cache))
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures = measure(options.rounds)
    for name, value in figures.items():
        print(f"{name:32} {value:6.2f} s" if isinstance(value, float) else f"{name:32} {value / 1e6:6.0f} MB")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine.describe(), "figures": figures}, indent=1) + "\n")


if __name__ == "__main__":
    main()
