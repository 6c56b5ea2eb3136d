"""TONGA: the natural gradient of a low-rank moving covariance of gradients, layer by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigrad import Params, backend

from .base import Method, check_setting


@dataclass
class TONGA(Method):
    """Topmoumoute online natural gradient: θ ← θ − λ (C + ε I)⁻¹ ∇R, C = Σₛ ρᵗ⁻ˢ ∇Rₛ ∇Rₛᵀ [Le Roux et al. 2007; B].

    C is block-diagonal: NAME.W and NAME.b of a layer are one block, any other window is a block of its own. In a
    block C = XᵀX, with rows X = [k decayed eigendirections; the gradients since], the last of which is ∇R itself, so

        (C + ε I)⁻¹ ∇R = Xᵀ (X Xᵀ + ε I)⁻¹ e_last,

    a system of at most k + b numbers. Every b steps the rows become the k largest eigendirections of C, each as long
    as the root of its eigenvalue; the eigenvectors come from those of X Xᵀ. Between two such steps nothing is lost.

    C is the decayed sum of outer products about 0, not their average: the sum is the average times
    w = (1 − ρᵗ)/(1 − ρ), so the step is that of the average with rate λ/w and damping ε/w. Where ε is much larger
    than C the step is gradient descent at the rate λ/ε. A loss c times as large takes the same steps with c λ, c² ε.

    Parameters
    ----------
    lr : float
        λ.
    damping : float
        ε, positive, in the units of C.
    rank : int
        k, eigendirections that are kept.
    every : int
        b, steps between two eigenbases.
    rho : float
        ρ in [0, 1), decay of C (γ in the paper).

    Raises
    ------
    FactorisationError
        The products of gradients hold NaN or infinity; with the layer's name.

    Notes
    -----
    The state holds (k + b) d numbers. A step reads them twice and waits once on the device, whatever the number of
    layers: the products X Xᵀ of all layers come to the host together, are solved there in float64, and the
    coefficients go back in one upload (three at a new eigenbasis). ε is never under the rounding of X Xᵀ,
    16 ε_machine tr(X Xᵀ), which would spoil the factorisation.
    """

    lr: float = 0.1
    damping: float = 0.1
    rank: int = 5
    every: int = 10
    rho: float = 0.99
    reads_gradient = True

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "damping", 0, open_low=True)
        check_setting(self, "rank", 1, whole=True)
        check_setting(self, "every", 1, whole=True)
        check_setting(self, "rho", 0, 1)

    def start(self, params):
        rows, module = self.rank + self.every, backend.xp(params.vector)
        layers = blocks(params)
        sizes = {name: sum(place.stop - place.start for place in places) for name, places in layers.items()}
        state = {f"{name}.X": module.zeros((rows, size), params.dtype) for name, size in sizes.items()}
        return {**state, "products": module.zeros((len(layers), rows, rows), params.dtype)}

    def update(self, f, state):
        g, layers = f.grad, blocks(f.params)
        age = state["t"] % self.every  # of the eigenbasis
        rows = self.rank + age + 1
        products = state["products"]
        for layer, (name, places) in zip(products, layers.items()):
            X = state[f"{name}.X"]  # its rows from here on are of no use yet, so a step that fails has changed nothing
            _gather(g, places, X[rows - 1])
            layer[rows - 1, :rows] = X[:rows].dot(X[rows - 1])
        decay = self.rho ** (0.5 * np.array([age + 1] * self.rank + list(range(age, -1, -1))))
        gram = _symmetric(backend.to_host(products)[:, :rows, :rows]) * (decay[:, None] * decay)
        weights = self._solve(gram, list(layers), f.params.dtype) * (-self.lr * decay)
        weights = backend.like(weights.astype(f.params.dtype), g)
        for weight, (name, places) in zip(weights, layers.items()):
            _scatter(weight.dot(state[f"{name}.X"][:rows]), places, g)
        if age == self.every - 1:
            self._renew(gram, decay, list(layers), state)
        return g

    def _solve(self, gram: np.ndarray, names: list[str], dtype: Any) -> np.ndarray:
        """(X Xᵀ + ε I)⁻¹ e_last of every layer, (layers, rows)."""
        solved = []
        last = np.zeros(gram.shape[1])
        last[-1] = 1.0
        for name, matrix in zip(names, gram):
            damping = max(self.damping, _rounding(matrix, dtype))
            try:
                solved.append(backend.spd_solve(matrix + damping * np.eye(len(last)), last))
            except backend.FactorisationError as error:
                told = f"TONGA: the products of gradients of {name!r} hold NaN or infinity; lower the rate"
                raise backend.FactorisationError(told) from error
        return np.array(solved)

    def _renew(self, gram: np.ndarray, decay: np.ndarray, names: list[str], state: dict[str, Any]) -> None:
        """The rows of every X become the eigendirections of its C."""
        dtype, k = state["products"].dtype, self.rank
        products = np.zeros(state["products"].shape)
        turns = np.zeros((len(names), k, len(decay)))
        for matrix, turn, product in zip(gram, turns, products):
            values, vectors = backend.eigh(matrix)
            kept = values[-k:] > _rounding(matrix, dtype)
            turn[kept] = vectors.T[-k:][kept] * decay
            product[:k, :k] = np.diag(np.where(kept, values[-k:], 0.0))
        for name, turn in zip(names, backend.like(turns.astype(dtype), state["products"])):
            X = state[f"{name}.X"]
            X[:k] = turn.dot(X[: len(decay)])
        state["products"] = backend.like(products.astype(dtype), state["products"])


def blocks(params: Params) -> dict[str, list[slice]]:
    """{name: places in θ}: the windows NAME.W and NAME.b of a layer together, every other window by itself."""
    found: dict[str, list[slice]] = {}
    for window, (start, stop, _) in params.layout.items():
        name, dot, last = window.rpartition(".")
        if not (dot and last in ("W", "b") and name + ".W" in params.layout):
            name = window
        places = found.setdefault(name, [])
        if places and places[-1].stop == start:
            places[-1] = slice(places[-1].start, stop)
        else:
            places.append(slice(start, stop))
    return found


def _gather(vector: Any, places: list[slice], row: Any) -> None:
    """The parts of a vector, one after the other."""
    at = 0
    for place in places:
        row[at : at + place.stop - place.start] = vector[place]
        at += place.stop - place.start


def _scatter(row: Any, places: list[slice], vector: Any) -> None:
    """The inverse of `_gather`."""
    at = 0
    for place in places:
        vector[place] = row[at : at + place.stop - place.start]
        at += place.stop - place.start


def _rounding(gram: np.ndarray, dtype: Any) -> float:
    """What is 0 in the eigenvalues of products that were summed in this dtype."""
    return 16.0 * float(np.finfo(dtype).eps) * float(np.trace(gram))


def _symmetric(lower: np.ndarray) -> np.ndarray:
    """Symmetric float64 matrices from their lower triangles."""
    lower = np.tril(lower.astype(float))
    return lower + np.swapaxes(np.tril(lower, -1), 1, 2)
