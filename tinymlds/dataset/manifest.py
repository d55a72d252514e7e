"""The rows of a dataset's manifest, kept as columns: a dataset may have millions of networks.

A row takes some 170 bytes as numbers and hashes, and 2,000 as a dictionary, which is built when a row is asked for.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, overload

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

_NUMBER = (float, int, type(None))
ROW_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "index": (int,),
    "status": (str,),
    "reason": (str,),
    "epochs": (int,),
    "train_loss": _NUMBER,
    "validation_loss": _NUMBER,
    "split": (str,),
    "shard": (str,),
    "row": (int,),
    "weights_sha256": (str,),
    "losses_sha256": (str,),
    "checkpoints": (int,),
    "checkpoints_sha256": (str,),
    **dict.fromkeys(COLUMNS, _NUMBER),
}
"""The columns of manifest.jsonl and their types."""

SPLITS = ("train", "validation", "test")
_STATUSES = tuple(status.value for status in Status)
_NUMBERS = ("train_loss", "validation_loss", *COLUMNS)
_HASHES = ("weights_sha256", "losses_sha256", "checkpoints_sha256")
_LARGEST_LOSS = float(np.finfo(np.float32).max)
_KEYS = tuple(sorted(ROW_TYPES))

_COUNT = "(?:0|[1-9][0-9]{0,8})"
_NUMBER_TEXT = r"(?:null|(?:0|[1-9][0-9]{0,39})(?:\.[0-9]{1,40})?(?:e[+-]?[0-9]{1,3})?)"
_VALUES = {
    "task": "[a-z0-9_]{1,64}",
    "status": "|".join(_STATUSES),
    "split": "|".join(SPLITS),
    "shard": "[a-zA-Z0-9_./-]{1,128}",
    "reason": r"[ !#-\[\]-~]{0,1000}",  # ASCII without what JSON escapes
    **dict.fromkeys(_HASHES, "[0-9a-f]{64}"),
}
"""Texts of the columns that are strings."""
_ROW = re.compile(
    "{"
    + ",".join(
        f'"{key}":"(?P<{key}>{_VALUES[key]})"'
        if key in _VALUES
        else f'"{key}":(?P<{key}>{_COUNT if ROW_TYPES[key] == (int,) else _NUMBER_TEXT})'
        for key in _KEYS
    )
    + "}"
)
"""A line of a manifest in canonical JSON: keys in order, no spaces, no sign, no escape; all of bounded length."""


class Manifest(Sequence[Row]):
    """Rows in the order of the manifest: task by task, in index order. A row that is asked for is a new dictionary."""

    def __init__(self, folder: Path, spec: Spec) -> None:
        """Read manifest.jsonl, and check each row for its columns, its place and its values.

        Args:
            folder: the dataset folder.
            spec: what the dataset is to hold.

        Raises:
            DatasetError: rows are missing or too many, or one is not what belongs there.
        """
        self._name, self._spec = str(folder / store.MANIFEST), spec
        self._tasks = list(spec.indices)
        self._numbers = {task: number for number, task in enumerate(self._tasks)}
        self._starts = np.cumsum([0, *map(len, spec.indices.values())], dtype=np.int64)
        self._firsts = np.array([indices.start for indices in spec.indices.values()], np.int64)
        self._step = 1 if spec.part is None else spec.part[1]
        self._reasons: dict[str, int] = {}
        chunks, done = [_Columns().packed()], 0
        for block in reader.read_blocks(folder, store.MANIFEST):  # grows by what the file has: is the count true?
            chunks.append(self._read_canonical(block, done) or self._read_any(block, done))
            done += len(chunks[-1])
        if done < len(self):
            task, index, _, _ = self._places(np.array([done]))
            raise self._damaged(f"it ends before {task[0]} {index[0]}")
        self._columns = _Columns.joined(chunks)
        self._reason_texts = list(self._reasons)

    def _damaged(self, why: str) -> DatasetError:
        return DatasetError(f"{self._name} is damaged: {why}")

    def _read_canonical(self, block: bytes, first: int) -> "_Columns | None":
        """The rows of whole lines of the file, if each has the one spelling of JSON and belongs where it is; else None.

        Many at a time, a tenth of the work of `_read_any`, and never more lenient: `_ROW` spells the columns, their types
        and the form of their values, and what is left of the checks of `_checked` is made for whole columns.
        """
        matches = [_ROW.fullmatch(line) for line in block.decode("latin-1").split("\n")[:-1]]
        found = [match.groups() for match in matches if match]
        if len(found) < len(matches) or first + len(found) > len(self):
            return None
        columns = dict(zip(_ROW.groupindex, zip(*found, strict=True), strict=True))
        places = self._places(np.arange(first, first + len(found)))
        stated = columns["task"], map(int, columns["index"]), columns["shard"], map(int, columns["row"])
        if any(list(texts) != wanted for texts, wanted in zip(stated, places, strict=True)):
            return None
        epochs, checkpoints = ([int(text) for text in columns[key]] for key in ("epochs", "checkpoints"))
        numbers = [[np.nan if text == "null" else float(text) for text in columns[key]] for key in _NUMBERS]
        if max(epochs) > self._spec.recipe.max_epochs or max(checkpoints) > len(self._spec.checkpoints):
            return None
        losses, shares = np.array(numbers[:2]), np.array(numbers[2:])
        complete = [status == Status.COMPLETE for status in columns["status"]]
        if (losses > _LARGEST_LOSS).any() or (shares > 1).any() or np.isnan(losses[:, complete]).any():
            return None
        result = _Columns()
        result.codes = [
            [_STATUSES.index(text) for text in columns["status"]],
            [SPLITS.index(text) for text in columns["split"]],
        ]
        reasons = [self._reasons.setdefault(text, len(self._reasons)) for text in columns["reason"]]
        result.integers, result.numbers = [epochs, checkpoints, reasons], numbers
        result.hashes = [columns[key] for key in _HASHES]
        return result.packed()

    def _read_any(self, block: bytes, first: int) -> "_Columns":
        """The rows of whole lines of the file, one by one."""
        columns = _Columns()
        for k, row in enumerate(reader.parse_lines(block, self._name, first + 1), first):
            if k == len(self):
                raise self._damaged("it has more rows than its tasks have networks")
            columns.add(row, self._checked(row, k))
        return columns.packed()

    def _checked(self, row: Row, k: int) -> int:
        """The number of the row's reason, if the row is the one of this place in the file."""
        (task,), (index,), (shard,), (place,) = self._places(np.array([k]))
        if row.keys() != ROW_TYPES.keys() or any(type(row[key]) not in kinds for key, kinds in ROW_TYPES.items()):
            raise self._damaged(f"the columns of {task} {index} are not those of a manifest")
        where = task, index, shard, place
        if (row["task"], row["index"], row["shard"], row["row"]) != where or row["status"] not in _STATUSES:
            raise self._damaged(f"{task} {index} is not where it should be")
        if row["split"] not in SPLITS or not is_possible(row, self._spec):
            raise self._damaged(f"{task} {index} has values that no network has")
        return self._reasons.setdefault(row["reason"], len(self._reasons))

    def _places(self, numbers: Numbers) -> tuple[list[str], list[int], list[str], list[int]]:
        """Task, index, shard and row in the shard, of rows by their places in the file."""
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
        """Rows by their places in the file."""
        columns: dict[str, Sequence[Any]] = dict(zip(("task", "index", "shard", "row"), self._places(places), strict=True))
        statuses, splits = self._columns.codes[:, places].tolist()
        columns["status"], columns["split"] = [_STATUSES[n] for n in statuses], [SPLITS[n] for n in splits]
        columns["epochs"], columns["checkpoints"], reasons = self._columns.integers[:, places].tolist()
        columns["reason"] = [self._reason_texts[n] for n in reasons]
        for key, numbers in zip(_NUMBERS, self._columns.numbers[:, places].tolist(), strict=True):
            columns[key] = [None if number != number else number for number in numbers]
        for key, hashes in zip(_HASHES, self._columns.hashes[:, places], strict=True):
            columns[key] = [raw.hex() for raw in hashes.view("V32")[:, 0].tolist()]
        return [dict(zip(_KEYS, values, strict=True)) for values in zip(*(columns[key] for key in _KEYS), strict=True)]

    def place(self, task: str) -> slice:
        """Where the rows of a task are."""
        number = self._numbers[task]
        return slice(int(self._starts[number]), int(self._starts[number + 1]))

    def complete(self, where: slice) -> npt.NDArray[np.bool_]:
        """Which of these networks reached the threshold."""
        return np.asarray(self._columns.codes[0, where] == _STATUSES.index(Status.COMPLETE))

    def in_split(self, where: slice, split: str) -> npt.NDArray[np.bool_]:
        """Which of these networks are in the split."""
        return np.asarray(self._columns.codes[1, where] == SPLITS.index(split))

    def checkpoints(self, where: slice) -> npt.NDArray[np.int32]:
        """How many checkpoints the training of these networks reached."""
        return np.asarray(self._columns.integers[1, where])

    def weights_sha256(self, places: Numbers) -> list[bytes]:
        """sha256 of the weights of the networks in these places of the file."""
        hashes = self._columns.hashes[_HASHES.index("weights_sha256"), places]
        return [digest.tobytes() for digest in hashes]

    def statuses(self, where: slice) -> Counter[str]:
        """How many of these networks ended in which way."""
        numbers = np.bincount(self._columns.codes[0, where], minlength=len(_STATUSES)).tolist()
        return Counter({status: number for status, number in zip(_STATUSES, numbers, strict=True) if number})

    def epochs(self, where: slice) -> npt.NDArray[np.int32]:
        """Epochs of these networks."""
        return np.asarray(self._columns.integers[0, where])

    def validation_losses(self, where: slice) -> npt.NDArray[np.float64]:
        """Last validation losses of these networks; NaN where there is none."""
        return np.asarray(self._columns.numbers[_NUMBERS.index("validation_loss"), where])


class _Columns:
    """What rows hold, column by column, first as lists and then packed: codes of status and split; epochs, checkpoints,
    reason; numbers (NaN for None); hashes."""

    codes: Any
    """uint8 [2, n]."""
    integers: Any
    """int32 [3, n]."""
    numbers: Any
    """float64 [7, n]."""
    hashes: Any
    """uint8 [3, n, 32]; in lists, hexadecimal digits."""

    def __init__(self) -> None:
        sizes = (2, 3, len(_NUMBERS), len(_HASHES))
        self.codes, self.integers, self.numbers, self.hashes = ([[] for _ in range(size)] for size in sizes)

    def __len__(self) -> int:
        return len(self.codes[0])

    def add(self, row: Row, reason: int) -> None:
        """A row, as the file has it."""
        new = (
            (self.codes, (_STATUSES.index(row["status"]), SPLITS.index(row["split"]))),
            (self.integers, (row["epochs"], row["checkpoints"], reason)),
            (self.numbers, [np.nan if row[key] is None else row[key] for key in _NUMBERS]),
            (self.hashes, [row[key] for key in _HASHES]),
        )
        for columns, values in new:
            for column, value in zip(columns, values, strict=True):
                column.append(value)

    def packed(self) -> "_Columns":
        """As arrays."""
        packed, count = _Columns(), len(self)
        packed.codes = np.array(self.codes, np.uint8)
        packed.integers = np.array(self.integers, np.int32)
        packed.numbers = np.array(self.numbers, np.float64)
        packed.hashes = np.frombuffer(bytes.fromhex("".join(chain.from_iterable(self.hashes))), np.uint8).reshape(
            len(_HASHES), count, 32
        )
        return packed

    @staticmethod
    def joined(chunks: "list[_Columns]") -> "_Columns":
        """One after another."""
        result = _Columns()
        for name in ("codes", "integers", "numbers", "hashes"):
            setattr(result, name, np.concatenate([getattr(chunk, name) for chunk in chunks], axis=1))
            for chunk in chunks:
                delattr(chunk, name)  # so that no two copies of everything are alive
        return result


def is_possible(row: Row, spec: Spec) -> bool:
    """Whether some network of the spec may have these values: numbers are within bounds, as later code expects.

    Columns of figures may be missing, as long as nobody has measured them.
    """
    losses, shares = [row["train_loss"], row["validation_loss"]], [row.get(column) for column in COLUMNS]
    return (
        0 <= row["epochs"] <= spec.recipe.max_epochs
        and 0 <= row["checkpoints"] <= len(spec.checkpoints)
        and all(loss is None or 0 <= loss <= _LARGEST_LOSS for loss in losses)
        and (row["status"] != Status.COMPLETE or None not in losses)
        and all(share is None or 0 <= share <= 1 for share in shares)
        and all(_is_hash(row[key]) for key in _HASHES)
    )


def _is_hash(text: str) -> bool:
    try:
        return len(text) == 64 and bytes.fromhex(text).hex() == text
    except ValueError:
        return False


def splits(seed: int, indices: range) -> list[str]:
    """train, validation or test (80 / 10 / 10) for each index, from the seed and the index alone.

    The same for all tasks and counts, so that matched networks of two tasks stay together.
    """
    draws = rng.below(rng.first_words(rng.stream_key(seed, ""), rng.SPLIT, indices), 10)
    return [SPLITS[max(0, int(draw) - 7)] for draw in draws]
