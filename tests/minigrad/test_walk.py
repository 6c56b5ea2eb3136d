"""The graph and the walks over it: long chains, diamonds, what is visited, what is freed, what is never edited."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from op_table import ROWS
from oracles import Graph, close, normal
from test_ops import partial_tangents

import minigrad as mg
from minigrad import backend, walk
from minigrad.tensor import Tensor
from minigrad.walk import between, forward, forward_over_reverse, reverse

MILLION = 1_000_000


@pytest.fixture
def no_collector():
    """Nothing may be left for the cyclic collector, so it is off; what it finds afterwards was leaked."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_a_chain_of_a_million_operations_runs_backwards_and_is_freed(no_collector):
    x = Tensor(np.float64(1.0))
    y, first = x, weakref.ref(x)
    for _ in range(MILLION):
        y = y * 1.000001
    order, reach = between(y, [x])
    assert len(order) == MILLION
    slope = reverse(order, reach, {y.seq: np.float64(1.0)})[x.seq]
    assert slope == pytest.approx(1.000001**MILLION, rel=1e-9)
    del order, reach, x, y
    assert first() is None


def test_a_long_chain_runs_forwards_and_to_second_order():
    def chain(x):
        for _ in range(3_000):
            x = mg.sin(x)
        return x

    x = np.float64(0.3)
    slope = mg.grad(chain)(x)
    assert mg.jvp(chain, (x,), (np.float64(1.0),))[1] == pytest.approx(slope, rel=1e-12)
    assert mg.hvp(chain, x, np.float64(1.0)) == pytest.approx(mg.grad(mg.grad(chain))(x), rel=1e-9)


def test_a_diamond_is_walked_once_per_node(monkeypatch):
    """60 doublings have 2⁶⁰ paths."""
    sent = []
    send = walk.send
    monkeypatch.setattr(walk, "send", lambda node, *rest: sent.append(node.seq) or send(node, *rest))

    def doubled(x):
        for _ in range(60):
            x = x + x
        return x

    assert float(mg.grad(doubled)(np.float64(1.0))) == 2.0**60
    assert len(sent) == len(set(sent)) == 60
    assert float(mg.jvp(doubled, (np.float64(1.0),), (np.float64(1.0),))[1]) == 2.0**60
    assert float(mg.hvp(lambda x: doubled(x) ** 2, np.float64(1.0), np.float64(1.0))) == 2.0**121


def test_only_what_leads_from_the_inputs_is_visited():
    x, other = Tensor(np.ones(2)), Tensor(np.ones(2))
    aside = mg.exp(other) * 2.0
    y = mg.sin(x)
    out = mg.sum(y * aside)
    order, reach = between(out, [x])
    assert [node.op.name for node in order] == ["sin", "multiply", "sum"]
    assert reach == {x.seq, *(node.seq for node in order)}


def test_a_graph_is_nested_where_it_reads_something_older_than_its_inputs():
    old, x = Tensor(np.ones(2)), Tensor(np.ones(2))
    young = Tensor(np.ones(2))

    def nested(out):
        return walk.is_nested(out, *between(out, [x]), [x])

    assert nested(x * old) and nested(x * mg.exp(young * mg.sin(old))) and nested(old) and nested(mg.sin(old))
    assert not (nested(x) or nested(x * young) or nested(mg.exp(young)) or nested(x * mg.exp(young)))


def test_inputs_may_depend_on_one_another():
    x = Tensor(np.float64(3.0))
    y = x * x
    z = y * x
    found = reverse(*between(z, [x, y]), {z.seq: np.float64(1.0)}, keep={x.seq, y.seq})
    assert (found[x.seq], found[y.seq]) == (27.0, 3.0)


def test_only_the_kept_cotangents_remain():
    x = Tensor(np.float64(3.0))
    y = mg.square(x)
    z = mg.square(y)
    assert set(reverse(*between(z, [x]), {z.seq: np.float64(1.0)})) == {x.seq}
    found = reverse(*between(z, [x]), {z.seq: np.float64(1.0)}, keep={y.seq})
    assert found == {x.seq: 108.0, y.seq: 18.0}


def test_frozen_cotangents_are_only_read():
    x = Tensor(np.float64(3.0))
    y = mg.square(x)
    z = mg.square(y)
    order, reach = between(z, [x])
    every = {node.seq for node in (x, y, z)}
    cotangents = reverse(order, reach, {z.seq: np.float64(1.0)}, keep=every)
    before = dict(cotangents)
    moved = forward(order, {x.seq: np.float64(1.0)})
    turned = forward_over_reverse(order, reach, moved, cotangents, {}, frozen=True)
    assert turned[x.seq] == 12 * 3.0**2
    assert cotangents == before


# ------------------------------------------------------------------------------------------------------------- leaks


def model(x):
    h = mg.tanh(x @ normal(3, 3)) + x[::-1] * mg.softmax(x)
    return mg.sum(mg.logsumexp(h, axis=-1) * mg.max(x, axis=1) / mg.norm(h, axis=1))


X, V = normal(4, 3, seed=1), normal(4, 3, seed=2)
TRANSFORMS = {
    "grad": lambda: mg.grad(model)(X),
    "value_and_grad": lambda: mg.value_and_grad(model)(X),
    "vjp": lambda: mg.vjp(mg.sin, X)[1](V),
    "jvp": lambda: mg.jvp(model, (X,), (V,)),
    "jacobian": lambda: mg.jacobian(mg.softmax)(X),
    "hessian": lambda: mg.hessian(model)(X),
    "hvp": lambda: mg.hvp(model, X, V),
    "ggnvp": lambda: mg.ggnvp(mg.softmax, lambda z: mg.sum(z**3), X, V),
    "grad of hvp": lambda: mg.grad(lambda x: mg.sum(mg.hvp(model, x, V)))(X),
}


@pytest.mark.parametrize("name", TRANSFORMS)
def test_nothing_is_left_to_the_collector(name, no_collector):
    TRANSFORMS[name]()
    gc.collect()
    TRANSFORMS[name]()
    assert gc.collect() == 0


def test_the_graph_is_freed_with_its_last_tensor(no_collector):
    x = Tensor(normal(3))
    y = mg.sin(x) * x
    nodes = [weakref.ref(t) for t in (x, y, y.args[0])]
    del x, y
    assert [r() for r in nodes] == [None] * 3


# ---------------------------------------------------------------------------------------------- nothing is edited


def test_a_gradient_is_not_edited_by_a_later_call():
    y, back = mg.vjp(lambda x: mg.sum(x * x + mg.exp(x) * x), X)
    first = back(1.0)
    kept = first.copy()
    second = back(3.0)
    np.testing.assert_array_equal(first, kept)
    close(second, 3.0 * kept, 1e-14)


def test_cotangents_that_are_shared_are_not_accumulated_in_place():
    """x + x gives both arguments the same array; the third use must not be added into it."""
    g = np.ones(3)
    _, back = mg.vjp(lambda x, y: (x + y) + x, np.zeros(3), np.zeros(3))
    dx, dy = back(g)
    np.testing.assert_array_equal([dx, dy, g], [2 * np.ones(3), np.ones(3), np.ones(3)])


def test_accumulating_makes_a_new_array():
    first = np.ones(2)
    table = {7: first}
    walk.accumulate(table, 7, np.ones(2))
    np.testing.assert_array_equal([table[7], first], [[2.0, 2.0], [1.0, 1.0]])


def test_tangents_that_are_shared_are_not_accumulated_in_place():
    v = np.ones(3)
    _, moved = mg.jvp(lambda x, y: (x + y) + x, (np.zeros(3), np.zeros(3)), (v, v))
    np.testing.assert_array_equal([moved, v], [3 * np.ones(3), np.ones(3)])


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_rules_edit_neither_their_arguments_nor_earlier_results(row, monkeypatch):
    """With pooled buffers for everything, whose numbers must be those of fresh arrays."""
    arrays = row.draw()
    graph = Graph(row, arrays)
    g, tangents = normal(*graph.out.shape), partial_tangents(arrays, range(len(arrays)))

    def everything():
        fresh = Graph(row, arrays)
        return [fresh.out.value, *fresh.pull(g), fresh.push(tangents), *fresh.turn(tangents, g)]

    expected = [np.array(a) for a in everything()]
    given = [a.copy() for a in (*arrays, g, *tangents)]
    monkeypatch.setattr(backend, "LARGE", 1)
    held = [everything() for _ in range(3)]
    for found in held:
        for a, b in zip(found, expected):
            close(a, b, 1e-14)
    for before, after in zip(given, (*arrays, g, *tangents)):
        np.testing.assert_array_equal(before, after)
