"""Objective: value, gradient, products, signals, against the transforms and against loops."""

import gc
import weakref

import numpy as np
import pytest
from cases import LOSSES, chain, host, off, random_like, targets

import minigrad as mg
from minigrad import losses, nn

SOFTPLUS = {"plain": lambda z, y: mg.sum(mg.softplus(z) * y + z * z, axis=-1)}


def as_function(f):
    """R(θ) of an Objective as a plain function of the flat vector."""
    params, x, l2 = f.params, f.args[0], f.l2
    y = f.loss.encode(f.targets, f.output)

    def risk(v):
        windows = {name: v[a:b].reshape(shape) for name, (a, b, shape) in params.layout.items()}
        decay = sum(mg.sum(w**2) for name, w in windows.items() if name.endswith(".W"))
        return mg.mean(f.loss(f.net(windows, x), y)) + (l2 / 2) * decay

    return risk


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("l2", [0.0, 0.3])
def test_value_gradient_and_hvp_equal_the_transforms(loss, l2, device):
    f = chain(loss, l2=l2, device=device)
    risk, theta, v = as_function(f), f.params.vector.copy(), random_like(f.params.vector)
    assert off(f.value, risk(theta)) < 1e-14
    assert off(f.grad, mg.grad(risk)(theta)) < 1e-12
    assert off(f.hvp(v), mg.hvp(risk, theta, v)) < 1e-12
    assert off(f.pullback(-0.25), -0.25 * f.grad) < 1e-14


@pytest.mark.parametrize("loss", LOSSES)
def test_hvp_is_the_hessian_by_reverse_over_reverse(loss):
    f = chain(loss, sizes=(3, 4, 2), n=5, l2=0.1)
    v = random_like(f.params.vector)
    assert off(f.hvp(v), mg.hessian(as_function(f))(f.params.vector) @ v) < 1e-11


@pytest.mark.parametrize("loss", LOSSES)
def test_ggnvp_is_the_explicit_product(loss, device):
    f = chain(loss, sizes=(3, 4, 2), n=5, device=device)
    v = random_like(f.params.vector)
    params, x = f.params, f.args[0]

    def model(t):
        return f.net({name: t[a:b].reshape(shape) for name, (a, b, shape) in params.layout.items()}, x)

    J = mg.jacobian(model)(params.vector)  # (N, C, d)
    curved = f.view().curvature(mg.einsum("ncd,d->nc", J, v))
    assert off(f.ggnvp(v), mg.einsum("ncd,nc->d", J, curved) / f.n) < 1e-12


def test_a_loss_given_as_a_plain_function():
    rng = np.random.default_rng(0)
    net = nn.mlp([4, 5, 3])
    params = net.init(rng=1, dtype="float64")
    x, y = rng.standard_normal((6, 4)), rng.random((6, 3))
    f = mg.Objective(net, SOFTPLUS["plain"], params, x, y)
    risk, v = as_function(f), random_like(params.vector)
    assert off(f.grad, mg.grad(risk)(params.vector)) < 1e-12
    assert off(f.hvp(v), mg.hvp(risk, params.vector, v)) < 1e-12
    with pytest.raises(TypeError, match="no square root"):
        f.signals("fisher")


def test_a_plain_loss_that_averages_is_refused():
    f = chain("squared")
    g = mg.Objective(f.net, lambda z, y: mg.mean((z - y) ** 2), f.params, f.args[0], f.targets)
    with pytest.raises(ValueError, match="one number for each of 9 examples"):
        _ = g.value


def test_loss_operations_stand_for_their_loss_objects():
    f = chain("softmax")
    g = mg.Objective(f.net, mg.softmax_cross_entropy, f.params, f.args[0], f.targets)
    assert g.loss is losses.softmax_cross_entropy and off(g.grad, f.grad) == 0.0


def test_an_objective_of_a_function():
    f = mg.Objective(lambda p: (1 - p["x"]) ** 2 + 100 * (p["y"] - p["x"] ** 2) ** 2, mg.Params(x=-1.0, y=2.0))
    assert float(f.value) == 104.0 and f.grad.tolist() == [396.0, 200.0]
    hessian = np.array([f.hvp(e) for e in np.eye(2)])
    assert np.allclose(hessian, [[1200 - 800 + 2.0, 400.0], [400.0, 200.0]])
    for refused in (lambda: f.sweep(), lambda: f.signals("mc"), lambda: f.ggnvp(np.ones(2)), lambda: f.output):
        with pytest.raises(TypeError, match="needs a network and its loss"):
            refused()


def test_a_function_that_is_quadratic_has_a_constant_hessian():
    a = np.array([[3.0, 1.0], [1.0, 2.0]])
    f = mg.Objective(lambda p, m: 0.5 * (p["t"] @ (m @ p["t"])), mg.Params(t=[1.0, -1.0]), a)
    assert np.allclose(f.grad, a @ [1.0, -1.0]) and np.allclose(f.hvp(np.array([1.0, 2.0])), a @ [1.0, 2.0])


def test_grad_is_fresh_and_value_is_a_0d_array(device):
    f = chain(device=device)
    first = f.grad
    kept = first.copy()
    second = f.grad
    second *= 0.0
    assert off(first, kept) == 0.0
    assert f.value.shape == () and hasattr(f.value, "dtype") and not isinstance(f.value, np.generic)


def test_float32_stays_float32():
    net = nn.mlp([4, 5, 3], hidden="sigmoid")
    params = net.init(rng=0)
    x = np.random.default_rng(0).random((6, 4), dtype=np.float32)
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x, np.arange(6) % 3, l2=0.1)
    v = params.vector.copy()
    results = [
        f.value,
        f.grad,
        f.hvp(v),
        f.ggnvp(v),
        f.output,
        *f.signals("fisher").values(),
        f.pullback(np.float32(2)),
    ]
    results += list(f.signals("mc", rng=0).values())
    assert {r.dtype for r in results} == {np.dtype("float32")}


def test_theta_moves_and_the_objective_looks_again(device):
    f = chain(device=device)
    before = float(f.value)
    f.params.vector += -0.1 * f.grad
    moved = float(f.value)
    assert moved < before
    f.params["0.b"] += 0.5
    assert float(f.value) != moved
    fresh = mg.Objective(f.net, f.loss, f.params, f.args[0], f.targets)
    assert float(fresh.value) == float(f.value)


def test_at_looks_at_another_point_without_moving(device):
    f = chain(device=device)
    here = float(f.value)
    other = f.params.vector + 0.1
    there = f.at(other)
    assert float(there.value) != here and float(f.value) == here
    other += -0.1  # the vector is not copied, and a fresh view sees what it holds now
    assert abs(float(f.at(other).value) - here) < 1e-12


def test_cost_counts_this_point_and_the_others():
    f = chain()
    _ = f.value, f.value, f.grad
    _ = f.at(f.params.vector + 1).value, f.hvp(f.params.vector), f.ggnvp(f.params.vector)
    assert (f.cost.forwards, f.cost.backwards, f.cost.products) == (2, 1, 2)


@pytest.mark.parametrize("kind", ["jacobian", "fisher", "empirical", "gn_prob"])
def test_signals_in_blocks_are_the_signals_at_once(kind, device):
    f = chain(device=device)
    whole = f.signals(kind)
    blocks = list(f.signals(kind, chunk=2))
    for name, s in whole.items():
        joined = np.concatenate([host(b[name]) for b in blocks])
        assert off(joined, s) == 0.0
    assert len(blocks) == (len(next(iter(whole.values()))) + 1) // 2


@pytest.mark.parametrize("loss", LOSSES)
def test_root_signals_are_the_jacobian_times_the_root(loss):
    f = chain(loss)
    root = f.view().root("fisher")  # (K, N, C)
    for name, s in f.signals("fisher").items():
        J = f.signals("jacobian")[name]
        assert off(s, np.einsum("knc,cno->kno", root, J)) < 1e-12


def test_sampled_signals_carry_their_share_and_are_memoised():
    f = chain()
    one = {k: v.copy() for k, v in f.signals("mc", rng=5).items()}
    assert all(off(f.signals("mc")[k], v) == 0.0 for k, v in one.items())
    many = f.signals("mc", samples=4, rng=5)
    assert all(v.shape[0] == 4 for v in many.values())
    assert off(2.0 * many["3"][0], one["3"][0]) < 1e-15  # the same first draw, with 1/√4
    g = chain()
    with pytest.raises(ValueError, match="call f.signals"):
        g.signals("mc")
    with pytest.raises(ValueError, match="unknown signals 'fischer'"):
        g.signals("fischer")


def test_memos_are_freed_without_the_collector():
    gc.collect()
    gc.disable()
    try:
        f = chain()
        sweep = f.sweep()
        for site in sweep:
            site.gradient()
            site.JtHJ(site.a)
            site.hessian_vp(site.a)
        _ = f.signals("fisher"), f.grad, f.hvp(f.params.vector)
        alive = weakref.ref(f.graph().out)
        del f, sweep, site
        assert alive() is None
    finally:
        gc.enable()


def test_bad_input_is_one_sentence():
    f = chain("softmax")
    net, loss, params, x, y = f.net, f.loss, f.params, f.args[0], f.targets
    bad = [
        ((x.astype("float32"), y), "x is float32, but the parameters are float64"),
        ((x, y[:-1]), "x has 9 examples, but y has 8"),
        ((x[:, :-1], y), r"layer '0' takes \(N, 6\)"),
        ((x[:0], y[:0]), "at least one example"),
        ((x, y + 3), "labels run from 3 to"),
        ((x, y - 1), "labels run from -1"),
        ((x, y * 1.0), "labels must be integers"),
        ((x, np.zeros((9, 4))), "do not fit an output"),
        (([[1.0]], y), "x must be an array"),
    ]
    for (bad_x, bad_y), message in bad:
        with pytest.raises(ValueError, match=message):
            _ = mg.Objective(net, loss, params, bad_x, bad_y).value
    with pytest.raises(ValueError, match="l2 must not be negative"):
        mg.Objective(net, loss, params, x, y, l2=-1.0)
    with pytest.raises(TypeError, match="An Objective takes|an Objective takes"):
        mg.Objective(net, loss, x, y)
    with pytest.raises(TypeError, match="does not use its parameters"):
        _ = mg.Objective(lambda p: np.float64(1.0), mg.Params(x=1.0)).value
    with pytest.raises(ValueError, match="an objective is one number"):
        _ = mg.Objective(lambda p: p["x"] * 2, mg.Params(x=[1.0, 2.0])).value
    with pytest.raises(ValueError, match="the vector has shape"):
        f.hvp(np.ones(3))


@pytest.mark.parametrize("loss, last", [("softmax", "softmax"), ("sigmoid", "sigmoid"), ("softmax", "sigmoid")])
def test_a_logit_loss_after_a_squashing_layer_is_refused(loss, last):
    with pytest.raises(ValueError, match=f"takes logits, but the network ends in {last}"):
        _ = chain(loss, output=last).value
    assert np.isfinite(float(chain("squared", output="sigmoid").value))


def test_a_mean_of_minibatch_gradients_is_the_gradient():  # identity 18
    f = chain(n=12)
    parts = [mg.Objective(f.net, f.loss, f.params, f.args[0][k : k + 4], f.targets[k : k + 4]).grad for k in (0, 4, 8)]
    assert off(sum(parts) / 3, f.grad) < 1e-13


def test_soft_targets_and_class_numbers_agree():
    f = chain("softmax")
    soft = mg.Objective(f.net, f.loss, f.params, f.args[0], np.eye(3)[f.targets])
    assert float(soft.value) == float(f.value) and off(soft.grad, f.grad) == 0.0


def test_gradient_equals_hips_autograd():
    anp = pytest.importorskip("autograd.numpy")
    from autograd import grad

    f = chain("softmax", hidden="sigmoid", l2=0.2)
    layout, x, y = f.params.layout, f.args[0], np.eye(3)[f.targets]

    def risk(v):
        w = {name: anp.reshape(v[a:b], shape) for name, (a, b, shape) in layout.items()}
        h = x
        for k in range(4):
            a = h @ w[f"{k}.W"].T + w[f"{k}.b"]
            h = 1 / (1 + anp.exp(-a))
        top = anp.max(a, axis=1, keepdims=True)
        lse = top[:, 0] + anp.log(anp.sum(anp.exp(a - top), axis=1))
        return anp.mean(lse - anp.sum(a * y, axis=1)) + 0.1 * sum(anp.sum(w[f"{k}.W"] ** 2) for k in range(4))

    assert abs(float(f.value) - risk(f.params.vector)) < 1e-12
    assert off(f.grad, grad(risk)(f.params.vector)) < 1e-10


def test_targets_helper_makes_what_each_loss_takes():
    rng = np.random.default_rng(0)
    assert targets("softmax", 5, 3, rng).dtype.kind == "i" and targets("sigmoid", 5, 3, rng).shape == (5, 3)
