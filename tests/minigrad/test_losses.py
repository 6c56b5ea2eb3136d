"""Losses: gradient and curvature against the transforms, roots and samplers against the curvature."""

import numpy as np
import pytest
from cases import LOSSES, host, off, targets

import minigrad as mg
from minigrad import backend, losses

N, C = 5, 4


def view(loss, device="cpu", seed=0):
    rng = np.random.default_rng(seed)
    z = backend.asarray(rng.standard_normal((N, C)), device)
    return LOSSES[loss].at(z, backend.asarray(targets(loss, N, C, rng), device))


def matrix(view, kind):
    """Σ_k s_k s_kᵀ of every example (N, C, C)."""
    s = host(view.root(kind))
    return np.einsum("knc,knd->ncd", s, s)


@pytest.mark.parametrize("loss", LOSSES)
def test_view_equals_the_operation_and_its_derivatives(loss, device):
    v = view(loss, device)
    total = lambda z: mg.sum(v.loss(z, v.y))  # noqa: E731
    along = backend.like(np.random.default_rng(1).standard_normal((N, C)), v.z)
    assert off(v.value(), v.loss(v.z, v.y)) < 1e-14
    assert off(v.gradient(), mg.grad(total)(v.z)) < 1e-13
    assert off(v.curvature(along), mg.hvp(total, v.z, along)) < 1e-13


@pytest.mark.parametrize("loss", LOSSES)
def test_root_squared_is_the_curvature(loss, device):
    v = view(loss, device)
    along = backend.like(np.random.default_rng(1).standard_normal((N, C)), v.z)
    assert v.root("fisher").shape == (C, N, C)
    assert off(np.einsum("ncd,nd->nc", matrix(v, "fisher"), host(along)), v.curvature(along)) < 1e-13


@pytest.mark.parametrize("loss", LOSSES)
def test_curvature_takes_leading_axes(loss):
    v = view(loss)
    many = np.random.default_rng(1).standard_normal((2, 3, N, C))
    looped = np.stack([[v.curvature(m) for m in row] for row in many])
    assert off(v.curvature(many), looped) < 1e-14


@pytest.mark.parametrize("loss", LOSSES)
def test_sampled_gradients_have_the_curvature_as_their_second_moment(loss):  # identity 5
    v = view(loss)
    exact = matrix(v, "fisher")
    rng = np.random.default_rng(7)

    def error(samples):
        s = np.stack([v.sample(rng) for _ in range(samples)])
        return np.abs(np.einsum("knc,knd->ncd", s, s) / samples - exact).max()

    few, many = np.median([error(100) for _ in range(9)]), np.median([error(6400) for _ in range(9)])
    assert many < few / 4  # 1/√S: a factor of 8 expected
    assert many < 0.2 * np.abs(exact).max()


def test_softmax_expectation_over_labels_is_the_curvature():  # identity 5, exactly
    v = view("softmax")
    exact = np.zeros((N, C, C))
    for k in range(C):
        s = v.p - np.eye(C)[k]
        exact += v.p[:, k, None, None] * s[:, :, None] * s[:, None, :]
    assert off(exact, matrix(v, "fisher")) < 1e-13


def test_gauss_newton_on_probabilities_is_the_empirical_fisher_for_softmax():  # identity 4, T-3.4.1
    v = view("softmax")
    g = v.gradient()
    assert off(matrix(v, "gn_prob"), g[:, :, None] * g[:, None, :]) < 1e-13


def test_for_several_sigmoids_it_is_not():  # identity 4
    v = view("sigmoid")
    g = v.gradient()
    outer = g[:, :, None] * g[:, None, :]
    assert off(matrix(v, "gn_prob"), outer) > 0.1
    diagonal = np.einsum("ncc->nc", outer)
    assert off(np.einsum("ncc->nc", matrix(v, "gn_prob")), diagonal) < 1e-13  # one output at a time it is


def test_soft_targets_have_the_stated_root():
    rng = np.random.default_rng(0)
    y = rng.random((N, C))
    y /= y.sum(1, keepdims=True)
    v = losses.softmax_cross_entropy.at(rng.standard_normal((N, C)), y)
    p, outer = v.p, lambda a, b: a[:, :, None] * b[:, None, :]
    expected = np.einsum("nc,cd->ncd", y, np.eye(C)) - outer(y, p) - outer(p, y) + outer(p, p)
    assert off(matrix(v, "gn_prob"), expected) < 1e-13


def test_squared_error_has_one_curvature():
    v = view("squared")
    assert off(matrix(v, "gn_prob"), matrix(v, "fisher")) == 0.0
    assert off(matrix(v, "fisher"), np.broadcast_to(2 * np.eye(C), (N, C, C))) < 1e-15


def test_cross_entropies_do_not_overflow():
    z = np.array([[1000.0, -1000.0, 0.0]])
    soft = losses.softmax_cross_entropy.at(z, np.array([1]))
    assert soft.value() == 2000.0 and np.isfinite(soft.gradient()).all() and np.isfinite(soft.root()).all()
    each = losses.sigmoid_cross_entropy.at(z, np.array([[0.0, 1.0, 0.5]]))
    assert np.allclose(each.value(), 2000 + np.log(2)) and np.isfinite(each.curvature(np.ones_like(z))).all()


def test_samples_are_the_same_on_both_devices(device):
    for loss in LOSSES:
        drawn = view(loss, device).sample(np.random.default_rng(3))
        assert off(drawn, view(loss).sample(np.random.default_rng(3))) < 1e-14


def test_encode_passes_ready_targets_and_refuses_others():
    z = np.zeros((N, C))
    ready = np.zeros((N, C))
    assert losses.squared_error.encode(ready, z) is ready
    assert losses.sigmoid_cross_entropy.encode(np.zeros(N, int), np.zeros((N, 1))).shape == (N, 1)
    with pytest.raises(ValueError, match="targets of shape"):
        losses.squared_error.encode(np.zeros((N, 2)), z)
    with pytest.raises(ValueError, match="labels run from 0 to 4, but the network has 4 outputs"):
        losses.softmax_cross_entropy.encode(np.arange(N), z)
    with pytest.raises(ValueError, match="4 labels do not fit"):
        losses.softmax_cross_entropy.encode(np.arange(4), z)
    with pytest.raises(ValueError, match="the kinds are fisher, gn_prob"):
        view("softmax").root("empirical")
    with pytest.raises(TypeError, match="a loss is one of"):
        losses.as_loss("squared_error")
