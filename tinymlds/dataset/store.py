"""Files of a dataset folder: their names and digests, and the one commit function.

What is written goes through `commit`, which survives a crash and a power cut; what is read, through `reader`. If the file
system refuses anything, TinymldsError says what; then what was at the path before is still there.
"""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from tinymlds.errors import TinymldsError

SHARD = 1000
"""Networks in a shard."""

SUMS = "SHA256SUMS"
DESCRIPTION = "dataset.json"
MANIFEST = "manifest.jsonl"
PROVENANCE = "provenance.jsonl"
JOURNAL = "journal.sqlite"
LOCK = "run.lock"

_UNFINISHED = ".part"

Array = npt.NDArray[Any]
Piece = TypeVar("Piece", range, list[int])


def by_shard(indices: Piece) -> Iterator[Piece]:
    """Yield indices in pieces of as many as a shard has; the last may have fewer."""
    for start in range(0, len(indices), SHARD):
        yield indices[start : start + SHARD]


# ------------------------------------------------------------------ writing


def commit(path: Path, data: bytes | Iterable[bytes]) -> str:
    """Put `data` at `path`, whole or not at all, durably: write, fsync, rename, fsync the folder. Returns its sha256.

    Data that comes in pieces is written as it comes.
    """
    unfinished, digest = path.with_name(path.name + _UNFINISHED), hashlib.sha256()
    with _doing("write", path):
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
        except BaseException:  # the source of the pieces may raise anything
            with contextlib.suppress(OSError):
                unfinished.unlink()
            raise
    return digest.hexdigest()


def commit_sums(folder: Path, sums: dict[str, str]) -> None:
    """Write SHA256SUMS, the last file of a dataset."""
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items()))
    commit(folder / SUMS, text.encode())


def make_folder(folder: Path) -> None:
    """Create a folder and those above it, durably."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with _doing("create", folder):
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)


def remove(path: Path) -> None:
    """Remove a file, durably; it may be gone already."""
    with _doing("remove", path):
        path.unlink(missing_ok=True)
        _sync_folder(path.parent)


def rename_folder(folder: Path, target: Path) -> None:
    """Give a finished folder its name, durably."""
    with _doing("create", target):
        _sync_folder(folder)
        folder.rename(target)
        _sync_folder(target.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what an interrupted `commit` left in a dataset folder."""
    for place in (folder, *(folder / kind for kind in ("data", "networks", "losses", "checkpoints"))):
        with _doing("read", place):
            found = list(place.glob(f"*{_UNFINISHED}")) if place.is_dir() and not place.is_symlink() else []
        for path in found:
            remove(path)


def _sync(descriptor: int) -> None:
    """Sync a file; on macOS fsync that leaves data in the drive's cache, and F_FULLFSYNC does not."""
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


@contextlib.contextmanager
def _doing(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        why = f"{error.strerror or error}; finished networks are safe, run again once mended"
        raise TinymldsError(f"cannot {verb} {path}: {why}") from error


# ------------------------------------------------------------------ names and digests


def shard_name(kind: str, task: str, shard: int) -> str:
    """Return the path of a shard in the folder; kind is "networks", "losses" or "checkpoints"."""
    return f"{kind}/{task}-{shard:05d}.safetensors"


def data_name(task: str) -> str:
    """Return the path of a task's table and sequences in the folder."""
    return f"data/{task}.safetensors"


def graph_names(task: str) -> tuple[str, str]:
    """Return the paths of a task's minimal machine in the folder: as DOT, and as JSON."""
    return f"data/{task}.dot", f"data/{task}.json"


def array_sha256(*arrays: Array) -> str:
    """Return the sha256 over the little-endian bytes of arrays, one after another."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes())
    return digest.hexdigest()


def dataset_digest(sums: dict[str, str]) -> str:
    """Return the digest of a dataset: sha256 over the two raw sha256 of dataset.json and of manifest.jsonl."""
    return hashlib.sha256(bytes.fromhex(sums[DESCRIPTION]) + bytes.fromhex(sums[MANIFEST])).hexdigest()


def shortest(value: np.float32) -> float:
    """Return a float32 as the number with the fewest digits that reads back as the same float32."""
    return float(str(np.float32(value)))
