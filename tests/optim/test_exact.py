"""Exact Gauss-Newton and natural gradient: their formulas, what they are invariant to, and what they refuse."""

import numpy as np
import pytest
from cases import LOSSES, chain, host, off

import minigrad as mg
import optim
from minigrad import backend, losses, nn
from optim.curvature import KINDS, STRUCTURES, matrix
from optim.exact import ROW_KINDS


def step_of(method, f, rng=3):
    return host(method.update(f, method.init(f.params, rng=rng)))


def dense(f, kind, structure="dense"):
    return host(matrix(f, kind, structure).dense())


def solved(array, damping, g):
    return np.linalg.solve(array + damping * np.eye(len(array)), host(g))


# -------------------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("l2", [0.0, 0.2])
@pytest.mark.parametrize("structure", STRUCTURES)
@pytest.mark.parametrize("kind", ["fisher", "empirical", "gn_prob"])
def test_gauss_newton_is_its_formula(kind, structure, l2, device):  # T-3.1.3
    f = chain(device=device, l2=l2)
    array = dense(f, kind, structure)
    step = step_of(optim.GaussNewton(0.7, 0.3, structure, kind), f)
    assert off(step, -0.7 * solved(array, 0.3, f.grad)) < 1e-9


@pytest.mark.parametrize("structure", STRUCTURES)
def test_natural_gradient_minimises_its_criterion(structure, device):  # T-3.2.2
    f, lr, eps = chain(device=device), 0.7, 0.2
    F, g = dense(f, "fisher", structure), host(f.grad)
    step = step_of(optim.NaturalGradient(lr, eps, structure), f)
    assert off(step, -lr * np.linalg.solve(np.eye(len(F)) + lr / eps * F, g)) < 1e-9

    def criterion(delta):
        return delta @ g + delta @ delta / (2 * lr) + delta @ F @ delta / (2 * eps)

    rng = np.random.default_rng(0)
    assert all(criterion(step + 1e-3 * rng.standard_normal(len(g))) > criterion(step) for _ in range(20))


def test_natural_gradient_lies_between_gradient_descent_and_gauss_newton():
    f = chain()
    assert off(step_of(optim.NaturalGradient(0.3, 1e9), f), -0.3 * f.grad) < 1e-8
    assert off(step_of(optim.NaturalGradient(2.0, 0.1), f), step_of(optim.GaussNewton(0.1, 0.05), f)) < 1e-13


def test_one_undamped_step_solves_least_squares(device):
    f = chain("squared", hidden=None, sizes=(5, 3), n=20, device=device)
    f.params.vector += optim.GaussNewton(1.0, 0.0).update(f, optim.GaussNewton().init(f.params))
    x, y = host(f.args[0]), host(f.targets)
    best, *_ = np.linalg.lstsq(np.hstack([x, np.ones((20, 1))]), y, rcond=None)
    assert off(f.params["0.W"], best[:-1].T) < 1e-12 and off(f.params["0.b"], best[-1]) < 1e-12


@pytest.mark.parametrize("curvature", KINDS)
def test_diagonal_is_its_formula(curvature, device):
    f = chain(device=device, l2=0.2)
    method = optim.Diagonal(0.7, 0.3, curvature)
    if curvature == "mc":
        D = host(matrix(f, "mc", "diagonal", rng=backend.stream(3, "curvature", 0)).vector)
    else:
        D = np.abs(np.diag(dense(f, curvature)))
    assert off(step_of(method, f), -0.7 * host(f.grad) / (D + 0.3)) < 1e-12


def test_diagonals_are_stale_between_refreshes():
    f = chain(n=20)
    method, seen = optim.Diagonal(0.01, every=3), []
    state = method.init(f.params)
    for _ in range(7):
        method.step(f, state)
        seen.append(state["D"].copy())
    assert [off(a, b) > 0 for a, b in zip(seen, seen[1:])] == [False, False, True, False, False, True]


@pytest.mark.parametrize("curvature", ROW_KINDS)
@pytest.mark.parametrize("n", [2, 60])  # fewer and more rows than a layer has parameters
def test_layer_gauss_newton_is_the_block_step(curvature, n, device):  # T-3.1.5
    f = chain(n=n, l2=0.2, device=device)
    rule, whole = (kind(0.7, 0.3, curvature=curvature) for kind in (optim.LayerGaussNewton, optim.GaussNewton))
    whole.structure = "block"
    assert off(step_of(rule, f), step_of(whole, f)) < 1e-10


def test_layer_gauss_newton_without_biases():
    net = nn.Sequential(nn.Dense(4, 5, bias=False), nn.Tanh(), nn.Dense(5, 3, bias=False))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 4)), rng.integers(0, 3, 6)
    f = mg.Objective(net, losses.softmax_cross_entropy, net.init(rng=0, dtype="float64"), x, y, l2=0.1)
    array = dense(f, "fisher", "block")
    assert off(step_of(optim.LayerGaussNewton(0.7, 0.3), f), -0.7 * solved(array, 0.3, f.grad)) < 1e-12


def test_samples_of_the_rule_are_not_those_of_ubp():
    f = chain(n=20)
    inner = optim.LayerGaussNewton(0.01, 1.0, curvature="mc", samples=5)
    plain, over = (f.params.windows(step_of(m, f)) for m in (inner, optim.UBP(inner, mode="mc")))
    assert off(over["3.W"], plain["3.W"]) < 1e-14  # the top layer's signal is not edited
    assert off(over["0.W"], plain["0.W"]) > 1e-6


@pytest.mark.parametrize("rule", [optim.Diagonal(0.01), optim.LayerGaussNewton(0.01)])
def test_ubp_goes_over_the_rules_that_are_final_at_the_layer(rule):
    f = chain(n=20)
    plain, over = (f.params.windows(step_of(m, f)) for m in (rule, optim.UBP(rule)))
    assert off(over["3.W"], plain["3.W"]) < 1e-14 and 1e-6 < off(over["0.W"], plain["0.W"]) < 0.5


def test_ubp_refuses_the_coupled_methods_by_name():
    with pytest.raises(ValueError, match="UBP goes over a layer rule .* not GaussNewton"):
        optim.UBP(optim.GaussNewton())


def test_a_step_is_drawn_from_the_states_own_stream():
    f, method = chain(n=20), optim.GaussNewton(curvature="mc")
    one, again, other = step_of(method, f, 3), step_of(method, f, 3), step_of(method, f, 4)
    assert (one == again).all() and (one != other).any()
    later = method.update(f, {**method.init(f.params, rng=3), "t": 1})
    assert (one != later).any()


def gained(p, x, train=False):
    return mg.dense(mg.tanh(mg.dense(x, p["0.W"], p["0.b"]) * p["gain"]), p["1.W"], p["1.b"])


def gained_objective(l2=0.2):
    rng = np.random.default_rng(0)
    shapes = {"0.W": (4, 3), "0.b": (4,), "gain": (4,), "1.W": (2, 4), "1.b": (2,)}
    params = mg.Params({name: rng.standard_normal(shape) for name, shape in shapes.items()})
    x, y = rng.standard_normal((8, 3)), rng.standard_normal((8, 2))
    return mg.Objective(gained, mg.losses.squared_error, params, x, y, l2=l2)


def test_parameters_without_a_site():
    f = gained_objective()
    for structure in ("dense", "block", "diagonal", "matrix-free"):
        step = step_of(optim.GaussNewton(0.7, 0.3, structure), f)  # they have a curvature of their own
        assert off(step, -0.7 * solved(dense(f, "fisher", structure), 0.3, f.grad)) < 1e-8
    for method in (optim.Diagonal(0.1), optim.LayerGaussNewton(0.1)):  # a layer rule takes a gradient step for them
        assert off(f.params.windows(step_of(method, f))["gain"], -0.1 * f.grad_of("gain")) < 1e-13
        method.rest_lr = 0.5
        assert off(f.params.windows(step_of(method, f))["gain"], -0.5 * f.grad_of("gain")) < 1e-13


# ------------------------------------------------------------------------------------------------------ identities


def trajectory(method, f, steps=5):
    """The network's outputs along a run."""
    state, found = method.init(f.params, rng=0), []
    for _ in range(steps):
        method.step(f, state)
        found.append(host(f.output).copy())
    return np.stack(found)


METHODS_10 = [  # undamped, and nearly so: as λ grows T-3.2.2 becomes the undamped natural gradient with rate ε
    (optim.GaussNewton(0.3, 0.0), 1e-9),
    (optim.GaussNewton(0.3, 0.0, curvature="empirical"), 1e-7),
    (optim.NaturalGradient(1e10, 0.3), 1e-6),
    (optim.Newton(lr=0.3, indefinite="keep", line_search="none"), 1e-7),
]


@pytest.mark.parametrize("method, tolerance", METHODS_10, ids=lambda v: repr(v) if hasattr(v, "step") else "")
def test_identity_10_affine_maps_of_theta_leave_the_functions_trajectory(method, tolerance):
    f = chain("squared", sizes=(3, 2, 2), n=30)  # N·C ≥ d
    rng = np.random.default_rng(1)
    d = f.params.size
    M, c = np.eye(d) + 0.3 * rng.standard_normal((d, d)), rng.standard_normal(d)

    def mapped(p, x, train=False):
        theta = mg.matmul(M, p["phi"]) + c
        layout = f.params.layout.items()
        return f.net({name: mg.reshape(theta[start:stop], shape) for name, (start, stop, shape) in layout}, x)

    phi = mg.Params(phi=np.linalg.solve(M, f.params.vector - c))
    g = mg.Objective(mapped, f.loss, phi, f.args[0], f.targets)
    assert off(g.output, f.output) < 1e-12
    start = f.params.vector.copy()
    whole = trajectory(method, f)
    assert off(whole[-1], whole[0]) > 1e-2
    assert off(trajectory(method, g), whole) < tolerance
    f.params.vector = start
    phi.vector = np.linalg.solve(M, start - c)
    descent = optim.GD(0.05)  # what is not invariant, for comparison
    assert off(trajectory(descent, g), trajectory(descent, f)) > 1e-2


class Scaled(losses.Loss):
    """c·ℓ of another loss, with c times its curvature."""

    def __init__(self, loss, c):
        self.loss, self.c, self.name = loss, c, loss.name

    def at(self, z, y):
        return ScaledView(self.loss.at(z, y), self.c)


class ScaledView:
    def __init__(self, view, c):
        self.view, self.c, self.z, self.y = view, c, view.z, view.y

    def value(self):
        return self.c * self.view.value()

    def gradient(self):
        return self.c * self.view.gradient()

    def curvature(self, v):
        return self.c * self.view.curvature(v)

    def root(self, kind="fisher"):
        return np.sqrt(self.c) * self.view.root(kind)

    def sample(self, rng):
        return np.sqrt(self.c) * self.view.sample(rng)


@pytest.mark.parametrize("loss", LOSSES)
def test_identity_12_loss_scale_is_undone_by_the_stated_settings(loss):
    f, c = chain(loss), 7.0
    g = mg.Objective(f.net, Scaled(f.loss, c), f.params, f.args[0], f.targets)
    pairs = []
    for structure in STRUCTURES:
        for kind in ("fisher", "mc", "gn_prob"):  # these scale with the loss
            own = {"structure": structure, "curvature": kind}
            pairs.append((optim.GaussNewton(0.3, 0.2, **own), optim.GaussNewton(0.3, 0.2 * c, **own)))
            pairs.append((optim.NaturalGradient(0.3, 0.2, **own), optim.NaturalGradient(0.3 / c, 0.2, **own)))
        own = {"structure": structure, "curvature": "empirical"}  # this with its square
        pairs.append((optim.GaussNewton(0.3, 0.2, **own), optim.GaussNewton(0.3 * c, 0.2 * c * c, **own)))
        pairs.append((optim.NaturalGradient(0.3, 0.2, **own), optim.NaturalGradient(0.3 / c, 0.2 * c, **own)))
    for kind in (optim.Diagonal, optim.LayerGaussNewton):
        pairs.append((kind(0.3, 0.2), kind(0.3, 0.2 * c)))
        pairs.append((kind(0.3, 0.2, "empirical"), kind(0.3 * c, 0.2 * c * c, "empirical")))
        pairs.append((optim.UBP(kind(0.3, 0.2)), optim.UBP(kind(0.3, 0.2 * c))))
    pairs.append((optim.Diagonal(0.3, 0.2, "hessian"), optim.Diagonal(0.3, 0.2 * c, "hessian")))
    for of_f, of_g in pairs:
        assert off(step_of(of_g, g), step_of(of_f, f)) < 1e-8, of_f


# -------------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("kind", [optim.GaussNewton, optim.NaturalGradient, optim.Diagonal, optim.LayerGaussNewton])
def test_bad_settings_are_refused(kind):
    name = kind.__name__
    bad = [
        ({"lr": 0.0}, f"{name}: lr must be a number of more than 0"),
        ({"curvature": "gn"}, f"{name}: curvature must be one of fisher, mc, empirical, gn_prob"),
        ({"samples": 0}, f"{name}: samples must be a whole number"),
    ]
    if kind in (optim.GaussNewton, optim.NaturalGradient):
        bad.append(({"structure": "full"}, f"{name}: structure must be one of dense, block"))
    if kind is not optim.Diagonal:
        bad.append(({"curvature": "hessian"}, f"{name}: curvature 'hessian' may be indefinite; use Newton"))
    if kind in (optim.Diagonal, optim.LayerGaussNewton):
        bad.append(({"damping": 0.0}, f"{name}: damping must be a number of more than 0"))
        bad.append(({"rest_lr": -1.0}, f"{name}: rest_lr must be"))
    negative = "eps" if kind is optim.NaturalGradient else "damping"
    bad.append(({negative: -1.0}, f"{name}: {negative} must be"))
    for settings, told in bad:
        with pytest.raises(ValueError, match=told):
            kind(**settings)


def test_large_layers_are_refused_before_anything_is_formed():
    net = nn.mlp([80, 60, 3])
    rng = np.random.default_rng(0)
    x, y = rng.random((1400, 80), dtype=np.float32), rng.integers(0, 3, 1400)
    f = mg.Objective(net, losses.softmax_cross_entropy, net.init(rng=0), x, y)
    with pytest.raises(ValueError, match="layer '0' has 4,860 parameters and 4,200 rows .* use KFAC or Diagonal"):
        step_of(optim.LayerGaussNewton(), f)
    with pytest.raises(ValueError, match="5,043 parameters and 4,200 rows"):
        step_of(optim.GaussNewton(), f)


def test_singular_curvature_and_nan_stop_with_a_sentence(device):
    f = chain(device=device)
    theta = host(f.params.vector).copy()
    method = optim.GaussNewton(damping=0.0)
    with pytest.raises(backend.FactorisationError, match="the dense fisher matrix .* is singular.*raise the damping"):
        method.step(f, method.init(f.params))
    f.args[0][0, 0] = np.nan
    f = mg.Objective(f.net, f.loss, f.params, f.args[0], f.targets)
    for method in (optim.GaussNewton(), optim.NaturalGradient()):
        with pytest.raises(backend.FactorisationError, match="the dense fisher matrix .* holds NaN"):
            method.step(f, method.init(f.params))
    for method in (optim.LayerGaussNewton(), optim.GaussNewton(structure="block")):
        with pytest.raises(backend.FactorisationError, match="layer '.' .* holds NaN"):
            method.step(f, method.init(f.params))
    assert (host(f.params.vector) == theta).all()


def test_batch_norm_in_train_mode_is_refused_by_the_layers_name():
    net = nn.Sequential(nn.Dense(4, 5), nn.BatchNorm(5), nn.Tanh(), nn.Dense(5, 3))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 4)), rng.integers(0, 3, 8)
    params = net.init(rng=0, dtype="float64")
    for method in (optim.GaussNewton(structure="matrix-free"), optim.Diagonal(), optim.LayerGaussNewton()):
        with pytest.raises(ValueError, match="layer 'bn0' mixes the examples of a batch in train mode"):
            step_of(method, mg.Objective(net, losses.softmax_cross_entropy, params, x, y, train=True))
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x, y)
    assert off(step_of(optim.GaussNewton(0.7, 0.3), f), -0.7 * solved(dense(f, "fisher"), 0.3, f.grad)) < 1e-10


WAITS = [
    (optim.GaussNewton(), 1),
    (optim.GaussNewton(structure="block"), 4),
    (optim.GaussNewton(structure="diagonal"), 0),
    (optim.NaturalGradient(), 1),
    (optim.Diagonal(), 0),
    (optim.Diagonal(curvature="hessian"), 0),
    (optim.LayerGaussNewton(), 4),
]


@pytest.mark.parametrize("method, waits", WAITS, ids=lambda v: repr(v) if hasattr(v, "step") else "")
def test_a_step_waits_as_often_as_it_says(method, waits):
    device_stats = pytest.importorskip("device_stats", reason="counters exist on the CPU device only")
    f = chain(device="cuda")
    state = method.init(f.params)
    for _ in range(2):  # the first compiles
        device_stats.reset()
        method.update(f, state)
        found = device_stats.read()
    assert found["syncs"] == waits and found["h2d"] == 0
