"""optim: optimization methods written on minigrad's objective and its editable backward pass."""

from .acp import ACP
from .base import Info, Method, Stopped
from .gradient import GD, SGD, Adam, Momentum, Nesterov
from .layerwise import Centred, Gradient, Layerwise
from .ubp import UBP

__all__ = [
    "ACP",
    "Adam",
    "Centred",
    "GD",
    "Gradient",
    "Info",
    "Layerwise",
    "Method",
    "Momentum",
    "Nesterov",
    "SGD",
    "Stopped",
    "UBP",
]
