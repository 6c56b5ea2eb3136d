"""Eigenvalues from products alone: power iteration, Lanczos, Hutchinson's trace, the spectral density.

A symmetric matrix A is given as a product, a function v → A v on θ's device: `f.hvp`, `f.ggnvp`, or any other. `like`
is a vector of its space (`f.params.vector`), for size, dtype and device. Random vectors are drawn on the host from
`rng` (whatever `numpy.random.default_rng` accepts) and uploaded; small tridiagonal problems are solved on the host.

    value, vector = power_iteration(f.hvp, f.params.vector)
    values, vectors = extreme_eigenpairs(f.ggnvp, f.params.vector, k=3)
    grid, curve = density(f.hvp, f.params.vector, probes=10, steps=80).curve()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from minigrad import Objective, backend

from .base import Stopped

Product = Callable[[Any], Any]
CHECK = 10  # Lanczos steps between two looks at the residuals
ENDS = ("largest", "smallest", "both")


class Estimate(NamedTuple):
    """A mean over random probes, and its standard error."""

    value: float
    error: float


# ------------------------------------------------------------------------------------------------ random vectors


def normal(like: Any, rng: Any = 0) -> Any:
    """A random direction of length 1; one upload."""
    v = np.random.default_rng(rng).standard_normal(like.size)
    return backend.like(v / np.linalg.norm(v), like, like.dtype)


def rademacher(like: Any, rng: Any = 0) -> Any:
    """Signs ±1, each with probability ½; one upload."""
    signs = 2 * np.random.default_rng(rng).integers(0, 2, like.size, dtype=np.int8) - 1
    return backend.like(signs, like, like.dtype)


def _tolerance(tol: float | None, like: Any) -> float:
    return float(np.finfo(like.dtype).eps) ** 0.5 if tol is None else tol


# ----------------------------------------------------------------------------------------------- power iteration


def power_step(product: Product, v: Any) -> tuple[Any, Any]:
    """‖A v‖ and A v/‖A v‖ for a v of length 1; no wait. Where A v = 0, v stays."""
    module = backend.xp(v)
    w = product(v)
    size = module.sqrt(w.dot(w))
    moves = size > 0
    return size, module.where(moves, w / module.where(moves, size, 1), v)


def power_iteration(
    product: Product, like: Any, tol: float | None = None, max_iterations: int = 10_000, rng: Any = 0
) -> tuple[float, Any]:
    """The eigenvalue that is largest in |λ|, with its sign, and its eigenvector.

    Every iteration multiplies the error of the eigenvalue by |λ₂/λ₁|², so it is slow where the two are close (and
    ends nowhere where λ₂ = −λ₁). Of a multiple eigenvalue the result is one vector of its eigenspace.

    Parameters
    ----------
    product : callable
    like : (d,) array
    tol : float, optional
        Stop when ‖A v − λ v‖ ≤ tol·|λ|; √eps of the dtype unless given. The relative error of λ is then at most tol,
        and about tol², so rounding, where the gap to the next one is of λ's size.
    max_iterations : int
    rng
        Draws the start.

    Returns
    -------
    value : float
        vᵀA v.
    vector : (d,) array
        Of length 1.

    Raises
    ------
    Stopped
        A product is not finite, or `max_iterations` are over.

    Notes
    -----
    One wait an iteration.
    """
    v, tol = normal(like, rng), _tolerance(tol, like)
    for _ in range(max_iterations):
        w = product(v)
        value = v.dot(w)
        left = w - value * v
        value, residual, size = backend.numbers(value, left.dot(left), w.dot(w))
        if not math.isfinite(size):
            raise Stopped("power iteration: a product is not finite; look at θ and at the objective there")
        if math.sqrt(residual) <= tol * abs(value):
            return value, v
        v = w * (1.0 / math.sqrt(size))
    raise Stopped(
        f"power iteration: the residual is {math.sqrt(residual):.3g} after {max_iterations} iterations and tol·|λ| is "
        f"{tol * abs(value):.3g}; raise max_iterations or tol, or take extreme_eigenpairs"
    )


def largest_eigenvalue(
    product: Product, like: Any, tol: float | None = None, max_iterations: int = 10_000, rng: Any = 0
) -> float:
    """The algebraically largest eigenvalue: `power_iteration`, again on A − λI when the λ found is negative."""
    value, _ = power_iteration(product, like, tol, max_iterations, rng)
    if value >= 0:
        return value
    above, _ = power_iteration(lambda v: product(v) - value * v, like, tol, max_iterations, rng)
    return value + above


def lecun_rate(f: Objective, tol: float | None = None, max_iterations: int = 10_000, rng: Any = 0) -> float:
    """1/λ_max of the Hessian at θ, the rate of gradient descent that the steepest curvature allows [T-3.1.2].

    Raises
    ------
    Stopped
        λ_max is not positive, or the power iteration does not end.
    """
    value = largest_eigenvalue(f.hvp, f.params.vector, tol, max_iterations, rng)
    if value <= 0:
        raise Stopped(
            f"LeCun's rate: the largest eigenvalue of the Hessian is {value:g}, so no curvature limits a rate"
        )
    return 1.0 / value


# ------------------------------------------------------------------------------------------------------- Lanczos


def lanczos(product: Product, start: Any, steps: int) -> tuple[np.ndarray, np.ndarray, Any]:
    """Lanczos with full reorthogonalisation: A Q ≈ Q T, T tridiagonal, the columns of Q orthonormal.

    Parameters
    ----------
    product : callable
    start : (d,) array
        Not zero.
    steps : int
        At most d are taken.

    Returns
    -------
    alphas : (m,) float64 array
        Diagonal of T, on the host.
    betas : (m,) float64 array
        βⱼ, the norm of what step j left over: the first m − 1 are the off-diagonal of T, the last one bounds its
        residuals.
    basis : (m, d) array
        Qᵀ, on the device.

    m < steps where the space that `start` reaches is exhausted (β at rounding level): the values of T are then
    eigenvalues of A, exactly. Each distinct eigenvalue is found once, whatever its multiplicity, and only where
    `start` has a part in its eigenspace.

    Raises
    ------
    Stopped
        A product is not finite.

    Notes
    -----
    One wait in all. Holds m vectors of size d.
    """
    *_, found = _grow(product, start, steps, every=steps)
    return found


def _grow(product: Product, start: Any, steps: int, every: int) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
    """`lanczos` with a look at what there is after every `every` steps: one wait each."""
    module = backend.xp(start)
    steps = min(steps, start.size)
    tiny = 100 * float(module.finfo(start.dtype).eps)
    basis = module.empty((steps, start.size), start.dtype)
    basis[0] = start / module.sqrt(start.dot(start))
    alphas, betas, scale = [], [], 0.0
    for j in range(steps):
        w = product(basis[j])
        known = basis[: j + 1]
        first = known.dot(w)
        w = w - first.dot(known)
        w -= known.dot(w).dot(known)  # twice is enough
        beta = module.sqrt(w.dot(w))
        scale = module.maximum(scale, module.abs(first[j]) + beta)
        goes_on = beta > tiny * scale
        alphas.append(first[j])
        betas.append(module.where(goes_on, beta, 0))
        if j + 1 < steps:
            basis[j + 1] = w / module.where(goes_on, beta, np.inf)  # 0 from where the space is exhausted
        if (j + 1) % every and j + 1 < steps:
            continue
        found = backend.numbers(*alphas, *betas)
        if not all(map(math.isfinite, found)):
            raise Stopped("Lanczos: a product is not finite; look at θ and at the objective there")
        a, b = np.array(found[: j + 1]), np.array(found[j + 1 :])
        ended = np.flatnonzero(b == 0)
        m = ended[0] + 1 if ended.size else j + 1
        yield a[:m], b[:m], basis[:m]
        if ended.size:
            return


def _tridiagonal(alphas: np.ndarray, betas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues, from the smallest, and eigenvectors (in columns) of T."""
    from scipy.linalg import eigh_tridiagonal

    return eigh_tridiagonal(alphas, betas[:-1])


def extreme_eigenpairs(
    product: Product,
    like: Any,
    k: int = 1,
    which: str = "largest",
    tol: float | None = None,
    max_steps: int = 300,
    rng: Any = 0,
) -> tuple[np.ndarray, Any]:
    """k eigenvalues at one end of the spectrum, or at both, with their eigenvectors, by `lanczos`.

    Parameters
    ----------
    product : callable
    like : (d,) array
    k : int
        Pairs at an end. A multiple eigenvalue counts, and is found, once.
    which : {"largest", "smallest", "both"}
        Algebraically, not by |λ|.
    tol : float, optional
        Every residual ‖A v − λ v‖ is at most tol times the largest |λ|; √eps of the dtype unless given.
    max_steps : int
        Of Lanczos; as many vectors of size d are held.
    rng
        Draws the start.

    Returns
    -------
    values : (k,) or (2k,) float64 array
        From the largest to the smallest.
    vectors : (k, d) or (2k, d) array
        In rows, of length 1.

    Raises
    ------
    ValueError
        An unknown end, or k more than the distinct eigenvalues that there are.
    Stopped
        The residuals are above `tol` after `max_steps`.

    Notes
    -----
    One wait every 10 steps.
    """
    if which not in ENDS:
        raise ValueError(f"extreme_eigenpairs: unknown end {which!r}; there are {', '.join(ENDS)}")
    if k < 1:
        raise ValueError(f"extreme_eigenpairs: k must be at least 1, not {k}")
    if max_steps < 1:
        raise ValueError(f"extreme_eigenpairs: max_steps must be at least 1, not {max_steps}")
    worst, tol = math.inf, _tolerance(tol, like)
    for alphas, betas, basis in _grow(product, normal(like, rng), max_steps, CHECK):
        values, small = _tridiagonal(alphas, betas)
        wanted = _ends(len(values), k, which)
        exhausted = betas[-1] == 0 or len(values) == like.size
        if not wanted:
            if exhausted:
                raise ValueError(
                    f"extreme_eigenpairs: there are {len(values)} distinct eigenvalues, too few for k = {k} at {which}"
                )
            continue
        worst = float(np.abs(betas[-1] * small[-1, wanted]).max())  # ‖A v − λ v‖ = β |last component|
        if exhausted or worst <= tol * np.abs(values).max():
            return values[wanted], backend.matmul(backend.like(small[:, wanted].T.copy(), like, like.dtype), basis)
    raise Stopped(
        f"extreme_eigenpairs: the residual is {worst:.3g} after {max_steps} Lanczos steps; raise max_steps or tol"
    )


def _ends(m: int, k: int, which: str) -> list[int]:
    """Indices of the wanted among m ascending values, from the largest; none when there are too few."""
    top, bottom = list(range(m - 1, m - 1 - k, -1)), list(range(k - 1, -1, -1))
    chosen = {"largest": top, "smallest": bottom, "both": top + bottom}[which]
    return chosen if m >= len(chosen) else []


def condition_number(
    product: Product, like: Any, tol: float | None = None, max_steps: int = 300, rng: Any = 0
) -> float:
    """κ = λ_max/λ_min of a positive definite A [P]; meaningful where 1/κ is well above `tol`.

    Raises
    ------
    Stopped
        λ_min is not positive, or Lanczos needs more steps.
    """
    (high, low), _ = extreme_eigenpairs(product, like, 1, "both", tol, max_steps, rng)
    if low <= 0:
        raise Stopped(f"condition number: the smallest eigenvalue is {low:.3g}, not positive; add a damping to A")
    return high / low


# ------------------------------------------------------------------------------------- trace and spectral density


def trace(product: Product, like: Any, probes: int = 100, rng: Any = 0) -> Estimate:
    """tr A as the mean of zᵀA z over random signs z [Hutchinson 1990]; exact in one probe for a diagonal A.

    Notes
    -----
    One product and one upload a probe, one wait in all.
    """
    if probes < 2:
        raise ValueError(f"trace: probes must be at least 2, for the standard error, not {probes}")
    generator = np.random.default_rng(rng)
    found = []
    for _ in range(probes):
        z = rademacher(like, generator)
        found.append(z.dot(product(z)))
    return _mean(backend.numbers(*found))


def _mean(found: list[float]) -> Estimate:
    error = np.std(found, ddof=1) / math.sqrt(len(found)) if len(found) > 1 else math.nan
    return Estimate(float(np.mean(found)), float(error))


@dataclass(frozen=True)
class Density:
    """The distribution of A's eigenvalues, as weighted points for every probe.

    Attributes
    ----------
    nodes : list of (m,) arrays
        A probe's Ritz values.
    weights : list of (m,) arrays
        Their squared first components, which sum to 1.
    """

    nodes: list[np.ndarray]
    weights: list[np.ndarray]

    def moment(self, k: int) -> Estimate:
        """tr(Aᵏ)/d; without error in the quadrature for k < 2 steps, so the probes alone matter."""
        return _mean([float(w @ t**k) for t, w in zip(self.nodes, self.weights)])

    def at(self, grid: np.ndarray, width: float) -> np.ndarray:
        """The density on a grid, every point a Gaussian of this standard deviation."""
        t, w = np.concatenate(self.nodes), np.concatenate(self.weights) / len(self.nodes)
        z = (grid[:, None] - t) / width
        return np.exp(-0.5 * z * z) @ w / (width * math.sqrt(2 * math.pi))

    def curve(self, width: float | None = None, points: int = 1000) -> tuple[np.ndarray, np.ndarray]:
        """(grid, density) from 5 widths below the least point to 5 above the greatest.

        Parameters
        ----------
        width : float, optional
            A hundredth of the spectrum's extent unless given.
        points : int
        """
        t = np.concatenate(self.nodes)
        low, high = float(t.min()), float(t.max())
        width = 0.01 * ((high - low) or abs(high) or 1.0) if width is None else width
        grid = np.linspace(low - 5 * width, high + 5 * width, points)
        return grid, self.at(grid, width)


def quadrature(product: Product, start: Any, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Gauss quadrature of A's spectrum as `start` sees it: Ritz values, and squared first components as weights."""
    alphas, betas, _ = lanczos(product, start, steps)
    values, vectors = _tridiagonal(alphas, betas)
    return values, vectors[0] ** 2


def density(product: Product, like: Any, probes: int = 10, steps: int = 80, rng: Any = 0) -> Density:
    """The spectral density by stochastic Lanczos quadrature, from random signs [P; Ubaru, Chen & Saad 2017].

    A multiple eigenvalue is one point with the weight of all of its eigenvectors. Holds `steps` vectors of size d.

    Notes
    -----
    One wait and the upload of its signs a probe.
    """
    if probes < 1 or steps < 1:
        raise ValueError(f"density: probes and steps must be at least 1, not {probes} and {steps}")
    generator = np.random.default_rng(rng)
    pairs = [quadrature(product, rademacher(like, generator), steps) for _ in range(probes)]
    return Density([t for t, _ in pairs], [w for _, w in pairs])
