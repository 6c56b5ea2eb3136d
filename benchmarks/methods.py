"""What a step of every white-box method costs on the autoencoder, against SGD, beside the thesis's figures.

A method that does something dear only now and then has several kinds of steps. Each kind is timed by itself, by
setting the counter t of its state before the step; `every 100` is their mean over 100 steps, each kind as often as it
occurs: 90 between, 9 with statistics, 1 refresh for K-FAC.

K-FAC with the exact Fisher takes a signal for each of 784 outputs, in blocks, when it refreshes: some 15 s. Its other
steps are those of K-FAC with sampled targets, so that only its refresh is timed, three times.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import optim

from .cases import AE, RATE, Minigrad
from .timing import Limit

CASES = {"methods": replace(AE, name="methods")}
EVERY, STATS_EVERY = 100, 10
ACP = {"lr": RATE, "every": EVERY}
KFAC = {"lr": RATE, "every": EVERY, "stats_every": STATS_EVERY}
PLAIN = {  # name: method, the thesis's cost
    "Centred": (optim.Centred(RATE), 1.2),
    "UBP gn": (optim.UBP(optim.Gradient(RATE), mode="gn"), 10.0),
    "UBP mc": (optim.UBP(optim.Gradient(RATE), mode="mc"), None),
    "UBP none": (optim.UBP(optim.Gradient(RATE), mode="none"), None),
}
NORMS = {"batch norm": ("batch", 2.0), "mean-only batch norm": ("mean", 1.4)}
SEVERAL = {  # name: method, what must be reached, the thesis's cost
    "ACP, fixed α": (optim.ACP(alpha=1.0, **ACP), None, 2.0),
    "ACP, max": (optim.ACP(alpha="max", **ACP), 1.45, 2.5),
    "K-FAC mc": (optim.KFAC(**KFAC), 1.85, None),
    "K-FAC fisher": (optim.KFAC(RATE, curvature="fisher", every=EVERY, stats_every=EVERY), None, 4.6),
    "EKFAC mc": (optim.EKFAC(**KFAC), None, None),
    "PRONG": (optim.PRONG(RATE, every=EVERY), None, 8.8),
}
KINDS = {"between": 1, "statistics": STATS_EVERY, "refresh": 0}  # kind of step: a t at which it is taken
BORROWED = {"K-FAC fisher between": "K-FAC mc between"}
SELDOM = ("K-FAC fisher refresh",)


def kinds(name: str) -> dict[str, int]:
    """{kind of step: how many of it are in EVERY steps}."""
    statistics = EVERY // STATS_EVERY - 1 if getattr(SEVERAL[name][0], "stats_every", None) == STATS_EVERY else 0
    statistics = 0 if name.startswith("ACP") else statistics  # it keeps no averages unless rho is set
    counts = {"between": EVERY - 1 - statistics, "statistics": statistics, "refresh": 1}
    return {kind: count for kind, count in counts.items() if count}


def timed() -> list[str]:
    """Every step that is timed."""
    steps = [f"{name} {kind}" for name in SEVERAL for kind in kinds(name)]
    return ["SGD", *PLAIN, *NORMS, *(step for step in steps if step not in BORROWED)]


def contenders(case: str, chosen: tuple[str, ...]) -> dict[str, list[str]]:
    return {name: [name] for name in timed()}


def make(case: str, name: str) -> Callable[[], Any]:
    """The step of one contender, always of one kind."""
    own = CASES[case]
    if name in NORMS:
        return Minigrad(replace(own, norm=NORMS[name][0])).step
    if name == "SGD" or name in PLAIN:
        return Minigrad(own, PLAIN[name][0] if name in PLAIN else None).step
    method, _, kind = name.rpartition(" ")
    found = Minigrad(own, SEVERAL[method][0])
    if kind != "refresh":
        found.step()

    def step():
        found.state["t"] = KINDS[kind]
        found.step()

    return step


def check(case: str, chosen: tuple[str, ...]) -> None:
    """Every layer is factorised in the refresh and in no other step, and all steps are finite."""
    own = CASES[case]
    for name, (method, *_) in SEVERAL.items():
        if f"{name} refresh" in SELDOM:
            continue
        found = Minigrad(own, method)
        for kind, expected in (("refresh", 1), ("between", 1), ("statistics", 1), ("refresh", 2)):
            found.state["t"] = KINDS[kind]
            found.step()
            counts = {count for key, count in found.state.items() if key.endswith(".inverses")} or {expected}
            if counts != {expected} or not np.isfinite(found.theta()).all():
                raise ValueError(f"{name}: a step of kind {kind!r} is not what it is taken for")


def derived(seconds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The mean step: what is done seldom, spread over the steps until it is done again."""
    found = {}
    for name in SEVERAL:
        steps = {kind: f"{name} {kind}" for kind in kinds(name)}
        total = sum(count * seconds[BORROWED.get(steps[kind], steps[kind])] for kind, count in kinds(name).items())
        found[f"{name} every {EVERY}"] = total / EVERY
    return found


def limits(case: str, names: list[str]) -> list[Limit]:
    rows = [("SGD", None, 1.0), *((name, None, cost) for name, (_, cost) in PLAIN.items())]
    rows += [(name, None, cost) for name, (_, cost) in NORMS.items()]
    rows += [(f"{name} every {EVERY}", most, cost) for name, (_, most, cost) in SEVERAL.items()]
    rows += [(name, None, None) for name in names if name.rpartition(" ")[2] in KINDS]
    return [Limit(name, "SGD", most, note=f"thesis {cost:g}" if cost else "") for name, most, cost in rows]
