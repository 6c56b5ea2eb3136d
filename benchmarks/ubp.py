"""A step of UBP in every mode, against a step of SGD."""

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
    "CLS": {"gn": 1.6, "mc": 1.7, "empirical": 1.35, "none": None, "hessian": 1.75, "explicit": None},
}


def contenders(case: str, chosen: tuple[str, ...]) -> dict[str, list[str]]:
    return {name: [name] for name in ("SGD", *(f"UBP {mode}" for mode in MODES[case]))}


def make(case: str, name: str) -> Callable[[], Any]:
    mode = name.removeprefix("UBP ")
    return Minigrad(CASES[case], None if name == "SGD" else optim.UBP(optim.Gradient(RATE), mode=mode)).step


def check(case: str, chosen: tuple[str, ...]) -> None:
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
    return [Limit("SGD", "SGD"), *(Limit(f"UBP {mode}", "SGD", most) for mode, most in MODES[case].items())]
