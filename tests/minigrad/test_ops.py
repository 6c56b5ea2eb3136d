"""First derivatives of every operation, and the laws that every rule keeps: one test, all rows of the table."""

from __future__ import annotations

import numpy as np
import pytest
from op_table import ROWS, primitives, public_functions
from oracles import Graph, by_elements, close, complex_step, differences, normal, subsets

from minigrad import backend
from minigrad.tensor import Tensor, raw
from minigrad.walk import between, reverse

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
LEADS = [(), (3,), (2, 3), (1,), (0,), (1, 0)]


def partial_tangents(arrays, chosen, lead=(), seed=1):
    """Random tangents for the chosen arguments, None for the others."""
    return [normal(*lead, *x.shape, seed=seed + i) if i in chosen else None for i, x in enumerate(arrays)]


def looped(fn, lead, shape, *stacked):
    """fn of each slice behind the lead, stacked again."""
    count = int(np.prod(lead))
    flat = [None if s is None else s.reshape(count, *s.shape[len(lead) :]) for s in stacked]
    found = [fn(*(None if f is None else f[k] for f in flat)) for k in range(count)]
    return np.array(found).reshape(lead + shape)


# ------------------------------------------------------------------------------------------------ the table itself


def test_every_primitive_has_a_row():
    assert {name for name, p in primitives().items() if not any(row.op is p for row in ROWS)} == set()


def test_every_public_function_has_a_row():
    without_derivative = {"one_hot"}
    missing = {name for name, f in public_functions().items() if not any(row.op is f for row in ROWS)}
    assert missing == without_derivative


def test_row_names_are_unique():
    names = [row.name for row in ROWS]
    assert sorted(set(names)) == sorted(names)


# ------------------------------------------------------------------------------------------------ first derivatives


@every_row
def test_reverse_mode_agrees_with_differences(row):
    arrays = row.draw()
    g = normal(*row(*arrays).shape)
    expected = [by_elements(lambda v: differences(row, arrays, v), arrays, i, g) for i in range(len(arrays))]
    for tracked in subsets(len(arrays)):
        for i, found in zip(tracked, Graph(row, arrays, tracked).pull(g)):
            close(found, expected[i], 1e-7)


@every_row
def test_forward_mode_agrees_with_differences(row):
    arrays = row.draw()
    graph = Graph(row, arrays)
    for chosen in subsets(len(arrays)):
        tangents = partial_tangents(arrays, chosen)
        close(graph.push(tangents), differences(row, arrays, tangents), 1e-7)


@pytest.mark.parametrize("row", [row for row in ROWS if row.holomorphic], ids=lambda row: row.name)
def test_both_modes_agree_with_complex_steps(row):
    arrays = row.draw()
    graph = Graph(row, arrays)
    g = normal(*graph.out.shape)
    for i, found in enumerate(graph.pull(g)):
        close(found, by_elements(lambda v: complex_step(row, arrays, v), arrays, i, g), 1e-12)
    for chosen in subsets(len(arrays)):
        tangents = partial_tangents(arrays, chosen)
        close(graph.push(tangents), complex_step(row, arrays, tangents), 1e-12)


@every_row
def test_autograd_agrees(row):
    autograd = pytest.importorskip("autograd")
    theirs = row.oracle(autograd.numpy)
    if theirs is None:
        pytest.skip(f"{row.name} has no counterpart in autograd")
    arrays = row.draw()
    graph = Graph(row, arrays)
    close(graph.out.value, theirs(*arrays), 1e-10)
    g = normal(*graph.out.shape)
    for i, found in enumerate(graph.pull(g)):
        pull, _ = autograd.make_vjp(theirs, i)(*arrays)
        close(found, pull(g), 1e-10)


# ------------------------------------------------------------------------------------------------------ leading axes


@every_row
def test_cotangents_may_have_leading_axes(row):
    graph = Graph(row, row.draw())
    for lead in LEADS:
        g = normal(*lead, *graph.out.shape)
        for i, found in enumerate(graph.pull(g)):
            close(found, looped(lambda g, i=i: graph.pull(g)[i], lead, graph.inputs[i].shape, g), 1e-12)


@every_row
def test_tangents_may_have_leading_axes(row):
    arrays = row.draw()
    graph = Graph(row, arrays)
    for lead in LEADS:
        for chosen in subsets(len(arrays)):
            tangents = partial_tangents(arrays, chosen, lead)
            expected = looped(lambda *ts: graph.push(ts), lead, graph.out.shape, *tangents)
            close(graph.push(tangents), expected, 1e-12)


@every_row
def test_a_recorded_cotangent_may_have_leading_axes(row):
    """⟨w, Jᵀg⟩ is differentiated in g (that is J w) and in the arguments, with a lead and without."""
    arrays = row.draw()
    graph = Graph(row, arrays)
    weights = partial_tangents(arrays, range(len(arrays)), (2, 3), seed=5)
    g = normal(2, 3, *graph.out.shape)

    def derivatives(g, weights):
        g = Tensor(g)
        total = 0.0
        for w, c in zip(weights, graph.pull(g, record=True)):
            total = total + (c * w).sum() if type(c) is Tensor else total
        if type(total) is float:
            return [np.zeros(x.shape) for x in (g, *arrays)]
        inputs = [g, *graph.inputs]
        found = reverse(*between(total, inputs), {total.seq: np.ones(())})
        return [found.get(x.seq, np.zeros(x.shape)) for x in inputs]

    dg, *dx = derivatives(g, weights)
    close(dg, graph.push(weights), 1e-12)
    parts = [derivatives(g[k], [w[k] for w in weights])[1:] for k in np.ndindex(2, 3)]
    for found, expected in zip(dx, zip(*parts)):
        close(found, sum(expected), 1e-12)


# ------------------------------------------------------------------------------------- layouts, aliases and precision


def transposed(x):
    return np.array(x, order="F")


def strided(x):
    """The same values with gaps between them, and counted backwards along the first axis."""
    wide = np.repeat(x, 2, axis=-1)[..., ::2] if x.ndim else x
    return wide[::-1].copy(order="K")[::-1] if x.ndim else wide


@pytest.mark.parametrize("layout", [transposed, strided])
@every_row
def test_layout_in_memory_does_not_matter(row, layout):
    arrays = row.draw()
    plain, other = Graph(row, arrays), Graph(row, [layout(x) for x in arrays])
    close(other.out.value, plain.out.value, 1e-14)
    g = normal(*plain.out.shape)
    for found, expected in zip(other.pull(layout(g)), plain.pull(g)):
        close(found, expected, 1e-14)
    tangents = partial_tangents(arrays, range(len(arrays)))
    close(other.push([layout(t) for t in tangents]), plain.push(tangents), 1e-14)


@pytest.mark.parametrize(
    "row", [row for row in ROWS if len({x.shape for x in row.draw()}) == 1 < len(row.draw())], ids=lambda row: row.name
)
def test_the_same_tensor_may_be_given_twice(row):
    arrays = [abs(row.draw()[0]) + 0.5] * len(row.draw())
    apart = Graph(row, arrays)
    twice = Graph(lambda x: row(*[x] * len(arrays)), arrays[:1])
    g, v = normal(*apart.out.shape), normal(*arrays[0].shape, seed=1)
    close(twice.pull(g)[0], sum(apart.pull(g)), 1e-12)
    close(twice.push([v]), apart.push([v] * len(arrays)), 1e-12)
    close(twice.turn([v], g)[0], sum(apart.turn([v] * len(arrays), g)), 1e-12)


@every_row
def test_float32_stays_float32(row):
    arrays = row.draw()
    exact, graph = Graph(row, arrays), Graph(row, [x.astype(np.float32) for x in arrays])
    g = normal(*graph.out.shape)
    tangents = partial_tangents(arrays, range(len(arrays)))
    halves = [t.astype(np.float32) for t in tangents]
    half = g.astype(np.float32)
    found = [graph.out.value, *graph.pull(half), graph.push(halves), *graph.turn(halves, half)]
    expected = [exact.out.value, *exact.pull(g), exact.push(tangents), *exact.turn(tangents, g)]
    for low, high in zip(found, expected):
        close(low, high, 1e-4)
        assert low.dtype == np.float32 or not high.any()


# --------------------------------------------------------------------------------------------------------- the device


@every_row
def test_the_device_gives_the_same_numbers(row, device, not_emulated):
    if device == "cuda":
        not_emulated(row.cuda)
    arrays = row.draw()
    here, there = Graph(row, arrays), Graph(row.with_device(device), [backend.asarray(x, device) for x in arrays])
    assert backend.device_of(raw(there.out)) == device
    close(backend.to_host(raw(there.out)), raw(here.out), 1e-12)
    tangents = partial_tangents(arrays, range(len(arrays)))
    for lead in [(), (2,)]:
        g = normal(*lead, *here.out.shape)
        for found, expected in zip(there.pull(backend.asarray(g, device)), here.pull(g)):
            close(backend.to_host(found), expected, 1e-12)
    pushed = there.push([backend.asarray(t, device) for t in tangents])
    close(backend.to_host(pushed), here.push(tangents), 1e-12)
