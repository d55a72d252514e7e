"""Datasets of this format and numerics version, kept in tests/data/, can be opened and verified, and made again, for ever.

`python tests/test_golden.py` made them; it is run again only for a new format or numerics version.
"""

import json
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from forging import TINY, forge_description
from running import run_cli

import tinymlds
from tinymlds.dataset import store

HERE = Path(__file__).parent / "data"

GOLDEN = {
    "xor": ({"checkpoints": (0, 2), "matched": True}, "8a382fa3b678384f723d1afb447a5f2f38bb8009ea554b15ad61e258918acaa6"),
    "transducer_000": ({}, "63da6af751545821fee9e7749dde2d6f8d043a89fcea6e1f847e2abb8ea860a5"),
}
"""Task -> what was asked for beside `TINY` and two networks, and the digest."""

pytestmark = pytest.mark.parametrize("task", GOLDEN)


def make(task, folder):
    return tinymlds.train(task, 2, folder, workers=1, **TINY, **GOLDEN[task][0])


def test_it_is_read(task):
    options, digest = GOLDEN[task]
    dataset = tinymlds.open(HERE / task)
    assert (dataset.digest, dataset.tasks, len(dataset)) == (digest, (task,), 2)
    weights = dataset.weights(task, unfinished=True)
    assert [store.array_sha256(row) for row in weights] == [row["weights_sha256"] for row in dataset.manifest]
    assert [losses.size for pair in dataset.losses(task) for losses in pair] == [2] * 4
    assert dataset.checkpoints(task).shape == (2, len(options.get("checkpoints", ())), 4364)
    assert np.array_equal(dataset[task, 1].weights, weights[1])


def test_it_is_verified(task):
    found = tinymlds.verify(HERE / task)
    assert (found.problems, found.digest, found.losses_recomputed) == ([], GOLDEN[task][1], 2)


def test_it_is_made_again(task, tmp_path):
    assert make(task, tmp_path / task).digest == GOLDEN[task][1]
    for path in (path for path in (HERE / task).rglob("*") if path.is_file()):
        name = path.relative_to(HERE / task).as_posix()
        if name not in (store.PROVENANCE, store.SUMS):
            assert (tmp_path / task / name).read_bytes() == path.read_bytes(), name


@pytest.mark.parametrize("key", ["format", "numerics"])
@pytest.mark.parametrize("step", [-1, 1])
def test_another_version_is_refused_by_name(task, tmp_path, key, step):
    folder = shutil.copytree(HERE / task, tmp_path / task)
    version = json.loads((folder / store.DESCRIPTION).read_text())[key]
    forge_description(folder, lambda description: description.update({key: version + step}))
    words = f"{key} version {version + step}"
    for look in (tinymlds.open, tinymlds.verify, tinymlds.status, lambda folder: tinymlds.train(task, 3, folder)):
        with pytest.raises(tinymlds.UsageError, match=words):
            look(folder)
    if (task, step) == ("xor", 1):
        for command in (("verify",), ("train", "--machine", task, "--count", 3, "--out")):
            refused = run_cli(*command, folder)
            (line,) = refused.stderr.splitlines()
            assert (refused.returncode, words in line) == (2, True), refused.stderr


if __name__ == "__main__":
    socket.gethostname = lambda: "golden"
    for name in GOLDEN:
        shutil.rmtree(HERE / name, ignore_errors=True)
        print(name, make(name, HERE / name).digest)
