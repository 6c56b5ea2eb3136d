"""Kronecker factors of a batch: their definitions, scaling, blocks of signals, and the guarded solves."""

import numpy as np
import pytest
from cases import chain, host, memory_below, off

import minigrad as mg
from minigrad import backend, losses, nn
from optim import factors

KINDS = factors.KINDS
every_kind = pytest.mark.parametrize("kind", KINDS)


def inputs_and_signals(f, kind, samples=1, rng=None):
    """{layer: (h, s)} on the host."""
    signals = f.signals(kind, samples, rng)
    return {site.name: (host(site.h), host(signals[site.name])) for site in f.sweep()}


@every_kind
@pytest.mark.parametrize("loss", ["squared", "softmax", "sigmoid"])
def test_factors_are_their_definitions(kind, loss, device):
    f = chain(loss, device=device)
    found = factors.kronecker_factors(f, kind, samples=3, rng=5)
    assert list(found) == ["0", "1", "2", "3"]
    for name, (h, s) in inputs_and_signals(f, kind, 3, 5).items():
        h = np.hstack([h, np.ones((len(h), 1))])
        assert off(found[name][0], h.T @ h / f.n) < 1e-13
        assert off(found[name][1], np.einsum("kno,knp->op", s, s) / f.n) < 1e-13


def test_factors_of_a_batch_and_of_the_batch_twice_are_the_same():  # neither h nor s is divided by N before
    f = chain(n=5)
    twice = mg.Objective(f.net, f.loss, f.params, *(np.concatenate([a, a]) for a in (f.args[0], f.targets)))
    once = factors.kronecker_factors(f, "fisher")
    for name, (A, G) in factors.kronecker_factors(twice, "fisher").items():
        assert off(A, once[name][0]) < 1e-13 and off(G, once[name][1]) < 1e-13


def test_separate_inputs_have_no_constant_and_neither_have_layers_without_bias():
    f = chain()
    assert off(factors.layer_inputs(f, joint=False)["0"], f.args[0]) == 0.0
    assert factors.layer_inputs(f)["0"].shape == (9, 7) and (factors.layer_inputs(f)["0"][:, -1] == 1).all()
    net = nn.Sequential(nn.Dense(4, 3, bias=False))
    g = mg.Objective(net, losses.squared_error, net.init(dtype="float64"), np.ones((5, 4)), np.ones((5, 3)))
    assert factors.layer_inputs(g)["0"].shape == (5, 4)


@pytest.mark.parametrize("kind", ["fisher", "mc", "gn_prob"])
def test_blocks_of_signals_give_the_same_factors(kind, monkeypatch):
    f = chain("softmax", sizes=(6, 7, 8), n=4)
    whole = factors.signal_factors(f, kind, samples=5, rng=2)
    monkeypatch.setattr(factors, "SIGNAL_BYTES", 3 * 4 * 15 * 8)  # three signals of both layers
    sizes = [block["0"].shape[0] for block in factors.signal_blocks(f, kind, samples=5, rng=2)]
    assert sizes == {"mc": [3, 2]}.get(kind, [3, 3, 2])
    for name, G in factors.signal_factors(f, kind, samples=5, rng=2).items():
        assert off(G, whole[name]) < 1e-13
    monkeypatch.setattr(factors, "SIGNAL_BYTES", 1)
    assert [b["0"].shape[0] for b in factors.signal_blocks(f, kind, samples=2, rng=2)][:2] == [1, 1]


def test_many_outputs_take_bounded_memory(monkeypatch):
    f = chain("squared", sizes=(20, 60, 300), n=20)
    monkeypatch.setattr(factors, "SIGNAL_BYTES", 1_000_000)  # all 300 signals at once would be 17 MB
    f.graph()
    with memory_below(6_000_000):
        factors.signal_factors(f, "fisher")


def test_sampled_factors_tend_to_the_exact_ones_like_one_over_the_root_of_samples():  # identity 5
    f = chain("softmax", n=6)
    exact = factors.signal_factors(f, "fisher")["1"]

    def error(samples):
        draws = [factors.signal_factors(f, "mc", samples, rng=k)["1"] - exact for k in range(60)]
        return np.sqrt(np.mean([(d * d).sum() for d in draws]))

    few, many = error(4), error(64)
    assert 3.2 < few / many < 5.0 and many < 0.3 * np.linalg.norm(exact)


@every_kind
@pytest.mark.parametrize("joint", [True, False])
def test_eigen_scales_are_second_moments_of_per_example_gradients(kind, joint, device):
    f = chain("sigmoid", device=device)
    pairs = factors.kronecker_factors(f, kind, 2, 7, joint)
    bases = {name: (np.linalg.eigh(host(A))[1], np.linalg.eigh(host(G))[1]) for name, (A, G) in pairs.items()}
    uploaded = {name: tuple(backend.asarray(Q, device) for Q in both) for name, both in bases.items()}
    found = factors.eigen_scales(f, uploaded, kind, 2, 7, joint)
    for name, (h, s) in inputs_and_signals(f, kind, 2, 7).items():
        h = np.hstack([h, np.ones((len(h), 1))]) if joint else h
        gradients = np.einsum("og,kno,ni,ia->knga", bases[name][1], s, h, bases[name][0])
        assert off(found[name], (gradients**2).sum((0, 1)) / f.n) < 1e-12


def test_averages_start_in_full_and_then_forget(device):
    rng = np.random.default_rng(0)
    batches = [rng.standard_normal((3, 2)) for _ in range(8)]
    found, expected = None, None
    for k, new in enumerate(batches, 1):
        rho = min(1 - 1 / k, 0.6)
        expected = new if k == 1 else rho * expected + (1 - rho) * new
        kept = None if found is None else host(found).copy()
        moved = factors.moving_average(found, backend.asarray(new.copy(), device), k, 0.6)
        assert found is None or (host(found) == kept).all()
        found = moved
        assert off(found, expected) < 1e-14
    assert off(expected, np.mean(batches, 0)) > 0.1


def test_the_damping_of_the_factors_multiplies_to_lambda_and_balances_their_traces(device):
    f = chain(device=device)
    A, G = factors.kronecker_factors(f, "fisher")["1"]
    a, g = (float(x) for x in factors.split_damping(A, G, 0.04))
    assert abs(a * g / 0.04 - 1) < 1e-14
    assert abs((a / g) / (np.trace(host(A)) / len(A) * len(G) / np.trace(host(G))) - 1) < 1e-12
    for dead in [(0 * A, G), (A, 0 * G), (0 * A, 0 * G)]:  # π is 1 where a factor is zero
        assert [float(x) for x in factors.split_damping(*dead, 0.04)] == [0.2, 0.2]


# ------------------------------------------------------------------------------------------------- guarded solves


def test_a_matrix_that_float32_cannot_factorise_is_tried_in_float64(device):
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((40, 40)))[0]
    matrix = ((Q * np.logspace(0, -9, 40)) @ Q.T).astype("float32")
    uploaded = backend.asarray(matrix, device)
    with pytest.raises(backend.FactorisationError):
        backend.spd_inverse(uploaded)
    found = factors.damped_inverse(uploaded, 1e-6, "2")
    assert found.dtype == np.float32
    exact = np.linalg.inv(matrix.astype(float) + 1e-6 * np.eye(40))
    assert off(found, exact) < 1e-2


def test_the_damping_is_raised_before_the_last_inverse_is_kept_before_the_layer_is_named(device):
    negative = backend.asarray(np.diag([1.0, -0.5]), device)
    assert off(factors.damped_inverse(negative, 0.01, "2"), np.diag([0.5, 2.0])) < 1e-12  # at 100 × 0.01
    last = backend.asarray(np.eye(2), device)
    assert factors.damped_inverse(negative, 0.001, "2", last) is last
    with pytest.raises(backend.FactorisationError, match="layer '2': the matrix is not positive definite"):
        factors.damped_inverse(negative, 0.001, "2")
    with pytest.raises(backend.FactorisationError, match="layer '2'"):
        factors.damped_inverse(backend.asarray(np.full((2, 2), np.nan), device), 0.1, "2", last)


def test_an_eigenbasis_names_its_layer(device):
    singular = backend.asarray(np.diag([1.0, 0.0]), device)
    assert host(factors.eigenbasis(singular, "2")[0]).tolist() == [0.0, 1.0]
    with pytest.raises(backend.FactorisationError, match="layer '2': a factor is singular"):
        factors.eigenbasis(singular, "2", regular=True)
    with pytest.raises(backend.FactorisationError, match="layer '2': the matrix holds NaN"):
        factors.eigenbasis(singular * np.nan, "2")


def test_moves_are_relative_frobenius_norms(device):
    rng = np.random.default_rng(0)
    pairs = [tuple(rng.standard_normal((2, k, k))) for k in (3, 5)]
    found = factors.relative_moves([tuple(backend.asarray(m, device) for m in pair) for pair in pairs])
    expected = [np.linalg.norm(new - old) / np.linalg.norm(old) for new, old in pairs]
    assert off(np.array(found), np.array(expected)) < 1e-14
    zero, one = (backend.asarray(m, device) for m in (np.zeros((2, 2)), np.eye(2)))
    assert factors.relative_moves([(one, zero), (zero, zero)]) == [np.inf, 0.0]


def test_what_has_no_factors_is_named():
    rng = np.random.default_rng(0)
    params = mg.Params({"0.W": rng.standard_normal((3, 3)), "0.b": rng.standard_normal(3)})
    x = rng.standard_normal((5, 3))

    def tied(p, x, train=False):
        return mg.dense(mg.tanh(mg.dense(x, p["0.W"], p["0.b"])), p["0.W"], p["0.b"])

    def positions(p, x, train=False):
        return mg.sum(mg.dense(mg.reshape(x, (5, 1, 3)), p["0.W"], p["0.b"]), axis=1)

    for net, message in [
        (tied, "layer '0' has no Kronecker factors: it is applied more than once"),
        (positions, r"layer '0' has no Kronecker factors: its input has shape \(5, 1, 3\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            factors.kronecker_factors(mg.Objective(net, losses.squared_error, params, x, x), "fisher")
    with pytest.raises(ValueError, match="its kind is one of mc, fisher, empirical, gn_prob, not 'hessian'"):
        factors.kronecker_factors(chain(), "hessian")
