"""How datasets and networks show themselves, in a console and in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tinymlds.spec import task_names

if TYPE_CHECKING:
    from tinymlds.dataset.dataset import Dataset
    from tinymlds.dataset.network import Network

_MOST = 20
"""The largest number of tasks that a notebook shows."""


def dataset_text(dataset: Dataset) -> str:
    """Return a dataset in one line."""
    complete = int(dataset.manifest.complete(slice(None)).sum())
    return (
        f"Dataset({str(dataset.folder)!r}: {len(dataset):,} networks, {complete:,} complete, "
        f"of {task_names(list(dataset.tasks))})"
    )


def dataset_html(dataset: Dataset) -> str:
    """Return a table of the tasks of a dataset."""
    rows = []
    for task in dataset.tasks[:_MOST]:
        place = dataset.manifest.place(task)
        complete, epochs = dataset.manifest.complete(place), dataset.manifest.columns["epochs"][place]
        rows.append((task, len(epochs), int(complete.sum()), float(np.median(epochs)) if len(epochs) else None))
    more = "" if len(dataset.tasks) <= _MOST else f", the first {_MOST} of {len(dataset.tasks):,} tasks"
    title = f"{dataset.folder.name}: {len(dataset):,} networks of {dataset.architecture.size:,} parameters{more}"
    return _table(title, ("task", "networks", "complete", "median of epochs"), rows)


def network_text(network: Network) -> str:
    """Return a network in one line."""
    row = network.row
    loss = "no loss" if row["validation_loss"] is None else f"validation loss {row['validation_loss']:.3g}"
    return (
        f"Network({row['task']} {row['index']}: {row['status']} after {row['epochs']:,} epochs, {loss}, "
        f"split {row['split']}, {network.architecture.size:,} parameters)"
    )


def network_html(network: Network) -> str:
    """Return a table of what came out of a network."""
    shown = ("status", "epochs", "validation_loss", "accuracy", "long_accuracy", "split")
    title = f"{network.row['task']} {network.row['index']}: {network.architecture.size:,} parameters"
    return _table(title, [key.replace("_", " ") for key in shown], [[network.row[key] for key in shown]])


def _table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in rows)
    caption = f'<caption style="text-align: left"><b>{html.escape(title)}</b></caption>'
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else html.escape(str(value))


def indices(found: range) -> str:
    """Return the indices of networks in words."""
    if found.step == 1:
        return f"networks {found[0]} to {found[-1]}"
    shown = [str(index) for index in found[:3]]
    return f"networks {', '.join(shown)}" + (f" ... {found[-1]}" if len(found) > 3 else "") if shown else "no network"
