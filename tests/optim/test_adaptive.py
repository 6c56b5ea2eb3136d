"""AdaGrad, RMSprop and Adadelta against ten-line recurrences, and what theory says of them."""

import numpy as np
import pytest
from cases import chain, host, off
from test_first_order import assert_is_its_recurrence, robust, walk

import minigrad as mg
import optim
from minigrad import backend

LR, RHO, EPS = 0.05, 0.8, 1e-3


def adagrad(theta, state, t, gradient):
    g = gradient(theta)
    v = state["v"] + g * g
    return theta - LR * g / (np.sqrt(v) + EPS), {"v": v}


def rmsprop(theta, state, t, gradient):
    g = gradient(theta)
    v = RHO * state["v"] + (1 - RHO) * g * g
    return theta - LR * g / (np.sqrt(v) + EPS), {"v": v}


def centred(theta, state, t, gradient):
    g = gradient(theta)
    m = state["m"] + (1 - RHO) * (g - state["m"])
    v = RHO * (state["v"] + (1 - RHO) * (g - state["m"]) ** 2)
    return theta - LR * g / (np.sqrt(v) + EPS), {"m": m, "v": v}


def adadelta(theta, state, t, gradient):
    g = gradient(theta)
    v = RHO * state["v"] + (1 - RHO) * g * g
    step = np.sqrt(state["u"] + EPS) / np.sqrt(v + EPS) * g
    return theta - 0.7 * step, {"u": RHO * state["u"] + (1 - RHO) * step * step, "v": v}


@pytest.mark.parametrize(
    "method, recurrence",
    [
        (optim.AdaGrad(LR, EPS), adagrad),
        (optim.RMSprop(LR, RHO, EPS), rmsprop),
        (optim.RMSprop(LR, RHO, EPS, centred=True), centred),
        (optim.Adadelta(0.7, RHO, EPS), adadelta),
    ],
    ids=lambda v: getattr(v, "__name__", repr(v)),
)
def test_every_step_is_its_recurrence_to_4_ulp(method, recurrence, device):
    assert_is_its_recurrence(method, recurrence, device)


# ------------------------------------------------------------------------------------------ AdaGrad's full matrix


def test_full_adagrad_is_its_matrix_function(device):
    f, S = robust(device), 0.0
    theta = host(f.params.vector).copy()
    method = optim.AdaGrad(0.1, 1e-2, matrix="full")
    state = method.init(f.params)
    for _ in range(15):
        g = host(f.at(backend.asarray(theta, device)).grad)
        S = S + np.outer(g, g)
        u, s, _ = np.linalg.svd(S, hermitian=True)
        theta = theta - 0.1 * np.linalg.solve((u * np.sqrt(s)) @ u.T + 1e-2 * np.eye(3), g)
        method.step(f, state)
        assert off(f.params.vector, theta) < 1e-12


def test_full_adagrad_commutes_with_rotations(device):
    Q = np.linalg.qr(np.random.default_rng(1).standard_normal((3, 3)))[0]

    def gap(method):
        plain, rotated = robust(device), robust(device, turn=Q)
        for f in (plain, rotated):
            state = method.init(f.params)
            for _ in range(15):
                method.step(f, state)
        return off(Q @ host(rotated.params.vector), plain.params.vector)

    assert gap(optim.AdaGrad(0.1, 1e-2, matrix="full")) < 1e-12
    assert gap(optim.AdaGrad(0.1, matrix="full")) < 1e-7  # ε = 1e-8 lets rounding through while S is of low rank
    assert gap(optim.AdaGrad(0.1)) > 1e-2


def test_full_adagrad_on_gradients_along_axes_is_the_diagonal_one(device):
    found = {}
    for matrix in ("diagonal", "full"):
        params = mg.Params(t=backend.asarray(np.array([0.7, -1.2, 2.0, 0.1]), device))
        method = optim.AdaGrad(0.1, 1e-3, matrix=matrix)
        state = method.init(params)
        for t in range(12):
            axis = backend.asarray(np.eye(4)[[0, 2, 1, 2, 3, 0][t % 6]], device)
            f = mg.Objective(lambda p, axis: mg.sum(axis * mg.log(1.0 + p["t"] ** 2)), params, axis)
            method.step(f, state)
        found[matrix] = host(params.vector)
    assert off(found["full"], found["diagonal"]) < 1e-13


def test_full_adagrad_in_float32_does_not_amplify_rounding():
    small, large = chain(), chain()
    single = mg.Params({name: w.astype("float32") for name, w in small.params.items()})
    small = mg.Objective(small.net, small.loss, single, small.args[0].astype("float32"), small.targets)
    method = optim.AdaGrad(0.05, matrix="full")  # ε = 1e-8, S of rank 10 in 128 dimensions
    assert off(walk(method, small, 10), walk(method, large, 10)) < 1e-3


def test_full_adagrad_refuses_large_models_and_nan():
    params = mg.Params(t=np.zeros(2001))
    with pytest.raises(ValueError, match="matrix='full' takes at most 2,000 parameters, not 2,001; take matrix="):
        optim.AdaGrad(matrix="full").init(params)
    f = mg.Objective(lambda p: mg.sum(mg.sqrt(p["t"])), mg.Params(t=np.array([4.0, -1.0])))
    method = optim.AdaGrad(matrix="full")
    state = method.init(f.params)
    with np.errstate(all="ignore"), pytest.raises(backend.FactorisationError, match="AdaGrad: Σ ∇R ∇Rᵀ holds NaN"):
        method.step(f, state)
    assert not state["S"].any() and f.params.vector.tolist() == [4.0, -1.0]


# ------------------------------------------------------------------------------------------------ first steps


def test_the_first_steps_are_as_long_as_the_docstrings_say():
    f = robust()
    signs = np.sign(f.grad)
    assert off(optim.AdaGrad(0.1, 1e-12).update(f, optim.AdaGrad().init(f.params)), -0.1 * signs) < 1e-10
    method = optim.RMSprop(0.1, 0.9, 1e-12)
    assert off(method.update(f, method.init(f.params)), -0.1 / np.sqrt(0.1) * signs) < 1e-10
    method = optim.Adadelta(1.0, 0.9, 1e-12)
    assert off(method.update(f, method.init(f.params)), -np.sqrt(1e-12 / 0.1) * signs) < 1e-10


def test_centred_rmsprop_with_constant_gradients_is_never_nan():
    f = mg.Objective(lambda p: 0.1 * mg.sum(p["t"]), mg.Params(t=np.ones(3, "float32")))
    method = optim.RMSprop(0.01, 0.5, 1e-3, centred=True)
    state = method.init(f.params)
    for _ in range(300):
        method.step(f, state)
    assert np.isfinite(f.params.vector).all() and (state["v"] >= 0).all()
    assert off(method.update(f, state), np.full(3, -0.01 * 0.1 / 1e-3, "float32")) < 1e-5  # λ ∇R/ε, as documented


def test_bad_settings_are_one_sentence():
    for make, message in [
        (lambda: optim.AdaGrad(-0.1), "AdaGrad: lr must be a number of more than 0, not -0.1"),
        (lambda: optim.AdaGrad(eps=0.0), "AdaGrad: eps must be a number of more than 0, not 0.0"),
        (lambda: optim.AdaGrad(matrix="half"), "AdaGrad: matrix must be one of diagonal, full, not 'half'"),
        (lambda: optim.RMSprop(rho=1.0), "RMSprop: rho must be a number of at least 0 and less than 1, not 1.0"),
        (lambda: optim.RMSprop(centred="yes"), "RMSprop: centred must be one of False, True, not 'yes'"),
        (lambda: optim.Adadelta(lr=0.0), "Adadelta: lr must be a number of more than 0, not 0.0"),
        (lambda: optim.Adadelta(rho=1.5), "Adadelta: rho must be"),
        (lambda: optim.Adadelta(eps=float("nan")), "Adadelta: eps must be"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
