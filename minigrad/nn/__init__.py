"""Layers and networks."""

from .layers import (
    Activation,
    Dense,
    Layer,
    LeakyReLU,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
    mlp,
)

__all__ = [
    "Activation",
    "Dense",
    "Layer",
    "LeakyReLU",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "mlp",
]
