"""The table of methods: what each is called, computes and cites, and where to search for its settings."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

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


def hypercube(rng: np.random.Generator, ranges: Mapping[str, Range], count: int) -> list[dict[str, float]]:
    """A Latin hypercube: `count` points, on every axis one in each of as many equal parts; to three digits."""
    columns = []
    for found in ranges.values():
        unit = (rng.permutation(count) + rng.random(count)) / count
        low, high = (math.log(found.low), math.log(found.high)) if found.log else (found.low, found.high)
        values = low + unit * (high - low)
        columns.append([float(f"{math.exp(v) if found.log else v:.3g}") for v in values])
    return [dict(zip(ranges, row)) for row in zip(*columns)]


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


NOT_TUNED = frozenset(  # settings that a tuner leaves as they are: periods, guards, and what hardly matters
    "alpha alpha_floor beta1 beta2 chunk every floor iterations moved rank rest_lr samples stats_every tol".split()
)
RATE = Range(1e-3, 1.0)
METHODS = {
    "gd": Entry(
        optim.GD,
        "gradient descent on the whole training part",
        "θ ← θ − λ∇R",
        "T-2.1.1",
        {"lr": Range(1e-3, 10.0), "rate": Choice(("fixed", "backtracking"))},
    ),
    "sgd": Entry(optim.SGD, "stochastic gradient descent", "θ ← θ − λ∇R(batch)", "T-2.2", {"lr": RATE}),
    "momentum": Entry(
        optim.Momentum,
        "gradient descent with momentum",
        "v ← μv − λ∇R, θ ← θ + v",
        "L",
        {"lr": Range(1e-4, 0.3), "mu": Range(0.5, 0.99, log=False), "form": Choice(optim.Momentum.forms)},
    ),
    "nesterov": Entry(
        optim.Nesterov,
        "Nesterov's accelerated gradient",
        "v ← μv − λ∇R, θ ← θ + μv − λ∇R",
        "L, B",
        {"lr": Range(1e-4, 0.3), "mu": Range(0.5, 0.99, log=False), "form": Choice(optim.Nesterov.forms)},
    ),
    "adagrad": Entry(
        optim.AdaGrad,
        "AdaGrad, diagonal or with the full matrix",
        "v ← v + ∇R², θ ← θ − λ∇R/(√v + ε)",
        "L, B; Duchi, Hazan & Singer 2011",
        {"lr": Range(1e-3, 0.3), "eps": Range(1e-10, 1e-2), "matrix": Choice(("diagonal", "full"))},
    ),
    "rmsprop": Entry(
        optim.RMSprop,
        "RMSprop, plain or centred",
        "v ← ρv + (1 − ρ)∇R², θ ← θ − λ∇R/(√v + ε)",
        "L; Tieleman & Hinton 2012",
        {
            "lr": Range(1e-4, 1e-2),
            "rho": Range(0.5, 0.99, log=False),
            "eps": Range(1e-8, 1e-2),
            "centred": Choice(("false", "true")),
        },
    ),
    "adadelta": Entry(
        optim.Adadelta,
        "Adadelta, steps in the units of θ",
        "Δ = −√(u + ε)/√(v + ε) ∇R, u ← ρu + (1 − ρ)Δ²",
        "L; Zeiler 2012",
        {"lr": Range(0.1, 10.0), "rho": Range(0.8, 0.99, log=False), "eps": Range(1e-8, 1e-3)},
    ),
    "adam": Entry(
        optim.Adam,
        "Adam with bias correction",
        "θ ← θ − λ m̂ / (√v̂ + ε)",
        "L, P; Kingma & Ba 2014",
        {"lr": Range(1e-4, 1e-2), "eps": Range(1e-8, 1e-2)},
    ),
    "tonga": Entry(
        optim.TONGA,
        "natural gradient of a low-rank moving covariance, a block a layer",
        "Δθ = −λXᵀ(XXᵀ + εI)⁻¹e, X = [decayed eigendirections; new gradients]",
        "B; Le Roux, Manzagol & Bengio 2007",
        {"lr": Range(1e-3, 10.0), "damping": Range(1e-3, 10.0), "rho": Range(0.8, 0.999, log=False)},
    ),
    "newton": Entry(
        optim.Newton,
        "Newton's method with the dense Hessian",
        "θ ← θ − t (H + λI)⁻¹ ∇R",
        "T-3.1.1, T-3.1.3, L, P; Dauphin et al. 2014 (abs)",
        {
            "lr": Range(0.1, 1.0, log=False),
            "damping": Range(1e-6, 10.0),
            "indefinite": Choice(optim.newton.INDEFINITE),
            "line_search": Choice(optim.newton.SEARCHES),
        },
    ),
    "bfgs": Entry(
        optim.BFGS,
        "quasi-Newton with a dense inverse",
        "B ← (I − ρsyᵀ) B (I − ρysᵀ) + ρssᵀ, θ ← θ − t B∇R",
        "L; Nocedal & Wright 2006",
        {"lr": Range(0.1, 1.0, log=False), "line_search": Choice(optim.quasi_newton.SEARCHES)},
    ),
    "lbfgs": Entry(
        optim.LBFGS,
        "quasi-Newton from the last m pairs, by two loops",
        "θ ← θ − t B∇R, B from (s, y) of the last m steps",
        "L; Nocedal & Wright 2006",
        {
            "lr": Range(0.1, 1.0, log=False),
            "line_search": Choice(optim.quasi_newton.SEARCHES),
            "m": Range(3, 50),
        },
    ),
    "gauss-newton": Entry(
        optim.GaussNewton,
        "Gauss-Newton with the exact matrix of the batch, or a part of it",
        "θ ← θ − λ (G + λ_d I)⁻¹ ∇R",
        "T-3.1.3, T-3.1.4, T-3.1.5",
        {
            "lr": Range(0.1, 1.0, log=False),
            "damping": Range(1e-4, 10.0),
            "structure": Choice(optim.curvature.STRUCTURES),
            "curvature": Choice(optim.exact.ROW_KINDS),
            "samples": Range(1, 10),
        },
    ),
    "natural-gradient": Entry(
        optim.NaturalGradient,
        "natural gradient with the exact Fisher matrix of the batch",
        "θ ← θ − λ (I + (λ/ε) F)⁻¹ ∇R",
        "T-3.2.2; Amari 1998",
        {
            "lr": Range(1e-2, 100.0),
            "eps": Range(1e-3, 1.0),
            "structure": Choice(optim.curvature.STRUCTURES),
            "curvature": Choice(optim.exact.ROW_KINDS),
            "samples": Range(1, 10),
        },
    ),
    "diagonal": Entry(
        optim.Diagonal,
        "gradient descent divided by the exact diagonal of a curvature",
        "ΔW = −λ dW ÷ (D + λ_d)",
        "T-3.1.5; LeCun et al. 1998 (hessian)",
        {
            "lr": RATE,
            "damping": Range(1e-3, 10.0),
            "curvature": Choice(optim.curvature.KINDS),
            "samples": Range(1, 10),
        },
    ),
    "layer-gauss-newton": Entry(
        optim.LayerGaussNewton,
        "Gauss-Newton with the exact block of every layer",
        "ΔW̄ = −λ (G + λ_d I)⁻¹ dW̄",
        "T-3.1.5",
        {
            "lr": Range(0.1, 1.0, log=False),
            "damping": Range(1e-4, 10.0),
            "curvature": Choice(optim.exact.ROW_KINDS),
            "samples": Range(1, 10),
        },
    ),
    "hessian-free": Entry(
        optim.HessianFree,
        "Newton's step by conjugate gradients on products with the curvature",
        "(G + λI) d = −∇R, θ ← θ + t d",
        "L; Martens 2010",
        {
            "damping": Range(1e-2, 100.0),
            "curvature": Choice(optim.hessian_free.CURVATURES),
            "decay": Range(0.5, 0.99, log=False),
            "max_iterations": Range(10, 300),
        },
    ),
    "lecun": Entry(
        optim.LeCun,
        "gradient descent with one over the largest curvature as its rate",
        "θ ← θ − (λ/|λ_max(H)|) ∇R",
        "T-3.1.2; LeCun, Simard & Pearlmutter 1993",
        {"lr": Range(0.1, 2.0)},
    ),
    "random-search": Entry(
        optim.RandomSearch,
        "a random step, kept where the loss improves on the same batch",
        "ΔW ~ N(0, σ²I), kept if R(W + ΔW) < R(W)",
        "B",
        {"sigma": Range(1e-4, 1.0)},
    ),
    "weighted-search": Entry(
        optim.WeightedSearch,
        "a random step weighted by the loss it leads to",
        "W ← W − η R(W + ΔW) ΔW",
        "B",
        {"lr": Range(1e-4, 1.0), "sigma": Range(1e-4, 1.0)},
    ),
    "es": Entry(
        optim.ES,
        "evolution strategy: M random directions at ±, weighted by differences of the loss",
        "θ ← θ − λ (1/M) Σ [R(θ + σεₘ) − R(θ − σεₘ)]/(2σ) εₘ",
        "B; Salimans et al. 2017",
        {
            "lr": RATE,
            "pairs": Range(8, 256),
            "sigma": Range(1e-4, 1.0),
            "directions": Choice(optim.search.DIRECTIONS),
            "shaping": Choice(optim.search.SHAPINGS),
        },
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
    "kfac": Entry(
        optim.KFAC,
        "natural gradient, a Kronecker product for every layer's curvature",
        "[ΔW Δb] = −λ G⁻¹ [dW db] A⁻¹",
        "T-6.4.1, B, P; Martens & Grosse 2015",
        {
            "lr": RATE,
            "damping": Range(1e-3, 10.0),
            "rho": Range(0.5, 0.99, log=False),
            "curvature": Choice(optim.factors.KINDS),
            "solve": Choice(optim.kfac.SOLVES),
            "bias": Choice(optim.factors.BIASES),
        },
    ),
    "ekfac": Entry(
        optim.EKFAC,
        "K-FAC with the curvature measured along every direction of its eigenbasis",
        "[ΔW Δb] = −λ Q_G [(Q_Gᵀ [dW db] Q_A) ÷ (Λ + λ_d)] Q_Aᵀ",
        "George et al. 2018",
        {
            "lr": RATE,
            "damping": Range(1e-3, 10.0),
            "rho": Range(0.5, 0.99, log=False),
            "curvature": Choice(optim.factors.KINDS),
            "bias": Choice(optim.factors.BIASES),
        },
    ),
    "prong": Entry(
        optim.PRONG,
        "natural neural networks, gradient descent where every layer's input is white",
        "ΔW = −λ mean[da (h − μ)ᵀ] U², Δb = −λ mean da − ΔW μ",
        "T-6.4.2; Desjardins et al. 2015",
        {"lr": RATE, "eps": Range(1e-3, 10.0)},
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
    "kfac": METHODS["kfac"],
    "ekfac": METHODS["ekfac"],
    "prong": METHODS["prong"],
    "diagonal": METHODS["diagonal"],
    "layer-gauss-newton": METHODS["layer-gauss-newton"],
}
