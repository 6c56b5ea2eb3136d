"""Graph: one recorded forward pass, and where the layers are in it."""

from __future__ import annotations

from typing import Any

from . import ops
from .params import Layer, Tracked, Windows
from .tensor import Tensor
from .walk import between_seqs


class Graph:
    """The recorded forward pass, and where the layers are in it.

    Attributes
    ----------
    out : Tensor
        The network's output (N, C), or a function's one number.
    order, reach
        The nodes between the parameters and the output, as `walk.between` gives them.
    inner : set of int
        `reach` without the parameters: where a signal goes that forms no gradient.
    sites : dict
        {seq of a dense node: Layer} where its weights are the windows NAME.W and NAME.b (or no bias).
    moved : dict
        {buffer: array}, running statistics as this batch moves them; not empty where a layer mixes examples.
    """

    __slots__ = ("out", "leaves", "order", "reach", "inner", "sites", "above", "moved")

    def __init__(self, out: Tensor, tracked: Tracked):
        self.out = out
        self.leaves = tracked
        self.moved = tracked.moved
        self.order, self.reach = between_seqs(out, tracked.seqs)
        self.inner = self.reach - tracked.seqs
        self.above: dict[int, tuple] = {}
        self.sites: dict[int, Layer] = {}
        affine, layers = ops.affine, tracked.layers
        for node in self.order:
            if node.op is affine:
                _, w, b = node.args
                layer = layers.get((getattr(w, "seq", 0), getattr(b, "seq", None)))
                if layer is not None and (b is None or layer.b is not None):
                    self.sites[node.seq] = layer

    @property
    def siteless(self) -> list[str]:
        """Names of the parameters that belong to no site."""
        held = {window for layer in self.sites.values() for window in layer[1:]}
        return [name for name in self.leaves if name not in held]

    def by_name(self, found: dict[int, Any]) -> dict[str, Any]:
        """{seq of a site: …} under the layers' names; the second layer with a window is NAME@2."""
        named: dict[str, Any] = {}
        counts: dict[str, int] = {}
        for seq, (name, _, _) in self.sites.items():
            counts[name] = counts.get(name, 0) + 1
            named[name if counts[name] == 1 else f"{name}@{counts[name]}"] = found[seq]
        return named

    def tangents(self, windows: Windows) -> dict[int, Any]:
        """{seq: window} of the parameters that the output depends on."""
        return {leaf.seq: windows[name] for name, leaf in self.leaves.items()}
