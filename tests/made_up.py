"""Made-up networks for tests of the analysis, and rungs that are climbed on them."""

import numpy as np

from tinymlds.analysis import ladder
from tinymlds.analysis.points import Points
from tinymlds.analysis.splits import split
from tinymlds.spec import Recipe, Setting

RECIPE = Recipe.of(hidden=4, gru_layers=2, linear_maps=3)
SHAPE = RECIPE.architecture
COUNT = 100
"""Networks of each class."""


def random_weights(seed, count=COUNT, shape=SHAPE):
    return np.random.default_rng(seed).uniform(-0.6, 0.6, (count, shape.size)).astype(np.float32)


def points(*weights, target=None, classes=("a", "b"), epochs=None, loss=None):
    """Made-up networks of two tasks, [COUNT, P] each."""
    source = np.repeat(np.arange(len(weights)), [len(each) for each in weights])
    index = np.concatenate([np.arange(len(each)) for each in weights])
    sources = tuple(Setting(task, 0, RECIPE) for task in ("direct", "invert")[: len(weights)])
    epochs = np.ones(len(index), np.int64) if epochs is None else epochs
    loss = np.full(len(index), 5e-5) if loss is None else loss
    target = source if target is None else target
    return Points(sources, classes, np.concatenate(weights), source, index, epochs, loss, target)


def climbed(data, name, metric="balanced_accuracy", seeds=3, **options):
    rung = ladder.Rung(*name.split("/"))
    setting = ladder.Evaluation(metric, tuple(split(0, int(data.index.max()) + 1, k) for k in range(seeds)), 1)
    [found] = ladder.climb(ladder.Case("all", data, **options), [rung], setting)
    return found


def score(*arguments, **options):
    return climbed(*arguments, **options)["mean"]
