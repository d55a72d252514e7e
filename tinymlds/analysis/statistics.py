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
    "2003), and at least what no error among the networks tested is compatible with (the rule of three, for the smallest "
    "class). It covers the draw of splits, symmetries and models from this one dataset, and of networks held out their "
    "draw too; another dataset may differ by more"
)
LEAST_PROBABILITY = 1e-12
"""What probabilities are taken for if they are less: a loss has to be finite."""
_DRAWS = 200
"""Of the networks held out, for the variance of their draw."""
FEW_FALSE = 0.01
"""Share of class 0 that may be taken for class 1, where the share of class 1 that is recognised then is told."""


def balanced_accuracy(target: Target, scores: Scores) -> float:
    """`recognised` of what gets most, for scores [n, classes]."""
    return recognised(target, predicted(scores))


def recognised(target: Target, answers: Target) -> float:
    """Mean over the classes that occur of the share recognised."""
    return float(np.mean([np.mean(answers[target == label] == label) for label in np.unique(target)]))


def predicted(scores: Scores, at: float | None = None) -> Target:
    """Classes [n] of scores [n, classes]: what gets most, or, of two classes, class 1 from odds of `at` on."""
    return scores.argmax(axis=1) if at is None else (odds(scores) >= at).astype(np.int64)


def odds(scores: Scores) -> Scores:
    """Logarithm of the odds for class 1 [n], of scores [n, 2].

    Models rank by them: a probability near 1 has too few digits, so that all that a model is sure of would be equal.
    """
    return scores[:, 1] - scores[:, 0]


def roc_auc(target: Target, scores: Scores) -> float:
    """Chance that a network of class 1 has higher odds for class 1 than one of class 0, for scores [n, 2]."""
    return float(metrics.roc_auc_score(target, odds(scores)))


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

    The loss is the mean of -log p(class), p at least LEAST_PROBABILITY, or the mean squared error of numbers. On few
    networks many settings have the same score.
    """
    if metric == "spearman":
        loss = np.mean(np.square(target - scores))
    else:
        loss = -np.mean(np.maximum(scores[np.arange(len(target)), target], np.log(LEAST_PROBABILITY)))
    return METRICS[metric](target, scores), -float(loss)


def threshold(target: Target, scores: Scores) -> float:
    """Odds (their logarithm) that class 1 must have to be the answer, for scores [n, 2]: with the best balanced accuracy,
    and nearest to 0.

    A model with many more features than networks is sure of those that it was trained on, and may put all others on one
    side of 0, in the right order.
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
    wrong, right, _ = metrics.roc_curve(target, odds(scores), drop_intermediate=False)
    return float(right[wrong <= false].max())


def confusion(target: Target, answers: Target, classes: int) -> npt.NDArray[np.int64]:
    """[classes, classes]: networks of the class of the row that were taken for that of the column."""
    return np.asarray(metrics.confusion_matrix(target, answers, labels=range(classes)), np.int64)


def pairs_right(target: Target, scores: Scores, pair: npt.NDArray[np.int64]) -> float | None:
    """Of the pairs (same number in `pair`, one network of each class) the share in which that of class 1 has higher odds.

    Equal scores count one half. None if there are no pairs.
    """
    found = odds(scores)
    clean, tampered = (
        dict(zip(pair[target == label].tolist(), found[target == label].tolist(), strict=True)) for label in (0, 1)
    )
    both = [(clean[number], tampered[number]) for number in sorted(clean.keys() & tampered.keys())]
    return float(np.mean([0.5 * ((high > low) + (high >= low)) for low, high in both])) if both else None


def interval(scores: Sequence[float], ratio: float, least: float = 0.0, drawn: float = 0.0) -> tuple[float, float]:
    """Mean and half-width of the 95 % interval of two or more scores, one for each split of the same networks.

    The corrected resampled t: the variance of the mean is s^2 (1 / k + ratio), for k splits do not tell k times as much as
    one (Nadeau and Bengio 2003, Inference for the generalization error, Machine Learning 52, eq. 9).

    Args:
        scores: one for each split.
        ratio: networks tested over networks trained on.
        least: what the half-width is at least (`unseen_errors`); scores that are all the same have no s.
        drawn: variance of the mean over draws of the networks tested (`variance_of_draws`), where all splits test the same.
    """
    variance = float(np.var(scores, ddof=1)) * (1.0 / len(scores) + ratio) + drawn
    half_width = float(stats.t.ppf((1 + LEVEL) / 2, len(scores) - 1)) * math.sqrt(variance)
    return float(np.mean(scores)), max(half_width, least)


def unseen_errors(metric: str, target: Target) -> float:
    """How far from 1 a score may be although no error was seen, at 95 %, for the classes [n] of all networks tested.

    The rule of three: of n networks without an error the true share of errors may be 3 / n (Hanley and Lippman-Hand 1983,
    If nothing goes wrong, is everything all right?, JAMA 249). It is largest in the smallest class. Of a balanced accuracy
    that class is one in so many; a ROC curve loses the whole of it if that share of one class is beyond all of the other.
    """
    if metric == "spearman":
        return 0.0
    counts = np.unique(target, return_counts=True)[1]
    return 3.0 / float(counts.min() * (len(counts) if metric == "balanced_accuracy" else 1))


def variance_of_draws(metric: str, target: Target, scores: Sequence[Scores], group: npt.NDArray[np.int64]) -> float:
    """Variance of the mean score over draws of the networks tested: the bootstrap, in which groups [n] stay together.

    Args:
        metric: a name in METRICS.
        target: [n].
        scores: those that each seed gives to the same networks.
        group: [n]: networks of an index may share initial weights and order.
    """
    random, places = np.random.default_rng(0), [np.flatnonzero(group == number) for number in np.unique(group)]
    found = []
    for _ in range(_DRAWS):
        picked = np.concatenate([places[k] for k in random.integers(len(places), size=len(places))])
        drawn = target[picked]
        if len(np.unique(drawn)) > 1:
            found.append(float(np.mean([METRICS[metric](drawn, each[picked]) for each in scores])))
    return float(np.var(found, ddof=1)) if len(found) > 1 else 0.0
