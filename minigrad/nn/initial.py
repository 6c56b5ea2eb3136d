"""Initial weights: Glorot, He, LeCun, sparse, with the gain α as a setting.

α makes up for what an activation does to a signal: with f′(0) ≈ 1 (tanh) the classical value is 2; a ReLU halves the
variance (4); a sigmoid has f′(0) = ¼, which is 16 times in variance (32). See [T-2.4.2] and Glorot & Bengio 2010.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

GAINS = {"sigmoid": 32.0, "relu": 4.0, "leaky_relu": 4.0, "tanh": 2.0, "softplus": 8.0}  # softplus' = ½ at 0
LINEAR_GAIN = 2.0


def glorot(rng: np.random.Generator, outputs: int, inputs: int, activation: str | None, alpha: float | None):
    """Uniform of variance α/(n_in + n_out)."""
    alpha = GAINS.get(activation, LINEAR_GAIN) if alpha is None else alpha
    bound = math.sqrt(3.0 * alpha / (inputs + outputs))
    return rng.uniform(-bound, bound, (outputs, inputs))


def he(rng: np.random.Generator, outputs: int, inputs: int, activation: str | None, alpha: float | None):
    """Normal of variance α/n_in; α is half of Glorot's, so 2 for a ReLU."""
    alpha = GAINS.get(activation, LINEAR_GAIN) / 2 if alpha is None else alpha
    return rng.standard_normal((outputs, inputs)) * math.sqrt(alpha / inputs)


def lecun(rng: np.random.Generator, outputs: int, inputs: int, activation: str | None, alpha: float | None):
    """Normal of variance α/n_in with α = 1 for every activation."""
    return rng.standard_normal((outputs, inputs)) * math.sqrt((1.0 if alpha is None else alpha) / inputs)


def sparse(rng: np.random.Generator, outputs: int, inputs: int, activation: str | None, alpha: float | None):
    """15 connections into every unit, normal of variance α (1 unless given), all others zero (Martens 2010)."""
    count = min(15, inputs)
    weights = np.zeros((outputs, inputs))
    chosen = rng.permuted(np.tile(np.arange(inputs), (outputs, 1)), axis=1)[:, :count]
    values = rng.standard_normal((outputs, count)) * math.sqrt(1.0 if alpha is None else alpha)
    np.put_along_axis(weights, chosen, values, axis=1)
    return weights


SCHEMES: dict[str, Callable] = {"glorot": glorot, "he": he, "lecun": lecun, "sparse": sparse}
