"""The numbers that the pictures of second-order and random methods (examples 09 to 14) claim."""

import itertools
import json

import numpy as np
import pytest
import scipy.optimize
from test_examples import example

import optim
from minigrad import backend
from optim.directions import gaussian
from optim.lab.functions import cubic, saddle

# ------------------------------------------------------------------------------------------------------- 09 saddles


def methods():
    return [method for method, _ in example(9).METHODS.values()]


@pytest.mark.parametrize("function", [saddle, cubic], ids=lambda f: f.name)
def test_newton_ends_in_the_saddle_and_with_moduli_it_leaves(function):
    newton, modulus, descent = methods()
    starts = np.random.default_rng(3).uniform(-0.9, 0.9, (10, 2))
    assert example(9).ends(function, newton, starts) == (10, 0)
    assert example(9).ends(function, modulus, starts) == (0, 10)
    assert example(9).ends(function, descent) == (0, len(example(9).STARTS))


def test_on_equal_curvatures_moduli_point_where_the_gradient_does_and_on_others_they_do_not():
    _, modulus, descent = methods()
    x = np.linspace(-1.0, 1.0, 6)
    ours, plain = (example(9).field(saddle, method, x, x) for method in (modulus, descent))
    assert ours == pytest.approx(plain, rel=1e-12)
    assert example(9).field(cubic, modulus, x, x) != pytest.approx(example(9).field(cubic, descent, x, x), rel=0.1)


def test_near_the_flat_saddle_gradient_descent_needs_far_more_steps_than_moduli():
    _, modulus, descent = methods()
    for distance, factor in ((0.2, 10), (0.1, 100)):
        left = example(9).steps_to_leave(cubic, modulus, distance, 1000)
        assert left < 100 and example(9).steps_to_leave(cubic, descent, distance, factor * left) == factor * left


# --------------------------------------------------------------------------------------------- 10 random directions


def test_an_arrow_is_the_directional_derivative_times_the_direction():
    e = example(10)
    f = e.VALLEY.objective(e.THETA)
    fan, key = e.arrows(f, 20), optim.ES().init(f.params, 0)["key"]
    for t, arrow in enumerate(fan):
        epsilon = next(gaussian(f, backend.stream(key, "directions", t), 1)).epsilon
        dW = 1e-3 * epsilon  # [B]: ½[R(W + ΔW) − R(W − ΔW)] ΔW / μ²
        measured = 0.5 * float(f.at(e.THETA + dW).value - f.at(e.THETA - dW).value) * dW / 1e-6
        assert arrow == pytest.approx(-measured, rel=1e-9)
        assert arrow == pytest.approx(-(f.grad @ epsilon) * epsilon, rel=1e-6)
    assert np.all(fan @ f.grad <= 0)


def test_the_fan_averages_to_minus_the_gradient():
    e = example(10)
    f = e.VALLEY.objective(e.THETA)
    M = 4000
    mean = e.arrows(f, M).mean(0)
    assert np.linalg.norm(mean + f.grad) < 3 * np.sqrt(3 / M) * np.linalg.norm(f.grad)  # E‖ĝ − ∇R‖² = (d+1)/M ‖∇R‖²


def test_the_cosine_follows_the_square_root_of_M_over_M_plus_d():
    counts = [30, 100, 300]
    for d in (20, 200):
        assert example(10).cosines(d, counts, 6) == pytest.approx(example(10).theory(d, np.array(counts)), abs=0.03)


# ------------------------------------------------------------------------------------------------------ 11 surfaces


def steps(surface):
    e = example(11)
    (course,) = (course for name, course in e.SURFACES.items() if name.startswith(surface))
    return {name: n for name, (_, n) in e.race(*course, 60).items()}


def test_newton_needs_one_step_in_a_valley_and_does_not_move_where_there_is_no_curvature():
    assert steps("Valley")["Newton with |H|"] == 1
    kinks = steps("Kinks")
    assert kinks["Newton with |H|"] == kinks["gradient descent"] == np.inf
    assert kinks["Adam"] < 60 and kinks["BFGS"] < 10


def test_bfgs_is_quick_on_every_surface():
    e = example(11)
    for function, *course in e.SURFACES.values():
        assert min(e.walk(function, optim.BFGS(lr), *course, 60)[1] for lr in e.RATES) <= 15


def test_a_run_ends_at_the_goal_or_outside_the_picture():
    e = example(11)
    function, start, goal, box = e.SURFACES["Saddle: no minimum"]
    path, n = e.walk(function, optim.GD(0.1), start, goal, box, 100)
    assert n == len(path) - 1 and function.at(path[-1]) <= goal < function.at(path[-2])
    path, n = e.walk(function, optim.GD(5.0), start, goal, box, 100)
    assert n == np.inf and len(path) == 2 and not box[0][0] <= path[-1][0] <= box[0][1]


# ------------------------------------------------------------------------------------------------- 12 random search


def test_a_search_costs_two_forward_passes_a_direction_and_backprop_three():
    e = example(12)
    rows = e.train(e.search(16), 0.0)
    assert [row[1] for row in rows][:2] == [0, 33]  # both signs, and the graph at θ that is replayed
    assert e.train(e.backprop(), 0.0)[1][1] == 3
    assert rows[0][2] == e.train(e.backprop(), 0.0)[0][2]  # they start at the same θ


def test_the_record_is_of_the_searches_that_are_drawn():
    e = example(12)
    kept = json.loads(e.RECORD.read_text())
    assert set(kept) == {"1600", "5000"}
    for M, rows in kept.items():
        seconds, passes, losses = np.array(rows).T
        assert passes == pytest.approx((2 * int(M) + 1) * np.arange(len(rows)))
        assert np.all(np.diff(seconds) > 0) and losses[-1] < losses[0]


def test_backprop_reaches_the_records_lowest_loss_with_fewer_passes_than_a_step_of_the_search():
    e = example(12)
    lowest = min(row[2] for rows in json.loads(e.RECORD.read_text()).values() for row in rows)
    rows = e.train(e.backprop(), 60, itertools.count().__next__)  # on this clock a step takes a second
    assert rows[-1][1] <= 3 * 61 and e.catches_up(rows, lowest) < 60


def test_the_time_to_catch_up_is_the_first_row_that_is_as_low():
    rows = [[0.0, 0, 2.4], [0.5, 3, 1.0], [1.0, 6, 1.2], [1.5, 9, 0.8]]
    assert [example(12).catches_up(rows, loss) for loss in (1.1, 0.9, 0.1)] == [0.5, 1.5, np.inf]


# --------------------------------------------------------------------------------------------------------- 13 rates


def test_gradient_descent_has_the_rate_one_over_T_and_is_within_its_bound():
    e = example(13)
    gaps, t = e.smooth(optim.GD(1.0), 2000), np.arange(2000)
    assert -1.03 < e.slope(*e.tail(gaps)) < -0.97
    assert np.all(gaps <= 400 / (4 * t + 2))  # L‖θ₀ − θ*‖²/(4T + 2) [Drori & Teboulle 2014]


def test_nesterov_has_the_rate_one_over_T_squared_and_is_within_its_bound():
    e = example(13)
    gaps, t = e.smooth(e.Accelerated(1.0, form="lookahead"), 2000), np.arange(2000)
    assert -2.05 < e.slope(*e.tail(gaps)) < -1.9
    assert np.all(gaps <= 2 * 400 / (t + 1) ** 2)  # 2L‖θ₀ − θ*‖²/(T + 1)² [Beck & Teboulle 2009]


def test_a_constant_momentum_does_not_have_the_rate_of_nesterov():
    e = example(13)
    assert e.slope(*e.tail(e.smooth(optim.Nesterov(1.0, 0.9), 2000))) > -1.2


def test_sgd_has_the_rate_one_over_the_root_of_T():
    e = example(13)
    assert -0.53 < e.slope(*e.tail(e.kink(2000))) < -0.47


def test_two_point_search_has_the_rate_one_over_the_root_of_T_times_the_root_of_d_over_M():
    e = example(13)
    few = {shape: e.two_points(*shape, 1000) for shape in ((4, 4), (16, 4), (16, 1), (64, 4))}
    assert -0.6 < np.mean([e.slope(*e.tail(gaps)) for gaps in few.values()]) < -0.4
    ratios = [1 + d / M for d, M in few]
    assert 0.4 < e.slope(ratios, [gaps[-1] for gaps in few.values()]) < 0.65
    assert few[16, 1][-1] == pytest.approx(few[64, 4][-1], rel=0.2)  # only d/M matters


# -------------------------------------------------------------------------------------------------- 14 second order


def test_newton_takes_the_fewest_iterations_and_lbfgs_costs_less():
    e = example(14)
    for make in e.PROBLEMS.values():
        found = e.needed(e.race(make, 500, every=3))
        assert found["Newton"][0] <= found["Hessian-free"][0] + 2 < found["L-BFGS"][0]
        assert 4 * found["L-BFGS"][1] < found["Newton"][1]


def test_a_newton_step_costs_d_products():
    e = example(14)
    _, costs = e.run(optim.Newton(indefinite="abs"), e.digits, 200)
    # 65 products, a backward pass, and a forward pass at the trial and at the new θ
    assert np.diff(costs)[0] == pytest.approx((65 * 4 + 2 + 2) / 3)


def test_the_lowest_value_of_the_race_is_the_minimum_that_scipy_finds():
    e = example(14)
    values, _ = e.run(optim.LBFGS(), e.digits, 200)
    f = e.digits()
    found = scipy.optimize.minimize(
        lambda v: (float(f.at(v).value), f.at(v).grad), f.params.vector, jac=True, method="BFGS", tol=1e-9
    )
    assert values[-1] == pytest.approx(found.fun, abs=1e-10)


def test_a_method_that_has_arrived_stops_running():
    e = example(14)
    values, _ = e.run(optim.BFGS(), e.bent_valley, 300)
    assert len(values) <= 300 and values[-1] < 1e-20


def test_solved_counts_from_the_last_time_above_the_goal():
    solved = example(14).solved
    assert solved(np.array([1.0, 1e-9, 1e-3, 1e-9, 0.0])) == 3
    assert solved(np.array([1.0, 1e-9, 1e-3])) == np.inf
