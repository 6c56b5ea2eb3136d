"""Test functions: problems without data, whose minimum is known.

Each is an object that can be called like the function that it is, on windows of a `Params` (or on any mapping of
arrays, many points at once), and a problem of the laboratory like the networks. Its settings are the fields of its
class: `rosenbrock.objective(dim=10)`, `minigrad train rosenbrock --set problem.dim=10`.

Two of them are regressions: networks of one layer on a fixed small data set, so that mini-batches, Gauss-Newton and
the methods that look into layers have a problem with a known minimum too.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

import minigrad as mg
from minigrad import backend, losses, nn
from minigrad.params import Params
from optim.base import check_setting

from .tasks import Function, RegressionTask, checked_dtype

SEED = 0  # of rotations and regression data: everybody's are the same

# ---------------------------------------------------------------------------------------------------- quadratics


@dataclass
class Quadratic(Function):
    """½ Σ λᵢ θᵢ², the λᵢ evenly spaced on a logarithmic axis from 1/κ to 1.

    Parameters
    ----------
    kappa : float
        κ = λ_max/λ_min, at least 1.
    dim : int
        d, at least 2.
    """

    kappa: float = 1e3
    dim: int = 1000

    name = "quadratic"
    title = "ill-conditioned, along the axes"
    source = "P; T-3.1.2"
    formula = "½ Σ λᵢ θᵢ², λ from 1/κ to 1"
    windows = ("theta",)

    def __post_init__(self):
        check_setting(self, "kappa", 1)
        check_setting(self, "dim", 2, whole=True)

    @property
    def size(self) -> int:
        return self.dim

    @property
    def own_start(self) -> Any:
        return np.ones(self.dim)

    @property
    def minimisers(self) -> tuple[np.ndarray, ...]:
        return (np.zeros(self.dim),)

    @property
    def constants(self) -> tuple[np.ndarray, ...]:
        """λ (d,)."""
        return (np.geomspace(1.0 / self.kappa, 1.0, self.dim),)

    def __call__(self, p, curvatures):
        return 0.5 * mg.matmul(curvatures, p["theta"] ** 2)


@dataclass
class Rotated(Quadratic):
    """The same, with its axes turned: ½ Σ λᵢ (Qθ)ᵢ² with a fixed random rotation Q."""

    dim: int = 50

    name = "rotated"
    title = "ill-conditioned, along no axis"
    formula = "½ Σ λᵢ (Qθ)ᵢ², Q a rotation, λ from 1/κ to 1"

    @property
    def constants(self) -> tuple[np.ndarray, ...]:
        """λ (d,) and Q (d, d)."""
        normal = np.random.default_rng(SEED).standard_normal((self.dim, self.dim))
        turned, triangle = np.linalg.qr(normal)
        return (*super().constants, turned * np.sign(np.diag(triangle)))  # the sign makes Q unique

    def __call__(self, p, curvatures, rotation):
        return 0.5 * mg.matmul(curvatures, mg.matmul(rotation, p["theta"]) ** 2)


@dataclass
class Valley(Function):
    """½ (u²/κ + v²), with u along a straight valley and v across it.

    Parameters
    ----------
    kappa : float
        κ, at least 1.
    angle : float
        Between the valley and the axis of x, in degrees.
    """

    kappa: float = 50.0
    angle: float = 0.0

    name = "valley"
    title = "long and narrow, in the plane"
    source = "L; P; T-2.1.1"
    formula = "½ (u²/κ + v²), u along and v across the valley"
    low, high = -5.0, 5.0
    own_start = (-4.0, 1.0)
    minimisers = (np.zeros(2),)

    def __post_init__(self):
        check_setting(self, "kappa", 1)
        check_setting(self, "angle", -360, 360)

    def __call__(self, p):
        c, s = math.cos(math.radians(self.angle)), math.sin(math.radians(self.angle))
        u, v = c * p["x"] + s * p["y"], c * p["y"] - s * p["x"]
        return 0.5 * ((1.0 / self.kappa) * u**2 + v**2)


# ------------------------------------------------------------------------------------------------- curved functions


@dataclass
class Rosenbrock(Function):
    """Σ 100 (θᵢ₊₁ − θᵢ²)² + (1 − θᵢ)²; from four dimensions on there is a second, local minimum near (−1, 1, …, 1).

    Parameters
    ----------
    dim : int
        d, at least 2.
    """

    dim: int = 2

    name = "rosenbrock"
    title = "a valley that bends"
    source = "Rosenbrock 1960"
    formula = "Σ 100 (θᵢ₊₁ − θᵢ²)² + (1 − θᵢ)²"
    windows = ("theta",)

    def __post_init__(self):
        check_setting(self, "dim", 2, whole=True)

    @property
    def size(self) -> int:
        return self.dim

    @property
    def own_start(self) -> Any:
        return np.where(np.arange(self.dim) % 2, 1.0, -1.2)

    @property
    def minimisers(self) -> tuple[np.ndarray, ...]:
        return (np.ones(self.dim),)

    def __call__(self, p):
        low, high = p["theta"][:-1], p["theta"][1:]
        return mg.sum(100.0 * (high - low**2) ** 2 + (1.0 - low) ** 2, axis=0)


@dataclass
class Beale(Function):
    """Steep walls around a flat basin; far from the box some descents run off to infinity."""

    name = "beale"
    title = "steep walls, a flat basin"
    source = "Beale 1958; Moré, Garbow & Hillstrom 1981"
    formula = "(1.5 − x + xy)² + (2.25 − x + xy²)² + (2.625 − x + xy³)²"
    low, high = (0.0, -1.0), (4.0, 1.0)
    own_start = (1.0, 1.0)
    minimisers = (np.array([3.0, 0.5]),)

    def __call__(self, p):
        x, y = p["x"], p["y"]
        return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


@dataclass
class Himmelblau(Function):
    """Four minima of equal depth."""

    name = "himmelblau"
    title = "four minima of equal depth"
    source = "Himmelblau 1972"
    formula = "(x² + y − 11)² + (x + y² − 7)²"
    low, high = -5.0, 5.0
    own_start = (0.0, 0.0)
    minimisers = tuple(
        np.array(point)
        for point in (
            (3.0, 2.0),
            (-2.805118086952745, 3.131312518250573),
            (-3.7793102533777469, -3.2831859912861695),
            (3.5844283403304917, -1.8481265269644035),
        )
    )

    def __call__(self, p):
        x, y = p["x"], p["y"]
        return (x**2 + y - 11.0) ** 2 + (x + y**2 - 7.0) ** 2


@dataclass
class Saddle(Function):
    """x² − y²: no minimum, and a saddle at 0 that Newton's method walks to."""

    name = "saddle"
    title = "down on two sides; no minimum"
    source = "P; Dauphin et al. 2014"
    formula = "x² − y²"
    own_start = (1.0, 1e-3)
    minimum, floor = -math.inf, -100.0

    def __call__(self, p):
        return p["x"] ** 2 - p["y"] ** 2


@dataclass
class Cubic(Function):
    """x²y + xy³, the deck's example of a Hessian: [[2y, 2x + 3y²], [2x + 3y², 6xy]]; no minimum."""

    name = "cubic"
    title = "an indefinite Hessian everywhere but at 0; no minimum"
    source = "P"
    formula = "x²y + xy³"
    own_start = (1.0, 0.5)
    minimum, floor = -math.inf, -100.0

    def __call__(self, p):
        x, y = p["x"], p["y"]
        return x**2 * y + x * y**3


# ------------------------------------------------------------------------------------------------------ regressions


class Regression(Function):
    """A network of one layer, z = x Wᵀ + b, on 200 examples of 10 correlated inputs.

    Attributes
    ----------
    loss : losses.Loss
    batch : int
        Examples a step, for methods that take mini-batches.
    """

    loss: losses.Loss
    batch = 20
    examples, inputs = 200, 10
    low, high = -1.0, 1.0
    windows = ("0.W", "0.b")

    def targets(self, rng: np.random.Generator, z: np.ndarray) -> np.ndarray:
        """y (N, 1) for the true model's outputs z (N, 1)."""
        raise TypeError(f"{type(self).__name__} has no targets(rng, z)")

    def solve(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """The minimiser (d,) for inputs x (N, d) whose last column is 1."""
        raise TypeError(f"{type(self).__name__} has no solve(x, y)")

    @property
    def size(self) -> int:
        return self.inputs + 1

    @property
    def own_start(self) -> Any:
        return np.zeros(self.size)

    @functools.cached_property
    def pair(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs (N, 10) and targets (N, 1), float64."""
        rng = np.random.default_rng(SEED)
        n, d = self.examples, self.inputs
        turned = np.linalg.qr(rng.standard_normal((d, d)))[0]
        x = rng.standard_normal((n, d)) @ (np.geomspace(0.1, 1.0, d)[:, None] * turned)
        return x, self.targets(rng, x @ rng.standard_normal((d, 1)) + 0.5)

    @functools.cached_property
    def minimisers(self) -> tuple[np.ndarray, ...]:
        x, y = self.pair
        return (self.solve(np.column_stack([x, np.ones(len(x))]), y[:, 0]),)

    @functools.cached_property
    def minimum(self) -> float:
        return float(self.objective(self.minimisers[0]).value)

    def net(self) -> nn.Sequential:
        return nn.mlp([self.inputs, 1])

    def params(self, theta: Any, dtype: str = "float64", device: str = "cpu") -> Params:
        params = self.net().init(dtype=checked_dtype(dtype, self.dtype), device=device)
        params.vector = backend.asarray(np.asarray(theta, dtype=float), device, params.dtype)
        return params

    def _task(self, device: str, dtype: str) -> RegressionTask:
        x, y = (backend.asarray(a, device, dtype) for a in self.pair)
        return RegressionTask(self, self.net(), (x, y))


@dataclass
class LinearRegression(Regression):
    """Least squares; the minimiser is solved for by orthogonal factors."""

    name = "linear-regression"
    title = "least squares on correlated inputs"
    source = "B; T-1.2"
    formula = "mean (x·w + b − y)² over 200 examples, κ of the Hessian 105"
    loss = losses.squared_error

    def targets(self, rng, z):
        return z + 0.5 * rng.standard_normal(z.shape)

    def solve(self, x, y):
        return np.linalg.lstsq(x, y)[0]


@dataclass
class LogisticRegression(Regression):
    """Yes or no; the minimiser is found once by Newton's method, to the last digit."""

    name = "logistic-regression"
    title = "yes or no on correlated inputs"
    source = "B; T-A.2"
    formula = "mean log(1 + e^z) − yz over 200 examples, z = x·w + b"
    loss = losses.sigmoid_cross_entropy

    def targets(self, rng, z):
        return (rng.random(z.shape) < 1.0 / (1.0 + np.exp(-z))).astype(float)

    def solve(self, x, y):
        theta = np.zeros(x.shape[1])
        for _ in range(20):  # it is convex and not separable; quadratic convergence is over after seven
            p = 1.0 / (1.0 + np.exp(-x @ theta))
            theta = theta - np.linalg.solve((x.T * (p * (1.0 - p))) @ x, x.T @ (p - y))
        return theta


quadratic, rotated, valley = Quadratic(), Rotated(), Valley()
rosenbrock, beale, himmelblau = Rosenbrock(), Beale(), Himmelblau()
saddle, cubic = Saddle(), Cubic()
linear_regression, logistic_regression = LinearRegression(), LogisticRegression()
FUNCTIONS: dict[str, Function] = {
    f.name: f
    for f in (
        quadratic, rotated, valley, rosenbrock, beale, himmelblau, saddle, cubic, linear_regression,
        logistic_regression,
    )
}  # fmt: skip
