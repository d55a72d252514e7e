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
        "adamw: weights": "b800224438fcb6e724bbb541252c6d0685ad8b4bdb620a9ad80f8c7ca4536bc3",
        "adamw: losses": "8cca48d4c2950dd9e3dc6158b181a37c2979e782b5752c67a681f41de54552df",
        "lion: weights": "dff705c327712367335ea45086f1033190e6174845eb311401e3cdd849000759",
        "lion: losses": "329640794c7fa061743f4126ea97a3467cbfa951809202dc41e7d6865cedad5d",
        "muon: weights": "3ca7394733594e17346087fc43ab3ae94f07db663ed54c6c82e91eb4338f1f86",
        "muon: losses": "469d0ab43772d18b7b7ac18f572681d7e4414e8df6139400fa90247b245d0c0c",
        "sgd: weights": "699f84a8985b441c14370169a571a9c83fb8115c1038ce03a87b16a34855be0e",
        "sgd: losses": "fca5ba67347f445efc456dfad285cf3392ebe884b2f9989519d5aea4ed5828e9",
        "momentum: weights": "bc295640eaf13724ec2ef6e8f4a00831a62f7ac7340b2dd2fac347a9ef3f0ee9",
        "momentum: losses": "a2c0dd2cb81fea85d47eb2fb34d0bebab982cc561934dec1db5b0b40e43dc523",
        "nesterov: weights": "bf92c15a45177eb71fba90c9efa10b8ad3d4492d7e311c5c80b8c80b855e06db",
        "nesterov: losses": "90c93b5ebc9d7f94015ba5582ba600e2bfa3728ce1c939ca0ffbf1b5f629eb95",
        "rmsprop: weights": "9d1de383d3465cd6212badcee8215b7bbce66a628c29983cd022c8197b63d59e",
        "rmsprop: losses": "aed57d30403591974142de9d1d88c803bcc2fa3c4cd5aa6ebf8fe54131c5446d",
        "adagrad: weights": "0ea0ddac5c059161ee3ea7d58eb3bcaac4586425507e7097d7227658142052cb",
        "adagrad: losses": "03dcb3f45d26f4622b55d3de07307e9532d853db2bfaab783a23782c385d2731",
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
    name: Recipe.of(**sizes, optimizer=name, lr_decay=0, hidden=12, gru_layers=1, linear_maps=2, **options)
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
