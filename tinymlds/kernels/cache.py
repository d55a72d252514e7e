"""Compiled kernels on disk, under a key that names everything they depend on.

Numba's own key for a function is its bytecode and closure; a kernel here also depends on the other files of this package
and on the shape that it was built for, and Numba cannot hash closures that hold compiled functions. So the key is a
fingerprint of all sources in this folder, the shape, the CPU and its features, and every key has files of its own: two
processes that compile for different shapes or targets at once cannot mix up each other's code.

Numba numbers the functions that it compiles from 1 in every process, and the number is what tells functions of one
source line apart in compiled code. Code from the disk was numbered by other processes, so two shapes loaded into one
process could share names, and a call could end in the other shape's code. So numbers start at random here.
"""

import contextlib
import hashlib
import itertools
import os
import secrets
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.registry import cpu_target


def _number_functions_from_anywhere() -> None:
    FunctionIdentity._unique_ids = itertools.count(secrets.randbits(60))


_number_functions_from_anywhere()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_number_functions_from_anywhere)


@cache
def source_fingerprint() -> str:
    """sha256 over the Python files of this folder."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(f"{path.name}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()


def target_features() -> str:
    """LLVM's features of the CPU that code is compiled for (NUMBA_CPU_NAME and NUMBA_CPU_FEATURES have their say)."""
    return str(cpu_target.target_context.codegen().magic_tuple()[2])


class _KernelCache(FunctionCache):
    """Numba's cache of one function, keyed by `identity` in place of bytecode and closure, one pair of files a key."""

    def __init__(self, function: Callable[..., Any], identity: str) -> None:
        super().__init__(function)
        self._identity = identity

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), self._identity

    def _file_for(self, sig: Any, codegen: Any) -> IndexDataCacheFile:
        key = hashlib.sha256(repr(self._index_key(sig, codegen)).encode()).hexdigest()[:16]
        return IndexDataCacheFile(self._cache_path, f"{self._impl.filename_base}-{key}", self._identity)

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
        self._cache_file = self._file_for(sig, target_context.codegen())
        try:
            return super()._load_overload(sig, target_context)
        except Exception:  # pickle may raise anything on a damaged file: it is emptied, and replaced after compilation
            with contextlib.suppress(OSError):
                self._cache_file.flush()
            return None

    def _save_overload(self, sig: Any, data: Any) -> None:
        self._cache_file = self._file_for(sig, data.codegen)
        with contextlib.suppress(Exception):  # a full or a read-only disk, a damaged file that it would not let go:
            super()._save_overload(sig, data)  # the next process compiles again


def cached_njit(identity: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with a disk cache keyed by the sources of this folder and by `identity` (the shape).

    Where no folder can be written (not the package's, nor the user's cache), the function is compiled in every process.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        with contextlib.suppress(RuntimeError, OSError):  # Numba found no folder to write to
            dispatcher._cache = _KernelCache(function, f"{source_fingerprint()}:{identity}")
        return dispatcher

    return decorate
