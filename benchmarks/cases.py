"""The networks that are measured, and minigrad's own step on them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

import minigrad as mg
import optim
from minigrad import losses, nn

RATE = 1e-6  # of the timed steps: small, so that the networks stay where they started


@dataclass(frozen=True)
class Case:
    """A multilayer perceptron, its loss and one batch, in float32.

    Parameters
    ----------
    sizes : tuple of int
    hidden, output : str
        Activations; None for a linear output.
    linear : tuple of int
        Dense layers without an activation.
    loss : str
    n : int
        Examples in the batch.
    count : int
        Steps in one turn.
    norm : str
        Normalisation of the hidden layers.
    processes : int
        Of each contender, in turn from round to round. Where its arrays happen to lie in memory makes a small step up
        to a tenth faster or slower for as long as the process lives.
    """

    name: str
    sizes: tuple[int, ...]
    hidden: str
    loss: str
    n: int
    count: int
    linear: tuple[int, ...] = ()
    output: str | None = None
    norm: str | None = None
    processes: int = 1

    @property
    def title(self) -> str:
        return f"{self.name}  {'-'.join(map(str, self.sizes))} {self.hidden}, {self.loss}, n = {self.n}, float32"

    @cached_property
    def net(self) -> nn.Sequential:
        return nn.mlp(self.sizes, hidden=self.hidden, linear=self.linear, output=self.output, norm=self.norm)

    @cached_property
    def activations(self) -> list[str | None]:
        """What follows every Dense layer."""
        last = len(self.sizes) - 2
        return [None if k in self.linear else self.output if k == last else self.hidden for k in range(last + 1)]

    @cached_property
    def batch(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (n, in), and targets: the inputs themselves, or class numbers (n,)."""
        rng = np.random.default_rng(0)
        x = rng.random((self.n, self.sizes[0]), dtype=np.float32)
        return x, x if self.loss == "squared_error" else rng.integers(self.sizes[-1], size=self.n)

    @cached_property
    def targets(self) -> np.ndarray:
        """Targets (n, out), encoded once."""
        x, y = self.batch
        return y if y.ndim == 2 else mg.one_hot(y, self.sizes[-1], x)

    def params(self) -> mg.Params:
        """Initial parameters, always the same ones, and nobody else's."""
        return self.net.init(rng=1)

    def layers(self, vector: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """The windows (W, b) of every layer into a flat vector."""
        windows = self.params().windows(vector)
        return [(windows[f"{k}.W"], windows[f"{k}.b"]) for k in range(len(self.sizes) - 1)]

    def objective(self, params: mg.Params) -> mg.Objective:
        loss, (x, _) = getattr(losses, self.loss), self.batch
        return mg.Objective(self.net, loss, params, x, self.targets, train=self.norm is not None)


AE = Case("AE", (784, 1000, 500, 250, 30, 250, 500, 1000, 784), "sigmoid", "squared_error", 200, 1, (3,), "sigmoid")
CLS = Case("CLS", (784, 512, 512, 10), "tanh", "softmax_cross_entropy", 128, 5)
SMALL = Case("SMALL", (64, 32, 32, 10), "tanh", "softmax_cross_entropy", 64, 100, processes=3)
CASES = {case.name: case for case in (AE, CLS, SMALL)}


class Minigrad:
    """A method's step on a fresh objective, as a training loop does it."""

    def __init__(self, case: Case, method: Any = None):
        self.case = case
        self.method = method or optim.SGD(RATE)
        self.params = case.params()
        self.state = self.method.init(self.params)

    def step(self) -> None:
        self.method.step(self.case.objective(self.params), self.state)

    def update(self) -> None:
        """The step without the value of the loss."""
        self.params.vector += self.method.update(self.case.objective(self.params), self.state)

    def theta(self) -> np.ndarray:
        return self.params.vector


def check(case: Case, peers: dict[str, Any]) -> None:
    """Compare each peer's first step at rate 1 with minigrad's, window by window.

    Parameters
    ----------
    peers : dict
        {name: function of (case, rate) that makes something with step() and theta()}.

    Raises
    ------
    ValueError
        A peer computes something else: its figures would be worthless.
    """
    start = case.params()
    own = Minigrad(case, optim.SGD(1.0))
    own.step()
    expected = start.windows(own.theta() - start.vector)
    for name, make in peers.items():
        peer = make(case, 1.0)
        peer.step()
        moved = start.windows(peer.theta() - start.vector)
        for window in expected:
            error, size = np.abs(moved[window] - expected[window]).max(), np.abs(expected[window]).max()
            if not error <= 1e-4 * size + 1e-7 * np.abs(start[window]).max():  # the second: θ itself is rounded
                raise ValueError(f"{name} on {case.name} is off by {error:.1e} of {size:.1e} in {window}")
