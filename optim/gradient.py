"""First-order methods: GD, SGD, Momentum, Nesterov, Adam. Those with a rate per parameter alone are in `adaptive`.

A rate that falls with the step is a wrapper around any of them: SGD with η/√t is `Scheduled(SGD(η), "sqrt")`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from minigrad import backend, ops
from minigrad.fusion import fused

from .base import Method, check_choice, check_setting
from .line_search import Ray, backtracking


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
    """Gradient descent, θ ← θ − λ ∇R on the whole training set [T-2.1.1].

    With a rate λ/√t it is `Scheduled(GD(λ), "sqrt")` [B].

    Parameters
    ----------
    lr : float
        λ; with backtracking the first trial of every step.
    rate : {"fixed", "backtracking"}
        "backtracking" halves λ until R(θ − λ∇R) ≤ R(θ) − 10⁻⁴ λ ‖∇R‖² [Armijo; L].

    Raises
    ------
    Stopped
        Backtracking finds no lower R: θ is a stationary point to rounding, or R or ∇R is not finite.

    Notes
    -----
    With backtracking a step waits once on the device for R and ‖∇R‖², and once for every trial.
    """

    rate: str = "fixed"
    full_batch = True

    def __post_init__(self):
        super().__post_init__()
        check_choice(self, "rate", ("fixed", "backtracking"))

    def update(self, f, state):
        if self.rate == "fixed":
            return super().update(f, state)
        direction = f.pullback(-1.0)
        ray = Ray(f, direction)
        value, square = backend.numbers(f.value, direction.dot(direction))
        return ray.move(backtracking(ray.value, value, -square, first=self.lr, eps=ray.eps))


@dataclass
class Momentum(Method):
    """Gradient descent with momentum, in the three forms that are published.

    velocity  v ← μ v − λ ∇R, θ ← θ + v [L]
    sum       v ← μ v + ∇R, θ ← θ − λ v [P]
    average   v ← μ v + (1 − μ) ∇R, θ ← θ − λ v [B]

    With a constant λ velocity and sum take the same steps, and average takes them at the rate λ/(1 − μ). When λ
    changes they differ: the step at t is −Σₛ μᵗ⁻ˢ λₛ ∇Rₛ for velocity, where every gradient keeps the rate at which
    it came, and −λₜ Σₛ μᵗ⁻ˢ ∇Rₛ for sum, where the present rate scales the whole past at once (so for average, times
    1 − μ). Sum at rates λₜ is thus velocity with μ λₜ/λₜ₋₁ in place of μ.

    Parameters
    ----------
    lr : float
        λ.
    mu : float
        μ in [0, 1); 0 is gradient descent.
    form : {"velocity", "sum", "average"}
    """

    lr: float = 0.1
    mu: float = 0.9
    form: str = "velocity"
    reads_gradient = True
    forms = ("velocity", "sum", "average")

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "mu", 0, 1)
        check_choice(self, "form", self.forms)

    def start(self, params):
        return {"v": backend.zeros_like(params.vector)}

    def update(self, f, state):
        if self.form == "velocity":
            v = f.pullback(-self.lr)
            v += ops.multiply(state["v"], self.mu)
            state["v"] = v  # it is Δθ too, so the next step does not write to it
            return v
        v, g = state["v"], f.pullback(1.0 if self.form == "sum" else 1.0 - self.mu)
        v *= self.mu
        v += g
        return backend.xp(v).multiply(v, -self.lr, out=g)


@dataclass
class Nesterov(Momentum):
    """Nesterov's accelerated gradient, in the published form and in the one without a second point [L, B].

    lookahead  v ← μ v − λ ∇R(θ + μ v), θ ← θ + v
    practical  v ← μ v − λ ∇R(θ), θ ← θ + μ v − λ ∇R(θ)

    The θ of practical is the point θ + μ v of lookahead: both take the gradient at the same points, and practical
    also stands there.

    Parameters
    ----------
    lr : float
        λ.
    mu : float
        μ in [0, 1); 0 is gradient descent.
    form : {"practical", "lookahead"}
        "lookahead" costs one forward pass more, since the loss that a step reports is R(θ).
    """

    form: str = "practical"
    forms = ("practical", "lookahead")

    def update(self, f, state):
        if self.form == "lookahead":
            drift = ops.multiply(state["v"], self.mu)
            v = f.at(f.params.vector + drift).pullback(-self.lr)
            v += drift
            state["v"] = v
            return v
        g, v = f.pullback(-self.lr), state["v"]
        v *= self.mu
        v += g
        g += ops.multiply(v, self.mu)
        return g


@dataclass
class Adam(Method):
    """Adam with bias correction, ε outside the root [L, P; Kingma & Ba 2014].

    m ← β₁ m + (1 − β₁) ∇R, v ← β₂ v + (1 − β₂) ∇R², θ ← θ − λ m̂/(√v̂ + ε), m̂ = m/(1 − β₁ᵗ), v̂ = v/(1 − β₂ᵗ)

    ε is more than a guard against 0: it is a damping [P]. Where √v̂ ≫ ε the step is λ m̂/√v̂, of size λ whatever the
    gradient's; where √v̂ ≪ ε it is (λ/ε) m̂, `Momentum` in its average form at the rate λ/ε (after the bias
    correction has died out; λ(1 − β₁)/ε in its sum form). A large ε trusts small curvatures less.

    Parameters
    ----------
    lr : float
        λ.
    beta1, beta2 : float
        Decay of the first and of the second moment, in [0, 1).
    eps : float
        ε, positive, in the units of ∇R.
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
        c1, c2 = 1.0 - self.beta1**t, math.sqrt(1.0 - self.beta2**t)
        # √v̂ + ε = (√v + ε √c₂) / √c₂, so the corrections are two numbers
        numbers = (self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.eps * c2, -self.lr * c2 / c1)
        return _adam(state["m"], state["v"], f.grad, *numbers)[2]


@fused(over=(0, 1, 2))
def _adam(xp, m, v, g, beta1, share1, beta2, share2, eps, rate):
    m = beta1 * m + share1 * g
    v = beta2 * v + share2 * (g * g)
    return m, v, rate * (m / (xp.sqrt(v) + eps))
