"""Tensor as an array among arrays, and `debug`, which finds the first NaN."""

from __future__ import annotations

import inspect
import operator

import numpy as np
import pytest
from oracles import close, normal

import minigrad as mg
from minigrad import backend
from minigrad.tensor import NonFinite, Tensor

X = np.arange(1.0, 7.0).reshape(2, 3)


def test_it_knows_its_shape():
    t = mg.track(X)
    assert (t.shape, t.ndim, t.size, t.dtype, len(t)) == ((2, 3), 2, 6, np.float64, 2)


def test_it_has_no_length_without_axes():
    with pytest.raises(TypeError, match="without axes has no length"):
        len(mg.track(1.0))


def test_iterating_gives_rows_that_are_differentiated():
    first, second = mg.track(X)
    np.testing.assert_array_equal(second.value, X[1])
    slope = mg.grad(lambda x: sum(mg.sum(row) * k for k, row in enumerate(x)))(X)
    np.testing.assert_array_equal(slope, [[0, 0, 0], [1, 1, 1]])


def test_numbers_come_out_of_it():
    t = mg.track(2.5)
    assert (float(t), int(t), bool(t), t.item()) == (2.5, 2, True, 2.5)
    assert type(t.item()) is float
    with pytest.raises(ValueError, match="ambiguous"):
        bool(mg.track(X))


def test_it_is_hashed_by_identity():
    t, other = mg.track(X), mg.track(X)
    assert {t: 1, other: 2}[t] == 1
    assert len({t, other, t}) == 2


@pytest.mark.parametrize("compare", [operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge])
def test_comparisons_are_elementwise_and_plain(compare):
    t = mg.track(X)
    for left, right in [(t, 3.0), (t, X[::-1]), (t, mg.track(X[::-1])), (X, t)]:
        found = compare(left, right)
        assert type(found) is np.ndarray and found.dtype == bool
        np.testing.assert_array_equal(found, compare(np.asarray(left), np.asarray(right)))


@pytest.mark.parametrize("op", [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow])
@pytest.mark.parametrize("other", [2.0, 2, np.float64(2.0), np.ones(3) * 2, X * 0 + 2], ids=str)
def test_operators_work_from_both_sides(op, other):
    t = mg.track(X)
    for left, right in [(t, other), (other, t)]:
        found = op(left, right)
        assert type(found) is Tensor
        close(found.value, op(*(np.asarray(a) for a in (left, right))), 1e-15)


def test_an_array_on_the_left_gives_a_tensor():
    for found in (np.ones(3) * mg.track(X), X.T @ mg.track(X), np.float64(2.0) + mg.track(X), [1, 2, 3] * mg.track(X)):
        assert type(found) is Tensor


def test_matmul_from_both_sides():
    close(mg.grad(lambda x: mg.sum(X @ x))(X.T), X.sum(0)[:, None] * np.ones(2), 1e-14)
    close(mg.grad(lambda x: mg.sum(x @ X.T))(X), np.ones((2, 1)) * X.sum(0), 1e-14)


def test_unary_operators():
    t = mg.track(-X)
    np.testing.assert_array_equal((-t).value, X)
    np.testing.assert_array_equal(abs(t).value, X)
    assert +t is t


METHODS = {
    "reshape": lambda x: x.reshape(3, 2),
    "reshape to a tuple": lambda x: x.reshape((3, -1)),
    "transpose": lambda x: x.transpose((1, 0)),
    "T": lambda x: x.T,
    "swapaxes": lambda x: x.swapaxes(0, 1),
    "squeeze": lambda x: x[:1].squeeze(),
    "sum": lambda x: x.sum(axis=0, keepdims=True),
    "mean": lambda x: x.mean(1),
    "max": lambda x: x.max(axis=1),
    "min": lambda x: x.min(),
    "prod": lambda x: x.prod(0),
    "clip": lambda x: x.clip(2.0, 4.0),
}


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_methods_are_those_of_an_array(method):
    found = method(mg.track(X))
    assert type(found) is Tensor
    np.testing.assert_array_equal(found.value, method(X))


def test_numpy_converts_it_on_request_only():
    t = mg.track(X)
    copy = np.array(t)
    copy[:] = 0.0
    np.testing.assert_array_equal(np.asarray(t), X)
    assert np.asarray(t, dtype=np.float32).dtype == np.float32
    with pytest.raises(TypeError, match="__array_ufunc__"):
        np.exp(t)


def test_device_data_is_not_copied_down_in_silence(device):
    t = mg.exp(mg.track(backend.asarray(X, device)))
    if device == "cuda":
        with pytest.raises(TypeError, match=r"backend.to_host\(tensor.value\)"):
            np.asarray(t)
    close(backend.to_host(t.value), np.exp(X), 1e-14)


def test_it_is_shown_with_its_operation():
    assert repr(mg.track(np.ones(2))) == "Tensor(array([1., 1.]))"
    assert repr(mg.exp(mg.track(np.zeros(2)))) == "Tensor(array([1., 1.]), exp)"
    assert f"{mg.track(2.5):.2f}" == "2.50"
    assert f"{mg.track(X)}" == str(X)
    assert [repr(p) for p in (mg.exp, mg.ops.total, mg.ops.product, mg.ops.largest)] == [
        "<elementwise exp>", "<linear sum>", "<multilinear matmul>", "<primitive max>",
    ]  # fmt: skip


def test_a_tensor_is_tracked_already():
    t = mg.track(X)
    assert mg.track(t) is t
    assert mg.track([1, 2]).dtype == mg.track(1).dtype == np.float64


def test_plain_arrays_stay_plain():
    assert type(mg.tanh(X)) is np.ndarray
    assert type(mg.sum(X) * mg.exp(2.0)) is np.float64


# ---------------------------------------------------------------------------------------------------------------- debug


def here() -> str:
    """file:line of the caller's next line."""
    frame = inspect.currentframe().f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno + 1}"


def caught(fn, *args):
    with mg.debug(), pytest.raises(NonFinite) as found:
        fn(*args)
    return str(found.value)


def test_debug_names_the_first_bad_operation_and_its_line():
    places = []

    def f(x):
        y = mg.exp(x)
        places.append(here())
        z = mg.log(y - 1.0)
        return mg.sum(mg.sqrt(z))

    assert caught(f, np.zeros(2)) == f"log gave an infinity (forward) at {places[0]}"
    assert caught(mg.grad(f), np.zeros(2)) == f"log gave an infinity (forward) at {places[1]}"
    assert caught(f, np.full(2, -1.0)) == f"log gave NaN (forward) at {places[2]}"


@pytest.mark.parametrize("root", [mg.sqrt, lambda x: x**0.5], ids=["sqrt", "power"])
def test_debug_names_the_forward_line_of_a_bad_cotangent(root):
    """√x is fine at 0; its slope is not."""
    places = []

    def f(x):
        places.append(here())
        y = root(x)
        return mg.sum(mg.sin(y) * 2.0)

    name = "sqrt" if root is mg.sqrt else "power"
    message = caught(mg.grad(f), np.zeros(2))
    if root is mg.sqrt:
        assert message == f"sqrt gave an infinity (backward) at {places[-1]}"
    assert message.startswith(f"{name} gave an infinity (backward) at {__file__}")


def test_debug_looks_at_tangents_too():
    place = here()
    message = caught(lambda: mg.jvp(mg.sqrt, (np.zeros(2),), (np.ones(2),)))
    assert message == f"sqrt gave an infinity (tangent) at {place}"


def test_debug_looks_into_recorded_walks():
    message = caught(mg.hessian(lambda x: mg.sum(x**1.5)), np.zeros(2))
    assert message.startswith("power gave") and __file__ in message


def test_debug_lets_finite_values_pass_and_ends_with_its_block():
    f = mg.grad(lambda x: mg.sum(mg.exp(x) / x))
    with mg.debug():
        found = f(X)
    np.testing.assert_array_equal(found, f(X))
    with np.errstate(divide="ignore"):
        assert mg.log(np.zeros(1)) == -np.inf


def test_debug_ends_after_an_error_and_nests():
    for _ in range(2):
        with pytest.raises(NonFinite), mg.debug(), mg.debug():
            mg.log(np.zeros(1))
    assert not mg.tensor.watching


def test_debug_leaves_integers_and_other_values_alone():
    with mg.debug():
        assert mg.sum(np.arange(3)) == 3


def test_a_bad_value_is_an_arithmetic_error():
    assert issubclass(NonFinite, ArithmeticError)


def test_results_are_the_same_for_large_arrays_in_pooled_buffers():
    x = normal(80, 80)
    small = [mg.grad(lambda x: mg.sum(mg.tanh(x) * x + mg.sigmoid(x)))(row[None])[0] for row in x]
    close(mg.grad(lambda x: mg.sum(mg.tanh(x) * x + mg.sigmoid(x)))(x), np.array(small), 1e-14)
