"""curvlinops: linear operators of a torch network on one batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import curvlinops
import numpy as np
import torch

from .cases import Case
from .peers_torch import network


def _arguments(case: Case) -> tuple:
    net = network(case)
    loss = torch.nn.MSELoss() if case.loss == "squared_error" else torch.nn.CrossEntropyLoss()
    return net, loss, list(net.parameters()), [tuple(map(torch.from_numpy, case.batch))]


def _product(kind: Any) -> Callable[[Case, np.ndarray], Callable[[], Any]]:
    def start(case, v):
        operator = kind(*_arguments(case), check_deterministic=False)
        direction = torch.from_numpy(v)
        return lambda: [operator @ direction]

    return start


def _factors(fisher: str) -> Callable[[Case, np.ndarray], Callable[[], Any]]:
    """A and G of every layer with the bias in A, and the gradient by a pass of its own: the library drops it."""

    def start(case, v):
        net, loss, parameters, ((x, y),) = _arguments(case)
        settings = {"fisher_type": fisher, "separate_weight_and_bias": False, "check_deterministic": False}

        def quantity():
            operator = curvlinops.KFACLinearOperator(net, loss, parameters, [(x, y)], **settings)
            operator.compute_kronecker_factors()
            gradient = torch.autograd.grad(loss(net(x), y), parameters)
            inputs, signals = operator._input_covariances, operator._gradient_covariances
            return [inputs[name] for name in signals][::-1], list(signals.values())[::-1], gradient

        return quantity

    return start


QUANTITIES = {
    "GGN·v": _product(curvlinops.GGNLinearOperator),
    "H·v": _product(curvlinops.HessianLinearOperator),
    "K-FAC factors + gradient": _factors("mc"),
    "exact K-FAC factors + gradient": _factors("type-2"),
}
