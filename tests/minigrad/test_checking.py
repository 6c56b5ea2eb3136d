"""The gradient checker is checked: rules wrong by 0.1 % must fail, right ones must pass."""

from __future__ import annotations

import re

import numpy as np
import pytest
from op_table import ROWS
from oracles import normal

import minigrad as mg
from minigrad import backend, ops
from minigrad.tensor import Primitive, raw

X = np.array([0.5, -1.0, 2.0])
WRONG = 1.001


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_every_operation_passes(row):
    mg.check(row, *row.draw("check"), tolerance=1e-7)


def fails(words, fn, *inputs, **settings):
    with pytest.raises(mg.CheckFailed) as caught:
        mg.check(fn, *inputs, **settings)
    assert words in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ wrong at first order


def cube(vjp_factor=1.0, jvp_factor=1.0):
    return mg.primitive(
        lambda x: x**3,
        lambda i, g, ans, x: g * (3.0 * vjp_factor * x**2),
        lambda tangents, ans, x: tangents[0] * (3.0 * jvp_factor * x**2),
        name="cube",
    )


def test_a_right_primitive_passes():
    mg.check(cube(), X, tolerance=1e-8)


def test_a_vjp_wrong_by_a_thousandth_fails():
    fails("reverse mode is wrong along input 0", cube(vjp_factor=WRONG), X, order=1)


def test_a_jvp_wrong_by_a_thousandth_fails():
    fails("forward mode is wrong along input 0", cube(jvp_factor=WRONG), X, order=1)


def test_a_vjp_that_differences_cannot_tell_from_the_jvp_fails():
    fails("reverse and forward mode disagree along input 0", cube(vjp_factor=1.0 + 1e-8), X, order=1)


def test_one_wrong_element_among_a_thousand_fails():
    factors = np.ones(1000)
    factors[17] = WRONG
    fails("forward mode is wrong", cube(jvp_factor=factors), normal(1000), order=1)
    fails("reverse mode is wrong", cube(vjp_factor=factors), normal(1000), order=1)


def test_a_rule_that_ignores_an_argument_fails():
    deaf = mg.elementwise(lambda x, y: x * y, lambda z, x, y: y, 0.0, name="deaf")
    fails("forward mode is wrong along input 1", deaf, X, X + 1.0)


def test_a_multilinear_rule_that_ignores_an_argument_fails():
    def transpose(i, g, a, b):
        return ops.matmul(g, ops.transpose(b)) if i == 0 else None

    deaf = mg.multilinear(np.matmul, transpose, name="deaf")
    fails("reverse mode is wrong along input 1", deaf, normal(2, 3), normal(3, 2))


def test_a_transpose_that_is_not_one_fails():
    double = mg.linear(lambda x: 2.0 * x, lambda i, g, x: 2.0 * WRONG * g, name="double")
    fails("reverse mode is wrong along input 0", double, X)


def test_tangents_that_do_not_add_up_fail():
    """Right for each argument by itself, wrong when both move."""

    def first(tangents, ans, x, y):
        return next(t for t in tangents if t is not None)

    last = mg.primitive(lambda x, y: x + y, lambda i, g, ans, x, y: g, first, name="last")
    fails("forward mode is wrong along all inputs", last, X, X)


def test_a_gradient_of_another_shape_fails():
    wide = mg.linear(lambda x: x[None], lambda i, g, x: g, name="wide")
    fails("a gradient of shape (1, 3), not (3,)", wide, X)


# ------------------------------------------------------------------------------------------- wrong at second order only


def slope(factor):
    """3x², whose own derivative is wrong by a factor."""
    return mg.elementwise(lambda x: 3.0 * x**2, lambda y, x: factor * 6.0 * x, name="slope")


def test_a_partial_whose_own_derivative_is_wrong_by_a_thousandth_fails():
    def cube(factor):
        return mg.elementwise(lambda x: x**3, lambda y, x: slope(factor)(x), name="cube")

    mg.check(cube(1.0), X)
    mg.check(cube(WRONG), X, order=1)
    fails("the forward-over-reverse walk is wrong for the gradient of input 0 along input 0", cube(WRONG), X)


def test_a_vjp_that_is_a_constant_to_the_tape_fails():
    frozen = mg.primitive(
        lambda x: x**3, lambda i, g, ans, x: g * (3.0 * raw(x) ** 2), lambda ts, ans, x: ts[0] * (3.0 * x**2), "frozen"
    )
    mg.check(frozen, X, order=1)
    fails("wrong for the gradient of input 0 along input 0", frozen, X)


def test_a_jvp_that_is_a_constant_to_the_tape_fails():
    frozen = mg.primitive(
        lambda x: x**3, lambda i, g, ans, x: g * (3.0 * x**2), lambda ts, ans, x: ts[0] * (3.0 * raw(x) ** 2), "frozen"
    )
    mg.check(frozen, X, order=1)
    fails("reverse over forward mode is wrong", frozen, X)


def test_a_missing_mixed_derivative_fails():
    deaf = mg.elementwise(lambda x, y: x * y, lambda z, x, y: raw(y), lambda z, x, y: x, name="deaf")
    mg.check(deaf, X, X + 1.0, order=1)
    fails("reverse over reverse mode is wrong for the gradient of input 1 along input 0", deaf, X, X + 1.0)


class Scaled(Primitive):
    """x·W with its own turn, as `dense` has."""

    def __init__(self, factor):
        super().__init__(lambda x, w: x * w, self._vjp, self._jvp, "scaled")

    @staticmethod
    def _vjp(i, g, ans, x, w):
        return g * (w if i == 0 else x)

    @staticmethod
    def _jvp(tangents, ans, x, w):
        parts = [t * other for t, other in zip(tangents, (w, x)) if t is not None]
        return parts[0] if len(parts) == 1 else parts[0] + parts[1]

    def turn(self, i, g, args, tangents, kw):
        return g * tangents[0] if i == 1 and tangents[0] is not None else None


def test_a_turn_that_reads_the_wrong_argument_fails():
    mg.check(Scaled(1.0), X, X + 1.0, order=1)
    fails("the forward-over-reverse walk is wrong for the gradient of input 0 along input 1", Scaled(1.0), X, X + 1.0)


# ---------------------------------------------------------------------------------------------------- how it reports


def test_the_sentence_names_error_size_and_tolerance():
    message = fails("", cube(vjp_factor=WRONG), X, tolerance=1e-5)
    pattern = r"reverse mode is wrong along input 0: error (\S+) in a derivative of size (\S+), tolerance 1e-05"
    error, size = map(float, re.fullmatch(pattern, message).groups())
    assert 1e-5 < error / size < 1e-2


def test_a_failed_check_is_an_assertion():
    assert issubclass(mg.CheckFailed, AssertionError)


def test_order_1_does_not_look_at_second_derivatives():
    cube = mg.elementwise(lambda x: x**3, lambda y, x: slope(2.0)(x), name="cube")
    mg.check(cube, X, order=1)
    fails("the forward-over-reverse walk", cube, X)


def test_the_verdict_is_reproducible_and_leaves_the_global_stream_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first, second = (fails("", cube(vjp_factor=WRONG), X, rng=3) for _ in range(2))
    assert first == second != fails("", cube(vjp_factor=WRONG), X, rng=4)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


# ---------------------------------------------------------------------------------------------------- what it accepts


def test_any_shape_of_result_and_any_number_of_inputs():
    mg.check(lambda a, b, c: mg.sum(a @ b) * c, normal(2, 3), normal(3, 2), 1.5)
    mg.check(lambda x: mg.stack([x, x**2]), normal(2, 3))
    mg.check(lambda x: x * 2.0, np.zeros((0, 3)))


def test_float32_is_checked_in_float64():
    mg.check(mg.tanh, X.astype(np.float32), tolerance=1e-8)


def test_arrays_are_checked_where_they_live(device):
    a, b = (backend.asarray(normal(2, 2, seed=k), device) for k in (0, 1))
    mg.check(lambda a, b: mg.tanh(a @ b), a, b)
    fails("forward mode is wrong along input 0", cube(jvp_factor=WRONG), a)


def test_a_function_that_ignores_an_input_passes():
    mg.check(lambda x, y: mg.sin(x), X, X)
    mg.check(lambda x: np.ones(2), X)


@pytest.mark.parametrize(
    "fn, x",
    [
        (lambda x: mg.sin(100.0 * x), X),
        (mg.log, np.array([1e-8, 3e-7])),
        (lambda x: 1e6 + mg.sin(x), X),
        (lambda x: mg.exp(10.0 * x), X),
        (lambda x: 1e-9 * mg.tanh(x), X),
        (lambda x: mg.sqrt(x) / 1e-9, X + 1.5),
    ],
    ids=["steep", "tiny input", "large constant", "growing", "tiny result", "large result"],
)
def test_scale_does_not_matter(fn, x):
    mg.check(fn, x)
    same = mg.elementwise(lambda y: y, WRONG, name="same")
    fails("forward mode is wrong", lambda x: same(fn(x)), x)


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="floating"):
        mg.check(mg.sin, np.arange(3))
    with pytest.raises(TypeError, match="inputs"):
        mg.check(mg.sin)
    with pytest.raises(ValueError, match="order is 1 or 2, not 3"):
        mg.check(mg.sin, X, order=3)
