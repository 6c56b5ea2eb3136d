"""optim: optimization methods written on minigrad's objective and its editable backward pass."""

from .acp import ACP
from .adaptive import Adadelta, AdaGrad, RMSprop
from .base import Info, Method, Stopped
from .exact import Diagonal, GaussNewton, LayerGaussNewton, NaturalGradient
from .gradient import GD, SGD, Adam, Momentum, Nesterov
from .hessian_free import HessianFree
from .kfac import EKFAC, KFAC
from .layerwise import Centred, Gradient, Layerwise
from .lecun import LeCun
from .newton import Newton
from .prong import PRONG
from .quasi_newton import BFGS, LBFGS
from .search import ES, RandomSearch, WeightedSearch
from .tonga import TONGA
from .ubp import UBP
from .wrappers import ClipGradient, ClipUpdate, Scheduled, WeightDecay

__all__ = [
    "ACP",
    "AdaGrad",
    "Adadelta",
    "Adam",
    "BFGS",
    "Centred",
    "ClipGradient",
    "ClipUpdate",
    "Diagonal",
    "EKFAC",
    "ES",
    "GD",
    "GaussNewton",
    "Gradient",
    "HessianFree",
    "Info",
    "KFAC",
    "LBFGS",
    "LayerGaussNewton",
    "Layerwise",
    "LeCun",
    "Method",
    "Momentum",
    "NaturalGradient",
    "Nesterov",
    "Newton",
    "PRONG",
    "RMSprop",
    "RandomSearch",
    "SGD",
    "Scheduled",
    "Stopped",
    "TONGA",
    "UBP",
    "WeightDecay",
    "WeightedSearch",
]
