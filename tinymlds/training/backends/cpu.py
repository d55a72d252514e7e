"""The CPU backend: one network at a time, in one thread."""

import numpy as np
import numpy.typing as npt

from tinymlds.architectures.recurrent import Adam, Shape
from tinymlds.kernels.cpu import State, Work, kernels, padded, workspace
from tinymlds.kernels.problem import Floats, Problem, Sequences, adam_factors, check_arithmetic, constants


def _everything(sequences: Sequences) -> npt.NDArray[np.uint32]:
    return np.arange(sequences.inputs.shape[0], dtype=np.uint32)


class CpuNetwork:
    """A network in training on the CPU; see `backend.Network`."""

    def __init__(self, problem: Problem, weights: Floats) -> None:
        self._problem = problem
        self._kernels = kernels(problem.shape)
        self._work = workspace(problem.shape, problem.train.inputs.shape[1])
        self._fixed = constants(problem)
        self._state = State(padded(weights), padded(np.zeros_like(weights)), padded(np.zeros_like(weights)))
        self._powers = (1.0, 1.0)

    @property
    def weights(self) -> Floats:
        return self._state.p[: self._problem.shape.size].copy()

    def epoch(self, order: npt.NDArray[np.uint32], lr: float) -> Floats:
        losses = np.empty(order.size // self._problem.batch, np.float32)
        factors, self._powers = adam_factors(self._problem.adam, lr, self._powers, losses.size)
        self._kernels.train(
            self._state, self._problem.train, order, self._problem.batch, factors, self._fixed, self._work, losses
        )
        return losses

    def validation_loss(self) -> np.float32:
        return _mean_squared_error(self._problem.shape, self._state.p, self._problem.validation, self._work)


def _mean_squared_error(shape: Shape, padded_weights: Floats, sequences: Sequences, work: Work) -> np.float32:
    total = kernels(shape).evaluate(padded_weights, sequences, _everything(sequences), work)
    return np.float32(total) * np.float32(1.0 / (sequences.inputs.size * shape.outputs))


class CpuBackend:
    """Trains on the CPU, one network at a time in one thread; see `backend.Backend`."""

    name = "cpu"

    def prepare(self, shape: Shape) -> None:
        """Compile or load the kernels of this shape by training on one sequence of zeros; see `backend.Backend`."""
        check_arithmetic()
        nothing = Sequences(np.zeros((1, 1), np.uint16), np.zeros((1, 1), np.uint16))
        network = self.network(Problem(shape, nothing, nothing, 1, Adam()), np.zeros(shape.size, np.float32))
        network.epoch(np.zeros(1, np.uint32), 0.0)
        network.validation_loss()

    def network(self, problem: Problem, weights: Floats) -> CpuNetwork:
        return CpuNetwork(problem, weights)

    def loss(self, shape: Shape, weights: Floats, sequences: Sequences) -> np.float32:
        return _mean_squared_error(shape, padded(weights), sequences, workspace(shape, sequences.inputs.shape[1]))

    def outputs(self, shape: Shape, weights: Floats, inputs: Floats) -> Floats:
        result = np.empty((*inputs.shape[:2], shape.outputs), np.float32)
        x = np.ascontiguousarray(inputs, np.float32)
        kernels(shape).outputs(padded(weights), x, result, workspace(shape, inputs.shape[1]))
        return result
