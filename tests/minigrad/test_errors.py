"""What is refused, in which sentence, and what the error says of the operation and its shapes."""

from __future__ import annotations

import numpy as np
import pytest

import minigrad as mg
from minigrad import ops

X = np.ones((2, 3))
Z = np.zeros((2, 3))

REFUSED = {
    "axis too large": (lambda x: ops.sum(x, 2), "axis 2 does not exist in an array of shape (2, 3)"),
    "axis too small": (lambda x: ops.max(x, -3), "axis -3 does not exist in an array of shape (2, 3)"),
    "axis twice": (lambda x: ops.mean(x, (0, -2)), "axis (0, -2) names an axis twice"),
    "softmax over two axes": (lambda x: ops.softmax(x, (0, 1)), "one axis is needed here, not (0, 1)"),
    "log_softmax over all": (lambda x: ops.log_softmax(x, None), "one axis is needed here, not None"),
    "logsumexp over all": (lambda x: ops.logsumexp(x, None), "one axis is needed here, not None"),
    "mean of nothing": (lambda x: ops.mean(x[:0], 0), "nothing to take the mean of along axis 0 of shape (0, 3)"),
    "reshape two unknowns": (lambda x: ops.reshape(x, (-1, -1)), "cannot lay out shape (2, 3) as (-1, -1)"),
    "reshape does not divide": (lambda x: ops.reshape(x, (4, -1)), "cannot lay out shape (2, 3) as (4, -1)"),
    "transpose too few": (lambda x: ops.transpose(x, (0,)), "every axis of shape (2, 3) once, not (0,)"),
    "transpose twice": (lambda x: ops.transpose(x, (0, 0)), "every axis of shape (2, 3) once, not (0, 0)"),
    "swapaxes": (lambda x: ops.swapaxes(x, 0, 5), "axis 5 does not exist in an array of shape (2, 3)"),
    "squeeze": (lambda x: ops.squeeze(x, 0), "axis 0 of shape (2, 3) is not of length 1"),
    "expand_dims": (lambda x: ops.expand_dims(x, 4), "expand_dims: axis 4 does not exist"),
    "broadcast_to another size": (lambda x: ops.broadcast_to(x, (2, 4)), "(2, 3) cannot be broadcast to (2, 4)"),
    "broadcast_to fewer axes": (lambda x: ops.broadcast_to(x, (3,)), "(2, 3) cannot be broadcast to (3,)"),
    "concatenate nothing": (lambda x: ops.concatenate([]), "at least one array"),
    "stack at a wrong axis": (lambda x: ops.stack([x, x], axis=5), "axis 5 does not exist"),
    "split unevenly": (lambda x: ops.split(x, 2, axis=1), "3 elements do not make 2 equal parts"),
    "windows too large": (lambda x: ops.sliding_windows(x, 4), "windows of size (4,) and stride 1 do not fit"),
    "windows of too many axes": (lambda x: ops.sliding_windows(x, (1, 1, 1)), "do not fit the shape (2, 3)"),
    "windows with stride 0": (lambda x: ops.sliding_windows(x, 2, stride=0), "stride 0 do not fit"),
    "matmul": (lambda x: ops.matmul(x, x), "matmul: shapes (2, 3) and (2, 3) do not fit"),
    "matmul with a number": (lambda x: ops.matmul(x, 2.0), "use * for numbers"),
    "einsum implicit": (lambda x: ops.einsum("ij,jk", x, x), "explicit form 'ij,jk->ik'"),
    "einsum dots": (lambda x: ops.einsum("...i->...i", x), "explicit form 'ij,jk->ik'"),
    "einsum operands": (lambda x: ops.einsum("ij,jk->ik", x), "one term for each of 1 operands"),
    "einsum diagonal": (lambda x: ops.einsum("ii->i", x), "no index twice in one term"),
    "einsum repeated result": (lambda x: ops.einsum("ij->ii", x), "no index twice in one term"),
    "einsum sizes": (lambda x: ops.einsum("ij,jk->ik", x, x), "index 'j' has lengths 3 and 2"),
    "einsum rank": (lambda x: ops.einsum("ijk->i", x), "term 'ijk' does not fit shape (2, 3)"),
    "outer": (lambda x: ops.outer(x, x), "two vectors, not shapes (2, 3) and (2, 3)"),
    "solve": (lambda x: ops.solve(x, x), "solve: shapes (2, 3) and (2, 3) do not fit"),
    "dense": (lambda x: ops.dense(x, np.ones((4, 4))), "not h (2, 3), W (4, 4), b None"),
    "dense bias": (lambda x: ops.dense(x, np.ones((4, 3)), np.ones(3)), "W (4, 3), b (3,)"),
    "labels too large": (lambda z: ops.softmax_cross_entropy(z, np.array([0, 3])), "labels run from 0 to 3"),
    "labels negative": (lambda z: ops.softmax_cross_entropy(z, np.array([0, -1])), "labels run from -1 to 0"),
    "labels not integers": (lambda z: ops.softmax_cross_entropy(z, np.array([0.0, 1.0])), "must be integers"),
    "too few labels": (lambda z: ops.softmax_cross_entropy(z, np.array([0])), "targets of shape (2,), not (1,)"),
    "shares of one row": (lambda z: ops.softmax_cross_entropy(z, Z[:1]), "targets of shape (2, 3), not (1, 3)"),
    "a column of targets": (lambda z: ops.squared_error(z, Z[:, :1]), "targets of shape (2, 3), not (2, 1)"),
    "a row of targets": (lambda z: ops.squared_error(z[:, :1], Z[:, 0]), "targets of shape (2, 1), not (2,)"),
    "probabilities": (lambda z: ops.sigmoid_cross_entropy(z, Z[:, :1]), "targets of shape (2, 3), not (2, 1)"),
}


@pytest.mark.parametrize("call, sentence", REFUSED.values(), ids=REFUSED.keys())
def test_wrong_arguments_are_refused_in_a_sentence(call, sentence):
    for x in (X, mg.track(X)):
        with pytest.raises(ValueError) as caught:
            call(x)
        assert sentence in str(caught.value)


NOTED = {
    "add": (lambda x: x + np.ones(4), "in add(float64[2, 3], float64[4])"),
    "reshape": (lambda x: x.reshape(5), "in reshape(float64[2, 3])"),
    "concatenate": (lambda x: ops.concatenate([x, np.ones((2, 2))]), "in concatenate(float64[2, 3], float64[2, 2])"),
    "maximum": (lambda x: ops.maximum(x, np.ones(4, np.float32)), "in maximum(float64[2, 3], float32[4])"),
    "max of nothing": (lambda x: ops.max(x[:0]), "in max(float64[0, 3])"),
    "power": (lambda x: ops.power(2.0, x) ** np.ones(4), "in power(float64[2, 3], float64[4])"),
    "singular": (lambda x: ops.solve(np.zeros((2, 2)), x), "in solve(float64[2, 2], float64[2, 3])"),
}


@pytest.mark.parametrize("call, note", NOTED.values(), ids=NOTED.keys())
def test_errors_carry_the_operation_and_its_shapes(call, note):
    with pytest.raises(ValueError) as caught:
        call(mg.track(X))
    assert caught.value.__notes__ == [note]


def test_errors_on_plain_arrays_carry_the_note_too():
    with pytest.raises(ValueError) as caught:
        ops.add(X, np.ones(4))
    assert caught.value.__notes__ == ["in add(float64[2, 3], float64[4])"]


@pytest.mark.parametrize(
    "value, kind", [(np.arange(3), "int64"), (np.ones(2, bool), "bool"), (True, "bool"), ("a", "str"), (1j, "complex")]
)
def test_derivatives_need_a_floating_array(value, kind):
    with pytest.raises(TypeError, match=f"derivatives need a floating array, not {kind}; convert it"):
        mg.grad(mg.sum)(value)


@pytest.mark.parametrize("transform", [mg.grad, mg.value_and_grad, mg.hessian])
def test_a_gradient_of_many_numbers_names_vjp_and_jacobian(transform):
    with pytest.raises(ValueError, match=r"not shape \(2, 3\); use vjp with a cotangent, or jacobian"):
        transform(lambda x: x)(X)


def test_hvp_of_many_numbers_names_vjp_and_jacobian():
    with pytest.raises(ValueError, match=r"hvp needs .* not shape \(2, 3\); use vjp with a cotangent, or jacobian"):
        mg.hvp(lambda x: x, X, X)


def test_a_function_must_return_one_array():
    with pytest.raises(TypeError, match="must return one array, not tuple"):
        mg.grad(lambda x: (x, x))(X)


def test_tangents_cotangents_and_argnum_must_fit():
    with pytest.raises(ValueError, match=r"the tangent has shape \(2,\), but its variable has shape \(2, 3\)"):
        mg.jvp(mg.sin, (X,), (np.ones(2),))
    with pytest.raises(ValueError, match="one tangent for each input, not 0 for 1"):
        mg.jvp(mg.sin, (X,), ())
    with pytest.raises(ValueError, match=r"the vector has shape \(3, 2\)"):
        mg.hvp(mg.sum, X, X.T)
    back = mg.vjp(mg.sin, X)[1]
    for g in (np.ones(3), 1.0, np.ones((2, 3, 1))):
        with pytest.raises(ValueError, match=r"a cotangent of shape .* does not fit \(2, 3\)"):
            back(g)
    with pytest.raises(ValueError, match="argnum 2 does not exist among 2 arguments"):
        mg.grad(lambda a, b: mg.sum(a), argnum=2)(X, X)
