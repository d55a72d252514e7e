"""The rows of a dataset's manifest, kept as columns: a dataset may have millions of networks.

A row takes some 170 bytes as numbers and hashes, and 2,000 as a dictionary, which is built when a row is asked for.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, overload

import msgspec
import numpy as np
import numpy.typing as npt

from tinymlds.dataset import reader, store
from tinymlds.errors import DatasetError
from tinymlds.kernels import rng
from tinymlds.spec import Spec
from tinymlds.training.loop import Status
from tinymlds.training.metrics import COLUMNS

Row = dict[str, Any]
Numbers = npt.NDArray[np.int64]

_NUMBER = float | None
ROW_TYPES: dict[str, Any] = {
    "task": str,
    "index": int,
    "status": str,
    "reason": str,
    "epochs": int,
    "train_loss": _NUMBER,
    "validation_loss": _NUMBER,
    "split": str,
    "shard": str,
    "row": int,
    "weights_sha256": str,
    "losses_sha256": str,
    "checkpoints": int,
    "checkpoints_sha256": str,
    **dict.fromkeys(COLUMNS, _NUMBER),
}
"""The columns of manifest.jsonl and their types."""

SPLITS = ("train", "validation", "test")
_STATUSES = tuple(status.value for status in Status)
_PLACE = ("task", "index", "shard", "row")
_HASHES = ("weights_sha256", "losses_sha256", "checkpoints_sha256")
_PACKED = {
    **dict.fromkeys(("status", "split"), "u1"),
    **dict.fromkeys(("reason", "epochs", "checkpoints"), "i4"),
    **dict.fromkeys(("train_loss", "validation_loss", *COLUMNS), "f8"),
    **dict.fromkeys(_HASHES, "V32"),
}
"""The columns that do not follow from the place of a row, and how they are kept."""
_LARGEST_LOSS = float(np.finfo(np.float32).max)
_KEYS = tuple(sorted(ROW_TYPES))

_Line = msgspec.defstruct("_Line", [(key, ROW_TYPES[key]) for key in _KEYS], forbid_unknown_fields=True)
_DECODER = msgspec.json.Decoder(_Line)
_QUOTES = 2 * (len(_KEYS) + sum(kind is str for kind in ROW_TYPES.values()))
"""Quotation marks in a line. A line in which a key occurs twice has more."""


class Manifest(Sequence[Row]):
    """Rows in the order of the manifest: task by task, in index order. A row that is asked for is a new dictionary."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        """Read manifest.jsonl of a folder, and check each row for its columns, its place and its values.

        Raises:
            DatasetError: rows are missing or too many, or one is not what belongs there.
        """
        self._name, self._spec = str(folder / store.MANIFEST), spec
        self._tasks = list(spec.indices)
        self._numbers = {task: number for number, task in enumerate(self._tasks)}
        self._starts = np.cumsum([0, *map(len, spec.indices.values())], dtype=np.int64)
        self._firsts = np.array([indices.start for indices in spec.indices.values()], np.int64)
        self._step = 1 if spec.part is None else spec.part[1]
        texts: dict[str, tuple[str, ...]] = {"status": _STATUSES, "split": SPLITS, "reason": ()}
        self._codes = {key: {text: code for code, text in enumerate(values)} for key, values in texts.items()}
        parts = {key: [array] for key, array in self._packed(dict.fromkeys(_KEYS, ())).items()}
        done = 0
        for block in reader.read_blocks(folder, store.MANIFEST):  # grows by what the file has: is the count true?
            for key, array in self._read(block, done).items():
                parts[key].append(array)
            done += block.count(b"\n")
        if done < len(self):
            task, index, _, _ = self._places(np.array([done]))
            raise self._damaged(f"it ends before {task[0]} {index[0]}")
        self._texts = {key: list(codes) for key, codes in self._codes.items()}
        self.columns = {key: np.concatenate(parts.pop(key)) for key in _PACKED}
        """Numbers, NaN for None; raw hashes; codes of status, split and reason. No two copies of everything are alive."""

    def _damaged(self, why: str) -> DatasetError:
        return DatasetError(f"{self._name} is damaged: {why}")

    def _read(self, block: bytes, first: int) -> dict[str, store.Array]:
        """Check and pack the rows of whole lines of the file, column by column; `first` is the place of the first row."""
        lines = block.split(b"\n")[:-1]
        try:
            if max(map(len, lines)) >= reader.ROW_LIMIT or any(line.count(b'"') != _QUOTES for line in lines):
                raise ValueError("a long line, a key that occurs twice, or an escaped quotation mark")
            rows = zip(*map(msgspec.structs.astuple, map(_DECODER.decode, lines)), strict=True)
            columns: dict[str, tuple[Any, ...]] = dict(zip(_KEYS, rows, strict=True))
            if first + len(lines) > len(self) or not self._are_possible(columns, first):
                raise ValueError("rows that do not belong there")
        except (ValueError, RecursionError):  # rare, so that there is time to look for the line and the reason
            found = reader.parse_lines(block, self._name, first + 1)
            checked = [self._checked(row, k) for k, row in enumerate(found, first)]
            columns = {key: tuple(row[key] for row in checked) for key in _KEYS}
        return self._packed(columns)

    def _are_possible(self, columns: dict[str, tuple[Any, ...]], first: int) -> bool:
        """Return whether rows belong where they are and have values that networks may have; `_checked` checks one row."""
        places = zip(_PLACE, self._places(np.arange(first, first + len(columns["task"]))), strict=True)
        return all(list(columns[key]) == wanted for key, wanted in places) and is_possible(columns, self._spec)

    def _checked(self, row: Row, k: int) -> Row:
        if k == len(self):
            raise self._damaged("it has more rows than its tasks have networks")
        place = [value for (value,) in self._places(np.array([k]))]
        name = f"{place[0]} {place[1]}"
        try:
            line = msgspec.structs.asdict(msgspec.convert(row, _Line))
        except (ValueError, OverflowError) as error:
            raise self._damaged(f"the columns of {name} are not those of a manifest") from error
        if [line[key] for key in _PLACE] != place:
            raise self._damaged(f"{name} is not where it should be")
        if not is_possible({key: (value,) for key, value in line.items()}, self._spec):
            raise self._damaged(f"{name} has values that no network has")
        return line

    def _packed(self, columns: dict[str, tuple[Any, ...]]) -> dict[str, store.Array]:
        packed = {}
        for key, kind in _PACKED.items():
            values: Any = columns[key]
            if (codes := self._codes.get(key)) is not None:
                values = [codes.setdefault(text, len(codes)) for text in values]
            packed[key] = np.frombuffer(bytes.fromhex("".join(values)), kind) if key in _HASHES else np.array(values, kind)
        return packed

    def _places(self, numbers: Numbers) -> tuple[list[str], list[int], list[str], list[int]]:
        """Return task, index, shard and row in the shard, of rows by their places in the file."""
        tasks = np.searchsorted(self._starts, numbers, "right") - 1
        own = numbers - self._starts[tasks]
        indices = self._firsts[tasks] + self._step * own
        shards, rows = np.divmod(own, store.SHARD)
        names = [self._tasks[number] for number in tasks.tolist()]
        files = list(zip(names, shards.tolist(), strict=True))
        known = {file: store.shard_name("networks", *file) for file in set(files)}
        return names, indices.tolist(), [known[file] for file in files], rows.tolist()

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, key: int) -> Row: ...

    @overload
    def __getitem__(self, key: slice) -> list[Row]: ...

    def __getitem__(self, key: int | slice) -> Row | list[Row]:
        """A row by its place in the file, or the rows of a slice."""
        places = range(len(self))[key]
        if isinstance(places, range):
            return self.rows(np.arange(places.start, places.stop, places.step))
        return self.rows(np.array([places]))[0]

    def __iter__(self) -> Iterator[Row]:
        for start in range(0, len(self), store.SHARD):
            yield from self[start : start + store.SHARD]

    def rows(self, places: Numbers) -> list[Row]:
        """Return rows by their places in the file."""
        columns: dict[str, Sequence[Any]] = dict(zip(_PLACE, self._places(places), strict=True))
        for key, array in self.columns.items():
            values = array[places].tolist()
            if key in self._texts:
                columns[key] = [self._texts[key][code] for code in values]
            elif key in _HASHES:
                columns[key] = [raw.hex() for raw in values]
            else:
                columns[key] = [None if number != number else number for number in values]
        return [dict(zip(_KEYS, values, strict=True)) for values in zip(*(columns[key] for key in _KEYS), strict=True)]

    def place(self, task: str) -> slice:
        """Return the places of the rows of a task."""
        number = self._numbers[task]
        return slice(int(self._starts[number]), int(self._starts[number + 1]))

    def complete(self, where: slice) -> npt.NDArray[np.bool_]:
        """Return a mask of these networks: those that reached the threshold."""
        return np.asarray(self.columns["status"][where] == _STATUSES.index(Status.COMPLETE))

    def in_split(self, where: slice, split: str) -> npt.NDArray[np.bool_]:
        """Return a mask of these networks: those in the split."""
        return np.asarray(self.columns["split"][where] == SPLITS.index(split))

    def statuses(self, where: slice) -> Counter[str]:
        """Count these networks by status."""
        numbers = np.bincount(self.columns["status"][where], minlength=len(_STATUSES)).tolist()
        return Counter({status: number for status, number in zip(_STATUSES, numbers, strict=True) if number})


def is_possible(columns: Mapping[str, tuple[Any, ...]], spec: Spec) -> bool:
    """Return whether networks of the spec may have these values: numbers are within the bounds that later code expects.

    Columns of figures and splits may be missing, as long as they are not known.
    """
    losses = columns["train_loss"], columns["validation_loss"]
    shares = [columns[key] for key in COLUMNS if key in columns]
    return (
        set(columns["status"]) <= set(_STATUSES)
        and set(columns.get("split", ())) <= set(SPLITS)
        and 0 <= min(columns["epochs"]) <= max(columns["epochs"]) <= spec.recipe.max_epochs
        and 0 <= min(columns["checkpoints"]) <= max(columns["checkpoints"]) <= len(spec.checkpoints)
        and all(loss is None or 0 <= loss <= _LARGEST_LOSS for loss in chain(*losses))
        and all(share is None or 0 <= share <= 1 for share in chain(*shares))
        and not any(row[0] == Status.COMPLETE and None in row for row in zip(columns["status"], *losses, strict=True))
        and all(set(map(len, columns[key])) == {64} and _is_hash("".join(columns[key])) for key in _HASHES)
    )


def _is_hash(text: str) -> bool:
    try:
        return bytes.fromhex(text).hex() == text
    except ValueError:
        return False


def splits(seed: int, indices: range) -> list[str]:
    """Return train, validation or test (80 / 10 / 10) for each index, from the seed and the index alone.

    The same for all tasks and counts, so that matched networks of two tasks stay together.
    """
    draws = rng.below(rng.first_words(rng.stream_key(seed, ""), rng.SPLIT, indices), 10)
    return [SPLITS[max(0, int(draw) - 7)] for draw in draws]


def fill_splits(seed: int) -> str:
    """Say how many networks of a task it takes until every split has one."""
    drawn = splits(seed, range(1_000))
    return f"the first {1 + max(map(drawn.index, SPLITS))} networks of each task fill all three (seed {seed})"


def empty_splits(spec: Spec) -> list[str]:
    """Return the splits that no network of the spec is in, whatever becomes of it; large datasets have none."""
    found = {split for indices in spec.indices.values() for split in splits(spec.seed, indices[:1_000])}
    return [split for split in SPLITS if split not in found]
