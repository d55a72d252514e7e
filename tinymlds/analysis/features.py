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

FEATURES = {
    "raw": "the weights as one vector",
    "statistics": "mean, deviation, norm and quantiles of each tensor",
    "answers": "the outputs for fixed input sequences",
    "epochs": "the logarithm of the number of epochs alone",
    "task": "the task alone",
}
FORMS = {
    "plain": "as trained",
    "moved": "trained on plain weights, tested on randomly transformed ones",
    "transformed": "each network changed by a random symmetry of its own",
    "canonical": "brought into the canonical form",
    "initial": "control: weights before training",
    "equalised": "control: as many networks of each class with each number of epochs",
}
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
        name: one of FEATURES.
        form: one of FORMS; for test networks, moved means transformed.
        seed: seed of the random symmetries.

    Raises:
        UsageError: the answers of networks with different symbols cannot be compared.
    """
    if name == "epochs":
        return np.log(np.maximum(points.epochs, 1)).astype(np.float32)[:, None]
    if name == "task":
        return np.eye(len(points.sources), dtype=np.float32)[points.source]
    weights = formed(points, form, seed)
    if name == "statistics":
        return statistics(points.architecture, weights)
    return answers(points, weights) if name == "answers" else weights


def formed(points: Points, form: str, seed: int) -> Floats:
    """Return the weights in one of FORMS, [n, P]."""
    if form in DRAWN:
        return symmetry.transform(points.architecture, points.weights, seed)
    if form == "canonical":
        return symmetry.canonicalize(points.architecture, points.weights)
    return points.initial() if form == "initial" else points.weights


def statistics(architecture: Architecture, weights: Floats) -> Floats:
    """Return mean, standard deviation, Euclidean norm and QUANTILES of every tensor, float32 [n, 8 * tensors]."""
    return np.concatenate(
        [_statistics(architecture, weights[first : first + _CHUNK]) for first in range(0, len(weights), _CHUNK)]
    )


def _statistics(architecture: Architecture, weights: Floats) -> Floats:
    columns: list[npt.NDArray[np.float64]] = []
    for place in params.places(architecture).values():
        tensor = weights[:, place].astype(np.float64)
        columns += [tensor.mean(axis=1), tensor.std(axis=1), np.sqrt(np.square(tensor).sum(axis=1))]
        columns += list(np.quantile(tensor, QUANTILES, axis=1))
    return np.stack(columns, axis=1).astype(np.float32)


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
