"""Wrappers that go around any method: rate schedules, decoupled weight decay, clipping of updates and gradients.

`ClipUpdate(WeightDecay(Scheduled(Adam())))` is a method like any other: it has the state of the one inside. What a
wrapper does to Δθ happens after the backward sweep, so UBP takes it outside (`WeightDecay(UBP(ACP()))`) and refuses it
inside; a schedule changes the rate that a rule reads, and works on either side.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from minigrad import Objective, backend

from .base import Method, check_setting

SHAPES = ("constant", "sqrt", "inverse", "cosine")


@dataclass
class Wrapper(Method):
    """A method around another one, whose state and batches it takes."""

    inner: Method

    def __post_init__(self):
        if not isinstance(self.inner, Method):
            raise ValueError(f"{type(self).__name__} goes around a method, not {type(self.inner).__name__}")

    @property
    def lr(self) -> float:
        return self.inner.lr

    @property
    def full_batch(self) -> bool:
        return self.inner.full_batch

    @property
    def reads_gradient(self) -> bool:
        return self.inner.reads_gradient

    def start(self, params):
        return self.inner.start(params)

    def update(self, f, state):
        return self.inner.update(f, state)

    def _rate_owner(self) -> Method:
        """The method whose field `lr` is the rate."""
        owner = self.inner
        while "lr" not in vars(owner) and hasattr(owner, "inner"):
            owner = owner.inner
        if "lr" not in vars(owner):
            raise ValueError(f"{type(self).__name__}: {type(owner).__name__} has no rate lr")
        return owner


@dataclass
class Scheduled(Wrapper):
    """The rate at step t = 0, 1, … is lr times a factor; everything that reads lr sees it, a layer rule too.

    constant  1
    sqrt      1/√(t + 1), the rate of SGD on convex functions [B]
    inverse   1/(t + 1)
    cosine    ½ (1 + cos(π t/steps)), 0 from `steps` on

    Parameters
    ----------
    inner : Method
        One that has a rate `lr`; a `rest_lr` of its own is scheduled with it.
    shape : {"sqrt", "inverse", "cosine", "constant"}
    steps : int
        Length of the cosine, after the warm-up.
    warmup : int
        Steps over which the factor first rises as (t + 1)/(warmup + 1).
    """

    shape: str = "sqrt"
    steps: int = 1000
    warmup: int = 0

    def __post_init__(self):
        super().__post_init__()
        if self.shape not in SHAPES:
            raise ValueError(f"unknown shape of a schedule {self.shape!r}; the shapes are {', '.join(SHAPES)}")
        check_setting(self, "steps", 1, whole=True)
        check_setting(self, "warmup", 0, whole=True)
        below = self.inner
        while below is not None:
            if isinstance(below, Scheduled):
                raise ValueError("Scheduled cannot go around Scheduled: a rate has one schedule")
            below = getattr(below, "inner", None)
        self._owner = self._rate_owner()
        self._base = {name: getattr(self._owner, name, None) for name in ("lr", "rest_lr")}

    def factor(self, t: int) -> float:
        """What lr is multiplied with at step t."""
        if t < self.warmup:
            return (t + 1) / (self.warmup + 1)
        t -= self.warmup
        if self.shape == "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * min(1.0, t / self.steps)))
        return {"constant": 1.0, "sqrt": (t + 1) ** -0.5, "inverse": 1.0 / (t + 1)}[self.shape]

    def rate(self, t: int) -> float:
        """The rate at step t."""
        return self._base["lr"] * self.factor(t)

    def _scale(self, factor: float) -> None:
        for name, value in self._base.items():
            if value is not None:
                setattr(self._owner, name, value * factor)

    def update(self, f, state):
        self._scale(self.factor(state["t"]))
        try:
            return self.inner.update(f, state)
        finally:
            self._scale(1.0)

    # What UBP asks of a rule: the rate is set in `begin` and put back in `finish`.

    @property
    def is_rule(self) -> bool:
        return self.inner.is_rule

    @property
    def final_at_layer(self) -> bool:
        return self.inner.final_at_layer

    @property
    def rest_lr(self) -> float | None:
        return self.inner.rest_lr

    def begin(self, f, state):
        self._scale(self.factor(state["t"]))
        self.inner.begin(f, state)

    def rule(self, site, memory, t):
        return self.inner.rule(site, memory, t)

    def finish(self, f, state, delta):
        delta = self.inner.finish(f, state, delta)
        self._scale(1.0)
        return delta


@dataclass
class WeightDecay(Wrapper):
    """Decoupled weight decay: Δθ of the method, and W shrinks by lr·decay·W [Loshchilov & Hutter 2019].

    Unlike the objective's `l2`, it is in no gradient, so no preconditioner and no moment ever sees it. Around `Adam`
    it is AdamW. It acts on the windows NAME.W, not on biases. lr is the method's rate at this step.

    Parameters
    ----------
    inner : Method
        One that has a rate `lr`.
    decay : float
    """

    decay: float = 1e-2

    def __post_init__(self):
        super().__post_init__()
        check_setting(self, "decay", 0)
        self._rate_owner()

    def update(self, f, state):
        weights = [name for name in f.params if name.endswith(".W")]
        if not weights:
            raise ValueError(f"WeightDecay shrinks windows called NAME.W; there are only {', '.join(f.params)}")
        delta = self.inner.update(f, state).copy()  # the method may keep its own
        shrunk = f.params.windows(delta)
        for name in weights:
            shrunk[name][...] -= (self._rate(state["t"]) * self.decay) * f.params[name]
        return delta

    def _rate(self, t: int) -> float:
        method = self.inner
        while not isinstance(method, Scheduled) and hasattr(method, "inner"):
            method = method.inner
        return method.rate(t) if isinstance(method, Scheduled) else method.lr


@dataclass
class ClipUpdate(Wrapper):
    """Δθ of the method, shortened to the length `limit` where it is longer.

    What the method remembers (a velocity, moments) stays as it was. No waits on the device.

    Parameters
    ----------
    inner : Method
    limit : float
        Largest Euclidean norm of Δθ.
    """

    limit: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_setting(self, "limit", 0, open_low=True)

    def update(self, f, state):
        delta = self.inner.update(f, state)
        return delta * _shortening(delta, self.limit)


@dataclass
class ClipGradient(Wrapper):
    """The method sees ∇R · min(1, limit/‖∇R‖) [Pascanu, Mikolov & Bengio 2013].

    Parameters
    ----------
    inner : Method
        One that reads nothing but the objective's gradient (and value).
    limit : float
        Largest Euclidean norm of ∇R.
    """

    limit: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        check_setting(self, "limit", 0, open_low=True)
        if not self.inner.reads_gradient:
            name = type(self.inner).__name__
            raise ValueError(f"ClipGradient: {name} does not read f.grad; shorten its update with ClipUpdate")

    def update(self, f, state):
        return self.inner.update(_Clipped(f, self.limit), state)


class _Clipped:
    """An objective whose gradient is no longer than `limit`."""

    def __init__(self, f: Objective, limit: float):
        self.f, self.limit = f, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self.f, name)

    def at(self, vector: Any) -> _Clipped:
        return _Clipped(self.f.at(vector), self.limit)

    @property
    def grad(self) -> Any:
        return self.pullback(1.0)

    def pullback(self, scale: Any = 1.0) -> Any:
        g = self.f.pullback(scale)
        g *= _shortening(g, self.limit * abs(scale))
        return g


def _shortening(vector: Any, limit: Any) -> Any:
    """min(1, limit/‖vector‖), a 0-d array on the vector's device."""
    module = backend.xp(vector)
    norm = module.sqrt(vector.dot(vector))
    return module.minimum(limit / module.maximum(norm, module.finfo(vector.dtype).tiny), 1.0).astype(vector.dtype)
