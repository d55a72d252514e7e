"""What the weights reveal: planted signals with known answers, leaks, controls, invariance, the same results twice."""

from dataclasses import replace

import numpy as np
import pytest

import tinymlds
from tinymlds.architectures import params, symmetry
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.dataset.manifest import splits as column
from tinymlds.spec import Recipe, Setting

pytest.importorskip("sklearn", reason="needs scikit-learn")

from made_up import COUNT, RECIPE, SHAPE, climbed, points, random_weights, score

from tinymlds.analysis import ladder, models, statistics
from tinymlds.analysis.features import answers, features
from tinymlds.analysis.features import statistics as layer_statistics
from tinymlds.analysis.points import cells, equalised, sharing
from tinymlds.analysis.splits import split

pytestmark = pytest.mark.usefixtures("small_forests")


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
        larger[:, tinymlds.architectures.params.places(SHAPE)[place]] *= 1.6
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
    setting = ladder.Evaluation("balanced_accuracy", tuple(split(0, COUNT, k) for k in range(3)), 1)
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
    first = tinymlds.training.data.initial_weights(Setting("invert", 0, RECIPE), 3)
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

    for shape in (GruLinear(), GruLinear(hidden=8, layers=1, maps=1)):
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
            changed[:, tinymlds.architectures.params.places(shape)[name]] *= -1.0
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
    monkeypatch.setattr(graph, "STEPS_PER_CLASS", 5)
    graph.fit(fold, SHAPE, 0)
    assert len(looks) == 3, "the last step is one"


def test_the_graph_network_says_what_it_cannot():
    pytest.importorskip("torch", reason="needs PyTorch")
    from tinymlds.analysis import graph

    with pytest.raises(tinymlds.UsageError, match="without activation only"):
        graph.GraphNetwork(GruLinear(activation="tanh"), 2)


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


def test_networks_that_a_linear_model_is_sure_of_are_ranked():
    """All networks tested are far on the tampered side, as those of an unseen machine may be: float32 calls each 1."""
    fold, shown, target = tied(60)
    shown = shown + 4.0 * (np.arange(shown.shape[1]) < 40).astype(np.float32)
    fitted = models.fit("linear", fold, 0)
    scores = fitted.scores(shown)
    certain = np.exp(scores[:, 1]).astype(np.float32)
    assert len(np.unique(certain)) == 1, "as probabilities"
    assert len(np.unique(statistics.odds(scores))) == len(shown)
    assert statistics.roc_auc(target, scores) > 0.9 > statistics.roc_auc(target, np.stack([1 - certain, certain], axis=1))
    assert "the weakest penalty fits best" in fitted.notes


def test_thresholds():
    def at(target, *odds):
        return statistics.threshold(np.array(target), np.stack([np.zeros(len(odds)), odds], axis=1))

    assert at([0, 0, 1, 1], -4.0, -3.0, 3.0, 4.0) == 0.0, "it is good enough"
    assert at([0, 0, 1, 1], -4.0, -3.0, -2.0, -1.0) == -2.5
    assert at([0, 1], -2.0, -2.0) == 0.0, "no other"
    assert at([1, 0, 1, 0], 1.0, 2.0, 3.0, 4.0) == 0.0, "none is better"
    low, high = np.nextafter(1.0, 0.0), 1.0
    assert at([0, 0, 1, 1], low, low, high, high) == high, "no number is between them"


def test_thresholds_are_those_of_a_plain_search():
    draw = np.random.default_rng(0)
    for _ in range(50):
        target, odds = np.r_[0, 1, draw.integers(0, 2, 10)], draw.choice([-9.0, -3.0, -1.0, 0.0, 0.5, 4.0, 9.0], 12)
        values = np.unique(odds)
        shares = {
            at: statistics.recognised(target, (odds >= at).astype(int)) for at in [0.0, *(values[1:] + values[:-1]) / 2]
        }
        best = [at for at, share in shares.items() if share >= max(shares.values()) - 1e-12]
        found = statistics.threshold(target, np.stack([np.zeros(12), odds], axis=1))
        assert abs(found) == min(abs(at) for at in best)


def test_fitness():
    target, sure, unsure = np.array([0, 1]), np.log([[0.9, 0.1], [0.2, 0.8]]), np.log([[0.6, 0.4], [0.5, 0.5]])
    score, loss = statistics.fitness("roc_auc", target, sure)
    assert (score, loss) == (1.0, pytest.approx((np.log(0.9) + np.log(0.8)) / 2))
    assert statistics.fitness("roc_auc", target, sure) > statistics.fitness("roc_auc", target, unsure)
    wrong = np.log([[1e-30, 1.0], [1.0, 1e-30]])
    assert statistics.fitness("balanced_accuracy", target, wrong)[1] == pytest.approx(np.log(1e-12))
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
    everywhere, one = np.arange(2 * COUNT), data.epochs
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
    assert sharing(apart, apart.epochs) is None
    with pytest.raises(tinymlds.UsageError, match="no two classes share"):
        climbed(apart, "forest/raw/equalised")
    assert sharing(data, cells(data.epochs, everywhere)) is None, "each network on its own: none has a partner"


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
    once = equalised(data, (0, 1), data.epochs, np.arange(2 * COUNT))
    monkeypatch.setattr(ladder, "equalised", lambda *given: np.intersect1d(given[-1], once))
    if (model, low, high) == ("forest", 7, 26):
        assert score(data, rung.name, seeds=8) < 0.4


def test_too_few_equalised_for_training_are_skipped():
    epochs = np.tile(np.where(np.arange(COUNT) < 11, 1, np.arange(COUNT) + 1), 2)
    epochs[COUNT + 11 :] += COUNT
    data = points(random_weights(0), random_weights(1), epochs=epochs)
    assert sharing(data, data.epochs) == (0, 1)
    with pytest.raises(
        tinymlds.UsageError, match=r"with seed \d only \d networks of each class are left for training, not 10"
    ):
        climbed(data, "forest/raw/equalised", seeds=5)


def test_losses_are_equalised():
    """Class b has half of the losses of class a, which a forest sees at once; equalised it has nothing to see."""
    loss = np.random.default_rng(3).uniform(2e-5, 1e-4, 2 * COUNT)
    loss[COUNT:] /= 2.0
    data = points(random_weights(0), random_weights(1), loss=loss)
    assert score(data, "forest/loss/plain") > 0.6
    found = climbed(data, "forest/loss/equal-loss", seeds=8)
    assert abs(found["mean"] - 0.5) < 0.12  # what is left is within a bin, of a tenth of a decade
    assert "with each tenth of a decade of losses" in found["notes"][0]
    with pytest.raises(tinymlds.UsageError, match="no two classes share losses"):
        climbed(replace(data, loss=np.repeat([1e-5, 1e-4], COUNT)), "forest/raw/equal-loss")


def test_a_norm_is_seen_alone_and_taken_away():
    data = points(random_weights(0), 1.5 * random_weights(1))
    assert score(data, "forest/norm/plain") > 0.95
    assert score(data, "forest/norms/plain") > 0.95
    assert score(data, "forest/statistics/plain") > 0.95
    assert abs(score(data, "forest/statistics/normalised") - 0.5) < 0.15  # 100 networks in a test, three seeds
    seen = features(data, "raw", "normalised", 0)
    for place in params.places(SHAPE).values():
        np.testing.assert_allclose(np.linalg.norm(seen[:, place], axis=1), 1.0, rtol=1e-5)  # float32


def test_a_class_that_shares_no_epochs_is_left_out():
    data = points(random_weights(0, 150), target=np.repeat([0, 1, 2], 50), classes=("a", "b", "c"))
    data = replace(data, epochs=np.repeat([1, 9, 1], 50))
    assert sharing(data, data.epochs) == (0, 2)
    assert np.bincount(data.target[equalised(data, (0, 2), data.epochs, np.arange(150))]).tolist() == [50, 0, 50]
    found = climbed(data, "majority/raw/equalised")
    assert (found["classes"], found["chance"]) == (("a", "c"), 0.5)
    assert found["notes"][0].endswith("; too few shared with b")


# ------------------------------------------------------------------ features and figures


def test_layer_statistics():
    weights = random_weights(0, 3)
    found = layer_statistics(SHAPE, weights)
    first = weights[:, : np.prod(SHAPE.tensors()[0][1])].astype(np.float64)
    assert found.shape == (3, 8 * len(SHAPE.tensors()))
    expected = [first.mean(1), first.std(1), np.linalg.norm(first, axis=1), first.min(1)]
    np.testing.assert_allclose(found[:, :4], np.stack(expected, 1), rtol=1e-6)
    np.testing.assert_allclose(found[:, 5], np.median(first, axis=1), rtol=1e-6)


def test_answers_do_not_depend_on_coordinates():
    recipe = Recipe()  # its kernels are compiled already
    weights = random_weights(0, 4, recipe.architecture)
    data = replace(points(weights), sources=(Setting("direct", 0, recipe),))
    moved = symmetry.transform(recipe.architecture, data.weights, 2)
    assert answers(data, data.weights).shape == (4, 16 * recipe.steps * recipe.architecture.outputs)
    np.testing.assert_allclose(answers(data, data.weights), answers(data, moved), atol=1e-5)  # float32, 16 steps
    mixed = replace(data, sources=(Setting("direct", 0, recipe), Setting("transducer_000", 0, recipe)))
    with pytest.raises(tinymlds.UsageError, match="different symbols"):
        answers(mixed, data.weights)


def test_figures():
    student, deviation = 3.182446, 1.290994  # three degrees of freedom
    for ratio, variance in ((0.0, 0.25), (0.125, 0.375)):
        mean, half_width = statistics.interval([1.0, 2.0, 3.0, 4.0], ratio, 0.1)
        assert mean == 2.5
        assert half_width == pytest.approx(student * deviation * variance**0.5, rel=1e-5)
    assert statistics.interval([1.0] * 5, 0.125, 0.1) == (1.0, 0.1)
    assert statistics.interval([1.0, 0.999, 1.0, 1.0, 1.0], 0.125, 0.1)[1] == 0.1, "an error does not make it narrower"
    assert statistics.interval([1.0] * 5, 0.125) == (1.0, 0.0)
    assert statistics.interval([0.5, 0.5], 0.125, drawn=0.01)[1] == pytest.approx(12.7062 * 0.1, rel=1e-5)
    labels = np.repeat([0, 1], [30, 20])
    assert statistics.unseen_errors("roc_auc", labels) == 3 / 20, "of the twins"
    assert statistics.unseen_errors("balanced_accuracy", labels) == 3 / 40
    assert statistics.unseen_errors("spearman", np.arange(50.0)) == 0.0
    target, scores = np.array([0, 0, 0, 1]), np.log([[0.9, 0.1], [0.8, 0.2], [0.4, 0.6], [0.3, 0.7]])
    assert statistics.balanced_accuracy(target, scores) == pytest.approx((2 / 3 + 1) / 2)
    assert statistics.roc_auc(target, scores) == 1.0
    assert statistics.confusion(target, statistics.predicted(scores), 2).tolist() == [[2, 1], [0, 1]]
    assert statistics.predicted(scores, np.log(0.65 / 0.35)).tolist() == [0, 0, 0, 1]
    assert statistics.predicted(scores, statistics.odds(scores)[2]).tolist() == [0, 0, 1, 1], "from there on"
    assert statistics.pairs_right(target, scores, np.array([0, 1, 2, 1])) == 1.0
    assert statistics.pairs_right(target, scores, np.array([0, 1, 2, 3])) is None
    assert statistics.pairs_right(target, scores[:, ::-1], np.array([0, 1, 2, 1])) == 0.0
    assert statistics.others("spearman", np.ones(3), np.arange(3.0), np.arange(3.0)) == {}, "no share of no variance"


def test_few_false_alarms():
    """Of 200 clean networks 2 may be above the threshold; the third highest is at 0.97."""
    clean = np.r_[np.linspace(0.0, 0.9, 197), 0.97, 0.98, 0.99]
    second = np.r_[clean, np.full(30, 0.975), np.full(70, 0.95)]
    target = np.repeat([0, 1], [200, 100])
    scores = np.stack([np.zeros(300), second - 0.5], axis=1)
    assert statistics.recognised_at(target, scores) == 0.3
    assert statistics.recognised_at(target, scores, 0.0) == 0.0
    found = statistics.others("roc_auc", target, scores, statistics.predicted(scores, 0.0))
    assert (found["tpr_at_fpr_0.01"], found["accuracy"]) == (0.3, pytest.approx((200 - sum(clean >= 0.5) + 100) / 300))


def test_scores_that_are_nearly_equal_keep_their_order():
    """Whatever the threshold; scores of a sure model may differ in the last digits alone."""
    second = np.array([1e-24, 3e-20, 2e-20, 1e-18, 1e-17])
    target, scores = np.array([0, 0, 1, 1, 1]), np.stack([np.log(second), np.log1p(-second)], axis=1)[:, ::-1]

    attempt = ladder._Attempt(
        ladder.Case("all", points(random_weights(0, 3), random_weights(1, 2))),
        [ladder.Rung("knn", "raw", "plain")],
        ladder.Evaluation("roc_auc", (split(0, 3, 1),), 1),
    )
    attempt._target = target
    places = np.arange(5)
    fitted = models.Fitted(None, {}, ())
    for at in (0.0, -50.0, 60.0):
        found = attempt._score(scores, [places, places, places], fitted, at)
        assert found.score == pytest.approx(5 / 6)
        assert found.confusion.sum() == 5
    with pytest.raises(tinymlds.UsageError, match="not finite"):
        attempt._score(scores * np.nan, [places, places, places], fitted, 0.0)


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
                mean, half_width = statistics.interval(scores[:seeds], ratio)
                missed[seeds, kind] += abs(mean - 0.5) > half_width
    assert missed[20, "plain"] > 25
    assert missed[5, "corrected"] <= 10
    assert missed[20, "corrected"] <= 10


def test_intervals_of_noise_that_is_held_out_hold_chance():
    """Each seed tests on the same networks, so that how these were drawn does not show in how scores of seeds differ."""
    parts, target, index = [split(0, 50, number).parts for number in range(5)], np.repeat([0, 1], 20), np.tile(range(20), 2)
    missed = {"seeds": 0, "both": 0}
    for number in range(60):
        draw = np.random.default_rng(number)
        noise, held = draw.standard_normal((2, 50, 20)), draw.standard_normal((40, 20))
        answers = []
        for each in parts:
            means = noise[:, each == 0].mean(axis=1)
            answers.append(-np.square(held[:, None] - means).sum(axis=2))
        scores = [statistics.balanced_accuracy(target, each) for each in answers]
        drawn = statistics.variance_of_draws("balanced_accuracy", target, answers, index)
        for kind, variance in (("seeds", 0.0), ("both", drawn)):
            mean, half_width = statistics.interval(scores, 5 / 40, drawn=variance)
            missed[kind] += abs(mean - 0.5) > half_width
    assert missed["seeds"] > 9
    assert missed["both"] <= 6
