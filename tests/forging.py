"""What a forger does to a dataset: other bytes in a file, and the checksums that go with them."""

import json

import tinymlds
from tinymlds.dataset import reader, store
from tinymlds.dataset.tensorfile import TensorFile, tensors_bytes

TINY = {"train_sequences": 64, "validation_sequences": 32, "steps": 8, "max_epochs": 2}
"""A recipe whose datasets are verified in some 30 ms; the kernels are those of the default shape."""


def make(folder, machine="xor", count=2, **options):
    """A tiny dataset."""
    tinymlds.train(machine, count, folder, workers=1, **TINY, **options)
    return folder


def forge(folder, name, data):
    """Other bytes in a file, and its true hash in SHA256SUMS."""
    sums = reader.read_sums(folder)
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    (folder / name).write_bytes(data)
    sums[name] = reader.file_sha256(folder, name)
    (folder / store.SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def forge_description(folder, change):
    """Another dataset.json: change(description) changes it in place."""
    description = json.loads((folder / store.DESCRIPTION).read_text())
    change(description)
    forge(folder, store.DESCRIPTION, (canonical(description) + "\n").encode())


def forge_rows(folder, change):
    """Another manifest: change(rows) changes it in place."""
    rows = [json.loads(line) for line in (folder / store.MANIFEST).read_text().splitlines()]
    change(rows)
    forge(folder, store.MANIFEST, "".join(canonical(row) + "\n" for row in rows).encode())


def forge_tensors(folder, name, change):
    """Another shard: change(tensors) changes copies of its arrays in place."""
    file = TensorFile(folder, name)
    tensors = {key: array.copy() for key, array in file.read().items()}
    change(tensors)
    forge(folder, name, tensors_bytes(tensors, file.metadata))


def canonical(value):
    """Canonical JSON, NaN and infinities included."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
