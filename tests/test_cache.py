"""Compiled code on disk: keyed by all that it depends on, shared by processes, never mixed up, and out of the package."""

import importlib.util
import os
import shutil
import subprocess
import sys

import pytest
from running import ROOT, SMALL, cli_command, contents

import tinymlds
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.kernels import minibatch
from tinymlds.kernels.cache import cache_folder, source_fingerprint
from tinymlds.kernels.optimizers import Adam

PROGRAM = """
import sys
import numpy as np
from tinymlds.training.backends.cpu import CpuBackend
from tinymlds.architectures.recurrent import GruLinear
shapes = {"a": GruLinear(hidden=4, layers=1, maps=2), "b": GruLinear(hidden=8, layers=1, maps=2),
          "t": GruLinear(hidden=4, layers=1, maps=2, activation="tanh")}
for name in sys.argv[1]:
    shape = shapes[name]
    weights = np.linspace(-0.5, 0.5, shape.size).astype(np.float32)
    print(name, CpuBackend().outputs(shape, weights, np.ones((40, 5, 9), np.float32)).tobytes().hex())
"""


CACHE_VARIABLES = ("TINYMLDS_CACHE_DIR", "NUMBA_CACHE_DIR", "XDG_CACHE_HOME", "LOCALAPPDATA", "HOME", "TMPDIR")


def start(names, cache=None, root=ROOT, **variables):
    """Computes outputs of these shapes in a process of its own that keeps its compiled code in `cache`.

    Of the variables that say where compiled code may lie it has those that are given.
    """
    kept = {name: value for name, value in os.environ.items() if name not in CACHE_VARIABLES}
    variables |= {"NUMBA_CACHE_DIR": cache} if cache else {}
    environment = kept | {"PYTHONPATH": str(root)} | {name: str(value) for name, value in variables.items()}
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


def test_where_compiled_code_lies(tmp_path, expected):
    """In the folder that a variable names, else in the user's cache, else in that for temporary files, else nowhere."""
    home, temporary, file = tmp_path / "home", tmp_path / "temporary", tmp_path / "file"
    temporary.mkdir()
    file.touch()
    own = {"TINYMLDS_CACHE_DIR": tmp_path / "own", "NUMBA_CACHE_DIR": tmp_path / "numba", "HOME": home, "TMPDIR": temporary}
    assert answers(start("a", **own)) == expected
    del own["TINYMLDS_CACHE_DIR"]
    assert answers(start("a", **own)) == expected
    own["NUMBA_CACHE_DIR"] = file / "below"
    assert answers(start("a", **own)) == expected
    own["HOME"] = file / "nobody"
    assert answers(start("a", **own)) == expected
    for folder in (tmp_path / "own", tmp_path / "numba", home, temporary):
        assert len(code_in(folder)) == 1
    for path in temporary.iterdir():  # anybody may write there: what is not ours is not used
        path.chmod(0o777)
    files = code_in(tmp_path)
    [fallback] = {path.parent for path in code_in(temporary)}
    assert fallback.stat().st_mode & 0o777 == 0o777
    assert answers(start("a", **own)) == expected
    assert code_in(tmp_path) == files


def test_the_folder_of_the_package_stays_as_it_was_installed(tmp_path, expected):
    """Files that pip does not know outlive an uninstallation, and hide an editable installation."""
    shutil.copytree(ROOT / "tinymlds", tmp_path / "site" / "tinymlds", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (tmp_path / "site", *(tmp_path / "site").rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = contents(tmp_path / "site")
    variables = {"HOME": tmp_path / "home", "PYTHONDONTWRITEBYTECODE": "1"}
    assert answers(start("a", root=tmp_path / "site", **variables)) == expected
    assert contents(tmp_path / "site") == before
    assert len(code_in(tmp_path / "home")) == 1


def test_a_home_that_cannot_be_written_is_told_once(tmp_path):
    """By the first of several processes; the kernels lie in the folder for temporary files, and are used from there."""
    name = f"tinymlds-{tinymlds.__version__}-{os.getuid()}"
    shutil.copytree(cache_folder(), tmp_path / "temporary" / name)  # so that nothing has to be compiled
    (tmp_path / "file").touch()
    kept = {name: value for name, value in os.environ.items() if name not in CACHE_VARIABLES}
    places = {"HOME": str(tmp_path / "file" / "nobody"), "TMPDIR": str(tmp_path / "temporary"), "PYTHONPATH": str(ROOT)}
    command = cli_command("train", "xor", "--count", 4, "--workers", 2, "--out", tmp_path / "xor", recipe=SMALL)
    done = subprocess.run(command, capture_output=True, text=True, env=kept | places, check=True)
    told = [line for line in done.stderr.splitlines() if "cannot keep compiled kernels" in line]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("tinymlds: ")
    assert str(tmp_path / "temporary" / name) in told[0]
    assert "TINYMLDS_CACHE_DIR" in told[0]


def test_compilation_is_announced_only_where_there_is_one(tmp_path):
    """`Progress.compiles`, of the first network ever made with these kernels and of the next one."""
    program = (
        "import tinymlds\nfrom running import SMALL\nstates, shape = [], {'hidden': 4, 'gru_layers': 1, 'linear_maps': 2}\n"
        "tinymlds.train('xor', 1, 'xor', workers=1, seed=SEED, progress=states.append, **SMALL, **shape)\n"
        "print({state.compiles for state in states})"
    )
    environment = os.environ | {
        "TINYMLDS_CACHE_DIR": str(tmp_path / "cache"),
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }
    for seed, said in ((1, "{True}"), (2, "{False}")):
        (tmp_path / said).mkdir()
        command = [sys.executable, "-c", program.replace("SEED", str(seed))]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path / said, check=True)
        assert done.stdout.strip() == said


def test_two_kinds_with_equal_sizes_have_kernels_of_their_own():
    class Other(GruLinear):
        """Another architecture."""

    class OtherAdam(Adam):
        """Another optimizer."""

    sizes = {"hidden": 4, "layers": 1, "maps": 2}
    assert Other(**sizes) != GruLinear(**sizes)
    kernels = [minibatch.training(kind(**sizes), Adam) for kind in (GruLinear, Other)]
    kernels += [minibatch.evaluation(kind(**sizes)).evaluate for kind in (GruLinear, Other)]
    kernels.append(minibatch.training(GruLinear(**sizes), OtherAdam))
    assert len(set(map(id, kernels))) == len({kernel._cache._identity for kernel in kernels}) == 5


def test_functions_and_constants_from_elsewhere_are_part_of_the_key(tmp_path):
    """Of a kernel that is registered from outside, and of the modules that it is built from."""
    helper, kernel = tmp_path / "helper.py", tmp_path / "kernel.py"
    source = """
import importlib.util
from numba import njit

def load(path):
    spec = importlib.util.spec_from_file_location("helper", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

def kernel(helper, size):
    half = njit(helper.half)

    def entry(x):
        return half(x) + size

    return entry
"""
    kernel.write_text(source)
    spec = importlib.util.spec_from_file_location("kernel", kernel)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    keys = set()
    for text, size in (("x / 2", 1), ("x / 2", 2), ("x * 0.5", 1), ("x / 2", 1)):
        helper = tmp_path / f"{len(text)}" / "helper.py"
        helper.parent.mkdir(exist_ok=True)
        helper.write_text(f"def half(x):\n    return {text}\n")
        keys.add(source_fingerprint(module.kernel(module.load(helper), size)))
    assert len(keys) == 3


def test_a_changed_source_is_compiled_anew(tmp_path):
    shutil.copytree(ROOT / "tinymlds", tmp_path / "tinymlds", ignore=shutil.ignore_patterns("__pycache__"))
    cells, cache = tmp_path / "tinymlds" / "kernels" / "recurrent" / "cells.py", tmp_path / "cache"
    before = answers(start("a", cache, tmp_path))
    cells.write_text(cells.read_text().replace("_HALF = np.float32(0.5)", "_HALF = np.float32(0.25)"))
    after = answers(start("a", cache, tmp_path))
    assert after != before
    cells.write_text(cells.read_text().replace("_HALF = np.float32(0.25)", "_HALF = np.float32(0.5)"))
    files = code_in(cache)
    assert answers(start("a", cache, tmp_path)) == before
    assert code_in(cache) == files, "the code of the first source was still there"
