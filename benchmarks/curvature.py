"""Signals, curvature and quantities of one batch of 128, forward pass included, against its gradient in NumPy.

What a peer computes is compared with minigrad's up to a factor, since libraries average differently. Peers run with
the tuned allocator, with which they are as fast as without it or faster.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import minigrad as mg
from optim import quantities
from optim.factors import kronecker_factors

from . import cases, peers
from .peers_numpy import Handwritten
from .preconditioning import CHEAPER, CHOSEN, ON_GRADIENT, ON_SIGNALS, WAYS, Preconditioning
from .timing import Limit
from .workers import TUNED

CASES = {case.name: replace(case, n=128) for case in (cases.AE, cases.CLS)}
BASE = "NumPy gradient"
KFAC, EXACT = "K-FAC factors + gradient", "exact K-FAC factors + gradient"
MUST = {
    "h, da of every example": {"AE": 0.75, "CLS": 0.75},
    "per-example norms": {"AE": 0.8, "CLS": 0.8},
    "second moment": {"AE": 1.2, "CLS": 1.2},
    "diagonal GGN": {"CLS": 3.0},
    KFAC: {"AE": 2.1, "CLS": 2.4},
    EXACT: {"CLS": 6.0},
    "GGN·v": {"AE": 1.85, "CLS": 1.85},
    "H·v": {"AE": 2.65, "CLS": 2.65},
    "J_a of all layers": {"CLS": 2.15},
    "gradient": {"AE": None, "CLS": None},
}
QUANTITIES = {
    "h, da of every example": lambda f, v: f.signals("empirical"),
    "per-example norms": lambda f, v: quantities.per_example_norms(f),
    "second moment": lambda f, v: quantities.second_moment(f),
    "diagonal GGN": lambda f, v: quantities.diagonal_ggn(f),
    KFAC: lambda f, v: (kronecker_factors(f, "mc", 1, 0), f.grad),
    EXACT: lambda f, v: (kronecker_factors(f, "fisher"), f.grad),
    "GGN·v": lambda f, v: f.ggnvp(v),
    "H·v": lambda f, v: f.hvp(v),
    "J_a of all layers": lambda f, v: f.signals("jacobian"),
    "gradient": lambda f, v: f.grad,
}


def contenders(case: str, chosen: tuple[str, ...]) -> dict[str, list[str]]:
    names = [name for name, most in MUST.items() if case in most]
    found = {name: [name] for name in (BASE, *names, *WAYS)}
    for peer, known in peers.having("QUANTITIES", chosen).items():
        for name in names:
            if name in known:
                found[f"{name}, {peer}"] = [f"{name}, {peer}" + TUNED]
    return found


def make(case: str, name: str) -> Callable[[], Any]:
    case = CASES[case]
    if name == BASE:
        return Handwritten(case).gradient
    if name in WAYS:
        known = Preconditioning(case)
        return lambda: known.run(name)
    if name in QUANTITIES:
        params, v, quantity = case.params(), _direction(case), QUANTITIES[name]
        return lambda: quantity(case.objective(params), v)
    quantity, _, peer = name.rpartition(", ")
    return peers.module(peer).QUANTITIES[quantity](case, _direction(case))


def _direction(case: cases.Case) -> np.ndarray:
    v = np.random.default_rng(2).standard_normal(case.params().size).astype(np.float32)
    return v / np.linalg.norm(v)


def check(case: str, chosen: tuple[str, ...]) -> None:
    """Each quantity against another way to it, and each peer's against minigrad's."""
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
    Preconditioning(case).check()
    for name in (name for name in contenders(case.name, chosen) if name.rpartition(", ")[2] in chosen):
        expected = _parts(case, QUANTITIES[name.rpartition(", ")[0]](f, v), name)
        for own, found in zip(expected, _parts(case, make(case.name, name)(), name), strict=True):
            _close(name, found / np.linalg.norm(found), own / np.linalg.norm(own))


def _parts(case: cases.Case, found: Any, name: str) -> list[np.ndarray]:
    """What a peer and minigrad have in common of a quantity, as flat arrays in θ's order."""
    if name.startswith((KFAC, EXACT)):
        return _factor_parts(case, found, exact=name.startswith(EXACT))
    found = found.values() if isinstance(found, dict) else [found] if isinstance(found, np.ndarray) else found
    parts = [np.asarray(a).ravel() for a in found]
    return parts if name.startswith(("h, da", "J_a")) else [np.concatenate(parts)]


def _factor_parts(case: cases.Case, found: Any, exact: bool) -> list[np.ndarray]:
    """A of every layer without its bias, G where it is not sampled, the gradient."""
    if isinstance(found[0], dict):
        found = (*zip(*found[0].values()), [found[1]])
    inputs, signals, gradient = found
    parts = [np.asarray(A)[:width, :width].ravel() for A, width in zip(inputs, case.sizes)]
    parts += [np.asarray(G).ravel() for G in signals] if exact else []
    return [*parts, np.concatenate([np.asarray(g).ravel() for g in gradient])]


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


def derived(seconds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {CHEAPER: np.minimum(seconds[ON_GRADIENT], seconds[ON_SIGNALS])}


def limits(case: str, names: list[str]) -> list[Limit]:
    return [Limit(name, BASE, MUST.get(name, {}).get(case)) for name in names] + [Limit(CHOSEN, CHEAPER, 1.05)]
