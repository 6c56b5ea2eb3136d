"""The shapes that a curvature matrix is kept in, and what each can do: products, damped solves, traces, …

All vectors and `.dense()` are in θ's order (W row-major, then b); [W b] is the order inside a Kronecker product only.
`optim.curvature.matrix` makes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from minigrad import Objective, backend

from .base import Stopped

LIMIT = 4000  # rows of the largest matrix that is formed or factorised
MOST_PRODUCTS = 10_000  # of one solve by conjugate gradients


class Curvature:
    """A symmetric matrix (d, d) over θ, at the θ at which it was made.

    Attributes
    ----------
    kind, structure : str
    size : int
        d.
    """

    structure = ""

    def __init__(self, f: Objective, kind: str):
        self.kind = kind
        self.layout = f.params.layout
        self.size = f.params.size
        self.l2 = f.l2
        self._like = f.params.vector[:0]  # dtype and device

    def __matmul__(self, v: Any) -> Any:
        """This matrix times v (d,)."""
        return self._product(self._vector(v))

    def solve(self, v: Any, damping: float) -> Any:
        """x (d,) with (matrix + damping·I) x = v.

        Raises
        ------
        ValueError
            A negative damping.
        FactorisationError
            The damped matrix is not positive definite.
        """
        return self._solve(self._vector(v), check_damping(damping))

    def dense(self) -> Any:
        """The matrix as an array (d, d)."""
        if self.size > LIMIT:
            raise ValueError(
                f"{self} as an array would be {self.size:,} × {self.size:,}, and the limit is {LIMIT:,}: use products"
            )
        return self._dense()

    def trace(self) -> Any:
        """Σ of the diagonal, a 0-d array."""
        raise self._refusal("trace", "structure 'diagonal' has it, and optim.spectrum.trace estimates it")

    def logdet(self, damping: float) -> Any:
        """log det(matrix + damping·I), a 0-d array."""
        raise self._refusal("log-determinant", "use structure 'dense', 'block' or 'kronecker'")

    def eigenvalues(self) -> Any:
        """All d eigenvalues, from the smallest."""
        raise self._refusal("eigenvalues", "optim.spectrum.extreme_eigenpairs finds the extreme ones")

    def _refusal(self, what: str, instead: str) -> ValueError:
        return ValueError(f"{self} does not know its {what}: {instead}")

    def _vector(self, v: Any) -> Any:
        if tuple(getattr(v, "shape", ())) != (self.size,):
            raise ValueError(f"{self} takes vectors of shape ({self.size},), not {tuple(getattr(v, 'shape', ()))}")
        return backend.like(v, self._like, None if v.dtype == self._like.dtype else self._like.dtype)

    def _log_sum(self, values: Any, damping: float) -> Any:
        """Σ log(values + damping); one wait, to refuse a value that is not positive."""
        module = backend.xp(values)
        values = values + damping
        if not float(values.min()) > 0.0:
            raise backend.FactorisationError(
                f"{self} + {damping:g}·I has no log-determinant, an eigenvalue is not positive: raise the damping"
            )
        return module.log(values).sum()

    def _sorted(self, values: list[Any]) -> Any:
        """Eigenvalues from several places in one order, sorted on the host."""
        module = backend.xp(self._like)
        host = backend.to_host(module.concatenate(values))
        host.sort()
        return backend.like(host, self._like)

    def __str__(self) -> str:
        return f"the {self.structure} {self.kind} matrix"

    def __repr__(self) -> str:
        return f"Curvature({self.kind}, {self.structure}, {self.size:,} × {self.size:,})"


def check_damping(damping: Any) -> float:
    """The damping as a float; refuses what is negative or no number."""
    if isinstance(damping, bool) or not isinstance(damping, (int, float)) or not 0.0 <= damping < math.inf:
        raise ValueError(f"the damping must be a number of at least 0, not {damping!r}")
    return float(damping)


def decay_of(name: str, l2: float) -> float:
    """What L2 adds to the diagonal in this window: c for weights NAME.W, 0 for all others."""
    return l2 if name.endswith(".W") else 0.0


def decays(layout: dict[str, tuple], l2: float, like: Any) -> Any:
    """The diagonal that L2 adds (d,)."""
    out = backend.xp(like).zeros(max(stop for _, stop, _ in layout.values()), like.dtype)
    for name, (start, stop, _) in layout.items():
        out[start:stop] = decay_of(name, l2)
    return out


def add_to_diagonal(array: Any, values: Any) -> Any:
    """array + diag(values), in place."""
    index = backend.xp(array).arange(len(array))
    array[index, index] += values
    return array


def check_size(size: int, what: str) -> None:
    """Refuse to form a matrix above the limit."""
    if size > LIMIT:
        raise ValueError(
            f"{what} has {size:,} parameters, and a matrix may have {LIMIT:,}: "
            "use structure 'diagonal' or 'matrix-free', or 'kronecker' where it is not the Hessian"
        )


def scatter_blocks(curvature: Curvature, blocks: list[tuple[list[str], Any]]) -> Any:
    """The (d, d) array with these blocks, each over its windows in the order given, and zeros elsewhere."""
    module = backend.xp(curvature._like)
    out = module.zeros((curvature.size, curvature.size), curvature._like.dtype)
    for names, block in blocks:
        index = module.concatenate([module.arange(*curvature.layout[name][:2]) for name in names])
        out[index[:, None], index] = block
    return out


class Diagonal(Curvature):
    """The diagonal alone.

    Attributes
    ----------
    vector : (d,)
    """

    structure = "diagonal"

    def __init__(self, f: Objective, kind: str, vector: Any):
        super().__init__(f, kind)
        self.vector = vector

    def _product(self, v):
        return self.vector * v

    def _solve(self, v, damping):
        damped = self.vector + damping
        if (damping == 0.0 or self.kind == "hessian") and not float(damped.min()) > 0.0:  # else it cannot happen
            raise backend.FactorisationError(f"{self} + {damping:g}·I is singular or indefinite: raise the damping")
        return v / damped

    def _dense(self):
        return backend.xp(self.vector).diag(self.vector)

    def trace(self):
        return self.vector.sum()

    def logdet(self, damping):
        return self._log_sum(self.vector, check_damping(damping))

    def eigenvalues(self):
        return self._sorted([self.vector])


class MatrixFree(Curvature):
    """Products only; solves go by conjugate gradients.

    Products of "hessian" and "fisher" are those of f at its θ of the moment.
    """

    structure = "matrix-free"

    def __init__(self, f: Objective, kind: str, product: Callable[[Any], Any]):
        super().__init__(f, kind)
        self._product = product

    def _solve(self, v, damping):
        return conjugate_gradients(lambda p: self._product(p) + damping * p, v, f"{self} + {damping:g}·I")

    def _dense(self):
        return columns(self._product, self.size, range(self.size), self._like)


def columns(product: Callable[[Any], Any], size: int, places: Any, like: Any) -> Any:
    """Columns `places` of a symmetric matrix from its products with unit vectors, as rows (len(places), size)."""
    module = backend.xp(like)
    found = module.zeros((len(places), size), like.dtype)
    unit = module.zeros(size, like.dtype)
    for row, i in enumerate(places):
        unit[i] = 1.0
        found[row] = product(unit)
        unit[i] = 0.0
    return found


def conjugate_gradients(product: Callable[[Any], Any], v: Any, what: str) -> Any:
    """x with A x = v to a relative residual of ε^⅔ (4e-11 in float64, 2e-5 in float32).

    Raises
    ------
    Stopped
        A direction without positive curvature, numbers that are not finite, or no convergence in
        min(10 d, 10,000) products.

    Notes
    -----
    One wait a product.
    """
    module = backend.xp(v)
    tol = float(module.finfo(v.dtype).eps) ** (4.0 / 3.0)
    x, r = backend.zeros_like(v), v.copy()
    p, rr = r.copy(), r.dot(r)
    first = float(rr)
    for _ in range(min(10 * v.size, MOST_PRODUCTS) if first else 0):
        Ap = product(p)
        along = p.dot(Ap)
        alpha = rr / along
        x += alpha * p
        r -= alpha * Ap
        before, rr = rr, r.dot(r)
        curvature, left = backend.numbers(along, rr)
        if not curvature > 0.0:
            raise Stopped(f"{what} is not positive definite or not finite: raise the damping")
        if left <= tol * first:
            return x
        p *= rr / before
        p += r
    if first:
        raise Stopped(f"conjugate gradients did not solve {what} in {MOST_PRODUCTS:,} products: raise the damping")
    return x
