"""Files of a dataset folder: the one commit function, safetensors out, and a strict reader in.

What is written goes through `commit`, which survives a crash and a power cut. What is read may come from a stranger: the
reader takes regular files inside the folder only, checks every length before it allocates, and never maps memory. JSON
takes up to thirty times its length in memory, so what is read as one piece is short.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from tinymlds.errors import DatasetError, TinymldsError
from tinymlds.spec import canonical_json

SHARD = 1000
"""Networks in a shard."""

SUMS = "SHA256SUMS"
DESCRIPTION = "dataset.json"
MANIFEST = "manifest.jsonl"
PROVENANCE = "provenance.jsonl"
JOURNAL = "journal.sqlite"
LOCK = "run.lock"

_UNFINISHED = ".part"
_HEADER_LIMIT = 1 << 20
_DESCRIPTION_LIMIT = 1 << 23
_ROW_LIMIT = 1 << 16
_BLOCK = 1 << 20
_SUMS_LIMIT = 1 << 25
_NAME_LIMIT = 1 << 12
_METADATA_KEY = "tinymlds"
_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "U8": np.dtype("u1"),
    "U16": np.dtype("<u2"),
    "I64": np.dtype("<i8"),
}

_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""What was a file a moment ago may be a link or a pipe now: follow no link, and wait for no writer."""

Array = npt.NDArray[Any]


Piece = TypeVar("Piece", range, list[int])


def by_shard(indices: Piece) -> Iterator[Piece]:
    """Indices in pieces of as many as a shard has; the last may have fewer."""
    for start in range(0, len(indices), SHARD):
        yield indices[start : start + SHARD]


# ------------------------------------------------------------------ writing


def commit(path: Path, data: bytes | Iterable[bytes]) -> str:
    """Put `data` at `path`, whole or not at all, durably: write, fsync, rename, fsync the folder. Returns its sha256.

    Data that comes in pieces is written as it comes.

    Raises:
        TinymldsError: the file system refused; what was at `path` before is still there.
    """
    unfinished, digest = path.with_name(path.name + _UNFINISHED), hashlib.sha256()
    try:
        make_folder(path.parent)
        with unfinished.open("wb") as file:
            for piece in (data,) if isinstance(data, bytes) else data:
                file.write(piece)
                digest.update(piece)
            file.flush()
            _sync(file.fileno())
        unfinished.replace(path)
        _sync_folder(path.parent)
    except BaseException as error:  # also what the source of the pieces raises
        with contextlib.suppress(OSError):
            unfinished.unlink()
        if isinstance(error, OSError):
            raise _cannot("write", path, error) from error
        raise
    return digest.hexdigest()


def commit_inside(folder: Path, name: str, data: bytes | Iterable[bytes]) -> str:
    """`commit` for a file of a folder, given its path with "/" inside it."""
    return commit(folder.joinpath(*name.split("/")), data)


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, durably.

    Raises:
        TinymldsError: the file system refused.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    try:
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)
    except OSError as error:
        raise _cannot("create", folder, error) from error


def remove(path: Path) -> None:
    """Remove a file, durably; it may be gone already."""
    try:
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except OSError as error:
        raise _cannot("remove", path, error) from error


def rename_folder(folder: Path, target: Path) -> None:
    """Give a finished folder its name, durably.

    Raises:
        TinymldsError: the file system refused, or something has that name by now.
    """
    try:
        _sync_folder(folder)
        folder.rename(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise _cannot("create", target, error) from error


def remove_unfinished(folder: Path) -> None:
    """Remove what an interrupted `commit` left in a dataset folder.

    Raises:
        TinymldsError: the file system refused.
    """
    for place in (folder, *(folder / kind for kind in ("data", "networks", "losses", "checkpoints"))):
        try:
            found = list(place.glob(f"*{_UNFINISHED}")) if place.is_dir() and not place.is_symlink() else []
        except OSError as error:
            raise _cannot("read", place, error) from error
        for path in found:
            remove(path)


def _sync(descriptor: int) -> None:
    """fsync; on macOS that leaves data in the drive's cache, and F_FULLFSYNC does not."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows has no fsync for folders; NTFS journals the rename
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def _cannot(verb: str, path: Path, error: OSError) -> TinymldsError:
    return TinymldsError(
        f"cannot {verb} {path}: {error.strerror or error}; finished networks are safe, run again once mended"
    )


def tensors_bytes(tensors: dict[str, Array], metadata: dict[str, Any]) -> bytes:
    """A safetensors file. Its metadata is one key, with canonical JSON: with two the bytes would not be reproducible."""
    arrays = {name: np.ascontiguousarray(array, array.dtype.newbyteorder("<")) for name, array in tensors.items()}
    return bytes(safetensors.numpy.save(arrays, {_METADATA_KEY: canonical_json(metadata)}))


# ------------------------------------------------------------------ reading


def is_name(part: str) -> bool:
    """Whether this may be the name of a file or folder of a dataset: it leads nowhere else, and is not hidden."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", part) is not None


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a regular file of a dataset folder, given its path with "/" inside it; links are not followed.

    Raises:
        DatasetError: no such file, or not a regular file inside the folder.
    """
    path = _inside(folder, name, stat.S_ISREG)
    try:
        file = os.fdopen(os.open(path, _READ), "rb")
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DatasetError(f"{path} is not a regular file any more")
    return file


def folder_inside(folder: Path, name: str) -> Path:
    """The path of a folder inside another, given with "/"; links are not followed.

    Raises:
        DatasetError: no such folder.
    """
    return _inside(folder, name, stat.S_ISDIR)


def _inside(folder: Path, name: str, is_right: Callable[[int], bool]) -> Path:
    """The path of `name` in the folder, if its last part is of the right kind and all before are folders."""
    parts = name.split("/")
    if not all(map(is_name, parts)):
        raise DatasetError(f"{name!r} is not a name of a file in a dataset")
    path = folder
    try:
        for number, part in enumerate(parts, 1):
            path = path / part
            mode = path.lstat().st_mode
            if not (is_right(mode) if number == len(parts) else stat.S_ISDIR(mode)):
                raise DatasetError(f"{path} is not a regular file or folder; a dataset holds no links or devices")
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error
    return path


def read_bytes(folder: Path, name: str, limit: int = _DESCRIPTION_LIMIT) -> bytes:
    """All bytes of a short file of a dataset folder.

    Raises:
        DatasetError: it cannot be read, or is longer than `limit`.
    """
    with open_inside(folder, name) as file:
        data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(data) > limit:
        raise DatasetError(f"{folder / name} is damaged: it has more than {limit} bytes")
    return data


def file_sha256(folder: Path, name: str) -> str:
    """sha256 of a file of a dataset folder, read piece by piece."""
    with open_inside(folder, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def parse_json(text: str | bytes, origin: str) -> Any:
    """JSON without duplicate keys, NaN or infinities.

    Raises:
        DatasetError: it is not that; `origin` names the place.
    """
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{origin} is damaged: {error}") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key occurs twice")
    return result


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits} is no float")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_no_duplicates, parse_constant=_no_constant, parse_float=_finite)


def read_lines(folder: Path, name: str) -> Iterator[dict[str, Any]]:
    """The objects of a JSON Lines file, one after another."""
    first = 1
    for block in read_blocks(folder, name):
        yield from parse_lines(block, str(folder / name), first)
        first += block.count(b"\n")


def parse_lines(block: bytes, origin: str, first: int) -> Iterator[dict[str, Any]]:
    """The objects of whole lines of a JSON Lines file; `first` is the number of the first line."""
    for number, line in enumerate(block.split(b"\n")[:-1], first):
        if len(line) >= _ROW_LIMIT:
            raise DatasetError(f"{origin} line {number} is damaged: it has more than {_ROW_LIMIT} bytes")
        row = parse_json(line, f"{origin} line {number}")
        if not isinstance(row, dict):
            raise DatasetError(f"{origin} line {number} is damaged: not an object")
        yield row


def read_blocks(folder: Path, name: str) -> Iterator[bytes]:
    """A JSON Lines file in blocks of whole lines, about a megabyte each.

    Raises:
        DatasetError: its last line does not end, or a line is longer than a block can be.
    """
    with open_inside(folder, name) as file:
        rest = b""
        while data := file.read(_BLOCK):
            lines, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                yield lines + newline
            if len(rest) >= _ROW_LIMIT:
                raise DatasetError(f"{folder / name} is damaged: a line has more than {_ROW_LIMIT} bytes")
        if rest:
            raise DatasetError(f"{folder / name} is damaged: its last line does not end")


def read_sums(folder: Path) -> dict[str, str]:
    """SHA256SUMS as {name: sha256}.

    Raises:
        DatasetError: missing or damaged.
    """
    sums: dict[str, str] = {}
    size = 0
    with open_inside(folder, SUMS) as file:
        while data := file.readline(_NAME_LIMIT + 1):
            if len(data) > _NAME_LIMIT:
                raise DatasetError(f"{folder / SUMS} is damaged: it has a line of more than {_NAME_LIMIT} bytes")
            line = data.decode("utf-8", "replace")
            if not line.endswith("\n"):
                raise DatasetError(f"{folder / SUMS} is damaged: its last line does not end")
            match = re.fullmatch(r"([0-9a-f]{64})  ([\x21-\x7e]+)\n", line)
            if not match or match[2] in sums:
                raise DatasetError(f"{folder / SUMS} is damaged: {line[:80]!r}")
            size += len(data)
            if size > _SUMS_LIMIT:
                raise DatasetError(f"{folder / SUMS} is damaged: it has more than {_SUMS_LIMIT} bytes")
            sums[match[2]] = match[1]
    return sums


class _Entry(NamedTuple):
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile:
    """A safetensors file of a dataset folder: the whole, or one row of every tensor.

    Raises:
        DatasetError: anything about the file is not as the format wants it.
    """

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
        self._check_ranges()

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

    def _check_ranges(self) -> None:
        position = 0
        for entry in sorted(self._entries.values(), key=lambda entry: (entry.start, entry.stop)):
            if entry.start != position:
                raise self._damaged("its tensors overlap or leave a gap")
            position = entry.stop
        if self._data_start + position != self._size:
            raise self._damaged(f"{self._size} bytes where {self._data_start + position} were announced")

    @property
    def tensors(self) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
        """Type and shape of every tensor by name."""
        return {key: (entry.dtype, entry.shape) for key, entry in self._entries.items()}

    def expect(self, wanted: dict[str, tuple[str, tuple[int, ...]]]) -> "TensorFile":
        """This file, if it holds exactly these tensors ({name: (dtype such as "F32", shape)})."""
        for key in sorted(set(wanted) ^ set(self._entries)):
            raise self._damaged(f"tensor {key!r} is {'missing' if key in wanted else 'not expected'}")
        for key, (dtype, shape) in wanted.items():
            if self.tensors[key] != (_DTYPES[dtype], shape):
                raise self._damaged(f"tensor {key!r} is {self.tensors[key]}, not {dtype} {shape}")
        return self

    def _open(self) -> BinaryIO:
        """The file, if it is as long as when its header was read."""
        file = open_inside(self._folder, self._name)
        if (size := os.fstat(file.fileno()).st_size) != self._size:
            file.close()
            raise DatasetError(
                f"{self._folder / self._name} has {size} bytes now, and had {self._size}: it is damaged, or the dataset "
                f"has grown since it was opened; open it again"
            )
        return file

    def read(self) -> dict[str, Array]:
        """All tensors (read-only arrays)."""
        with self._open() as file:
            file.seek(self._data_start)
            data = file.read(self._size - self._data_start)
        if len(data) != self._size - self._data_start:
            raise self._damaged("it became shorter while it was read")
        return {
            key: np.frombuffer(data, entry.dtype, (entry.stop - entry.start) // entry.dtype.itemsize, entry.start).reshape(
                entry.shape
            )
            for key, entry in self._entries.items()
        }

    def read_row(self, row: int) -> dict[str, Array]:
        """tensor[row] of every tensor, without reading the rest."""
        return {key: rows[0] for key, rows in self.read_rows(row, row + 1)}

    def read_rows(self, start: int, stop: int) -> Iterator[tuple[str, Array]]:
        """(name, tensor[start:stop]) of one tensor after another, without reading the rest (read-only arrays)."""
        with self._open() as file:
            for key, entry in self._entries.items():
                size = (entry.stop - entry.start) // entry.shape[0]
                file.seek(self._data_start + entry.start + start * size)
                data = file.read((stop - start) * size)
                if len(data) != (stop - start) * size:
                    raise self._damaged("it became shorter while it was read")
                yield key, np.frombuffer(data, entry.dtype).reshape(stop - start, *entry.shape[1:])


# ------------------------------------------------------------------ names and digests


def shard_name(kind: str, task: str, shard: int) -> str:
    """Path of a shard in the folder; kind is "networks", "losses" or "checkpoints"."""
    return f"{kind}/{task}-{shard:05d}.safetensors"


def data_name(task: str) -> str:
    """Path of a task's table and sequences in the folder."""
    return f"data/{task}.safetensors"


def graph_names(task: str) -> tuple[str, str]:
    """Paths of a task's minimal machine in the folder: as DOT, and as JSON."""
    return f"data/{task}.dot", f"data/{task}.json"


def array_sha256(*arrays: Array) -> str:
    """sha256 over the little-endian bytes of arrays, one after another."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def dataset_digest(sums: dict[str, str]) -> str:
    """The digest of a dataset: sha256 over the two raw sha256 of dataset.json and of manifest.jsonl."""
    return hashlib.sha256(bytes.fromhex(sums[DESCRIPTION]) + bytes.fromhex(sums[MANIFEST])).hexdigest()


def shortest(value: np.float32) -> float:
    """A float32 as the number with the fewest digits that reads back as the same float32."""
    return float(str(np.float32(value)))
