"""Evolution strategies with M = 1600 directions at ±, every kind of direction, against the naive loop.

The cost is M times that of a direction, so each contender is timed on fewer of them and its time scaled to M.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import click
import numpy as np

import minigrad as mg
import optim

from .cases import CLS, RATE, Minigrad
from .timing import Limit

M = 1600
SIGMA = 0.01
BASE = "naive loop"
KINDS = {  # contender: directions in a turn, settings
    "gaussian": (16, {}),
    "rademacher": (16, {"directions": "rademacher"}),
    "noise table": (16, {"directions": "table"}),
    "rank1": (128, {"directions": "rank1"}),
    "rank1, ranks": (128, {"directions": "rank1", "shaping": "ranks"}),
}
MUST = {"rank1": 0.17, "rank1, ranks": 0.17}
GRADIENT = "one gradient"
CASES = {"ES": replace(CLS, name="ES", count=1)}


def contenders(case: str, chosen: tuple[str, ...]) -> dict[str, list[str]]:
    return {name: [name] for name in (BASE, *KINDS, GRADIENT)}


def make(case: str, name: str) -> Callable[[], Any]:
    own = CASES[case]
    if name == GRADIENT:
        return Minigrad(own).update
    if name in KINDS:
        pairs, kind = KINDS[name]
        return Minigrad(own, optim.ES(RATE, pairs, SIGMA, **kind)).update
    params, rng = own.params(), np.random.default_rng(0)

    def step():
        params.vector -= RATE * naive(own.objective(params), rng, KINDS["gaussian"][0])

    return step


def naive(f: mg.Objective, rng: np.random.Generator, pairs: int) -> np.ndarray:
    """The estimate of ∇R as it is written down: all d normals of every direction, R at both signs."""
    theta = f.params.vector
    total = np.zeros_like(theta)
    for _ in range(pairs):
        epsilon = rng.standard_normal(theta.size, dtype=np.float32)
        difference = f.at(theta + SIGMA * epsilon).value - f.at(theta - SIGMA * epsilon).value
        total += difference / (2 * SIGMA) * epsilon
    return total / pairs


def check(case: str, chosen: tuple[str, ...]) -> None:
    """The cosine of every estimate with ∇R is what M directions of d numbers give."""
    own = CASES[case]
    params = own.params()
    gradient = own.objective(params).grad
    expected = math.sqrt(M / (M + params.size))
    click.echo(f"timed on {KINDS['gaussian'][0]} directions, rank1 on {KINDS['rank1'][0]}, and scaled to M = {M}")
    click.echo(f"cosine with the gradient, all {M} directions; √(M/(M + d)) = {expected:.4f}")
    estimates = {BASE: lambda: naive(own.objective(params), np.random.default_rng(0), M)}
    for name, (_, kind) in KINDS.items():
        estimates[name] = lambda kind=kind: _estimate(own.objective(params), kind)
    for name, estimate in estimates.items():
        found = estimate()
        cosine = float(found @ gradient / (np.linalg.norm(found) * np.linalg.norm(gradient)))
        click.echo(f"  {name:<14}{cosine:.4f}")
        if not 0.75 < cosine / expected < 1.25:  # over draws it varies by √(2/M) = 3.5 %
            raise ValueError(f"{name}: the cosine with the gradient is {cosine:.4f}, not {expected:.4f}")


def _estimate(f: mg.Objective, kind: dict[str, str]) -> np.ndarray:
    method = optim.ES(1.0, M, SIGMA, **kind)
    return -method.update(f, method.init(f.params))


def derived(seconds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Seconds for M directions."""
    turns = {BASE: KINDS["gaussian"][0], **{name: pairs for name, (pairs, _) in KINDS.items()}}
    return {name: seconds[name] * (M / pairs) for name, pairs in turns.items()}


def limits(case: str, names: list[str]) -> list[Limit]:
    return [Limit(name, BASE, MUST.get(name)) for name in names]
