"""Second and third derivatives of every operation: all the ways to reach them, against one another and differences.

For s(x) = ⟨g, f(x)⟩ with a random g, the Hessian of s times a tangent v of some of the arguments is reached by the
forward-over-reverse walk, reverse over reverse, reverse over forward and forward over reverse mode; and vᵀ H w by
forward over forward. Which argument a rule reads shows when v moves one argument and not the other.
"""

from __future__ import annotations

import numpy as np
import pytest
from op_table import ROWS
from oracles import Graph, close, differences, normal, subsets
from test_ops import LEADS, looped, partial_tangents

from minigrad.tensor import Tensor, raw
from minigrad.walk import between, forward, reverse

every_row = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)


def inner(left, right):
    """⟨left, right⟩ over lists, as a Tensor where anything is one; None counts as zero."""
    total = 0.0
    for a, b in zip(left, right):
        if a is not None and b is not None:
            total = total + (a * b).sum()
    return total


def gradient(scalar, inputs):
    """Derivative of a recorded number in the inputs."""
    if type(scalar) is not Tensor:
        return [np.zeros(x.shape) for x in inputs]
    found = reverse(*between(scalar, inputs), {scalar.seq: np.ones(())})
    return [found.get(x.seq, np.zeros(x.shape)) for x in inputs]


def along(recorded, inputs, tangents):
    """Derivative of something recorded along the tangents of the inputs; the number 0 where it does not move."""
    if type(recorded) is not Tensor:
        return 0.0
    order, _ = between(recorded, inputs)
    return forward(order, {x.seq: t for x, t in zip(inputs, tangents) if t is not None}).get(recorded.seq, 0.0)


def setting(row):
    arrays = row.draw()
    graph = Graph(row, arrays)
    return arrays, graph, normal(*graph.out.shape)


@every_row
def test_the_walk_agrees_with_differences_of_gradients(row):
    arrays, graph, g = setting(row)
    for moved in subsets(len(arrays)):
        tangents = partial_tangents(arrays, moved)
        expected = differences(lambda *xs: Graph(row, xs).pull(g), arrays, tangents)
        for found, slope in zip(graph.turn(tangents, g), expected):
            close(found, slope, 1e-7)


@every_row
def test_the_walk_agrees_with_reverse_over_reverse(row):
    arrays, graph, g = setting(row)
    recorded = graph.pull(g, record=True)
    for moved in subsets(len(arrays)):
        tangents = partial_tangents(arrays, moved)
        for found, expected in zip(graph.turn(tangents, g), gradient(inner(recorded, tangents), graph.inputs)):
            close(found, expected, 1e-10)


@every_row
def test_a_walk_over_some_arguments_is_part_of_the_whole(row):
    arrays, graph, g = setting(row)
    for tracked in subsets(len(arrays))[:-1]:
        part = Graph(row, arrays, tracked)
        tangents = partial_tangents(arrays, tracked)
        whole = graph.turn(tangents, g)
        for i, found in zip(tracked, part.turn([tangents[i] for i in tracked], g)):
            close(found, whole[i], 1e-12)


@every_row
def test_the_recorded_walk_gives_the_same_numbers(row):
    arrays, graph, g = setting(row)
    tangents = partial_tangents(arrays, range(len(arrays)))
    for found, expected in zip(graph.turn(tangents, g, record=True), graph.turn(tangents, g)):
        close(raw(found), expected, 1e-14)


@every_row
def test_reverse_over_forward_agrees_with_the_walk(row):
    arrays, graph, g = setting(row)
    for moved in subsets(len(arrays)):
        tangents = partial_tangents(arrays, moved)
        scalar = inner([graph.push(tangents, record=True)], [g])
        for found, expected in zip(gradient(scalar, graph.inputs), graph.turn(tangents, g)):
            close(found, expected, 1e-10)


@every_row
def test_forward_over_either_mode_agrees_with_the_walk(row):
    arrays, graph, g = setting(row)
    others = partial_tangents(arrays, range(len(arrays)), seed=7)
    by_reverse = inner(graph.pull(g, record=True), others)
    for moved in subsets(len(arrays)):
        tangents = partial_tangents(arrays, moved)
        expected = inner(graph.turn(tangents, g), others)
        by_forward = inner([graph.push(tangents, record=True)], [g])
        close(along(by_reverse, graph.inputs, tangents), expected, 1e-10)
        close(along(by_forward, graph.inputs, others), expected, 1e-10)


@every_row
def test_the_walk_takes_cotangents_with_leading_axes(row):
    arrays, graph, _ = setting(row)
    for lead in LEADS:
        g = normal(*lead, *graph.out.shape)
        for moved in subsets(len(arrays)):
            tangents = partial_tangents(arrays, moved)
            for i, found in enumerate(graph.turn(tangents, g)):
                expected = looped(lambda g, i=i, t=tangents: graph.turn(t, g)[i], lead, arrays[i].shape, g)
                close(found, expected, 1e-12)


@every_row
def test_a_walk_recorded_under_leading_axes_can_be_pushed_through(row):
    arrays, graph, _ = setting(row)
    g = normal(2, 3, *graph.out.shape)
    recorded = graph.pull(g, record=True)
    for moved in subsets(len(arrays)):
        tangents = partial_tangents(arrays, moved)
        for c, expected in zip(recorded, graph.turn(tangents, g)):
            close(along(c, graph.inputs, tangents) + np.zeros(expected.shape), expected, 1e-12)


@every_row
def test_third_derivatives_agree_with_differences(row):
    """The recorded forward-over-reverse walk, differentiated backwards and forwards."""
    arrays, graph, g = setting(row)
    tangents = partial_tangents(arrays, range(len(arrays)))
    others = partial_tangents(arrays, range(len(arrays)), seed=7)
    scalar = inner(graph.turn(tangents, g, record=True), others)
    slopes = differences(lambda *xs: Graph(row, xs).turn(tangents, g), arrays, tangents)
    expected = inner(slopes, others)
    close(inner(gradient(scalar, graph.inputs), tangents), expected, 1e-7)
    close(along(scalar, graph.inputs, tangents), expected, 1e-7)
