"""A rate for every parameter, from its past gradients: AdaGrad, RMSprop, Adadelta. Adam is in `gradient`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigrad import backend
from minigrad.fusion import fused

from .base import Method, check_choice, check_setting

LARGEST = 2000  # parameters up to which a d × d matrix is kept and decomposed in every step


@dataclass
class AdaGrad(Method):
    """AdaGrad: the rate falls where gradients were large [Duchi, Hazan & Singer 2011].

    diagonal  v ← v + ∇R², θ ← θ − λ ∇R/(√v + ε) [L]
    full      S ← S + ∇R ∇Rᵀ, θ ← θ − λ (S^{1/2} + ε I)⁻¹ ∇R [B]

    Parameters
    ----------
    lr : float
        λ.
    eps : float
        ε, outside the root (the published δ); positive.
    matrix : {"diagonal", "full"}
        "full" commutes with rotations of θ; it keeps d × d numbers and takes at most 2,000 parameters.

    Raises
    ------
    ValueError
        At `init`: more parameters than "full" takes.
    FactorisationError
        S holds NaN or infinity ("full").

    Notes
    -----
    "full" waits once a step on the device, for its guarded eigenvalues. Those below the rounding of the largest one
    count as that rounding: without it noise would be divided by ε.
    """

    lr: float = 0.01
    eps: float = 1e-8
    matrix: str = "diagonal"
    reads_gradient = True

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "eps", 0, open_low=True)
        check_choice(self, "matrix", ("diagonal", "full"))

    def start(self, params):
        if self.matrix == "diagonal":
            return {"v": backend.zeros_like(params.vector)}
        d = params.size
        if d > LARGEST:
            told = f"matrix='full' takes at most {LARGEST:,} parameters, not {d:,}"
            raise ValueError(f"AdaGrad: {told}; take matrix='diagonal' or TONGA")
        return {"S": backend.xp(params.vector).zeros((d, d), params.dtype)}

    def update(self, f, state):
        if self.matrix == "full":
            return self._full(f.grad, state)
        return _divided(state["v"], f.grad, 1.0, 1.0, self.eps, -self.lr)[1]

    def _full(self, g: Any, state: dict[str, Any]) -> Any:
        S = state["S"] + g[:, None] * g
        try:
            values, vectors = backend.eigh(S)
        except backend.FactorisationError as error:
            raise backend.FactorisationError("AdaGrad: Σ ∇R ∇Rᵀ holds NaN or infinity; lower the rate") from error
        state["S"] = S
        module = backend.xp(S)
        values = module.maximum(values, 8.0 * float(module.finfo(S.dtype).eps) * values[-1])
        return vectors.dot(vectors.T.dot(g) * (-self.lr / (module.sqrt(values) + self.eps)))


@dataclass
class RMSprop(Method):
    """RMSprop: v ← ρ v + (1 − ρ) ∇R², θ ← θ − λ ∇R/(√v + ε) [L; Tieleman & Hinton 2012].

    ε is outside the root, as in [L] and in PyTorch (its `alpha` is ρ). TensorFlow, Keras and, unless told otherwise,
    optax put it inside, √(v + ε): where v → 0 their divisor is √ε, so their 10⁻⁷ is a damping like our 3·10⁻⁴.
    v starts at 0 and is not corrected for it, so the first step is λ/√(1 − ρ) long in every parameter.

    Parameters
    ----------
    lr : float
        λ.
    rho : float
        ρ in [0, 1).
    eps : float
        ε, positive.
    centred : bool
        Divide by the root of the gradients' variance, v − m² with m ← ρ m + (1 − ρ) ∇R [Graves 2013]. It is kept by
        its own recurrence, v ← ρ (v + (1 − ρ)(∇R − m)²), so rounding cannot make it negative. With gradients that
        hardly change it goes to 0 and the step to λ ∇R/ε: take a larger ε.
    """

    lr: float = 0.01
    rho: float = 0.9
    eps: float = 1e-8
    centred: bool = False
    reads_gradient = True

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "rho", 0, 1)
        check_setting(self, "eps", 0, open_low=True)
        check_choice(self, "centred", (False, True))

    def start(self, params):
        names = ("m", "v") if self.centred else ("v",)
        return {name: backend.zeros_like(params.vector) for name in names}

    def update(self, f, state):
        if not self.centred:
            return _divided(state["v"], f.grad, self.rho, 1.0 - self.rho, self.eps, -self.lr)[1]
        return _centred(state["m"], state["v"], f.grad, self.rho, 1.0 - self.rho, self.eps, -self.lr)[2]


@dataclass
class Adadelta(Method):
    """Adadelta: Δ = −√(u + ε)/√(v + ε) ∇R, θ ← θ + λ Δ [L; Zeiler 2012].

    v ← ρ v + (1 − ρ) ∇R² comes before Δ, u ← ρ u + (1 − ρ) Δ² after it. Both ε are inside the roots. Published
    without a rate, λ = 1: u gives the step the units of θ. At first u = 0, so ε sets how long the first steps are,
    √ε/√(1 − ρ) in every parameter.

    Parameters
    ----------
    lr : float
        λ.
    rho : float
        ρ in [0, 1).
    eps : float
        ε, positive.
    """

    lr: float = 1.0
    rho: float = 0.95
    eps: float = 1e-6
    reads_gradient = True

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "rho", 0, 1)
        check_setting(self, "eps", 0, open_low=True)

    def start(self, params):
        return {"u": backend.zeros_like(params.vector), "v": backend.zeros_like(params.vector)}

    def update(self, f, state):
        return _adadelta(state["u"], state["v"], f.grad, self.rho, 1.0 - self.rho, self.eps, self.lr)[2]


@fused(over=(0, 1))
def _divided(xp, v, g, rho, share, eps, rate):
    v = rho * v + share * (g * g)
    return v, rate * (g / (xp.sqrt(v) + eps))


@fused(over=(0, 1, 2))
def _centred(xp, m, v, g, rho, share, eps, rate):
    apart = g - m
    m = m + share * apart
    v = rho * (v + share * (apart * apart))
    return m, v, rate * (g / (xp.sqrt(v) + eps))


@fused(over=(0, 1, 2))
def _adadelta(xp, u, v, g, rho, share, eps, rate):
    v = rho * v + share * (g * g)
    step = g * (xp.sqrt(u + eps) / xp.sqrt(v + eps))
    return rho * u + share * (step * step), v, -rate * step
