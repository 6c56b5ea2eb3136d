"""The table of primitives, and the operations built from them.

Each entry of the table is declared once, by its kind (see `tensor`). The functions below the table have NumPy's
names and arguments: they turn axes, shapes and indices into the trailing form that the entries take.

Conventions where a derivative is a choice: relu'(0) = 0, |x|'(0) = 0, sign' = 0, ties of max, min, maximum and
minimum share the derivative evenly, norm'(0) = 0, clip' = 1 on its closed interval, xᵖ at 0 has slope 0 for p > 1.
"""

from __future__ import annotations

import builtins
import math
import operator

import numpy as np

from . import backend
from .backend import xp
from .fusion import fused
from .tensor import (
    Primitive,
    Tensor,
    add,
    align,
    elementwise,
    linear,
    multilinear,
    multiply,
    primitive,
    raw,
    record,
    refold,
    spread,
    stretch,
    sum_to,
)

__all__ = """
abs absolute add broadcast_to clip concatenate cos dense divide
einsum exp expand_dims expm1 getitem leaky_relu log log1p log_softmax
logsumexp matmul max maximum mean min minimum multiply negative
norm one_hot outer pad power prod relu reshape sigmoid
sigmoid_cross_entropy sign sin sliding_windows softmax softmax_cross_entropy softplus solve split
sqrt square squared_error squeeze stack subtract sum swapaxes tanh
transpose where
""".split()

# ------------------------------------------------------------------------------------------------- arithmetic

subtract = elementwise(backend.binary("subtract"), 1.0, -1.0)
divide = elementwise(backend.binary("divide"), lambda z, x, y: 1.0 / y, lambda z, x, y: negative(z / y))
negative = elementwise(backend.unary("negative"), -1.0)
square = elementwise(backend.unary("square"), lambda y, x: 2.0 * x)


def _power_base(z, x, p):
    if isinstance(p, (int, float)):
        return 0.0 * x if p == 0 else p * x if p == 2 else p * power(x, p - 1)
    zero = raw(p) == 0  # 0 · x⁻¹ is nan at x = 0
    return p * power(x, where(zero, 1.0, p - 1.0))


def _power_exponent(z, x, p):
    if isinstance(x, (int, float)):
        return z * math.log(x) if x > 0 else 0.0
    return z * log(where(raw(x) > 0, x, 1.0))


power = elementwise(backend.binary("power"), _power_base, _power_exponent)

# ----------------------------------------------------------------------------------------- elementary functions

exp = elementwise(backend.unary("exp"), lambda y, x: y)
expm1 = elementwise(backend.unary("expm1"), lambda y, x: y + 1.0)
log = elementwise(backend.unary("log"), lambda y, x: 1.0 / x)
log1p = elementwise(backend.unary("log1p"), lambda y, x: 1.0 / (1.0 + x))
sqrt = elementwise(backend.unary("sqrt"), lambda y, x: 0.5 / y)
sin = elementwise(backend.unary("sin"), lambda y, x: cos(x))
cos = elementwise(backend.unary("cos"), lambda y, x: negative(sin(x)))

# ------------------------------------------------------------------------------------------------- activations


@fused
def _sigmoid(m, x):
    """1/(1+e⁻ˣ) as ½(1 + tanh(x/2)), which does not overflow.

    Exact to rounding of 1, so the far left tail is 0 (below −20 in float32, −40 in float64): where its logarithm is
    wanted, log σ(x) = −softplus(−x).
    """
    return 0.5 * m.tanh(0.5 * x) + 0.5


@fused
def _softplus(m, x):
    """log(1 + eˣ) = max(x, 0) + log1p(e^−|x|), which neither overflows nor loses the tail."""
    if m is np and np.iscomplexobj(x):
        return np.log(1.0 + np.exp(x))
    return m.maximum(x, 0.0) + m.log1p(m.exp(-m.absolute(x)))


@fused
def _dsigmoid(m, y):
    """Slope of the sigmoid by its value: y(1 − y)."""
    return y - y * y


@fused
def _dtanh(m, y):
    """Slope of tanh by its value: 1 − y²."""
    return 1.0 - y * y


_maximum = backend.binary("maximum")


def _relu(x):
    """max(x, 0)."""
    return _maximum(x, 0.0)


def _leaky_relu(x, slope):
    """x where positive, slope·x elsewhere."""
    return xp(x).where(x > 0, x, slope * x)


dtanh = elementwise(_dtanh, lambda s, y: -2.0 * y, name="dtanh")
dsigmoid = elementwise(_dsigmoid, lambda s, y: 1.0 - 2.0 * y, name="dsigmoid")
tanh = elementwise(backend.unary("tanh"), lambda y, x: dtanh(y))
sigmoid = elementwise(_sigmoid, lambda y, x: dsigmoid(y), name="sigmoid")
softplus = elementwise(_softplus, lambda y, x: sigmoid(x), name="softplus")
relu = elementwise(_relu, lambda y, x: xp(raw(y)).sign(raw(y)), name="relu")


def _leaky_slope(y, x, slope):
    x = raw(x)
    module = xp(x)
    return module.where(x > 0, module.asarray(1.0, x.dtype), module.asarray(slope, x.dtype))


leaky = elementwise(_leaky_relu, _leaky_slope, name="leaky_relu")

# ------------------------------------------------------------------------------------------ piecewise functions


def _absolute(x):
    """|x|; for complex input the branch that continues the real one (used by complex steps)."""
    module = xp(x)
    return module.where(module.real(x) < 0, -x, x) if module.iscomplexobj(x) else module.abs(x)


def _share(x, y, larger):
    """1 where x wins, ½ where x and y tie, 0 elsewhere: a mask, constant almost everywhere."""
    x, y = raw(x), raw(y)
    module = xp(x) if hasattr(x, "shape") else xp(y)
    wins = (x > y) if larger else (x < y)
    return module.where(wins, 1.0, module.where(x == y, 0.5, 0.0)).astype(module.result_type(x, y))


absolute = elementwise(_absolute, lambda y, x: xp(raw(x)).sign(raw(x)), name="abs")
sign = elementwise(backend.unary("sign"), 0.0)
maximum = elementwise(_maximum, lambda z, x, y: _share(x, y, True), lambda z, x, y: _share(y, x, True))
minimum = elementwise(
    backend.binary("minimum"), lambda z, x, y: _share(x, y, False), lambda z, x, y: _share(y, x, False)
)
clipped = elementwise(
    lambda x, low, high: xp(x).clip(x, low, high),
    lambda y, x, low, high: _inside(raw(x), low, high),
    name="clip",
)


def _inside(x, low, high):
    inside = xp(x).ones(x.shape, dtype=bool)
    if low is not None:
        inside &= x >= low
    if high is not None:
        inside &= x <= high
    return inside.astype(x.dtype)


def _select(a, b, condition):
    """a where the condition holds, b elsewhere; a and b of one shape."""
    return xp(a).where(condition, a, b)


def _select_transpose(i, g, a, b, condition):
    module = xp(raw(g))
    zero = module.broadcast_to(module.zeros((), raw(g).dtype), g.shape)
    return select(g, zero, condition=condition) if i == 0 else select(zero, g, condition=condition)


select = linear(_select, _select_transpose, name="where")

# ----------------------------------------------------------------------------------------------------- shapes


def _permute(x, order):
    """Permute the trailing axes; `order` counts from the end."""
    lead = x.ndim - len(order)
    return x.transpose(*range(lead), *(x.ndim + k for k in order))


def _inverse_order(order):
    inverse = [0] * len(order)
    for new, old in enumerate(order):
        inverse[old + len(order)] = new - len(order)
    return tuple(inverse)


permute = linear(_permute, lambda i, g, x, order: permute(g, order=_inverse_order(order)), name="transpose")


def _concatenate(*arrays, axis):
    """Join along an axis counted from the end."""
    return xp(arrays[0]).concatenate(arrays, axis=axis)


def _concatenate_transpose(i, g, *arrays, axis):
    start = builtins.sum(a.shape[axis] for a in arrays[:i])
    return _slice_axis(g, axis, start, start + arrays[i].shape[axis], arrays[i].ndim)


def _slice_axis(x, axis, start, stop, rank):
    """x[start:stop] along one of its `rank` trailing axes."""
    index = [slice(None)] * rank
    index[axis] = slice(start, stop)
    return take(x, index=tuple(index), shape=x.shape[x.ndim - rank :])


joined = linear(_concatenate, _concatenate_transpose, name="concatenate")


def _take(x, index, shape):
    """x[..., index]; the index is complete over the trailing axes, its arrays side by side."""
    return x[(Ellipsis, *index)]


def _scatter(g, index, shape):
    """The transpose of indexing: zeros, with g added at the index."""
    lead = g.ndim - _result_rank(index)
    out = xp(g).zeros(g.shape[:lead] + shape, g.dtype)
    where_to = (Ellipsis, *index)
    if any(hasattr(k, "shape") for k in index):
        backend.scatter_add(out, where_to, g)  # repeated indices must add up
    else:
        out[where_to] = g
    return out


def _result_rank(index):
    arrays = [k.ndim for k in index if hasattr(k, "ndim")]
    return builtins.sum(isinstance(k, slice) for k in index) + (builtins.max(arrays) if arrays else 0)


take = linear(_take, lambda i, g, x, index, shape: scatter(g, index=index, shape=shape), name="getitem")
scatter = linear(_scatter, lambda i, g, x, index, shape: take(g, index=index, shape=shape), name="scatter")


def _pad(x, widths):
    """Zeros around the trailing axes."""
    lead = x.ndim - len(widths)
    return xp(x).pad(x, ((0, 0),) * lead + widths)


def _pad_transpose(i, g, x, widths):
    shape = g.shape[g.ndim - len(widths) :]
    index = tuple(slice(before, size - after) for (before, after), size in zip(widths, shape))
    return take(g, index=index, shape=shape)


padded = linear(_pad, _pad_transpose, name="pad")


def _windows(x, size, stride, shape):
    """All windows over the last len(size) axes: (…, positions…, size…), a view."""
    k = len(size)
    counts = tuple((n - s) // stride + 1 for n, s in zip(shape, size))
    steps = x.strides[x.ndim - k :]
    return xp(x).lib.stride_tricks.as_strided(
        x, x.shape[: x.ndim - k] + counts + size, x.strides[: x.ndim - k] + tuple(s * stride for s in steps) + steps
    )


def _overlap_add(g, size, stride, shape):
    """The transpose of windows: every element collects what its windows say of it."""
    k = len(size)
    counts = g.shape[g.ndim - 2 * k : g.ndim - k]
    out = xp(g).zeros(g.shape[: g.ndim - 2 * k] + shape, g.dtype)
    for offset in np.ndindex(*size):
        target = tuple(slice(o, o + stride * n, stride) for o, n in zip(offset, counts))
        out[(Ellipsis, *target)] += g[(Ellipsis, *offset)]
    return out


windows = linear(_windows, lambda i, g, x, **kw: overlap_add(g, **kw), name="sliding_windows")
overlap_add = linear(_overlap_add, lambda i, g, x, **kw: windows(g, **kw), name="overlap_add")

# ------------------------------------------------------------------------------------------------- reductions


def _keep(x, axes, lead_rank):
    """Shape of a trailing shape `x` after a reduction that keeps its axes."""
    return tuple(1 if k - lead_rank in axes else n for k, n in enumerate(x))


def _total(x, axes, keepdims):
    """Sum over axes counted from the end."""
    return x.sum(axis=axes, keepdims=keepdims)


def _total_transpose(i, g, x, axes, keepdims):
    kept = _keep(x.shape, axes, x.ndim)
    if not keepdims:
        reduced = tuple(n for k, n in enumerate(x.shape) if k - x.ndim not in axes)
        g = refold(g, old=reduced, new=kept)
    return stretch(g, old=kept, new=x.shape)


total = linear(_total, _total_transpose, name="sum")


def _extreme_shares(ans, x, axes):
    """Where x attains its kept extreme `ans`, in equal shares that sum to 1."""
    mask = (x == ans).astype(x.dtype)
    return mask / mask.sum(axis=axes, keepdims=True)


def _extreme(name):
    def forward(x, axes):
        return getattr(x, name)(axis=axes, keepdims=True)

    def vjp(i, g, ans, x, axes):
        return multiply(g, _extreme_shares(raw(ans), raw(x), axes))

    def jvp(tangents, ans, x, axes):
        return total(multiply(tangents[0], _extreme_shares(raw(ans), raw(x), axes)), axes=axes, keepdims=True)

    return primitive(forward, vjp, jvp, name=name)


largest = _extreme("max")
smallest = _extreme("min")


def _logsumexp(x, axis):
    """log Σ exp along one axis, kept; exact for rows of −∞."""
    module = xp(x)
    top = module.real(x).max(axis=axis, keepdims=True)
    top = module.where(module.isfinite(top), top, module.zeros_like(top))
    return top + module.log(module.exp(x - top).sum(axis=axis, keepdims=True))


def _logsumexp_jvp(tangents, ans, x, axis):
    return total(multiply(tangents[0], exp(x - ans)), axes=(axis,), keepdims=True)


log_total = primitive(
    _logsumexp, lambda i, g, ans, x, axis: multiply(g, exp(x - ans)), _logsumexp_jvp, name="logsumexp"
)


def _softmax(x, axis):
    """exp(x) / Σ exp(x) along one axis."""
    module = xp(x)
    e = module.exp(x - module.real(x).max(axis=axis, keepdims=True))
    e /= e.sum(axis=axis, keepdims=True)
    return e


def _softmax_product(v, p, axis):
    """(diag(p) − p pᵀ) v, the symmetric Jacobian of softmax times v."""
    pv = multiply(p, v)
    return pv - multiply(p, total(pv, axes=(axis,), keepdims=True))


normalised = primitive(
    _softmax,
    lambda i, g, ans, x, axis: _softmax_product(g, ans, axis),
    lambda tangents, ans, x, axis: _softmax_product(tangents[0], ans, axis),
    name="softmax",
)


def _norm(x, axes):
    """Euclidean norm over axes counted from the end, kept."""
    module = xp(x)
    return module.sqrt((x * x).sum(axis=axes, keepdims=True))


def _norm_unit(ans, x):
    return x / where(raw(ans) == 0, 1.0, ans)


length = primitive(
    _norm,
    lambda i, g, ans, x, axes: multiply(g, _norm_unit(ans, x)),
    lambda tangents, ans, x, axes: total(multiply(tangents[0], _norm_unit(ans, x)), axes=axes, keepdims=True),
    name="norm",
)

# --------------------------------------------------------------------------------------------------- products


def mT(x):
    """The matrix transpose: the last two axes swapped."""
    return permute(x, order=(-1, -2)) if type(x) is Tensor else x.swapaxes(-1, -2)


def _product_transpose(i, g, a, b):
    c = product(g, mT(b)) if i == 0 else product(mT(a), g)
    own = a if i == 0 else b
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + own.shape[-2:]
    return c if batch == own.shape else sum_to(c, old=batch, new=own.shape)


product = multilinear(backend.matmul, _product_transpose, name="matmul")


def _einsum_forward(*arrays, spec):
    """einsum in explicit form; extra axes in front of an operand are carried to the front of the result."""
    left, out = spec.split("->")
    terms = left.split(",")
    extra = [a.ndim > len(t) for a, t in zip(arrays, terms)]
    left = ",".join("..." + t if e else t for t, e in zip(terms, extra))
    many = builtins.sum(a.size for a in arrays) > backend.LARGE  # then the search for a better order pays
    return xp(arrays[0]).einsum(f"{left}->{'...' if any(extra) else ''}{out}", *arrays, optimize=many)


def _einsum_transpose(i, g, *arrays, spec):
    left, out = spec.split("->")
    terms = left.split(",")
    own = terms.pop(i)
    others = [a for k, a in enumerate(arrays) if k != i]
    for letter in own:  # an index of this operand alone was summed: its cotangent is constant along it
        if letter not in out and not any(letter in t for t in terms):
            like = raw(arrays[i])
            terms.append(letter)
            others.append(xp(like).ones(like.shape[own.index(letter)], like.dtype))
    c = contract(g, *others, spec=f"{','.join([out, *terms])}->{own}")
    shape = arrays[i].shape
    stretched = _einsum_lead(arrays, left) + shape[len(shape) - len(own) :]
    return c if stretched == shape else sum_to(c, old=stretched, new=shape)


def _einsum_lead(arrays, left):
    """The axes in front of the named ones: a node recorded under a lead has them, its other operands may not."""
    return np.broadcast_shapes(*(a.shape[: a.ndim - len(t)] for a, t in zip(arrays, left.split(","))))


contract = multilinear(_einsum_forward, _einsum_transpose, name="einsum")


def _solve(a, b):
    """x with a x = b; b has columns."""
    if a.ndim == 2 and b.ndim > 2:  # one factorisation for all leading axes
        lead = b.shape[:-2]
        flat = xp(b).moveaxis(b, -2, 0).reshape(b.shape[-2], math.prod(lead) * b.shape[-1])
        x = xp(a).linalg.solve(a, flat).reshape(b.shape[-2], *lead, b.shape[-1])
        return xp(b).moveaxis(x, 0, -2)
    return xp(a).linalg.solve(a, b)


def _solve_vjp(i, g, x, a, b):
    c = solution(mT(a), g)
    own = b if i == 1 else a
    c = c if i == 1 else negative(product(c, mT(x)))
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2]) + own.shape[-2:]
    return c if batch == own.shape else sum_to(c, old=batch, new=own.shape)


def _solve_jvp(tangents, x, a, b):
    ta, tb = tangents
    right = tb if ta is None else negative(product(ta, x)) if tb is None else tb - product(ta, x)
    return solution(a, right)


solution = primitive(_solve, _solve_vjp, _solve_jvp, name="solve")


def _rows(x, shape):
    """The trailing axes `shape` of x with all but the last laid out as one: (…, rows, features)."""
    return x if len(shape) == 2 else refold(x, old=shape, new=(math.prod(shape[:-1]), shape[-1]))


class Dense(Primitive):
    """a = h Wᵀ + b, the affine layer: h (N, …, in), W (out, in), b (out,) or None; a (N, …, out).

    The rule for h reads W, the rule for W reads h, the rule for b reads neither.
    """

    __slots__ = ()

    def __init__(self):
        super().__init__(self._forward, None, None, "dense")

    @staticmethod
    def _forward(h, w, b):
        a = backend.matmul(h, w.T)
        if b is not None:
            a += b
        return a

    def pull(self, i, g, ans, args, kw, node=None):
        h, w, _ = args
        if i == 0:
            return product(g, w)
        g = _rows(g, ans.shape)
        return total(g, axes=(-2,), keepdims=False) if i == 2 else product(mT(g), _rows(h, h.shape))

    def push(self, tangents, ans, args, kw, node=None):
        h, w, _ = args
        th, tw, tb = tangents
        out = None if th is None else product(th, mT(w))
        if tw is not None:
            part = product(_rows(h, h.shape), mT(tw))
            part = part if ans.ndim == 2 else refold(part, old=part.shape[-2:], new=ans.shape)
            out = part if out is None else add(out, part)
        if tb is not None:
            part = align(tb, ans.shape[-1:], ans.ndim)
            out = spread(part, ans.shape) if out is None else add(out, part)
        return out

    def turn(self, i, g, args, tangents, kw):
        """Derivative of `pull(i, g, …)` along the tangents of h and W, g fixed."""
        h, w, _ = args
        th, tw, _ = tangents
        if i == 0 and tw is not None:
            return product(g, tw)
        if i == 1 and th is not None:
            return product(mT(_rows(g, (*h.shape[:-1], w.shape[0]))), _rows(th, h.shape))
        return None


affine = Dense()

# ----------------------------------------------------------------------------------------- losses per example


def _softmax_ce(z, y):
    """−Σ y log softmax(z) over the last axis."""
    top = _logsumexp(z, -1)[..., 0]
    return top * y.sum(-1) - (y * z).sum(-1)


def _softmax_ce_slope(i, z, y):
    if i == 0:
        return normalised(z, axis=-1) * total(y, axes=(-1,), keepdims=True) - y
    return log_total(z, axis=-1) - z


def _sigmoid_ce(z, y):
    """Σ softplus(z) − y z over the last axis."""
    return (_softplus(z) - y * z).sum(-1)


def _sigmoid_ce_slope(i, z, y):
    return sigmoid(z) - y if i == 0 else negative(z)


def _squares(z, y):
    """Σ (z − y)² over the last axis, without a ½."""
    r = z - y
    return (r * r).sum(-1) if xp(r).iscomplexobj(r) else backend.row_dot(r, r)


def _squares_slope(i, z, y):
    return 2.0 * (z - y) if i == 0 else 2.0 * (y - z)


def _per_example(forward, slope, name):
    """A loss that sums over the last axis; its slope has the shape of z and y."""

    def vjp(i, g, ans, z, y):
        return multiply(refold(g, old=ans.shape, new=(*ans.shape, 1)), slope(i, z, y))

    def jvp(tangents, ans, z, y):
        parts = [total(t * slope(i, z, y), axes=(-1,), keepdims=False) for i, t in enumerate(tangents) if t is not None]
        return parts[0] if len(parts) == 1 else add(*parts)

    return primitive(forward, vjp, jvp, name=name)


softmax_ce = _per_example(_softmax_ce, _softmax_ce_slope, "softmax_cross_entropy")
sigmoid_ce = _per_example(_sigmoid_ce, _sigmoid_ce_slope, "sigmoid_cross_entropy")
squares = _per_example(_squares, _squares_slope, "squared_error")


# =================================================================================================================
# Operations with NumPy's names and arguments


def _axes(x, axis):
    """An axis, a tuple of axes or None as axes counted from the end, sorted."""
    if axis is None:
        return tuple(range(-x.ndim, 0))
    axes = (axis,) if isinstance(axis, (int, np.integer)) else tuple(axis)
    found = sorted(operator.index(k) % x.ndim - x.ndim if -x.ndim <= k < x.ndim else _no_axis(k, x) for k in axes)
    if len(set(found)) != len(found):
        raise ValueError(f"axis {axis} names an axis twice")
    return tuple(found)


def _one_axis(x, axis):
    """One axis, counted from the end."""
    if not isinstance(axis, (int, np.integer)):
        raise ValueError(f"one axis is needed here, not {axis}")
    return _axes(x, axis)[0]


def _no_axis(axis, x):
    raise ValueError(f"axis {axis} does not exist in an array of shape {x.shape}")


def _array(x):
    """Tensors and arrays as they are; numbers and lists as NumPy arrays."""
    if isinstance(x, (list, tuple)) and any(type(v) is Tensor for v in x):
        return stack([v if hasattr(v, "shape") else np.asarray(v) for v in x])
    return x if hasattr(x, "shape") else np.asarray(x)


def reshape(x, *shape):
    """x laid out in another shape; one entry may be −1."""
    x = _array(x)
    shape = shape[0] if len(shape) == 1 and not isinstance(shape[0], (int, np.integer)) else shape
    shape = [operator.index(n) for n in shape]
    if -1 in shape:
        known = math.prod(n for n in shape if n != -1)
        if shape.count(-1) > 1 or known == 0 or x.size % known:
            raise ValueError(f"cannot lay out shape {x.shape} as {tuple(shape)}")
        shape[shape.index(-1)] = x.size // known
    return refold(x, old=tuple(x.shape), new=tuple(shape))


def transpose(x, axes=None):
    """x with its axes permuted, reversed unless given."""
    x = _array(x)
    axes = range(x.ndim)[::-1] if axes is None else axes
    order = tuple(operator.index(k) % x.ndim - x.ndim for k in axes)
    if sorted(order) != list(range(-x.ndim, 0)):
        raise ValueError(f"transpose needs every axis of shape {x.shape} once, not {tuple(axes)}")
    return permute(x, order=order)


def swapaxes(x, first, second):
    """x with two axes exchanged."""
    x = _array(x)
    (first,), (second,) = _axes(x, first), _axes(x, second)
    order = list(range(-x.ndim, 0))
    order[first], order[second] = second, first
    return transpose(x, order)


def broadcast_to(x, shape):
    """x stretched to a shape by NumPy's rules."""
    x = _array(x)
    shape = tuple(shape)
    if x.ndim > len(shape) or any(n not in (1, m) for n, m in zip(x.shape[::-1], shape[::-1])):
        raise ValueError(f"shape {x.shape} cannot be broadcast to {shape}")
    return stretch(x, old=tuple(x.shape), new=shape)


def expand_dims(x, axis):
    """x with an axis of length 1 put in at `axis`."""
    x = _array(x)
    if not -x.ndim - 1 <= axis <= x.ndim:
        raise ValueError(f"expand_dims: axis {axis} does not exist in shape {tuple(x.shape)} with one axis more")
    at = axis % (x.ndim + 1)
    return refold(x, old=tuple(x.shape), new=(*x.shape[:at], 1, *x.shape[at:]))


def squeeze(x, axis=None):
    """x without its axes of length 1 (all of them, or those named)."""
    x = _array(x)
    axes = [k for k, n in enumerate(x.shape) if n == 1] if axis is None else [k + x.ndim for k in _axes(x, axis)]
    if any(x.shape[k] != 1 for k in axes):
        raise ValueError(f"squeeze: axis {axis} of shape {x.shape} is not of length 1")
    return refold(x, old=tuple(x.shape), new=tuple(n for k, n in enumerate(x.shape) if k not in axes))


def sum(x, axis=None, keepdims=False):
    """Sum over axes (all unless given)."""
    x = _array(x)
    return total(x, axes=_axes(x, axis), keepdims=keepdims)


def mean(x, axis=None, keepdims=False):
    """Mean over axes (all unless given)."""
    x = _array(x)
    axes = _axes(x, axis)
    count = math.prod(x.shape[k] for k in axes)
    if not count:
        raise ValueError(f"mean: nothing to take the mean of along axis {axis} of shape {tuple(x.shape)}")
    return total(x, axes=axes, keepdims=keepdims) * (1.0 / count)


def _reduced(kept, x, axes, keepdims):
    if keepdims:
        return kept
    return refold(kept, old=tuple(kept.shape), new=tuple(n for k, n in enumerate(x.shape) if k - x.ndim not in axes))


def max(x, axis=None, keepdims=False):
    """Largest element over axes; ties share the derivative evenly."""
    x = _array(x)
    axes = _axes(x, axis)
    return _reduced(largest(x, axes=axes), x, axes, keepdims)


def min(x, axis=None, keepdims=False):
    """Smallest element over axes; ties share the derivative evenly."""
    x = _array(x)
    axes = _axes(x, axis)
    return _reduced(smallest(x, axes=axes), x, axes, keepdims)


def prod(x, axis=None, keepdims=False):
    """Product over axes, multiplied pairwise, so that its derivatives are exact where elements are zero."""
    x = _array(x)
    axes = _axes(x, axis)
    rest = [k for k in range(-x.ndim, 0) if k not in axes]
    count = math.prod(x.shape[k] for k in axes)
    y = reshape(transpose(x, (*rest, *axes)), (*(x.shape[k] for k in rest), count))
    if count == 0:
        y = xp(raw(x)).ones((*y.shape[:-1], 1), x.dtype)
    while y.shape[-1] > 1:
        half = y.shape[-1] // 2
        pairs = multiply(y[..., :half], y[..., half : 2 * half])
        y = pairs if y.shape[-1] % 2 == 0 else concatenate([pairs, y[..., 2 * half :]], axis=-1)
    return reshape(y, _keep(tuple(x.shape), axes, x.ndim) if keepdims else tuple(x.shape[k] for k in rest))


def logsumexp(x, axis=-1, keepdims=False):
    """log Σ exp along one axis."""
    x = _array(x)
    axis = _one_axis(x, axis)
    return _reduced(log_total(x, axis=axis), x, (axis,), keepdims)


def softmax(x, axis=-1):
    """exp(x) / Σ exp(x) along one axis."""
    x = _array(x)
    return normalised(x, axis=_one_axis(x, axis))


def log_softmax(x, axis=-1):
    """x − logsumexp(x) along one axis."""
    x = _array(x)
    return x - log_total(x, axis=_one_axis(x, axis))


def norm(x, axis=None, keepdims=False):
    """Euclidean norm over axes; its derivative at 0 is 0."""
    x = _array(x)
    axes = _axes(x, axis)
    return _reduced(length(x, axes=axes), x, axes, keepdims)


def leaky_relu(x, slope=0.01):
    """x where positive, slope·x elsewhere."""
    return leaky(x, slope=slope)


def clip(x, low, high):
    """x limited to [low, high]; either may be None."""
    return clipped(x, low=low, high=high)


def where(condition, a, b):
    """a where the condition holds, b elsewhere; the condition is not differentiated."""
    condition = raw(_array(condition))
    known = next((raw(v) for v in (a, b) if hasattr(v, "shape")), condition)
    module = xp(known)
    condition = condition if condition.shape else module.asarray(condition)
    like = () if known is condition else (known,)  # a number takes the dtype of the array that it stands beside
    a, b = (v if hasattr(v, "shape") else module.asarray(v, module.result_type(*like, v)) for v in (a, b))
    shape = np.broadcast_shapes(condition.shape, a.shape, b.shape)
    a, b = (v if v.shape == shape else stretch(v, old=tuple(v.shape), new=shape) for v in (a, b))
    return select(a, b, condition=condition)


def concatenate(arrays, axis=0):
    """Join arrays along an axis."""
    arrays = [_array(a) for a in arrays]
    if not arrays:
        raise ValueError("concatenate and stack need at least one array")
    return joined(*arrays, axis=_one_axis(arrays[0], axis))


def stack(arrays, axis=0):
    """Join arrays along a new axis."""
    return concatenate([expand_dims(a, axis) for a in arrays], axis)


def split(x, parts, axis=0):
    """Cut x along an axis into equal parts (an integer), or at the given positions."""
    x = _array(x)
    at = _one_axis(x, axis)
    size = x.shape[at]
    if isinstance(parts, (int, np.integer)):
        if size % parts:
            raise ValueError(f"split: {size} elements do not make {parts} equal parts")
        parts = range(size // parts, size, size // parts) if size else [0] * (parts - 1)
    edges = [0, *parts, size]
    return [_slice_axis(x, at, start, stop, x.ndim) for start, stop in zip(edges[:-1], edges[1:])]


def getitem(x, index):
    """x[index] with integers, slices, None, Ellipsis, integer arrays and masks, by NumPy's rules."""
    x, index, front = _canonical_index(x, index)
    y = take(x, index=index, shape=tuple(x.shape))
    return y if front is None else transpose(y, front)


def _canonical_index(x, index):
    """Make an index complete over the axes of x, its arrays side by side, so that it can follow a lead."""
    entries = list(index) if isinstance(index, tuple) else [index]
    entries = _masks_to_integers(x, entries)
    entries = [_on_device(e, x) if hasattr(e, "ndim") else e for e in entries]
    given = builtins.sum(e is not None and e is not Ellipsis for e in entries)
    if given > x.ndim:
        raise IndexError(f"{given} indices for an array of shape {tuple(x.shape)}")
    fill = [slice(None)] * (x.ndim - given)
    at = next((k for k, e in enumerate(entries) if e is Ellipsis), len(entries))
    entries = entries[:at] + fill + entries[at + 1 :]
    if any(e is None for e in entries):  # a new axis is a sliced axis of length 1
        sizes = iter(x.shape)
        x = reshape(x, tuple(1 if e is None else next(sizes) for e in entries))
        entries = [slice(None) if e is None else e for e in entries]
    if not any(hasattr(e, "ndim") for e in entries):
        return x, tuple(entries), None
    chosen = [k for k, e in enumerate(entries) if not isinstance(e, slice)]
    apart = chosen[0] < at <= chosen[-1]  # an ellipsis separates even where it stands for no axis
    if apart or chosen[-1] - chosen[0] + 1 != len(chosen):  # NumPy then puts the indexed axes in front
        order = chosen + [k for k in range(x.ndim) if k not in chosen]
        return transpose(x, order), tuple(entries[k] for k in order), None
    return x, tuple(entries), None


def _masks_to_integers(x, entries):
    """Replace every mask by the integer arrays of where it holds."""
    entries = [_index_array(e) if isinstance(e, list) else e for e in entries]
    masks = [getattr(e, "dtype", None) == np.dtype(bool) for e in entries]
    taken = [e.ndim if m else int(e is not None and e is not Ellipsis) for e, m in zip(entries, masks)]
    found = []
    for k, e in enumerate(entries):
        if not masks[k]:
            if e is True or e is False:
                raise IndexError("True and False are no indices; None makes a new axis")
            found.append(e)
            continue
        before = any(f is Ellipsis for f in entries[:k])
        axis = x.ndim - builtins.sum(taken[k:]) if before else builtins.sum(taken[:k])
        if not e.ndim or tuple(e.shape) != tuple(x.shape[axis : axis + e.ndim]):
            raise IndexError(f"a mask of shape {tuple(e.shape)} does not fit an array of shape {tuple(x.shape)}")
        found.extend(e.nonzero())
    return found


def _index_array(entries):
    """A list of indices as an array; an empty one chooses nothing."""
    index = np.asarray(entries)
    return index if index.size else index.astype(int)


def _on_device(index, x):
    """An index array where x lives: uploaded once, here, and never again by a rule."""
    if isinstance(index, np.generic) or getattr(index, "ndim", 1) == 0:
        return operator.index(index.item())  # a fraction is refused, not cut off
    return backend.like(index, raw(x))


def pad(x, widths):
    """Zeros around the axes of x; widths is one number, one pair, or a pair for every axis."""
    x = _array(x)
    pairs = np.broadcast_to(np.asarray(widths), (x.ndim, 2)).tolist()
    return padded(x, widths=tuple((before, after) for before, after in pairs))


def sliding_windows(x, size, stride=1):
    """All windows over the last len(size) axes of x, as a view.

    Parameters
    ----------
    x : (…, n₁, …, n_k)
    size : tuple of k ints
    stride : int

    Returns
    -------
    (…, p₁, …, p_k, size₁, …, size_k) with pᵢ = (nᵢ − sizeᵢ) // stride + 1
    """
    size = (size,) if isinstance(size, int) else tuple(size)
    shape = tuple(x.shape[x.ndim - len(size) :])
    if len(size) > x.ndim or any(s < 1 or s > n for s, n in zip(size, shape)) or stride < 1:
        raise ValueError(f"windows of size {size} and stride {stride} do not fit the shape {tuple(x.shape)}")
    return windows(x, size=size, stride=stride, shape=shape)


def matmul(a, b):
    """Matrix product with NumPy's rules: batched over leading axes, 1-D operands as row and column."""
    a, b = _array(a), _array(b)
    if not a.ndim or not b.ndim:
        raise ValueError("matmul needs operands with axes; use * for numbers")
    if a.shape[-1] != b.shape[-2 if b.ndim > 1 else 0]:
        raise ValueError(f"matmul: shapes {tuple(a.shape)} and {tuple(b.shape)} do not fit")
    row, column = a.ndim == 1, b.ndim == 1
    a = expand_dims(a, 0) if row else a
    b = expand_dims(b, 1) if column else b
    if b.ndim == 2 and a.ndim > 2:  # one product instead of a batch of them
        flat = product(reshape(a, (math.prod(a.shape[:-1]), a.shape[-1])), b)
        y = reshape(flat, (*a.shape[:-1], b.shape[-1]))
    else:
        rank = builtins.max(a.ndim, b.ndim)
        y = product(align(a, tuple(a.shape), rank), align(b, tuple(b.shape), rank))
    y = squeeze(y, -2) if row else y
    return squeeze(y, -1) if column else y


def einsum(spec, *arrays):
    """Einstein summation in explicit form ("ij,jk->ik"), without an index repeated within one operand."""
    spec = spec.replace(" ", "")
    if "->" not in spec or "." in spec:
        raise ValueError(f"einsum takes the explicit form 'ij,jk->ik' without dots, not {spec!r}")
    terms = spec.split("->")[0].split(",")
    if len(terms) != len(arrays) or any(len(set(t)) != len(t) for t in [*terms, spec.split("->")[1]]):
        raise ValueError(f"einsum {spec!r}: one term for each of {len(arrays)} operands, no index twice in one term")
    arrays = [_array(a) for a in arrays]
    for t, a in zip(terms, arrays):
        if len(t) != a.ndim:
            raise ValueError(f"einsum {spec!r}: term {t!r} does not fit shape {tuple(a.shape)}")
    sizes: dict[str, int] = {}
    for letter, size in ((k, n) for t, a in zip(terms, arrays) for k, n in zip(t, a.shape)):
        if sizes.setdefault(letter, size) != size:
            raise ValueError(f"einsum {spec!r}: index {letter!r} has lengths {sizes[letter]} and {size}")
    return contract(*arrays, spec=spec)


def outer(a, b):
    """The outer product of two vectors."""
    a, b = _array(a), _array(b)
    if a.ndim != 1 or b.ndim != 1:
        raise ValueError(f"outer takes two vectors, not shapes {tuple(a.shape)} and {tuple(b.shape)}")
    return multiply(expand_dims(a, 1), expand_dims(b, 0))


def solve(a, b):
    """x with a x = b for a square matrix a; b is a vector or has columns."""
    a, b = _array(a), _array(b)
    if a.ndim < 2 or a.shape[-1] != a.shape[-2] or b.shape[0 if b.ndim == 1 else -2] != a.shape[-1]:
        raise ValueError(f"solve: shapes {tuple(a.shape)} and {tuple(b.shape)} do not fit")
    if b.ndim == 1:
        return squeeze(solve(a, expand_dims(b, 1)), -1)
    if a.ndim == 2 and b.ndim > 2:  # one factorisation: the columns of the whole batch side by side
        n, batch, k = b.shape[-2], b.shape[:-2], b.shape[-1]
        columns = reshape(transpose(b, (-2, *range(len(batch)), -1)), (n, math.prod(batch) * k))
        x = reshape(solution(a, columns), (n, *batch, k))
        return transpose(x, (*range(1, b.ndim - 1), 0, -1))
    rank = builtins.max(a.ndim, b.ndim)
    return solution(align(a, tuple(a.shape), rank), align(b, tuple(b.shape), rank))


def dense(h, w, b=None):
    """The affine layer a = h Wᵀ + b.

    Parameters
    ----------
    h : (N, …, in)
    w : (out, in)
    b : (out,), optional

    Returns
    -------
    (N, …, out)
    """
    if h.ndim < 2 or w.ndim != 2 or h.shape[-1] != w.shape[1] or (b is not None and b.shape != w.shape[:1]):
        given = f"h {tuple(h.shape)}, W {tuple(w.shape)}, b {None if b is None else tuple(b.shape)}"
        raise ValueError(f"dense needs h (N, in), W (out, in) and b (out,), not {given}")
    return affine(h, w, b)


def softmax_cross_entropy(z, y):
    """−log softmax(z)[y] per example; y holds class numbers (N,), or rows that sum to 1 (N, C)."""
    if y.ndim == z.ndim - 1:
        _paired("softmax_cross_entropy", z.shape[:-1], y.shape)
        return softmax_ce(z, one_hot(raw(y), z.shape[-1], raw(z)))
    _paired("softmax_cross_entropy", z.shape, y.shape)
    return softmax_ce(z, y)


def _paired(name, outputs, targets):
    """Refuse targets that NumPy would stretch: (N,) against (N, 1) would compare every example with every other."""
    if tuple(outputs) != tuple(targets):
        raise ValueError(f"{name} needs targets of shape {tuple(outputs)}, not {tuple(targets)}")


def one_hot(y, classes, reference):
    """Class numbers as rows of zeros and a one, with the dtype and device of `reference`.

    Raises
    ------
    ValueError
        A label is not an integer from 0 to classes − 1. On the device this check costs one wait: encode once.
    """
    y = backend.like(y, reference)
    if y.dtype.kind not in "iu":
        raise ValueError(f"class labels must be integers, not {y.dtype}")
    if y.size and not (0 <= int(y.min()) and int(y.max()) < classes):
        found = f"labels run from {int(y.min())} to {int(y.max())}, but the network has {classes} outputs"
        raise ValueError(f"{found}; number the classes from 0 to {classes - 1}")
    return (y[..., None] == xp(reference).arange(classes)).astype(reference.dtype)


def sigmoid_cross_entropy(z, y):
    """Σ softplus(z) − y z per example, over the outputs; y (N, C) in [0, 1]."""
    _paired("sigmoid_cross_entropy", z.shape, y.shape)
    return sigmoid_ce(z, y)


def squared_error(z, y):
    """‖z − y‖² per example, without a ½."""
    _paired("squared_error", z.shape, y.shape)
    return squares(z, y)


def _operators():
    """Give Tensor the operators of an array."""
    for name, f in dict(add=add, sub=subtract, mul=multiply, truediv=divide, pow=power).items():
        setattr(Tensor, f"__{name}__", lambda x, y, f=f: record(f, (x, y)))
        setattr(Tensor, f"__r{name}__", lambda x, y, f=f: record(f, (y, x)))
    Tensor.__matmul__ = matmul
    Tensor.__rmatmul__ = lambda x, y: matmul(y, x)
    for name in ("eq", "ne", "lt", "le", "gt", "ge"):
        compare = getattr(operator, name)
        setattr(Tensor, f"__{name}__", lambda x, y, compare=compare: compare(x.value, raw(y)))
    Tensor.__hash__ = object.__hash__
    Tensor.__neg__ = lambda x: negative(x)
    Tensor.__pos__ = lambda x: x
    Tensor.__abs__ = lambda x: absolute(x)
    Tensor.__getitem__ = getitem
    Tensor.T = property(transpose)
    for method in (reshape, transpose, swapaxes, squeeze, sum, mean, max, min, prod, clip):
        setattr(Tensor, method.__name__, method)


_operators()
abs = absolute
