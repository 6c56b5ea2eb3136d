"""x[index] for every form of index that NumPy knows: values, gradients, and the sentences that refuse."""

from __future__ import annotations

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles import Graph, close, normal

import minigrad as mg
from minigrad import backend, ops

shapes = hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4)


def agrees_with_numpy(x, index):
    """The value is NumPy's, on arrays and on Tensors, and the gradient adds up repeated elements."""
    expected = x[index]
    np.testing.assert_array_equal(ops.getitem(x, index), expected)
    graph = Graph(lambda t: t[index], [x])
    np.testing.assert_array_equal(graph.out.value, expected)
    for lead in [(), (2,)]:
        g = normal(*lead, *expected.shape)
        adds = np.zeros(lead + x.shape)
        for k in np.ndindex(*lead):
            np.add.at(adds[k], index, g[k])
        close(graph.pull(g)[0], adds, 1e-14)


@st.composite
def mixed_indices(draw, shape):
    """Integers, slices, new axes, one ellipsis and integer arrays of a common shape, in any order."""
    common = draw(hnp.array_shapes(min_dims=0, max_dims=2, min_side=1, max_side=3))
    used = draw(st.integers(0, len(shape)))
    dots = draw(st.none() | st.integers(0, used))
    entries, axis = [], 0
    for k in range(used):
        if dots == k:
            entries.append(Ellipsis)
            axis = len(shape) - (used - k)
        n = shape[axis]
        one = st.integers(-n, n - 1)
        kinds = [one, st.slices(n), hnp.arrays(np.int64, common, elements=one)]
        if common and common[0] == 1:
            kinds.append(st.lists(one, min_size=1, max_size=1))
        if draw(st.booleans()) and draw(st.booleans()):
            entries.append(None)
        entries.append(draw(st.one_of(kinds)))
        axis += 1
    if dots == used:
        entries.append(Ellipsis)
    return tuple(entries)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_slices_integers_and_new_axes(data):
    shape = data.draw(shapes)
    agrees_with_numpy(normal(*shape), data.draw(hnp.basic_indices(shape, allow_newaxis=True)))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_integer_arrays_among_anything(data):
    shape = data.draw(shapes)
    agrees_with_numpy(normal(*shape), data.draw(mixed_indices(shape)))


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_masks(data):
    shape = data.draw(shapes)
    first = data.draw(st.integers(0, len(shape) - 1))
    last = data.draw(st.integers(first + 1, len(shape)))
    mask = data.draw(hnp.arrays(bool, shape[first:last]))
    agrees_with_numpy(normal(*shape), (slice(None),) * first + (mask,))
    agrees_with_numpy(normal(*shape), (Ellipsis, mask) + (slice(None, None, -1),) * (len(shape) - last))


FORMS = {
    "negative step": np.s_[::-1, ::-2],
    "empty slice": np.s_[3:1],
    "ellipsis alone": np.s_[...],
    "nothing": (),
    "new axes at both ends": np.s_[None, ..., None],
    "an integer": -1,
    "a NumPy integer": np.int64(1),
    "an array without axes": np.array(1),
    "a list": [0, -1, 0],
    "a list in two axes": ([0, 1, 0], [2, -3, 2]),
    "an empty list": [],
    "a mask as a list": [True, False, True],
    "separated arrays": (np.array([0, 2]), slice(None), np.array([1, 1])),
    "separated by a new axis": (np.array([0, 2]), None, np.array([1, 1])),
    "separated from an integer": (0, slice(None), np.array([1, 3, 1])),
    "separated by an ellipsis of no axes": (0, slice(1, 1), Ellipsis, np.array([0])),
    "beside an integer": (slice(None), 1, np.array([1, 3, 1])),
    "arrays that stretch": (np.array([[0], [2]]), np.array([1, 0, 1])),
    "small integers": np.array([2, 0], dtype=np.uint8),
    "a mask and an array": (np.array([True, False, True]), slice(None), np.array([3, 1])),
    "a mask of everything": np.ones((3, 3, 4), dtype=bool),
    "an empty choice": np.array([], dtype=int),
}


@pytest.mark.parametrize("index", FORMS.values(), ids=FORMS.keys())
def test_form(index):
    agrees_with_numpy(normal(3, 3, 4), index)


@pytest.mark.parametrize("index", FORMS.values(), ids=FORMS.keys())
def test_form_on_the_device(index, device):
    x = normal(3, 3, 4)
    there = Graph(lambda t: t[index], [backend.asarray(x, device)])
    np.testing.assert_array_equal(backend.to_host(there.out.value), x[index])
    g = normal(2, *x[index].shape)
    expected = Graph(lambda t: t[index], [x]).pull(g)[0]
    close(backend.to_host(there.pull(backend.asarray(g, device))[0]), expected, 1e-14)


def test_repeated_indices_add_up():
    g = mg.grad(lambda x: mg.sum(x[[0, 0, 2, 0]] * np.array([1.0, 10.0, 100.0, 1000.0])))(np.zeros(3))
    np.testing.assert_array_equal(g, [1011.0, 0.0, 100.0])


@pytest.mark.parametrize(
    "index, sentence",
    [
        (np.s_[0, 0, 0], "3 indices for an array of shape (2, 3)"),
        (5, "index 5 is out of bounds"),
        ([0, 7], "index 7 is out of bounds"),
        (np.array([True, False, True]), "a mask of shape (3,) does not fit an array of shape (2, 3)"),
        (np.s_[..., np.array([True, False])], "a mask of shape (2,) does not fit an array of shape (2, 3)"),
        (True, "True and False are no indices"),
        (np.array(True), "a mask of shape () does not fit"),
        (1.5, "only integers"),
        (np.s_[..., ...], "single ellipsis"),
    ],
    ids=str,
)
def test_an_index_that_does_not_fit_is_refused(index, sentence):
    with pytest.raises(IndexError) as caught:
        mg.track(np.ones((2, 3)))[index]
    assert sentence in str(caught.value)


def test_a_fraction_is_no_index():
    with pytest.raises(TypeError, match="integer"):
        mg.track(np.ones(3))[np.float64(1.5)]


def test_assignment_to_an_element_names_where():
    with pytest.raises(TypeError, match=r"where\(condition, a, b\)"):
        mg.track(np.ones(3))[0] = 1.0
