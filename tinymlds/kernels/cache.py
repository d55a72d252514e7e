"""Compiled kernels on disk, under a key that names everything that they depend on.

Numba's own key for a function is its bytecode and closure; a kernel here also depends on the functions that it calls, the
files that those stand in, and what it was built for, and Numba cannot hash closures that hold compiled functions. So the
key is the source of each module that a function of the kernel comes from, the whole package of kernels, the identity that
the caller gives (architecture and optimizer), and the CPU with its features. Every key has files of its own: two processes
that compile different kernels at once cannot mix up each other's code.

The files lie in TINYMLDS_CACHE_DIR, NUMBA_CACHE_DIR or the user's cache folder, in a folder for each version of tinymlds.

Numba numbers the functions that it compiles from 1 in every process, and the number is what tells functions of one
source line apart in compiled code. Code from the disk was numbered by other processes, so two kernels loaded into one
process could share names, and a call could end in the other kernel's code. So numbers start at random here.
"""

import contextlib
import glob
import hashlib
import itertools
import multiprocessing
import os
import secrets
import stat
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba import njit
from numba.core.bytecode import FunctionIdentity
from numba.core.caching import CompileResultCacheImpl, FunctionCache, IndexDataCacheFile
from numba.core.registry import cpu_target
from platformdirs import user_cache_path

from tinymlds import __version__


@cache
def number_functions_from_anywhere() -> None:
    """Have Numba number functions from a random number, in this process and those that are forked from it."""

    def start_anywhere() -> None:
        FunctionIdentity._unique_ids = itertools.count(secrets.randbits(60))

    start_anywhere()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=start_anywhere)


# ------------------------------------------------------------------ where


def _candidates() -> Iterator[Path]:
    """Folders that may hold compiled code, the best first."""
    name = f"tinymlds-{__version__}"
    for variable in ("TINYMLDS_CACHE_DIR", "NUMBA_CACHE_DIR"):
        if chosen := os.environ.get(variable):
            yield Path(chosen).absolute() / name
    yield user_cache_path("tinymlds", appauthor=False, version=__version__)
    yield Path(tempfile.gettempdir()) / (f"{name}-{os.getuid()}" if hasattr(os, "getuid") else name)


@cache
def cache_folder() -> Path | None:
    """The folder for compiled code: the first candidate that can be written and is nobody else's; None if there is none.

    If it is not the first of all, a warning says so, in the first of several processes.
    """
    candidates = list(_candidates())
    for folder in candidates:
        if not folder.is_absolute():  # there is no home folder
            continue
        with contextlib.suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = folder.lstat()
            if os.name == "nt" or (found.st_uid == os.getuid() and not found.st_mode & stat.S_IWOTH):
                tempfile.TemporaryFile(dir=folder).close()  # code that others may write is not run
                if folder != candidates[0]:
                    _warn(f"cannot keep compiled kernels in {candidates[0]}; they are kept in {folder}")
                return folder
    _warn(f"cannot keep compiled kernels in {candidates[0]}; every process compiles them again")
    return None


def _warn(what: str) -> None:
    if multiprocessing.parent_process() is None:
        warnings.warn(f"{what}. Set TINYMLDS_CACHE_DIR to a folder of your own", RuntimeWarning, stacklevel=2)


# ------------------------------------------------------------------ under which key


@cache
def _package_sources() -> tuple[Path, ...]:
    """The Python files of the kernels, and of the architectures that they compute."""
    root = Path(__file__).parents[1]
    return tuple(path for folder in ("architectures", "kernels") for path in sorted((root / folder).rglob("*.py")))


@cache
def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _reached(function: Callable[..., Any]) -> Iterator[tuple[Path, str]]:
    """Yield file and built-in constants of a function, and of all that it reaches through closures and globals."""
    seen: set[int] = set()
    waiting: list[Any] = [function]
    while waiting:
        value = waiting.pop()
        value = getattr(value, "py_func", None) or getattr(value, "_defn", value)  # of a dispatcher, of an intrinsic
        if not hasattr(value, "__code__") or id(value) in seen:
            continue
        seen.add(id(value))
        names = {name: value.__globals__.get(name) for name in value.__code__.co_names}
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            with contextlib.suppress(ValueError):  # an empty cell
                names[name] = cell.cell_contents
        waiting += names.values()
        constants = {name: part for name, part in names.items() if isinstance(part, int | float | str | np.generic)}
        yield Path(value.__code__.co_filename), f"{value.__qualname__} {constants}"


def source_fingerprint(function: Callable[..., Any]) -> str:
    """sha256 over the sources of this package, and over file and constants of every function that a kernel consists of."""
    reached = list(_reached(function))
    files = dict.fromkeys([*_package_sources(), *(file.resolve() for file, _ in reached if file.is_file())])
    text = "".join([*(_sha256(file) for file in files), *(constants for _, constants in reached)])
    return hashlib.sha256(text.encode()).hexdigest()


def target_features() -> str:
    """LLVM's features of the CPU that code is compiled for (NUMBA_CPU_NAME and NUMBA_CPU_FEATURES have their say)."""
    return str(cpu_target.target_context.codegen().magic_tuple()[2])


# ------------------------------------------------------------------ Numba's side


class _Locator:
    """Tells Numba the folder, in place of the one beside the source."""

    def __init__(self, folder: Path, line: int) -> None:
        self._folder, self._line = folder, line

    @classmethod
    def from_function(cls, function: Any, _file: str) -> "_Locator | None":
        folder = cache_folder()
        return None if folder is None else cls(folder, function.__code__.co_firstlineno)

    def ensure_cache_path(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def get_source_stamp(self) -> str:
        return ""  # the key says all

    def get_disambiguator(self) -> str:
        return str(self._line)


class _KernelCacheImpl(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _KernelCache(FunctionCache):
    """Numba's cache of one function, keyed by `identity` in place of bytecode and closure, one pair of files a key."""

    _impl_class = _KernelCacheImpl

    def __init__(self, function: Callable[..., Any], identity: str) -> None:
        super().__init__(function)
        self._identity = identity

    def _index_key(self, sig: Any, codegen: Any) -> Any:
        return sig, codegen.magic_tuple(), numba.__version__, self._identity

    def _stem(self, codegen: Any) -> str:
        """How the names of the files for all signatures begin."""
        _, *rest = self._index_key(None, codegen)
        return f"{self._impl.filename_base}-{hashlib.sha256(repr(rest).encode()).hexdigest()[:16]}"

    def _file_for(self, sig: Any, codegen: Any) -> IndexDataCacheFile:
        name = f"{self._stem(codegen)}-{hashlib.sha256(repr(sig).encode()).hexdigest()[:8]}"
        return IndexDataCacheFile(self._cache_path, name, self._identity)

    def holds_code(self) -> bool:
        """Whether the function has been compiled before, for this CPU."""
        name = glob.escape(self._stem(cpu_target.target_context.codegen()))
        return any(Path(self._cache_path).glob(f"{name}-*.nbi"))

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


def is_compiled(dispatcher: Any) -> bool:
    """Whether code of a function of `cached_njit` is on the disk, so that it need not be compiled."""
    return isinstance(dispatcher._cache, _KernelCache) and dispatcher._cache.holds_code()


def cached_njit(identity: str, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` with a disk cache keyed by the kernel's sources and by `identity` (architecture and optimizer).

    Where no folder can be written, the function is compiled in every process.
    """
    number_functions_from_anywhere()

    def decorate(function: Callable[..., Any]) -> Any:
        dispatcher = njit(**options)(function)
        if cache_folder() is not None:
            dispatcher._cache = _KernelCache(function, f"{source_fingerprint(function)}:{identity}")
        return dispatcher

    return decorate
