"""minigrad: automatic differentiation from scratch, with a backward pass that you can edit."""

from . import backend, data, losses, nn, ops
from .checking import CheckFailed, check
from .drawing import Drawing, draw
from .io import LoadError, load, save
from .objective import Objective
from .ops import *
from .params import Params
from .tensor import Tensor, debug, elementwise, linear, multilinear, primitive, track
from .transforms import ggnvp, grad, hessian, hvp, jacobian, jvp, value_and_grad, vjp

__version__ = "0.1.0"
