"""Our trainer and PyTorch's on the same work in one run.

    python bench/compare.py [--networks 20] [--rounds 9] [--compiled] [--rivals]

(in a checkout that is not installed: `PYTHONPATH=. python bench/compare.py`)

1. Training steps for several batch sizes, and for another length and other widths. The rivals take turns, first one and
   then the other ahead; a ratio is the median over the turns of the ratio within a turn, with the least and the greatest
   behind it.
2. Networks to the threshold of the recipe, network by network in turns.
3. Our share of the core's peak of fused multiply-adds (see `peak.py`).
4. With `--rivals`: PyTorch with many networks stacked by hand, and JAX with one network and with many (see `rivals.py`;
   JAX has to be installed), for several numbers of networks and ways to unroll.

Times are CPU seconds of this process: all rivals run on one thread, and a busy neighbour on the machine costs them less
than it would in wall time. It still costs, and PyTorch more than us (its step goes through far more code and memory), so
a ratio from a busy machine flatters us: look at our share of the peak, which is highest when the machine is quiet.

Compilation and warm-up are apart. The table goes to stdout, progress to stderr, and the figures with the machine to a
JSON file in bench/results/.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import machine
import numpy as np
from peak import measure_peak, products
from rich.console import Console
from rich.table import Table
from steps import GRID, LOSS_TOLERANCE, RIVALS, SEED, TASK, WEIGHT_TOLERANCE, Stepper, cpu_seconds, warm_up

from tinymlds.spec import Recipe, Setting
from tinymlds.training.loop import Outcome, train_networks

RESULTS = Path(__file__).parent / "results"
FIRST_STEPS = 8
NETWORKS_AT_ONCE = (8, 32)
UNROLLED = (1, 16)
BATCHES_OF_RIVALS = (32, 128)
TURN_SECONDS = 0.15
"""CPU seconds that each rival works in a turn, at least."""

Figures = dict[str, Any]


def note(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def other_trainers(recipe: Recipe) -> dict[str, Callable[[], Any]]:
    """Name -> steps of one network in JAX, or of many at once, in JAX and in PyTorch."""
    from rivals import Jax, Population, StackedTorch

    def stacked(count: int) -> StackedTorch:
        return StackedTorch(Population(TASK, SEED, recipe, count))

    def jax(count: int, unroll: int) -> Jax:
        return Jax(Population(TASK, SEED, recipe, count), unroll)

    result: dict[str, Callable[[], Any]] = {f"torch, {n} stacked": partial(stacked, n) for n in NETWORKS_AT_ONCE}
    for count in (1, *NETWORKS_AT_ONCE):
        for unroll in UNROLLED:
            name = f"jax, {f'vmap over {count}' if count > 1 else 'one network'}, unroll {unroll}"
            result[name] = partial(jax, count, unroll)
    return result


def compare_steps(recipe: Recipe, makers: dict[str, Callable[[], Any]], rounds: int) -> Figures:
    """Sample-steps per second of each rival, and the ratios of ours, the first, to the others."""
    names, architecture = list(makers), recipe.architecture
    size = f"{architecture.name}, T = {recipe.steps}, B = {recipe.batch}, H = {architecture.hidden}"
    steppers = {name: make() for name, make in makers.items()}
    first = {name: stepper(FIRST_STEPS) for name, stepper in steppers.items()}
    for name in names[1:]:
        losses = first[names[0]], first[name].reshape(FIRST_STEPS, -1)[:, 0]  # of network 0, where there are many
        np.testing.assert_allclose(*losses, rtol=LOSS_TOLERANCE, err_msg=f"{size}, {name}")
        weights = steppers[names[0]].weights, np.atleast_2d(steppers[name].weights)[0]
        np.testing.assert_allclose(*weights, rtol=0.0, atol=WEIGHT_TOLERANCE, err_msg=f"{size}, {name}")
    repeats = {name: _repeats(stepper) for name, stepper in steppers.items()}
    for name, stepper in steppers.items():
        stepper(repeats[name])  # JAX compiles for every number of steps
    rates: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else names[::-1]:
            stepper, steps = steppers[name], repeats[name]
            rates[name].append(steps * stepper.sample_steps / cpu_seconds(lambda: stepper(steps)))  # noqa: B023
    ours = rates[names[0]]
    ratios = {name: sorted(a / b for a, b in zip(ours, rates[name], strict=True)) for name in names[1:]}
    return {
        **{"size": size, "steps": recipe.steps, "batch": recipe.batch, "hidden": recipe.architecture.hidden},
        "sample_steps_per_second": {name: median(values) for name, values in rates.items()},
        "ratio": {name: median(values) for name, values in ratios.items()},
        "ratio_range": {name: [values[0], values[-1]] for name, values in ratios.items()},
        "ratio_of_fastest": {name: max(ours) / max(rates[name]) for name in names[1:]},
        "loss_after_first_steps": {name: float(losses[-1].flat[0]) for name, losses in first.items()},
    }


def _repeats(stepper: Stepper) -> int:
    """Steps that fill a turn."""
    return math.ceil(FIRST_STEPS * TURN_SECONDS / cpu_seconds(lambda: stepper(FIRST_STEPS)))


def compare_thresholds(names: list[str], networks: int) -> Figures:
    """CPU seconds and epochs of networks 0, 1, ... to the threshold, network by network in turns."""
    backends = {name: RIVALS[name]() for name in names}
    for backend in backends.values():
        warm_up(backend)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    for index in range(networks):
        for name, backend in backends.items():
            start = time.process_time()
            outcomes[name] += train_networks(backend, Setting(TASK, SEED, Recipe()), range(index, index + 1))
            seconds[name].append(time.process_time() - start)
        note(f"network {index}: " + ", ".join(f"{name} {values[-1]:.2f} s" for name, values in seconds.items()))
    total = {name: sum(values) for name, values in seconds.items()}
    return {
        "task": TASK,
        "networks": networks,
        "seconds": seconds,
        "epochs": {name: [outcome.epochs for outcome in found] for name, found in outcomes.items()},
        "statuses": {name: sorted({str(outcome.status) for outcome in found}) for name, found in outcomes.items()},
        "networks_per_hour": {name: 3600.0 * networks / value for name, value in total.items()},
        "ratio": {name: total[name] / total[names[0]] for name in names[1:]},
    }


def table(figures: Figures, names: list[str]) -> Table:
    """The figures for people."""
    result = Table(title=f"tinymlds and PyTorch, one thread each, {figures['machine']['cpu']}")
    others = names[1:]
    for column in ("work", "unit", *names, *(f"ratio to {name}" for name in others), "share of peak"):
        result.add_column(column, justify="left" if column in ("work", "unit") else "right")
    for row in figures["steps"]:
        rates = [f"{row['sample_steps_per_second'][name] / 1e6:.3f}" for name in names]
        ratios = ["{:.1f} ({:.1f}-{:.1f})".format(row["ratio"][name], *row["ratio_range"][name]) for name in others]
        result.add_row(f"step, {row['size']}", "M sample-steps/s", *rates, *ratios, f"{row['share_of_peak']:.1%}")
    if (found := figures.get("threshold")) is None:
        return result
    rates = [f"{found['networks_per_hour'][name]:,.0f}" for name in names]
    ratios = [f"{found['ratio'][name]:.1f}" for name in others]
    result.add_row(f"{found['networks']} {TASK} networks to the threshold", "networks/h", *rates, *ratios, "")
    epochs = [f"{np.mean(found['epochs'][name]):.1f}" for name in names]
    result.add_row("", "epochs, mean", *epochs, *[""] * len(others), "")
    return result


def rivals_table(figures: Figures) -> Table:
    """The rivals for people."""
    result = Table(title="The rivals: M sample-steps/s, all networks together, and our ratio to them")
    result.add_column("rival")
    for row in figures["rivals"]:
        result.add_column(f"B = {row['batch']}", justify="right")
        result.add_column("ratio", justify="right")
    for name in figures["rivals"][0]["sample_steps_per_second"]:
        cells = [name]
        for row in figures["rivals"]:
            ratio = (
                "{:.1f} ({:.1f}-{:.1f})".format(row["ratio"][name], *row["ratio_range"][name])
                if name in row["ratio"]
                else ""
            )
            cells += [f"{row['sample_steps_per_second'][name] / 1e6:.3f}", ratio]
        result.add_row(*cells)
    return result


def measure(names: list[str], networks: int, rounds: int, with_rivals: bool, grid: Sequence[Recipe]) -> Figures:
    """All figures of a run."""
    figures: Figures = {"date": datetime.now().astimezone().isoformat(timespec="seconds"), "machine": machine.describe()}
    per_sample_step, peak = products(Recipe().architecture, Recipe().steps), measure_peak()
    figures["peak"] = {"fused_multiply_adds_per_second": peak, "fused_multiply_adds_per_sample_step": per_sample_step}
    figures["steps"] = []
    for recipe in grid:
        row = compare_steps(recipe, {name: partial(_stepper, name, recipe) for name in names}, rounds)
        needed = products(recipe.architecture, recipe.steps)
        row["share_of_peak"] = row["sample_steps_per_second"][names[0]] * needed / peak
        note(f"steps, {row['size']}: {row['ratio']}")
        figures["steps"].append(row)
    if with_rivals:
        figures["rivals"] = []
        for batch in BATCHES_OF_RIVALS:
            note(f"rivals at B = {batch}")
            recipe = replace(Recipe(), batch=batch)
            makers = {"tinymlds": partial(_stepper, "tinymlds", recipe), **other_trainers(recipe)}
            figures["rivals"].append(compare_steps(recipe, makers, rounds))
    if networks:
        figures["threshold"] = compare_thresholds(names, networks)
    return figures


def _stepper(name: str, recipe: Recipe) -> Stepper:
    return Stepper(RIVALS[name](), recipe)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the trainer with PyTorch's on the same work.")
    parser.add_argument("--networks", type=int, default=20, help="networks to train to the threshold (20)")
    parser.add_argument("--architecture", help="training steps of this one only (all)")
    parser.add_argument("--rounds", type=int, default=9, help="turns of each rival for the training steps (9)")
    parser.add_argument("--compiled", action="store_true", help="also torch.compile, which compiles for some minutes first")
    parser.add_argument("--rivals", action="store_true", help="also JAX, and many networks at once in JAX and in PyTorch")
    arguments = parser.parse_args()
    names = ["tinymlds", "torch"] + ["torch compiled"] * arguments.compiled
    grid = [each for each in GRID if arguments.architecture in (None, each.architecture.name)]
    figures = measure(names, arguments.networks, arguments.rounds, arguments.rivals, grid)
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table(figures, names))
    if arguments.rivals:
        console.print(rivals_table(figures))
    peak = figures["peak"]
    console.print(
        f"A trained sample-step is {peak['fused_multiply_adds_per_sample_step']:,.0f} fused multiply-adds in products; "
        f"the core's peak is {peak['fused_multiply_adds_per_second'] / 1e9:.1f} G/s."
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"compare-{datetime.now():%Y-%m-%d-%H%M}.json"
    path.write_text(json.dumps(figures, indent=1) + "\n")
    note(f"written: {path}")


if __name__ == "__main__":
    main()
