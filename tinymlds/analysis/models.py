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
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tinymlds.analysis.statistics import Scores, Target, fitness
from tinymlds.params import Floats

MODELS = {
    "majority": "the most frequent class, or the mean",
    "knn": "k-nearest neighbours, standardised",
    "linear": "logistic or ridge regression, standardised",
    "forest": "random forest, 100 trees",
    "boosting": "gradient boosting of histograms, up to 60 rounds",
}

NEIGHBOURS = (1, 5, 25)
PENALTIES = (1e4, 1e2, 1.0)
LEAVES = (1, 4)
TREES = 100
ROUNDS = 60
_BUDGET = 2048
"""Features times trees in a round above which boosting gets principal components: histograms are what takes its time."""
_COMPONENTS = 64
_ITERATIONS = 1000


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
        """[n, classes], or [n] for numbers."""
        if not self.classes:
            return np.asarray(self.estimator.predict(features), np.float64)
        return _columns(self.estimator.predict_proba(features), self.estimator.classes_, self.classes)


def fit(model: str, fold: Fold, seed: int, jobs: int = 1) -> Fitted:
    """Fit a model with each of its settings, and keep the fittest on the validation networks.

    Args:
        model: one of MODELS.
        fold: what it is fitted and chosen on.
        seed: of the model.
        jobs: threads that grow trees of a forest; a tree depends on its number alone.
    """
    if model == "boosting":
        return _fit_boosting(fold, seed)
    best: tuple[tuple[float, float], Fitted] | None = None
    for chosen, estimator in _settings(model, fold, seed):
        if model == "forest":
            estimator.set_params(n_jobs=jobs)
        estimator.fit(fold.train, fold.train_target)
        if model == "forest":
            estimator.set_params(n_jobs=1)  # what trees say is added in one order
        fitted = Fitted(estimator, fold.classes, chosen, _notes(estimator))
        found = fitness(fold.metric, fold.validation_target, fitted.scores(fold.validation))
        if best is None or found > best[0]:
            best = found, fitted
    if best is None:
        raise ValueError(f"there is no model {model!r}")
    return best[1]


def _settings(model: str, fold: Fold, seed: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """Every setting of a model, and an estimator with it."""
    labels = fold.classes > 0
    if model == "majority":
        yield {}, DummyClassifier(strategy="most_frequent") if labels else DummyRegressor()
    elif model == "knn":
        for k in sorted({min(k, len(fold.train)) for k in NEIGHBOURS}):
            kind = KNeighborsClassifier if labels else KNeighborsRegressor
            yield {"neighbours": k}, make_pipeline(StandardScaler(), kind(k, weights="distance", algorithm="brute"))
    elif model == "linear":
        for penalty in PENALTIES:
            logistic = LogisticRegression(C=1 / penalty, class_weight="balanced", max_iter=_ITERATIONS)
            yield {"penalty": penalty}, make_pipeline(StandardScaler(), logistic if labels else Ridge(alpha=penalty))
    elif model == "forest":
        for leaf in LEAVES:
            options = {"min_samples_leaf": leaf, "random_state": seed}
            if labels:
                yield {"leaf": leaf}, RandomForestClassifier(TREES, class_weight="balanced", **options)
            else:
                yield {"leaf": leaf}, RandomForestRegressor(TREES, max_features="sqrt", **options)


def _notes(estimator: Any) -> tuple[str, ...]:
    last = estimator[-1] if hasattr(estimator, "steps") else estimator
    stopped = isinstance(last, LogisticRegression) and int(np.max(last.n_iter_)) >= _ITERATIONS
    return (f"stopped after {_ITERATIONS} iterations",) if stopped else ()


class _Reduced(NamedTuple):
    """An estimator behind principal components, cut to a number of rounds."""

    reducer: Any
    estimator: Any
    rounds: int
    classes_: npt.NDArray[Any]

    def predict_proba(self, features: Floats) -> Scores:
        return self._after("staged_predict_proba", features)

    def predict(self, features: Floats) -> Scores:
        return self._after("staged_predict", features)

    def _after(self, staged: str, features: Floats) -> Scores:
        stages = getattr(self.estimator, staged)(_reduce(self.reducer, features))
        return np.asarray(next(stage for k, stage in enumerate(stages, 1) if k == self.rounds), np.float64)


def _reduce(reducer: Any, features: Floats) -> Floats:
    return features if reducer is None else np.asarray(reducer.transform(features), np.float32)


def _fit_boosting(fold: Fold, seed: int) -> Fitted:
    """One fit; the number of rounds is what is chosen."""
    labels, trees = fold.classes > 0, fold.classes if fold.classes > 2 else 1
    options = {"max_iter": ROUNDS, "max_leaf_nodes": 15, "max_bins": 63, "early_stopping": False}
    kind = HistGradientBoostingClassifier if labels else HistGradientBoostingRegressor
    estimator = kind(random_state=seed, **options)  # class weights would cost it ten times the time
    reducer, notes = None, tuple[str, ...]()
    if fold.train.shape[1] * trees > _BUDGET and fold.train.shape[1] > _COMPONENTS:
        components = min(_COMPONENTS, len(fold.train) - 1)
        reducer = make_pipeline(StandardScaler(), PCA(components, svd_solver="randomized", random_state=seed))
        reducer.fit(fold.train)
        notes = (f"on {components} principal components",)
    estimator.fit(_reduce(reducer, fold.train), fold.train_target)
    classes = estimator.classes_ if labels else np.empty(0)
    staged = estimator.staged_predict_proba if labels else estimator.staged_predict
    found = [
        fitness(fold.metric, fold.validation_target, _columns(stage, classes, fold.classes) if labels else stage)
        for stage in staged(_reduce(reducer, fold.validation))
    ]
    rounds = found.index(max(found)) + 1
    return Fitted(_Reduced(reducer, estimator, rounds, classes), fold.classes, {"rounds": rounds}, notes)


def _columns(scores: Any, present: Any, classes: int) -> Scores:
    """Scores [n, classes] with zeros for classes that the training networks did not have."""
    result = np.zeros((len(scores), classes))
    result[:, np.asarray(present, int)] = scores
    return result
