"""The features of a network that a model sees, and the forms into which its weights are brought first."""

import numpy as np
import numpy.typing as npt

from tinymlds.analysis.points import Points
from tinymlds.architectures import Architecture, params, symmetry
from tinymlds.architectures.params import Floats
from tinymlds.errors import UsageError
from tinymlds.kernels import rng
from tinymlds.tasks import catalog
from tinymlds.tasks.mealy import INPUT_LINES, lines
from tinymlds.training import backends

FORMS = {
    "plain": "as trained",
    "moved": "trained on plain weights, tested on randomly transformed ones",
    "transformed": "each network changed by a random symmetry of its own",
    "canonical": "brought into the canonical form",
    "initial": "control: weights before training",
    "normalised": "control: each tensor divided by its Euclidean norm",
    "equalised": "control: as many networks of each class with each number of epochs",
    "equal-loss": "control: as many networks of each class with each loss, to a tenth of a decade",
}
EQUALISED = ("equalised", "equal-loss")
"""The forms in which networks are chosen, and weights are as trained."""
CONTROLS = ("initial", "normalised", *EQUALISED)
DRAWN = ("moved", "transformed")
"""The forms that depend on the seed."""

PROBES = 16
"""Number of fixed sequences, which have the training length."""

QUANTILES = (0.0, 0.25, 0.5, 0.75, 1.0)
_CHUNK = 4096


def features(points: Points, name: str, form: str, seed: int) -> Floats:
    """Return the features of networks, float32 [n, features].

    Args:
        points: the networks.
        name: raw, statistics, answers, or one number alone: epochs, loss, norm (of the whole vector); norms (of each
            tensor); task (the task alone).
        form: one of FORMS; for test networks, moved means transformed.
        seed: seed of the random symmetries.
    """
    if name == "epochs":
        return np.log(np.maximum(points.epochs, 1)).astype(np.float32)[:, None]
    if name == "loss":
        return np.log(np.maximum(points.loss, np.finfo(np.float32).tiny)).astype(np.float32)[:, None]
    if name == "task":
        return np.eye(len(points.sources), dtype=np.float32)[points.source]
    if form in DRAWN:
        weights = symmetry.transform(points.architecture, points.weights, seed)
    elif form == "canonical":
        weights = symmetry.canonicalize(points.architecture, points.weights)
    else:
        weights = points.initial() if form == "initial" else points.weights
    if form == "normalised":
        norms, sizes = _norms(points.architecture, weights)
        weights = np.asarray(weights / np.repeat(norms, sizes, axis=1), np.float32)
    if name == "norm":
        return np.asarray(np.linalg.norm(weights, axis=1, keepdims=True), np.float32)
    if name == "norms":
        return _norms(points.architecture, weights)[0]
    if name == "statistics":
        return statistics(points.architecture, weights)
    return answers(points, weights) if name == "answers" else weights


def _norms(architecture: Architecture, weights: Floats) -> tuple[Floats, list[int]]:
    """The Euclidean norm of every tensor, float32 [n, tensors] (1 for a tensor of zeros), and their sizes."""
    found = [np.linalg.norm(weights[:, place], axis=1) for place in params.places(architecture).values()]
    norms = np.asarray(np.stack(found, axis=1), np.float32)
    return np.where(norms > 0.0, norms, np.float32(1.0)), [tensor.size for tensor in architecture.tensors()]


def statistics(architecture: Architecture, weights: Floats) -> Floats:
    """Return mean, standard deviation, Euclidean norm and QUANTILES of every tensor, float32 [n, 8 * tensors]."""
    chunks = []
    for first in range(0, len(weights), _CHUNK):
        columns: list[npt.NDArray[np.float64]] = []
        for place in params.places(architecture).values():
            tensor = weights[first : first + _CHUNK, place].astype(np.float64)
            columns += [tensor.mean(axis=1), tensor.std(axis=1), np.sqrt(np.square(tensor).sum(axis=1))]
            columns += list(np.quantile(tensor, QUANTILES, axis=1))
        chunks.append(np.stack(columns, axis=1).astype(np.float32))
    return np.concatenate(chunks)


def answers(points: Points, weights: Floats) -> Floats:
    """Return the outputs for PROBES fixed sequences without planted keys, float32 [n, PROBES * T * O].

    Raises:
        UsageError: the tasks have different symbols.
    """
    tables = [catalog.load(source).table for source in points.sources]
    if any(not np.array_equal(table.inputs, tables[0].inputs) for table in tables):
        raise UsageError("the tasks have different symbols, so no sequence can be put to all networks")
    steps = points.sources[0].recipe.steps
    symbols = tables[0].sample(rng.stream_key(0, "analysis:probes"), rng.FRESH_SEQUENCES, PROBES, steps)
    inputs = lines(tables[0].inputs[symbols], INPUT_LINES)
    cpu = backends.evaluator()
    result = np.empty((len(weights), PROBES * steps * points.architecture.outputs), np.float32)
    for row, vector in zip(result, weights, strict=True):
        row[:] = cpu.outputs(points.architecture, vector, inputs).reshape(-1)
    return result
