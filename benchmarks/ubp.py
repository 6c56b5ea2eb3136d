"""A step of UBP in every mode, and on AE of the other white-box methods, against a step of SGD."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
EVERY, STATS_EVERY = 100, 10
AMORTISED = {  # method, its limit, how its steps differ
    "ACP": (optim.ACP(lr=RATE, alpha="max", every=EVERY), 1.45, ("between", "refresh")),
    "KFAC mc": (optim.KFAC(RATE, every=EVERY, stats_every=STATS_EVERY), 1.85, ("between", "statistics", "refresh")),
    "EKFAC mc": (optim.EKFAC(RATE, every=EVERY, stats_every=STATS_EVERY), None, ("between", "statistics", "refresh")),
    "PRONG": (optim.PRONG(RATE, every=EVERY), None, ("between", "refresh")),
}
STEP = {"between": 1, "statistics": STATS_EVERY, "refresh": 0}  # a t at which the step is of this kind
NORMS = {"batch norm": "batch", "mean-only batch norm": "mean"}


def contenders(case: str) -> dict[str, list[str]]:
    names = ["SGD", *(f"UBP {mode}" for mode in MODES[case])]
    if case == "AE":
        names += ["Centred", *NORMS, *(f"{name} {kind}" for name, (_, _, kinds) in AMORTISED.items() for kind in kinds)]
    return {name: [name] for name in names}


def make(case: str, name: str) -> Callable[[], Any]:
    """The step of one contender; an amortised method's is always of one kind."""
    method, _, kind = name.rpartition(" ")
    if name == "SGD":
        return Minigrad(CASES[case]).step
    if name == "Centred":
        return Minigrad(CASES[case], optim.Centred(RATE)).step
    if name in NORMS:
        return Minigrad(replace(CASES[case], norm=NORMS[name])).step
    if method == "UBP":
        return Minigrad(CASES[case], optim.UBP(optim.Gradient(RATE), mode=kind)).step
    own = Minigrad(CASES[case], AMORTISED[method][0])
    own.step()

    def step():
        own.state["t"] = STEP[kind]
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
        found += [Limit(name, "SGD") for name in ("Centred", *NORMS)]
        for name, (_, most, kinds) in AMORTISED.items():
            found += [Limit(f"{name} every {EVERY}", "SGD", most), *(Limit(f"{name} {kind}", "SGD") for kind in kinds)]
    return found


def derived(seconds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mean step of an amortised method: what it does seldom, spread over the steps until it does it again."""
    found = {}
    for name, (_, _, kinds) in AMORTISED.items():
        if f"{name} refresh" not in seconds:
            continue
        counts = {"between": EVERY - 1, "statistics": 0, "refresh": 1}
        if "statistics" in kinds:
            counts["statistics"] = EVERY // STATS_EVERY - 1
            counts["between"] -= counts["statistics"]
        found[f"{name} every {EVERY}"] = sum(counts[kind] * seconds[f"{name} {kind}"] for kind in kinds) / EVERY
    return found
