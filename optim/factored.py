"""What K-FAC and EKFAC share: averages of the factors, when they are factorised, and what follows the sweep."""

from __future__ import annotations

import math
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import Objective, backend, ops

from .base import Stopped, check_setting
from .factors import BIASES, KINDS, check_choice, homogeneous, kronecker_factors, moving_average, relative_moves
from .layerwise import Layerwise, Memory, check_every, check_rates

OMEGA, ADAPT_EVERY = 0.95, 5  # of the Levenberg-Marquardt adaptation
State = MutableMapping[str, Any]


@dataclass
class Factored(Layerwise):
    """A layer rule on the Kronecker factors A and G; `KFAC` says what its settings mean.

    A subclass has `factorise(memory, name, damping)`, which turns memory["A"] and memory["G"] into what its rule
    reads, and may have `after_refresh`.
    """

    lr: float = 0.1
    damping: float = 0.3
    curvature: str = "mc"
    samples: int = 1
    bias: str = "joint"
    rho: float = 0.95
    every: int | str = 100
    stats_every: int = 10
    moved: float = 0.5
    clip: float | None = None
    lm: bool = False
    momentum: bool = False
    rest_lr: float | None = None

    def __post_init__(self):
        name = type(self).__name__
        check_rates(self)
        check_setting(self, "damping", 0, open_low=self.lm)
        check_choice(name, "curvature", self.curvature, KINDS)
        check_setting(self, "samples", 1, whole=True)
        check_choice(name, "bias", self.bias, BIASES)
        check_setting(self, "rho", 0, 1)
        check_every(self)
        check_setting(self, "stats_every", 1, whole=True)
        if self.clip is not None:
            check_setting(self, "clip", 0, open_low=True)
            if self.momentum:
                raise ValueError(f"{name}: clip and momentum both set the length of the step; leave one out")

    @property
    def final_at_layer(self) -> bool:
        """Whether a layer's step is known inside the sweep: `clip` and `momentum` rescale it afterwards."""
        return self.clip is None and not self.momentum

    def start(self, params):
        found: dict[str, Any] = {"damping": float(self.damping)} if self.lm else {}
        return {**found, "previous": backend.zeros_like(params.vector)} if self.momentum else found

    def factorise(self, memory: Memory, name: str, damping: float) -> None:
        raise TypeError(f"{type(self).__name__} has no factorise(memory, name, damping)")

    def after_refresh(self, f: Objective, state: State, due: list[str], observed: bool) -> None:
        """Called in every step when the layers in `due` have new factorisations, and `observed` says if A, G moved."""

    # ------------------------------------------------------------------------------------- before the sweep

    def begin(self, f, state):
        observed = state["t"] % self.stats_every == 0 or "k" not in state
        if observed:
            self._observe(f, state)
        due = self._due(f, state, observed)
        for name in due:
            memory = Memory(state, name)
            memory["inverses"] = memory.get("inverses", 0) + 1
            if self.every == "auto":
                memory["A0"], memory["G0"], memory["damping"] = memory["A"], memory["G"], self.damping_of(state)
            self.factorise(memory, name, self.damping_of(state))
        self.after_refresh(f, state, due, observed)

    def _observe(self, f: Objective, state: State) -> None:
        """Move the averages of A and G by this batch."""
        k = state["k"] = state.get("k", 0) + 1
        found = kronecker_factors(f, self.curvature, self.samples, self.stream(state), self.bias == "joint")
        for name, (A, G) in found.items():
            memory = Memory(state, name)
            memory["A"] = moving_average(memory.get("A"), A, k, self.rho)
            memory["G"] = moving_average(memory.get("G"), G, k, self.rho)

    def stream(self, state: State) -> Any:
        """The random numbers of this step's samples, from the first."""
        return backend.stream(state["key"], "kfac", state["t"]) if self.curvature == "mc" else None

    def damping_of(self, state: State) -> float:
        """λ_d at this step."""
        return state["damping"] if self.lm else self.damping

    def _due(self, f: Objective, state: State, observed: bool) -> list[str]:
        """The layers that are factorised now."""
        layers = memories(f, state)
        new = [name for name, memory in layers.items() if "inverses" not in memory]
        if self.every != "auto":
            return list(layers) if state["t"] % self.every == 0 else new
        old = {name: memory for name, memory in layers.items() if name not in new} if observed else {}
        if not old:
            return new
        moves = relative_moves([(memory[X], memory[X + "0"]) for memory in old.values() for X in "AG"])
        for (name, memory), a, g in zip(old.items(), moves[::2], moves[1::2]):
            damping = abs(self.damping_of(state) / memory["damping"] - 1.0) if self.lm else 0.0
            if max(a, g, damping) > self.moved:
                new.append(name)
        return new

    # -------------------------------------------------------------------------------------- after the sweep

    def finish(self, f, state, delta):
        if self.momentum:
            delta = self._best_combination(f, state, delta)
        if self.clip is not None:
            module = backend.xp(delta)
            squared = (self.lr / self.clip) * abs(delta.dot(f.grad))  # Δ = −λ Δ̂, so this is λ²|⟨Δ̂, ∇⟩| / κ
            delta /= module.maximum(module.sqrt(squared), 1.0)
        if self.lm and (state["t"] + 1) % ADAPT_EVERY == 0:
            state["damping"] = self._adapted(f, state, delta)
        if self.momentum:
            state["previous"] = delta
        return delta

    def _best_combination(self, f: Objective, state: State, proposed: Any) -> Any:
        """α Δ̂ + μ Δ_previous with [α, μ] = −(Vᵀ (F + λ_d I) V)⁻¹ Vᵀ∇, V = [Δ̂, Δ_previous]."""
        damping, gradient = self.damping_of(state), f.grad
        V = [proposed, state["previous"]]
        FV = [f.ggnvp(v) + damping * v for v in V]  # L2 is in ggnvp
        products = [V[0].dot(FV[0]), V[0].dot(FV[1]), V[1].dot(FV[1])]
        a, b, c, *slopes = backend.numbers(*products, V[0].dot(gradient), V[1].dot(gradient))
        self._check_finite("the quadratic model", a, b, c, *slopes)
        unit = np.array([1.0 / math.sqrt(v) if v > 0 else 0.0 for v in (a, c)])  # Δ_previous = 0 at the first step
        model = np.array([[a, b], [b, c]]) * np.outer(unit, unit)
        alpha, mu = -unit * (np.linalg.pinv(model, rcond=1e-6, hermitian=True) @ (unit * slopes))
        return float(alpha) * V[0] + float(mu) * V[1]

    def _adapted(self, f: Objective, state: State, delta: Any) -> float:
        """λ_d after this step, by ρ = (R(θ + Δ) − R(θ)) / (M(Δ) − M(0)) with the quadratic model M."""
        damping = state["damping"]
        model = delta.dot(f.grad) + 0.5 * delta.dot(f.ggnvp(delta) + damping * delta)
        change = f.at(f.params.vector + delta).value - f.value
        change, model = backend.numbers(change, model)
        self._check_finite("the loss after the step", change, model)
        if not model:
            return damping
        ratio = change / model if model < 0 else -math.inf  # the model itself says that the step is too long
        return damping * OMEGA ** (ADAPT_EVERY if ratio > 0.75 else -ADAPT_EVERY if ratio < 0.25 else 0)

    def _check_finite(self, what: str, *values: float) -> None:
        if not all(map(math.isfinite, values)):
            raise Stopped(f"{type(self).__name__}: {what} is not finite; lower lr, or raise damping")


def memories(f: Objective, state: State) -> dict[str, Memory]:
    """{layer: its part of the state}, in the order of the forward pass."""
    return {layer.name: Memory(state, layer.name) for layer in f.graph().sites.values()}


def step_in_eigenbasis(site: Any, memory: Memory, rate: float) -> tuple[Any, Any]:
    """(ΔW, Δb) = rate · Q_G [(Q_Gᵀ ∇ Q_A) ÷ scales] Q_Aᵀ with ∇ = [dW db].

    Where Q_A has no row for the bias, Δb = rate · Q_G [(Q_Gᵀ db) ÷ b_scales].
    """
    f, W = site.objective, site.W
    Q_A, Q_G = memory["Q_A"], memory["Q_G"]
    outputs, inputs = W.shape
    joint = len(Q_A) > inputs
    h, da = homogeneous(site.h) if joint else site.h, site.da
    on_h, on_da = f.n < outputs and not f.l2, f.n < inputs and not f.l2  # which side of each product has fewer rows
    turned = ops.product((ops.product(da, Q_G) if on_da else da).T, ops.product(h, Q_A) if on_h else h)
    turned *= rate / f.n
    if f.l2:
        turned[:, :inputs] += (rate * f.l2) * W
    turned = turned if on_h else ops.product(turned, Q_A)
    turned = turned if on_da else ops.product(Q_G.T, turned)
    turned /= memory["scales"]
    step = ops.product(ops.product(Q_G, turned), Q_A.T)
    if site.b is None or joint:
        return step[:, :inputs], step[:, inputs] if joint else None
    db = backend.ones(f.n, da).dot(da) * (rate / f.n)
    return step, Q_G.dot(Q_G.T.dot(db) / memory["b_scales"])
