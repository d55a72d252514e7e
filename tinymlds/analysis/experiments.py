"""`analyze`: an experiment on datasets, with every rung of the ladder."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from tinymlds.analysis import writing
from tinymlds.analysis.results import FORMAT, Results, Row
from tinymlds.analysis.splits import Split, split
from tinymlds.dataset import store
from tinymlds.dataset.commands import command_line, options
from tinymlds.dataset.dataset import Dataset, open_dataset
from tinymlds.dataset.manifest import SPLITS
from tinymlds.errors import UsageError, nearest
from tinymlds.spec import canonical_json

try:
    from tinymlds.analysis import ladder, questions
    from tinymlds.analysis.questions import EXPERIMENTS, differences
    from tinymlds.analysis.statistics import INTERVAL
except ImportError as error:
    raise UsageError("analyze needs scikit-learn: pip install 'tinymlds[analysis]'") from error

Progress = Callable[[str, str, int, int], None]
"""A function called before a fit with the case, the rung (or those that share the fit), fits that are done, all fits."""

PUBLISHED = {
    "which-machine": {
        "rung": "forest/raw/plain",
        "metric": "accuracy",
        "score": 0.991,
        "what": "random forest, raw weights, the original's five machines, split 80/20",
        "source": "https://arxiv.org/abs/2104.10555",
    }
}
"""Published scores, by experiment."""


def analyze(
    folders: str | Path | Sequence[str | Path],
    experiment: str,
    *,
    seeds: int = 5,
    rungs: str | None = None,
    cases: str | None = None,
    networks: int | None = None,
    held_out: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Results:
    """Run an experiment on datasets, with every rung of the ladder; `tinymlds.analyze`.

    Everything is checked before the first fit. With `out`, finished rows are kept in OUT.rows, and the same call continues
    from there; that file is removed once `out` is written.

    Args:
        folders: dataset folders; several if the experiment compares them, as tampered does.
        experiment: which-machine, tampered, tampered-unseen, which-transducer, which-optimizer or predict-epochs.
        seeds: number of fits of each rung, each with another split, other random symmetries and another seed of the model.
        rungs: patterns like ``majority,forest/raw/*``; None is all. The name of a model alone is all its rungs.
        cases: patterns like "xor"; None is all.
        networks: use only the first networks of each task, by index; None is all.
        held_out: datasets of another seed with the same tasks: train on `folders`, test on these.
        out: file for the JSON; it must not exist, its folder must.
        workers: number of seeds computed at the same time; it does not change results.
        progress: called before a fit with the case, the rung (or those that share the fit), fits that are done, all fits.

    Raises:
        UsageError: the experiment does not fit the datasets, `out` cannot be written, rows beside it are of another
            analysis, or scikit-learn is missing.
        DatasetError: a folder is damaged or unfinished.
        TinymldsError: the file system refused.
    """
    if experiment not in EXPERIMENTS:
        raise UsageError(
            f"there is no experiment {experiment!r}{nearest(experiment, EXPERIMENTS)}; there are {', '.join(EXPERIMENTS)}"
        )
    metric, cases_of = EXPERIMENTS[experiment]
    _check_numbers(seeds, networks)
    chosen = ladder.choose(rungs, metric)
    datasets, held = _opened(folders), _opened(held_out)
    for dataset in held:  # those of the same seed are the training networks, or share initial weights with them
        if (seed := dataset.spec.seed) in {each.spec.seed for each in datasets}:
            raise UsageError(f"{dataset.folder} has seed {seed} too; networks held out need a seed of their own")
    counts = [min(dataset.counts.values()) for dataset in datasets]
    count = min(counts if networks is None else [*counts, networks])  # indices that all tasks have
    least = ladder.LEAST_NUMBERS if metric == "spearman" else 1
    splits = tuple(split(datasets[0].spec.seed, count, number, least) for number in range(seeds))
    plans = questions.plans(cases_of, datasets, held, count, cases)
    versions, digests = _versions(), {str(dataset.folder): dataset.digest for dataset in (*datasets, *held)}
    target = None if out is None else writing.outside(Path(out), *map(Path, digests))

    def command(rungs: str | None, cases: str | None) -> str:
        given = options(experiment=experiment, seeds=seeds, rungs=rungs, cases=cases, networks=networks)
        places, held_places = ([dataset.folder for dataset in each] for each in (datasets, held))
        return command_line("analyze", *places, *given, *options(held_out=held_places))

    def row(case: str, rung: str) -> Row:
        named = {"experiment": experiment, "case": case, "rung": rung, "command": command(rung, case)}
        return Row.from_json({**named, "datasets": digests, "versions": versions, **finished.fields[case, rung]})

    header = {"kind": "rows", "format": FORMAT, "command": command(rungs, cases)}
    with writing.open_rows(target, {**header, "datasets": digests, "versions": versions}) as finished:
        evaluation, groups = ladder.Evaluation(metric, splits, min(workers, seeds)), ladder.fitted_alike(chosen)
        for number, plan in enumerate(plans):
            _climb(plan, groups, evaluation, finished, progress, (number, len(plans)))
        results = Results(
            experiment,
            command(rungs, cases),
            tuple(_described(dataset, datasets[0], dataset in held) for dataset in (*datasets, *held)),
            versions,
            INTERVAL,
            tuple(_written(number, each) for number, each in enumerate(splits)),
            PUBLISHED.get(experiment),
            tuple(row(plan.asked.name, rung.name) for plan in plans for rung in chosen),
            {"seconds": finished.seconds},
        )
        if target is not None:
            store.commit(target, results.to_json().encode())
            finished.needed = False
    return results


def _check_numbers(seeds: int, networks: int | None) -> None:
    if type(seeds) is not int or not 2 <= seeds <= 1000:
        raise UsageError(f"seeds must be between 2 and 1000, as an interval needs two, not {seeds!r}")
    if networks is not None and (type(networks) is not int or networks < 3):
        raise UsageError(f"networks must be 3 or more, for training, validation and test, not {networks!r}")


def _climb(
    plan: questions.Plan,
    groups: list[tuple[ladder.Rung, ...]],
    evaluation: ladder.Evaluation,
    rows: writing.Rows,
    progress: Progress | None,
    place: tuple[int, int],
) -> None:
    """Add the missing rungs of a case, number `place[0]` of `place[1]`; networks are read only if a rung is missing."""
    name, case = plan.asked.name, None
    for done, group in enumerate(groups):
        if all((name, rung.name) in rows.fields for rung in group):
            continue
        start, found = time.perf_counter(), [{"status": "skipped", "reason": plan.reason} for _ in group]
        if not plan.reason:
            if progress is not None:
                progress(
                    name, ", ".join(rung.name for rung in group), place[0] * len(groups) + done, place[1] * len(groups)
                )
            case = case or plan.case()
            try:
                found = ladder.climb(case, group, evaluation)
            except UsageError as error:
                found = [{"status": "skipped", "reason": str(error)} for _ in group]
        names = (rung.name for rung in group)
        rows.add(name, dict(zip(names, found, strict=True)), round(time.perf_counter() - start, 2))


def _opened(folders: str | Path | Sequence[str | Path]) -> list[Dataset]:
    return [open_dataset(folder).require_whole() for folder in ([folders] if isinstance(folders, str | Path) else folders)]


def _described(dataset: Dataset, first: Dataset, held_out: bool) -> dict[str, Any]:
    return {
        "folder": str(dataset.folder),
        "digest": dataset.digest,
        "seed": dataset.spec.seed,
        "held_out": held_out,
        "matched": dataset.spec.recipe.matched,
        "recipe": hashlib.sha256(canonical_json(dataset.spec.recipe.to_dict()).encode()).hexdigest(),
        "differs": differences(first.spec, dataset.spec),
        "complete": {task: len(dataset.rows(task)) for task in dataset.tasks},
    }


def _written(number: int, each: Split) -> dict[str, Any]:
    indices = {name: np.flatnonzero(each.parts == k).tolist() for k, name in enumerate(SPLITS) if name != "train"}
    return {"seed": number, "rule": each.rule, "indices": len(each.parts), **indices}


def _versions() -> dict[str, str]:
    found = {}
    for package in ("tinymlds", "numpy", "scipy", "scikit-learn", "torch"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
