"""grad, vjp, jvp, jacobian, hessian, hvp, ggnvp: against loops, and nested within one another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from oracles import close, complex_step, differences, normal

import minigrad as mg
from minigrad import backend

X = normal(2, 3, seed=1)
W = normal(3, 4, seed=2)
ONE = np.float64(1.0)


def layer(x):
    """(2, 3) → (2, 4)."""
    return mg.tanh(x @ W) + mg.sum(x) ** 2


def energy(x):
    """(2, 3) → a number, with a full Hessian."""
    return mg.sum(mg.logsumexp(layer(x))) * mg.sum(mg.sin(x))


# ----------------------------------------------------------------------------------------------------- against loops


def test_grad_agrees_with_complex_steps():
    found = mg.grad(energy)(X)
    for at in np.ndindex(2, 3):
        unit = np.zeros((2, 3))
        unit[at] = 1.0
        close(found[at], complex_step(energy, [X], [unit]), 1e-12)


def test_value_and_grad_returns_both():
    value, slope = mg.value_and_grad(energy)(X)
    assert value == energy(X)
    np.testing.assert_array_equal(slope, mg.grad(energy)(X))


def test_jacobian_is_the_stack_of_its_rows():
    _, back = mg.vjp(layer, X)
    found = mg.jacobian(layer)(X)
    assert found.shape == (2, 4, 2, 3)
    for at in np.ndindex(2, 4):
        unit = np.zeros((2, 4))
        unit[at] = 1.0
        close(found[at], back(unit), 1e-13)
    v = normal(2, 3)
    close(np.tensordot(found, v, 2), mg.jvp(layer, (X,), (v,))[1], 1e-13)


def test_hessian_is_the_stack_of_its_products():
    found = mg.hessian(energy)(X)
    assert found.shape == (2, 3, 2, 3)
    for at in np.ndindex(2, 3):
        unit = np.zeros((2, 3))
        unit[at] = 1.0
        close(found[at], mg.hvp(energy, X, unit), 1e-12)
        close(found[at], differences(mg.grad(energy), [X], [unit]), 1e-8)
    close(found, np.transpose(found, (2, 3, 0, 1)), 1e-12)


def test_ggnvp_is_the_explicit_product():
    def loss(z):
        return mg.sum(mg.logsumexp(z) ** 2)

    J = mg.jacobian(layer)(X).reshape(8, 6)
    H = mg.hessian(loss)(layer(X)).reshape(8, 8)
    v = normal(2, 3)
    close(mg.ggnvp(layer, loss, X, v).ravel(), J.T @ H @ J @ v.ravel(), 1e-12)


def test_a_vjp_with_a_lead_is_a_stack_of_vjps():
    y, back = mg.vjp(layer, X)
    np.testing.assert_array_equal(y, layer(X))
    g = normal(5, 2, 2, 4)
    found = back(g)
    assert found.shape == (5, 2, 2, 3)
    for k in np.ndindex(5, 2):
        close(found[k], back(g[k]), 1e-13)
    assert back(g[:0]).shape == (0, 2, 2, 3)


def test_a_vjp_of_several_inputs_is_a_tuple():
    a, b = normal(2, 3), normal(3, 2)
    g = normal(2, 2, seed=3)
    y, back = mg.vjp(mg.matmul, a, b)
    da, db = back(g)
    close(da, g @ b.T, 1e-14)
    close(db, a.T @ g, 1e-14)


def test_a_jvp_of_several_inputs_adds_up():
    a, b, ta, tb = (normal(*shape, seed=i) for i, shape in enumerate([(2, 3), (3, 2), (2, 3), (3, 2)]))
    y, moved = mg.jvp(mg.matmul, (a, b), (ta, tb))
    close(y, a @ b, 1e-14)
    close(moved, ta @ b + a @ tb, 1e-14)


def test_argnum_chooses_the_argument():
    def f(a, b):
        return mg.sum(a**2 * b)

    a, b = normal(3), normal(3, seed=1)
    close(mg.grad(f)(a, b), 2 * a * b, 1e-14)
    close(mg.grad(f, argnum=1)(a, b), a**2, 1e-14)
    close(mg.grad(f, argnum=-1)(a, b), a**2, 1e-14)
    close(mg.jacobian(lambda a, b: a * b, argnum=1)(a, b), np.diag(a), 1e-14)
    close(mg.hessian(f)(a, b), np.diag(2 * b), 1e-14)


def test_arrays_in_give_arrays_out():
    for result in [
        mg.grad(energy)(X), *mg.value_and_grad(energy)(X), *mg.jvp(layer, (X,), (X,)), mg.vjp(layer, X)[0],
        mg.vjp(layer, X)[1](np.ones((2, 4))), mg.jacobian(layer)(X), mg.hessian(energy)(X), mg.hvp(energy, X, X),
    ]:  # fmt: skip
        assert isinstance(result, (np.ndarray, np.floating))


@pytest.mark.parametrize("transform", [
    mg.grad, mg.jacobian, mg.hessian, lambda f: lambda x: mg.jvp(f, (x,), (x,))[1], lambda f: lambda x: mg.hvp(f, x, x),
    lambda f: lambda x: mg.ggnvp(f, mg.square, x, x), lambda f: lambda x: mg.vjp(f, x)[0],
])  # fmt: skip
def test_an_inner_transform_that_has_ended_leaves_arrays(transform):
    """Its variable is a Tensor in the outer graph, but nobody differentiates in it any more."""
    found = transform(lambda x: x * mg.grad(lambda y: mg.sin(x * y) * y**2)(np.float64(1.3)))(np.float64(0.7))
    assert isinstance(found, (np.ndarray, np.floating))


def test_numbers_and_lists_are_taken_as_float64():
    assert float(mg.grad(lambda x: x**2)(3)) == 6.0
    np.testing.assert_array_equal(mg.grad(mg.prod)([2.0, 3.0]), [3.0, 2.0])
    assert mg.jvp(mg.square, (3.0,), (1,))[1] == 6.0
    assert mg.hvp(lambda x: x**3, 2.0, 1.0) == 12.0


def test_the_dtype_of_the_input_is_kept():
    x = X.astype(np.float32)

    def f(x):
        return mg.mean(mg.logsumexp(x) ** 2) * 0.5 + mg.norm(x)

    for result in (mg.grad(f)(x), mg.hvp(f, x, X), mg.hessian(f)(x), mg.jvp(f, (x,), (X,))[1], mg.jacobian(mg.tanh)(x)):
        assert result.dtype == np.float32


# ------------------------------------------------------------------------------------------------ nothing depends on x


@pytest.mark.parametrize(
    "constant", [lambda x: 3.0, lambda x: np.float64(3.0), lambda x: mg.sum(W), lambda x: mg.sum(mg.sign(x))],
    ids=["number", "NumPy number", "array", "sign"],
)  # fmt: skip
def test_a_constant_has_derivative_zero(constant):
    zero = np.zeros((2, 3))
    np.testing.assert_array_equal(mg.grad(constant)(X), zero)
    np.testing.assert_array_equal(mg.jacobian(constant)(X), zero)
    np.testing.assert_array_equal(mg.hvp(constant, X, X), zero)
    np.testing.assert_array_equal(mg.hessian(constant)(X), np.zeros((2, 3, 2, 3)))
    np.testing.assert_array_equal(mg.vjp(constant, X)[1](np.ones(5)), np.zeros((5, 2, 3)))
    value, moved = mg.jvp(constant, (X,), (X,))
    assert (moved, np.shape(moved)) == (0.0, ())
    assert float(value) == float(constant(X))


def test_an_unused_input_has_cotangent_zero():
    _, back = mg.vjp(lambda a, b: mg.sin(a), X, W)
    da, db = back(normal(5, 2, 3))
    assert da.any()
    np.testing.assert_array_equal(db, np.zeros((5, 3, 4)))


def test_a_linear_function_has_second_derivative_zero():
    np.testing.assert_array_equal(mg.hvp(mg.sum, X, X), np.zeros((2, 3)))
    np.testing.assert_array_equal(mg.ggnvp(mg.sin, mg.sum, X, X), np.zeros((2, 3)))


def test_the_identity():
    assert float(mg.grad(lambda x: x)(2.0)) == 1.0
    np.testing.assert_array_equal(mg.vjp(lambda x: x, X)[1](X), X)
    np.testing.assert_array_equal(mg.jvp(lambda x: x, (X,), (W[:2, :3],))[1], W[:2, :3])


# ------------------------------------------------------------------------------------------------------------ nesting

D = {
    "grad": lambda f: mg.grad(f),
    "jvp": lambda f: lambda x: mg.jvp(f, (x,), (ONE,))[1],
    "vjp": lambda f: lambda x: mg.vjp(f, x)[1](ONE),
    "jacobian": lambda f: mg.jacobian(f),
}
pairs = list(itertools.product(D, D))
triples = list(itertools.product(D, D, D))


@pytest.mark.parametrize("outer, inner", pairs)
def test_an_inner_variable_is_not_the_outer_one(outer, inner):
    """d/dx (x · d/dy xy) is 4 at 2, both where y = x and where y is a constant."""
    assert float(D[outer](lambda x: x * D[inner](lambda y: x * y)(x))(np.float64(2.0))) == 4.0
    assert float(D[outer](lambda x: x * D[inner](lambda y: x * y)(np.float64(7.0)))(np.float64(2.0))) == 4.0


@pytest.mark.parametrize("outer, inner", pairs)
def test_the_perturbations_of_two_derivatives_are_not_confused(outer, inner):
    """Siskind and Pearlmutter: d/dx (x · d/dy (x + y) at y = 1) is 1, not 2."""
    assert float(D[outer](lambda x: x * D[inner](lambda y: x + y)(ONE))(ONE)) == 1.0


@pytest.mark.parametrize("outer, inner", pairs)
def test_mixed_derivatives_of_a_closure(outer, inner):
    """d/dx of ∂/∂y sin(x y²) at y = 3x, and at y constant."""
    x = np.float64(0.7)

    def slope(x, y):
        return 2 * x * y * np.cos(x * y**2)

    def inside(x):
        return D[inner](lambda y: mg.sin(x * y * y))

    at_three_x = complex_step(lambda x: slope(x, 3 * x), [x], [1.0])
    at_constant = complex_step(lambda x: slope(x, 1.3), [x], [1.0])
    close(D[outer](lambda x: inside(x)(3.0 * x))(x), at_three_x, 1e-13)
    close(D[outer](lambda x: inside(x)(np.float64(1.3)))(x), at_constant, 1e-13)


@pytest.mark.parametrize("outer, inner", pairs)
def test_a_value_that_only_the_outer_variable_reaches_keeps_its_derivative(outer, inner):
    """The inner function ignores its own variable; its value still depends on the outer one."""

    def value(x):
        if inner == "jvp":
            return mg.jvp(lambda y: x**3, (ONE,), (ONE,))[0]
        if inner == "vjp":
            return mg.vjp(lambda y: x**3, ONE)[0]
        return mg.value_and_grad(lambda y: x**3)(ONE)[0]

    assert float(D[outer](value)(np.float64(2.0))) == 12.0
    assert float(D[outer](lambda x: x * D[inner](lambda y: x**3)(ONE))(np.float64(2.0))) == 0.0


@pytest.mark.parametrize("one, two, three", triples)
def test_third_derivatives(one, two, three):
    """(sin x · e²ˣ)‴ = e²ˣ (2 sin x + 11 cos x)."""
    x = np.float64(0.4)
    found = D[one](D[two](D[three](lambda x: mg.sin(x) * mg.exp(2.0 * x))))(x)
    close(found, np.exp(0.8) * (2 * np.sin(0.4) + 11 * np.cos(0.4)), 1e-12)


@pytest.mark.parametrize("one, two, three", triples)
def test_three_variables_nested_in_one_another(one, two, three):
    """∂/∂x of x · ∂/∂y of y · ∂/∂z of (x y z)² , each at its own point."""

    def inner(x, y):
        return D[three](lambda z: (x * y * z) ** 2)(x + y)

    def middle(x):
        return D[two](lambda y: y * inner(x, y))(x)

    # ∂/∂z gives 2x²y²(x+y); times y, ∂/∂y: 2x²(3y²x + 4y³) = 14x⁵ at y = x; times x, ∂/∂x: 84x⁵
    assert float(D[one](lambda x: x * middle(x))(np.float64(2.0))) == 84 * 32.0


@pytest.mark.parametrize("outer", D)
def test_a_product_with_the_hessian_can_be_differentiated(outer):
    """d/dx of f″(x) v with v a constant, and with v = x; f = sin."""
    x, v = np.float64(0.6), np.float64(1.7)
    close(D[outer](lambda x: mg.hvp(mg.sin, x, v))(x), -np.cos(x) * v, 1e-13)
    close(D[outer](lambda x: mg.hvp(mg.sin, x, x))(x), -np.cos(x) * x - np.sin(x), 1e-13)
    close(D[outer](lambda v: mg.hvp(mg.sin, x, v))(v), -np.sin(x), 1e-13)
    of_scale = -2 * v * np.sin(v * x) - v * v * x * np.cos(v * x)
    close(D[outer](lambda v: mg.hvp(lambda y: mg.sin(v * y), x, ONE))(v), of_scale, 1e-13)


@pytest.mark.parametrize("outer", D)
def test_a_gauss_newton_product_can_be_differentiated(outer):
    """(e^x)² · 12 (e^x)² v with loss z⁴, as a function of x, of v, and of a variable of the closures."""

    def model(x):
        return mg.exp(x)

    def loss(z):
        return z**4

    x, v, c = np.float64(0.3), np.float64(1.7), np.float64(0.8)
    close(D[outer](lambda x: mg.ggnvp(model, loss, x, v))(x), 48 * np.exp(4 * x) * v, 1e-12)
    close(D[outer](lambda v: mg.ggnvp(model, loss, x, v))(v), 12 * np.exp(4 * x), 1e-12)
    close(D[outer](lambda c: mg.ggnvp(lambda x: c * model(x), loss, x, v))(c), 48 * c**3 * np.exp(4 * x) * v, 1e-12)
    close(D[outer](lambda c: mg.ggnvp(model, lambda z: c * loss(z), x, v))(c), 12 * np.exp(4 * x) * v, 1e-12)


@pytest.mark.parametrize("outer", D)
def test_a_hessian_can_be_differentiated(outer):
    x = np.float64(1.5)
    close(D[outer](lambda x: mg.hessian(lambda y: mg.sin(x * y))(x))(x), complex_step(
        lambda x: -(x**2) * np.sin(x * x), [x], [1.0]), 1e-13)  # fmt: skip


@pytest.mark.parametrize("outer", D)
def test_tangents_and_cotangents_may_be_variables(outer):
    x, v = np.float64(0.6), np.float64(1.7)
    close(D[outer](lambda v: mg.jvp(mg.sin, (x,), (v * v,))[1])(v), 2 * v * np.cos(x), 1e-14)
    close(D[outer](lambda v: mg.vjp(mg.sin, x)[1](v * v))(v), 2 * v * np.cos(x), 1e-14)
    close(D[outer](lambda x: mg.jvp(mg.sin, (x,), (x * x,))[1])(x), 2 * x * np.cos(x) - x * x * np.sin(x), 1e-14)


def test_the_gradient_of_a_gradient_penalty():
    """∇ ‖∇f‖² = 2 H ∇f."""
    penalty = mg.grad(lambda x: mg.sum(mg.grad(energy)(x) ** 2))(X)
    close(penalty, 2 * mg.hvp(energy, X, mg.grad(energy)(X)), 1e-12)


def test_the_jacobian_of_a_jacobian():
    found = mg.jacobian(mg.jacobian(layer))(X)
    assert found.shape == (2, 4, 2, 3, 2, 3)
    v = normal(2, 3)
    close(np.tensordot(found, v, 2), differences(mg.jacobian(layer), [X], [v]), 1e-8)


def test_third_derivatives_of_many_variables_are_symmetric():
    third = mg.jacobian(mg.hessian(lambda x: mg.sum(mg.sin(x) * x[::-1] ** 2) * mg.prod(x)))(normal(3))
    for order in itertools.permutations(range(3)):
        close(third.transpose(order), third, 1e-12)


def test_an_outer_tensor_in_a_closure_is_differentiated_through_every_transform():
    """The scale c belongs to the outer gradient only."""
    c = np.float64(1.5)
    for inside in (
        lambda c: mg.sum(mg.jacobian(lambda x: mg.tanh(c * x))(X)),
        lambda c: mg.sum(mg.hessian(lambda x: mg.sum(mg.tanh(c * x)))(X)),
        lambda c: mg.sum(mg.hvp(lambda x: mg.sum(mg.tanh(c * x)), X, X)),
        lambda c: mg.sum(mg.jvp(lambda x: mg.tanh(c * x), (X,), (X,))[1]),
        lambda c: mg.sum(mg.vjp(lambda x: mg.tanh(c * x), X)[1](normal(5, 2, 3))),
    ):
        close(mg.grad(inside)(c), differences(inside, [c], [1.0]), 1e-8)


def test_the_device_gives_the_same_numbers(device):
    def model(x):
        return mg.tanh(x @ x.T) * mg.sum(x)

    def f(x):
        return mg.sum(mg.logsumexp(model(x))) + mg.norm(x)

    def everything(x, v):
        value, slope = mg.value_and_grad(f)(x)
        moved = mg.jvp(model, (x,), (v,))[1]
        return [
            value, slope, moved, mg.jacobian(model)(x), mg.hessian(f)(x), mg.hvp(f, x, v),
            mg.ggnvp(model, lambda z: mg.sum(z**3), x, v), mg.grad(lambda x: mg.sum(mg.hvp(f, x, v)))(x),
        ]  # fmt: skip

    v = normal(2, 3)
    there = everything(*(backend.asarray(a, device) for a in (X, v)))
    for found, expected in zip(there, everything(X, v)):
        assert backend.device_of(found) == device
        close(backend.to_host(found), expected, 1e-12)


def test_results_may_be_edited_without_reaching_anything_else():
    x, g = np.ones(3), np.arange(3.0)
    for fn in (lambda x, y: x + y, lambda x, y: x, lambda x, y: mg.broadcast_to(mg.sum(x) + mg.sum(y), (3,))):
        dx, dy = mg.vjp(fn, x, x)[1](g)
        before = dy.copy()
        dx += 100.0
        assert (dy == before).all() and (g == np.arange(3.0)).all()
    gradient = mg.grad(mg.sum)(x)
    gradient += 1.0
    assert (mg.grad(mg.sum)(x) == 1.0).all()
    _, moved = mg.jvp(lambda x: x, (x,), (g,))
    moved += 100.0
    product = mg.hvp(lambda x: 0.5 * mg.sum(x * x), x, g)
    product += 100.0
    assert (g == np.arange(3.0)).all()
