"""Batch normalisation: its formula and gradient, running statistics that one step moves once, and what it refuses.

The derivatives of the operation itself are rows of the table of operations.
"""

import numpy as np
import pytest
from cases import LOSSES, host, off, random_like, targets

import minigrad as mg
import optim
from minigrad import backend, nn

NORMS = ("batch", "mean")
every_norm = pytest.mark.parametrize("norm", NORMS)


def normed(norm, loss="softmax", train=True, n=8, device="cpu", seed=0, params=None, **kw):
    """An Objective on a perceptron whose hidden layers are normalised."""
    rng = np.random.default_rng(seed)
    net = nn.mlp([5, 7, 6, 3], norm=norm)
    if params is None:
        params = net.init(rng=0, dtype="float64", device=device)
        params.vector += backend.asarray(0.2 * rng.standard_normal(params.size), device)
    x, y = rng.standard_normal((n, 5)) + 1.0, targets(loss, n, 3, rng)
    return mg.Objective(
        net, LOSSES[loss], params, backend.asarray(x, device), backend.asarray(y, device), train=train, **kw
    )


def by_hand(norm, p, x, centre, spread, eps=1e-5):
    """The network in NumPy; centre and spread give the mean and the variance of layer k from its input."""
    for k in range(2):
        a = x @ p[f"{k}.W"].T
        a = a - centre(k, a)
        if norm == "batch":
            a = p[f"bn{k}.gamma"] * a / np.sqrt(spread(k, a) + eps)
        x = np.tanh(a + p[f"bn{k}.beta"])
    return x @ p["2.W"].T + p["2.b"]


@every_norm
def test_train_mode_is_the_formula_with_the_statistics_of_the_batch(norm, device):
    f = normed(norm, device=device)
    p, x = {name: host(w) for name, w in f.params.all().items()}, host(f.args[0])
    expected = by_hand(norm, p, x, lambda k, a: a.mean(0), lambda k, a: a.var(0))
    assert off(f.output, expected) < 1e-13 and off(f.net(f.params, f.args[0], train=True), expected) < 1e-13


@every_norm
def test_evaluation_mode_is_the_formula_with_running_statistics(norm, device):
    f = normed(norm, train=False, device=device)
    rng = np.random.default_rng(1)
    for name, value in f.params.buffers.items():
        f.params.buffers[name] = backend.like(rng.uniform(0.5, 2.0, value.shape), value)
    p, buffers = {name: host(w) for name, w in f.params.all().items()}, f.params.buffers
    centre, spread = lambda k, a: host(buffers[f"bn{k}.mean"]), lambda k, a: host(buffers[f"bn{k}.var"])
    assert off(f.output, by_hand(norm, p, host(f.args[0]), centre, spread)) < 1e-13


@every_norm
@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_flows_through_the_statistics(norm, loss):
    autograd = pytest.importorskip("autograd")
    from autograd import numpy as anp

    f = normed(norm, loss, l2=0.1)
    x, y = host(f.args[0]), host(f.loss.encode(f.targets, f.output))

    def risk(p):
        h = x
        for k in range(2):
            a = anp.dot(h, p[f"{k}.W"].T)
            a = a - anp.mean(a, 0)
            if norm == "batch":
                a = p[f"bn{k}.gamma"] * a / anp.sqrt(anp.mean(a**2, 0) + 1e-5)
            h = anp.tanh(a + p[f"bn{k}.beta"])
        z = anp.dot(h, p["2.W"].T) + p["2.b"]
        if loss == "squared":
            total = anp.sum((z - y) ** 2)
        elif loss == "softmax":
            total = anp.sum(anp.log(anp.sum(anp.exp(z), 1))) - anp.sum(z * y)
        else:
            total = anp.sum(anp.log(1.0 + anp.exp(z)) - z * y)
        return total / len(x) + 0.05 * sum(anp.sum(p[f"{k}.W"] ** 2) for k in range(3))

    theirs = autograd.grad(risk)({name: host(w) for name, w in f.params.all().items()})
    grads = f.params.windows(f.grad)
    assert all(off(grads[name], theirs[name]) < 1e-11 for name in grads)


@every_norm
def test_products_with_the_hessian_and_gauss_newton(norm, device):
    f = normed(norm, "squared", device=device)
    v = random_like(f.params.vector)
    step, theta = 1e-5, f.params.vector
    slopes = (f.at(theta + step * v).grad - f.at(theta - step * v).grad) / (2 * step)
    assert off(f.hvp(v), slopes) < 1e-8
    moved = (f.at(theta + step * v).output - f.at(theta - step * v).output) / (2 * step)
    assert abs(float(v @ f.ggnvp(v)) / (2.0 * float((moved * moved).sum()) / f.n) - 1.0) < 1e-8


@every_norm
def test_the_sweep_gives_n_times_the_derivative_of_the_risk(norm):
    f = normed(norm)
    for site in (sweep := f.sweep()):
        site.gradient(1.0)
        if site.b is None:
            continue
        assert off(site.da, f.loss.at(f.output, f.targets).gradient()) < 1e-14
    assert off(sweep.delta + sweep.rest, f.grad) < 1e-13
    assert not sweep.delta[f.params.layout["bn0.beta"][0]] and f.grad_of("bn0.beta").any()


@pytest.mark.parametrize("method", [optim.SGD(0.1), optim.Centred(0.1), optim.ACP(0.05, alpha=1.0), optim.PRONG(0.05)])
@every_norm
def test_methods_that_read_h_and_da_train_it(method, norm, device):
    f = normed(norm, n=20, device=device)
    state, before = method.init(f.params), float(f.value)
    for _ in range(10):
        method.step(f, state)
    assert float(f.value) < before


@every_norm
def test_a_step_moves_the_statistics_once_and_nothing_else_does(norm, device):
    f = normed(norm, device=device)
    start = {name: host(value).copy() for name, value in f.params.buffers.items()}
    f.grad, f.value, f.at(f.params.vector * 0.5).grad, f.net(f.params, f.args[0], train=True)
    assert all((host(f.params.buffers[name]) == start[name]).all() for name in start)
    pre = host(f.args[0]) @ host(f.params["0.W"]).T
    method = optim.SGD(0.1)
    method.step(f, method.init(f.params))
    assert off(f.params.buffers["bn0.mean"], 0.9 * start["bn0.mean"] + 0.1 * pre.mean(0)) < 1e-14
    if norm == "batch":  # the running variance is unbiased
        assert off(f.params.buffers["bn0.var"], 0.9 * start["bn0.var"] + 0.1 * pre.var(0, ddof=1)) < 1e-14


def test_a_method_that_stops_leaves_the_statistics():
    class Stops(optim.SGD):
        def update(self, f, state):
            raise optim.Stopped("here")

    f = normed("batch")
    before = {name: value.copy() for name, value in f.params.buffers.items()}
    with pytest.raises(optim.Stopped):
        Stops().step(f, {"t": 0})
    assert all((f.params.buffers[name] == before[name]).all() for name in before)


def test_running_statistics_are_torchs():
    torch = pytest.importorskip("torch")
    theirs = torch.nn.BatchNorm1d(4, momentum=0.1, eps=1e-5).double()
    net = nn.Sequential(nn.BatchNorm(4, rho=0.9))
    params = net.init(dtype="float64")
    rng = np.random.default_rng(0)
    method = optim.SGD(0.1)
    state = method.init(params)
    for _ in range(3):
        x, y = 2.0 * rng.standard_normal((6, 4)) + 1.0, rng.standard_normal((6, 4))
        with torch.no_grad():
            theirs.weight.copy_(torch.from_numpy(params["bn0.gamma"].copy()))
            theirs.bias.copy_(torch.from_numpy(params["bn0.beta"].copy()))
        assert off(net(params, x, train=True), theirs(torch.from_numpy(x)).detach().numpy()) < 1e-13
        method.step(mg.Objective(net, mg.losses.squared_error, params, x, y, train=True), state)
        assert off(params.buffers["bn0.mean"], theirs.running_mean.numpy()) < 1e-13
        assert off(params.buffers["bn0.var"], theirs.running_var.numpy()) < 1e-13
    theirs.eval()
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(params["bn0.gamma"].copy()))
        theirs.bias.copy_(torch.from_numpy(params["bn0.beta"].copy()))
    assert off(net(params, x), theirs(torch.from_numpy(x)).detach().numpy()) < 1e-13


def test_mean_only_normalisation_centres_the_input_of_the_layer():  # T-6.3.1: h is replaced by h − E[h]
    f = normed("mean")
    p, h = f.params, host(f.args[0])
    for k in range(2):
        h = np.tanh((h - h.mean(0)) @ p[f"{k}.W"].T + p[f"bn{k}.beta"])
    assert off(f.output, h @ p["2.W"].T + p["2.b"]) < 1e-13


def test_batch_normalisation_undoes_the_scale_of_the_weights():
    f = normed("batch")
    g = normed("batch")
    g.params["0.W"] *= 7.0
    g.params["1.W"] *= 0.5
    assert off(f.output, g.output) < 1e-4  # ε alone tells them apart


def test_positions_are_normalised_with_the_examples():
    layer = nn.Sequential(nn.BatchNorm(3))
    params = layer.init(dtype="float64")
    x = np.random.default_rng(0).standard_normal((4, 5, 3))
    flat = layer(params, x.reshape(20, 3), train=True)
    assert off(layer(params, x, train=True), flat.reshape(4, 5, 3)) < 1e-14


@every_norm
def test_a_layer_that_stands_twice_counts_both_batches(norm):
    shared = {"batch": nn.BatchNorm, "mean": nn.MeanOnlyBatchNorm}[norm](3, rho=0.5)
    net = nn.Sequential(shared, nn.Tanh(), shared)
    params = net.init(dtype="float64")
    x = np.random.default_rng(0).standard_normal((6, 3)) + 2.0
    f = mg.Objective(net, mg.losses.squared_error, params, x, x, train=True)
    inner = np.tanh(shared(params, x, train=True))
    assert off(f.statistics["bn0.mean"], 0.5 * (0.5 * x.mean(0)) + 0.5 * inner.mean(0)) < 1e-14


def test_networks_with_norms_are_saved_with_their_statistics(tmp_path):
    f = normed("batch")
    method = optim.SGD(0.1)
    method.step(f, method.init(f.params))
    mg.save(tmp_path / "net.npz", f.net, f.params)
    net, params = mg.load(tmp_path / "net.npz")
    assert off(net(params, f.args[0]), f.net(f.params, f.args[0])) == 0.0
    assert repr(net.children[1]) == "BatchNorm(features=7, rho=0.9, eps=1e-05)"


def test_names_windows_and_initial_gain():
    net = nn.mlp([4, 30, 20, 2], hidden="relu", norm="batch")
    params = net.init(rng=0, dtype="float64")
    assert list(params) == [
        *("0.W", "bn0.gamma", "bn0.beta", "1.W", "bn1.gamma", "bn1.beta", "2.W", "2.b"),
    ]
    assert list(params.buffers) == ["bn0.mean", "bn0.var", "bn1.mean", "bn1.var"]
    assert net.children[0].activation == "relu"  # the gain looks through the normalisation
    named = nn.Sequential(nn.Dense(2, 3), nn.MeanOnlyBatchNorm(3, name="centre"))
    assert list(named.init()) == ["0.W", "0.b", "centre.beta"]


def test_a_float32_network_stays_float32(device):
    net = nn.mlp([5, 7, 3], norm="batch")
    params = net.init(rng=0, device=device)
    x = backend.asarray(np.random.default_rng(0).random((9, 5), dtype=np.float32), device)
    f = mg.Objective(net, mg.losses.squared_error, params, x, x[:, :3], train=True)
    method = optim.SGD(0.1)
    method.step(f, method.init(params))
    assert {str(b.dtype) for b in params.buffers.values()} | {str(f.grad.dtype), str(f.output.dtype)} == {"float32"}
    assert all(backend.device_of(b) == device for b in params.buffers.values())


# ------------------------------------------------------------------------------------------------------ refusals

MIXES = "layer 'bn0' mixes the examples of a batch in train mode"


@every_norm
@pytest.mark.parametrize("kind", ["jacobian", "fisher", "mc", "empirical", "gn_prob"])
def test_signals_are_refused_in_train_mode_by_the_layers_name(norm, kind):
    with pytest.raises(ValueError, match=MIXES):
        normed(norm).signals(kind, rng=0)
    with pytest.raises(ValueError, match=MIXES):
        next(iter(normed(norm).signals(kind, rng=0, chunk=2)))
    assert normed(norm, train=False).signals(kind, rng=0)["0"].shape[1:] == (8, 7)


ASKED = {
    "J": lambda site: site.J,
    "jacobian": lambda site: next(site.jacobian(1)),
    "JtHJ": lambda site: site.JtHJ(site.da),
    "hessian_vp": lambda site: site.hessian_vp(site.da),
    "signals": lambda site: site.signals("empirical"),
}


@pytest.mark.parametrize("what", ASKED)
def test_sites_refuse_curvature_in_train_mode(what):
    site = next(iter(normed("batch").sweep()))
    with pytest.raises(ValueError, match=MIXES):
        ASKED[what](site)
    ASKED[what](next(iter(normed("batch", train=False).sweep())))


@pytest.mark.parametrize(
    "method", [optim.KFAC(), optim.EKFAC(), optim.KFAC(curvature="empirical"), optim.UBP(), optim.UBP(mode="mc")]
)
def test_methods_on_curvature_refuse_train_mode(method):
    f = normed("batch")
    with pytest.raises(ValueError, match=MIXES):
        method.step(f, method.init(f.params))
    g = normed("batch", train=False)
    method.step(g, method.init(g.params))


def test_bad_input_is_one_sentence():
    f = normed("batch")
    one = mg.Objective(f.net, f.loss, f.params, f.args[0][:1], f.targets[:1], train=True)
    bare = mg.Params({name: w.copy() for name, w in f.params.all().items()})
    for call, message in [
        (lambda: one.value, "layer 'bn0' needs more than one example in train mode"),
        (lambda: f.net(bare, f.args[0]), "no running statistic 'bn0.var'; make them with net.init"),
        (lambda: nn.BatchNorm(0), "BatchNorm needs at least one feature, not 0"),
        (lambda: nn.MeanOnlyBatchNorm(3, rho=1.0), "MeanOnlyBatchNorm: rho must be at least 0 and less than 1, not 1"),
        (lambda: nn.BatchNorm(3, eps=0.0), "BatchNorm: eps must be more than 0, not 0.0"),
        (lambda: nn.mlp([2, 3, 4], norm="bach"), "unknown norm 'bach'; there are batch, mean; did you mean 'batch'"),
        (lambda: nn.BatchNorm(3)({}, np.ones((2, 4))), r"layer 'bn0' takes \(N, 3\), not an array of shape \(2, 4\)"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
