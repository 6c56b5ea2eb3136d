"""Hessian-free optimization: Newton's step by conjugate gradients, from products with the curvature alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minigrad import Objective, backend

from . import cg
from .base import Method, Stopped, check_choice, check_setting
from .line_search import Ray, backtracking

CURVATURES = ("ggn", "hessian")


@dataclass
class HessianFree(Method):
    """θ ← θ + t d with (G + λI) d ≈ −∇R by conjugate gradients [L; Martens 2010].

    In the order of the published algorithm: CG from `decay` times the last step's result, until its progress stalls
    (`cg.minimise` has the rules); among the iterates kept on the way the last one, or an earlier one as long as going
    back lowers R (§4.6); Levenberg-Marquardt damping, λ × 3/2 where ρ < ¼ and λ × 2/3 where ρ > ¾ (§4.1); an Armijo
    search along d.

    ρ is the reduction of R by that d over the one that the model without damping predicts, gᵀd + ½ dᵀGd, as in
    Martens & Sutskever 2012: it is 1 on a quadratic, whatever λ. The search comes after ρ: a step that had to be
    shortened must raise λ.

    Parameters
    ----------
    damping : float
        λ of the first step; then it adapts. 0 stays 0.
    curvature : {"ggn", "hessian"}
        G: the Gauss-Newton matrix, which only a network with a loss has, or the Hessian, for any function. With
        "hessian" CG stops where it meets a direction without positive curvature.
    decay : float
        Factor in [0, 1) on the last result of CG, the un-backtracked one, where the next CG starts.
    tol : float
        CG stops when k iterations lower the model by less than k·tol of its value; 0 switches this off, so that it
        goes on to rounding level.
    max_iterations : int
        Of CG, in one step.
    preconditioned : bool
        CG with M = (diag((1/N) Σ ∇ℓᵢ²) + λ)^¾ (§4.7): from h and da of one sweep; for a parameter without a site from
        the square of its mean gradient. Layers with positions count every position as an example of its own. A plain
        function has no examples and is not preconditioned.

    Raises
    ------
    Stopped
        R, the gradient or a product is not finite, or the search finds no lower R; θ and the state stay as they were.

    Notes
    -----
    Gradient, curvature and trials are all taken on the batch of f. On the device a step waits once for R and ∇R, once
    and once an iteration for CG, once for every trial point, and once for ρ. CG keeps at most
    8.8 log₁₀(max_iterations) + 2 vectors of θ's size.
    """

    damping: float = 1.0
    curvature: str = "ggn"
    decay: float = 0.95
    tol: float = 5e-4
    max_iterations: int = 250
    preconditioned: bool = True

    def __post_init__(self):
        check_setting(self, "damping", 0)
        check_setting(self, "decay", 0, 1)
        check_setting(self, "tol", 0)
        check_setting(self, "max_iterations", 1, whole=True)
        check_choice(self, "curvature", CURVATURES)
        check_choice(self, "preconditioned", (False, True))

    def start(self, params):
        return {"d": backend.zeros_like(params.vector), "damping": float(self.damping)}

    def update(self, f, state):
        if self.curvature == "ggn" and f.loss is None:
            raise ValueError(
                "HessianFree: curvature 'ggn' needs a network and its loss; on a plain function set curvature='hessian'"
            )
        g = f.grad
        value, gg = backend.numbers(f.value, g.dot(g))
        if not math.isfinite(value + gg):
            raise Stopped(f"HessianFree: R(θ) is {value:g} and ‖∇R‖² {gg:g}; start from another θ, or scale R down")
        if gg == 0:  # a stationary point is where Newton's step is zero
            return backend.zeros_like(g)
        kept = self._solve(f, state, g)
        chosen, reached, predicted = self._go_back(f, kept, state["damping"])
        ray = Ray(f, chosen.x)
        t = backtracking(lambda t: reached if t == 1.0 else ray.value(t), value, chosen.slope, eps=ray.eps)
        state["d"] = kept[-1].x
        state["damping"] *= _factor((reached - value) / predicted)
        return ray.move(t)

    def _solve(self, f: Objective, state: dict[str, Any], g: Any) -> list[cg.Iterate]:
        """CG on (G + λI) d = −g from where the last step ended, or from zero if that leads nowhere."""
        damping = state["damping"]
        curved = f.ggnvp if self.curvature == "ggn" else f.hvp

        def product(v):
            out = curved(v)
            out += damping * v
            return out

        diagonal = preconditioner(f, damping) if self.preconditioned and f.loss is not None else None
        warm = self.decay * state["d"] if state["t"] and self.decay else None
        kept = cg.minimise(product, g, warm, diagonal, self.tol, self.max_iterations)
        if not kept and warm is not None:
            kept = cg.minimise(product, g, None, diagonal, self.tol, self.max_iterations)
        if not kept:
            raise Stopped("HessianFree: CG finds no step that lowers its model; θ is a stationary point to rounding")
        return kept

    def _go_back(self, f: Objective, kept: list[cg.Iterate], damping: float) -> tuple[cg.Iterate, float, float]:
        """The iterate to take, R there, and the change of R that the model without damping predicts [§4.6]."""
        chosen, reached = None, math.inf
        for iterate in reversed(kept):
            value = Ray(f, iterate.x).value(1.0)
            value = value if math.isfinite(value) else math.inf
            if reached < math.inf and value >= reached:
                break
            chosen, reached = iterate, value
        (squared,) = backend.numbers(chosen.x.dot(chosen.x))
        return chosen, reached, chosen.model - 0.5 * damping * squared


def _factor(rho: float) -> float:
    """What λ is multiplied with [Martens 2010, §4.1]; a ρ that is not a number counts as bad."""
    return 2 / 3 if rho > 0.75 else 1.0 if rho >= 0.25 else 3 / 2


def preconditioner(f: Objective, damping: float) -> Any:
    """M = (diag((1/N) Σ ∇ℓᵢ²) + λ)^¾ (d,) [Martens 2010, §4.7]; zeros are raised to rounding level of the largest."""
    sweep = f.sweep()
    for site in sweep:
        site.gradient(h=site.h * site.h, da=site.da * site.da)  # (da²)ᵀ h² / N and mean da²
    squares, rest = sweep.delta, sweep.rest
    squares += rest * rest
    module = backend.xp(squares)
    floor = float(module.finfo(squares.dtype).eps) * squares.max()
    diagonal = module.maximum(squares, floor)
    diagonal += damping
    diagonal **= 0.75
    return diagonal
