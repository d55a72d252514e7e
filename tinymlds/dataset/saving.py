"""One network as a file of its own, for other tools: .safetensors (PyTorch, JAX and others load it), or NumPy's .npz."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from tinymlds.dataset import store
from tinymlds.dataset.tensorfile import tensors_bytes
from tinymlds.errors import TinymldsError, UsageError

_DATE = (1980, 1, 1, 0, 0, 0)
"""The first that a zip file can have: the same network gives the same bytes at any time."""


def save(path: str | Path, tensors: dict[str, store.Array], metadata: dict[str, Any], force: bool = False) -> Path:
    """Write tensors at `path`, whole or not at all; see `Network.save`. Only .safetensors holds the metadata too.

    Raises:
        UsageError: the path ends otherwise, or there is a file and no `force`.
        TinymldsError: the file system refused.
    """
    target = Path(path)
    if target.suffix not in (".safetensors", ".npz"):
        raise UsageError(f"{target} must end with .safetensors or .npz, which says the format")
    try:
        target.lstat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise TinymldsError(f"cannot write {target}: {getattr(error, 'strerror', None) or error}") from error
    else:
        if not force:
            raise UsageError(f"{target} is there already; to overwrite it, say force (--force)")
    data = tensors_bytes(tensors, metadata) if target.suffix == ".safetensors" else _npz_bytes(tensors)
    store.commit(target, data)
    return target


def _npz_bytes(tensors: dict[str, store.Array]) -> bytes:
    """Return the bytes that `numpy.savez` writes, without the time and the operating system."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in tensors.items():
            member = zipfile.ZipInfo(f"{name}.npy", _DATE)
            member.create_system = 3
            with archive.open(member, "w") as file:
                np.lib.format.write_array(
                    file, np.ascontiguousarray(array, array.dtype.newbyteorder("<")), allow_pickle=False
                )
    return buffer.getvalue()
