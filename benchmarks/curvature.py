"""Signals, curvature and quantities of one batch of 128, forward pass included, against its gradient in NumPy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import minigrad as mg
from optim import quantities

from . import cases
from .peers_numpy import Handwritten
from .timing import Limit

CASES = {case.name: replace(case, n=128) for case in (cases.AE, cases.CLS)}
BASE = "NumPy gradient"
MUST = {
    "h, da of every example": 0.75,
    "per-example norms": 0.8,
    "second moment": 1.2,
    "diagonal GGN": 3.0,
    "GGN·v": 1.85,
    "H·v": 2.65,
    "J_a of all layers": 2.15,
}
FEW_OUTPUTS = ("diagonal GGN", "J_a of all layers")  # a signal for every output
QUANTITIES = {
    "h, da of every example": lambda f, v: f.signals("empirical"),
    "per-example norms": lambda f, v: quantities.per_example_norms(f),
    "second moment": lambda f, v: quantities.second_moment(f),
    "diagonal GGN": lambda f, v: quantities.diagonal_ggn(f),
    "GGN·v": lambda f, v: f.ggnvp(v),
    "H·v": lambda f, v: f.hvp(v),
    "J_a of all layers": lambda f, v: f.signals("jacobian"),
    "gradient": lambda f, v: f.grad,
}


def contenders(case: str) -> dict[str, list[str]]:
    return {name: [name] for name in (BASE, *QUANTITIES) if case == "CLS" or name not in FEW_OUTPUTS}


def make(case: str, name: str) -> Callable[[], Any]:
    case = CASES[case]
    if name == BASE:
        return Handwritten(case).gradient
    params, v, quantity = case.params(), _direction(case), QUANTITIES[name]
    return lambda: quantity(case.objective(params), v)


def _direction(case: cases.Case) -> np.ndarray:
    v = np.random.default_rng(2).standard_normal(case.params().size).astype(np.float32)
    return v / np.linalg.norm(v)


def check(case: str) -> None:
    """Each quantity against another way to it."""
    case = CASES[case]
    cases.check(case, {"NumPy": Handwritten})
    params, v = case.params(), _direction(case)
    f = case.objective(params)
    da = f.signals("empirical")
    for name, s in da.items():
        _close(f"da of layer {name}", s[0].sum(0) / case.n, f.grad_of(f"{name}.b"))
    if case.name == "CLS":
        for name, J in f.signals("jacobian").items():
            _close(f"J of layer {name}", np.einsum("nc,cno->no", f.view().gradient(), J), da[name][0])
    _check_quantities(case, f, da)
    _, moved = mg.jvp(lambda vector: case.net(_windows(params, vector), case.batch[0]), (params.vector,), (v,))
    _close("GGN·v", v @ f.ggnvp(v), np.vdot(moved, f.view().curvature(moved)) / case.n)
    ahead, behind = f.at(params.vector + 0.1 * v).grad, f.at(params.vector - 0.1 * v).grad
    _close("H·v", f.hvp(v), (ahead - behind) / 0.2, 0.02)


def _check_quantities(case: cases.Case, f: mg.Objective, da: dict[str, Any]) -> None:
    """Norms and second moments against gradients formed for a few examples and rows."""
    squares = sum(np.square(s[0][:, :, None] * h[:, None, :]).sum((1, 2)) for s, h in _first(f, da, 4))
    _close("norms of examples", quantities.per_example_norms(f)[:4] ** 2, squares)
    moment, ggn = (f.params.windows(v) for v in (quantities.second_moment(f), _diagonal(case, f)))
    signals = f.signals("fisher") if case.name == "CLS" else {}
    for site in f.sweep():
        name, rows = f"{site.name}.W", slice(0, 3)
        _close(f"second moment of {name}", moment[name][rows], _mean_square(site.da[None], site.h, rows))
        if signals:
            _close(f"diagonal GGN of {name}", ggn[name][rows], _mean_square(signals[site.name], site.h, rows))


def _first(f: mg.Objective, da: dict[str, Any], count: int) -> list[tuple[Any, Any]]:
    """(s, [h; 1]) of every layer, of the first few examples."""
    inputs = {site.name: np.hstack([site.h, np.ones((f.n, 1), np.float32)])[:count] for site in f.sweep()}
    return [(s[:, :count], inputs[name]) for name, s in da.items()]


def _diagonal(case: cases.Case, f: mg.Objective) -> Any:
    return quantities.diagonal_ggn(f) if case.name == "CLS" else f.grad


def _mean_square(s: Any, h: Any, rows: slice) -> Any:
    """(1/N) Σ_n Σ_k (s_nk h_n)² of some units, every product formed."""
    return np.square(s[:, :, rows, None] * h[None, :, None, :]).sum((0, 1)) / len(h)


def _windows(params: mg.Params, vector: Any) -> dict[str, Any]:
    """Windows of a vector that is a Tensor."""
    return {name: mg.reshape(vector[start:stop], shape) for name, (start, stop, shape) in params.layout.items()}


def _close(what: str, found: Any, expected: Any, tolerance: float = 1e-3) -> None:
    error, size = np.linalg.norm(found - expected), np.linalg.norm(expected)
    if not error <= tolerance * size:
        raise ValueError(f"{what} is off by {error:.1e} of {size:.1e}")


def limits(case: str, names: list[str]) -> list[Limit]:
    return [Limit(name, BASE, MUST.get(name)) for name in names]
