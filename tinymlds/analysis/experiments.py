"""`analyze`: an experiment on datasets, with every rung of the ladder."""

import contextlib
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
from tinymlds.errors import UsageError
from tinymlds.spec import canonical_json

try:
    from tinymlds.analysis import ladder, questions
    from tinymlds.analysis.questions import EXPERIMENTS, differences
    from tinymlds.analysis.statistics import INTERVAL
except ImportError as error:
    raise UsageError("analyze needs scikit-learn: pip install 'tinymlds[analysis]'") from error

Progress = Callable[[str, str], None]
"""A function called with the case and the rung before a fit, or the rungs that share the fit."""

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


@dataclass(frozen=True)
class _Request:
    """The experiment that is asked for, and its datasets."""

    experiment: str
    datasets: list[Dataset]
    held: list[Dataset]
    seeds: int
    networks: int | None

    @property
    def both(self) -> list[Dataset]:
        """All datasets, those held out last."""
        return [*self.datasets, *self.held]

    def command(self, rungs: str | None = None, cases: str | None = None) -> str:
        """Return the command that repeats the analysis, or some rungs of some cases of it."""
        folders, held = ([dataset.folder for dataset in each] for each in (self.datasets, self.held))
        chosen = options(experiment=self.experiment, seeds=self.seeds, rungs=rungs, cases=cases, networks=self.networks)
        return command_line("analyze", *folders, *chosen, *options(held_out=held))


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
        experiment: which-machine, tampered, tampered-unseen, which-transducer or predict-epochs.
        seeds: number of fits of each rung, each with another split, other random symmetries and another seed of the model.
        rungs: patterns like ``majority,forest/raw/*``; None is all. The name of a model alone is all its rungs.
        cases: patterns like "xor"; None is all.
        networks: use only the first networks of each task, by index; None is all.
        held_out: datasets of another seed with the same tasks: train on `folders`, test on these.
        out: file for the JSON; it must not exist, its folder must.
        workers: number of seeds computed at the same time; it does not change results.
        progress: called with the case and the rung before a fit, or the rungs that share the fit.

    Raises:
        UsageError: the experiment does not fit the datasets, `out` cannot be written, rows beside it are of another
            analysis, or scikit-learn is missing.
        DatasetError: a folder is damaged or unfinished.
        TinymldsError: the file system refused.
    """
    question = EXPERIMENTS.get(experiment)
    if question is None:
        raise UsageError(f"there is no experiment {experiment!r}; there are {', '.join(EXPERIMENTS)}")
    _check_numbers(seeds, networks)
    chosen = ladder.choose(rungs, question.metric)
    request = _Request(experiment, _opened(folders), _opened(held_out), seeds, networks)
    _check_held(request)
    counts = [min(dataset.counts.values()) for dataset in request.datasets]
    count = min(counts if networks is None else [*counts, networks])  # indices that all tasks have
    least = ladder.LEAST_NUMBERS if question.metric == "spearman" else 1
    splits = tuple(split(request.datasets[0].spec.seed, count, number, least) for number in range(seeds))
    plans = questions.plans(question, request.datasets, request.held, count, cases)
    versions, digests = _versions(), {str(dataset.folder): dataset.digest for dataset in request.both}
    target = None if out is None else writing.outside(Path(out), *(dataset.folder for dataset in request.both))
    command = request.command(rungs, cases)
    header = {"kind": "rows", "format": FORMAT, "command": command, "datasets": digests, "versions": versions}
    with writing.open_rows(target, header) as rows:
        for plan in plans:
            _climb(plan, chosen, ladder.Setting(question.metric, splits, min(workers, seeds)), rows, progress)
        results = Results(
            experiment,
            command,
            tuple(_described(dataset, request) for dataset in request.both),
            versions,
            INTERVAL,
            tuple(_written(number, each) for number, each in enumerate(splits)),
            PUBLISHED.get(experiment),
            tuple(_row(request, plan.asked.name, rung.name, digests, versions, rows) for plan in plans for rung in chosen),
            {"seconds": rows.seconds},
        )
        if target is not None:
            store.commit(target, results.to_json().encode())
            rows.remove()
    return results


def _check_numbers(seeds: int, networks: int | None) -> None:
    if type(seeds) is not int or not 2 <= seeds <= 1000:
        raise UsageError(f"seeds must be between 2 and 1000, as an interval needs two, not {seeds!r}")
    if networks is not None and (type(networks) is not int or networks < 3):
        raise UsageError(f"networks must be 3 or more, for training, validation and test, not {networks!r}")


def _climb(
    plan: questions.Plan,
    chosen: Sequence[ladder.Rung],
    setting: ladder.Setting,
    rows: writing.Rows,
    progress: Progress | None,
) -> None:
    """Add the missing rungs of a case; networks are read only if a rung is missing."""
    name, case = plan.asked.name, None
    for group in ladder.fitted_alike(chosen):
        if all((name, rung.name) in rows.fields for rung in group):
            continue
        start, found = time.perf_counter(), [{"status": "skipped", "reason": plan.reason} for _ in group]
        if not plan.reason:
            if progress is not None:
                progress(name, ", ".join(rung.name for rung in group))
            case = case or plan.case()
            try:
                found = ladder.climb(case, group, setting)
            except UsageError as error:
                found = [{"status": "skipped", "reason": str(error)} for _ in group]
        names = (rung.name for rung in group)
        rows.add(name, dict(zip(names, found, strict=True)), round(time.perf_counter() - start, 2))


def _row(
    request: _Request, case: str, rung: str, digests: dict[str, str], versions: dict[str, str], rows: writing.Rows
) -> Row:
    found: dict[str, Any] = {key: tuple(each) if key in _TUPLES else each for key, each in rows.fields[case, rung].items()}
    return Row(request.experiment, case, rung, request.command(rung, case), digests, versions, **found)


_TUPLES = ("scores", "classes", "chosen", "notes")
"""Fields of a row that are lists in JSON."""


def _opened(folders: str | Path | Sequence[str | Path]) -> list[Dataset]:
    return [open_dataset(folder).require_whole() for folder in ([folders] if isinstance(folders, str | Path) else folders)]


def _check_held(request: _Request) -> None:
    """Refuse held-out networks of the same seed: they are the training networks, or share initial weights with them."""
    seeds = {dataset.spec.seed for dataset in request.datasets}
    for dataset in request.held:
        if dataset.spec.seed in seeds:
            raise UsageError(
                f"{dataset.folder} has seed {dataset.spec.seed} too; networks held out need a seed of their own"
            )


def _described(dataset: Dataset, request: _Request) -> dict[str, Any]:
    recipe = hashlib.sha256(canonical_json(dataset.spec.recipe.to_dict()).encode()).hexdigest()
    return {
        "folder": str(dataset.folder),
        "digest": dataset.digest,
        "seed": dataset.spec.seed,
        "held_out": dataset in request.held,
        "matched": dataset.spec.recipe.matched,
        "recipe": recipe,
        "differs": differences(request.datasets[0].spec, dataset.spec),
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
