"""Zeroth-order methods against ten-line recurrences, naive loops, and what theory says of them."""

import copy
import math

import numpy as np
import pytest
from cases import chain, host, memory_below, off, targets
from scipy.stats import rankdata

import minigrad as mg
import optim
from minigrad import backend, losses, nn
from optim.directions import centred_ranks

KINDS = ("gaussian", "rademacher", "table", "rank1")
ULP = 2.0**-52
METHODS = [
    optim.RandomSearch(0.05),
    optim.WeightedSearch(0.1, 0.05),
    *(optim.ES(0.1, 5, 0.05, kind, shaping) for kind in KINDS for shaping in ("none", "ranks")),
]


def quadratic(d=6, device="cpu", seed=0):
    """½ θᵀAθ + bᵀθ with a random symmetric A."""
    rng = np.random.default_rng(seed)
    a = rng.standard_normal((d, d))
    arrays = [backend.asarray(v, device) for v in (a + a.T, rng.standard_normal(d), rng.standard_normal(d))]

    def value(p, a, b):
        t = p["t"]
        return 0.5 * mg.sum(t * (a @ t)) + mg.sum(b * t)

    return mg.Objective(value, mg.Params(t=arrays[2]), *arrays[:2])


@pytest.fixture(autouse=True)
def short_table(monkeypatch):
    """A noise table that is drawn in no time."""
    monkeypatch.setattr(optim.directions, "STRIP", 1 << 14)


def update(method, f, rng=0, t=0):
    state = method.init(f.params, rng=rng)
    state["t"] = t
    return method.update(f, state)


def directions(method, f, rng=0, t=0):
    """ε of a step (M, d), as the method itself adds them up."""
    rows = []
    for block in method._blocks(f, {**method.init(f.params, rng=rng), "t": t}):
        k = block.values(1.0)[0].size
        for unit in np.eye(k):
            row = backend.zeros_like(f.params.vector)
            block.add(row, backend.like(unit, row, row.dtype))
            rows.append(host(row))
    return np.array(rows)


def loop(f, epsilon, sigma):
    """R(θ + σ ε) and R(θ − σ ε) one by one."""
    theta = host(f.params.vector)
    points = [theta + s * sigma * e for s in (1, -1) for e in epsilon]
    return np.array([float(f.at(backend.asarray(p, f.params.device)).value) for p in points]).reshape(2, -1)


# -------------------------------------------------------------------------------------------------- recurrences


def test_random_search_is_its_recurrence(device):
    f = quadratic(device=device)
    method = optim.RandomSearch(0.3)
    state, theta, kept = method.init(f.params, rng=7), host(f.params.vector).copy(), 0
    for t in range(30):
        delta = 0.3 * backend.stream(7, "random search", t).standard_normal(6)
        before, after = (float(f.at(backend.asarray(p, device)).value) for p in (theta, theta + delta))
        if after < before:
            theta, kept = theta + delta, kept + 1
        method.step(f, state)
        assert (host(f.params.vector) == theta).all()
    assert 5 < kept < 25


def test_weighted_search_is_its_recurrence(device):
    f = quadratic(device=device)
    method = optim.WeightedSearch(0.2, 0.3)
    state, theta = method.init(f.params, rng=7), host(f.params.vector).copy()
    for t in range(20):
        delta = 0.3 * backend.stream(7, "weighted search", t).standard_normal(6)
        theta = theta - 0.2 * float(f.at(backend.asarray(theta + delta, device)).value) * delta
        method.step(f, state)
        assert off(f.params.vector, theta) <= 4 * ULP * (t + 1)


def drawn(kind, key, t, d, pairs):
    """The directions of a step as the docstring has them."""
    rng = backend.stream(key, "directions", t)
    if kind == "gaussian":
        return rng.standard_normal((pairs, d))
    if kind == "rademacher":
        words = rng.integers(0, 1 << 64, (pairs, -(-d // 64)), dtype=np.uint64)
        return np.unpackbits(words.view(np.uint8), axis=1)[:, :d] * 2.0 - 1.0
    strip = backend.stream(key, "noise table").standard_normal(optim.directions.STRIP)
    return np.array([strip[o : o + d] for o in rng.integers(0, strip.size - d + 1, pairs)])


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("shaping", ["none", "ranks"])
def test_es_is_its_recurrence(kind, shaping, device):
    f = quadratic(device=device)
    method = optim.ES(0.02, 5, 0.1, kind, shaping)
    state = method.init(f.params, rng=7)
    for t in range(8):
        theta = host(f.params.vector).copy()
        epsilon = drawn(kind, 7, t, 6, 5)
        values = loop(f, epsilon, 0.1)
        if shaping == "ranks":
            values = (rankdata(values) - 1).reshape(2, 5) / 9 - 0.5
        g = sum((p - m) / (2 * 0.1) * e for p, m, e in zip(*values, epsilon)) / 5
        method.step(f, state)
        assert off(f.params.vector, theta - 0.02 * g) <= 4 * ULP


@pytest.mark.parametrize("shaping", ["none", "ranks"])
def test_es_by_rank1_directions_is_the_same_recurrence(shaping, device):
    f = chain(device=device, l2=0.1)
    method = optim.ES(0.05, 5, 0.1, "rank1", shaping, chunk=2)
    epsilon = directions(method, f)
    values = loop(f, epsilon, 0.1)
    if shaping == "ranks":
        values = (rankdata(values) - 1).reshape(2, 5) / 9 - 0.5
    g = sum((p - m) / (2 * 0.1) * e for p, m, e in zip(*values, epsilon)) / 5
    assert off(update(method, f), -0.05 * g) < 1e-13


def test_the_tutorials_step_has_the_rate_over_sigma_squared():  # [B] does not divide by σ²
    f = quadratic()
    sigma, eta, total = 0.1, 3.0, 0.0
    for e in drawn("gaussian", 0, 0, 6, 5):
        plus, minus = loop(f, [sigma * e], 1.0)
        total = total - eta / 5 * 0.5 * (plus - minus) * sigma * e
    assert off(update(optim.ES(eta * sigma**2, 5, sigma), f), total) < 1e-13


# --------------------------------------------------------------------------------------------------- identity 14


@pytest.mark.parametrize("kind", KINDS)
def test_the_cosine_with_the_gradient_grows_as_theory_says(kind):
    f = chain(sizes=(6, 12, 10, 3), n=5)
    g, d = f.grad, f.params.size
    for pairs in (30, 300):
        found = [-update(optim.ES(1.0, pairs, 1e-4, kind), f, rng=key) for key in range(8)]
        cosine = np.mean([v @ g / np.linalg.norm(v) / np.linalg.norm(g) for v in found])
        expected = math.sqrt(pairs / (pairs + d))
        # one estimate is off by about √(2/M) along ∇R (1 − cos² of it shows in the cosine): 8 of them, 5 deviations
        assert abs(cosine / expected - 1) < 5 * math.sqrt(3 / pairs / 8) * (1 - expected**2) + 0.02


@pytest.mark.parametrize("kind", KINDS)
def test_directions_are_uncorrelated_with_unit_variance(kind):
    f = chain(sizes=(2, 2, 2), n=3)
    epsilon = np.concatenate([directions(optim.ES(pairs=200, directions=kind), f, rng=key) for key in range(8)])
    assert np.abs(epsilon.T @ epsilon / len(epsilon) - np.eye(f.params.size)).max() < 6 / math.sqrt(len(epsilon))
    assert np.abs(epsilon.mean(0)).max() < 5 / math.sqrt(len(epsilon))


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("sigma", [1e-3, 2.0])
def test_unbiased_for_a_quadratic_at_any_sigma(kind, sigma):
    f = quadratic()
    g = f.grad
    found = np.array([-update(optim.ES(1.0, 20, sigma, kind), f, rng=key) for key in range(50)])
    error = np.abs(found.mean(0) - g) / (found.std(0) / math.sqrt(50))
    assert error.max() < 4


def test_exact_for_a_linear_function_and_orthogonal_directions(monkeypatch):
    b = np.random.default_rng(1).standard_normal(8)
    f = mg.Objective(lambda p, b: mg.sum(b * p["t"]), mg.Params(t=np.ones(8)), b)
    hadamard = np.array([[(-1.0) ** bin(i & j).count("1") for j in range(8)] for i in range(8)])

    def orthogonal(f, rng, pairs):
        return (optim.directions.Whole(f, e) for e in hadamard)

    monkeypatch.setattr(optim.search, "gaussian", orthogonal)
    assert off(update(optim.ES(0.5, 8, 0.3), f), -0.5 * b) < 1e-14


@pytest.mark.parametrize("kind", KINDS[:3])
def test_even_terms_cancel(kind):
    even = mg.Objective(lambda p: mg.sum(p["t"] ** 2) + mg.sum(mg.cos(p["t"])), mg.Params(t=np.zeros(5)))
    assert (update(optim.ES(1.0, 6, 0.5, kind), even) == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_ranks_see_only_the_order(kind, device):
    f = chain("squared", sizes=(4, 5, 2), device=device)

    def risk(p, x, y):
        return mg.mean(mg.sum((f.net(p, x) - y) ** 2, axis=1))

    args = (f.params, f.args[0], f.targets)
    plain, curved = mg.Objective(risk, *args), mg.Objective(lambda *a: mg.exp(risk(*a)) - 7.0, *args)
    ranked, raw = (optim.ES(0.1, 9, 0.1, kind, shaping) for shaping in ("ranks", "none"))
    assert (host(update(ranked, plain)) == host(update(ranked, curved))).all()
    assert off(update(raw, plain), update(raw, curved)) > 0.1


def test_centred_ranks_are_scipys(device):
    rng = np.random.default_rng(0)
    for n in (2, 7, 5000):
        values = rng.integers(0, max(2, n // 2), n) * 0.1  # with ties
        found = centred_ranks(backend.asarray(values, device))
        assert off(found, (rankdata(values) - 1) / (n - 1) - 0.5) < 1e-15
    found = host(centred_ranks(backend.asarray(np.array([3.0, np.nan, 1.0, np.inf], dtype="float32"), device)))
    assert found.dtype == np.float32
    assert off(found, np.array([1, 2.5, 0, 2.5]) / 3 - 0.5) < 1e-7  # NaN is as bad as ∞


# --------------------------------------------------------------------------------- rank 1 against the naive loop


class Scale(nn.Layer):
    """h·g with a parameter that belongs to no dense layer."""

    prefix = "scale"

    def shapes(self):
        return {"g": (4,)}

    def initial(self, rng, scheme, alpha):
        return {"g": rng.standard_normal(4)}

    def __call__(self, params, h, train=False):
        return h * params[self.name + ".g"]


class Apply(nn.Layer):
    """A function of h as a layer."""

    def __init__(self, function):
        self.function = function

    def __call__(self, params, h, train=False):
        return self.function(h)


class Mixed(nn.Layer):
    """A matrix NAME.W that is no dense layer's, used from the right."""

    prefix = "mixed"

    def shapes(self):
        return {"W": (4, 4)}

    def initial(self, rng, scheme, alpha):
        return {"W": rng.standard_normal((4, 4))}

    def __call__(self, params, h, train=False):
        return h @ params[self.name + ".W"]


def network(*layers, loss="squared", shape=(5, 4), device="cpu", **kw):
    """4 → 4 → 3 with something in between."""
    net = nn.Sequential(nn.Dense(4, 4), *layers, nn.Dense(4, 3))
    rng = np.random.default_rng(0)
    params = net.init(rng=1, dtype="float64", device=device)
    params.vector += backend.asarray(0.1 * rng.standard_normal(params.size), device)
    x = backend.asarray(rng.standard_normal(shape), device)
    y = backend.asarray(targets(loss, shape[0], 3, rng), device)
    loss = {"squared": losses.squared_error, "softmax": losses.softmax_cross_entropy}.get(loss, loss)
    return mg.Objective(net, loss, params, x, y, **kw)


def same_as_loop(f, pairs=5, chunk=2):
    method = optim.ES(pairs=pairs, directions="rank1", chunk=chunk)
    state = method.init(f.params)
    found = [block.values(0.1) for block in method._blocks(f, state)]
    found = np.array([[host(v) for v in side] for side in zip(*found)]).reshape(2, -1)
    assert off(found, loop(f, directions(method, f), 0.1)) < 1e-12


@pytest.mark.parametrize("loss", ["squared", "softmax", "sigmoid"])
@pytest.mark.parametrize("hidden", ["tanh", "sigmoid", "relu", "softplus", "leaky_relu", None])
def test_stacked_values_are_the_loops(loss, hidden):
    same_as_loop(chain(loss, hidden))
    same_as_loop(chain(loss, hidden, l2=0.3))


def twice(layer):
    return nn.Sequential(layer, nn.Tanh(), layer)


ODD = {
    "residual": lambda: (nn.Residual(nn.Sequential(nn.Dense(4, 4), nn.Tanh())), nn.Tanh()),
    "softmax": lambda: (nn.Softmax(),),
    "no bias": lambda: (nn.Dense(4, 4, bias=False), nn.ReLU()),
    "one layer twice": lambda: (twice(nn.Dense(4, 4)),),
    "scale": lambda: (Scale(), nn.Tanh()),
    "matrix": lambda: (Mixed(), nn.Tanh()),
    "mean over the batch": lambda: (Apply(lambda h: h - mg.mean(h, axis=0)), nn.Tanh()),
    "halves": lambda: (Apply(lambda h: mg.concatenate([h[:, 2:], mg.tanh(h[:, :2])], axis=1)),),
    "constants": lambda: (Apply(lambda h: mg.concatenate([h[:, :2], np.ones((5, 2))], axis=1)),),
    "rows": lambda: (Apply(lambda h: h - mg.max(h, axis=1, keepdims=True)), nn.Tanh()),
    "einsum": lambda: (Apply(lambda h: mg.einsum("nk,mk->nm", h, h) @ h),),
    "shapes": lambda: (Apply(lambda h: mg.reshape(mg.transpose(mg.reshape(h, (5, 2, 2)), (0, 2, 1)), (5, 4))),),
    "columns": lambda: (Apply(lambda h: h * mg.sum(h * h, axis=0) + mg.norm(h) + mg.logsumexp(h, axis=0)),),
    "left product": lambda: (Apply(lambda h: np.arange(25.0).reshape(5, 5) @ h * 0.05),),
}


@pytest.mark.parametrize("layers", ODD.values(), ids=ODD.keys())
def test_stacked_values_through_other_operations(layers):
    same_as_loop(network(*layers(), l2=0.2))


def test_stacked_values_on_the_device(device):
    same_as_loop(chain(device=device, l2=0.2))
    same_as_loop(network(nn.Residual(nn.Dense(4, 4)), Scale(), Mixed(), nn.Softmax(), device=device))


def test_stacked_values_of_positions():  # h (N, T, in)
    def last(h):
        return h[:, -1, :] + mg.sum(h, axis=1)

    same_as_loop(network(nn.Tanh(), nn.Dense(4, 4), nn.Tanh(), Apply(last), shape=(5, 3, 4)))


def test_stacked_values_of_a_plain_loss_and_of_a_plain_function():
    same_as_loop(network(nn.Tanh(), loss=lambda z, y: mg.sum(mg.abs(z - y), axis=1)))
    f = network(nn.Tanh())
    for risk in (losses.squared_error, lambda z, y: mg.sum((z - y) ** 2, axis=1)):
        same_as_loop(mg.Objective(lambda p, x, y, r=risk: mg.mean(r(f.net(p, x), y)), f.params, f.args[0], f.targets))


def test_neither_chunk_nor_block_changes_the_directions(monkeypatch):
    f = chain(sizes=(6, 7, 3))
    whole = directions(optim.ES(pairs=11, directions="rank1", chunk=11), f)
    assert set(np.unique(whole)) == {-1.0, 1.0}
    one = update(optim.ES(1.0, 11, 0.1, "rank1", "ranks"), f)
    monkeypatch.setattr(optim.stacked, "GROUP", 3)
    assert (directions(optim.ES(pairs=11, directions="rank1", chunk=2), f) == whole).all()
    assert off(update(optim.ES(1.0, 11, 0.1, "rank1", "ranks", chunk=1), f), one) < 1e-13


def tied(params, x):
    return mg.dense(mg.tanh(mg.dense(x, params["0.W"], params["0.b"])), mg.transpose(params["0.W"]))


def computed(params, x):
    return mg.dense(mg.dense(x, params["0.W"]), mg.tanh(params["1.W"]))


def selected(params, x):
    a = mg.dense(x, params["0.W"])
    return mg.where(a > 0, a, 0.1 * a)


def largest(params, x):
    a = mg.dense(x, params["0.W"])
    return a[:, np.argsort(a.value[0])]


@pytest.mark.parametrize(
    "net, words",
    [
        (tied, "cannot take '0.W', used outside its layer too"),
        (computed, "cannot repeat 'dense' at many points at once"),
        (selected, "cannot repeat 'where'"),
        (largest, "cannot repeat 'getitem'"),
    ],
)
def test_what_cannot_be_stacked_is_refused_by_name(net, words):
    rng = np.random.default_rng(0)
    params = mg.Params({name: rng.standard_normal(s) for name, s in {"0.W": (4, 4), "0.b": 4, "1.W": (4, 4)}.items()})
    x = rng.standard_normal((5, 4))
    f = mg.Objective(net, losses.squared_error, params, x, x)
    with pytest.raises(ValueError, match=words):
        update(optim.ES(directions="rank1"), f)
    assert np.isfinite(update(optim.ES(directions="gaussian"), f)).all()


# ------------------------------------------------------------------------------------------------ the protocol


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_resumed_is_uninterrupted_bit_for_bit(method, device):
    f = chain(device=device)
    state, start = method.init(f.params, rng=3), f.params.vector.copy()
    for _ in range(6):
        method.step(f, state)
    whole = host(f.params.vector).copy()
    f.params.vector = start
    state = method.init(f.params, rng=3)
    for _ in range(4):
        method.step(f, state)
    assert set(state) == {"t", "key"} and all(type(v) is int for v in state.values())  # no table, no directions
    fresh = type(method)(**optim.base.settings(method))
    for _ in range(2):
        fresh.step(f, state)
    assert (host(f.params.vector) == whole).all()
    assert (host(start) != whole).any()


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_steps_and_keys_draw_their_own_directions(method):
    f = chain()
    found = [update(method, f, rng=key, t=t) for key, t in ((0, 0), (0, 1), (1, 0))]
    assert not np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_float32_stays_float32_and_theta_stays_put(method, device):
    rng = np.random.default_rng(0)
    net = nn.mlp([5, 6, 3], hidden="sigmoid")
    params = net.init(rng=0, device=device)
    x, y = (backend.asarray(a, device) for a in (rng.random((7, 5), dtype=np.float32), rng.integers(0, 3, 7)))
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x, y, l2=0.01)
    before = host(params.vector).copy()
    found = update(method, f)
    assert found.dtype == np.float32 and found.shape == params.vector.shape
    assert (host(params.vector) == before).all() and params.version == 0


@pytest.mark.parametrize("kind", KINDS)
def test_es_descends(kind, device):
    f = chain(n=20, device=device)
    method = optim.ES(0.3, 30, 0.01, kind)
    state, before = method.init(f.params), float(f.value)
    for _ in range(10):
        method.step(f, state)
    assert float(f.value) < 0.9 * before


def test_random_search_never_rises():
    f = chain(n=20)
    method = optim.RandomSearch(0.05)
    state, seen = method.init(f.params), []
    for _ in range(60):
        seen.append(float(method.step(f, state).loss))
    assert (np.diff(seen) <= 0).all() and seen[-1] < 0.9 * seen[0]


def test_weighted_search_descends_on_average():
    f = quadratic()
    g = f.grad
    found = np.mean([update(optim.WeightedSearch(1.0, 0.1), f, rng=key) for key in range(4000)], axis=0)
    assert found @ g < -0.5 * 0.01 * (g @ g)


@pytest.mark.parametrize("kind", KINDS)
def test_cost_counts_every_value(kind):
    f = chain()
    float(f.value)
    update(optim.ES(pairs=9, directions=kind), f)
    assert (f.cost.forwards, f.cost.backwards, f.cost.products) == (19, 0, 0)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_a_function_of_two_numbers_and_one_of_a_thousand(kind):
    beale = mg.Objective(
        lambda p: (1.5 - p["x"] * (1 - p["y"])) ** 2 + (2.25 - p["x"] * (1 - p["y"] ** 2)) ** 2,
        mg.Params(x=1.0, y=1.0),
    )
    curvature = np.geomspace(0.1, 1.0, 1000)
    wide = mg.Objective(lambda p, c: 0.5 * mg.sum(c * p["t"] ** 2), mg.Params(t=np.ones(1000)), curvature)
    for f, method in ((beale, optim.ES(0.02, 8, 0.05, kind)), (wide, optim.ES(0.05, 100, 0.05, kind))):
        state, before = method.init(f.params), float(f.value)
        for _ in range(40):
            method.step(f, state)
        assert float(f.value) < 0.5 * before


def test_the_table_is_drawn_once_and_belongs_to_its_key():
    f, method = chain(), optim.ES(directions="table")
    state = method.init(f.params, rng=1)
    method.step(f, state)
    strip = method._table.strip
    method.step(f, state)
    assert method._table.strip is strip
    method.step(f, method.init(f.params, rng=2))
    assert not np.array_equal(method._table.strip, strip)
    assert copy.deepcopy(method) == method and "table" in repr(method) and "strip" not in repr(method)


# ----------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("kind, pairs", [("rank1", 5000), ("gaussian", 40), ("rademacher", 40)])
@pytest.mark.parametrize("shaping", ["none", "ranks"])
def test_no_direction_is_kept(kind, pairs, shaping):
    net = nn.mlp([784, 512, 512, 10])
    x = np.random.default_rng(0).random((2, 784), dtype=np.float32)
    f = mg.Objective(net, losses.softmax_cross_entropy, net.init(rng=0), x, np.array([1, 2]))
    assert f.params.size * 4 * pairs > 100e6
    with memory_below(64 << 20):
        assert np.isfinite(update(optim.ES(pairs=pairs, directions=kind, shaping=shaping), f)).all()


# -------------------------------------------------------------------------------------------------- bad input


def test_bad_settings_are_one_sentence():
    for make, message in [
        (lambda: optim.RandomSearch(0.0), "RandomSearch: sigma must be a number of more than 0, not 0.0"),
        (lambda: optim.WeightedSearch(sigma=-1.0), "WeightedSearch: sigma must be"),
        (lambda: optim.WeightedSearch(lr=0.0), "WeightedSearch: lr must be"),
        (lambda: optim.ES(lr=-0.1), "ES: lr must be"),
        (lambda: optim.ES(sigma=float("nan")), "ES: sigma must be"),
        (lambda: optim.ES(pairs=0), "ES: pairs must be a whole number of at least 1, not 0"),
        (lambda: optim.ES(pairs=2.5), "ES: pairs must be a whole number"),
        (lambda: optim.ES(chunk=0), "ES: chunk must be a whole number"),
        (lambda: optim.ES(directions="cauchy"), "ES: directions must be one of gaussian, rademacher, table, rank1"),
        (lambda: optim.ES(shaping="z-score"), "ES: shaping must be one of none, ranks, not 'z-score'"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_rank1_without_a_dense_layer_is_refused():
    with pytest.raises(ValueError, match="rank1 directions need dense layers NAME.W, and this objective has none; use"):
        update(optim.ES(directions="rank1"), quadratic())


@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_an_objective_is_one_number(method):
    f = mg.Objective(lambda p: p["t"] ** 2, mg.Params(t=np.ones(3)))
    with pytest.raises(ValueError, match="an objective is one number"):
        update(method, f)


def hole(theta, device):
    """√(−x): NaN on the right half of the axis."""
    return mg.Objective(lambda p: mg.sqrt(0.0 - p["x"]), mg.Params(x=backend.asarray(np.asarray(theta), device)))


def test_nan_at_a_trial_point_is_no_improvement(device):
    method = optim.RandomSearch(10.0)
    found = []
    with np.errstate(invalid="ignore"):
        for key in range(20):
            f = hole(-0.01, device)
            found.append(float(update(method, f, rng=key)[0]))
    assert found == [0.0] * 20  # left of θ it is worse, right of 0 it is NaN


def test_random_search_stops_where_the_objective_is_nan(device):
    f = hole(1.0, device)
    method = optim.RandomSearch()
    state = method.init(f.params)
    with np.errstate(invalid="ignore"), pytest.raises(optim.Stopped, match="the objective is NaN at θ"):
        method.step(f, state)
    assert float(f.params["x"]) == 1.0 and state["t"] == 0


def test_nan_spreads_unless_it_is_ranked(device):
    f = hole(-0.01, device)
    with np.errstate(invalid="ignore"):
        assert np.isnan(host(update(optim.ES(1.0, 8, 1.0), f))).all()
        found = float(update(optim.ES(1.0, 8, 1.0, shaping="ranks"), f)[0])
    assert found < 0  # away from the hole
