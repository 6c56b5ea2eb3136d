"""One training step of SGD against every peer that is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import cases, peers, peers_numpy
from .cases import CASES, Minigrad
from .timing import Limit
from .workers import TUNED

BASE = {"AE": "floor", "CLS": "NumPy", "SMALL": "NumPy"}
MUST = {
    "AE": [Limit("minigrad", "floor", 1.18, 1.08), Limit("minigrad", "torch", 1.0, gate=False)],
    "CLS": [Limit("minigrad", "NumPy", 1.10, 1.04), Limit("minigrad", "torch", 1.0, gate=False)],
    "SMALL": [Limit("minigrad", "torch", 0.35, gate=False)],
}
OWN = {
    "floor": lambda case: peers_numpy.Floor(case).step,
    "minigrad": lambda case: Minigrad(case).step,
    "minigrad, no loss value": lambda case: Minigrad(case).update,
    "NumPy": lambda case: peers_numpy.Handwritten(case).step,
    "NumPy, β = 1": lambda case: peers_numpy.Fused(case).step,
}


def contenders(case: str, chosen: tuple[str, ...]) -> dict[str, list[str]]:
    """{name in the table: variants, of which the fastest is shown}."""
    found = {name: [name] for name in OWN}
    for name, steps in peers.having("STEPS", chosen).items():
        found[name] = found[name + TUNED] = list(steps)
    if "torch" in found:
        found["torch optim.SGD"] = ["torch optim.SGD"]
    return found


def make(case: str, name: str) -> Callable[[], Any]:
    """The step of one contender."""
    if name in OWN:
        return OWN[name](CASES[case])
    return peers.module(name.split()[0]).STEPS[name](CASES[case]).step


def check(case: str, chosen: tuple[str, ...]) -> None:
    """Every peer moves θ as minigrad does."""
    others = {"NumPy": peers_numpy.Handwritten, "NumPy, β = 1": peers_numpy.Fused}
    for steps in peers.having("STEPS", chosen).values():
        others.update(steps)
    cases.check(CASES[case], others)


def limits(case: str, names: list[str]) -> list[Limit]:
    """What must be reached, then all contenders over one base."""
    known = [limit for limit in MUST[case] if limit.over in names]
    told = [limit.name for limit in known if limit.over == BASE[case]]
    return known + [Limit(name, BASE[case]) for name in names if name not in told]
