"""What minigrad is measured against without a framework: the products alone, and NumPy written by hand."""

from __future__ import annotations

import numpy as np
from scipy.linalg import blas

from .cases import RATE, Case


class Floor:
    """The matrix products of one step and nothing else: L forward, L for dW, L − 1 for dh."""

    def __init__(self, case: Case):
        self.layers = case.layers(case.params().vector)
        self.gradients = case.layers(np.zeros_like(case.params().vector))
        rng = np.random.default_rng(0)
        self.h = [case.batch[0]] + [rng.random((case.n, n), dtype=np.float32) for n in case.sizes[1:]]
        self.d = [h.copy() for h in self.h]

    def step(self) -> None:
        h, d = self.h, self.d
        for k, (w, _) in enumerate(self.layers):
            np.dot(h[k], w.T, out=h[k + 1])
        for k in reversed(range(len(self.layers))):
            np.dot(d[k + 1].T, h[k], out=self.gradients[k][0])
            if k:
                np.dot(d[k + 1], self.layers[k][0], out=d[k])


class Handwritten:
    """One step in NumPy: everything preallocated, in place, the rate folded into the signal at the top."""

    def __init__(self, case: Case, rate: float = RATE):
        self.vector = case.params().vector
        self.delta = np.empty_like(self.vector)
        self.layers, self.deltas = case.layers(self.vector), case.layers(self.delta)
        self.x, self.y = case.batch[0], case.targets
        self.activations = case.activations
        self.squared = case.loss == "squared_error"
        self.a = [np.empty((case.n, n), np.float32) for n in case.sizes[1:]]
        self.d = [np.empty_like(a) for a in self.a]
        self.slope = [np.empty_like(a) for a in self.a]
        self.row, self.columns = np.empty(case.n, np.float32), np.empty((case.sizes[-1], case.n), np.float32)
        self.ones, self.classes = np.ones(case.n, np.float32), np.ones(case.sizes[-1], np.float32)
        self.scale = np.float32(-rate / case.n)

    def theta(self) -> np.ndarray:
        return self.vector

    def step(self) -> None:
        self.gradient()
        self.vector += self.delta

    def gradient(self) -> None:
        self.forward()
        self.backward()

    def forward(self) -> None:
        h = self.x
        for (w, b), a, activation in zip(self.layers, self.a, self.activations):
            np.dot(h, w.T, out=a)
            a += b
            if activation == "sigmoid":  # ½(1 + tanh(a/2))
                a *= 0.5
                np.tanh(a, out=a)
                a *= 0.5
                a += 0.5
            elif activation == "tanh":
                np.tanh(a, out=a)
            h = a

    def top(self) -> None:
        """−rate · ∂R/∂z into the last d."""
        z, d, row = self.a[-1], self.d[-1], self.row
        if self.squared:
            np.subtract(z, self.y, out=d)
            d *= 2.0 * self.scale
            return
        np.copyto(self.columns, z.T)
        np.maximum.reduce(self.columns, 0, out=row)  # faster than along the short rows
        np.subtract(z, row[:, None], out=d)
        np.exp(d, out=d)
        np.dot(d, self.classes, out=row)
        d /= row[:, None]
        d -= self.y
        d *= self.scale

    def through(self, k: int) -> None:
        """Multiply the signal at layer k's output by the activation's slope there."""
        a, d, s = self.a[k], self.d[k], self.slope[k]
        if self.activations[k] is None:
            return
        np.multiply(a, a, out=s)
        np.subtract(a if self.activations[k] == "sigmoid" else 1.0, s, out=s)
        d *= s

    def backward(self) -> None:
        self.top()
        for k in reversed(range(len(self.layers))):
            self.through(k)
            d = self.d[k]
            if k:
                np.dot(d, self.layers[k][0], out=self.d[k - 1])
            self.leave(k, d, self.a[k - 1] if k else self.x)

    def leave(self, k: int, d: np.ndarray, h: np.ndarray) -> None:
        """ΔW and Δb into their windows."""
        np.dot(d.T, h, out=self.deltas[k][0])
        np.dot(self.ones, d, out=self.deltas[k][1])


class Fused(Handwritten):
    """The same with the update inside the product, W ← W + dᵀh by BLAS's β = 1: no ΔW, no pass over θ."""

    def step(self) -> None:
        self.gradient()

    def leave(self, k: int, d: np.ndarray, h: np.ndarray) -> None:
        w, b = self.layers[k]
        blas.sgemm(1.0, h.T, d.T, beta=1.0, c=w.T, trans_b=True, overwrite_c=True)
        b += np.dot(self.ones, d)
