"""What the tests share: small float64 problems on any device, and a bound on memory."""

import tracemalloc
from contextlib import contextmanager

import numpy as np

import minigrad as mg
from minigrad import backend, losses, nn

LOSSES = {
    "squared": losses.squared_error,
    "softmax": losses.softmax_cross_entropy,
    "sigmoid": losses.sigmoid_cross_entropy,
}


def targets(loss: str, n: int, c: int, rng: np.random.Generator) -> np.ndarray:
    """Targets that fit a loss: real numbers, class numbers, or noes and yeses."""
    if loss == "softmax":
        return rng.integers(0, c, n)
    return rng.standard_normal((n, c)) if loss == "squared" else rng.integers(0, 2, (n, c)).astype(float)


def chain(loss="softmax", hidden="tanh", sizes=(6, 7, 5, 4, 3), n=9, device="cpu", seed=0, output=None, **kw):
    """An Objective on a multilayer perceptron with random data."""
    rng = np.random.default_rng(seed)
    net = nn.mlp(sizes, hidden=hidden, output=output) if hidden else linear_net(sizes)
    params = net.init(rng=seed + 1, dtype="float64", device=device)
    params.vector += backend.asarray(0.1 * rng.standard_normal(params.size), device)  # biases too
    x = backend.asarray(rng.standard_normal((n, sizes[0])), device)
    y = backend.asarray(targets(loss, n, sizes[-1], rng), device)
    return mg.Objective(net, LOSSES[loss], params, x, y, **kw)


def linear_net(sizes):
    """Dense layers without activations."""
    return nn.Sequential(*(nn.Dense(i, o) for i, o in zip(sizes[:-1], sizes[1:])))


def host(array):
    """A copy on the host."""
    return np.asarray(backend.to_host(array))


def off(found, expected) -> float:
    """Largest deviation relative to the largest expected number."""
    found, expected = host(found), host(expected)
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-300)) if found.size else 0.0


def random_like(array, seed=3):
    """Standard normal numbers of an array's shape, on its device."""
    return backend.like(np.random.default_rng(seed).standard_normal(array.shape), array)


@contextmanager
def memory_below(limit: int):
    """Fail when the body takes this many bytes or more at its peak."""
    tracemalloc.start()
    try:
        yield
    finally:  # the body ends with an exception in every test of a refusal
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < limit
