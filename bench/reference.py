"""The reference trainer: the same recipe in PyTorch, one thread, written as a careful user of PyTorch would write it.

It is a backend like the project's own (`tinymlds.training.backends`), so `loop.train_networks` gives both the same
sequences, initial weights, order of sequences in each epoch, validation and stop rule. nn.GRU, nn.Linear, float32.

Measured for the choices here (PyTorch 2.13 CPU, Xeon with AVX-512, T = 16, CPU time, the fastest of 15 alternations; small
differences are within the noise):

- Time first or batch first: 8.7 and 9.3 ms a step at B = 16, 12.2 and 13.1 ms at B = 128, no difference at B = 1024.
  So tensors are [T, B, ...] here, and nn.GRU need not transpose.
- Adam: fused is 3-6 % of a step faster than foreach and the plain loop up to B = 128; the three are alike at B = 1024.
- Minibatches out of tensors [T, N, lines] made once: `index_select` 3.7 ms an epoch of 128 steps, indexing 15 ms, and
  6 ms out of [N, T, lines]. An epoch takes 1.5 s.
- Validation under `inference_mode`: 41 ms in one piece of 2,048 sequences, 46 ms in pieces of 512, 65 ms in pieces of 128.
- `torch.compile` breaks the graph at nn.GRU and gains nothing, unless `torch._dynamo.config.allow_rnn` (off by default)
  is set: then a step takes half the time at B = 16 and 128 and two thirds at 1024, once a C++ compiler has worked for one
  to two minutes for each batch size. `TorchBackend(compiled=True)` is that rival.
"""

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from tinymlds.architectures import params
from tinymlds.architectures.recurrent import Recurrent
from tinymlds.kernels.problem import Floats, Problem, Sequences
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks.mealy import lines
from tinymlds.training import loop
from tinymlds.training.backends.cpu import OnePlace

torch.set_num_threads(1)


def module(shape: Recurrent) -> nn.Module:
    """A network with PyTorch's names that maps [T, B, I] to [T, B, O]."""
    result = shape.module()
    result.get_submodule(shape.cell.name).batch_first = False
    return result


def load(network: nn.Module, shape: Recurrent, vector: Floats) -> None:
    """Copy a parameter vector, float32 [P], into the module."""
    network.load_state_dict({name: torch.tensor(part) for name, part in params.to_tensors(shape, vector).items()})


class Batch(NamedTuple):
    """Input lines float32 [T, B, I] and output lines float32 [T, B, O]."""

    inputs: Tensor
    outputs: Tensor

    def select(self, order: Tensor) -> "Batch":
        """The sequences with these numbers, int64 [B]."""
        return Batch(self.inputs.index_select(1, order), self.outputs.index_select(1, order))


def expand(shape: Recurrent, sequences: Sequences) -> Batch:
    """All sequences as one batch, contiguous: `index_select` copies the whole of a tensor that is not, at every step."""
    pairs = (sequences.inputs, shape.inputs), (sequences.outputs, shape.outputs)
    return Batch(*(torch.from_numpy(np.ascontiguousarray(lines(words.T, count))) for words, count in pairs))


class Loss(nn.Module):
    """Mean squared error of a network over samples, steps and output lines."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, batch: Batch) -> Tensor:
        return functional.mse_loss(self.network(batch.inputs), batch.outputs)


def step(loss: nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> Tensor:
    """One training step; returns the loss before it, a scalar."""
    value: Tensor = loss(batch)
    optimizer.zero_grad()
    value.backward()
    optimizer.step()
    return value.detach()


class TorchNetwork:
    """A network in training; see `backends.Network`."""

    def __init__(self, problem: Problem, loss: nn.Module, train: Batch, validation: Batch) -> None:
        self._device = train.inputs.device
        self._loss, self._train, self._validation = loss, train, validation
        self._batch = problem.batch
        *betas, eps = astuple(problem.optimizer)
        self._optimizer = torch.optim.Adam(loss.parameters(), betas=tuple(betas), eps=eps, fused=True)

    @property
    def weights(self) -> Floats:
        return torch.cat([p.detach().reshape(-1) for p in self._loss.parameters()]).cpu().numpy()

    def epoch(self, order: npt.NDArray[np.uint32], lr: float) -> Floats:
        self._optimizer.param_groups[0]["lr"] = lr
        batches = torch.from_numpy(order.astype(np.int64)).to(self._device).split(self._batch)
        losses = [step(self._loss, self._optimizer, self._train.select(batch)) for batch in batches]
        return torch.stack(losses).cpu().numpy()

    def validation_loss(self) -> np.float32:
        with torch.inference_mode():
            loss = functional.mse_loss(self._module(self._validation.inputs), self._validation.outputs)
            return np.float32(loss.item())

    @property
    def _module(self) -> nn.Module:
        return self._loss.network  # never the compiled one: validation has another batch size


class TorchBackend:
    """Trains with PyTorch, on one thread or a GPU. Its networks share one module, so only the latest one can train."""

    def __init__(self, compiled: bool = False, device: str = "cpu") -> None:
        self.name = "torch compiled" if compiled else "torch"
        self._compiled, self._device = compiled, device
        self._problem: Problem | None = None

    def network(self, problem: Problem, weights: Floats) -> TorchNetwork:
        """A network with these initial weights, float32 [P]; see `backends.Network`."""
        if self._problem is not problem:
            self._problem = problem
            self._module = module(problem.architecture).to(self._device)
            self._loss = Loss(self._module)
            self._data = tuple(
                Batch(*(part.to(self._device) for part in expand(problem.architecture, sequences)))
                for sequences in (problem.train, problem.validation)
            )
            if self._compiled:
                torch._dynamo.config.allow_rnn = True
                self._loss.compile(dynamic=False)
        load(self._module, problem.architecture, weights)
        return TorchNetwork(problem, self._loss, *self._data)

    def population(self, problems: Sequence[Problem], keys: Any, lr_at: Any, threshold: float, most: int) -> OnePlace:
        """One network after another; see `backends.Backend`."""
        return OnePlace(self.network, problems, keys, lr_at, threshold)


def train_network(task: str, seed: int, recipe: Recipe, index: int, compiled: bool = False) -> loop.Outcome:
    """Train one network to the end: status, weights, losses of every epoch, and wall seconds."""
    return next(loop.train_networks(TorchBackend(compiled), Setting(task, seed, recipe), range(index, index + 1)))
