"""First-order methods against ten-line recurrences, and what theory says of them."""

import numpy as np
import pytest
from cases import chain, off

import minigrad as mg
import optim


def quadratic(curvature, start):
    """½ Σ cᵢ θᵢ² as an Objective."""
    return mg.Objective(lambda p, c: 0.5 * mg.sum(c * p["t"] ** 2), mg.Params(t=start), np.asarray(curvature))


def walk(method, f, steps, rng=0):
    """The points that a method visits, the start included."""
    state = method.init(f.params, rng=rng)
    points = [f.params.vector.copy()]
    for _ in range(steps):
        method.step(f, state)
        points.append(f.params.vector.copy())
    return np.array(points)


C, START = np.array([5.0, 2.0, 0.3]), np.array([0.5, 0.5, -1.0])


def test_sgd_is_its_recurrence():
    points = [START]
    for _ in range(20):
        points.append(points[-1] - 0.1 * (C * points[-1]))
    assert off(walk(optim.SGD(0.1), quadratic(C, START), 20), np.array(points)) < 1e-15


def test_one_step_of_gradient_descent_on_the_decks_quadratic():  # identity 17, [P]
    f = quadratic([5.0, 2.0], [0.5, 0.5])
    assert f.grad.tolist() == [2.5, 1.0]
    assert walk(optim.GD(1.0), f, 1)[1].tolist() == [-2.0, -0.5]


def test_momentum_is_its_recurrence():
    theta, v, points = START, 0.0, [START]
    for _ in range(20):
        v = 0.8 * v - 0.05 * (C * theta)
        theta = theta + v
        points.append(theta)
    assert off(walk(optim.Momentum(0.05, mu=0.8), quadratic(C, START), 20), np.array(points)) < 1e-14


def test_momentum_without_memory_is_gradient_descent():  # identity 13
    f, g = chain(), chain()
    for method in (optim.Momentum(0.1, mu=0.0), optim.Nesterov(0.1, mu=0.0)):
        f, g = chain(), chain()
        assert off(walk(method, f, 5), walk(optim.SGD(0.1), g, 5)) < 1e-14


def test_nesterov_visits_the_published_look_ahead_points():
    theta, v, ahead = START, np.zeros(3), []
    for _ in range(21):  # the published form: ∇ at θ + μ v
        ahead.append(theta + 0.9 * v)
        v = 0.9 * v - 0.05 * (C * ahead[-1])
        theta = theta + v
    assert off(walk(optim.Nesterov(0.05, mu=0.9), quadratic(C, START), 20), np.array(ahead)) < 1e-13


def test_nesterov_on_a_quadratic_is_momentum_damped_by_curvature():  # identity 13: μ(1 − ηλ) in every direction
    for c in C:
        mu, lr = 0.9, 0.05
        f = quadratic([c], [1.0])
        theta, v, ahead = 1.0, 0.0, [1.0]
        for _ in range(15):
            v = mu * (1 - lr * c) * v - lr * c * theta
            theta = theta + v
            ahead.append(theta + mu * v)
        assert off(walk(optim.Nesterov(lr, mu=mu), f, 15)[:, 0], np.array(ahead)) < 1e-13


def test_adam_is_its_published_recurrence():
    lr, b1, b2, eps = 0.02, 0.8, 0.95, 1e-3
    theta, m, v, points = START, 0.0, 0.0, [START]
    for t in range(1, 31):
        g = C * theta
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        theta = theta - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        points.append(theta)
    assert off(walk(optim.Adam(lr, b1, b2, eps), quadratic(C, START), 30), np.array(points)) < 1e-13


@pytest.mark.parametrize("l2", [0.0, 0.2])
def test_sgd_and_the_gradient_rule_take_the_same_steps(l2):
    assert off(walk(optim.Gradient(0.1), chain(l2=l2), 5), walk(optim.SGD(0.1), chain(l2=l2), 5)) < 1e-13


def test_the_loss_is_read_before_the_step():
    f = chain()
    before = float(f.value)
    method = optim.SGD(0.1)
    info = method.step(f, method.init(f.params))
    assert float(info.loss) == before and float(f.value) < before


def test_states_share_nothing():
    f = chain()
    method = optim.Momentum(0.1)
    one, two = method.init(f.params), method.init(f.params)
    method.step(f, one)
    assert one["v"].any() and not two["v"].any() and (one["t"], two["t"]) == (1, 0)


def test_a_step_does_not_edit_the_gradient_that_somebody_holds():
    f = chain()
    held = f.grad
    kept = held.copy()
    method = optim.Adam(0.1)
    method.step(f, method.init(f.params))
    assert off(held, kept) == 0.0


def test_repr_shows_every_setting():
    assert repr(optim.Adam(lr=0.01)) == "Adam(lr=0.01, beta1=0.9, beta2=0.999, eps=1e-08)"
    assert repr(optim.UBP(optim.Centred(0.2), mode="mc")) == "UBP(inner=Centred(lr=0.2, rest_lr=None), mode='mc')"


def test_bad_settings_are_one_sentence():
    for make, message in [
        (lambda: optim.SGD(-0.1), "SGD: lr must be a number of more than 0, not -0.1"),
        (lambda: optim.SGD("0.1"), "SGD: lr must be a number"),
        (lambda: optim.Momentum(0.1, mu=1.0), "mu must be a number of at least 0 and less than 1, not 1.0"),
        (lambda: optim.Adam(eps=0.0), "eps must be a number of more than 0"),
        (lambda: optim.Adam(beta2=float("nan")), "beta2 must be a number"),
        (lambda: optim.ACP(alpha="mean"), "alpha is a positive number or 'max', not 'mean'"),
        (lambda: optim.ACP(eps=-1.0), "ACP: eps must be"),
        (lambda: optim.UBP(mode="gauss"), "unknown UBP mode 'gauss'; the modes are gn, explicit"),
        (lambda: optim.UBP(optim.SGD()), "UBP goes over a layer rule"),
        (lambda: optim.UBP(optim.UBP()), "UBP cannot go over UBP"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
