"""Batch normalisation, whole or of the mean only: baselines of the thesis's comparison [T-6.3.1].

In train mode these layers take the mean (and the variance) of the batch, and the gradient flows through them: what
comes out for one example depends on all others. In evaluation mode they take running statistics, which live in
`params.buffers` and move once a step, in `Method.step`; then they are affine.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import ops
from ..tensor import primitive, raw
from .layers import Layer

# ------------------------------------------------------------------------------------------------ the operation


def _mean(x, axes):
    """Mean over axes counted from the end, kept."""
    return ops.total(x, axes=axes, keepdims=True) * (1.0 / math.prod(x.shape[k] for k in axes))


def _inverse_deviation(x, axes, eps):
    """1/√(var x + ε)."""
    centred = x - _mean(x, axes)
    return (_mean(centred * centred, axes) + eps) ** -0.5


def _standardise(x, axes, eps):
    """(x − mean x)/√(var x + ε) over axes counted from the end."""
    return (x - _mean(x, axes)) * _inverse_deviation(x, axes, eps)


def _symmetric_product(v, y, x, axes, eps):
    """The Jacobian of y = standardise(x), which is symmetric, times v."""
    inner = v - _mean(v, axes) - y * _mean(y * v, axes)
    return ops.multiply(inner, _inverse_deviation(x, axes, eps))


standardised = primitive(
    _standardise,
    lambda i, g, ans, x, axes, eps: _symmetric_product(g, ans, x, axes, eps),
    lambda tangents, ans, x, axes, eps: _symmetric_product(tangents[0], ans, x, axes, eps),
    name="standardise",
)

# --------------------------------------------------------------------------------------------------- the layers


class MeanOnlyBatchNorm(Layer):
    """h − E[h] + β: the mean over the batch in train mode, its running average otherwise [Salimans & Kingma 2016].

    Between a Dense without bias and its activation it computes W(h − E[h]) + β: the h of the Dense is centred, as
    [T-6.3.1] has it.

    Parameters
    ----------
    features : int
        Units; h is (N, …, features).
    rho : float
        Decay of the running statistics, in [0, 1).
    name : str, optional
        A name of one's own instead of bn0, bn1, …

    Notes
    -----
    The windows are NAME.beta (and NAME.gamma), the buffers NAME.mean (and NAME.var).
    """

    prefix = "bn"
    normalises = True

    def __init__(self, features: int, rho: float = 0.9, name: str | None = None):
        kind = type(self).__name__
        if features < 1:
            raise ValueError(f"{kind} needs at least one feature, not {features}")
        if not 0 <= rho < 1:
            raise ValueError(f"{kind}: rho must be at least 0 and less than 1, not {rho!r}")
        self.features, self.rho = features, rho
        self.named = name is not None
        self.name = name if self.named else self.prefix + "0"

    def shapes(self):
        return {"beta": (self.features,)}

    def initial(self, rng, scheme, alpha):
        return {"beta": np.zeros(self.features)}

    def statistics(self):
        return {"mean": np.zeros(self.features)}

    def settings(self):
        own = {"features": self.features, "rho": self.rho}
        return {**own, "name": self.name} if self.named else own

    def __call__(self, params, h, train=False):
        if h.shape[-1] != self.features or h.ndim < 2:
            given = f"not an array of shape {tuple(h.shape)}"
            raise ValueError(f"layer {self.name!r} takes (N, {self.features}), {given}")
        axes = tuple(range(-h.ndim, -1))
        if train and math.prod(h.shape[:-1]) < 2:
            raise ValueError(f"layer {self.name!r} needs more than one example in train mode")
        return self._normalise(params, h, axes, train)

    def _normalise(self, params: Any, h: Any, axes: tuple[int, ...], train: bool) -> Any:
        if not train:
            return h - self._running(params, "mean") + params[self.name + ".beta"]
        self._move(params, mean=raw(h).mean(axes))
        return h - _mean(h, axes) + params[self.name + ".beta"]

    def _running(self, params: Any, key: str) -> Any:
        """A running statistic (features,)."""
        name = f"{self.name}.{key}"
        found = getattr(params, "buffers", {}).get(name)
        if found is None:
            raise ValueError(f"the parameters have no running statistic {name!r}; make them with net.init(...)")
        return found

    def _move(self, params: Any, **seen: Any) -> None:
        """Note where this batch moves the running statistics (with parameters that are tracked)."""
        moved = getattr(params, "moved", None)
        for key, value in seen.items() if moved is not None else ():
            name = f"{self.name}.{key}"
            old = moved[name] if name in moved else self._running(params, key)  # a layer may stand twice
            moved[name] = self.rho * old + (1.0 - self.rho) * value


class BatchNorm(MeanOnlyBatchNorm):
    """γ (h − E[h])/√(var h + ε) + β [T-6.3.1; Ioffe & Szegedy 2015].

    E and var are those of the batch in train mode, running averages otherwise; the latter average var·n/(n − 1).

    Parameters
    ----------
    features : int
        Units; h is (N, …, features).
    rho : float
        Decay of the running statistics, in [0, 1).
    eps : float
        ε, positive.
    name : str, optional
        A name of one's own instead of bn0, bn1, …
    """

    def __init__(self, features: int, rho: float = 0.9, eps: float = 1e-5, name: str | None = None):
        super().__init__(features, rho, name)
        if not eps > 0:
            raise ValueError(f"BatchNorm: eps must be more than 0, not {eps!r}")
        self.eps = eps

    def shapes(self):
        return {"gamma": (self.features,), "beta": (self.features,)}

    def initial(self, rng, scheme, alpha):
        return {"gamma": np.ones(self.features), "beta": np.zeros(self.features)}

    def statistics(self):
        return {"mean": np.zeros(self.features), "var": np.ones(self.features)}

    def settings(self):
        return {**super().settings(), "eps": self.eps}

    def _normalise(self, params, h, axes, train):
        gamma, beta = params[self.name + ".gamma"], params[self.name + ".beta"]
        if not train:
            deviation = (self._running(params, "var") + self.eps) ** 0.5
            return (h - self._running(params, "mean")) * (gamma / deviation) + beta
        values, count = raw(h), math.prod(h.shape[:-1])
        self._move(params, mean=values.mean(axes), var=values.var(axes) * (count / (count - 1)))
        return standardised(h, axes=axes, eps=self.eps) * gamma + beta


NORMS = {"batch": BatchNorm, "mean": MeanOnlyBatchNorm}
