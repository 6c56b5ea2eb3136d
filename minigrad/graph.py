"""Graph: one recorded forward pass, and where the layers are in it."""

from __future__ import annotations

from typing import Any

from . import ops
from .params import Tracked, Windows
from .tensor import Tensor
from .walk import between


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
        {seq of a dense node: NAME} where its weights are the windows NAME.W, NAME.b.
    held : set of str
        The windows of the sites.
    """

    __slots__ = ("out", "leaves", "order", "reach", "inner", "sites", "held", "above")

    def __init__(self, out: Tensor, tracked: Tracked):
        self.out = out
        self.leaves = tracked.leaves
        self.order, self.reach = between(out, tracked.leaves.values())
        self.inner = self.reach - tracked.names.keys()
        self.sites: dict[int, str] = {}
        self.above: dict[int, tuple] = {}
        self.held: set[str] = set()
        for node in self.order:
            if node.op is ops.affine:
                name = _site_name(node, tracked.names)
                if name is not None:
                    self.sites[node.seq] = name
                    self.held.add(name + ".W")
                    if node.args[2] is not None:
                        self.held.add(name + ".b")

    @property
    def siteless(self) -> list[str]:
        """Names of the parameters that belong to no site."""
        return [] if len(self.held) == len(self.leaves) else [name for name in self.leaves if name not in self.held]

    def by_name(self, found: dict[int, Any]) -> dict[str, Any]:
        """{seq of a site: …} under the layers' names; the second layer with a window is NAME@2."""
        named: dict[str, Any] = {}
        counts: dict[str, int] = {}
        for seq, name in self.sites.items():
            counts[name] = counts.get(name, 0) + 1
            named[name if counts[name] == 1 else f"{name}@{counts[name]}"] = found[seq]
        return named

    def tangents(self, windows: Windows) -> dict[int, Any]:
        """{seq: window} of the parameters that the output depends on."""
        return {leaf.seq: windows[name] for name, leaf in self.leaves.items()}


def _site_name(node: Tensor, names: dict[int, str]) -> str | None:
    """NAME where a dense node's weights are the windows NAME.W and NAME.b (or no bias)."""
    _, w, b = node.args
    window = names.get(w.seq) if type(w) is Tensor else None
    if window is None or not window.endswith(".W"):
        return None
    name = window[:-2]
    return name if b is None or (type(b) is Tensor and names.get(b.seq) == name + ".b") else None
