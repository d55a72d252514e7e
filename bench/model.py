"""Where the time of training goes, stage by stage, against what the core can do.

    python bench/model.py [--steps 16] [--batch 128] [--hidden 12] [--json FILE]

A minibatch goes through its stages again and again, and stops after the first, after the second, and so on; the difference
between two such times is what a stage takes, with caches as full as in training (the median over the rounds). Fused
multiply-adds are those of matrix products (see `peak.py`); "GB/s at least" counts what a stage reads and writes of buffers
and parameters as if it touched each number once. Activations are timed once more by themselves, on the same buffers.
Then a whole epoch with the default number of sequences: order, training steps, validation, everything else.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import machine
import numpy as np
from numba import njit
from peak import head_products, layer_products, measure_peak
from rich.console import Console
from rich.table import Table
from steps import SEED, TASK, cpu_seconds

from tinymlds.architectures import params
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.kernels import BLOCK, LANES, minibatch, rng
from tinymlds.kernels.block import MATH, OPTIONS
from tinymlds.kernels.lanes import load, store
from tinymlds.kernels.optimizers import Optimizer
from tinymlds.kernels.recurrent.cells import gru_cell
from tinymlds.kernels.recurrent.passes import stages
from tinymlds.spec import Recipe, Setting
from tinymlds.training import data, loop
from tinymlds.training.backends.cpu import CpuBackend, CpuNetwork

ROUNDS = 25
LEAST_SECONDS = 0.01
NOISE = 0.01
"""Share of a minibatch below which the time of a stage is too uncertain for a rate."""


class Stage(NamedTuple):
    """A stage of a minibatch: fused multiply-adds of products, and floats that it touches."""

    name: str
    products: float
    floats: int


def model(recipe: Recipe) -> list[Stage]:
    """What each stage of a minibatch has to do, in the order of `runner`."""
    shape, samples = recipe.architecture, recipe.batch * recipe.steps
    H, L, P = shape.hidden, shape.layers, shape.size
    inputs, lines = sum(shape.layer_inputs), shape.inputs + shape.outputs
    gru, maps = samples * layer_products(shape, recipe.steps), samples * head_products(shape)
    head = sum((H + 1) * outputs for outputs in shape.map_outputs)
    return [
        Stage("start (zeroes, product of the maps)", 0, P + head),
        Stage("gather (bits to lanes)", 0, samples * lines),
        Stage("GRU forward", gru, samples * (inputs + 5 * H * L)),
        Stage("head forward", maps, samples * (H + shape.outputs)),
        Stage("loss", 0, samples * 3 * shape.outputs),
        Stage("head backward", 2 * maps, samples * (2 * H + shape.outputs)),
        Stage("GRU backward through time", gru - samples * 3 * H * shape.inputs, samples * (11 * L - 1) * H),
        Stage("GRU gradients of the weights", gru, samples * (inputs + 5 * H * L)),
        Stage("finish (gradients of the maps)", 0, 2 * head),
        Stage("Adam", 0, 7 * P),
    ]


class Runner:
    """Runs the stages of a minibatch up to number `last`, again and again, on the buffers of a network."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe, self._problem = recipe, data.problem(Setting(TASK, SEED, recipe))
        self._order = np.arange(recipe.batch, dtype=np.uint32)
        self._factors, _ = recipe.optimizer.factors(recipe.lr, recipe.optimizer.start, 1)
        self._run = _stages_until(recipe.architecture, type(recipe.optimizer))
        trained, self.network = self._fresh(), self._fresh()
        trained.epoch(self._order, recipe.lr)
        self(1, 9)
        if trained.weights.tobytes() != self.network.weights.tobytes():
            raise AssertionError("the stages here are not those of the trainer")

    def _fresh(self) -> CpuNetwork:
        weights = params.initial(self._recipe.architecture, rng.stream_key(SEED, TASK), 0)
        return CpuNetwork(self._problem, weights)

    def __call__(self, repeats: int, last: int) -> None:
        recipe, network = self._recipe, self.network
        arguments = recipe.steps, recipe.batch, network._state, self._problem.train, self._order, self._factors[0]
        self._run(repeats, last, *arguments, network._fixed, network._work)


def _stages_until(shape: GruLinear, optimizer: type[Optimizer]) -> Any:
    LAYERS = shape.layers
    start, layers_forward, head_forward, head_backward, layer_backward, layer_gradient, finish = stages(shape)
    clear, gather, error = minibatch.surroundings(shape.inputs, shape.outputs)
    update = minibatch.update_of(shape, optimizer)

    @njit(**OPTIONS)
    def run(repeats, last, T, batch, state, sequences, order, factors, fixed, work):  # type: ignore[no-untyped-def]
        total = np.float32(0.0)
        for _ in range(repeats):
            clear(work)
            start(state.p, work)
            for done in range(0, batch, BLOCK):
                live = min(BLOCK, batch - done)
                if last >= 1:
                    gather(T, sequences, order, done, live, work)
                if last >= 2:
                    layers_forward(T, state.p, work)
                if last >= 3:
                    head_forward(T, state.p, work)
                if last >= 4:
                    total += error(T, live, fixed.mean[1], work)
                if last >= 5:
                    head_backward(T, state.p, work)
                if last >= 6:
                    for layer in range(LAYERS - 1, -1, -1):
                        layer_backward(layer, T, state.p, work)
                        if last >= 7:
                            layer_gradient(layer, T, work)
            if last >= 8:
                finish(state.p, work)
            if last >= 9:
                update(state, work, fixed.optimizer, factors)
        return total

    return run


def activations(recipe: Recipe, work: minibatch.Work) -> Callable[[int], Any]:
    """A function of `repeats` that runs the gates of a minibatch forwards, over its buffers, without the products."""
    shape, T, blocks = recipe.architecture, recipe.steps, -(-recipe.batch // BLOCK)
    row, layers = shape.hidden * BLOCK, shape.layers
    gru_gates, gru_state, _ = gru_cell(MATH)

    @njit(**OPTIONS)
    def run(repeats, gates, hidden):  # type: ignore[no-untyped-def]
        for _ in range(repeats * blocks):
            for step in range(layers * T):
                r, h = step * 4 * row, (step + step // T) * row  # a layer has T + 1 rows of h
                for e in range(r, r + row, LANES):
                    reset, update = gru_gates(load(gates, e), load(gates, e + row))
                    store(gates, e, reset)
                    store(gates, e + row, update)
                for e in range(0, row, LANES):
                    at = r + e
                    reset, update, q, an = (
                        load(gates, at), load(gates, at + row), load(gates, at + 2 * row), load(gates, at + 3 * row)
                    )  # fmt: skip
                    candidate, new = gru_state(reset, update, an, q, load(hidden, h + e))
                    store(gates, r + 3 * row + e, candidate)
                    store(hidden, h + row + e, new)

    return lambda repeats: run(repeats, work.own.gates, work.own.hidden)


def measure_stages(recipe: Recipe) -> dict[str, Any]:
    """Seconds of each stage of a minibatch, and of the activations alone."""
    todo, run = model(recipe), Runner(recipe)
    gates = activations(recipe, run.network._work)
    gates(1)
    repeats = max(1, round(LEAST_SECONDS / (cpu_seconds(lambda: run(10, 9)) / 10)))
    rounds, alone = [], []
    for _ in range(ROUNDS):
        rounds.append([cpu_seconds(lambda: run(repeats, last)) / repeats for last in range(len(todo))])  # noqa: B023
        alone.append(cpu_seconds(lambda: gates(repeats)) / repeats)
    ends = np.array(rounds)
    spent = np.median(np.diff(ends, axis=1, prepend=0.0), axis=0)
    return {
        "seconds": float(np.median(ends[:, -1])),
        "stages": [
            {"name": stage.name, "seconds": float(time), "products": stage.products, "bytes": 4 * stage.floats}
            for stage, time in zip(todo, spent, strict=True)
        ],
        "activations_alone": median(alone),
    }


def measure_epoch(recipe: Recipe) -> dict[str, float]:
    """Seconds of what an epoch of the trainer consists of."""
    backend, key = CpuBackend(), rng.stream_key(SEED, TASK)
    problem = data.problem(Setting(TASK, SEED, recipe))
    network = backend.network(problem, params.initial(recipe.architecture, key, 0))
    order = rng.permutation(key, 0, 1, recipe.train_sequences)
    network.epoch(order[: recipe.batch], recipe.lr)
    network.validation_loss()
    three = replace(recipe, max_epochs=3, threshold=1e-30)
    rounds = []
    for _ in range(5):
        parts = {
            "order": cpu_seconds(lambda: rng.permutation(key, 0, 1, recipe.train_sequences)),
            "training steps": cpu_seconds(lambda: network.epoch(order, recipe.lr)),
            "validation": cpu_seconds(network.validation_loss),
            "epoch": cpu_seconds(lambda: list(loop.train_networks(backend, Setting(TASK, SEED, three), range(1)))) / 3,
        }
        rounds.append(parts)
    result = {name: median(parts[name] for parts in rounds) for name in rounds[0]}
    result["everything but training steps"] = 1.0 - result["training steps"] / result["epoch"]
    return result


def table(figures: dict[str, Any]) -> Table:
    """The stages for people."""
    recipe, total, peak = figures["recipe"], figures["seconds"], figures["peak"]
    result = Table(title="A minibatch, T = {steps}, B = {batch}, H = {hidden}, stage by stage".format(**recipe))
    for column in ("stage", "us", "share", "G fma/s", "of peak", "GB/s at least"):
        result.add_column(column, justify="left" if column == "stage" else "right")
    for stage in figures["stages"]:
        cells = [stage["name"], f"{stage['seconds'] * 1e6:.1f}", f"{stage['seconds'] / total:.1%}"]
        if stage["seconds"] > NOISE * total:
            rate = stage["products"] / stage["seconds"]
            cells += (f"{rate / 1e9:.1f}", f"{rate / peak:.0%}") if rate else ("", "")
            cells += (f"{stage['bytes'] / stage['seconds'] / 1e9:.0f}",)
        result.add_row(*cells)
    rate = sum(stage["products"] for stage in figures["stages"]) / total
    result.add_section()
    result.add_row("all", f"{total * 1e6:.1f}", "", f"{rate / 1e9:.1f}", f"{rate / peak:.0%}", "")
    alone = figures["activations_alone"]
    result.add_row("activations of the GRU forward, alone", f"{alone * 1e6:.1f}", f"{alone / total:.1%}", "", "", "")
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--batch", type=int, default=Recipe().batch)
    parser.add_argument("--hidden", type=int, default=Recipe().hidden)
    parser.add_argument("--json", type=Path, help="write the figures here")
    options = parser.parse_args()
    recipe = Recipe.of(steps=options.steps, batch=options.batch, hidden=options.hidden)
    recipe = replace(recipe, train_sequences=recipe.train_sequences // recipe.batch * recipe.batch)
    small = replace(recipe, train_sequences=max(1, 4096 // recipe.batch) * recipe.batch)
    size = {"steps": recipe.steps, "batch": recipe.batch, "hidden": recipe.architecture.hidden}
    figures = {"machine": machine.describe(), "recipe": size, "peak": measure_peak(), **measure_stages(small)}
    figures["sample_steps_per_second"] = recipe.batch * recipe.steps / figures["seconds"]
    figures["epoch"] = measure_epoch(recipe)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table(figures))
    console.print(
        f"{figures['sample_steps_per_second'] / 1e6:.2f} M sample-steps/s; peak {figures['peak'] / 1e9:.1f} G fma/s; "
        f"{figures['machine']['cpu']}"
    )
    console.print("An epoch, seconds: " + ", ".join(f"{name} {value:.4f}" for name, value in figures["epoch"].items()))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
