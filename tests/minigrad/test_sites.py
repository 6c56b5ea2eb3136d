"""The editable backward pass: what a site holds, what an untouched loop gives, matrix-free against explicit."""

import numpy as np
import pytest
from cases import LOSSES, chain, host, linear_net, off, random_like

import minigrad as mg
from minigrad import losses, nn


def swept(f):
    """The step of a loop that writes every layer's plain gradient, with the parameters without a site."""
    sweep = f.sweep()
    for site in sweep:
        site.gradient()
    return sweep.delta + sweep.rest


class Tied(nn.Layer):
    """One weight matrix used twice, with an activation between."""

    def __call__(self, p, x, train=False):
        return mg.dense(mg.tanh(mg.dense(x, p["0.W"], p["0.b"])), p["0.W"], p["0.b"])


def branched(p, x, train=False):
    """Two layers fed by the same input, a skip connection, and a parameter without a site."""
    h = mg.tanh(mg.dense(x, p["in.W"], p["in.b"]))
    left, right = mg.tanh(mg.dense(h, p["left.W"], p["left.b"])), mg.sigmoid(mg.dense(h, p["right.W"]))
    return mg.dense(h + left * right, p["out.W"], p["out.b"]) * p["gain"]


def branched_objective(device="cpu"):
    rng = np.random.default_rng(0)
    shapes = {"in.W": (5, 4), "in.b": 5, "left.W": (5, 5), "left.b": 5, "right.W": (5, 5), "out.W": (3, 5), "out.b": 3}
    params = mg.Params({**{k: 0.5 * rng.standard_normal(s) for k, s in shapes.items()}, "gain": rng.random(3)})
    x, y = rng.standard_normal((7, 4)), rng.integers(0, 3, 7)
    params = params.to(device)
    upload = mg.backend.asarray
    return mg.Objective(branched, losses.softmax_cross_entropy, params, upload(x, device), upload(y, device))


@pytest.mark.parametrize("loss", LOSSES)
def test_an_untouched_sweep_is_the_gradient(loss, device):
    f = chain(loss, device=device)
    assert off(swept(f), f.grad) < 1e-14


def test_an_untouched_sweep_is_the_gradient_with_branches_and_skips(device):
    f = branched_objective(device)
    sweep = f.sweep()
    names = [site.gradient() and site.name for site in sweep]
    assert set(names) == {"in", "left", "right", "out"} and names[0] == "out" and names[-1] == "in"
    assert off(sweep.delta + sweep.rest, f.grad) < 1e-14
    assert np.abs(host(f.params.windows(sweep.rest)["gain"])).max() > 0


def test_layers_that_share_a_window_add_up():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((3, 3)), "0.b": rng.standard_normal(3)})
    f = mg.Objective(Tied(), losses.squared_error, params, rng.standard_normal((5, 3)), rng.standard_normal((5, 3)))
    assert off(swept(f), f.grad) < 1e-14
    v = random_like(params.vector)
    step = 1e-5
    numeric = (f.at(params.vector + step * v).grad - f.at(params.vector - step * v).grad) / (2 * step)
    assert off(f.hvp(v), numeric) < 1e-8
    assert set(f.signals("empirical")) == {"0", "0@2"}


def test_layers_that_share_weights_but_not_the_bias():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((3, 3)), "0.b": rng.standard_normal(3)})
    x, y = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))

    def net(p, x, train=False, bias=(False, True)):
        first, second = (p["0.b"] if used else None for used in bias)
        return mg.dense(mg.tanh(mg.dense(x, p["0.W"], first)), p["0.W"], second)

    for bias in ((False, True), (True, False)):
        f = mg.Objective(lambda p, x, b=bias: net(p, x, bias=b), losses.squared_error, params, x, y)
        numeric = [(f.at(params.vector + e).value - f.at(params.vector - e).value) / 2e-6 for e in 1e-6 * np.eye(12)]
        assert off(f.grad, np.array(numeric)) < 1e-8 and off(swept(f), f.grad) < 1e-13
        v = random_like(params.vector)
        moved = (f.at(params.vector + 1e-6 * v).grad - f.at(params.vector - 1e-6 * v).grad) / 2e-6
        assert off(f.hvp(v), moved) < 1e-7


def test_a_weight_used_by_a_layer_and_elsewhere_gets_both_shares():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((3, 4)), "0.b": rng.standard_normal(3)})

    def net(p, x, train=False):
        return mg.dense(x, p["0.W"], p["0.b"]) + mg.sum(p["0.W"] ** 2) * p["0.b"]

    f = mg.Objective(net, losses.squared_error, params, rng.standard_normal((5, 4)), rng.standard_normal((5, 3)))
    numeric = [(f.at(params.vector + e).value - f.at(params.vector - e).value) / 2e-6 for e in 1e-6 * np.eye(15)]
    assert off(f.grad, np.array(numeric)) < 1e-8
    v = random_like(params.vector)
    moved = (f.at(params.vector + 1e-6 * v).grad - f.at(params.vector - 1e-6 * v).grad) / 2e-6
    assert off(f.hvp(v), moved) < 1e-7


@pytest.mark.parametrize("loss", LOSSES)
def test_jacobian_times_output_gradient_is_da(loss, device):  # identity 1
    f = chain(loss, device=device)
    dz = host(f.view().gradient())
    for site in (sweep := f.sweep()):
        dW, db = site.gradient()
        assert off(np.einsum("cno,nc->no", host(site.J), dz), site.da) < 1e-12
        assert off(host(site.da).T @ host(site.h) / f.n, f.grad_of(f"{site.name}.W")) < 1e-12
        assert off(host(site.da).mean(0), f.grad_of(f"{site.name}.b")) < 1e-12
        assert off(dW, f.grad_of(f"{site.name}.W")) < 1e-12 and off(db, f.grad_of(f"{site.name}.b")) < 1e-12
    assert off(sweep.delta, f.grad) < 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_matrix_free_products_are_the_explicit_ones(loss, device):  # identity 2
    f = chain(loss, device=device)
    view = f.view()
    for site in f.sweep():
        v, J = random_like(site.a), site.J
        curved = view.curvature(mg.einsum("cno,no->nc", J, v))
        assert off(site.JtHJ(v), mg.einsum("cno,nc->no", J, curved)) < 1e-12
        assert off(np.concatenate([host(block) for block in site.jacobian(chunk=2)]), J) == 0.0


def test_matrix_free_products_with_branches():
    f = branched_objective()
    for site in f.sweep():
        v, J = random_like(site.a), site.J
        curved = f.view().curvature(np.einsum("cno,no->nc", J, v))
        assert off(site.JtHJ(v), np.einsum("cno,nc->no", J, curved)) < 1e-12
        step = 1e-5 * v
        assert off(site.hessian_vp(v), (signal_at(site, step) - signal_at(site, -step)) / 2e-5) < 1e-7


def signal_at(site, shift):
    """The unedited ∂ℓ/∂a of a layer of `branched` when its pre-activation is shifted, example by example."""
    f = site.objective
    params, x = f.params, f.args[0]
    y = f.loss.encode(f.targets, f.output)

    def total(shifted):
        def dense(h, w, b=None, name=None):
            a = mg.dense(h, w, b)
            return a + shifted if name == site.name else a

        p = params
        h = mg.tanh(dense(x, p["in.W"], p["in.b"], "in"))
        left = mg.tanh(dense(h, p["left.W"], p["left.b"], "left"))
        right = mg.sigmoid(dense(h, p["right.W"], None, "right"))
        return mg.sum(f.loss(dense(h + left * right, p["out.W"], p["out.b"], "out") * p["gain"], y))

    return mg.grad(total)(shift)


def above(f, site):
    """ℓ summed over the batch as a function of one layer's pre-activation, on a chain."""
    layers = f.net.children
    start = [k for k, layer in enumerate(layers) if isinstance(layer, nn.Dense)][int(site.name)] + 1
    y = f.loss.encode(f.targets, f.output)

    def total(a):
        for layer in layers[start:]:
            a = layer(f.params, a)
        return mg.sum(f.loss(a, y))

    return total


@pytest.mark.parametrize("loss", LOSSES)
def test_hessian_vp_is_each_examples_own_hessian(loss, device):
    f = chain(loss, device=device)
    for site in f.sweep():
        v = random_like(site.a)
        assert off(site.hessian_vp(v), mg.hvp(above(f, site), site.a, v)) < 1e-12


@pytest.mark.parametrize("hidden", [None, "relu"])
@pytest.mark.parametrize("loss", LOSSES)
def test_on_linear_and_relu_nets_gauss_newton_is_the_hessian_at_every_layer(loss, hidden):  # identity 3
    f = chain(loss, hidden=hidden)
    for site in f.sweep():
        v = random_like(site.a)
        assert off(site.JtHJ(v), site.hessian_vp(v)) < 1e-12
    v = random_like(f.params.vector)
    assert off(f.ggnvp(v), f.hvp(v)) > 1e-3  # the whole matrices differ across layers


def test_on_smooth_nets_gauss_newton_is_not_the_hessian():
    f = chain("softmax", hidden="tanh")
    lowest = list(f.sweep())[-1]
    v = random_like(lowest.a)
    assert off(lowest.JtHJ(v), lowest.hessian_vp(v)) > 1e-2


def test_dh_replaces_this_sites_share_only():
    f = branched_objective()
    plain, edited = {}, {}
    for site in f.sweep():
        plain[site.name] = site.da.copy()
        share = site.da @ site.W
        if site.name == "left":
            left_share = share
    for site in f.sweep():
        edited[site.name] = site.da.copy()
        if site.name == "left":
            site.dh = 3.0 * left_share
    slope = 1 - np.tanh(f.graph().order[0].value) ** 2
    assert off(edited["in"], plain["in"] + 2.0 * left_share * slope) < 1e-12
    assert off(edited["right"], plain["right"]) == 0.0


def test_the_lowest_layer_has_nothing_below():
    below = {site.name: site.below for site in chain().sweep()}
    assert below == {"3": True, "2": True, "1": True, "0": False}


def test_stopping_early_leaves_nothing_inconsistent():
    f = chain()
    expected = f.grad
    sweep = f.sweep()
    for site in sweep:
        site.gradient()
        if site.name == "2":
            break
    windows = f.params.windows(sweep.delta)
    assert off(windows["2.W"], f.params.windows(expected)["2.W"]) < 1e-14
    assert not windows["0.W"].any() and not windows["1.b"].any()
    with pytest.raises(RuntimeError, match="known when the sweep has ended"):
        _ = sweep.rest
    assert off(f.grad, expected) == 0.0 and off(swept(f), expected) < 1e-14


def test_a_sweep_can_be_walked_again():
    f = chain()
    sweep = f.sweep()
    for site in sweep:
        site.gradient(-1.0)
    first = sweep.delta.copy()
    for site in sweep:
        site.gradient(-1.0)
    assert off(sweep.delta, first) == 0.0


def test_a_site_of_an_older_theta_refuses():
    f = chain()
    site = next(iter(f.sweep()))
    f.params.vector += 0.1
    for use in (lambda: site.gradient(), lambda: site.J, lambda: site.JtHJ(site.a), lambda: site.hessian_vp(site.a)):
        with pytest.raises(RuntimeError, match="parameters have moved since site '3'"):
            use()


def test_moving_theta_inside_a_sweep_refuses():
    f = chain()
    with pytest.raises(RuntimeError, match="moved during a sweep"):
        for site in f.sweep():
            f.params[f"{site.name}.W"] += 0.1


def test_gradient_takes_another_h_and_da_and_a_device_scale(device):
    f = chain(device=device)
    site = next(iter(f.sweep()))
    h, da = random_like(site.h), random_like(site.da, 4)
    scale = f.value  # 0-d, on the device
    dW, db = site.gradient(scale, h=h, da=da)
    assert off(dW, float(scale) * host(da).T @ host(h) / f.n) < 1e-13
    assert off(db, float(scale) * host(da).mean(0)) < 1e-13


def test_layers_without_bias_and_with_positions():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((5, 4)), "1.W": rng.standard_normal((3, 5)), "1.b": np.zeros(3)})

    def net(p, x, train=False):  # positions: x (N, T, in), summed over at the end
        h = mg.tanh(mg.dense(x, p["0.W"]))
        return mg.sum(mg.dense(h, p["1.W"], p["1.b"]), axis=1)

    x, y = rng.standard_normal((6, 2, 4)), rng.standard_normal((6, 3))
    f = mg.Objective(net, losses.squared_error, params, x, y)
    assert off(swept(f), f.grad) < 1e-14
    numeric = [(f.at(params.vector + e).value - f.at(params.vector - e).value) / 2e-6 for e in 1e-6 * np.eye(38)]
    assert off(f.grad, np.array(numeric)) < 1e-8
    v = random_like(params.vector)
    moved = (f.at(params.vector + 1e-6 * v).grad - f.at(params.vector - 1e-6 * v).grad) / 2e-6
    assert off(f.hvp(v), moved) < 1e-7
    bottom = list(f.sweep())[-1]
    assert bottom.b is None and bottom.J.shape == (3, 6, 2, 5)


def test_explicit_jacobian_refuses_above_its_limit(monkeypatch):
    monkeypatch.setattr("minigrad.sites.EXPLICIT_LIMIT", 100)
    site = next(iter(chain().sweep()))
    with pytest.raises(MemoryError, match="site.JtHJ"):
        _ = site.J
    assert next(site.jacobian(chunk=1)).shape == (1, 9, 3)


def test_a_bias_window_that_its_layer_does_not_use_has_no_site():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((3, 4)), "0.b": rng.standard_normal(3)})
    x, y = rng.standard_normal((5, 4)), rng.standard_normal((5, 3))
    nets = {True: lambda p, x: mg.dense(x, p["0.W"]) * p["0.b"], False: lambda p, x: mg.dense(x, p["0.W"])}
    for used, net in nets.items():
        f = mg.Objective(net, losses.squared_error, params, x, y)
        numeric = [(f.at(params.vector + e).value - f.at(params.vector - e).value) / 2e-6 for e in 1e-6 * np.eye(15)]
        assert off(f.grad, np.array(numeric)) < 1e-8 and off(swept(f), f.grad) < 1e-13
        assert bool(f.grad_of("0.b").any()) is used


def test_a_residual_network_has_its_sites_and_its_gradient():
    block = nn.Residual(nn.Sequential(nn.Dense(6, 6), nn.Tanh()))
    net = nn.Sequential(nn.Dense(4, 6), nn.Tanh(), block, nn.Dense(6, 2))
    params = net.init(rng=0, dtype="float64")
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((5, 4)), rng.standard_normal((5, 2))
    f = mg.Objective(net, losses.squared_error, params, x, y)
    assert [site.name for site in f.sweep()] == ["2", "1", "0"]
    assert off(swept(f), f.grad) < 1e-14
    shifts = 1e-6 * np.eye(params.size)
    numeric = [(f.at(params.vector + e).value - f.at(params.vector - e).value) / 2e-6 for e in shifts]
    assert off(f.grad, np.array(numeric)) < 1e-8


def test_linear_net_helper_is_linear():
    net = linear_net((3, 4, 2))
    params = net.init(rng=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 3))
    zero = net(params, 0 * x)
    assert off(net(params, 2 * x) - zero, 2 * (net(params, x) - zero)) < 1e-14
