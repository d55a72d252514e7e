"""Scores of predictions, and the interval of their mean."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats
from sklearn import metrics

Scores = npt.NDArray[np.float64]
Target = npt.NDArray[Any]

LEVEL = 0.95
INTERVAL = (
    "t interval of the mean over seeds, 95 %: it covers the draw of splits, symmetries and model from this one dataset; "
    "seeds share networks, so another dataset may differ by more"
)


def balanced_accuracy(target: Target, scores: Scores) -> float:
    """Mean over the classes that occur of the share recognised, for scores [n, classes]."""
    predicted = scores.argmax(axis=1)
    return float(np.mean([np.mean(predicted[target == label] == label) for label in np.unique(target)]))


def roc_auc(target: Target, scores: Scores) -> float:
    """Chance that a network of class 1 gets more for class 1 than one of class 0, for scores [n, 2]."""
    return float(metrics.roc_auc_score(target, scores[:, 1]))


def spearman(target: Target, scores: Scores) -> float:
    """Rank correlation of numbers; 0 where one side is constant."""
    if np.ptp(target) == 0 or np.ptp(scores) == 0:
        return 0.0
    return float(stats.spearmanr(target, scores).statistic)


METRICS: dict[str, Callable[[Target, Scores], float]] = {
    "balanced_accuracy": balanced_accuracy,
    "roc_auc": roc_auc,
    "spearman": spearman,
}


def fitness(metric: str, target: Target, scores: Scores) -> tuple[float, float]:
    """What models are chosen by: the score, and among equals the loss with its sign changed; more is better.

    The loss is the mean of -log p(class), p at least 1e-12, or the mean squared error of numbers. On few networks many
    settings have the same score.
    """
    if metric == "spearman":
        loss = np.mean(np.square(target - scores))
    else:
        loss = -np.mean(np.log(np.clip(scores[np.arange(len(target)), target], _LEAST, 1.0)))
    return METRICS[metric](target, scores), -float(loss)


_LEAST = 1e-12


def threshold(target: Target, scores: Scores) -> float:
    """What class 1 has to get to be the answer, for scores [n, 2]: that with the best balanced accuracy, nearest to 0.5.

    A model with many more features than networks is sure of those that it was trained on, and may put all others on one
    side of 0.5, in the right order.
    """
    values = np.unique(scores[:, 1])
    candidates: list[float] = [0.5, *((values[1:] + values[:-1]) / 2).tolist()]
    return max(candidates, key=lambda at: (balanced_accuracy(target, recentred(scores, at)), -abs(at - 0.5)))


def recentred(scores: Scores, at: float) -> Scores:
    """Scores [n, 2] in the same order, linear on both sides of `at`, which becomes 0.5; between 0 and 1, as before."""
    second = scores[:, 1]
    moved = np.where(second < at, second / (2 * at), 1 - (1 - second) / (2 * (1 - at)))
    return np.stack([1 - moved, moved], axis=1)


def others(metric: str, target: Target, scores: Scores) -> dict[str, float]:
    """Further scores that go with a metric."""
    if metric == "spearman":
        return {"r2": float(metrics.r2_score(target, scores))}
    accuracy = float(np.mean(scores.argmax(axis=1) == target))
    if metric == "roc_auc":
        return {"accuracy": accuracy, "balanced_accuracy": balanced_accuracy(target, scores)}
    return {"accuracy": accuracy}


def confusion(target: Target, scores: Scores) -> npt.NDArray[np.int64]:
    """[classes, classes]: networks of the class of the row that were taken for that of the column."""
    labels = range(scores.shape[1])
    return np.asarray(metrics.confusion_matrix(target, scores.argmax(axis=1), labels=labels), np.int64)


def pairs_right(target: Target, scores: Scores, pair: npt.NDArray[np.int64]) -> float | None:
    """Of the pairs (same number in `pair`, one network of each class) the share in which class 1 gets more for class 1.

    Equal scores count one half. None if there are no pairs.
    """
    clean = dict(zip(pair[target == 0].tolist(), scores[target == 0, 1].tolist(), strict=True))
    tampered = dict(zip(pair[target == 1].tolist(), scores[target == 1, 1].tolist(), strict=True))
    both = [(clean[number], tampered[number]) for number in sorted(clean.keys() & tampered.keys())]
    return float(np.mean([0.5 * ((high > low) + (high >= low)) for low, high in both])) if both else None


def interval(scores: Sequence[float]) -> tuple[float, float]:
    """Mean and half-width of the 95 % t interval of two or more scores."""
    deviation = float(np.std(scores, ddof=1))
    width = float(stats.t.ppf((1 + LEVEL) / 2, len(scores) - 1)) * deviation / math.sqrt(len(scores))
    return float(np.mean(scores)), width
