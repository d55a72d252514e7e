"""The CPU backend: one network at a time, in one thread."""

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from tinymlds.architectures import Architecture
from tinymlds.kernels import rng
from tinymlds.kernels.minibatch import Work, evaluation, initial_state, padded, training, workspace
from tinymlds.kernels.optimizers import Optimizer
from tinymlds.kernels.problem import Floats, Job, Problem, Rate, Sequences, Stretch, check_arithmetic, constants
from tinymlds.kernels.rng import Key
from tinymlds.training.backends import Network


class CpuNetwork:
    """A network in training on the CPU; see `backends.Network`."""

    def __init__(self, problem: Problem, weights: Floats) -> None:
        self._problem = problem
        self._train = training(problem.architecture, type(problem.optimizer))
        self._work = workspace(problem.architecture, problem.train.inputs.shape[1])
        self._fixed = constants(problem)
        self._state = initial_state(problem.architecture, problem.optimizer, weights)
        self._carried = problem.optimizer.start

    @property
    def weights(self) -> Floats:
        return self._state.p[: self._problem.architecture.size].copy()

    def epoch(self, order: npt.NDArray[np.uint32], lr: Rate) -> Floats:
        losses = np.empty(order.size // self._problem.batch, np.float32)
        factors, self._carried = self._problem.optimizer.factors(lr, self._carried, losses.size)
        self._train(self._state, self._problem.train, order, self._problem.batch, factors, self._fixed, self._work, losses)
        return losses

    def validation_loss(self) -> np.float32:
        return _mean_squared_error(self._problem.architecture, self._state.p, self._problem.validation, self._work)


def _mean_squared_error(architecture: Architecture, weights: Floats, sequences: Sequences, work: Work) -> np.float32:
    """The mean squared error of padded weights."""
    everything = np.arange(sequences.inputs.shape[0], dtype=np.uint32)
    total = evaluation(architecture).evaluate(weights, sequences, everything, work)
    return np.float32(total) * np.float32(1.0 / (sequences.inputs.size * architecture.outputs))


class OnePlace:
    """A population of one place, which trains an epoch at a time; see `backends.Population`."""

    places = 1

    def __init__(
        self,
        make: Callable[[Problem, Floats], Network],
        problems: Sequence[Problem],
        keys: Sequence[Key],
        lr_at: Callable[[int], Rate],
        threshold: float,
    ) -> None:
        self._make, self._problems, self._keys, self._lr_at, self._threshold = make, problems, keys, lr_at, threshold
        self.seconds = 0.0

    def admit(self, place: int, weights: Floats) -> None:
        self._weights = weights

    def start(self, jobs: Sequence[Job]) -> None:
        (self._job,) = jobs

    def finish(self) -> list[Stretch]:
        began, job = time.perf_counter(), self._job
        problem = self._problems[job.task]
        if job.epoch == 1:
            self._network = self._make(problem, self._weights)
        losses: list[tuple[np.float32, np.float32]] = []
        what, step = "", 0
        while len(losses) < job.epochs and not what:
            epoch = job.epoch + len(losses)
            order = rng.permutation(self._keys[job.task], job.network, epoch, problem.train.inputs.shape[0])
            minibatches = self._network.epoch(order, self._lr_at(epoch))
            validation, weights = self._network.validation_loss(), self._network.weights
            what, step = _not_finite(minibatches, weights, validation)
            if not what:
                self._weights = weights
                losses.append((mean(minibatches), validation))
                if validation < self._threshold:
                    break
        self.seconds = time.perf_counter() - began
        train, validations = np.array(losses, np.float32).reshape(-1, 2).T
        return [Stretch(train, validations, what, step)]

    def weights(self, place: int) -> Floats:
        return self._weights


def mean(losses: Floats) -> np.float32:
    """Mean of the minibatch losses, added one after another in float32 (NumPy's own sum has no fixed order)."""
    return np.float32(np.add.accumulate(losses)[-1] * np.float32(1.0 / losses.size))


def _not_finite(losses: Floats, weights: Floats, validation_loss: np.float32) -> tuple[str, int]:
    """Return what is not finite in an epoch, and after which step that was found; "" and 0 if all is finite."""
    broken = np.flatnonzero(~np.isfinite(losses))
    if broken.size:
        return "training loss", int(broken[0]) + 1
    if not np.isfinite(weights).all():
        return "weights", losses.size
    if not np.isfinite(validation_loss):
        return "validation loss", losses.size
    return "", 0


class CpuBackend:
    """Trains and evaluates on the CPU, one network at a time in one thread; see `backends.Backend` and `Evaluator`."""

    name = "cpu"

    def prepare(self, architecture: Architecture, optimizer: Optimizer) -> None:
        """Compile or load the kernels by training on one sequence of zeros; see `backends.Backend`."""
        check_arithmetic()
        nothing = Sequences(np.zeros((1, 1), np.uint16), np.zeros((1, 1), np.uint16))
        network = self.network(
            Problem(architecture, nothing, nothing, 1, optimizer), np.zeros(architecture.size, np.float32)
        )
        network.epoch(np.zeros(1, np.uint32), 0.0)
        network.validation_loss()

    def network(self, problem: Problem, weights: Floats) -> CpuNetwork:
        """A network with these initial weights, float32 [P], ready to train."""
        return CpuNetwork(problem, weights)

    def population(
        self, problems: Sequence[Problem], keys: Sequence[Key], lr_at: Callable[[int], Rate], threshold: float, most: int
    ) -> OnePlace:
        return OnePlace(self.network, problems, keys, lr_at, threshold)

    def loss(self, architecture: Architecture, weights: Floats, sequences: Sequences) -> np.float32:
        work = workspace(architecture, sequences.inputs.shape[1])
        return _mean_squared_error(architecture, padded(weights), sequences, work)

    def outputs(self, architecture: Architecture, weights: Floats, inputs: Floats) -> Floats:
        result = np.empty((*inputs.shape[:2], architecture.outputs), np.float32)
        x = np.ascontiguousarray(inputs, np.float32)
        evaluation(architecture).outputs(padded(weights), x, result, workspace(architecture, inputs.shape[1]))
        return result
