"""Kronecker factors of a layer's curvature: A from its inputs, G from its signals, and what is solved with them.

With h̄ = [h; 1] and signals s of one kind of curvature, the diagonal block of the Gauss-Newton or Fisher matrix that
belongs to the layer is approximated by kron(G, A) for row-major vec [W b] [T-6.4.1; Martens & Grosse 2015]:

    A = (1/N) Σ_n h̄ h̄ᵀ        G = (1/N) Σ_n Σ_k s_k s_kᵀ

Neither h nor s is ever divided by N before; the samples of "mc" carry their 1/√S themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from minigrad import Objective, backend, ops
from minigrad.fusion import fused
from minigrad.tensor import raw

KINDS = ("mc", "fisher", "empirical", "gn_prob")
BIASES = ("joint", "separate")
SIGNAL_BYTES = 1 << 27  # what the signals of all layers take at once, at most, unless a single one takes more


def check_choice(owner: str, what: str, value: Any, words: tuple[str, ...]) -> None:
    """Refuse a word that is none of those there are."""
    if value not in words:
        raise ValueError(f"{owner}: {what} is one of {', '.join(words)}, not {value!r}")


# ------------------------------------------------------------------------------------------------ one batch


def layer_inputs(f: Objective, joint: bool = True) -> dict[str, Any]:
    """What every layer reads.

    Parameters
    ----------
    joint : bool
        Append the constant 1 of the bias (to layers that have one).

    Returns
    -------
    dict
        {layer: h (N, in), or h̄ (N, in + 1)}, in the order of the forward pass.

    Raises
    ------
    ValueError
        A layer that has no such factors: it is applied twice, or to (N, T, in).
    """
    graph = f.graph()
    found: dict[str, Any] = {}
    for node in graph.order:
        layer = graph.sites.get(node.seq)
        if layer is None:
            continue
        h = raw(node.args[0])
        if layer.name in found:
            raise ValueError(f"layer {layer.name!r} has no Kronecker factors: it is applied more than once")
        if h.ndim != 2:
            raise ValueError(f"layer {layer.name!r} has no Kronecker factors: its input has shape {tuple(h.shape)}")
        found[layer.name] = homogeneous(h) if joint and layer.b is not None else h
    return found


def homogeneous(rows: Any, last: Any = 1.0) -> Any:
    """[rows, last]: h̄ = [h; 1], or [dW db]; (N, in) → (N, in + 1)."""
    out = backend.empty((len(rows), rows.shape[1] + 1), rows.dtype, rows)
    out[:, :-1] = rows
    out[:, -1] = last
    return out


def second_moment(rows: Any, n: int) -> Any:
    """(1/n) Σ r rᵀ over the rows of (…, n, width): A of h̄ (N, in), G of signals (K, N, out)."""
    flat = rows.reshape(math.prod(rows.shape[:-1]), rows.shape[-1])
    moment = flat.T.dot(flat)  # a new array, not the pool's: states keep it
    moment *= 1.0 / n
    return moment


def signal_blocks(f: Objective, kind: str, samples: int = 1, rng: Any = None) -> Iterator[dict[str, Any]]:
    """Signals of every layer, all at once or in blocks of at most `SIGNAL_BYTES`.

    Parameters
    ----------
    kind : {"mc", "fisher", "empirical", "gn_prob"}
    samples : int
        Draws for "mc".
    rng
        For "mc": whatever `numpy.random.default_rng` accepts.

    Yields
    ------
    dict
        {layer: (K, N, out)}; the K of all blocks add up to 1, `samples` or C.
    """
    check_choice("curvature", "its kind", kind, KINDS)
    theta, graph = f.params.vector, f.graph()
    outputs = sum(node.value.shape[-1] for node in graph.order if node.seq in graph.sites)
    chunk = max(1, SIGNAL_BYTES // max(1, f.n * outputs * theta.dtype.itemsize))
    if {"mc": samples, "empirical": 1}.get(kind, f.output.shape[1]) <= chunk:
        yield f.signals(kind, samples, rng)
    else:
        yield from f.signals(kind, samples, rng, chunk=chunk)


def signal_factors(f: Objective, kind: str, samples: int = 1, rng: Any = None) -> dict[str, Any]:
    """{layer: G = (1/N) Σ_n Σ_k s sᵀ (out, out)}; arguments as for `signal_blocks`."""
    found: dict[str, Any] = {}
    for block in signal_blocks(f, kind, samples, rng):
        for name, s in block.items():
            part = second_moment(s, f.n)
            if name in found:
                found[name] += part
            else:
                found[name] = part
    return found


def kronecker_factors(
    f: Objective, kind: str, samples: int = 1, rng: Any = None, joint: bool = True
) -> dict[str, tuple[Any, Any]]:
    """{layer: (A, G)} of one batch; arguments as for `layer_inputs` and `signal_blocks`."""
    inputs = layer_inputs(f, joint)
    signals = signal_factors(f, kind, samples, rng)
    return {name: (second_moment(h, f.n), signals[name]) for name, h in inputs.items()}


def eigen_scales(
    f: Objective, bases: Mapping[str, tuple[Any, Any]], kind: str, samples: int = 1, rng: Any = None, joint: bool = True
) -> dict[str, Any]:
    """EKFAC's second moments of the gradient in a Kronecker eigenbasis [George et al. 2018].

    Λ_ga = (1/N) Σ_n Σ_k (Q_Gᵀ s_k)_g² (Q_Aᵀ h̄)_a²

    Parameters
    ----------
    bases : dict
        {layer: (Q_A, Q_G)}, eigenvectors in columns.

    Returns
    -------
    dict
        {layer: Λ (out, in) or (out, in + 1)}.
    """
    squares: dict[str, Any] = {}
    for block in signal_blocks(f, kind, samples, rng):
        for name, s in block.items():
            turned = ops.product(s, bases[name][1])
            part = backend.xp(turned).square(turned).sum(0)
            squares[name] = part if name not in squares else squares[name] + part
    found = {}
    for name, h in layer_inputs(f, joint).items():
        turned = ops.product(h, bases[name][0])
        found[name] = squares[name].T.dot(turned * turned)
        found[name] *= 1.0 / f.n
    return found


def moving_average(old: Any, new: Any, k: int, rho: float) -> Any:
    """ρ·old + (1 − ρ)·new with ρ = min(1 − 1/k, rho) at the k-th update: the first ones count in full.

    Written over `new`; `old` is left as it is.
    """
    if k == 1:
        return new
    rho = min(1.0 - 1.0 / k, rho)
    return _mixed(new, old, 1.0 - rho, rho)


@fused(over=(0,))
def _mixed(m, seen, kept, share, rho):
    return share * seen + rho * kept


# ------------------------------------------------------------------------------------------------- solving


def split_damping(A: Any, G: Any, damping: float) -> tuple[Any, Any]:
    """(π√λ, √λ/π) with π = √((tr A/d_A)/(tr G/d_G)), which damp A and G so that λ is shared by their sizes.

    π is 1 where a trace is zero (a layer that did not fire, or that no signal reached). Two 0-d arrays, no wait.
    """
    module = backend.xp(A)
    a, g = module.trace(A) * (1.0 / len(A)), module.trace(G) * (1.0 / len(G))
    fired, one = (a > 0) & (g > 0), module.ones_like(a)
    pi = module.sqrt(module.where(fired, a, one) / module.where(fired, g, one))
    root = math.sqrt(damping)
    return pi * root, root / pi


def damped_inverse(matrix: Any, damping: Any, layer: str, last: Any = None) -> Any:
    """(M + damping I)⁻¹ of a symmetric positive semi-definite M; one wait on the device.

    Where the factorisation fails, M is made symmetric and tried in float64, with the damping, 10 and 100 times the
    damping. If that fails too, the last good inverse is kept, unless M holds NaN.

    Parameters
    ----------
    damping : float or 0-d array
    layer : str
        Whose matrix it is.
    last : array, optional
        The last good inverse.

    Raises
    ------
    FactorisationError
        With the layer's name.
    """
    module = backend.xp(matrix)
    try:
        return backend.spd_inverse(_shifted(matrix, damping))
    except backend.FactorisationError:
        wide = matrix.astype("float64")
        wide = 0.5 * (wide + wide.T)
    for raised in (1.0, 10.0, 100.0):
        try:
            return backend.spd_inverse(_shifted(wide, raised * damping)).astype(matrix.dtype)
        except backend.FactorisationError as error:
            found = error
    if last is not None and bool(module.isfinite(matrix).all()):
        return last
    raise backend.FactorisationError(f"layer {layer!r}: {found}") from found


def _shifted(matrix: Any, damping: Any) -> Any:
    """matrix + damping I, a copy."""
    shifted = matrix.copy()
    index = backend.xp(matrix).arange(len(matrix))
    shifted[index, index] += damping
    return shifted


def eigenbasis(matrix: Any, layer: str, regular: bool = False) -> tuple[Any, Any]:
    """Eigenvalues, not under 0, from the smallest, and eigenvectors in columns; one wait on the device.

    Parameters
    ----------
    layer : str
        Whose matrix it is.
    regular : bool
        Refuse a matrix that is singular to rounding (a wait more).

    Raises
    ------
    FactorisationError
        With the layer's name.
    """
    try:
        values, vectors = backend.eigh(matrix)
    except backend.FactorisationError as error:
        raise backend.FactorisationError(f"layer {layer!r}: {error}") from error
    module = backend.xp(values)
    if regular and not bool(values[0] > len(values) * module.finfo(values.dtype).eps * values[-1]):
        raise backend.FactorisationError(f"layer {layer!r}: a factor is singular; raise the damping")
    return module.maximum(values, 0.0), vectors


def relative_moves(pairs: list[tuple[Any, Any]]) -> list[float]:
    """‖M − M₀‖_F / ‖M₀‖_F of every pair (M, M₀), in one wait for all; infinite where M₀ = 0 and M is not."""
    like = pairs[0][0]
    squares = backend.empty((len(pairs), 2), like.dtype, like)
    for k, (new, old) in enumerate(pairs):
        for j, flat in enumerate(((new - old).reshape(-1), old.reshape(-1))):
            squares[k, j] = flat.dot(flat)
    found = backend.to_host(squares).tolist()
    return [math.sqrt(apart / size) if size else math.inf if apart else 0.0 for apart, size in found]
