"""A step of UBP in every mode, and of ACP on AE, against a step of SGD."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import optim

from .cases import AE, CLS, RATE, Minigrad
from .timing import Limit

CASES = {"AE": AE, "CLS": CLS}
MODES = {
    "AE": {"gn": 3.6, "mc": 1.7, "none": 1.1, "hessian": 4.3},
    "CLS": {"gn": 1.6, "mc": 1.7, "empirical": 1.35, "none": None, "hessian": 1.75},
}
EVERY = 100


def contenders(case: str) -> dict[str, list[str]]:
    names = ["SGD", *(f"UBP {mode}" for mode in MODES[case])]
    return {name: [name] for name in (names + ["ACP between", "ACP refresh"] if case == "AE" else names)}


def make(case: str, name: str) -> Callable[[], Any]:
    """The step of one contender; ACP's uses its inverses, or renews them."""
    method, _, kind = name.partition(" ")
    if method == "SGD":
        return Minigrad(CASES[case]).step
    if method == "UBP":
        return Minigrad(CASES[case], optim.UBP(optim.Gradient(RATE), mode=kind)).step
    own = Minigrad(CASES[case], optim.ACP(lr=RATE, alpha="max", every=EVERY))
    own.step()

    def step():
        own.state["t"] = 0 if kind == "refresh" else 1
        own.step()

    return step


def check(case: str) -> None:
    """The signal above the top layer is not edited: there every mode steps as SGD does."""
    case = CASES[case]
    methods = [optim.SGD(RATE), *(optim.UBP(optim.Gradient(RATE), mode=mode) for mode in MODES[case.name])]
    steps = []
    for method in methods:
        own = Minigrad(case, method)
        delta = method.update(case.objective(own.params), own.state)
        steps.append(own.params.windows(delta)[f"{len(case.sizes) - 2}.W"])
        if not np.isfinite(delta).all() or np.abs(steps[-1] - steps[0]).max() > 1e-4 * np.abs(steps[0]).max():
            raise ValueError(f"{method!r} on {case.name} does not move the top layer as SGD does")


def limits(case: str, names: list[str]) -> list[Limit]:
    found = [Limit("SGD", "SGD"), *(Limit(f"UBP {mode}", "SGD", most) for mode, most in MODES[case].items())]
    if case == "AE":
        found += [Limit(f"ACP every {EVERY}", "SGD", 1.45), Limit("ACP between", "SGD"), Limit("ACP refresh", "SGD")]
    return found


def derived(seconds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """ACP's refresh, spread over the steps until the next."""
    if "ACP refresh" not in seconds:
        return {}
    return {f"ACP every {EVERY}": ((EVERY - 1) * seconds["ACP between"] + seconds["ACP refresh"]) / EVERY}
