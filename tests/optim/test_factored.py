"""What K-FAC and EKFAC keep between steps and do after a sweep: stale inverses, "auto", clip, damping, momentum."""

import numpy as np
import pytest
from cases import chain, host, off

import minigrad as mg
import optim
from minigrad import backend, losses, nn
from optim import factors

EVERY_STEP = {"every": 1, "stats_every": 1}


def step_of(method, f, state=None):
    """The windows of one update."""
    return f.params.windows(method.update(f, method.init(f.params, rng=1) if state is None else state))


def joined(windows, name):
    """[W b] of one layer."""
    return np.hstack([host(windows[f"{name}.W"]), host(windows[f"{name}.b"])[:, None]])


# ------------------------------------------------------------------------------------ what is renewed, and when


def drifting(count, n=20, device="cpu"):
    """The same network on different batches, one θ."""
    first = chain(n=n, device=device)
    rest = [chain(n=n, device=device, seed=k) for k in range(1, count)]
    return [first, *(mg.Objective(f.net, f.loss, first.params, *f.args, f.targets) for f in rest)]


def trace(method, batches, keys):
    """What the state holds under some keys after every step."""
    state = method.init(batches[0].params, rng=1)
    found = {key: [] for key in keys}
    for f in batches:
        method.step(f, state)
        for key in keys:
            value = state[key]
            found[key].append(host(value).copy() if hasattr(value, "shape") else value)
    return found


def changes(values):
    return [int(np.any(a != b)) for a, b in zip(values, values[1:])]


@pytest.mark.parametrize("kind, inverse", [(optim.KFAC, "A_inv"), (optim.KFAC, "G_inv"), (optim.EKFAC, "Q_G")])
def test_inverses_and_statistics_are_stale_in_between(kind, inverse, device):
    method = kind(0.05, 0.1, every=4, stats_every=2)
    seen = trace(method, drifting(9, device=device), [f"1.{inverse}", "1.A", "1.G", "1.inverses"])
    assert changes(seen[f"1.{inverse}"]) == [0, 0, 0, 1, 0, 0, 0, 1]
    assert changes(seen["1.A"]) == changes(seen["1.G"]) == [0, 1, 0, 1, 0, 1, 0, 1]
    assert seen["1.inverses"] == [1, 1, 1, 1, 2, 2, 2, 2, 3]


def test_a_stale_inverse_is_what_steps():
    f, g = drifting(2)
    method = optim.KFAC(0.05, 0.1, "fisher", every=5, stats_every=1)
    state = method.init(f.params)
    method.step(f, state)
    A_inv, G_inv = state["1.A_inv"].copy(), state["1.G_inv"].copy()
    gradient = joined(g.params.windows(g.grad), "1")
    assert off(joined(step_of(method, g, state), "1"), -0.05 * G_inv @ gradient @ A_inv) < 1e-12


def test_averages_are_those_of_the_batches():
    batches = drifting(4)
    method = optim.KFAC(1e-9, 0.1, "empirical", rho=0.6, every=100, stats_every=1)
    seen = trace(method, batches, ["2.A", "2.G"])
    A = G = 0.0
    for k, f in enumerate(batches, 1):
        rho, (a, g) = min(1 - 1 / k, 0.6), factors.kronecker_factors(f, "empirical")["2"]
        A, G = rho * A + (1 - rho) * a, rho * G + (1 - rho) * g
        assert off(seen["2.A"][k - 1], A) < 1e-6 and off(seen["2.G"][k - 1], G) < 1e-6


def test_ekfac_renews_its_scales_between_the_bases_and_starts_anew_with_them():
    batches = drifting(7)
    method = optim.EKFAC(1e-9, 0.1, "empirical", every=3, stats_every=2)
    seen = trace(method, batches, ["1.L", "1.age", "1.Q_A", "1.scales"])
    assert seen["1.age"] == [1, 1, 2, 1, 2, 2, 1]  # bases at 0, 3, 6; statistics at 0, 2, 4, 6
    state = method.init(batches[0].params, rng=1)
    for f in batches[:5]:
        method.step(f, state)
    bases = {name: (state[f"{name}.Q_A"], state[f"{name}.Q_G"]) for name in "0123"}
    own = [factors.eigen_scales(f, bases, "empirical")["1"] for f in batches[3:5]]
    assert off(state["1.L"], sum(own) / 2) < 1e-6
    assert off(state["1.scales"], state["1.L"] + 0.1) < 1e-15


def test_samples_are_drawn_from_the_methods_stream_and_only_for_statistics():
    f = chain(n=20)
    steps = []
    for rng in (1, 1, 2):
        method = optim.KFAC(0.1, 0.1)
        steps.append(method.update(f, method.init(f.params, rng=rng)))
    assert off(steps[0], steps[1]) == 0.0 and off(steps[0], steps[2]) > 1e-6
    method = optim.KFAC(0.05, 0.1, every=6, stats_every=3)
    state, walks = method.init(f.params), []
    for _ in range(7):
        before = f.cost.backwards
        method.step(f, state)
        walks.append(f.cost.backwards - before)
    assert walks == [2, 1, 1, 2, 1, 1, 2]


def moved_by(memory, key):
    return np.linalg.norm(memory[key] - memory[key + "0"]) / np.linalg.norm(memory[key + "0"])


@pytest.mark.parametrize("kind", [optim.KFAC, optim.EKFAC])
def test_auto_renews_the_layers_that_have_moved_and_no_others(kind, device):
    f = chain(n=20, device=device)
    method = kind(1e-6, 0.1, "fisher", every="auto", moved=0.2, stats_every=2, rho=0.5)
    state = method.init(f.params)
    for _ in range(4):
        method.step(f, state)
    assert [state[f"{k}.inverses"] for k in range(4)] == [1, 1, 1, 1]  # nothing has moved
    f.params["3.W"] *= 1.5  # the signals of all layers grow, and so do all G; A stays
    f.params["3.b"] += 1.0
    renewed = []
    for _ in range(2):
        before = {k: state[f"{k}.inverses"] for k in range(4)}
        references = {k: (host(state[f"{k}.A0"]), host(state[f"{k}.G0"])) for k in range(4)}
        method.step(f, state)
        for k, (A0, G0) in references.items():
            A, G = host(state[f"{k}.A"]), host(state[f"{k}.G"])
            moves = np.linalg.norm(A - A0) / np.linalg.norm(A0), np.linalg.norm(G - G0) / np.linalg.norm(G0)
            grown = state[f"{k}.inverses"] - before[k]
            assert grown == int(max(moves) > 0.2 and state["t"] % 2 == 1)
            renewed.append(grown)
    assert 0 < sum(renewed) < 4


def test_auto_with_a_tiny_threshold_renews_at_every_look_and_with_a_huge_one_never():
    for moved, expected in [(1e-12, 4), (1e9, 1)]:
        seen = trace(optim.KFAC(0.05, 0.1, every="auto", moved=moved, stats_every=2), drifting(8), ["0.inverses"])
        assert seen["0.inverses"][-1] == expected
    often = (
        optim.KFAC(0.05, 0.1, every=2, stats_every=2),
        optim.KFAC(0.05, 0.1, every="auto", moved=1e-12, stats_every=2),
    )
    ends = [trace(method, drifting(8), ["1.A_inv"])["1.A_inv"][-1] for method in often]
    assert off(*ends) == 0.0


def test_auto_renews_all_layers_when_the_damping_has_moved():
    f = chain(n=20)
    method = optim.KFAC(1e-6, 0.1, "fisher", every="auto", moved=0.3, stats_every=2, lm=True)
    state = method.init(f.params)
    method.step(f, state)
    for damping, expected in [(0.125, 1), (0.131, 2), (0.1, 2), (0.09, 3)]:
        state |= {"damping": damping, "t": 2}
        method.update(f, state)
        assert {state[f"{k}.inverses"] for k in range(4)} == {expected}


@pytest.mark.parametrize("kind", [optim.KFAC, optim.EKFAC])
def test_auto_saves_inverses_at_equal_loss(kind):
    found = {}
    for every in (4, "auto"):
        batches = drifting(12, n=60)
        method = kind(0.1, 0.3, every=every, moved=0.5, stats_every=4)
        state = method.init(batches[0].params, rng=1)
        for t in range(120):
            method.step(batches[t % 12], state)
        loss = sum(float(f.value) for f in batches) / 12
        found[every] = loss, sum(state[f"{k}.inverses"] for k in range(4))
    (clock, often), (auto, seldom) = found[4], found["auto"]
    assert often == 120 and seldom < 0.4 * often
    assert auto < 1.02 * clock


def test_auto_of_acp_renews_the_layers_that_have_moved(device):
    f = chain(n=20, device=device)
    for rho in (0.0, 0.5):
        method = optim.ACP(1e-6, 0.5, alpha=1.0, every="auto", moved=0.2, stats_every=2, rho=rho)
        state = method.init(f.params)
        for _ in range(3):
            method.step(f, state)
        assert [state[f"{k}.inverses"] for k in range(4)] == [1, 1, 1, 1]
        kept = f.params.vector.copy()
        f.params["1.W"] *= 0.2  # what layers 2 and 3 read shrinks
        for _ in range(2):
            method.step(f, state)
        assert [state[f"{k}.inverses"] for k in (0, 1)] == [1, 1] and state["2.inverses"] == 2
        f.params.vector = kept


def test_auto_of_acp_with_a_tiny_threshold_is_the_clock():
    clock, auto = (optim.ACP(0.05, 0.5, every=e, moved=1e-12, rho=0.9, stats_every=2) for e in (2, "auto"))
    ends = [trace(method, drifting(7), ["1.P"])["1.P"][-1] for method in (clock, auto)]
    assert off(*ends) < 1e-12


# ------------------------------------------------------------------------- after the sweep: clip, LM, momentum


def test_the_clip_bounds_the_models_change_of_the_function():
    f = chain(n=20, l2=0.1)
    plain = optim.KFAC(0.5, 0.1, "fisher")
    delta = plain.update(f, plain.init(f.params))
    for kappa in (1e-3, 10.0):
        clipped = optim.KFAC(0.5, 0.1, "fisher", clip=kappa)
        nu = min(1.0, np.sqrt(kappa / (0.5**2 * abs((delta / -0.5) @ f.grad))))
        assert off(clipped.update(f, clipped.init(f.params)), nu * delta) < 1e-12
        assert (nu < 1) == (kappa == 1e-3)


def test_momentum_takes_the_best_combination_of_the_proposal_and_the_last_step():
    f = chain("squared", hidden=None, sizes=(4, 3), n=20, l2=0.2)  # R is its quadratic model
    method = optim.KFAC(0.1, 0.05, "fisher", momentum=True)
    state = method.init(f.params)
    for t in range(4):
        previous, theta = state["previous"].copy(), f.params.vector.copy()
        plain = optim.KFAC(0.1, 0.05, "fisher")
        hidden = {key: value for key, value in state.items() if key != "previous"}
        proposal = plain.update(f, {**hidden, "t": t})
        method.step(f, state)
        delta = f.params.vector - theta
        assert off(state["previous"], delta) < 1e-12
        slope = f.grad + 0.05 * delta  # of the damped model at Δ: ∇ + (F + λ_d) Δ
        reach = np.linalg.norm(slope) * max(np.linalg.norm(proposal), 1e-30)
        assert abs(slope @ proposal) < 1e-10 * reach + 1e-15
        assert abs(slope @ previous) < 1e-10 * np.linalg.norm(slope) * np.linalg.norm(previous) + 1e-15
        if t == 0:
            assert not previous.any()
            assert abs(abs(delta @ proposal) / np.linalg.norm(delta) / np.linalg.norm(proposal) - 1) < 1e-12


def test_with_momentum_the_rate_drops_out():
    f = chain(n=20)
    steps = [step_of(optim.KFAC(lr, 0.1, "fisher", momentum=True), f).flat for lr in (1e-3, 1.0)]
    assert off(*steps) < 1e-9


def test_the_damping_follows_the_reduction_ratio_every_five_steps(device):
    f, ratios = chain("softmax", n=20, l2=0.01, seed=2, device=device), []
    f.params.vector *= 2.0
    theta, before, g = f.params.vector.copy(), float(f.value), f.grad
    for damping in (0.01, 0.1, 1.0):
        for lr in np.geomspace(0.05, 10.0, 40):
            method = optim.KFAC(float(lr), damping, "fisher", lm=True)
            state = {**method.init(f.params), "t": 4}
            delta = method.update(f, state)
            model = float(g @ delta + 0.5 * delta @ (f.ggnvp(delta) + damping * delta))
            ratio = (float(f.at(theta + delta).value) - before) / model if model < 0 else -1.0
            turn = 0.95**5 if ratio > 0.75 else 0.95**-5 if ratio < 0.25 else 1.0
            assert abs(state["damping"] / (damping * turn) - 1) < 1e-12
            ratios.append(ratio)
    assert {int(4 * r) for r in ratios if r > 0} >= {0, 1, 2, 3} and -1.0 in ratios  # every range was met
    for t in (0, 3, 5, 8):
        state = {**method.init(f.params), "t": t}
        method.update(f, state)
        assert state["damping"] == 1.0


def test_an_adapted_damping_is_what_the_next_inverse_uses():
    f = chain(n=20)
    method = optim.KFAC(1e-4, 0.3, "fisher", lm=True, **EVERY_STEP)
    state = method.init(f.params)
    for _ in range(5):
        method.step(f, state)
    assert state["damping"] < 0.3
    fixed = optim.KFAC(1e-4, state["damping"], "fisher", **EVERY_STEP)
    rest = {key: value for key, value in state.items() if key != "damping"}
    assert off(fixed.update(f, dict(rest)), method.update(f, dict(state))) < 1e-14


def test_deciding_settings_stop_before_a_point_that_is_no_number():
    f = chain("squared", n=20)
    f.params["3.W"] *= 1e160  # the loss and its model overflow
    for settings in ({"momentum": True}, {"lm": True}):
        method = optim.KFAC(1.0, 0.1, "fisher", **settings)
        state = method.init(f.params)
        state["t"] = 4
        kept, theta = dict(state), f.params.vector.copy()
        with np.errstate(all="ignore"), pytest.raises((optim.Stopped, backend.FactorisationError)) as told:
            method.step(f, state)
        assert "\n" not in str(told.value)
        assert state.keys() == kept.keys() and (f.params.vector == theta).all()
    f = chain("squared", n=20)
    method = optim.KFAC(1e200, 0.1, "fisher", lm=True)
    state = {**method.init(f.params), "t": 4}
    with np.errstate(all="ignore"), pytest.raises(optim.Stopped, match="KFAC: the loss after the step is not finite"):
        method.step(f, state)
    assert set(state) == {"t", "key", "damping"}


# ------------------------------------------------------------------------------------------------ under UBP


@pytest.mark.parametrize(
    "inner", [optim.KFAC(0.05, 0.1), optim.EKFAC(0.05, 0.1, "fisher"), optim.KFAC(0.05, 0.1, lm=True)]
)
@pytest.mark.parametrize("mode", ["gn", "mc", "none"])
def test_ubp_goes_over_it_and_its_signals_are_those_of_the_unedited_network(inner, mode, device):
    f = chain(n=20, device=device)
    ubp = optim.UBP(inner, mode=mode)
    states = inner.init(f.params, rng=3), ubp.init(f.params, rng=3)
    steps = [f.params.windows(method.update(f, state)) for method, state in zip((inner, ubp), states)]
    assert off(steps[1]["3.W"], steps[0]["3.W"]) < 1e-13 and off(steps[1]["0.W"], steps[0]["0.W"]) > 1e-6
    assert off(states[1]["0.G"], states[0]["0.G"]) == 0.0


def test_ubp_refuses_steps_that_are_rescaled_after_the_sweep():
    for settings in ({"clip": 1e-2}, {"momentum": True}):
        for kind in (optim.KFAC, optim.EKFAC):
            with pytest.raises(ValueError, match=f"UBP cannot go over {kind.__name__}: its step is rescaled"):
                optim.UBP(kind(**settings))
    assert optim.KFAC(lm=True).final_at_layer


# ------------------------------------------------------------------------------------------------ bad input


def test_a_failed_factorisation_names_the_layer_and_keeps_the_state():
    f = chain()
    method = optim.KFAC(0.1)
    state = method.init(f.params)
    method.step(f, state)
    kept = dict(state)
    state["t"] = 100
    f.args[0][0, 0] = np.nan
    for again in (optim.KFAC(0.1), optim.KFAC(0.1, solve="exact"), optim.EKFAC(0.1)):
        with pytest.raises(backend.FactorisationError, match="layer '0'"):
            again.update(f, state)
    assert all(state[key] is value for key, value in kept.items() if key != "t")


def test_without_damping_a_singular_factor_names_its_layer():
    f = chain(n=3)  # fewer examples than inputs
    for method in (optim.KFAC(0.1, 0.0), optim.KFAC(0.1, 0.0, solve="exact")):
        with pytest.raises(backend.FactorisationError, match="layer '0'"):
            method.update(f, method.init(f.params))


@pytest.mark.parametrize("bias", ["joint", "separate"])
@pytest.mark.parametrize("kind", [optim.KFAC, optim.EKFAC])
def test_a_layer_that_never_fired_takes_no_step_and_breaks_none(kind, bias):
    f = chain("softmax", hidden="relu", n=12)
    f.params["1.W"] *= 0.0
    f.params["1.b"] -= 5.0 + f.params["1.b"]  # layer 1 is dead: layer 2 reads zeros, and no signal reaches 0 and 1
    step = step_of(kind(0.1, 0.1, bias=bias), f)
    assert np.isfinite(step.flat).all()
    assert not any(step[f"{k}.W"].any() for k in (0, 1, 2)) and step["2.b"].any() and step["3.b"].any()


def test_bad_settings_are_one_sentence():
    for make, message in [
        (
            lambda: optim.KFAC(curvature="hessian"),
            "KFAC: curvature is one of mc, fisher, empirical, gn_prob, not 'hess",
        ),
        (lambda: optim.EKFAC(curvature="ggn"), "EKFAC: curvature is one of"),
        (lambda: optim.KFAC(solve="cholesky"), "KFAC: solve is one of pi, exact, not 'cholesky'"),
        (lambda: optim.KFAC(bias="none"), "KFAC: bias is one of joint, separate, not 'none'"),
        (lambda: optim.KFAC(damping=-0.1), "KFAC: damping must be a number of at least 0, not -0.1"),
        (lambda: optim.KFAC(damping=0.0, lm=True), "KFAC: damping must be a number of more than 0, not 0.0"),
        (lambda: optim.EKFAC(damping=0.0), "EKFAC: damping must be a number of more than 0, not 0.0"),
        (lambda: optim.KFAC(samples=0), "KFAC: samples must be a whole number of at least 1"),
        (lambda: optim.KFAC(every="often"), "KFAC: every is a number of steps or 'auto', not 'often'"),
        (lambda: optim.KFAC(every=0), "KFAC: every must be a whole number"),
        (lambda: optim.ACP(every="sometimes"), "ACP: every is a number of steps or 'auto'"),
        (lambda: optim.KFAC(moved=0.0), "KFAC: moved must be a number of more than 0"),
        (lambda: optim.KFAC(clip=0.0), "KFAC: clip must be a number of more than 0"),
        (lambda: optim.KFAC(rho=1.0), "KFAC: rho must be a number of at least 0 and less than 1"),
        (lambda: optim.KFAC(clip=1.0, momentum=True), "KFAC: clip and momentum both set the length of the step"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()


def test_a_loss_that_is_a_plain_function_is_refused_by_name():
    f = chain("squared")
    g = mg.Objective(f.net, lambda z, y: mg.sum((z - y) ** 2, axis=1), f.params, f.args[0], f.targets)
    method = optim.KFAC()
    with pytest.raises(TypeError, match="not a likelihood to sample from"):
        method.update(g, method.init(f.params))
    empirical = optim.KFAC(curvature="empirical")
    empirical.update(g, empirical.init(f.params))


# ------------------------------------------------------------------------------------------ waits on a device

WAITS = [  # method, waits of a refresh, of a step with new statistics, of any other step
    (optim.KFAC(0.01), 16, 0, 0),
    (optim.KFAC(0.01, bias="separate"), 24, 0, 0),
    (optim.KFAC(0.01, solve="exact"), 16, 0, 0),
    (optim.KFAC(0.01, clip=1e-3), 16, 0, 0),
    (optim.KFAC(0.01, every="auto", moved=100.0), 16, 1, 0),
    (optim.KFAC(0.01, momentum=True), 17, 1, 1),
    (optim.KFAC(0.01, lm=True), 16, 0, 0),
    (optim.EKFAC(0.01), 16, 0, 0),
]


@pytest.mark.parametrize(
    "method, refresh, statistics, other", WAITS, ids=lambda v: repr(v) if hasattr(v, "step") else ""
)
def test_waits_are_those_that_are_stated(method, refresh, statistics, other):
    device_stats = pytest.importorskip("device_stats", reason="counters exist on the CPU device only")
    net = nn.mlp([20, 30, 10, 8, 6, 8, 10, 30, 20], hidden="sigmoid")
    x = backend.asarray(np.random.default_rng(0).random((12, 20), dtype=np.float32), "cuda")
    params = net.init(rng=0, device="cuda")
    state = method.init(params)
    found = []
    for t in (0, 10, 11, 12):
        state["t"] = t
        device_stats.reset()
        method.step(mg.Objective(net, losses.squared_error, params, x, x), state)
        counts = device_stats.read()
        draws = 0 if t % 10 else 2 if isinstance(method, optim.EKFAC) else 1  # of the sampled targets
        assert counts["h2d"] == draws
        found.append((counts["syncs"], counts["d2h"]))
    assert found[:3] == [(w, w) for w in (refresh, statistics, other)] and found[3] == found[2]
    state["t"] = 4
    device_stats.reset()
    method.step(mg.Objective(net, losses.squared_error, params, x, x), state)
    assert device_stats.read()["syncs"] == other + method.lm
