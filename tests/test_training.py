"""Training of one network: how it ends, what is recorded, and that it depends on nothing else."""

import dataclasses

import numpy as np
import pytest
from running import SMALL

from tinymlds.errors import UsageError
from tinymlds.kernels import rng
from tinymlds.spec import Recipe, Setting, Spec, canonical_json, recipe_with
from tinymlds.training import backends
from tinymlds.training.backends.cpu import mean
from tinymlds.training.data import task_data
from tinymlds.training.loop import Status, StopRule, train_networks

CPU = backends.load("cpu")


def train(indices=range(1), task="xor", **changes):
    return list(train_networks(CPU, Setting(task, 0, recipe_with(Recipe(), {**SMALL, **changes})), indices))


def rule(losses, **changes):
    """Status and epoch at which a stop rule ends these validation losses."""
    stop = StopRule(recipe_with(Recipe(), {"max_epochs": 100, "patience": 3, "patience_gain": 0.1, **changes}))
    for epoch, loss in enumerate(losses, 1):
        if verdict := stop.after(epoch, loss):
            return verdict[0], epoch
    return None, len(losses)


def test_stop_rule():
    assert rule([1.0, 0.5, 0.99e-4]) == (Status.COMPLETE, 3)
    assert rule([1.0, 0.5, 1e-4]) == (None, 3), "below the threshold, not at it"
    assert rule([1.0] * 9) == (Status.STALLED, 4)
    assert rule([1.0, 0.95, 0.94, 0.92]) == (Status.STALLED, 4), "5 % is not a gain of 10 %"
    assert rule([1.0, 0.95, 0.94, 0.89, 0.85, 0.85, 0.79]) == (None, 7)
    assert rule([1.0] * 100, patience=0) == (Status.EPOCH_CAP, 100)
    assert rule([1.0, 1.0, 0.5e-4], max_epochs=3) == (Status.COMPLETE, 3)


def test_complete_epoch_cap_and_stalled_really_happen():
    (complete,) = train(task="direct", train_sequences=4096, max_epochs=60, threshold=1e-3)
    assert complete.status is Status.COMPLETE
    assert complete.validation_losses[-1] < 1e-3 <= complete.validation_losses[:-1].min()
    (capped,) = train()
    assert (capped.status, capped.epochs) == (Status.EPOCH_CAP, 3)
    assert "after 3 epochs" in capped.reason
    (stalled,) = train(lr=1e-30, patience=2, max_epochs=50)
    assert (stalled.status, stalled.epochs, stalled.reason) == (
        Status.STALLED,
        3,
        "no better validation loss since epoch 1",
    )


@pytest.mark.parametrize(("lr", "epochs"), [(1000.0, 0), (20.0, 1), (5.0, 5)])  # as numerics 2 rounds
def test_divergence_keeps_the_weights_of_the_last_finite_epoch(lr, epochs):
    changes = {"batch": 128, "lr": lr, "lr_decay": 0, "eps": 1e-8, "max_epochs": 400, "patience": 0}
    (network,) = train(**changes, beta2=0.0, beta1=0.0)
    assert (network.status, network.epochs) == (Status.DIVERGED, epochs)
    assert "not finite" in network.reason
    assert "step" in network.reason
    for array in (network.weights, network.train_losses, network.validation_losses):
        assert np.isfinite(array).all()
    assert network.train_losses.size == network.validation_losses.size == network.epochs
    if network.epochs:
        (same,) = train(**{**changes, "max_epochs": network.epochs}, beta2=0.0, beta1=0.0)
        assert same.weights.tobytes() == network.weights.tobytes()


def test_a_network_depends_on_its_index_alone():
    together, alone = train(range(5)), train(range(3, 4))
    assert together[3].index == alone[0].index == 3
    for name in ("weights", "train_losses", "validation_losses"):
        assert getattr(together[3], name).tobytes() == getattr(alone[0], name).tobytes()
    assert len({network.weights.tobytes() for network in together}) == 5


def test_the_recorded_loss_is_that_of_the_weights():
    (network,) = train()
    _, validation = task_data(Setting("xor", 0, recipe_with(Recipe(), SMALL))).sequences()
    assert CPU.loss(Recipe().architecture, network.weights, validation).tobytes() == network.validation_losses[-1].tobytes()


def test_mean_adds_one_after_another():
    losses = np.float32([1.0, 2.0**-24, 2.0**-24, 2.0**-24])  # each of these vanishes beside 1, their sum would not
    assert mean(losses) == np.float32(0.25)


def test_sequences_depend_on_task_and_seed():
    recipe = recipe_with(Recipe(), SMALL)
    data = [task_data(Setting(task, seed, recipe)).train for task, seed in (("xor", 0), ("xor", 1), ("parity", 0))]
    assert not any(np.array_equal(data[0], other) for other in data[1:])
    longer = task_data(Setting("xor", 0, dataclasses.replace(recipe, train_sequences=512))).train
    assert np.array_equal(longer[:256], data[0])
    assert rng.stream_key(0, "xor") != rng.stream_key(0, "parity")


@pytest.mark.parametrize(
    ("change", "named"),
    [({name: object()}, name) for name in Recipe().options()]
    + [({name: -1}, name) for name, (each, _) in Recipe().options().items() if each.type in ("int", "float")]
    + [
        ({"hidden": 14}, "multiple of 4"),
        ({"lr": float("inf")}, "lr"),
        ({"states": 3, "edits": 13}, "edits must not exceed the 12"),
        ({"steps": 4096, "train_sequences": 2**20}, "steps"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change, named):
    with pytest.raises(UsageError, match=named):
        recipe_with(Recipe(), change)


def test_a_spec_survives_json_and_every_difference_is_named():
    spec = Spec((("xor", 3),), 5, recipe_with(Recipe(), {"lr": 1, "edits": 2, "family": 3}), (0, 1, 2))
    assert Spec.from_dict(spec.to_dict(), "here") == spec
    assert '"lr":1.0' in canonical_json(spec.to_dict())
    larger = dataclasses.replace(spec, tasks=(("xor", 4),))
    assert spec.extend(larger, "there") == larger
    other = {"head_activation": "tanh", "train_sequences": 256, "trigger_key": "set 0", "matched": True}
    other |= {"initial": "shared", "sequences": "own", "lr_schedule": "linear", "warmup": 9, "stop": "max_epochs"}
    with pytest.raises(UsageError, match="checkpoints"):
        spec.extend(dataclasses.replace(spec, checkpoints=(0, 1)), "there")
    for name, (_, present) in spec.recipe.options().items():
        if name in ("architecture", "optimizer"):  # tests/test_registries.py
            continue
        value = other.get(name, present * 2)
        value = {"beta1": 0.5, "beta2": 0.5, "patience_gain": 0.5, "gru_layers": 2, "linear_maps": 3}.get(name, value)
        changed = dataclasses.replace(spec, recipe=recipe_with(spec.recipe, {name: value}))
        with pytest.raises(UsageError, match=f"with {name} "):
            spec.extend(changed, "there")
