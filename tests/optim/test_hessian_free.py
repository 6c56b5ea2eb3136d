"""Hessian-free optimization against dense linear algebra, SciPy's CG and a second writing of the algorithm."""

import math

import numpy as np
import pytest
from cases import chain, host, off
from scipy.sparse.linalg import LinearOperator
from scipy.sparse.linalg import cg as scipy_cg

import minigrad as mg
import optim
from minigrad import backend, losses, nn, ops
from optim import cg
from optim.hessian_free import preconditioner


def spd(d, kappa, seed=0):
    """A symmetric matrix with eigenvalues from 1 to κ."""
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((d, d)))
    a = (q * np.geomspace(1, kappa, d)) @ q.T
    return 0.5 * (a + a.T)


def quadratic(a, seed=1, device="cpu"):
    """(½ θᵀAθ − bᵀθ from a random θ, its least value)."""
    rng = np.random.default_rng(seed)
    b, start = rng.standard_normal((2, len(a)))
    params = mg.Params(t=backend.asarray(start, device))
    matrix, rhs = backend.asarray(a, device), backend.asarray(b, device)
    f = mg.Objective(lambda p, a, b: 0.5 * mg.sum(p["t"] * (a @ p["t"])) - mg.sum(b * p["t"]), params, matrix, rhs)
    return f, -0.5 * b @ np.linalg.solve(a, b)


def least_squares(device="cpu", n=30, sizes=(7, 3)):
    """A linear network with squared error, whose Gauss-Newton matrix is the Hessian."""
    return chain("squared", hidden=None, sizes=sizes, n=n, device=device)


def dense(product, d):
    return np.array([host(product(e)) for e in np.eye(d)])


# ------------------------------------------------------------------------------------------- conjugate gradients


@pytest.mark.parametrize("with_diagonal", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_iterates_are_those_of_scipy(warm, with_diagonal, device):
    rng = np.random.default_rng(4)
    a, (g, x0), m = spd(30, 50.0), rng.standard_normal((2, 30)), 0.5 + rng.random(30)
    expected = []
    inverse = LinearOperator((30, 30), matvec=lambda v: v / m) if with_diagonal else None
    scipy_cg(a, -g, x0 if warm else None, rtol=0, maxiter=15, M=inverse, callback=lambda x: expected.append(x.copy()))
    matrix = backend.asarray(a, device)
    for i in range(1, 16):
        start = backend.asarray(0.0 * x0 if not warm else x0, device)
        diagonal = backend.asarray(m, device) if with_diagonal else None
        found = cg.minimise(lambda v: matrix @ v, backend.asarray(g, device), start, diagonal, 0, i)
        if found:  # a warm start may take a few iterations to come under φ = 0
            assert found[-1].i == i and off(found[-1].x, expected[i - 1]) < 1e-10
            x = host(found[-1].x)
            assert abs(found[-1].slope / (g @ x) - 1) < 1e-11
            assert abs(found[-1].model / (g @ x + 0.5 * x @ a @ x) - 1) < 1e-11
    assert found


def test_kept_iterates_are_powers_of_1_3_and_the_last():
    a, g = spd(60, 1e3), np.random.default_rng(0).standard_normal(60)
    found = cg.minimise(lambda v: a @ v, g, None, None, 0, 40)
    assert [it.i for it in found] == [1, 2, 3, 4, 5, 7, 9, 11, 14, 18, 24, 31, 40]
    again = cg.minimise(lambda v: a @ v, g, None, None, 0, 9)
    assert off(again[-1].x, found[6].x) == 0.0  # kept as it was, not what it became


def test_the_progress_rule_is_martens():
    a, g = spd(200, 1e4), np.random.default_rng(2).standard_normal(200)
    models = [0.0] + [cg.minimise(lambda v: a @ v, g, None, None, 0, i)[-1].model for i in range(1, 151)]

    def stops(i, tol):
        k = max(10, math.ceil(0.1 * i))
        return i > k and models[i] < 0 and (models[i] - models[i - k]) / models[i] < k * tol

    ends = []
    for tol in (1e-3, 1e-2, 5e-4):
        expected = next(i for i in range(1, 151) if stops(i, tol))
        ends.append(expected)
        assert cg.minimise(lambda v: a @ v, g, None, None, tol, 400)[-1].i == expected
    assert min(ends) > 10 and max(ends) > 100  # both kinds of k were met


def test_without_the_rule_it_goes_on_to_rounding_level():
    a, g = spd(25, 100.0), np.random.default_rng(3).standard_normal(25)
    last = cg.minimise(lambda v: a @ v, g, None, None, 0, 400)[-1]
    assert last.i < 60 and off(last.x, -np.linalg.solve(a, g)) < 1e-13


def test_a_start_at_the_solution_is_it():
    a, g = np.diag([1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.0])
    (only,) = cg.minimise(lambda v: a @ v, g, -np.ones(3))
    assert only.i == 0 and only.x.tolist() == [-1.0, -1.0, -1.0] and (only.slope, only.model) == (-7.0, -3.5)


def test_negative_curvature_ends_it_where_it_is(device):
    c = backend.asarray(np.array([3.0, 2.0, -0.1]), device)
    g = backend.asarray(np.array([1.0, 1.0, 0.01]), device)
    found = cg.minimise(lambda v: c * v, g, tol=0)
    assert [it.i for it in found] == [1, 2]  # the third direction is the bad one
    basis = np.stack([host(g), host(c * g)])
    small = np.linalg.solve(basis @ (host(c) * basis).T, -basis @ host(g))
    assert off(found[-1].x, small @ basis) < 1e-12  # the stationary point of φ in the space before it
    assert not cg.minimise(lambda v: -v, g, 0.1 * g, tol=0)
    downhill = cg.minimise(lambda v: -v, g, tol=0)  # no positive curvature at all: the first direction
    assert off(downhill[0].x, -host(g)) == 0.0
    gg = float(g.dot(g))
    assert abs(downhill[0].slope + gg) < 1e-14 and abs(downhill[0].model + 1.5 * gg) < 1e-14


# ----------------------------------------------------------------------------------------------------- the method


@pytest.mark.parametrize("d, kappa", [(5, 10.0), (20, 100.0), (50, 1e3)])
def test_one_undamped_step_solves_a_quadratic(d, kappa, device):  # identity 15
    f, least = quadratic(spd(d, kappa), device=device)
    before = float(f.value)
    method = optim.HessianFree(damping=0.0, curvature="hessian", tol=0.0)
    method.step(f, method.init(f.params))
    assert abs(float(f.value) - least) / (before - least) < 1e-13


def test_with_the_progress_rule_a_step_leaves_a_gap():  # identity 15: seen 1e-7 at κ = 100, 3e-4 at κ = 1000
    gaps = []
    for seed in range(10):
        f, least = quadratic(spd(50, 1e3, seed), seed)
        before = float(f.value)
        method = optim.HessianFree(damping=0.0, curvature="hessian")
        method.step(f, method.init(f.params))
        gaps.append((float(f.value) - least) / (before - least))
    assert 1e-6 < np.median(gaps) < 1e-2 and max(gaps) < 1e-2


@pytest.mark.parametrize("preconditioned", [False, True])
def test_one_step_solves_linear_least_squares(preconditioned, device):
    f = least_squares(device)
    x, y = host(f.args[0]), host(f.targets)
    ones = np.c_[x, np.ones(len(x))]
    solution = np.linalg.lstsq(ones, y, rcond=None)[0]
    method = optim.HessianFree(damping=0.0, tol=0.0, preconditioned=preconditioned)
    method.step(f, method.init(f.params))
    assert off(f.params["0.W"], solution[:-1].T) < 1e-12 and off(f.params["0.b"], solution[-1]) < 1e-12


def test_on_a_quadratic_rho_is_one_whatever_the_damping():
    f, _ = quadratic(spd(8, 20.0))
    method = optim.HessianFree(damping=30.0, curvature="hessian")
    state = method.init(f.params)
    for k in range(1, 6):
        method.step(f, state)
        assert abs(state["damping"] / (30.0 * (2 / 3) ** k) - 1) < 1e-14


def test_rho_is_that_of_the_model_without_damping():
    f = mg.Objective(lambda p: 0.5 * p["x"] ** 2 - p["x"] + 2.4 * p["x"] ** 4, mg.Params(x=0.0))
    method = optim.HessianFree(damping=1.0, curvature="hessian")
    state = method.init(f.params)
    method.step(f, state)  # d = ½; R falls by 0.225; the model says 0.375, with damping 0.25
    assert abs(float(f.params["x"]) - 0.5) < 1e-15 and state["damping"] == 1.0


def test_a_step_that_overshoots_is_shortened_and_raises_the_damping(device):
    params = mg.Params(x=3.0).to(device)
    f = mg.Objective(lambda p: mg.sqrt(1.0 + p["x"] ** 2), params)  # Newton's step is −x − x³
    method = optim.HessianFree(damping=1e-3, curvature="hessian")
    state = method.init(f.params)
    before = float(f.value)
    d = -3 / math.sqrt(10) / (10**-1.5 + 1e-3)
    method.step(f, state)
    assert abs(state["damping"] / 1.5e-3 - 1) < 1e-14 and float(f.value) < before
    assert abs(float(f.params["x"]) - (3 + d / 8)) < 1e-12  # halved three times
    assert abs(float(state["d"][0]) / d - 1) < 1e-12  # the next CG starts from the whole of it


def reference(f, steps, damping, decay=0.95, tol=5e-4, limit=60):
    """The algorithm once more, dense and without anything of this project but R, ∇R and the matrix of G."""
    theta, d = host(f.params.vector).copy(), None
    points = [theta.copy()]
    for _ in range(steps):
        here = f.at(theta)
        g, value, big_g = here.grad, float(here.value), dense(here.ggnvp, len(theta))
        rows = [mg.Objective(f.net, f.loss, here.params, x[None], y[None]).grad for x, y in zip(*f.args, f.targets)]
        m = (np.mean(np.square(rows), 0) + damping) ** 0.75
        a = big_g + damping * np.eye(len(theta))
        x = np.zeros_like(theta) if d is None else decay * d
        r = -g - a @ x
        p, phis, kept, store = r / m, [g @ x + 0.5 * x @ a @ x], [], {math.ceil(1.3**j) for j in range(40)}
        for i in range(1, limit + 1):
            alpha = (r @ (r / m)) / (p @ a @ p)
            x, new = x + alpha * p, r - alpha * (a @ p)
            p = new / m + (new @ (new / m)) / (r @ (r / m)) * p
            r = new
            phis.append(g @ x + 0.5 * x @ a @ x)
            k = max(10, math.ceil(i / 10))
            stop = i > k and phis[i] < 0 and (phis[i] - phis[i - k]) / phis[i] < k * tol
            if phis[i] < 0 and (i in store or stop or i == limit):
                kept.append(x)
            if stop:
                break
        best = len(kept) - 1
        while best and float(f.at(theta + kept[best - 1]).value) < float(f.at(theta + kept[best]).value):
            best -= 1
        went_back = best < len(kept) - 1
        step, t = kept[best], 1.0
        rho = (float(f.at(theta + step).value) - value) / (g @ step + 0.5 * step @ big_g @ step)
        while float(f.at(theta + t * step).value) > value + 1e-4 * t * (g @ step):
            t /= 2
        damping *= 1.5 if rho < 0.25 else 2 / 3 if rho > 0.75 else 1
        d, theta = kept[-1], theta + t * step
        points.append(theta.copy())
    return np.array(points), damping, d, went_back


@pytest.mark.parametrize("loss, damping, steps", [("softmax", 0.3, 5), ("squared", 10.0, 3)])
def test_a_run_is_that_of_a_second_writing(loss, damping, steps):  # few steps: CG makes much of rounding
    f = chain(loss, sizes=(4, 6, 3), n=12)
    expected, last, d, went_back = reference(f, steps, damping)
    method = optim.HessianFree(damping, max_iterations=60)
    state, points = method.init(f.params), [f.params.vector.copy()]
    for _ in range(steps):
        method.step(f, state)
        points.append(f.params.vector.copy())
    assert off(np.array(points), expected) < 1e-10 and abs(state["damping"] / last - 1) < 1e-12
    assert went_back and off(state["d"], d) < 1e-5  # the next CG starts from what this one ended with


def test_mini_batches_share_a_state(device):
    batches = [chain(device=device, seed=k, n=20) for k in range(3)]
    for f in batches[1:]:
        f.params = batches[0].params
    method = optim.HessianFree()
    state = method.init(batches[0].params)
    for k in range(9):
        f = batches[k % 3]
        before = float(f.value)
        method.step(f, state)
        assert float(f.value) < before


def test_it_leaves_a_saddle_that_it_can_see(device):
    params = mg.Params(x=1.0, y=1e-3).to(device)
    f = mg.Objective(lambda p: p["x"] ** 2 - p["y"] ** 2, params)
    method = optim.HessianFree(damping=0.0, curvature="hessian", max_iterations=5)
    state = method.init(f.params)
    for _ in range(12):
        method.step(f, state)
    assert float(f.value) < -1.0


def test_at_a_stationary_point_the_step_is_zero(device):
    params = mg.Params(x=0.0, y=0.0).to(device)
    f = mg.Objective(lambda p: p["x"] ** 2 - p["y"] ** 2, params)
    method = optim.HessianFree(curvature="hessian")
    state = method.init(f.params)
    assert host(method.update(f, state)).tolist() == [0.0, 0.0] and state["damping"] == 1.0


# ------------------------------------------------------------------------------------------------ preconditioner


def test_the_preconditioner_is_the_mean_of_the_squared_gradients(device):
    f = chain(n=7, device=device)
    rows = []
    for n in range(7):
        one = mg.Objective(f.net, f.loss, f.params, f.args[0][n : n + 1], f.targets[n : n + 1])
        rows.append(host(one.grad))
    assert off(preconditioner(f, 0.01), (np.mean(np.square(rows), 0) + 0.01) ** 0.75) < 1e-13


def test_the_preconditioner_without_a_site_takes_the_mean_gradient():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((3, 4)), "0.b": rng.standard_normal(3), "scale": np.ones(3)})
    net = lambda p, x: mg.tanh(ops.affine(x, p["0.W"], p["0.b"])) * p["scale"]  # noqa: E731
    f = mg.Objective(net, losses.squared_error, params, rng.standard_normal((6, 4)), rng.standard_normal((6, 3)))
    m = f.params.windows(preconditioner(f, 0.1))
    assert off(m["scale"], (f.grad_of("scale") ** 2 + 0.1) ** 0.75) < 1e-13


def test_a_unit_that_never_fires_does_not_divide_by_zero():
    f = chain("squared", hidden="relu", sizes=(4, 5, 2), n=10)
    f.params["0.b"][2] = -1e3
    f.params.vector += 0.0
    before = float(f.value)
    method = optim.HessianFree(damping=0.0)
    method.step(f, method.init(f.params))
    assert np.isfinite(f.params.vector).all() and float(f.value) < before


def test_preconditioning_saves_iterations_where_scales_differ():
    products = []
    for preconditioned in (True, False):
        f = least_squares(n=200, sizes=(60, 1))
        f.args[0][...] *= np.geomspace(1, 100, 60)  # inputs in other units
        method = optim.HessianFree(damping=0.0, tol=0.0, max_iterations=1000, preconditioned=preconditioned)
        method.step(f, method.init(f.params))
        products.append(f.cost.products)
    assert products[0] < 0.3 * products[1]  # seen: 50 and 211


# ------------------------------------------------------------------------------------------------------- refusals


def test_bad_input_is_one_sentence():
    for make, message in [
        (lambda: optim.HessianFree(damping=-1.0), "HessianFree: damping must be a number of at least 0, not -1.0"),
        (lambda: optim.HessianFree(tol=-1e-4), "tol must be a number of at least 0"),
        (lambda: optim.HessianFree(decay=1.0), "decay must be a number of at least 0 and less than 1, not 1.0"),
        (lambda: optim.HessianFree(max_iterations=0), "max_iterations must be a whole number of at least 1, not 0"),
        (lambda: optim.HessianFree(curvature="fisher"), "curvature must be one of ggn, hessian, not 'fisher'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    f, _ = quadratic(spd(3, 2.0))
    method = optim.HessianFree()
    with pytest.raises(ValueError, match="on a plain function set curvature='hessian'"):
        method.step(f, method.init(f.params))


@pytest.mark.parametrize("what", ["value", "product"])
def test_nan_stops_it_with_everything_as_it_was(what, device):
    f = chain(device=device)
    method = optim.HessianFree()
    state = method.init(f.params)
    method.step(f, state)
    if what == "value":
        f.args[0][0, 0] = np.nan
        f.params.vector += 0.0
        message = "R.θ. is nan"
    else:
        f.ggnvp = lambda v: v * np.nan
        message = "a product of the curvature with a vector is not finite"
    theta, kept = host(f.params.vector).copy(), {"d": host(state["d"]).copy(), "damping": state["damping"], "t": 1}
    with pytest.raises(optim.Stopped, match=message):
        method.step(f, state)
    assert (host(f.params.vector) == theta).all() and (host(state["d"]) == kept["d"]).all()
    assert all(state[k] == kept[k] for k in ("damping", "t"))


def test_a_trial_that_overflows_is_gone_back_from():
    params = mg.Params(x=np.array([0.0, 1.0]))
    f = mg.Objective(lambda p: mg.sum(mg.exp(-p["x"]) + mg.exp(200.0 * (p["x"] - 2.0))), params)
    method = optim.HessianFree(damping=0.0, curvature="hessian")
    state, before = method.init(f.params), float(f.value)
    for _ in range(5):
        method.step(f, state)
    assert float(f.value) < before - 0.5


# ---------------------------------------------------------------------------------------------------------- waits


@pytest.fixture
def on_device():
    device_stats = pytest.importorskip("device_stats", reason="counters exist on the CPU device only")
    return device_stats, chain(
        "squared", sizes=(6, 8, 4, 3), n=20, device="cuda"
    )  # labels would be checked on the host


def test_it_waits_for_what_it_decides_and_no_more(on_device):
    device_stats, f = on_device
    method = optim.HessianFree()
    state = method.init(f.params)
    for _ in range(3):
        start = (f.cost.forwards, f.cost.products) if f.graph() else None
        warm = state["t"] > 0
        device_stats.reset()
        method.step(f, state)
        found = device_stats.read()
        trials, iterations = f.cost.forwards - start[0], f.cost.products - start[1] - warm
        assert found["syncs"] == found["d2h"] == 3 + iterations + trials  # R and ∇R; CG's start; ‖d‖²
        assert found["h2d"] == 0


def test_lecun_waits_for_nothing(on_device):
    device_stats, f = on_device
    method = optim.LeCun(every=2, iterations=2)
    state = method.init(f.params)
    found = []
    for _ in range(4):
        device_stats.reset()
        method.step(f, state)
        found.append(device_stats.read())
    assert [(s["syncs"], s["d2h"]) for s in found] == [(0, 0)] * 4
    assert [s["h2d"] for s in found] == [1, 0, 0, 0]  # the first direction


def test_a_network_in_float32_stays_in_it(device):
    rng = np.random.default_rng(0)
    net = nn.mlp([8, 6, 3], hidden="sigmoid")
    x = backend.asarray(rng.random((20, 8), dtype=np.float32), device)
    y = backend.asarray(rng.integers(0, 3, 20), device)
    f = mg.Objective(net, losses.softmax_cross_entropy, net.init(rng=0, device=device), x, y)
    method = optim.HessianFree()
    state, before = method.init(f.params), float(f.value)
    for _ in range(5):
        method.step(f, state)
    assert state["d"].dtype == f.params.dtype == np.float32 and float(f.value) < 0.9 * before
