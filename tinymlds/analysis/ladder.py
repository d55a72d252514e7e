"""The rungs, from a guess upwards, and how one is climbed: fitted, chosen and tested with each seed."""

import contextlib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from tinymlds.analysis import models
from tinymlds.analysis.features import DRAWN, features
from tinymlds.analysis.points import LEAST, Ints, Points, equalised
from tinymlds.analysis.splits import Split
from tinymlds.analysis.statistics import (
    METRICS,
    Scores,
    Target,
    confusion,
    interval,
    others,
    pairs_right,
    recentred,
    threshold,
)
from tinymlds.errors import UsageError
from tinymlds.manifest import SPLITS
from tinymlds.params import Floats

_HELD_OUT = 2**32
"""Added to the seed of random symmetries for networks of another dataset."""


class Rung(NamedTuple):
    """A model, what it sees of a network, and in which form."""

    model: str
    features: str
    form: str

    @property
    def name(self) -> str:
        """model/features/form."""
        return "/".join(self)

    @property
    def fit(self) -> "Rung":
        """The rung whose fit serves this one too: what is tested on moved networks is trained on plain ones."""
        return self._replace(form="plain") if self.form == "moved" else self


def _rungs() -> Iterator[Rung]:
    shallow = ("knn", "linear", "forest", "boosting")
    yield Rung("majority", "raw", "plain")
    for form in ("plain", "moved", "transformed", "canonical", "initial", "equalised"):
        yield from (Rung(model, seen, form) for seen in ("raw", "statistics") for model in shallow)
        if form != "canonical":  # which it sees as it sees the plain one
            yield Rung("graph", "raw", form)
    yield from (Rung(model, "answers", "plain") for model in shallow)
    yield Rung("forest", "epochs", "plain")
    yield Rung("linear", "task", "plain")


RUNGS = tuple(_rungs())


def choose(patterns: str | None, metric: str) -> tuple[Rung, ...]:
    """The rungs that a list of patterns like "majority,forest/raw/*" names; all for None.

    What a task or a number of epochs alone tells is a control where it is not what is asked for.

    Raises:
        UsageError: a pattern that names none.
    """
    numbers = metric == "spearman"
    known = [
        r for r in RUNGS if r.features != "task" and ((r.features != "epochs" and r.form != "equalised") or not numbers)
    ]
    known += [rung for rung in RUNGS if rung.features == "task" and numbers]
    if patterns is None:
        return tuple(known)
    picked = set()
    for pattern in (part.strip() for part in patterns.split(",")):
        found = [rung for rung in known if fnmatchcase(rung.name, pattern) or pattern == rung.model]
        if not found:
            raise UsageError(f"no rung is called {pattern!r}; there are {', '.join(rung.name for rung in known)}")
        picked.update(found)
    return tuple(rung for rung in known if rung in picked)


@dataclass(frozen=True, eq=False)
class Case:
    """A question: points, and what goes with them."""

    name: str
    points: Points
    held: Points | None = None
    """Networks of other datasets to test on, in place of the test networks."""
    strata: Ints | None = None
    """[n]: numbers of epochs are equalised within each; None is one for all."""
    pair: Ints | None = None
    """[n]: a number that the two networks of a matched pair share."""
    held_pair: Ints | None = None
    """The same for `held`."""


class Setting(NamedTuple):
    """How rungs are climbed."""

    metric: str
    splits: tuple[Split, ...]
    """One for each seed."""
    workers: int
    """Seeds that are worked on at the same time; results do not depend on it."""


class Climbed(NamedTuple):
    """What came of a rung with one seed."""

    score: float
    others: dict[str, float]
    confusion: Any
    """int64 [classes, classes], or None."""
    networks: tuple[int, int, int]
    chosen: dict[str, Any]
    notes: tuple[str, ...]


def fitted_alike(rungs: Iterable[Rung]) -> list[tuple[Rung, ...]]:
    """Groups of rungs that one fit serves, in the order of the first of each."""
    groups: dict[Rung, list[Rung]] = {}
    for rung in rungs:
        groups.setdefault(rung.fit, []).append(rung)
    return [tuple(group) for group in groups.values()]


def climb(case: Case, rungs: Sequence[Rung], setting: Setting) -> list[dict[str, Any]]:
    """Rungs that one fit serves, with every seed; of each the fields of a `results.Row` that it determines.

    Raises:
        UsageError: these rungs are not possible; why.
    """
    model = rungs[0].model
    with _one_thread(model), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `models` notes it
        attempt = _Attempt(case, rungs, setting)
        numbers = range(len(setting.splits))
        if setting.workers == 1 or model == "forest":  # which has threads of its own, and one such at a time
            found = [attempt(number) for number in numbers]
        else:
            with ThreadPoolExecutor(setting.workers) as pool:
                found = list(pool.map(attempt, numbers))
    return [_fields(of_rung, attempt, setting.metric) for of_rung in zip(*found, strict=True)]


def _fields(found: Sequence[Climbed], attempt: "_Attempt", metric: str) -> dict[str, Any]:
    """What came of a rung with all seeds."""
    scores = tuple(one.score for one in found)
    mean, half_width = interval(scores)
    classes = attempt.points.classes
    return {
        "metric": metric,
        "chance": {"balanced_accuracy": 1 / max(1, len(classes)), "roc_auc": 0.5, "spearman": 0.0}[metric],
        "scores": scores,
        "mean": mean,
        "half_width": half_width,
        "others": {name: [one.others[name] for one in found] for name in found[0].others if name in found[-1].others},
        "classes": classes,
        "confusion": sum(one.confusion for one in found).tolist() if classes else None,
        "networks": {part: [one.networks[k] for one in found] for k, part in enumerate(SPLITS)},
        "chosen": tuple(one.chosen for one in found),
        "notes": tuple(dict.fromkeys(note for one in found for note in (*attempt.notes, *one.notes))),
    }


@contextlib.contextmanager
def _one_thread(model: str) -> Iterator[None]:
    """Have BLAS, OpenMP and PyTorch use one thread, so that sums have one order, and what they used before afterwards.

    OpenMP keeps a limit for each calling thread.
    """
    with contextlib.ExitStack() as limits:
        if model == "graph":
            from tinymlds.analysis import graph

            limits.enter_context(graph.one_thread())  # first: it has to see how many there were
        limits.enter_context(threadpool_limits(1))
        yield


class _Attempt:
    """Rungs of a case that one fit serves, to be called with the number of each seed."""

    def __init__(self, case: Case, rungs: Sequence[Rung], setting: Setting) -> None:
        (self._rung,) = {rung.fit for rung in rungs}
        self._setting = setting
        self._form, *self._shown = ("plain" if r.form == "equalised" else r.form for r in (self._rung, *rungs))
        """What it is fitted on, and what it is tested on for each rung."""
        self.points, self._pair, self.notes = case.points, case.pair, tuple[str, ...]()
        if self._rung.form == "equalised":
            self.points, self._pair, self.notes = _equalised(case)
        self._held, self._held_pair = case.held, case.held_pair
        if self._rung.model == "graph":
            from tinymlds.analysis import graph

            self._graph = graph
        fixed = self._form not in DRAWN
        self._fixed = self._features(self.points, self._form, 0) if fixed else None
        self._fixed_held = None
        if self._held is not None and fixed and self._form in self._shown:
            self._fixed_held = self._features(self._held, self._form, 0)

    def _features(self, points: Points, form: str, seed: int) -> Floats:
        return features(points, self._rung.features, form, seed)

    def __call__(self, number: int) -> tuple[Climbed, ...]:
        """Fit, choose and test with this seed, for each rung."""
        with threadpool_limits(1, user_api="openmp"):
            split, target = self._setting.splits[number], self.points.target
            train, validation, test = (split.part(name, self.points.index) for name in SPLITS)
            seen = self._features(self.points, self._form, number) if self._fixed is None else self._fixed
            if self._held is not None:
                test_target, pair = self._held.target, self._held_pair
            else:
                test_target, pair = target[test], None if self._pair is None else self._pair[test]
            self._check(target[train], target[validation], test_target, number)
            classes, metric = len(self.points.classes), self._setting.metric
            fold = models.Fold(seen[train], target[train], seen[validation], target[validation], classes, metric)
            if self._rung.model == "graph":
                fitted = self._graph.fit(fold, self.points.shape, number)
            else:
                fitted = models.fit(self._rung.model, fold, number, self._setting.workers)
            at = threshold(fold.validation_target, fitted.scores(fold.validation)) if metric == "roc_auc" else None
            if at is not None:
                fitted = fitted._replace(chosen={**fitted.chosen, "threshold": at})
            found = []
            for form in self._shown:
                scores = fitted.scores(self._test(form, number, seen, test))
                scores = scores if at is None else recentred(scores, at)
                networks = len(train), len(validation), len(scores)
                found.append(self._score(scores, test_target, pair, networks, fitted))
            return tuple(found)

    def _test(self, form: str, number: int, seen: Floats, test: npt.NDArray[np.intp]) -> Floats:
        """Features of the networks to test on; `seen` are those of all networks as they are fitted on."""
        if self._held is None:
            return (seen if form == self._form else self._features(self.points, form, number))[test]
        if self._fixed_held is not None and form == self._form:
            return self._fixed_held
        return self._features(self._held, form, number + _HELD_OUT)

    def _check(self, train: Target, validation: Target, test: Target, number: int) -> None:
        """Complain of parts that a score cannot be computed from."""
        for name, part in zip(SPLITS, (train, validation, test), strict=True):
            if not len(part):
                raise UsageError(f"with seed {number} there is no network for {name}; make more networks")
            if self._setting.metric == "roc_auc" and len(np.unique(part)) < 2:
                raise UsageError(f"with seed {number} there is only one class for {name}; make more networks")
        if self.points.classes and len(lacking := np.setdiff1d(test, train)):
            name = self.points.classes[int(lacking[0])]
            raise UsageError(f"with seed {number} there is no network of {name} for training; make more networks")

    def _score(
        self, scores: Scores, target: Target, pair: Ints | None, networks: tuple[int, int, int], fitted: models.Fitted
    ) -> Climbed:
        metric = self._setting.metric
        further = others(metric, target, scores)
        if pair is not None and (right := pairs_right(target, scores, pair)) is not None:
            further["pairs_right"] = right
        matrix = confusion(target, scores) if self.points.classes else None
        return Climbed(METRICS[metric](target, scores), further, matrix, networks, fitted.chosen, fitted.notes)


def _equalised(case: Case) -> tuple[Points, Ints | None, tuple[str, ...]]:
    """Points with equalised numbers of epochs, their pairs, and a note of what they are."""
    if case.held is not None:
        raise UsageError("not with networks of another dataset: theirs are as they are")
    strata = np.zeros(len(case.points), np.int64) if case.strata is None else case.strata
    found = equalised(case.points, strata)
    if found is None:
        raise UsageError(f"no two classes share numbers of epochs in at least {LEAST} networks each")
    note = f"{len(found) // len(found.classes)} networks of each of {', '.join(found.classes)}"
    left_out = [name for name in case.points.classes if name not in found.classes]
    return found, None, (note + (f"; too few shared with {', '.join(left_out)}" if left_out else ""),)
