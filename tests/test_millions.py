"""Two million networks in one folder: what opens, shows and extends it, in seconds and in memory.

The networks are synthetic: random weights of the smallest shape, with losses that fit the stop rule, sealed without being
measured (which would take most of an hour). Everything else is what a run does. `--full` makes two million; usually it is
twenty thousand, and the bound on memory is that of the interpreter with some room. Those that are verified are real ones,
and fewer.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from running import ROOT

import tinymlds

RECIPE = {"hidden": 4, "gru_layers": 1, "linear_maps": 1, "steps": 2, "train_sequences": 32, "validation_sequences": 16}

BUILD = """
import sys
from pathlib import Path
import numpy as np
from tinymlds.dataset import sealing
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.training.metrics import COLUMNS
from tinymlds.dataset.lock import RunLock
from tinymlds.spec import Recipe, Spec, recipe_with
from tinymlds.training.loop import Outcome, Status

folder, count, sealed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "sealed"
spec = Spec((("xor", count),), recipe=recipe_with(Recipe(), RECIPE))
sealing.measure = lambda *_: {**dict.fromkeys(COLUMNS), "accuracy": 1.0, "long_accuracy": 1.0}
generator, size = np.random.default_rng(0), spec.recipe.architecture.size
nothing, losses = np.empty((0, size), np.float32), np.float32([5e-5])
folder.mkdir()
with RunLock(folder):
    journal = Journal.create(folder, spec, {}, [], {})
    run = journal.start_run({})
    for start in range(0, count, 10_000):
        indices = range(start, min(start + 10_000, count))
        weights = generator.standard_normal((len(indices), size), np.float32)
        journal.add([
            Entry("xor", run, Outcome(k, Status.COMPLETE, "", vector, losses, losses, nothing, 0.001), 0.0)
            for k, vector in zip(indices, weights)
        ])
    if sealed:
        sealing.seal(folder, journal)
    journal.close()
""".replace("RECIPE)", f"{RECIPE!r})")

MEASURE = """
import json, re, resource, sys, time
from pathlib import Path
import tinymlds
start = time.perf_counter()
folder, count = sys.argv[1], int(sys.argv[2])
{WHAT}
if sys.platform == "linux":  # where ru_maxrss still knows of the process that this one was forked from
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024**2
print(json.dumps({"seconds": round(time.perf_counter() - start, 2), "megabytes": peak}))
"""

STEPS = {
    "open": "ds = tinymlds.open(folder); assert len(ds) == count; assert ds['xor', count - 1].row['index'] == count - 1",
    "status": "assert tinymlds.status(folder).complete('xor') == count",
    "weights": "W = tinymlds.open(folder).weights('xor'); assert len(W) == count",
    "report": "from tinymlds.dataset import summary as s; assert s.folder_report(tinymlds.open(folder)).networks == count",
    "extend": "assert tinymlds.train('xor', count + 1, folder, workers=1).progress.made == 1",
}

BYTES_A_ROW = 500
"""In memory, at most: 170 for what is kept and as much again while it is put together. Weights come on top: 880."""
ROOM = 350
"""Megabytes of an interpreter with NumPy, Numba and a compiled kernel (197 measured), and room."""


def run(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is POSIX")
def test_a_folder_of_millions(tmp_path: Path, share, figure) -> None:
    count, found = share(2_000_000, 20_000), {}
    sealed, journal = tmp_path / "sealed", tmp_path / "journal"
    run(BUILD, journal, count, "not sealed")
    found["status of a journal"] = json.loads(run(MEASURE.replace("{WHAT}", STEPS["status"]), journal, count))
    for path in sorted(journal.iterdir(), reverse=True):
        path.unlink()
    run(BUILD, sealed, count, "sealed")
    for name, what in STEPS.items():
        found[name] = json.loads(run(MEASURE.replace("{WHAT}", what), sealed, count))
    figure(networks=count, **found)
    for name, measured in found.items():
        of_a_row = BYTES_A_ROW + (2 * 880 if name == "weights" else 0)
        assert measured["megabytes"] < ROOM + count * of_a_row / 1e6, name


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="the resource module is POSIX")
def test_verify_of_many(tmp_path: Path, share, figure) -> None:
    """Real networks, as what is verified has to be true: of the smallest shape, one epoch each."""
    count = share(100_000, 2_000)
    tinymlds.train("xor", count, tmp_path / "xor", workers=1, **RECIPE, max_epochs=1)
    step = "found = tinymlds.verify(folder); assert found.ok and found.networks == count, found.problems[:3]"
    measured = json.loads(run(MEASURE.replace("{WHAT}", step), tmp_path / "xor", count))
    figure(networks=count, **measured)
    assert measured["megabytes"] < ROOM + count * BYTES_A_ROW / 1e6
