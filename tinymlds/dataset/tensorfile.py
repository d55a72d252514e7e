"""Safetensors files: their bytes, and a strict reader that checks every length before it allocates, and maps no memory."""

import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import safetensors.numpy

from tinymlds.dataset.reader import open_inside, parse_json
from tinymlds.dataset.store import Array
from tinymlds.errors import DatasetError
from tinymlds.spec import canonical_json

_HEADER_LIMIT = 1 << 20
_METADATA_KEY = "tinymlds"
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
}


def tensors_bytes(tensors: dict[str, Array], metadata: dict[str, Any]) -> bytes:
    """Return a safetensors file. Its metadata is one key, as the order of several would not be reproducible."""
    arrays = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in tensors.items()}
    return bytes(safetensors.numpy.save(arrays, {_METADATA_KEY: canonical_json(metadata)}))


class _Entry(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile:
    """A safetensors file of a dataset folder, exactly as the format wants; read as a whole, or some rows of each tensor."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        with open_inside(folder, name) as file:
            self._data_start, entries = self._read_header(file)
        metadata = entries.pop("__metadata__", None)
        text = metadata.get(_METADATA_KEY) if isinstance(metadata, dict) and len(metadata) == 1 else None
        if not isinstance(text, str):
            raise self._damaged("its metadata is not that of a tinymlds file")
        self.metadata: dict[str, Any] = parse_json(text, f"{folder / name}, metadata")
        self._entries = {key: self._entry(key, value) for key, value in entries.items()}
        position = 0
        for entry in sorted(self._entries.values(), key=lambda entry: (entry.start, entry.stop)):
            if entry.start != position:
                raise self._damaged("its tensors overlap or leave a gap")
            position = entry.stop
        if self._data_start + position != self._size:
            raise self._damaged(f"{self._size} bytes where {self._data_start + position} were announced")

    def _damaged(self, why: str) -> DatasetError:
        return DatasetError(f"{self._folder / self._name} is damaged: {why}")

    def _read_header(self, file: BinaryIO) -> tuple[int, dict[str, Any]]:
        self._size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if self._size < 8 or not 2 <= length <= min(_HEADER_LIMIT, self._size - 8):
            raise self._damaged(f"a header of {length} bytes in a file of {self._size}")
        entries = parse_json(file.read(length), f"{self._folder / self._name}, header")
        if not isinstance(entries, dict):
            raise self._damaged("its header is not an object")
        return 8 + length, entries

    def _entry(self, key: str, value: Any) -> _Entry:
        try:
            dtype = _DTYPES[value["dtype"]]
            start, stop = value["data_offsets"]
            shape = tuple(value["shape"])
            if len(value) != 3 or len(shape) > 8 or not all(type(n) is int and n >= 0 for n in (*shape, start, stop)):
                raise ValueError("not three fields, or a size that is not a number")
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(f"tensor {key!r} is badly described ({error})") from error
        if max(start, stop) > self._size or math.prod(n for n in shape if n) > self._size:  # also where another n is 0
            raise self._damaged(f"tensor {key!r} is larger than the file")
        if math.prod(shape) * dtype.itemsize != stop - start:
            raise self._damaged(f"tensor {key!r} of shape {shape} does not fill bytes {start} to {stop}")
        return _Entry(dtype, shape, start, stop)

    @property
    def tensors(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """The type and shape of every tensor by name."""
        return {key: (entry.dtype, entry.shape) for key, entry in self._entries.items()}

    def expect(self, wanted: dict[str, tuple[str, tuple[int, ...]]]) -> "TensorFile":
        """Return this file, if it holds exactly these tensors ({name: (dtype such as "F32", shape)})."""
        for key in sorted(set(wanted) ^ set(self._entries)):
            raise self._damaged(f"tensor {key!r} is {'missing' if key in wanted else 'not expected'}")
        for key, (dtype, shape) in wanted.items():
            if self.tensors[key] != (_DTYPES[dtype], shape):
                raise self._damaged(f"tensor {key!r} is {self.tensors[key]}, not {dtype} {shape}")
        return self

    def _open(self) -> BinaryIO:
        """Open the file, if it is as long as when its header was read."""
        file = open_inside(self._folder, self._name)
        if (size := os.fstat(file.fileno()).st_size) != self._size:
            file.close()
            raise DatasetError(
                f"{self._folder / self._name} has {size} bytes now, and had {self._size}: it is damaged, or the dataset "
                f"has grown since it was opened; open it again"
            )
        return file

    def read(self) -> dict[str, Array]:
        """Read all tensors (read-only arrays)."""
        with self._open() as file:
            file.seek(self._data_start)
            data = file.read(self._size - self._data_start)
        if len(data) != self._size - self._data_start:
            raise self._damaged("it became shorter while it was read")
        parts = {key: memoryview(data)[entry.start : entry.stop] for key, entry in self._entries.items()}
        return {key: np.frombuffer(parts[key], entry.dtype).reshape(entry.shape) for key, entry in self._entries.items()}

    def read_row(self, row: int) -> dict[str, Array]:
        """Read tensor[row] of every tensor, without the rest."""
        return {key: rows[0] for key, rows in self.read_rows(row, row + 1)}

    def read_rows(self, start: int, stop: int) -> Iterator[tuple[str, Array]]:
        """Yield (name, tensor[start:stop]) of each tensor, without reading the rest (read-only arrays)."""
        with self._open() as file:
            for key, entry in self._entries.items():
                size = (entry.stop - entry.start) // entry.shape[0]
                file.seek(self._data_start + entry.start + start * size)
                data = file.read((stop - start) * size)
                if len(data) != (stop - start) * size:
                    raise self._damaged("it became shorter while it was read")
                yield key, np.frombuffer(data, entry.dtype).reshape(stop - start, *entry.shape[1:])
