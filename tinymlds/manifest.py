"""The rows of a dataset's manifest, kept as columns: a dataset may have millions of networks.

A row takes some 170 bytes as numbers and hashes, and 2,000 as a dictionary, which is built when a row is asked for.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from tinymlds import store
from tinymlds.errors import DatasetError
from tinymlds.measures import COLUMNS
from tinymlds.spec import Spec
from tinymlds.training import Status

Row = dict[str, Any]

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
_CHUNK = 1 << 16


class Manifest(Sequence[Row]):
    """Rows in the order of the manifest: task by task, in index order. A row that is asked for is a new dictionary."""

    def __init__(self, name: str, spec: Spec, rows: Iterator[Row]) -> None:
        """Take the rows, and check each for its columns, its place and its values.

        Args:
            name: of the file, for errors.
            spec: what the dataset is to hold.
            rows: the objects of the file.

        Raises:
            DatasetError: rows are missing or too many, or one is not what belongs there.
        """
        self._name, self._spec, self._tasks, self._starts = name, spec, [], [0]
        self._reasons: dict[str, int] = {}
        chunks: list[_Columns] = []
        chunk = _Columns()
        for task, count in spec.tasks:
            self._tasks.append(task)
            self._starts.append(self._starts[-1] + count)
            for index in range(count):  # grows by what the file has: who knows whether the count is true
                row = next(rows, None)
                if row is None:
                    raise DatasetError(f"{name} is damaged: it ends before {task} {index}")
                chunk.add(row, self._checked(row, task, index))
                if len(chunk) == _CHUNK:
                    chunks.append(chunk.packed())
                    chunk = _Columns()
        if next(rows, None) is not None:
            raise DatasetError(f"{name} is damaged: it has more rows than its tasks have networks")
        self._columns = _Columns.joined([*chunks, chunk.packed()])
        self._reason_texts = list(self._reasons)

    def _checked(self, row: Row, task: str, index: int) -> int:
        """The number of the row's reason, if the row is one of this place."""

        def damaged(why: str) -> DatasetError:
            return DatasetError(f"{self._name} is damaged: {why}")

        if row.keys() != ROW_TYPES.keys() or any(type(row[key]) not in kinds for key, kinds in ROW_TYPES.items()):
            raise damaged(f"the columns of {task} {index} are not those of a manifest")
        shard, place = divmod(index, store.SHARD)
        where = task, index, store.shard_name("networks", task, shard), place
        if (row["task"], row["index"], row["shard"], row["row"]) != where or row["status"] not in _STATUSES:
            raise damaged(f"{task} {index} is not where it should be")
        if not self._possible(row):
            raise damaged(f"{task} {index} has values that no network has")
        return self._reasons.setdefault(row["reason"], len(self._reasons))

    def _possible(self, row: Row) -> bool:
        """Whether some network may have these values: numbers are within bounds, as later code expects."""
        losses, shares = [row["train_loss"], row["validation_loss"]], [row[column] for column in COLUMNS]
        return (
            0 <= row["epochs"] <= self._spec.recipe.max_epochs
            and 0 <= row["checkpoints"] <= len(self._spec.checkpoints)
            and row["split"] in SPLITS
            and all(loss is None or 0 <= loss <= _LARGEST_LOSS for loss in losses)
            and (row["status"] != Status.COMPLETE or None not in losses)
            and all(share is None or 0 <= share <= 1 for share in shares)
            and all(_is_hash(row[key]) for key in _HASHES)
        )

    def __len__(self) -> int:
        return self._starts[-1]

    @overload
    def __getitem__(self, key: int) -> Row: ...

    @overload
    def __getitem__(self, key: slice) -> list[Row]: ...

    def __getitem__(self, key: int | slice) -> Row | list[Row]:
        """A row by its place in the file, or the rows of a slice."""
        if isinstance(key, slice):
            return [self._row(k) for k in range(*key.indices(len(self)))]
        return self._row(range(len(self))[key])

    def _row(self, k: int) -> Row:
        number = bisect_right(self._starts, k) - 1
        task, index, columns = self._tasks[number], k - self._starts[number], self._columns
        shard, place = divmod(index, store.SHARD)
        row: Row = {
            "task": task,
            "index": index,
            "status": _STATUSES[columns.codes[k, 0]],
            "split": SPLITS[columns.codes[k, 1]],
            "reason": self._reason_texts[columns.integers[k, 2]],
            "shard": store.shard_name("networks", task, shard),
            "row": place,
            "epochs": int(columns.integers[k, 0]),
            "checkpoints": int(columns.integers[k, 1]),
        }
        row |= {
            key: None if value != value else value for key, value in zip(_NUMBERS, columns.numbers[k].tolist(), strict=True)
        }
        row |= {key: columns.hashes[k, n].tobytes().hex() for n, key in enumerate(_HASHES)}
        return {key: row[key] for key in sorted(row)}

    def place(self, task: str) -> slice:
        """Where the rows of a task are."""
        number = self._tasks.index(task)
        return slice(self._starts[number], self._starts[number + 1])

    def complete(self, where: slice) -> npt.NDArray[np.bool_]:
        """Which of these networks reached the threshold."""
        return np.asarray(self._columns.codes[where, 0] == _STATUSES.index(Status.COMPLETE))

    def in_split(self, where: slice, split: str) -> npt.NDArray[np.bool_]:
        """Which of these networks are in the split."""
        return np.asarray(self._columns.codes[where, 1] == SPLITS.index(split))

    def checkpoints(self, where: slice) -> npt.NDArray[np.int32]:
        """How many checkpoints the training of these networks reached."""
        return np.asarray(self._columns.integers[where, 1])

    def statuses(self, where: slice) -> Counter[str]:
        """How many of these networks ended in which way."""
        numbers = np.bincount(self._columns.codes[where, 0], minlength=len(_STATUSES)).tolist()
        return Counter({status: number for status, number in zip(_STATUSES, numbers, strict=True) if number})

    def epochs(self, where: slice) -> npt.NDArray[np.int32]:
        """Epochs of these networks."""
        return np.asarray(self._columns.integers[where, 0])

    def validation_losses(self, where: slice) -> npt.NDArray[np.float64]:
        """Last validation losses of these networks; NaN where there is none."""
        return np.asarray(self._columns.numbers[where, _NUMBERS.index("validation_loss")])


class _Columns:
    """What rows hold, first as lists and then packed: codes of status and split; epochs, checkpoints, reason; numbers
    (NaN for None); hashes."""

    codes: Any
    """uint8 [n, 2]."""
    integers: Any
    """int32 [n, 3]."""
    numbers: Any
    """float64 [n, 7]."""
    hashes: Any
    """uint8 [n, 3, 32]."""

    def __init__(self) -> None:
        self.codes, self.integers, self.numbers, self.hashes = [], [], [], []

    def __len__(self) -> int:
        return len(self.codes)

    def add(self, row: Row, reason: int) -> None:
        """A row, as the file has it."""
        self.codes.append((_STATUSES.index(row["status"]), SPLITS.index(row["split"])))
        self.integers.append((row["epochs"], row["checkpoints"], reason))
        self.numbers.append([np.nan if row[key] is None else row[key] for key in _NUMBERS])
        self.hashes.append(bytes.fromhex("".join(row[key] for key in _HASHES)))

    def packed(self) -> "_Columns":
        """As arrays."""
        packed = _Columns()
        packed.codes = np.array(self.codes, np.uint8).reshape(-1, 2)
        packed.integers = np.array(self.integers, np.int32).reshape(-1, 3)
        packed.numbers = np.array(self.numbers, np.float64).reshape(-1, len(_NUMBERS))
        packed.hashes = np.frombuffer(b"".join(self.hashes), np.uint8).reshape(-1, len(_HASHES), 32)
        return packed

    @staticmethod
    def joined(chunks: "list[_Columns]") -> "_Columns":
        """One after another."""
        result = _Columns()
        for name in ("codes", "integers", "numbers", "hashes"):
            setattr(result, name, np.concatenate([getattr(chunk, name) for chunk in chunks]))
            for chunk in chunks:
                delattr(chunk, name)  # so that no two copies of everything are alive
        return result


def _is_hash(text: str) -> bool:
    try:
        return len(text) == 64 and bytes.fromhex(text).hex() == text
    except ValueError:
        return False
