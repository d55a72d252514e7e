"""The files of a task beside its networks: table, sequences, graphs. They follow from the spec; anyone can remake them."""

import hashlib
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from tinymlds.dataset import store
from tinymlds.spec import Setting, canonical_json
from tinymlds.tasks import catalog
from tinymlds.training.data import TaskData, task_data


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
