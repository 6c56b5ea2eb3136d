"""PRONG: its step against autodiff through V U (h − μ) + d, the change of coordinates, and ACP."""

import numpy as np
import pytest
from cases import chain, host, off

import minigrad as mg
import optim
from minigrad import backend


def step_of(method, f, state=None):
    """The windows of one update."""
    return f.params.windows(method.update(f, method.init(f.params) if state is None else state))


def whitening(h, eps):
    """(U, μ) of an input (N, in), in NumPy."""
    centred = h - h.mean(0)
    s, Q = np.linalg.eigh(centred.T @ centred / len(h))
    return (Q / np.sqrt(s + eps)) @ Q.T, h.mean(0)


def whitened_network(f, state):
    """The network in PRONG's coordinates: net(p, x) with V and d as parameters; those parameters at f's θ."""
    U = {name: state[f"{name}.U"] for name in "0123"}
    mu = {name: state[f"{name}.mu"] for name in "0123"}

    def net(p, h, train=False):
        for name in "0123":
            a = (h - mu[name]) @ U[name] @ p[f"{name}.V"].T + p[f"{name}.d"]
            h = mg.tanh(a) if name != "3" else a
        return h

    found = {}
    for name in "0123":
        W, b = f.params[f"{name}.W"], f.params[f"{name}.b"]
        found |= {f"{name}.V": np.linalg.solve(U[name], W.T).T, f"{name}.d": b + W @ mu[name]}
    return net, mg.Params(found)


def canonical(params, state):
    """(W, b) of (V, d): W = V U, b = d − W μ, as a vector in θ's order."""
    parts = []
    for name in "0123":
        W = params[f"{name}.V"] @ state[f"{name}.U"]
        parts += [W.reshape(-1), params[f"{name}.d"] - W @ state[f"{name}.mu"]]
    return np.concatenate(parts)


@pytest.mark.parametrize("n, l2", [(4, 0.0), (30, 0.0), (6, 0.2)])  # both orders of the product
def test_the_step_is_its_formula(n, l2, device):  # T-6.4.2
    f = chain(n=n, l2=l2, device=device)
    step = step_of(optim.PRONG(0.3, 0.5), f)
    for site in f.sweep():
        h, da, W = host(site.h), host(site.da), host(site.W)
        U, mu = whitening(h, 0.5)
        dW = -0.3 * (da.T @ (h - mu) / n + l2 * W) @ U @ U
        assert off(step[f"{site.name}.W"], dW) < 1e-11
        assert off(step[f"{site.name}.b"], -0.3 * da.mean(0) - dW @ mu) < 1e-11


def test_the_change_of_coordinates_keeps_the_function_and_back_it_is_the_identity():  # identity 9
    f = chain(n=12)
    method = optim.PRONG(0.1, 0.05)
    state = method.init(f.params)
    method.update(f, state)
    net, params = whitened_network(f, state)
    assert off(net(params, f.args[0]), f.output) < 1e-12
    assert off(canonical(params, state), f.params.vector) < 1e-12


@pytest.mark.parametrize("loss", ["squared", "softmax", "sigmoid"])
def test_steps_are_gradient_descent_on_the_whitened_network(loss):  # identity 9, with fresh and with stale U and μ
    f = chain(loss, n=12)
    method = optim.PRONG(0.05, 0.1, every=3)
    state = method.init(f.params)
    for _ in range(7):
        after = dict(state)
        delta = method.update(f, after)  # with the U and μ that are now in `after`
        net, params = whitened_network(f, after)
        g = mg.Objective(net, f.loss, params, f.args[0], f.targets)
        params.vector += -0.05 * g.grad
        assert off(canonical(params, after), f.params.vector + delta) < 1e-10
        method.step(f, state)
    h = np.tanh(f.args[0] @ f.params["0.W"].T + f.params["0.b"])
    assert off(state["1.mu"], h.mean(0)) > 1e-4  # they were stale


def test_the_input_of_a_layer_is_white_after_a_refresh(device):
    f = chain(n=40, device=device)
    method = optim.PRONG(0.1, 1e-9)
    state = method.init(f.params)
    method.update(f, state)
    for site in f.sweep():
        white = (host(site.h) - host(state[f"{site.name}.mu"])) @ host(state[f"{site.name}.U"])
        assert off(white.T @ white / f.n, np.eye(white.shape[1])) < 1e-5 and np.abs(white.mean(0)).max() < 1e-10
        assert off(state[f"{site.name}.P"], host(state[f"{site.name}.U"]) @ host(state[f"{site.name}.U"])) < 1e-10


@pytest.mark.parametrize("n", [4, 30])
def test_acp_is_ridge_regression_is_one_step_of_prong(n, device):  # identity 7
    f = chain(n=n, device=device)
    lr, eps = 0.3, 0.7
    prong, acp = (step_of(method, f) for method in (optim.PRONG(lr, eps), optim.ACP(lr, eps, alpha=1.0)))
    assert off(prong.flat, acp.flat) < 1e-10
    for site in f.sweep():
        h, da = host(site.h), host(site.da)
        design = np.hstack([h, np.ones((n, 1))])  # the last column, the bias, is not penalised
        penalty = eps * np.diag([1.0] * h.shape[1] + [0.0])
        solved = np.linalg.solve(design.T @ design / n + penalty, design.T @ (-lr * da) / n).T
        assert off(prong[f"{site.name}.W"], solved[:, :-1]) < 1e-10
        assert off(prong[f"{site.name}.b"], solved[:, -1]) < 1e-10


def test_stale_whitening_is_kept_between_refreshes():
    fs = [chain(n=20, seed=k) for k in range(7)]
    method = optim.PRONG(0.01, 0.3, every=3)
    state = method.init(fs[0].params)
    seen = []
    for f in fs:
        g = mg.Objective(fs[0].net, fs[0].loss, fs[0].params, f.args[0], f.targets)
        method.step(g, state)
        seen.append((state["1.U"].copy(), state["1.mu"].copy()))
    for part in (0, 1):
        changed = [bool((a[part] != b[part]).any()) for a, b in zip(seen, seen[1:])]
        assert changed == [False, False, True, False, False, True]


@pytest.mark.parametrize("c", [7.0, 0.1])
def test_loss_scale_is_undone_by_the_rate(c):  # identity 12: rate ÷ c, ε kept
    f = chain("squared", n=12)
    y = f.loss.encode(f.targets, f.output)
    g = mg.Objective(f.net, lambda z, y: c * f.loss(z, y), f.params, f.args[0], y)
    assert off(step_of(optim.PRONG(0.3 / c, 0.4), g).flat, step_of(optim.PRONG(0.3, 0.4), f).flat) < 1e-11


def test_ubp_goes_over_it(device):
    f = chain(n=20, device=device)
    inner = optim.PRONG(0.05, 0.3)
    plain, edited = step_of(inner, f), step_of(optim.UBP(inner), f)
    assert off(edited["3.W"], plain["3.W"]) < 1e-13 and off(edited["0.W"], plain["0.W"]) > 1e-6


def test_bad_input_is_one_sentence():
    f = chain(n=1)
    for method in (optim.PRONG(0.1), optim.ACP(0.1)):
        with pytest.raises(ValueError, match="covariance of the input of layer '3' needs more than one example"):
            method.update(f, method.init(f.params))
    g = chain()
    g.args[0][0, 0] = np.nan
    method = optim.PRONG(0.1)
    with pytest.raises(backend.FactorisationError, match="layer '3': the matrix holds NaN"):
        method.update(g, method.init(g.params))
    for make, message in [
        (lambda: optim.PRONG(eps=0.0), "PRONG: eps must be a number of more than 0"),
        (lambda: optim.PRONG(every=0), "PRONG: every must be a whole number"),
        (lambda: optim.PRONG(lr=-1.0), "PRONG: lr must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_a_refresh_waits_once_a_layer_and_other_steps_never():
    device_stats = pytest.importorskip("device_stats", reason="counters exist on the CPU device only")
    f = chain("squared", n=20, device="cuda")
    method = optim.PRONG(0.05, 0.3)
    state, found = method.init(f.params), []
    for _ in range(3):
        device_stats.reset()
        method.step(f, state)
        counts = device_stats.read()
        found.append((counts["syncs"], counts["d2h"], counts["h2d"]))
    assert found == [(4, 4, 0), (0, 0, 0), (0, 0, 0)]
