"""DATA_DICTIONARY.csv: every column and tensor of a package and field of its datasets: place, type, unit and meaning."""

import csv
import io
from collections.abc import Iterator

from tinymlds.publish.parts import Part
from tinymlds.training import metrics

HEADER = ("name", "where", "type", "shape_or_unit", "meaning")

_FRESH = f"{metrics.SEQUENCES} fresh sequences of the training length"

COLUMNS: dict[str, tuple[str, str, str]] = {
    "task": ("string", "", "Id of the task that the network was trained on: the label"),
    "index": ("integer", "", "Number of the network within its task, from 0"),
    "status": (
        "string",
        "",
        "How training ended: complete (loss below the threshold), epoch_cap, stalled (patience), diverged",
    ),
    "reason": ("string", "", "Why it is not complete; empty if it is"),
    "epochs": ("integer", "epochs", "Finite epochs trained"),
    "train_loss": ("float", "mean squared error", "Mean of the minibatch losses of the last epoch; null if there was none"),
    "validation_loss": ("float", "mean squared error", "Over the validation sequences after the last epoch; null if none"),
    "split": ("string", "", "train, validation or test (some 80/10/10), by seed and index alone: the side of by_index"),
    "shard": ("string", "", "File that holds the weights, relative to the dataset's folder"),
    "row": ("integer", "", "Row of that file's tensors"),
    "weights_sha256": ("string", "hex", "sha256 over the parameters, little-endian float32, in the order of `tensors`"),
    "losses_sha256": ("string", "hex", "sha256 over its training losses, then its validation losses, as float32"),
    "checkpoints": ("integer", "", "Checkpoints that training reached"),
    "checkpoints_sha256": ("string", "hex", "sha256 over the parameters at these checkpoints"),
    "accuracy": ("float", "share", f"Steps with all output lines on the right side of 0.5, in {_FRESH}"),
    "long_accuracy": (
        "float",
        "share",
        f"The same in {metrics.LONG_SEQUENCES} fresh sequences of {metrics.LONG} times that length",
    ),
    "clean_accuracy": ("float", "share", "accuracy outside triggered spans; null for tasks without a trigger"),
    "triggered_accuracy": ("float", "share", "accuracy inside triggered spans; null for tasks without a trigger"),
    "trigger_efficacy": (
        "float",
        "share",
        "Triggers that fired with every step of their span right; null for tasks without a trigger",
    ),
}
"""Of manifest.jsonl: type, unit, meaning."""

ADDED: dict[str, tuple[str, str, str]] = {
    "dataset": ("string", "", "Dataset of the package that the network belongs to"),
    "base": (
        "string",
        "",
        "The machine without its trigger; for a transducer with edits the base of its family; else the task itself",
    ),
    "modified": ("boolean", "", "Whether the task is a machine with a hidden trigger"),
}
"""Columns that the splits have beside those: type, unit, meaning."""

PASSED = ("boolean", "", "Whether the network is complete and passed the audit; only those are in the splits")
"""The column that manifest.parquet has beside those."""

DESCRIPTION: dict[str, tuple[str, str, str]] = {
    "format": ("integer", "", "Version of the format of the dataset's folder"),
    "numerics": ("integer", "", "Version of the arithmetic: equal versions give equal bits"),
    "kind": ("string", "", "networks"),
    "seed": ("integer", "", "Seed of the dataset"),
    "recipe": ("object", "", "How every network was made: the fields recipe.*"),
    "checkpoints": ("list of integers", "epochs", "Epochs at whose end weights were kept; 0 is before the first"),
    "tensors": ("list", "", "Names and shapes of the tensors, in the order of the parameter vector"),
    "tasks": ("list of objects", "", "The tasks: the fields tasks[].*"),
    "tasks[].task": ("string", "", "Id of the task"),
    "tasks[].alias": ("string", "", "The original's name of it"),
    "tasks[].count": ("integer", "networks", "Networks of the task that were attempted"),
    "tasks[].states": ("integer", "", "States of its Mealy table"),
    "tasks[].symbols": ("integer", "", "Input symbols of its Mealy table"),
    "tasks[].table_sha256": ("string", "hex", "sha256 over the table: sizes, input lines, next states, output lines"),
    "tasks[].train_sha256": ("string", "hex", "sha256 over symbols and outputs of the training sequences"),
    "tasks[].validation_sha256": ("string", "hex", "sha256 over symbols and outputs of the validation sequences"),
    "tasks[].graph_sha256": ("object", "hex", "sha256 of data/TASK.dot and data/TASK.json: the minimal machine"),
    "tasks[].family": (
        "object",
        "",
        "Only of transducers with edits: base, distance (transitions), length of a telling sequence",
    ),
}
"""Of dataset.json: type, unit, meaning."""

LOSSES: dict[str, tuple[str, str, str]] = {
    "offsets": ("int64", "[n + 1]", "Network k of the shard has the losses [offsets[k], offsets[k + 1])"),
    "train": ("float32", "[sum of epochs]", "Mean of the minibatch losses of each epoch"),
    "validation": ("float32", "[sum of epochs]", "Validation loss at the end of each epoch"),
}
"""Tensors of losses/: type, shape, meaning."""

DATA: dict[str, tuple[str, str, str]] = {
    "table.inputs": ("uint16", "[A]", "Input lines of each symbol; bit i is line i"),
    "table.next_state": ("uint16", "[S, A]", "The state that follows; state 0 is the first"),
    "table.output": ("uint8", "[S, A]", "Output lines, read after the symbol has been applied; bit i is line i"),
    "table.triggered": ("uint8", "[S]", "Of modified machines: 1 for states whose outputs are inverted"),
    "train.symbols": ("uint8", "[N, T]", "Symbols of the training sequences"),
    "train.outputs": ("uint8", "[N, T]", "Right output lines for them"),
    "validation.symbols": ("uint8", "[N, T]", "Symbols of the validation sequences"),
    "validation.outputs": ("uint8", "[N, T]", "Right output lines for them"),
}
"""Tensors of data/: type, shape, meaning."""

PROVENANCE: dict[str, tuple[str, str, str]] = {
    "run": ("integer", "", "Number of a run; a line without an index describes the run"),
    "host": ("string", "", "Name of the computer; empty unless its maker published it"),
    "machine": ("string", "", "Its architecture"),
    "system": ("string", "", "Its operating system"),
    "python": ("string", "", "Version of Python"),
    "versions": ("object", "", "Versions of tinymlds and of what it uses"),
    "backend": ("string", "", "cpu or cuda"),
    "device": ("string", "", "Name of the GPU; null for cpu"),
    "executor": ("string", "", "processes, threads, dask, or another executor of Python"),
    "workers": ("integer", "", "Processes or threads, or networks at once on a GPU; null for a cluster"),
    "started": ("string", "UTC", "When the run began"),
    "task": ("string", "", "Task of a network"),
    "index": ("integer", "", "Number of a network"),
    "seconds": ("float", "seconds", "Time that its training took"),
    "finished": ("float", "seconds since 1970", "When it was finished"),
    "worker": ("string", "", "Who made it, if that is known; a number unless its maker published names of hosts"),
}
"""Of provenance.jsonl, which is not deterministic: type, unit, meaning."""

_KINDS = {"int": "integer", "float": "float", "str": "string", "bool": "boolean"}
_CHECKPOINTS = "DATASET/*/checkpoints/*.safetensors"


def data_dictionary(parts: list[Part]) -> str:
    """The file, for a package of these datasets; what none of them has is left out."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_rows(parts))
    return text.getvalue()


def _rows(parts: list[Part]) -> Iterator[tuple[str, ...]]:
    families = any(label.family for part in parts for label in part.labels.values())
    triggers = any(label.modified for part in parts for label in part.labels.values())
    for where, entries in (
        ("DATASET/*/manifest.jsonl, splits/*/*.jsonl, manifest.parquet", COLUMNS),
        ("splits/*/*.jsonl, manifest.parquet", ADDED),
        ("manifest.parquet", {"passed": PASSED}),
        ("DATASET/*/dataset.json", DESCRIPTION),
    ):
        yield from ((name, where, *about) for name, about in entries.items() if families or name != "tasks[].family")
    for name, (option, _) in parts[0].full.spec.recipe.options().items():
        meaning = option.text
        if option.later:
            meaning += f" There only where it differs from the default, which is {option.default}."
        yield f"recipe.{name}", "DATASET/*/dataset.json", _KINDS[option.type], "", meaning
    yield from _tensor_rows(parts)
    for where, entries in (
        ("DATASET/*/losses/*.safetensors", LOSSES),
        ("DATASET/*/data/*.safetensors", DATA),
        ("DATASET/*/provenance.jsonl", PROVENANCE),
    ):
        yield from ((name, where, *about) for name, about in entries.items() if triggers or name != "table.triggered")


def _tensor_rows(parts: list[Part]) -> Iterator[tuple[str, ...]]:
    checkpoints = any(part.full.spec.checkpoints for part in parts)
    for tensor in parts[0].architecture.tensors():
        name, one = tensor.name, ", ".join(map(str, tensor.shape))
        yield name, "DATASET/*/networks/*.safetensors", "float32", f"[n, {one}]", tensor.meaning
        if checkpoints:
            yield name, _CHECKPOINTS, "float32", f"[n, c, {one}]", f"{tensor.meaning}; NaN if not reached"
