"""The examples run, and the numbers that their pictures claim are right."""

import functools
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import minigrad as mg
import optim

FOLDER = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(FOLDER.glob("[0-9]*.py"))


@functools.cache
def example(number):
    """The module of an example, imported as a script would be: its folder is on the path."""
    (path,) = FOLDER.glob(f"{number:02d}_*.py")
    spec = importlib.util.spec_from_file_location(f"example_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(FOLDER))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


def run(number, *options):
    """What the command prints."""
    result = CliRunner().invoke(example(number).main, list(options), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_example_draws_its_picture(path, tmp_path):
    run(int(path.stem[:2]), "--quick", "--out", str(tmp_path))
    (picture,) = tmp_path.iterdir()
    assert picture.name == f"{path.stem}.png"
    assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 20_000


def test_a_picture_has_the_same_bytes_each_time(tmp_path):
    for name in "ab":
        run(3, "--quick", "--out", str(tmp_path / name))
    first, second = (tmp_path / name / "03_step_size.png" for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_a_budget_that_is_spent_is_said_and_the_picture_is_drawn(tmp_path):
    printed = run(7, "--budget", "0", "--out", str(tmp_path))
    assert printed == "budget of 0 s spent: 1 of 3 valleys\n"
    assert (tmp_path / "07_conditioning.png").is_file()


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_every_example_cites_its_sources_and_has_the_three_options(path):
    module = example(int(path.stem[:2]))
    first = module.__doc__.strip().split("\n\n")[0]
    assert first.endswith("].") and set("TPBL") & set(first[first.rindex("[") :]) or path.stem == "15_own_primitive"
    assert {"--out", "--quick", "--budget"} <= {name for p in module.main.params for name in p.opts}


# ---------------------------------------------------------------------------------------------- 01 one sweep, 02 Taylor


def test_one_sweep_leaves_the_gradient_and_the_jacobian_gives_the_signal():
    example01 = example(1)
    values, layers, off, gradient_off = example01.sweep(example01.trained(20))
    assert len(layers) == 3 and values.shape == (len(example01.SHOWN),)
    assert off < 1e-14 and gradient_off < 1e-15


def test_taylor_models_are_the_numbers_on_the_deck():
    taylor = example(2).taylor
    printed = {(1, 6.01): 33.421864, (2, 6.01): 33.422104, (1, 6.5): 44.0067, (2, 6.5): 44.60597}  # [P]
    for (order, theta), value in printed.items():
        assert taylor(order, np.float64(theta), np.float64(6.0)) == pytest.approx(value, rel=2e-7)  # float32 there


def test_taylor_errors_fall_with_the_order_of_the_first_term_left_out():
    for at in (-2.0, 1.0, 6.0):
        for order, (_, _, slope) in example(2).error_orders(np.float64(at)).items():
            assert slope == pytest.approx(order + 1, abs=0.05)


# ------------------------------------------------------------------------------------------ 03 step size, 04 momentum


def test_a_step_multiplies_each_part_of_the_loss_by_one_minus_eta_lambda_squared():
    rates = np.linspace(0.01, 0.5, 9)
    expected = (1 - rates[:, None] * example(3).EIGENVALUES) ** 2  # [P, T-3.1.2]
    assert np.abs(example(3).factors(rates) - expected).max() < 1e-14
    losses = example(3).losses(example(3).descend(0.3, 6))
    assert losses[6] == pytest.approx(losses[0] * (1 - 0.3 * example(3).EIGENVALUES) ** 12, rel=1e-12)


def test_the_best_momentum_is_where_theory_says():
    for make, best in (
        (example(4).momentum, example(4).BEST_MOMENTUM),
        (example(4).nesterov, example(4).BEST_NESTEROV),
    ):
        betas = best + np.linspace(-0.1, 0.1, 21)
        steps = [example(4).needed(make(beta)) for beta in betas]
        assert abs(betas[np.argmin(steps)] - best) < 0.05


def test_steps_with_momentum_are_those_of_the_largest_root():
    for make in (example(4).momentum, example(4).nesterov):
        for beta in (0.0, 0.2, 0.9):
            method = make(beta)
            assert example(4).needed(method) == pytest.approx(example(4).predicted(method), rel=0.06)


def test_no_momentum_is_gradient_descent():
    walk, momentum = example(4).walk, example(4).momentum(0.0)
    assert np.array_equal(walk(momentum, 30), walk(optim.GD(momentum.lr), 30))


# ------------------------------------------------------------------------------------------ 05 batches, 06 adaptive


def test_gradient_noise_falls_as_one_over_the_root_of_the_batch():
    params = example(5).net.init(rng=1)
    sizes = np.array([1, 4, 16, 64, 256])
    found = example(5).noise(params, sizes, 60)
    assert np.polyfit(np.log(sizes), np.log(found), 1)[0] == pytest.approx(-0.5, abs=0.05)
    assert found == pytest.approx(example(5).noise_of_one(example(5).objective(params)) / np.sqrt(sizes), rel=0.15)


def test_the_noise_of_one_example_is_exact():
    example05 = example(5)
    params = example05.net.init(rng=2, dtype="float64")
    rows = np.arange(40)
    short = example05.x[rows].astype("float64"), example05.y[rows]
    gradients = np.array([example05.objective(params, short[0][[i]], short[1][[i]]).grad for i in rows])
    mean = gradients.mean(0)
    expected = np.sqrt(np.mean(np.sum((gradients - mean) ** 2, 1)) / np.sum(mean**2))
    f = example05.objective(params, *short)
    assert example05.noise_of_one(f) == pytest.approx(expected, rel=1e-10)


def test_full_matrix_adagrad_turns_with_the_valley_and_the_diagonal_one_does_not():
    walk, turn = example(6).walk, np.array([[1.0, -1.0], [1.0, 1.0]]) / np.sqrt(2)
    full = [walk(optim.AdaGrad(0.5, matrix="full"), degrees, 20) for degrees in (0, 45)]
    assert full[1] == pytest.approx(full[0] @ turn.T, abs=1e-9)  # identity 13
    diagonal = [walk(optim.AdaGrad(0.5), degrees, 20) for degrees in (0, 45)]
    assert np.abs(diagonal[1] - diagonal[0] @ turn.T).max() > 0.1


def test_diagonal_methods_need_more_steps_in_a_turned_valley():
    steps = {name: [] for name in example(6).METHODS}
    for name, (make, rates, _) in example(6).METHODS.items():
        steps[name] = [example(6).needed(make, rates[::2], degrees)[0] for degrees in (0, 45)]
    for name in ("gradient descent", "AdaGrad, full matrix"):
        assert steps[name][0] == steps[name][1]
    for name, factor in (("AdaGrad", 10), ("RMSprop", 2), ("Adadelta", 2)):
        assert steps[name][1] > factor * steps[name][0]


def test_adam_with_a_large_eps_is_momentum_and_the_distance_falls_as_one_over_eps():
    near, far = example(6).apart(1e5, 40), example(6).apart(1e6, 40)
    assert near / far == pytest.approx(10, rel=0.01)


# ------------------------------------------------------------------------------- 07 conditioning, 08 three balls, 15


def test_the_decks_numbers_for_preconditioning():
    point = example(7).POINT
    assert mg.grad(example(7).quadratic(example(7).DECK))(point).tolist() == [2.5, 1.0]  # identity 17
    gradient_descent, newton = example(7).landings(example(7).DECK, point)
    assert gradient_descent == pytest.approx([-2.0, -0.5], abs=1e-15)
    assert newton == pytest.approx([0.0, 0.0], abs=1e-15)


def test_preconditioned_descent_needs_one_step_and_plain_descent_more_with_kappa():
    start = np.array([-1.0, 0.7])
    steps = [len(example(7).descend(example(7).valley(kappa), start)) - 1 for kappa in (3, 10, 30)]
    assert steps[0] < steps[1] < steps[2] and steps[2] / steps[1] == pytest.approx(3, rel=0.1)
    assert len(example(7).descend(np.eye(2), start)) - 1 == 1


@pytest.mark.parametrize("ball", ["euclidean", "fisher", "preconditioner"])
def test_the_steepest_step_minimises_the_linear_model_on_the_boundary_of_its_ball(ball):
    e = example(8)
    for theta in e.POINTS:
        M = {"euclidean": np.eye(2), "fisher": e.fisher(theta), "preconditioner": e.adagrad_metric()}[ball]
        step, g = e.steepest(theta, M), mg.grad(e.loss)(theta)
        assert step @ M @ step == pytest.approx(2 * e.RADIUS, rel=1e-12)
        boundary = e.ellipse(M)
        lowest = (g @ boundary).min()
        assert 1.000001 * (g @ step) < lowest < 0.999 * (g @ step)


def test_the_natural_gradient_is_steepest_in_a_small_kl_ball():
    e, small = example(8), 1e-6
    for theta in e.POINTS:
        g, boundary = mg.grad(e.loss)(theta), e.kl_ball(theta, small)
        assert e.kl(theta, boundary) == pytest.approx(np.full(boundary.shape[1], small), rel=1e-6)
        lowest = boundary[:, np.argmin(g @ boundary)]
        step = e.steepest(theta, e.fisher(theta), small)
        assert g @ step == pytest.approx(g @ lowest, rel=2e-3)
        assert step @ lowest > 0.999 * np.linalg.norm(step) * np.linalg.norm(lowest)


def test_kl_is_half_of_delta_fisher_delta_to_third_order():
    sizes = np.array([1e-2, 5e-3, 2.5e-3])
    for theta in example(8).POINTS:
        error = example(8).kl_error(theta, sizes)  # identity 16
        assert error[:-1] / error[1:] == pytest.approx([8, 8], rel=0.15)


def test_the_fisher_of_a_gaussian():
    assert example(8).fisher(np.array([1.0, 0.5])) == pytest.approx(np.diag([4.0, 8.0]), rel=1e-12)


def test_the_own_primitive_passes_its_check_and_a_slope_0_1_percent_off_does_not():
    assert example(15).verdict(example(15).erf).startswith("passed")
    assert "forward mode is wrong along input 0: error 2.4e-03" in example(15).verdict(example(15).wrong)
    x = np.float64(0.7)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    assert mg.grad(mg.grad(example(15).gelu))(x) == pytest.approx(density * (2 - x**2), rel=1e-13)
