"""The same bits under AVX2, AVX-512 and whatever the host offers, and the bits of this version of the numerics.

Each target trains in a process of its own, as Numba fixes its target when it is imported.
"""

import json
import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from tinymlds.kernels.problem import NUMERICS

ROOT = Path(__file__).parent.parent

TARGETS = {
    "native": {},
    "avx2": {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx2,+fma,+avx,+sse4.2"},
    "avx512": {
        "NUMBA_CPU_NAME": "cascadelake",
        "NUMBA_CPU_FEATURES": "+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx2,+fma",
    },
}

GOLDEN = {
    1: {
        "weights": "5c95e56c90872f38c0217bbcf54238639da5b17993b20db54339209c2b68ffc3",
        "losses": "48a718b58d6b15d80cc16b75ab852c2d2d27fe8dae93096e43a6556b9a8e2a03",
        "outputs": "f8befc3885178a58ce705b7588e2ea0aa4c88394df8a01e4af5e942c29bcba8d",
    }
}
"""Numerics version -> sha256 of what `TRAIN` computes. Other bits are another version: raise NUMERICS, and say so."""

TRAIN = """
import hashlib, json
import numpy as np
from tinymlds import training
from tinymlds.kernels import backend, cache
from tinymlds.mealy import lines
from tinymlds.spec import Recipe

# Blocks of 32 and of 16 in each minibatch; validation ends on a partial block too.
sizes = {"train_sequences": 480, "validation_sequences": 100, "batch": 48, "max_epochs": 3}
recipe = Recipe(**sizes, lr=0.003, lr_decay=0, beta2=0.999, eps=1e-8)
cpu = backend.load("cpu")
[outcome] = training.train_networks(cpu, "xor", 0, recipe, range(1))
x = lines(training.problem("xor", 0, recipe).validation.inputs, 9)
assert outcome.epochs == 3 and np.isfinite(outcome.weights).all()
results = {
    "weights": outcome.weights,
    "losses": np.concatenate([outcome.train_losses, outcome.validation_losses]),
    "outputs": cpu.outputs(recipe.shape, outcome.weights, x),
}
digests = {name: hashlib.sha256(array.astype("<f4").tobytes()).hexdigest() for name, array in results.items()}
print(json.dumps({"digests": digests, "features": cache.target_features()}))
"""


@cache
def trained_on(target: str) -> tuple[dict[str, str], str]:
    """Digests of weights, losses and outputs, and the features that the code was compiled for."""
    without = {name: value for name, value in os.environ.items() if not name.startswith("NUMBA_CPU_")}
    environment = without | TARGETS[target] | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", "-c", TRAIN]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return answer["digests"], answer["features"]


def need(target: str) -> None:
    """Skip, with the reason, where this machine cannot run the target's code."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip(f"{target} is a target of x86-64, and this is {platform.machine()}")
    wanted = "+avx512f" if target == "avx512" else "+avx2"
    if wanted not in trained_on("native")[1].split(","):
        pytest.skip(f"the CPU of this machine has no {wanted[1:]}")


def test_native_gives_the_golden_bits() -> None:
    assert trained_on("native")[0] == GOLDEN[NUMERICS]


@pytest.mark.parametrize("target", ["avx2", "avx512"])
def test_target_gives_the_same_bits(target: str) -> None:
    need(target)
    digests, features = trained_on(target)
    assert ("+avx512f" in features.split(",")) == (target == "avx512"), "the target did not take effect"
    assert digests == trained_on("native")[0]
