"""Buffers that are never handed out while somebody holds them, devices, guarded factorisations, random streams."""

from __future__ import annotations

import gc
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from oracles import close, normal

import minigrad as mg
from minigrad import backend
from minigrad.backend import DeviceError, FactorisationError, Pool

F8 = np.dtype(np.float64)

# ------------------------------------------------------------------------------------------------------------- buffers

HOLDERS = {
    "itself": lambda a: a,
    "a slice": lambda a: a[3:],
    "one element of it": lambda a: a[5:6],
    "a transpose": lambda a: a.T,
    "a reshape": lambda a: a.reshape(2, -1),
    "a view of a view": lambda a: a[2:].reshape(-1)[::2],
    "another dtype": lambda a: a.view(np.int64),
    "a stretched view": lambda a: np.broadcast_to(a, (2, *a.shape)),
    "windows": lambda a: np.lib.stride_tricks.as_strided(a, (3, 2), (8, 8)),
    "a list": lambda a: [a],
    "a memoryview": lambda a: memoryview(a),
    "a Tensor": lambda a: mg.track(a),
    "a node above it": lambda a: mg.sin(mg.track(a)),
    "a Tensor of a view": lambda a: mg.track(a)[1:],
    "a function": lambda a: lambda: a,
    "a generator": lambda a: (x for x in a),
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS.keys())
def test_a_buffer_that_is_held_is_never_handed_out(hold):
    pool = Pool()
    held = hold(pool.take((10, 10), F8))
    others = [pool.take((10, 10), F8) for _ in range(3)]
    first = id(pool.buffers[(10, 10), F8][0])
    assert first not in map(id, others)
    del held, others
    assert id(pool.take((10, 10), F8)) == first


def test_buffers_of_one_shape_are_distinct_while_in_use():
    pool = Pool()
    taken = [pool.take((4,), F8) for _ in range(5)]
    assert len({id(a) for a in taken}) == 5
    assert pool.take((4,), np.dtype(np.float32)).dtype == np.float32
    assert pool.size() == 5 * 32 + 16


def test_idle_bytes_are_those_that_nobody_holds():
    pool = Pool()
    a, b = pool.take((4,), F8), pool.take((2,), F8)
    assert (pool.size(), pool.idle()) == (48, 0)
    del a
    assert (pool.size(), pool.idle()) == (48, 32)
    assert b is not None


def test_idle_buffers_above_the_limit_are_dropped_when_a_new_shape_comes():
    pool = Pool(limit=100)
    busy = pool.take((10,), F8)
    for n in (5, 6, 7):
        pool.take((n,), F8)
    assert pool.idle() == 8 * (5 + 6 + 7)
    last = pool.take((8,), F8)
    assert (pool.idle(), pool.size()) == (0, 8 * (10 + 8))
    assert pool.take((8,), F8) is not last and pool.take((10,), F8) is not busy


def test_without_exact_reference_counts_every_array_is_fresh(monkeypatch):
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    pool = Pool()
    a = pool.take((10,), F8)
    assert pool.take((10,), F8) is not a
    assert pool.size() == 0


def test_many_gradients_keep_the_pool_at_one_size():
    """With the collector off: whatever a step takes comes back by reference counts alone."""
    x = normal(80, 80)
    assert x.nbytes >= backend.LARGE

    def f(x):
        h = mg.tanh(x @ x) + mg.sigmoid(x * x)
        return mg.sum(mg.softplus(h) * mg.relu(x))

    def step():
        mg.grad(f)(x)
        mg.hvp(f, x, x)
        mg.vjp(mg.tanh, x)[1](x)

    gc.disable()
    try:
        step()
        step()
        size = backend.pool.size()
        for _ in range(20):
            step()
        assert backend.pool.size() == size > 0
    finally:
        gc.enable()


def test_a_gradient_that_is_kept_survives_later_steps():
    x = normal(80, 80)
    grad = mg.grad(lambda x: mg.sum(mg.tanh(x) ** 2))
    kept = grad(x)
    copy = kept.copy()
    for k in range(5):
        grad(x + k)
    np.testing.assert_array_equal(kept, copy)


def test_only_large_arrays_come_from_the_pool():
    count = sum(map(len, backend.pool.buffers.values()))
    small = np.ones(backend.LARGE // 8 - 1)
    for _ in range(3):
        mg.tanh(small)
    assert sum(map(len, backend.pool.buffers.values())) == count
    odd = np.ones((backend.LARGE // 8 + 1, 1, 1, 1))
    held = mg.tanh(odd)
    assert any(held is b for b in backend.pool.buffers[odd.shape, F8])


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
@pytest.mark.parametrize("other", [2, 2.0, "same", "row", "wider", "counts"])
def test_large_operands_give_what_numpy_gives(kind, other):
    a = np.arange(1, 129 * 129 + 1, dtype=kind).reshape(129, 129)
    b = {"same": a + 1, "row": a[0], "wider": a.astype(np.float64), "counts": a.astype(np.int32)}.get(other, other)
    for name in ("add", "subtract", "multiply", "divide", "maximum"):
        for left, right in [(a, b), (b, a)]:
            found, expected = backend.binary(name)(left, right), getattr(np, name)(left, right)
            assert found.dtype == expected.dtype
            np.testing.assert_array_equal(found, expected)
    for name in ("negative", "sqrt", "tanh"):
        assert backend.unary(name)(a).dtype == getattr(np, name)(a).dtype
        np.testing.assert_array_equal(backend.unary(name)(a), getattr(np, name)(a))


@pytest.mark.parametrize(
    "a, b", [((3, 4), (4, 2)), ((2, 3, 4), (4, 2)), ((2, 5, 3, 4), (4, 2)), ((2, 3, 4), (2, 4, 2)), ((0, 4), (4, 2)),
             ((3, 0), (0, 2)), ((0, 3, 4), (4, 2)), ((100, 50), (50, 100)), ((2, 90, 20), (20, 90))]
)  # fmt: skip
def test_matmul_is_numpys(a, b):
    a, b = normal(*a), normal(*b, seed=1)
    close(backend.matmul(a, b), np.matmul(a, b), 1e-13)
    close(backend.matmul(a.swapaxes(-1, -2).copy().swapaxes(-1, -2), b), np.matmul(a, b), 1e-13)
    half = backend.matmul(a.astype(np.float32), b.astype(np.float32))
    assert half.dtype == np.float32
    assert backend.matmul(a.astype(np.float32), b).dtype == np.float64


@pytest.mark.parametrize("shape", [(5, 3), (200, 50), (2, 5, 3), (0, 3)])
def test_row_dot_is_a_sum_of_products(shape):
    a, b = normal(*shape), normal(*shape, seed=1)
    close(backend.row_dot(a, b), (a * b).sum(-1), 1e-13)


def test_scatter_add_adds_up_repeated_indices():
    target = np.zeros(3)
    backend.scatter_add(target, np.array([0, 2, 0]), np.array([1.0, 10.0, 100.0]))
    np.testing.assert_array_equal(target, [101.0, 0.0, 10.0])


# ------------------------------------------------------------------------------------------------------------- devices


def test_arrays_and_numbers_belong_to_numpy():
    for value in (np.ones(2), np.float32(1), 1.0, 2, [1.0]):
        assert backend.xp(value) is np
    assert backend.device_of(np.ones(2)) == "cpu"
    assert backend.module("cpu") is np


def test_arrays_move_only_where_they_must():
    a = np.ones(3, np.float32)
    assert backend.asarray(a) is a
    assert backend.like(a, np.ones(2)) is a
    assert backend.to_host(a) is a
    assert backend.asarray(a, dtype=np.float64).dtype == np.float64
    assert backend.like([1, 2], a, dtype=np.float32).dtype == np.float32
    backend.wait(a)


def test_arrays_cross_to_the_device_and_back(device):
    a = normal(2, 3)
    there = backend.asarray(a, device, dtype=np.float32)
    assert backend.device_of(there) == device
    assert there.dtype == np.float32
    np.testing.assert_array_equal(backend.to_host(there), a.astype(np.float32))
    assert backend.device_of(backend.like(a, there)) == device
    assert backend.like(there, there) is there
    assert backend.device_of(backend.empty((2,), np.float64, there)) == device
    backend.wait(there)


def test_an_unknown_device_is_refused_with_the_known_ones():
    with pytest.raises(DeviceError, match="unknown device 'gpu'; the devices are cpu, cuda"):
        backend.module("gpu")


def without(cuda):
    """A CuPy in which something is missing."""
    failure = type("CUDARuntimeError", (RuntimeError,), {})

    def count():
        if cuda == "no driver":
            raise failure("cudaErrorNoDevice: no CUDA-capable device is detected")
        return 0 if cuda == "no GPU" else 1

    def ones(shape, dtype):
        raise OSError("libnvrtc.so.13: cannot open shared object file")

    runtime = SimpleNamespace(CUDARuntimeError=failure, getDeviceCount=count)
    return SimpleNamespace(__version__="14.2.0", cuda=SimpleNamespace(runtime=runtime), ones=ones, float32=np.float32)


@pytest.mark.parametrize(
    "cupy, reason",
    [
        (None, r"CuPy is not installed \(.*\); pip install 'minigrad\[cuda13\]'"),
        (without("no driver"), "CuPy 14.2.0 is installed but finds no usable GPU: cudaErrorNoDevice"),
        (without("no GPU"), "CuPy 14.2.0 is installed but sees 0 GPUs; look at CUDA_VISIBLE_DEVICES"),
        (without("a compiler"), "a GPU is there but CuPy cannot compute on it: OSError: libnvrtc"),
    ],
    ids=["no CuPy", "no driver", "no GPU", "no compiler"],
)
def test_a_device_that_cannot_be_used_is_refused_with_the_reason(cupy, reason, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert backend.gpu_status()[0] is False
    for use in (backend.module, lambda device: backend.asarray(np.ones(2), device)):
        with pytest.raises(DeviceError, match="device 'cuda' cannot be used: " + reason):
            use("cuda")


# ------------------------------------------------------------------------------------------------------ linear algebra


def positive(n, dtype=np.float64):
    a = normal(n, n + 3)
    return (a @ a.T + 0.1 * np.eye(n)).astype(dtype)


@pytest.mark.parametrize("n", [1, 2, 7, 60])
def test_spd_inverse_is_the_inverse_and_symmetric(n, device):
    a = positive(n)
    before = a.copy()
    found = backend.to_host(backend.spd_inverse(backend.asarray(a, device)))
    close(found, np.linalg.inv(a), 1e-10)
    if device == "cpu":
        np.testing.assert_array_equal(found, found.T)
    np.testing.assert_array_equal(a, before)


def test_spd_inverse_keeps_float32_and_takes_any_layout():
    a = positive(7, np.float32)
    assert backend.spd_inverse(a).dtype == np.float32
    close(backend.spd_inverse(a), np.linalg.inv(a.astype(float)), 1e-3)
    close(backend.spd_inverse(np.asfortranarray(positive(7))), np.linalg.inv(positive(7)), 1e-12)
    wide = np.zeros((14, 14))
    wide[::2, ::2] = positive(7)
    close(backend.spd_inverse(wide[::2, ::2]), np.linalg.inv(positive(7)), 1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("fault", ["indefinite", "negative", "zero", "NaN"])
def test_spd_inverse_refuses_what_is_not_positive_definite(fault, dtype, device):
    a = positive(5, dtype)
    if fault == "indefinite":
        a[3, 3] = -1.0
    elif fault == "NaN":
        a[2, 2] = np.nan
    else:
        a *= -1.0 if fault == "negative" else 0.0
    with pytest.raises(FactorisationError, match="not positive definite or holds NaN; raise the damping"):
        backend.spd_inverse(backend.asarray(a, device))


@pytest.mark.parametrize("n", [1, 2, 5, 150])
def test_spd_inverse_sees_nan_anywhere(n):
    for i, j in {(0, 0), (n - 1, 0), (n - 1, n - 1), (n // 2, n // 3), (n // 2, n // 2)}:
        a = positive(n)
        a[i, j] = a[j, i] = np.nan
        with pytest.raises(FactorisationError):
            backend.spd_inverse(a)


def test_a_factorisation_error_is_a_linear_algebra_error():
    assert issubclass(FactorisationError, np.linalg.LinAlgError)


# ---------------------------------------------------------------------------------------------------------- randomness


def test_an_integer_is_its_own_key():
    assert backend.random_key(0) == 0
    assert backend.random_key(np.int64(7)) == 7
    assert type(backend.random_key(np.int64(7))) is int


def test_a_generator_is_drawn_from_once():
    random, same = np.random.default_rng(3), np.random.default_rng(3)
    first, second = backend.random_key(random), backend.random_key(random)
    assert first != second
    assert [first, second] == [int(same.integers(1 << 63)) for _ in range(2)]
    assert backend.random_key(None) != backend.random_key(None)
    assert backend.random_key([1, 2]) == backend.random_key([1, 2])


@pytest.mark.parametrize("seed", [-1, 1 << 63])
def test_a_seed_out_of_range_is_refused(seed):
    with pytest.raises(ValueError, match="a seed is an integer from 0"):
        backend.random_key(seed)


def test_streams_differ_in_key_purpose_and_counters_only():
    def drawn(*name):
        return tuple(backend.stream(*name).integers(1 << 60, size=4))

    names = [(1, "batch"), (2, "batch"), (1, "init"), (1, "batch", 0), (1, "batch", 1), (1, "batch", 0, 1)]
    assert len({drawn(*name) for name in names}) == len(names)
    for name in names:
        assert drawn(*name) == drawn(*name)
