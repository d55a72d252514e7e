"""The CUDA backend: what lies on the device, and the launches that keep it busy."""

import time
from collections.abc import Callable, Sequence

import numpy as np

from tinymlds.architectures import Architecture
from tinymlds.kernels import rng
from tinymlds.kernels.cuda import (
    SIMULATED,
    CudaError,
    compile_kernel,
    cuda,
    device_name,
    failures,
    free_bytes,
    require_device,
    resident_blocks,
)
from tinymlds.kernels.gpu import layout
from tinymlds.kernels.gpu.kernel import ARGUMENTS, kernels_of, train
from tinymlds.kernels.optimizers import Optimizer
from tinymlds.kernels.problem import LONGEST_JOB, Floats, Job, Problem, Rate, Stretch, check_arithmetic, constants
from tinymlds.kernels.rng import Key

_NOT_FINITE = {
    layout.NOT_DIVERGED: "",
    layout.LOSS: "training loss",
    layout.WEIGHTS: "weights",
    layout.VALIDATION: "validation loss",
}
_MEMORY = 0.9
"""Share of the free memory that is used."""


class CudaBackend:
    """Trains populations on the current CUDA device; see `backends.DeviceBackend`."""

    name = "cuda"

    def __init__(self) -> None:
        require_device()
        self.device = device_name()

    def prepare(self, architecture: Architecture, optimizer: Optimizer) -> None:
        check_arithmetic()
        compile_kernel(train(architecture, type(optimizer)), ARGUMENTS)

    def population(
        self, problems: Sequence[Problem], keys: Sequence[Key], lr_at: Callable[[int], Rate], threshold: float, most: int
    ) -> "CudaPopulation":
        """An empty population; see `backends.DeviceBackend`."""
        architecture, optimizer = problems[0].architecture, problems[0].optimizer
        threads = kernels_of(architecture).threads(architecture)
        self.prepare(architecture, optimizer)
        kernel = train(architecture, type(optimizer))
        with failures("cannot start"):
            places = min(most, resident_blocks(kernel, threads))
            if places < 1:
                raise CudaError(f"a multiprocessor of {self.device} has no room for {architecture.about().sizes}")
            return CudaPopulation(kernel, problems, keys, lr_at, threshold, places)


class CudaPopulation:
    """Networks on a device, a thread block for each; see `backends.Population`."""

    def __init__(
        self,
        kernel: Callable[..., None],
        problems: Sequence[Problem],
        keys: Sequence[Key],
        lr_at: Callable[[int], Rate],
        threshold: float,
        places: int,
    ) -> None:
        first = problems[0]
        architecture, steps = first.architecture, first.train.inputs.shape[1]
        kernels = kernels_of(architecture)
        arena = layout.arena(architecture, kernels.own_floats(architecture, steps), steps).size
        self._threads = kernels.threads(architecture)
        self.places = _places_that_fit(places, problems, arena)
        self._kernel, self._problem, self._lr_at = kernel, first, lr_at
        self._minibatches = first.train.inputs.shape[0] // first.batch
        self._sequences = [
            _stacked([getattr(getattr(problem, part), side) for problem in problems])
            for part in ("train", "validation")
            for side in ("inputs", "outputs")
        ]
        self._keys = cuda.to_device(np.array(keys, np.uint64).reshape(-1, 2))
        self._halves = cuda.to_device(np.array(rng.halves(first.train.inputs.shape[0]), np.uint64))
        self._fixed = cuda.to_device(_fixed(first, threshold, self._minibatches))
        self._state = cuda.device_array((self.places, 4, architecture.size), np.float32)
        self._arenas = cuda.device_array((self.places, arena), np.float32)
        self._jobs = cuda.device_array((self.places, len(Job._fields)), np.int32)
        self._records = cuda.device_array((self.places, LONGEST_JOB, 2), np.float32)
        self._results = cuda.device_array((self.places, 3), np.int32)
        self._carried = first.optimizer.start
        self._known_factors: list[Floats] = []
        self._factors = cuda.to_device(np.empty((1, 1, 1), np.float32))
        self._running: list[Job] = []
        self._began, self._ended = cuda.event(), cuda.event()
        self.seconds = 0.0

    def admit(self, place: int, weights: Floats) -> None:
        with failures():
            self._state[place, layout.PARAMETERS].copy_to_device(np.ascontiguousarray(weights))

    def start(self, jobs: Sequence[Job]) -> None:
        self._running = list(jobs)
        with failures():
            self._need_factors(max(job.epoch + job.epochs - 1 for job in jobs))
            self._jobs[: len(jobs)].copy_to_device(np.array(jobs, np.int32))
            started = time.perf_counter()
            self._began.record()
            self._kernel[len(jobs), self._threads](  # type: ignore[index]
                self._jobs,
                self._problem.train.inputs.shape[1],
                self._problem.batch,
                *self._sequences,
                self._keys,
                self._halves,
                self._factors,
                self._fixed,
                self._state,
                self._arenas,
                self._records,
                self._results,
            )
            self._ended.record()
            self.seconds = time.perf_counter() - started  # in the simulator, where it has ended

    def finish(self) -> list[Stretch]:
        number = len(self._running)
        with failures():
            results = self._results[:number].copy_to_host()
            if not SIMULATED:
                self.seconds = self._began.elapsed_time(self._ended) / 1e3
            records = self._records[:number].copy_to_host()
        stretches = []
        for (done, cause, step), record in zip(results.tolist(), records, strict=True):
            losses = record[:done].copy()
            stretches.append(Stretch(losses[:, 0], losses[:, 1], _NOT_FINITE[cause], step))
        return stretches

    def weights(self, place: int) -> Floats:
        with failures():
            weights: Floats = self._state[place, layout.PARAMETERS].copy_to_host()
        return weights

    def _need_factors(self, epochs: int) -> None:
        """Have the optimizer's factors of the first so many epochs on the device, and of some more for the next times."""
        known = len(self._known_factors)
        if epochs <= known:
            return
        optimizer = self._problem.optimizer
        for epoch in range(known + 1, epochs + LONGEST_JOB):
            factors, self._carried = optimizer.factors(self._lr_at(epoch), self._carried, self._minibatches)
            self._known_factors.append(factors)
        self._factors = cuda.to_device(np.stack(self._known_factors))


def _fixed(problem: Problem, threshold: float, minibatches: int) -> Floats:
    """The numbers that stay the same over a run, in the places that `gpu/layout.py` names."""
    optimizer, mean = constants(problem)
    limit = np.float32(threshold)
    if float(limit) < threshold:  # then no float32 lies between: loss < threshold if and only if loss < limit
        limit = np.nextafter(limit, np.float32(np.inf))
    validation_terms = problem.validation.inputs.size * problem.architecture.outputs
    return np.array([*mean, 1.0 / minibatches, 1.0 / validation_terms, limit, *optimizer], np.float32)


def _stacked(arrays: list[np.ndarray]) -> object:
    """Arrays of one shape, one after another in device memory, uint16 [tasks, N, T]."""
    stack = cuda.device_array((len(arrays), *arrays[0].shape), np.uint16)
    for k, array in enumerate(arrays):
        stack[k].copy_to_device(np.ascontiguousarray(array))
    return stack


def _places_that_fit(wanted: int, problems: Sequence[Problem], arena: int) -> int:
    """As many places as are wanted and the device has memory for.

    Raises:
        CudaError: not even one.
    """
    sequences = 4 * sum(part.inputs.size for problem in problems for part in (problem.train, problem.validation))
    one = 4 * (arena + 4 * problems[0].architecture.size + 2 * LONGEST_JOB)
    free = free_bytes() * _MEMORY
    fitting = min(float(wanted), (free - sequences) // one)
    if fitting < 1:
        raise CudaError(
            f"{device_name()} has {free / 1e9:.2f} GB to spare, and the sequences of {len(problems)} tasks take "
            f"{sequences / 1e9:.2f} GB, a network {one / 1e9:.3f} GB; ask for fewer tasks, or fewer or shorter sequences"
        )
    return int(fitting)
