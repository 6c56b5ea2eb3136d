"""PRONG, natural neural networks: gradient descent where every layer's input is white."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigrad import backend

from .acp import centred_step, covariance
from .base import check_setting
from .factors import eigenbasis
from .layerwise import Layerwise, check_rates


@dataclass
class PRONG(Layerwise):
    """Gradient descent on (V, d) of a = V U (h − μ) + d, which leaves U and μ alone [T-6.4.2; Desjardins et al. 2015].

    U = (cov(h) + εI)^{-1/2} and μ = E[h] are taken anew from the current batch every `every` steps, V and d so that
    the network stays the same function. θ itself stays (W, b), in which the step is

        ΔW = −λ mean[da (h − μ)ᵀ] U²,    Δb = −λ mean da − ΔW μ

    With fresh U and μ this is `ACP` with α = 1.

    Parameters
    ----------
    lr : float
        λ.
    eps : float
        ε.
    every : int
        Steps between two whitenings.
    rest_lr : float, optional
        Rate of the parameters without a site; lr unless set.

    Notes
    -----
    state["3.U"] and state["3.mu"] are layer 3's U and μ, so V = W U⁻¹ and d = b + W μ; state["3.P"] is U². A refresh
    waits once per layer on the device: its factorisation is guarded. Nothing else waits.
    """

    lr: float = 0.1
    eps: float = 0.3
    every: int = 100
    rest_lr: float | None = None

    def __post_init__(self):
        check_rates(self)
        check_setting(self, "eps", 0, open_low=True)
        check_setting(self, "every", 1, whole=True)

    def rule(self, site, memory, t):
        P = self.stale(memory, "P", t, lambda: self._whiten(site, memory))
        return centred_step(site, -self.lr, memory["mu"], P)

    def _whiten(self, site: Any, memory: Any) -> Any:
        """Renew U and μ; U²."""
        C, mu = covariance(site.h, site.name)
        s, Q = eigenbasis(C, site.name)
        s = s + self.eps
        memory["U"] = (Q / backend.xp(s).sqrt(s)).dot(Q.T)
        memory["mu"] = mu
        return (Q / s).dot(Q.T)
