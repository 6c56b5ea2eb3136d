"""First-order methods: GD, SGD, Momentum, Nesterov, Adam."""

from __future__ import annotations

import math
from dataclasses import dataclass

from minigrad import backend

from .base import Method, check_setting


@dataclass
class SGD(Method):
    """Stochastic gradient descent, θ ← θ − λ ∇R on the batch [T-2.2].

    Parameters
    ----------
    lr : float
        λ.
    """

    lr: float = 0.1
    reads_gradient = True

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)

    def update(self, f, state):
        return f.pullback(-self.lr)


@dataclass
class GD(SGD):
    """Gradient descent, θ ← θ − λ ∇R on the whole training set [T-2.1.1]."""

    full_batch = True


@dataclass
class Momentum(Method):
    """v ← μ v − λ ∇R, θ ← θ + v [L].

    Parameters
    ----------
    lr : float
        λ.
    mu : float
        μ in [0, 1); 0 is gradient descent.
    """

    lr: float = 0.1
    mu: float = 0.9
    reads_gradient = True

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "mu", 0, 1)

    def start(self, params):
        return {"v": backend.zeros_like(params.vector)}

    def update(self, f, state):
        v = f.pullback(-self.lr)
        v += self.mu * state["v"]
        state["v"] = v
        return v


@dataclass
class Nesterov(Momentum):
    """Nesterov's accelerated gradient in its practical form, without a second point to evaluate at.

    v ← μ v − λ ∇R(θ), θ ← θ + μ v − λ ∇R(θ). This θ is the look-ahead point of the published form
    (∇ at θ + μ v [L, B]): both walk through the same points.
    """

    def update(self, f, state):
        g = f.pullback(-self.lr)
        v = self.mu * state["v"]
        v += g
        state["v"] = v
        g += self.mu * v
        return g


@dataclass
class Adam(Method):
    """Adam with bias correction, ε outside the root [L, P; Kingma & Ba 2014].

    Parameters
    ----------
    lr : float
        λ.
    beta1, beta2 : float
        Decay of the first and of the second moment, in [0, 1).
    eps : float
        ε, positive.
    """

    lr: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8
    reads_gradient = True

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "beta1", 0, 1)
        check_setting(self, "beta2", 0, 1)
        check_setting(self, "eps", 0, open_low=True)

    def start(self, params):
        return {"m": backend.zeros_like(params.vector), "v": backend.zeros_like(params.vector)}

    def update(self, f, state):
        t = state["t"] + 1
        g = f.grad
        m, v = state["m"], state["v"]
        m *= self.beta1
        m += (1.0 - self.beta1) * g
        v *= self.beta2
        g *= g
        g *= 1.0 - self.beta2
        v += g
        module = backend.xp(v)
        root = module.sqrt(v, out=g)  # √v̂ + ε = (√v + ε √c₂) / √c₂, so the corrections are two numbers
        c1, c2 = 1.0 - self.beta1**t, math.sqrt(1.0 - self.beta2**t)
        root += self.eps * c2
        module.divide(m, root, out=root)
        root *= -self.lr * c2 / c1
        return root
