"""`verify --retrain`: networks that the files alone do not tell from honest ones are told by training again."""

import json
from dataclasses import replace

import numpy as np
import pytest
from running import SMALL, run_cli

import tinymlds
from tinymlds.dataset import sealing
from tinymlds.dataset.journal import Entry, Journal
from tinymlds.dataset.lock import RunLock
from tinymlds.errors import UsageError
from tinymlds.spec import Recipe, Setting, Spec, recipe_with
from tinymlds.training import backends
from tinymlds.training.loop import train_networks
from tinymlds.verification.checks import least_caught, pick

FORGED = 3
COUNT = 8


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    """A dataset in which network 3 is really network 100: trained on the right sequences, and described rightly."""
    folder = tmp_path_factory.mktemp("forged")
    spec = Spec((("xor", COUNT),), recipe=recipe_with(Recipe(), SMALL), checkpoints=(1,))
    cpu, wanted = backends.load("cpu"), [*range(FORGED), 100, *range(FORGED + 1, COUNT)]
    outcomes = [
        next(train_networks(cpu, Setting("xor", 0, spec.recipe), range(k, k + 1), spec.checkpoints)) for k in wanted
    ]
    with RunLock(folder):
        journal = Journal.create(folder, spec, {}, [], {})
        run = journal.start_run({})
        journal.add([Entry("xor", run, replace(outcome, index=k), 0.0) for k, outcome in enumerate(outcomes)])
        sealing.seal(folder, journal)
        journal.close()
    return folder


def test_the_files_alone_do_not_tell(forged):
    assert tinymlds.verify(forged).ok


@pytest.mark.parametrize("workers", [1, 2])
def test_training_again_tells(forged, workers):
    result = tinymlds.verify(forged, retrain=COUNT, workers=workers)
    assert result.problems == [f"{forged}: xor {FORGED} is not what training gives; it was made in another way"]
    assert (result.retrained, result.forgeries) == (COUNT, 1)


def test_the_seed_decides_which(forged):
    seeds = {FORGED in pick(COUNT, 2, seed): seed for seed in range(20)}
    for hit, seed in seeds.items():
        result = tinymlds.verify(forged, retrain=2, seed=seed)
        assert (result.ok, result.retrain_seed) == (not hit, seed)


def test_command(forged, tmp_path):
    found = run_cli("verify", forged, "--retrain", COUNT, "--seed", 7, "--workers", 1)
    assert found.returncode == 1
    assert "8 networks trained again (picked with seed 7)" in found.stdout
    assert "1 forged networks or more (12.50%) would have shown" in found.stdout
    tinymlds.train("xor", 2, tmp_path / "honest", workers=1, **SMALL)
    honest = json.loads(run_cli("verify", tmp_path / "honest", "--retrain", 1000, "--json", "--workers", 1).stdout)
    assert (honest["ok"], honest["retrained"], honest["forgeries"]) == (True, 2, 1)
    tinymlds.generate("xor", tmp_path / "sequences", **SMALL)
    refused = run_cli("verify", tmp_path / "sequences", "--retrain", 1)
    assert (refused.returncode, "nothing to train again" in refused.stderr) == (2, True)
    with pytest.raises(UsageError, match="at least 0"):
        tinymlds.verify(forged, retrain=-1)


def test_how_many_catch_how_many():
    """59 catch 5 %, 299 catch 1 %, with 95 % probability; in small datasets fewer do."""
    large = 10_000_000
    assert [round(least_caught(large, count) / large, 4) for count in (58, 59, 298, 299)] == [0.0503, 0.0495, 0.01, 0.01]
    assert least_caught(large, 59) <= 0.05 * large < least_caught(large, 58)
    assert least_caught(large, 299) <= 0.01 * large < least_caught(large, 298)
    assert [least_caught(100, count) for count in (1, 50, 94, 95, 100)] == [95, 5, 2, 1, 1]


@pytest.mark.parametrize(("retrained", "rate"), [(59, 0.05), (299, 0.01)])
def test_a_thousand_forgeries(retrained, rate, draw, figure):
    """1,000 datasets of 5,000 networks with this rate of forged ones: the share in which one of them is picked.

    The exact probability is 95.1 to 95.2 %; 1,000 draws scatter by 0.7 % (one standard deviation), and the bound is four.
    """
    networks, caught = 5000, 0
    for _ in range(1000):
        false = set(draw.sample(range(networks), round(rate * networks)))
        caught += not false.isdisjoint(pick(networks, retrained, draw.randrange(2**63)))
    figure(retrained=retrained, rate=rate, caught=caught, of=1000)
    assert caught / 1000 == pytest.approx(0.951, abs=0.028)


def test_every_network_is_as_likely():
    """Chi-square of how often each of 50 is among 10 picked ones: 49 degrees of freedom, 1e-6 quantile 118."""
    counts = np.zeros(50)
    for seed in range(5000):
        counts[pick(50, 10, seed)] += 1
    assert ((counts - 1000) ** 2 / (1000 * 0.8)).sum() < 118
