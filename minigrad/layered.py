"""Where the boxes of a drawing go: layers, an order in every layer, coordinates, and routes between the boxes.

The steps are Sugiyama's: longest paths give the layers; an edge that passes a layer gets a place of its own there, so
that it runs around the boxes; barycentre sweeps reduce crossings; weighted means give the coordinates.

References
----------
Sugiyama, Tagawa & Toda 1981, Methods for visual understanding of hierarchical system structures.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

GAP = 16.0  # between boxes side by side
DROP = 42.0  # between layers
HEAD = 9.0  # the last, straight piece of an edge, for the head of an arrow
PORT = 15.0  # between the arrows that enter one box
LANE = 6.0  # width of the place of a passing edge
SWEEPS = 8  # of reordering
ROUNDS, CARRY = 100, 20  # of moving, and how many of them look to one side only
SLACK = 8.0  # bends below this count alike, at first; less and less is tolerated
SPINE = 20.0  # how much harder a link pulls that something leads to: what is computed runs straight, leaves stand aside

Point = tuple[float, float]


class Placement(NamedTuple):
    """Centres of the boxes, corners of the routes (in the order of the edges), and the size of the whole."""

    centres: list[Point]
    routes: list[list[Point]]
    width: float
    height: float


class Link(NamedTuple):
    """A piece of an edge between neighbouring layers; `shift` is where it enters, from the middle of `low`."""

    high: int
    low: int
    shift: float


def place(sizes: Sequence[tuple[float, float]], edges: Sequence[tuple[int, int]]) -> Placement:
    """Lay out a directed graph from top to bottom, without overlaps.

    Parameters
    ----------
    sizes : sequence of (width, height)
        One for every node; nodes are numbered so that every edge goes from a smaller to a larger number.
    edges : sequence of (source, target)
        The edges into one node enter it from left to right in this order.

    Returns
    -------
    Placement
        A route has the points (start, end of a layer, start of the next, …, end): upright lines inside layers, where
        nothing else is, and pieces between layers, which may be bent.
    """
    layer = _layers(len(sizes), edges)
    chains = _chains(layer, edges)
    shifts = _shifts(edges)
    links = _links(edges, chains, shifts, layer)
    rows = _first_order(len(sizes), edges, chains, layer)
    rows = _uncross(rows, links)
    widths = defaultdict(lambda: LANE, enumerate(w for w, _ in sizes))
    x = _abscissae(rows, links, widths)
    tops, bottoms = _bands(rows, sizes)
    centres = [(x[k], (tops[layer[k]] + bottoms[layer[k]]) / 2) for k in range(len(sizes))]
    routes = []
    for (source, target), shift in zip(edges, shifts):
        points = [(x[source], centres[source][1] + sizes[source][1] / 2)]
        for level in range(layer[source], layer[target]):
            cell = chains[source][level - layer[source]]
            points += [(x[cell], tops[level])] if cell != source else []
            points.append((x[cell], bottoms[level]))
        end = x[target] + shift
        routes.append([*points, (end, tops[layer[target]] - HEAD), (end, centres[target][1] - sizes[target][1] / 2)])
    return Placement(centres, routes, max(x[k] + widths[k] / 2 for row in rows for k in row), bottoms[-1])


def _layers(count: int, edges: Sequence[tuple[int, int]]) -> list[int]:
    """The layer of every node: the longest path to the last layer, so that leaves stand right above their use."""
    height = [0] * count
    for source, target in sorted(edges, reverse=True):  # every target is finished before it is asked
        height[source] = max(height[source], height[target] + 1)
    return [max(height) - h for h in height]


def _chains(layer: list[int], edges: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """{source: cells, one a layer, down to the last but one of its edges}: itself, then places that it passes."""
    deepest: dict[int, int] = {}
    for source, target in edges:
        deepest[source] = max(deepest.get(source, 0), layer[target])
    chains, free = {}, len(layer)
    for source, end in deepest.items():
        passed = end - layer[source] - 1
        chains[source] = [source, *range(free, free + passed)]
        free += passed
    return chains


def _shifts(edges: Sequence[tuple[int, int]]) -> list[float]:
    """Where every edge enters its target, from the middle."""
    into: dict[int, int] = defaultdict(int)
    number = []
    for _, target in edges:
        number.append(into[target])
        into[target] += 1
    return [PORT * (k - (into[target] - 1) / 2) for k, (_, target) in zip(number, edges)]


def _links(edges, chains, shifts, layer) -> list[list[Link]]:
    """For every layer but the last, the links that leave it; edges of one source share the way that they share."""
    links: list[dict[Link, None]] = [{} for _ in range(max(layer))]
    for (source, target), shift in zip(edges, shifts):
        cells = chains[source][: layer[target] - layer[source]]
        for depth, pair in enumerate(zip(cells, cells[1:]), layer[source]):
            links[depth][Link(*pair, 0.0)] = None
        links[layer[target] - 1][Link(cells[-1], target, shift)] = None
    return [list(between) for between in links]


def _first_order(count, edges, chains, layer) -> list[list[int]]:
    """The cells of every layer as a walk from the outputs meets them: a tree has no crossings then."""
    sources: dict[int, list[int]] = defaultdict(list)
    for source, target in edges:
        sources[target].append(source)
    rows: list[list[int]] = [[] for _ in range(max(layer) + 1)]
    met, waiting = set(), [k for k in range(count) if k not in chains]
    while waiting:
        node = waiting.pop()
        if node not in met:
            met.add(node)
            for depth, cell in enumerate(chains.get(node, [node]), layer[node]):
                rows[depth].append(cell)
            waiting.extend(reversed(sources[node]))
    return rows


def _uncross(rows: list[list[int]], links: list[list[Link]]) -> list[list[int]]:
    """Sort every layer by the mean place of its neighbours, down and up in turn, and keep the best order seen."""
    above, below = _neighbours(links)
    best, fewest = [row[:] for row in rows], _crossings(rows, links)
    for sweep in range(SWEEPS):
        if fewest == 0:
            break
        down = sweep % 2 == 0
        near = above if down else below
        place = {cell: float(k) for row in rows for k, cell in enumerate(row)}
        for row in rows if down else reversed(rows):
            for cell in row:
                if near[cell]:
                    # a shift is far less than a place: it only decides between equals
                    place[cell] = sum(place[n] + shift * 1e-3 for n, shift in near[cell]) / len(near[cell])
            row.sort(key=place.__getitem__)
            place.update((cell, float(k)) for k, cell in enumerate(row))
        count = _crossings(rows, links)
        if count < fewest:
            best, fewest = [row[:] for row in rows], count
    return best


def _neighbours(links: list[list[Link]]) -> tuple[dict, dict]:
    """{cell: [(cell above, −shift)]} and {cell: [(cell below, shift)]}."""
    above, below = defaultdict(list), defaultdict(list)
    for between in links:
        for high, low, shift in between:
            above[low].append((high, -shift))
            below[high].append((low, shift))
    return above, below


def _crossings(rows: list[list[int]], links: list[list[Link]]) -> int:
    place = {cell: k for row in rows for k, cell in enumerate(row)}
    total = 0
    for between in links:
        ends: list[tuple[int, float]] = []
        for link in sorted(between, key=lambda k: (place[k.high], place[k.low], k.shift)):
            end = (place[link.low], link.shift)
            total += len(ends) - bisect_right(ends, end)
            insort(ends, end)
    return total


def _abscissae(rows: list[list[int]], links: list[list[Link]], widths: dict[int, float]) -> dict[int, float]:
    """x of every cell: its links pull it upright, the order and the gaps are kept."""
    above, below = _neighbours(links)
    made = {cell for between in links for _, cell, _ in between}
    x = {cell: float(k) for row in rows for k, cell in enumerate(row)}
    for turn in range(ROUNDS):
        down = turn % 2 == 0
        for row in rows if down else reversed(rows):
            wanted, weights = [], []
            for cell in row:
                high = [(SPINE if n in made else 1.0, x[n] + shift) for n, shift in above[cell]]
                low = [(SPINE if cell in made else 1.0, x[n] + shift) for n, shift in below[cell]]
                if turn < CARRY:
                    pulls = high if down else low
                else:  # the longer the weaker, so that one link bends instead of all being aslant
                    slack = SLACK * (1 - turn / ROUNDS)
                    pulls = [(w / (slack + abs(at - x[cell])) ** 2, at) for w, at in high + low]
                weights.append(sum(w for w, _ in pulls) or 0.1)
                wanted.append(sum(w * at for w, at in pulls) / weights[-1] if pulls else x[cell])
            x.update(zip(row, _settle(wanted, weights, [widths[cell] for cell in row])))
    left = min(x[cell] - widths[cell] / 2 for row in rows for cell in row)
    return {cell: at - left for cell, at in x.items()}


def _settle(wanted: list[float], weights: list[float], widths: list[float]) -> list[float]:
    """Places nearest to those wanted, in this order and without overlaps: isotonic regression by pooling."""
    starts, at = [], 0.0
    for k, width in enumerate(widths):
        at += (widths[k - 1] + width) / 2 + GAP if k else 0.0
        starts.append(at)
    blocks: list[list[float]] = []  # mean, weight, how many
    for goal, weight, start in zip(wanted, weights, starts):
        blocks.append([goal - start, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] >= blocks[-1][0]:
            mean, w, n = blocks.pop()
            last = blocks[-1]
            last[0] = (last[0] * last[1] + mean * w) / (last[1] + w)
            last[1:] = [last[1] + w, last[2] + n]
    means = [block[0] for block in blocks for _ in range(int(block[2]))]
    return [mean + start for mean, start in zip(means, starts)]


def _bands(rows: list[list[int]], sizes: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Top and bottom of every layer."""
    tops, bottoms, at = [], [], 0.0
    for row in rows:
        tops.append(at)
        at += max(sizes[k][1] for k in row if k < len(sizes))
        bottoms.append(at)
        at += DROP
    return tops, bottoms
