"""The numbers that the pictures of curvature (examples 21 to 28) claim."""

import functools

import numpy as np
import pytest
from cases import chain, off
from test_examples import example

import minigrad as mg
import optim
from minigrad import losses, nn
from optim import curvature, quantities

# ---------------------------------------------------------------------------------------- 21 Kronecker, 22 factors


def test_the_gradient_of_a_layer_is_a_mean_of_kronecker_products():
    assert example(21).kronecker_error(1) < 1e-15
    assert example(21).kronecker_error(50) < 1e-15


def test_the_rank_of_the_gradient_is_the_number_of_examples_until_the_layer_is_full():
    rank, values = example(21).rank, example(21).singular_values
    assert [rank(values(n)) for n in (1, 2, 8, 16, 500)] == [1, 2, 8, 16, 24]
    found = values(500)
    few = example(21).directions_for(0.9, found)
    assert np.sum(found[:few] ** 2) >= 0.9 * np.sum(found**2) > np.sum(found[: few - 1] ** 2)


def small_factors(n):
    """Factors, inputs and output curvatures of a softmax layer 9×10, and its block without the bias."""
    net = nn.mlp([9, 10])
    rng = np.random.default_rng(4)
    params = net.init(rng=2, dtype="float64")
    f = mg.Objective(net, losses.softmax_cross_entropy, params, rng.standard_normal((n, 9)), rng.integers(0, 10, n))
    return example(22).factors(f), curvature.matrix(f, "fisher", "dense").dense()[:90, :90]


def test_the_parts_of_the_block_are_those_of_the_dense_fisher():
    (_, _, h, H), true = small_factors(12)
    pixels = [1, 4, 5]
    rows = [9 * output + pixel for output in range(10) for pixel in pixels]
    assert off(example(22).part(h, H, pixels), true[np.ix_(rows, rows)]) < 1e-13


def test_the_error_of_kronecker_factors_over_the_whole_block_needs_no_block():
    (A, G, h, H), true = small_factors(12)
    expected = np.linalg.norm(true - np.kron(G, A)) / np.linalg.norm(true)
    assert 0.01 < expected < 1
    assert example(22).whole_error(A, G, h, H) == pytest.approx(expected, rel=1e-12)


def test_structures_lose_in_their_order_and_kronecker_nothing_for_one_example():
    errors = example(22).structure_errors(chain(n=20))
    assert errors["block"] < errors["ekfac"] < errors["kronecker"] < errors["diagonal"] < 1
    one = chain(sizes=(6, 4), n=1)
    assert example(22).structure_errors(one)["kronecker"] < 1e-14


# ---------------------------------------------------------------------------- 23 three Fishers, 24 natural gradient


def test_the_natural_gradient_of_a_regression_points_at_the_minimum_and_the_empirical_fisher_does_not():
    e = example(23)
    points = e.MINIMUM + e.HALF * np.random.default_rng(0).uniform(-0.9, 0.9, (40, 2))
    worst = {kind: max(e.misses(theta, kind) for theta in points) for kind in (None, "fisher", "empirical")}
    assert worst["fisher"] < 1e-5
    assert worst[None] > 30 and worst["empirical"] > 90
    assert np.all(np.abs(e.ratio_at_minimum() - 1) < 0.25)


def test_paths_end_at_the_minimum_and_that_of_the_fisher_is_straight():
    e = example(23)
    for kind in (None, "fisher", "empirical"):
        path = e.path(e.STARTS[3], kind)
        assert np.linalg.norm(path[-1] - e.MINIMUM) < 0.1
        length, way = np.sum(np.linalg.norm(np.diff(path, axis=0), axis=1)), np.linalg.norm(path[-1] - path[0])
        assert length == pytest.approx(way, rel=1e-9) if kind == "fisher" else length > 1.05 * way


def test_paths_follow_the_field_to_second_order_in_their_pace():
    e, start = example(23), example(23).STARTS[1]
    coarse, middle, fine = (e.path(start, None, pace, 2 / pace) for pace in (0.04, 0.02, 0.0025))
    errors = [example(24).gap(path, fine) for path in (coarse, middle)]
    assert errors[0] < 1e-3 and errors[0] / errors[1] > 3


def test_gauss_newton_on_probabilities_is_the_empirical_fisher_but_not_for_several_sigmoids():
    found = {case: example(23).difference(*case) for case in example(23).CASES}  # identity 4
    assert found["softmax", 5] < 1e-13 and found["sigmoid", 1] < 1e-13
    assert found["sigmoid", 5] > 0.1


def test_the_fisher_of_a_gaussian_in_two_coordinates():
    sigma = 0.6
    assert example(24).kl((0.3, sigma), (0.3, sigma)) == 0 < example(24).kl((0.3, sigma), (0.3, 0.61))
    for name, at, expected in (("(μ, σ)", sigma, 2 / sigma**2), ("(μ, log σ)", np.log(sigma), 2.0)):
        assert off(example(24).fisher(np.array([0.3, at]), name), np.diag([sigma**-2, expected])) < 1e-12


def test_the_natural_path_does_not_depend_on_the_coordinates_and_gradient_descents_does():
    e, start = example(24), example(24).STARTS[0]
    for natural in (False, True):
        first, *others = (e.flow(start, name, natural) for name in e.COORDINATES)
        gaps = [e.gap(path, first) for path in others]
        assert max(gaps) < 1e-6 if natural else min(gaps) > 0.2


def test_finite_natural_steps_keep_that_to_first_order():
    e, start = example(24), example(24).STARTS[1]
    gaps = [e.gap(e.steps(start, "(μ, 1/σ²)", True, eta), e.steps(start, "(μ, σ)", True, eta)) for eta in (0.02, 0.01)]
    assert np.log2(gaps[0] / gaps[1]) == pytest.approx(1, abs=0.05)


def test_the_gap_of_two_paths_is_the_distance_to_the_nearest_piece():
    zigzag = np.array([[0.0, 0.0], [2.0, 0.0], [2.0, 1.0]])
    assert example(24).gap(np.array([[1.0, 0.5], [3.0, 0.5], [2.0, 1.0]]), zigzag) == pytest.approx(1.0)


# ------------------------------------------------------------------------------------- 26 whitening, 27 spectrum


@pytest.mark.parametrize("layer", ["0", "2"])
def test_whitening_keeps_the_function(layer):
    assert example(26).function_error(*example(26).whitening(layer, 300)) < 1e-12


def test_whitening_evens_out_the_eigenvalues_above_eps():
    plain, centred, white = example(26).moments(*example(26).whitening("2", 300))
    values = np.linalg.eigvalsh(centred)
    assert off(np.linalg.eigvalsh(white), values / (values + example(26).EPS)) < 1e-10
    condition = example(26).condition
    assert condition(plain) > 30 * condition(centred) and condition(centred) > 10 * condition(white)


def test_prong_learns_faster_than_sgd():
    e = example(26)
    lowest = [e.best_of(make, rates, 60)[1][-1] for make, rates in zip(e.METHODS.values(), e.RATES)]
    assert lowest[1] < 0.5 * lowest[0]


@functools.cache
def spectra():
    """(objective, {kind: eigenvalues}) at random weights and trained."""
    e = example(27)
    return [(f, {kind: e.exact(f, kind) for kind in e.NAMES}) for f in e.objectives(200, 200)]


def test_after_training_as_many_eigenvalues_stand_apart_as_classes_less_one():
    (_, fresh), (_, trained) = spectra()
    for kind in ("hessian", "fisher"):
        count, drop = example(27).outliers(trained[kind])
        assert count == 9 and drop > 3
    assert example(27).outliers(fresh["hessian"])[1] < 2


def test_gauss_newton_has_no_negative_eigenvalues_and_the_hessians_shrink():
    (_, fresh), (_, trained) = spectra()
    assert min(fresh["fisher"].min(), trained["fisher"].min()) > -1e-12
    assert fresh["hessian"].min() < -0.1 < trained["hessian"].min() < 0


def test_the_lanczos_density_is_that_of_the_exact_eigenvalues():
    e = example(27)
    f, values = spectra()[1]
    top = values["fisher"][0]
    grid = np.linspace(-0.3 * top, 1.3 * top, 1500)
    true = e.smooth(values["fisher"], grid, top / 120)
    assert np.sum(true) * (grid[1] - grid[0]) == pytest.approx(1, abs=1e-6)
    assert e.distance(true, e.density(f, "fisher", 4, 40).at(grid, top / 120), grid) < 0.02
    assert e.distance(true, e.smooth(values["hessian"] + 0.5, grid, top / 120), grid) == pytest.approx(1, abs=0.03)


# --------------------------------------------------------------------------------------------------- 28 agreement


def test_blocks_are_the_natural_gradient_of_one_layer_and_kronecker_factors_where_all_examples_are_one():
    f = chain(sizes=(6, 4))
    same = mg.Objective(f.net, f.loss, f.params, f.args[0][[0, 0, 0]], f.targets[[0, 0, 0]])
    for objective, exact in ((f, {"exact blocks"}), (same, {"exact blocks", "K-FAC", "EKFAC"})):
        cosines, falls = example(28).measure([objective])
        assert {name for name, (found,) in cosines.items() if 1 - found < 1e-12} == exact
        assert all(falls[name][0] == pytest.approx(1, rel=1e-9) for name in exact)


def test_steps_are_compared_at_the_same_kl_divergence():
    f, kl = chain(), 1e-4
    delta = optim.Gradient(1.0).update(f, {"t": 0})
    scaled = delta * np.sqrt(2 * kl / quantities.output_norm(f, delta))
    assert 0.5 * scaled @ f.ggnvp(scaled) == pytest.approx(kl, rel=1e-12)
    z, moved = f.output, f.at(f.params.vector + scaled).output
    logs = [v - np.log(np.sum(np.exp(v), 1, keepdims=True)) for v in (z, moved)]
    assert np.mean(np.sum(np.exp(logs[0]) * (logs[0] - logs[1]), 1)) == pytest.approx(kl, rel=0.05)
    assert example(28).fall(f, delta, kl) == float(f.value - f.at(f.params.vector + scaled).value)
    assert example(28).fall(f, 7 * delta, kl) == pytest.approx(example(28).fall(f, delta, kl), rel=1e-9)


def test_more_of_the_fisher_is_nearer_to_the_natural_gradient():
    cosines, falls = example(28).measure(example(28).points((100,), 300))
    for found in (cosines, falls):
        blocks, kfac, acp, plain = (found[name][0] for name in ("exact blocks", "K-FAC", "ACP", "plain gradient"))
        assert 1 > blocks > kfac > acp > plain > 0


def test_labels_are_spread_and_keep_their_order():
    heights = example(28).spread([0.5, 0.9, 0.51, 0.1], 0.05)
    assert [heights[k] for k in (1, 2, 0, 3)] == pytest.approx([0.9, 0.51, 0.46, 0.1])
