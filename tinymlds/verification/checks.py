"""Checks that anyone can make of a dataset made by anyone: hashes, and losses computed again from the written files."""

import contextlib
import hashlib
import os
import random
import secrets
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tinymlds.architectures import params
from tinymlds.dataset import packages, reader, schema, store
from tinymlds.dataset.dataset import Dataset, read_description, require_dataset
from tinymlds.dataset.manifest import Row, splits
from tinymlds.dataset.schema import columns_of, data_tensors, describe_task, graph_files
from tinymlds.dataset.tensorfile import TensorFile
from tinymlds.errors import DatasetError, UsageError, one_line
from tinymlds.publish import checking
from tinymlds.spec import Spec, canonical_json
from tinymlds.tasks import catalog
from tinymlds.training.data import task_data
from tinymlds.training.loop import Outcome, Status
from tinymlds.training.metrics import COLUMNS, Figures, measure
from tinymlds.verification.retraining import Replay, reached, train_again


@dataclass
class Verification:
    """The result of `verify`."""

    folder: str
    digest: str = ""
    package: bool = False
    """The folder is a package."""
    digests: dict[str, str] = field(default_factory=dict)
    """The digest of each full dataset of a package."""
    files: int = 0
    tasks: int = 0
    """Number of tasks whose tables and sequences were made again."""
    networks: int = 0
    losses_recomputed: int = 0
    retrained: int = 0
    """Number of networks trained again."""
    retrain_seed: int | None = None
    """The seed that they were picked with."""
    forgeries: int | None = None
    """Number of forged networks that would have shown with 95 % probability; None if none was trained again."""
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing was found wrong."""
        return not self.problems


def verify(
    folder: str | Path,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    retrain: int = 0,
    workers: int = 1,
    seed: int | None = None,
) -> Verification:
    """Check a dataset folder: every file's hash, every network's hash, and every validation loss, bit by bit.

    The sequences and tables are made again from the spec; the validation loss of each network is computed from its written
    weights by the kernel that trained it, and must have the same bits as the manifest says.

    In a folder made by `generate` the sequences, tables and manifest are made again. Of a package, its full datasets are
    checked, and then that subsets, splits, audit and descriptions are what these give.

    All that does not show a forger who trains networks in another way and describes them rightly. Training some again does:
    pick them at random, after the dataset is fixed.

    Args:
        folder: a sealed dataset folder, or a package.
        progress: called with (networks checked, networks) along the way, and then with (trained again, picked).
        retrain: so many networks are picked at random and trained again; what comes out has to be the same bit by bit.
        workers: processes that train them, and threads that compute losses and figures.
        seed: picks them; default is a new one, which the result names.

    Raises:
        UsageError: networks are to be trained again, and the folder holds none, or a number is out of range.
    """
    if min(retrain, workers - 1, seed or 0) < 0:
        raise UsageError("retrain and seed must be at least 0, workers at least 1")
    result = Verification(str(folder))
    path = Path(folder)
    if packages.is_package(path):
        if retrain:
            raise UsageError(f"{path} is a package; train networks of one of its datasets again, as in {path}/NAME/full")
        result.package = True
        with noting(result):
            _check_package(path, progress, workers, result)
        result.problems = list(dict.fromkeys(result.problems))
        return result
    require_dataset(path)
    dataset = None
    with noting(result):
        if packages.MARKER in reader.read_sums(path):
            result.package = True
            raise DatasetError(f"{path} looks like a package without its {packages.MARKER}; fetch it again")
        _check_files(path, result)
        description = read_description(path)
        if description["kind"] != "sequences":
            dataset = Dataset(path)
        elif retrain:
            raise UsageError(f"{path} holds sequences without networks; there is nothing to train again")
        else:
            _check_sequences(path, description, result)
    if dataset is None:
        return result
    result.digest = dataset.digest
    if _worth_making(path, dataset.spec, result):
        _check_dataset(dataset, progress, workers, result)
        if retrain:
            result.retrain_seed = secrets.randbits(63) if seed is None else seed
            picked = pick(len(dataset), min(retrain, len(dataset)), result.retrain_seed)
            # The files have been compared with the manifest, so its hashes stand for them
            compare_with_training(dataset.spec, [dataset.manifest[number] for number in picked], workers, result, progress)
            result.retrained, result.forgeries = len(picked), least_caught(len(dataset), len(picked))
        result.problems = list(dict.fromkeys(result.problems))
    return result


def _check_dataset(dataset: Dataset, progress: Callable[[int, int], None], threads: int, result: Verification) -> None:
    """Check every file of a folder with networks, and all that it says of each network."""
    path = dataset.folder
    _check_names(path, dataset.sums, schema.file_names(dataset.spec), result)
    _check_spelling(path, store.MANIFEST, dataset.manifest, result)
    done = 0
    for task in dataset.tasks:
        _check_data(path, dataset.spec, task, result)
        result.tasks += 1
        for shard in dataset.shards(task):
            with noting(result):
                for _ in _check_shard(dataset, task, shard, threads, result):
                    done += 1
                    progress(done, len(dataset))
    _check_spelling(path, store.DESCRIPTION, [schema.describe(dataset.spec, "networks")], result)
    result.networks = done


@contextlib.contextmanager
def noting(result: Verification) -> Iterator[None]:
    """Record a DatasetError as a problem, and go on."""
    try:
        yield
    except DatasetError as error:
        result.problems.append(str(error))


def _check_package(folder: Path, progress: Callable[[int, int], None], threads: int, result: Verification) -> None:
    """Check the hashes of a package, then its datasets, then what follows from them if those are right."""
    _check_files(folder, result, depth=3)  # the dataset, full or a subset, and a folder for each kind of file
    for packaged in packages.read(folder).datasets:
        found = verify(reader.folder_inside(folder, packaged.folder), progress, workers=threads)
        if found.digest:
            result.digests[packaged.name] = found.digest
        result.problems += found.problems
        result.networks += found.networks
        result.losses_recomputed += found.losses_recomputed
        result.tasks += found.tasks
    if result.ok:
        result.problems += map(one_line, checking.problems(folder, threads))


def _check_files(folder: Path, result: Verification, depth: int = 1) -> None:
    sums = reader.read_sums(folder)
    own = {store.SUMS, store.JOURNAL, f"{store.JOURNAL}-journal", store.LOCK, f"{store.LOCK}-journal"}
    for name in sorted(set(_present(folder, depth)) - set(sums) - own):
        result.problems.append(one_line(f"{folder / name} is not listed in {store.SUMS}"))
    for name, wanted in sums.items():
        result.files += 1
        with noting(result):
            if reader.file_sha256(folder, name) != wanted:
                result.problems.append(f"{folder / name} does not match {store.SUMS}; it was changed or damaged")


def _present(folder: Path, depth: int, above: str = "") -> Iterator[str]:
    """Yield the names of what is in a folder and, `depth` times, in its folders; a folder below those is just a name.

    Names that begin with "." are passed over: hosts and desktops leave such, and no reader opens any (`reader.is_name`).
    """
    with reader.reading(folder), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir(follow_symlinks=False) and depth:
                yield from _present(folder / entry.name, depth - 1, f"{above}{entry.name}/")
            else:
                yield above + entry.name


def _check_names(folder: Path, sums: dict[str, str], wanted: set[str], result: Verification) -> None:
    for name in sorted(set(sums) ^ wanted):
        why = "is missing in" if name in wanted else "is no file of this dataset, and listed in"
        result.problems.append(f"{folder / name} {why} {store.SUMS}")


def _check_spelling(folder: Path, name: str, rows: Iterable[dict[str, Any]], result: Verification) -> None:
    """Compare a file of JSON with what it has to say, byte by byte, as digests are made of bytes."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update((canonical_json(row) + "\n").encode())
    if reader.file_sha256(folder, name) != digest.hexdigest():
        result.problems.append(f"{folder / name} says other things than its spec and tasks give, or says it otherwise")


def _worth_making(folder: Path, spec: Spec, result: Verification) -> bool:
    """Return whether the files of all tasks have the sizes of the spec; a short spec may ask for gigabytes of sequences."""
    count, recipe = len(result.problems), spec.recipe
    lengths = {"train": recipe.stored_sequences, "validation": recipe.validation_sequences}
    for name in (store.data_name(task) for task, _ in spec.tasks):
        with noting(result):
            found = TensorFile(folder, name).tensors
            for kind, length in lengths.items():
                shapes = (found.get(f"{kind}.{what}", (None, ()))[1] for what in ("symbols", "outputs"))
                if any(shape != (length, recipe.steps) for shape in shapes):
                    result.problems.append(f"{folder / name} has not the sequences that its spec announces")
    return len(result.problems) == count


def _check_sequences(folder: Path, description: dict[str, Any], result: Verification) -> None:
    """Check a folder made by `generate`: everything in it follows from its spec, and is made again."""
    asked = {}
    with contextlib.suppress(KeyError, TypeError):  # then `from_dict` says what is wrong
        asked["tasks"] = [{**row, "count": 1} for row in description["tasks"]]  # there are no networks to count
    spec = Spec.from_dict({**description, **asked}, str(folder / store.DESCRIPTION))
    result.digest = store.dataset_digest(reader.read_sums(folder))
    if not _worth_making(folder, spec, result):
        return
    _check_names(folder, reader.read_sums(folder), schema.file_names(spec, networks=False), result)
    rows = []
    for task, _ in spec.tasks:
        _check_data(folder, spec, task, result)
        rows.append(schema.sequences_row(folder, spec, task))
        result.tasks += 1
    _check_spelling(folder, store.DESCRIPTION, [schema.describe(spec, "sequences")], result)
    _check_spelling(folder, store.MANIFEST, rows, result)


def _check_data(folder: Path, spec: Spec, task: str, result: Verification) -> None:
    """Compare the files of a task with the table and the sequences that the spec gives."""
    name, found = store.data_name(task), catalog.load(spec.setting(task))
    tensors, metadata = data_tensors(found, task_data(found.setting))
    describe_task(found.setting)  # will be wanted of all tasks together
    with noting(result):
        file = TensorFile(folder, name)
        stored = file.read()
        same = stored.keys() == tensors.keys() and all(np.array_equal(stored[key], tensors[key]) for key in tensors)
        if not same or file.metadata != metadata:
            result.problems.append(f"{folder / name} is not the table and sequences of {task}")
        for graph, text in graph_files(found).items():
            if reader.file_sha256(folder, graph) != hashlib.sha256(text).hexdigest():
                result.problems.append(f"{folder / graph} is not the machine of {task}")


def _check_shard(dataset: Dataset, task: str, shard: int, threads: int, result: Verification) -> Iterator[None]:
    rows, spec = dataset.shard_rows(task, shard), dataset.spec
    weights = params.from_tensors(dataset.architecture, dataset.tensor_file("networks", task, shard).read(), 1)
    losses = dataset.shard_losses(task, shard)
    checkpoints = dataset.shard_checkpoints(task, shard)
    split_of = splits(spec.seed, spec.indices[task][shard * store.SHARD :][: len(rows)])
    outcomes = []
    for k, row in enumerate(rows):
        kept = checkpoints[k, : len(reached(spec, losses[k][1].size))]
        outcomes.append(Outcome(row["index"], Status(row["status"]), row["reason"], weights[k], *losses[k], kept, 0.0))
    replay = Replay(spec, task)

    def compute(outcome: Outcome) -> tuple[list[str], Figures]:
        return replay.problems(outcome), measure(spec.setting(task), outcome.weights)

    with ThreadPoolExecutor(threads) as pool:  # kernels run without Python's lock
        computed = list(pool.map(compute, outcomes))
    for k, (row, outcome, (found, figures)) in enumerate(zip(rows, outcomes, computed, strict=True)):
        columns = columns_of(outcome)
        if columns["weights_sha256"] != row["weights_sha256"]:
            found.append("has other weights than the manifest says")
        if columns["losses_sha256"] != row["losses_sha256"] or columns["epochs"] != row["epochs"]:
            found.append("has other losses than the manifest says")
        if any(columns[loss] != row[loss] for loss in ("train_loss", "validation_loss")):
            found.append("ends with other losses than the manifest says")
        if row["split"] != split_of[k]:
            found.append(f"is not in the split {row['split']}")
        if row["checkpoints"] != columns["checkpoints"]:
            stated = f"{row['checkpoints']} checkpoints, and {columns['checkpoints']} by its epochs"
            found.append(f"has {stated}; the manifest is wrong about it")
        elif row["checkpoints_sha256"] != columns["checkpoints_sha256"]:
            found.append("has other checkpoints than the manifest says")
        if not np.isnan(checkpoints[k, len(outcome.checkpoints) :]).all():
            found.append("has checkpoints of epochs that it did not reach")
        if figures != {column: row[column] for column in COLUMNS}:
            found.append("measures otherwise on fresh sequences than the manifest says")
        result.losses_recomputed += outcome.epochs > 0
        result.problems += [f"{dataset.folder}: {task} {row['index']} {problem}" for problem in found]
        yield


# ------------------------------------------------------------------ training again


def pick(networks: int, count: int, seed: int) -> list[int]:
    """Pick `count` of the numbers 0 ... networks - 1, each set as likely as any other; they are ascending."""
    return sorted(random.Random(seed).sample(range(networks), count))


def least_caught(networks: int, retrained: int, probability: float = 0.95) -> int:
    """Return the least number of forged networks of which at least one is picked with this probability.

    None of k forged ones is among n of N picked ones with probability C(N - k, n) / C(N, n). For large N that is a rate of
    1 - 0.05^(1/n): 59 networks catch a rate of 5 %, 299 one of 1 %.
    """
    missed, forged = 1.0, 0
    while missed > 1.0 - probability:
        missed *= max(0, networks - retrained - forged) / (networks - forged)
        forged += 1
    return forged


def compare_with_training(
    spec: Spec,
    rows: Iterable[Row],
    workers: int,
    result: Verification,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> None:
    """Train networks again and note those that come out otherwise; `rows` have a task and the columns of `columns_of`."""
    wanted = {(row["task"], row["index"]): row for row in rows}
    made, failed = train_again(spec, wanted, workers, progress)
    for (task, index), columns in made.items():
        if any(wanted[task, index][column] != value for column, value in columns.items()):
            name = f"{result.folder}: {task} {index}"
            result.problems.append(f"{name} is not what training gives; it was made in another way")
    for task, index, reason in failed:
        result.problems.append(f"{result.folder}: {task} {index} could not be trained again: {reason}")
