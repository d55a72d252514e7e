"""The class that users open: a dataset folder as networks with names."""

import contextlib
import hashlib
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture, params
from tinymlds.architectures.permutations import PermutationSpec, permutation_spec
from tinymlds.dataset import display, packages, reader, store
from tinymlds.dataset.commands import unfinished
from tinymlds.dataset.manifest import SPLITS, Manifest, Row, fill_splits
from tinymlds.dataset.network import Network
from tinymlds.dataset.tensorfile import TensorFile
from tinymlds.errors import DatasetError, UsageError
from tinymlds.spec import Spec, task_names
from tinymlds.tasks import catalog
from tinymlds.training.data import TaskData, task_data

Floats = npt.NDArray[np.float32]
_Places = npt.NDArray[np.int64]
"""Places of networks in the folder, counted within their task; in a whole dataset a place is the index."""


class Dataset:
    """A sealed dataset folder. Nothing in it is executed, no link is followed, no memory is mapped."""

    def __init__(self, folder: str | Path) -> None:
        """Open a folder; reads dataset.json, manifest.jsonl and SHA256SUMS, and checks the first two against the third.

        Raises:
            DatasetError: not a dataset, unfinished, or damaged.
            UsageError: made with another format or numerics version.
        """
        self.folder = Path(folder)
        require_dataset(self.folder)
        self.sums = reader.read_sums(self.folder)
        for name in (store.DESCRIPTION, store.MANIFEST):
            self.check_hash(name)
        self.description = read_description(self.folder)
        if self.description["kind"] == "sequences":
            raise UsageError(f"{self.folder} holds sequences without networks (made by `tinymlds generate`)")
        self.spec = Spec.from_dict(self.description, str(self.folder / store.DESCRIPTION))
        for task, _ in self.spec.tasks:  # by name: to make a table of a stranger's recipe may take minutes
            try:
                known = catalog.task_id(task)
            except UsageError as error:
                raise DatasetError(f"{self.folder} has a task that cannot be made: {error}") from error
            if known != task:
                raise DatasetError(f"{self.folder} has a task {task!r}, which is no id; that would be {known!r}")
        self.architecture = self.spec.recipe.architecture
        self.manifest = Manifest(self.folder, self.spec)
        self.counts = self.spec.counts
        self._files: dict[tuple[str, str, int], TensorFile] = {}

    @property
    def shape(self) -> Architecture:
        """The older name of `architecture`."""
        return self.architecture

    @property
    def tasks(self) -> tuple[str, ...]:
        """Task ids."""
        return tuple(self.counts)

    @property
    def digest(self) -> str:
        """The digest of the dataset: equal digests, equal networks."""
        return store.dataset_digest(self.sums)

    def require_whole(self) -> "Dataset":
        """Return this dataset, unless it is a part of one, which is a UsageError."""
        if self.spec.part is not None:
            raise UsageError(f"{self.folder} is {self.spec.scope} of a dataset; `tinymlds merge` all of its parts first")
        return self

    def __len__(self) -> int:
        return len(self.manifest)

    def __repr__(self) -> str:
        return display.dataset_text(self)

    def _repr_html_(self) -> str:
        return display.dataset_html(self)

    def __iter__(self) -> Iterator[Network]:
        for task in self.tasks:
            yield from self.networks(task)

    def networks(self, task: str, split: str | None = None, *, unfinished: bool = True) -> Iterator[Network]:
        """Yield the networks of a task in index order, whatever their status; a shard of them is in memory at a time.

        Args:
            task: its id, or the original's name.
            split: train, validation or test; None is all.
            unfinished: False leaves out those that did not reach the threshold.
        """
        task = self.task_id(task)
        for _, places in _by_shard(self._picked(task, split, None, unfinished)):
            weights = self._read([(task, places)], None)
            rows = self.manifest.rows(self.manifest.place(task).start + places)
            for row, vector in zip(rows, weights, strict=True):
                yield Network(row, self.architecture, vector.copy())  # one that is kept does not keep the shard

    def __getitem__(self, key: tuple[str, int]) -> Network:
        """ds["xor", 17]: the network of this task and index.

        Raises:
            KeyError: there is none.
            DatasetError: its weights are not those whose hash the manifest has.
        """
        if not (isinstance(key, tuple) and len(key) == 2 and isinstance(key[1], int | np.integer)):
            raise KeyError(f'a network is found by its task and index, as in ds["xor", 17], not by {key!r}')
        task, index = self.task_id(key[0]), int(key[1])
        indices = self.spec.indices[task]
        if index not in indices:
            raise KeyError(f"{self.folder} has {display.indices(indices)} of {task}, not {index}")
        place = indices.index(index)
        row = self.manifest[self.manifest.place(task).start + place]
        tensors = self.tensor_file("networks", task, place // store.SHARD).read_row(row["row"])
        weights = params.from_tensors(self.architecture, tensors, 0)
        self._check_weights(task, np.array([place]), weights[None])
        return Network(row, self.architecture, weights)

    def rows(self, task: str, split: str | None = None, epoch: int | None = None, *, unfinished: bool = False) -> list[Row]:
        """Return rows of the manifest for networks of a task, in index order; the arguments are those of `weights`."""
        task = self.task_id(task)
        return self.manifest.rows(self.manifest.place(task).start + self._picked(task, split, epoch, unfinished))

    def weights(self, task: str, split: str | None = None, epoch: int | None = None, *, unfinished: bool = False) -> Floats:
        """Return the parameter vectors of a task, float32 [n, P], aligned with `rows` of the same arguments.

        Args:
            task: its id, or the original's name.
            split: train, validation or test; None is all.
            epoch: weights as they were at the end of this epoch, one of `spec.checkpoints`; networks whose training ended
                before it are left out. None is the end of training.
            unfinished: also networks that did not reach the threshold.

        Raises:
            UsageError: no such split, or no checkpoints of this epoch.
            DatasetError: weights at the end of training are not those whose hashes the manifest has.
        """
        task = self.task_id(task)
        return self._read([(task, self._picked(task, split, epoch, unfinished))], epoch)

    def labelled(
        self,
        split: str | None = None,
        tasks: Sequence[str] | None = None,
        epoch: int | None = None,
        *,
        unfinished: bool = False,
    ) -> tuple[Floats, npt.NDArray[np.int64]]:
        """Return the parameter vectors float32 [n, P] of several tasks, one after another, and their labels int64 [n].

        A label is the place of the task in `tasks`, which are all of the dataset if they are left out; the other arguments
        are those of `weights`. A UserWarning says that a task has none in the split.
        """
        names = self.task_ids(tasks)
        selection = [(task, self._picked(task, split, epoch, unfinished)) for task in names]
        labels = np.repeat(np.arange(len(names)), [len(places) for _, places in selection])
        if empty := [task for task, places in selection if split is not None and not len(places)]:
            words = f"no network of {task_names(empty)} is in the split {split}; {fill_splits(self.spec.seed)}"
            warnings.warn(words, stacklevel=2)
        return self._read(selection, epoch), labels

    def _picked(self, task: str, split: str | None, epoch: int | None, unfinished: bool) -> _Places:
        """Return the places of the networks that are asked for, ascending, counted within their task."""
        place = self.manifest.place(task)
        picked = np.ones(self.counts[task], bool) if unfinished else self.manifest.complete(place)
        if split is not None:
            if split not in SPLITS:
                raise UsageError(f"split must be one of {', '.join(SPLITS)}, not {split!r}")
            picked = picked & self.manifest.in_split(place, split)
        if epoch is not None:
            picked = picked & (self.manifest.columns["checkpoints"][place] > self._checkpoint(epoch))
        return np.flatnonzero(picked)

    def _checkpoint(self, epoch: int) -> int:
        if not self.spec.checkpoints:
            raise UsageError(f"{self.folder} has no checkpoints, so no weights of epoch {epoch}; see `train --checkpoints`")
        if isinstance(epoch, bool) or epoch not in self.spec.checkpoints:
            there = ", ".join(map(str, self.spec.checkpoints))
            raise UsageError(f"{self.folder} has checkpoints of the epochs {there}, not of {epoch!r}")
        return self.spec.checkpoints.index(epoch)

    def _read(self, selection: list[tuple[str, _Places]], epoch: int | None) -> Floats:
        """Read parameter vectors [n, P] of several tasks, a tensor of a shard at a time; see `weights` for epoch.

        The hashes of those at the end of training are compared in threads while further shards are read.
        """
        kind, checkpoint = ("networks", 0) if epoch is None else ("checkpoints", self._checkpoint(epoch))
        shards = [
            (self.tensor_file(kind, task, shard), task, places, places - shard * store.SHARD)
            for task, picked in selection
            for shard, places in _by_shard(picked)
        ]
        count = sum(len(places) for _, _, places, _ in shards)
        result = np.empty((count, self.architecture.size), np.float32)  # files of that size are there
        where, done, checks = params.places(self.architecture), 0, []
        with ThreadPoolExecutor() as threads:
            for file, task, places, rows in shards:
                first, stop = int(rows[0]), int(rows[-1]) + 1
                inside = slice(None) if stop - first == len(rows) else rows - first
                part = result[done : done + len(rows)]
                for name, tensor in file.read_rows(first, stop):
                    values = tensor if epoch is None else tensor[:, checkpoint]
                    part[:, where[name]] = values.reshape(stop - first, -1)[inside]
                if epoch is None:
                    checks.append(threads.submit(self._check_weights, task, places, part))
                done += len(rows)
        for check in checks:
            check.result()
        return result

    def _check_weights(self, task: str, places: _Places, weights: Floats) -> None:
        """Raise DatasetError unless these are the weights [n, P] whose hashes the manifest has."""
        wanted = self.manifest.columns["weights_sha256"][self.manifest.place(task).start + places].tolist()
        for place, vector, digest in zip(places.tolist(), weights.astype("<f4", copy=False), wanted, strict=True):
            if hashlib.sha256(vector).digest() != digest:
                name, index = store.shard_name("networks", task, place // store.SHARD), self.spec.indices[task][place]
                raise DatasetError(
                    f"{self.folder / name} is damaged: the weights of {task} {index} are not those of {store.MANIFEST}; "
                    f"`tinymlds verify {self.folder}` finds all that is"
                )

    def losses(self, task: str) -> list[tuple[Floats, Floats]]:
        """Return (training losses, validation losses) of every network of a task, in index order; float32 [epochs] each."""
        task = self.task_id(task)
        return [pair for shard in self.shards(task) for pair in self.shard_losses(task, shard)]

    def shard_losses(self, task: str, shard: int) -> list[tuple[Floats, Floats]]:
        """Return the `losses` of the networks in one shard."""
        arrays = self.tensor_file("losses", task, shard).read()
        offsets = arrays["offsets"]
        epochs = self.manifest.columns["epochs"][self._shard_place(task, shard)]
        if not np.array_equal(offsets, np.cumsum([0, *epochs.tolist()])):
            name = self.folder / store.shard_name("losses", task, shard)
            raise DatasetError(f"{name} is damaged: its offsets do not divide its losses as {store.MANIFEST} says")
        pieces = [np.split(arrays[kind], offsets[1:-1]) for kind in ("train", "validation")]
        return list(zip(*pieces, strict=True))

    def to_pandas(self) -> Any:
        """Return the manifest as a pandas.DataFrame: a row for each network, in the order of the tasks and indices.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise UsageError("to_pandas needs pandas: pip install pandas") from error
        return pandas.DataFrame(self.manifest[:])

    def permutation_spec(self) -> PermutationSpec:
        """Return which axes of which tensors are permuted together, in the vocabulary of Git Re-Basin."""
        return permutation_spec(self.architecture)

    def checkpoints(self, task: str) -> Floats:
        """Return the stored weights of all networks of a task in index order, float32 [n, c, P].

        Axis 1 goes with `spec.checkpoints`; where training ended before that epoch there is NaN.
        """
        task = self.task_id(task)
        nothing = np.empty((0, len(self.spec.checkpoints), self.architecture.size), np.float32)
        return np.concatenate([nothing, *(self.shard_checkpoints(task, shard) for shard in self.shards(task))])

    def shard_checkpoints(self, task: str, shard: int) -> Floats:
        """Return the `checkpoints` of the networks in one shard."""
        if not self.spec.checkpoints:
            return np.empty((len(self.shard_rows(task, shard)), 0, self.architecture.size), np.float32)
        return params.from_tensors(self.architecture, self.tensor_file("checkpoints", task, shard).read(), 2)

    def check_hash(self, name: str) -> None:
        """Raise DatasetError unless a file of the folder matches SHA256SUMS."""
        if reader.file_sha256(self.folder, name) != self.sums.get(name):
            raise DatasetError(f"{self.folder / name} does not match {store.SUMS}; it was changed or damaged")

    def data(self, task: str) -> TaskData:
        """Return the table and the sequences of a task, made again from the spec (`verify` compares them with the file).

        Where each network draws its own training sequences (`spec.recipe.sequences`), see `training.own_sequences`.
        """
        return task_data(self.spec.setting(self.task_id(task)))

    def task_id(self, name: str) -> str:
        """Return the id of a task of this dataset, given its id or the original's name.

        Raises:
            KeyError: there is none.
        """
        with contextlib.suppress(UsageError):
            if (task := catalog.task_id(name)) in self.counts:
                return task
        raise KeyError(f"{self.folder} has no task {name!r}; it has {task_names(list(self.counts))}")

    def task_ids(self, names: Sequence[str] | None) -> tuple[str, ...]:
        """Return the ids of several tasks of this dataset; None is all.

        Raises:
            UsageError: one text where there should be several, none, or a task twice.
            KeyError: there is no such task.
        """
        if names is None:
            return self.tasks
        if isinstance(names, str):
            raise UsageError(f"tasks must be a list like [{names!r}], not one text")
        found = tuple(self.task_id(name) for name in names)
        if not found or len(set(found)) < len(found):
            raise UsageError(f"tasks must name at least one task, and none twice, not {list(names)}")
        return found

    def tensor_file(self, kind: str, task: str, shard: int) -> TensorFile:
        """Open a shard of "networks", "losses" or "checkpoints", checked for the tensors that it must hold."""
        key = (kind, task, shard)
        if key not in self._files:
            count = min(store.SHARD, self.counts[task] - shard * store.SHARD)
            file = TensorFile(self.folder, store.shard_name(*key))
            if kind != "losses":
                leading = (count,) if kind == "networks" else (count, len(self.spec.checkpoints))
                file.expect({name: ("F32", (*leading, *shape)) for name, shape, *_ in self.architecture.tensors()})
            else:
                epochs = int(self.manifest.columns["epochs"][self._shard_place(task, shard)].sum(dtype=np.int64))
                flat = ("F32", (epochs,))
                file.expect({"offsets": ("I64", (count + 1,)), "train": flat, "validation": flat})
            self._files[key] = file
        return self._files[key]

    def shards(self, task: str) -> range:
        """Return the numbers of the shards of a task."""
        return range(-(-self.counts[task] // store.SHARD))

    def shard_of(self, task: str, index: int) -> int:
        """Return the number of the shard that holds a network."""
        return self.spec.indices[task].index(index) // store.SHARD

    def shard_rows(self, task: str, shard: int) -> list[Row]:
        """Return the manifest rows of the networks in a shard."""
        return self.manifest[self._shard_place(task, shard)]

    def _shard_place(self, task: str, shard: int) -> slice:
        place = self.manifest.place(task)
        start = place.start + shard * store.SHARD
        return slice(start, min(start + store.SHARD, place.stop))


def require_dataset(folder: Path) -> None:
    """Raise DatasetError unless the folder is a sealed dataset."""
    inside = (store.SUMS, store.JOURNAL, f"full/{store.SUMS}")
    with reader.reading(folder):
        is_folder, sealed, started, packaged = folder.is_dir(), *((folder / name).exists() for name in inside)
    if not is_folder:
        raise DatasetError(f"{folder} is not a folder; look at the path, or let `tinymlds train --out {folder}` make one")
    if not sealed:
        if started:
            raise DatasetError(unfinished(folder))
        where = f"; open {folder / 'full'}, the whole of a packaged dataset" if packaged else ""
        raise DatasetError(f"{folder} is not a tinymlds dataset: it has no {store.SUMS}{where}")


def read_description(folder: Path) -> dict[str, Any]:
    """Read dataset.json of a folder; its "kind" is "networks" or "sequences"."""
    name = folder / store.DESCRIPTION
    description = reader.parse_json(reader.read_bytes(folder, store.DESCRIPTION), str(name))
    if not isinstance(description, dict) or description.get("kind") not in ("networks", "sequences"):
        raise DatasetError(f"{name} does not describe a tinymlds dataset")
    return description


def open_dataset(path: str | Path, name: str | None = None, subset: int | None = None) -> Dataset:
    """Open a dataset folder, or a dataset of a package; `tinymlds.open`.

    Args:
        path: a dataset folder, or a package.
        name: the dataset of the package; may be left out where there is only one.
        subset: networks of each task, for one of the dataset's subsets.

    Raises:
        DatasetError: not a dataset, unfinished, or damaged.
        UsageError: made with another version, or the package has not what is asked for.
    """
    return Dataset(packages.locate(path, name, subset))


def _by_shard(places: _Places) -> Iterator[tuple[int, _Places]]:
    """Yield ascending places of networks shard by shard: (number of the shard, places in it)."""
    shards = places // store.SHARD
    for shard in np.unique(shards).tolist():
        yield shard, places[shards == shard]
