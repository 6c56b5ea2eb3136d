"""Boxes and arrows as SVG, without further software."""

from __future__ import annotations

import unicodedata
from collections import Counter
from html import escape
from typing import NamedTuple

from .layered import PORT, Point, place

LONGEST = 36  # characters of a line in a box
MARGIN = 14.0
TITLE, LINE = 17.0, 14.0  # heights of the lines in a box
BOLD, MONO = 7.7, 6.7  # widths of a character, rather too large than too small
INK, GREY, LINES = "#1d1d1b", "#6f6f6a", "#6b6b68"
SANS = 'font-family="Helvetica, Arial, DejaVu Sans, sans-serif"'
FIXED = 'font-family="DejaVu Sans Mono, Menlo, Consolas, monospace"'


class Look(NamedTuple):
    """How a kind of node is drawn: fill, border, its width, dashes, the corner's radius; Graphviz's shape and style."""

    fill: str
    border: str
    stroke: float
    dashes: str
    radius: float
    shape: str
    style: str


LOOKS = {
    "leaf": Look("#dbe9f6", "#3b75af", 1.2, "", 22.0, "ellipse", "filled"),
    "constant": Look("#f3f3f1", "#8a8a85", 1.2, "4 3", 0.0, "box", "filled,dashed"),
    "operation": Look("#ffffff", "#4a4a48", 1.2, "", 6.0, "box", "filled,rounded"),
    "output": Look("#fdeacc", "#c46a00", 2.2, "", 6.0, "box", "filled,rounded"),
}


class Node(NamedTuple):
    """A box: its kind (a key of LOOKS), its heading, and the lines under it."""

    kind: str
    title: str
    lines: tuple[str, ...]


def svg(nodes: list[Node], edges: list[tuple[int, int]], title: str) -> str:
    """A picture of a graph whose edges go from earlier to later nodes.

    Nothing in it has an id, a class or a style sheet: those of two pictures would meet in a notebook.
    """
    enter = Counter(target for _, target in edges)
    boxes = [_size(node, enter[k]) for k, node in enumerate(nodes)]
    found = place(boxes, edges)
    width, height = found.width + 2 * MARGIN, found.height + 2 * MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        f'viewBox="{-MARGIN:.1f} {-MARGIN:.1f} {width:.1f} {height:.1f}" role="img">',
        f"<title>{escape(title)}</title>",
        f'<rect x="{-MARGIN:.1f}" y="{-MARGIN:.1f}" width="100%" height="100%" fill="#ffffff"/>',  # dark notebooks
        f'<g fill="none" stroke="{LINES}" stroke-width="1.2">',
        *(_path(route, edge) for route, edge in zip(found.routes, edges)),
        f'</g>\n<g fill="{LINES}">',
        *(_head(*route[-1]) for route in found.routes),
        '</g>\n<g text-anchor="middle">',
        *(_box(k, *drawn) for k, drawn in enumerate(zip(nodes, found.centres, boxes))),
        "</g>\n</svg>\n",
    ]
    return "\n".join(parts)


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)


def _size(node: Node, arrows: int) -> tuple[float, float]:
    text = max([BOLD * _columns(_cut(node.title)), *(MONO * _columns(_cut(line)) for line in node.lines)])
    sides = 34.0 if node.kind == "leaf" else 22.0
    return max(text + sides, PORT * (arrows + 1)), TITLE + LINE * len(node.lines) + 13.0


def _box(k: int, node: Node, at: Point, size: tuple[float, float]) -> str:
    look, (x, y), (width, height) = LOOKS[node.kind], at, size
    left, top = x - width / 2, y - height / 2
    dashes = f' stroke-dasharray="{look.dashes}"' if look.dashes else ""
    texts = [_text(node.title, x, top + TITLE + 2, f'font-size="13" font-weight="bold" fill="{INK}" {SANS}')]
    for n, line in enumerate(node.lines, 1):
        style = f'font-size="11" fill="{GREY if n == 1 else INK}" {FIXED}'
        texts.append(_text(line, x, top + TITLE + 5 + LINE * n, style))
    return (
        f'<g data-node="{k}"><title>{escape(node.title)}</title>'
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{width:.1f}" height="{height:.1f}" '
        f'rx="{min(look.radius, height / 2):.1f}" fill="{look.fill}" stroke="{look.border}" '
        f'stroke-width="{look.stroke}"{dashes}/>{"".join(texts)}</g>'
    )


def _text(line: str, x: float, y: float, style: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(_cut(line))}</text>'


def _path(route: list[Point], edge: tuple[int, int]) -> str:
    """A route as straight lines through layers and bends between them."""
    x, y = route[0]
    steps = [f"M{x:.1f} {y:.1f}"]
    for x2, y2 in route[1:]:
        middle = (y + y2) / 2
        bend = f"C{x:.1f} {middle:.1f} {x2:.1f} {middle:.1f} "
        steps.append(f"{bend if abs(x2 - x) > 0.1 else 'L'}{x2:.1f} {y2:.1f}")
        x, y = x2, y2
    return f'<path data-from="{edge[0]}" data-to="{edge[1]}" d="{"".join(steps)}"/>'


def _head(x: float, y: float) -> str:
    """The head of an arrow that points down at (x, y)."""
    return f'<path d="M{x - 4:.1f} {y - 8:.1f}L{x + 4:.1f} {y - 8:.1f}L{x:.1f} {y:.1f}Z"/>'
