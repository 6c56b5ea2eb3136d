"""Newton's method on the dense Hessian: plain, damped, and three ways to meet a Hessian that is indefinite."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import Objective, backend

from .base import Method, Stopped, check_choice, check_setting
from .line_search import Ray, backtracking
from .structures import LIMIT, columns

INDEFINITE = ("refuse", "abs", "shift", "keep")
SEARCHES = ("backtracking", "none")


@dataclass
class Newton(Method):
    """Newton's method, θ ← θ − t (H + λI)⁻¹ ∇R, H the Hessian of R [T-3.1.1, T-3.1.3; L; P].

    Parameters
    ----------
    lr : float
        The step length t that backtracking tries first (then halves, Armijo with 1e-4), and the one that "none" takes.
    damping : float
        λ.
    indefinite : {"refuse", "abs", "shift", "keep"}
        What to do about eigenvalues μ of H that are not positive:

        refuse  stop, with the eigenvalue, where H + λI is not positive definite
        abs     take |μ|, so that the step leaves a saddle [Dauphin et al. 2014]
        shift   add to H + λI what turns its smallest eigenvalue, where that is negative, into its modulus
        keep    take them as they are: the step goes to the nearest stationary point, a saddle too

        The last three divide by no modulus below √ε times the largest |μ|, ε the rounding of the dtype: along the
        directions that are flatter than that the gradient is noise.
    line_search : {"backtracking", "none"}

    Raises
    ------
    ValueError
        More parameters than a dense matrix is made for.
    Stopped
        R, its gradient or H is not finite, H + λI is not positive definite with "refuse", the step is no descent
        ("keep" with backtracking), or no step along it lowers R. θ and the state stay as they are.

    Notes
    -----
    H takes d products with unit vectors. Waits on the device, a step: 2 and, with backtracking, 1 for every trial.
    """

    lr: float = 1.0
    damping: float = 0.0
    indefinite: str = "refuse"
    line_search: str = "backtracking"
    full_batch = True

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "damping", 0)
        check_choice(self, "indefinite", INDEFINITE)
        check_choice(self, "line_search", SEARCHES)

    def start(self, params):
        if params.size > LIMIT:
            size = params.size**2 * params.dtype.itemsize / 1e9
            raise ValueError(
                f"Newton: {params.size:,} parameters make a Hessian of {size:.3g} GB, and {LIMIT:,} is the limit; "
                "take HessianFree or LBFGS"
            )
        return {}

    def update(self, f, state):
        g = f.grad
        try:
            ray = Ray(f, -self._solve(hessian(f), g))
        except backend.FactorisationError as error:
            where = f"R(θ) is {float(f.value):g} and its Hessian is not finite"
            raise Stopped(f"Newton: {where}; start from another θ") from error
        value, slope = backend.numbers(f.value, g.dot(ray.direction))
        if not (math.isfinite(value) and math.isfinite(slope)):
            raise Stopped(f"Newton: R(θ) is {value:g}, the slope along the step {slope:g}; raise the damping")
        if slope == 0 or self.line_search == "none":
            return ray.move(self.lr)
        return ray.move(backtracking(ray.value, value, slope, self.lr, eps=ray.eps))

    def _solve(self, H: Any, g: Any) -> Any:
        """(H + λI)⁻¹ g (d,), with the eigenvalues of H as `indefinite` says."""
        module = backend.xp(H)
        if self.indefinite == "refuse":
            damped = H + self.damping * module.eye(len(H), dtype=H.dtype)
            try:
                return backend.spd_solve(damped, g)
            except backend.FactorisationError:
                smallest = float(backend.eigh(H)[0][0])
            raise Stopped(
                f"Newton: the Hessian has the eigenvalue {smallest:.3g}, so with damping {self.damping:g} its step "
                f"is no descent; take indefinite='abs' or a damping above {max(0.0, -smallest):.3g}"
            )
        mu, V = backend.eigh(H)
        floor = float(module.finfo(H.dtype).eps) ** 0.5 * abs(mu).max()
        if self.indefinite == "abs":
            mu = module.maximum(abs(mu), floor) + self.damping
        else:
            mu = mu + self.damping
            if self.indefinite == "shift":
                mu += module.maximum(abs(mu[0]), floor) - mu[0]
            mu = module.where(abs(mu) < floor, module.copysign(floor, mu), mu)
        along, zero = V.T.dot(g), mu == 0  # of a Hessian that is 0: then a gradient asks for an endless step
        steps = module.where(zero & (along != 0), math.inf, along / module.where(zero, 1, mu)).astype(g.dtype)
        with np.errstate(invalid="ignore"):
            return V.dot(steps)


def hessian(f: Objective) -> Any:
    """∇²R (d, d), symmetric, from its products with the unit vectors."""
    H = columns(f.hvp, f.params.size, range(f.params.size), f.params.vector)
    return 0.5 * (H + H.T)
