"""`analyze`: a question asked of datasets, with the whole ladder."""

import hashlib
import shlex
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


@dataclass(frozen=True)
class _Asked:
    """What was asked for, and what it was asked of."""

    experiment: str
    datasets: list[Dataset]
    held: list[Dataset]
    seeds: int
    networks: int | None

    @property
    def both(self) -> list[Dataset]:
        """All datasets."""
        return [*self.datasets, *self.held]

    def command(self, rungs: str | None = None, cases: str | None = None) -> str:
        """The command line that makes this, or some rungs of some cases of it, again."""
        words = ["tinymlds", "analyze", *(str(dataset.folder) for dataset in self.datasets)]
        words += ["--experiment", self.experiment, "--seeds", str(self.seeds)]
        for option, value in (("--rungs", rungs), ("--cases", cases), ("--networks", self.networks)):
            words += [option, str(value)] if value is not None else []
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
    networks: int | None = None,
    held_out: str | Path | Sequence[str | Path] = (),
    out: str | Path | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Results:
    """Ask a question of datasets, with every rung of the ladder; `tinymlds.analyze`.

    Everything is checked before the first fit. With `out`, rows are kept in OUT.rows as they come, and the same call takes
    them up; that file is removed once `out` is written.

    Args:
        folders: dataset folders; several where the experiment compares them, as tampered does.
        experiment: which-machine, tampered, tampered-unseen, which-transducer or predict-epochs.
        seeds: how often each rung is climbed, with another split, other random symmetries and another seed of the model.
        rungs: some, like ``majority,forest/raw/*``; None is all. A model's name alone is all its rungs.
        cases: some, like "xor"; None is all.
        networks: only the first so many networks of each task, by index; None is all.
        held_out: datasets of another seed with the same tasks: train on `folders`, test on these.
        out: file for the JSON; must not be there yet, its folder must.
        workers: seeds that are worked on at the same time. It does not change results.
        progress: called with the case and the rung that is about to be climbed, or the rungs that one fit serves.

    Raises:
        UsageError: this cannot be asked of these datasets, `out` cannot be written, rows beside it are of another analysis,
            or scikit-learn is missing.
        DatasetError: a folder is damaged or unfinished.
        TinymldsError: the file system refused.
    """
    question = EXPERIMENTS.get(experiment)
    if question is None:
        raise UsageError(f"there is no experiment {experiment!r}; there are {', '.join(EXPERIMENTS)}")
    _check_numbers(seeds, networks)
    chosen = ladder.choose(rungs, question.metric)
    asked = _Asked(experiment, _opened(folders), _opened(held_out), seeds, networks)
    _check_held(asked)
    counts = [min(dataset.counts.values()) for dataset in asked.datasets]
    count = min(counts if networks is None else [*counts, networks])  # indices that all tasks have
    least = ladder.LEAST_NUMBERS if question.metric == "spearman" else 1
    splits = tuple(split(asked.datasets[0].spec.seed, count, number, least) for number in range(seeds))
    plans = questions.plans(question, asked.datasets, asked.held, count, cases)
    versions, digests = _versions(), {str(dataset.folder): dataset.digest for dataset in asked.both}
    target = None if out is None else writing.outside(Path(out), *(dataset.folder for dataset in asked.both))
    command = asked.command(rungs, cases)
    header = {"kind": "rows", "format": FORMAT, "command": command, "datasets": digests, "versions": versions}
    with writing.open_rows(target, header) as rows:
        for plan in plans:
            _climb(plan, chosen, ladder.Setting(question.metric, splits, min(workers, seeds)), rows, progress)
        results = Results(
            experiment,
            command,
            tuple(_described(dataset, asked) for dataset in asked.both),
            versions,
            INTERVAL,
            tuple(_written(number, each) for number, each in enumerate(splits)),
            PUBLISHED.get(experiment),
            tuple(_row(asked, plan.asked.name, rung.name, digests, versions, rows) for plan in plans for rung in chosen),
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
    """Add the rungs of a case that are not there yet; networks are read only if there are such."""
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


def _row(asked: _Asked, case: str, rung: str, digests: dict[str, str], versions: dict[str, str], rows: writing.Rows) -> Row:
    found: dict[str, Any] = {key: tuple(each) if key in _TUPLES else each for key, each in rows.fields[case, rung].items()}
    return Row(asked.experiment, case, rung, asked.command(rung, case), digests, versions, **found)


_TUPLES = ("scores", "classes", "chosen", "notes")
"""Fields of a row that JSON has as lists."""


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


def _described(dataset: Dataset, asked: _Asked) -> dict[str, Any]:
    recipe = hashlib.sha256(canonical_json(dataset.spec.recipe.to_dict()).encode()).hexdigest()
    return {
        "folder": str(dataset.folder),
        "digest": dataset.digest,
        "seed": dataset.spec.seed,
        "held_out": dataset in asked.held,
        "matched": dataset.spec.recipe.matched,
        "recipe": recipe,
        "differs": differences(asked.datasets[0].spec, dataset.spec),
        "complete": {task: len(dataset.rows(task)) for task in dataset.tasks},
    }


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
