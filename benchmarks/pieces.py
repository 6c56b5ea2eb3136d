"""What the parts of SMALL's step cost, in microseconds: everything that stands around its matrix products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from . import peers_numpy
from .cases import RATE, SMALL, Minigrad
from .timing import Limit

UNIT = "µs"
CASES = {"pieces": replace(SMALL, name="pieces of SMALL")}
SITES = len(SMALL.sizes) - 1


def _sweep(f: Any) -> None:
    for _ in f.sweep():
        pass


def _attributes(f: Any) -> None:
    for site in f.sweep():
        _ = site.name, site.h, site.a, site.da, site.W, site.b, site.below, site.shared


def _move(f: Any) -> None:
    f.params.vector += f.pullback(-RATE)


UP_TO = {  # everything from a new objective up to here
    "objective": lambda f: f,
    "graph": lambda f: f.graph(),
    "loss": lambda f: f.view(),
    "gradient": lambda f: f.pullback(-RATE),
    "θ": _move,
    "sweep": _sweep,
    "attributes": _attributes,
    "all gradients": lambda f: [site.gradient(-RATE) for site in f.sweep()],
}
WHOLE, NUMPY, FLOOR = "minigrad's step", "the same in NumPy by hand", "the matrix products alone"
PARTS = {  # part: (up to here, less what was before, how often it happens)
    "an objective": ("objective", None, 1),
    "forward pass and graph": ("graph", "objective", 1),
    "the loss at the output": ("loss", "graph", 1),
    "backward pass": ("gradient", "loss", 1),
    "θ moves": ("θ", "gradient", 1),
    "the protocol of a method": (WHOLE, "θ", 1),
    "a site": ("sweep", "loss", SITES),
    "all attributes of a site": ("attributes", "sweep", SITES),
    "a site's gradient": ("all gradients", "sweep", SITES),
}


def contenders(case: str, chosen: tuple[str, ...]) -> dict[str, list[str]]:
    return {name: [name] for name in (WHOLE, *UP_TO, NUMPY, FLOOR)}


def make(case: str, name: str) -> Callable[[], Any]:
    if name == NUMPY:
        return peers_numpy.Handwritten(SMALL).step
    if name == FLOOR:
        return peers_numpy.Floor(SMALL).step
    own = Minigrad(SMALL)
    return own.step if name == WHOLE else lambda: UP_TO[name](SMALL.objective(own.params))


def check(case: str, chosen: tuple[str, ...]) -> None:
    """The parts that lead to the gradient are those of a step."""
    own, other = Minigrad(SMALL), Minigrad(SMALL)
    own.step()
    UP_TO["θ"](SMALL.objective(other.params))
    if not np.array_equal(own.theta(), other.theta()):
        raise ValueError("the pieces do not add up to a step")


def derived(seconds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The parts by difference, round by round; and the unit, so that a ratio to it is microseconds."""
    zero = np.zeros(len(seconds[WHOLE]))
    found = {part: (seconds[to] - seconds.get(before, zero)) / times for part, (to, before, times) in PARTS.items()}
    return {**found, UNIT: zero + 1e-6}


def limits(case: str, names: list[str]) -> list[Limit]:
    rows = [*PARTS, WHOLE, NUMPY, FLOOR]
    return [Limit(name, UNIT) for name in rows]
