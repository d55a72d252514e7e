"""The CUDA backend: the CPU's bits, the oracle's gradients, the records of populations, and its errors.

What needs a device runs on a GPU if there is one, and in any case in Numba's simulator (`test_in_the_simulator` runs this
file again there), where every thread is a thread of Python (`simulator.py`): tiny networks only. The simulator's `fma`
rounds once, so there too the bits have to be the same, and no tolerance is needed. Compiled code is in `test_ptx.py`.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from running import run_cli
from test_kernels import GRADIENT_TOLERANCE, LOSS_TOLERANCE, oracle, random_sequences, random_weights

from tinymlds.architectures import params
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.kernels import rng
from tinymlds.kernels.optimizers import Adam, AdamW, Lion, Sgd
from tinymlds.kernels.problem import Job, Problem
from tinymlds.spec import Recipe, Setting
from tinymlds.training import backends, loop
from tinymlds.training.backends.cpu import CpuBackend, mean
from tinymlds.training.loop import Status

# Networks that diverge overflow, and the simulator computes with NumPy's numbers, which warn of it.
pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning")

ROOT = Path(__file__).parent.parent
KEY = 0x01234567, 0x89ABCDEF
SIMULATED = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
INSTALLED = importlib.util.find_spec("numba_cuda") is not None
LONG_IN_THE_SIMULATOR = "default or second or STALLED or one_buffer"  # the last one is run by test_ptx.py too

if SIMULATED and INSTALLED:
    import simulator

    simulator.take_turns()

needs_package = pytest.mark.skipif(not INSTALLED, reason="numba-cuda is not installed")


@cache
def missing() -> str:
    """Why there is no device, or ""."""
    try:
        backends.load_device("cuda")
    except RuntimeError as error:
        return str(error)
    return ""


@pytest.fixture
def cuda() -> backends.DeviceBackend:
    if missing():
        pytest.skip(f"no CUDA device: {missing()}")
    found = backends.load_device("cuda")
    assert found is not None
    return found


@needs_package
@pytest.mark.skipif(SIMULATED, reason="this is the simulator")
def test_in_the_simulator(request: pytest.FixtureRequest) -> None:
    """The tests of this file that need a device, the longest ones with `--full`; none of them may be skipped there."""
    wanted = "device" if request.config.getoption("--full") else f"device and not ({LONG_IN_THE_SIMULATOR})"
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-k", wanted, str(Path(__file__))]
    environment = os.environ | {"NUMBA_ENABLE_CUDASIM": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\b(\d+) passed", done.stdout)
    assert "skipped" not in done.stdout, done.stdout


# ------------------------------------------------------------------ the bits of the CPU

CASES = {
    "two blocks and a half": (GruLinear(inputs=3, hidden=4, outputs=2, layers=2, maps=3), 3, 80, 160),
    "tanh, more outputs than units": (
        GruLinear(inputs=3, hidden=4, outputs=6, layers=1, maps=2, activation="tanh"),
        3,
        16,
        48,
    ),
    "default": (GruLinear(), 2, 32, 32),
}
"""Architecture, steps, batch, training sequences. test_ptx.py runs the first one too, so its CPU code is compiled once."""

OF_OPTIMIZERS = {"adamw": AdamW(weight_decay=0.125), "lion": Lion(), "sgd": Sgd()}
"""With three numbers a step, two, and one; test_ptx.py has the other optimizers."""


def lr_at(epoch: int) -> float:
    return 0.01 / epoch


def make_problem(shape: GruLinear, steps: int, batch: int, size: int) -> Problem:
    limits = np.uint16((1 << shape.inputs) - 1), np.uint16((1 << shape.outputs) - 1)
    train, validation = (
        type(drawn)(*(words & limit for words, limit in zip(drawn, limits, strict=True)))
        for drawn in (random_sequences(size, steps=steps), random_sequences(35, 1, steps))
    )
    return Problem(shape, train, validation, batch, Adam(beta2=0.99, eps=1e-6))


def assert_same(got: np.ndarray, expected: np.ndarray) -> None:
    assert np.isfinite(expected).all()
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("case", [*CASES, *OF_OPTIMIZERS])
def test_device_gives_the_bits_of_the_cpu(cuda: backends.DeviceBackend, case: str) -> None:
    """Losses and weights of two epochs, the second in a launch of its own."""
    problem = make_problem(*CASES["tanh, more outputs than units" if case in OF_OPTIMIZERS else case])
    problem = problem._replace(optimizer=OF_OPTIMIZERS.get(case, problem.optimizer))
    weights, index = random_weights(problem.architecture), 7
    network, expected = CpuBackend().network(problem, weights), []
    population = cuda.population([problem], [KEY], lr_at, 0.0, 1)
    population.admit(0, weights)
    for epoch in (1, 2):
        order = rng.permutation(KEY, index, epoch, len(problem.train.inputs))
        expected = [mean(network.epoch(order, lr_at(epoch)))], [network.validation_loss()]
        population.start([Job(0, 0, index, epoch, 1)])
        (stretch,) = population.finish()
        assert (stretch.not_finite, stretch.step) == ("", 0)
        assert_same(stretch.train_losses, np.array(expected[0]))
        assert_same(stretch.validation_losses, np.array(expected[1]))
        assert_same(population.weights(0), network.weights)


def test_device_with_one_buffer_gives_the_same_bits(cuda: backends.DeviceBackend, monkeypatch) -> None:
    """More than 48 units have no room for two buffers in shared memory; four units stand in for them."""
    from tinymlds.kernels.gpu import kernel, layout
    from tinymlds.kernels.recurrent import cuda_layers

    monkeypatch.setattr(layout, "SHARED_FLOATS", 4 * 4 * layout.BLOCK)
    cuda_layers.layer.cache_clear()
    kernel.train.cache_clear()
    try:
        test_device_gives_the_bits_of_the_cpu(cuda, "two blocks and a half")
    finally:
        cuda_layers.layer.cache_clear()
        kernel.train.cache_clear()


def test_device_gives_the_gradients_of_the_oracle(cuda: backends.DeviceBackend) -> None:
    from tinymlds.kernels.gpu import layout

    shape, steps, batch = GruLinear(inputs=3, hidden=4, outputs=2, layers=2, maps=2), 3, 48
    problem, weights = make_problem(shape, steps, batch, batch), random_weights(shape)
    population = cuda.population([problem], [KEY], lambda _epoch: 0.0, 0.0, 1)
    population.admit(0, weights)
    population.start([Job(0, 0, 0, 1, 1)])
    (stretch,) = population.finish()
    at = layout.arena(shape, 0, steps).gradient
    gradient = population._arenas[0].copy_to_host()[at : at + shape.size]
    loss, expected = oracle(shape, weights, problem.train, np.arange(batch))
    assert stretch.train_losses.tolist() == pytest.approx([loss], rel=LOSS_TOLERANCE)
    for name, tensor in params.to_tensors(shape, gradient).items():
        scale = np.abs(expected[name]).max()
        np.testing.assert_allclose(tensor, expected[name], rtol=0.0, atol=GRADIENT_TOLERANCE * scale, err_msg=name)


# ------------------------------------------------------------------ populations

TINY = {"hidden": 4, "gru_layers": 1, "linear_maps": 2, "steps": 2, "train_sequences": 32, "validation_sequences": 20}


def assert_same_outcome(got: loop.Outcome, expected: loop.Outcome) -> None:
    assert (got.index, got.status, got.reason) == (expected.index, expected.status, expected.reason)
    for field in ("weights", "train_losses", "validation_losses", "checkpoints"):
        assert_same(getattr(got, field), getattr(expected, field))
    assert got.seconds > 0.0


def outcomes_of(recipe: Recipe, wanted: list[tuple[str, int]], checkpoints: tuple[int, ...], most: int = 3):
    """What the device and the CPU make of the same networks, in the order of `wanted`."""
    device = backends.load_device("cuda")
    assert device is not None
    made = {}
    for batch in loop.train_population(device, [(Setting(task, 0, recipe), k) for task, k in wanted], checkpoints, most):
        made.update({(task, outcome.index): outcome for task, outcome in batch})
    cpu = backends.load("cpu")
    for task, index in wanted:
        (expected,) = loop.train_networks(cpu, Setting(task, 0, recipe), range(index, index + 1), checkpoints)
        yield made.pop((task, index)), expected
    assert not made


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"max_epochs": 2}, Status.EPOCH_CAP),
        ({"max_epochs": 9, "patience": 2, "patience_gain": 0.9}, Status.STALLED),
        ({"max_epochs": 9, "threshold": 0.2, "lr": 0.05}, Status.COMPLETE),
    ],
    ids=["EPOCH_CAP", "STALLED", "COMPLETE"],
)
@pytest.mark.parametrize("seconds", [1.0, 1e9], ids=["by the second", "as long as they may"])
def test_device_population_is_what_the_cpu_makes(cuda, monkeypatch, changes, status, seconds) -> None:
    """Five networks of two tasks in three places, with checkpoints: the same records, reasons and weights."""
    monkeypatch.setattr(loop, "_SECONDS_PER_JOB", seconds)
    recipe = Recipe.of(**TINY, **changes)
    wanted = [("xor", 0), ("direct", 0), ("xor", 1), ("direct", 4), ("xor", 2)]
    for got, expected in outcomes_of(recipe, wanted, (0, 1, 2, 5)):
        assert expected.status is status
        assert_same_outcome(got, expected)


@pytest.mark.parametrize(
    ("changes", "reason", "epochs"),
    [
        ({"lr": 10.0, "beta1": 0.9, "beta2": 0.0, "batch": 16}, "training loss is not finite at step 4", 1),
        ({"lr": 10.0, "beta1": 0.9, "beta2": 0.0, "batch": 32}, "weights are not finite after step 3", 2),
        (
            {"lr": 100.0, "beta1": 0.0, "beta2": 0.9999, "batch": 16, "linear_maps": 8},
            "validation loss is not finite after step 2",
            0,
        ),
    ],
)
def test_device_finds_what_is_not_finite(cuda, monkeypatch, changes, reason, epochs) -> None:
    """And goes back to the weights of the last finite epoch."""
    monkeypatch.setattr(loop, "_SECONDS_PER_JOB", 1e9)
    recipe = Recipe.of(**{**TINY, **changes}, eps=1e-30, max_epochs=6, patience=0)
    ((got, expected),) = outcomes_of(recipe, [("xor", 0)], (0, 1, 2, 3))
    assert (expected.status, expected.reason, expected.epochs) == (Status.DIVERGED, reason, epochs)
    assert_same_outcome(got, expected)


def test_device_run_makes_the_digest_of_the_cpu(cuda: backends.DeviceBackend, tmp_path: Path) -> None:
    recipe, digests = {**TINY, "max_epochs": 2}, []
    (tmp_path / "sitecustomize.py").write_text("import simulator\n\nsimulator.take_turns()\n" if SIMULATED else "")
    path = os.pathsep.join(map(str, (tmp_path, ROOT, Path(__file__).parent)))
    for name in ("cuda", "cpu"):
        done = run_cli(
            "train", "--machine", "xor", "--count", 3, "--out", tmp_path / name, "--backend", name, "--workers", 2,
            "--checkpoints", "0,1", "--json", "--quiet", recipe=recipe, env={"PYTHONPATH": path},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        digests.append(json.loads(done.stdout)["digest"])
    assert digests[0] == digests[1]
    assert run_cli("verify", tmp_path / "cuda", "--quiet").returncode == 0


# ------------------------------------------------------------------ errors


def test_device_with_too_little_memory_is_refused(cuda: backends.DeviceBackend, monkeypatch) -> None:
    from tinymlds.training.backends import cuda as cuda_backend

    problem = make_problem(GruLinear(inputs=3, hidden=4, outputs=2, layers=1, maps=1), 1, 16, 16)
    monkeypatch.setattr(cuda_backend, "free_bytes", lambda: 1e3)
    with pytest.raises(RuntimeError, match=r"0\.00 GB to spare.*ask for fewer tasks, or fewer or shorter sequences"):
        cuda.population([problem], [KEY], lr_at, 0.0, 1)


def test_device_says_what_fits(cuda: backends.DeviceBackend) -> None:
    problem = make_problem(GruLinear(inputs=3, hidden=68, outputs=2, layers=1, maps=1), 1, 16, 16)
    with pytest.raises(RuntimeError, match="takes up to 64 hidden units, not 68"):
        cuda.population([problem], [KEY], lr_at, 0.0, 1)


def test_a_missing_package_is_one_clear_error(tmp_path: Path) -> None:
    """A stand-in for a machine without it: a finder that denies that it is there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "found = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'numba_cuda' else found(name, *rest)\n"
    )
    command = [sys.executable, "-m", "tinymlds", "train", "--machine", "xor", "--count", "1", "--backend", "cuda"]
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=tmp_path)
    assert done.returncode == 2
    assert "pip install 'tinymlds[cuda]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "xor").exists()


@needs_package
@pytest.mark.skipif(SIMULATED, reason="the simulator is always there")
def test_no_gpu_is_one_clear_error(tmp_path: Path) -> None:
    if not missing():
        pytest.skip("this machine has a CUDA device")
    for arguments in (["train"], ["train", "--dry-run"]):
        done = run_cli(*arguments, "--machine", "xor", "--count", 1, "--backend", "cuda", cwd=tmp_path)
        assert done.returncode == 2
        assert "the cuda backend" in done.stderr
        assert "Traceback" not in done.stderr
        assert len(done.stderr.strip().splitlines()) <= 4, done.stderr
    assert not (tmp_path / "xor").exists()


# ------------------------------------------------------------------ the simulator's fma


def exact(x: np.float32, y: np.float32, z: np.float32) -> np.float32:
    """x y + z in fractions, rounded once, half to even."""
    value = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
    near = np.float32(float(value))
    candidates = [np.nextafter(near, np.float32(-np.inf)), near, np.nextafter(near, np.float32(np.inf))]
    finite = [c for c in candidates if np.isfinite(c)]
    return min(finite, key=lambda c: (abs(Fraction(float(c)) - value), int(c.view(np.uint32)) & 1))


def check_fma(fma: Callable[[Any, Any, Any], Any]) -> None:
    """Against fractions, ties and near ties included."""
    generator = np.random.default_rng(0)
    twice = 0
    for n in range(4000):
        scale = (2, 20, 60)[n % 3]
        x, y, z = (np.float32(generator.uniform(-1, 1) * 2.0 ** generator.uniform(-scale, scale)) for _ in range(3))
        if n % 2:  # close to a tie: 1 + k 2^-23 times 1 - k 2^-23 is 2^-46 k^2 away from 1
            k = int(generator.integers(1, 400))
            x, y = np.float32(1 + k * 2.0**-23), np.float32((1 - k * 2.0**-23) * 64)
            z = np.float32((2.0**30 + 128 * generator.integers(0, 1000)) * generator.choice([1, -1]))
        assert fma(x, y, z) == exact(x, y, z), (x, y, z)
        twice += np.float32(float(x) * float(y) + float(z)) != exact(x, y, z)
    assert twice > 10, "no case in which rounding twice would show"
    assert np.isnan(fma(np.float32(np.nan), np.float32(1), np.float32(1)))
    assert fma(np.float32(3e38), np.float32(3e38), np.float32(1)) == np.inf


def test_device_simulator_rounds_fma_once() -> None:
    if not SIMULATED:
        pytest.skip("no CUDA device to look at: a GPU has its own")
    from tinymlds.kernels.cuda import fma

    check_fma(fma)
