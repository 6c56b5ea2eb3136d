"""Line searches: how far to go along a direction. Backtracking, strong Wolfe, and the exact step of a quadratic.

The searches work on numbers, φ(t) = R(θ + t d); `Ray` makes φ from an objective, one wait on the device a trial.
Equations: Nocedal & Wright 2006 [NW], Hager & Zhang 2005 [HZ].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from minigrad import Objective, backend

from .base import Stopped

EPS = 2.0**-52
ULPS = 16  # R is a sum: it is known to about so many units in its last place
TRIALS = 25  # points that `strong_wolfe` evaluates at most


class Ray:
    """φ(t) = R(θ + t d) on the batch of f: what a line search evaluates.

    Parameters
    ----------
    f : Objective
    direction : (d,) array

    Attributes
    ----------
    eps : float
        The relative rounding of R in θ's dtype.
    """

    def __init__(self, f: Objective, direction: Any):
        self.f, self.direction = f, direction
        self.eps = float(np.finfo(direction.dtype).eps)

    def move(self, t: float) -> Any:
        """t d (d,), a fresh vector: the step to a trial, so that θ + move(t) is its point bit for bit."""
        return t * self.direction

    def at(self, t: float) -> Objective:
        """The objective at the trial point."""
        return self.f.at(self.f.params.vector + self.move(t))

    def value(self, t: float) -> float:
        """φ(t); one wait."""
        with np.errstate(all="ignore"):  # a trial may overflow: it is not accepted
            return backend.numbers(self.at(t).value)[0]

    def __call__(self, t: float) -> tuple[float, float, Any, Any]:
        """φ(t) and φ′(t), and on the device R (0-d) and ∇R (d,) at the trial point; one wait."""
        with np.errstate(all="ignore"):
            point = self.at(t)
            gradient = point.grad
            return *backend.numbers(point.value, gradient.dot(self.direction)), point.value, gradient


class Trial(NamedTuple):
    """A point that a search has seen; `rest` is whatever else φ returned there."""

    t: float
    value: float
    slope: float
    rest: tuple = ()


def check_start(value: float, slope: float) -> None:
    """Refuse to search from a value or along a slope that a search cannot start with.

    Raises
    ------
    Stopped
        The value or the slope is not finite, or the slope is not negative.
    """
    if not math.isfinite(value):
        raise Stopped(f"line search: R(θ) is {value:g}; lower the rate of the step before, or start from another θ")
    if not math.isfinite(slope):
        raise Stopped(
            f"line search: the slope along the direction is {slope:g}; the gradient or the step is not finite"
        )
    if slope == 0:
        raise Stopped("line search: the slope along the direction is 0; θ is a stationary point to rounding")
    if slope > 0:
        raise Stopped(f"line search: the slope along the direction is {slope:g}, so R rises; take a descent direction")


def _no_progress(t: float, trials: int) -> Stopped:
    return Stopped(
        f"line search: {trials} trials, the last at step length {t:.3g}, find no lower R; θ is a minimum to rounding, "
        "or the gradient is wrong (mg.check)"
    )


def backtracking(
    value_at: Callable[[float], float],
    value: float,
    slope: float,
    first: float = 1.0,
    c1: float = 1e-4,
    factor: float = 0.5,
    eps: float = EPS,
) -> float:
    """The first t = first·factorᵏ with φ(t) ≤ φ(0) + c₁ t φ′(0) [Armijo; NW alg. 3.1].

    Parameters
    ----------
    value_at : callable
        t → φ(t); NaN and infinity count as not lower.
    value, slope : float
        φ(0) and φ′(0).
    eps : float
        Relative rounding of φ. Where even the first step promises less than that, φ cannot show a decrease, and
        a value that is equal to rounding will do: Newton's last steps are of this kind.

    Returns
    -------
    float

    Raises
    ------
    Stopped
        φ(0) or φ′(0) is not finite, φ′(0) ≥ 0, or no step whose decrease φ could show lowers φ.

    Notes
    -----
    One evaluation a trial; with `Ray.value` one wait on the device each.
    """
    check_start(value, slope)
    noise = ULPS * eps * abs(value)
    slack = noise if -slope * first <= noise else 0.0
    t, trials = first, 0
    while trials == 0 or (-slope * t > noise and t > eps * first):
        trials += 1
        if value_at(t) <= value + c1 * t * slope + slack:  # not so for NaN
            return t
        t *= factor
    raise _no_progress(t / factor, trials)


def strong_wolfe(
    phi: Callable[[float], tuple],
    value: float,
    slope: float,
    first: float = 1.0,
    c1: float = 1e-4,
    c2: float = 0.9,
    eps: float = EPS,
) -> Trial:
    """A step t with φ(t) ≤ φ(0) + c₁ t φ′(0) and |φ′(t)| ≤ c₂ |φ′(0)| [NW alg. 3.5 and 3.6, in one loop].

    The points that are kept are `low`, the lowest so far, with its slope towards `high`, and `high`, the other end
    of the bracket, once there is one. Until then the step grows by the cubic through the last two points, at most
    fivefold; within the bracket it is the cubic's minimiser, the bracket's middle where a value is infinite.

    Parameters
    ----------
    phi : callable
        t → (φ(t), φ′(t), \\*rest); values and slopes that are not finite count as too high.
    value, slope : float
        φ(0) and φ′(0).
    first : float
        The first trial.
    eps : float
        Relative rounding of φ: values that differ by less are taken as equal and the slopes decide, as in the
        approximate Wolfe conditions of [HZ], so that the search works on at the bottom of φ.

    Returns
    -------
    Trial
        t, φ(t), φ′(t) and the rest that φ returned there. Where φ has a kink, or falls without bound through all
        of the trials, no step has both conditions: then the lowest point with the first one.

    Raises
    ------
    Stopped
        φ(0) or φ′(0) is not finite, φ′(0) ≥ 0 or only rounding, or no trial lowers φ.

    Notes
    -----
    At most `TRIALS` evaluations; with a `Ray` one wait on the device each.
    """
    check_start(value, slope)
    noise = ULPS * eps * abs(value)
    if -slope * first <= eps * noise:
        raise Stopped(
            f"line search: the slope along the direction is {slope:.3g}, nothing but rounding beside R = {value:.3g}; "
            "θ is a stationary point"
        )
    low, high = Trial(0.0, value, slope), None
    t, trials = first, 0
    while trials < TRIALS:
        trials += 1
        new_value, new_slope, *rest = phi(t)
        new = Trial(t, new_value, new_slope, tuple(rest))
        if not (math.isfinite(new.value) and math.isfinite(new.slope)):
            high = new
        elif new.value > min(value + c1 * t * slope, low.value) + noise:
            high = new
        elif abs(new.slope) <= -c2 * slope:
            return new
        elif high is None and new.slope < 0:
            low, t = new, _beyond(low, new)
            continue
        else:
            if high is None or new.slope * (high.t - low.t) >= 0:
                high = low
            low = new
        if abs(high.t - low.t) <= 10 * eps * max(low.t, high.t):
            break  # a tenth of it is nothing
        t = _between(low, high, noise)
    if low.value < value + c1 * low.t * slope:
        return low
    raise _no_progress(new.t, trials)


def _cubic(a: Trial, b: Trial) -> float:
    """The minimiser of the cubic with the values and slopes of two points [NW 3.59]; NaN where there is none."""
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = d1 * d1 - a.slope * b.slope
    if not 0 <= square < math.inf:
        return math.nan
    d2 = math.copysign(math.sqrt(square), b.t - a.t)
    below = b.slope - a.slope + 2 * d2
    return b.t - (b.t - a.t) * (b.slope + d2 - d1) / below if below else math.nan


def _beyond(a: Trial, b: Trial) -> float:
    """The next trial after b, still going down: where the cubic has its minimum, within 1.1 to 4 gaps beyond b."""
    gap = b.t - a.t
    t = _cubic(a, b)
    return min(max(t, b.t + 1.1 * gap), b.t + 4 * gap) if t > b.t else b.t + 4 * gap


def _between(low: Trial, high: Trial, noise: float) -> float:
    """The next trial inside the bracket, a tenth of it away from either end."""
    middle = 0.5 * (low.t + high.t)
    if not (math.isfinite(high.value) and math.isfinite(high.slope)):
        return middle
    if abs(high.value - low.value) <= noise and high.slope != low.slope:  # only the slopes say anything
        t = low.t - low.slope * (high.t - low.t) / (high.slope - low.slope)
    else:
        t = _cubic(low, high)
    start, end = sorted((low.t, high.t))
    margin = 0.1 * (end - start)
    return min(max(t, start + margin), end - margin) if math.isfinite(t) else middle


def exact(ray: Ray, gradient: Any) -> tuple[float, float]:
    """t = −gᵀd / dᵀHd, the minimiser along d where R is quadratic, and the slope gᵀd.

    One product with H, one wait on the device. Along d = 0 it is t = 0.

    Raises
    ------
    Stopped
        R(θ), the slope or the curvature along d is not finite, the slope is positive, or the curvature not
        positive.
    """
    f, d = ray.f, ray.direction
    value, slope, curvature = backend.numbers(f.value, gradient.dot(d), d.dot(f.hvp(d)))
    if slope == 0 and math.isfinite(value):
        return 0.0, 0.0
    check_start(value, slope)
    if not 0 < curvature < math.inf:
        raise Stopped(
            f"line search: the curvature along the direction is {curvature:g}, so R has no minimum on it; "
            "take line_search='wolfe'"
        )
    return -slope / curvature, slope
