"""Tensor, and the four kinds of primitive.

A Tensor is its own node: it knows the operation and the arguments that made it. Arguments point backwards and
nothing points forward, so there are no cycles, and a graph is freed when its last Tensor is. A creation counter
is the topological order.

A primitive is declared once, as one of four kinds; from the kind follow all modes of differentiation:

=============  ==============================  ====================================================
kind           declared by                     what is known of f
=============  ==============================  ====================================================
elementwise    f, one partial per argument     acts on each element by itself, broadcasting
linear         f, its transpose                linear in all its arrays together
multilinear    f, its transpose                linear in each of its arrays by itself
primitive      f, its vjp, its jvp             anything else
=============  ==============================  ====================================================

Rules are written in minigrad's own operations: on arrays they are the fast first-order path, on Tensors they
record themselves, so that any order of derivative follows. Every rule accepts extra axes in front of a cotangent
or tangent (the *lead*: many of them at once); axes are therefore counted from the end, and shapes in keywords
describe the trailing axes only.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from . import backend

_count = itertools.count(1)
_NO_KEYWORDS: dict = {}


class Tensor:
    """An array together with the operation that made it.

    Attributes
    ----------
    value : array
        NumPy or CuPy; never changed in place.
    op : Primitive or None
        What made it; None for a leaf.
    args : tuple
        The operation's arguments, Tensors and arrays.
    kw : dict
        The operation's static settings: axes, shapes, indices.
    seq : int
        Position in the order of creation, which is a topological order.
    memo : dict or None
        Partial derivatives that were computed once and serve every walk.
    """

    __slots__ = ("value", "op", "args", "kw", "seq", "memo", "place", "__weakref__")

    __array_ufunc__ = None  # NumPy then leaves `array * tensor` to __rmul__

    def __init__(self, value: Any, op: Primitive | None = None, args: tuple = (), kw: dict = _NO_KEYWORDS):
        self.value = value
        self.op = op
        self.args = args
        self.kw = kw
        self.seq = next(_count)
        self.memo = None

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)
    dtype = property(lambda self: self.value.dtype)
    size = property(lambda self: self.value.size)

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("a Tensor without axes has no length")
        return self.shape[0]

    def __iter__(self):
        return (self[i] for i in range(len(self)))

    def __float__(self) -> float:
        return float(self.value)

    def __int__(self) -> int:
        return int(self.value)

    def __bool__(self) -> bool:
        return bool(self.value)

    def item(self) -> float:
        return self.value.item()

    __hash__ = object.__hash__

    def __array_function__(self, func, types, args, kwargs):
        raise TypeError(f"numpy.{func.__name__} does not record derivatives; use minigrad's own, or tensor.value")

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if backend.xp(self.value) is not np:
            raise TypeError("this Tensor lives on the device; ask for a copy with backend.to_host(tensor.value)")
        return np.asarray(self.value, dtype) if copy is None else np.array(self.value, dtype, copy=copy)

    def __setitem__(self, index: Any, value: Any) -> None:
        raise TypeError("elements of a Tensor cannot be assigned; build the new array with where(condition, a, b)")

    def __repr__(self) -> str:
        made = f", {self.op.name}" if self.op else ""
        return f"Tensor({self.value!r}{made})"

    def __format__(self, spec: str) -> str:
        return format(self.value.item() if spec and not self.ndim else self.value, spec)

    def _repr_svg_(self) -> str:
        from .drawing import draw

        return draw(self).svg()


def track(value: Any) -> Tensor:
    """Make a leaf Tensor of a floating array, a Python number or a nested list of numbers; of Params, their windows.

    Raises
    ------
    TypeError
        The array is not floating: derivatives with respect to integers do not exist.
    """
    if type(value) is Tensor:
        return value
    if hasattr(value, "track"):
        return value.track()
    if isinstance(value, (int, float, list, tuple)) and not isinstance(value, bool):
        value = np.asarray(value, dtype=float)
    if not hasattr(value, "dtype") or value.dtype.kind != "f":
        kind = getattr(value, "dtype", type(value).__name__)
        raise TypeError(f"derivatives need a floating array, not {kind}; convert it with .astype(float)")
    return Tensor(value)


def raw(value: Any) -> Any:
    """The array of a Tensor; anything else as it is."""
    return value.value if type(value) is Tensor else value


# ------------------------------------------------------------------------------------------------ recording

watching: list = []  # what `debug()` asks to be told of every value; empty outside it


def record(op: Primitive, args: tuple, kw: dict = _NO_KEYWORDS) -> Tensor:
    """Apply `op` to arguments of which one is a Tensor, and remember it as a node."""
    count = len(args)  # the most frequent operations are spared a loop
    if count == 1:
        arrays = (args[0].value,)
    elif count == 2:
        a, b = args
        arrays = (a.value if type(a) is Tensor else a, b.value if type(b) is Tensor else b)
    elif count == 3:
        a, b, c = args
        arrays = (
            a.value if type(a) is Tensor else a,
            b.value if type(b) is Tensor else b,
            c.value if type(c) is Tensor else c,
        )
    else:
        arrays = [a.value if type(a) is Tensor else a for a in args]
    try:
        node = Tensor(op.forward(*arrays, **kw) if kw else op.forward(*arrays), op, args, kw)
    except Exception as error:
        _say_where(error, op, arrays)
        raise
    if watching:
        node.place = watching[-1](op, node.value, "forward")
    return node


def _say_where(error: Exception, op: Primitive, arrays: Any) -> None:
    """Tell an error which operation and which shapes it came from."""
    error.add_note(f"in {op.name}({', '.join(_describe(a) for a in arrays)})")


def _describe(a: Any) -> str:
    return f"{a.dtype}{list(a.shape)}" if hasattr(a, "shape") else repr(a)


# --------------------------------------------------------------------------------------------- the four kinds


class Primitive:
    """An operation with its own vjp and jvp; the other three kinds derive theirs.

    Parameters
    ----------
    forward : callable
        (\\*arrays, \\*\\*settings) → array.
    vjp : callable
        (i, g, ans, \\*args, \\*\\*settings) → cotangent of argument i, or None where it is zero.
    jvp : callable
        (tangents, ans, \\*args, \\*\\*settings) → tangent of ans; a tangent is None where it is zero.
    """

    __slots__ = ("name", "forward", "vjp", "jvp")

    def __init__(self, forward: Callable, vjp: Callable, jvp: Callable, name: str | None = None):
        self.name = name or forward.__name__
        self.forward = forward
        self.vjp = vjp
        self.jvp = jvp

    def __call__(self, *args, **kw):
        for a in args:
            if type(a) is Tensor:
                return record(self, args, kw)
        try:
            value = self.forward(*args, **kw)
        except Exception as error:
            _say_where(error, self, args)
            raise
        if watching:
            watching[-1](self, value, "forward")
        return value

    def pull(self, i: int, g: Any, ans: Any, args: Any, kw: dict, node: Tensor | None = None) -> Any:
        """Cotangent of argument i. `node`, given when all is arrays, may keep a memo."""
        return self.vjp(i, g, ans, *args, **kw)

    def push(self, tangents: list, ans: Any, args: Any, kw: dict, node: Tensor | None = None) -> Any:
        """Tangent of ans, or None where it is zero; `node` as for `pull`."""
        return self.jvp(tangents, ans, *args, **kw)

    def __repr__(self) -> str:
        return f"<{type(self).__name__.lower()} {self.name}>"


class Elementwise(Primitive):
    """f acts on each element by itself; `partials[i]` is ∂f/∂argᵢ as a number or a function of (ans, \\*args)."""

    __slots__ = ("partials",)

    def __init__(self, forward: Callable, *partials: Callable | float, name: str | None = None):
        self.name = name or forward.__name__
        self.forward = forward
        self.partials = partials

    def partial(self, i: int, ans: Any, args: Any, kw: dict, node: Tensor | None = None) -> Any:
        rule = self.partials[i]
        if type(rule) is float:
            return rule
        if node is None or len(args) > 1:
            return rule(ans, *args, **kw)
        if node.memo is None:  # f′(a) serves every later walk over the same graph
            node.memo = {0: rule(ans, args[0], **kw) if kw else rule(ans, args[0])}
        return node.memo[0]

    def pull(self, i, g, ans, args, kw, node=None):
        p = self.partials[i]
        if type(p) is float:
            if p == 0.0:
                return None
            c = g if p == 1.0 else multiply(g, p)
        else:
            p = self.partial(i, ans, args, kw, node)
            c = multiply(g, p) if node is None else multiply.forward(g, p)
        old, new = ans.shape, args[i].shape
        return c if old == new else sum_to(c, old=old, new=new)

    def push(self, tangents, ans, args, kw, node=None):
        total = None
        for i, t in enumerate(tangents):
            p = 0.0 if t is None else self.partial(i, ans, args, kw, node)
            if type(p) is float and p == 0.0:
                continue
            t = align(t, args[i].shape, ans.ndim)
            t = t if type(p) is float and p == 1.0 else multiply(t, p)
            total = t if total is None else add(total, t)
        return None if total is None else spread(total, ans.shape)


class Linear(Primitive):
    """f is linear in all its arrays together; `transpose(i, g, \\*args, \\*\\*kw)` is the cotangent of array i."""

    __slots__ = ()

    def __init__(self, forward: Callable, transpose: Callable, name: str | None = None):
        super().__init__(forward, transpose, None, name)

    def pull(self, i, g, ans, args, kw, node=None):
        return self.vjp(i, g, *args, **kw)

    def push(self, tangents, ans, args, kw, node=None):
        if len(args) == 1:
            return self(tangents[0], **kw)
        known = next((t, a) for t, a in zip(tangents, args) if t is not None)
        lead = known[0].shape[: known[0].ndim - known[1].ndim]
        return self(*(_zeros(lead, a) if t is None else t for t, a in zip(tangents, args)), **kw)


class Multilinear(Primitive):
    """f is linear in each of its arrays by itself; `transpose(i, g, \\*args, \\*\\*kw)` may read the others."""

    __slots__ = ()

    def __init__(self, forward: Callable, transpose: Callable, name: str | None = None):
        super().__init__(forward, transpose, None, name)

    def pull(self, i, g, ans, args, kw, node=None):
        return self.vjp(i, g, *args, **kw)

    def push(self, tangents, ans, args, kw, node=None):
        total = None
        for i, t in enumerate(tangents):
            if t is not None:
                part = self(*args[:i], t, *args[i + 1 :], **kw)
                total = part if total is None else add(total, part)
        return total

    def turn(self, i, g, args, tangents, kw):
        """Derivative of `pull(i, g, …)` along the tangents of the other arguments, g fixed."""
        total = None
        for j, t in enumerate(tangents):
            if j != i and t is not None:
                part = self.vjp(i, g, *args[:j], t, *args[j + 1 :], **kw)
                total = part if total is None else add(total, part)
        return total


def elementwise(forward: Callable, *partials: Callable | float, name: str | None = None) -> Elementwise:
    """Declare an operation that acts on each element by itself.

    Parameters
    ----------
    forward : callable
        (\\*arrays, \\*\\*settings) → array.
    \\*partials : callable or float
        For every argument ∂f/∂argᵢ: a number, or a function of (ans, \\*args) written in minigrad operations.
    name : str, optional
        Used in errors and drawings; the function's own name unless given.

    Examples
    --------
    >>> import numpy as np, minigrad as mg
    >>> cube = mg.elementwise(lambda x: x**3, lambda y, x: 3 * x**2, name="cube")
    >>> float(mg.grad(cube)(np.float64(2.0)))
    12.0
    """
    return Elementwise(forward, *(float(p) if isinstance(p, (int, float)) else p for p in partials), name=name)


def linear(forward: Callable, transpose: Callable, name: str | None = None) -> Linear:
    """Declare an operation that is linear in all its arrays together, by its transpose."""
    return Linear(forward, transpose, name)


def multilinear(forward: Callable, transpose: Callable, name: str | None = None) -> Multilinear:
    """Declare an operation that is linear in each of its arrays by itself, by its transposes."""
    return Multilinear(forward, transpose, name)


def primitive(forward: Callable, vjp: Callable, jvp: Callable, name: str | None = None) -> Primitive:
    """Declare an operation by its vjp and its jvp (see `Primitive` for what they receive)."""
    return Primitive(forward, vjp, jvp, name)


# ----------------------------------------------------------- the operations that the rules themselves are made of


def _sum_to(x, old, new):
    """Undo a broadcast from shape `new` to `old`: sum the axes that it added or stretched."""
    extra = len(old) - len(new)
    axes = tuple(k - len(old) for k in range(len(old)) if k < extra or new[k - extra] != old[k])
    total = x.sum(axis=axes, keepdims=True) if axes else x
    return total.reshape(x.shape[: x.ndim - len(old)] + new)


def _stretch(x, old, new):
    """Stretch the trailing axes `old` to `new`, as NumPy's broadcasting does."""
    lead = x.shape[: x.ndim - len(old)]
    padded = x.reshape(lead + (1,) * (len(new) - len(old)) + old)
    return backend.xp(x).broadcast_to(padded, lead + new)


def _refold(x, old, new):
    """Lay the trailing axes `old` out as `new`."""
    return x.reshape(x.shape[: x.ndim - len(old)] + new)


add = elementwise(backend.binary("add"), 1.0, 1.0)
multiply = elementwise(backend.binary("multiply"), lambda z, x, y: y, lambda z, x, y: x)
sum_to = linear(_sum_to, lambda i, g, x, old, new: stretch(g, old=new, new=old), name="sum_to")
stretch = linear(_stretch, lambda i, g, x, old, new: sum_to(g, old=new, new=old), name="broadcast_to")
refold = linear(_refold, lambda i, g, x, old, new: refold(g, old=new, new=old), name="reshape")
alias = linear(lambda x: x, lambda i, g, x: g, name="alias")


def align(t: Any, own: tuple[int, ...], rank: int) -> Any:
    """Give the trailing axes `own` of `t` the rank `rank`, so that what lies in front of them stays in front."""
    return t if len(own) == rank else refold(t, old=own, new=(1,) * (rank - len(own)) + own)


def spread(t: Any, shape: tuple[int, ...]) -> Any:
    """Stretch the trailing axes of `t` to `shape`."""
    own = t.shape[t.ndim - len(shape) :]
    return t if own == shape else stretch(t, old=own, new=shape)


def _zeros(lead: tuple[int, ...], a: Any) -> Any:
    a = raw(a)
    return backend.xp(a).zeros(lead + a.shape, a.dtype)


# ---------------------------------------------------------------------------------------------------- debug


class NonFinite(FloatingPointError):
    """An operation gave the first NaN or infinity."""


class debug:
    """Context in which the first NaN or infinity raises, naming the operation and the user's file and line.

    Every value is inspected (on a device that is a wait for each): use it to find a fault, not to train. NumPy's
    own warnings, which know neither, are silent meanwhile.

    Examples
    --------
    >>> import numpy as np, minigrad as mg
    >>> with mg.debug():
    ...     mg.log(np.array([1.0, 0.0]))  # doctest: +IGNORE_EXCEPTION_DETAIL
    Traceback (most recent call last):
    minigrad.tensor.NonFinite: log gave an infinity (forward) at <doctest>:2
    """

    def __enter__(self) -> debug:
        watching.append(_inspect)
        self.quiet = np.errstate(all="ignore")
        self.quiet.__enter__()
        return self

    def __exit__(self, *exc) -> None:
        self.quiet.__exit__(*exc)
        watching.pop()


def _inspect(op: Primitive, value: Any, direction: str, place: str | None = None) -> str:
    """Raise if `value` is not finite; otherwise say where in the user's code the operation stands."""
    place = place or _users_line()
    value = raw(value)
    if getattr(value, "dtype", np.dtype(bool)).kind in "fc":
        library = backend.xp(value)
        if not bool(library.isfinite(value).all()):
            what = "NaN" if bool(library.isnan(value).any()) else "an infinity"
            raise NonFinite(f"{op.name} gave {what} ({direction}) at {place}")
    return place


def watched(node: Tensor, direction: str, rule: Callable) -> Callable:
    """A rule of a node, looked at as a whole: a bad value is the node's, not that of an operation inside the rule."""
    watch, place = watching[-1], getattr(node, "place", None)

    def inspected(*args):
        watching.append(lambda *_: place)
        try:
            part = rule(*args)
        finally:
            watching.pop()
        if part is not None:
            watch(node.op, part, direction, place)
        return part

    return inspected


def _users_line() -> str:
    """file:line of the innermost frame outside this package."""
    package = __name__.partition(".")[0]
    frame = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame else "an unknown place"
