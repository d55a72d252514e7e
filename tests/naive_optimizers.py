"""Optimizers as plainly as possible: NumPy, float64, no code of `tinymlds.kernels`; the oracle beside `naive.py`.

Each is made from tensors and options by their names in a recipe; `step` modifies the tensors, a dict by name, in place.
"""

import naive
import numpy as np


class Plain:
    """What all of them have: options, and memory m and v of each tensor."""

    def __init__(self, tensors, lr, **options):
        self.lr, self.o, self.t = lr, options, 0
        self.m = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}
        self.v = {name: np.zeros_like(tensor) for name, tensor in tensors.items()}

    def step(self, tensors, gradients):
        self.t += 1
        for name, g in gradients.items():
            tensors[name][...] = self.new(tensors[name], name, g)

    def penalized(self, p, g):
        return g + self.o["weight_decay"] * p

    def shrunk(self, p):
        return p - self.lr * self.o["weight_decay"] * p


class Sgd(Plain):
    def new(self, p, name, g):
        return p - self.lr * self.penalized(p, g)


class Momentum(Plain):
    def new(self, p, name, g):
        self.m[name] = self.o["momentum"] * self.m[name] + self.penalized(p, g)
        return p - self.lr * self.m[name]


class Nesterov(Plain):
    def new(self, p, name, g):
        g = self.penalized(p, g)
        self.m[name] = self.o["momentum"] * self.m[name] + g
        return p - self.lr * (g + self.o["momentum"] * self.m[name])


class RmsProp(Plain):
    def new(self, p, name, g):
        g = self.penalized(p, g)
        self.v[name] = self.o["alpha"] * self.v[name] + (1 - self.o["alpha"]) * g**2
        return p - self.lr * g / (np.sqrt(self.v[name]) + self.o["eps"])


class Adagrad(Plain):
    def new(self, p, name, g):
        g = self.penalized(p, g)
        self.v[name] = self.v[name] + g**2
        return p - self.lr * g / (np.sqrt(self.v[name]) + self.o["eps"])


class Adam(Plain):
    """`naive.Adam`, made from options."""

    def __init__(self, tensors, lr, **options):
        super().__init__(tensors, lr, **options)
        self.adam = naive.Adam(tensors, lr, options["beta1"], options["beta2"], options["eps"])
        self.m, self.v = self.adam.m, self.adam.v

    def step(self, tensors, gradients):
        self.adam.step(tensors, gradients)


class AdamW(Adam):
    def step(self, tensors, gradients):
        for tensor in tensors.values():
            tensor[...] = self.shrunk(tensor)
        super().step(tensors, gradients)


class Lion(Plain):
    def new(self, p, name, g):
        direction = self.o["beta1"] * self.m[name] + (1 - self.o["beta1"]) * g
        self.m[name] = self.o["beta2"] * self.m[name] + (1 - self.o["beta2"]) * g
        return self.shrunk(p) - self.lr * np.sign(direction)


def orthogonalise(G):
    """Five Newton-Schulz iterations, as Jordan et al. (2024) print them."""
    a, b, c = 3.4445, -4.775, 2.0315
    X = G.T if G.shape[0] > G.shape[1] else G
    X = X / max(np.linalg.norm(X), 1e-7)
    for _ in range(5):
        A = X @ X.T
        X = a * X + (b * A + c * A @ A) @ X
    return X.T if G.shape[0] > G.shape[1] else X


class Muon(AdamW):
    def step(self, tensors, gradients):
        matrices = {name: tensor for name, tensor in tensors.items() if tensor.ndim == 2}
        mu = self.o["momentum"]
        for name, p in matrices.items():
            self.m[name] = mu * self.m[name] + (1 - mu) * gradients[name]
            direction = orthogonalise(mu * self.m[name] + (1 - mu) * gradients[name])
            p[...] = self.shrunk(p) - self.lr * 0.2 * np.sqrt(max(p.shape)) * direction
        rest = {name: tensor for name, tensor in tensors.items() if tensor.ndim != 2}
        super().step(rest, {name: gradients[name] for name in rest})


ORACLES = {kind.__name__.lower(): kind for kind in (Adam, AdamW, Lion, Muon, Sgd, Momentum, Nesterov, RmsProp, Adagrad)}
