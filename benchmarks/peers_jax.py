"""JAX on the CPU: everything under jit, θ in donated buffers."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

if os.environ.get("OMP_NUM_THREADS", "1") == "1":  # XLA reads its flags when it starts
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax
import jax.numpy as jnp
import numpy as np

from .cases import RATE, Case

ACTIVATIONS = {"sigmoid": jax.nn.sigmoid, "tanh": jnp.tanh, None: lambda a: a}


def start(case: Case) -> list[tuple[Any, Any]]:
    """(W, b) of every layer, in buffers of JAX's own: it may share NumPy's, which must not be donated."""
    return [(jnp.array(w, copy=True), jnp.array(b, copy=True)) for w, b in case.layers(case.params().vector)]


def output(case: Case, parameters: list, x: Any) -> Any:
    h = x
    for (w, b), activation in zip(parameters, case.activations):
        h = ACTIVATIONS[activation](h @ w.T + b)
    return h


def mean_loss(case: Case, z: Any, y: Any) -> Any:
    """R of the output z."""
    if case.loss == "squared_error":
        return jnp.sum((z - y) ** 2) / case.n
    return (jnp.sum(jax.nn.logsumexp(z, axis=1)) - jnp.sum(z * y)) / case.n


class Jitted:
    """One step of SGD."""

    def __init__(self, case: Case, rate: float = RATE):
        self.parameters = start(case)
        self.x, self.y = jnp.asarray(case.batch[0]), jnp.asarray(case.targets)

        def loss(parameters, x, y):
            return mean_loss(case, output(case, parameters, x), y)

        def move(parameters, x, y):
            value, gradient = jax.value_and_grad(loss)(parameters, x, y)
            return value, jax.tree.map(lambda p, g: p - rate * g, parameters, gradient)

        self.move = jax.jit(move, donate_argnums=0)

    def theta(self) -> np.ndarray:
        return np.concatenate([np.ravel(p) for layer in self.parameters for p in layer])

    def step(self) -> None:
        value, self.parameters = self.move(self.parameters, self.x, self.y)
        jax.block_until_ready((value, self.parameters))


STEPS = {"jax": Jitted}


def chain(x: np.ndarray, c: np.ndarray, length: int) -> Any:
    """Forward and backward through y ← y + c, in float32: JAX's float64 is a mode of the whole process."""
    c = jnp.asarray(c, jnp.float32)

    def steps(y):
        for _ in range(length):
            y = y + c
        return y

    pull = jax.jit(lambda x, g: jax.vjp(steps, x)[1](g)[0])
    start, ones = jnp.asarray(x, jnp.float32), jnp.ones(x.shape, jnp.float32)
    return lambda: np.asarray(pull(start, ones))


# ---------------------------------------------------------------------------------------------------- curvature


def _product(case: Case, v: np.ndarray, product: Callable) -> Callable[[], list]:
    """product(parameters, direction, x, y), jitted, at the case's θ and batch."""
    parameters, direction = start(case), [tuple(map(jnp.asarray, layer)) for layer in case.layers(v)]
    x, y = jnp.asarray(case.batch[0]), jnp.asarray(case.targets)
    compiled = jax.jit(product)
    return lambda: jax.tree.leaves(jax.block_until_ready(compiled(parameters, direction, x, y)))


def ggn_vector(case: Case, v: np.ndarray) -> Callable[[], list]:
    """Jᵀ H_z J v."""

    def product(parameters, direction, x, y):
        z, pull = jax.vjp(lambda p: output(case, p, x), parameters)
        moved = jax.jvp(lambda p: output(case, p, x), (parameters,), (direction,))[1]
        curved = jax.jvp(jax.grad(lambda z: mean_loss(case, z, y)), (z,), (moved,))[1]
        return pull(curved)[0]

    return _product(case, v, product)


def hessian_vector(case: Case, v: np.ndarray) -> Callable[[], list]:
    """∇²R v, forward over reverse."""

    def product(parameters, direction, x, y):
        return jax.jvp(jax.grad(lambda p: mean_loss(case, output(case, p, x), y)), (parameters,), (direction,))[1]

    return _product(case, v, product)


QUANTITIES = {"GGN·v": ggn_vector, "H·v": hessian_vector}
