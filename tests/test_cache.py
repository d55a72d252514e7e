"""Compiled code on disk: keyed by shape and source, shared by processes, and never mixed up."""

import os
import subprocess
import sys

import pytest
from running import ROOT

PROGRAM = """
import sys
import numpy as np
from tinymlds.kernels.cpu import CpuBackend
from tinymlds.kernels.problem import Shape
shapes = {"a": Shape(hidden=4, layers=1, maps=2), "b": Shape(hidden=8, layers=1, maps=2),
          "t": Shape(hidden=4, layers=1, maps=2, activation="tanh")}
for name in sys.argv[1]:
    shape = shapes[name]
    weights = np.linspace(-0.5, 0.5, shape.size).astype(np.float32)
    print(name, CpuBackend().outputs(shape, weights, np.ones((40, 5, 9), np.float32)).tobytes().hex())
"""


@pytest.fixture
def outputs(tmp_path):
    """Runs shapes one after another in a process of its own that keeps its compiled code in tmp_path."""

    def run(names):
        environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, names], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return dict(line.split() for line in done.stdout.splitlines())

    return run


def test_code_of_several_processes_lives_together_in_one(outputs, tmp_path):
    """Compiled apart, each in a process that starts to number its functions, then loaded side by side."""
    apart = outputs("a") | outputs("b") | outputs("t")
    assert len(set(apart.values())) == 3
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")}
    assert len(files) == 3
    assert outputs("abt") == outputs("tba") == apart
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.nbc")} == files, "nothing was compiled again"
