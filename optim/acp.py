"""ACP: the amortised covariance preconditioner of the thesis, a local ridge regression for every layer."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from minigrad import ops

from .base import check_setting
from .factors import damped_inverse, layer_inputs, moving_average, relative_moves, second_moment
from .layerwise import Layerwise, Memory, check_every, check_rates, largest_square


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
    every : int or "auto"
        Steps between two inverses; "auto" renews a layer's when its C has `moved` since.
    rho : float
        0: C comes from the batch of the refresh. Above 0: from moving averages of E[h hᵀ] and E[h] with this decay,
        (at most 1 − 1/k at the k-th update, so that the first batches count in full).
    stats_every : int
        Steps between two updates of those averages, and between two looks of "auto".
    alpha_floor : float
        The least α of "max".
    rest_lr : float, optional
        Rate of the parameters without a site; lr unless set.
    moved : float
        τ of "auto": renew where ‖C − C₀‖_F > τ ‖C₀‖_F; looked at every `stats_every` steps.

    Notes
    -----
    A refresh waits once per layer on the device: its factorisation is guarded. With `every="auto"` each look waits
    once for all layers. Nothing else waits. state["3.inverses"] counts the inverses of layer 3.
    """

    lr: float = 0.1
    eps: float = 0.3
    alpha: float | str = "max"
    every: int | str = 100
    rho: float = 0.0
    stats_every: int = 10
    alpha_floor: float = 1e-3
    rest_lr: float | None = None
    moved: float = 0.5

    def __post_init__(self):
        check_rates(self)
        check_setting(self, "eps", 0, open_low=True)
        if self.alpha != "max":
            if isinstance(self.alpha, str):
                raise ValueError(f"ACP: alpha is a positive number or 'max', not {self.alpha!r}")
            check_setting(self, "alpha", 0, open_low=True)
        check_every(self)
        check_setting(self, "rho", 0, 1)
        check_setting(self, "stats_every", 1, whole=True)
        check_setting(self, "alpha_floor", 0, open_low=True)

    def begin(self, f, state):
        if self.every == "auto":
            self._look(f, state)

    def rule(self, site, memory, t):
        alpha = largest_square(site.da, self.alpha_floor) if self.alpha == "max" else self.alpha
        if self.rho and self.every != "auto" and t % self.stats_every == 0:
            self._average(memory, site.h)
        P = self.stale(memory, "P", t, lambda: self._inverse(site, memory, alpha))
        return centred_step(site, -self.lr / alpha, site.h.mean(0), P)

    def _look(self, f: Any, state: MutableMapping) -> None:
        """With `every="auto"`: say which layers are due, memory["due"]; keep the C of those, memory["C"]."""
        inputs, found = layer_inputs(f, joint=False), {}
        if state["t"] % self.stats_every == 0:
            for name, h in inputs.items():
                memory = Memory(state, name)
                if self.rho:
                    self._average(memory, h)
                found[name] = self._spread(h, memory, name)
        old = [name for name in found if f"{name}.C" in state]
        moves = relative_moves([(found[name], state[f"{name}.C"]) for name in old]) if old else []
        still = {name for name, moved in zip(old, moves) if moved <= self.moved}
        for name in inputs:
            due = name in found and name not in still
            state[f"{name}.due"] = int(due)
            if due:
                state[f"{name}.C"] = found[name]

    def _average(self, memory: Any, h: Any) -> None:
        """Moving averages of E[h hᵀ] and E[h]."""
        k = memory["k"] = memory.get("k", 0) + 1
        memory["second"] = moving_average(memory.get("second"), second_moment(h, len(h)), k, self.rho)
        memory["first"] = moving_average(memory.get("first"), h.mean(0), k, self.rho)

    def _spread(self, h: Any, memory: Any, layer: str) -> Any:
        """C, of this batch or of the averages."""
        if not self.rho:
            return covariance(h, layer)[0]
        first = memory["first"]
        return memory["second"] - first[:, None] * first

    def _inverse(self, site: Any, memory: Any, alpha: Any) -> Any:
        """P = (C + (ε/α) I)⁻¹."""
        C = memory["C"] if self.every == "auto" else self._spread(site.h, memory, site.name)
        memory["inverses"] = memory.get("inverses", 0) + 1
        return damped_inverse(C, self.eps / alpha, site.name, memory.get("P"))


def covariance(h: Any, layer: str) -> tuple[Any, Any]:
    """Covariance (in, in) and mean (in,) of a layer's input h (N, in).

    Raises
    ------
    ValueError
        A batch of one, by the layer's name.
    """
    if len(h) == 1:
        raise ValueError(f"the covariance of the input of layer {layer!r} needs more than one example")
    mean = h.mean(0)
    return second_moment(h - mean, len(h)), mean


def centred_step(site: Any, rate: Any, mean: Any, P: Any) -> tuple[Any, Any]:
    """ΔW = rate (mean[da (h − mean)ᵀ] + cW) P, Δb = rate mean da − ΔW mean [T-6.2.4, T-6.2.5].

    Parameters
    ----------
    rate : float or 0-d array
    mean : (in,)
    P : (in, in)
    """
    f, centred = site.objective, site.h - mean
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
