"""Schedules, decoupled decay and clipping, alone, stacked and around UBP."""

import math

import numpy as np
import pytest
from cases import chain, host, off
from test_first_order import START, C, quadratic, walk

import minigrad as mg
import optim
from optim import ClipGradient, ClipUpdate, Scheduled, WeightDecay


def norms(points):
    return np.linalg.norm(np.diff(points, axis=0), axis=1)


@pytest.mark.parametrize(
    "shape, factor",
    [
        ("constant", lambda t: 1.0),
        ("sqrt", lambda t: 1 / math.sqrt(t + 1)),
        ("inverse", lambda t: 1 / (t + 1)),
        ("cosine", lambda t: 0.5 * (1 + math.cos(math.pi * min(t, 8) / 8))),
    ],
)
def test_a_schedule_is_sgd_with_its_rates(shape, factor):
    points = [START]
    for t in range(12):
        points.append(points[-1] - 0.1 * factor(t) * (C * points[-1]))
    assert off(walk(Scheduled(optim.SGD(0.1), shape, steps=8), quadratic(C, START), 12), np.array(points)) < 1e-14


def test_a_warm_up_rises_to_the_schedule():
    method = Scheduled(optim.SGD(0.4), "inverse", warmup=3)
    assert [method.factor(t) for t in range(6)] == [1 / 4, 2 / 4, 3 / 4, 1.0, 1 / 2, 1 / 3]
    assert method.rate(1) == 0.2


@pytest.mark.parametrize("inner", [optim.Centred, optim.ACP])
def test_a_schedule_inside_ubp_is_one_around_it(inner):
    inside, around = optim.UBP(Scheduled(inner(0.1))), Scheduled(optim.UBP(inner(0.1)))
    assert off(walk(inside, chain(), 5), walk(around, chain(), 5)) == 0.0
    assert off(walk(inside, chain(), 5), walk(optim.UBP(inner(0.1)), chain(), 5)) > 1e-4


def test_the_rates_are_as_they_were_after_a_step_and_after_a_failure():
    class Fails(optim.Gradient):
        def rule(self, site, memory, t):
            raise ValueError("no")

    inner, failing = optim.Gradient(0.3, rest_lr=0.2), Fails(0.3)
    f = chain()
    method = Scheduled(inner)
    state = method.init(f.params)
    for _ in range(3):
        method.step(f, state)
    assert (inner.lr, inner.rest_lr) == (0.3, 0.2)
    with pytest.raises(ValueError, match="no"):
        Scheduled(failing).update(f, {"t": 5, "key": 0})
    assert failing.lr == 0.3


def test_decay_is_decoupled_and_leaves_biases_alone(device):
    f = chain(device=device)
    method = WeightDecay(optim.Adam(0.1), 0.2)
    plain = optim.Adam(0.1)
    decayed = f.params.windows(method.update(f, method.init(f.params)))
    pure = f.params.windows(plain.update(f, plain.init(f.params)))
    for name in f.params:
        shrink = 0.1 * 0.2 * host(f.params[name]) if name.endswith(".W") else 0.0
        assert np.allclose(host(decayed[name]), host(pure[name]) - shrink, rtol=0, atol=1e-15)


@pytest.mark.parametrize("build", [lambda m: WeightDecay(Scheduled(m), 0.5), lambda m: Scheduled(WeightDecay(m, 0.5))])
def test_decay_follows_the_schedule(build):
    f, g = chain(), chain()
    a = walk(build(optim.SGD(0.1)), f, 4)
    theta = g.params.vector.copy()
    is_weight = np.zeros_like(theta)
    for name, window in g.params.windows(is_weight).all().items():
        window[...] = float(name.endswith(".W"))
    for t in range(4):
        rate = 0.1 / math.sqrt(t + 1)
        theta = theta - rate * g.at(theta).grad - rate * 0.5 * theta * is_weight
    assert off(a[-1], theta) < 1e-14


def test_an_update_is_shortened_only_where_it_is_long(device):
    f = chain(device=device)
    long, short = walk_on(ClipUpdate(optim.SGD(50.0), 0.1), f), walk_on(ClipUpdate(optim.SGD(1e-4), 0.1), f)
    assert np.linalg.norm(long) == pytest.approx(0.1, rel=1e-14)
    assert off(short, -1e-4 * f.grad) < 1e-15
    assert off(long / np.linalg.norm(long), -host(f.grad) / np.linalg.norm(host(f.grad))) < 1e-14


def walk_on(method, f):
    return host(method.update(f, method.init(f.params)))


def test_clipping_the_update_does_not_edit_the_velocity():
    f = chain()
    method = ClipUpdate(optim.Momentum(10.0), 1e-3)
    state = method.init(f.params)
    method.step(f, state)
    assert np.linalg.norm(state["v"]) > 1.0


def test_a_clipped_gradient_is_what_the_method_sees():
    f = chain()
    norm = np.linalg.norm(f.grad)
    assert off(walk_on(ClipGradient(optim.SGD(2.0), norm / 4), f), -0.5 * f.grad) < 1e-14
    assert off(walk_on(ClipGradient(optim.SGD(2.0), norm * 4), f), -2.0 * f.grad) < 1e-14
    ahead = walk(ClipGradient(optim.Momentum(0.5, 0.9), norm / 10), chain(), 3)
    theta, v, g = chain().params.vector.copy(), 0.0, chain()
    for _ in range(3):
        gradient = g.at(theta).grad
        v = 0.9 * v - 0.5 * gradient * min(1.0, norm / 10 / np.linalg.norm(gradient))
        theta = theta + v
    assert off(ahead[-1], theta) < 1e-14


def test_wrappers_stack_and_keep_the_dtype(device):
    net = mg.nn.mlp([5, 6, 3])
    params = net.init(rng=0, device=device)
    x = mg.backend.asarray(np.random.default_rng(0).random((7, 5), dtype=np.float32), device)
    f = mg.Objective(net, mg.losses.softmax_cross_entropy, params, x, mg.backend.asarray(np.zeros(7, int), device))
    method = ClipUpdate(WeightDecay(Scheduled(ClipGradient(optim.Adam(), 0.1)), 0.1), 0.01)
    assert method.update(f, method.init(params)).dtype == np.float32


def test_a_zero_gradient_stays_zero():
    f = quadratic([1.0, 1.0], [0.0, 0.0])
    assert walk_on(ClipGradient(optim.SGD(1.0)), f).tolist() == [0.0, 0.0]
    assert walk_on(ClipUpdate(optim.SGD(1.0)), f).tolist() == [0.0, 0.0]


def test_bad_settings_are_one_sentence():
    for make, message in [
        (
            lambda: Scheduled(optim.SGD(), "linear"),
            "unknown shape of a schedule 'linear'; the shapes are",
        ),
        (lambda: Scheduled(Scheduled(optim.SGD())), "a rate has one schedule"),
        (lambda: Scheduled(optim.SGD(), warmup=-1), "warmup must be a whole number of at least 0, not -1"),
        (lambda: Scheduled(0.1), "Scheduled goes around a method, not float"),
        (lambda: WeightDecay(optim.SGD(), -1.0), "decay must be a number of at least 0, not -1.0"),
        (lambda: WeightDecay(optim.Method()), "Method has no rate lr"),
        (lambda: ClipUpdate(optim.SGD(), 0.0), "limit must be a number of more than 0, not 0.0"),
        (lambda: ClipGradient(optim.ACP()), "ACP does not read f.grad; shorten its update with ClipUpdate"),
        (lambda: optim.UBP(WeightDecay(optim.ACP())), "UBP goes over a layer rule"),
        (lambda: optim.UBP(ClipUpdate(optim.ACP())), "UBP goes over a layer rule"),
        (lambda: optim.UBP(Scheduled(optim.SGD())), "UBP goes over a layer rule"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(ValueError, match="WeightDecay shrinks windows called NAME.W; there are only t"):
        walk(WeightDecay(optim.SGD()), quadratic(C, START), 1)
