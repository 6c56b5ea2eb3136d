"""What one step of the autoencoder costs on a device: launches, library calls, waits and copies.

Counted by the CPU device's runtime, so this file runs there only. Launches are written down and may not grow.
"""

import numpy as np
import pytest

import minigrad as mg
import optim
from minigrad import backend, losses, nn

device_stats = pytest.importorskip("device_stats", reason="counters exist on the CPU device only")

AE = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]
STEPS = [  # method, launches, library calls, host-to-device copies, waits
    (optim.SGD(0.01), 33, 31, 0, 0),
    (optim.Momentum(0.01), 35, 31, 0, 0),
    (optim.Momentum(0.01, form="sum"), 36, 31, 0, 0),
    (optim.Nesterov(0.01), 37, 31, 0, 0),
    (optim.Nesterov(0.01, form="lookahead"), 52, 39, 0, 0),
    (optim.AdaGrad(), 34, 31, 0, 0),
    (optim.RMSprop(), 34, 31, 0, 0),
    (optim.RMSprop(centred=True), 34, 31, 0, 0),
    (optim.Adadelta(), 34, 31, 0, 0),
    (optim.Adam(), 34, 31, 0, 0),
    (optim.Scheduled(optim.Adam()), 34, 31, 0, 0),
    (optim.WeightDecay(optim.Adam()), 51, 31, 0, 0),
    (optim.ClipUpdate(optim.Adam()), 41, 31, 0, 0),
    (optim.ClipGradient(optim.Adam()), 41, 31, 0, 0),
    (optim.TONGA(), 33, 47, 1, 1),  # the products of all layers down, the coefficients up
    (optim.LeCun(), 36, 31, 0, 0),
    (optim.GD(0.01, rate="backtracking"), 64, 39, 0, 2),  # R and the slope, one trial
    (optim.LBFGS(), 98, 62, 0, 2),  # R and the slope, one trial
    (optim.RandomSearch(), 45, 16, 1, 1),  # the perturbation up, both values down
    (optim.WeightedSearch(1e-4), 41, 16, 1, 0),
    (optim.ES(0.01, 4), 202, 72, 4, 0),
    (optim.ES(0.01, 4, directions="table"), 202, 72, 0, 0),
    (optim.ES(0.01, 4, directions="rank1"), 148, 152, 1, 0),
    (optim.ES(0.01, 4, directions="rank1", shaping="ranks"), 167, 152, 2, 0),
    (optim.Centred(0.01), 56, 31, 0, 0),
    (optim.ACP(0.01), 104, 47, 0, 0),
    (optim.PRONG(0.01), 56, 47, 0, 0),
    (optim.KFAC(0.01), 80, 55, 0, 0),
    (optim.EKFAC(0.01), 80, 55, 0, 0),
    (optim.UBP(optim.Gradient(0.01), mode="gn"), 118, 87, 0, 0),
    (optim.UBP(optim.Gradient(0.01), mode="hessian"), 275, 94, 0, 0),
    (optim.UBP(optim.Gradient(0.01), mode="mc"), 90, 45, 1, 0),  # the sampled targets
    (optim.UBP(optim.Gradient(0.01), mode="none"), 47, 31, 0, 0),
    (optim.UBP(optim.ACP(0.01)), 182, 103, 0, 0),
]


@pytest.fixture(scope="module")
def autoencoder():
    net = nn.mlp(AE, hidden="sigmoid", linear=(3,), output="sigmoid")
    x = backend.asarray(np.random.default_rng(0).random((20, 784), dtype=np.float32), "cuda")
    return net, net.init(rng=0, device="cuda"), x


def counts(method, net, params, x):
    """Counters of the second step: the first refreshes inverses and compiles kernels."""
    state = method.init(params)
    found = []
    for _ in range(2):
        device_stats.reset()
        method.step(mg.Objective(net, losses.squared_error, params, x, x), state)
        found.append(device_stats.read())
    return found


@pytest.mark.parametrize(
    "method, launches, calls, uploads, waits", STEPS, ids=lambda v: repr(v) if hasattr(v, "step") else ""
)
def test_a_step_costs_what_is_written_down(autoencoder, method, launches, calls, uploads, waits):
    step = counts(method, *autoencoder)[1]
    assert (step["syncs"], step["d2h"], step["h2d"]) == (waits, waits, uploads)
    assert step["launches"] <= launches and step["blas"] <= calls


def test_a_refresh_waits_once_a_layer(autoencoder):
    first = counts(optim.ACP(0.01), *autoencoder)[0]
    assert (first["syncs"], first["d2h"], first["h2d"]) == (8, 8, 0)  # its guarded factorisations


def test_a_planted_wait_is_seen(autoencoder):
    class Curious(optim.SGD):
        def update(self, f, state):
            float(f.value)
            return super().update(f, state)

    class Careless(optim.SGD):
        def update(self, f, state):
            return super().update(f, state) + backend.asarray(np.zeros(f.params.size, "float32"), "cuda")

    assert counts(Curious(0.01), *autoencoder)[1]["syncs"] == 1
    assert counts(Careless(0.01), *autoencoder)[1]["h2d"] == 1
