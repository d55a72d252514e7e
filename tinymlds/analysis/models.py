"""The models of scikit-learn; their settings are chosen on the validation networks, by `statistics.fitness`.

Each model runs on one thread, so that sums have one order and results do not depend on the number of threads; several
seeds run in parallel instead (`ladder`).
"""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from sklearn.decomposition import PCA
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor

from tinymlds.analysis.statistics import LEAST_PROBABILITY, Scores, Target, fitness
from tinymlds.architectures.params import Floats

NEIGHBOURS = (1, 5, 25)
PENALTIES = (1e4, 1e2, 1.0, 1e-2)
LEAVES = (1, 4)
TREES = 100
ROUNDS = 60
_BUDGET = 2048
"""Features times trees in a round above which boosting gets principal components, to save time on histograms."""
_COMPONENTS = 64
_ITERATIONS = 1000
_ROWS = 128
"""Networks converted to float64 at a time."""
STANDARDISED = ("knn", "linear")


class Fold(NamedTuple):
    """The data on which a model is fitted and its settings are chosen."""

    train: Floats
    """Features of the training networks, [n, features]."""
    train_target: Target
    validation: Floats
    validation_target: Target
    classes: int
    """Number of classes; 0 if the target is a number."""
    metric: str
    """The score by which settings are chosen."""


class Fitted(NamedTuple):
    """A fitted model."""

    scores: Callable[[Floats], Scores]
    """A function of features that returns logarithms of probabilities [n, classes], or numbers [n]."""
    chosen: dict[str, Any]
    """The settings chosen on the validation networks."""
    notes: tuple[str, ...]


def _standardise(features: Floats) -> Callable[[Floats], Floats]:
    """Standardise features [n, features] in place to mean 0 and deviation 1, and return a function that copies others so.

    Constant features become 0. Sums are float64, over _ROWS rows at a time; the scaler of scikit-learn would make a float64
    copy of all features.
    """
    mean, squares = features.mean(axis=0, dtype=np.float64), np.zeros(features.shape[1])
    for first in range(0, len(features), _ROWS):
        squares += np.square(features[first : first + _ROWS] - mean).sum(axis=0)
    constant = features.min(axis=0) == features.max(axis=0)
    mean[constant] = features[0, constant]
    shift, scale = (each.astype(np.float32) for each in (mean, np.where(constant, 1.0, np.sqrt(squares / len(features)))))
    features -= shift
    features /= scale

    def standard(others: Floats) -> Floats:
        shown = others - shift
        shown /= scale
        return shown

    return standard


def _scores(estimator: Any, features: Floats, classes: int) -> Scores:
    """Return logarithms of probabilities [n, classes], or numbers [n].

    Those of a linear model are computed from its margins: its own float32 probabilities are 1 for all margins above 17, so
    networks beyond that could not be ranked.
    """
    if not classes:
        return np.asarray(estimator.predict(features), np.float64)
    if not isinstance(estimator, LogisticRegression):
        return _logarithms(estimator, estimator.predict_proba(features), classes)
    margins = np.asarray(estimator.decision_function(features), np.float64)
    if margins.ndim == 1:
        margins = np.stack([np.zeros(len(margins)), margins], axis=1)
    return _columns(estimator, margins - np.logaddexp.reduce(margins, axis=1, keepdims=True), classes)


def _logarithms(estimator: Any, probabilities: Any, classes: int) -> Scores:
    return _columns(estimator, np.log(np.clip(np.asarray(probabilities, np.float64), LEAST_PROBABILITY, 1.0)), classes)


def _columns(estimator: Any, scores: Any, classes: int) -> Scores:
    """Return scores [n, classes], with the least possible score for classes without training networks."""
    result = np.full((len(scores), classes), np.log(LEAST_PROBABILITY))
    result[:, np.asarray(estimator.classes_, int)] = scores
    return result


def fit(model: str, fold: Fold, seed: int, jobs: int = 1) -> Fitted:
    """Fit a model with each of its settings, and keep the one with the best fitness on the validation networks.

    Args:
        model: majority, knn, linear, forest or boosting.
        fold: the data; `fold.train` is standardised in place if the model needs it, because a copy would be as large as all
            networks.
        seed: seed of the model.
        jobs: number of threads that grow trees of a forest; a tree depends on its number alone.
    """
    if model == "boosting":
        return _fit_boosting(fold, seed)
    classes, standard = fold.classes, _standardise(fold.train) if model in STANDARDISED else None
    shown = fold.validation if standard is None else standard(fold.validation)
    best: tuple[tuple[float, float], dict[str, Any], Any] | None = None
    for chosen, estimator in _settings(model, fold, seed):
        if model == "forest":
            estimator.set_params(n_jobs=jobs)
        estimator.fit(fold.train, fold.train_target)
        if model == "forest":
            estimator.set_params(n_jobs=1)  # what trees say is added in one order
        found = fitness(fold.metric, fold.validation_target, _scores(estimator, shown, classes))
        if best is None or found > best[0]:
            best = found, chosen, estimator
    if best is None:
        raise ValueError(f"there is no model {model!r}")
    _, chosen, fitted = best

    def scores(features: Floats) -> Scores:
        return _scores(fitted, features if standard is None else standard(features), classes)

    notes = []
    if isinstance(fitted, LogisticRegression) and int(np.max(fitted.n_iter_)) >= _ITERATIONS:
        notes.append(f"stopped after {_ITERATIONS} iterations")
    if chosen.get("penalty") == PENALTIES[-1]:
        notes.append("the weakest penalty fits best")
    return Fitted(scores, chosen, tuple(notes))


def _settings(model: str, fold: Fold, seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yield each setting of a model with its estimator, which takes standardised features if it is one of STANDARDISED."""
    labels = fold.classes > 0
    if model == "majority":
        yield {}, DummyClassifier(strategy="most_frequent") if labels else DummyRegressor()
    elif model == "knn":
        for k in sorted({min(k, len(fold.train)) for k in NEIGHBOURS}):
            kind = KNeighborsClassifier if labels else KNeighborsRegressor
            yield {"neighbours": k}, kind(k, weights="distance", algorithm="brute")
    elif model == "linear":
        for penalty in PENALTIES:
            logistic = LogisticRegression(C=1 / penalty, class_weight="balanced", max_iter=_ITERATIONS)
            yield {"penalty": penalty}, logistic if labels else Ridge(alpha=penalty)
    elif model == "forest":
        for leaf in LEAVES:
            options = {"min_samples_leaf": leaf, "random_state": seed}
            if labels:
                yield {"leaf": leaf}, RandomForestClassifier(TREES, class_weight="balanced", **options)
            else:
                yield {"leaf": leaf}, RandomForestRegressor(TREES, max_features="sqrt", **options)


def _fit_boosting(fold: Fold, seed: int) -> Fitted:
    """Fit boosting once, and choose the number of rounds."""
    classes, trees = fold.classes, fold.classes if fold.classes > 2 else 1
    options = {"max_iter": ROUNDS, "max_leaf_nodes": 15, "max_bins": 63, "early_stopping": False}
    kind = HistGradientBoostingClassifier if classes else HistGradientBoostingRegressor
    estimator = kind(random_state=seed, **options)  # class weights would cost it ten times the time
    notes, train, validation = tuple[str, ...](), fold.train, fold.validation
    reduce: Callable[[Floats], Floats] | None = None
    if fold.train.shape[1] * trees > _BUDGET and fold.train.shape[1] > _COMPONENTS:
        components = min(_COMPONENTS, len(fold.train) - 1)
        standard = _standardise(fold.train)
        pca = PCA(components, svd_solver="randomized", random_state=seed)
        train = np.asarray(pca.fit_transform(fold.train), np.float32)

        def reduce(features: Floats) -> Floats:
            return np.asarray(pca.transform(standard(features)), np.float32)

        validation, notes = reduce(fold.validation), (f"on {components} principal components",)
    estimator.fit(train, fold.train_target)

    def staged(features: Floats) -> Iterator[Scores]:
        """Yield the scores after each round."""
        if classes:
            return (_logarithms(estimator, stage, classes) for stage in estimator.staged_predict_proba(features))
        return iter(estimator.staged_predict(features))

    found = [fitness(fold.metric, fold.validation_target, scores) for scores in staged(validation)]
    rounds = found.index(max(found)) + 1
    notes += (f"all {ROUNDS} rounds fit best",) if rounds == ROUNDS else ()

    def scores(features: Floats) -> Scores:
        return next(islice(staged(features if reduce is None else reduce(features)), rounds - 1, None))

    return Fitted(scores, {"rounds": rounds}, notes)
