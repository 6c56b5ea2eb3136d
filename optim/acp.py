"""ACP: the amortised covariance preconditioner of the thesis, a local ridge regression for every layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigrad import backend, ops

from .base import check_setting
from .layerwise import Layerwise, check_rates, largest_square


@dataclass
class ACP(Layerwise):
    """ΔW = −(λ/α) mean[da (h − h̄)ᵀ] P, Δb = −(λ/α) mean da − ΔW h̄ with P = (C + (ε/α) I)⁻¹ [T-6.1, T-alg 4].

    C is the covariance of the layer's input. With the P of this batch the step minimises
    (1/N) Σ ‖ΔW h + Δb + (λ/α) da‖² + (ε/α) ‖ΔW‖² (for α = 1, T-6.1.1): the layer is asked to move its
    pre-activations against their gradient. ε damps W only. P is recomputed every `every` steps and keeps the α of
    that moment; λ/α and h̄ are always current. (The thesis's pseudocode leaves the last term of Δb out; T-6.2.5
    has it.)

    Parameters
    ----------
    lr : float
        λ.
    eps : float
        ε, Tikhonov's damping of the covariance [T-6.3.2].
    alpha : float or "max"
        α, the stand-in for the curvature above the layer: a number, or the largest da² over the batch and units,
        for each layer and batch anew [T-6.3.2].
    every : int
        Steps between two inverses.
    rho : float
        0: C comes from the batch of the refresh. Above 0: from moving averages of E[h hᵀ] and E[h] with this decay,
        (at most 1 − 1/k at the k-th update, so that the first batches count in full).
    stats_every : int
        Steps between two updates of those averages.
    alpha_floor : float
        The least α of "max".
    rest_lr : float, optional
        Rate of the parameters without a site; lr unless set.

    Notes
    -----
    A refresh waits once per layer on the device: its factorisation is guarded. Nothing else waits.
    """

    lr: float = 0.1
    eps: float = 0.3
    alpha: float | str = "max"
    every: int = 100
    rho: float = 0.0
    stats_every: int = 10
    alpha_floor: float = 1e-3
    rest_lr: float | None = None

    def __post_init__(self):
        check_rates(self)
        check_setting(self, "eps", 0, open_low=True)
        if self.alpha != "max":
            if isinstance(self.alpha, str):
                raise ValueError(f"ACP: alpha is a positive number or 'max', not {self.alpha!r}")
            check_setting(self, "alpha", 0, open_low=True)
        check_setting(self, "every", 1, whole=True)
        check_setting(self, "rho", 0, 1)
        check_setting(self, "stats_every", 1, whole=True)
        check_setting(self, "alpha_floor", 0, open_low=True)

    def rule(self, site, memory, t):
        f = site.objective
        alpha = largest_square(site.da, self.alpha_floor) if self.alpha == "max" else self.alpha
        mean = site.h.mean(0)
        centred = site.h - mean
        if self.rho and t % self.stats_every == 0:
            self._average(memory, site.h, mean)
        P = self.stale(memory, "P", t, lambda: self._inverse(site, memory, centred, alpha))
        rate = -self.lr / alpha
        if f.n < site.W.shape[0] and not f.l2:  # N × in × in is then less work than out × in × in
            dW, db = site.gradient(rate, h=ops.product(centred, P))
        else:
            dW, db = site.gradient(rate, h=centred)
            if f.l2:
                dW += (rate * f.l2) * site.W
            dW[...] = ops.product(dW, P)
        if db is not None:
            db -= ops.product(mean[None], dW.T)[0]
        return dW, db

    def _average(self, memory: Any, h: Any, mean: Any) -> None:
        """Moving averages of E[h hᵀ] and E[h]."""
        second = ops.product(h.T, h) * (1.0 / len(h))
        k = memory["k"] + 1 if "k" in memory else 1
        memory["k"] = k
        rho = min(1.0 - 1.0 / k, self.rho)
        if k == 1:
            memory["second"], memory["first"] = second, mean
        else:
            memory["second"] = rho * memory["second"] + (1.0 - rho) * second
            memory["first"] = rho * memory["first"] + (1.0 - rho) * mean

    def _inverse(self, site: Any, memory: Any, centred: Any, alpha: Any) -> Any:
        """P = (C + (ε/α) I)⁻¹."""
        if self.rho:
            first = memory["first"]
            C = memory["second"] - first[:, None] * first
        else:
            C = ops.product(centred.T, centred) * (1.0 / len(centred))
        module = backend.xp(C)
        C[module.arange(len(C)), module.arange(len(C))] += self.eps / alpha
        return damped_inverse(C, site.name)


def damped_inverse(matrix: Any, layer: str) -> Any:
    """Inverse of a positive definite matrix; a failure in float32 is tried again in float64, then named.

    Raises
    ------
    FactorisationError
        With the layer's name.
    """
    try:
        return backend.spd_inverse(matrix)
    except backend.FactorisationError:
        try:
            return backend.spd_inverse(matrix.astype("float64")).astype(matrix.dtype)
        except backend.FactorisationError as error:
            raise backend.FactorisationError(f"layer {layer!r}: {error}") from error
