"""optim: optimization methods written on minigrad's objective and its editable backward pass."""

from .acp import ACP
from .base import Info, Method, Stopped
from .gradient import GD, SGD, Adam, Momentum, Nesterov
from .layerwise import Centred, Gradient, Layerwise
from .ubp import UBP
from .wrappers import ClipGradient, ClipUpdate, Scheduled, WeightDecay

__all__ = [
    "ACP",
    "Adam",
    "Centred",
    "ClipGradient",
    "ClipUpdate",
    "GD",
    "Gradient",
    "Info",
    "Layerwise",
    "Method",
    "Momentum",
    "Nesterov",
    "SGD",
    "Scheduled",
    "Stopped",
    "UBP",
    "WeightDecay",
]
