"""Drawings: every node and edge is in them, nothing overlaps, and any text may stand in a box."""

from __future__ import annotations

import re
import xml.etree.ElementTree as xml
from itertools import combinations

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

import minigrad as mg
from minigrad import backend, drawing, layered, nn

SVG = "{http://www.w3.org/2000/svg}"
NODE = re.compile(r'^  n(\d+) \[label="((?:[^"\\]|\\.)*)", shape=\w+, style="[\w,]+", [^\n]*\];$', re.M)
EDGE = re.compile(r"^  n(\d+) -> n(\d+);$", re.M)


def boxes(svg: str) -> dict[int, tuple[float, ...]]:
    """{node: (left, top, right, bottom)}."""
    found = {}
    for group in xml.fromstring(svg).iter(f"{SVG}g"):
        if "data-node" in group.attrib:
            x, y, w, h = (float(group.find(f"{SVG}rect").get(k)) for k in ("x", "y", "width", "height"))
            found[int(group.get("data-node"))] = (x, y, x + w, y + h)
    return found


def paths(svg: str) -> list[tuple[tuple[int, int], list[float]]]:
    """((source, target), numbers of the path) of every edge."""
    drawn = [p for p in xml.fromstring(svg).iter(f"{SVG}path") if "data-from" in p.attrib]
    return [
        ((int(p.get("data-from")), int(p.get("data-to"))), [float(n) for n in re.findall(r"-?\d+\.\d", p.get("d"))])
        for p in drawn
    ]


def texts(svg: str) -> list[str]:
    return [t.text for t in xml.fromstring(svg).iter(f"{SVG}text")]


def mlp_loss(device: str = "cpu", dtype: str = "float64") -> tuple[mg.Tensor, dict]:
    net = nn.mlp([2, 3, 2], hidden="tanh")
    tracked = net.init(rng=0, dtype=dtype, device=device).track()
    x, y = (backend.asarray(np.full((4, 2), value), device, dtype) for value in (0.5, 1.0))
    return mg.mean(mg.squared_error(net(tracked, x), y)), {**tracked, "x": x, "y": y}


def assert_sound(drawn: drawing.Drawing) -> None:
    """All nodes and edges are there, no boxes overlap, and every edge runs down from box to box beside the others."""
    svg = drawn.svg()
    at = boxes(svg)
    assert list(at) == list(range(len(drawn.nodes)))
    for a, b in combinations(at.values(), 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    width, height = (float(xml.fromstring(svg).get(k)) for k in ("width", "height"))
    left, top = (float(v) for v in xml.fromstring(svg).get("viewBox").split()[:2])
    assert all(left <= a and top <= b and c <= left + width and d <= top + height for a, b, c, d in at.values())
    drawn_edges = paths(svg)
    assert [edge for edge, _ in drawn_edges] == drawn.edges
    for (source, target), numbers in drawn_edges:
        assert at[source][0] < numbers[0] < at[source][2] and abs(numbers[1] - at[source][3]) < 0.2
        assert at[target][0] < numbers[-2] < at[target][2] and abs(numbers[-1] - at[target][1]) < 0.2


@st.composite
def graphs(draw):
    """Random (sizes, edges): node k takes its arguments from earlier ones, and everything leads to the last."""
    count = draw(st.integers(1, 14))
    sizes = draw(st.lists(st.tuples(st.floats(40, 300), st.floats(20, 120)), min_size=count, max_size=count))
    edges = []
    for k in range(1, count):
        edges += [(source, k) for source in draw(st.lists(st.integers(0, k - 1), max_size=3))]
    used = {source for source, _ in edges}
    return sizes, edges + [(k, count - 1) for k in range(count - 1) if k not in used]


# ------------------------------------------------------------------------------------------------ the layout


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_layout_has_no_overlaps_and_routes_pass_beside_boxes(graph):
    sizes, edges = graph
    found = layered.place(sizes, edges)
    rectangles = [(x - w / 2, y - h / 2, x + w / 2, y + h / 2) for (x, y), (w, h) in zip(found.centres, sizes)]
    for a, b in combinations(rectangles, 2):
        assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]
    assert len(found.routes) == len(edges)
    for route, (source, target) in zip(found.routes, edges):
        assert all(above[1] < below[1] + 1e-6 for above, below in zip(route, route[1:]))
        assert (route[0][1], route[-1][1]) == pytest.approx((rectangles[source][3], rectangles[target][1]))
        for (x, y), (x2, y2) in zip(route, route[1:]):
            for k, (left, top, right, bottom) in enumerate(rectangles):
                if k not in (source, target):  # a bend stays between layers, where no box is
                    assert y2 < top + 1e-6 or y > bottom - 1e-6 or max(x, x2) < left or right < min(x, x2)


def test_a_tree_has_no_crossings():
    edges = [(0, 4), (1, 4), (2, 5), (3, 5), (4, 6), (5, 6)]
    x = [at for at, _ in layered.place([(50.0, 20.0)] * 7, edges).centres]
    assert x[0] < x[1] < x[2] < x[3] and x[4] < x[5]


def test_sweeps_remove_a_crossing_that_the_first_order_has():
    edges = [(0, 3), (1, 2), (2, 4), (3, 4)]  # the walk from 4 meets 2 first, hence 1 left of 0
    x = [at for at, _ in layered.place([(50.0, 20.0)] * 5, edges).centres]
    assert x[1] < x[0] and x[2] < x[3]
    crossed = [[1, 2], [3, 4]]
    links = [[layered.Link(1, 4, 0.0), layered.Link(2, 3, 0.0)]]
    assert layered._crossings(crossed, links) == 1
    assert layered._crossings(layered._uncross(crossed, links), links) == 0


def test_a_long_edge_bends_at_its_ends_only():
    edges = [(k, k + 1) for k in range(12)] + [(0, 12)]
    route = layered.place([(100.0, 40.0)] * 13, edges).routes[-1]
    assert len(route) == 26 and sum(abs(a[0] - b[0]) > 0.1 for a, b in zip(route, route[1:])) <= 2


def test_what_has_one_argument_stands_straight_below_it():
    net = nn.mlp([2] * 9, hidden="sigmoid", linear=(3,))
    x = np.ones((1, 2), "float32")
    drawn = mg.draw(mg.sum(mg.squared_error(net(net.init().track(), x), x)))
    alone = [numbers for (_, k), numbers in paths(drawn.svg()) if [t for _, t in drawn.edges].count(k) == 1]
    assert len(alone) == 7 and all(abs(numbers[0] - numbers[-2]) < 0.2 for numbers in alone)


def test_among_equals_the_order_of_the_arguments_decides():
    links = [[layered.Link(0, 4, -7.5), layered.Link(1, 4, 7.5), layered.Link(2, 3, 0.0)]]
    assert layered._uncross([[2, 1, 0], [4, 3]], links) == [[2, 0, 1], [3, 4]]


def test_arguments_enter_from_left_to_right():
    a, b = mg.track(1.0), mg.track(2.0)
    minus, plus = mg.draw(a - b), mg.draw(b - a)
    for drawn in (minus, plus):
        entries = [numbers[-2] for _, numbers in paths(drawn.svg())]
        assert len(drawn.edges) == 2 and entries[0] < entries[1]
    assert minus.edges == [(0, 2), (1, 2)] and plus.edges == [(1, 2), (0, 2)]


# ------------------------------------------------------------------------------------------------- drawings


def test_mlp_loss_is_sound_and_says_everything(device):
    loss, names = mlp_loss(device)
    drawn = mg.draw(loss, names=names)
    assert_sound(drawn)
    titles = [node.title for node in drawn.nodes]
    assert titles.count("dense") == 2 and titles.count("tanh") == 1 and titles[-1] == "multiply(·, 0.25)"
    assert {"x", "y", "0.W", "0.b", "1.W", "1.b"} < set(titles)
    kinds = {node.title: node.kind for node in drawn.nodes}
    assert (kinds["x"], kinds["0.W"], kinds["tanh"], kinds[titles[-1]]) == ("constant", "leaf", "operation", "output")
    assert "(3, 2) float64" in texts(drawn.svg()) and f"= {float(loss):.4g}" in texts(drawn.svg())


def test_a_repeated_argument_has_two_edges():
    a = mg.track(3.0)
    drawn = mg.draw(a * a)
    assert drawn.edges == [(0, 1), (0, 1)]
    first, second = (numbers[-2] for _, numbers in paths(drawn.svg()))
    assert second - first == pytest.approx(layered.PORT, abs=0.2)
    assert EDGE.findall(drawn.dot()) == [("0", "1"), ("0", "1")]


def test_one_array_used_twice_is_one_constant():
    c, a = np.ones(3), mg.track(np.ones(3))
    drawn = mg.draw(a * c + c)
    assert [n.kind for n in drawn.nodes] == ["leaf", "constant", "operation", "output"]
    assert drawn.edges == [(0, 2), (1, 2), (2, 3), (1, 3)]


def test_numbers_stand_in_the_heading():
    a = mg.track(2.0)
    heading = {t: mg.draw(t).nodes[-1].title for t in (1 - a, a**2, a / np.float64(4), mg.leaky_relu(a, 0.1))}
    assert list(heading.values()) == ["subtract(1, ·)", "power(·, 2)", "divide(·, 4)", "leaky_relu(slope=0.1)"]


def test_keywords_that_tell_something_stand_in_the_heading():
    x = mg.track(np.ones((2, 3)))
    found = [mg.draw(t).nodes[-1].title for t in (mg.sum(x), mg.sum(x, axis=0), mg.einsum("ij->ji", x))]
    assert found == ["sum", "sum(axes=(-2,))", "einsum(ij->ji)"]
    assert mg.draw(mg.clip(x, np.zeros(3), None)).nodes[-1].title == "clip"


def test_no_bias_is_no_node():
    h, w = np.ones((2, 3)), mg.track(np.ones((1, 3)))
    drawn = mg.draw(mg.dense(h, w))
    assert [n.title for n in drawn.nodes] == ["leaf", "constant", "dense"]
    assert drawn.edges == [(1, 2), (0, 2)]


def test_a_leaf_alone():
    drawn = mg.draw(mg.track(1.5))
    assert_sound(drawn)
    assert (drawn.nodes[0].kind, drawn.nodes[0].lines, drawn.edges) == ("leaf", ("float64", "= 1.5"), [])


@pytest.mark.parametrize(
    "array, lines",
    [
        (np.array(-0.0), ["= 0"]),
        (np.array([1.0, 2.5]), ["[1, 2.5]"]),
        (np.array([[1.0, np.nan], [-np.inf, 1e-9]]), ["[1, nan]", "[−inf, 1e−09]"]),
        (np.arange(9.0), []),
        (np.arange(5.0), []),
        (np.ones((1, 2, 2)), []),
        (np.empty((0, 2)), []),
    ],
)
def test_values_of_small_arrays(array, lines):
    t = mg.track(array)
    assert list(mg.draw(t).nodes[0].lines[1:]) == lines
    assert mg.draw(t, values=False).nodes[0].lines == mg.draw(t).nodes[0].lines[:1]


def test_constants_of_other_kinds_are_shown():
    t = mg.track(np.ones(3)) * np.array([True, False, True])
    assert mg.draw(t).nodes[1].lines == ("(3,) bool", "[True, False, True]")


def test_names_come_from_tensors_from_windows_and_from_both():
    net = nn.mlp([1, 1])
    tracked = net.init().track()
    z = net(tracked, np.ones((1, 1), "float32"))
    assert {"0.W", "0.b"} < {n.title for n in mg.draw(z, names=tracked).nodes}
    both = mg.draw(z, names={**tracked, z: "z"})
    assert both.nodes[-1].title == "z = dense" and "0.W" in {n.title for n in both.nodes}


def test_any_text_may_stand_in_a_box():
    x = mg.track(1.0)
    name = '<b> & "q" \\N \\ \' ]]> \x00\x1b\ud800 {|} 日本 ' + "long " * 30
    op = mg.elementwise(lambda a: a, 1.0, name=name)
    drawn = mg.draw(op(x), names={x: "line\nbreak"})
    assert_sound(drawn)
    shown = texts(drawn.svg())
    assert shown[0] == "line break" and any(t.startswith('<b> & "q" \\N \\ \' ]]> ���') for t in shown)
    assert max(map(len, shown)) <= 36
    labels = dict(NODE.findall(drawn.dot()))
    assert len(labels) == 2 and r"<b> & \"q\" \\N \\ '" in labels["1"]
    drawn.dot().encode()


def test_dot_parses():
    drawn = mg.draw(*mlp_loss()[:1])
    dot = drawn.dot()
    assert dot.startswith("digraph {\n") and dot.endswith("}\n")
    nodes, edges = NODE.findall(dot), EDGE.findall(dot)
    assert [int(k) for k, _ in nodes] == list(range(len(drawn.nodes)))
    assert [(int(a), int(b)) for a, b in edges] == drawn.edges
    assert len(dot.splitlines()) == 3 + len(nodes) + len(edges)


def test_the_same_graph_gives_the_same_picture():
    (first, names), (second, other) = mlp_loss(), mlp_loss()
    assert first.seq != second.seq
    assert mg.draw(first, names=names).svg() == mg.draw(second, names=other).svg()
    assert mg.draw(first).dot() == mg.draw(second).dot()


def test_two_pictures_on_a_page_share_no_names():
    svg = mg.draw(*mlp_loss()[:1]).svg()
    assert not re.search(r'\b(id|class)="|<style|url\(#', svg)


def test_many_arguments_fit_on_a_box():
    assert_sound(mg.draw(mg.concatenate([mg.track(np.ones(1)) for _ in range(40)])))


def test_too_large_a_graph_is_refused_and_dot_is_not():
    x = mg.track(1.0)
    y = x
    for _ in range(drawing.LIMIT - 1):
        y = mg.sin(y)
    assert_sound(mg.draw(y))
    drawn = mg.draw(mg.sin(y))
    with pytest.raises(
        ValueError, match=r"^this graph has 201 nodes.*up to 200; draw a Tensor further inside.*\.dot\(\)"
    ):
        drawn.svg()
    with pytest.raises(NotImplementedError):  # what makes a notebook show the text
        mg.sin(y)._repr_svg_()
    assert len(NODE.findall(drawn.dot())) == drawing.LIMIT + 1


def test_a_chain_longer_than_the_stack_has_a_dot():
    y = mg.track(1.0)
    for _ in range(5000):
        y = y + 1.0
    assert len(mg.draw(y, values=False).nodes) == 5001


def test_long_edges_run_around_the_boxes():
    x = mg.track(1.0)
    y = x
    for _ in range(20):
        y = mg.sin(y) * x
    assert_sound(mg.draw(y))


def test_notebooks_show_tensors_and_drawings():
    y = mg.exp(mg.track(1.0))
    assert y._repr_svg_() == mg.draw(y).svg() == mg.draw(y)._repr_svg_()
    assert repr(mg.draw(y)) == "Drawing(2 nodes, 1 edges)"


def test_an_array_is_refused():
    with pytest.raises(TypeError, match="^draw takes a Tensor, not ndarray"):
        mg.draw(np.ones(2))


@pytest.mark.parametrize("suffix", [".svg", ".dot", ".SVG"])
def test_save(tmp_path, suffix):
    drawn = mg.draw(mg.exp(mg.track(1.0)))
    path = tmp_path / f"graph{suffix}"
    drawn.save(path)
    drawn.save(str(path))
    expected = drawn.dot() if suffix == ".dot" else drawn.svg()
    assert path.read_text(encoding="utf-8") == expected
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("name", ["graph.png", "graph"])
def test_save_refuses_other_suffixes(tmp_path, name):
    with pytest.raises(ValueError, match=r"saved as \.svg or \.dot, not '"):
        mg.draw(mg.track(1.0)).save(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_failed_save_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "graph.svg"
    path.write_text("old")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        mg.draw(mg.track(1.0)).save(path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["graph.svg"]
