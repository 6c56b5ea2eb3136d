"""Derivatives of functions: grad, value_and_grad, vjp, jvp, jacobian, hessian, hvp, ggnvp.

Every transform enters through a fresh Tensor for its input and walks the graph that the function records. Arrays
in give arrays out; where an input, or a Tensor that the function closes over, belongs to an outer transform, the
walk is recorded, so that transforms nest to any order without confusing one another's variables.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import backend
from .tensor import Tensor, raw, track
from .walk import between, enter, forward, forward_over_reverse, is_nested, reverse


class _Trace:
    """One application of a function to fresh inputs: its output, and the nodes between."""

    def __init__(self, fn: Callable, inputs: tuple):
        self.inputs = [enter(x) if type(x) is Tensor else track(x) for x in inputs]
        self.out = fn(*self.inputs)
        if isinstance(self.out, (int, float)):
            self.out = np.asarray(float(self.out))
        if not hasattr(self.out, "shape"):
            raise TypeError(f"the function must return one array, not {type(self.out).__name__}")
        self.depends, self.nested = False, any(type(x) is Tensor for x in inputs)
        if type(self.out) is Tensor:
            self.order, self.reach = between(self.out, self.inputs)
            self.depends = self.out.seq in self.reach
            self.nested = self.nested or is_nested(self.out, self.order, self.reach, self.inputs)

    def result(self) -> Any:
        """The output as the caller should see it: an array, or a Tensor of the outer transform."""
        return self.out if self.nested else raw(self.out)

    def pull(self, g: Any) -> list:
        """Cotangents of the inputs for the cotangent g of the output (with any lead)."""
        record = self.nested or type(g) is Tensor
        lead = g.shape[: g.ndim - self.out.ndim]
        found = reverse(self.order, self.reach, {self.out.seq: g}, record, self._keep()) if self.depends else {}
        return _owned([found[x.seq] if x.seq in found else _zeros(lead, x) for x in self.inputs], [g])

    def push(self, tangents: list) -> Any:
        """Tangent of the output for tangents of the inputs."""
        record = self.nested or any(type(t) is Tensor for t in tangents)
        found = forward(self.order, {x.seq: t for x, t in zip(self.inputs, tangents)}, record) if self.depends else {}
        t = found.get(self.out.seq) if self.depends else None
        return _zeros((), self.out) if t is None else _owned([t], tangents)[0]

    def turn(self, tangents: list, g: Any, dg: Any) -> list:
        """Derivative of `pull` along tangents of the inputs, for a cotangent g that moves by dg (or None)."""
        if not self.depends:
            return [_zeros((), x) for x in self.inputs]
        record = self.nested or any(type(t) is Tensor for t in tangents)
        moved = forward(self.order, {x.seq: t for x, t in zip(self.inputs, tangents)}, record)
        turned = {} if dg is None else {self.out.seq: dg}
        forward_over_reverse(self.order, self.reach, moved, {self.out.seq: g}, turned, record, self._keep())
        return _owned([turned[x.seq] if x.seq in turned else _zeros((), x) for x in self.inputs], tangents)

    def _keep(self) -> set[int]:
        return {x.seq for x in self.inputs}


def _owned(found: list, given: list) -> list:
    """Results that share no memory with what was given or with one another, so that the caller may edit them."""
    seen = {id(g) for g in given}
    for k, c in enumerate(found):
        if type(c) is not Tensor and (id(c) in seen or c.base is not None):
            found[k] = c.copy()
        seen.add(id(c))
    return found


def _zeros(lead: tuple, x: Any) -> Any:
    x = raw(x)
    return backend.xp(x).zeros(lead + x.shape, x.dtype)


def _ones_for(out: Any, name: str) -> Any:
    value = raw(out)
    if value.ndim:
        raise ValueError(
            f"{name} needs a function with one number as its result, not shape {tuple(value.shape)}; "
            "use vjp with a cotangent, or jacobian"
        )
    return backend.xp(value).ones((), value.dtype)


def _shaped(v: Any, x: Any, what: str) -> Any:
    """v as an array of the dtype and device of x, refused where its shape is another."""
    if type(v) is not Tensor:
        v = backend.like(v if hasattr(v, "shape") else np.asarray(v), raw(x))
        v = v if v.dtype == x.dtype else v.astype(x.dtype)
    if tuple(v.shape) != tuple(x.shape):
        raise ValueError(f"the {what} has shape {tuple(v.shape)}, but its variable has shape {tuple(x.shape)}")
    return v


def _varying(fn: Callable, args: tuple, argnum: int) -> Callable:
    """fn as a function of argument `argnum` alone."""
    if not -len(args) <= argnum < len(args):
        raise ValueError(f"argnum {argnum} does not exist among {len(args)} arguments")
    at = argnum % len(args)
    return lambda x: fn(*args[:at], x, *args[at + 1 :])


def value_and_grad(fn: Callable, argnum: int = 0) -> Callable:
    """The function that returns fn's value and its gradient in argument `argnum`.

    Raises
    ------
    ValueError
        fn does not return one number.
    """

    def evaluated(*args):
        trace = _Trace(_varying(fn, args, argnum), (args[argnum],))
        return trace.result(), trace.pull(_ones_for(trace.out, "grad"))[0]

    return evaluated


def grad(fn: Callable, argnum: int = 0) -> Callable:
    """The gradient of a function of one number's worth of output.

    Parameters
    ----------
    fn : callable
        Written in minigrad operations (operators, `mg.exp`, …); returns one number.
    argnum : int
        The argument to differentiate in.

    Examples
    --------
    >>> import numpy as np, minigrad as mg
    >>> mg.grad(lambda x: mg.sum(x**3))(np.array([1.0, 2.0]))
    array([ 3., 12.])
    """
    return lambda *args: value_and_grad(fn, argnum)(*args)[1]


def vjp(fn: Callable, *inputs: Any) -> tuple[Any, Callable]:
    """fn's value, and the function that pulls a cotangent of it back to the inputs.

    Returns
    -------
    y : array
    back : callable
        Takes a cotangent (…, \\*y.shape), any axes in front; returns the cotangent of the input, or a tuple of them.
    """
    trace = _Trace(fn, inputs)

    def back(g):
        g = g if hasattr(g, "shape") else backend.like(np.asarray(g, trace.out.dtype), raw(trace.out))
        if tuple(g.shape[g.ndim - trace.out.ndim :]) != tuple(trace.out.shape) or g.ndim < trace.out.ndim:
            raise ValueError(f"a cotangent of shape {tuple(g.shape)} does not fit {tuple(trace.out.shape)}")
        found = trace.pull(g)
        return found[0] if len(found) == 1 else tuple(found)

    return trace.result(), back


def jvp(fn: Callable, inputs: tuple, tangents: tuple) -> tuple[Any, Any]:
    """fn's value, and its derivative along one tangent for each input."""
    if len(inputs) != len(tangents):
        raise ValueError(f"jvp needs one tangent for each input, not {len(tangents)} for {len(inputs)}")
    trace = _Trace(fn, tuple(inputs))
    moved = trace.push([_shaped(t, x, "tangent") for t, x in zip(tangents, trace.inputs)])
    return trace.result(), moved


def jacobian(fn: Callable, argnum: int = 0) -> Callable:
    """The Jacobian (\\*y.shape, \\*x.shape), from one walk with all cotangents stacked."""

    def evaluated(*args):
        trace = _Trace(_varying(fn, args, argnum), (args[argnum],))
        value = raw(trace.out)
        size = math.prod(value.shape)
        eye = backend.xp(value).eye(size, dtype=value.dtype).reshape((*value.shape, *value.shape))
        return trace.pull(eye)[0]

    return evaluated


def hessian(fn: Callable, argnum: int = 0) -> Callable:
    """The Hessian (\\*x.shape, \\*x.shape) of a function of one number's worth of output."""
    return jacobian(grad(fn, argnum), argnum)


def hvp(fn: Callable, x: Any, v: Any) -> Any:
    """Hessian times vector, ∇²fn(x) v, by the forward-over-reverse walk."""
    trace = _Trace(fn, (x,))
    one = _ones_for(trace.out, "hvp")
    return trace.turn([_shaped(v, trace.inputs[0], "vector")], one, None)[0]


def ggnvp(model: Callable, loss: Callable, x: Any, v: Any) -> Any:
    """Generalised Gauss-Newton times vector, Jᵀ (∇²loss) J v with J the Jacobian of model at x.

    Parameters
    ----------
    model : callable
        x → z, an array.
    loss : callable
        z → one number.
    """
    trace = _Trace(model, (x,))
    moved = trace.push([_shaped(v, trace.inputs[0], "vector")])
    curved = hvp(loss, trace.out if trace.nested else raw(trace.out), moved)
    return trace.pull(curved)[0]
