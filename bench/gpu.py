"""A GPU, in one command: the same bits as the CPU's, then the speed, beside the best that PyTorch and JAX can do there.

    python bench/gpu.py [--networks 1 8 64 512 2048 8192] [--batches 32 128] [--rounds 5] [--whole] [--smoke]

(in a checkout that is not installed: `PYTHONPATH=. python bench/gpu.py`)

1. Parity: for several shapes the gradients of a minibatch, and losses and weights of two epochs, bit by bit with the CPU's.
   If a bit differs, nothing is measured.
2. Training, for numbers of networks and batch sizes: this backend; PyTorch's nn.GRU with cuDNN, one network at a time; the
   networks stacked by hand in PyTorch (bmm, fused Adam, a step as a CUDA graph); JAX, `vmap` over the networks, minibatches
   and steps scanned in one `jit`. Same sequences, initial weights, orders and recipe, all in float32 (no TF32); a rival
   whose first losses are others does not count. Rates are trained sample-steps per second of wall time, medians.
3. With `--whole`: `tinymlds train` of 10,000 xor networks, and of a sample of DS1, as a user runs them: wall time, and how
   much of it was not training.

The JSON in bench/results/ is written after every part, so that a run that is cut short loses little. `--smoke` runs all of
it at tiny sizes wherever it is, in Numba's simulator and with PyTorch and JAX on the CPU if there is no GPU: it shows that
this script works, and its rates mean nothing.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import median
from typing import Any

import machine
import numpy as np
import torch
from peak import products
from reference import TorchBackend
from rich.console import Console
from rich.table import Table
from rivals import GraphedTorch, Jax, Population, StackedTorch
from steps import LOSS_TOLERANCE, SEED, TASK

from tinymlds.architectures import params
from tinymlds.dataset import store
from tinymlds.kernels import rng
from tinymlds.kernels.gpu import layout
from tinymlds.kernels.problem import Job
from tinymlds.spec import Recipe, Setting
from tinymlds.training import backends, data, loop
from tinymlds.training.backends.cpu import CpuBackend, mean

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parent.parent
CORES_OF_A_MULTIPROCESSOR = {7: 64, 8: 64, 9: 128, 10: 128, 12: 128}
"""Fused multiply-adds that it starts in a cycle, by major compute capability; 8.6 and 8.9 have 128."""
FIRST_STEPS = 4
JAX_NETWORKS = (64, 512, 2048)
"""Compiling takes JAX about half a minute for each."""

Figures = dict[str, Any]


def note(text: str) -> None:
    """Progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def cuda_backend() -> backends.DeviceBackend:
    """The backend under test."""
    found = backends.load_device("cuda")
    assert found is not None
    return found


def device() -> str:
    """Where PyTorch runs."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def where_rivals_run() -> Figures:
    """What PyTorch and JAX run on, "" for a JAX that is not installed."""
    try:
        import jax

        return {"torch": device(), "jax": jax.default_backend()}
    except ImportError:
        return {"torch": device(), "jax": ""}


def describe_device() -> Figures:
    """The card: name, clocks, memory, driver, and its peak of fused multiply-adds, if it is one."""
    result: Figures = {"name": cuda_backend().device}
    fields = "name,driver_version,clocks.sm,clocks.max.sm,clocks.mem,power.limit,memory.total,temperature.gpu"
    query = subprocess.run(
        ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"], capture_output=True, text=True, check=False
    ) if device() == "cuda" else None  # fmt: skip
    if query and query.returncode == 0:
        result |= dict(zip(fields.split(","), query.stdout.strip().splitlines()[0].split(", "), strict=True))
    if device() == "cuda":
        card = torch.cuda.get_device_properties(0)
        lanes = 128 if (card.major, card.minor) in ((8, 6), (8, 9)) else CORES_OF_A_MULTIPROCESSOR.get(card.major)
        result |= {"multiprocessors": card.multi_processor_count, "capability": f"{card.major}.{card.minor}"}
        clock = float(result.get("clocks.max.sm", "0").split()[0]) * 1e6
        if lanes and clock:
            result["peak_fma_per_second"] = card.multi_processor_count * lanes * clock
    return result


# ------------------------------------------------------------------ parity


def parity(smoke: bool) -> Figures:
    """Bit by bit with the CPU: gradients of a minibatch, and everything about networks that trained for two epochs."""
    sizes = {"train_sequences": 32, "validation_sequences": 20, "steps": 2, "batch": 16} if smoke else {
        "train_sequences": 4800, "validation_sequences": 500, "batch": 48
    }  # fmt: skip
    shapes: dict[str, dict[str, Any]] = {"small": {"hidden": 4, "gru_layers": 1, "linear_maps": 2}} if smoke else {
        "default": {},
        "tanh": {"head_activation": "tanh"},
        "relu": {"head_activation": "relu", "linear_maps": 3},
        **{f"H = {hidden}": {"hidden": hidden, "gru_layers": 2} for hidden in (4, 16, 20, 32, 48, 64)},
    }  # fmt: skip
    result: Figures = {}
    for name, changes in shapes.items():
        recipe = Recipe.of(**sizes, **changes, max_epochs=2)
        networks = 1 if smoke else 5
        digests = {"cuda": sha256(), "cpu": sha256()}
        got = loop.train_population(cuda_backend(), [(Setting(TASK, SEED, recipe), index) for index in range(networks)])
        made = {
            "cuda": sorted((outcome for batch in got for _, outcome in batch), key=lambda outcome: outcome.index),
            "cpu": list(loop.train_networks(backends.load("cpu"), Setting(TASK, SEED, recipe), range(networks))),
        }
        for where, outcomes in made.items():
            for outcome in outcomes:
                for array in (outcome.weights, outcome.train_losses, outcome.validation_losses):
                    digests[where].update(array.astype("<f4").tobytes())
        same = {"gradients": _same_gradients(recipe), "networks": digests["cuda"].digest() == digests["cpu"].digest()}
        result[name] = {**same, "digest": digests["cuda"].hexdigest()}
        note(f"parity, {name}: {same}")
    if not all(found["gradients"] and found["networks"] for found in result.values()):
        sys.exit("the bits are not those of the CPU; nothing is measured")
    return result


def _same_gradients(recipe: Recipe) -> bool:
    """Whether the gradients of a minibatch are the CPU's, bit by bit."""
    recipe = replace(recipe, train_sequences=recipe.batch)
    problem, key, shape = data.problem(Setting(TASK, SEED, recipe)), rng.stream_key(SEED, TASK), recipe.architecture
    weights = params.initial(shape, key, 0)
    population = cuda_backend().population([problem], [key], lambda _epoch: 0.0, 0.0, 1)
    population.admit(0, weights)
    population.start([Job(0, 0, 0, 1, 1)])
    population.finish()
    at = layout.arena(shape, 0, recipe.steps).gradient
    ours = population._arenas[0].copy_to_host()[at : at + shape.size]  # type: ignore[attr-defined]
    network = CpuBackend().network(problem, weights)
    network.epoch(rng.permutation(key, 0, 1, recipe.train_sequences), 0.0)
    expected = network._work.gradient[: shape.size]
    return bool(np.abs(expected).max() > 0.0 and ours.tobytes() == expected.tobytes())


# ------------------------------------------------------------------ rates


def our_rate(recipe: Recipe, networks: int, rounds: int) -> Figures:
    """Epochs of `networks` networks, as many at once as there is room for; initial weights go to the device each time."""
    problem, key = data.problem(Setting(TASK, SEED, recipe)), rng.stream_key(SEED, TASK)
    population = cuda_backend().population([problem], [key], recipe.lr_at, 0.0, networks)
    initial = [params.initial(recipe.architecture, key, index) for index in range(min(networks, population.places))]
    losses: list[float] = []

    def train() -> None:
        losses.clear()
        for begun in range(0, networks, population.places):
            count = min(population.places, networks - begun)
            for place in range(count):
                population.admit(place, initial[place])
            population.start([Job(place, 0, place, 1, 1) for place in range(count)])
            losses.extend(float(stretch.train_losses[0]) for stretch in population.finish())

    train()
    work = networks * recipe.train_sequences * recipe.steps
    rates = [work / _seconds(train) for _ in range(rounds)]
    return {**_spread(rates), "at_once": min(networks, population.places), "first_epoch_loss": losses[0]}


def one_at_a_time(recipe: Recipe, rounds: int, steps: int) -> Figures:
    """PyTorch's nn.GRU with cuDNN."""
    problem, key = data.problem(Setting(TASK, SEED, recipe)), rng.stream_key(SEED, TASK)
    network = TorchBackend(device=device()).network(problem, params.initial(recipe.architecture, key, 0))
    order = rng.permutation(key, 0, 1, recipe.train_sequences)
    first = network.epoch(order[: FIRST_STEPS * recipe.batch], recipe.lr)
    some = np.resize(order, steps * recipe.batch)
    rates = [some.size * recipe.steps / _seconds(lambda: network.epoch(some, recipe.lr)) for _ in range(rounds)]
    return {**_spread(rates), "losses": first.tolist()}


def stepper_rate(make: Callable[[], Any], rounds: int, steps: int, expected: list[float]) -> Figures:
    """A rival that makes steps of many networks; nothing but the reason if it has no memory for them.

    How far its first losses are from those expected is noted: beyond `LOSS_TOLERANCE` it does other work.
    """

    def measure() -> tuple[np.ndarray, list[float]]:
        stepper = make()
        losses = np.asarray(stepper(FIRST_STEPS)).reshape(FIRST_STEPS, -1)[:, 0]
        stepper(steps)
        return losses, [steps * stepper.sample_steps / _seconds(partial(stepper, steps)) for _ in range(rounds)]

    try:
        losses, rates = measure()
    except (RuntimeError, MemoryError, ImportError) as error:  # no memory, in PyTorch's and in JAX's words; no JAX
        return {"error": " ".join(str(error).split())[:200]}
    finally:
        gc.collect()  # the stepper with its graph, so that the memory can go back
        torch.cuda.empty_cache()
    return {**_spread(rates), "loss_deviation": float(np.max(np.abs(losses / expected - 1.0)))}


def _spread(rates: list[float]) -> Figures:
    return {"sample_steps_per_second": median(rates), "range": [min(rates), max(rates)]}


def _seconds(work: Callable[[], Any]) -> float:
    """Wall seconds; all that is measured ends with a copy to the host."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def compare(
    recipe: Recipe,
    networks: list[int],
    jax_networks: list[int],
    rounds: int,
    steps: int,
    result: Figures,
    save: Callable[[], None],
) -> None:
    """All rivals at a batch size, into `result`, which is saved after each number of networks."""
    result |= {"batch": recipe.batch, "steps": recipe.steps, "tinymlds": {}, "torch, stacked": {}, "jax, vmap": {}}
    result["torch, one at a time"] = one_at_a_time(recipe, rounds, steps)
    expected = result["torch, one at a time"]["losses"]
    stacked = GraphedTorch if device() == "cuda" else StackedTorch
    for count in networks:
        result["tinymlds"][count] = our_rate(recipe, count, rounds)
        note(f"B = {recipe.batch}, {count} networks: {result['tinymlds'][count]}")
        makers = {"torch, stacked": lambda: stacked(Population(TASK, SEED, recipe, count), device())}  # noqa: B023
        if count in jax_networks:
            makers["jax, vmap"] = lambda: Jax(Population(TASK, SEED, recipe, count), recipe.steps)  # noqa: B023
        for name, make in makers.items():
            result[name][count] = stepper_rate(make, rounds, steps, expected)
            note(f"    {name}: {result[name][count]}")
        save()
    _check_our_loss(recipe, result["tinymlds"])
    result["ratios"] = _ratios(result)


def _check_our_loss(recipe: Recipe, found: Figures) -> None:
    """The loss of our first network in its first epoch against the CPU's."""
    key = rng.stream_key(SEED, TASK)
    network = CpuBackend().network(data.problem(Setting(TASK, SEED, recipe)), params.initial(recipe.architecture, key, 0))
    loss = mean(network.epoch(rng.permutation(key, 0, 1, recipe.train_sequences), recipe.lr))
    assert all(figures["first_epoch_loss"] == float(loss) for figures in found.values())


def _ratios(result: Figures) -> Figures:
    """Our best rate over each rival's best, of those that did the same work."""

    def best(figures: Figures) -> float:
        same = [found for found in figures.values() if found.get("loss_deviation", 0.0) <= LOSS_TOLERANCE]
        return max((found.get("sample_steps_per_second", 0.0) for found in same), default=0.0)

    ours = best(result["tinymlds"])
    others = {name: best(result[name]) for name in ("torch, stacked", "jax, vmap")}
    others["torch, one at a time"] = result["torch, one at a time"]["sample_steps_per_second"]
    return {name: ours / rate for name, rate in others.items() if rate}


# ------------------------------------------------------------------ whole commands


def whole(count: int, sample: int, recipe: dict[str, Any]) -> Figures:
    """`tinymlds train`, as a user runs it."""
    result: Figures = {}
    commands = {
        f"{count} xor networks": (["--machine", "xor", "--count", count], count),
        f"{sample} networks of each task of DS1": (["--dataset", "ds1", "--count", sample], 5 * sample),
    }
    options = [part for name, value in recipe.items() for part in (f"--{name.replace('_', '-')}", value)]
    for name, (arguments, networks) in commands.items():
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "made"
            parts = ["train", *arguments, "--out", out, "--backend", "cuda", "--quiet", "--json", *options]
            command = [sys.executable, "-m", "tinymlds", *map(str, parts)]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            start = time.perf_counter()
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            seconds = time.perf_counter() - start
            if done.returncode:
                sys.exit(done.stderr)
            answer = json.loads(done.stdout)
            lines = (out / store.PROVENANCE).read_text().splitlines()
            training_seconds = sum(json.loads(line).get("seconds", 0.0) for line in lines)
        run = answer["run"]
        result[name] = {
            "seconds": seconds,
            "networks_per_second": networks / seconds,
            "digest": answer["digest"],
            "epochs": run["epochs"],
            "seconds_of_run": run["seconds"],
            "seconds_of_training": training_seconds,
            "overhead_of_run": 1.0 - training_seconds / run["seconds"],
        }
        note(f"{name}: {result[name]}")
    rate = result[f"{sample} networks of each task of DS1"]["networks_per_second"]
    result["minutes for DS1 (50,000 networks), extrapolated"] = 50_000 / rate / 60.0
    return result


# ------------------------------------------------------------------ the command


def table(figures: Figures) -> Table:
    """The rates for people."""
    result = Table(title=f"million trained sample-steps/s, {figures['device']['name']}")
    for column in ("B", "networks", "tinymlds", "share of peak", "torch, stacked", "jax, vmap", "torch, one at a time"):
        result.add_column(column, justify="right")
    peak = figures["device"].get("peak_fma_per_second")
    for row in figures["rates"]:
        for count, found in row["tinymlds"].items():
            rate = found["sample_steps_per_second"]
            share = f"{rate * figures['products'] / peak:.1%}" if peak else ""
            others = [row[name].get(count, {}).get("sample_steps_per_second") for name in ("torch, stacked", "jax, vmap")]
            alone = row["torch, one at a time"]["sample_steps_per_second"]
            shown = [f"{other / 1e6:.3f}" if other else "" for other in (*others, alone)]
            result.add_row(str(row["batch"]), f"{int(count):,}", f"{rate / 1e6:.3f}", share, *shown)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", type=int, nargs="+", default=[1, 8, 64, 512, 2048, 8192])
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--jax", type=int, nargs="*", default=list(JAX_NETWORKS), help="numbers of networks for JAX")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / f"gpu-{datetime.now():%Y-%m-%d-%H%M}.json")
    arguments = parser.parse_args()
    torch.backends.cudnn.allow_tf32 = False  # all do the same work
    os.environ["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    rivals = where_rivals_run()
    if not arguments.smoke and (rivals["torch"] != "cuda" or rivals["jax"] not in ("gpu", "")):
        sys.exit(f"the rivals would not run on the GPU: {rivals}; install builds of PyTorch and JAX for CUDA")
    recipe, steps = replace(Recipe(), train_sequences=4096, validation_sequences=32), 32
    if arguments.smoke:
        arguments.networks, arguments.batches, arguments.jax, arguments.rounds = [1, 2], [16], [2], 1
        recipe = Recipe.of(hidden=4, gru_layers=1, steps=2, train_sequences=64, validation_sequences=16, batch=16)
        steps = FIRST_STEPS
    figures: Figures = {
        "command": " ".join(["python", "bench/gpu.py", *sys.argv[1:]]),
        "machine": machine.describe(),
        "device": describe_device(),
        "rivals": rivals,
        "products": products(recipe.architecture, recipe.steps),
        "smoke": arguments.smoke,
    }

    def save() -> None:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(figures, indent=1) + "\n")

    figures["parity"] = parity(arguments.smoke)
    save()
    figures["rates"] = []
    for batch in arguments.batches:
        figures["rates"].append({})
        counts, of_batch = sorted(set(arguments.networks)), replace(recipe, batch=batch)
        compare(of_batch, counts, arguments.jax, arguments.rounds, steps, figures["rates"][-1], save)
        save()
    if arguments.whole:
        tiny = {
            "hidden": 4,
            "gru_layers": 1,
            "steps": 2,
            "train_sequences": 32,
            "validation_sequences": 16,
            "max_epochs": 1,
        }
        figures["whole"] = whole(*((2, 1, tiny) if arguments.smoke else (10_000, 400, {})))
        save()
    Console().print(table(figures))
    print(json.dumps({row["batch"]: row["ratios"] for row in figures["rates"]}, indent=1))
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
