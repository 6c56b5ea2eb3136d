"""What is trained: a network, a loss and a batch size by name, made to fit a data set."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from minigrad import backend, losses, nn
from minigrad.data import Dataset
from minigrad.params import Params

from .errors import LabError, unknown

ROWS = 1000  # examples that are evaluated at once: bounds the memory, not the result
PARTS = ("valid", "test")
DTYPES = ("float32", "float64")

Pair = tuple[Any, Any]


@dataclass(frozen=True)
class Problem:
    """A training problem; the sizes of its input and output come from the data.

    Parameters
    ----------
    name, title, source : str
    data : str
        The data set unless another is asked for.
    hidden : tuple of int
        Widths of the hidden layers.
    activation : str
        Of the hidden layers.
    loss : losses.Loss
    batch : int
        Examples a step.
    seconds : float
        Training time unless a budget is given.
    linear : tuple of int
        Numbers of hidden layers without an activation.
    output : str, optional
        Activation of the output.
    reconstructs : bool
        Whether the target is the input itself.
    """

    name: str
    title: str
    source: str
    data: str
    hidden: tuple[int, ...]
    activation: str
    loss: losses.Loss
    batch: int
    seconds: float
    linear: tuple[int, ...] = ()
    output: str | None = None
    reconstructs: bool = False

    def net(self, inputs: int, outputs: int) -> nn.Sequential:
        """The network for this many inputs and outputs."""
        return nn.mlp([inputs, *self.hidden, outputs], self.activation, self.linear, self.output)

    def prepare(self, data: Dataset, device: str = "cpu", dtype: str = "float32", heldout: str = "test") -> Task:
        """The problem on a data set: arrays uploaded and labels encoded, once.

        Parameters
        ----------
        data : Dataset
        device : {"cpu", "cuda"}
        dtype : {"float32", "float64"}
        heldout : {"test", "valid"}
            The part whose loss is reported beside the training loss; a tuner takes "valid".

        Raises
        ------
        LabError
            The data is not of the kind that the problem takes.
        DeviceError
            The device cannot be used.
        """
        if heldout not in PARTS:
            raise unknown("part", heldout, PARTS)
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        self._check(data)
        inputs = data.train[0].shape[1]
        outputs = inputs if self.reconstructs else data.classes
        pairs = []
        for x, y in (data.train, getattr(data, heldout)):
            x = backend.asarray(x, device, dtype)
            shape = backend.empty((len(x), outputs), x.dtype, x)
            pairs.append((x, x if self.reconstructs else self.loss.encode(y, shape)))
        return Task(self, self.net(inputs, outputs), *pairs)

    def _check(self, data: Dataset) -> None:
        if not self.reconstructs:
            if data.classes is None:
                raise LabError(
                    f"{self.name} needs labels, but the y of {data.name} holds targets; save y as integers 0, 1, 2, …"
                )
            return
        x = data.train[0]
        if x.min() < 0 or x.max() > 1:
            raise LabError(
                f"{self.name} gives outputs between 0 and 1, but the x of {data.name} reaches from {x.min():.3g} to "
                f"{x.max():.3g}; scale it to [0, 1]"
            )


@dataclass(frozen=True)
class Task:
    """A problem on one data set, on one device.

    Parameters
    ----------
    problem : Problem
    net : callable
    train, heldout : tuple (x, y)
        Inputs (N, D) and encoded targets (N, C) on the device.
    """

    problem: Problem
    net: Callable
    train: Pair
    heldout: Pair

    @property
    def batch(self) -> int:
        """Examples a step: no more than there are."""
        return min(self.problem.batch, len(self.train[0]))

    def initial(self, seed: int) -> Params:
        """The θ that every method starts from."""
        x = self.train[0]
        return self.net.init(rng=seed, dtype=x.dtype, device=backend.device_of(x))

    def evaluate(self, params: Params) -> dict[str, float]:
        """R on the whole training part and on the held-out part; for classifiers the share of wrong answers too."""
        train, train_error = self._measure(params, *self.train)
        test, test_error = self._measure(params, *self.heldout)
        losses = {"train_loss": train, "test_loss": test}
        return losses if self.problem.reconstructs else {**losses, "train_error": train_error, "test_error": test_error}

    def _measure(self, params: Params, x: Any, y: Any) -> tuple[float, float]:
        total, wrong = 0.0, 0
        for start in range(0, len(x), ROWS):
            rows = slice(start, start + ROWS)
            z = self.net(params, x[rows])
            total = total + self.problem.loss.at(z, y[rows]).value().sum(dtype="float64")
            if not self.problem.reconstructs:
                wrong = wrong + (z.argmax(-1) != y[rows].argmax(-1)).sum()
        return float(total) / len(x), float(wrong) / len(x)


PROBLEMS = {
    p.name: p
    for p in (
        Problem(
            "autoencoder",
            "deep, with a linear code of 30 numbers",
            "T-4.1; Hinton & Salakhutdinov 2006",
            "digits",
            (1000, 500, 250, 30, 250, 500, 1000),
            "sigmoid",
            losses.squared_error,
            batch=200,
            seconds=20.0,
            linear=(3,),
            output="sigmoid",
            reconstructs=True,
        ),
        Problem(
            "classifier",
            "two hidden layers of 512",
            "B",
            "digits",
            (512, 512),
            "tanh",
            losses.softmax_cross_entropy,
            batch=128,
            seconds=10.0,
        ),
        Problem(
            "digits",
            "small classifier with two hidden layers of 32",
            "minigrad",
            "digits8",
            (32, 32),
            "tanh",
            losses.softmax_cross_entropy,
            batch=64,
            seconds=2.0,
        ),
    )
}


def problem(name: str) -> Problem:
    """A problem by name.

    Raises
    ------
    UsageError
        There is none of this name.
    """
    if name not in PROBLEMS:
        raise unknown("problem", name, PROBLEMS)
    return PROBLEMS[name]
