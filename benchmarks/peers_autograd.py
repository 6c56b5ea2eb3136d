"""HIPS autograd, as its manual has it."""

from __future__ import annotations

from typing import Any

import autograd
import autograd.numpy as anp
import numpy as np
from autograd.scipy.special import logsumexp

from .cases import RATE, Case

ACTIVATIONS = {"sigmoid": lambda a: 0.5 * (1.0 + anp.tanh(0.5 * a)), "tanh": anp.tanh, None: lambda a: a}


class Autograd:
    """One step of SGD."""

    def __init__(self, case: Case, rate: float = RATE):
        self.case = case
        self.parameters = [a.copy() for layer in case.layers(case.params().vector) for a in layer]
        self.rate = np.float32(rate)
        self.gradient = autograd.grad(self.loss)

    def theta(self) -> np.ndarray:
        return np.concatenate([p.ravel() for p in self.parameters])

    def loss(self, p: list) -> Any:
        h, y = self.case.batch[0], self.case.targets
        for k, activation in enumerate(self.case.activations):
            h = ACTIVATIONS[activation](anp.dot(h, p[2 * k].T) + p[2 * k + 1])
        if self.case.loss == "squared_error":
            return anp.sum((h - y) ** 2) / self.case.n
        return (anp.sum(logsumexp(h, axis=1)) - anp.sum(h * y)) / self.case.n

    def step(self) -> None:
        for p, g in zip(self.parameters, self.gradient(self.parameters)):
            p -= self.rate * g


STEPS = {"autograd": Autograd}


def chain(x: np.ndarray, c: np.ndarray, length: int) -> Any:
    """Forward and backward through y ← y + c, as a function without arguments."""

    def steps(y):
        for _ in range(length):
            y = y + c
        return y

    ones = np.ones_like(x)
    return lambda: autograd.make_vjp(steps)(x)[0](ones)
