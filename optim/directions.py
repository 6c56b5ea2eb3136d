"""Random directions ε of zeroth-order methods, with E[ε εᵀ] = I, and the objective's values at θ ± σ ε.

Directions come in blocks. A block has `values(sigma)`, two arrays (k,) of R(θ + σ ε) and R(θ − σ ε) for its k
directions, and `add(total, weights)`, which adds Σ wₘ εₘ to a vector (d,). So no more than one block is ever held,
and drawn again it gives the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad import Objective, backend, ops

STRIP = 1 << 20  # numbers in a noise table at least
PER_PARAMETER = 16  # and for each of θ's


def normals(rng: np.random.Generator, size: int, theta: Any) -> Any:
    """Standard normal numbers (size,) with the dtype and device of θ: one upload."""
    drawn = rng.standard_normal(size, dtype=np.float32 if theta.dtype == np.float32 else np.float64)
    return backend.like(drawn.astype(theta.dtype, copy=False), theta)


def signs(rng: np.random.Generator, rows: int, size: int, theta: Any) -> Any:
    """Fair signs ±1 (rows, size) with the dtype and device of θ: one upload of bits."""
    words = -(-size // 64)  # whole words a row, so that it does not matter in how many calls the rows are drawn
    bits = rng.integers(0, 1 << 64, (rows, words), dtype=np.uint64).astype("<u8", copy=False).view(np.uint8)
    unpacked = backend.xp(theta).unpackbits(backend.like(bits.reshape(-1), theta))
    drawn = unpacked.reshape(rows, 64 * words)[:, :size].astype(theta.dtype)
    drawn *= 2.0
    drawn -= 1.0
    return drawn


class Whole:
    """A block of one direction of all of θ, evaluated point by point: for any objective."""

    def __init__(self, f: Objective, epsilon: Any):
        self.f, self.epsilon = f, epsilon

    def values(self, sigma: float) -> tuple[Any, Any]:
        """R(θ + σ ε) and R(θ − σ ε), (1,) each."""
        theta = self.f.params.vector
        shift = ops.multiply.forward(self.epsilon, sigma)
        plus = self.f.at(ops.add.forward(theta, shift)).value
        minus = self.f.at(ops.subtract.forward(theta, shift)).value
        return plus.reshape(1), minus.reshape(1)

    def add(self, total: Any, weights: Any) -> None:
        """total += w ε."""
        total += backend.xp(total).multiply(self.epsilon, weights, out=backend.empty_like(total))


def gaussian(f: Objective, rng: np.random.Generator, pairs: int) -> Iterator[Whole]:
    """ε ~ N(0, I)."""
    theta = f.params.vector
    for _ in range(pairs):
        yield Whole(f, normals(rng, theta.size, theta))


def rademacher(f: Objective, rng: np.random.Generator, pairs: int) -> Iterator[Whole]:
    """ε of fair signs: one random bit for each parameter."""
    theta = f.params.vector
    for _ in range(pairs):
        yield Whole(f, signs(rng, 1, theta.size, theta)[0])


class Table:
    """A strip of standard normals, drawn once from the key; a direction is a window of θ's length somewhere in it.

    The strip is no part of a state: whoever resumes with the same key draws the same one.
    """

    def __init__(self) -> None:
        self.drawn_for: tuple | None = None
        self.strip: Any = None

    def of(self, key: int, theta: Any) -> Any:
        """The strip for θ's size, dtype and device: drawn, and uploaded, when it is not the last one asked for."""
        name = (key, theta.size, theta.dtype, backend.device_of(theta))
        if self.drawn_for != name:
            length = max(STRIP, PER_PARAMETER * theta.size)
            self.strip = normals(backend.stream(key, "noise table"), length, theta)
            self.drawn_for = name
        return self.strip

    def windows(self, f: Objective, key: int, rng: np.random.Generator, pairs: int) -> Iterator[Whole]:
        """ε = strip[o : o + d] at random places o: nothing is drawn but the o."""
        theta = f.params.vector
        strip = self.of(key, theta)
        for o in rng.integers(0, strip.size - theta.size + 1, pairs).tolist():
            yield Whole(f, strip[o : o + theta.size])


def centred_ranks(values: Any) -> Any:
    """Ranks of values (n,), from −½ for the lowest to ½ for the highest; equal values share their mean rank.

    NaN ranks as +∞. By counting, which no device waits for, in blocks of at most 2²² comparisons.
    """
    module, n = backend.xp(values), values.size
    values = module.where(module.isnan(values), module.asarray(math.inf, values.dtype), values)
    block, found = max(1, (1 << 22) // n), []
    for start in range(0, n, block):
        some = values[start : start + block, None]
        found.append((values < some).sum(1) + (values <= some).sum(1))  # twice the rank, and 1
    return ((module.concatenate(found) - 1) * (0.5 / (n - 1)) - 0.5).astype(values.dtype)
