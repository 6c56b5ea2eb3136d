"""Where a derivative is a choice: what the docstring of `ops` promises. And the shapes that NumPy's rules allow."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import Graph, close, normal

import minigrad as mg
from minigrad import ops

equal = np.testing.assert_array_equal


def slopes(fn, *values):
    """The derivative of a function of numbers at each value."""
    return [float(mg.grad(fn)(np.float64(x))) for x in values]


def curvatures(fn, *values):
    return slopes(mg.grad(fn), *values)


# --------------------------------------------------------------------------------------------------------- at kinks


def test_relu_has_slope_0_at_0():
    assert slopes(mg.relu, -1.0, 0.0, 2.0) == [0.0, 0.0, 1.0]
    assert curvatures(mg.relu, -1.0, 0.0, 2.0) == [0.0, 0.0, 0.0]


def test_leaky_relu_has_the_lower_slope_at_0():
    assert slopes(lambda x: mg.leaky_relu(x, 0.25), -1.0, 0.0, 2.0) == [0.25, 0.25, 1.0]


def test_abs_has_slope_0_at_0():
    assert slopes(abs, -2.0, 0.0, 2.0) == [-1.0, 0.0, 1.0]


def test_sign_has_slope_0():
    assert slopes(lambda x: mg.sign(x) + 0.0 * x, -2.0, 0.0, 2.0) == [0.0, 0.0, 0.0]


def test_clip_has_slope_1_on_its_closed_interval():
    assert slopes(lambda x: mg.clip(x, -1, 2), -1.1, -1.0, 0.0, 2.0, 2.1) == [0.0, 1.0, 1.0, 1.0, 0.0]
    assert slopes(lambda x: mg.clip(x, None, 2), -9.0, 2.0, 3.0) == [1.0, 1.0, 0.0]
    assert slopes(lambda x: mg.clip(x, -1, None), -9.0, -1.0, 3.0) == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("largest", [mg.max, lambda x: -mg.min(-x)])
def test_ties_of_an_extreme_share_evenly(largest):
    equal(mg.grad(largest)(np.array([3.0, 1.0, 3.0, 3.0])), np.array([1, 0, 1, 1]) / 3)


def test_ties_share_evenly_within_each_row():
    _, back = mg.vjp(lambda x: mg.max(x, axis=1), np.array([[2.0, 2.0], [1.0, 5.0]]))
    equal(back(np.array([1.0, 10.0])), [[0.5, 0.5], [0.0, 10.0]])


@pytest.mark.parametrize("op", [mg.maximum, mg.minimum])
def test_ties_of_two_arguments_share_evenly(op):
    x = np.array([1.0, 2.0])
    _, back = mg.vjp(op, x, x.copy())
    equal(back(np.array([1.0, 10.0])), [[0.5, 5.0], [0.5, 5.0]])


def test_ties_are_shared_in_forward_mode_too():
    x, v = np.array([3.0, 1.0, 3.0]), np.array([1.0, 10.0, 4.0])
    assert mg.jvp(mg.max, (x,), (v,))[1] == pytest.approx(2.5)
    assert mg.jvp(mg.maximum, (x, x), (v, 0 * v))[1] == pytest.approx(v / 2)


def test_norm_has_slope_0_at_0():
    equal(mg.grad(mg.norm)(np.zeros(3)), np.zeros(3))
    equal(mg.jvp(mg.norm, (np.zeros(3),), (np.ones(3),))[1], 0.0)
    _, back = mg.vjp(lambda x: mg.norm(x, axis=1), np.array([[0.0, 0.0], [3.0, 4.0]]))
    equal(back(np.array([1.0, 5.0])), [[0.0, 0.0], [3.0, 4.0]])


def test_powers_above_1_have_slope_0_at_0():
    assert slopes(lambda x: x**2, 0.0) == slopes(lambda x: x**3, 0.0) == slopes(lambda x: x**1.5, 0.0) == [0.0]
    assert slopes(lambda x: x**1, 0.0) == [1.0]
    assert slopes(lambda x: x**0, 0.0) == [0.0]
    assert curvatures(lambda x: x**2, 0.0) == [2.0]
    assert curvatures(lambda x: x**3, 0.0) == [0.0]


def test_powers_with_an_array_of_exponents_at_0():
    exponents = np.array([0.0, 1.0, 2.0, 3.0])
    equal(mg.grad(lambda x: mg.sum(x**exponents))(np.zeros(4)), [0.0, 1.0, 0.0, 0.0])


def test_the_exponent_has_slope_0_where_the_base_is_not_positive():
    for base in (0.0, -2.0, np.zeros(()), np.array(-2.0)):
        assert slopes(lambda p, base=base: base**p, 2.0) == [0.0]
    assert slopes(lambda p: 2.0**p, 3.0) == pytest.approx([8 * np.log(2)])
    assert slopes(lambda x: x**x, 2.0) == pytest.approx([4 * (np.log(2) + 1)])


@pytest.mark.parametrize("values", [[2.0, 3.0, 4.0, 5.0], [0.0, 3.0, 4.0, 5.0], [2.0, 0.0, 0.0, 5.0], [0.0] * 4])
def test_prod_is_exact_with_zeros(values):
    x = np.array(values)
    others = [[np.prod(np.delete(x, [i, j])) for j in range(4)] for i in range(4)]
    equal(mg.grad(mg.prod)(x), [np.prod(np.delete(x, i)) for i in range(4)])
    equal(mg.hessian(mg.prod)(x), np.array(others) * (1 - np.eye(4)))
    v = np.array([1.0, -2.0, 3.0, 0.5])
    close(mg.hvp(mg.prod, x, v), mg.hessian(mg.prod)(x) @ v, 1e-14)


def test_prod_of_nothing_is_1():
    assert float(mg.prod(np.zeros(0))) == 1.0
    equal(mg.grad(lambda x: mg.prod(x) + mg.sum(x))(np.zeros(0)), np.zeros(0))


# ---------------------------------------------------------------------------------------------------- far from zero


@pytest.mark.parametrize("x", [-1e4, -800.0, 800.0, 1e4])
def test_sigmoid_softplus_and_their_slopes_do_not_overflow(x):
    assert slopes(mg.sigmoid, x) == [0.0]
    assert slopes(mg.softplus, x) == [float(x > 0)]
    assert float(mg.softplus(np.float64(x))) == max(x, 0.0)


def test_softmax_does_not_overflow():
    z = np.array([1e4, 0.0, -1e4])
    equal(mg.softmax(z), [1.0, 0.0, 0.0])
    equal(mg.log_softmax(z), [0.0, -1e4, -2e4])
    equal(mg.grad(lambda z: mg.softmax_cross_entropy(z[None], np.array([1]))[0])(z), [1.0, -1.0, 0.0])


def test_logsumexp_of_minus_infinity_is_minus_infinity():
    rows = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    with np.errstate(divide="ignore"):
        equal(mg.logsumexp(rows), [-np.inf, 0.0])


# ------------------------------------------------------------------------------------------------------ NumPy's shapes

sides = dict(min_dims=0, max_dims=3, min_side=0, max_side=3)


@settings(max_examples=100, deadline=None)
@given(hnp.mutually_broadcastable_shapes(num_shapes=2, **sides), st.sampled_from([(), (2,), (0,), (2, 1)]))
def test_operands_stretch_as_in_numpy(shapes, lead):
    x, y = (normal(*shape, seed=i) for i, shape in enumerate(shapes.input_shapes))
    graph = Graph(ops.multiply, [x, y])
    assert graph.out.shape == shapes.result_shape
    g = normal(*lead, *graph.out.shape, seed=2)
    for own, other, found in zip((x, y), (y, x), graph.pull(g)):
        full = g * other
        extra = range(len(lead), full.ndim - own.ndim)
        ones = [k - own.ndim for k, n in enumerate(own.shape) if n == 1]
        summed = full.sum(axis=tuple(ones), keepdims=True).sum(axis=tuple(extra))
        close(found, summed, 1e-13)


@settings(max_examples=60, deadline=None)
@given(hnp.mutually_broadcastable_shapes(signature="(m,k),(k,n)->(m,n)", min_side=0, max_side=3, max_dims=2))
def test_batched_matmul_has_numpys_shapes_and_transposes(shapes):
    a, b = (normal(*shape, seed=i) for i, shape in enumerate(shapes.input_shapes))
    graph = Graph(ops.matmul, [a, b])
    close(graph.out.value, np.matmul(a, b), 1e-14)
    g, tangents = normal(*graph.out.shape), [normal(*a.shape, seed=4), normal(*b.shape, seed=5)]
    for i in (0, 1):
        chosen = [t if i == k else None for k, t in enumerate(tangents)]
        close(np.sum(graph.pull(g)[i] * tangents[i]), np.sum(g * graph.push(chosen)), 1e-12)


@settings(max_examples=60, deadline=None)
@given(st.data(), hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=3), st.booleans())
def test_reductions_have_numpys_axes(data, shape, keepdims):
    axis = data.draw(st.none() | hnp.valid_tuple_axes(len(shape)) | st.integers(-len(shape), len(shape) - 1))
    x = normal(*shape)
    for ours, theirs in [
        (ops.sum, np.sum), (ops.mean, np.mean), (ops.max, np.max), (ops.min, np.min), (ops.prod, np.prod),
    ]:  # fmt: skip
        close(ours(x, axis=axis, keepdims=keepdims), theirs(x, axis=axis, keepdims=keepdims), 1e-13)
    lengths = np.sqrt(np.sum(x * x, axis=axis, keepdims=keepdims))
    close(ops.norm(x, axis=axis, keepdims=keepdims), lengths, 1e-13)
