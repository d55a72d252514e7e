"""Trainers of many networks at once, and of one in JAX: the other ways to be fast, written as their careful users would.

All do the work of `tinymlds.training.loop`: the same sequences, initial weights, orders and minibatches, mean squared
error, and Adam with the same constants. `compare.py --rivals` measures them beside ours; their first losses and weights
must be ours.

- `StackedTorch`: N networks stacked along the first axis of every tensor, products by `torch.baddbmm`, autograd, fused
  Adam. The products with the inputs are one call for all steps; a step through time is one for all networks.
- `Jax`: gather, forward, backward and Adam of many minibatches inside one `jit`, minibatches and time steps by `lax.scan`
  (time unrolled `unroll` times); more than one network by `vmap`.

Both multiply the small matrices of the linear maps first, as our kernels do, and on a CPU both run on one thread.
`gpu.py` runs them on a GPU, where `GraphedTorch` is the first of them as a CUDA graph. There are reports that JAX on a CPU
was faster at such small loops before version 0.4.32; the versions measured are in the JSON.
"""

import os
from functools import lru_cache
from typing import Any

os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
os.environ["NPROC"] = "1"  # threads of JAX on a CPU

from dataclasses import astuple

import numpy as np
import torch
from torch.nn import functional

from tinymlds.architectures import params
from tinymlds.architectures.recurrent import GruLinear
from tinymlds.kernels import rng
from tinymlds.kernels.problem import Floats
from tinymlds.spec import Recipe, Setting
from tinymlds.tasks.mealy import lines
from tinymlds.training import data


@lru_cache(maxsize=1)
def _data(task: str, seed: int, recipe: Recipe) -> tuple[Floats, Floats]:
    """Input and output lines of the training sequences, float32 [T, N, lines]."""
    sequences, shape = data.problem(Setting(task, seed, recipe)).train, recipe.architecture
    pairs = (sequences.inputs, shape.inputs), (sequences.outputs, shape.outputs)
    inputs, outputs = (np.ascontiguousarray(lines(words.T, count), np.float32) for words, count in pairs)
    return inputs, outputs


class Population:
    """Networks 0 ... count - 1 of a task, and the minibatches that each of them sees."""

    def __init__(self, task: str, seed: int, recipe: Recipe, count: int) -> None:
        key = rng.stream_key(seed, task)
        self.count, self.recipe, self.shape = count, recipe, recipe.architecture
        self.sample_steps = count * recipe.batch * recipe.steps
        """Of one step of all networks."""
        initial = np.stack([params.initial(recipe.architecture, key, index) for index in range(count)])
        self.tensors = _stacked(recipe.architecture, initial)
        self.inputs, self.outputs = _data(task, seed, recipe)
        orders = [rng.permutation(key, index, 1, recipe.train_sequences) for index in range(count)]
        self.orders = np.stack(orders).astype(np.int32).reshape(count, -1, recipe.batch).transpose(1, 0, 2).copy()
        """Which sequences each minibatch of an epoch holds: int32 [minibatches, count, batch]."""
        self._next = 0

    def next_steps(self, steps: int) -> np.ndarray:
        """The next minibatches, as places in `orders`; an epoch follows the other."""
        wanted = np.arange(self._next, self._next + steps) % len(self.orders)
        self._next += steps
        return wanted


def _stacked(shape: GruLinear, vectors: Floats) -> dict[str, Floats]:
    """name -> [count, ...] from parameter vectors [count, P]."""
    every = [params.to_tensors(shape, vector) for vector in vectors]
    return {name: np.stack([tensors[name] for tensors in every]) for name, *_ in shape.tensors()}


class StackedTorch:
    """Steps of `count` networks stacked by hand, on the CPU or another device of PyTorch's."""

    capturable = False
    """Whether a step can be captured into a CUDA graph."""

    def __init__(self, population: Population, device: str = "cpu") -> None:
        self._population, self._device = population, device
        self._tensors = {
            name: torch.tensor(array, requires_grad=True, device=device) for name, array in population.tensors.items()
        }
        self._inputs, self._outputs = (torch.from_numpy(a).to(device) for a in (population.inputs, population.outputs))
        self._orders = torch.from_numpy(population.orders).to(device)
        *betas, eps = astuple(population.recipe.optimizer)
        self._optimizer = torch.optim.Adam(
            self._tensors.values(),
            lr=population.recipe.lr,
            betas=tuple(betas),
            eps=eps,
            fused=True,
            capturable=self.capturable,
        )
        self.sample_steps = population.sample_steps

    @property
    def weights(self) -> Floats:
        """[count, P]."""
        every = [tensor.detach().reshape(self._population.count, -1) for tensor in self._tensors.values()]
        return torch.cat(every, dim=1).cpu().numpy()

    def __call__(self, steps: int) -> Floats:
        """Losses, float32 [steps, count]."""
        return torch.stack([self._step(self._orders[k]) for k in self._population.next_steps(steps)]).cpu().numpy()

    def _step(self, batch: torch.Tensor) -> torch.Tensor:
        x, target = (self._select(lines, batch) for lines in (self._inputs, self._outputs))
        losses = functional.mse_loss(self._forward(x), target, reduction="none").mean(dim=(1, 2))
        self._optimizer.zero_grad()
        losses.sum().backward()
        self._optimizer.step()
        return losses.detach()

    def _select(self, lines: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        """[count, T * B, lines]."""
        steps, count = lines.shape[0], self._population.count
        chosen = lines.index_select(1, batch.reshape(-1)).view(steps, count, -1, lines.shape[-1])
        return chosen.transpose(0, 1).reshape(count, -1, lines.shape[-1])

    def _forward(self, x: torch.Tensor) -> torch.Tensor:
        shape, w = self._population.shape, self._tensors
        count, steps, H = x.shape[0], self._population.recipe.steps, shape.hidden
        for layer in range(shape.layers):
            w_x, w_h, b_x, b_h = (w[f"gru.{kind}_l{layer}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
            from_x = torch.baddbmm(b_x[:, None], x, w_x.mT).view(count, steps, -1, 3 * H).unbind(1)
            w_h, b_h = w_h.mT, b_h[:, None]
            h, states = x.new_zeros(count, from_x[0].shape[1], H), []
            for x_t in from_x:
                h_t = torch.baddbmm(b_h, h, w_h)
                r, z = torch.sigmoid(x_t[..., : 2 * H] + h_t[..., : 2 * H]).chunk(2, dim=-1)
                n = torch.tanh(torch.addcmul(x_t[..., 2 * H :], r, h_t[..., 2 * H :]))
                h = torch.lerp(n, h, z)
                states.append(h)
            x = torch.stack(states, dim=1).view(count, -1, H)
        matrix, constant = w["head.0.weight"], w["head.0.bias"][:, :, None]
        for k in range(1, shape.maps):  # without an activation the maps are one: multiply the small matrices first
            weight = w[f"head.{k}.weight"]
            matrix, constant = weight @ matrix, torch.baddbmm(w[f"head.{k}.bias"][:, :, None], weight, constant)
        return torch.baddbmm(constant.mT, x, matrix.mT)


class GraphedTorch(StackedTorch):
    """The same on a GPU, with a whole step captured into a CUDA graph, so that Python launches one thing a step."""

    capturable = True

    def __init__(self, population: Population, device: str = "cuda") -> None:
        super().__init__(population, device)
        self._chosen = self._orders[0].clone()
        before = [tensor.detach().clone() for tensor in self._tensors.values()]
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # PyTorch asks for some steps on a side stream before a capture
                super()._step(self._chosen)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._losses = super()._step(self._chosen)
        with torch.no_grad():  # back to the beginning: weights, moments and the number of steps
            for tensor, start in zip(self._tensors.values(), before, strict=True):
                tensor.copy_(start)
            for state in self._optimizer.state.values():
                for value in state.values():
                    value.zero_()

    def _step(self, batch: torch.Tensor) -> torch.Tensor:
        self._chosen.copy_(batch)
        self._graph.replay()
        return self._losses.clone()


class Jax:
    """Steps of `count` networks in JAX. A new number of steps is compiled when it is first asked for."""

    def __init__(self, population: Population, unroll: int) -> None:
        import jax

        self._population = population
        zeros = {name: np.zeros_like(array) for name, array in population.tensors.items()}
        self._state = jax.device_put((population.tensors, zeros, zeros))
        self._data = jax.device_put((population.inputs, population.outputs, population.orders))
        self._run, self._powers = _compiled(population.shape, population.recipe, unroll, population.count > 1), (1.0, 1.0)
        if population.count == 1:
            self._state = jax.tree.map(lambda array: array[0], self._state)
        self.sample_steps = population.sample_steps

    @property
    def weights(self) -> Floats:
        """[count, P]."""
        tensors = [
            self._state[0][name] for name, _ in self._population.shape.tensors()
        ]  # JAX sorts a dictionary by its keys
        return np.concatenate([np.asarray(tensor).reshape(self._population.count, -1) for tensor in tensors], axis=1)

    def __call__(self, steps: int) -> Floats:
        """Losses, float32 [steps, count]."""
        recipe = self._population.recipe
        places = self._population.next_steps(steps).astype(np.int32)
        factors, self._powers = recipe.optimizer.factors(recipe.lr, self._powers, steps)
        self._state, losses = self._run(self._state, places, factors, self._data)
        return np.asarray(losses).reshape(steps, -1)


def _compiled(shape: GruLinear, recipe: Recipe, unroll: int, several: bool) -> Any:
    """(state, places of minibatches, factors, data) -> (state, losses)."""
    import jax
    from jax import lax
    from jax import numpy as jnp

    beta1, beta2, eps = astuple(recipe.optimizer)
    H = shape.hidden

    def layer(w: Any, k: int, x: Any) -> Any:
        w_x, w_h, b_x, b_h = (w[f"gru.{kind}_l{k}"] for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))

        def step(h: Any, from_x: Any) -> Any:
            from_h = h @ w_h.T + b_h
            r, z = jnp.split(jax.nn.sigmoid(from_x[:, : 2 * H] + from_h[:, : 2 * H]), 2, axis=1)
            n = jnp.tanh(from_x[:, 2 * H :] + r * from_h[:, 2 * H :])
            h = n + z * (h - n)
            return h, h

        return lax.scan(step, jnp.zeros((x.shape[1], H), jnp.float32), x @ w_x.T + b_x, unroll=unroll)[1]

    def loss(w: Any, x: Any, target: Any) -> Any:
        for k in range(shape.layers):
            x = layer(w, k, x)
        matrix, constant = w["head.0.weight"], w["head.0.bias"]
        for k in range(1, shape.maps):  # without an activation the maps are one: multiply the small matrices first
            weight = w[f"head.{k}.weight"]
            matrix, constant = weight @ matrix, weight @ constant + w[f"head.{k}.bias"]
        return jnp.mean((x @ matrix.T + constant - target) ** 2)

    def minibatch(state: Any, batch: Any, factors: Any, data: Any) -> Any:
        w, m, v = state
        x, target = (lines.at[:, batch].get(mode="promise_in_bounds") for lines in data)
        value, gradient = jax.value_and_grad(loss)(w, x, target)
        m = jax.tree.map(lambda m, g: beta1 * m + (1.0 - beta1) * g, m, gradient)
        v = jax.tree.map(lambda v, g: beta2 * v + (1.0 - beta2) * g * g, v, gradient)
        w = jax.tree.map(lambda w, m, v: w - m * factors[0] / (jnp.sqrt(v) * factors[1] + eps), w, m, v)
        return (w, m, v), value

    one = jax.vmap(minibatch, in_axes=(0, 0, None, None)) if several else minibatch

    def run(state: Any, places: Any, factors: Any, data: Any) -> Any:
        *lines, orders = data

        def step(state: Any, at: Any) -> Any:
            batch = orders[at[0]]
            return one(state, batch if several else batch[0], at[1], lines)

        return lax.scan(step, state, (places, factors))

    return jax.jit(run, donate_argnums=0)
