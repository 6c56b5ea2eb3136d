"""What one operation costs: y ← y + c, a thousand times, forward and backward, in float64."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg

from . import peers
from .timing import Limit

LENGTH = 1000
UNIT = "µs an operation"


@dataclass(frozen=True)
class Chain:
    """Additions to an array of this shape."""

    name: str
    shape: tuple[int, ...]
    count: int = 2

    @property
    def title(self) -> str:
        return f"{self.name}  y ← y + c of shape {self.shape}, {LENGTH} times, forward and backward"

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        return np.ones(self.shape), np.full(self.shape, 0.5)


CASES = {chain.name: chain for chain in (Chain("chain", (8,)), Chain("chain-0d", ()))}


def contenders(case: str, chosen: tuple[str, ...]) -> dict[str, list[str]]:
    return {name: [name] for name in ("minigrad", "NumPy, forward only", *peers.having("chain", chosen))}


def make(case: str, name: str) -> Callable[[], Any]:
    x, c = CASES[case].arrays
    if name in peers.PEERS:
        return peers.module(name).chain(x, c, LENGTH)

    def additions(y):
        for _ in range(LENGTH):
            y = y + c
        return y

    ones = np.ones_like(x)
    return (lambda: mg.vjp(additions, x)[1](ones)) if name == "minigrad" else lambda: additions(x)


def check(case: str, chosen: tuple[str, ...]) -> None:
    """The derivative is 1."""
    for name in ("minigrad", *peers.having("chain", chosen)):
        if not np.array_equal(make(case, name)(), CASES[case].arrays[0]):
            raise ValueError(f"{name}: the derivative of a chain of additions is 1")


def limits(case: str, names: list[str]) -> list[Limit]:
    found = [Limit("minigrad", UNIT, 2.5, 1.5, gate=False)]
    found += [Limit("minigrad", "torch")] if "torch" in names else []
    return found + [Limit(name, UNIT) for name in names if name != "minigrad"]


def derived(seconds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The unit as a time, so that the ratio to it is µs an operation."""
    return {UNIT: np.full(len(seconds["minigrad"]), LENGTH * 1e-6)}
