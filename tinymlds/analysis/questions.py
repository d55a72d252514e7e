"""The questions of the experiments: their cases, each with its networks, checked before anything is fitted."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import numpy as np

from tinymlds.analysis.ladder import Case, matching
from tinymlds.analysis.points import Ints, Points, Wanted, gather
from tinymlds.dataset.dataset import Dataset
from tinymlds.errors import UsageError
from tinymlds.kernels.options import options_of
from tinymlds.spec import Recipe, Spec
from tinymlds.tasks import machines
from tinymlds.tasks.catalog import MODIFIED, is_transducer

LEAST_FOR_EPOCHS = 30
"""The least number of networks of a task for a case that predicts its epochs alone."""

TWINS = "clean", "tampered"


class Asked(NamedTuple):
    """A case before it is checked."""

    name: str
    wanted: list[Wanted]
    classes: tuple[str, ...] = ()
    """Names of the classes; () if the epochs are the target."""
    twins: bool = False
    """Whether `wanted` alternates between machines and their twins."""
    unseen: str | None = None
    """The machine that, with its twin, is tested and not trained on; None if there is no such machine."""
    optimizers: bool = False
    """Whether the classes are optimizers."""


Cases = Callable[[list[Dataset], int], Iterator[Asked]]
"""A function of the datasets, and of the number below which indices are used."""


def of_tasks(datasets: list[Dataset]) -> dict[str, Dataset]:
    """Return the dataset of every task; raises UsageError if two datasets have the same task."""
    found: dict[str, Dataset] = {}
    for dataset in datasets:
        for task in dataset.tasks:
            if task in found:
                raise UsageError(f"{found[task].folder} and {dataset.folder} both have {task}; give one (or --held-out)")
            found[task] = dataset
    return found


def _which(datasets: list[Dataset], is_class: Callable[[str], bool], what: str) -> Iterator[Asked]:
    classes = {task: dataset for task, dataset in of_tasks(datasets).items() if is_class(task)}
    if len(classes) < 2:
        raise UsageError(f"this experiment needs at least two {what}, and there are {len(classes)}")
    yield Asked("all", [Wanted(dataset, task, k) for k, (task, dataset) in enumerate(classes.items())], tuple(classes))


def _optimizer(dataset: Dataset) -> str:
    return dataset.spec.recipe.optimizer.name


def _which_optimizer(datasets: list[Dataset], _count: int) -> Iterator[Asked]:
    asked = False
    for task in dict.fromkeys(task for dataset in datasets for task in dataset.tasks):
        able: dict[str, Dataset] = {}
        for dataset in (each for each in datasets if task in each.tasks):
            if (other := able.setdefault(_optimizer(dataset), dataset)) is not dataset:
                both = f"{other.folder} and {dataset.folder} both have {task}"
                raise UsageError(f"{both} with optimizer {_optimizer(dataset)}; give one")
        if len(able) > 1:
            asked = True
            yield Asked(task, [Wanted(each, task, k) for k, each in enumerate(able.values())], tuple(able), optimizers=True)
    if not asked:
        raise UsageError("this experiment needs datasets of at least two optimizers with a task in common")


def _pairs(datasets: list[Dataset], least: int) -> dict[str, list[Wanted]]:
    """Return machine and twin for each machine that is there with its twin."""
    found = of_tasks(datasets)
    pairs = {task: (task, task + MODIFIED) for task in found if task + MODIFIED in found}
    if len(pairs) < least:
        pair = "a machine and its modified twin" if least == 1 else f"at least {least} machines and their modified twins"
        raise UsageError(f"this experiment needs {pair}: give both datasets, like ds1 and ds2")
    return {machine: [Wanted(found[task], task, k) for k, task in enumerate(pair)] for machine, pair in pairs.items()}


def _tampered(datasets: list[Dataset], _count: int) -> Iterator[Asked]:
    each = _pairs(datasets, 1)
    for machine, wanted in each.items():
        yield Asked(machine, wanted, TWINS, twins=True)
    if len(each) > 1:
        yield Asked("all", [one for wanted in each.values() for one in wanted], TWINS, twins=True)


def _tampered_unseen(datasets: list[Dataset], _count: int) -> Iterator[Asked]:
    each = _pairs(datasets, 2)
    for machine in each:
        yield Asked(machine, [one for wanted in each.values() for one in wanted], TWINS, twins=True, unseen=machine)


def _epochs(datasets: list[Dataset], count: int) -> Iterator[Asked]:
    found, asked = of_tasks(datasets), False
    for task, dataset in found.items():
        epochs = [row["epochs"] for row in dataset.rows(task) if row["index"] < count]
        if len(epochs) >= LEAST_FOR_EPOCHS and len(set(epochs)) > 2:
            asked = True
            yield Asked(task, [Wanted(dataset, task)])
    if len(found) > 1:
        yield Asked("all", [Wanted(dataset, task) for task, dataset in found.items()])
    elif not asked:
        raise UsageError(f"no task has {LEAST_FOR_EPOCHS} networks with different numbers of epochs")


EXPERIMENTS: dict[str, tuple[str, Cases]] = {
    "which-machine": (
        "balanced_accuracy",
        lambda of, _: _which(of, lambda task: task in machines.MACHINES, "machines"),
    ),
    "tampered": ("roc_auc", _tampered),
    "tampered-unseen": ("roc_auc", _tampered_unseen),
    "which-transducer": ("balanced_accuracy", lambda of, _: _which(of, is_transducer, "transducers")),
    "which-optimizer": ("balanced_accuracy", _which_optimizer),
    "predict-epochs": ("spearman", _epochs),
}
"""The metric and the cases of each experiment."""


# ------------------------------------------------------------------ the cases, checked


@dataclass(frozen=True)
class Plan:
    """A checked case."""

    asked: Asked
    held: list[Wanted]
    """The held-out counterpart of each entry of `asked.wanted`; [] without datasets held out."""
    reason: str
    """The reason why the case is skipped, or ""."""
    notes: tuple[str, ...]
    count: int
    """The number below which indices are used."""

    def case(self) -> Case:
        """Read the networks of the case."""
        asked = self.asked
        points, held = self._gathered(asked.wanted), self._gathered(self.held) if self.held else None
        if not asked.twins:
            return Case(asked.name, points, held, notes=self.notes)
        machine, unseen = points.source // 2, None
        if asked.unseen is not None:
            own = np.array([one.task.removesuffix(MODIFIED) == asked.unseen for one in asked.wanted])
            unseen = own[points.source]
            held = None if held is None else held.take(own[held.source])
        held_pair = None if held is None else _pair(held)
        return Case(asked.name, points, held, machine, unseen, _pair(points), held_pair, self.notes)

    def _gathered(self, wanted: list[Wanted]) -> Points:
        """Read the networks of these tasks; without those that have no twin, if the case is about twins."""
        points = gather(wanted, self.asked.classes, self.count)
        if not self.asked.twins:
            return points
        kept = _twinned(wanted, self.count)
        places = zip(points.source.tolist(), points.index.tolist(), strict=True)
        return points.take(np.array([index in kept[source] for source, index in places], bool))


def _pair(points: Points) -> Ints | None:
    """Return the number of the pair of each network; None unless all machines and twins are matched."""
    if not _matched([(source.seed, source.recipe) for source in points.sources]):
        return None
    return points.source // 2 * (int(points.index.max(initial=0)) + 1) + points.index


def plans(
    cases: Cases, datasets: list[Dataset], held: list[Dataset], count: int, patterns: str | None = None
) -> list[Plan]:
    """Check the cases that patterns like "xor,all" name, or all for None, without reading weights.

    Raises:
        UsageError: there are no cases, a pattern names none, held-out networks have other tasks or another architecture, or
            that differs within a case, or no case has enough complete networks.
    """
    found = list(cases(datasets, count))
    result = [_plan(asked, held, count) for asked in matching("case", found, patterns, lambda asked: (asked.name,))]
    if all(plan.reason for plan in result):
        raise UsageError(f"case {result[0].asked.name}: {result[0].reason}")
    return result


def _counterparts(asked: Asked, datasets: list[Dataset]) -> list[Wanted]:
    """Return the counterpart of each entry of `asked.wanted` among the datasets held out; [] if there are none."""
    found = []
    for one in asked.wanted if datasets else ():
        able = [each for each in datasets if not asked.optimizers or _optimizer(each) == _optimizer(one.dataset)]
        theirs = of_tasks(able)
        if one.task not in theirs:
            lacking = ", ".join(
                dict.fromkeys(_optimizer(each.dataset) if asked.optimizers else each.task for each in asked.wanted)
            )
            what = f"networks of {one.task} of all of these optimizers" if asked.optimizers else "the tasks"
            raise UsageError(f"the datasets held out have not {what} of the case {asked.name}: {lacking}")
        found.append(one._replace(dataset=theirs[one.task]))
    return found


def _plan(asked: Asked, datasets_held: list[Dataset], count: int) -> Plan:
    tasks, held = [one.task for one in asked.wanted], _counterparts(asked, datasets_held)
    kinds = {one.dataset.architecture: one.dataset.folder for one in (*asked.wanted, *held)}
    if len(kinds) > 1:
        each = ", ".join(f"{folder} has {architecture}" for architecture, folder in kinds.items())
        raise UsageError(f"the networks have different architectures, so they cannot be compared: {each}")
    notes = []
    complete = [len(_indices(one, count)) for one in asked.wanted]
    if held:
        complete = [min(n, len(_indices(one, count))) for n, one in zip(complete, held, strict=True)]
    reason = "" if any(complete) else f"no network of {', '.join(tasks)} is complete, so there is nothing to ask"
    if asked.classes and not reason:
        labels = {one.label for one, number in zip(asked.wanted, complete, strict=True) if number}
        lacking = [name for label, name in enumerate(asked.classes) if label not in labels]
        if len(labels) < 2:
            reason = f"no network of {', '.join(lacking)} is complete, so there is nothing to tell apart"
        elif lacking:
            notes.append(f"without {', '.join(lacking)}, of which no network is complete")
            new = {label: number for number, label in enumerate(sorted(labels))}  # the classes that are left
            ours, held = (
                [one._replace(label=new[one.label]) for one in wanted if one.label in new]
                for wanted in (asked.wanted, held)
            )
            asked = asked._replace(wanted=ours, classes=tuple(asked.classes[label] for label in new))
    for wanted in (asked.wanted, held) if asked.twins and not reason else ():
        kept = sum(map(len, _twinned(wanted, count)))
        if wanted and not kept:
            reason = f"no networks of a machine and its twin are complete, of {', '.join(one.task for one in wanted)}"
        elif alone := sum(len(_indices(one, count)) for one in wanted) - kept:
            whose = "" if wanted is asked.wanted else " held out"
            notes.append(f"without {alone} networks{whose}, as they have no twin that is complete")
    return Plan(asked, held, reason, (*notes, *_differing(asked, held)), count)


def _indices(wanted: Wanted, count: int) -> set[int]:
    """Return the indices below `count` of the complete networks of a task."""
    return {row["index"] for row in wanted.dataset.rows(wanted.task) if row["index"] < count}


def _twinned(wanted: list[Wanted], count: int) -> list[set[int]]:
    """Return the indices of complete networks with a complete twin, for machines and twins in turn.

    A matched network has one twin; for others, any network of the twin machine counts. Networks without twins would let a
    model infer the class from the machine, where several machines are in one case.
    """
    matched = _matched([(one.dataset.spec.seed, one.dataset.spec.recipe) for one in wanted])
    result: list[set[int]] = []
    for clean, twin in zip(wanted[::2], wanted[1::2], strict=True):
        both = _indices(clean, count), _indices(twin, count)
        if matched:
            result += [both[0] & both[1]] * 2
        else:
            result += both if all(both) else (set(), set())
    return result


def _matched(made: Sequence[tuple[int, Recipe]]) -> bool:
    """Return whether all tasks have the same seed and the same matched recipe."""
    return all(recipe.matched and (seed, recipe) == made[0] for seed, recipe in made)


def differences(ours: Spec, theirs: Spec) -> list[str]:
    """Return the names of settings that influence weights and differ: seed, and fields of the recipe."""
    mine, other = ({name: value for name, (_, value) in spec.recipe.options().items()} for spec in (ours, theirs))
    names = [name for name in {**mine, **other} if mine.get(name) != other.get(name)]
    return ["seed"] * (ours.seed != theirs.seed) + names


def _differing(asked: Asked, held: list[Wanted]) -> Iterator[str]:
    """Yield notes on differences between the networks of a case other than their tasks."""
    first = asked.wanted[0].dataset.spec
    found = dict.fromkeys(name for one in asked.wanted for name in differences(first, one.dataset.spec))
    if asked.optimizers:  # their own options are part of what they are
        own = [options_of(one.dataset.spec.recipe.optimizer) for one in asked.wanted]
        found = {name: None for name in found if name not in {"optimizer", *(each.name for each in chain(*own))}}
    if found:
        what = "machines and twins" if asked.twins else "the datasets of these networks"
        yield f"{what} differ in {', '.join(found)} too, which scores may be about"
    pairs = zip(held, asked.wanted, strict=bool(held))
    found = dict.fromkeys(name for theirs, ours in pairs for name in differences(theirs.dataset.spec, ours.dataset.spec))
    if names := [name for name in found if name != "seed"]:
        yield f"networks held out differ from those trained on in {', '.join(names)}"
