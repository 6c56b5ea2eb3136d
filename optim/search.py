"""Zeroth-order methods, which see nothing but values of R: random search, kept or weighted, and evolution strategies.

All of them step by random vectors ΔW = σ ε with E[ε εᵀ] = I; σ is the μ of [B].
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import Objective, backend

from .base import Method, Stopped, check_choice, check_setting
from .directions import Table, centred_ranks, gaussian, normals, rademacher
from .stacked import Replay

DIRECTIONS = ("gaussian", "rademacher", "table", "rank1")
SHAPINGS = ("none", "ranks")


@dataclass
class RandomSearch(Method):
    """Draw ΔW ~ N(0, σ² I); keep it where R improves on the same batch, drop it elsewhere [B].

    Parameters
    ----------
    sigma : float
        σ.

    Raises
    ------
    Stopped
        R is NaN at θ. At the trial point NaN is no improvement.

    Notes
    -----
    It decides on two numbers: one wait a step on the device.
    """

    sigma: float = 0.01

    def __post_init__(self):
        check_setting(self, "sigma", 0, open_low=True)

    def update(self, f, state):
        theta = f.params.vector
        delta = normals(backend.stream(state["key"], "random search", state["t"]), theta.size, theta)
        delta *= self.sigma
        values = backend.xp(theta).stack([f.value, f.at(theta + delta).value])
        here, there = backend.to_host(values).tolist()
        if np.isnan(here):
            raise Stopped("RandomSearch: the objective is NaN at θ, so nothing can improve on it; start elsewhere")
        return delta if there < here else backend.zeros_like(theta)


@dataclass
class WeightedSearch(Method):
    """W ← W − η R(W + ΔW) ΔW with ΔW ~ N(0, σ² I) [B].

    On average a step of −η σ² ∇R, buried in noise: R itself, not a difference, weighs the direction.

    Parameters
    ----------
    lr : float
        η.
    sigma : float
        σ.

    Notes
    -----
    No waits. The formula is [B]'s as it stands; to estimate ∇R itself divide η by σ².
    """

    lr: float = 0.1
    sigma: float = 0.01

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "sigma", 0, open_low=True)

    def update(self, f, state):
        theta = f.params.vector
        delta = normals(backend.stream(state["key"], "weighted search", state["t"]), theta.size, theta)
        delta *= self.sigma
        delta *= -self.lr * f.at(theta + delta).value
        return delta


@dataclass
class ES(Method):
    """Antithetic evolution strategy: Δθ = −λ (1/M) Σₘ [R(θ + σ εₘ) − R(θ − σ εₘ)]/(2σ) εₘ [B; Salimans et al. 2017].

    The sum estimates ∇R, so that λ means what it means in `SGD`; [B] does not divide by σ², and its η is λ/σ². Both
    signs see the same batch. For M directions in d dimensions the estimate's cosine with ∇R is about √(M/(M + d)).

    Parameters
    ----------
    lr : float
        λ.
    pairs : int
        M, the number of directions; each costs two values of R.
    sigma : float
        σ. The smaller, the nearer to ∇R, until the differences drown in the rounding of R.
    directions : {"gaussian", "rademacher", "table", "rank1"}
        Where ε comes from; E[ε εᵀ] = I in each:

        gaussian    d normals a direction; for a wide network most of the time goes into drawing them
        rademacher  d fair signs
        table       a window at a random place of one long strip of normals, drawn once from the key
        rank1       u vᵀ for the weights of every dense layer, and for every other parameter a vector, all of fair
                    signs: in + out numbers instead of in · out. No W + ΔW is ever formed, and one product serves
                    all directions of a layer. The objective needs dense layers; see `stacked`
    shaping : {"none", "ranks"}
        "ranks" puts in place of R its rank among all 2M values, from −½ to ½. The step is then the same for every
        increasing function of R.
    chunk : int
        For "rank1": how many directions are evaluated at once. More is faster on a GPU and takes more memory.

    Notes
    -----
    No waits. A NaN among the values makes θ NaN, which the training loop sees; with ranks, NaN counts as the largest.

    The expectation of "table" runs over keys. With one strip of T = max(2²⁰, 16 d) numbers and M → ∞ the estimate
    goes to C ∇R, where C is the strip's own covariance, off from I by about √(d/T).

    Examples
    --------
    >>> import minigrad as mg, optim
    >>> f = mg.Objective(lambda p: p["x"]**2 + p["x"] * p["y"] + p["y"]**2, mg.Params(x=3.0, y=-1.0))
    >>> method = optim.ES(lr=0.1, pairs=8)
    >>> state = method.init(f.params, rng=0)
    >>> for _ in range(100):
    ...     info = method.step(f, state)
    >>> float(info.loss) < 1e-3
    True
    """

    lr: float = 0.1
    pairs: int = 32
    sigma: float = 0.01
    directions: str = "gaussian"
    shaping: str = "none"
    chunk: int = 8

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "pairs", 1, whole=True)
        check_setting(self, "sigma", 0, open_low=True)
        check_setting(self, "chunk", 1, whole=True)
        check_choice(self, "directions", DIRECTIONS)
        check_choice(self, "shaping", SHAPINGS)
        self._table = Table()

    def update(self, f, state):
        total = backend.zeros_like(f.params.vector)
        if self.shaping == "ranks":
            self._add_ranked(f, state, total)
        else:
            for block in self._blocks(f, state):
                plus, minus = block.values(self.sigma)
                block.add(total, plus - minus)
        total *= -self.lr / (2.0 * self.sigma * self.pairs)
        return total

    def _add_ranked(self, f: Objective, state: dict[str, Any], total: Any) -> None:
        """Σ (rank₊ − rank₋) ε: all values first, then every direction again."""
        both = [block.values(self.sigma) for block in self._blocks(f, state)]
        module = backend.xp(total)
        ranks = centred_ranks(module.concatenate([plus for plus, _ in both] + [minus for _, minus in both]))
        weights, start = ranks[: self.pairs] - ranks[self.pairs :], 0
        for block, (plus, _) in zip(self._blocks(f, state), both):
            block.add(total, weights[start : start + plus.size])
            start += plus.size

    def _blocks(self, f: Objective, state: dict[str, Any]) -> Iterator[Any]:
        """This step's directions, the same at every call."""
        rng = backend.stream(state["key"], "directions", state["t"])
        if self.directions == "gaussian":
            return gaussian(f, rng, self.pairs)
        if self.directions == "rademacher":
            return rademacher(f, rng, self.pairs)
        if self.directions == "table":
            return self._table.windows(f, state["key"], rng, self.pairs)
        return Replay(f, self.chunk).blocks(rng, self.pairs)
