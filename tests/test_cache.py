"""Compiled code on disk: keyed by shape and source, shared by processes, and never mixed up."""

import os
import shutil
import subprocess
import sys

import pytest
from running import ROOT

PROGRAM = """
import sys
import numpy as np
from tinymlds.kernels.cpu import CpuBackend
from tinymlds.kernels.shape import Shape
shapes = {"a": Shape(hidden=4, layers=1, maps=2), "b": Shape(hidden=8, layers=1, maps=2),
          "t": Shape(hidden=4, layers=1, maps=2, activation="tanh")}
for name in sys.argv[1]:
    shape = shapes[name]
    weights = np.linspace(-0.5, 0.5, shape.size).astype(np.float32)
    print(name, CpuBackend().outputs(shape, weights, np.ones((40, 5, 9), np.float32)).tobytes().hex())
"""


def start(names, cache, root=ROOT):
    """Computes outputs of these shapes in a process of its own that keeps its compiled code in `cache`."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(root)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, names], cwd=root, env=environment, **pipes)


def answers(process):
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    return dict(line.split() for line in output.splitlines())


def code_in(folder):
    """Files of compiled code and when they were written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.nbc")}


@pytest.fixture
def outputs(tmp_path):
    return lambda names: answers(start(names, tmp_path))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A cache in which a process has left its code for shape a, and what that gave."""
    folder = tmp_path_factory.mktemp("compiled")
    return folder, answers(start("a", folder))


@pytest.fixture
def expected(compiled, tmp_path):
    """What shape a gives; `tmp_path` holds its code."""
    shutil.copytree(compiled[0], tmp_path, dirs_exist_ok=True)
    return compiled[1]


def test_code_of_several_processes_lives_together_in_one(outputs, tmp_path, expected):
    """Compiled apart, each in a process that starts to number its functions, then loaded side by side."""
    apart = expected | outputs("b") | outputs("t")
    assert len(set(apart.values())) == 3
    files = code_in(tmp_path)
    assert len(files) == 3
    assert outputs("abt") == outputs("tba") == apart
    assert code_in(tmp_path) == files, "nothing was compiled again"


def test_many_processes_that_compile_at_once(outputs, tmp_path):
    processes = [start("a", tmp_path) for _ in range(4)]
    found = [answers(process) for process in processes]
    assert found == [outputs("a")] * 4
    assert len(code_in(tmp_path)) == 1


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda _: b"", lambda data: bytes(len(data))])
@pytest.mark.parametrize("ending", ["*.nbc", "*.nbi"])
def test_a_damaged_file_is_replaced(outputs, tmp_path, expected, ending, damage):
    """What a power cut can leave: half a file, an empty one, one full of zeros."""
    [path] = tmp_path.rglob(ending)
    path.write_bytes(damage(path.read_bytes()))
    assert outputs("a") == expected
    files = code_in(tmp_path)
    assert len(files) == 1
    assert outputs("a") == expected
    assert code_in(tmp_path) == files, "the second time nothing was compiled"


def test_without_a_place_for_compiled_code_every_process_compiles(tmp_path, expected):
    file = tmp_path / "file"
    file.touch()
    assert answers(start("a", file / "below")) == expected
    [folder] = {path.parent for path in tmp_path.rglob("*.nbc")}
    shutil.rmtree(folder)
    folder.touch()
    assert answers(start("a", tmp_path)) == expected


def test_a_changed_source_is_compiled_anew(tmp_path):
    shutil.copytree(ROOT / "tinymlds", tmp_path / "tinymlds", ignore=shutil.ignore_patterns("__pycache__"))
    cells, cache = tmp_path / "tinymlds" / "kernels" / "cells.py", tmp_path / "cache"
    before = answers(start("a", cache, tmp_path))
    cells.write_text(cells.read_text().replace("_HALF = np.float32(0.5)", "_HALF = np.float32(0.25)"))
    after = answers(start("a", cache, tmp_path))
    assert after != before
    cells.write_text(cells.read_text().replace("_HALF = np.float32(0.25)", "_HALF = np.float32(0.5)"))
    files = code_in(cache)
    assert answers(start("a", cache, tmp_path)) == before
    assert code_in(cache) == files, "the code of the first source was still there"
