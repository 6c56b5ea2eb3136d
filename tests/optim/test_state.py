"""State is arrays and numbers: a run that is stopped, saved and resumed is bit-identical."""

import copy

import numpy as np
import pytest
from cases import chain, host

import optim

METHODS = [
    optim.GD(0.1),
    optim.SGD(0.1),
    optim.Momentum(0.05),
    optim.Nesterov(0.05),
    optim.Adam(0.01),
    optim.Gradient(0.1),
    optim.Centred(0.1),
    optim.ACP(0.05, alpha=1.0, every=3),
    optim.ACP(0.05, every=3, rho=0.9, stats_every=2),
    optim.UBP(optim.Gradient(0.1)),
    optim.UBP(optim.Gradient(0.1), mode="mc"),
    optim.UBP(optim.ACP(0.05, alpha=1.0, every=4), mode="hessian"),
]


def objectives(count, device):
    """The same network on `count` different batches, one θ."""
    first = chain(device=device)
    rest = [chain(device=device, seed=k) for k in range(1, count)]
    for f in rest:
        f.params = first.params
        f._version = -1
    return [first, *rest]


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_resume_is_bit_identical(method, device):
    batches = objectives(8, device)
    params = batches[0].params
    start = params.vector.copy()
    state = method.init(params, rng=3)
    for f in batches:
        method.step(f, state)
    whole = host(params.vector).copy()

    params.vector = start
    state = method.init(params, rng=3)
    for f in batches[:5]:
        method.step(f, state)
    saved = {
        key: host(value).copy() if hasattr(value, "shape") else copy.deepcopy(value) for key, value in state.items()
    }
    theta = host(params.vector).copy()
    params.vector = start * 0
    assert all(isinstance(v, (int, float, np.ndarray)) for v in saved.values())

    from minigrad import backend

    params.vector = backend.asarray(theta, device)
    resumed = {k: backend.asarray(v, device) if isinstance(v, np.ndarray) else v for k, v in saved.items()}
    for f in batches[5:]:
        method.step(f, resumed)
    assert (host(params.vector) == whole).all()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_every_method_lowers_the_loss(method, device):
    f = chain(n=20, device=device)
    state = method.init(f.params, rng=0)
    before = float(f.value)
    for _ in range(10):
        method.step(f, state)
    assert float(f.value) < before and state["t"] == 10


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_float32_stays_float32(method):
    from minigrad import losses, nn

    net = nn.mlp([5, 6, 3], hidden="sigmoid")
    params = net.init(rng=0)
    rng = np.random.default_rng(0)
    import minigrad as mg

    x = rng.random((7, 5), dtype=np.float32)
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x, rng.integers(0, 3, 7), l2=0.01)
    state = method.init(params)
    update = method.update(f, state)
    assert update.dtype == np.float32
    assert all(v.dtype == np.float32 for v in state.values() if hasattr(v, "dtype"))
