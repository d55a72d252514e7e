"""Runs of which networks diverge: each is flagged with a step and a reason, all others are made, no file holds what is not
finite."""

import re

import numpy as np
import pytest
from forging import forge_rows, forge_tensors, make
from running import SMALL

import tinymlds
from tinymlds.architectures import params
from tinymlds.dataset import reader, store
from tinymlds.dataset.tensorfile import TensorFile
from tinymlds.kernels import rng
from tinymlds.spec import Recipe, Setting, recipe_with
from tinymlds.tasks.catalog import load
from tinymlds.training import backends
from tinymlds.training.data import problem

CPU = backends.load("cpu")
NETWORKS = 4
EPOCHS = 6
CHECKPOINTS = (0, 1, 2, 4)


SHAPES = (
    {},
    {"head_activation": "tanh"},
    {"hidden": 4, "gru_layers": 1, "linear_maps": 2, "head_activation": "relu"},
)
"""Shapes that other tests compile too."""


def draw_recipe(draw, all_shapes):
    """A recipe that may well diverge. Every shape has to be compiled, so there are three if not all are asked for."""
    shape = (
        {"linear_maps": draw.randrange(1, 9), "head_activation": draw.choice(["none", "tanh", "relu"])}
        if all_shapes
        else draw.choice(SHAPES)
    )
    return {
        **SMALL,
        "max_epochs": EPOCHS,
        "threshold": 10 ** draw.uniform(-4.0, -0.5),  # so that some are complete
        "lr": 10 ** draw.uniform(-1.5, 4.0),
        "lr_decay": draw.choice([0.0, 1.0, 100.0]),
        "beta1": draw.choice([0.0, 0.5, 0.9]),
        "beta2": draw.choice([0.0, 0.1, 0.5, 0.9, 0.99]),
        "eps": 10 ** draw.uniform(-30.0, -6.0),
        "batch": draw.choice([16, 32, 64, 128, 256]),
        **shape,
    }


def finite_epochs(task, recipe, index):
    """A plain check: epochs until anything is not finite, or None. No stop rule, no record, nothing of `training` but the
    sequences."""
    key = load(Setting(task, 0, recipe)).stream_key
    network = CPU.network(problem(Setting(task, 0, recipe)), params.initial(recipe.architecture, key, index))
    with np.errstate(all="ignore"):
        for epoch in range(1, EPOCHS + 1):
            losses = network.epoch(rng.permutation(key, index, epoch, recipe.train_sequences), recipe.lr_at(epoch))
            loss = network.validation_loss()
            if not (np.isfinite(losses).all() and np.isfinite(network.weights).all() and np.isfinite(loss)):
                return epoch - 1
            if loss < recipe.threshold:
                return None
    return None


def diverging(draw, count, all_shapes):
    """So many recipes of which a network diverges by the plain check, with the finite epochs of all their networks."""
    found = []
    while len(found) < count:
        changes = draw_recipe(draw, all_shapes)
        recipe = recipe_with(Recipe(), changes)
        epochs = [finite_epochs("xor", recipe, index) for index in range(NETWORKS)]
        if any(epoch is not None for epoch in epochs):
            found.append((changes, epochs))
    return found


def assert_all_finite(folder, dataset):
    """No number of the weights and losses in the files, of the complete networks and the others; and none of a checkpoint
    that training came to (the others are documented as NaN)."""
    for name in reader.read_sums(folder):
        if name.startswith(("networks/", "losses/")):
            for key, array in TensorFile(folder, name).read().items():
                assert np.isfinite(array).all(), (name, key)
    for row, stored in zip(dataset.manifest, dataset.checkpoints("xor"), strict=True):
        reached = [epoch <= row["epochs"] for epoch in CHECKPOINTS]
        assert row["checkpoints"] == sum(reached)
        assert np.isfinite(stored).all(axis=1).tolist() == reached


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (np.nan, "has numbers that are not finite"),
        (0.0, "has other weights than before training"),
        ("\ud800", "did not end as diverged"),
        ("weights are not finite after step 99999", "did not end as diverged"),
    ],
)
def test_what_is_said_of_networks_without_an_epoch_is_checked(tmp_path, change, named):
    """They have no losses to compare: their weights are those of before training."""
    folder = make(tmp_path / "xor", lr=1e6)
    dataset = tinymlds.open(folder)
    assert [row["epochs"] for row in dataset.manifest] == [0, 0]
    assert tinymlds.verify(folder).ok
    if isinstance(change, str):
        forge_rows(folder, lambda rows: rows[0].update(reason=change))
    else:
        forge_tensors(folder, store.shard_name("networks", "xor", 0), lambda found: found["gru.bias_ih_l0"].fill(change))
    found = tinymlds.verify(folder)
    assert any(problem.startswith(f"{folder}: xor 0 {named}") for problem in found.problems), found.problems
    merged = tinymlds.merge([folder], tmp_path / "all", workers=1)
    assert (merged.digest, merged.networks) == (None, 0)


def test_networks_that_diverge(tmp_path, share, draw, figure):
    runs = diverging(draw, share(100, 8), all_shapes=share(1, 0))
    diverged = complete = mixed = 0
    for number, (changes, epochs) in enumerate(runs):
        folder = tmp_path / str(number)
        made = tinymlds.train("xor", NETWORKS, folder, workers=1, checkpoints=CHECKPOINTS, **changes)
        assert made.progress.made == NETWORKS
        dataset = tinymlds.open(folder)
        steps = changes["train_sequences"] // changes["batch"]
        for row, finite in zip(dataset.manifest, epochs, strict=True):
            assert (row["status"] == "diverged") == (finite is not None), (row, changes)
            if finite is None:
                assert row["status"] in ("complete", "epoch_cap", "stalled")
                continue
            assert row["epochs"] == finite
            reason = re.fullmatch(
                r"(training loss is not finite at|(weights are|validation loss is) not finite after) step (\d+)",
                row["reason"],
            )
            assert reason, row
            assert finite * steps < int(reason[3]) <= (finite + 1) * steps
        assert_all_finite(folder, dataset)
        checked = tinymlds.verify(folder)
        assert checked.ok, checked.problems
        flagged = sum(epoch is not None for epoch in epochs)
        diverged, mixed = diverged + flagged, mixed + (flagged < NETWORKS)
        complete += sum(row["status"] == "complete" for row in dataset.manifest)
    figure(configurations=len(runs), networks=len(runs) * NETWORKS, diverged=diverged, complete=complete, mixed_runs=mixed)
