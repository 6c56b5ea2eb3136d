"""The table of methods: what each is called, computes and cites, and where to search for its settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import optim
from optim import Method


@dataclass(frozen=True)
class Range:
    """Where a tuner would look for a setting: low to high, on a logarithmic axis or a linear one."""

    low: float
    high: float
    log: bool = True

    def __str__(self) -> str:
        return f"search {self.low:g} to {self.high:g}{', log' if self.log else ''}"


@dataclass(frozen=True)
class Choice:
    """The words that a setting may be."""

    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"one of {', '.join(self.words)}"


@dataclass(frozen=True)
class Entry:
    """One method of the catalogue.

    Parameters
    ----------
    kind : type
        Its class; the fields of the dataclass are its settings.
    about, equation, source : str
        What it is, what it computes, and where that is published (T, B, L, P: see the README).
    ranges : dict
        {setting: Range or Choice}; a setting of the inner rule has the range that the rule has.
    """

    kind: type[Method]
    about: str
    equation: str
    source: str
    ranges: Mapping[str, Range | Choice] = field(default_factory=dict)


RATE = Range(1e-3, 1.0)
METHODS = {
    "gd": Entry(
        optim.GD, "gradient descent on the whole training part", "θ ← θ − λ∇R", "T-2.1.1", {"lr": Range(1e-3, 10.0)}
    ),
    "sgd": Entry(optim.SGD, "stochastic gradient descent", "θ ← θ − λ∇R(batch)", "T-2.2", {"lr": RATE}),
    "momentum": Entry(
        optim.Momentum,
        "gradient descent with momentum",
        "v ← μv − λ∇R, θ ← θ + v",
        "L",
        {"lr": Range(1e-4, 0.3), "mu": Range(0.5, 0.99, log=False)},
    ),
    "nesterov": Entry(
        optim.Nesterov,
        "Nesterov's accelerated gradient",
        "v ← μv − λ∇R, θ ← θ + μv − λ∇R",
        "L, B",
        {"lr": Range(1e-4, 0.3), "mu": Range(0.5, 0.99, log=False)},
    ),
    "adam": Entry(
        optim.Adam,
        "Adam with bias correction",
        "θ ← θ − λ m̂ / (√v̂ + ε)",
        "L, P; Kingma & Ba 2014",
        {"lr": Range(1e-4, 1e-2), "eps": Range(1e-8, 1e-2)},
    ),
    "centred": Entry(
        optim.Centred,
        "gradient descent on centred layer inputs",
        "ΔW = −λ mean[da (h − h̄)ᵀ]",
        "T-6.3.1, T-alg 3",
        {"lr": RATE},
    ),
    "acp": Entry(
        optim.ACP,
        "amortised covariance preconditioner, a ridge regression a layer",
        "ΔW = −(λ/α) mean[da (h − h̄)ᵀ] (C + (ε/α)I)⁻¹",
        "T-6.1, T-alg 4",
        {"lr": RATE, "eps": Range(1e-3, 10.0), "rho": Range(0.5, 0.99, log=False)},
    ),
    "ubp": Entry(
        optim.UBP,
        "updated backpropagation over a layer rule, ubp:INNER",
        "dh′ = da (W + ΔW) + [JᵀH J (ΔW h + Δb)] W",
        "T-5.2, T-alg 2",
        {"mode": Choice(optim.ubp.MODES)},
    ),
    "schedule": Entry(
        optim.Scheduled,
        "a rate that changes with the step, around any method: schedule:INNER",
        "λ_t = λ/√(t + 1), λ/(t + 1) or λ ½(1 + cos(πt/T))",
        "B; Loshchilov & Hutter 2017",
        {"shape": Choice(("constant", "sqrt", "inverse", "cosine")), "steps": Range(10, 1e5), "warmup": Range(1, 1e3)},
    ),
    "decay": Entry(
        optim.WeightDecay,
        "decoupled weight decay around any method with a rate: decay:INNER",
        "W ← W + ΔW − λ c W",
        "Loshchilov & Hutter 2019",
        {"decay": Range(1e-5, 1.0)},
    ),
    "clip-update": Entry(
        optim.ClipUpdate,
        "no update longer than a limit, around any method: clip-update:INNER",
        "Δθ ← Δθ min(1, c/‖Δθ‖)",
        "L",
        {"limit": Range(1e-3, 10.0)},
    ),
    "clip-gradient": Entry(
        optim.ClipGradient,
        "no gradient longer than a limit, around a method that reads it: clip-gradient:INNER",
        "∇R ← ∇R min(1, c/‖∇R‖)",
        "Pascanu, Mikolov & Bengio 2013",
        {"limit": Range(1e-2, 100.0)},
    ),
}
INNER = {
    "gradient": Entry(optim.Gradient, "the plain gradient as a layer rule", "ΔW = −λ dW", "T-alg 2", {"lr": RATE}),
    "centred": METHODS["centred"],
    "acp": METHODS["acp"],
}
