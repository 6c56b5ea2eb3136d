"""LeCun's rate: gradient descent whose step is one over the largest curvature, followed by power iteration."""

from __future__ import annotations

from dataclasses import dataclass

from minigrad import backend

from .base import Method, check_setting
from .spectrum import normal, power_step


@dataclass
class LeCun(Method):
    """θ ← θ − (λ/|λ_max(H)|) ∇R [T-3.1.2; LeCun, Simard & Pearlmutter 1993].

    Every `every` steps v ← H v/‖H v‖, `iterations` times from where the last refresh left v; ‖H v‖ then stands for
    λ_max. It tends to the largest |λ|, so that a Hessian whose strongest curvature is negative gives a positive rate
    too. It comes from below: after few iterations the rate is too large.

    Parameters
    ----------
    lr : float
        λ. On a quadratic 1 never overshoots and 2 is where gradient descent diverges.
    every : int
        Steps between two refreshes.
    iterations : int
        Products with H in a refresh; the first one takes ten times as many, since it starts anywhere.
    floor : float
        The least |λ_max| that is believed, so that the rate is at most λ/floor.

    Notes
    -----
    H is the batch's. No waits: the rate stays on its device. The first step uploads the random v.
    """

    lr: float = 1.0
    every: int = 10
    iterations: int = 5
    floor: float = 1e-3

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "every", 1, whole=True)
        check_setting(self, "iterations", 1, whole=True)
        check_setting(self, "floor", 0, open_low=True)

    def update(self, f, state):
        t = state["t"]
        if t % self.every == 0 or "v" not in state:
            self._refresh(f, state, t)
        return f.pullback(-self.lr / backend.xp(state["curvature"]).maximum(state["curvature"], self.floor))

    def _refresh(self, f, state, t):
        """Follow the dominant direction of H: state["v"], and ‖H v‖ in state["curvature"]."""
        v, count = state.get("v"), self.iterations
        if v is None:
            v, count = normal(f.params.vector, backend.stream(state["key"], "lecun", t)), 10 * count
        for _ in range(count):
            size, v = power_step(f.hvp, v)
        state["v"], state["curvature"] = v, backend.xp(v).asarray(size)
