"""Formulas declared once: the passes on the host and the kernel on the device give what the formula says."""

import numpy as np
import pytest
from cases import host, off

from minigrad import backend, ops
from minigrad.fusion import CODE, Fused, fused

LARGE = backend.LARGE  # numbers: eight times the bytes from which the passes are taken


def everything(m, x, y):
    """Every operation that a formula may use."""
    z = m.tanh(x) * y - m.exp(-x) / (2.0 + m.absolute(y)) + m.log1p(y * y)
    return m.maximum(z, 0.5 * x), m.sqrt(1.0 + x * x) - 3.0


@fused(over=(0, 1))
def velocity(m, v, new, mu, rate):  # `new` is a word of C++
    """v ← μ v + g, and −λ v over the gradient."""
    v = mu * v + new
    return v, rate * v


@pytest.mark.parametrize("size", [7, LARGE])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_both_forms_are_the_formula(size, dtype, device):
    rng = np.random.default_rng(0)
    x, y = (rng.standard_normal(size).astype(dtype) for _ in range(2))
    wanted = everything(np, x, y)
    found = Fused(everything)(backend.asarray(x, device), backend.asarray(y, device))
    for a, b in zip(found, wanted):
        assert a.dtype == dtype and off(a, b) < (1e-6 if dtype == "float32" else 1e-15)


@pytest.mark.parametrize("name", ["sigmoid", "softplus", "dtanh", "dsigmoid"])
def test_a_large_array_gets_what_its_rows_get(name, device):
    x = backend.asarray(np.random.default_rng(1).standard_normal((64, LARGE // 64)), device)
    f = getattr(ops, name)
    rows = np.stack([host(f(host(x)[k].copy())) for k in range(len(x))])
    assert off(f(x), rows) < 1e-15


def test_passes_write_over_what_is_no_longer_needed():
    f = Fused(lambda m, x: m.exp(m.tanh(0.5 * x + 1.0) * 3.0))
    assert f.temporaries == 1 and len(f.steps) == 5
    x = np.random.default_rng(0).standard_normal(LARGE)
    kept = x.copy()
    f(x)
    assert (x == kept).all()


@pytest.mark.parametrize("size", [5, LARGE])
def test_results_over_inputs(size, device):
    rng = np.random.default_rng(2)
    v, g = rng.standard_normal(size), rng.standard_normal(size)
    on = [backend.asarray(a.copy(), device) for a in (v, g)]
    found = velocity(*on, 0.9, -0.1)
    assert found[0] is on[0] and found[1] is on[1]
    assert off(on[0], 0.9 * v + g) < 1e-15 and off(on[1], -0.1 * (0.9 * v + g)) < 1e-15


def test_an_input_that_is_still_needed_is_not_overwritten():
    with pytest.raises(ValueError, match="input 'x' is overwritten before its last use"):
        Fused(lambda m, x, y: (x + y, x * y), over=(0,))


def test_a_function_that_has_no_kernel_is_refused_when_it_is_declared():
    with pytest.raises(AttributeError, match="a fused formula has add, .*; not arctan"):
        Fused(lambda m, x: m.arctan(x))


def test_nan_comes_through(device):
    x = np.full(LARGE, np.nan)
    x[0] = -1.0
    found = host(Fused(lambda m, a: m.maximum(a, 0.0))(backend.asarray(x, device)))
    assert found[0] == 0.0 and np.isnan(found[1:]).all()


def test_every_operation_has_been_tried():
    assert {step[0].__name__ for step in Fused(everything).steps} == set(CODE)
