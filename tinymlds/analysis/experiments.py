"""The questions that can be asked of datasets, and `analyze`, which answers one with the whole ladder."""

import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tinymlds import machines, store
from tinymlds.analysis.points import Points, Wanted, gather
from tinymlds.analysis.results import Results, Row
from tinymlds.analysis.splits import Split, split
from tinymlds.dataset import Dataset, open_dataset
from tinymlds.errors import UsageError
from tinymlds.manifest import SPLITS
from tinymlds.tasks import MODIFIED, is_transducer

try:
    from tinymlds.analysis import ladder
    from tinymlds.analysis.statistics import INTERVAL
except ImportError as error:
    raise UsageError("analyze needs scikit-learn: pip install 'tinymlds[analysis]'") from error

Progress = Callable[[str, str], None]
"""Called with the case and the rung that is about to be climbed, or the rungs that one fit serves."""

PUBLISHED = {
    "which-machine": {
        "rung": "forest/raw/plain",
        "metric": "accuracy",
        "score": 0.991,
        "what": "random forest, raw weights, the original's five machines, split 80/20",
        "source": "https://arxiv.org/abs/2104.10555",
    }
}
"""What the literature has."""

LEAST_FOR_EPOCHS = 30
"""Networks that a task must have for its epochs to be predicted on their own."""


@dataclass(frozen=True)
class _Question:
    """An experiment: how it is scored, and its cases."""

    metric: str
    cases: Callable[[list[Dataset]], Iterator[tuple[str, list[Wanted], tuple[str, ...]]]]
    """Name, networks and classes of each; no classes, where the epochs are what is asked for."""


def _tasks(datasets: list[Dataset]) -> dict[str, Dataset]:
    """The dataset of every task.

    Raises:
        UsageError: two datasets have the same task.
    """
    found: dict[str, Dataset] = {}
    for dataset in datasets:
        for task in dataset.tasks:
            if task in found:
                raise UsageError(f"{found[task].folder} and {dataset.folder} both have {task}; give one (or --held-out)")
            found[task] = dataset
    return found


def _which(datasets: list[Dataset], is_class: Callable[[str], bool], what: str) -> Iterator[Any]:
    classes = {task: dataset for task, dataset in _tasks(datasets).items() if is_class(task)}
    if len(classes) < 2:
        raise UsageError(f"this experiment needs at least two {what}, and there are {len(classes)}")
    yield "all", [Wanted(dataset, task, k) for k, (task, dataset) in enumerate(classes.items())], tuple(classes)


def _tampered(datasets: list[Dataset]) -> Iterator[Any]:
    found = _tasks(datasets)
    pairs = [(task, task + MODIFIED) for task in found if task + MODIFIED in found]
    if not pairs:
        raise UsageError("this experiment needs a machine and its modified twin: give both datasets, like ds1 and ds2")
    classes = "clean", "tampered"
    each = [[Wanted(found[task], task, k) for k, task in enumerate(pair)] for pair in pairs]
    for (machine, _), wanted in zip(pairs, each, strict=True):
        yield machine, wanted, classes
    if len(pairs) > 1:
        yield "all", [one for wanted in each for one in wanted], classes


def _epochs(datasets: list[Dataset]) -> Iterator[Any]:
    found = _tasks(datasets)
    for task, dataset in found.items():
        epochs = [row["epochs"] for row in dataset.rows(task)]
        if len(epochs) >= LEAST_FOR_EPOCHS and len(set(epochs)) > 2:
            yield task, [Wanted(dataset, task)], ()
    if len(found) > 1:
        yield "all", [Wanted(dataset, task) for task, dataset in found.items()], ()


EXPERIMENTS = {
    "which-machine": _Question(
        "balanced_accuracy", lambda datasets: _which(datasets, lambda task: task in machines.MACHINES, "machines")
    ),
    "tampered": _Question("roc_auc", _tampered),
    "which-transducer": _Question("balanced_accuracy", lambda datasets: _which(datasets, is_transducer, "transducers")),
    "predict-epochs": _Question("spearman", _epochs),
}


# ------------------------------------------------------------------ one experiment


@dataclass(frozen=True)
class _Asked:
    """What was asked for, and what it was asked of."""

    experiment: str
    datasets: list[Dataset]
    held: list[Dataset]
    seeds: int

    def command(self, rungs: str | None = None, cases: str | None = None) -> str:
        """The command line that makes this, or some rungs of some cases of it, again."""
        words = ["tinymlds", "analyze", *(str(dataset.folder) for dataset in self.datasets)]
        words += ["--experiment", self.experiment, "--seeds", str(self.seeds)]
        for option, value in (("--rungs", rungs), ("--cases", cases)):
            words += [option, value] if value is not None else []
        for dataset in self.held:
            words += ["--held-out", str(dataset.folder)]
        return shlex.join(words)


def analyze(
    folders: str | Path | Sequence[str | Path],
    experiment: str,
    *,
    seeds: int = 5,
    rungs: str | None = None,
    cases: str | None = None,
    held_out: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Results:
    """Ask a question of datasets, with every rung of the ladder; `tinymlds.analyze`.

    Args:
        folders: dataset folders; several where the experiment compares them, as tampered does.
        experiment: which-machine, tampered, which-transducer or predict-epochs.
        seeds: how often each rung is climbed, with another split, other random symmetries and another seed of the model.
        rungs: some, like ``majority,forest/raw/*``; None is all. A model's name alone is all its rungs.
        cases: some, like "xor"; None is all.
        held_out: datasets of another seed with the same tasks: train on `folders`, test on these.
        out: file for the JSON; must not be there yet.
        workers: seeds that are worked on at the same time. It does not change results.
        progress: called with the case and the rung that is about to be climbed, or the rungs that one fit serves.

    Raises:
        UsageError: this cannot be asked of these datasets, or scikit-learn is missing.
        DatasetError: a folder is damaged or unfinished.
    """
    question = EXPERIMENTS.get(experiment)
    if question is None:
        raise UsageError(f"there is no experiment {experiment!r}; there are {', '.join(EXPERIMENTS)}")
    if type(seeds) is not int or not 2 <= seeds <= 1000:
        raise UsageError(f"seeds must be between 2 and 1000, as an interval needs two, not {seeds!r}")
    if out is not None and Path(out).exists():
        raise UsageError(f"{out} is there already; choose another file")
    chosen = ladder.choose(rungs, question.metric)
    asked = _Asked(experiment, _opened(folders), _opened(held_out), seeds)
    _check_held(asked)
    count = min(min(dataset.counts.values()) for dataset in asked.datasets)  # indices that all tasks have
    splits = tuple(split(asked.datasets[0].spec.seed, count, number) for number in range(seeds))
    setting = ladder.Setting(question.metric, splits, min(workers, seeds))
    rows: list[Row] = []
    seconds: dict[str, float] = {}
    versions, digests = _versions(), {str(d.folder): d.digest for d in (*asked.datasets, *asked.held)}
    for case in _cases(question, asked, cases, count):
        found: dict[ladder.Rung, dict[str, Any]] = {}
        for group in ladder.fitted_alike(chosen):
            if progress is not None:
                progress(case.name, ", ".join(rung.name for rung in group))
            start = time.perf_counter()
            found |= _climbed(case, group, setting)
            seconds |= dict.fromkeys((f"{case.name}/{rung.name}" for rung in group), round(time.perf_counter() - start, 2))
        for rung in chosen:
            command = asked.command(rung.name, case.name)
            rows.append(Row(experiment, case.name, rung.name, command, digests, versions, **found[rung]))
    results = Results(
        experiment,
        asked.command(rungs, cases),
        tuple(_described(dataset, dataset in asked.held) for dataset in (*asked.datasets, *asked.held)),
        versions,
        INTERVAL,
        tuple(_written(number, each) for number, each in enumerate(splits)),
        PUBLISHED.get(experiment),
        tuple(rows),
        {"seconds": seconds},
    )
    if out is not None:
        store.commit(Path(out), results.to_json().encode())
    return results


def _climbed(
    case: ladder.Case, group: tuple[ladder.Rung, ...], setting: ladder.Setting
) -> dict[ladder.Rung, dict[str, Any]]:
    """The fields of the rows of rungs that one fit serves."""
    try:
        found = ladder.climb(case, group, setting)
    except UsageError as error:
        found = [{"status": "skipped", "reason": str(error)} for _ in group]
    return dict(zip(group, found, strict=True))


def _opened(folders: str | Path | Sequence[str | Path]) -> list[Dataset]:
    return [open_dataset(folder).require_whole() for folder in ([folders] if isinstance(folders, str | Path) else folders)]


def _check_held(asked: _Asked) -> None:
    """Networks of the same seed are the same networks, or share initial weights with those that are trained on."""
    seeds = {dataset.spec.seed for dataset in asked.datasets}
    for dataset in asked.held:
        if dataset.spec.seed in seeds:
            raise UsageError(
                f"{dataset.folder} has seed {dataset.spec.seed} too; networks held out need a seed of their own"
            )


def _cases(question: _Question, asked: _Asked, patterns: str | None, count: int) -> Iterator[ladder.Case]:
    """The cases, of networks below an index, one in memory at a time.

    Raises:
        UsageError: a pattern that names none, networks held out that are not those of the case, or no complete network.
    """
    found = list(question.cases(asked.datasets))
    if not found:
        raise UsageError(f"no task has {LEAST_FOR_EPOCHS} networks with different numbers of epochs")
    held = {name: (wanted, classes) for name, wanted, classes in (question.cases(asked.held) if asked.held else ())}
    names = [name for name, _, _ in found]
    for pattern in patterns.split(",") if patterns is not None else ():
        if not any(fnmatchcase(name, pattern) for name in names):
            raise UsageError(f"no case is called {pattern!r}; there are {', '.join(names)}")
    for name, wanted, classes in found:
        if patterns is not None and not any(fnmatchcase(name, pattern) for pattern in patterns.split(",")):
            continue
        test = None
        if asked.held:
            if name not in held or held[name][1] != classes or _names(held[name][0]) != _names(wanted):
                raise UsageError(
                    f"the datasets held out have not the tasks of the case {name}: {', '.join(_names(wanted))}"
                )
            test = gather(held[name][0], classes)
        points = gather(wanted, classes)
        if not len(points) or (test is not None and not len(test)):
            raise UsageError(
                f"case {name}: no network of {', '.join(_names(wanted))} is complete, so there is nothing to ask"
            )
        if points.index.max() >= count:
            points = points.take(points.index < count)
        _, held_pair = (None, None) if test is None else _twins(test, asked.experiment)
        strata, pair = _twins(points, asked.experiment)
        yield ladder.Case(name, points, test, strata, pair=pair, held_pair=held_pair)


def _names(wanted: list[Wanted]) -> list[str]:
    return [task for _, task, _ in wanted]


def _twins(points: Points, experiment: str) -> tuple[Any, Any]:
    """For each network the number of its machine, and, if all machines and twins are matched, of its pair."""
    if experiment != "tampered":
        return None, None
    machine = points.source // 2
    matched = all(source.recipe.matched and source.seed == points.sources[0].seed for source in points.sources)
    return machine, machine * (int(points.index.max()) + 1) + points.index if matched else None


def _described(dataset: Dataset, held_out: bool) -> dict[str, Any]:
    complete = {task: len(dataset.rows(task)) for task in dataset.tasks}
    about = {"folder": str(dataset.folder), "digest": dataset.digest, "seed": dataset.spec.seed, "held_out": held_out}
    return {**about, "matched": dataset.spec.recipe.matched, "complete": complete}


def _written(number: int, each: Split) -> dict[str, Any]:
    indices = {name: np.flatnonzero(each.parts == k).tolist() for k, name in enumerate(SPLITS) if name != "train"}
    return {"seed": number, "rule": each.rule, "indices": len(each.parts), **indices}


def _versions() -> dict[str, str]:
    found = {}
    for package in ("tinymlds", "numpy", "scipy", "scikit-learn", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
