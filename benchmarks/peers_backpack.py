"""BackPACK: quantities that its extensions leave at the parameters of a torch network during one backward pass."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import backpack
import numpy as np
import torch
from backpack import extensions

from .cases import Case
from .peers_torch import network

warnings.filterwarnings("ignore", "Full backward hook is firing")  # so it does: BackPACK is at work


def _pass(case: Case, extension: Any) -> tuple[torch.nn.Sequential, Callable[[], None]]:
    """The network, and what runs forward and backward over it. BackPACK knows MSELoss, which averages over outputs."""
    net = backpack.extend(network(case))
    loss = backpack.extend(torch.nn.MSELoss() if case.loss == "squared_error" else torch.nn.CrossEntropyLoss())
    x, y = map(torch.from_numpy, case.batch)

    def run():
        net.zero_grad()
        with backpack.backpack(extension):
            loss(net(x), y).backward()

    return net, run


def _flat(extension: Any, name: str) -> Callable[[Case, np.ndarray], Callable[[], Any]]:
    """A quantity with a number for every parameter."""

    def start(case, v):
        net, run = _pass(case, extension)

        def quantity():
            run()
            return [getattr(p, name) for p in net.parameters()]

        return quantity

    return start


def norms(case: Case, v: np.ndarray) -> Callable[[], Any]:
    """Per-example norms."""
    net, run = _pass(case, extensions.BatchL2Grad())

    def quantity():
        run()
        return [sum(p.batch_l2 for p in net.parameters()).sqrt()]

    return quantity


def _factors(extension: Any, name: str) -> Callable[[Case, np.ndarray], Callable[[], Any]]:
    """A and G of every layer, and the gradient of the same pass."""

    def start(case, v):
        net, run = _pass(case, extension)
        layers = [layer for layer in net if isinstance(layer, torch.nn.Linear)]

        def quantity():
            run()
            found = [getattr(layer.weight, name) for layer in layers]
            return [A for _, A in found], [G for G, _ in found], [p.grad for p in net.parameters()]

        return quantity

    return start


QUANTITIES = {
    "per-example norms": norms,
    "second moment": _flat(extensions.SumGradSquared(), "sum_grad_squared"),
    "diagonal GGN": _flat(extensions.DiagGGNExact(), "diag_ggn_exact"),
    "K-FAC factors + gradient": _factors(extensions.KFAC(mc_samples=1), "kfac"),
    "exact K-FAC factors + gradient": _factors(extensions.KFLR(), "kflr"),
}
