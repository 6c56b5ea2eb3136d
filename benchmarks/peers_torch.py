"""PyTorch: eager steps, and curvature with torch.func."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from .cases import RATE, Case

ACTIVATIONS = {"sigmoid": torch.sigmoid, "tanh": torch.tanh, None: lambda a: a}
MODULES = {"sigmoid": torch.nn.Sigmoid, "tanh": torch.nn.Tanh}
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def start(case: Case) -> list[torch.Tensor]:
    """W and b of every layer."""
    return [torch.tensor(a, requires_grad=True) for layer in case.layers(case.params().vector) for a in layer]


def network(case: Case) -> torch.nn.Sequential:
    """The same network of torch.nn's modules."""
    parameters, layers = start(case), []
    for k, name in enumerate(case.activations):
        layers.append(torch.nn.Linear(*case.sizes[k : k + 2]))
        layers[-1].weight, layers[-1].bias = map(torch.nn.Parameter, parameters[2 * k : 2 * k + 2])
        layers += [MODULES[name]()] if name else []
    return torch.nn.Sequential(*layers)


def mean_loss(case: Case, z: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """R of the output z."""
    return F.mse_loss(z, y, reduction="sum") / case.n if case.loss == "squared_error" else F.cross_entropy(z, y)


class Loop:
    """One step of SGD: one call for every parameter."""

    def __init__(self, case: Case, rate: float = RATE):
        self.case = case
        self.parameters = start(case)
        self.x, self.y = map(torch.from_numpy, case.batch)
        self.rate = rate

    def theta(self) -> np.ndarray:
        return np.concatenate([p.detach().numpy().ravel() for p in self.parameters])

    def loss(self) -> torch.Tensor:
        h, p = self.x, self.parameters
        for k, activation in enumerate(self.case.activations):
            h = ACTIVATIONS[activation](F.linear(h, p[2 * k], p[2 * k + 1]))
        return mean_loss(self.case, h, self.y)

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
        self.net = network(case)
        self.parameters = list(self.net.parameters())
        self.sgd = torch.optim.SGD(self.parameters, lr=rate, foreach=True)

    def loss(self) -> torch.Tensor:
        return mean_loss(self.case, self.net(self.x), self.y)

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


# ---------------------------------------------------------------------------------------------------- curvature


class _Functions:
    """R and the output as functions of a tuple of parameters, and a direction."""

    def __init__(self, case: Case, v: np.ndarray):
        self.case = case
        self.parameters = tuple(p.detach() for p in start(case))
        self.direction = tuple(torch.from_numpy(a) for layer in case.layers(v) for a in layer)
        self.x, self.y = map(torch.from_numpy, case.batch)

    def output(self, *p: torch.Tensor) -> torch.Tensor:
        h = self.x
        for k, activation in enumerate(self.case.activations):
            h = ACTIVATIONS[activation](F.linear(h, p[2 * k], p[2 * k + 1]))
        return h

    def above(self, z: torch.Tensor) -> torch.Tensor:
        return mean_loss(self.case, z, self.y)

    def mean_loss(self, *p: torch.Tensor) -> torch.Tensor:
        return self.above(self.output(*p))

    def signals(self) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The output and every layer's pre-activation, recorded from the lowest of these on: no dW is formed."""
        h, found = self.x, []
        for k, activation in enumerate(self.case.activations):
            found.append(F.linear(h, *self.parameters[2 * k : 2 * k + 2]))
            found[0].requires_grad_()
            h = ACTIVATIONS[activation](found[-1])
        return h, found


def signals(case: Case, v: np.ndarray) -> Callable[[], Any]:
    """∂ℓ/∂a of every layer."""
    own = _Functions(case, v)

    def run():
        z, found = own.signals()
        return torch.autograd.grad(own.above(z) * case.n, found)

    return run


def jacobians(case: Case, v: np.ndarray) -> Callable[[], Any]:
    """J_a of every layer, all outputs in one batched pass."""
    own, c = _Functions(case, v), case.sizes[-1]
    rows = torch.eye(c)[:, None, :].expand(c, case.n, c)

    def run():
        z, found = own.signals()
        return torch.autograd.grad(z, found, rows, is_grads_batched=True)

    return run


def ggn_vector(case: Case, v: np.ndarray) -> Callable[[], Any]:
    """Jᵀ H_z J v with torch.func."""
    own, func = _Functions(case, v), torch.func

    def run():
        z, pull = func.vjp(own.output, *own.parameters)
        moved = func.jvp(own.output, own.parameters, own.direction)[1]
        return pull(func.jvp(func.grad(own.above), (z,), (moved,))[1])

    return run


def hessian_vector(case: Case, v: np.ndarray) -> Callable[[], Any]:
    """∇²R v with torch.func, forward over reverse."""
    own, func = _Functions(case, v), torch.func
    gradient = func.grad(own.mean_loss, argnums=tuple(range(len(own.parameters))))
    return lambda: func.jvp(gradient, own.parameters, own.direction)[1]


QUANTITIES = {
    "h, da of every example": signals,
    "GGN·v": ggn_vector,
    "H·v": hessian_vector,
    "J_a of all layers": jacobians,
}
