"""The models of scikit-learn. What they leave open is chosen on the validation networks, by `statistics.fitness`.

Each runs on one thread, so that sums have one order and results do not depend on the number of threads; several seeds run
side by side instead (`ladder`).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
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
"""Features times trees in a round above which boosting gets principal components: histograms are what takes its time."""
_COMPONENTS = 64
_ITERATIONS = 1000
_ROWS = 128
"""Networks that are made float64 at a time."""
STANDARDISED = ("knn", "linear")


class Fold(NamedTuple):
    """What a model is fitted and chosen on."""

    train: Floats
    """[n, features]"""
    train_target: Target
    validation: Floats
    validation_target: Target
    classes: int
    """0: the target is a number."""
    metric: str
    """The score by which it is chosen."""


class Fitted(NamedTuple):
    """A fitted model."""

    estimator: Any
    classes: int
    chosen: dict[str, Any]
    """What was chosen on the validation networks."""
    notes: tuple[str, ...]

    def scores(self, features: Floats) -> Scores:
        """Logarithms of probabilities [n, classes], or numbers [n]."""
        if not self.classes:
            return np.asarray(self.estimator.predict(features), np.float64)
        return _columns(self.estimator.log_probabilities(features), self.estimator.classes_, self.classes)


class _Standard(NamedTuple):
    """Shift and scale of every feature, float32 [features]."""

    mean: Floats
    scale: Floats

    def __call__(self, features: Floats) -> Floats:
        """Those of other networks, a copy."""
        return self.apply(features.astype(np.float32))

    def apply(self, features: Floats) -> Floats:
        """The same array, modified in place."""
        features -= self.mean
        features /= self.scale
        return features


def _standardise(features: Floats) -> _Standard:
    """Give every feature [n, features] mean 0 and deviation 1, in place; one that is constant gets 0.

    Sums are float64, over _ROWS rows at a time: scikit-learn's scaler makes a float64 copy of all for its variance.
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


class _Behind(NamedTuple):
    """An estimator of features that are standardised first, or are as they should be."""

    standard: _Standard | None
    estimator: Any

    @property
    def classes_(self) -> Any:
        """Of the estimator."""
        return self.estimator.classes_

    def log_probabilities(self, features: Floats) -> Scores:
        """[n, classes_]. Those of a linear model come from its margins: as float32, which it computes in, a probability
        is 1 from a margin of 17 on, and networks beyond that could not be ranked."""
        shown = self._shown(features)
        if not isinstance(self.estimator, LogisticRegression):
            return _logarithms(self.estimator.predict_proba(shown))
        margins = np.asarray(self.estimator.decision_function(shown), np.float64)
        if margins.ndim == 1:
            margins = np.stack([np.zeros(len(margins)), margins], axis=1)
        return np.asarray(margins - np.logaddexp.reduce(margins, axis=1, keepdims=True), np.float64)

    def predict(self, features: Floats) -> Scores:
        return np.asarray(self.estimator.predict(self._shown(features)), np.float64)

    def _shown(self, features: Floats) -> Floats:
        return features if self.standard is None else self.standard(features)


def _logarithms(probabilities: Any) -> Scores:
    return np.log(np.clip(np.asarray(probabilities, np.float64), LEAST_PROBABILITY, 1.0))


def fit(model: str, fold: Fold, seed: int, jobs: int = 1) -> Fitted:
    """Fit a model with each of its settings, and keep the fittest on the validation networks.

    Args:
        model: one of MODELS.
        fold: what it is fitted and chosen on; `fold.train` is modified in place where the model wants it standardised, as a
            copy would be as large as all networks.
        seed: of the model.
        jobs: threads that grow trees of a forest; a tree depends on its number alone.
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
        fitted = Fitted(_Behind(None, estimator), fold.classes, chosen, _notes(estimator))
        found = fitness(fold.metric, fold.validation_target, fitted.scores(shown))
        if best is None or found > best[0]:
            best = found, fitted
    if best is None:
        raise ValueError(f"there is no model {model!r}")
    fitted = best[1]
    at_end = ("the weakest penalty fits best",) if fitted.chosen.get("penalty") == PENALTIES[-1] else ()
    return fitted._replace(estimator=fitted.estimator._replace(standard=standard), notes=(*fitted.notes, *at_end))


def _settings(model: str, fold: Fold, seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every setting of a model, and an estimator with it, of standardised features if it is one of STANDARDISED."""
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


class _Reducer(NamedTuple):
    """Principal components of standardised features."""

    standard: _Standard
    components: PCA

    def __call__(self, features: Floats) -> Floats:
        return np.asarray(self.components.transform(self.standard(features)), np.float32)


class _Reduced(NamedTuple):
    """An estimator behind principal components, if any, cut to a number of rounds."""

    reducer: _Reducer | None
    estimator: Any
    rounds: int
    classes_: npt.NDArray[Any]

    def log_probabilities(self, features: Floats) -> Scores:
        return _logarithms(self._after("staged_predict_proba", features))

    def predict(self, features: Floats) -> Scores:
        return self._after("staged_predict", features)

    def _after(self, staged: str, features: Floats) -> Scores:
        stages = getattr(self.estimator, staged)(features if self.reducer is None else self.reducer(features))
        return np.asarray(next(stage for k, stage in enumerate(stages, 1) if k == self.rounds), np.float64)


def _fit_boosting(fold: Fold, seed: int) -> Fitted:
    """One fit; the number of rounds is what is chosen."""
    labels, trees = fold.classes > 0, fold.classes if fold.classes > 2 else 1
    options = {"max_iter": ROUNDS, "max_leaf_nodes": 15, "max_bins": 63, "early_stopping": False}
    kind = HistGradientBoostingClassifier if labels else HistGradientBoostingRegressor
    estimator = kind(random_state=seed, **options)  # class weights would cost it ten times the time
    reducer, notes, train, validation = None, tuple[str, ...](), fold.train, fold.validation
    if fold.train.shape[1] * trees > _BUDGET and fold.train.shape[1] > _COMPONENTS:
        components = min(_COMPONENTS, len(fold.train) - 1)
        standard = _standardise(fold.train)
        pca = PCA(components, svd_solver="randomized", random_state=seed)
        train = np.asarray(pca.fit_transform(fold.train), np.float32)
        reducer, notes = _Reducer(standard, pca), (f"on {components} principal components",)
        validation = reducer(fold.validation)
    estimator.fit(train, fold.train_target)
    classes = estimator.classes_ if labels else np.empty(0)
    stages = (estimator.staged_predict_proba if labels else estimator.staged_predict)(validation)
    scored = (_columns(_logarithms(stage), classes, fold.classes) if labels else stage for stage in stages)
    found = [fitness(fold.metric, fold.validation_target, scores) for scores in scored]
    rounds = found.index(max(found)) + 1
    notes += (f"all {ROUNDS} rounds fit best",) if rounds == ROUNDS else ()
    return Fitted(_Reduced(reducer, estimator, rounds, classes), fold.classes, {"rounds": rounds}, notes)


def _columns(scores: Any, present: Any, classes: int) -> Scores:
    """Scores [n, classes], those of classes that the training networks did not have the least that there is."""
    result = np.full((len(scores), classes), np.log(LEAST_PROBABILITY))
    result[:, np.asarray(present, int)] = scores
    return result
