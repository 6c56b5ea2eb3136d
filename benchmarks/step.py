"""One training step of SGD, and a chain of additions, against every peer that is installed."""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

import minigrad as mg

from . import cases, peers_numpy
from .cases import Minigrad
from .timing import Limit
from .workers import TUNED

CASES = ("AE", "CLS", "SMALL", "chain", "chain-0d")
FRAMEWORKS = ("torch", "autograd")
LENGTH = 1000
UNIT = "µs an operation"
BASE = {"AE": "floor", "CLS": "NumPy", "SMALL": "NumPy"}
MUST = {  # torch: the fastest of its variants, found at the start of a run
    "AE": [Limit("minigrad", "floor", 1.18, 1.08), Limit("minigrad", "torch", 1.0, gate=False)],
    "CLS": [Limit("minigrad", "NumPy", 1.10, 1.04), Limit("minigrad", "torch", 1.0, gate=False)],
    "SMALL": [Limit("minigrad", "torch", 0.35, gate=False)],
    "chain": [Limit("minigrad", UNIT, 2.5, 1.5, gate=False), Limit("minigrad", "torch", gate=False)],
}
MUST["chain-0d"] = MUST["chain"]


@functools.cache
def frameworks() -> dict[str, Any]:
    """{name: module of peers} of those that are installed."""
    found = {}
    for name in FRAMEWORKS:
        try:
            found[name] = importlib.import_module(f".peers_{name}", __package__)
        except ModuleNotFoundError as error:
            if error.name != name:
                raise
    return found


def title(case: str) -> str:
    if case in cases.CASES:
        return cases.CASES[case].title
    return f"{case}  y ← y + c of shape {_chain_shape(case)}, {LENGTH} times, forward and backward, float64"


def count(case: str) -> int:
    return cases.CASES[case].count if case in cases.CASES else 2


def contenders(case: str) -> dict[str, list[str]]:
    """{name in the table: variants, of which the fastest is shown}."""
    found = {name: [name] for name in _own(case)}
    for name, peers in frameworks().items():
        found[name] = list(peers.STEPS) if case in cases.CASES else [name]
        if case in cases.CASES:
            found[name + TUNED] = found[name]
        if case in cases.CASES and name == "torch":
            found["torch modules"] = ["torch modules"]
    return found


def _own(case: str) -> dict[str, Callable[[], Callable]]:
    """{name: function that makes the step} of what needs no framework."""
    if case not in cases.CASES:
        x, c = _chain_arrays(case)
        forward = functools.partial(_additions, x, c)
        return {"minigrad": lambda: lambda: mg.vjp(lambda y: _additions(y, c), x)[1](np.ones_like(x)),
                "NumPy, forward only": lambda: forward}  # fmt: skip
    case = cases.CASES[case]
    return {
        "floor": lambda: peers_numpy.Floor(case).step,
        "minigrad": lambda: Minigrad(case).step,
        "minigrad, no loss value": lambda: Minigrad(case).update,
        "NumPy": lambda: peers_numpy.Handwritten(case).step,
        "NumPy, β = 1": lambda: peers_numpy.Fused(case).step,
    }


def make(case: str, name: str) -> Callable[[], Any]:
    """The step of one contender."""
    own = _own(case)
    if name in own:
        return own[name]()
    peers = importlib.import_module(f".peers_{name.split()[0]}", __package__)
    if case in cases.CASES:
        return peers.STEPS[name](cases.CASES[case]).step
    return peers.chain(*_chain_arrays(case), LENGTH)


def _chain_shape(case: str) -> tuple[int, ...]:
    return (8,) if case == "chain" else ()


def _chain_arrays(case: str) -> tuple[np.ndarray, np.ndarray]:
    return np.ones(_chain_shape(case)), np.full(_chain_shape(case), 0.5)


def _additions(y: Any, c: np.ndarray) -> Any:
    for _ in range(LENGTH):
        y = y + c
    return y


def check(case: str) -> None:
    """Every peer moves θ as minigrad does, or finds the same derivative."""
    if case in cases.CASES:
        peers = {"NumPy": peers_numpy.Handwritten, "NumPy, β = 1": peers_numpy.Fused}
        for module in frameworks().values():
            peers.update(module.STEPS)
        cases.check(cases.CASES[case], peers)
        return
    for name in ("minigrad", *frameworks()):
        if not np.array_equal(make(case, name)(), np.ones(_chain_shape(case))):
            raise ValueError(f"{name}: the derivative of a chain of additions is 1")


def limits(case: str, names: list[str]) -> list[Limit]:
    """What must be reached, then all contenders over one base."""
    known = [limit for limit in MUST[case] if limit.over in (*names, UNIT)]
    base = BASE.get(case, UNIT)
    told = {limit.name for limit in known if limit.over == base}
    return known + [Limit(name, base) for name in names if name not in told]


def derived(case: str, seconds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The unit of the chain as a time, so that its ratio is µs an operation."""
    return {UNIT: np.full(len(seconds["minigrad"]), LENGTH * 1e-6)}
