"""Eigenvalues from products against dense ones, and LeCun's rate."""

import numpy as np
import pytest
from cases import chain, host, off
from scipy.sparse.linalg import LinearOperator, eigsh

import minigrad as mg
import optim
from minigrad import backend
from optim import spectrum

RNG = np.random.default_rng(5)


def symmetric(values, device="cpu", seed=0, dtype="float64"):
    """(product, like, A): a random symmetric matrix with these eigenvalues."""
    values = np.asarray(values, dtype="float64")
    q, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))
    a = (q * values) @ q.T
    matrix = backend.asarray(0.5 * (a + a.T), device, dtype)
    return lambda v: matrix @ v, backend.xp(matrix).zeros(len(values), dtype), a


def dense(product, like):
    """The matrix of a product, column by column."""
    eye = np.eye(like.size, dtype=like.dtype)
    return np.array([host(product(backend.like(e, like))) for e in eye])


@pytest.fixture(scope="module", params=["hvp", "ggnvp"])
def small_net(request):
    """(product, θ, its dense matrix) of a small net's Hessian and Gauss-Newton matrix."""
    f = chain(sizes=(4, 5, 3), n=8)
    product = getattr(f, request.param)
    return product, f.params.vector, dense(product, f.params.vector)


# ----------------------------------------------------------------------------------------------- power iteration


def test_power_iteration_finds_the_largest_in_size(small_net):
    product, like, a = small_net
    value, vector = spectrum.power_iteration(product, like)
    values, vectors = np.linalg.eigh(a)
    k = np.abs(values).argmax()
    assert abs(value / values[k] - 1) < 1e-12
    assert abs(abs(vectors[:, k] @ vector) - 1) < 1e-12


def test_power_iterations_error_falls_with_the_square_of_the_ratio():
    product, like, _ = symmetric([1.0, 0.8, 0.1, -0.3])
    v, errors = spectrum.normal(like, 1), []
    for _ in range(40):
        _, v = spectrum.power_step(product, v)
        errors.append(1 - v @ product(v))
    ratios = np.array(errors[21:]) / np.array(errors[20:-1])
    assert np.abs(ratios / 0.8**2 - 1).max() < 1e-3


def test_the_largest_eigenvalue_where_the_strongest_is_negative(device):
    product, like, _ = symmetric([-7.0, -1.0, 0.5, 2.0], device)
    assert abs(spectrum.power_iteration(product, like)[0] + 7) < 1e-12
    assert abs(spectrum.largest_eigenvalue(product, like) - 2) < 1e-12
    assert abs(spectrum.largest_eigenvalue(lambda v: -product(v), like) - 7) < 1e-12


def test_power_iteration_of_a_multiple_eigenvalue_and_of_zero(device):
    product, like, a = symmetric([3.0, 3.0, 3.0, 1.0], device)
    value, vector = spectrum.power_iteration(product, like)
    assert abs(value - 3) < 1e-14 and off(a @ host(vector), 3 * host(vector)) < 1e-7
    assert spectrum.power_iteration(lambda v: 0 * v, like)[0] == 0.0


def test_float32_ends_by_itself(device):
    product, like, _ = symmetric(np.linspace(0.1, 1, 40) ** 2, device, dtype="float32")
    value, vector = spectrum.power_iteration(product, like)
    assert vector.dtype == np.float32 and abs(value - 1) < 1e-5
    values, vectors = spectrum.extreme_eigenpairs(product, like, 2, "both")
    assert vectors.dtype == np.float32 and np.allclose(values, [1, (0.1 + 0.9 * 38 / 39) ** 2, 0.0151, 0.01], atol=1e-3)


# ------------------------------------------------------------------------------------------------------- Lanczos


def test_lanczos_tridiagonalises(device):
    product, like, a = symmetric(RNG.standard_normal(30), device)
    alphas, betas, basis = spectrum.lanczos(product, spectrum.normal(like, 2), 12)
    q = host(basis)
    t = np.diag(alphas) + np.diag(betas[:-1], 1) + np.diag(betas[:-1], -1)
    assert off(q @ q.T, np.eye(12)) < 1e-14
    assert off(q @ a @ q.T, t) < 1e-13
    left = a @ q.T - q.T @ t  # only the last column is left over, with norm β
    assert np.abs(left[:, :-1]).max() < 1e-13 and abs(np.linalg.norm(left[:, -1]) / betas[-1] - 1) < 1e-12


def test_the_basis_stays_orthonormal_over_many_steps():
    product, like, _ = symmetric([1e4, *np.linspace(0, 1, 149)])  # a far value costs plain Lanczos its orthogonality
    basis = spectrum.lanczos(product, spectrum.normal(like), 150)[2]
    assert off(basis @ basis.T, np.eye(len(basis))) < 1e-13


def test_lanczos_ends_where_its_space_does(device):
    product, like, _ = symmetric([4.0, 4.0, 4.0, 1.0, 1.0, -2.0, -2.0, -2.0], device)
    alphas, betas, basis = spectrum.lanczos(product, spectrum.normal(like), 8)
    assert len(alphas) == len(betas) == len(basis) == 3 and betas[-1] == 0  # each distinct eigenvalue once
    values, _ = spectrum.quadrature(product, spectrum.normal(like), 8)
    assert off(np.sort(values), np.array([-2.0, 1.0, 4.0])) < 1e-13
    one = spectrum.lanczos(lambda v: 3 * v, spectrum.normal(like), 5)
    assert one[0].shape == (1,) and abs(one[0][0] - 3) < 1e-14 and one[1].tolist() == [0]


def test_extreme_eigenpairs_are_those_of_eigh_and_eigsh(small_net):
    product, like, a = small_net
    values, vectors = spectrum.extreme_eigenpairs(product, like, 3, "largest")
    expected, e = np.linalg.eigh(a)
    assert off(values, expected[:-4:-1]) < 1e-12
    assert off(np.abs(np.diag(vectors @ e[:, :-4:-1])), np.ones(3)) < 1e-12
    operator = LinearOperator(a.shape, matvec=product, dtype=a.dtype)
    assert off(np.sort(values), eigsh(operator, 3, which="LA", return_eigenvectors=False)) < 1e-10
    low, rows = spectrum.extreme_eigenpairs(lambda v: product(v) + 2.0 * v, like, 1, "smallest")
    assert abs(low[0] - 2 - expected[0]) < 1e-12 and rows.shape == (1, like.size)


def test_both_ends_of_a_large_spectrum_without_all_steps(device):
    product, like, a = symmetric([-9, -5, *np.linspace(-1, 1, 296), 6, 8], device)
    calls = []

    def counted(v):
        calls.append(1)
        return product(v)

    values, vectors = spectrum.extreme_eigenpairs(counted, like, 2, "both")
    assert off(values, np.array([8.0, 6, -5, -9])) < 1e-13 and len(calls) < 60
    assert off(a @ host(vectors).T, host(vectors).T * values) < 1e-6


def test_condition_number(device):
    product, like, _ = symmetric(np.geomspace(1e-3, 10, 25), device)
    assert abs(spectrum.condition_number(product, like) / 1e4 - 1) < 1e-9


# ------------------------------------------------------------------------------------- trace and spectral density


def test_trace_is_within_its_standard_error(small_net):
    product, like, a = small_net
    value, error = spectrum.trace(product, like, 400, rng=1)
    assert abs(value - np.trace(a)) < 3 * error
    off_diagonal = a - np.diag(np.diag(a))  # Var zᵀAz = 2 Σ_{i≠j} a²ᵢⱼ
    assert abs(error / np.sqrt(2 * (off_diagonal**2).sum() / 400) - 1) < 0.2


def test_the_standard_error_of_two_probes_is_half_their_difference():
    product, like, _ = symmetric(RNG.standard_normal(9))
    generator = np.random.default_rng(8)
    one, two = (z @ product(z) for z in [spectrum.rademacher(like, generator) for _ in range(2)])
    value, error = spectrum.trace(product, like, 2, rng=8)
    assert abs(value - (one + two) / 2) < 1e-14 and abs(error / (abs(one - two) / 2) - 1) < 1e-14


def test_trace_of_a_diagonal_matrix_is_exact(device):
    c = backend.asarray(RNG.standard_normal(20), device)
    value, error = spectrum.trace(lambda v: c * v, c, probes=2)
    assert abs(value - float(c.sum())) < 1e-13 and error < 1e-14


def test_the_density_integrates_to_one_and_has_the_moments_of_the_spectrum(small_net):
    product, like, a = small_net
    density = spectrum.density(product, like, probes=100, steps=12, rng=3)
    grid, curve = density.curve()
    assert abs(np.trapezoid(curve, grid) - 1) < 1e-5
    for k in range(5):
        value, error = density.moment(k)
        assert abs(value - np.mean(np.linalg.eigvalsh(a) ** k)) < max(3 * error, 1e-13)


def test_all_unit_vectors_as_probes_give_the_spectrum_itself(small_net):
    product, like, a = small_net
    pairs = [spectrum.quadrature(product, e, like.size) for e in np.eye(like.size)]
    density = spectrum.Density([t for t, _ in pairs], [w for _, w in pairs])
    values = np.linalg.eigvalsh(a)
    for k in range(8):
        assert abs(density.moment(k).value / np.mean(values**k) - 1) < 1e-11
    grid, width = np.linspace(values[0] - 0.2, values[-1] + 0.2, 200), 0.05
    z = (grid[:, None] - values) / width
    expected = np.exp(-0.5 * z * z).mean(1) / (width * np.sqrt(2 * np.pi))
    assert off(density.at(grid, width), expected) < 1e-10


def test_the_quadrature_is_exact_to_twice_its_steps():
    product, like, a = symmetric(RNG.random(30))
    v = spectrum.normal(like, 4)
    t, w = spectrum.quadrature(product, v, 5)
    exact = [v @ np.linalg.matrix_power(a, k) @ v for k in range(11)]
    errors = np.abs([w @ t**k - exact[k] for k in range(11)])
    assert errors[:10].max() < 1e-14 and errors[10] > 1e-10


def test_a_multiple_eigenvalue_has_its_weight(device):
    product, like, _ = symmetric([2.0] * 30 + [5.0] * 10, device)
    density = spectrum.density(product, like, probes=200, steps=5, rng=0)
    share = np.mean([w[t > 3].sum() for t, w in zip(density.nodes, density.weights)])
    assert all(len(t) == 2 for t in density.nodes) and abs(share - 0.25) < 0.02


def test_probes_are_the_same_on_both_devices(device):
    like = backend.asarray(np.zeros(50), device)
    assert (host(spectrum.normal(like, 3)) == spectrum.normal(np.zeros(50), 3)).all()
    signs = host(spectrum.rademacher(like, 3))
    assert (np.abs(signs) == 1).all() and (signs == spectrum.rademacher(np.zeros(50), 3)).all()


# --------------------------------------------------------------------------------------------------- LeCun's rate


def deck(device="cpu"):
    """[P]'s quadratic (5θ₁² + 2θ₂²)/2 at (½, ½)."""
    params = mg.Params(a=0.5, b=0.5).to(device)
    return mg.Objective(lambda p: (5 * p["a"] ** 2 + 2 * p["b"] ** 2) / 2, params)


def test_lecuns_rate_on_the_decks_quadratic(device):  # identity 17
    assert abs(spectrum.lecun_rate(deck(device)) - 0.2) < 1e-14


def test_lecun_is_gradient_descent_with_one_over_the_largest_eigenvalue(device):
    f = deck(device)
    method = optim.LeCun(iterations=20)
    method.step(f, method.init(f.params))
    assert off(f.params.vector, np.array([0.0, 0.3])) < 1e-15
    f, g = chain(device=device, seed=4), chain(device=device, seed=4)
    top = spectrum.power_iteration(g.hvp, g.params.vector)[0]
    method = optim.LeCun(lr=0.7, iterations=100)
    method.step(f, method.init(f.params))
    assert off(f.params.vector, g.params.vector + g.pullback(-0.7 / abs(top))) < 1e-10


def test_lecun_refreshes_on_its_clock_from_where_it_was():
    f = chain(n=20)
    method = optim.LeCun(every=3, iterations=2)
    state = method.init(f.params)
    products = []
    for _ in range(7):
        before = f.cost.products
        method.step(f, state)
        products.append(f.cost.products - before)
    assert products == [20, 0, 0, 2, 0, 0, 2]


def test_lecun_goes_down_in_no_more_than_its_floor_allows():
    plane = mg.Objective(lambda p: mg.sum(p["t"]), mg.Params(t=np.ones(3)))  # no curvature at all
    method = optim.LeCun(floor=0.5)
    method.step(plane, method.init(plane.params))
    assert plane.params.vector.tolist() == [-1.0, -1.0, -1.0]
    hill = mg.Objective(lambda p: -mg.sum(p["t"] ** 2), mg.Params(t=np.ones(3)))  # λ = −2: the rate is ½
    method.step(hill, method.init(hill.params))
    assert off(hill.params.vector, 2 * np.ones(3)) < 1e-14


# ------------------------------------------------------------------------------------------------------- refusals


def test_bad_input_is_one_sentence():
    product, like, _ = symmetric([1.0, 2.0, -3.0])
    nan = lambda v: v * np.nan  # noqa: E731
    hill = mg.Objective(lambda p: -mg.sum(p["t"] ** 2), mg.Params(t=np.ones(3)))
    for kind, call, message in [
        (ValueError, lambda: spectrum.extreme_eigenpairs(product, like, 1, "top"), "unknown end 'top'; there are larg"),
        (ValueError, lambda: spectrum.extreme_eigenpairs(product, like, 0), "k must be at least 1, not 0"),
        (ValueError, lambda: spectrum.extreme_eigenpairs(product, like, 2, "both"), "3 distinct eigenvalues, too few"),
        (ValueError, lambda: spectrum.trace(product, like, 1), "trace: probes must be at least 2"),
        (ValueError, lambda: spectrum.density(product, like, 0), "probes and steps must be at least 1, not 0 and 80"),
        (ValueError, lambda: optim.LeCun(every=0), "LeCun: every must be a whole number of at least 1, not 0"),
        (ValueError, lambda: optim.LeCun(floor=0.0), "LeCun: floor must be a number of more than 0"),
        (optim.Stopped, lambda: spectrum.condition_number(product, like), "the smallest eigenvalue is -3, not positi"),
        (optim.Stopped, lambda: spectrum.power_iteration(product, like, max_iterations=2), "after 2 iterations"),
        (optim.Stopped, lambda: spectrum.power_iteration(nan, like), "a product is not finite"),
        (optim.Stopped, lambda: spectrum.lanczos(nan, np.ones(3), 2), "Lanczos: a product is not finite"),
        (optim.Stopped, lambda: spectrum.lecun_rate(hill), "the largest eigenvalue of the Hessian is -2, so no curv"),
    ]:
        with pytest.raises(kind, match=message):
            call()
    big, zeros, _ = symmetric(np.linspace(0, 1, 200))
    with pytest.raises(optim.Stopped, match="after 15 Lanczos steps; raise max_steps or tol"):
        spectrum.extreme_eigenpairs(big, zeros, max_steps=15)


def test_waits_are_those_stated():
    device_stats = pytest.importorskip("device_stats", reason="counters exist on the CPU device only")
    product, like, _ = symmetric(np.linspace(0, 1, 60), "cuda")
    v = spectrum.normal(like)
    for call, waits, uploads in [
        (lambda: spectrum.power_step(product, v), 0, 0),
        (lambda: spectrum.lanczos(product, v, 20), 1, 1),  # CuPy uploads the list of what it stacks
        (lambda: spectrum.trace(product, like, 7), 1, 7),
        (lambda: spectrum.density(product, like, probes=3, steps=9), 3, 6),
    ]:
        device_stats.reset()
        call()
        found = device_stats.read()
        assert (found["syncs"], found["d2h"], found["h2d"]) == (waits, waits, uploads)
