"""UBP: the order of the signal that it sends, mode by mode, and its modes against one another."""

import numpy as np
import pytest
from cases import chain, host, off

import minigrad as mg
import optim
from minigrad import nn
from optim.layerwise import Memory
from optim.ubp import MODES


def sent_down(f, method):
    """{layer: (dh sent, plain dh, ∂ℓ/∂h with this layer and all above really moved)} of one UBP sweep."""
    state = method.init(f.params)
    moved = f.params.copy()
    starts = [k for k, layer in enumerate(f.net.children) if isinstance(layer, nn.Dense)]
    y = f.loss.encode(f.targets, f.output)
    found = {}
    method.begin(f, state)
    for site in f.sweep():
        dW, db = method.rule(site, Memory(state, site.name), 0)
        if not site.below:
            continue
        method.send(site, dW, db, 0)
        moved[f"{site.name}.W"] += dW
        moved[f"{site.name}.b"] += db

        def above(h, start=starts[int(site.name)]):
            for layer in f.net.children[start:]:
                h = layer(moved, h)
            return mg.sum(f.loss(h, y))

        found[site.name] = host(site.dh), host(site.da @ site.W), host(mg.grad(above)(site.h))
    return found


def ratios(mode, loss, hidden, output=None, rates=(2.0**-12, 2.0**-13)):
    """How much the error of the signal falls at every layer when the rate is halved."""
    errors = []
    for lr in rates:
        f = chain(loss, hidden=hidden, output=output)
        sent = sent_down(f, optim.UBP(optim.Gradient(lr), mode=mode))
        errors.append({name: np.linalg.norm(dh - true) for name, (dh, _, true) in sent.items()})
    return {name: errors[0][name] / errors[1][name] for name in errors[0]}


SECOND, FIRST = pytest.approx(4.0, rel=0.02), pytest.approx(2.0, rel=0.02)


def all_are(found, order):
    """Whether every layer has this ratio."""
    return len(found) == 3 and all(ratio == order for ratio in found.values())


BOTH = pytest.mark.parametrize("loss", ["softmax", "squared"])


@BOTH
@pytest.mark.parametrize("hidden", ["tanh", "sigmoid", None])
def test_hessian_mode_is_second_order_at_every_layer(loss, hidden):  # identity 11
    assert all_are(ratios("hessian", loss, hidden), SECOND)


@BOTH
@pytest.mark.parametrize("mode", ["gn", "explicit"])
@pytest.mark.parametrize("hidden", [None, "relu"])
def test_gn_mode_is_second_order_on_linear_and_relu_chains(loss, mode, hidden):
    assert all_are(ratios(mode, loss, hidden), SECOND)


@BOTH
@pytest.mark.parametrize("mode", ["gn", "explicit"])
def test_gn_mode_on_smooth_chains_is_second_order_at_the_output_layer_only(loss, mode):
    assert ratios(mode, loss, "tanh") == {"3": SECOND, "2": FIRST, "1": FIRST}


def test_gn_mode_is_first_order_on_a_sigmoid_output():
    assert all_are(ratios("gn", "squared", "sigmoid", output="sigmoid"), FIRST)


@BOTH
@pytest.mark.parametrize("hidden", ["tanh", "relu"])
def test_none_is_first_order(loss, hidden):
    assert all_are(ratios("none", loss, hidden), FIRST)


@pytest.mark.parametrize("mode", ["empirical", "mc"])
@pytest.mark.parametrize("hidden", ["tanh", "relu"])
def test_empirical_and_sampled_modes_are_first_order(mode, hidden):
    assert all_are(ratios(mode, "softmax", hidden), FIRST)


def gaps(mode, loss, lr):
    """Error of the signal sent ÷ error of plain backprop's, from the top layer down."""
    sent = sent_down(chain(loss, n=40), optim.UBP(optim.Gradient(lr), mode=mode)).values()
    return [np.linalg.norm(dh - true) / np.linalg.norm(plain - true) for dh, plain, true in sent]


@pytest.mark.parametrize("loss", ["softmax", "squared", "sigmoid"])
def test_the_signal_sent_is_nearer_the_truth_than_plain_backprops(loss):
    assert max(gaps("hessian", loss, 0.01)) < 0.1
    gn, none = gaps("gn", loss, 0.01), gaps("none", loss, 0.01)
    assert gn[0] < 0.02 < none[0] < 0.9 and gn[1] < none[1] < 1.0


@pytest.mark.parametrize("inner", [optim.Gradient(0.1), optim.Centred(0.1), optim.ACP(0.1, alpha=1.0)])
def test_explicit_and_matrix_free_modes_agree(inner, device):
    f = chain(device=device)
    gn, explicit = optim.UBP(inner, mode="gn"), optim.UBP(inner, mode="explicit")
    assert off(gn.update(f, gn.init(f.params)), explicit.update(f, explicit.init(f.params))) < 1e-12


def test_modes_are_their_formulas():
    for mode in MODES:
        f = chain("softmax")
        method = optim.UBP(optim.Gradient(0.1), mode=mode)
        state = method.init(f.params, rng=4)
        method.begin(f, state)
        for site in f.sweep():
            dW, db = method.rule(site, Memory(state, site.name), 0)
            if site.below:
                method.send(site, dW, db, 0)
                v, J = site.h @ dW.T + db, site.J
                if mode == "none":
                    bracket = 0 * v
                elif mode == "empirical":
                    bracket = site.da * (site.da * v).sum(1, keepdims=True)
                elif mode == "mc":
                    s = site.signals("mc")[0]
                    bracket = s * (s * v).sum(1, keepdims=True)
                elif mode == "hessian":
                    bracket = site.hessian_vp(v)
                else:
                    bracket = np.einsum("cno,nc->no", J, f.view().curvature(np.einsum("cno,no->nc", J, v)))
                assert off(site.dh, site.da @ (site.W + dW) + bracket @ site.W) < 1e-12


def test_sampled_mode_is_gn_on_average():
    f = chain("softmax", n=3)
    exact, plain = sent_top(f, "gn", 0), sent_top(f, "none", 0)
    draws = np.mean([sent_top(f, "mc", k) for k in range(4000)], axis=0)
    assert np.abs(draws - exact).max() < 0.1 * np.abs(exact - plain).max()


def sent_top(f, mode, rng):
    """What the layer below the top one sends."""
    method = optim.UBP(optim.Gradient(0.1), mode=mode)
    state = method.init(f.params, rng=rng)
    method.begin(f, state)
    for site in f.sweep():
        dW, db = method.rule(site, Memory(state, site.name), 0)
        method.send(site, dW, db, 0)
        if site.name == "2":
            return site.dh


def test_samples_come_from_the_methods_stream():
    steps = []
    for rng in (1, 1, 2):
        f = chain()
        method = optim.UBP(optim.Gradient(0.1), mode="mc")
        state = method.init(f.params, rng=rng)
        method.step(f, state)
        steps.append(f.params.vector.copy())
    assert off(steps[0], steps[1]) == 0.0 and off(steps[0], steps[2]) > 1e-9


def test_a_small_step_is_plain_backprop():
    f = chain()
    ubp = optim.UBP(optim.Gradient(1e-9))
    assert off(ubp.update(f, ubp.init(f.params)), -1e-9 * f.grad) < 1e-8


def test_empirical_mode_refuses_the_squared_error_by_name():
    f = chain("squared")
    method = optim.UBP(mode="empirical")
    with pytest.raises(ValueError, match="for cross-entropies, not squared_error"):
        method.update(f, method.init(f.params))


def test_a_rule_that_is_rescaled_after_the_sweep_is_refused():
    class Rescaled(optim.Gradient):
        final_at_layer = False

    with pytest.raises(ValueError, match="UBP cannot go over Rescaled"):
        optim.UBP(Rescaled())


def test_l2_reaches_the_signal():
    f = chain(l2=0.5)
    method = optim.UBP(optim.Gradient(0.1), mode="none")
    state = method.init(f.params)
    site = next(iter(f.sweep()))
    dW, db = method.rule(site, Memory(state, site.name), 0)
    method.send(site, dW, db, 0)
    assert off(dW, -0.1 * (site.da.T @ site.h / f.n + 0.5 * site.W)) < 1e-13
    assert off(site.dh, site.da @ (site.W + dW)) < 1e-13


def test_layers_without_bias():
    net = nn.Sequential(nn.Dense(4, 5, bias=False), nn.Tanh(), nn.Dense(5, 3, bias=False))
    params = net.init(rng=0, dtype="float64")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((6, 4)), rng.integers(0, 3, 6)
    f = mg.Objective(net, mg.losses.softmax_cross_entropy, params, x, y)
    for mode in MODES:
        method = optim.UBP(optim.Gradient(0.5), mode=mode)
        state = method.init(params)
        before = float(f.value)
        method.step(f, state)
        assert float(f.value) < before
