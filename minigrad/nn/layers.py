"""Layers: what they hold, how they are named, how a network is called.

A network is any callable net(params, x, train=False). The layers here also know their windows, so that they can
make initial parameters and describe themselves. A layer belongs to one network: the outermost network numbers its
layers when it is built (Dense 0, 1, 2, …), and a layer that stands in it twice keeps one name, hence one window.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import backend, ops
from ..params import Params
from .initial import SCHEMES


class Layer:
    """One step of a network. Subclass it, give it `shapes`, `initial` and `__call__`, and it can be trained.

    Attributes
    ----------
    prefix : str or None
        Layers with windows are named prefix + number; None for layers without windows.
    normalises : bool
        Whether it only rescales and shifts every unit, so that a Dense before it takes the gain of the activation
        after it.
    """

    prefix: str | None = None
    normalises = False
    name = ""
    children: tuple[Layer, ...] = ()

    def __call__(self, params: Any, h: Any, train: bool = False) -> Any:
        raise TypeError(f"{type(self).__name__} has no __call__(params, h, train)")

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """{window: shape} of the parameters, without the layer's name."""
        return {}

    def initial(self, rng: Any, scheme: str, alpha: float | None) -> dict[str, Any]:
        """{window: float64 host array} to start from."""
        return {}

    def statistics(self) -> dict[str, Any]:
        """{buffer: float64 host array}: running statistics to start from, without the layer's name."""
        return {}

    def settings(self) -> dict[str, Any]:
        """The constructor's arguments as numbers and strings, for `mg.save`."""
        return {}

    def leaves(self) -> Iterator[Layer]:
        """All layers without children, in the order of the forward pass."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()

    def init(
        self,
        rng: Any = 0,
        dtype: Any = "float32",
        device: str = "cpu",
        scheme: str = "glorot",
        alpha: float | None = None,
    ) -> Params:
        """Initial parameters.

        Parameters
        ----------
        rng : int, Generator, …
            Whatever `numpy.random.default_rng` accepts.
        dtype : dtype
        device : {"cpu", "cuda"}
        scheme : {"glorot", "he", "lecun", "sparse"}
        alpha : float, optional
            The gain α for all layers; by default one for each activation (see `nn.initial`).
        """
        if scheme not in SCHEMES:
            near = difflib.get_close_matches(scheme, SCHEMES, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"unknown init scheme {scheme!r}; there are {', '.join(SCHEMES)}{hint}")
        if alpha is not None and not alpha >= 0:
            raise ValueError(f"the gain alpha must not be negative, not {alpha}")
        key = backend.random_key(rng)
        arrays, buffers = {}, {}
        for count, layer in enumerate(dict.fromkeys(self.leaves())):
            for window, value in layer.initial(backend.stream(key, "init", count), scheme, alpha).items():
                arrays[f"{layer.name}.{window}"] = backend.asarray(value, device, dtype)
            for name, value in layer.statistics().items():
                buffers[f"{layer.name}.{name}"] = backend.asarray(value, device, dtype)
        if not arrays:
            raise ValueError("this network has no parameters to initialise")
        params = Params(arrays)
        params.buffers = buffers
        return params

    def size(self) -> int:
        """Number of parameters."""
        counted = dict.fromkeys(self.leaves())
        return sum(_count(shape) for layer in counted for shape in layer.shapes().values())

    def __repr__(self) -> str:
        inside = ", ".join(f"{k}={v!r}" for k, v in self.settings().items())
        return f"{type(self).__name__}({inside})"

    def __str__(self) -> str:
        return table(self)


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


def table(net: Layer) -> str:
    """Layers, shapes and parameter counts of a network, a line each."""
    rows = [("layer", "", "windows", "parameters")]
    for layer in net.leaves():
        shapes = layer.shapes()
        windows = "  ".join(f"{layer.name}.{w} {'×'.join(map(str, s))}" for w, s in shapes.items())
        count = sum(map(_count, shapes.values()))
        rows.append((layer.name or "·", type(layer).__name__, windows, f"{count:,}" if shapes else ""))
    rows.append(("", "", "total", f"{net.size():,}"))
    widths = [max(len(row[k]) for row in rows) for k in range(3)]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(row, widths)) + f"  {row[3]:>12}" for row in rows)


def _number(net: Layer) -> None:
    """Name the layers that have windows: prefix + how many of the prefix came before."""
    counts: dict[str, int] = {}
    for layer in dict.fromkeys(net.leaves()):
        if layer.prefix is not None and not getattr(layer, "named", False):
            number = counts.get(layer.prefix, 0)
            counts[layer.prefix] = number + 1
            layer.name = f"{layer.prefix}{number}"
    owners: dict[str, Layer] = {}
    for layer in net.leaves():
        if layer.prefix is not None and owners.setdefault(layer.name, layer) is not layer:
            raise ValueError(f"two layers are called {layer.name!r}; give one of them another name")


class Dense(Layer):
    """a = h Wᵀ + b: h (N, …, inputs), W (outputs, inputs), b (outputs,).

    Parameters
    ----------
    inputs, outputs : int
    bias : bool
    name : str, optional
        A name of one's own instead of the number.
    """

    prefix = ""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, name: str | None = None):
        if inputs < 1 or outputs < 1:
            raise ValueError(f"Dense needs at least one input and one output, not {inputs} and {outputs}")
        self.inputs, self.outputs, self.bias = inputs, outputs, bias
        self.named = name is not None
        self.name = name if self.named else "0"
        self.activation: str | None = None  # what follows, for the initial gain

    def shapes(self):
        return {"W": (self.outputs, self.inputs), **({"b": (self.outputs,)} if self.bias else {})}

    def initial(self, rng, scheme, alpha):
        weights = SCHEMES[scheme](rng, self.outputs, self.inputs, self.activation, alpha)
        return {"W": weights, **({"b": np.zeros(self.outputs)} if self.bias else {})}

    def settings(self):
        own = {"inputs": self.inputs, "outputs": self.outputs, "bias": self.bias}
        return {**own, "name": self.name} if self.named else own

    def __call__(self, params, h, train=False):
        shape = h.shape
        if len(shape) < 2 or shape[-1] != self.inputs:
            raise ValueError(f"layer {self.name!r} takes (N, {self.inputs}), not an array of shape {tuple(shape)}")
        return ops.affine(h, params[self.name + ".W"], params[self.name + ".b"] if self.bias else None)


class Activation(Layer):
    """An elementwise function of its input (softmax: of its last axis)."""

    function = ""

    def __call__(self, params, h, train=False):
        return getattr(ops, self.function)(h)


class Sigmoid(Activation):
    function = "sigmoid"


class Tanh(Activation):
    function = "tanh"


class ReLU(Activation):
    function = "relu"


class Softplus(Activation):
    function = "softplus"


class Softmax(Activation):
    function = "softmax"


class LeakyReLU(Activation):
    function = "leaky_relu"

    def __init__(self, slope: float = 0.01):
        self.slope = slope

    def settings(self):
        return {"slope": self.slope}

    def __call__(self, params, h, train=False):
        return ops.leaky_relu(h, self.slope)


ACTIVATIONS = {kind.function: kind for kind in (Sigmoid, Tanh, ReLU, Softplus, Softmax, LeakyReLU)}


class Sequential(Layer):
    """Layers one after another."""

    def __init__(self, *layers: Layer):
        if not layers:
            raise ValueError("Sequential needs at least one layer")
        self.children = layers
        leaves = [layer for layer in self.leaves() if not layer.normalises]  # they stand before the activation
        for layer, after in zip(leaves, [*leaves[1:], None]):
            if isinstance(layer, Dense):
                layer.activation = after.function if isinstance(after, Activation) else None
        _number(self)

    def __call__(self, params, h, train=False):
        for layer in self.children:
            h = layer(params, h, train)
        return h


class Residual(Layer):
    """h + inner(h)."""

    def __init__(self, inner: Layer):
        self.children = (inner,)
        _number(self)

    def __call__(self, params, h, train=False):
        return h + self.children[0](params, h, train)


def mlp(
    sizes: Sequence[int],
    hidden: str = "tanh",
    linear: Sequence[int] = (),
    output: str | None = None,
    norm: str | None = None,
) -> Sequential:
    """A multilayer perceptron.

    Parameters
    ----------
    sizes : sequence of int
        Inputs, the widths of the hidden layers, outputs.
    hidden : str
        Activation after every Dense but the last: sigmoid, tanh, relu, softplus or leaky_relu.
    linear : sequence of int
        Numbers of Dense layers that have no activation after them (an autoencoder's code).
    output : str, optional
        Activation after the last Dense; none unless named.
    norm : {"batch", "mean"}, optional
        BatchNorm or MeanOnlyBatchNorm after every Dense but the last, before its activation; their β takes the place
        of those layers' biases.

    Examples
    --------
    >>> from minigrad import nn
    >>> nn.mlp([784, 1000, 500, 250, 30, 250, 500, 1000, 784], hidden="sigmoid", linear=(3,), output="sigmoid").size()
    2837314
    """
    if len(sizes) < 2:
        raise ValueError(f"mlp needs at least an input and an output size, not {list(sizes)}")
    last = len(sizes) - 2
    if any(not 0 <= k < last for k in linear):
        raise ValueError(f"linear={tuple(linear)}: the hidden Dense layers are 0 to {last - 1}")
    layers: list[Layer] = []
    for k, (inputs, outputs) in enumerate(zip(sizes[:-1], sizes[1:])):
        normed = norm is not None and k != last
        layers.append(Dense(inputs, outputs, bias=not normed))
        if normed:
            layers.append(_norm(norm, outputs))
        name = output if k == last else None if k in linear else hidden
        if name is not None:
            layers.append(_activation(name))
    return Sequential(*layers)


def _activation(name: str) -> Activation:
    return _named("activation", name, ACTIVATIONS)()


def _norm(name: str, features: int) -> Layer:
    from .normalisation import NORMS

    return _named("norm", name, NORMS)(features)


def _named(what: str, name: str, table: dict[str, type]) -> type:
    if name not in table:
        near = difflib.get_close_matches(name, table, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"unknown {what} {name!r}; there are {', '.join(table)}{hint}")
    return table[name]
