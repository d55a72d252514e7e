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
    "95 % interval of the mean over seeds, a t interval corrected for the networks that seeds share (Nadeau and Bengio "
    "2003); where all seeds score the same, the rule of three, 3 / n for n networks tested. It covers the draw of splits, "
    "symmetries and models from this one dataset, so another dataset may differ by more; networks held out are the same "
    "with each seed, so their draw is not covered"
)
FEW_FALSE = 0.01
"""Share of class 0 that may be taken for class 1, where the share of class 1 that is recognised then is told."""


def balanced_accuracy(target: Target, scores: Scores) -> float:
    """`recognised` of what gets most, for scores [n, classes]."""
    return recognised(target, predicted(scores))


def recognised(target: Target, answers: Target) -> float:
    """Mean over the classes that occur of the share recognised."""
    return float(np.mean([np.mean(answers[target == label] == label) for label in np.unique(target)]))


def predicted(scores: Scores, at: float | None = None) -> Target:
    """Classes [n] of scores [n, classes]: what gets most, or, of two classes, class 1 from `at` on."""
    return scores.argmax(axis=1) if at is None else (scores[:, 1] >= at).astype(np.int64)


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
    low, high = values[:-1], values[1:]
    middle = low + (high - low) / 2
    candidates = np.concatenate([[0.5], np.where(middle > low, middle, high)])  # of neighbouring floats none is between
    clean, tampered = (np.sort(scores[target == label, 1]) for label in (0, 1))
    below, missed = np.searchsorted(clean, candidates), np.searchsorted(tampered, candidates)
    right = below * len(tampered) - missed * len(clean)  # whole numbers, so that equals are equal
    best = candidates[right == right.max()]
    return float(best[np.argmin(np.abs(best - 0.5))])


def others(metric: str, target: Target, scores: Scores, answers: Target) -> dict[str, float]:
    """Further scores that go with a metric, of the `predicted` classes too; none that is undefined."""
    if metric == "spearman":
        return {"r2": float(metrics.r2_score(target, scores))} if np.ptp(target) > 0 else {}
    accuracy = float(np.mean(answers == target))
    if metric != "roc_auc":
        return {"accuracy": accuracy}
    return {
        "accuracy": accuracy,
        "balanced_accuracy": recognised(target, answers),
        f"tpr_at_fpr_{FEW_FALSE}": recognised_at(target, scores),
    }


def recognised_at(target: Target, scores: Scores, false: float = FEW_FALSE) -> float:
    """Share of class 1 above a threshold that at most the share `false` of class 0 reaches, for scores [n, 2].

    The true positive rate at a false positive rate, as papers on backdoors report it; of fewer than 1 / false networks of
    class 0 none may reach it. The threshold is that of the networks tested.
    """
    wrong, right, _ = metrics.roc_curve(target, scores[:, 1], drop_intermediate=False)
    return float(right[wrong <= false].max())


def confusion(target: Target, answers: Target, classes: int) -> npt.NDArray[np.int64]:
    """[classes, classes]: networks of the class of the row that were taken for that of the column."""
    return np.asarray(metrics.confusion_matrix(target, answers, labels=range(classes)), np.int64)


def pairs_right(target: Target, scores: Scores, pair: npt.NDArray[np.int64]) -> float | None:
    """Of the pairs (same number in `pair`, one network of each class) the share in which class 1 gets more for class 1.

    Equal scores count one half. None if there are no pairs.
    """
    clean = dict(zip(pair[target == 0].tolist(), scores[target == 0, 1].tolist(), strict=True))
    tampered = dict(zip(pair[target == 1].tolist(), scores[target == 1, 1].tolist(), strict=True))
    both = [(clean[number], tampered[number]) for number in sorted(clean.keys() & tampered.keys())]
    return float(np.mean([0.5 * ((high > low) + (high >= low)) for low, high in both])) if both else None


def interval(scores: Sequence[float], ratio: float, tested: int | None = None) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval of two or more scores, one for each split of the same networks.

    The corrected resampled t: the variance of the mean is s^2 (1 / k + ratio), for k splits do not tell k times as much as
    one (Nadeau and Bengio 2003, Inference for the generalization error, Machine Learning 52, eq. 9). Scores that are all
    the same have no s; then it is the rule of three, 3 / n (Hanley and Lippman-Hand 1983, If nothing goes wrong, is
    everything all right?, JAMA 249).

    Args:
        scores: one for each split.
        ratio: networks tested over networks trained on.
        tested: n, the different networks tested with any split; None where scores are no shares of networks.
    """
    if tested is not None and len(set(scores)) == 1:
        return float(scores[0]), 3.0 / tested
    variance = float(np.var(scores, ddof=1)) * (1.0 / len(scores) + ratio)
    return float(np.mean(scores)), float(stats.t.ppf((1 + LEVEL) / 2, len(scores) - 1)) * math.sqrt(variance)
