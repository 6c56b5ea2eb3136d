"""Curvature as a Kronecker product for every layer, and in the product's eigenbasis [T-6.4.1]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from minigrad import Objective, backend, ops
from minigrad.params import Windows

from .structures import Curvature, add_to_diagonal, check_damping, check_size, conjugate_gradients, scatter_blocks


class Kronecker(Curvature):
    """kron(G, A) for every layer, over [W b] [T-6.4.1]; with L2, plus c on the weights.

    A solve is exact. L2's part of the diagonal, B = damping + c·[1 … 1 0], goes into A first:
    kron(G, A) + kron(I, B) = B^½ (kron(G, B^-½ A B^-½) + I) B^½.

    Parameters
    ----------
    factors : dict
        {(window of W, window of b or None): (A, G)}.
    """

    structure = "kronecker"

    def __init__(self, f: Objective, kind: str, factors: dict[tuple, tuple[Any, Any]]):
        super().__init__(f, kind)
        self.factors = factors

    def join(self, v: Any, layer: tuple) -> Any:
        """[W b] (out, in + 1) of one layer from a vector in θ's order."""
        windows = Windows(self.layout, v)
        if layer[1] is None:
            return windows[layer[0]]
        return backend.xp(v).concatenate([windows[layer[0]], windows[layer[1]][:, None]], axis=1)

    def _each(self, v: Any, apply: Callable[[tuple, Any], Any]) -> Any:
        out = backend.empty_like(v)
        windows = Windows(self.layout, out)
        for layer in self.factors:
            joined = apply(layer, self.join(v, layer))
            inputs = windows[layer[0]].shape[1]
            windows[layer[0]][...] = joined[:, :inputs]
            if layer[1] is not None:
                windows[layer[1]][...] = joined[:, inputs]
        return out

    def weights(self, layer: tuple) -> Any:
        """[1 … 1 0] (in + 1,): where L2 acts on a row of [W b]."""
        mask = backend.xp(self._like).ones(len(self.factors[layer][0]), self._like.dtype)
        if layer[1] is not None:
            mask[-1] = 0.0
        return mask

    def _product(self, v):
        def apply(layer, V):
            A, G = self.factors[layer]
            return ops.product(ops.product(G, V), A) + (self.l2 * self.weights(layer)) * V

        return self._each(v, apply)

    def _solve(self, v, damping):
        def apply(layer, V):
            root, alpha, Q_A, gamma, Q_G, shift = self._split(layer, damping)
            turned = ops.product(ops.product(Q_G.T, V / root), Q_A)
            turned /= gamma[:, None] * alpha + shift
            return ops.product(ops.product(Q_G, turned), Q_A.T) / root

        return self._each(v, apply)

    def _split(self, layer: tuple, damping: float, singular: bool = False) -> tuple:
        """B^½ as a row, eigenvalues and vectors of B^-½ A B^-½ and of G, and what is added to their products."""
        A, G = self.factors[layer]
        module = backend.xp(A)
        gamma, Q_G = backend.eigh(G)
        if self.l2 and layer[1] is not None:
            if damping == 0.0:
                raise backend.FactorisationError(f"{self} with L2 needs a positive damping: L2 leaves biases out")
            root = module.sqrt(damping + self.l2 * self.weights(layer))
            alpha, Q_A = backend.eigh(A / (root[:, None] * root))
            return root, alpha, Q_A, gamma, Q_G, 1.0
        shift = damping + self.l2
        alpha, Q_A = backend.eigh(A)
        if shift == 0.0 and not singular:
            check_regular(gamma[:, None] * alpha, str(self), layer[0])
        return module.ones_like(alpha), alpha, Q_A, gamma, Q_G, shift

    def _dense(self):
        return scatter_blocks(self, list(self._arrays()))

    def _arrays(self) -> Iterator[tuple[list[str], Any]]:
        """Every layer's windows and its block over them."""
        for layer, (A, G) in self.factors.items():
            yield theta_ordered(self._decayed(backend.xp(A).kron(G, A), layer, len(G)), layer, len(G))

    def _decayed(self, full: Any, layer: tuple, out: int) -> Any:
        """A matrix over [W b] with L2's part of the diagonal, in place."""
        return add_to_diagonal(full, backend.xp(full).tile(self.l2 * self.weights(layer), out))

    def trace(self):
        module = backend.xp(self._like)
        total = 0.0
        for layer, (A, G) in self.factors.items():
            total = total + module.trace(A) * module.trace(G) + (self.l2 * len(G)) * self.weights(layer).sum()
        return total

    def logdet(self, damping):
        damping, total = check_damping(damping), 0.0
        module = backend.xp(self._like)
        for layer, (_, G) in self.factors.items():
            root, alpha, _, gamma, _, shift = self._split(layer, damping, singular=True)
            total = total + self._log_sum(gamma[:, None] * alpha, shift) + 2.0 * len(G) * module.log(root).sum()
        return total

    def eigenvalues(self):
        found = []
        for layer, (A, G) in self.factors.items():
            gamma = backend.eigh(G)[0]
            if not self.l2:
                found.append((gamma[:, None] * backend.eigh(A)[0]).reshape(-1))
                continue
            diagonal = self.l2 * self.weights(layer)
            found += [backend.eigh(add_to_diagonal(g * A, diagonal))[0] for g in gamma]
        return self._sorted(found)


def check_regular(values: Any, what: str, window: str) -> None:
    """Refuse eigenvalues of which one is zero to rounding or negative; one wait."""
    eps = float(backend.xp(values).finfo(values.dtype).eps)
    low, high = backend.numbers(values.min(), values.max())
    if not low > max(values.shape) * eps * high:
        raise backend.FactorisationError(f"{what} is singular at {window!r}: give it a damping")


def theta_ordered(block: Any, layer: tuple, out: int) -> tuple[list[str], Any]:
    """(windows, block) of a matrix over row-major [W b], reordered to W row-major, then b."""
    module = backend.xp(block)
    if layer[1] is None:
        return [layer[0]], block
    places = module.arange(len(block)).reshape(out, -1)
    order = module.concatenate([places[:, :-1].reshape(-1), places[:, -1]])
    return [layer[0], layer[1]], block[order[:, None], order]


class EigenKronecker(Kronecker):
    """Q diag(Λ) Qᵀ with K-FAC's eigenvectors Q = kron(Q_G, Q_A) [George et al. 2018]; with L2, plus c on the weights.

    Λ is the diagonal of Qᵀ F Q, F the layer's block: nothing with these eigenvectors is nearer to F. L2 is not
    diagonal in Q where a layer has a bias: solves then go by conjugate gradients, a wait a product, and eigenvalues
    come from the layer's block as an array.

    Parameters
    ----------
    factors : dict
        {(window of W, window of b or None): (Q_A, Q_G)}.
    scales : dict
        {…: Λ (out, in + 1)}.
    """

    structure = "ekfac"

    def __init__(self, f: Objective, kind: str, factors: dict, scales: dict[tuple, Any]):
        super().__init__(f, kind, factors)
        self.scales = scales
        self._closed = not self.l2 or all(b is None for _, b in factors)

    def _turned(self, layer: tuple, V: Any, apply: Callable[[Any], Any]) -> Any:
        Q_A, Q_G = self.factors[layer]
        return ops.product(ops.product(Q_G, apply(ops.product(ops.product(Q_G.T, V), Q_A))), Q_A.T)

    def _product(self, v):
        def apply(layer, V):
            return self._turned(layer, V, lambda T: self.scales[layer] * T) + (self.l2 * self.weights(layer)) * V

        return self._each(v, apply)

    def _solve(self, v, damping):
        if not self._closed:
            return conjugate_gradients(lambda p: self._product(p) + damping * p, v, f"{self} + {damping:g}·I")
        damping = damping + self.l2

        def apply(layer, V):
            if damping == 0.0:
                check_regular(self.scales[layer], str(self), layer[0])
            return self._turned(layer, V, lambda T: T / (self.scales[layer] + damping))

        return self._each(v, apply)

    def _arrays(self):
        for layer, (Q_A, Q_G) in self.factors.items():
            Q = backend.xp(Q_A).kron(Q_G, Q_A)
            full = ops.product(Q * self.scales[layer].reshape(-1), Q.T)
            yield theta_ordered(self._decayed(full, layer, len(Q_G)), layer, len(Q_G))

    def trace(self):
        total = 0.0
        for layer, scale in self.scales.items():
            total = total + scale.sum() + (self.l2 * len(scale)) * self.weights(layer).sum()
        return total

    def logdet(self, damping):
        damping = check_damping(damping)
        return sum(self._log_sum(values, damping) for values in self._spectra())

    def eigenvalues(self):
        return self._sorted(self._spectra())

    def _spectra(self) -> list[Any]:
        """The eigenvalues of every layer."""
        if self._closed:
            return [scale.reshape(-1) + self.l2 for scale in self.scales.values()]
        for layer, scale in self.scales.items():
            check_size(scale.size, f"layer of {layer[0]!r}")
        return [backend.eigh(array)[0] for _, array in self._arrays()]
