"""The gradient checker: every mode of differentiation against differences of the function itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import backend, ops
from .tensor import Tensor, raw, track
from .transforms import jvp, vjp
from .walk import between, forward, forward_over_reverse

EXACT = 1e-10  # forward against reverse mode: both are exact, so only rounding may part them


class CheckFailed(AssertionError):
    """A derivative is not what the function's differences say; the sentence tells which, and by how much."""


def check(
    fn: Callable, *inputs: Any, order: int = 2, rng: Any = 0, tolerance: float = 1e-6, step: float = 1e-3
) -> None:
    """Check the derivatives of a function against central differences, in float64.

    At order 1 these are forward mode (along a random tangent), reverse mode (with a random cotangent), and the
    two against each other. At order 2 the gradient is differentiated in three ways (the forward-over-reverse walk,
    reverse over reverse, reverse over forward), each against differences of the gradient. Each input is moved
    by itself, then all of them together. Choose inputs away from kinks: nothing is differentiable there.

    Parameters
    ----------
    fn : callable
        Arrays → one array of any shape, written in minigrad operations.
    \\*inputs : floating arrays
        The point; converted to float64.
    order : {1, 2}
        Highest derivative to check.
    rng : int or numpy Generator
        Source of the random tangents and cotangents.
    tolerance : float
        Largest error, relative to the largest element of the derivative; what the differences lose to rounding
        is allowed for. 1e-7 works for smooth functions.
    step : float
        Middle one of the three steps tried, relative to the size of the input. The differences are of fourth
        order, and of the three the one that agrees best with its neighbour is believed.

    Raises
    ------
    CheckFailed
        A derivative is wrong; the sentence names the mode, the input, the error and the tolerance.

    Examples
    --------
    >>> import numpy as np, minigrad as mg
    >>> mg.check(mg.tanh, np.array([0.5, -1.0]))
    >>> cube = mg.elementwise(lambda x: x**3, lambda y, x: 2.997 * x**2, name="cube")
    >>> mg.check(cube, np.array([0.5, -1.0]))  # doctest: +ELLIPSIS, +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    minigrad.checking.CheckFailed: forward mode is wrong along input 0: ...
    """
    if order not in (1, 2):
        raise ValueError(f"order is 1 or 2, not {order}")
    if not inputs:
        raise TypeError("check needs the inputs at which to differentiate")
    points = [_double(x) for x in inputs]
    random = backend.stream(backend.random_key(rng), "check")
    g = _normal(random, _array(fn(*points)))
    directions = [_normal(random, x) * _size(x) for x in points]
    moves = [(f"input {j}", [v if i == j else None for i, v in enumerate(directions)]) for j in range(len(points))]
    if len(points) > 1:
        moves.append(("all inputs", directions))
    with np.errstate(all="ignore"):  # the largest step may leave the domain; a smaller one is then believed
        for part in (_first_order, _second_order)[:order]:
            for along, tangents in moves:
                part(fn, points, tangents, g, along, tolerance, step)


def _first_order(fn, points, tangents, g, along, tolerance, step):
    moving, values, moved = _moving(fn, points, tangents)
    (slope,), (noise,) = _differences(lambda *xs: [_array(fn(*xs))], points, tangents, step)
    _, forwards = jvp(moving, values, moved)
    _compare(f"forward mode is wrong along {along}", forwards, slope, tolerance, noise)
    back = vjp(moving, *values)[1](g)
    back = back if isinstance(back, tuple) else (back,)
    for c, x in zip(back, values):
        if c.shape != x.shape:
            raise CheckFailed(f"reverse mode is wrong along {along}: a gradient of shape {c.shape}, not {x.shape}")
    terms = np.concatenate([_host(c * v).ravel() for c, v in zip(back, moved)])
    reverse = np.asarray(terms.sum())
    scale = float(np.linalg.norm(_host(g * slope)))
    noise = noise * float(np.linalg.norm(_host(g)))
    _compare(f"reverse mode is wrong along {along}", reverse, _host(g * slope).sum(), tolerance, noise, scale)
    scale = float(np.abs(_host(g * forwards)).sum() + np.abs(terms).sum())
    _compare(f"reverse and forward mode disagree along {along}", reverse, _host(g * forwards).sum(), EXACT, 0.0, scale)


def _second_order(fn, points, tangents, g, along, tolerance, step):
    def gradients(*xs):
        back = vjp(fn, *xs)[1](g)
        return back if isinstance(back, tuple) else (back,)

    def steepness(*xs):
        """The gradient's component along the tangents; its gradient is the Hessian times them."""
        return _total(c * v for c, v in zip(gradients(*xs), tangents) if v is not None)

    def speed(*xs):
        """The same number by forward mode."""
        moving, values, moved = _moving(fn, xs, tangents)
        return ops.sum(g * jvp(moving, values, moved)[1])

    slopes, noises = _differences(gradients, points, tangents, step)
    modes = {
        "the forward-over-reverse walk": _turned(fn, points, tangents, g),
        "reverse over reverse mode": _gradient(steepness, points),
        "reverse over forward mode": _gradient(speed, points),
    }
    for mode, found in modes.items():
        for i, (h, slope, noise) in enumerate(zip(found, slopes, noises)):
            _compare(f"{mode} is wrong for the gradient of input {i} along {along}", h, slope, tolerance, noise)


def _moving(fn, points, tangents):
    """fn as a function of the inputs that move, their values, and their tangents."""
    where = [i for i, v in enumerate(tangents) if v is not None]

    def moving(*values):
        full = list(points)
        for i, x in zip(where, values):
            full[i] = x
        return fn(*full)

    return moving, [points[i] for i in where], [tangents[i] for i in where]


def _gradient(fn, points):
    back = vjp(fn, *points)[1](1.0)
    return back if isinstance(back, tuple) else (back,)


def _turned(fn, points, tangents, g):
    """The Hessian of ⟨g, fn⟩ times the tangents, by the forward-over-reverse walk."""
    inputs = [Tensor(x) for x in points]
    out = fn(*inputs)
    zero = [backend.xp(x).zeros_like(x) for x in points]
    if type(out) is not Tensor:
        return zero
    order, reach = between(out, inputs)
    moved = forward(order, {x.seq: v for x, v in zip(inputs, tangents) if v is not None})
    keep = {x.seq for x in inputs}
    found = forward_over_reverse(order, reach, moved, {out.seq: g}, {}, keep=keep)
    return [found.get(x.seq, z) for x, z in zip(inputs, zero)]


def _differences(fn, points, tangents, step):
    """Derivatives of the arrays fn(\\*points) along the tangents, and what rounding may have done to each."""

    def at(t):
        return [raw(y) for y in fn(*(x if v is None else x + t * v for x, v in zip(points, tangents)))]

    here = at(0.0)
    tries = []
    for h in (10 * step, step, step / 10):
        terms = zip(at(h), at(-h), at(2 * h), at(-2 * h))
        tries.append([(8.0 * (a - b) - (c - d)) / (12.0 * h) for a, b, c, d in terms])
    slopes, noises = [], []
    for y, coarse, middle, fine in zip(here, *tries):
        settled = _largest(coarse - middle) <= _largest(middle - fine)  # False where one of them is NaN
        slopes.append(middle if settled else fine)
        noises.append(100.0 * np.finfo(float).eps * _largest(y) / (step if settled else step / 10))
    return slopes, noises


def _compare(claim, found, expected, tolerance, noise, scale=None):
    found, expected = _host(raw(found)), _host(expected)
    if found.shape != expected.shape:
        raise CheckFailed(f"{claim}: its shape is {found.shape}, not {expected.shape}")
    error = _largest(found - expected)
    scale = _largest(expected) if scale is None else scale
    if not error <= tolerance * scale + noise:
        raise CheckFailed(f"{claim}: error {error:.1e} in a derivative of size {scale:.1e}, tolerance {tolerance:.0e}")


def _double(x):
    return raw(track(raw(x))).astype(np.float64)


def _array(y):
    y = raw(y)
    return y if hasattr(y, "shape") else np.asarray(float(y))


def _normal(random, x):
    return backend.like(random.standard_normal(x.shape), x)


def _size(x):
    """Root mean square of an array, so that steps are relative; 1 where there is nothing to be relative to."""
    size = float(np.linalg.norm(_host(x).ravel())) / max(x.size, 1) ** 0.5
    return size or 1.0


def _largest(x):
    return float(abs(x).max()) if x.size else 0.0


def _total(parts):
    return ops.sum(ops.concatenate([ops.reshape(p, (-1,) if p.size else (0,)) for p in parts]))


def _host(x):
    return np.asarray(backend.to_host(x))
