"""Places where a wrong number could pass unseen: copies, windows used twice, arrays that others hold, dtypes."""

import copy
import pickle

import numpy as np
import pytest
from cases import chain, off

import minigrad as mg
import optim
from minigrad import losses, nn


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda p: pickle.loads(pickle.dumps(p))])
def test_a_copy_of_parameters_has_windows_of_its_own(again):
    f = chain()
    _ = f.grad  # makes every window
    f.params.buffers["bn0.mean"] = np.ones(2)
    other = again(f.params)
    other.vector += 1.0
    assert (other["0.W"] == f.params["0.W"] + 1.0).all() and np.shares_memory(other["0.W"], other.vector)
    assert other.buffers["bn0.mean"].tolist() == [1.0, 1.0]


def numeric(f):
    shifts = 1e-6 * np.eye(f.params.size)
    return np.array([(f.at(f.params.vector + e).value - f.at(f.params.vector - e).value) / 2e-6 for e in shifts])


def test_a_parameter_that_is_itself_a_layers_input():
    rng = np.random.default_rng(0)
    params = mg.Params({"E": rng.standard_normal((4, 3)), "0.W": rng.standard_normal((2, 3)), "0.b": np.zeros(2)})
    net = lambda p, x: mg.dense(p["E"], p["0.W"], p["0.b"])  # noqa: E731
    f = mg.Objective(net, losses.squared_error, params, np.zeros((4, 1)), np.ones((4, 2)))
    assert off(f.grad, numeric(f)) < 1e-7
    (site,) = (sweep := f.sweep())
    assert site.below
    v = np.random.default_rng(1).standard_normal(params.size)
    moved = (f.at(params.vector + 1e-6 * v).grad - f.at(params.vector - 1e-6 * v).grad) / 2e-6
    assert off(f.hvp(v), moved) < 1e-7
    for site in sweep:
        site.gradient()
    assert off(sweep.delta + sweep.rest, f.grad) < 1e-13


def test_a_layers_window_that_is_used_outside_it_too():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((2, 3)), "0.b": np.zeros(2), "c": np.zeros(3)})
    x = rng.standard_normal((5, 3))
    net = lambda p, x: mg.tanh(mg.dense(x, p["0.W"], p["0.b"])) @ p["0.W"] + p["c"]  # noqa: E731
    f = mg.Objective(net, losses.squared_error, params, x, x)
    one, two = optim.SGD(0.3), optim.Gradient(0.3)
    assert off(two.update(f, two.init(params)), one.update(f, one.init(params))) < 1e-13
    for method in (optim.Centred(), optim.ACP(), optim.UBP()):
        with pytest.raises(ValueError, match="cannot step '0.W': it is used outside its layer too"):
            method.update(f, method.init(params))


def test_what_a_site_holds_cannot_be_edited_in_place():
    f = chain()
    for site in f.sweep():
        for array in (site.h, site.a, site.da, site.J):
            with pytest.raises(ValueError, match="read-only"):
                array *= 2.0


def test_a_shared_site_is_asked_once():
    shared = nn.Dense(3, 3)
    net = nn.Sequential(shared, nn.Tanh(), shared)
    x = np.random.default_rng(0).standard_normal((4, 3))
    f = mg.Objective(net, losses.squared_error, net.init(dtype="float64"), x, x)
    with pytest.raises(RuntimeError, match="ask for its gradient once"):
        for site in f.sweep():
            site.gradient()
            site.gradient()


def test_the_float32_loss_keeps_its_digits():
    rng = np.random.default_rng(0)
    z = (rng.standard_normal((5000, 10)) * 100).astype("float32")
    y = z.argmax(1)
    z[np.arange(5000), y] += 15
    params = mg.Params({"s": np.ones((), "float32")})
    f = mg.Objective(lambda p, x: x * p["s"], losses.softmax_cross_entropy, params, z, y)
    exact = losses.softmax_cross_entropy.at(z.astype("float64"), y).value().mean()
    assert 0.0 <= float(f.value) < 1e-7 and exact < 1e-7


def test_layers_with_positions_are_refused_where_a_rule_has_no_formula():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((4, 4)), "0.b": np.zeros(4)})
    net = lambda p, x: mg.sum(mg.dense(x, p["0.W"], p["0.b"]), axis=1)  # noqa: E731
    x = rng.standard_normal((3, 4, 4))
    f = mg.Objective(net, losses.squared_error, params, x, x[:, 0])
    step = optim.Gradient(0.1)
    assert off(step.update(f, step.init(params)), -0.1 * f.grad) < 1e-13
    for method in (optim.Centred(), optim.ACP(), optim.UBP()):
        with pytest.raises(ValueError, match="takes layers of .N, in., but the input of '0'"):
            method.update(f, method.init(params))


def test_names_that_collide_are_refused():
    with pytest.raises(ValueError, match="two layers are called '0'"):
        nn.Sequential(nn.Dense(3, 3, name="0"), nn.Tanh(), nn.Dense(3, 3))


def test_where_keeps_a_fraction_beside_integers():
    condition = np.array([True, False])
    assert mg.where(condition, np.array([1, 2]), 0.5).tolist() == [1.0, 0.5]
    assert mg.where(condition, np.ones(2, "float32"), 0.5).dtype == np.float32


def test_lists_of_tensors_are_stacked_and_numpy_functions_refuse():
    x = np.array([1.0, 2.0])
    assert mg.grad(lambda x: mg.sum([x[0] * 2, x[1] * 3]))(x).tolist() == [2.0, 3.0]
    for call in (lambda x: np.dot(x, x), lambda x: np.linalg.norm(x), lambda x: np.concatenate([x, x])):
        with pytest.raises(TypeError, match="does not record derivatives"):
            mg.grad(call)(x)


def test_a_value_that_is_a_view_of_theta_does_not_move_with_it():
    f = mg.Objective(lambda p: p["x"][0], mg.Params(x=[1.0, 2.0]))
    method = optim.SGD(0.1)
    info = method.step(f, method.init(f.params))
    assert float(info.loss) == 1.0 and float(f.value) == 0.9


def test_an_objective_at_theta_itself_sees_it_move():
    f = chain()
    here = f.at(f.params.vector)
    before = float(here.value)
    f.params.vector += 0.1
    assert float(here.value) == float(f.value) != before


def test_blocks_that_outlive_theta_refuse():
    f = chain()
    blocks, site = f.signals("jacobian", chunk=1), next(iter(f.sweep()))
    jacobian = site.jacobian(chunk=1)
    next(blocks), next(jacobian)
    f.params.vector += 0.1
    for later in (blocks, jacobian):
        with pytest.raises(RuntimeError, match="have moved"):
            next(later)


def test_the_step_of_an_abandoned_sweep_is_not_written_over():
    f = chain()
    sweep = f.sweep()
    next(iter(sweep)).gradient()
    kept = sweep.delta
    before = kept.copy()
    for site in sweep:
        site.gradient(7.0)
    assert (kept == before).all()


def test_asking_for_other_samples_needs_a_stream():
    f = chain()
    f.signals("mc", samples=3, rng=0)
    with pytest.raises(ValueError, match="samples=7, rng"):
        f.signals("mc", samples=7)
    assert len(f.signals("mc", samples=7, rng=0)["0"]) == 7


@pytest.mark.parametrize("rate", [np.float64(0.1), np.float32(0.1)])
def test_numpy_numbers_are_rates_of_float32_networks(rate):
    net = nn.mlp([4, 5, 3])
    params = net.init(rng=0)
    x = np.random.default_rng(0).random((6, 4), dtype=np.float32)
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x, np.arange(6) % 3)
    for kind in (optim.SGD, optim.Momentum, optim.Adam, optim.Gradient, optim.Centred, optim.ACP):
        method = kind(lr=rate)
        assert method.update(f, method.init(params)).dtype == np.float32
    assert f.pullback(rate).dtype == f.pullback(np.asarray(rate)).dtype == np.float32
    assert f.hvp(params.vector.astype("float64")).dtype == np.float32
    with pytest.raises(ValueError, match="output is float64, but the parameters are float32"):
        _ = mg.Objective(net, losses.softmax_cross_entropy, params, np.ones((6, 4), int), np.arange(6) % 3).grad


def test_a_network_without_slope_has_zero_curvature():
    params = mg.Params({"0.W": np.ones((2, 3))})
    x = np.random.default_rng(0).standard_normal((4, 3))
    f = mg.Objective(lambda p, x: mg.sign(mg.dense(x, p["0.W"])), losses.squared_error, params, x, np.ones((4, 2)))
    assert not f.ggnvp(params.vector).any() and not f.grad.any()
