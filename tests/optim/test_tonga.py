"""TONGA against the dense natural gradient of its covariance, exact and truncated."""

import numpy as np
import pytest
from cases import chain, host, off, random_like

import minigrad as mg
import optim
from minigrad import backend
from optim.tonga import blocks

DECAY = 0.8


def dense(params, gradients, method, truncate):
    """Δθ of every step by (C + ε I)⁻¹ ∇R with dense C, one for every layer, from the same gradients."""
    layers = [np.concatenate([np.arange(p.start, p.stop) for p in places]) for places in blocks(params).values()]
    covariances, steps = [0.0] * len(layers), []
    for t, g in enumerate(gradients, start=1):
        step = np.zeros(params.size)
        for i, at in enumerate(layers):
            C = method.rho * covariances[i] + np.outer(g[at], g[at])
            step[at] = -method.lr * np.linalg.solve(C + method.damping * np.eye(len(at)), g[at])
            if truncate and t % method.every == 0:
                values, vectors = np.linalg.eigh(C)
                kept = vectors[:, -method.rank :]
                C = (kept * values[-method.rank :]) @ kept.T
            covariances[i] = C
        steps.append(step)
    return steps


def run(method, batches, params):
    """The gradients that a method saw, and its steps."""
    state, gradients, steps = method.init(params), [], []
    for f in batches:
        gradients.append(host(f.grad))
        steps.append(host(method.update(f, state)).copy())
        params.vector += backend.asarray(steps[-1], params.device)
        state["t"] += 1
    return gradients, steps, state


def batches(count, device="cpu"):
    """The same network on `count` batches, one θ."""
    first = chain(device=device)
    found = [first, *(chain(device=device, seed=k) for k in range(1, count))]
    for f in found[1:]:
        f.params = first.params
        f._version = -1
    return found, first.params


@pytest.mark.parametrize("every", [1, 3, 4])
def test_without_truncation_it_is_the_dense_natural_gradient(every, device):
    given, params = batches(11, device)
    method = optim.TONGA(0.3, damping=0.05, rank=12, every=every, rho=DECAY)
    gradients, steps, _ = run(method, given, params)
    for found, expected in zip(steps, dense(params, gradients, method, truncate=False)):
        assert off(found, expected) < 1e-10


def test_truncated_it_has_the_best_approximation_of_its_rank(device):
    given, params = batches(11, device)
    method = optim.TONGA(0.3, damping=0.05, rank=2, every=3, rho=DECAY)
    gradients, steps, _ = run(method, given, params)
    for found, expected in zip(steps, dense(params, gradients, method, truncate=True)):
        assert off(found, expected) < 1e-10
    exact = dense(params, gradients, method, truncate=False)
    assert off(steps[2], exact[2]) < 1e-10 and off(steps[-1], exact[-1]) > 1e-4


def test_the_first_step_and_a_large_damping_are_known():
    f = chain()
    g, first = f.grad, optim.TONGA(0.3, damping=0.05)
    step = first.update(f, first.init(f.params))
    for places in blocks(f.params).values():  # (ggᵀ + ε I)⁻¹ g = g/(‖g‖² + ε)
        (at,) = places
        assert off(step[at], -0.3 * g[at] / (g[at] @ g[at] + 0.05)) < 1e-13
    given, params = batches(8)
    gradients, steps, _ = run(optim.TONGA(0.1 * 1e9, damping=1e9, rank=2, every=3), given, params)
    assert off(np.array(steps), -0.1 * np.array(gradients)) < 1e-6


def test_a_loss_times_c_takes_the_same_steps():  # with c λ and c² ε
    def steps(c):
        params = mg.Params(t=np.array([0.3, -0.5, 0.9]))
        f = mg.Objective(lambda p: c * mg.sum(mg.log(1.0 + p["t"] ** 2)) + c * p["t"][0] * p["t"][1], params)
        return np.array(run(optim.TONGA(0.1 * c, 0.02 * c * c, rank=2, every=2), [f] * 9, params)[1])

    assert off(steps(7.0), steps(1.0)) < 1e-11


def test_blocks_are_layers_wherever_their_windows_stand():
    W, b = np.zeros((2, 3)), np.zeros(2)
    params = mg.Params({"0.W": W, "0.b": b, "1.b": b, "free": b, "1.W": W, "2.b": b, "3.W": W})
    assert blocks(params) == {
        "0": [slice(0, 8)],
        "1": [slice(8, 10), slice(12, 18)],
        "free": [slice(10, 12)],
        "2.b": [slice(18, 20)],
        "3": [slice(20, 26)],
    }
    f = mg.Objective(_coupled, params, random_like(params.vector))
    method = optim.TONGA(0.1, damping=0.3, rank=2, every=2, rho=DECAY)
    gradients, steps, _ = run(method, [f] * 7, params)
    assert off(np.array(steps), np.array(dense(params, gradients, method, truncate=True))) < 1e-11


def _coupled(p, y):
    theta = mg.concatenate([mg.reshape(p[name], (-1,)) for name in p], axis=0)
    return mg.sum(mg.log(1.0 + (theta - y) ** 2)) + 0.5 * mg.sum(theta) ** 2


def test_float32_takes_a_damping_under_its_rounding(device):
    params = mg.Params(t=backend.asarray(np.linspace(-1, 2, 6, dtype="float32"), device))
    f = mg.Objective(lambda p: 100.0 * mg.sum(mg.log(1.0 + p["t"] ** 2)), params)
    method = optim.TONGA(0.1, damping=1e-12, rank=3, every=4)
    before, (_, steps, state) = float(f.value), run(method, [f] * 40, params)
    assert steps[-1].dtype == np.float32 and float(f.value) < before
    assert all(v.dtype == np.float32 for v in state.values() if hasattr(v, "dtype"))


def test_gradients_that_are_not_finite_are_named_and_change_nothing(device):
    params = mg.Params({"0.W": backend.asarray(np.array([[0.5, 2.0]]), device)})
    good = mg.Objective(lambda p: mg.sum(mg.log(p["0.W"])), params)
    bad = mg.Objective(lambda p: mg.sum(mg.log(0.0 * p["0.W"])), params)
    method = optim.TONGA(0.01, rank=1, every=2)

    def last(interrupted):
        params.vector = backend.asarray(np.array([0.5, 2.0]), device)
        state = method.init(params)
        for _ in range(4):
            if interrupted:
                with (
                    np.errstate(all="ignore"),
                    pytest.raises(backend.FactorisationError, match="of '0' hold NaN"),
                ):
                    method.step(bad, state)
            method.step(good, state)
        return host(params.vector).copy()

    assert (last(True) == last(False)).all()


def test_a_step_waits_once_whatever_the_number_of_layers():
    stats = pytest.importorskip("device_stats", reason="counters exist on the CPU device only")
    given, params = batches(7, "cuda")
    method = optim.TONGA(0.01, rank=2, every=3)
    state = method.init(params)
    for t, f in enumerate(given):
        float(f.value)  # labels are checked once
        stats.reset()
        method.step(f, state)
        found = stats.read()
        assert (found["syncs"], found["d2h"], found["h2d"]) == (1, 1, 3 if t % 3 == 2 else 1)


def test_bad_settings_are_one_sentence():
    for make, message in [
        (lambda: optim.TONGA(-0.1), "TONGA: lr must be a number of more than 0, not -0.1"),
        (lambda: optim.TONGA(damping=0.0), "TONGA: damping must be a number of more than 0, not 0.0"),
        (lambda: optim.TONGA(rank=0), "TONGA: rank must be a whole number of at least 1, not 0"),
        (lambda: optim.TONGA(every=2.5), "TONGA: every must be a whole number of at least 1, not 2.5"),
        (lambda: optim.TONGA(rho=1.0), "TONGA: rho must be a number of at least 0 and less than 1, not 1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
