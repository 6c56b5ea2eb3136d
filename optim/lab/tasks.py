"""What a run sees of a problem: where θ starts, the objective of every step, and how a point is measured.

A `Task` is a problem that has been made ready on a device: a network on a data set, a function of θ alone, or a
regression, which is both. `Run` asks them all the same four things.
"""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from minigrad import Objective, backend, data
from minigrad.data import Dataset
from minigrad.params import Params

from .errors import UsageError, unknown

ROWS = 1000  # examples that are evaluated at once: bounds the memory, not the result
DTYPES = ("float32", "float64")

Pair = tuple[Any, Any]


class Task(Protocol):
    """A problem on one device.

    Attributes
    ----------
    problem
        It has a `name` and a `title`.
    batch : int or None
        Examples a step; None where there are no examples, hence no epochs.
    points : int
        Evaluations after the one at step 0.
    floor : float
        A run ends when R is below it; −∞ unless the function has no minimum.
    measures : tuple of str
        The names that `evaluate` gives.
    """

    problem: Any
    batch: int | None
    points: int
    floor: float
    measures: tuple[str, ...]

    def initial(self, seed: int) -> Params:
        """The θ that every method starts from."""

    def objectives(self, params: Params, full_batch: bool, seed: int) -> Same | Shuffled:
        """The objective of every step, over parameters that move in place."""

    def evaluate(self, params: Params) -> dict[str, float]:
        """{measure: number} at a point."""

    def facts(self) -> dict[str, Any]:
        """Sizes, and a fingerprint that changes with what is trained on, for run.json."""


class Same:
    """One objective for all steps: it forgets what it computed when θ moves, and keeps what a method left on it."""

    def __init__(self, f: Objective):
        self.f = f

    def __len__(self) -> int:
        """Steps an epoch."""
        return 1

    def at(self, step: int) -> Objective:
        return self.f


class Shuffled:
    """A fresh objective a step, on the next batch of a fresh order every epoch."""

    def __init__(self, task: NetworkTask, params: Params, seed: int):
        self.task, self.params = task, params
        self.batches = data.batches(*task.train, task.batch, rng=seed)

    def __len__(self) -> int:
        """Steps an epoch."""
        return len(self.batches)

    def at(self, step: int) -> Objective:
        return Objective(self.task.net, self.task.problem.loss, self.params, *self.batches.at(step))


def checked_dtype(dtype: str | None, default: str) -> str:
    """The dtype that was asked for, or the default; UsageError for one that there is not."""
    if dtype is not None and dtype not in DTYPES:
        raise unknown("dtype", dtype, DTYPES)
    return dtype or default


@dataclass(frozen=True)
class NetworkTask:
    """A network on one data set, on one device.

    Parameters
    ----------
    problem : Problem
        Its `loss`, `batch`, and whether it `reconstructs`.
    net : callable
    train, heldout : tuple (x, y)
        Inputs (N, D) and encoded targets (N, C) on the device.
    dataset : Dataset
        Where they come from.
    """

    problem: Any
    net: Callable
    train: Pair
    heldout: Pair
    dataset: Dataset

    points = 20
    floor = -math.inf

    @property
    def batch(self) -> int:
        """Examples a step: no more than there are."""
        return min(self.problem.batch, len(self.train[0]))

    @property
    def measures(self) -> tuple[str, ...]:
        losses = ("train_loss", "test_loss")
        return losses if self.problem.reconstructs else (*losses, "train_error", "test_error")

    def initial(self, seed: int) -> Params:
        x = self.train[0]
        return self.net.init(rng=seed, dtype=x.dtype, device=backend.device_of(x))

    def objectives(self, params: Params, full_batch: bool, seed: int) -> Same | Shuffled:
        if full_batch:
            return Same(Objective(self.net, self.problem.loss, params, *self.train))
        return Shuffled(self, params, seed)

    def evaluate(self, params: Params) -> dict[str, float]:
        """R on the whole training part and on the held-out part; for classifiers the share of wrong answers too."""
        train, train_error = self.measure(params, *self.train)
        test, test_error = self.measure(params, *self.heldout)
        return dict(zip(self.measures, (train, test, train_error, test_error)))

    def measure(self, params: Params, x: Any, y: Any) -> tuple[float, float]:
        """Mean loss over (x, y), and the share of wrong answers where answers are classes."""
        total, wrong = 0.0, 0
        for start in range(0, len(x), ROWS):
            rows = slice(start, start + ROWS)
            z = self.net(params, x[rows])
            total = total + self.problem.loss.at(z, y[rows]).value().sum(dtype="float64")
            if "train_error" in self.measures:
                wrong = wrong + (z.argmax(-1) != y[rows].argmax(-1)).sum()
        return float(total) / len(x), float(wrong) / len(x)

    def facts(self) -> dict[str, Any]:
        x, y = self.dataset.train
        return {
            "train": len(x),
            "test": len(self.heldout[0]),
            "batch": self.batch,
            "parameters": self.net.size(),
            "fingerprint": zlib.crc32(y.tobytes(), zlib.crc32(x.tobytes())),
        }


# ---------------------------------------------------------------------------------------------------- functions


class Function:
    """A test function; a subclass is a dataclass whose fields are its settings, and has `__call__`.

    Attributes
    ----------
    name, title, source : str
    formula : str
    windows : tuple of str
        ("x", "y") for functions of two numbers, ("theta",) for one vector.
    low, high : float or tuple
        The box that random starts are drawn from.
    minimum : float
        −∞ where there is none; then a run ends when R is below `floor`, and R itself is what is shown.
    minimisers : tuple of (d,) arrays
        All points where the minimum is reached.
    budget : tuple
        Unit and amount of training unless others are asked for.
    """

    name = title = source = formula = ""
    windows: tuple[str, ...] = ("x", "y")
    low: Any = -2.0
    high: Any = 2.0
    minimum: float = 0.0
    minimisers: tuple[np.ndarray, ...] = ()
    floor = -math.inf
    budget = ("steps", 200)
    data, dtype = None, "float64"

    def __call__(self, p: Any, *constants: Any) -> Any:
        """R at the windows p; with p holding arrays, R at many points."""
        raise TypeError(f"{type(self).__name__} has no __call__(p, *constants)")

    @property
    def size(self) -> int:
        """d."""
        return len(self.windows)

    @property
    def settings(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def own_start(self) -> Any:
        """Where one starts by custom, (d,)."""
        raise TypeError(f"{type(self).__name__} has no own_start")

    @property
    def constants(self) -> tuple[np.ndarray, ...]:
        """Arrays that the function is given behind its windows."""
        return ()

    def start(self, rng: Any = None) -> np.ndarray:
        """Where to start, (d,) float64: the function's own start, or with `rng` a random point of its box."""
        if rng is None:
            return np.array(self.own_start, dtype=float)
        return np.random.default_rng(rng).uniform(self.low, self.high, self.size)

    def params(self, theta: Any, dtype: str = "float64", device: str = "cpu") -> Params:
        """θ (d,) under the names of the windows."""
        theta = backend.asarray(np.asarray(theta, dtype=float), device, checked_dtype(dtype, self.dtype))
        if tuple(theta.shape) != (self.size,):
            raise ValueError(f"{self.name} has {self.size} parameters, but the start has shape {tuple(theta.shape)}")
        parts = theta[None] if len(self.windows) == 1 else theta
        return Params({name: parts[k] for k, name in enumerate(self.windows)})

    def at(self, points: np.ndarray) -> np.ndarray:
        """R (…) at many points (d, …), float64 on the host: for contours."""
        flat = np.reshape(points, (self.size, -1))
        parts = flat if len(self.windows) > 1 else [flat]
        return np.reshape(self(dict(zip(self.windows, parts)), *self.constants), np.shape(points)[1:])

    def objective(
        self,
        start: Any = None,
        rng: Any = None,
        dtype: str = "float64",
        device: str = "cpu",
        **settings: Any,
    ) -> Objective:
        """R as an objective.

        Parameters
        ----------
        start : (d,) array, optional
            By default the function's own start, or a random one if `rng` is given.
        rng
            Whatever `numpy.random.default_rng` accepts.
        dtype, device : str
        **settings
            In place of the function's own.

        Examples
        --------
        >>> from optim.lab.functions import rosenbrock, valley
        >>> f = rosenbrock.objective()
        >>> f.params["theta"].tolist(), round(float(f.value), 12)
        ([-1.2, 1.0], 24.2)
        >>> valley.objective(kappa=10.0, rng=0).params
        Params(2 windows, 2 numbers, float64 on cpu)
        """
        chosen = dataclasses.replace(self, **settings) if settings else self
        theta = chosen.start(rng) if start is None else start
        return chosen.open(device=device, dtype=dtype).objective(chosen.params(theta, dtype, device))

    def open(
        self, source: Any = None, device: str = "cpu", dtype: str | None = None, heldout: str = "test"
    ) -> FunctionTask | RegressionTask:
        """The function on a device, float64 unless another dtype is named; nothing is held out.

        Raises
        ------
        UsageError
            Data was given.
        """
        if source is not None:
            raise UsageError(f"{self.name} takes no data: it is a test function; leave --data out")
        backend.module(device)
        return self._task(device, checked_dtype(dtype, self.dtype))

    def _task(self, device: str, dtype: str) -> FunctionTask | RegressionTask:
        return FunctionTask(self, device, dtype, tuple(backend.asarray(c, device, dtype) for c in self.constants))


@dataclass(frozen=True)
class FunctionTask:
    """A function of θ alone, on one device; a `Task`.

    Parameters
    ----------
    problem : Function
    device, dtype : str
    constants : tuple of arrays
        On the device.
    """

    problem: Function
    device: str
    dtype: str
    constants: tuple = ()

    batch = None
    points = 100

    @property
    def floor(self) -> float:
        return self.problem.floor

    @property
    def measures(self) -> tuple[str, ...]:
        return ("train_loss", "gap") if math.isfinite(self.problem.minimum) else ("train_loss",)

    def initial(self, seed: int) -> Params:
        """The function's own start for seed 0, a random one of its box for every other."""
        return self.problem.params(self.problem.start(seed or None), self.dtype, self.device)

    def objective(self, params: Params) -> Objective:
        return Objective(self.problem, params, *self.constants)

    def objectives(self, params: Params, full_batch: bool, seed: int) -> Same | Shuffled:
        return Same(self.objective(params))

    def evaluate(self, params: Params) -> dict[str, float]:
        value = float(self.problem(params, *self.constants))
        return dict(zip(self.measures, (value, value - self.problem.minimum)))

    def facts(self) -> dict[str, Any]:
        p = self.problem
        minimum = p.minimum if math.isfinite(p.minimum) else None
        mark = zlib.crc32(f"{p!r} {p.formula}".encode())
        sizes = {"train": None, "test": None, "batch": None, "parameters": p.size}
        return {**sizes, "formula": p.formula, "minimum": minimum, "fingerprint": mark}


@dataclass(frozen=True)
class RegressionTask(NetworkTask):
    """A regression on one device; a `Task`."""

    heldout: Any = None
    dataset: Any = None

    points = FunctionTask.points
    measures = ("train_loss", "gap")

    def initial(self, seed: int) -> Params:
        """The regression's own start for seed 0, a random one of its box for every other."""
        x = self.train[0]
        return self.problem.params(self.problem.start(seed or None), str(x.dtype), backend.device_of(x))

    def objective(self, params: Params) -> Objective:
        return self.objectives(params, True, 0).at(0)

    def evaluate(self, params: Params) -> dict[str, float]:
        value, _ = self.measure(params, *self.train)
        return {"train_loss": value, "gap": value - self.problem.minimum}

    def facts(self) -> dict[str, Any]:
        found = FunctionTask(self.problem, "cpu", "float64").facts()
        return {**found, "train": len(self.train[0]), "batch": self.batch}
