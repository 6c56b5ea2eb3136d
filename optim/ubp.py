"""UBP, updated backpropagation: send down the signal that the layer will have after its own update."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from minigrad import backend, ops

from .layerwise import Gradient, Layerwise

MODES = ("gn", "explicit", "hessian", "mc", "empirical", "none")


@dataclass
class UBP(Layerwise):
    """At every layer the inner rule decides (ΔW, Δb); then, instead of da W, it sends down [T-5.2, T-alg 2]

        dh′ = da (W + ΔW) + [Jᵀ H_z J (ΔW h + Δb)] W

    with J, H_z of the old, unedited network and W the old weights: a first-order estimate of the signal that the
    moved layer would send.

    Parameters
    ----------
    inner : Layerwise
        The rule for ΔW, Δb; `Gradient()` is the thesis's own.
    mode : {"gn", "explicit", "hessian", "mc", "empirical", "none"}
        How the bracket is formed:

        gn         one product up and one down through the layers above, no Jacobian stored
        explicit   the same with J as an array; teaches, for few outputs
        hessian    the exact ∂²ℓ/∂a² v, by forward-over-reverse through the layers above
        mc         s (s·v) with one sampled signal s, swept down beside da: unbiased but noisy
        empirical  da (da·v), no further sweep [T-3.4.1]; for cross-entropies only
        none       left out

    Notes
    -----
    The signal sent is right to second order in λ on chains: with "hessian" on smooth networks, with "gn" on linear
    and ReLU chains (elsewhere "gn" leaves a first-order error); a signal that skips the layer stays uncorrected.
    The thesis sums over the batch where R averages: its λ is ours divided by N.
    """

    inner: Layerwise = field(default_factory=Gradient)
    mode: str = "gn"

    def __post_init__(self):
        if not getattr(self.inner, "is_rule", False):
            raise ValueError(f"UBP goes over a layer rule (Gradient, Centred, ACP, …), not {type(self.inner).__name__}")
        if not self.inner.final_at_layer:
            raise ValueError(f"UBP cannot go over {type(self.inner).__name__}: its step is rescaled after the sweep")
        if isinstance(self.inner, UBP):
            raise ValueError("UBP cannot go over UBP: the signal is edited once")
        if self.mode not in MODES:
            raise ValueError(f"unknown UBP mode {self.mode!r}; the modes are {', '.join(MODES)}")

    @property
    def lr(self) -> float:
        return self.inner.lr

    @property
    def rest_lr(self) -> float | None:
        return self.inner.rest_lr

    def start(self, params):
        return self.inner.start(params)

    def begin(self, f, state):
        if self.mode == "empirical" and f.loss is not None:
            f.need_separate_examples()
            if not f.loss.is_cross_entropy:
                raise ValueError(f"UBP mode 'empirical' is for cross-entropies, not {f.loss.name}: use mode 'gn'")
        self.inner.begin(f, state)
        if self.mode == "mc":
            f.signals("mc", rng=backend.stream(state["key"], "ubp", state["t"]))

    def rule(self, site, memory, t):
        return self.inner.rule(site, memory, t)

    def finish(self, f, state, delta):
        return self.inner.finish(f, state, delta)

    def send(self, site, dW, db, t):
        da, W = site.da, site.W
        if self.mode == "empirical":  # da·v = (da ΔW)·h + da·Δb, so that v itself is never formed
            below = ops.product(da, dW)
            along = _dot(below, site.h)
            if db is not None:
                along += ops.product(da, db[:, None])
            site.dh = below + (1.0 + along) * ops.product(da, W)
            return
        site.dh = ops.product(da, ops.add(W, dW))  # T-alg 2, line 14: (W + ΔW)ᵀ da …
        if self.mode == "none":
            return
        moved = ops.affine(site.h, dW, db)  # how far the pre-activations move
        if self.mode == "mc":
            s = site.signals("mc")[0]
            site.dh += _dot(s, moved) * site.sent("mc")[0]
        else:
            site.dh += ops.product(self._curvature(site, moved), W)  # … + Wᵀ Jᵀ H J (ΔW h + Δb)

    def _curvature(self, site: Any, v: Any) -> Any:
        """Jᵀ H_z J v (N, out)."""
        if self.mode == "gn":
            return site.JtHJ(v)
        if self.mode == "hessian":
            return site.hessian_vp(v)
        J = site.J  # (C, N, out)
        output = ops.einsum("cno,no->nc", J, v)
        return ops.einsum("cno,nc->no", J, site.objective.view().curvature(output))


def _dot(a: Any, b: Any) -> Any:
    """a·b for every example, as a column (N, 1)."""
    return backend.row_dot(a, b)[:, None]
