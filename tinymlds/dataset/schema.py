"""The contents of a dataset folder: its files, dataset.json, the bytes of shards, the columns of the manifest.

The files of a task beside its networks (table, sequences, graphs) follow from the spec; anyone can remake them.
"""

import hashlib
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from tinymlds.architectures import params
from tinymlds.dataset import store
from tinymlds.dataset.manifest import Row
from tinymlds.dataset.tensorfile import TensorFile, tensors_bytes
from tinymlds.spec import FORMAT, Setting, Spec, canonical_json
from tinymlds.tasks import catalog
from tinymlds.training.data import TaskData, task_data
from tinymlds.training.loop import Outcome


def kinds(spec: Spec) -> tuple[str, ...]:
    """Return the kinds of shards that a dataset has."""
    return ("networks", "losses", "checkpoints") if spec.checkpoints else ("networks", "losses")


def file_names(spec: Spec, networks: bool = True) -> set[str]:
    """Return the files that SHA256SUMS lists, of a dataset or of a folder with sequences alone."""
    names = {store.DESCRIPTION, store.MANIFEST}
    names |= {name for task, _ in spec.tasks for name in (store.data_name(task), *store.graph_names(task))}
    if networks:
        shards = [(task, shard) for task, count in spec.counts.items() for shard in range(-(-count // store.SHARD))]
        names |= {store.PROVENANCE, *(store.shard_name(kind, *shard) for kind in kinds(spec) for shard in shards)}
    return names


def data_tensors(found: catalog.Task, data: TaskData) -> tuple[dict[str, store.Array], dict[str, Any]]:
    """Return the tensors and metadata of data/TASK.safetensors."""
    tensors: dict[str, store.Array] = {
        "table.inputs": data.table.inputs,
        "table.next_state": data.table.next_state,
        "table.output": data.table.output,
        "train.symbols": data.train,
        "train.outputs": data.train_outputs,
        "validation.symbols": data.validation,
        "validation.outputs": data.validation_outputs,
    }
    if found.triggered is not None:
        tensors["table.triggered"] = found.triggered
    return tensors, {"symbols": list(data.table.symbols)}


def graph_files(found: catalog.Task) -> dict[str, bytes]:
    """Return data/TASK.dot and data/TASK.json: the minimal machine of a task, for other tools; AALpy loads both."""
    machine = found.table.minimise()
    dot, setup = store.graph_names(found.id)
    return {dot: machine.to_dot(found.id).encode(), setup: (canonical_json(machine.state_setup()) + "\n").encode()}


@lru_cache(maxsize=1024)
def describe_task(setting: Setting) -> Mapping[str, Any]:
    """Return the entry of a task in dataset.json, without its count.

    Remembered for more tasks than their sequences are, so whoever needs both asks for this while the sequences are there.
    """
    found, data = catalog.load(setting), task_data(setting)
    graphs = {name.rsplit(".", 1)[1]: hashlib.sha256(text).hexdigest() for name, text in graph_files(found).items()}
    described = {
        "task": found.id,
        "alias": catalog.alias(found.id),
        "states": data.table.states,
        "symbols": len(data.table.symbols),
        "table_sha256": data.table.sha256(),
        "graph_sha256": graphs,
        "train_sha256": store.array_sha256(data.train, data.train_outputs),
        "validation_sha256": store.array_sha256(data.validation, data.validation_outputs),
        **catalog.family(found),
    }
    return MappingProxyType(described)


def describe(spec: Spec, kind: str) -> dict[str, Any]:
    """Return the contents of dataset.json; kind is "networks", or "sequences" for a folder without networks."""
    rows = [
        {**describe_task(spec.setting(task)), **({"count": count} if kind == "networks" else {})}
        for task, count in spec.tasks
    ]
    tensors = [[each.name, list(each.shape)] for each in spec.recipe.architecture.tensors()]
    return {**spec.to_dict(), "kind": kind, "tasks": rows, "tensors": tensors}


def shard_files(spec: Spec, task: str, shard: int, outcomes: list[Outcome]) -> Iterator[tuple[str, bytes]]:
    """Yield name and bytes of each file of a shard, from the outcomes of all of its networks."""
    weights = np.stack([outcome.weights for outcome in outcomes])
    epochs = [outcome.validation_losses.size for outcome in outcomes]
    losses = {
        "offsets": np.concatenate([[0], np.cumsum(epochs)]).astype(np.int64),
        "train": np.concatenate([outcome.train_losses for outcome in outcomes]),
        "validation": np.concatenate([outcome.validation_losses for outcome in outcomes]),
    }
    metadata = {"format": FORMAT, "task": task, "first": outcomes[0].index, "count": len(outcomes)}
    if spec.part is not None:
        metadata["step"] = spec.part[1]
    contents = {"networks": params.to_tensors(spec.recipe.architecture, weights), "losses": losses}
    if spec.checkpoints:
        kept = np.full((len(outcomes), len(spec.checkpoints), spec.recipe.architecture.size), np.nan, np.float32)
        for k, outcome in enumerate(outcomes):
            kept[k, : len(outcome.checkpoints)] = outcome.checkpoints
        contents["checkpoints"] = params.to_tensors(spec.recipe.architecture, kept)
        metadata["epochs"] = list(spec.checkpoints)
    for kind, tensors in contents.items():
        yield store.shard_name(kind, task, shard), tensors_bytes(tensors, metadata)


def columns_of(outcome: Outcome) -> Row:
    """Return the columns of the manifest that follow from the outcome of training."""
    train, validation = outcome.train_losses, outcome.validation_losses
    return {
        "index": outcome.index,
        "status": outcome.status.value,
        "reason": outcome.reason,
        "epochs": validation.size,
        "train_loss": store.shortest(train[-1]) if train.size else None,
        "validation_loss": store.shortest(validation[-1]) if validation.size else None,
        "weights_sha256": store.array_sha256(outcome.weights),
        "losses_sha256": store.array_sha256(train, validation),
        "checkpoints": len(outcome.checkpoints),
        "checkpoints_sha256": store.array_sha256(outcome.checkpoints),
    }


def sequences_row(folder: Path, spec: Spec, task: str) -> Row:
    """Return the manifest row of a task in a folder with sequences alone; the file of the task must be there."""
    name = store.data_name(task)
    shapes = {key: list(shape) for key, (_, shape) in TensorFile(folder, name).tensors.items()}
    return {**describe_task(spec.setting(task)), "file": name, "shapes": shapes}
