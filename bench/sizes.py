"""How large a package is: the shards of weights beside the floats in them, and everything else.

    python bench/sizes.py [--make ds2:100 ds3:20 ds3:5] [--workers 2] [--json FILE]

Sizes do not depend on the values, so every network is trained for one epoch on a few sequences of the recipe's length; what
is stored of the sequences is as small, so only the figures for weights, losses and the manifest are those of a real
dataset. "ds3:20" is dataset 3 with twenty networks of each task.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import machine

import tinymlds
from tinymlds.dataset import store

SHORT = {"train_sequences": 64, "validation_sequences": 32, "max_epochs": 1}
KINDS = ("networks", "losses", "data")


def size(folder: Path, pattern: str) -> int:
    """Bytes of the files that a pattern finds."""
    return sum(path.stat().st_size for path in folder.rglob(pattern) if path.is_file())


def measure(tasks: str, count: int, place: Path, workers: int) -> dict[str, Any]:
    """Make a dataset and its package, and look at their files."""
    folder, package = place / tasks, place / "package"
    tinymlds.train(dataset=tasks, count=count, out=folder, workers=workers, **SHORT)
    tinymlds.package([folder], package, workers=workers)
    dataset = tinymlds.open(package)
    inner = dataset.folder
    found = {f"{kind} bytes": size(inner / kind, "*.safetensors") for kind in KINDS}
    floats = 4 * dataset.architecture.size * len(dataset)
    found |= {"manifest bytes": (inner / store.MANIFEST).stat().st_size, "package bytes": size(package, "*")}
    shards = len(list((inner / "networks").iterdir()))
    ratio = found["networks bytes"] / floats
    about = {"dataset": tasks, "tasks": len(dataset.tasks), "networks of each": count, "shards": shards}
    return {**about, "float bytes": floats, **found, "ratio": round(ratio, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--make", nargs="+", default=["ds2:100", "ds3:20", "ds3:5"], metavar="DATASET:COUNT")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    found = []
    for asked in options.make:
        tasks, count = asked.split(":")
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as temporary:
            found.append(measure(tasks, int(count), Path(temporary), options.workers))
        each = found[-1]
        print(
            f"{tasks}, {each['tasks']} x {count}: {each['shards']} shards of {each['networks bytes']:,} bytes for "
            f"{each['float bytes']:,} bytes of floats, ratio {each['ratio']:.3f} ({time.perf_counter() - start:.0f} s)",
            flush=True,
        )
    if options.json:
        options.json.write_text(json.dumps({"machine": machine.describe(), "packages": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
