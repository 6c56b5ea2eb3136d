"""Quantities of single examples and of curvature: against gradients taken one example at a time."""

import numpy as np
import pytest
from cases import LOSSES, chain, host, memory_below, off, random_like
from test_curvature import NETS, decay, referenced, stored

import minigrad as mg
from minigrad import backend, losses, nn
from optim import quantities
from optim.curvature import matrix


def alone(f):
    """∂ℓ_n/∂θ (N, d), from an objective for every example."""
    targets = f.view().y
    slices = [slice(i, i + 1) for i in range(f.n)]
    return np.stack([host(mg.Objective(f.net, f.loss, f.params, f.args[0][i], targets[i]).grad) for i in slices])


# ------------------------------------------------------------------------------------------------ single examples


@pytest.mark.parametrize("net", NETS)
def test_gradients_of_single_examples(net, device):
    f = NETS[net](device=device, l2=0.3)
    g = alone(f)
    assert off(quantities.per_example_gradients(f), g) < 1e-13
    assert off(quantities.per_example_norms(f), np.linalg.norm(g, axis=1)) < 1e-13
    assert off(quantities.second_moment(f), (g**2).mean(0)) < 1e-13
    if f.n > 1:
        assert off(quantities.variance(f), g.var(0)) < 1e-12


@pytest.mark.parametrize("loss", LOSSES)
def test_their_mean_and_l2_make_the_gradient(loss):
    f = NETS["deep"](loss=loss, l2=0.3)
    mean = host(quantities.per_example_gradients(f)).mean(0)
    assert off(mean + np.diag(decay(f)) * f.params.vector, f.grad) < 1e-13
    assert off(quantities.per_example_gradients(f), alone(f)) < 1e-13


@stored("backpack")
def test_quantities_are_those_of_backpack(case, device):
    f, values = referenced(case, device), case["values"]
    found = {
        "per-example gradients": quantities.per_example_gradients,
        "per-example norms": quantities.per_example_norms,
        "second moment": quantities.second_moment,
        "variance": quantities.variance,
        "diagonal ggn": quantities.diagonal_ggn,
        "diagonal hessian": quantities.diagonal_hessian,
    }
    assert set(found) == set(values)
    for name, quantity in found.items():
        assert off(quantity(f), values[name]) < 1e-10, name


def test_a_user_s_loss_has_them_too():
    f = NETS["deep"]()
    own = mg.Objective(f.net, lambda z, y: 3.0 * mg.softmax_cross_entropy(z, y), f.params, f.args[0], f.view().y)
    assert off(quantities.per_example_gradients(own), 3.0 * alone(f)) < 1e-13


def test_the_second_moment_is_the_diagonal_of_the_empirical_fisher(device):
    f = NETS["deep"](device=device)
    assert off(quantities.second_moment(f), matrix(f, "empirical", "diagonal").vector) < 1e-14


def test_the_variance_of_one_direction_is_not_negative():
    f = NETS["chain"](loss="squared")
    x = np.repeat(f.args[0][:1], 6, 0).astype("float32")
    params = mg.Params({name: f.params[name].astype("float32") for name in f.params})
    g = mg.Objective(f.net, f.loss, params, x, np.repeat(f.targets[:1], 6, 0))  # six times the same example
    variance = quantities.variance(g)
    assert (variance >= 0).all() and variance.max() < 1e-6 * quantities.second_moment(g).max()


def test_norms_and_moments_form_no_gradients():
    net = nn.mlp([300, 300, 10])
    rng = np.random.default_rng(0)
    x, y = rng.random((64, 300), dtype=np.float32), rng.integers(0, 10, 64)
    f = mg.Objective(net, losses.softmax_cross_entropy, net.init(rng=0), x, y)
    with memory_below(64 * f.params.size * 4 // 4):
        quantities.per_example_norms(f)
        quantities.second_moment(f)
        quantities.variance(f)


def test_gradients_that_would_not_fit_are_refused(monkeypatch):
    f = NETS["chain"]()
    monkeypatch.setattr("optim.quantities.EXPLICIT_LIMIT", 1000)
    with pytest.raises(MemoryError, match="the gradients of 5 examples would take 0.0 GiB; per_example_norms, second"):
        quantities.per_example_gradients(f)


# ---------------------------------------------------------------------------------------------------- curvature


@pytest.mark.parametrize("net", NETS)
def test_diagonals_are_those_of_the_dense_matrices(net, device):
    f = NETS[net](device=device, l2=0.3)
    assert off(quantities.diagonal_ggn(f), np.diag(host(matrix(f, "fisher", "dense").dense()))) < 1e-12
    assert off(quantities.diagonal_hessian(f), np.diag(host(matrix(f, "hessian", "dense").dense()))) < 1e-12
    drawn = np.diag(host(matrix(f, "mc", "dense", samples=2, rng=5).dense()))
    assert off(quantities.diagonal_ggn(f, "mc", samples=2, rng=5), drawn) < 1e-12


def test_the_diagonal_of_the_hessian_takes_a_product_a_unit():
    f = chain()
    quantities.diagonal_hessian(f)
    assert f.cost.products == 0  # of those with a whole vector, of which the columns would take 128


@pytest.mark.parametrize("net", NETS)
@pytest.mark.parametrize("loss", LOSSES)
def test_output_norm_is_the_quadratic_form_of_gauss_newton(net, loss, device):  # T-3.3.2
    f = NETS[net](loss=loss, device=device)
    v = random_like(f.params.vector)
    assert off(quantities.output_norm(f, v), host(v) @ host(f.ggnvp(v))) < 1e-12
    with_l2 = NETS[net](loss=loss, device=device, l2=0.5)
    assert off(quantities.output_norm(with_l2, v), quantities.output_norm(f, v)) < 1e-14  # the outputs know no L2


def log_likelihoods(f):
    """log p(y | x) of every possible outcome, and the mean for the Gaussian, as the KL divergence needs them."""
    z = host(f.output)
    if f.loss is losses.softmax_cross_entropy:
        return z - np.log(np.exp(z).sum(1, keepdims=True))
    return np.stack([-np.logaddexp(0, -z), -np.logaddexp(0, z)])


def divergence(f, g):
    """KL(model at f ‖ model at g), averaged over the examples."""
    if f.loss is losses.squared_error:  # Gaussians of variance ½
        return ((host(f.output) - host(g.output)) ** 2).sum() / f.n
    old, new = log_likelihoods(f), log_likelihoods(g)
    return (np.exp(old) * (old - new)).sum() / f.n


@pytest.mark.parametrize("loss", LOSSES)
def test_identity_16_half_the_output_norm_is_the_kl_divergence_to_third_order(loss, device):
    f = chain(loss, device=device)
    v = 2.0 * random_like(f.params.vector) / f.params.size**0.5
    theta = f.params.vector
    errors = []
    for power in range(4, 9):
        delta = v * 0.5**power
        errors.append(abs(divergence(f, f.at(theta + delta)) - 0.5 * float(quantities.output_norm(f, delta))))
    ratios = np.array(errors[:-1]) / errors[1:]
    assert 7.2 < ratios[-1] < 8.8, ratios  # 8
    delta = v * 1e-3
    assert off(divergence(f, f.at(theta + delta)), 0.5 * host(quantities.output_norm(f, delta))) < 1e-2


# --------------------------------------------------------------------------------------------------- bad input


def test_what_has_no_examples_is_refused():
    plain = mg.Objective(lambda p: p["x"] ** 2, mg.Params(x=1.0))
    for name in ("per_example_gradients", "per_example_norms", "second_moment", "output_norm"):
        given = (plain, np.ones(1)) if name == "output_norm" else (plain,)
        with pytest.raises(TypeError, match=f"{name} needs a network and its loss"):
            getattr(quantities, name)(*given)
    with pytest.raises(TypeError, match="curvature 'fisher' needs a network"):
        quantities.diagonal_ggn(plain)
    assert quantities.diagonal_hessian(plain).tolist() == [2.0]


def test_bad_input_is_refused_with_one_sentence():
    with pytest.raises(ValueError, match="variance needs at least two examples, and this batch has one"):
        quantities.variance(NETS["one example"]())
    with pytest.raises(ValueError, match=r"output_norm takes an update of shape \(43,\), not \(3,\)"):
        quantities.output_norm(NETS["chain"](), np.ones(3))
    with pytest.raises(ValueError, match="unknown curvature 'gn'"):
        quantities.diagonal_ggn(NETS["chain"](), "gn")


def test_batch_norm_in_train_mode_is_refused_by_the_layers_name():
    net = nn.Sequential(nn.Dense(4, 5), nn.BatchNorm(5), nn.Tanh(), nn.Dense(5, 3))
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 4)), rng.integers(0, 3, 8)
    params = net.init(rng=0, dtype="float64")
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x, y, train=True)
    asked = [getattr(quantities, name) for name in ("per_example_norms", "second_moment", "variance", "diagonal_ggn")]
    for ask in [*asked, lambda f: quantities.output_norm(f, f.grad), quantities.diagonal_hessian]:
        with pytest.raises(ValueError, match="layer 'bn0' mixes the examples of a batch in train mode"):
            ask(f)
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x, y)
    assert off(quantities.per_example_gradients(f), alone(f)) < 1e-13  # gamma and beta too


def test_float32_stays_float32(device):
    net = nn.mlp([4, 5, 3])
    rng = np.random.default_rng(0)
    x = backend.asarray(rng.random((6, 4), dtype=np.float32), device)
    y = backend.asarray(rng.integers(0, 3, 6), device)
    f = mg.Objective(net, losses.softmax_cross_entropy, net.init(rng=0, device=device), x, y, l2=0.1)
    names = "per_example_gradients per_example_norms second_moment variance diagonal_ggn diagonal_hessian".split()
    found = [getattr(quantities, name)(f) for name in names] + [quantities.output_norm(f, f.grad)]
    assert all(value.dtype == np.float32 and backend.device_of(value) == device for value in found)
