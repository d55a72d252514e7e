"""The models of scikit-learn; their settings are chosen on the validation networks, by `statistics.fitness`.

Each model runs on one thread, so that sums have one order and results do not depend on the number of threads; several
seeds run in parallel instead (`ladder`).
"""

from collections.abc import Callable, Iterator
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

MODELS = {
    "majority": "the most frequent class, or the mean",
    "knn": "k-nearest neighbours, standardised",
    "linear": "logistic or ridge regression, standardised",
    "forest": "random forest, 100 trees",
    "boosting": "gradient boosting of histograms, up to 60 rounds",
}

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

    estimator: Any
    classes: int
    chosen: dict[str, Any]
    """The settings chosen on the validation networks."""
    notes: tuple[str, ...]

    def scores(self, features: Floats) -> Scores:
        """Return logarithms of probabilities [n, classes], or numbers [n]."""
        if not self.classes:
            return np.asarray(self.estimator.predict(features), np.float64)
        return _columns(self.estimator.log_probabilities(features), self.estimator.classes_, self.classes)


class _Standard(NamedTuple):
    """The shift and scale of every feature, float32 [features]."""

    mean: Floats
    scale: Floats

    def __call__(self, features: Floats) -> Floats:
        """Return the standardised features of other networks, as a copy."""
        return self.apply(features.astype(np.float32))

    def apply(self, features: Floats) -> Floats:
        """Standardise features in place, and return the same array."""
        features -= self.mean
        features /= self.scale
        return features


def _standardise(features: Floats) -> _Standard:
    """Standardise features [n, features] in place to mean 0 and deviation 1; constant features become 0.

    Sums are float64, over _ROWS rows at a time; the scaler of scikit-learn would make a float64 copy of all features.
    """
    mean, squares = features.mean(axis=0, dtype=np.float64), np.zeros(features.shape[1])
    for first in range(0, len(features), _ROWS):
        squares += np.square(features[first : first + _ROWS] - mean).sum(axis=0)
    constant = features.min(axis=0) == features.max(axis=0)
    mean[constant] = features[0, constant]
    scale = np.where(constant, 1.0, np.sqrt(squares / len(features)))
    standard = _Standard(mean.astype(np.float32), scale.astype(np.float32))
    standard.apply(features)
    return standard


class _Prepared(NamedTuple):
    """An estimator with the preparation of its features, if any, and, for boosting, the number of rounds to use."""

    prepare: Callable[[Floats], Floats] | None
    estimator: Any
    rounds: int | None = None

    @property
    def classes_(self) -> Any:
        """The classes of the estimator."""
        return self.estimator.classes_

    def log_probabilities(self, features: Floats) -> Scores:
        """Return logarithms of probabilities, [n, classes_].

        Those of a linear model are computed from its margins: its own float32 probabilities are 1 for all margins above 17,
        so networks beyond that could not be ranked.
        """
        if not isinstance(self.estimator, LogisticRegression):
            return _logarithms(self._call("predict_proba", features))
        margins = np.asarray(self._call("decision_function", features), np.float64)
        if margins.ndim == 1:
            margins = np.stack([np.zeros(len(margins)), margins], axis=1)
        return np.asarray(margins - np.logaddexp.reduce(margins, axis=1, keepdims=True), np.float64)

    def predict(self, features: Floats) -> Scores:
        """Return numbers, [n]."""
        return np.asarray(self._call("predict", features), np.float64)

    def _call(self, method: str, features: Floats) -> Any:
        shown = features if self.prepare is None else self.prepare(features)
        if self.rounds is None:
            return getattr(self.estimator, method)(shown)
        stages = getattr(self.estimator, f"staged_{method}")(shown)
        return next(stage for k, stage in enumerate(stages, 1) if k == self.rounds)


def _logarithms(probabilities: Any) -> Scores:
    return np.log(np.clip(np.asarray(probabilities, np.float64), LEAST_PROBABILITY, 1.0))


def fit(model: str, fold: Fold, seed: int, jobs: int = 1) -> Fitted:
    """Fit a model with each of its settings, and keep the one with the best fitness on the validation networks.

    Args:
        model: one of MODELS.
        fold: the data; `fold.train` is standardised in place if the model needs it, because a copy would be as large as all
            networks.
        seed: seed of the model.
        jobs: number of threads that grow trees of a forest; a tree depends on its number alone.
    """
    if model == "boosting":
        return _fit_boosting(fold, seed)
    standard = _standardise(fold.train) if model in STANDARDISED else None
    shown = fold.validation if standard is None else standard(fold.validation)
    best: tuple[tuple[float, float], Fitted] | None = None
    for chosen, estimator in _settings(model, fold, seed):
        if model == "forest":
            estimator.set_params(n_jobs=jobs)
        estimator.fit(fold.train, fold.train_target)
        if model == "forest":
            estimator.set_params(n_jobs=1)  # what trees say is added in one order
        fitted = Fitted(_Prepared(None, estimator), fold.classes, chosen, _notes(estimator))
        found = fitness(fold.metric, fold.validation_target, fitted.scores(shown))
        if best is None or found > best[0]:
            best = found, fitted
    if best is None:
        raise ValueError(f"there is no model {model!r}")
    fitted = best[1]
    at_end = ("the weakest penalty fits best",) if fitted.chosen.get("penalty") == PENALTIES[-1] else ()
    return fitted._replace(estimator=fitted.estimator._replace(prepare=standard), notes=(*fitted.notes, *at_end))


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


def _notes(estimator: Any) -> tuple[str, ...]:
    stopped = isinstance(estimator, LogisticRegression) and int(np.max(estimator.n_iter_)) >= _ITERATIONS
    return (f"stopped after {_ITERATIONS} iterations",) if stopped else ()


def _fit_boosting(fold: Fold, seed: int) -> Fitted:
    """Fit boosting once, and choose the number of rounds."""
    labels, trees = fold.classes > 0, fold.classes if fold.classes > 2 else 1
    options = {"max_iter": ROUNDS, "max_leaf_nodes": 15, "max_bins": 63, "early_stopping": False}
    kind = HistGradientBoostingClassifier if labels else HistGradientBoostingRegressor
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
    stages = (estimator.staged_predict_proba if labels else estimator.staged_predict)(validation)
    scored = (_columns(_logarithms(stage), estimator.classes_, fold.classes) if labels else stage for stage in stages)
    found = [fitness(fold.metric, fold.validation_target, scores) for scores in scored]
    rounds = found.index(max(found)) + 1
    notes += (f"all {ROUNDS} rounds fit best",) if rounds == ROUNDS else ()
    return Fitted(_Prepared(reduce, estimator, rounds), fold.classes, {"rounds": rounds}, notes)


def _columns(scores: Any, present: Any, classes: int) -> Scores:
    """Return scores [n, classes], with the least possible score for classes without training networks."""
    result = np.full((len(scores), classes), np.log(LEAST_PROBABILITY))
    result[:, np.asarray(present, int)] = scores
    return result
