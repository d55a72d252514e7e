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

from tinymlds.kernels import NUMERICS

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
    2: {
        "default: weights": "4c6e7af122875bc3ff57a7279b86bad1d6a7f4da67df4ce451d982ed6ebd48ec",
        "default: losses": "4619f0e3ad488817276306a472b941eefccab61a1cea9478ccc2ddd6f061f0c5",
        "default: outputs": "a94281ec46844d54b0eeca65d80f42c68de9b8ad50c48a480a00db3f1ad71db3",
        "wide: weights": "05f1691971ba6ac08747b3938fcf5f9431f8ee2379c85e8fc637d7e8b9ab897e",
        "wide: losses": "87b8721f4af56b617d76c037a50e12a8d9c4c0c3a0c57971451013a06751e31e",
        "wide: outputs": "196682ea485e0e2d2ce3cd42f12ed49c35dc50f4eac0eefb04b5baab25bd6b6e",
        "tanh: weights": "fca29e3f38719b2943e5f275b533010a8e9f93133f401390486646959fc2014e",
        "tanh: losses": "3bf998fda313535f615cba8b8ffb0687b1461ab8a938525ed436ef20b88211de",
        "tanh: outputs": "e605197ef7cba18aba80657e31ab1935ed04066f4eff74b8a895f98e247d4acd",
        "lstm: weights": "1305ad755b73201f295a3f3a0816d1c4a8a0697e09f0622d4c6a9ba7a125ec07",
        "lstm: losses": "085ef289946193a64c6f0852c269457d7e415af64a5c7388bfb877d1599ed497",
        "lstm: outputs": "97e4710d20a57acf917b463169ce54ae1861979fb18fe28993aceca2ec29137f",
        "rnn: weights": "06d5c9ff3f22262cac0092351626499b08637301fbec093d611a80cccf5bdd58",
        "rnn: losses": "03e0e540a9591b5b31d52aa9dc8fabe521ece539957e6fafb9300d8fa092aea9",
        "rnn: outputs": "2948de6b6f6049b160432ee7cf3082516b5d30d35335cf453d4a8c11ffc4518f",
        "adamw: weights": "6df78b4afb0e7f0df49608a1e99a9e70ca1749833d016ff915ffcddab92063c9",
        "adamw: losses": "46d5ea3e7d461089417d7fdb86962381996970726a5c84d98b48c2d41b635bc6",
        "lion: weights": "3cd3cfdce60ef4b79a9cf3388e528dfecce994b05fcfafd0e9b973dd4ca5b6ff",
        "lion: losses": "3ce016547ef35a300d77e88832e3b64e5d757fa328a09f85b993807e29451d68",
        "muon: weights": "1885456699092cda7ce80ff82fd1df3f209cdc859ba23311262517d0c62b4572",
        "muon: losses": "26ba2986267f56eb1c7824f1e2acba23e3c31c6dd9d71f79f99b412478b3a5e5",
        "sgd: weights": "86e74021071af03fb50fb7179c4ef580fcf06c90a467b21f2bb011394da5c0a5",
        "sgd: losses": "968c154af47ea0742d362f6ca5f74ce5423b364a0829378592b7648749b721e5",
        "momentum: weights": "16ff65963fb23a7822703c69a7bcaa26dfb944f67750f42c5b22f554f6c06e17",
        "momentum: losses": "ca8018aa476210d71efaf70dfcf2395edb0ecb13d2624f0e75b7bd447af9773e",
        "nesterov: weights": "a4a0fff087c6f48566c2ad37b76804afd3fc009a447de664f6df48e0d1c4aedf",
        "nesterov: losses": "4bd56f68a72bb952f8ac0b3b7460c2190cc73abccd7ece4d392bf780280bf4c2",
        "rmsprop: weights": "48b921f669265b1cff591f45ed13e26819ba8d81efafeb3a0dc8d3dfe296a96c",
        "rmsprop: losses": "2d7e02e821bb0b4cb6d68fcc7ce0fdc7dae949a6c03c5612ced844f1ef86fa2d",
        "adagrad: weights": "78875fa00d55dc91ffda56f5698d210238c8f967bbac6c4b7ca0c1e037f8f795",
        "adagrad: losses": "2a6c4d1260d7849a40bd34f64d7ba823150066cdfde746bb7edab704a91a02cb",
    }
}
"""Numerics version -> sha256 of what `TRAIN` computes. Frozen: other bits are another version, so raise NUMERICS, add a
line and say so in CHANGELOG.md. (Version 1 was never frozen.)"""

TRAIN = """
import hashlib, json
import numpy as np
from tinymlds.kernels import cache
from tinymlds.training import backends, data, loop
from tinymlds.tasks.mealy import lines
from tinymlds.spec import Recipe, Setting

# Blocks of 32 and of 16 in each minibatch; validation ends on a partial block too.
sizes = {"train_sequences": 480, "validation_sequences": 100, "batch": 48, "max_epochs": 3}
recipes = {
    "default": Recipe.of(**sizes, lr=0.003, lr_decay=0, beta2=0.999, eps=1e-8),
    "wide": Recipe.of(**sizes, hidden=20, gru_layers=2, linear_maps=3),
    "tanh": Recipe.of(**sizes, hidden=20, gru_layers=2, linear_maps=3, head_activation="tanh"),  # another shape, map by map
    "lstm": Recipe.of(**sizes, architecture="lstm-linear", lr=0.003, lr_decay=0),
    "rnn": Recipe.of(**sizes, architecture="rnn-linear", lr=0.003, lr_decay=0),
} | {
    name: Recipe.of(**sizes, optimizer=name, lr_decay=0, **options)
    for name, options in {
        "adamw": {"lr": 0.003, "weight_decay": 0.01},
        "lion": {"lr": 0.001},
        "muon": {"lr": 0.003, "weight_decay": 0.01},
        "sgd": {"lr": 1.0},
        "momentum": {"lr": 0.1},
        "nesterov": {"lr": 0.1},
        "rmsprop": {"lr": 0.001},
        "adagrad": {"lr": 0.01},
    }.items()
}
cpu, results = backends.load("cpu"), {}
for name, recipe in recipes.items():
    [outcome] = loop.train_networks(cpu, Setting("xor", 0, recipe), range(1))
    x = lines(data.problem(Setting("xor", 0, recipe)).validation.inputs, 9)
    assert outcome.epochs == 3 and outcome.train_losses[2] < outcome.train_losses[0] and np.isfinite(outcome.weights).all()
    results[f"{name}: weights"] = outcome.weights
    results[f"{name}: losses"] = np.concatenate([outcome.train_losses, outcome.validation_losses])
    if recipe.optimizer.name != "adam":
        continue
    results[f"{name}: outputs"] = cpu.outputs(recipe.architecture, outcome.weights, x)
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
