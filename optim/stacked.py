"""Rank-1 directions: a network at many points θ ± σ ε at once, without W + ΔW of any of them.

For the weights of a dense layer ε = u vᵀ; with u and v of independent fair signs E[ε εᵀ] = I. The layer at point k
gives

    h Wᵀ + b ± σ ((h·vₖ) uₖ + βₖ)

so all points share one product with Wᵀ, and a layer that reads data shares h Wᵀ itself. A step's sum Σ wₘ uₘ vₘᵀ is
one product too. All that is not a dense layer is replayed from the recorded graph with a leading axis for the points.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from minigrad import Objective, backend, ops
from minigrad.params import Layer
from minigrad.tensor import Elementwise, Linear, Multilinear, Tensor, align, raw

from .directions import signs

GROUP = 128  # directions drawn, and added to the step, together
NUMBERS = 1 << 22  # random numbers held at once, where that is fewer
STACKABLE = {  # operations of no general kind whose forward takes leading axes
    *(ops.largest, ops.smallest, ops.log_total, ops.normalised, ops.length),
    *(ops.softmax_ce, ops.sigmoid_ce, ops.squares),
}
OTHERS = "use directions='gaussian', 'rademacher' or 'table'"


class Replay:
    """The recorded forward pass of an objective, to be repeated at many points.

    What the network read with `.value` stays as it was at θ, as it does for `f.grad`.

    Parameters
    ----------
    f : Objective
        With at least one dense layer, whose weights are used nowhere else.
    chunk : int
        Directions evaluated at once.

    Raises
    ------
    ValueError
        The objective has no dense layer, or does something that cannot be repeated with a leading axis.
    """

    def __init__(self, f: Objective, chunk: int):
        self.f, self.chunk, self.graph = f, chunk, f.graph()
        if not self.graph.sites:
            raise ValueError(f"ES: rank1 directions need dense layers NAME.W, and this objective has none; {OTHERS}")
        self.weights = {layer.W for layer in self.graph.sites.values()}
        self.outside = self._used_outside()
        for name in self.weights.intersection(self.outside):
            raise ValueError(f"ES: rank1 directions cannot take {name!r}, used outside its layer too; {OTHERS}")
        for node in self.graph.order:
            if node.seq not in self.graph.sites:
                self._check(node)
        self.spent = self._last_uses()
        self.columns: dict[tuple[str, str], slice] = {}  # where a direction's numbers stand in a row
        self.size = 0
        for name, (start, stop, shape) in f.params.layout.items():
            parts = {"u": shape[0], "v": shape[1]} if name in self.weights else {"": stop - start}
            for part, count in parts.items():
                self.columns[name, part] = slice(self.size, self.size + count)
                self.size += count
        self._targets: Any = None

    def _used_outside(self) -> list[str]:
        """Parameters that are read by something else than their dense layer."""
        sites = self.graph.sites
        read = {
            a.seq for node in self.graph.order for a in node.args[: 1 if node.seq in sites else None] if _is_tensor(a)
        }
        return [name for name, leaf in self.graph.leaves.items() if leaf.seq in read]

    def _check(self, node: Tensor) -> None:
        """Refuse what does not mean the same with a leading axis, or was chosen by values at θ."""
        op, rest = node.op, node.args[1:]
        general = isinstance(op, (Elementwise, Linear, Multilinear)) or op in STACKABLE
        moving = any(_is_tensor(a) and a.seq in self.graph.reach for a in rest)
        if not (general or (op is ops.affine and not moving)) or any(map(_holds_array, node.kw.values())):
            raise ValueError(f"ES: rank1 directions cannot repeat {op.name!r} at many points at once; {OTHERS}")

    def _last_uses(self) -> list[list[int]]:
        """For every node, what nobody reads after it."""
        seen: set[int] = {self.graph.out.seq}
        spent = []
        for node in reversed(self.graph.order):
            read = {a.seq for a in node.args if _is_tensor(a)} - seen
            seen |= read
            spent.append(list(read))
        return spent[::-1]

    def blocks(self, rng: np.random.Generator, pairs: int) -> Iterator[Block]:
        """Directions in blocks; the numbers do not depend on `chunk`."""
        group = max(1, min(GROUP, NUMBERS // self.size))
        for start in range(0, pairs, group):
            yield Block(self, signs(rng, min(group, pairs - start), self.size, self.f.params.vector))

    # ---------------------------------------------------------------------------------------- values at 2c points

    def values(self, points: Points) -> Any:
        """R at the points, (K,)."""
        f = self.f
        f.cost.forwards += points.count
        leaves, held = self.graph.leaves, {}
        for name in self.outside:
            leaf = leaves[name]
            held[leaf.seq] = leaf.value + points.signed(name).reshape(points.count, *leaf.shape)
        for node, spent in zip(self.graph.order, self.spent):
            layer = self.graph.sites.get(node.seq)
            held[node.seq] = self._repeat(node, held) if layer is None else self._layer(node, layer, held, points)
            for seq in spent:
                held.pop(seq, None)
        out = held[self.graph.out.seq]
        if f.loss is not None:
            z = out.reshape(points.count * f.n, out.shape[-1])
            out = f.loss.at(z, self._tiled(points.count)).value().reshape(points.count, f.n).sum(-1) * (1.0 / f.n)
        return out + (0.5 * f.l2) * self._norms(points) if f.l2 else out

    def _layer(self, node: Tensor, layer: Layer, held: dict[int, Any], points: Points) -> Any:
        """Pre-activations (K, …, out) of a dense layer."""
        h, w, b = node.args
        module, (outputs, inputs) = backend.xp(w.value), w.shape
        stacked = held.get(h.seq) if _is_tensor(h) else None
        rows = math.prod(node.shape[:-1])
        left = module.ones((points.count, rows, 1 if b is None else 2), w.dtype)
        right = [points.signed(layer.W, "u")]
        if stacked is None:  # the same h, and so the same h Wᵀ + b, at all points
            left[:, :, 0] = points.along(node, layer.W)
        else:
            stacked = stacked.reshape(points.count, rows, inputs)
            left[:, :, :1] = module.matmul(stacked, points.plain(layer.W, "v")[:, :, None])
        if b is not None:
            right.append(points.signed(layer.b) if stacked is None else points.signed(layer.b) + b.value)
        shape = (points.count, rows, outputs)
        a = module.matmul(left, module.stack(right, 1), out=backend.empty(shape, w.dtype, w.value))
        a += node.value.reshape(rows, outputs) if stacked is None else backend.matmul(stacked, w.value.T)
        return a.reshape(points.count, *node.shape)

    def _repeat(self, node: Tensor, held: dict[int, Any]) -> Any:
        """An operation on stacked arguments; what does not depend on θ has no leading axis."""
        op, args = node.op, [held.get(a.seq, a.value) if _is_tensor(a) else a for a in node.args]
        extra = [_is_tensor(a) and a.seq in held for a in node.args]
        own = [getattr(a, "shape", ()) for a in node.args]
        if isinstance(op, Elementwise) or op is ops.product:
            rank = max(map(len, own))
            args = [align(a, shape, rank) if e else a for a, shape, e in zip(args, own, extra)]
        elif isinstance(op, Linear):  # its arrays go together
            lead = args[extra.index(True)].shape[:1]
            args = [a if e else backend.xp(a).broadcast_to(a, lead + a.shape) for a, e in zip(args, extra)]
        return op.forward(*args, **node.kw)

    def _tiled(self, count: int) -> Any:
        """The encoded targets, once for every point."""
        y = self.f.view().y
        if self._targets is None or len(self._targets) != count * len(y):
            self._targets = backend.xp(y).concatenate([y] * count)
        return self._targets

    def _norms(self, points: Points) -> Any:
        """Σ ‖W‖² over the windows NAME.W at the points: ‖W ± σ u vᵀ‖² = ‖W‖² ± 2σ u·W v + σ² ‖u‖² ‖v‖²."""
        total = 0.0
        for name in self.f.params:
            if name.endswith(".W"):
                w = self.f.params[name]
                if name in self.weights:
                    u, v = points.signed(name, "u"), points.plain(name, "v")
                    cross = backend.row_dot(backend.matmul(u, w), v)
                    total = total + ((w * w).sum() + 2.0 * cross + backend.row_dot(u, u) * backend.row_dot(v, v))
                else:
                    moved = w.reshape(-1) + points.signed(name)
                    total = total + (moved * moved).sum(-1)
        return total


class Block:
    """Rank-1 directions εₘ by their numbers (k, p): the rows hold uₘ, vₘ of every layer and what else there is."""

    def __init__(self, replay: Replay, numbers: Any):
        self.replay, self.numbers = replay, numbers
        self.inner: dict[int, Any] = {}

    def values(self, sigma: float) -> tuple[Any, Any]:
        """R(θ + σ ε) and R(θ − σ ε), (k,) each."""
        chunk, count = self.replay.chunk, len(self.numbers)
        found = [
            self.replay.values(Points(self, slice(start, min(start + chunk, count)), sigma))
            for start in range(0, count, chunk)
        ]
        join = backend.xp(self.numbers).concatenate
        return join([v[: v.size // 2] for v in found]), join([v[v.size // 2 :] for v in found])

    def add(self, total: Any, weights: Any) -> None:
        """total += Σ wₘ εₘ, where a layer's share Σ wₘ uₘ vₘᵀ is one product."""
        columns, windows = self.replay.columns, self.replay.f.params.windows(total)
        for (name, part), place in columns.items():
            if part == "u":
                weighted = self.numbers[:, place] * weights[:, None]
                windows[name][...] += weighted.T.dot(self.numbers[:, columns[name, "v"]])
            elif part == "":
                windows[name][...] += weights.dot(self.numbers[:, place]).reshape(windows[name].shape)

    def along(self, node: Tensor, weights: str) -> Any:
        """h·vₘ (k, rows) of a layer whose input is the same at all points: one product for the whole block."""
        if node.seq not in self.inner:
            h, v = raw(node.args[0]), self.numbers[:, self.replay.columns[weights, "v"]]
            self.inner[node.seq] = v.dot(h.reshape(-1, h.shape[-1]).T)
        return self.inner[node.seq]


class Points:
    """The points θ + σ ε, then θ − σ ε, for c of a block's directions: K = 2c."""

    def __init__(self, block: Block, part: slice, sigma: float):
        module = backend.xp(block.numbers)
        numbers = block.numbers[part]
        self.block, self.part, self.count = block, part, 2 * len(numbers)
        self._plain = module.concatenate([numbers, numbers])
        self._signed = module.concatenate([numbers * sigma, numbers * -sigma])

    def signed(self, name: str, part: str = "") -> Any:
        """± σ times a part of the directions, (K, size)."""
        return self._signed[:, self.block.replay.columns[name, part]]

    def plain(self, name: str, part: str) -> Any:
        """A part of the directions, (K, size)."""
        return self._plain[:, self.block.replay.columns[name, part]]

    def along(self, node: Tensor, weights: str) -> Any:
        """h·v (K, rows) of a layer that reads data."""
        inner = self.block.along(node, weights)[self.part]
        return backend.xp(inner).concatenate([inner, inner])


def _is_tensor(a: Any) -> bool:
    return type(a) is Tensor


def _holds_array(setting: Any) -> bool:
    """Whether a keyword of a node is, or holds, an array: a condition or indices that may have come from θ."""
    return any(hasattr(s, "ndim") for s in (setting if isinstance(setting, tuple) else (setting,)))
