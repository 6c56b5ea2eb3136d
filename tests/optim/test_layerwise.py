"""Layer rules: centred gradients, ACP as a ridge regression, what Layerwise keeps for all of them."""

import numpy as np
import pytest
from cases import chain, host, off

import minigrad as mg
import optim
from minigrad import backend
from optim.layerwise import Memory


def step_of(method, f, state=None):
    """The windows of one update."""
    return f.params.windows(method.update(f, method.init(f.params) if state is None else state))


def sites_of(f):
    return {site.name: site for site in f.sweep()}


@pytest.mark.parametrize("loss", ["squared", "softmax"])
def test_centred_is_its_formula(loss, device):  # T-alg 3
    f = chain(loss, device=device)
    step = step_of(optim.Centred(0.3), f)
    for name, site in sites_of(f).items():
        h, da = host(site.h), host(site.da)
        assert off(step[f"{name}.W"], -0.3 * da.T @ (h - h.mean(0)) / f.n) < 1e-13
        assert off(step[f"{name}.b"], -0.3 * da.mean(0)) < 1e-13


@pytest.mark.parametrize("n", [4, 30])  # fewer and more examples than units: both orders of the product
@pytest.mark.parametrize("l2", [0.0, 0.2])
def test_acp_is_ridge_regression(n, l2, device):  # identity 7, T-6.1.1
    lr, eps = 0.3, 0.7
    f = chain(n=n, l2=l2, device=device)
    step = step_of(optim.ACP(lr, eps, alpha=1.0), f)
    for name, site in sites_of(f).items():
        h, da, W = host(site.h), host(site.da), host(site.W)
        design = np.hstack([h, np.ones((n, 1))])  # the last column, the bias, is not penalised
        penalty = eps * np.diag([1.0] * h.shape[1] + [0.0])
        right = design.T @ (-lr * da) / n
        right[:-1] -= lr * l2 * W.T
        solved = np.linalg.solve(design.T @ design / n + penalty, right).T
        assert off(step[f"{name}.W"], solved[:, :-1]) < 1e-10
        if not l2:
            assert off(step[f"{name}.b"], solved[:, -1]) < 1e-10


def test_acp_solution_is_a_minimum_of_the_local_criterion():  # T-6.1.1 itself
    f = chain(n=12)
    step = step_of(optim.ACP(0.3, 0.7, alpha=1.0), f)
    site = sites_of(f)["1"]

    def criterion(dW, db):
        moved = site.h @ dW.T + db + 0.3 * site.da
        return (moved**2).sum() / f.n + 0.7 * (dW**2).sum()

    best = criterion(step["1.W"], step["1.b"])
    rng = np.random.default_rng(0)
    for _ in range(20):
        away = criterion(
            step["1.W"] + 1e-3 * rng.standard_normal(site.W.shape),
            step["1.b"] + 1e-3 * rng.standard_normal(len(site.b)),
        )
        assert away > best


def test_acp_with_alpha_scales_rate_and_damping():  # C + (ε/α) I and λ/α
    f = chain()
    a = step_of(optim.ACP(0.3, 0.7, alpha=0.5), f)
    b = step_of(optim.ACP(0.6, 1.4, alpha=1.0), f)
    assert off(a.flat, b.flat) < 1e-12


def test_alpha_max_is_the_largest_squared_signal_of_the_layer(device):
    f = chain(device=device)
    step = step_of(optim.ACP(0.3, 0.7, alpha="max", alpha_floor=1e-9), f)
    for name, site in sites_of(f).items():
        alpha = float((host(site.da) ** 2).max())
        fixed = step_of(optim.ACP(0.3, 0.7, alpha=alpha), f)
        assert off(step[f"{name}.W"], fixed[f"{name}.W"]) < 1e-11
    floored = step_of(optim.ACP(0.3, 0.7, alpha="max", alpha_floor=10.0), f)
    assert off(floored.flat, step_of(optim.ACP(0.3, 0.7, alpha=10.0), f).flat) < 1e-11


def test_acp_tends_to_the_centred_gradient_as_damping_grows():  # identity 8
    f = chain()
    centred = step_of(optim.Centred(1.0), f)
    gaps = []
    for eps in (1e3, 1e5):
        acp = step_of(optim.ACP(1.0, eps, alpha=1.0), f)
        gaps.append(max(off(eps * acp[f"{k}.W"], centred[f"{k}.W"]) for k in range(4)))
    assert gaps[1] < 1e-4 and gaps[1] < gaps[0] / 50


def scaled(f, c):
    """The same objective with its loss multiplied by c, as a plain function of logits."""
    loss = f.loss
    return mg.Objective(f.net, lambda z, y: c * loss(z, y), f.params, f.args[0], loss.encode(f.targets, f.output))


def test_loss_scale_is_undone_by_the_stated_settings():  # identity 12
    f, c = chain("squared"), 7.0
    g = scaled(f, c)
    pairs = [
        (optim.Gradient(0.3), optim.Gradient(0.3 / c)),
        (optim.Centred(0.3), optim.Centred(0.3 / c)),
        (optim.ACP(0.3, 0.7, alpha=2.0), optim.ACP(0.3 / c, 0.7, alpha=2.0)),
        (optim.ACP(0.3, 0.7, alpha_floor=1e-6), optim.ACP(0.3 * c, 0.7 * c * c, alpha_floor=1e-6 * c * c)),
        (optim.UBP(optim.Gradient(0.3)), optim.UBP(optim.Gradient(0.3 / c))),
        (optim.UBP(optim.Centred(0.3), mode="hessian"), optim.UBP(optim.Centred(0.3 / c), mode="hessian")),
    ]
    for of_f, of_g in pairs:
        assert off(step_of(of_g, g).flat, step_of(of_f, f).flat) < 1e-11


def test_inverses_are_stale_between_refreshes():
    f = chain(n=20)
    method = optim.ACP(0.01, 0.7, alpha="max", every=3)
    state = method.init(f.params)
    seen = []
    for _ in range(7):
        method.step(f, state)
        seen.append(state["1.P"].copy())
    changed = [off(a, b) > 0 for a, b in zip(seen, seen[1:])]
    assert changed == [False, False, True, False, False, True]  # refreshed at t = 0, 3, 6


def test_moving_statistics_start_with_the_first_batches_in_full():
    fs = [chain(n=20, seed=k) for k in range(3)]
    method = optim.ACP(0.1, 0.7, alpha=1.0, rho=0.9, stats_every=1, every=1)
    state = method.init(fs[0].params)
    seconds = []
    for f in fs:
        method.update(f, state)
        state["t"] += 1
        seconds.append(host(f.args[0]).T @ host(f.args[0]) / 20)
    assert off(state["0.second"], sum(seconds) / 3) < 1e-13  # 1 − 1/k is below ρ: a plain average so far
    first = state["0.first"]
    C = state["0.second"] - np.outer(first, first)
    assert off(state["0.P"], np.linalg.inv(C + 0.7 * np.eye(len(C)))) < 1e-10


def test_stats_every_skips_steps():
    f = chain(n=20)
    method = optim.ACP(0.1, rho=0.9, stats_every=4, every=4)
    state = method.init(f.params)
    for _ in range(9):
        method.step(f, state)
    assert state["0.k"] == 3


class Doubling(optim.Gradient):
    """A user's own rule in two lines."""

    def rule(self, site, memory, t):
        memory["seen"] = t
        return 2.0 * site.gradient(-self.lr)[0], site.gradient(-self.lr)[1]


def test_a_users_rule_may_return_arrays_of_its_own():
    f = chain()
    method = Doubling(0.1)
    state = method.init(f.params)
    step = step_of(method, f, state)
    assert off(step["1.W"], -0.2 * f.grad_of("1.W")) < 1e-13 and off(step["1.b"], -0.1 * f.grad_of("1.b")) < 1e-13
    assert state["1.seen"] == 0


def gained(p, x, train=False):
    """A network with a parameter that is no layer's, and weights outside any site."""
    return mg.dense(mg.tanh(mg.dense(x, p["0.W"], p["0.b"]) * p["gain"]), p["1.W"], p["1.b"]) + mg.sum(p["free.W"])


def gained_objective(l2=0.0):
    rng = np.random.default_rng(0)
    shapes = {"0.W": (4, 3), "0.b": (4,), "gain": (4,), "1.W": (2, 4), "1.b": (2,), "free.W": (2, 2)}
    params = mg.Params({name: rng.standard_normal(shape) for name, shape in shapes.items()})
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    return mg.Objective(gained, mg.losses.squared_error, params, x, y, l2=l2)


def test_parameters_without_a_site_take_a_gradient_step():
    f = gained_objective(l2=0.3)
    grads = f.params.windows(f.grad)
    step = step_of(optim.ACP(0.1, alpha=1.0), f)
    assert off(step["gain"], -0.1 * grads["gain"]) < 1e-13 and off(step["free.W"], -0.1 * grads["free.W"]) < 1e-13
    step = step_of(optim.ACP(0.1, alpha=1.0, rest_lr=0.5), f)
    assert off(step["gain"], -0.5 * grads["gain"]) < 1e-13 and off(step["free.W"], -0.5 * grads["free.W"]) < 1e-13
    assert off(step_of(optim.Gradient(0.1), f).flat, -0.1 * f.grad) < 1e-13


def test_layers_that_share_a_window():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((3, 3)), "0.b": rng.standard_normal(3)})

    def tied(p, x, train=False):
        return mg.dense(mg.tanh(mg.dense(x, p["0.W"], p["0.b"])), p["0.W"], p["0.b"])

    x, y = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))
    f = mg.Objective(tied, mg.losses.squared_error, params, x, y, l2=0.1)
    assert off(step_of(optim.Gradient(0.2), f).flat, -0.2 * f.grad) < 1e-13
    for method in (optim.Centred(0.2), optim.ACP(0.2), optim.UBP()):
        with pytest.raises(ValueError, match="cannot step layer '0': two layers share its window"):
            method.update(f, method.init(params))


def test_a_failed_factorisation_names_the_layer():
    f = chain()
    f.args[0][0, 0] = np.nan
    method = optim.ACP(0.1, alpha=1.0)
    with pytest.raises(backend.FactorisationError, match="layer '3'"):
        method.update(f, method.init(f.params))


def test_memory_is_a_window_into_the_flat_state():
    state = {"t": 3, "1.P": 1, "10.P": 2}
    memory = Memory(state, "1")
    memory["k"] = 5
    assert dict(memory) == {"P": 1, "k": 5} and "P" in memory and "t" not in memory and len(memory) == 2
    del memory["P"]
    assert state == {"t": 3, "10.P": 2, "1.k": 5}
