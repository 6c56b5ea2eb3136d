"""Curvature by name: `matrix(f, kind, structure)`.

======================= ======================================================================================
kind                    (1/N) Σ_n over examples of
======================= ======================================================================================
fisher                  Jᵀ H_z J, the expectation over the model's own targets; the Gauss-Newton matrix of a loss
                        on logits or of the squared error, and what [T] calls the Fisher [T-3.2.3]
mc                      the same, estimated with sampled targets
empirical               g gᵀ with the gradients g at the true targets; what [T] calls Gauss-Newton for a softmax
                        is exactly this for one-hot targets [T-3.4.1]
gn_prob                 the Gauss-Newton matrix with respect to probabilities [T-3.1.4, table 3.I]
hessian                 ∂²ℓ/∂θ², which need not be positive
======================= ======================================================================================

With `Objective(l2=c)` all of them, in every structure, have c on the diagonal of the weights NAME.W: they belong to
f.grad, as f.ggnvp and f.hvp do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from minigrad import Objective, backend
from minigrad.losses import PlainLoss
from minigrad.sites import Site

from . import factors
from .blocks import Block, Blocks
from .kronecker import EigenKronecker, Kronecker, theta_ordered
from .rows import Rows, all_rows, count_rows, local_layout, row_blocks, split_windows
from .structures import LIMIT, Curvature, Diagonal, MatrixFree, add_to_diagonal, check_size, columns, decays

KINDS = ("fisher", "mc", "empirical", "gn_prob", "hessian")
STRUCTURES = ("dense", "block", "kronecker", "ekfac", "diagonal", "matrix-free")


def matrix(
    f: Objective, kind: str = "fisher", structure: str = "dense", *, samples: int = 1, rng: Any = None
) -> Curvature:
    """A curvature matrix of f at its present θ.

    Parameters
    ----------
    f : Objective
    kind : {"fisher", "mc", "empirical", "gn_prob", "hessian"}
        What is averaged over the examples; see the module.
    structure : {"dense", "block", "kronecker", "ekfac", "diagonal", "matrix-free"}
        What is kept of it. "dense" is everything; it is solved in the space of the rows where those are fewer than
        d: K·N, with K = C for "fisher" and "gn_prob". "block" has a block for every layer (W and b together), and
        for every other parameter by itself [T-3.1.5]. "kronecker" and "ekfac" are K-FAC's approximations of those
        blocks, "diagonal" is the exact diagonal, "matrix-free" forms nothing.
    samples : int
        Draws of "mc".
    rng
        For "mc": whatever `numpy.random.default_rng` accepts; the signals drawn before, if not given.

    Returns
    -------
    Curvature
        With `@ v`, `.solve(v, damping)`, `.dense()`, `.trace()`, `.logdet(damping)`, `.eigenvalues()`, in θ's order.

    Raises
    ------
    ValueError
        An unknown kind or structure; a matrix above the limit, with its size and what to use instead.
    TypeError
        A curvature of outputs for a function that has none.

    Examples
    --------
    >>> import numpy as np, minigrad as mg
    >>> net = mg.nn.mlp([2, 3, 2])
    >>> f = mg.Objective(net, mg.losses.softmax_cross_entropy, net.init(rng=0, dtype="float64"), np.eye(2), [0, 1])
    >>> F = matrix(f, "fisher", "dense")
    >>> bool(np.allclose(F @ f.grad, f.ggnvp(f.grad)))
    True
    """
    if kind not in KINDS:
        raise ValueError(f"unknown curvature {kind!r}; the kinds are {', '.join(KINDS)}")
    if structure not in STRUCTURES:
        raise ValueError(f"unknown structure {structure!r}; the structures are {', '.join(STRUCTURES)}")
    if f.loss is None and kind != "hessian":
        raise TypeError(f"curvature {kind!r} needs a network and its loss; another function has a 'hessian' only")
    if kind != "hessian":
        f.need_separate_examples()
    key = backend.random_key(rng) if kind == "mc" and rng is not None else rng  # one draw for all that reads it
    return _MAKERS[structure](f, kind, samples, key)


def _products(f: Objective, kind: str) -> Callable[[Any], Any] | None:
    """The product with a vector where a matrix has no rows: the Hessian, and Gauss-Newton of a user's loss."""
    if kind == "hessian":
        return f.hvp
    return f.ggnvp if kind == "fisher" and isinstance(f.loss, PlainLoss) else None


def _groups(f: Objective) -> list[tuple[str, list[str]]]:
    """(name for messages, windows) of every block."""
    plain, loose = split_windows(f)
    layers = [(f"layer {layer.name!r}", [w for w in layer[1:] if w is not None]) for layer in plain.values()]
    return layers + [(f"parameter {name!r}", [name]) for name in loose]


def _columns_block(f: Objective, product: Callable[[Any], Any], names: list[str]) -> Any:
    """The block over some windows, from products with its unit vectors."""
    module = backend.xp(f.params.vector)
    places = [i for name in names for i in range(*f.params.layout[name][:2])]
    found = columns(product, f.params.size, places, f.params.vector)
    return found[:, module.asarray(places)]


# ------------------------------------------------------------------------------------------- one per structure


def _dense(f, kind, samples, rng):
    label, size = f"the dense {kind} matrix", f.params.size
    product = _products(f, kind)
    if product is not None:
        check_size(size, label)
        array = columns(product, size, range(size), f.params.vector)
        blocks = [Block(label, f.params.layout, f.l2, array=array)]
    else:
        rows = count_rows(f, kind, samples)
        if min(size, rows) > LIMIT:
            raise ValueError(
                f"{label} has {size:,} parameters and {rows:,} rows (signals × examples), and one of them may be "
                f"{LIMIT:,} at most: use structure 'block', 'kronecker', 'diagonal' or 'matrix-free'"
            )
        blocks = _blocks_of_rows(f, kind, samples, rng, [(label, list(f.params.layout))], rows < size)
    return Blocks(f, kind, "dense", blocks)


def _block(f, kind, samples, rng):
    groups, product = _groups(f), _products(f, kind)
    if product is None:
        rows = count_rows(f, kind, samples)
        return Blocks(f, kind, "block", _blocks_of_rows(f, kind, samples, rng, groups, rows <= LIMIT))
    layers = _hessian_blocks(f) if kind == "hessian" and f.loss is not None else {}
    blocks = []
    for label, names in groups:
        layout = local_layout(f.params.layout, names)
        _check_block(layout, label)
        array = layers[names[0]]() if names[0] in layers else _columns_block(f, product, names)
        blocks.append(Block(label, layout, f.l2, array=array))
    return Blocks(f, kind, "block", blocks)


def _check_block(layout: dict, label: str) -> None:
    check_size(max(stop for _, stop, _ in layout.values()), label)


def _blocks_of_rows(
    f: Objective, kind: str, samples: int, rng: Any, groups: list[tuple[str, list[str]]], few: bool
) -> list[Block]:
    """A block for every group of windows: by its rows where they are few, else summed up signal by signal."""
    layouts = {label: local_layout(f.params.layout, names) for label, names in groups}
    if few:
        rows = all_rows(f, kind, samples, rng)
        return [Block(label, layouts[label], f.l2, rows=_part(rows, names)) for label, names in groups]
    for label, layout in layouts.items():
        _check_block(layout, label)
    arrays = dict.fromkeys(layouts, 0.0)
    for rows in row_blocks(f, kind, samples, rng):
        for label, names in groups:
            arrays[label] = arrays[label] + _part(rows, names).outer()
    for label, layout in layouts.items():
        add_to_diagonal(arrays[label], decays(layout, f.l2, f.params.vector))
    return [Block(label, layout, f.l2, array=arrays[label]) for label, layout in layouts.items()]


def _part(rows: Rows, names: list[str]) -> Rows:
    return rows if len(names) == len(rows.layout) else rows.of(names)


def _diagonal(f, kind, samples, rng):
    product = _products(f, kind)
    if product is None:
        vector = _sum(rows.mean_squares() for rows in row_blocks(f, kind, samples, rng))
        if f.l2:
            vector += decays(f.params.layout, f.l2, vector)
        return Diagonal(f, kind, vector)
    by_layer = kind == "hessian" and f.loss is not None
    vector = layer_diagonal(f, kind) if by_layer else backend.zeros_like(f.params.vector)
    unit = backend.zeros_like(vector)
    for name in split_windows(f)[1] if by_layer else f.params.layout:
        for i in range(*f.params.layout[name][:2]):
            unit[i] = 1.0
            vector[i] = product(unit)[i]
            unit[i] = 0.0
    return Diagonal(f, kind, vector)


def layer_diagonal(f: Objective, kind: str, samples: int = 1, rng: Any = None) -> Any:
    """The diagonal of `matrix(f, kind, "diagonal")` in the windows of the layers; others hold L2's part alone, (d,)."""
    vector = backend.zeros_like(f.params.vector)
    if kind == "hessian":
        windows = f.params.windows(vector)
        for site in plain_sites(f):
            own = hessian_diagonal(site)
            windows[f"{site.name}.W"][...] = own[0]
            if site.b is not None:
                windows[f"{site.name}.b"][...] = own[1]
    elif split_windows(f)[0]:
        for rows in row_blocks(f, kind, samples, rng, layers_only=True):
            vector += rows.mean_squares()
    if f.l2:
        vector += decays(f.params.layout, f.l2, vector)
    return vector


def _sum(parts: Iterator[Any]) -> Any:
    total = next(parts)
    for part in parts:
        total += part
    return total


def _matrix_free(f, kind, samples, rng):
    if kind in ("hessian", "fisher"):
        return MatrixFree(f, kind, f.hvp if kind == "hessian" else f.ggnvp)
    rows = all_rows(f, kind, samples, rng)
    return MatrixFree(f, kind, Block(kind, f.params.layout, f.l2, rows=rows).row_product)


def _kronecker(f, kind, samples, rng):
    layers = _factored_layers(f, kind, "kronecker")
    found = factors.kronecker_factors(f, kind, samples, rng)
    return Kronecker(f, kind, {layers[name]: pair for name, pair in found.items()})


def _ekfac(f, kind, samples, rng):
    layers = _factored_layers(f, kind, "ekfac")
    bases = {}
    for name, (A, G) in factors.kronecker_factors(f, kind, samples, rng).items():
        bases[name] = factors.eigenbasis(A, name)[1], factors.eigenbasis(G, name)[1]
    scales = factors.eigen_scales(f, bases, kind, samples, rng)
    named = {layers[name]: pair for name, pair in bases.items()}
    return EigenKronecker(f, kind, named, {layers[name]: scale for name, scale in scales.items()})


def _factored_layers(f: Objective, kind: str, structure: str) -> dict[str, tuple]:
    """{layer: its windows}, where all parameters belong to layers that have Kronecker factors."""
    if kind == "hessian":
        raise ValueError(f"the hessian has no structure {structure!r}, which is made of signals: use 'block'")
    plain, loose = split_windows(f)
    if loose:
        raise ValueError(f"structure {structure!r} has no factors for {', '.join(loose)}: use 'block' or 'dense'")
    return {layer.name: tuple(layer[1:]) for layer in plain.values()}


_MAKERS = {
    "dense": _dense,
    "block": _block,
    "kronecker": _kronecker,
    "ekfac": _ekfac,
    "diagonal": _diagonal,
    "matrix-free": _matrix_free,
}

# ----------------------------------------------------------------------------------------- Hessians of a layer


def plain_sites(f: Objective) -> list[Site]:
    """The sites whose weights are used once, so that ∂²R/∂W² comes from ∂²ℓ/∂a² of every example."""
    names = {layer.name for layer in split_windows(f)[0].values()}
    return [site for site in f.sweep() if site.name in names]


def _hessian_blocks(f: Objective) -> dict[str, Callable[[], Any]]:
    """{window of W: what computes the layer's block}."""
    return {f"{site.name}.W": lambda site=site: hessian_block(site) for site in plain_sites(f)}


def hessian_block(site: Site) -> Any:
    """∂²R/∂W̄² of one layer, (1/N) Σ ∂²ℓ/∂a² ⊗ h̄ h̄ᵀ, in θ's order (W row-major, then b), with L2.

    One product with every unit of the layer, instead of one with every weight.
    """
    h = site.h if site.b is None else factors.homogeneous(site.h)
    n, out = site.a.shape
    rows = []
    for curved in _unit_products(site):
        spread = (curved[:, :, None] * h[:, None, :]).reshape(n, -1)
        rows.append(h.T @ spread)
    full = backend.xp(h).concatenate(rows) * (1.0 / n)
    names, block = theta_ordered(full, (f"{site.name}.W", None if site.b is None else f"{site.name}.b"), out)
    f = site.objective
    layout = local_layout(f.params.layout, names)
    return add_to_diagonal(0.5 * (block + block.T), decays(layout, f.l2, block))


def hessian_diagonal(site: Site) -> tuple[Any, Any]:
    """The diagonal of ∂²R/∂W² (out, in) and of ∂²R/∂b² (out,), without L2."""
    own = backend.xp(site.a).stack([curved[:, unit] for unit, curved in enumerate(_unit_products(site))])
    scaled = own * (1.0 / len(site.a))
    return scaled @ (site.h * site.h), scaled.sum(1)


def _unit_products(site: Site) -> Iterator[Any]:
    """∂²ℓ/∂a² e_o (N, out) of every example, for every unit o."""
    unit = backend.zeros_like(site.a)
    for o in range(unit.shape[1]):
        unit[:, o] = 1.0
        yield site.hessian_vp(unit)
        unit[:, o] = 0.0
