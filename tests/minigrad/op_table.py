"""One line per operation and case: what it is called with, and which other library knows the answer.

A row is `row(name, operation, *arguments, **settings)`. An argument in capitals-and-sizes, like `N(2, 3)`, is drawn
afresh and differentiated; anything else is passed as it is. `like` is HIPS autograd's version, a function of
(autograd.numpy, *arrays); it is the function of the same name unless given, and None where there is none.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad import backend, ops, tensor
from minigrad.nn.normalisation import standardised
from minigrad.tensor import Primitive

SAME_NAME = object()


class Draw:
    """A floating array of a given shape, drawn where the operation is smooth."""

    def __init__(self, kind: Callable, shape: tuple[int, ...]):
        self.kind, self.shape = kind, shape

    def __call__(self, random: np.random.Generator) -> np.ndarray:
        return np.asarray(self.kind(random, self.shape), dtype=float)


def draws(kind: Callable) -> Callable:
    return lambda *shape: Draw(kind, shape)


def _separate(shift):
    """Values at least 0.3 from one another and from zero, in random order: no ties, no kinks."""

    def kind(random, shape):
        size = int(np.prod(shape))
        return random.permutation((np.arange(size) - size // 2) * 0.8 + shift).reshape(shape)

    return kind


def _dominant(random, shape):
    return random.uniform(-1, 1, shape) + 2.0 * shape[-1] * np.eye(shape[-1])


def _distribution(random, shape):
    weights = random.uniform(0.2, 1.0, shape)
    return weights / weights.sum(-1, keepdims=True)


N = draws(lambda random, shape: random.standard_normal(shape))
POSITIVE = draws(lambda random, shape: random.uniform(0.4, 2.0, shape))
AWAY = draws(lambda random, shape: random.uniform(0.4, 2.0, shape) * random.choice([-1.0, 1.0], shape))
APART = draws(_separate(0.2))  # together with BETWEEN for operations of two arguments that kink where they meet
BETWEEN = draws(_separate(0.6))
INSIDE = draws(lambda random, shape: random.uniform(-0.9, 0.9, shape))
REGULAR = draws(_dominant)
SHARES = draws(_distribution)


@dataclass
class Row:
    name: str
    op: Callable
    args: tuple
    settings: dict = field(default_factory=dict)
    like: Any = SAME_NAME
    holomorphic: bool = True  # False: its complex extension is another function, so no complex step
    cuda: str | None = None  # why it is not run on CuPy, if it is not
    pick: int | None = None  # which of a list of results

    def draw(self, purpose: str = "") -> list[np.ndarray]:
        """The arrays to differentiate in; the same for every test with the same purpose."""
        random = np.random.default_rng(zlib.crc32((self.name + purpose).encode()))
        return [a(random) for a in _leaves(self.args) if isinstance(a, Draw)]

    def __call__(self, *arrays: Any) -> Any:
        return self.with_device("cpu")(*arrays)

    def with_device(self, device: str) -> Callable:
        """The operation as a function of its arrays, masks and indices uploaded."""

        def fn(*arrays):
            given = iter(arrays)
            args = [_filled(a, given, device) for a in self.args]
            settings = {key: _filled(value, given, device) for key, value in self.settings.items()}
            result = self.op(*args, **settings)
            return result if self.pick is None else result[self.pick]

        return fn

    def oracle(self, anp: Any) -> Callable | None:
        """The same function in HIPS autograd, or None."""
        if self.like is not SAME_NAME:
            return None if self.like is None else lambda *arrays: self.like(anp, *arrays)
        theirs = getattr(anp, self.name.split()[0], None)
        if theirs is None:
            return None

        def fn(*arrays):
            given = iter(arrays)
            result = theirs(*(_filled(a, given, "cpu") for a in self.args), **self.settings)
            return result if self.pick is None else result[self.pick]

        return fn


def _leaves(value):
    if isinstance(value, (list, tuple)):
        for v in value:
            yield from _leaves(v)
    else:
        yield value


def _filled(value, given, device):
    if isinstance(value, Draw):
        return next(given)
    if type(value) in (list, tuple):
        return type(value)(_filled(v, given, device) for v in value)
    return backend.asarray(value, device) if isinstance(value, np.ndarray) else value


ROWS: list[Row] = []


def row(name, op, *args, like=SAME_NAME, holomorphic=True, cuda=None, pick=None, **settings):
    ROWS.append(Row(name, op, args, settings, like, holomorphic, cuda, pick))


def primitives() -> dict[str, Primitive]:
    """Every primitive of the package, by its name in ops or tensor; abs is another name of absolute."""
    found = {**vars(tensor), **vars(ops)}
    return {name: p for name, p in found.items() if isinstance(p, Primitive) and name != "abs"}


def public_functions() -> dict[str, Callable]:
    """Every function of ops with a public name that is defined there."""
    return {
        name: f
        for name, f in vars(ops).items()
        if not name.startswith("_") and callable(f) and getattr(f, "__module__", "") == ops.__name__
        and not isinstance(f, (type, Primitive))
    }  # fmt: skip


COMPARED = 0.6  # a number between two values of APART
MASK = np.array([[True, False, True], [False, True, False]])
LABELS = np.array([2, 0])
PICKS = np.array([2, 0, 2])
EXPONENTS = np.array([0, 1, 2], dtype=np.float32)
NO_BATCH = "batched LAPACK is not emulated"

# ----------------------------------------------------------------------------------- elementwise, two arguments
row("add", ops.add, N(2, 3), N(2, 3))
row("add row to column", ops.add, N(2, 1), N(1, 3))
row("add lower rank", ops.add, N(3), N(2, 1, 3))
row("add number of axes 0", ops.add, N(), N(2, 3))
row("add nothing", ops.add, N(0, 3), N(1, 3))
row("add a number", ops.add, N(2, 3), 2.0)
row("subtract", ops.subtract, N(2, 3), N(2, 3))
row("subtract lower rank", ops.subtract, N(2, 1, 3), N(2, 1))
row("subtract from a number", ops.subtract, 2.0, N(2, 3))
row("subtract nothing", ops.subtract, N(1, 3), N(0, 1))
row("multiply", ops.multiply, N(2, 3), N(2, 3))
row("multiply row and column", ops.multiply, N(2, 1), N(1, 3))
row("multiply lower rank", ops.multiply, N(3), N(2, 2, 3))
row("multiply size 1", ops.multiply, N(1), N(1, 1))
row("multiply number of axes 0", ops.multiply, N(2, 3), N())
row("multiply nothing", ops.multiply, N(2, 0), N(2, 1))
row("multiply by a number", ops.multiply, N(2, 3), 3.0)
row("multiply a number by", ops.multiply, 3.0, N(2, 3))
row("divide", ops.divide, N(2, 3), AWAY(2, 3))
row("divide row by column", ops.divide, N(1, 3), AWAY(2, 1))
row("divide lower rank", ops.divide, N(2, 2, 3), AWAY(3))
row("divide a number by", ops.divide, 2.0, AWAY(2, 3))
row("divide by a number", ops.divide, N(2, 3), 4.0)
row("divide nothing", ops.divide, N(0, 2), AWAY(2))
row("power", ops.power, POSITIVE(2, 3), N(2, 3))
row("power row and column", ops.power, POSITIVE(1, 3), N(2, 1))
row("power square", ops.power, N(2, 3), 2)
row("power cube", ops.power, AWAY(2, 3), 3)
row("power zero", ops.power, N(2, 3), 0)
row("power one", ops.power, N(2, 3), 1)
row("power root", ops.power, POSITIVE(2, 3), 0.5)
row("power inverse", ops.power, AWAY(2, 3), -1)
row("power of a number", ops.power, 2.0, N(2, 3))
row("power of an array of exponents", ops.power, AWAY(3), EXPONENTS)
row("power nothing", ops.power, POSITIVE(0), N(1))
row("maximum", ops.maximum, APART(2, 3), BETWEEN(2, 3))
row("maximum lower rank", ops.maximum, APART(2, 1, 3), BETWEEN(2, 1))
row("maximum with a number", ops.maximum, APART(2, 3), COMPARED)
row("maximum of a number", ops.maximum, COMPARED, APART(2, 3))
row("maximum nothing", ops.maximum, APART(0, 3), BETWEEN(3))
row("minimum", ops.minimum, APART(2, 3), BETWEEN(2, 3))
row("minimum row and column", ops.minimum, APART(1, 3), BETWEEN(2, 1))
row("minimum with a number", ops.minimum, APART(2, 3), COMPARED)

# ------------------------------------------------------------------------------------ elementwise, one argument
row("negative", ops.negative, N(2, 3))
row("square", ops.square, N(2, 3))
row("exp", ops.exp, N(2, 3))
row("exp number of axes 0", ops.exp, N())
row("exp nothing", ops.exp, N(2, 0))
row("expm1", ops.expm1, N(2, 3))
row("log", ops.log, POSITIVE(2, 3))
row("log1p", ops.log1p, POSITIVE(2, 3))
row("sqrt", ops.sqrt, POSITIVE(2, 3))
row("sin", ops.sin, N(2, 3))
row("cos", ops.cos, N(2, 3))
row("tanh", ops.tanh, N(2, 3))
row("tanh size 1", ops.tanh, N(1, 1, 1))
row("dtanh", ops.dtanh, INSIDE(2, 3), like=lambda np, y: 1 - y**2)
row("sigmoid", ops.sigmoid, N(2, 3), like=lambda np, x: 1 / (1 + np.exp(-x)))
row("sigmoid nothing", ops.sigmoid, N(0), like=lambda np, x: 1 / (1 + np.exp(-x)))
row("dsigmoid", ops.dsigmoid, INSIDE(2, 3), like=lambda np, y: y * (1 - y))
row("softplus", ops.softplus, N(2, 3), like=lambda np, x: np.log(1 + np.exp(x)))
row("relu", ops.relu, APART(2, 3), like=lambda np, x: np.maximum(x, 0.0))
row("leaky_relu", ops.leaky_relu, APART(2, 3), like=lambda np, x: np.where(x > 0, x, 0.01 * x))
row("leaky_relu slope", ops.leaky, APART(2, 3), slope=0.3, like=lambda np, x: np.where(x > 0, x, 0.3 * x))
row("abs", ops.absolute, APART(2, 3))
row("sign", ops.sign, APART(2, 3), holomorphic=False, like=None)  # autograd warns of a constant
row("clip", ops.clip, APART(2, 3), -1.0, 0.9)
row("clip below", ops.clip, APART(2, 3), 0.0, None)
row("clip above", ops.clip, APART(2, 3), None, 0.0)
row("clip primitive", ops.clipped, APART(2, 3), low=-1.0, high=0.9, like=lambda np, x: np.clip(x, -1.0, 0.9))

# ------------------------------------------------------------------------------------------------------- shapes
row("alias", tensor.alias, N(2, 3), like=lambda np, x: x)
row("sum_to", ops.sum_to, N(2, 4, 3), old=(2, 4, 3), new=(4, 1), like=lambda np, x: np.sum(x, (0, 2))[:, None])
row("sum_to nothing", ops.sum_to, N(2, 0, 3), old=(2, 0, 3), new=(1, 3), like=lambda np, x: np.sum(x, (0, 1))[None])
row("broadcast_to primitive", ops.stretch, N(2, 1), old=(2, 1), new=(3, 2, 4),
    like=lambda np, x: x + np.zeros((3, 2, 4)))  # fmt: skip  # autograd's own refuses new axes
row("broadcast_to", ops.broadcast_to, N(2, 1), (3, 2, 4), like=lambda np, x: x + np.zeros((3, 2, 4)))
row("broadcast_to nothing", ops.broadcast_to, N(2, 1), (2, 0), like=lambda np, x: x + np.zeros((2, 0)))
row("reshape primitive", ops.refold, N(2, 3), old=(2, 3), new=(3, 1, 2), like=lambda np, x: np.reshape(x, (3, 1, 2)))
row("reshape", ops.reshape, N(2, 6), (3, -1, 2))
row("reshape nothing", ops.reshape, N(2, 0), (0, 3))
row("reshape to a number", ops.reshape, N(1, 1), ())
row("transpose primitive", ops.permute, N(2, 3, 4), order=(-1, -3, -2), like=lambda np, x: np.transpose(x, (2, 0, 1)))
row("transpose", ops.transpose, N(2, 3, 4), (1, 2, 0))
row("transpose reversed", ops.transpose, N(2, 3, 4))
row("transpose negative axes", ops.transpose, N(2, 3, 4), (-1, 0, -2), like=lambda np, x: np.transpose(x, (2, 0, 1)))
row("transpose number", ops.transpose, N())
row("swapaxes", ops.swapaxes, N(2, 3, 4), 0, -1)
row("mT", ops.mT, N(2, 3, 4), like=lambda np, x: np.swapaxes(x, -1, -2))
row("expand_dims", ops.expand_dims, N(2, 3), 1)
row("expand_dims last", ops.expand_dims, N(2, 3), -1)
row("squeeze", ops.squeeze, N(1, 3, 1))
row("squeeze one axis", ops.squeeze, N(1, 3, 1), -1)
row("concatenate primitive", ops.joined, N(2, 1), N(2, 3), axis=-1, like=lambda np, x, y: np.concatenate([x, y], -1))
row("concatenate", ops.concatenate, [N(2, 3), N(1, 3), N(0, 3)])
row("concatenate along columns", ops.concatenate, [N(2, 1), N(2, 3)], axis=1)
row("concatenate one", ops.concatenate, [N(2, 1)], axis=-1)
row("stack", ops.stack, [N(2, 3), N(2, 3)], axis=1)
row("stack numbers", ops.stack, [N(), N(), N()])
row("stack last", ops.stack, [N(2), N(2)], axis=-1)
row("split", ops.split, N(6, 2), 3, pick=1)
row("split at positions", ops.split, N(2, 5), [1, 4], axis=-1, pick=1)
row("where primitive", ops.select, N(2, 3), N(2, 3), condition=MASK, like=lambda np, a, b: np.where(MASK, a, b))
row("where", ops.where, MASK, N(2, 3), N(2, 3))
row("where broadcast", ops.where, MASK, N(3), N(2, 1), like=lambda np, a, b: MASK * a + ~MASK * b)
row("where stretches the condition", ops.where, MASK[0], N(2, 3), N(), like=lambda np, a, b: MASK[0] * a + ~MASK[0] * b)
row("where a number", ops.where, MASK, N(2, 3), 0.0)
row("where number first", ops.where, MASK, 1.0, N(3), like=lambda np, b: MASK + ~MASK * b)
row("pad primitive", ops.padded, N(2, 3), widths=((1, 0), (2, 1)),
    like=lambda np, x: np.pad(x, ((1, 0), (2, 1)), "constant"))  # fmt: skip
row("pad", ops.pad, N(2, 3), 1, like=lambda np, x: np.pad(x, ((1, 1), (1, 1)), "constant"))
row("pad nothing", ops.pad, N(0, 3), ((1, 0), (0, 2)), like=lambda np, x: np.pad(x, ((1, 0), (0, 2)), "constant"))

# ------------------------------------------------------------------------------------------------------ indexing
INDEX = (slice(None, None, -1), PICKS)
row("getitem primitive", ops.take, N(2, 4), index=INDEX, shape=(2, 4), like=lambda np, x: x[::-1, PICKS])
row("scatter", ops.scatter, N(2, 3), index=INDEX, shape=(2, 4),
    like=lambda np, g: g[::-1] @ np.eye(4)[PICKS])  # fmt: skip
row("scatter slices", ops.scatter, N(2, 3), index=(slice(1, 3), slice(None, None, 2)), shape=(4, 5), like=None)
row("getitem", ops.getitem, N(3, 4), (1, slice(None, None, -2)), like=lambda np, x: x[1, ::-2])
row("getitem repeated", ops.getitem, N(3, 4), (PICKS, np.array([1, 0, 1])),
    like=lambda np, x: x[PICKS, np.array([1, 0, 1])])  # fmt: skip
row("getitem apart", ops.getitem, N(3, 2, 4), (PICKS, slice(None), np.array([1, -1, 1])),
    like=lambda np, x: x[PICKS, :, np.array([1, -1, 1])])  # fmt: skip
row("getitem mask", ops.getitem, N(2, 3), MASK, like=lambda np, x: x[MASK])
row("getitem new axis", ops.getitem, N(2, 3), (Ellipsis, None, 0), like=lambda np, x: x[..., None, 0])
row("getitem nothing", ops.getitem, N(2, 3), slice(2, 2), like=lambda np, x: x[2:2])
row("windows", ops.windows, N(2, 5), size=(2,), stride=2, shape=(5,),
    like=lambda np, x: np.stack([x[:, 0:2], x[:, 2:4]], 1))  # fmt: skip
row("overlap_add", ops.overlap_add, N(2, 3, 2), size=(2,), stride=1, shape=(4,),
    like=lambda np, g: np.hstack([g[:, :, 0], 0 * g[:, :1, 0]]) + np.hstack([0 * g[:, :1, 1], g[:, :, 1]]))  # fmt: skip
row("overlap_add plane", ops.overlap_add, N(1, 2, 2, 2, 3), size=(2, 3), stride=2, shape=(4, 6), like=None)
row("sliding_windows", ops.sliding_windows, N(2, 5), 3,
    like=lambda np, x: np.stack([x[:, 0:3], x[:, 1:4], x[:, 2:5]], 1))  # fmt: skip
row("sliding_windows plane", ops.sliding_windows, N(2, 4, 5), (2, 3), stride=2, like=None)
row("sliding_windows of no images", ops.sliding_windows, N(0, 4, 5), (2, 3), like=None)

# ----------------------------------------------------------------------------------------------------- reductions
row("sum primitive", ops.total, N(2, 3, 4), axes=(-3, -1), keepdims=False, like=lambda np, x: np.sum(x, (0, 2)))
row("sum", ops.sum, N(2, 3))
row("sum over rows", ops.sum, N(2, 3), axis=0)
row("sum keepdims", ops.sum, N(2, 3, 4), axis=(0, -1), keepdims=True)
row("sum of nothing", ops.sum, N(0, 3), axis=0)
row("sum of a number", ops.sum, N())
row("mean", ops.mean, N(2, 3))
row("mean keepdims", ops.mean, N(2, 3, 4), axis=(0, 2), keepdims=True)
row("mean size 1", ops.mean, N(1, 3), axis=0)
row("max primitive", ops.largest, APART(2, 3, 4), axes=(-3, -1),
    like=lambda np, x: np.max(x, (0, 2), keepdims=True))  # fmt: skip
row("max", ops.max, APART(2, 3))
row("max over columns", ops.max, APART(2, 3), axis=1)
row("max keepdims", ops.max, APART(2, 3, 4), axis=(0, -1), keepdims=True)
row("max size 1", ops.max, APART(2, 1), axis=-1)
row("max of no rows", ops.max, APART(0, 3), axis=1, like=None)
row("min primitive", ops.smallest, APART(2, 3), axes=(-1,), like=lambda np, x: np.min(x, 1, keepdims=True))
row("min", ops.min, APART(2, 3))
row("min over rows", ops.min, APART(2, 3), axis=0)
row("prod", ops.prod, N(2, 3))
row("prod over columns", ops.prod, N(2, 5), axis=1)
row("prod keepdims", ops.prod, N(2, 3, 2), axis=(0, 2), keepdims=True, like=None)  # autograd takes one axis only
row("prod size 1", ops.prod, N(3, 1), axis=1)
row("prod of nothing", ops.prod, N(3, 0), axis=1, like=None)
row("logsumexp primitive", ops.log_total, N(2, 3), axis=-2,
    like=lambda np, x: np.log(np.sum(np.exp(x), 0, keepdims=True)))  # fmt: skip
row("logsumexp", ops.logsumexp, N(2, 3), like=lambda np, x: np.log(np.sum(np.exp(x), -1)))
row("logsumexp over rows", ops.logsumexp, N(2, 3), axis=0, keepdims=True,
    like=lambda np, x: np.log(np.sum(np.exp(x), 0, keepdims=True)))  # fmt: skip
row("softmax primitive", ops.normalised, N(2, 3), axis=-2, like=lambda np, x: np.exp(x) / np.sum(np.exp(x), 0))
row("softmax", ops.softmax, N(2, 3), like=lambda np, x: np.exp(x) / np.sum(np.exp(x), -1, keepdims=True))
row("softmax over rows", ops.softmax, N(3, 2), axis=0, like=lambda np, x: np.exp(x) / np.sum(np.exp(x), 0))
row("softmax size 1", ops.softmax, N(3, 1), like=lambda np, x: x / x)
row("softmax of no rows", ops.softmax, N(0, 3), like=None)
row("standardise", standardised, N(4, 2), axes=(-2,), eps=0.1,
    like=lambda np, x: (x - np.mean(x, 0)) / np.sqrt(np.var(x, 0) + 0.1))  # fmt: skip
row("standardise over positions", standardised, N(2, 3, 2), axes=(-3, -2), eps=0.1,
    like=lambda np, x: (x - np.mean(x, (0, 1))) / np.sqrt(np.var(x, (0, 1)) + 0.1))  # fmt: skip
row("log_softmax", ops.log_softmax, N(2, 3),
    like=lambda np, x: x - np.log(np.sum(np.exp(x), -1, keepdims=True)))  # fmt: skip
row("norm primitive", ops.length, N(2, 3, 4), axes=(-3, -1),
    like=lambda np, x: np.sqrt(np.sum(x**2, (0, 2), keepdims=True)))  # fmt: skip
row("norm", ops.norm, N(2, 3), like=lambda np, x: np.sqrt(np.sum(x**2)))
row("norm over columns", ops.norm, N(2, 3), axis=1, like=lambda np, x: np.sqrt(np.sum(x**2, 1)))
row("norm keepdims", ops.norm, N(2, 3), axis=0, keepdims=True,
    like=lambda np, x: np.sqrt(np.sum(x**2, 0, keepdims=True)))  # fmt: skip

# ------------------------------------------------------------------------------------------------------- products
row("matmul primitive", ops.product, N(2, 3), N(3, 4), like=lambda np, a, b: np.matmul(a, b))
row("matmul primitive batched", ops.product, N(2, 1, 2, 3), N(1, 3, 3, 2), like=lambda np, a, b: np.matmul(a, b))
row("matmul", ops.matmul, N(2, 3), N(3, 4))
row("matmul vector matrix", ops.matmul, N(3), N(3, 2))
row("matmul matrix vector", ops.matmul, N(2, 3), N(3))
row("matmul vectors", ops.matmul, N(3), N(3))
row("matmul batch vector", ops.matmul, N(2, 2, 3), N(3))
row("matmul vector batch", ops.matmul, N(3), N(2, 3, 2))
row("matmul batch matrix", ops.matmul, N(2, 2, 3), N(3, 2))
row("matmul matrix batch", ops.matmul, N(2, 3), N(2, 3, 2))
row("matmul batched", ops.matmul, N(2, 2, 3), N(2, 3, 2))
row("matmul unequal ranks", ops.matmul, N(2, 2, 3), N(2, 1, 3, 2))
row("matmul stretched batches", ops.matmul, N(1, 2, 3), N(2, 3, 1))
row("matmul no rows", ops.matmul, N(0, 3), N(3, 2))
row("matmul no inner axis", ops.matmul, N(2, 0), N(0, 3))
row("matmul no batch", ops.matmul, N(0, 2, 3), N(3, 2))
row("matmul square", ops.matmul, N(3, 3), N(3, 3))
row("matmul size 1", ops.matmul, N(1, 1), N(1, 1))
row("einsum primitive", ops.contract, N(2, 3), N(3, 4), spec="ij,jk->ik",
    like=lambda np, a, b: np.einsum("ij,jk->ik", a, b))  # fmt: skip
row("einsum", ops.einsum, "ij,jk->ki", N(2, 3), N(3, 4))
row("einsum transpose", ops.einsum, "ijk->kij", N(2, 3, 4))
row("einsum index in one operand", ops.einsum, "ij,k->i", N(2, 3), N(4))
row("einsum sum of one", ops.einsum, "ij->", N(2, 3))
row("einsum batched", ops.einsum, "nij,njk->nik", N(2, 2, 3), N(2, 3, 2))
row("einsum three", ops.einsum, "i,ij,j->", N(2), N(2, 3), N(3))
row("einsum elementwise", ops.einsum, "ij,ij->ij", N(2, 3), N(2, 3))
row("einsum nothing", ops.einsum, "ij,jk->ik", N(2, 0), N(0, 3))
row("outer", ops.outer, N(2), N(3))
row("outer nothing", ops.outer, N(0), N(3))
row("solve primitive", ops.solution, REGULAR(3, 3), N(3, 2), like=lambda np, a, b: np.linalg.solve(a, b))
row("solve", ops.solve, REGULAR(3, 3), N(3, 2), like=lambda np, a, b: np.linalg.solve(a, b))
row("solve square", ops.solve, REGULAR(3, 3), N(3, 3), like=lambda np, a, b: np.linalg.solve(a, b))
row("solve batches that stretch", ops.solve, REGULAR(2, 1, 2, 2), N(3, 2, 1), like=None, cuda=NO_BATCH)
row("solve vector", ops.solve, REGULAR(3, 3), N(3), like=lambda np, a, b: np.linalg.solve(a, b))
row("solve batched", ops.solve, REGULAR(2, 3, 3), N(2, 3, 2), cuda=NO_BATCH,
    like=lambda np, a, b: np.linalg.solve(a, b))  # fmt: skip
row("solve one matrix", ops.solve, REGULAR(3, 3), N(2, 3, 1), like=None)
row("solve batch of matrices", ops.solve, REGULAR(2, 3, 3), N(3, 1), like=None, cuda=NO_BATCH)
row("solve size 1", ops.solve, REGULAR(1, 1), N(1), like=lambda np, a, b: np.linalg.solve(a, b))
row("dense primitive", ops.affine, N(4, 3), N(2, 3), N(2), like=lambda np, h, w, b: h @ w.T + b)
row("dense", ops.dense, N(4, 3), N(2, 3), N(2), like=lambda np, h, w, b: h @ w.T + b)
row("dense no bias", ops.dense, N(4, 3), N(2, 3), like=lambda np, h, w: h @ w.T)
row("dense positions", ops.dense, N(2, 2, 3), N(4, 3), N(4), like=lambda np, h, w, b: h @ w.T + b)
row("dense positions, no bias", ops.dense, N(2, 1, 2, 3), N(2, 3), like=lambda np, h, w: h @ w.T)
row("dense no examples", ops.dense, N(0, 3), N(2, 3), N(2), like=lambda np, h, w, b: h @ w.T + b)
row("dense size 1", ops.dense, N(1, 1), N(1, 1), N(1), like=lambda np, h, w, b: h @ w.T + b)

# --------------------------------------------------------------------------------------------- losses per example
row("softmax_cross_entropy primitive", ops.softmax_ce, N(2, 3), SHARES(2, 3),
    like=lambda np, z, y: np.sum(y, -1) * np.log(np.sum(np.exp(z), -1)) - np.sum(y * z, -1))  # fmt: skip
row("softmax_cross_entropy", ops.softmax_cross_entropy, N(2, 3), LABELS,
    like=lambda np, z: np.log(np.sum(np.exp(z), -1)) - z[np.arange(2), LABELS])  # fmt: skip
row("softmax_cross_entropy shares", ops.softmax_cross_entropy, N(2, 4, 3), SHARES(2, 4, 3), like=None)
row("softmax_cross_entropy no examples", ops.softmax_cross_entropy, N(0, 3), SHARES(0, 3), like=None)
row("sigmoid_cross_entropy primitive", ops.sigmoid_ce, N(2, 3), POSITIVE(2, 3),
    like=lambda np, z, y: np.sum(np.log(1 + np.exp(z)) - y * z, -1))  # fmt: skip
row("sigmoid_cross_entropy", ops.sigmoid_cross_entropy, N(2, 3), SHARES(2, 3),
    like=lambda np, z, y: np.sum(np.log(1 + np.exp(z)) - y * z, -1))  # fmt: skip
row("squared_error primitive", ops.squares, N(2, 3), N(2, 3), like=lambda np, z, y: np.sum((z - y) ** 2, -1))
row("squared_error", ops.squared_error, N(2, 3), N(2, 3), like=lambda np, z, y: np.sum((z - y) ** 2, -1))
row("squared_error no examples", ops.squared_error, N(0, 3), N(0, 3), like=None)
