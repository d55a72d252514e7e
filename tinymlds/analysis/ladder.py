"""The rungs of the ladder, from a guess upwards, and how a rung is climbed: fitted, tuned and tested with each seed."""

import contextlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from threadpoolctl import threadpool_limits

from tinymlds.analysis import models
from tinymlds.analysis.features import DRAWN, EQUALISED, FORMS, features
from tinymlds.analysis.points import LEAST, Ints, Points, cells, equalised, sharing
from tinymlds.analysis.results import METRICS as BOUNDS
from tinymlds.analysis.splits import Split
from tinymlds.analysis.statistics import (
    METRICS,
    Scores,
    Target,
    confusion,
    interval,
    others,
    pairs_right,
    predicted,
    threshold,
    unseen_errors,
    variance_of_draws,
)
from tinymlds.architectures.params import Floats
from tinymlds.dataset.manifest import SPLITS
from tinymlds.errors import UsageError

T = TypeVar("T")

_TESTED, _HELD_OUT = 2**33, 2**32
"""Offsets to the seed of random symmetries for test networks, and for those of another dataset."""

LEAST_NUMBERS = 3
"""The least number of validation and of test networks for ranking numbers; two are either in order or not."""


class Rung(NamedTuple):
    """A model, the features that it sees, and their form."""

    model: str
    features: str
    form: str

    @property
    def name(self) -> str:
        """The name model/features/form."""
        return "/".join(self)

    @property
    def fit(self) -> "Rung":
        """The rung whose fit this one uses; a model tested on moved networks is trained on plain ones."""
        return self._replace(form="plain") if self.form == "moved" else self


def _rungs() -> Iterator[Rung]:
    shallow = ("knn", "linear", "forest", "boosting")
    yield Rung("majority", "raw", "plain")
    for form in FORMS:
        yield from (Rung(model, seen, form) for seen in ("raw", "statistics") for model in shallow)
        if form != "canonical":  # which it sees as it sees the plain one
            yield Rung("graph", "raw", form)
    yield from (Rung(model, "answers", "plain") for model in shallow)
    yield from (Rung("forest", seen, "plain") for seen in ("norm", "norms", "loss", "epochs"))
    yield from (Rung("forest", *each) for each in (("epochs", "equalised"), ("loss", "equal-loss")))
    yield Rung("linear", "task", "plain")


RUNGS = tuple(_rungs())


def choose(patterns: str | None, metric: str) -> tuple[Rung, ...]:
    """Return the rungs that patterns like "majority,forest/raw/*" name; all for None. See `matching`.

    Rungs that see the task or the epochs alone are controls; those that would see the target itself are left out.
    """
    target = ("epochs", *EQUALISED) if metric == "spearman" else ("task",)
    known = [rung for rung in RUNGS if rung.features not in target and rung.form not in target]
    return tuple(matching("rung", known, patterns, lambda rung: (rung.name, rung.model)))


def matching(what: str, items: list[T], patterns: str | None, names: Callable[[T], tuple[str, ...]]) -> list[T]:
    """Return the items that comma-separated patterns name; all for None.

    A pattern is matched with the first of the `names` of an item as fnmatch does, and has to equal the others. One that
    names no item is a UsageError.
    """
    if patterns is None:
        return items
    picked: set[int] = set()
    for pattern in (part.strip() for part in patterns.split(",")):
        found = {k for k, item in enumerate(items) if fnmatchcase(names(item)[0], pattern) or pattern in names(item)}
        if not found:
            raise UsageError(f"no {what} is called {pattern!r}; there are {', '.join(names(item)[0] for item in items)}")
        picked |= found
    return [item for k, item in enumerate(items) if k in picked]


@dataclass(frozen=True, eq=False)
class Case:
    """A case of a question: the networks, and how they belong together."""

    name: str
    points: Points
    held: Points | None = None
    """Networks of other datasets, tested in place of the test networks."""
    strata: Ints | None = None
    """The stratum of each network, [n], within which epochs or losses are equalised; None is one stratum for all."""
    unseen: npt.NDArray[np.bool_] | None = None
    """Whether each network is for testing only, [n], and no other is tested; None is for a case without."""
    pair: Ints | None = None
    """A number that the two networks of a matched pair share, [n]."""
    held_pair: Ints | None = None
    """The numbers of pairs for the networks in `held`."""
    notes: tuple[str, ...] = ()
    """Notes on these networks, added to every rung."""


class Evaluation(NamedTuple):
    """The score, a split for each seed, and the number of seeds computed at the same time, on which no result depends."""

    metric: str
    splits: tuple[Split, ...]
    workers: int


class _Climbed(NamedTuple):
    """The result of a rung with one seed."""

    score: float
    others: dict[str, float]
    confusion: Any  # int64 [classes, classes], or None
    networks: tuple[int, int, int]
    tested: npt.NDArray[np.intp]  # positions of the tested networks, [n]
    target: Target  # of the same networks, [n]
    answered: Scores  # that the model gave them, [n, classes] or [n]
    ratio: float  # number of networks in the test part over that in the training part
    fitted: models.Fitted


def fitted_alike(rungs: Iterable[Rung]) -> list[tuple[Rung, ...]]:
    """Group rungs that share a fit, in the order of the first rung of each group."""
    groups: dict[Rung, list[Rung]] = {}
    for rung in rungs:
        groups.setdefault(rung.fit, []).append(rung)
    return [tuple(group) for group in groups.values()]


def climb(case: Case, rungs: Sequence[Rung], evaluation: Evaluation) -> list[dict[str, Any]]:
    """Climb rungs that share a fit, with every seed, and return the fields of a `results.Row` that each determines.

    Raises UsageError if they are impossible for this case.
    """
    model = rungs[0].model
    # one thread for PyTorch, BLAS and OpenMP, so that sums have one order; PyTorch first, to restore its own number
    one_thread = _graph().one_thread() if model == "graph" else contextlib.nullcontext()
    with one_thread, threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # `models` notes it
        attempt = _Attempt(case, rungs, evaluation)
        numbers = range(len(evaluation.splits))
        if evaluation.workers == 1 or model == "forest":  # which has threads of its own, and one such at a time
            found = [attempt(number) for number in numbers]
        else:
            with ThreadPoolExecutor(evaluation.workers) as pool:
                found = list(pool.map(attempt, numbers))
    return [_fields(of_rung, attempt, evaluation.metric) for of_rung in zip(*found, strict=True)]


def _fields(found: Sequence[_Climbed], attempt: "_Attempt", metric: str) -> dict[str, Any]:
    """Return the fields of a row from the results of a rung with all seeds."""
    scores, classes = tuple(one.score for one in found), attempt.classes
    first = np.unique(np.concatenate([one.tested for one in found]), return_index=True)[1]
    least = unseen_errors(metric, np.concatenate([one.target for one in found])[first])
    drawn = 0.0  # the networks held out are the same for each seed
    if attempt.held is not None:
        drawn = variance_of_draws(metric, found[0].target, [one.answered for one in found], attempt.held.index)
    mean, half_width = interval(scores, float(np.mean([one.ratio for one in found])), least, drawn)
    low, high = BOUNDS[metric]
    names = [name for name in found[0].others if all(name in one.others for one in found)]
    return {
        "metric": metric,
        "chance": {"balanced_accuracy": 1 / max(1, len(classes)), "roc_auc": 0.5, "spearman": 0.0}[metric],
        "scores": scores,
        "mean": mean,
        "half_width": min(half_width, high - low),
        "others": {name: [one.others[name] for one in found] for name in names},
        "classes": classes,
        "confusion": sum(one.confusion for one in found).tolist() if classes else None,
        "networks": {part: [one.networks[k] for one in found] for k, part in enumerate(SPLITS)},
        "chosen": tuple(one.fitted.chosen for one in found),
        "notes": tuple(dict.fromkeys(note for one in found for note in (*attempt.notes, *one.fitted.notes))),
    }


def _graph() -> Any:
    """Import the graph network when it is needed, because PyTorch is optional."""
    from tinymlds.analysis import graph

    return graph


class _Attempt:
    """A fit of a case with all rungs that share it, to be called with the number of each seed."""

    def __init__(self, case: Case, rungs: Sequence[Rung], evaluation: Evaluation) -> None:
        (self._rung,) = {rung.fit for rung in rungs}
        self._case, self._points, self._evaluation, self.held = case, case.points, evaluation, case.held
        self._features = partial(features, name=self._rung.features)
        self._form, *self._shown = ("plain" if r.form in EQUALISED else r.form for r in (self._rung, *rungs))
        """The form to fit on, and the form to test on for each rung."""
        self._kept: tuple[int, ...] | None = None
        self.classes, self._target, self._pair, self.notes = case.points.classes, case.points.target, case.pair, case.notes
        if self._rung.form in EQUALISED:
            self._equalise(self._rung.form == "equalised")
        if self._rung.form == "initial" and self._pair is not None:
            self.notes = *self.notes, "the two networks of a pair start from the same weights: a guess by construction"
        self._fixed: Any = None
        self._fixed_held: Any = None
        if self._form not in DRAWN:
            self._fixed = self._features(self._points, form=self._form, seed=0)
            self._fixed_held = self._features(self.held, form=self._form, seed=0) if self.held is not None else None

    def _equalise(self, by_epochs: bool) -> None:
        """Find the classes whose epochs, or losses, can be equalised, the same for every seed, and renumber the labels."""
        if self.held is not None:
            raise UsageError("not with networks of another dataset: theirs are as they are")
        by, what = (
            (self._points.epochs, "number of epochs")
            if by_epochs
            else (self._points.loss_bins(), "tenth of a decade of losses")
        )
        self._cell = cells(np.zeros_like(by) if self._case.strata is None else self._case.strata, by)
        self._kept, self._pair = sharing(self._points, self._cell), None
        if self._kept is None:
            whose = "numbers of epochs" if by_epochs else "losses"
            raise UsageError(f"no two classes share {whose} in at least {LEAST} networks each")
        number = np.full(len(self.classes), -1)
        number[list(self._kept)] = np.arange(len(self._kept))
        self._target = number[self._target]
        left_out = [name for k, name in enumerate(self.classes) if k not in self._kept]
        self.classes = tuple(self.classes[k] for k in self._kept)
        note = f"in each part as many networks of each of {', '.join(self.classes)} with each {what}"
        self.notes = *self.notes, note + (f"; too few shared with {', '.join(left_out)}" if left_out else "")

    def __call__(self, number: int) -> tuple[_Climbed, ...]:
        with threadpool_limits(1, user_api="openmp"):  # OpenMP has a limit for each calling thread
            parts = self._parts(number)
            shown = self._features(self._points, form=self._form, seed=number) if self._fixed is None else self._fixed
            train, validation = ((shown[places], self._target[places]) for places in parts[:2])
            fold = models.Fold(*train, *validation, len(self.classes), self._evaluation.metric)
            if self._rung.model == "graph":
                fitted = _graph().fit(fold, self._points.architecture, number)
            else:
                fitted = models.fit(self._rung.model, fold, number, self._evaluation.workers)
            at = None
            if self._evaluation.metric == "roc_auc":
                at = threshold(fold.validation_target, fitted.scores(fold.validation))
                fitted = fitted._replace(chosen={**fitted.chosen, "threshold": at})
            del fold, train, validation, shown  # which may be as large as all networks
            return tuple(
                self._score(fitted.scores(self._test(form, number, parts[2])), parts, fitted, at) for form in self._shown
            )

    def _parts(self, number: int) -> list[npt.NDArray[np.intp]]:
        """Return the positions of the networks for training, validation and test, if all have enough."""
        split, parts = self._evaluation.splits[number], []
        for name in SPLITS:
            places = split.part(name, self._points.index)
            if self._case.unseen is not None:
                places = places[self._case.unseen[places] == (name == "test")]
            if self._kept is not None:
                places = equalised(self._points, self._kept, self._cell, places)
            parts.append(places)
        targets = [self._target[places] for places in parts]
        if self._kept is not None and len(parts[0]) < LEAST * len(self._kept):
            each = len(parts[0]) // len(self._kept)
            raise UsageError(f"with seed {number} only {each} networks of each class are left for training, not {LEAST}")
        self._check(targets if self.held is None else [*targets[:2], self.held.target], number)
        return parts

    def _check(self, targets: list[Target], number: int) -> None:
        """Check that a score can be computed from the parts."""
        train, _, test = targets
        least = LEAST_NUMBERS if self._evaluation.metric == "spearman" else 1
        for name, part, needed in zip(SPLITS, targets, (1, least, least), strict=True):
            if len(part) < needed:
                count = f"only {len(part)}" if len(part) else "no"
                raise UsageError(f"with seed {number} there is {count} network for {name}; make more networks")
            if self._evaluation.metric == "roc_auc" and len(np.unique(part)) < 2:
                raise UsageError(f"with seed {number} there is only one class for {name}; make more networks")
        if not self.classes:
            return
        if len(lacking := np.setdiff1d(test, train)):
            name = self.classes[int(lacking[0])]
            raise UsageError(f"with seed {number} there is no network of {name} for training; make more networks")
        if len(np.unique(train)) < 2:
            raise UsageError(f"with seed {number} there is only one class for training; make more networks")

    def _test(self, form: str, number: int, test: npt.NDArray[np.intp]) -> Floats:
        """Return the features of the networks to test."""
        fixed = form == self._form and self._fixed is not None
        if self.held is not None:
            return self._fixed_held if fixed else self._features(self.held, form=form, seed=number + _HELD_OUT)
        return self._fixed[test] if fixed else self._features(self._points.take(test), form=form, seed=number + _TESTED)

    def _score(
        self, scores: Scores, parts: list[npt.NDArray[np.intp]], fitted: models.Fitted, at: float | None
    ) -> _Climbed:
        metric, held, (train, validation, test) = self._evaluation.metric, self.held, parts
        if not np.isfinite(scores).all():
            raise UsageError("the model gave scores that are not finite numbers")
        if held is None:
            target, pair, tested = self._target[test], None if self._pair is None else self._pair[test], test
        else:
            target, pair, tested = held.target, self._case.held_pair, np.arange(len(held))
        answers = predicted(scores, at) if self.classes else scores
        further = others(metric, target, scores, answers)
        if pair is not None and (right := pairs_right(target, scores, pair)) is not None:
            further["pairs_right"] = right
        matrix = confusion(target, answers, len(self.classes)) if self.classes else None
        networks, ratio = (len(train), len(validation), len(tested)), len(test) / len(train)
        if self._case.unseen is not None:  # what seeds share depends on indices, not on how many machines are trained on
            ratio *= float(np.mean(~self._case.unseen) / np.mean(self._case.unseen))
        score = METRICS[metric](target, scores)
        return _Climbed(score, further, matrix, networks, tested, target, scores, ratio, fitted)
