"""What the weights reveal: planted signals with known answers, leaks, controls, invariance, the same results twice."""

import json
import os
import random
import shlex
import warnings
from dataclasses import replace

import numpy as np
import pytest
from forging import TINY, make
from running import run_cli
from test_refusals import refused
from typer.testing import CliRunner

import tinymlds
from tinymlds import symmetry
from tinymlds.cli import app
from tinymlds.dataset import splits as column
from tinymlds.kernels.shape import Shape
from tinymlds.spec import Recipe

pytest.importorskip("sklearn", reason="needs scikit-learn")

from tinymlds.analysis import experiments, ladder, models, splits, statistics
from tinymlds.analysis.features import answers
from tinymlds.analysis.features import statistics as layer_statistics
from tinymlds.analysis.points import Points, Source, Wanted, equalised, gather, sharing
from tinymlds.analysis.splits import split

RECIPE = Recipe(hidden=4, gru_layers=2, linear_maps=3)
SHAPE = RECIPE.shape
COUNT = 100
"""Networks of each class."""


@pytest.fixture(autouse=True)
def small_forests(monkeypatch):
    """What is asked here can be told by fewer trees."""
    monkeypatch.setattr(models, "TREES", 20)
    monkeypatch.setattr(models, "ROUNDS", 20)


def random_weights(seed, count=COUNT, shape=SHAPE):
    return np.random.default_rng(seed).uniform(-0.6, 0.6, (count, shape.size)).astype(np.float32)


def points(*weights, target=None, classes=("a", "b"), epochs=None):
    """Made-up networks of two tasks, [COUNT, P] each."""
    source = np.repeat(np.arange(len(weights)), [len(each) for each in weights])
    index = np.concatenate([np.arange(len(each)) for each in weights])
    sources = tuple(Source(task, 0, RECIPE) for task in ("direct", "invert")[: len(weights)])
    epochs = np.ones(len(index), np.int64) if epochs is None else epochs
    return Points(sources, classes, np.concatenate(weights), source, index, epochs, source if target is None else target)


def climbed(data, name, metric="balanced_accuracy", seeds=3, **options):
    rung = ladder.Rung(*name.split("/"))
    setting = ladder.Setting(metric, tuple(split(0, int(data.index.max()) + 1, k) for k in range(seeds)), 1)
    [found] = ladder.climb(ladder.Case("all", data, **options), [rung], setting)
    return found


def score(*arguments, **options):
    return climbed(*arguments, **options)["mean"]


# ------------------------------------------------------------------ signals whose answer is known


@pytest.fixture(scope="module")
def coordinates():
    """Two classes that differ by symmetries alone: the one in normal form, the other moved out of it."""
    normal = symmetry.canonicalize(SHAPE, random_weights(0))
    return points(normal, symmetry.transform(SHAPE, symmetry.canonicalize(SHAPE, random_weights(1)), 5))


@pytest.fixture(scope="module")
def function():
    """Two classes that differ in what no symmetry touches: recurrent weights are larger in the one."""
    larger = random_weights(1)
    for place in ("gru.weight_hh_l0", "gru.weight_hh_l1"):
        larger[:, tinymlds.params.places(SHAPE)[place]] *= 1.6
    return points(random_weights(0), larger)


@pytest.mark.parametrize("model", ["linear", "forest", "boosting"])
def test_coordinates_are_seen_raw_and_gone_in_the_normal_form(coordinates, model):
    assert score(coordinates, f"{model}/raw/plain") > 0.85
    assert abs(score(coordinates, f"{model}/raw/canonical") - 0.5) < 0.15
    assert abs(score(coordinates, f"{model}/raw/transformed") - 0.5) < 0.15


def test_what_leans_on_coordinates_fails_on_moved_networks(coordinates):
    """Trained on plain weights; a test network of either class looks like the moved class then."""
    assert abs(score(coordinates, "forest/raw/moved") - 0.5) < 0.1


def test_one_fit_serves_plain_and_moved_networks(coordinates, monkeypatch):
    """With the scores that each of the two rungs has on its own."""
    plain, moved = (ladder.Rung("linear", "raw", form) for form in ("plain", "moved"))
    others = ladder.Rung("linear", "statistics", "moved"), ladder.Rung("linear", "raw", "transformed")
    assert ladder.fitted_alike([plain, *others, moved]) == [(plain, moved), (others[0],), (others[1],)]
    alone = [climbed(coordinates, rung.name) for rung in (plain, moved)]
    fits, fit = [], models.fit
    monkeypatch.setattr(models, "fit", lambda *arguments: fits.append(fit(*arguments)) or fits[-1])
    setting = ladder.Setting("balanced_accuracy", tuple(split(0, COUNT, k) for k in range(3)), 1)
    assert ladder.climb(ladder.Case("all", coordinates), [plain, moved], setting) == alone
    assert len(fits) == 3
    assert alone[0]["scores"] != alone[1]["scores"]


@pytest.mark.parametrize("form", ["plain", "transformed", "canonical"])
def test_what_no_symmetry_touches_is_seen_in_every_form(function, form):
    assert score(function, f"forest/statistics/{form}") > 0.9


def test_initial_weights_are_at_chance(function):
    found = climbed(function, "linear/raw/initial", seeds=5)
    assert abs(found["mean"] - 0.5) < 0.1
    again = function.initial()
    first = tinymlds.training.initial_weights(RECIPE, tinymlds.tasks.load("invert", RECIPE).stream_key(0), 3)
    assert np.array_equal(again[COUNT + 3], first)


def test_a_guess_scores_as_a_guess(function):
    found = climbed(function, "majority/raw/plain")
    assert (found["mean"], found["chance"]) == (0.5, 0.5)
    assert 3 / 60 <= found["half_width"] <= 3 / 40, "three splits of 100 indices test 20 to 30 of them, two networks each"
    numbers = replace(function, classes=(), target=np.random.default_rng(0).normal(size=2 * COUNT))
    assert score(numbers, "majority/raw/plain", metric="spearman") == 0.0


def test_numbers_are_predicted():
    """Regression of a number that the weights hold."""
    weights = random_weights(3, 2 * COUNT)
    data = points(weights, target=weights[:, :3].sum(axis=1).astype(np.float64), classes=())
    found = climbed(data, "linear/raw/plain", metric="spearman")
    assert found["mean"] > 0.5
    assert np.mean(found["others"]["r2"]) > 0.2
    assert found["confusion"] is None


# ------------------------------------------------------------------ the graph network


def test_the_graph_network_is_invariant():
    """Permutations and signs change nothing but the order of sums; the others round weights to float32 (2^-24, sums of
    some ten products of numbers up to about 10, two passes)."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from tinymlds.analysis import graph

    for shape in (Shape(), Shape(hidden=8, layers=1, maps=1)):
        network = graph.GraphNetwork(shape, 3).double()
        graph.draw_parameters(network, 1)
        weights = random_weights(0, 6, shape)

        def outputs(vectors, network=network):
            return network(torch.from_numpy(vectors).double()).detach().numpy()

        before = outputs(weights)
        assert before.std(axis=0).min() > 0.01, "networks are told apart"
        for kinds, tolerance in ((("permutation", "sign"), 1e-12), (symmetry.KINDS, 1e-5)):
            moved = symmetry.transform(shape, weights, 3, kinds=kinds)
            assert np.abs(moved - weights).max() > 0.1
            np.testing.assert_allclose(outputs(moved), before, rtol=0, atol=tolerance)
        for name in ("gru.weight_hh_l0", "gru.weight_ih_l0", "gru.bias_hh_l0", "head.0.weight", "head.0.bias"):
            changed = weights.copy()
            changed[:, tinymlds.params.places(shape)[name]] *= -1.0
            assert np.abs(outputs(changed) - before).max() > 1e-4, f"{name} has a say"


def test_the_graph_network_sees_the_function_and_no_coordinates(coordinates, function, monkeypatch):
    pytest.importorskip("torch", reason="needs PyTorch")
    from tinymlds.analysis import graph

    monkeypatch.setattr(graph, "STEPS", 75)
    monkeypatch.setattr(graph, "EPOCHS", 1)
    assert score(function, "graph/raw/transformed", seeds=2) > 0.8
    assert abs(score(coordinates, "graph/raw/plain", seeds=2) - 0.5) < 0.2


def test_the_graph_network_waits_two_epochs(monkeypatch):
    """Of 20 steps each here, with four looks at the validation networks; nothing is ever fitter than at the first."""
    pytest.importorskip("torch", reason="needs PyTorch")
    from tinymlds.analysis import graph

    looks = []
    monkeypatch.setattr(graph, "fitness", lambda *_: looks.append(0) or (0.5, 0.0))
    for name, value in (("BATCH", 2), ("_EVERY", 1), ("PATIENCE", 10)):
        monkeypatch.setattr(graph, name, value)
    target = np.tile([0, 1], 20)
    fold = models.Fold(random_weights(0, 40), target, random_weights(1, 10), target[:10], 2, "roc_auc")
    assert graph.fit(fold, SHAPE, 0).chosen == {"steps": 5}
    assert len(looks) == 9, "at steps 5, 10, ... 45"
    looks.clear()
    monkeypatch.setattr(graph, "STEPS", 12)
    monkeypatch.setattr(graph, "EPOCHS", 0)
    graph.fit(fold, SHAPE, 0)
    assert len(looks) == 3, "the last step is one"


def test_the_graph_network_says_what_it_cannot():
    pytest.importorskip("torch", reason="needs PyTorch")
    from tinymlds.analysis import graph

    with pytest.raises(tinymlds.UsageError, match="without activation only"):
        graph.GraphNetwork(Shape(activation="tanh"), 2)


# ------------------------------------------------------------------ what is chosen


def tied(train):
    """A fold of few networks that any setting ranks rightly, and the networks to test on."""
    weights, target = random_weights(0, train + 40), np.tile([0, 1], train // 2 + 20)
    weights[target == 1, :40] += 0.5
    parts = slice(train), slice(train, train + 10), slice(train + 10, None)
    given = [array[part] for part in parts for array in (weights, target)]
    return models.Fold(*given[:4], 2, "roc_auc"), *given[4:]


def test_equal_scores_are_told_apart_by_the_loss():
    """All penalties rank the validation networks rightly; the strongest is sure of nothing, and is not taken."""
    fold, shown, target = tied(20)
    losses, standard = {}, models._standardise(fold.train.copy())
    for chosen, estimator in models._settings("linear", fold, 0):
        estimator.fit(standard(fold.train), fold.train_target)
        probabilities = estimator.predict_proba(standard(fold.validation))
        assert statistics.roc_auc(fold.validation_target, probabilities) == 1.0
        losses[chosen["penalty"]] = -np.log(probabilities[np.arange(10), fold.validation_target]).mean()
    fitted = models.fit("linear", fold, 0)
    assert losses[fitted.chosen["penalty"]] == min(losses.values()) < losses[max(losses)] / 5
    assert statistics.balanced_accuracy(target, fitted.scores(shown)) > 0.95
    fold, _, _ = tied(80)  # fewer are too few for a tree
    found = models.fit("boosting", fold, 0)
    assert statistics.roc_auc(fold.validation_target, found.scores(fold.validation)) == 1.0
    assert found.chosen["rounds"] > 1, "the first of equals is surely earlier"


def test_features_are_standardised_in_place_and_once():
    """Against float64; rounding of float32 numbers below 10, so 1e-6 of them. A constant feature is 0 for all."""
    features = (random_weights(0, 300) * 3 + 2).astype(np.float32)
    features[:, 5] = 0.1
    wanted = features.astype(np.float64)
    deviation = wanted.std(axis=0)
    deviation[5] = 1.0
    new = random_weights(1, 10)
    wanted, other = (wanted - wanted.mean(axis=0)) / deviation, (new - wanted.mean(axis=0)) / deviation
    standard = models._standardise(features)
    np.testing.assert_allclose(features, wanted, atol=1e-5)
    assert not features[:, 5].any()
    shown = new.copy()
    np.testing.assert_allclose(standard(shown), other, atol=1e-5)
    assert np.array_equal(shown, new), "a copy"


def test_a_threshold_is_chosen_where_no_penalty_helps():
    """Few networks, many weights, one class larger: all that are new are on one side of 0.5, in the right order."""
    target = np.tile([0, 1], 40)
    weights = np.random.default_rng(1).normal(size=(80, 4000)) * np.where(target, 3.0, 1.0)[:, None]
    weights[:, :200] += 2.0 * target[:, None]
    weights = weights.astype(np.float32)
    fold = models.Fold(weights[:24], target[:24], weights[24:40], target[24:40], 2, "roc_auc")
    standard = models._standardise(fold.train)
    for _, estimator in models._settings("linear", fold, 0):
        estimator.fit(fold.train, fold.train_target)
        scores, seen = (estimator.predict_proba(standard(shown)) for shown in (weights[40:], fold.validation))
        assert statistics.roc_auc(target[40:], scores) > 0.99
        assert statistics.balanced_accuracy(target[40:], scores) == 0.5, "all of one class"
        at = statistics.threshold(fold.validation_target, seen)
        assert statistics.recognised(target[40:], statistics.predicted(scores, at)) > 0.9


def test_thresholds():
    def at(target, *second):
        return statistics.threshold(np.array(target), np.stack([1 - np.array(second), second], axis=1))

    assert at([0, 0, 1, 1], 0.1, 0.2, 0.8, 0.9) == 0.5, "it is good enough"
    assert at([0, 0, 1, 1], 0.1, 0.2, 0.3, 0.4) == 0.25
    assert at([0, 1], 0.3, 0.3) == 0.5, "no other"
    assert at([1, 0, 1, 0], 0.6, 0.7, 0.8, 0.9) == 0.5, "none is better"
    low, high = np.nextafter(1.0, 0.0), 1.0
    assert at([0, 0, 1, 1], low, low, high, high) == high, "no number is between them"


def test_thresholds_are_those_of_a_plain_search():
    draw = np.random.default_rng(0)
    for _ in range(50):
        target, second = np.r_[0, 1, draw.integers(0, 2, 10)], draw.choice([0.0, 0.2, 0.4, 0.5, 0.55, 0.9, 1.0], 12)
        values = np.unique(second)
        shares = {
            at: statistics.recognised(target, (second >= at).astype(int)) for at in [0.5, *(values[1:] + values[:-1]) / 2]
        }
        best = [at for at, share in shares.items() if share >= max(shares.values()) - 1e-12]
        found = statistics.threshold(target, np.stack([1 - second, second], axis=1))
        assert abs(found - 0.5) == min(abs(at - 0.5) for at in best)


def test_fitness():
    target, sure, unsure = np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.5, 0.5]])
    score, loss = statistics.fitness("roc_auc", target, sure)
    assert (score, loss) == (1.0, pytest.approx((np.log(0.9) + np.log(0.8)) / 2))
    assert statistics.fitness("roc_auc", target, sure) > statistics.fitness("roc_auc", target, unsure)
    assert statistics.fitness("balanced_accuracy", target, np.eye(2)[::-1])[1] == pytest.approx(np.log(1e-12))
    assert statistics.fitness("spearman", np.array([1.0, 2.0, 3.0]), np.array([1.0, 2.0, 5.0])) == (1.0, -4 / 3)


# ------------------------------------------------------------------ splits and leaks


def test_splits_are_by_index():
    own = split(7, 200, 0)
    assert [("train", "validation", "test")[k] for k in own.parts] == column(7, range(200))
    drawn = [split(7, 200, number).parts.tolist() for number in range(1, 5)]
    assert len({tuple(parts) for parts in drawn}) == 4
    assert all(np.bincount(parts).tolist() == [160, 20, 20] for parts in drawn)
    for count in (3, 4, 9):  # a column of so few may leave a part without any
        assert all(np.bincount(split(0, count, number).parts, minlength=3).min() > 0 for number in range(20))
    with pytest.raises(tinymlds.UsageError, match="at least 3 networks"):
        split(0, 2, 0)
    with pytest.raises(tinymlds.UsageError, match="at least 9 networks"):
        split(0, 8, 1, least=3)
    assert np.bincount(split(0, 30, 1, least=5).parts).tolist() == [20, 5, 5]


def test_a_column_that_leaves_a_part_half_empty_is_not_used():
    """By the column's own sizes, with many seeds; a column of 30 often has one network or none for a part."""
    rules = {True: set(), False: set()}
    for seed in range(60):
        own = np.bincount([("train", "validation", "test").index(part) for part in column(seed, range(30))], minlength=3)
        rules[bool(np.all(own >= (12, 1.5, 1.5)))].add(split(seed, 30, 0).rule)
    assert rules == {True: {"the dataset's own"}, False: {"drawn by index"}}


def test_numbers_of_too_few_networks_are_not_ranked():
    """One network to test on has no rank, and no R^2."""
    data = points(random_weights(0, 10), target=np.arange(10.0), classes=())
    with pytest.raises(tinymlds.UsageError, match="only 1 network for validation"):
        climbed(data, "majority/raw/plain", "spearman")


def test_twins_do_not_tell_on_each_other():
    """Twins of an index are the same network here, and their label is a coin; who finds one in training knows it."""
    weights, coins = random_weights(4), np.random.default_rng(5).integers(0, 2, COUNT)
    data = points(weights, weights, target=np.tile(coins, 2))
    assert abs(score(data, "knn/raw/plain", seeds=5) - 0.5) < 0.2


@pytest.mark.parametrize("model", ["knn", "linear", "boosting"])
def test_test_networks_have_no_say_in_what_is_chosen(function, model):
    """Other weights and other labels of the test networks: the same choice."""
    test = split(0, COUNT, 0).part("test", function.index)
    other = replace(function, weights=function.weights.copy(), target=function.target.copy())
    other.weights[test] *= -3.0
    other.target[test] = 1 - other.target[test]
    before, after = (climbed(data, f"{model}/statistics/plain", seeds=2) for data in (function, other))
    assert before["chosen"][0] == after["chosen"][0]
    assert before["scores"][0] != after["scores"][0]


def test_epochs_are_equalised():
    """Class a: epochs 1 (60) and 2 (40); b: 2 (30) and 3 (70). In common: thirty of 2."""
    epochs = np.repeat([1, 2, 2, 3], [60, 40, 30, 70])
    data = points(random_weights(0), random_weights(1), epochs=epochs)
    everywhere, one = np.arange(2 * COUNT), np.zeros(2 * COUNT, np.int64)
    assert sharing(data, one) == (0, 1)
    kept = equalised(data, (0, 1), one, everywhere)
    assert np.bincount(data.target[kept]).tolist() == [30, 30]
    assert set(data.epochs[kept]) == {2}
    assert set(data.index[kept][:30]) == set(range(60, 90)), "the lowest indices"
    some = everywhere[::2]
    assert np.bincount(data.target[equalised(data, (0, 1), one, some)]).tolist() == [15, 15]
    assert score(data, "forest/epochs/plain") > 0.8
    note = "in each part as many networks of each of a, b with each number of epochs"
    found = climbed(data, "forest/raw/equalised")
    assert found["notes"] == (note,)
    apart = replace(data, epochs=np.repeat([1, 2], COUNT))
    assert sharing(apart, one) is None
    with pytest.raises(tinymlds.UsageError, match="no two classes share"):
        climbed(apart, "forest/raw/equalised")
    assert sharing(data, everywhere) is None, "each network on its own: none has a partner"


@pytest.mark.parametrize("model", ["forest", "knn"])
@pytest.mark.parametrize(("low", "high"), [(1, 5), (7, 26)])
def test_equalised_epochs_are_at_chance(monkeypatch, model, low, high):
    """Epochs are noise here. Equalised in each part they score what a guess does, to the digit, with every seed; equalised
    over all networks before the split, as a network in training is missing from the test, far less."""
    rung = ladder.Rung(model, "epochs", "equalised")
    assert ladder.Rung("forest", "epochs", "equalised") in ladder.RUNGS
    data = points(random_weights(0), random_weights(1), epochs=np.random.default_rng(1).integers(low, high + 1, 2 * COUNT))
    found = climbed(data, rung.name, seeds=8)
    assert found["scores"] == pytest.approx([0.5] * 8)
    assert climbed(data, rung.name, "roc_auc", seeds=2)["scores"] == pytest.approx([0.5] * 2)
    assert min(found["networks"]["train"]) > 80
    once = equalised(data, (0, 1), np.zeros(2 * COUNT, np.int64), np.arange(2 * COUNT))
    monkeypatch.setattr(ladder, "equalised", lambda *given: np.intersect1d(given[-1], once))
    if (model, low, high) == ("forest", 7, 26):
        assert score(data, rung.name, seeds=8) < 0.4


def test_too_few_equalised_for_training_are_skipped():
    epochs = np.tile(np.where(np.arange(COUNT) < 11, 1, np.arange(COUNT) + 1), 2)
    epochs[COUNT + 11 :] += COUNT
    data = points(random_weights(0), random_weights(1), epochs=epochs)
    assert sharing(data, np.zeros(2 * COUNT, np.int64)) == (0, 1)
    with pytest.raises(
        tinymlds.UsageError, match=r"with seed \d only \d networks of each class are left for training, not 10"
    ):
        climbed(data, "forest/raw/equalised", seeds=5)


def test_a_class_that_shares_no_epochs_is_left_out():
    data = points(random_weights(0, 150), target=np.repeat([0, 1, 2], 50), classes=("a", "b", "c"))
    data = replace(data, epochs=np.repeat([1, 9, 1], 50))
    one = np.zeros(150, np.int64)
    assert sharing(data, one) == (0, 2)
    assert np.bincount(data.target[equalised(data, (0, 2), one, np.arange(150))]).tolist() == [50, 0, 50]
    found = climbed(data, "majority/raw/equalised")
    assert (found["classes"], found["chance"]) == (("a", "c"), 0.5)
    assert found["notes"][0].endswith("; too few shared with b")


# ------------------------------------------------------------------ features and figures


def test_layer_statistics():
    weights = random_weights(0, 3)
    found = layer_statistics(SHAPE, weights)
    first = weights[:, : SHAPE.tensors[0][1][0] * SHAPE.tensors[0][1][1]].astype(np.float64)
    assert found.shape == (3, 8 * len(SHAPE.tensors))
    expected = [first.mean(1), first.std(1), np.linalg.norm(first, axis=1), first.min(1)]
    np.testing.assert_allclose(found[:, :4], np.stack(expected, 1), rtol=1e-6)
    np.testing.assert_allclose(found[:, 5], np.median(first, axis=1), rtol=1e-6)


def test_answers_do_not_depend_on_coordinates():
    recipe = Recipe()  # its kernels are compiled already
    weights = random_weights(0, 4, recipe.shape)
    data = replace(points(weights), sources=(Source("direct", 0, recipe),))
    moved = symmetry.transform(recipe.shape, data.weights, 2)
    assert answers(data, data.weights).shape == (4, 16 * recipe.steps * recipe.shape.outputs)
    np.testing.assert_allclose(answers(data, data.weights), answers(data, moved), atol=1e-5)  # float32, 16 steps
    mixed = replace(data, sources=(Source("direct", 0, recipe), Source("transducer_000", 0, recipe)))
    with pytest.raises(tinymlds.UsageError, match="different symbols"):
        answers(mixed, data.weights)


def test_figures():
    student, deviation = 3.182446, 1.290994  # three degrees of freedom
    for ratio, variance in ((0.0, 0.25), (0.125, 0.375)):
        mean, half_width = statistics.interval([1.0, 2.0, 3.0, 4.0], ratio, 40)
        assert mean == 2.5
        assert half_width == pytest.approx(student * deviation * variance**0.5, rel=1e-5)
    assert statistics.interval([1.0] * 5, 0.125, 40) == (1.0, 3 / 40)
    assert statistics.interval([1.0] * 5, 0.125) == (1.0, 0.0)
    target, scores = np.array([0, 0, 0, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    assert statistics.balanced_accuracy(target, scores) == pytest.approx((2 / 3 + 1) / 2)
    assert statistics.roc_auc(target, scores) == 1.0
    assert statistics.confusion(target, statistics.predicted(scores), 2).tolist() == [[2, 1], [0, 1]]
    assert statistics.predicted(scores, 0.65).tolist() == [0, 0, 0, 1]
    assert statistics.predicted(scores, 0.6).tolist() == [0, 0, 1, 1], "from there on"
    assert statistics.pairs_right(target, scores, np.array([0, 1, 2, 1])) == 1.0
    assert statistics.pairs_right(target, scores, np.array([0, 1, 2, 3])) is None
    assert statistics.pairs_right(target, scores[:, ::-1], np.array([0, 1, 2, 1])) == 0.0
    assert statistics.others("spearman", np.ones(3), np.arange(3.0), np.arange(3.0)) == {}, "no share of no variance"


def test_few_false_alarms():
    """Of 200 clean networks 2 may be above the threshold; the third highest is at 0.97."""
    clean = np.r_[np.linspace(0.0, 0.9, 197), 0.97, 0.98, 0.99]
    second = np.r_[clean, np.full(30, 0.975), np.full(70, 0.95)]
    target = np.repeat([0, 1], [200, 100])
    scores = np.stack([1 - second, second], axis=1)
    assert statistics.recognised_at(target, scores) == 0.3
    assert statistics.recognised_at(target, scores, 0.0) == 0.0
    found = statistics.others("roc_auc", target, scores, statistics.predicted(scores, 0.5))
    assert (found["tpr_at_fpr_0.01"], found["accuracy"]) == (0.3, pytest.approx((200 - sum(clean >= 0.5) + 100) / 300))


def test_scores_that_are_nearly_equal_keep_their_order():
    """Whatever the threshold; scores of a sure model may differ in the last digits alone."""
    second = np.array([1e-24, 3e-20, 2e-20, 1e-18, 1e-17])
    target, scores = np.array([0, 0, 1, 1, 1]), np.stack([1 - second, second], axis=1)

    attempt = ladder._Attempt(
        ladder.Case("all", points(random_weights(0, 3), random_weights(1, 2))),
        [ladder.Rung("knn", "raw", "plain")],
        ladder.Setting("roc_auc", (split(0, 3, 1),), 1),
    )
    attempt._target = target
    places = np.arange(5)
    for at in (0.5, 1e-22, 1.0):
        found = attempt._score(scores, [places, places, places], models.Fitted(None, 2, {}, ()), at)
        assert found.score == pytest.approx(5 / 6)
        assert found.confusion.sum() == 5


def test_intervals_of_noise_hold_chance_with_any_number_of_seeds():
    """Splits of one dataset share networks: the plain t interval misses chance the more often the more splits there are."""
    missed = {(seeds, kind): 0 for seeds in (5, 20) for kind in ("plain", "corrected")}
    parts = [split(0, 50, number).parts for number in range(1, 21)]
    for number in range(100):
        noise = np.random.default_rng(number).standard_normal((2, 50, 20))
        scores = []
        for each in parts:
            means = noise[:, each == 0].mean(axis=1)
            right = [np.square(noise[k, each == 2, None] - means).sum(axis=2).argmin(axis=1) == k for k in (0, 1)]
            scores.append(float(np.mean(right)))
        for seeds in (5, 20):
            for kind, ratio in (("plain", 0.0), ("corrected", 5 / 40)):
                mean, half_width = statistics.interval(scores[:seeds], ratio, 100)
                missed[seeds, kind] += abs(mean - 0.5) > half_width
    assert missed[20, "plain"] > 25
    assert missed[5, "corrected"] <= 10
    assert missed[20, "corrected"] <= 10


# ------------------------------------------------------------------ datasets


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """xor and its twin, matched, and parity; twelve networks each (of the twin three more), all complete. other: of another
    seed."""
    place = tmp_path_factory.mktemp("analysis")
    common = {"count": 12, "threshold": 10.0, "matched": True}
    make(place / "xor", "xor", **common)
    make(place / "twin", "xor", modified=True, **{**common, "count": 15})
    make(place / "parity", "parity", **common)
    for machine in ("xor", "parity"):
        make(place / f"other-{machine}", machine, seed=1, **common)
    make(place / "parity-twin", "parity", modified=True, **common)
    make(place / "never-direct", "direct", 12)
    make(place / "two", "direct", 2, threshold=10.0)
    make(place / "direct", "direct", 3, threshold=10.0)
    make(place / "shapely", "xor", 12, seed=1, threshold=10.0, matched=True, gru_layers=1)
    make(place / "shapely-parity", "parity", 12, threshold=10.0, matched=True, gru_layers=1)
    make(place / "never-twin", "xor", 12, modified=True, matched=True)
    make(place / "never", "xor", 3)
    make(place / "parity-never", "parity", 3)
    return place


def test_the_graph_network_gives_the_same_on_any_number_of_threads(folders, monkeypatch):
    """Whatever random numbers the process has used up, its weights come from the seed alone."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from tinymlds.analysis import graph

    monkeypatch.setattr(graph, "STEPS", 6)
    monkeypatch.setattr(graph, "EPOCHS", 0)
    monkeypatch.setattr(graph, "_EVERY", 2)
    data, found = [folders / "xor", folders / "parity"], []
    for workers in (1, 2):
        torch.manual_seed(workers)
        found.append(tinymlds.analyze(data, "which-machine", seeds=2, rungs="graph/raw/plain", workers=workers).rows)
    assert found[0] == found[1]
    outputs = []
    for state in (1, 2):
        torch.manual_seed(state)
        network = graph.GraphNetwork(SHAPE, 3)
        graph.draw_parameters(network, 7)
        outputs.append(network(torch.from_numpy(random_weights(0, 2))).detach())
    assert torch.equal(*outputs)


def test_the_same_results_on_any_number_of_threads(folders):
    asked = {"seeds": 3, "rungs": "majority,knn/raw/plain,linear/*/transformed,forest/raw/*,boosting/raw/plain"}
    first, second = (
        tinymlds.analyze([folders / "xor", folders / "parity"], "which-machine", workers=workers, **asked).to_dict()
        for workers in (1, 3)
    )
    assert first.pop("provenance").keys() == second.pop("provenance").keys()
    assert first == second
    for each in first["splits"]:
        assert not set(each["validation"]) & set(each["test"])
    assert first["published"]["score"] == 0.991


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """xor and its twin, matched, with the weights before training: networks that share those are a pair."""
    place = tmp_path_factory.mktemp("pairs")
    common = {"count": 15, "threshold": 10.0, "matched": True, "checkpoints": (0,)}
    make(place / "xor", "xor", **common)
    make(place / "twin", "xor", modified=True, **common)
    return place


def apart(place, monkeypatch):
    """For each seed of an experiment: how many pairs are in more than one part, and how many have both of their networks.

    Counted from the files and from what models are shown; what the analysis knows of pairs and splits has no say.
    """
    initial = {}
    for name in ("xor", "twin"):
        dataset = tinymlds.open(place / name)
        (task,) = dataset.tasks
        before, after = dataset.checkpoints(task)[:, 0], dataset.weights(task)
        initial |= {end.tobytes(): start.tobytes() for start, end in zip(before, after, strict=True)}
    assert len(initial) == 30
    assert len(set(initial.values())) == 15, "fifteen pairs"
    seen, fit = [], models.fit

    class Watched(models.Fitted):
        def scores(self, features):
            seen[-1]["test"] = features  # the last that it is asked for
            return super().scores(features)

    def watch(model, fold, *arguments):
        seen.append({"train": fold.train.copy(), "validation": fold.validation})
        return Watched(*fit(model, fold, *arguments))

    with monkeypatch.context() as patch:
        patch.setattr(models, "fit", watch)
        tinymlds.analyze([place / "xor", place / "twin"], "tampered", seeds=4, rungs="knn/raw/plain")
    counted = []
    for parts in seen:
        assert sum(map(len, parts.values())) == 30
        sides = {}
        for part, networks in parts.items():
            for weights in networks:
                sides.setdefault(initial[weights.tobytes()], []).append(part)
        counted.append((sum(len(set(both)) > 1 for both in sides.values()), sum(len(both) == 2 for both in sides.values())))
    return counted


def test_the_networks_of_a_pair_are_on_one_side(pairs, monkeypatch):
    assert apart(pairs, monkeypatch) == [(0, 15)] * 4


def test_split_pairs_would_be_counted(pairs, monkeypatch):
    """Of a division by network instead of index."""

    def by_place(_, name, index):
        return np.flatnonzero(np.arange(len(index)) % 4 % 3 == splits.SPLITS.index(name))

    monkeypatch.setattr(splits.Split, "part", by_place)
    assert all(split_pairs > 0 for split_pairs, _ in apart(pairs, monkeypatch))


def test_matched_pairs(folders):
    found = tinymlds.analyze([folders / "xor", folders / "twin"], "tampered", rungs="linear/raw/plain,forest/raw/equalised")
    (plain, _) = found.rows
    assert plain.classes == ("clean", "tampered")
    assert len(plain.others["pairs_right"]) == 5
    assert found.pairs.startswith("matched pairs: ")
    assert [each["indices"] for each in found.splits] == [12] * 5, "those that both have"
    assert plain.networks["test"] == [2 * len(each["test"]) for each in found.splits]


def test_networks_of_another_seed_are_held_out(folders):
    ours, theirs = ([folders / f"{prefix}{name}" for name in ("xor", "parity")] for prefix in ("", "other-"))
    found = tinymlds.analyze(ours, "which-machine", rungs="linear/raw/*", held_out=theirs)
    rows = {row.rung: row for row in found.rows}
    assert rows["linear/raw/plain"].networks["test"] == [24] * 5
    assert rows["linear/raw/equalised"].status == "skipped"
    assert "--held-out" in rows["linear/raw/plain"].command
    with pytest.raises(tinymlds.UsageError, match="a seed of their own"):
        tinymlds.analyze(ours, "which-machine", held_out=ours)
    with pytest.raises(tinymlds.UsageError, match="have not the tasks"):
        tinymlds.analyze([*ours, folders / "direct"], "which-machine", rungs="knn", held_out=theirs)


def test_matched_pairs_that_are_held_out(folders, tmp_path):
    for name, modified in (("xor", False), ("twin", True)):
        make(tmp_path / name, "xor", 4, modified=modified, seed=1, threshold=10.0, matched=True)
    theirs = [tmp_path / "xor", tmp_path / "twin"]
    found = tinymlds.analyze(
        [folders / "xor", folders / "twin"], "tampered", seeds=2, rungs="majority,knn/raw/plain", held_out=theirs
    )
    majority, plain = found.rows
    assert majority.others["pairs_right"] == [0.5, 0.5], "the same answer for both of a pair"
    assert all(share * 4 % 0.5 == 0 for share in plain.others["pairs_right"]), "of four pairs"


def test_the_command_line_and_the_command_of_a_row(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(folders)
    out = tmp_path / "found.json"
    asked = ["analyze", "xor", "parity", "--experiment", "which-machine", "--seeds", "3", "--workers", "1"]
    result = CliRunner().invoke(app, [*asked, "--rungs", "majority,knn/raw/plain,forest/epochs/plain", "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    assert "all: knn/raw/plain" in result.stderr
    assert "a guess gets 0.500" in result.stdout
    assert "published: 99.1% accuracy" in result.stdout
    assert result.stdout.splitlines()[-1] == f"next: tinymlds report xor --analysis {out}"
    found = json.loads(out.read_text())
    assert out.read_text() == json.dumps(found, sort_keys=True, separators=(",", ":")) + "\n"
    (row,) = [row for row in found["rows"] if row["rung"] == "knn/raw/plain"]
    assert row["datasets"] == {name: tinymlds.open(folders / name).digest for name in ("xor", "parity")}
    again = CliRunner().invoke(app, [*shlex.split(row["command"])[1:], "--json"])
    assert json.loads(again.stdout)["rows"] == [row]


def test_what_is_not_matched_says_so(folders, tmp_path):
    make(tmp_path / "xor", "xor", 12, threshold=10.0)
    result = CliRunner().invoke(
        app, ["analyze", str(tmp_path / "xor"), str(folders / "twin"), "--experiment", "tampered", "--rungs", "majority"]
    )
    assert result.exit_code == 0, result.stderr
    assert "not matched: machines and twins differ" in result.stdout
    assert "pairs_right" not in result.stdout
    last = result.stdout.splitlines()[-1]
    assert last.startswith("next: tinymlds analyze ")
    assert last.endswith(" --rungs majority --out tampered.json")


def test_what_differs_beside_the_tasks_is_named(folders, tmp_path):
    """Both are matched, and of one seed; yet they are no pairs."""
    make(tmp_path / "twin", "xor", 12, modified=True, threshold=5.0, matched=True)
    found = tinymlds.analyze([folders / "xor", tmp_path / "twin"], "tampered", seeds=2, rungs="majority")
    (row,) = found.rows
    assert "pairs_right" not in row.others
    assert row.notes == ("machines and twins differ in threshold too, which scores may be about",)
    assert found.pairs.startswith("not matched: machines and twins differ in threshold too, which")
    assert [each["differs"] for each in found.datasets] == [[], ["threshold"]]
    theirs = [folders / "other-xor", folders / "other-parity"]
    found = tinymlds.analyze(
        [folders / "xor", folders / "parity"], "which-machine", seeds=2, rungs="knn/raw/plain", held_out=theirs
    )
    assert found.rows[0].notes == ()
    make(tmp_path / "other", "xor", 12, threshold=5.0, matched=True, seed=1)
    theirs[0] = tmp_path / "other"
    found = tinymlds.analyze(
        [folders / "xor", folders / "parity"], "which-machine", seeds=2, rungs="knn/raw/plain", held_out=theirs
    )
    assert found.rows[0].notes == ("networks held out differ from those trained on in threshold",)


def test_a_class_without_complete_networks_is_left_out(folders):
    """Before labels are numbered, so that two classes are told apart by a guess with 0.5; no class, no error."""
    found = tinymlds.analyze(
        [folders / "never-direct", folders / "xor", folders / "parity"],
        "which-machine",
        seeds=2,
        rungs="majority,knn/raw/plain",
    )
    majority, plain = found.rows
    assert majority.classes == plain.classes == ("xor", "parity")
    assert majority.chance == majority.mean == 0.5
    assert plain.notes == ("without direct, of which no network is complete",)


def test_a_case_without_complete_networks_is_skipped(folders):
    found = tinymlds.analyze(
        [folders / "xor", folders / "never-twin", folders / "parity", folders / "parity-twin"],
        "tampered",
        seeds=2,
        rungs="majority",
        cases="all, xor,parity",
    )
    assert {row.case: row.status for row in found.rows} == {"xor": "skipped", "parity": "done", "all": "done"}
    assert found.rows[0].reason == "no network of tampered is complete, so there is nothing to tell apart"


def test_epochs_of_networks_held_out_need_not_vary(tmp_path):
    """A case is one of the datasets that are trained on."""
    tiny = {**TINY, "max_epochs": 6, "workers": 1}
    tinymlds.train("xor", 30, tmp_path / "varied", threshold=0.05, **tiny)
    tinymlds.train("xor", 12, tmp_path / "same", threshold=10.0, seed=1, **tiny)
    varied, same = tmp_path / "varied", tmp_path / "same"
    assert len({row["epochs"] for row in tinymlds.open(varied).rows("xor")}) > 2
    (row,) = tinymlds.analyze(varied, "predict-epochs", seeds=2, rungs="linear/statistics/plain", held_out=same).rows
    assert (row.case, row.status, row.others) == ("xor", "done", {}), "R^2 of what does not vary is not defined"
    assert row.scores == (0.0, 0.0)


def test_notes_of_every_rung_are_said_once(folders, tmp_path):
    make(tmp_path / "twin", "xor", 12, modified=True, threshold=5.0, matched=True)
    asked = [str(folders / "xor"), str(tmp_path / "twin"), "--experiment", "tampered", "--seeds", "2"]
    result = CliRunner().invoke(app, ["analyze", *asked, "--rungs", "majority,boosting/raw/plain,forest/raw/equalised"])
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("differ in threshold too") == 2, "in a note and in what is said of pairs"
    assert "\nevery rung: machines and twins differ in threshold too, which scores may be about\n" in result.stdout
    assert "differs from the first in threshold, " in result.stdout


def test_only_the_first_networks(folders):
    whole = tinymlds.analyze([folders / "xor", folders / "twin"], "tampered", seeds=2, rungs="linear/raw/plain")
    first = tinymlds.analyze([folders / "xor", folders / "twin"], "tampered", seeds=2, rungs="linear/raw/plain", networks=9)
    assert [sum(row.networks[part][0] for part in row.networks) for row in (*whole.rows, *first.rows)] == [24, 18]
    assert first.rows[0].command.endswith(" --rungs linear/raw/plain --cases xor --networks 9")
    points = gather([Wanted(tinymlds.open(folders / "twin"), "xor_modified", 1)], ("a", "b"), 9)
    assert np.array_equal(points.weights, tinymlds.open(folders / "twin").weights("xor_modified")[:9])
    assert points.index.tolist() == list(range(9))


def test_a_machine_that_was_never_seen_tampered(folders, monkeypatch):
    """Trained on the training part of the other machines and twins alone, tested on the test part of this one."""
    data = [folders / name for name in ("xor", "twin", "parity", "parity-twin")]
    label = {
        vector.tobytes(): (task.removesuffix("_modified"), index)
        for folder in data
        for dataset in [tinymlds.open(folder)]
        for task in dataset.tasks
        for index, vector in enumerate(dataset.weights(task))
    }
    seen, fit = [], models.fit

    def watch(model, fold, *arguments):
        seen.append([label[vector.tobytes()] for part in (fold.train, fold.validation) for vector in part])
        return fit(model, fold, *arguments)

    monkeypatch.setattr(models, "fit", watch)
    found = tinymlds.analyze(data, "tampered-unseen", seeds=2, rungs="knn/raw/plain")
    rows = found.rows
    assert [row.case for row in rows] == ["xor", "parity"]
    for row, networks in zip(rows, [seen[:2], seen[2:]], strict=True):
        other = "parity" if row.case == "xor" else "xor"
        for number, each in enumerate(networks):
            test = set(found.splits[number]["test"])
            assert {machine for machine, _ in each} == {other}
            assert not {index for _, index in each} & test
            assert row.networks["test"][number] == 2 * len(test)
        assert len(row.others["pairs_right"]) == 2
    assert found.pairs.startswith("matched pairs")


# ------------------------------------------------------------------ an analysis that is interrupted


ASKED = {"seeds": 2, "rungs": "majority,knn/raw/plain,knn/raw/moved,linear/raw/plain"}


def without_times(path):
    found = json.loads(path.read_text())
    assert found.pop("provenance")["seconds"]
    return found


def interrupted(data, out, stop_at="linear/raw/plain"):
    """An analysis whose rungs from this one on are not climbed."""

    def stop(_case, rungs):
        if rungs == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tinymlds.analyze(data, "which-machine", out=out, progress=stop, **ASKED)


def test_an_interrupted_analysis_goes_on(folders, tmp_path):
    data, whole, out = [folders / "xor", folders / "parity"], tmp_path / "whole.json", tmp_path / "found.json"
    tinymlds.analyze(data, "which-machine", out=whole, **ASKED)
    interrupted(data, out)
    rows = tmp_path / "found.json.rows"
    written = rows.read_bytes()
    interrupted(data, tmp_path / "nothing.json", "majority/raw/plain")
    assert not (tmp_path / "nothing.json.rows").exists(), "nothing was finished"
    assert len(written.splitlines()) == 3, "a header, majority, and nearest neighbours in two forms"
    with rows.open("ab") as file:
        file.write(b'{"case":"all","rows":{"linear/raw/pl')  # a kill in the middle of a line
    climbed = []
    tinymlds.analyze(data, "which-machine", out=out, progress=lambda _, rungs: climbed.append(rungs), **ASKED)
    assert climbed == ["linear/raw/plain"]
    assert without_times(out) == without_times(whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.json", "whole.json"]


def test_rows_of_another_analysis_are_not_taken_up(folders, tmp_path):
    data, out = [folders / "xor", folders / "parity"], tmp_path / "found.json"
    interrupted(data, out)
    rows = tmp_path / "found.json.rows"
    before = rows.read_bytes()
    with pytest.raises(tinymlds.UsageError, match="has rows of another analysis; remove it, or choose another --out"):
        tinymlds.analyze(data, "which-machine", out=out, **{**ASKED, "seeds": 3})
    assert rows.read_bytes() == before
    header, first, *_ = before.splitlines(keepends=True)
    for damaged, words in (
        (b"mine", "another analysis"),
        (header + b"{}\n", "damaged in line 2"),
        (header + first[:-5] + b"\n", "damaged in line 2"),
        (header + first.replace(b'"mean"', b'"meat"') + first, "damaged in line 2"),
    ):
        rows.write_bytes(damaged)
        with pytest.raises(tinymlds.UsageError, match=words):
            tinymlds.analyze(data, "which-machine", out=out, **ASKED)
        assert rows.read_bytes() == damaged
    rows.write_bytes(header[:20])  # a kill in the middle of the first line
    tinymlds.analyze(data, "which-machine", out=out, **ASKED)
    assert not rows.exists()


def test_the_process_is_left_as_it_was(folders, monkeypatch):
    """Threads of PyTorch, BLAS and OpenMP, random numbers, switches and the environment."""
    torch = pytest.importorskip("torch", reason="needs PyTorch")
    from threadpoolctl import threadpool_info

    from tinymlds.analysis import graph

    monkeypatch.setattr(graph, "STEPS", 3)
    monkeypatch.setattr(graph, "EPOCHS", 0)

    def state():
        numbers = np.random.get_state()
        libraries = {library["filepath"]: library["num_threads"] for library in threadpool_info()}
        switches = torch.are_deterministic_algorithms_enabled(), torch.is_grad_enabled(), torch.get_default_dtype()
        about = torch.get_num_threads(), torch.get_num_interop_threads(), torch.get_rng_state().tolist(), switches
        environment = {key: os.environ[key] for key in os.environ if key != "TORCHINDUCTOR_CACHE_DIR"}  # PyTorch's own
        return *about, random.getstate(), numbers[1].tolist(), libraries, environment, list(warnings.filters)

    rungs = "majority,knn/raw/plain,linear/raw/plain,forest/raw/plain,boosting/raw/plain,graph/raw/plain"
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for workers in (1, 2):
            found = state()
            results = tinymlds.analyze(
                [folders / "xor", folders / "parity"], "which-machine", seeds=2, rungs=rungs, workers=workers
            )
            assert all(row.status == "done" for row in results.rows)
            assert state() == found
        network = tinymlds.open(folders / "xor")["xor", 0]
        found = state()
        tinymlds.torch.module(network)
        assert state() == found
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("names", "options", "words"),
    [
        (["xor"], {"experiment": "which-network"}, "no experiment 'which-network'"),
        (["xor"], {}, "at least two machines"),
        (["xor", "xor"], {}, "both have xor"),
        (["xor", "parity"], {"seeds": 1}, "seeds must be between 2"),
        (["xor", "parity"], {"rungs": "oracle"}, "no rung is called 'oracle'"),
        (["xor", "parity"], {"cases": "xor"}, "no case is called 'xor'"),
        (["xor", "parity"], {"experiment": "tampered"}, "modified twin"),
        (["xor", "parity"], {"experiment": "which-transducer"}, "at least two transducers"),
        (["xor"], {"experiment": "predict-epochs"}, "different numbers of epochs"),
        (["two"], {"experiment": "predict-epochs"}, "at least 9 networks"),
        (["xor", "two"], {}, "at least 3 networks"),
        (["xor", "parity"], {"networks": 2}, "networks must be 3 or more"),
        (["xor", "twin"], {"experiment": "tampered-unseen"}, "at least 2 machines and their modified twins"),
        (["xor", "parity"], {"out": "file.json"}, "is there already"),
        (["xor", "parity"], {"out": "nowhere/found.json"}, "nowhere is no folder"),
        (["xor", "parity"], {"out": "file.json/found.json"}, "file.json is no folder"),
        (["xor", "parity"], {"out": "xor/found.json"}, "lies in the dataset"),
        (
            ["xor", "parity"],
            {"out": "other-xor/found.json", "held_out": ["other-xor", "other-parity"]},
            "lies in the dataset",
        ),
        (["xor", "parity"], {"held_out": ["shapely", "other-parity"]}, "different shapes"),
        (["xor", "shapely-parity"], {}, "different shapes"),
        (
            ["xor", "never-twin"],
            {"experiment": "tampered"},
            "no network of tampered is complete, so there is nothing to tell",
        ),
        (["never", "parity-never"], {}, "case all: no network of xor, parity is complete"),
    ],
)
def test_refusals(folders, monkeypatch, names, options, words):
    options = {"experiment": "which-machine", **options}
    if "out" in options:
        options["out"] = folders / options["out"]
        (folders / "file.json").write_text("mine")
    if "held_out" in options:
        options["held_out"] = [folders / name for name in options["held_out"]]
    monkeypatch.setattr(ladder, "climb", None)  # before anything is fitted
    with pytest.raises(tinymlds.UsageError, match=words):
        tinymlds.analyze([folders / name for name in names], **options)


def test_what_is_not_installed_is_named(folders, tmp_path):
    for package in ("sklearn", "torch"):
        (tmp_path / package).mkdir()
        (tmp_path / package / f"{package}.py").write_text("raise ImportError('not here')\n")
    arguments = ("analyze", "xor", "parity", "--experiment", "which-machine", "--seeds", 2)
    path = tinymlds.__path__[0].removesuffix("/tinymlds")
    result = run_cli(*arguments, cwd=folders, env={"PYTHONPATH": f"{tmp_path / 'sklearn'}:{path}"})
    refused(result, 2, "pip install 'tinymlds[analysis]'")
    result = run_cli(
        *arguments, "--rungs", "graph/raw/plain", cwd=folders, env={"PYTHONPATH": f"{tmp_path / 'torch'}:{path}"}
    )
    assert result.returncode == 0, result.stderr
    assert "graph/raw/plain: skipped: the graph network needs PyTorch" in result.stdout


def test_every_experiment_has_a_name_that_the_help_says():
    shown = CliRunner().invoke(app, ["analyze", "--help"]).stdout
    assert all(name in shown for name in experiments.EXPERIMENTS)
