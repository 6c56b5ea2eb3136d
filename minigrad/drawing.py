"""The graph of a Tensor as a picture: SVG without further software, or DOT for Graphviz.

Time runs from top to bottom. A Tensor that nothing made is a pill, a constant array a dashed box, an operation a
rounded box, and the Tensor that was drawn has a strong border. Arguments enter from left to right.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from . import backend, picture
from .archive import replacing
from .picture import LOOKS, Node
from .tensor import Tensor

LIMIT = 200  # nodes; a larger picture can be made but not read
VALUES, IN_ROW = 8, 4  # elements that are shown of an array at most, and in one row
SETTINGS = ("spec", "axis", "axes", "slope", "low", "high")  # keywords that say more than the shapes do


class Drawing:
    """The graph of a Tensor, ready to be shown, printed or saved. Notebooks show it by themselves.

    Attributes
    ----------
    nodes : list of Node
        Arguments come before what is made of them.
    edges : list of (int, int)
        (argument, result) as places in `nodes`; an argument that is used twice has two.
    """

    def __init__(self, nodes: list[Node], edges: list[tuple[int, int]]):
        self.nodes = nodes
        self.edges = edges

    def dot(self) -> str:
        """The graph in Graphviz's language, of any size."""
        lines = ["digraph {", '  node [fontname="Helvetica", fontsize=11];']
        for k, node in enumerate(self.nodes):
            look = LOOKS[node.kind]
            label = r"\n".join(s.replace("\\", r"\\").replace('"', r"\"") for s in (node.title, *node.lines))
            style = f'shape={look.shape}, style="{look.style}", fillcolor="{look.fill}", color="{look.border}"'
            lines.append(f'  n{k} [label="{label}", {style}, penwidth={look.stroke}];')
        lines += [f"  n{source} -> n{target};" for source, target in self.edges]
        return "\n".join([*lines, "}", ""])

    def svg(self) -> str:
        """The picture.

        Raises
        ------
        TooLarge
            There are more than LIMIT nodes.
        """
        if len(self.nodes) > LIMIT:
            raise TooLarge(
                f"this graph has {len(self.nodes):,} nodes, and a picture is readable up to {LIMIT}; "
                "draw a Tensor further inside, or give .dot() to Graphviz"
            )
        return picture.svg(self.nodes, self.edges, repr(self))

    _repr_svg_ = svg

    def save(self, path: str | os.PathLike) -> None:
        """Write the picture (.svg) or the graph (.dot); an older file stays whole until the new one is complete.

        Raises
        ------
        ValueError
            The name ends in neither.
        """
        writers = {".svg": self.svg, ".dot": self.dot}
        suffix = Path(path).suffix.lower()
        if suffix not in writers:
            raise ValueError(f"{path}: a drawing is saved as .svg or .dot, not {suffix or 'without a suffix'!r}")
        text = writers[suffix]()
        with replacing(path) as stream:
            stream.write(text.encode())

    def __repr__(self) -> str:
        return f"Drawing({len(self.nodes)} nodes, {len(self.edges)} edges)"


class TooLarge(ValueError, NotImplementedError):
    """A graph with too many nodes for a picture; notebooks take a NotImplementedError as "show the text instead"."""


def draw(tensor: Tensor, *, values: bool = True, names: Mapping | None = None) -> Drawing:
    """Draw the graph that made a Tensor.

    Parameters
    ----------
    tensor : Tensor
    values : bool
        Show the elements of small arrays (copied from the device if they live there).
    names : mapping, optional
        {Tensor: name}, or {name: Tensor or array} as `params.track()` gives it, or both kinds together.

    Returns
    -------
    Drawing
        With `.svg()`, `.dot()` and `.save(path)`. It keeps texts, not arrays.

    Raises
    ------
    TypeError
        `tensor` is not a Tensor.

    Examples
    --------
    >>> import minigrad as mg
    >>> x = mg.track(2.0)
    >>> mg.draw(x * x + 1.0, names={x: "x"})
    Drawing(3 nodes, 3 edges)
    """
    if type(tensor) is not Tensor:
        raise TypeError(f"draw takes a Tensor, not {type(tensor).__name__}: an array does not know what made it")
    called = _called(names or {})
    nodes: list[Node] = []
    edges: list[tuple[int, int]] = []
    number: dict[int, int] = {}
    for t in _history(tensor):
        arrays = [a for a in t.args if not _inline(a)]
        for a in arrays:
            if id(a) not in number:  # a constant: every Tensor among the arguments is older, hence here already
                number[id(a)] = len(nodes)
                nodes.append(_node("constant", a, called.get(id(a), "constant"), values))
        number[id(t)] = len(nodes)
        edges += [(number[id(a)], len(nodes)) for a in arrays]
        kind = "leaf" if t.op is None else "output" if t is tensor else "operation"
        nodes.append(_node(kind, t, _heading(t, called.get(id(t))), values))
    return Drawing(nodes, edges)


def _called(names: Mapping) -> dict[int, str]:
    """{id of a Tensor or array: its name}."""
    pairs = ((v, k) if isinstance(k, str) else (k, v) for k, v in names.items())
    return {id(thing): str(name) for thing, name in pairs}


def _history(tensor: Tensor) -> list[Tensor]:
    """All Tensors that `tensor` was made of, itself included, in the order of their creation."""
    met, waiting = {tensor.seq: tensor}, [tensor]
    while waiting:
        for a in waiting.pop().args:
            if type(a) is Tensor and a.seq not in met:
                met[a.seq] = a
                waiting.append(a)
    return [met[seq] for seq in sorted(met)]


# ------------------------------------------------------------------------------------------------- texts


def _inline(a: Any) -> bool:
    """Whether an argument is written into the heading instead of drawn: Python's and NumPy's numbers, None."""
    return not hasattr(a, "shape") or isinstance(a, np.generic)


def _number(v: Any) -> str:
    if isinstance(v, (float, complex, np.inexact)):
        v = format(v + 0.0, ".4g")  # −0 + 0 is 0
    return str(v).replace("-", "−")


def _heading(t: Tensor, name: str | None) -> str:
    """What stands in the first line: the name, and for an operation its numbers and telling keywords."""
    if t.op is None:
        return name or "leaf"
    given = []
    if any(_inline(a) and a is not None for a in t.args):
        given = [_number(a) if _inline(a) else "·" for a in t.args]
    whole = tuple(range(-getattr(t.args[0], "ndim", 0), 0))
    for key in SETTINGS:
        setting = t.kw.get(key)
        if isinstance(setting, (str, int, float, tuple)) and setting != whole:  # a sum over all axes is just a sum
            given.append(setting if isinstance(setting, str) else f"{key}={setting}")
    made = t.op.name + (f"({', '.join(given)})" if given else "")
    return f"{name} = {made}" if name else made


def _node(kind: str, array: Any, title: str, values: bool) -> Node:
    lines = [f"{tuple(array.shape)} {array.dtype}" if array.shape else str(array.dtype)]
    if values and 0 < array.size <= VALUES and array.ndim <= 2 and (not array.ndim or array.shape[-1] <= IN_ROW):
        lines += _shown(np.asarray(backend.to_host(array.value if type(array) is Tensor else array)))
    return Node(kind, _clean(title), tuple(_clean(line) for line in lines))


def _shown(a: np.ndarray) -> list[str]:
    if not a.ndim:
        return [f"= {_number(a.item())}"]
    return [f"[{', '.join(map(_number, row))}]" for row in np.atleast_2d(a).tolist()]


def _clean(text: str) -> str:
    """One line of characters that XML allows."""
    return re.sub(r"[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", " ".join(str(text).split()))
