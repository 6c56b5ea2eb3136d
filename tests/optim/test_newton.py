"""Newton's method: one step on quadratics, order two elsewhere, invariance, and what it does where H is indefinite."""

import numpy as np
import pytest
from cases import chain, host, off

import minigrad as mg
import optim
from minigrad import backend
from optim import Newton, Stopped
from optim.lab import functions
from optim.newton import hessian


def quadratic(a, start, b=None, device="cpu"):
    """½ θᵀAθ − bᵀθ."""
    a, start, b = (
        backend.asarray(np.asarray(v, float), device) for v in (a, start, np.zeros(len(a)) if b is None else b)
    )
    return mg.Objective(
        lambda p, a, b: 0.5 * mg.sum(p["t"] * (a @ p["t"])) - mg.sum(b * p["t"]), mg.Params(t=start), a, b
    )


def symmetric(d, seed=0, positive=True):
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    values = np.geomspace(0.1, 10.0, d) * (1.0 if positive else np.where(np.arange(d) % 3, 1.0, -1.0))
    return (q * values) @ q.T


def walk(method, f, steps):
    """The points that a method visits, the start included, on the host."""
    state = method.init(f.params)
    points = [host(f.params.vector).copy()]
    for _ in range(steps):
        method.step(f, state)
        points.append(host(f.params.vector).copy())
    return np.array(points)


# -------------------------------------------------------------------------------------------------- on quadratics


def test_identity_17_one_step_on_the_decks_quadratic():  # [P]; gradient descent goes to (−2, −½)
    start = [0.5, 0.5]
    assert np.abs(walk(Newton(), quadratic(np.diag([5.0, 2.0]), start), 1)[1]).max() < 2e-16
    assert walk(optim.GD(1.0), quadratic(np.diag([5.0, 2.0]), start), 1)[1].tolist() == [-2.0, -0.5]


@pytest.mark.parametrize("indefinite", ["refuse", "abs", "shift", "keep"])
def test_one_step_solves_a_convex_quadratic(indefinite, device):
    a, (b, start) = symmetric(12), np.random.default_rng(1).standard_normal((2, 12))
    found = walk(Newton(indefinite=indefinite), quadratic(a, start, b, device), 1)[1]
    assert off(found, np.linalg.solve(a, b)) < 1e-13


def test_one_step_is_ridge_regression(device):  # the Hessian of R has the L2 term in it, for W and not for b
    f = chain("squared", hidden=None, sizes=(5, 2), n=30, device=device, l2=0.3)
    x, y = np.column_stack([host(f.args[0]), np.ones(30)]), host(f.targets)
    ridge = np.linalg.solve(2 * x.T @ x / 30 + np.diag([0.3] * 5 + [0.0]), 2 * x.T @ y / 30)
    found = walk(Newton(), f, 1)[1]
    assert off(found, np.concatenate([ridge[:5].T.ravel(), ridge[5]])) < 1e-12


@pytest.mark.parametrize("damping", [0.0, 0.7])
def test_the_step_is_what_its_setting_says(damping, device):
    """Against NumPy: −(H + λI)⁻¹∇, with |μ|, with a shift, with μ as it is."""
    a, start = symmetric(9, positive=False), np.random.default_rng(2).standard_normal(9)
    mu, v = np.linalg.eigh(a)
    g = v.T @ (a @ start)
    lowest = mu[0] + damping
    expected = {
        "abs": -v @ (g / (abs(mu) + damping)),
        "shift": -v @ (g / (mu + damping + abs(lowest) - lowest)),
        "keep": -v @ (g / (mu + damping)),
    }
    for indefinite, step in expected.items():
        method = Newton(0.5, damping, indefinite, line_search="none")
        f = quadratic(a, start, device=device)
        assert off(method.update(f, method.init(f.params)), 0.5 * step) < 1e-12
    positive = symmetric(9)
    method, f = Newton(damping=damping, line_search="none"), quadratic(positive, start, device=device)
    expected = -np.linalg.solve(positive + damping * np.eye(9), positive @ start)
    assert off(method.update(f, method.init(f.params)), expected) < 1e-12


def test_flat_directions_have_a_floor(device):
    """Along an eigenvector with μ = 1e-12 the step is the gradient over √ε·max|μ|, not over μ."""
    a, start = np.diag([4.0, 1e-12]), np.ones(2)
    for indefinite, sign in (("abs", 1), ("shift", 1), ("keep", 1), ("keep", -1)):
        f = quadratic(a * [1, sign], start, [0.0, 1e-9], device)
        step = Newton(indefinite=indefinite, line_search="none")
        found = host(step.update(f, step.init(f.params)))
        assert abs(found[0] + 1.0) < 2e-8
        assert abs(found[1] * sign * 4.0 * 2.0**-26 - (1e-9 - sign * 1e-12)) < 1e-15


# ------------------------------------------------------------------------------------------------------ elsewhere


def test_newton_with_backtracking_is_its_recurrence():
    """On Rosenbrock's function, with its derivatives written by hand."""

    def value(t):
        return 100 * (t[1] - t[0] ** 2) ** 2 + (1 - t[0]) ** 2

    theta, points, halved = np.array([-1.2, 1.0]), [], 0
    for _ in range(12):
        points.append(theta)
        x, y = theta
        g = np.array([-400 * x * (y - x * x) - 2 * (1 - x), 200 * (y - x * x)])
        d = -np.linalg.solve([[1200 * x * x - 400 * y + 2, -400 * x], [-400 * x, 200.0]], g)
        t = 1.0
        while value(theta + t * d) > value(theta) + 1e-4 * t * (g @ d):
            t, halved = t / 2, halved + 1
        theta = theta + t * d
    found = walk(Newton(), functions.rosenbrock.objective(), 11)
    assert halved > 5 and off(found, np.array(points)) < 1e-9


def test_convergence_is_of_order_two():
    f = functions.logistic_regression.objective()
    errors = np.abs(walk(Newton(), f, 7) - functions.logistic_regression.minimisers[0]).max(1)
    errors = errors[errors > 1e-13][-4:]
    orders = np.log(errors[2:] / errors[1:-1]) / np.log(errors[1:-1] / errors[:-2])
    assert len(orders) == 2 and (orders > 1.9).all() and (orders < 2.2).all()
    assert off(f.params.vector, functions.logistic_regression.minimisers[0]) < 1e-13  # to the last digit, R is not 0


def test_newton_does_not_see_affine_coordinates():  # θ = Mφ + c moves as φ does
    rng = np.random.default_rng(3)
    m, c = rng.standard_normal((2, 2)) + 2 * np.eye(2), rng.standard_normal(2)
    start = np.array([-1.2, 1.0])

    def rosenbrock(p):
        x, y = p["t"][0], p["t"][1]
        return 100 * (y - x**2) ** 2 + (1 - x) ** 2

    plain = mg.Objective(rosenbrock, mg.Params(t=start))
    inside = mg.Params(t=np.linalg.solve(m, start - c))
    turned = mg.Objective(lambda p: rosenbrock({"t": mg.matmul(m, p["t"]) + c}), inside)
    points = walk(Newton(), turned, 10) @ m.T + c
    assert off(points, walk(Newton(), plain, 10)) < 1e-10


def test_damping_shortens_the_step_towards_gradient_descent():
    f = functions.rosenbrock.objective()
    steps = []
    for damping in (1e3, 1e6, 1e9):
        method = Newton(damping=damping)
        steps.append(damping * method.update(f, method.init(f.params)))
    assert off(steps[-1], -f.grad) < 1e-5 < off(steps[0], -f.grad)


# --------------------------------------------------------------------------------------------- indefinite Hessians


def test_newton_goes_to_the_saddle_and_its_modulus_leaves_it():
    """x² − y² from (1, 1e-3) [P; Dauphin et al. 2014]."""
    keep = walk(Newton(indefinite="keep", line_search="none"), functions.saddle.objective(), 3)
    assert keep[1:].tolist() == [[0.0, 0.0]] * 3
    for indefinite in ("abs", "shift"):
        points = walk(Newton(indefinite=indefinite), functions.saddle.objective(), 12)
        assert (np.diff(np.abs(points[:, 1])) > 0).all() and abs(points[-1, 1]) > 1
    doubled = walk(Newton(indefinite="abs"), functions.saddle.objective(), 12)
    assert off(doubled[1:], np.column_stack([np.zeros(12), 1e-3 * 2.0 ** np.arange(1, 13)])) < 1e-12


@pytest.mark.parametrize("indefinite", ["abs", "shift"])
def test_the_modulus_lowers_every_loss(indefinite):
    f = chain()
    assert float(backend.eigh(hessian(f))[0][0]) < -0.1
    method = Newton(indefinite=indefinite)
    state = method.init(f.params)
    values = [float(f.value)]
    for _ in range(15):
        method.step(f, state)
        values.append(float(f.value))
    assert (np.diff(values) < 0).all() and values[-1] < 0.5 * values[0]


def refused(method, f, words):
    """The method stops with these words, and θ and the state are what they were, bit for bit."""
    state = method.init(f.params, rng=4)
    theta, before = host(f.params.vector).copy(), dict(state)
    with np.errstate(all="ignore"), pytest.raises(Stopped, match=words) as stop:
        method.step(f, state)
    assert "\n" not in str(stop.value) and state == before
    np.testing.assert_array_equal(host(f.params.vector), theta)


def test_an_indefinite_hessian_is_refused_by_its_eigenvalue(device):
    f = functions.saddle.objective(device=device)
    refused(Newton(), f, "the Hessian has the eigenvalue -2, so with damping 0 .* or a damping above 2$")
    refused(Newton(damping=1.5), f, "the eigenvalue -2, so with damping 1.5 ")
    method = Newton(damping=2.5)
    method.step(f, method.init(f.params))  # y moves by 2y/(2.5 − 2)
    assert off(f.params.vector, np.array([1 - 2 / 4.5, 5e-3])) < 1e-12


def test_a_singular_hessian_is_refused():
    flat = mg.Objective(lambda p: p["x"] ** 2 + p["y"], mg.Params(x=1.0, y=1.0))
    refused(Newton(), flat, "the eigenvalue 0, .* or a damping above 0$")
    line = mg.Objective(lambda p: p["x"] + p["y"], mg.Params(x=1.0, y=1.0))
    refused(Newton(indefinite="abs"), line, "the slope along the step .*; raise the damping")


def test_a_step_up_is_refused():
    hill = mg.Objective(lambda p: -mg.sum(p["t"] ** 2), mg.Params(t=np.ones(2)))
    refused(Newton(indefinite="keep"), hill, "the slope along the direction is 4, so R rises")


def test_nan_is_refused(device):
    for method in (Newton(), Newton(indefinite="abs"), Newton(line_search="none", indefinite="keep")):
        f = chain(device=device)
        refused(method, mg.Objective(f.net, f.loss, f.params, f.args[0] * float("nan"), f.targets), r"R\(θ\) is nan")


def test_a_gradient_that_is_wrong_is_refused():
    kink = mg.Objective(lambda p: mg.where(p["x"] > 0.0, 3.0 * p["x"], -p["x"]) + p["x"] ** 2, mg.Params(x=0.0))
    refused(Newton(), kink, "find no lower R; θ is a minimum to rounding, or the gradient is wrong")


def test_at_a_stationary_point_the_step_is_zero():
    f = functions.rosenbrock.objective(start=(1.0, 1.0))
    for method in (Newton(), Newton(line_search="none"), Newton(indefinite="abs")):
        assert method.update(f, method.init(f.params)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("indefinite", ["abs", "keep", "shift"])
def test_where_the_hessian_is_zero(indefinite):
    flat = mg.Objective(lambda p: mg.sum(mg.abs(p["t"]) * np.array([1.0, 10.0])), mg.Params(t=[3.0, -2.0]))
    still = functions.cubic.objective(start=(0.0, 0.0))
    method = Newton(indefinite=indefinite)
    assert method.update(still, method.init(still.params)).tolist() == [0.0, 0.0]
    with pytest.raises(optim.Stopped, match="the slope along the step .*; raise the damping"):
        method.step(flat, method.init(flat.params))
    assert flat.params.vector.tolist() == [3.0, -2.0]


def test_too_many_parameters_are_refused_before_anything_is_formed():
    params = mg.Params(t=np.zeros(785_000, np.float32))
    words = (
        "Newton: 785,000 parameters make a Hessian of 2.46e.03 GB, and 4,000 is the limit; take HessianFree or LBFGS"
    )
    with pytest.raises(ValueError, match=words):
        Newton().init(params)


def test_bad_settings_are_one_sentence():
    for make, words in [
        (lambda: Newton(lr=0.0), "Newton: lr must be a number of more than 0, not 0.0"),
        (lambda: Newton(damping=-1.0), "Newton: damping must be a number of at least 0, not -1.0"),
        (lambda: Newton(indefinite="no"), "Newton: indefinite must be one of refuse, abs, shift, keep, not 'no'"),
        (lambda: Newton(line_search="wolfe"), "Newton: line_search must be one of backtracking, none, not 'wolfe'"),
    ]:
        with pytest.raises(ValueError, match=words):
            make()


# --------------------------------------------------------------------------------------------------------- H, cost


@pytest.mark.parametrize("loss", ["softmax", "squared"])
def test_the_hessian_is_the_change_of_the_gradient(loss, device):
    f = chain(loss, sizes=(4, 3, 2), device=device, l2=0.2)
    theta, h = host(f.params.vector), 1e-5
    columns = []
    for e in np.eye(len(theta)):
        plus, minus = (host(f.at(backend.asarray(theta + s * h * e, device)).grad) for s in (1, -1))
        columns.append((plus - minus) / (2 * h))
    found = hessian(f)
    assert off(found, np.array(columns)) < 1e-8 and off(found, found.T) == 0.0
    assert f.cost.products == len(theta)


def test_float32_stays_float32(device):
    f = functions.rosenbrock.objective(dtype="float32", device=device)
    for indefinite in ("refuse", "abs", "shift", "keep"):
        method = Newton(indefinite=indefinite)
        assert method.update(f, method.init(f.params)).dtype == np.float32
    method = Newton()
    state = method.init(f.params)
    for _ in range(30):
        method.step(f, state)
    assert off(f.params.vector, np.ones(2, np.float32)) < 1e-5


def test_a_step_waits_twice_and_once_a_trial():
    device_stats = pytest.importorskip("device_stats", reason="counters exist on the CPU device only")
    f = chain("squared", hidden=None, sizes=(4, 2), device="cuda")
    for method, waits in [(Newton(0.5), 3), (Newton(0.5, indefinite="abs"), 3), (Newton(0.5, line_search="none"), 2)]:
        state = method.init(f.params)
        for _ in range(2):
            device_stats.reset()
            method.step(f, state)
        found = device_stats.read()
        assert (found["syncs"], found["h2d"]) == (waits, 0), (method, found)
