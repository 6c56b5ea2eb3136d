"""First-order methods against ten-line recurrences, PyTorch and optax, and what theory says of them.

`references/first_order.json` holds 20 steps of PyTorch 2.13 and optax 0.2.8 on one objective (made by
`references/make_first_order.py`). Where their conventions are ours the points are equal to 1e-12; where they are not,
`test_other_conventions_of_peers` shows the difference:

| method | ours | PyTorch | optax |
| --- | --- | --- | --- |
| momentum | form "velocity": a gradient keeps its rate | "sum": the present rate scales the past | "sum" |
| averaged momentum | form "average" | `dampening`: the first gradient counts in full | `ema(debias=False)`: ours |
| Nesterov | "practical", v holds rates | g + μ buf: as ours at a constant rate | g + μ trace: the same |
| AdaGrad | ε outside the root, from v = 0 | as ours; `lr_decay` is a schedule: c = 1 is λ/t | ε inside, from v = 0.1 |
| RMSprop | ε outside | as ours, ρ is called `alpha` | ε inside unless `eps_in_sqrt=False` |
| centred RMSprop | v − m² by its own recurrence | v − m² | v − m², ε as above |
| Adadelta | both ε inside, λ on the step | as ours | as ours |
| Adam | ε outside, after the correction | as ours | as ours (`eps_root` = 0) |
| AdamW | WeightDecay(Adam): W only | every parameter; lr·decay·θ, as ours | as PyTorch |
"""

import json
from pathlib import Path

import numpy as np
import pytest
from cases import chain, host, off

import minigrad as mg
import optim
from minigrad import backend
from optim import Scheduled, WeightDecay

REFERENCES = json.loads((Path(__file__).parent / "references" / "first_order.json").read_text(encoding="utf-8"))


def quadratic(curvature, start):
    """½ Σ cᵢ θᵢ² as an Objective."""
    return mg.Objective(lambda p, c: 0.5 * mg.sum(c * p["t"] ** 2), mg.Params(t=start), np.asarray(curvature))


def walk(method, f, steps, rng=0):
    """The points that a method visits, the start included."""
    state = method.init(f.params, rng=rng)
    points = [f.params.vector.copy()]
    for _ in range(steps):
        method.step(f, state)
        points.append(f.params.vector.copy())
    return np.array(points)


def robust(device="cpu", name="t", turn=None):
    """Σ log(1 + (Aθ − y)²), the objective of the references, smooth and not quadratic; in φ with θ = turn φ."""
    A, y, start = (np.array(REFERENCES["problem"][key]) for key in ("A", "y", "start"))
    if turn is not None:
        A, start = A @ turn, turn.T @ start
    A, y, start = (backend.asarray(a, device) for a in (A, y, start))
    return mg.Objective(lambda p, A, y: mg.sum(mg.log(1.0 + (A @ p[name] - y) ** 2)), mg.Params({name: start}), A, y)


def ulps(found, expected, before):
    """Largest difference in units in the last place of the largest of the three."""
    size = np.maximum(np.maximum(np.abs(found), np.abs(expected)), np.abs(before))
    return float((np.abs(found - expected) / np.spacing(size)).max())


def assert_is_its_recurrence(method, recurrence, device, steps=25, limit=4.0):
    """Every step, taken from the method's own state, is that of recurrence(θ, state, t, ∇) to 4 ulp.

    The recurrence returns θ and the arrays of the state after the step; ∇(point, scale) is scale·∇R, rounded as the
    objective rounds it.
    """
    f = robust(device)

    def gradient(theta, scale=1.0):
        return host(f.at(backend.asarray(theta, device)).pullback(scale))

    state = method.init(f.params)
    assert all(not host(v).any() for k, v in state.items() if hasattr(v, "shape"))
    for t in range(steps):
        before = {"theta": host(f.params.vector).copy()}
        before |= {k: host(v).copy() for k, v in state.items() if hasattr(v, "shape")}
        method.step(f, state)
        theta, arrays = recurrence(before["theta"], before, t, gradient)
        assert set(arrays) | {"theta"} == set(before)
        assert ulps(host(f.params.vector), theta, before["theta"]) <= limit
        for name, expected in arrays.items():
            assert ulps(host(state[name]), expected, before[name]) <= limit, name


C, START = np.array([5.0, 2.0, 0.3]), np.array([0.5, 0.5, -1.0])


def test_sgd_is_its_recurrence():
    points = [START]
    for _ in range(20):
        points.append(points[-1] - 0.1 * (C * points[-1]))
    assert off(walk(optim.SGD(0.1), quadratic(C, START), 20), np.array(points)) < 1e-15


def test_one_step_of_gradient_descent_on_the_decks_quadratic():  # identity 17, [P]
    f = quadratic([5.0, 2.0], [0.5, 0.5])
    assert f.grad.tolist() == [2.5, 1.0]
    assert walk(optim.GD(1.0), f, 1)[1].tolist() == [-2.0, -0.5]


def test_momentum_is_its_recurrence():
    theta, v, points = START, 0.0, [START]
    for _ in range(20):
        v = 0.8 * v - 0.05 * (C * theta)
        theta = theta + v
        points.append(theta)
    assert off(walk(optim.Momentum(0.05, mu=0.8), quadratic(C, START), 20), np.array(points)) < 1e-14


def test_momentum_without_memory_is_gradient_descent():  # identity 13
    for kind in (optim.Momentum, optim.Nesterov):
        for form in kind.forms:
            assert off(walk(kind(0.1, 0.0, form), chain(), 5), walk(optim.SGD(0.1), chain(), 5)) < 1e-14


LR, MU = 0.05, 0.8


def velocity(theta, state, t, gradient):
    v = MU * state["v"] + gradient(theta, -LR)
    return theta + v, {"v": v}


def summed(theta, state, t, gradient):
    v = MU * state["v"] + gradient(theta)
    return theta - LR * v, {"v": v}


def average(theta, state, t, gradient):
    v = MU * state["v"] + gradient(theta, 1 - MU)
    return theta - LR * v, {"v": v}


def lookahead(theta, state, t, gradient):
    v = MU * state["v"] + gradient(theta + MU * state["v"], -LR)
    return theta + v, {"v": v}


def practical(theta, state, t, gradient):
    g = gradient(theta, -LR)
    v = MU * state["v"] + g
    return theta + (MU * v + g), {"v": v}


def adam(theta, state, t, gradient):
    g, b1, b2 = gradient(theta), 0.8, 0.95
    m, v = b1 * state["m"] + (1 - b1) * g, b2 * state["v"] + (1 - b2) * g * g
    return theta - LR * (m / (1 - b1 ** (t + 1))) / (np.sqrt(v / (1 - b2 ** (t + 1))) + 1e-3), {"m": m, "v": v}


@pytest.mark.parametrize(
    "method, recurrence",
    [
        (optim.GD(LR), lambda theta, state, t, gradient: (theta + gradient(theta, -LR), {})),
        (optim.SGD(LR), lambda theta, state, t, gradient: (theta + gradient(theta, -LR), {})),
        (optim.Momentum(LR, MU), velocity),
        (optim.Momentum(LR, MU, "sum"), summed),
        (optim.Momentum(LR, MU, "average"), average),
        (optim.Nesterov(LR, MU), practical),
        (optim.Nesterov(LR, MU, "lookahead"), lookahead),
        (optim.Adam(LR, 0.8, 0.95, 1e-3), adam),
    ],
    ids=lambda v: getattr(v, "__name__", repr(v)),
)
def test_every_step_is_its_recurrence_to_4_ulp(method, recurrence, device):
    assert_is_its_recurrence(method, recurrence, device)


def test_the_three_forms_of_momentum_agree_at_a_constant_rate():
    steps = walk(optim.Momentum(LR, MU), robust(), 20)
    assert off(walk(optim.Momentum(LR, MU, "sum"), robust(), 20), steps) < 1e-14
    assert off(walk(optim.Momentum(LR / (1 - MU), MU, "average"), robust(), 20), steps) < 1e-14


@pytest.mark.parametrize("form", optim.Momentum.forms)
def test_the_forms_of_momentum_at_a_changing_rate(form):
    f = robust()
    gradients, rates, theta = [], [], f.params.vector.copy()
    for t in range(12):
        gradients.append(f.at(theta).grad)
        rates.append(LR / (t + 1))
        past = [MU ** (t - s) * g for s, g in enumerate(gradients)]
        if form == "velocity":  # every gradient keeps the rate at which it came
            theta = theta - sum(rate * g for rate, g in zip(rates, past))
        else:  # the present rate scales the whole past
            theta = theta - rates[t] * sum(past) * (1.0 if form == "sum" else 1 - MU)
    found = walk(Scheduled(optim.Momentum(LR, MU, form), "inverse"), robust(), 12)
    assert off(found[-1], theta) < 1e-14
    if form != "velocity":
        rate = LR if form == "sum" else LR * (1 - MU)
        assert off(walk(Scheduled(optim.Momentum(rate, MU), "inverse"), robust(), 12)[-1], found[-1]) > 1e-3


def test_sum_is_velocity_with_a_momentum_that_follows_the_rate():
    f, v = robust(), 0.0
    theta = f.params.vector.copy()
    for t in range(12):
        v = MU * (t / (t + 1)) * v - LR / (t + 1) * f.at(theta).grad  # μ λₜ/λₜ₋₁ with λₜ = λ/(t + 1)
        theta = theta + v
    assert off(walk(Scheduled(optim.Momentum(LR, MU, "sum"), "inverse"), robust(), 12)[-1], theta) < 1e-14


def test_both_forms_of_nesterov_take_the_gradient_at_the_same_points(device):
    f = robust(device)
    method = optim.Nesterov(LR, MU, "lookahead")
    state, ahead = method.init(f.params), []
    for _ in range(20):
        ahead.append(host(f.params.vector + MU * state["v"]))
        method.step(f, state)
    f, points = robust(device), []
    method = optim.Nesterov(LR, MU)
    state = method.init(f.params)
    for _ in range(20):
        points.append(host(f.params.vector).copy())
        method.step(f, state)
    assert off(np.array(points), np.array(ahead)) < 1e-14
    assert off(host(f.params.vector), ahead[-1]) > 1e-4  # the last point is still on its way


def test_lookahead_costs_one_forward_more():
    for form, forwards in [("practical", 1), ("lookahead", 2)]:
        f = chain()
        walk(optim.Nesterov(form=form), f, 1)
        assert (f.cost.forwards, f.cost.backwards) == (forwards, 1)


def test_nesterov_visits_the_published_look_ahead_points():
    theta, v, ahead = START, np.zeros(3), []
    for _ in range(21):  # the published form: ∇ at θ + μ v
        ahead.append(theta + 0.9 * v)
        v = 0.9 * v - 0.05 * (C * ahead[-1])
        theta = theta + v
    assert off(walk(optim.Nesterov(0.05, mu=0.9), quadratic(C, START), 20), np.array(ahead)) < 1e-13


def test_nesterov_on_a_quadratic_is_momentum_damped_by_curvature():  # identity 13: μ(1 − ηλ) in every direction
    for c in C:
        mu, lr = 0.9, 0.05
        f = quadratic([c], [1.0])
        theta, v, ahead = 1.0, 0.0, [1.0]
        for _ in range(15):
            v = mu * (1 - lr * c) * v - lr * c * theta
            theta = theta + v
            ahead.append(theta + mu * v)
        assert off(walk(optim.Nesterov(lr, mu=mu), f, 15)[:, 0], np.array(ahead)) < 1e-13


def test_adam_is_its_published_recurrence():
    lr, b1, b2, eps = 0.02, 0.8, 0.95, 1e-3
    theta, m, v, points = START, 0.0, 0.0, [START]
    for t in range(1, 31):
        g = C * theta
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        theta = theta - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        points.append(theta)
    assert off(walk(optim.Adam(lr, b1, b2, eps), quadratic(C, START), 30), np.array(points)) < 1e-13


def test_a_large_eps_makes_adam_momentum():  # ε as damping [P]: the average form at the rate λ/ε, bias corrected
    def gap(eps):
        f, m = robust(), 0.0
        theta = f.params.vector.copy()
        for t in range(1, 21):
            m = 0.8 * m + 0.2 * f.at(theta).grad
            theta = theta - 0.2 * m / (1 - 0.8**t)
        return off(walk(optim.Adam(0.2 * eps, 0.8, 0.95, eps), robust(), 20)[-1], theta)

    assert gap(1e8) < 1e-7 and 9.9 < gap(1e5) / gap(1e6) < 10.1  # the gap is of order 1/ε


# ------------------------------------------------------------------------------------------------ backtracking


def test_backtracking_is_its_loop(device):
    f, theta = robust(device), host(robust().params.vector).copy()
    method = optim.GD(4.0, rate="backtracking")
    state, halved = method.init(f.params), set()
    for _ in range(15):
        before = f.cost.forwards
        method.step(f, state)
        at = f.at(backend.asarray(theta, device))
        g, value, rate, trials = host(at.grad), float(at.value), 4.0, 1
        while float(f.at(backend.asarray(theta - rate * g, device)).value) > value - 1e-4 * rate * g @ g:
            rate, trials = rate / 2, trials + 1
        theta = theta - rate * g
        halved.add(rate)
        assert f.cost.forwards - before >= 1 + trials
        assert off(f.params.vector, theta) < 1e-13
    assert len(halved) > 1


@pytest.mark.parametrize(
    "fn, start, message",
    [
        (lambda p: mg.sum(p["t"] ** 2), 0.0, "the slope along the direction is 0"),
        (lambda p: mg.sum(mg.log(p["t"])), -1.0, r"R\(θ\) is nan"),
        (lambda p: mg.sum(mg.where(p["t"] >= 1.0, p["t"], 9.0)), 1.0, "find no lower R"),
    ],
)
def test_backtracking_that_cannot_go_on_leaves_theta(fn, start, message):
    f = mg.Objective(fn, mg.Params(t=np.full(2, start)))
    method = optim.GD(1.0, rate="backtracking")
    state = method.init(f.params)
    with np.errstate(all="ignore"), pytest.raises(optim.Stopped, match=message):
        method.step(f, state)
    assert (f.params.vector == start).all() and state["t"] == 0


# ----------------------------------------------------------------------------------------- PyTorch and optax


def peer(name):
    """The 20 points that a peer visits after the start."""
    return np.array(REFERENCES["runs"][name]["points"])


SAME = {
    "sgd": optim.SGD(0.05),
    "momentum": optim.Momentum(0.05, 0.8, "sum"),
    "average": optim.Momentum(0.2, 0.8, "average"),
    "momentum, lr/√(t+1)": Scheduled(optim.Momentum(0.05, 0.8, "sum"), "sqrt"),
    "nesterov": optim.Nesterov(0.05, 0.8),
    "adagrad": optim.AdaGrad(0.3, 1e-3),
    "adagrad, lr_decay": Scheduled(optim.AdaGrad(0.3, 1e-3), "inverse"),
    "rmsprop": optim.RMSprop(0.05, 0.9, 1e-3),
    "rmsprop, ε outside": optim.RMSprop(0.05, 0.9, 1e-3),
    "rmsprop, centred": optim.RMSprop(0.02, 0.9, 1e-3, centred=True),
    "rmsprop, centred, ε outside": optim.RMSprop(0.02, 0.9, 1e-3, centred=True),
    "adadelta": optim.Adadelta(0.7, 0.9, 1e-3),
    "adam": optim.Adam(0.1, 0.8, 0.95, 1e-3),
    "adamw": WeightDecay(optim.Adam(0.1, 0.8, 0.95, 1e-3), 0.2),
}
OTHER = {"torch dampening", "optax adagrad", "optax rmsprop"}


@pytest.mark.parametrize("name", sorted(set(REFERENCES["runs"]) - OTHER))
def test_peers_visit_the_same_points(name):
    method = SAME[name.split(" ", 1)[1]]
    assert off(walk(method, robust(name="0.W"), 20)[1:], peer(name)) < 1e-12


def test_other_conventions_of_peers():
    f = robust()
    first = f.params.vector - 0.2 * f.grad  # torch: dampening does not act on the first gradient
    assert off(peer("torch dampening")[0], first) < 1e-14
    assert off(walk_from(optim.Momentum(0.2, 0.8, "average"), robust(), v=f.grad), peer("torch dampening")) < 1e-12

    # optax: AdaGrad's v starts at 0.1 and ε is added to it, so v = 0.1 + ε and no ε is the same
    assert off(walk_from(optim.AdaGrad(0.3, 1e-300), robust(), v=np.full(3, 0.1 + 1e-3)), peer("optax adagrad")) < 1e-12
    assert off(walk(optim.AdaGrad(0.3, 1e-3), robust(), 20)[1:], peer("optax adagrad")) > 1e-2

    theta, v = f.params.vector.copy(), 0.0
    for point in peer("optax rmsprop"):  # optax: √(v + ε)
        g = f.at(theta).grad
        v = 0.9 * v + 0.1 * g * g
        theta = theta - 0.05 * g / np.sqrt(v + 1e-3)
        assert off(theta, point) < 1e-12
    assert off(walk(optim.RMSprop(0.05, 0.9, 1e-3), robust(), 20)[1:], peer("optax rmsprop")) > 1e-4


def test_momentum_of_peers_is_not_the_velocity_form_at_a_changing_rate():
    found = walk(Scheduled(optim.Momentum(0.05, 0.8), "sqrt"), robust(), 20)[1:]
    assert off(found, peer("torch momentum, lr/√(t+1)")) > 1e-2


def walk_from(method, f, **arrays):
    """The 20 points after the start, with these arrays in the first state."""
    state, points = method.init(f.params) | arrays, []
    for _ in range(20):
        method.step(f, state)
        points.append(f.params.vector.copy())
    return np.array(points)


# ------------------------------------------------------------------------------------------------------ protocol


@pytest.mark.parametrize("l2", [0.0, 0.2])
def test_sgd_and_the_gradient_rule_take_the_same_steps(l2):
    assert off(walk(optim.Gradient(0.1), chain(l2=l2), 5), walk(optim.SGD(0.1), chain(l2=l2), 5)) < 1e-13


def test_the_loss_is_read_before_the_step():
    f = chain()
    before = float(f.value)
    method = optim.SGD(0.1)
    info = method.step(f, method.init(f.params))
    assert float(info.loss) == before and float(f.value) < before


def test_states_share_nothing():
    f = chain()
    method = optim.Momentum(0.1)
    one, two = method.init(f.params), method.init(f.params)
    method.step(f, one)
    assert one["v"].any() and not two["v"].any() and (one["t"], two["t"]) == (1, 0)


def test_a_step_does_not_edit_the_gradient_that_somebody_holds():
    f = chain()
    held = f.grad
    kept = held.copy()
    method = optim.Adam(0.1)
    method.step(f, method.init(f.params))
    assert off(held, kept) == 0.0


def test_repr_shows_every_setting():
    assert repr(optim.Adam(lr=0.01)) == "Adam(lr=0.01, beta1=0.9, beta2=0.999, eps=1e-08)"
    assert repr(optim.UBP(optim.Centred(0.2), mode="mc")) == "UBP(inner=Centred(lr=0.2, rest_lr=None), mode='mc')"


def test_bad_settings_are_one_sentence():
    for make, message in [
        (lambda: optim.SGD(-0.1), "SGD: lr must be a number of more than 0, not -0.1"),
        (lambda: optim.SGD("0.1"), "SGD: lr must be a number"),
        (lambda: optim.Momentum(0.1, mu=1.0), "mu must be a number of at least 0 and less than 1, not 1.0"),
        (
            lambda: optim.Momentum(0.1, form="heavy"),
            "Momentum: form must be one of velocity, sum, average, not",
        ),
        (lambda: optim.Nesterov(form="sum"), "Nesterov: form must be one of practical, lookahead, not 'sum'"),
        (lambda: optim.GD(rate="exact"), "GD: rate must be one of fixed, backtracking, not 'exact'"),
        (lambda: optim.GD(-1.0, rate="backtracking"), "GD: lr must be a number of more than 0, not -1.0"),
        (lambda: optim.Adam(eps=0.0), "eps must be a number of more than 0"),
        (lambda: optim.Adam(beta2=float("nan")), "beta2 must be a number"),
        (lambda: optim.ACP(alpha="mean"), "alpha is a positive number or 'max', not 'mean'"),
        (lambda: optim.ACP(eps=-1.0), "ACP: eps must be"),
        (lambda: optim.UBP(mode="gauss"), "unknown UBP mode 'gauss'; the modes are gn, explicit"),
        (lambda: optim.UBP(optim.SGD()), "UBP goes over a layer rule"),
        (lambda: optim.UBP(optim.UBP()), "UBP cannot go over UBP"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
