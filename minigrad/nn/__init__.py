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
from .normalisation import BatchNorm, MeanOnlyBatchNorm

__all__ = [
    "Activation",
    "BatchNorm",
    "Dense",
    "Layer",
    "LeakyReLU",
    "MeanOnlyBatchNorm",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "mlp",
]
