"""Test functions: values, gradients and Hessians against SciPy, autograd and closed forms; minima; devices; runs."""

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.optimize
from cases import host, off

import minigrad as mg
import optim
from minigrad import backend
from optim.lab import functions
from optim.lab.errors import UsageError
from optim.lab.functions import FUNCTIONS
from optim.lab.runs import Budget, Comparison, compare

every = pytest.mark.parametrize("name", FUNCTIONS)
BOUNDED = [name for name, f in FUNCTIONS.items() if np.isfinite(f.minimum)]
SMALL = {"quadratic": {"dim": 20}, "rotated": {"dim": 7}, "rosenbrock": {"dim": 5}}


def hessian(f):
    return np.array([host(f.hvp(e)) for e in np.eye(f.params.size)])


def value_at(f, theta):
    return float(f.at(np.asarray(theta, dtype=float)).value)


# ------------------------------------------------------------------------------------- values, gradients, Hessians

REFERENCES = {
    "beale": lambda t: (
        (1.5 - t[0] * (1 - t[1])) ** 2 + (2.25 - t[0] * (1 - t[1] ** 2)) ** 2 + (2.625 - t[0] * (1 - t[1] ** 3)) ** 2
    ),
    "himmelblau": lambda t: (t[0] ** 2 + t[1] - 11) ** 2 + (t[0] + t[1] ** 2 - 7) ** 2,
    "saddle": lambda t: t[0] ** 2 - t[1] ** 2,
    "cubic": lambda t: t[0] ** 2 * t[1] + t[0] * t[1] ** 3,
    "rosenbrock": lambda t: anp.sum(100 * (t[1:] - t[:-1] ** 2) ** 2 + (1 - t[:-1]) ** 2),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_values_gradients_and_hessians_are_autograds(name):
    expected = REFERENCES[name]
    for seed in range(3):
        f = FUNCTIONS[name].objective(rng=seed, **SMALL.get(name, {}))
        theta = f.params.vector
        assert float(f.value) == pytest.approx(float(expected(theta)), rel=1e-13)
        assert off(f.grad, autograd.grad(expected)(theta)) < 1e-12
        assert off(hessian(f), autograd.hessian(expected)(theta)) < 1e-12


def test_rosenbrock_is_scipys():
    for dim in (2, 3, 9):
        f = functions.rosenbrock.objective(rng=dim, dim=dim)
        theta = f.params.vector
        assert float(f.value) == pytest.approx(scipy.optimize.rosen(theta), rel=1e-13)
        assert off(f.grad, scipy.optimize.rosen_der(theta)) < 1e-13
        assert off(hessian(f), scipy.optimize.rosen_hess(theta)) < 1e-13


def test_the_decks_hessian():
    f = functions.cubic.objective(start=(0.3, -1.7))
    x, y = 0.3, -1.7
    expected = np.array([[2 * y, 2 * x + 3 * y**2], [2 * x + 3 * y**2, 6 * x * y]])
    assert off(hessian(f), expected) < 1e-15
    assert np.linalg.det(expected) == pytest.approx(-4 * x**2 - 9 * y**4)  # indefinite everywhere but at 0


@pytest.mark.parametrize("name", ["quadratic", "rotated"])
def test_quadratics_have_the_condition_number_that_they_were_given(name):
    f = FUNCTIONS[name].objective(kappa=1e4, dim=12)
    values, vectors = np.linalg.eigh(hessian(f))
    assert off(values, np.geomspace(1e-4, 1.0, 12)) < 1e-13
    along_axes = np.abs(vectors).max(0).min() > 0.999
    assert along_axes == (name == "quadratic")


def test_the_valley_is_turned_by_its_angle():
    straight, turned = functions.valley, functions.Valley(kappa=8.0, angle=30.0)
    assert off(hessian(straight.objective()), np.diag([1 / 50, 1.0])) < 1e-15
    values, vectors = np.linalg.eigh(hessian(turned.objective()))
    assert off(values, [1 / 8, 1.0]) < 1e-14
    floor = vectors[:, 0] * np.sign(vectors[0, 0])
    assert off(floor, [np.cos(np.pi / 6), 0.5]) < 1e-14


@pytest.mark.parametrize("name", ["linear-regression", "logistic-regression"])
def test_regressions_are_their_formulas(name):
    regression = FUNCTIONS[name]
    x, y = regression.pair
    theta = np.random.default_rng(5).standard_normal(11)
    z, t = x @ theta[:10] + theta[10], y[:, 0]
    expected = np.mean((z - t) ** 2) if name == "linear-regression" else np.mean(np.logaddexp(0, z) - t * z)
    assert value_at(regression.objective(), theta) == pytest.approx(expected, rel=1e-13)
    values = np.linalg.eigvalsh(hessian(functions.linear_regression.objective()))
    assert values[-1] / values[0] == pytest.approx(105, abs=0.5)  # as its formula says


# --------------------------------------------------------------------------------------------------- known minima


@pytest.mark.parametrize("name", BOUNDED)
def test_the_minimum_is_at_the_minimisers_and_nowhere_less(name):
    f = FUNCTIONS[name]
    assert f.minimisers
    for point in f.minimisers:
        at = f.objective(start=point)
        assert float(at.value) == pytest.approx(f.minimum, abs=1e-14)
        assert np.abs(at.grad).max() < 1e-12
        if at.params.size < 100:
            assert np.linalg.eigvalsh(hessian(at)).min() > 0
    for seed in range(20):
        assert float(f.objective(rng=seed).value) > f.minimum


@pytest.mark.parametrize("name", [n for n in BOUNDED if n not in ("quadratic", "rosenbrock")])
def test_scipy_finds_the_known_minimum_from_every_random_start(name):
    f = FUNCTIONS[name]
    at = f.objective()
    for seed in range(5):
        found = scipy.optimize.minimize(
            lambda t: value_at(at, t), f.start(seed), jac=lambda t: at.at(t).grad, method="BFGS", options={"gtol": 1e-7}
        )
        assert found.fun == pytest.approx(f.minimum, abs=1e-10)
        assert min(np.abs(found.x - m).max() for m in f.minimisers) < 1e-3


def test_rosenbrock_has_a_second_minimum_from_four_dimensions_on():
    at = functions.rosenbrock.objective(dim=5)
    start = np.array([-1.0, 1.0, 1.0, 1.0, 1.0])
    found = scipy.optimize.minimize(lambda t: value_at(at, t), start, jac=lambda t: at.at(t).grad, method="BFGS")
    assert found.fun > 3.0 and np.linalg.eigvalsh(hessian(at.at(found.x))).min() > 0


@pytest.mark.parametrize("name", ["saddle", "cubic"])
def test_functions_without_a_minimum_say_so(name):
    f = FUNCTIONS[name]
    assert f.minimum == -np.inf and f.minimisers == ()
    assert value_at(f.objective(), (-50.0, 50.0)) < f.floor or name == "saddle"
    assert value_at(f.objective(), (0.5, 50.0) if name == "saddle" else (-0.5, 50.0)) < f.floor


# --------------------------------------------------------------------------------------- starts, devices, many points


@every
def test_starts(name):
    f = FUNCTIONS[name]
    own = f.start()
    assert own.shape == (f.size,) and off(f.objective().params.vector, own) == 0.0
    starts = [f.start(seed) for seed in range(50)]
    assert all((np.asarray(f.low) <= s).all() and (s <= np.asarray(f.high)).all() for s in starts)
    assert np.ptp(starts, axis=0).min() > 0 and off(f.start(3), starts[3]) == 0.0
    f.start()[...] = 7.0
    assert off(f.start(), own) == 0.0  # a copy


@every
def test_both_devices_compute_the_same(name, device):
    f, there = FUNCTIONS[name].objective(rng=1), FUNCTIONS[name].objective(rng=1, device=device)
    assert there.params.device == device == backend.device_of(there.value)
    assert off(there.value, f.value) < 1e-13 and off(there.grad, f.grad) < 1e-12
    small = FUNCTIONS[name].objective(rng=1, dtype="float32", device=device)
    assert small.value.dtype == small.grad.dtype == np.float32
    assert off(small.grad, f.grad) < 1e-4


@pytest.mark.parametrize("name", ["quadratic", "rotated", "valley", "rosenbrock", "beale", "cubic"])
def test_many_points_at_once(name):
    f = FUNCTIONS[name] if FUNCTIONS[name].size == 2 else type(FUNCTIONS[name])(dim=2)
    x, y = np.meshgrid(np.linspace(-2, 2, 5), np.linspace(-1, 1, 4))
    grid = f.at(np.stack([x, y]))
    assert grid.shape == (4, 5)
    assert grid[2, 3] == pytest.approx(value_at(f.objective(), (x[2, 3], y[2, 3])), rel=1e-14)


def test_settings_make_another_function():
    f = functions.rosenbrock.objective(dim=4)
    assert f.params.vector.tolist() == [-1.2, 1.0, -1.2, 1.0] and functions.rosenbrock.dim == 2
    assert functions.Rosenbrock(3).settings == {"dim": 3}
    assert repr(functions.Valley(angle=10.0)) == "Valley(kappa=50.0, angle=10.0)"


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda: functions.Quadratic(kappa=0.5), "Quadratic: kappa must be a number of at least 1, not 0.5"),
        (lambda: functions.Rotated(dim=1), "Rotated: dim must be a whole number of at least 2, not 1"),
        (lambda: functions.Rosenbrock(2.0), "dim must be a whole number"),
        (lambda: functions.Valley(angle=400), "angle must be"),
        (lambda: functions.beale.objective(start=(1.0, 2.0, 3.0)), "beale has 2 parameters, but the start has shape"),
        (lambda: functions.beale.objective(dtype="float16"), "unknown dtype 'float16'"),
        (lambda: functions.beale.open("digits"), "beale takes no data"),
        (lambda: compare("beale", {"sgd": optim.SGD()}, Budget("epochs", 2)), "beale has no examples, hence no epochs"),
        (lambda: compare("valley", {"acp": optim.ACP()}, Budget("steps", 1)), "acp: a sweep needs a network and its"),
    ],
)
def test_refusals_are_one_sentence(make, words):
    with pytest.raises(ValueError) as refused:
        make()
    assert words in str(refused.value) and "\n" not in str(refused.value)


# ------------------------------------------------------------------------------------------------------------- runs


class Watching(optim.GD):
    """Gradient descent that leaves a mark on its objective."""

    def start(self, params):
        self.seen = []
        return {}

    def update(self, f, state):
        self.seen.append(f)
        return super().update(f, state)


def test_a_run_on_a_function_is_the_method_on_its_objective(device):
    (record,) = compare("rosenbrock", {"momentum": optim.Momentum(1e-3)}, Budget("steps", 30), device=device)
    f = functions.rosenbrock.objective(device=device)
    method = optim.Momentum(1e-3)
    state = method.init(f.params)
    expected = [float(f.value)]
    for _ in range(30):
        method.step(f, state)
        expected.append(float(f.value))
    assert [line["step"] for line in record.lines] == list(range(31))
    assert list(record.lines[0]) == ["method", "step", "seconds", "train_loss", "gap"]
    assert off(np.array([line["train_loss"] for line in record.lines]), np.array(expected)) < 1e-14
    assert record.last["gap"] == record.last["train_loss"]  # the minimum is 0


def test_the_gap_is_what_lies_above_the_minimum():
    class Raised(functions.Valley):
        minimum = 1.0

        def __call__(self, p):
            return super().__call__(p) + 1.0

    (record,) = compare(Raised(), {"gd": optim.GD(1.0)}, Budget("steps", 10))
    assert all(line["gap"] == line["train_loss"] - 1.0 for line in record.lines)


def test_every_step_has_one_objective_until_the_run_is_restored():
    method = Watching(0.1)
    comparison = Comparison(functions.valley.open(), {"gd": method}, Budget("steps", 4))
    run = comparison.runs[0]
    method.seen.clear()
    comparison.train()
    assert len(method.seen) == 4 and len(set(map(id, method.seen))) == 1
    first = run.objectives.at(0)
    run.restore(run.snapshot())
    assert run.objectives.at(0) is not first and run.objectives.at(0).params is run.params


def test_full_batches_share_an_objective_and_mini_batches_do_not():
    task = functions.linear_regression.open()
    params = task.initial(0)
    whole, parts = task.objectives(params, True, 0), task.objectives(params, False, 0)
    assert whole.at(0) is whole.at(1) and len(whole) == 1 and whole.at(0).n == 200
    assert len(parts) == 10 and parts.at(0).n == 20 and parts.at(0) is not parts.at(0)
    mean = np.mean([parts.at(k).grad for k in range(10)], axis=0)  # methods.md, identity 18
    assert off(mean, whole.at(0).grad) < 1e-13


def test_seed_zero_is_the_own_start_and_every_other_a_random_one():
    task = functions.beale.open()
    assert task.initial(0).vector.tolist() == [1.0, 1.0]
    assert off(task.initial(3).vector, functions.beale.start(3)) == 0.0


@pytest.mark.parametrize("name", ["linear-regression", "logistic-regression"])
def test_layer_methods_and_mini_batches_take_regressions(name):
    methods = {"acp": optim.ACP(0.2, alpha=1.0, every=1), "sgd": optim.SGD(0.1), "ubp": optim.UBP(optim.Gradient(0.1))}
    for record in compare(name, methods, Budget("epochs", 8)):
        assert record.lines[-1]["step"] == 80
        gaps = [line["gap"] for line in record.lines]
        assert 0 < gaps[-1] < 0.5 * gaps[0] and min(gaps) > 0


def test_a_run_ends_where_there_is_no_minimum():
    (record,) = compare("saddle", {"gd": optim.GD(0.1)}, Budget("steps", 400))
    assert record.diverged is None and record.stopped == "R is below -100, and saddle has no minimum"
    assert record.lines[-1]["stopped"] is True and record.last["train_loss"] < -100
    assert record.last["step"] < 100 and "gap" not in record.last


def test_an_objective_that_is_nan_from_the_start_diverges_at_once():
    class Nowhere(functions.Beale):
        def __call__(self, p):
            return super().__call__(p) * float("nan")

    (record,) = compare(Nowhere(), {"sgd": optim.SGD(0.1)}, Budget("steps", 5))
    assert record.diverged == "its loss is not finite" and len(record.lines) == 1


def test_nothing_is_asked_of_data():
    with pytest.raises(UsageError, match="leave --data out"):
        compare("valley", {"sgd": optim.SGD()}, Budget("steps", 1), source=mg.data.digits8())
