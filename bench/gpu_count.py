"""What the CUDA kernel executes, without a GPU: instructions and bytes of a trained sample-step, counted while it runs.

    python bench/gpu_count.py [--steps 16] [--batch 32] [--minibatches 8]

(in a checkout that is not installed: `PYTHONPATH=. python bench/gpu_count.py`; numba-cuda has to be installed)

The code is what NVVM compiles for compute capability 9.0, run by `tests/ptx.py`. Instructions are those of PTX, by warps (a
division is one here and about ten in machine code); memory is counted in sectors of 32 bytes that a warp touches. From them
come the limits of a card: what it could make if nothing but issuing instructions, or nothing but loads and stores of the
first-level cache, took any time. The JSON goes to bench/results/.
"""

import argparse
import json
import re
import sys
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import machine
import numpy as np
from peak import products
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
sys.path.insert(0, str(ROOT / "tests"))

import ptx  # noqa: E402
from test_ptx import KEY, ptx_of, run  # noqa: E402

from tinymlds.architectures import params  # noqa: E402
from tinymlds.spec import Recipe, Setting  # noqa: E402, Setting
from tinymlds.training import data  # noqa: E402

CARD = "H100 SXM"
MULTIPROCESSORS, CLOCK, SCHEDULERS, BYTES_PER_SECOND = 132, 1.755e9, 4, 3.35e12
SECTOR = 32
FIRST_LEVEL_SECTORS = 4
"""That a multiprocessor's first-level cache and shared memory hand out in a cycle."""


COUNTS: defaultdict[str, Counter[str]] = defaultdict(Counter)
"""By the name of a function."""


class Counting(ptx._Frame):
    """A frame that counts what it executes."""

    def execute(self, instruction: ptx.Instruction, chosen: np.ndarray) -> None:
        name, found = instruction.name, COUNTS[self.function.name]
        warps = chosen // 32
        number = np.unique(warps).size
        found["instructions"] += number
        if name[0] == "fma":
            found["fma"] += number
        elif name[0] == "shfl":
            found["exchanges"] += number
        elif name[0] in ("ld", "st") and name[1] not in ("param", "local"):
            space = name[1] if name[1] == "shared" else "global"
            address = self._address(instruction.operands[name[0] == "ld"])[chosen].astype(np.int64)
            both = np.concatenate([address, address + 4]) if "v2" in name else address
            of = np.concatenate([warps, warps]) if "v2" in name else warps
            found[f"{space} {'loads' if name[0] == 'ld' else 'stores'}"] += number
            found[f"{space} {'loaded' if name[0] == 'ld' else 'stored'} sectors"] += np.unique(
                of.astype(np.int64) << 40 | both // SECTOR
            ).size
        super().execute(instruction, chosen)


def count(recipe: Recipe) -> dict[str, dict[str, float]]:
    """Per trained sample-step, by function. A validation of one sequence, and so one block, comes with it."""
    ptx._Frame = Counting  # type: ignore[misc]
    problem = data.problem(Setting("xor", 0, recipe))
    run(ptx_of("default"), problem, params.initial(recipe.architecture, KEY, 0), 0, KEY, 1, recipe.lr_at, races=False)
    work = recipe.train_sequences * recipe.steps
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, counted in COUNTS.items():
        found[_short(name)].update(counted)
    result = {name: {key: value / work for key, value in counted.items()} for name, counted in found.items()}
    return dict(sorted(result.items(), key=lambda item: -item[1]["instructions"]))


def _short(name: str) -> str:
    """`layer forward` from Numba's mangled name."""
    match = re.search(r"3gpu\d+[a-z]+\d+_?([a-z_]+?)(?:12_3clocals_3e\d*)([a-z_]+?)B", name)
    assert match, name
    return match[2] if match[1] in {"train", "minibatch"} else f"{match[1]} {match[2]}"


def limits(total: dict[str, float]) -> dict[str, float]:
    """Trained sample-steps per second of the card, by what could hold it up."""
    cycles = MULTIPROCESSORS * CLOCK
    sectors = sum(value for key, value in total.items() if key.endswith("sectors"))
    return {
        "issuing instructions": cycles * SCHEDULERS / total["instructions"],
        "fused multiply-adds": cycles * SCHEDULERS / total["fma"],
        "first-level cache and shared memory": cycles * FIRST_LEVEL_SECTORS / sectors,
        "stores to device memory": BYTES_PER_SECOND / (SECTOR * total["global stored sectors"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--minibatches", type=int, default=8)
    parser.add_argument("--out", type=Path, default=RESULTS / f"gpu-count-{datetime.now():%Y-%m-%d}.json")
    arguments = parser.parse_args()
    recipe = Recipe.of(
        steps=arguments.steps,
        batch=arguments.batch,
        train_sequences=arguments.minibatches * arguments.batch,
        validation_sequences=1,
        max_epochs=1,
    )
    found = count(recipe)
    keys = sorted({key for counted in found.values() for key in counted})
    total = {key: sum(counted.get(key, 0.0) for counted in found.values()) for key in keys}
    figures: dict[str, Any] = {
        "command": " ".join(["python", "bench/gpu_count.py", *sys.argv[1:]]),
        "machine": machine.describe(),
        "per_sample_step": found,
        "total": total,
        "products": products(recipe.architecture, recipe.steps),
        "card": {"name": CARD, "multiprocessors": MULTIPROCESSORS, "clock": CLOCK, "bytes_per_second": BYTES_PER_SECOND},
        "limits": limits(total),
    }
    arguments.out.write_text(json.dumps(figures, indent=1) + "\n")
    table = Table(title="warp instructions of a trained sample-step")
    shown = ["instructions", "fma", "exchanges", *(key for key in keys if "sectors" in key)]
    for column in ("function", *shown):
        table.add_column(column, justify="left" if column == "function" else "right")
    for name, counted in [*found.items(), ("all", total)]:
        table.add_row(name, *(f"{counted.get(key, 0.0):.1f}" for key in shown))
    Console(width=150).print(table)
    for name, rate in figures["limits"].items():
        print(f"{CARD}, {name}: at most {rate / 1e9:.2f} G sample-steps/s")
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
