"""Quantities of single examples and of curvature, from h and the signals, with no second pass over the network.

Vectors are flat, in θ's order, and a first axis N is the examples. g_n is the gradient of ℓ_n, so without L2, which
belongs to no example: mean g_n + ∇(L2) = f.grad. The curvatures contain L2, as f.hvp and f.ggnvp do.

In a dense layer a quantity costs a product or less on top of h and ∂ℓ/∂a. Windows of no such layer (parameters without
one, windows of two layers, layers on (N, T, in)) take a backward pass for every example.
"""

from __future__ import annotations

from typing import Any

from minigrad import Objective, backend
from minigrad.walk import forward

from .curvature import matrix
from .rows import Rows, all_rows

EXPLICIT_LIMIT = 1 << 31  # bytes that `per_example_gradients` makes at most


def per_example_gradients(f: Objective) -> Any:
    """g_n = ∂ℓ_n/∂θ of every example, (N, d).

    Raises
    ------
    MemoryError
        They would take more than 2 GiB; the sentence names what does without them.
    """
    size = f.n * f.params.size * f.params.dtype.itemsize
    if size > EXPLICIT_LIMIT:
        raise MemoryError(
            f"the gradients of {f.n:,} examples would take {size / 2**30:.1f} GiB; "
            "per_example_norms, second_moment and variance never form them"
        )
    return _gradients(f, "per_example_gradients").explicit()


def per_example_norms(f: Objective) -> Any:
    """‖g_n‖ of every example, (N,); in a dense layer ‖g_n‖² = ‖∂ℓ/∂a‖² (‖h‖² + 1)."""
    squares = _gradients(f, "per_example_norms").squares()[0]
    return backend.xp(squares).sqrt(squares)


def second_moment(f: Objective) -> Any:
    """(1/N) Σ_n g_n² (d,); in a dense layer (da²)ᵀ h² / N. It is the diagonal of the empirical Fisher without L2."""
    return _gradients(f, "second_moment").mean_squares()


def variance(f: Objective) -> Any:
    """(1/N) Σ_n (g_n − ḡ)² (d,), divided by N.

    It is the second moment less the square of the mean, so its rounding error is that of the second moment; what
    comes out under 0 is set to 0.

    Raises
    ------
    ValueError
        A batch of one example, which has no variance.
    """
    if f.n < 2:
        raise ValueError("variance needs at least two examples, and this batch has one")
    rows = _gradients(f, "variance")
    found = rows.mean_squares()
    module = backend.xp(found)
    mean = rows.pull(module.full((1, f.n), 1.0 / f.n, found.dtype))
    mean *= mean
    found -= mean
    return module.maximum(found, 0.0)


def diagonal_ggn(f: Objective, kind: str = "fisher", *, samples: int = 1, rng: Any = None) -> Any:
    """The diagonal of `curvature.matrix(f, kind)` (d,), Σ_k (s_k²)ᵀ h² / N: exact, or an estimate with "mc"."""
    return matrix(f, kind, "diagonal", samples=samples, rng=rng).vector


def diagonal_hessian(f: Objective) -> Any:
    """The diagonal of ∂²R/∂θ² (d,), from a product with every unit of a layer instead of one with every parameter."""
    return matrix(f, "hessian", "diagonal").vector


def output_norm(f: Objective, delta: Any) -> Any:
    """(1/N) Σ_n ‖J_n Δ‖²_H = ΔᵀGΔ: how far the update Δ moves the outputs, in the loss's own metric [T-3.3.2].

    Half of it is the KL divergence of the model's outputs before and after Δ, to third order in Δ. G is the
    Gauss-Newton matrix (= Fisher) without L2.

    Parameters
    ----------
    delta : (d,) array

    Returns
    -------
    0-d array
    """
    _need_network(f, "output_norm")
    f.need_separate_examples()
    if tuple(getattr(delta, "shape", ())) != (f.params.size,):
        shape = tuple(getattr(delta, "shape", ()))
        raise ValueError(f"output_norm takes an update of shape ({f.params.size},), not {shape}")
    graph = f.graph()
    windows = f.params.windows(backend.like(delta, f.params.vector, f.params.dtype))
    f.cost.products += 1
    moved = forward(graph.order, graph.tangents(windows))[graph.out.seq]
    return (moved * f.view().curvature(moved)).sum() * (1.0 / f.n)


def _gradients(f: Objective, what: str) -> Rows:
    """The rows g_n."""
    _need_network(f, what)
    return all_rows(f, "empirical")


def _need_network(f: Objective, what: str) -> None:
    if f.loss is None:
        raise TypeError(f"{what} needs a network and its loss: Objective(net, loss, params, x, y)")
