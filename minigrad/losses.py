"""Losses on a network's output: value, gradient, curvature, its square root, and a sampler.

A loss called as a function, `loss(z, y)`, is an operation that gives (N,) losses, one for each example: never
their mean. `loss.at(z, y)` looks at one output z (N, C) without a graph; what its answers share is computed once.

Cross-entropies take logits: nothing here divides by a probability. With p the probabilities at z,

===================== =============== ============= ======================= ==============================
loss                  ℓ               ∂ℓ/∂z         H_z (GGN = Fisher)      sample s with E[s sᵀ] = H_z
===================== =============== ============= ======================= ==============================
squared error         ‖z − y‖²        2(z − y)      2 I                     √2 · N(0, I)
sigmoid, per output   softplus(z)−yz  p − y         diag(p(1 − p))          p − Bernoulli(p)
softmax               lse(z) − z_y    p − y         diag(p) − p pᵀ          p − e_y′ with y′ ~ p
===================== =============== ============= ======================= ==============================

The squared error has no ½ [T-1.2.1]; as a likelihood it is a Gaussian of variance ½, whence 2 I [T-A.1].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from . import backend, ops
from .tensor import raw

ROOTS = ("fisher", "gn_prob")


class View:
    """A loss at one output.

    Parameters
    ----------
    z : (N, C) array
        The network's output.
    y : (N, C) array
        Targets as `Loss.encode` gives them.
    """

    def __init__(self, loss: Loss, z: Any, y: Any):
        self.loss = loss
        self.z = z
        self.y = y
        self._gradient = None

    def gradient(self) -> Any:
        """∂ℓ/∂z of every example (N, C)."""
        if self._gradient is None:
            self._gradient = self._slope()
        return self._gradient

    def value(self) -> Any:
        """ℓ of every example (N,)."""
        raise TypeError(f"{self.loss!r} has no value")

    def curvature(self, v: Any) -> Any:
        """H_z v for v (…, N, C)."""
        raise TypeError(f"{self.loss!r} has no curvature")

    def root(self, kind: str = "fisher") -> Any:
        """Vectors s (K, N, C) with Σ_k s_k s_kᵀ = H_z ("fisher") or the curvature of [T-3.4.1] ("gn_prob")."""
        if kind not in ROOTS:
            raise ValueError(f"root(kind={kind!r}): the kinds are {', '.join(ROOTS)}")
        return self._root(kind)

    def sample(self, rng: Any) -> Any:
        """One draw of s (N, C) with E[s sᵀ] = H_z; `rng` is whatever `numpy.random.default_rng` accepts."""
        return self._sample(np.random.default_rng(rng))

    def _draw(self, numbers: np.ndarray) -> Any:
        """Host random numbers with the dtype of z, on its device."""
        return backend.like(numbers.astype(self.z.dtype, copy=False), self.z)

    def _diagonal(self, d: Any) -> Any:
        """d (N, C) as vectors d_k e_k (C, N, C)."""
        module = backend.xp(d)
        return d.T[:, :, None] * module.eye(d.shape[1], dtype=d.dtype)[:, None, :]


class Loss:
    """A loss by name; see the module for what it offers."""

    name = ""
    on_logits = False
    is_cross_entropy = False
    view: type[View]

    def __call__(self, z: Any, y: Any) -> Any:
        """ℓ (N,) as an operation that can be differentiated."""
        return getattr(ops, self.name)(z, y)

    def at(self, z: Any, y: Any) -> View:
        """The loss at one output z (N, C) and targets y."""
        z = raw(z)
        if type(y) is not type(z) or y.shape != z.shape or y.dtype != z.dtype:
            y = self.encode(y, z)
        return self.view(self, z, y)

    def encode(self, y: Any, z: Any) -> Any:
        """Targets with the shape, dtype and device of the output z; those that have them pass as they are.

        Raises
        ------
        ValueError
            The targets do not fit the output.
        """
        y = raw(y)
        if not hasattr(y, "shape"):
            y = np.asarray(y)
        if y.ndim == 1 and z.shape[1:] == (1,):
            y = y[:, None]
        if tuple(y.shape) != tuple(z.shape):
            raise ValueError(f"{self.name}: targets of shape {tuple(y.shape)} do not fit an output of {tuple(z.shape)}")
        return y if y.dtype == z.dtype and backend.xp(y) is backend.xp(z) else backend.like(y, z, z.dtype)

    def __repr__(self) -> str:
        return f"losses.{self.name}"


class _SquaredErrorView(View):
    def __init__(self, loss, z, y):
        super().__init__(loss, z, y)
        self.residual = ops.subtract.forward(z, y)

    def value(self):
        return backend.row_dot(self.residual, self.residual)

    def _slope(self):
        return ops.multiply.forward(self.residual, 2.0)

    def curvature(self, v):
        return ops.multiply(v, 2.0)

    def _root(self, kind):
        n, c = self.z.shape
        module = backend.xp(self.z)
        eye = module.eye(c, dtype=self.z.dtype) * math.sqrt(2.0)
        return module.broadcast_to(eye[:, None, :], (c, n, c))

    def _sample(self, rng):
        return self._draw(rng.standard_normal(self.z.shape) * math.sqrt(2.0))


class SquaredError(Loss):
    """‖z − y‖², summed over the outputs, without a ½ [T-A.1]."""

    name = "squared_error"
    view = _SquaredErrorView


class _SoftmaxView(View):
    def __init__(self, loss, z, y):
        super().__init__(loss, z, y)
        self.top = backend.row_max(z)
        e = z - self.top
        backend.xp(z).exp(e, out=e)
        self.total = backend.row_sum(e)
        e /= self.total
        self.p = e

    def value(self):
        lse = self.top + backend.xp(self.z).log(self.total)
        return lse[:, 0] - backend.row_dot(self.y, self.z)

    def _slope(self):
        return ops.subtract.forward(self.p, self.y)

    def curvature(self, v):
        pv = self.p * v
        return pv - self.p * pv.sum(-1, keepdims=True)

    def _root(self, kind):
        module = backend.xp(self.z)
        weights = module.sqrt(self.p if kind == "fisher" else self.y)
        eye = module.eye(self.z.shape[1], dtype=self.z.dtype)
        return weights.T[:, :, None] * (self.p - eye[:, None, :])

    def _sample(self, rng):
        module = backend.xp(self.z)
        noisy = self.z + self._draw(rng.gumbel(size=self.z.shape))  # its argmax is a draw from p
        drawn = noisy.argmax(-1)[:, None] == module.arange(self.z.shape[1])
        return self.p - drawn.astype(self.z.dtype)


class SoftmaxCrossEntropy(Loss):
    """−log softmax(z)_y; y holds class numbers (N,), or rows (N, C) that sum to 1 [T-A.3]."""

    name = "softmax_cross_entropy"
    on_logits = True
    is_cross_entropy = True
    view = _SoftmaxView

    def encode(self, y, z):
        y = raw(y) if hasattr(y, "shape") else np.asarray(y)
        if y.ndim == 1 and z.ndim == 2:
            if len(y) != len(z):
                raise ValueError(f"{self.name}: {len(y)} labels do not fit an output of {len(z)} examples")
            return ops.one_hot(y, z.shape[1], z)
        return super().encode(y, z)


class _SigmoidView(View):
    def __init__(self, loss, z, y):
        super().__init__(loss, z, y)
        self.p = ops.sigmoid(z)

    def value(self):
        return ops.sigmoid_ce(self.z, self.y)

    def _slope(self):
        return ops.subtract.forward(self.p, self.y)

    def curvature(self, v):
        return ops.dsigmoid(self.p) * v

    def _root(self, kind):
        p, y = self.p, self.y
        squared = p * (1.0 - p) if kind == "fisher" else y * (1.0 - p) ** 2 + (1.0 - y) * p**2
        return self._diagonal(backend.xp(p).sqrt(squared))

    def _sample(self, rng):
        uniform = self._draw(rng.random(self.z.shape))
        return self.p - (uniform < self.p).astype(self.z.dtype)


class SigmoidCrossEntropy(Loss):
    """Σ softplus(z) − y z over the outputs, each its own yes or no; y (N, C) in [0, 1] [T-A.2]."""

    name = "sigmoid_cross_entropy"
    on_logits = True
    is_cross_entropy = True
    view = _SigmoidView


class _PlainView(View):
    """The loss of a user's function (z, y) → (N,): gradient and curvature by the transforms."""

    def __init__(self, loss, z, y):
        super().__init__(loss, z, y)
        self.function = loss.function

    def value(self):
        value = raw(self.function(self.z, self.y))
        if tuple(getattr(value, "shape", ())) != self.z.shape[:1]:
            raise ValueError(
                f"loss {self.loss.name!r} must return one number for each of {len(self.z)} examples, "
                f"not shape {tuple(getattr(value, 'shape', ()))}; do not average over them"
            )
        return value

    def _sum(self, z):
        return ops.sum(self.function(z, self.y))

    def _slope(self):
        from .transforms import grad

        return grad(self._sum)(self.z)

    def curvature(self, v):
        from .transforms import hvp

        return hvp(self._sum, self.z, v)

    def _root(self, kind):
        raise TypeError(f"loss {self.loss.name!r} is a plain function: it has no square root of its curvature")

    def _sample(self, rng):
        raise TypeError(f"loss {self.loss.name!r} is a plain function: it is not a likelihood to sample from")


class PlainLoss(Loss):
    """A user's function (z, y) → (N,) as a loss; targets pass as they are."""

    view = _PlainView

    def __init__(self, function: Callable):
        self.function = function
        self.name = getattr(function, "__name__", "loss")

    def __call__(self, z, y):
        return self.function(z, y)

    def encode(self, y, z):
        y = raw(y) if hasattr(y, "shape") else np.asarray(y)
        return backend.like(y, z, z.dtype if y.dtype.kind == "f" and y.dtype != z.dtype else None)


squared_error = SquaredError()
softmax_cross_entropy = SoftmaxCrossEntropy()
sigmoid_cross_entropy = SigmoidCrossEntropy()
_OF_OPERATION = {
    ops.squared_error: squared_error,
    ops.softmax_cross_entropy: softmax_cross_entropy,
    ops.sigmoid_cross_entropy: sigmoid_cross_entropy,
}


def as_loss(loss: Any) -> Loss:
    """A Loss as it is; a loss operation as its Loss; another function as a PlainLoss."""
    if isinstance(loss, Loss):
        return loss
    if not callable(loss):
        raise TypeError(f"a loss is one of minigrad.losses or a function (z, y) → (N,), not {type(loss).__name__}")
    return _OF_OPERATION.get(loss) or PlainLoss(loss)
