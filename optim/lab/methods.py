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
}
INNER = {
    "gradient": Entry(optim.Gradient, "the plain gradient as a layer rule", "ΔW = −λ dW", "T-alg 2", {"lr": RATE}),
    "centred": METHODS["centred"],
    "acp": METHODS["acp"],
}
