"""What is trained: networks by name, each with a loss and a batch size, made to fit a data set; functions by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minigrad import backend, data, losses, nn
from minigrad.data import Dataset

from . import catalogue
from .errors import LabError, UsageError, unknown
from .functions import FUNCTIONS, Function
from .tasks import NetworkTask, checked_dtype

PARTS = ("valid", "test")


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

    dtype = "float32"

    @property
    def settings(self) -> dict[str, Any]:
        """A network's problem has none."""
        return {}

    @property
    def budget(self) -> tuple[str, float]:
        """Unit and amount unless others are asked for."""
        return "seconds", self.seconds

    def open(
        self,
        source: str | Dataset | None = None,
        device: str = "cpu",
        dtype: str | None = None,
        heldout: str = "test",
    ) -> NetworkTask:
        """`prepare` on a data set or its name, by default the problem's own."""
        backend.module(device)  # says why it cannot be used before the data is loaded
        source = self.data if source is None else source
        return self.prepare(source if isinstance(source, Dataset) else data.load(source), device, dtype, heldout)

    def prepare(
        self, data: Dataset, device: str = "cpu", dtype: str | None = None, heldout: str = "test"
    ) -> NetworkTask:
        """The problem on a data set: arrays uploaded and labels encoded, once.

        Parameters
        ----------
        data : Dataset
        device : {"cpu", "cuda"}
        dtype : {"float32", "float64"}, optional
            float32 unless named.
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
        dtype = checked_dtype(dtype, self.dtype)
        self._check(data)
        inputs = data.train[0].shape[1]
        outputs = inputs if self.reconstructs else data.classes
        pairs = []
        for x, y in (data.train, getattr(data, heldout)):
            x = backend.asarray(x, device, dtype)
            shape = backend.empty((len(x), outputs), x.dtype, x)
            pairs.append((x, x if self.reconstructs else self.loss.encode(y, shape)))
        return NetworkTask(self, self.net(inputs, outputs), *pairs, data)

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
            "deep-classifier",
            "eight hidden layers of 100",
            "T-4.1.2",
            "fashion",
            (100,) * 8,
            "relu",
            losses.softmax_cross_entropy,
            batch=200,
            seconds=20.0,
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


def problem(name: str, settings: Mapping[str, Any] | None = None) -> Problem | Function:
    """A problem or a test function by name.

    Parameters
    ----------
    name : str
    settings : dict, optional
        Of a function, as values or as texts; the networks have none.

    Raises
    ------
    UsageError
        There is none of this name, or a setting does not fit.
    """
    if name in PROBLEMS:
        if settings:
            raise UsageError(f"problem.{next(iter(settings))}: {name} is a network and has no settings")
        return PROBLEMS[name]
    if name not in FUNCTIONS:
        raise unknown("problem", name, [*PROBLEMS, *FUNCTIONS])
    return catalogue.build(name, type(FUNCTIONS[name]), settings or {})
