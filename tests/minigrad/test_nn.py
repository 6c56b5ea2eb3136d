"""Layers: names, shapes, initial weights, the table."""

import numpy as np
import pytest
from cases import off

import minigrad as mg
from minigrad import nn
from minigrad.nn.initial import GAINS, SCHEMES

AE = [784, 1000, 500, 250, 30, 250, 500, 1000, 784]


def test_the_thesis_autoencoder():
    net = nn.mlp(AE, hidden="sigmoid", linear=(3,), output="sigmoid")
    kinds = [type(layer).__name__ for layer in net.children]
    assert kinds == ["Dense", "Sigmoid"] * 3 + ["Dense"] + ["Dense", "Sigmoid"] * 4
    assert net.size() == 2_837_314
    assert [layer.name for layer in net.children if isinstance(layer, nn.Dense)] == list("01234567")


def test_a_call_is_the_formula():
    net = nn.mlp([3, 4, 2], hidden="tanh", output="sigmoid")
    p = net.init(rng=0, dtype="float64")
    x = np.random.default_rng(0).standard_normal((5, 3))
    expected = 1 / (1 + np.exp(-(np.tanh(x @ p["0.W"].T + p["0.b"]) @ p["1.W"].T + p["1.b"])))
    assert off(net(p, x), expected) < 1e-14
    assert type(net(p, x)) is np.ndarray and type(net(p.track(), x)) is mg.Tensor


@pytest.mark.parametrize("scheme", SCHEMES)
def test_initial_weights_have_the_stated_variance(scheme):
    dense = nn.Sequential(nn.Dense(400, 300), nn.Sigmoid()).init(rng=0, dtype="float64", scheme=scheme)["0.W"]
    expected = {"glorot": 32 / 700, "he": 16 / 400, "lecun": 1 / 400, "sparse": 15 / 400}[scheme]
    assert abs(dense.var() / expected - 1) < 0.05 and abs(dense.mean()) < 4 * (expected / dense.size) ** 0.5
    if scheme == "sparse":
        assert ((dense != 0).sum(1) == 15).all()


@pytest.mark.parametrize("activation, alpha", [("tanh", 2), ("relu", 4), ("sigmoid", 32), (None, 2)])
def test_the_gain_follows_the_activation_unless_given(activation, alpha):
    net = nn.mlp([500, 500], output=activation)
    assert GAINS.get(activation, 2.0) == alpha
    assert abs(net.init(rng=0)["0.W"].var() / (alpha / 1000) - 1) < 0.05
    assert abs(net.init(rng=0, alpha=1.0)["0.W"].var() / (1 / 1000) - 1) < 0.05


def test_init_is_the_same_numbers_for_every_form_of_a_seed(device):
    net = nn.mlp([3, 4, 2])
    first = net.init(rng=7, dtype="float64")
    assert off(net.init(rng=7, dtype="float64", device=device).vector, first.vector) == 0.0
    assert off(net.init(rng=np.random.default_rng(7)).vector, net.init(rng=np.random.default_rng(7)).vector) == 0.0
    assert off(net.init(rng=8, dtype="float64").vector, first.vector) > 0.1
    assert net.init(rng=None).size == first.size and not first["0.b"].any()
    assert net.init(rng=np.random.SeedSequence(3)).dtype == np.float32


def test_names_nest_and_a_layer_that_stands_twice_keeps_one():
    shared = nn.Dense(4, 4)
    net = nn.Sequential(
        nn.Dense(3, 4), nn.Residual(nn.Sequential(nn.Tanh(), shared)), shared, nn.Dense(4, 2, name="out")
    )
    assert list(net.init()) == ["0.W", "0.b", "1.W", "1.b", "out.W", "out.b"]
    assert net.size() == 16 + 20 + 10


def test_dense_without_bias_and_leaky_relu():
    net = nn.Sequential(nn.Dense(3, 2, bias=False), nn.LeakyReLU(0.2))
    p = net.init(rng=0, dtype="float64")
    x = np.array([[1.0, -2.0, 0.5]])
    a = x @ p["0.W"].T
    assert list(p) == ["0.W"] and off(net(p, x), np.where(a > 0, a, 0.2 * a)) < 1e-15


def test_print_is_a_table_of_layers():
    text = str(nn.mlp([784, 512, 10]))
    assert "0.W 512×784" in text and "407,050" in text and text.splitlines()[-1].split()[0] == "total"
    assert repr(nn.Dense(3, 4)) == "Dense(inputs=3, outputs=4, bias=True)"


def test_a_users_own_layer_trains_and_is_checked():
    class Scale(nn.Layer):
        prefix = "scale"

        def __init__(self, width):
            self.width = width

        def shapes(self):
            return {"g": (self.width,)}

        def initial(self, rng, scheme, alpha):
            return {"g": np.ones(self.width)}

        def __call__(self, params, h, train=False):
            return h * params[f"{self.name}.g"]

    net = nn.Sequential(nn.Dense(3, 4), Scale(4), nn.Tanh(), nn.Dense(4, 2), Scale(2))
    p = net.init(rng=0, dtype="float64")
    assert list(p) == ["0.W", "0.b", "scale0.g", "1.W", "1.b", "scale1.g"]
    rng = np.random.default_rng(0)
    f = mg.Objective(net, mg.losses.squared_error, p, rng.standard_normal((5, 3)), rng.standard_normal((5, 2)))
    numeric = [(f.at(p.vector + e).value - f.at(p.vector - e).value) / 2e-6 for e in 1e-6 * np.eye(p.size)]
    assert off(f.grad, np.array(numeric)) < 1e-8


def test_bad_input_is_one_sentence():
    net = nn.mlp([3, 4, 2])
    p = net.init()
    with pytest.raises(ValueError, match=r"layer '0' takes \(N, 3\), not an array of shape \(5, 4\)"):
        net(p, np.zeros((5, 4), "float32"))
    with pytest.raises(ValueError, match="did you mean 'sigmoid'"):
        nn.mlp([3, 2], output="sigmod")
    with pytest.raises(ValueError, match="did you mean 'glorot'"):
        net.init(scheme="gloro")
    with pytest.raises(ValueError, match="the hidden Dense layers are 0 to 0"):
        nn.mlp([3, 4, 2], linear=(1,))
    with pytest.raises(ValueError, match="at least an input and an output"):
        nn.mlp([3])
    with pytest.raises(ValueError, match="at least one input and one output"):
        nn.Dense(0, 3)
    with pytest.raises(ValueError, match="alpha must not be negative"):
        net.init(alpha=-1.0)
    with pytest.raises(ValueError, match="no parameters"):
        nn.Sequential(nn.Tanh()).init()
    with pytest.raises(ValueError, match="a seed is an integer from 0"):
        net.init(rng=-1)
