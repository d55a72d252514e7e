"""Scores of predictions, and confidence intervals of their mean."""

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
    "2003), and at least what no error among the networks tested is compatible with (the rule of three, for the smallest "
    "class). It covers the draw of splits, symmetries and models from this one dataset, and of networks held out their "
    "draw too; another dataset may differ by more"
)
LEAST_PROBABILITY = 1e-12
"""The lower bound of probabilities, which keeps losses finite."""
_DRAWS = 200
"""Number of bootstrap draws of held-out networks, for their variance."""
FEW_FALSE = 0.01
"""The false positive rate at which the true positive rate is reported."""


def balanced_accuracy(target: Target, scores: Scores) -> float:
    """Return the balanced accuracy of the classes with the highest scores [n, classes]."""
    return recognised(target, predicted(scores))


def recognised(target: Target, answers: Target) -> float:
    """Return the mean recall over the classes that occur."""
    return float(np.mean([np.mean(answers[target == label] == label) for label in np.unique(target)]))


def predicted(scores: Scores, at: float | None = None) -> Target:
    """Return the classes with the highest scores [n, classes]; with `at`, class 1 of two where its log odds reach `at`."""
    return scores.argmax(axis=1) if at is None else (odds(scores) >= at).astype(np.int64)


def odds(scores: Scores) -> Scores:
    """Return the log odds of class 1 [n] for scores [n, 2].

    Networks are ranked by log odds because probabilities near 1 have too few digits to differ.
    """
    return scores[:, 1] - scores[:, 0]


def roc_auc(target: Target, scores: Scores) -> float:
    """Return the probability that a network of class 1 has higher odds of class 1 than one of class 0."""
    return float(metrics.roc_auc_score(target, odds(scores)))


def spearman(target: Target, scores: Scores) -> float:
    """Return the rank correlation of numbers; 0 if one side is constant."""
    if np.ptp(target) == 0 or np.ptp(scores) == 0:
        return 0.0
    return float(stats.spearmanr(target, scores).statistic)


METRICS: dict[str, Callable[[Target, Scores], float]] = {
    "balanced_accuracy": balanced_accuracy,
    "roc_auc": roc_auc,
    "spearman": spearman,
}


def fitness(metric: str, target: Target, scores: Scores) -> tuple[float, float]:
    """Return the criterion for choosing settings, higher is better: the score, then the negative loss to break ties.

    The loss is the mean of -log p(class), p at least LEAST_PROBABILITY, or the mean squared error of numbers. With few
    networks many settings have the same score.
    """
    if metric == "spearman":
        loss = np.mean(np.square(target - scores))
    else:
        loss = -np.mean(np.maximum(scores[np.arange(len(target)), target], np.log(LEAST_PROBABILITY)))
    return METRICS[metric](target, scores), -float(loss)


def threshold(target: Target, scores: Scores) -> float:
    """Return the threshold of log odds with the best balanced accuracy for scores [n, 2], the one nearest to 0 of equals.

    A model with many more features than networks separates its training networks widely, and may put all others on one
    side of 0 although it ranks them correctly.
    """
    found = odds(scores)
    values = np.unique(found)
    low, high = values[:-1], values[1:]
    middle = low + (high - low) / 2
    candidates = np.concatenate([[0.0], np.where(middle > low, middle, high)])  # of neighbouring floats none is between
    clean, tampered = (np.sort(found[target == label]) for label in (0, 1))
    below, missed = np.searchsorted(clean, candidates), np.searchsorted(tampered, candidates)
    right = below * len(tampered) - missed * len(clean)  # whole numbers, so that equals are equal
    best = candidates[right == right.max()]
    return float(best[np.argmin(np.abs(best))])


def others(metric: str, target: Target, scores: Scores, answers: Target) -> dict[str, float]:
    """Return further scores that accompany a metric, computed from scores and predicted classes, if they are defined."""
    if metric == "spearman":
        return {"r2": float(metrics.r2_score(target, scores))} if np.ptp(target) > 0 else {}
    found = {"accuracy": float(np.mean(answers == target))}
    if metric == "roc_auc":
        found["balanced_accuracy"] = recognised(target, answers)
        found[f"tpr_at_fpr_{FEW_FALSE}"] = recognised_at(target, scores)
    return found


def recognised_at(target: Target, scores: Scores, false: float = FEW_FALSE) -> float:
    """Return the true positive rate at a false positive rate of at most `false`, for scores [n, 2].

    Papers on backdoors report this number. With fewer than 1 / false networks of class 0, none of them may reach the
    threshold, which is chosen on the tested networks.
    """
    wrong, right, _ = metrics.roc_curve(target, odds(scores), drop_intermediate=False)
    return float(right[wrong <= false].max())


def confusion(target: Target, answers: Target, classes: int) -> npt.NDArray[np.int64]:
    """Return the confusion matrix [classes, classes]: rows are true classes, columns predicted ones."""
    return np.asarray(metrics.confusion_matrix(target, answers, labels=range(classes)), np.int64)


def pairs_right(target: Target, scores: Scores, pair: npt.NDArray[np.int64]) -> float | None:
    """Return the share of pairs in which the network of class 1 has the higher odds; None if there are no pairs.

    A pair has the same number in `pair`, and one network of each class. Equal scores count one half.
    """
    found = odds(scores)
    clean, tampered = (
        dict(zip(pair[target == label].tolist(), found[target == label].tolist(), strict=True)) for label in (0, 1)
    )
    both = [(clean[number], tampered[number]) for number in sorted(clean.keys() & tampered.keys())]
    return float(np.mean([0.5 * ((high > low) + (high >= low)) for low, high in both])) if both else None


def interval(scores: Sequence[float], ratio: float, least: float = 0.0, drawn: float = 0.0) -> tuple[float, float]:
    """Return mean and half-width of the 95 % interval of two or more scores, one for each split of the same networks.

    This is the corrected resampled t interval: the variance of the mean is s^2 (1 / k + ratio), because k splits carry less
    than k times the information of one (Nadeau and Bengio 2003, Inference for the generalization error, Machine Learning
    52, eq. 9).

    Args:
        scores: one score for each split.
        ratio: number of networks tested over number of networks trained on.
        least: lower bound of the half-width (`unseen_errors`), needed because equal scores have s = 0.
        drawn: variance of the mean over draws of the tested networks (`variance_of_draws`), if all splits test the same.
    """
    variance = float(np.var(scores, ddof=1)) * (1.0 / len(scores) + ratio) + drawn
    half_width = float(stats.t.ppf((1 + LEVEL) / 2, len(scores) - 1)) * math.sqrt(variance)
    return float(np.mean(scores)), max(half_width, least)


def unseen_errors(metric: str, target: Target) -> float:
    """Return how far below 1 the true score may be at 95 % if no tested network, of classes [n], was an error.

    By the rule of three, after n networks without an error the true error rate may be 3 / n (Hanley and Lippman-Hand 1983,
    If nothing goes wrong, is everything all right?, JAMA 249), which is largest in the smallest class. Balanced accuracy
    loses that rate divided by the number of classes; ROC-AUC loses all of it, if the errors rank beyond the other class.
    """
    if metric == "spearman":
        return 0.0
    counts = np.unique(target, return_counts=True)[1]
    return 3.0 / float(counts.min() * (len(counts) if metric == "balanced_accuracy" else 1))


def variance_of_draws(metric: str, target: Target, scores: Sequence[Scores], group: npt.NDArray[np.int64]) -> float:
    """Return the variance of the mean score over draws of the tested networks, by a bootstrap that keeps groups together.

    The targets and groups are [n], the scores those of the same networks with each seed. Networks of an index are a group,
    as they may share initial weights and order.
    """
    random, places = np.random.default_rng(0), [np.flatnonzero(group == number) for number in np.unique(group)]
    found = []
    for _ in range(_DRAWS):
        picked = np.concatenate([places[k] for k in random.integers(len(places), size=len(places))])
        drawn = target[picked]
        if len(np.unique(drawn)) > 1:
            found.append(float(np.mean([METRICS[metric](drawn, each[picked]) for each in scores])))
    return float(np.var(found, ddof=1)) if len(found) > 1 else 0.0
