"""Quasi-Newton methods: BFGS with a dense inverse, and L-BFGS with its last m pairs.

Both learn the inverse of the Hessian from pairs s = Δθ and y = how the gradient changed along it, both gradients on
the batch of the step [L]. Equations: Nocedal & Wright 2006 [NW].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import backend

from .base import Info, Method, Stopped, check_choice, check_setting
from .line_search import Ray, backtracking, check_start, exact, strong_wolfe
from .structures import LIMIT

SEARCHES = ("wolfe", "backtracking", "exact", "none")
FLAT = 1e-10  # a pair whose yᵀs is at most this part of |gᵀs| says nothing about the curvature
END = "the gradient where the last step ended"  # its place in the memo of an objective


@dataclass
class QuasiNewton(Method):
    """What BFGS and L-BFGS share: a direction d = −Bg, a length along it, and a pair (s, y) to learn B from.

    A subclass writes `direction(g, state)` → −Bg, and `learn(s, y, ys, state)` with ys = yᵀs > 0.

    Parameters
    ----------
    lr : float
        The step length that a search tries first, and the one that "none" takes. Until there is a pair it is
        multiplied by min(1, 1/‖g‖₁). "exact" does not read it.
    line_search : {"wolfe", "backtracking", "exact", "none"}
        "wolfe" is strong Wolfe with c₁ = 1e-4, c₂ = 0.9; "backtracking" is Armijo with ½; "exact" is −gᵀd/dᵀHd, for
        quadratics; "none" suits mini-batches, where R on a batch is no reason to stop.

    Raises
    ------
    Stopped
        R(θ) or its gradient is not finite, the search finds no lower R, the curvature is not positive on an exact
        search, R is not finite where a step without a search ends. θ and the state stay as they are.

    Notes
    -----
    Waits on the device, a step: 1 and 1 for every trial with "wolfe" (mostly one), 2 and 1 for every trial with
    "backtracking", 2 with "exact" and "none".

    A step ends at a point whose R and gradient it knows. `step` leaves both in the memo of f once θ is there, so that
    a step on the same f does not compute them again: every search then costs what its trials cost. A memo belongs to
    one objective, so to one batch, and is emptied when θ moves in any other way, so nothing stale is read.
    """

    lr: float = 1.0
    line_search: str = "wolfe"
    full_batch = True

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_choice(self, "line_search", SEARCHES)

    def direction(self, g: Any, state: dict[str, Any]) -> Any:
        raise TypeError(f"{type(self).__name__} has no direction(g, state)")

    def learn(self, s: Any, y: Any, ys: float, state: dict[str, Any]) -> None:
        raise TypeError(f"{type(self).__name__} has no learn(s, y, ys, state)")

    def update(self, f, state):
        return self._advance(f, state)[0]

    def step(self, f, state):
        info, statistics = Info(f.value), f.statistics if f.train else {}
        change, value, gradient = self._advance(f, state)
        f.params.vector += change
        f.params.buffers.update(statistics)
        f.memo.update({"value": value, END: gradient})
        state["t"] += 1
        return info

    def _advance(self, f, state) -> tuple[Any, Any, Any]:
        """Δθ, and R (0-d) and ∇R (d,) at θ + Δθ."""
        g = f.memo[END] if END in f.memo else f.grad
        ray = Ray(f, self.direction(g, state))
        t, slope, bend, value, end = self._search(ray, g, state["pairs"] == 0)
        s = ray.move(t)
        # [L]: skip a pair with yᵀs ≤ 1e-10. Here relative to |gᵀs|, which holds for R and θ of any scale
        if bend > FLAT * abs(slope) and t * bend > np.finfo(s.dtype).tiny:
            self.learn(s, end - g, t * bend, state)
            state["pairs"] += 1
        return s, value, end

    def _search(self, ray: Ray, g: Any, untaught: bool) -> tuple[float, float, float, Any, Any]:
        """t, φ′(0), φ′(t) − φ′(0) = yᵀd, and R and ∇R where the step ends."""
        d = ray.direction
        if self.line_search == "exact":
            t, slope = exact(ray, g)
        else:
            value, slope, *norm = backend.numbers(ray.f.value, g.dot(d), *([abs(g).sum()] if untaught else []))
            if slope == 0:  # the gradient is zero, and so is the step
                return 0.0, 0.0, 0.0, ray.f.value, g
            check_start(value, slope)
            t = self.lr * min([1.0, *(1.0 / n for n in norm)])
        if self.line_search == "wolfe":
            end = strong_wolfe(ray, value, slope, t, eps=ray.eps)
            return end.t, slope, end.slope - slope, *end.rest
        if self.line_search == "backtracking":
            t = backtracking(ray.value, value, slope, t, eps=ray.eps)
        point = ray.at(t)
        end = point.grad
        value, bend = backend.numbers(point.value, (end - g).dot(d))
        if not (math.isfinite(value) and math.isfinite(bend)):
            raise Stopped(f"{type(self).__name__}: R is {value:g} where the step ends; take line_search='wolfe'")
        return t, slope, bend, point.value, end


@dataclass
class BFGS(QuasiNewton):
    """BFGS with the inverse of the Hessian as a dense matrix B [L; NW alg. 6.1].

    B ← (I − ρ s yᵀ) B (I − ρ y sᵀ) + ρ s sᵀ, ρ = 1/yᵀs, from B = γI, γ = yᵀs/yᵀy of the first pair [NW 6.17, 6.20].

    Parameters
    ----------
    lr, line_search
        As for every `QuasiNewton`, where the waits on the device are listed too.

    Raises
    ------
    ValueError
        More parameters than a dense matrix is made for.
    """

    def start(self, params):
        d = params.size
        if d > LIMIT:
            size = d * d * params.dtype.itemsize / 1e9
            raise ValueError(
                f"BFGS: {d:,} parameters make an inverse of {size:.3g} GB, and {LIMIT:,} is the limit; take LBFGS"
            )
        return {"inverse": backend.xp(params.vector).eye(d, dtype=params.dtype), "pairs": 0}

    def direction(self, g, state):
        return -state["inverse"].dot(g)

    def learn(self, s, y, ys, state):
        B = state["inverse"]
        By = B.dot(y)
        if state["pairs"] == 0:
            gamma = ys / y.dot(By)  # with B = I; for another first B it is the same in other coordinates
            B *= gamma
            By *= gamma
        u = (0.5 + 0.5 * y.dot(By) / ys) / ys * s - By / ys
        turn = backend.xp(B).outer(u, s)
        B += turn + turn.T


@dataclass
class LBFGS(QuasiNewton):
    """L-BFGS: BFGS that remembers its last m pairs instead of a matrix, by the two loops [L; NW alg. 7.4, 7.5].

    The first matrix of every step is γI, γ = yᵀs/yᵀy of the newest pair [NW 7.20].

    Parameters
    ----------
    lr, line_search
        As for every `QuasiNewton`, where the waits on the device are listed too.
    m : int
        Pairs that are remembered.
    """

    m: int = 10

    def __post_init__(self):
        super().__post_init__()
        check_setting(self, "m", 1, whole=True)

    def start(self, params):
        module, dtype = backend.xp(params.vector), params.dtype
        pairs = (self.m, params.size)  # pair k is in row k mod m
        return {
            "S": module.zeros(pairs, dtype),
            "Y": module.zeros(pairs, dtype),
            "rho": module.zeros(self.m, dtype),
            "pairs": 0,
        }

    def direction(self, g, state):
        S, Y, rho, pairs = state["S"], state["Y"], state["rho"], state["pairs"]
        rows = [k % self.m for k in range(max(0, pairs - self.m), pairs)]
        d, alpha = -g, {}
        for k in reversed(rows):
            alpha[k] = rho[k] * S[k].dot(d)
            d -= alpha[k] * Y[k]
        if rows:
            last = rows[-1]
            d *= 1.0 / (rho[last] * Y[last].dot(Y[last]))
        for k in rows:
            beta = rho[k] * Y[k].dot(d)
            d += (alpha[k] - beta) * S[k]
        return d

    def learn(self, s, y, ys, state):
        row = state["pairs"] % self.m
        state["S"][row], state["Y"][row], state["rho"][row] = s, y, 1.0 / ys
