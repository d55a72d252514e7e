"""What the networks of a task share: initial weights and training sequences, or neither."""

import json

import numpy as np
import pytest
from running import SMALL, run_cli

import tinymlds
from tinymlds.architectures import params
from tinymlds.errors import UsageError
from tinymlds.kernels import rng
from tinymlds.kernels.problem import Problem, Sequences
from tinymlds.spec import Recipe, Setting, recipe_with
from tinymlds.tasks import catalog
from tinymlds.training import backends, data, loop

CPU = backends.load("cpu")
OWN, SHARED = {"sequences": "own"}, {"initial": "shared"}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """Two networks of a machine and two of its twin, matched, with one draw of initial weights and own sequences."""
    folder = tmp_path_factory.mktemp("sharing")
    for modified in (False, True):
        options = {"matched": True, "checkpoints": (0, 1), "workers": 1, **SMALL, **OWN, **SHARED}
        tinymlds.train("xor", 2, folder / str(modified), modified=modified, **options)
    return [tinymlds.open(folder / str(modified)) for modified in (False, True)]


def test_one_draw_of_initial_weights(both):
    starts = [dataset.checkpoints(task)[:, 0] for dataset in both for task in dataset.tasks]
    first = params.initial(both[0].shape, rng.stream_key(0, "xor"), 0)
    assert all(np.array_equal(start, first) for pair in starts for start in pair)
    ends = {network.weights.tobytes() for dataset in both for network in dataset}
    assert len(ends) == 4, "orders and sequences still tell them apart"


def test_sequences_of_its_own():
    """Network 1, trained on sequences that are drawn here by the rule of docs/numerics.md."""
    recipe = recipe_with(Recipe(), SMALL | OWN)
    (outcome,) = loop.train_networks(CPU, Setting("xor", 7, recipe), range(1, 2))
    found = catalog.load(Setting("xor", 7, recipe))
    words = rng.words(rng.stream_key(7, "xor:1"), rng.TRAIN_SEQUENCES, 0, 256 * 16)
    symbols = (words.astype(np.uint64) * np.uint64(16) >> np.uint64(32)).astype(np.uint8).reshape(256, 16)
    train = Sequences(found.table.inputs[symbols], found.table.simulate(symbols).astype(np.uint16))
    _, validation = data.task_data(Setting("xor", 7, recipe)).sequences()
    setting = Problem(recipe.architecture, train, validation, recipe.batch, recipe.optimizer)
    batches = loop.train_on(CPU, [setting], [found.setting], [(0, 1)])
    [again] = [outcome for batch in batches for _, outcome in batch]
    assert outcome.weights.tobytes() == again.weights.tobytes()
    assert outcome.validation_losses.tobytes() == again.validation_losses.tobytes()
    (shared,) = loop.train_networks(CPU, Setting("xor", 7, recipe_with(Recipe(), SMALL)), range(1, 2))
    assert outcome.weights.tobytes() != shared.weights.tobytes()


def test_sequences_differ_between_networks_and_not_between_twins():
    recipe = recipe_with(Recipe(), SMALL | OWN | {"matched": True, "trigger_rate": 0.1})
    (a, _), (b, _) = (data.own_sequences(Setting("xor", 0, recipe), index) for index in (0, 1))
    assert 0.02 < np.mean(a == b) < 0.15, "about one symbol in sixteen agrees by chance, planted keys more"
    twin, outputs = data.own_sequences(Setting("xor_modified", 0, recipe), 0)
    assert np.array_equal(a, twin)
    assert not np.array_equal(outputs, data.own_sequences(Setting("xor", 0, recipe), 0)[1])


def test_such_folders_are_verified_and_made_again(both):
    for dataset in both:
        found = tinymlds.verify(dataset.folder, retrain=2, workers=1)
        assert (found.problems, found.retrained, found.losses_recomputed) == ([], 2, 2)
        (task,) = dataset.tasks
        data = dataset.data(task)
        assert (data.train.shape, data.validation.shape) == ((0, 16), (64, 16))


def test_how_it_is_made_does_not_reach_the_digest(both, tmp_path):
    options = {"matched": True, "checkpoints": (0, 1), **SMALL, **OWN, **SHARED}
    tinymlds.train("xor", 1, tmp_path / "grown", workers=1, **options)
    grown = tinymlds.train("xor", 2, tmp_path / "grown", workers=2)
    assert grown.digest == both[0].digest


def test_defaults_leave_no_trace(tmp_path):
    plain = tinymlds.train("xor", 1, tmp_path / "plain", workers=1, **SMALL)
    spelled = tinymlds.train("xor", 1, tmp_path / "spelled", workers=1, initial="own", sequences="shared", **SMALL)
    assert plain.digest == spelled.digest
    recipe = json.loads((tmp_path / "plain" / "dataset.json").read_text())["recipe"]
    assert not {"initial", "sequences"} & recipe.keys()
    with pytest.raises(UsageError, match="made with sequences shared, not own"):
        tinymlds.train("xor", 2, tmp_path / "plain", workers=1, **OWN)


def test_refusals(tmp_path):
    with pytest.raises(UsageError, match="sequences must be one of shared, own, not 'mine'"):
        recipe_with(Recipe(), {"sequences": "mine"})
    with pytest.raises(UsageError, match="on the CPU only"):
        loop.require_backend("cuda", recipe_with(Recipe(), OWN))
    refused = run_cli("generate", "--machine", "xor", "--sequences", "own", "--out", tmp_path / "none")
    assert (refused.returncode, "share" in refused.stderr, (tmp_path / "none").exists()) == (2, True, False)
