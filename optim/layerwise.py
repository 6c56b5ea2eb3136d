"""White-box methods: a rule per layer inside the backward sweep.

A method subclasses `Layerwise` and writes its formula in `rule`; sweeps, per-layer memory, stale inverses and
parameters without a site are kept here.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any

from minigrad import Objective
from minigrad.fusion import fused
from minigrad.sites import Site, Sweep

from .base import Method, check_setting


class Memory(MutableMapping):
    """One layer's part of the flat state: memory["P"] of layer "3" is state["3.P"]."""

    __slots__ = ("state", "prefix")

    def __init__(self, state: MutableMapping, name: str):
        self.state = state
        self.prefix = name + "."

    def __getitem__(self, key: str) -> Any:
        return self.state[self.prefix + key]

    def __setitem__(self, key: str, value: Any) -> None:
        self.state[self.prefix + key] = value

    def __delitem__(self, key: str) -> None:
        del self.state[self.prefix + key]

    def __contains__(self, key: object) -> bool:
        return f"{self.prefix}{key}" in self.state

    def __iter__(self) -> Iterator[str]:
        return (key.removeprefix(self.prefix) for key in self.state if key.startswith(self.prefix))

    def __len__(self) -> int:
        return sum(1 for _ in self)


class Layerwise(Method):
    """A method that decides each layer's step in the backward sweep.

    A subclass has the settings `lr` and `rest_lr`, and writes

    `rule(site, memory, t) → ΔW, Δb`
        The paper's formula. With L2, c·W is part of dW before any preconditioner.
    `send(site, ΔW, Δb, t)`
        Called where something lies below, to set `site.dh`; plain backprop unless overridden.
    `begin(f, state)`
        Before the sweep: draws samples from the method's stream, so that no rule draws.
    `finish(f, state, Δ) → Δ`
        After it: momentum, rescaling. A method that changes Δ here says `final_at_layer = False`.

    Parameters without a site move by −rest_lr·∇, rest_lr = lr unless set.
    """

    is_rule = True
    final_at_layer = True
    adds_shared_sites = False  # whether the rule of several layers with one window is the sum of their rules
    takes_positions = False  # whether the rule knows layers of (N, T, in)

    def rule(self, site: Site, memory: Memory, t: int) -> tuple[Any, Any]:
        raise TypeError(f"{type(self).__name__} has no rule(site, memory, t)")

    def send(self, site: Site, dW: Any, db: Any, t: int) -> None:
        """Plain backprop: the site sends da @ W."""

    def begin(self, f: Objective, state: MutableMapping) -> None:
        """Nothing to prepare."""

    def finish(self, f: Objective, state: MutableMapping, delta: Any) -> Any:
        return delta

    def update(self, f, state):
        draft = ChainMap({}, state)  # what is written to the state is kept when the whole step has succeeded
        delta = self._sweep(f, draft)
        state.update(draft.maps[0])
        return delta

    def _sweep(self, f: Objective, state: MutableMapping) -> Any:
        """Δθ: a sweep with the rule at every layer."""
        t = state["t"]
        self.begin(f, state)
        sweep = f.sweep()
        for site in sweep:
            self._check(site)
            dW, db = self.rule(site, Memory(state, site.name), t)
            site.write(dW, db)
            if site.below:
                self.send(site, dW, db, t)
        if sweep.strays and not self.adds_shared_sites:
            raise ValueError(f"{type(self).__name__} cannot step {sweep.strays[0]!r}: it is used outside its layer too")
        delta = sweep.delta
        if sweep.graph.siteless or sweep.strays:
            self._step_rest(f, sweep, delta)
        return self.finish(f, state, delta)

    def _check(self, site: Site) -> None:
        """Refuse a layer that the rule has no formula for."""
        if site.shared and not self.adds_shared_sites:
            raise ValueError(f"{type(self).__name__} cannot step layer {site.name!r}: two layers share its window")
        if site.h.ndim != 2 and not self.takes_positions:
            shape = f"the input of {site.name!r} has shape {tuple(site.h.shape)}"
            raise ValueError(f"{type(self).__name__} takes layers of (N, in), but {shape}")

    def _step_rest(self, f: Objective, sweep: Sweep, delta: Any) -> None:
        rate = self.lr if self.rest_lr is None else self.rest_lr
        delta -= rate * sweep.rest
        if f.l2:
            windows = f.params.windows(delta)
            for name in sweep.graph.siteless:
                if name.endswith(".W"):
                    windows[name][...] -= (rate * f.l2) * f.params[name]

    def stale(self, memory: Memory, key: str, t: int, compute: Callable[[], Any]) -> Any:
        """memory[key], computed anew when t is a multiple of `self.every`; with "auto", where memory["due"] is set."""
        due = memory["due"] if self.every == "auto" else t % self.every == 0
        if due or key not in memory:
            memory[key] = compute()
        return memory[key]


def check_rates(method: Any) -> None:
    """Refuse a rate that is not positive."""
    check_setting(method, "lr", 0, open_low=True)
    if method.rest_lr is not None:
        check_setting(method, "rest_lr", 0)


def check_every(method: Any) -> None:
    """Refuse an `every` that is neither a number of steps nor "auto", and a `moved` that is not positive."""
    if isinstance(method.every, str) and method.every != "auto":
        raise ValueError(f"{type(method).__name__}: every is a number of steps or 'auto', not {method.every!r}")
    if method.every != "auto":
        check_setting(method, "every", 1, whole=True)
    check_setting(method, "moved", 0, open_low=True)


@dataclass
class Gradient(Layerwise):
    """ΔW = −λ dW, Δb = −λ db: gradient descent as a layer rule, the rule inside a plain `UBP()` [T-alg 2].

    Parameters
    ----------
    lr : float
        λ.
    rest_lr : float, optional
        Rate of the parameters without a site; lr unless set.
    """

    lr: float = 0.1
    rest_lr: float | None = None
    adds_shared_sites = True
    takes_positions = True

    def __post_init__(self):
        check_rates(self)

    def rule(self, site, memory, t):
        dW, db = site.gradient(-self.lr)
        if site.objective.l2 and not site.shared:
            dW -= (self.lr * site.objective.l2) * site.W
        return dW, db


@dataclass
class Centred(Gradient):
    """Centred gradient descent: ΔW = −λ mean[da (h − h̄)ᵀ], Δb = −λ mean da [T-alg 3, T-6.3.1].

    h̄ is the mean of the layer's input over the batch.
    """

    adds_shared_sites = False
    takes_positions = False

    def rule(self, site, memory, t):
        dW, db = site.gradient(-self.lr, h=site.h - site.h.mean(0))
        if site.objective.l2:
            dW -= (self.lr * site.objective.l2) * site.W
        return dW, db


def largest_square(da: Any, floor: float) -> Any:
    """max da² over the batch and the units, not under `floor`: a 0-d array on da's device."""
    return _larger_square(da.max(), da.min(), floor)


@fused
def _larger_square(xp, high, low, floor):
    top = xp.maximum(high, -low)
    return xp.maximum(top * top, floor)
