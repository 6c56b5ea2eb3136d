"""Exact Gauss-Newton and natural gradient: the curvature of the batch itself, formed and solved at every step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from minigrad import backend
from minigrad.params import Windows

from .base import Method, check_choice, check_setting
from .blocks import Block
from .curvature import KINDS, STRUCTURES, layer_diagonal, matrix
from .layerwise import Layerwise, check_rates
from .rows import LayerRows, Rows, count_rows, local_layout
from .structures import LIMIT

ROW_KINDS = tuple(kind for kind in KINDS if kind != "hessian")


def _check_curvature(method: Any, kinds: tuple[str, ...] = ROW_KINDS) -> None:
    if method.curvature == "hessian" and "hessian" not in kinds:
        name = type(method).__name__
        raise ValueError(f"{name}: curvature 'hessian' may be indefinite; use Newton, or one of {', '.join(kinds)}")
    check_choice(method, "curvature", kinds)
    check_setting(method, "samples", 1, whole=True)


@dataclass
class GaussNewton(Method):
    """Δ = −λ (G + λ_d I)⁻¹ ∇R, Newton's step with the Gauss-Newton matrix and Tikhonov's damping [T-3.1.3, T-3.1.4].

    With `curvature="fisher"`, G is the Gauss-Newton matrix of the loss on the network's outputs, which is the Fisher;
    [T]'s "Gauss-Newton" for cross-entropies, on probabilities, is `"gn_prob"`, and `"empirical"` for a softmax with
    one-hot targets [T-3.4.1].

    Parameters
    ----------
    lr : float
        λ; 1 goes to the minimum of the damped quadratic model.
    damping : float
        λ_d; 0 is allowed where G is regular.
    structure : {"dense", "block", "kronecker", "ekfac", "diagonal", "matrix-free"}
        What is kept of G (see `optim.curvature.matrix`): "block" is one block a layer [T-3.1.5]; "dense" is solved in
        the space of signals × examples where that is smaller; "matrix-free" solves by conjugate gradients.
    curvature : {"fisher", "mc", "empirical", "gn_prob"}
    samples : int
        Draws of "mc".

    Notes
    -----
    Waits on the device: "dense" 1 (4 with `damping=0`), "block" as many a layer, "diagonal" none (1 with
    `damping=0`), "kronecker" and "ekfac" those of their eigendecompositions, "matrix-free" 1 a product.
    """

    lr: float = 0.3
    damping: float = 1e-1
    structure: str = "dense"
    curvature: str = "fisher"
    samples: int = 1

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "damping", 0)
        check_choice(self, "structure", STRUCTURES)
        _check_curvature(self)

    def update(self, f, state):
        return -self.lr * _solved(self, f, state, self.damping)


@dataclass
class NaturalGradient(Method):
    """Δ = −λ (I + (λ/ε) F)⁻¹ ∇R [T-3.2.2].

    It minimises Δᵀ∇R + ‖Δ‖²/2λ + ΔᵀFΔ/2ε: λ bounds how far the parameters move, ε how far the outputs do, since ½ΔᵀFΔ
    is the KL divergence between the model before and after. As ε grows it is gradient descent with rate λ, as λ grows
    it is the undamped natural gradient with rate ε.

    Parameters
    ----------
    lr : float
        λ.
    eps : float
        ε.
    structure, curvature, samples
        As for `GaussNewton`; `curvature="fisher"` is the Fisher itself, "mc" an estimate of it.

    Notes
    -----
    Waits as `GaussNewton` does.
    """

    lr: float = 1.0
    eps: float = 0.1
    structure: str = "dense"
    curvature: str = "fisher"
    samples: int = 1

    def __post_init__(self):
        check_setting(self, "lr", 0, open_low=True)
        check_setting(self, "eps", 0, open_low=True)
        check_choice(self, "structure", STRUCTURES)
        _check_curvature(self)

    def update(self, f, state):
        return -self.eps * _solved(self, f, state, self.eps / self.lr)  # λ(I + (λ/ε)F)⁻¹ = ε(F + (ε/λ)I)⁻¹


def _solved(method: Any, f: Any, state: dict[str, Any], damping: float) -> Any:
    """(curvature of this batch + damping·I)⁻¹ ∇R."""
    rng = _stream(method, state)
    curvature = matrix(f, method.curvature, method.structure, samples=method.samples, rng=rng)
    return curvature.solve(f.grad, damping)


def _stream(method: Any, state: dict[str, Any]) -> Any:
    """The key of this step's samples, where there are any."""
    drawn = method.curvature == "mc"
    return backend.random_key(backend.stream(state["key"], "curvature", state["t"])) if drawn else None


@dataclass
class Diagonal(Layerwise):
    """ΔW = −λ dW ÷ (D + λ_d), with the exact diagonal D of a curvature.

    Parameters
    ----------
    lr : float
        λ.
    damping : float
        λ_d, positive.
    curvature : {"fisher", "mc", "empirical", "gn_prob", "hessian"}
        Of "hessian" the absolute values are taken.
    samples : int
        Draws of "mc".
    every : int
        Steps between two diagonals; what is current is the batch of the refresh.
    rest_lr : float, optional
        Rate of the parameters without a site; lr unless set.

    Notes
    -----
    No waits. "fisher" and "gn_prob" send a signal for every output, "hessian" takes a product for every unit.
    """

    lr: float = 0.03
    damping: float = 1e-1
    curvature: str = "fisher"
    samples: int = 1
    every: int = 1
    rest_lr: float | None = None

    def __post_init__(self):
        check_rates(self)
        check_setting(self, "damping", 0, open_low=True)
        _check_curvature(self, KINDS)
        check_setting(self, "every", 1, whole=True)

    def start(self, params):
        return {"D": backend.zeros_like(params.vector)}

    def begin(self, f, state):
        if state["t"] % self.every == 0:
            found = layer_diagonal(f, self.curvature, self.samples, _stream(self, state))
            state["D"] = backend.xp(found).abs(found) if self.curvature == "hessian" else found

    def rule(self, site, memory, t):
        dW, db = site.gradient(-self.lr)
        if site.objective.l2:
            dW -= (self.lr * site.objective.l2) * site.W
        D = site.objective.params.windows(memory.state["D"])
        dW /= D[f"{site.name}.W"] + self.damping
        if db is not None:
            db /= D[f"{site.name}.b"] + self.damping
        return dW, db


@dataclass
class LayerGaussNewton(Layerwise):
    """ΔW̄ = −λ (G + λ_d I)⁻¹ dW̄ with the exact block G of the layer, over W̄ = [W b] [T-3.1.5].

    The step of `GaussNewton(structure="block")` as a layer rule, so that UBP can go over it.

    Parameters
    ----------
    lr : float
        λ.
    damping : float
        λ_d, positive.
    curvature : {"fisher", "mc", "empirical", "gn_prob"}
    samples : int
        Draws of "mc".
    rest_lr : float, optional
        Rate of the parameters without a site; lr unless set.

    Notes
    -----
    One wait a layer: its guarded factorisation.
    """

    lr: float = 0.3
    damping: float = 1e-1
    curvature: str = "fisher"
    samples: int = 1
    rest_lr: float | None = None

    def __post_init__(self):
        check_rates(self)
        check_setting(self, "damping", 0, open_low=True)
        _check_curvature(self)

    def begin(self, f, state):
        rows = count_rows(f, self.curvature, self.samples)
        for layer in f.graph().sites.values():
            size = sum(stop - start for start, stop, _ in (f.params.layout[name] for name in layer[1:] if name))
            if min(size, rows) > LIMIT:
                raise ValueError(
                    f"LayerGaussNewton: layer {layer.name!r} has {size:,} parameters and {rows:,} rows (signals × "
                    f"examples), and one of them may be {LIMIT:,} at most: use KFAC or Diagonal"
                )
        f.memo[type(self)] = f.signals(self.curvature, self.samples, _stream(self, state))  # not those of UBP's "mc"

    def rule(self, site, memory, t):
        f, W, b = site.objective, f"{site.name}.W", None if site.b is None else f"{site.name}.b"
        dW, db = site.gradient()
        if f.l2:
            dW += f.l2 * site.W
        block = self._block(site, W, b)
        module = backend.xp(dW)
        flat = dW.reshape(-1) if db is None else module.concatenate([dW.reshape(-1), db])
        solved = Windows(block.layout, block.solve(flat, self.damping))
        module.multiply(solved[W], -self.lr, out=dW)
        if db is not None:
            module.multiply(solved[b], -self.lr, out=db)
        return dW, db

    def _block(self, site: Any, W: str, b: str | None) -> Block:
        """The layer's block of this batch, by its rows."""
        f = site.objective
        layout = local_layout(f.params.layout, [W] if b is None else [W, b])
        rows = Rows(layout, [LayerRows(W, b, site.h, f.memo[type(self)][site.name])], {})
        return Block(f"layer {site.name!r}", layout, f.l2, rows=rows)
