"""Mutations that the tests must catch: each is made in a copy of the package, where tests of the kernels must fail."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent

GRADIENTS = "tests/test_kernels.py::test_gradients[16-one_layer]"
DEFAULT = "tests/test_kernels.py::test_gradients[16-default]"
FACTORS = "tests/test_kernels.py::test_adam_factors"
PASSED, TESTS_FAILED = 0, 1
"""Exit codes of pytest; from 2 on it says that tests could not be run."""


class Mutation(NamedTuple):
    """A piece of text that occurs once in a file of the kernels, what to put in its place, and the test to catch it."""

    file: str
    old: str
    new: str
    test: str = GRADIENTS


MUTATIONS = {
    "gradient of q zeroed": Mutation(
        "recurrent/cells.py",
        "return dar, daz, dan, dq, dh",
        "return dar, daz, dan, dq * np.float32(0.0), dh",
    ),
    "gradient of the biases of a linear map dropped": Mutation(
        "recurrent/head.py",
        "        gradient_b(T, dy, head, SUMS + H * WIDE, -1)\n",
        "",
    ),
    "the biases of the collapsed maps forgotten on the way up": Mutation(
        "recurrent/head.py",
        "a = w_accumulate(w_zero(), p, wk + BIAS + i, 1, head, sums + H * WIDE)",
        "a = w_zero()",
        DEFAULT,
    ),
    "a gradient of the collapsed maps from the wrong product": Mutation(
        "recurrent/head.py",
        "b = l_accumulate(b, head, S + k * S_SIZE + i * WIDE + o, WIDE, head, LEFT + o * LONG)",
        "b = l_accumulate(b, head, S + (k - 1) * S_SIZE + i * WIDE + o, WIDE, head, LEFT + o * LONG)",
        DEFAULT,
    ),
    "r and z swapped": Mutation(
        "recurrent/cells.py",
        "def gates(ar: Any, az: Any)",
        "def gates(az: Any, ar: Any)",
    ),
    "bias correction of the first moment dropped": Mutation(
        "optimizers.py",
        "lr / (1.0 - running[0, 1:])",
        "lr / np.ones(steps)",
        FACTORS,
    ),
    "bias correction of the second moment dropped": Mutation(
        "optimizers.py",
        "1.0 / np.sqrt(1.0 - running[1, 1:])",
        "np.ones(steps)",
        FACTORS,
    ),
    "a lane of the sums of the gradients lost": Mutation(
        "lanes.py",
        "vectors = [builder.extract_value(t, i * columns + c) for i in group for c in range(columns)]\n",
        "vectors = [builder.extract_value(t, i * columns + c) for i in group for c in range(columns)]\n"
        "                zero, lane = ir.Constant(_FLOAT, 0.0), ir.Constant(_INT32, 7)\n"
        "                vectors = [builder.insert_element(v, zero, lane) for v in vectors]\n",
    ),
    "a lane of every sum counted twice, its neighbour not at all": Mutation(
        "lanes.py",
        "_indices([i ^ distance for i in owner])",
        "_indices([i if i % LANES == 3 else i ^ distance for i in owner])",
    ),
}


def copy_of_the_project(folder: Path) -> Path:
    unwanted = shutil.ignore_patterns("__pycache__")
    for part in ("tinymlds", "tests"):
        shutil.copytree(ROOT / part, folder / part, ignore=unwanted)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def run_tests(project: Path, *tests: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"TINYMLDS_CACHE_DIR": str(project / "cache")}
    environment.pop("PYTHONPATH", None)  # `python -m` finds the copy, as it is the current folder
    environment.pop("PYTEST_ADDOPTS", None)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, check=False, env=environment)


@pytest.mark.slow
def test_without_a_mutation_the_tests_pass(tmp_path: Path) -> None:
    done = run_tests(copy_of_the_project(tmp_path), GRADIENTS, DEFAULT, FACTORS)
    assert done.returncode == PASSED, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def why_it_is_missed(mutation: Mutation, folder: Path) -> str:
    """Why the tests do not catch a mutation; "" if they do."""
    path = copy_of_the_project(folder) / "tinymlds" / "kernels" / mutation.file
    text = path.read_text()
    assert text.count(mutation.old) == 1, "the text to mutate must occur exactly once"
    path.write_text(text.replace(mutation.old, mutation.new))
    done = run_tests(folder, mutation.test)
    asserted = "AssertionError" in done.stdout or "\nE       assert " in done.stdout  # and not an error on the way
    caught = done.returncode == TESTS_FAILED and "1 failed" in done.stdout and asserted
    return "" if caught else done.stdout + done.stderr


@pytest.mark.slow
def test_mutations_are_caught(tmp_path: Path, share, draw) -> None:
    """All of them with `--full`; otherwise two, others each time, as each has to be compiled."""
    chosen = draw.sample(sorted(MUTATIONS), share(len(MUTATIONS), 2))
    missed = {name: why for name in chosen if (why := why_it_is_missed(MUTATIONS[name], tmp_path / name))}
    assert not missed, "\n".join(f"{name}: {why}" for name, why in missed.items())


def test_every_mutation_can_be_made() -> None:
    for mutation in MUTATIONS.values():
        text = (ROOT / "tinymlds" / "kernels" / mutation.file).read_text()
        assert text.count(mutation.old) == 1, mutation
