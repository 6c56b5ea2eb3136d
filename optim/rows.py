"""Rows: the gradients behind a curvature, one for every signal and example, formed only when asked for.

Signals s_k of one kind are sent down from the output z (`Objective.signals`). Each gives every example a gradient
g_nk = Σ_c s_knc ∂z_nc/∂θ, and the curvature of that kind is (1/N) Σ_n Σ_k g_nk g_nkᵀ. In a dense layer g_nk is
s_nk h̄_nᵀ with h̄ = [h; 1], so that products, squares and Gram matrices of all rows come from h and s [T-3.3.1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from minigrad import Objective, backend, ops
from minigrad.params import Windows
from minigrad.sites import layer_gradient
from minigrad.tensor import Tensor, raw
from minigrad.walk import between, reverse

from .factors import signal_blocks

SLICE_BYTES = 1 << 26  # what explicit rows take at once while they are summed up


class LayerRows(NamedTuple):
    """A dense layer's share: its windows (b may be None), its input h (N, in), its signals s (K, N, out)."""

    W: str
    b: str | None
    h: Any
    s: Any


class Rows:
    """R (K·N, d), whose row (k, n) is g_nk, over some windows of θ.

    Parameters
    ----------
    layout : dict
        {window: (start, stop, shape)} of the vectors that this object takes and gives.
    layers : list of LayerRows
    loose : dict
        {window: (K, N, size)} of the windows that belong to no such layer.
    """

    def __init__(self, layout: dict[str, tuple], layers: list[LayerRows], loose: dict[str, Any]):
        self.layout = layout
        self.layers = layers
        self.loose = loose
        self.array = layers[0].s if layers else next(iter(loose.values()))
        self.k, self.n = self.array.shape[:2]
        self.size = max(stop for _, stop, _ in layout.values())
        known = {window for layer in layers for window in layer[:2]}.union(loose)
        self.missing = [name for name in layout if name not in known]  # windows left out, whose columns are zero

    def of(self, names: list[str]) -> Rows:
        """The columns of some windows, whole layers or loose windows, one after another."""
        layers = [layer for layer in self.layers if layer.W in names]
        return Rows(local_layout(self.layout, names), layers, {name: self.loose[name] for name in self.loose_in(names)})

    def loose_in(self, names: list[str]) -> list[str]:
        return [name for name in names if name in self.loose]

    def push(self, v: Any) -> Any:
        """R v (K, N): how far each example's output moves along v, seen by each signal."""
        windows = Windows(self.layout, v)
        total = 0.0
        for W, b, h, s in self.layers:
            moved = ops.affine(h, windows[W], None if b is None else windows[b])
            total = total + backend.row_dot(s, moved)
        for name, rows in self.loose.items():
            total = total + rows @ windows[name].reshape(rows.shape[-1])
        return total

    def pull(self, u: Any) -> Any:
        """Rᵀ u (d,) for u (K, N)."""
        out = backend.xp(u).zeros(self.size, u.dtype)
        windows, written = Windows(self.layout, out), set()
        for W, b, h, s in self.layers:
            layer_gradient((u[..., None] * s).sum(0), h, windows.all(), W, b, written)
        for name, rows in self.loose.items():
            flat = rows.reshape(self.k * self.n, rows.shape[-1])
            windows[name][...] = (u.reshape(1, -1) @ flat).reshape(windows[name].shape)
        return out

    def gram(self, weight: Callable[[str], float]) -> Any:
        """Σ over windows of weight(window) · (R Rᵀ restricted to it), (K·N, K·N), from h hᵀ and s sᵀ."""
        m, k, n = self.k * self.n, self.k, self.n
        total = backend.xp(self.array).zeros((m, m), self.array.dtype)
        for W, b, h, s in self.layers:
            inputs = weight(W) * ops.product(h, h.T)
            if b is not None:
                inputs += weight(b)
            flat = s.reshape(m, s.shape[-1])
            total += (ops.product(flat, flat.T).reshape(k, n, k, n) * inputs[:, None, :]).reshape(m, m)
        for name, rows in self.loose.items():
            flat = rows.reshape(m, rows.shape[-1])
            total += weight(name) * ops.product(flat, flat.T)
        return total

    def squares(self) -> Any:
        """‖g_nk‖² (K, N), from ‖h̄‖² ‖s‖²."""
        total = 0.0
        for _, b, h, s in self.layers:
            inputs = backend.row_dot(h, h)
            total = total + backend.row_dot(s, s) * (inputs if b is None else inputs + 1.0)
        for rows in self.loose.values():
            total = total + backend.row_dot(rows, rows)
        return total

    def mean_squares(self) -> Any:
        """(1/N) Σ_n Σ_k g_nk² (d,), from (s²)ᵀ h²."""
        out = backend.empty((self.size,), self.array.dtype, self.array)
        windows, written = Windows(self.layout, out), set()
        for name in self.missing:
            windows[name][...] = 0.0
        for W, b, h, s in self.layers:
            squared = ops.multiply.forward(s, s) if len(s) > 1 else s[0] * s[0]
            squared = squared.sum(0) if squared.ndim == 3 else squared
            layer_gradient(squared, ops.multiply.forward(h, h), windows.all(), W, b, written)
        for name, rows in self.loose.items():
            windows[name][...] = (rows * rows).sum((0, 1)).reshape(windows[name].shape)
        out *= 1.0 / self.n
        return out

    def explicit(self, start: int = 0, stop: int | None = None) -> Any:
        """The rows of examples start to stop, formed: (K·n, d), signal by signal."""
        examples = slice(start, self.n if stop is None else min(stop, self.n))
        count = examples.stop - start
        out = backend.xp(self.array).zeros((self.k, count, self.size), self.array.dtype)
        for W, b, h, s in self.layers:
            s, h = s[:, examples], h[examples]
            a, z, _ = self.layout[W]
            out[..., a:z] = (s[..., None] * h[:, None, :]).reshape(self.k, count, z - a)
            if b is not None:
                a, z, _ = self.layout[b]
                out[..., a:z] = s
        for name, rows in self.loose.items():
            a, z, _ = self.layout[name]
            out[..., a:z] = rows[:, examples]
        return out.reshape(self.k * count, self.size)

    def outer(self) -> Any:
        """(1/N) RᵀR (d, d), a few examples at a time."""
        total = backend.xp(self.array).zeros((self.size, self.size), self.array.dtype)
        step = max(1, SLICE_BYTES // (self.k * self.size * self.array.dtype.itemsize))
        for start in range(0, self.n, step):
            rows = self.explicit(start, start + step)
            total += ops.product(rows.T, rows)
        total *= 1.0 / self.n
        return total


def local_layout(layout: dict[str, tuple], names: list[str]) -> dict[str, tuple]:
    """The layout of a vector that holds only these windows, one after another."""
    found, at = {}, 0
    for name in names:
        start, stop, shape = layout[name]
        found[name] = (at, at + stop - start, shape)
        at += stop - start
    return found


# ------------------------------------------------------------------------------------------ rows of a network


def row_blocks(f: Objective, kind: str, samples: int = 1, rng: Any = None, layers_only: bool = False) -> Iterator[Rows]:
    """The rows of one kind of curvature, in blocks over the signals when all at once would be large.

    Windows that `split_windows` calls others take a small backward pass for every example; with `layers_only` they
    are left out. For "mc", `rng` is an integer, or None for the signals drawn before.
    """
    plain, loose = split_windows(f)
    loose = [] if layers_only else loose
    inputs = _inputs(f)
    seed = _seed(f, kind, samples, rng, loose) if loose else None
    done = 0
    for block in signal_blocks(f, kind, samples, rng):
        signals = dict(zip(f.graph().sites, block.values()))
        layers = [LayerRows(*plain[seq][1:], inputs[seq], signals[seq]) for seq in plain]
        count = len(next(iter(block.values()))) if block else len(seed)
        yield Rows(f.params.layout, layers, _loose_rows(f, loose, seed[done : done + count]) if loose else {})
        done += count


def all_rows(f: Objective, kind: str, samples: int = 1, rng: Any = None) -> Rows:
    """The rows of one kind of curvature as one object, whatever memory their signals take."""
    blocks = list(row_blocks(f, kind, samples, rng))
    if len(blocks) == 1:
        return blocks[0]
    module = backend.xp(f.params.vector)
    layers = [
        LayerRows(*same[0][:3], module.concatenate([layer.s for layer in same]))
        for same in zip(*(block.layers for block in blocks))
    ]
    loose = {name: module.concatenate([block.loose[name] for block in blocks]) for name in blocks[0].loose}
    return Rows(f.params.layout, layers, loose)


def count_rows(f: Objective, kind: str, samples: int = 1) -> int:
    """K·N."""
    return f.n * {"mc": samples, "empirical": 1}.get(kind, f.output.shape[1])


def split_windows(f: Objective) -> tuple[dict[int, Any], list[str]]:
    """The dense layers whose gradients are s h̄ᵀ, as {seq: Layer}, and the names of all other windows.

    Others are windows without a layer, those that two layers share or that the network also uses elsewhere, and
    those of layers on (N, T, in).
    """
    graph = f.graph()
    uses: dict[int, int] = {}
    for node in graph.order:
        for i, a in enumerate(node.args):
            if type(a) is Tensor and a.seq in graph.inner:
                continue
            if type(a) is Tensor:
                own = node.seq in graph.sites and i > 0 and raw(node.args[0]).ndim == 2
                uses[a.seq] = uses.get(a.seq, 0) + (1 if own else 2)
    plain = {}
    for seq, layer in graph.sites.items():
        if all(uses[graph.leaves[window].seq] == 1 for window in layer[1:] if window is not None):
            plain[seq] = layer
    held = {window for layer in plain.values() for window in layer[1:]}
    return plain, [name for name in graph.leaves if name not in held]


def _inputs(f: Objective) -> dict[int, Any]:
    return {node.seq: raw(node.args[0]) for node in f.graph().order if node.seq in f.graph().sites}


def _seed(f: Objective, kind: str, samples: int, rng: Any, loose: list[str]) -> Any:
    if kind == "mc" and rng is None:
        raise ValueError(f"sampled gradients of {', '.join(loose)} are drawn example by example: give rng=…")
    return f.output_signals(kind, samples, rng)


def _loose_rows(f: Objective, names: list[str], seed: Any) -> dict[str, Any]:
    """{window: (K, N, size)}: one small backward pass for every example."""
    vector = f.params.vector
    found = {}
    for name in names:
        start, stop, _ = f.params.layout[name]
        found[name] = backend.xp(vector).zeros((len(seed), f.n, stop - start), vector.dtype)
    for i in range(f.n):
        one = Objective(f.net, f.loss, f.params, f.args[0][i : i + 1], f.targets[i : i + 1], train=f.train)
        graph = one.graph()
        f.cost.forwards += 1
        f.cost.backwards += 1
        order, reach = between(graph.out, [graph.leaves[name] for name in names])
        cotangents = reverse(order, reach, {graph.out.seq: seed[:, i : i + 1]})
        for name in names:
            part = cotangents.get(graph.leaves[name].seq)
            if part is not None:
                found[name][:, i] = part.reshape(len(seed), -1)
    return found
