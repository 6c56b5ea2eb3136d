"""What the tests of derivatives compare with: differences and complex steps; and the walks, called by hand."""

from __future__ import annotations

import itertools

import numpy as np

from minigrad.tensor import Tensor
from minigrad.walk import between, forward, forward_over_reverse, reverse


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def close(found, expected, tolerance):
    """Equal shapes, and elements equal to `tolerance` relative to the largest (or to 1)."""
    assert type(found) is not Tensor, "an array was expected"
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    error = float(abs(found - expected).max()) if found.size else 0.0
    scale = max(1.0, float(abs(expected).max())) if found.size else 1.0
    assert error <= tolerance * scale, f"error {error:.2e} at scale {scale:.2e}"


def subsets(n: int):
    """Every choice of at least one of n arguments."""
    return [s for k in range(1, n + 1) for s in itertools.combinations(range(n), k)]


class Graph:
    """fn recorded once: arguments in `tracked` are Tensors (all of them unless given), the others stay arrays."""

    def __init__(self, fn, arrays, tracked=None):
        tracked = range(len(arrays)) if tracked is None else tracked
        mixed = [Tensor(x) if i in tracked else x for i, x in enumerate(arrays)]
        out = fn(*mixed)
        self.out = out if type(out) is Tensor else Tensor(out)
        self.inputs = [x for x in mixed if type(x) is Tensor]
        self.order, self.reach = between(self.out, self.inputs)

    def pull(self, g, record=False):
        """Cotangents of the inputs for the cotangent g, which may have a lead."""
        lead = g.shape[: g.ndim - self.out.ndim]
        found = reverse(self.order, self.reach, {self.out.seq: g}, record)
        return [found.get(x.seq, np.zeros(lead + x.shape)) for x in self.inputs]

    def push(self, tangents, record=False):
        """Tangent of the output for tangents of the inputs, of which some may be None."""
        seeds = {x.seq: t for x, t in zip(self.inputs, tangents) if t is not None}
        found = forward(self.order, seeds, record).get(self.out.seq)
        if found is not None:
            return found
        x, t = next((x, t) for x, t in zip(self.inputs, tangents) if t is not None)
        return np.zeros(t.shape[: t.ndim - x.ndim] + self.out.shape)

    def turn(self, tangents, g, record=False):
        """Derivative of `pull(g)` along the tangents."""
        seeds = {x.seq: t for x, t in zip(self.inputs, tangents) if t is not None}
        moved = forward(self.order, seeds, record)
        keep = {x.seq for x in self.inputs}
        found = forward_over_reverse(self.order, self.reach, moved, {self.out.seq: g}, {}, record, keep)
        lead = g.shape[: g.ndim - self.out.ndim]
        return [found.get(x.seq, np.zeros(lead + x.shape)) for x in self.inputs]


def differences(fn, arrays, tangents, step=2e-3):
    """Derivative of the array or the list of arrays fn(*arrays) along the tangents, by differences of order 4."""

    def at(t):
        y = fn(*(x if v is None else x + t * v for x, v in zip(arrays, tangents)))
        return y if isinstance(y, list) else [y]

    terms = zip(at(step), at(-step), at(2 * step), at(-2 * step))
    found = [(8.0 * (a - b) - (c - d)) / (12.0 * step) for a, b, c, d in terms]
    return found if isinstance(fn(*arrays), list) else found[0]


def complex_step(fn, arrays, tangents):
    """Derivative of fn(*arrays) along the tangents, exact to rounding where fn is holomorphic."""
    tiny = 1e-30
    moved = [x + tiny * 1j * (0.0 if v is None else v) for x, v in zip(arrays, tangents)]
    return np.imag(fn(*moved)) / tiny


def by_elements(along, arrays, i, g):
    """The cotangent of argument i element by element, from a directional derivative `along(tangents)`."""
    x = arrays[i]
    found = np.zeros(x.shape)
    for at in np.ndindex(*x.shape):
        unit = np.zeros(x.shape)
        unit[at] = 1.0
        found[at] = np.sum(g * along([unit if j == i else None for j in range(len(arrays))]))
    return found
