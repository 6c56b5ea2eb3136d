"""PyTorch eager."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .cases import RATE, Case

ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, None: lambda a: a}
MODULES = {"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh}
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


class Loop:
    """One step of SGD: one call for every parameter."""

    def __init__(self, case: Case, rate: float = RATE):
        self.parameters = [
            torch.tensor(a, requires_grad=True) for layer in case.layers(case.params().vector) for a in layer
        ]
        self.x, self.y = map(torch.from_numpy, case.batch)
        self.activations = [ACTIVATIONS[name] for name in case.activations]
        self.squared = case.loss == "squared_error"
        self.n = case.n
        self.rate = rate

    def theta(self) -> np.ndarray:
        return np.concatenate([p.detach().numpy().ravel() for p in self.parameters])

    def loss(self) -> torch.Tensor:
        h, p = self.x, self.parameters
        for k, activation in enumerate(self.activations):
            h = activation(F.linear(h, p[2 * k], p[2 * k + 1]))
        return F.mse_loss(h, self.y, reduction="sum") / self.n if self.squared else F.cross_entropy(h, self.y)

    def step(self) -> None:
        gradients = torch.autograd.grad(self.loss(), self.parameters)
        with torch.no_grad():
            for p, g in zip(self.parameters, gradients):
                p.add_(g, alpha=-self.rate)


class Foreach(Loop):
    """One call for all parameters."""

    def step(self) -> None:
        gradients = torch.autograd.grad(self.loss(), self.parameters)
        with torch.no_grad():
            torch._foreach_add_(self.parameters, gradients, alpha=-self.rate)


class Optimizer(Loop):
    """torch.nn's modules and torch.optim.SGD, as the tutorials have it."""

    def __init__(self, case: Case, rate: float = RATE):
        super().__init__(case, rate)
        layers = []
        for k, name in enumerate(case.activations):
            layers.append(torch.nn.Linear(*case.sizes[k : k + 2]))
            layers[-1].weight, layers[-1].bias = map(torch.nn.Parameter, self.parameters[2 * k : 2 * k + 2])
            layers += [MODULES[name]()] if name else []
        self.net = torch.nn.Sequential(*layers)
        self.parameters = list(self.net.parameters())
        self.sgd = torch.optim.SGD(self.parameters, lr=rate, foreach=True)

    def loss(self) -> torch.Tensor:
        h = self.net(self.x)
        return F.mse_loss(h, self.y, reduction="sum") / self.n if self.squared else F.cross_entropy(h, self.y)

    def step(self) -> None:
        self.sgd.zero_grad()
        self.loss().backward()
        self.sgd.step()


STEPS = {"torch loop": Loop, "torch foreach": Foreach, "torch optim.SGD": Optimizer}


def chain(x: np.ndarray, c: np.ndarray, length: int) -> Any:
    """Forward and backward through y ← y + c, as a function without arguments."""
    start, step = torch.tensor(x, requires_grad=True), torch.tensor(c)
    ones = torch.ones_like(start)

    def run():
        y = start
        for _ in range(length):
            y = y + step
        return torch.autograd.grad(y, start, ones)[0].numpy()

    return run
