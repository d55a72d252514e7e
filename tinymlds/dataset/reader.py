"""The strict reader of files that may come from a stranger: bytes, JSON, JSON Lines, checksums.

It takes regular files inside the folder only, and bounds every length before it reads. JSON takes up to thirty times its
length in memory, so what is read as one piece is short. All functions raise DatasetError, which names the file, if it is
missing or damaged; `origin` is such a name.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import msgspec

from tinymlds.dataset.store import SUMS
from tinymlds.errors import DatasetError, one_line

T = TypeVar("T")

_DESCRIPTION_LIMIT = 1 << 23
ROW_LIMIT = 1 << 16
_BLOCK = 1 << 20
_SUMS_LIMIT = 1 << 25
_NAME_LIMIT = 1 << 12

_READ = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Flags that follow no link and wait for no writer: a file may have become a link or a pipe a moment ago."""


def is_name(part: str) -> bool:
    """Return whether a file or folder of a dataset may have this name: it leads nowhere else, and is not hidden."""
    return re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", part) is not None


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of the file system into a DatasetError that names the path."""
    try:
        yield
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror or error}") from error


def open_inside(folder: Path, name: str) -> BinaryIO:
    """Open a regular file of a dataset folder, given its path with "/" inside it; links are not followed."""
    path = _inside(folder, name, stat.S_ISREG)
    with reading(path):
        file = os.fdopen(os.open(path, _READ), "rb")
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise DatasetError(f"{path} is not a regular file any more")
    return file


def folder_inside(folder: Path, name: str) -> Path:
    """Return the path of a folder inside another, given with "/"; links are not followed."""
    return _inside(folder, name, stat.S_ISDIR)


def _inside(folder: Path, name: str, is_right: Callable[[int], bool]) -> Path:
    """Return the path of `name` in the folder, if its last part is of the right kind and all before are folders."""
    parts = name.split("/")
    if not all(map(is_name, parts)):
        raise DatasetError(f"{name!r} is not a name of a file in a dataset")
    path = folder
    for number, part in enumerate(parts, 1):
        path = path / part
        with reading(path):
            mode = path.lstat().st_mode
        if not (is_right(mode) if number == len(parts) else stat.S_ISDIR(mode)):
            raise DatasetError(f"{path} is not a regular file or folder; a dataset holds no links or devices")
    return path


def read_bytes(folder: Path, name: str, limit: int = _DESCRIPTION_LIMIT) -> bytes:
    """Return all bytes of a short file of a dataset folder."""
    with open_inside(folder, name) as file:
        data = file.read(min(limit, os.fstat(file.fileno()).st_size) + 1)
    if len(data) > limit:
        raise DatasetError(f"{folder / name} is damaged: it has more than {limit} bytes")
    return data


def file_sha256(folder: Path, name: str) -> str:
    """Return the sha256 of a file of a dataset folder, read piece by piece."""
    with open_inside(folder, name) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def parse_json(text: str | bytes, origin: str) -> Any:
    """Parse JSON without duplicate keys, NaN or infinities."""
    try:
        return _DECODER.decode(text if isinstance(text, str) else text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{origin} is damaged: {error}") from error


def decode(data: bytes, kind: type[T], origin: str) -> T:
    """Decode JSON of exactly this type; a key that occurs twice is found when the result is encoded again."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError) as error:
        raise DatasetError(f"{origin} is damaged: {one_line(str(error))}") from error


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
    """Yield the objects of a JSON Lines file."""
    first = 1
    for block in read_blocks(folder, name):
        yield from parse_lines(block, str(folder / name), first)
        first += block.count(b"\n")


def parse_lines(block: bytes, origin: str, first: int) -> Iterator[dict[str, Any]]:
    """Yield the objects of whole lines of a JSON Lines file; `first` is the number of the first line."""
    for number, line in enumerate(block.split(b"\n")[:-1], first):
        if len(line) >= ROW_LIMIT:
            raise DatasetError(f"{origin} line {number} is damaged: it has more than {ROW_LIMIT} bytes")
        row = parse_json(line, f"{origin} line {number}")
        if not isinstance(row, dict):
            raise DatasetError(f"{origin} line {number} is damaged: not an object")
        yield row


def read_blocks(folder: Path, name: str) -> Iterator[bytes]:
    """Yield a JSON Lines file in blocks of whole lines, about a megabyte each."""
    with open_inside(folder, name) as file:
        rest = b""
        while data := file.read(_BLOCK):
            lines, newline, rest = (rest + data).rpartition(b"\n")
            if newline:
                yield lines + newline
            if len(rest) >= ROW_LIMIT:
                raise DatasetError(f"{folder / name} is damaged: a line has more than {ROW_LIMIT} bytes")
        if rest:
            raise DatasetError(f"{folder / name} is damaged: its last line does not end")


def read_sums(folder: Path) -> dict[str, str]:
    """Read SHA256SUMS as {name: sha256}."""
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
