"""Conjugate gradients on a quadratic model, with the iterates that Hessian-free optimization goes back to."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

from minigrad import backend

from .base import Stopped


class Iterate(NamedTuple):
    """A step that lowers the model φ(x) = gᵀx + ½ xᵀAx.

    Attributes
    ----------
    i : int
        After how many iterations.
    x : (d,) array
    slope : float
        gᵀx, negative.
    model : float
        φ(x), negative.
    """

    i: int
    x: Any
    slope: float
    model: float


def minimise(
    product: Callable[[Any], Any],
    g: Any,
    start: Any = None,
    diagonal: Any = None,
    tol: float = 5e-4,
    max_iterations: int = 250,
) -> list[Iterate]:
    """Minimise φ(x) = gᵀx + ½ xᵀAx, so A x = −g, by preconditioned conjugate gradients [Martens 2010, §4.4 to 4.7].

    Stops at iteration i when the last k = max(10, i/10) of them lowered φ by a share below k·tol in all: i > k,
    φᵢ < 0 and (φᵢ − φᵢ₋ₖ)/φᵢ < k·tol. Stops also when the residual is at rounding level, after `max_iterations`, and
    where pᵀAp is not positive, with the iterate that it has [Nash 1984]. Where that is so of the first direction: from
    zero the direction is itself the result, since it leads down by its slope and by its curvature; from another start
    there is none.

    Parameters
    ----------
    product : callable
        v → A v.
    g : (d,) array
        Finite.
    start : (d,) array, optional
        Where to start; zeros unless given. Not written to.
    diagonal : (d,) array, optional
        The preconditioner M, positive; the identity unless given.
    tol : float
        0 switches the first rule off.
    max_iterations : int

    Returns
    -------
    list of Iterate
        Iterates ⌈1.3ʲ⌉ and the last one, as far as φ < 0 and gᵀx < 0: at most 8.8 log₁₀(max_iterations) + 2 vectors.
        Empty where no iterate is such.

    Raises
    ------
    Stopped
        A product holds NaN or infinity.

    Notes
    -----
    One wait on the device before the first iteration, and one in each, for the numbers that decide.
    """
    module = backend.xp(g)
    x = backend.zeros_like(g) if start is None else start.copy()
    r = -g
    if start is not None:
        r -= product(x)
    z = r if diagonal is None else r / diagonal
    p, rz = z.copy(), r.dot(z)
    slope, rx, rr, gg, steepest = backend.numbers(g.dot(x), r.dot(x), r.dot(r), g.dot(g), rz)
    small = float(module.finfo(g.dtype).eps) ** 2 * gg
    models = [0.5 * (slope - rx)]  # φ = ½ (gᵀx − rᵀx), because Ax = −g − r
    kept: list[Iterate] = []
    power, store = 0, 1
    while rr > small and len(models) <= max_iterations:
        i = len(models)
        Ap = product(p)
        pAp = p.dot(Ap)
        positive = pAp > 0
        alpha = module.where(positive, rz / module.where(positive, pAp, 1), 0)  # 0: nothing moves, the host decides
        x += alpha * p
        r -= alpha * Ap
        z = r if diagonal is None else r / diagonal
        before, rz = rz, r.dot(z)
        curvature, slope, rx, rr = backend.numbers(pAp, g.dot(x), r.dot(x), r.dot(r))
        if not math.isfinite(curvature + slope + rx + rr):
            raise Stopped("a product of the curvature with a vector is not finite; raise the damping")
        if curvature <= 0:
            if i == 1:
                return [] if start is not None else [Iterate(0, p, -steepest, 0.5 * curvature - steepest)]
            break
        models.append(0.5 * (slope - rx))
        if _stalled(models, tol):
            break
        if i == store:
            _keep(kept, i, x.copy(), slope, models)
        while store <= i:
            power += 1
            store = math.ceil(1.3**power)
        p *= rz / before
        p += z
    if not kept or kept[-1].i < len(models) - 1:
        _keep(kept, len(models) - 1, x, slope, models)
    return kept


def _keep(kept: list[Iterate], i: int, x: Any, slope: float, models: list[float]) -> None:
    if models[-1] < 0 and slope < 0:  # a start that has not come under φ = 0 yet may lead uphill
        kept.append(Iterate(i, x, slope, models[-1]))


def _stalled(models: list[float], tol: float) -> bool:
    """Whether the last k iterations lowered φ by a share below k·tol [Martens 2010, §4.4]."""
    i = len(models) - 1
    k = max(10, math.ceil(i / 10))
    return i > k and models[i] < 0 and (models[i] - models[i - k]) / models[i] < k * tol
