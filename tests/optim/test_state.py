"""What every method of the laboratory's table keeps to, tested by being listed there.

State is arrays and numbers: a run that is stopped, saved and resumed is bit-identical. The loss falls. float32 stays
float32. A method that says that it cannot go on leaves θ and its state as they were.
"""

import math

import numpy as np
import pytest
from cases import chain, host
from instances import SPECS, variants

import minigrad as mg
from minigrad import backend, losses, nn
from minigrad.archive import read_npz, write_npz
from optim import Stopped
from optim.lab import functions
from optim.lab.methods import INNER, METHODS, NOT_TUNED, Choice

VARIANTS = variants()
STEPS = 20

every = pytest.mark.parametrize("label", VARIANTS)


def steps(label):
    """How many steps have to lower the loss: mostly noise needs more of them."""
    return 2000 if label == "weighted-search" else STEPS


def batches(method, device, count=8):
    """An objective a step over one θ: each on a batch of its own, or one for all where a method wants the whole."""
    first = chain(device=device)
    if method.full_batch:
        return [first] * count
    rest = [chain(device=device, seed=k) for k in range(1, count)]
    return [first, *(mg.Objective(f.net, f.loss, first.params, *f.args, f.targets) for f in rest)]


def plane(device):
    """A 2-D function that any rate up to 2 goes down."""
    return functions.valley.objective(start=(3.5, 2.5), device=device, angle=30.0)


def takes_functions(method):
    """Whether a method can go on a plain function; a refusal has to be one clear sentence."""
    f = plane("cpu")
    try:
        method.step(f, method.init(f.params))
    except (TypeError, ValueError) as refusal:
        told = str(refusal)
        assert any(words in told for words in ("needs a network", "dense layers", "NAME.W")), told
        assert "\n" not in told and f.params.vector.tolist() == [3.5, 2.5]
        return False
    return True


def walk(method, objectives, state):
    """Steps until the objectives or the method end; the number of those taken."""
    for k, f in enumerate(objectives):
        try:
            method.step(f, state)
        except Stopped:
            return k
    return len(objectives)


def through_a_file(values, path, device):
    """A dictionary as it comes back from a file."""
    write_npz(path, values)
    back = read_npz(path)
    return {k: backend.asarray(v, device) if isinstance(v, np.ndarray) else v for k, v in back.items()}


def resumed(method, make, device, path):
    """(whole, resumed): (θ, state, steps taken) of a run, and of one that went through a file on its way."""
    found = []
    for cut in (8, 5):
        objectives = make()
        params = objectives[0].params
        state = method.init(params, rng=3)
        taken = walk(method, objectives[:cut], state)
        if cut < 8 and taken == cut:
            saved = through_a_file({"theta": params.vector, **state}, path, device)
            objectives = make()  # as a new process does: nothing that a method left on the old ones
            params = objectives[0].params
            params.vector = saved.pop("theta")
            state = saved
            taken += walk(method, objectives[cut:], state)
        found.append((host(params.vector), {k: backend.to_host(v) for k, v in state.items()}, taken))
    return found


def same(whole, again):
    (theta, state, taken), (theta2, state2, taken2) = whole, again
    assert taken == taken2 and list(state) == list(state2)
    np.testing.assert_array_equal(theta, theta2)
    for key, value in state.items():
        assert type(value) is type(state2[key]), key
        np.testing.assert_array_equal(value, state2[key], err_msg=key)


@every
def test_resume_is_bit_identical(label, device, tmp_path):
    method = VARIANTS[label]
    same(*resumed(method, lambda: batches(method, device), device, tmp_path / "state.npz"))


@every
def test_resume_is_bit_identical_on_a_function(label, device, tmp_path):
    method = VARIANTS[label]
    if takes_functions(method):
        same(*resumed(method, lambda: [plane(device)] * 8, device, tmp_path / "state.npz"))


@every
def test_every_method_lowers_the_loss(label, device):
    method = VARIANTS[label]
    f = chain(n=20, device=device)
    before = float(f.value)
    state = method.init(f.params, rng=0)
    taken = walk(method, [f] * steps(label), state)
    assert float(f.value) < before and state["t"] == taken > 0


@every
def test_every_method_that_takes_functions_lowers_them(label):
    method = VARIANTS[label]
    if takes_functions(method):
        f = functions.valley.objective(start=(-1.0, 0.5))
        before = float(f.value)
        walk(method, [f] * steps(label), method.init(f.params, rng=0))
        assert float(f.value) < before


@every
def test_float32_stays_float32(label, device):
    method = VARIANTS[label]
    rng = np.random.default_rng(0)
    net = nn.mlp([5, 6, 3], hidden="sigmoid")
    params = net.init(rng=0, device=device)
    x = backend.asarray(rng.random((7, 5), dtype=np.float32), device)
    y = backend.asarray(rng.integers(0, 3, 7), device)
    f = mg.Objective(net, losses.softmax_cross_entropy, params, x, y, l2=0.01)
    state = method.init(params)
    for _ in range(3):
        update = method.update(f, state)
        assert update.dtype == np.float32 and update.shape == params.vector.shape
        assert backend.device_of(update) == device
        params.vector += update
        state["t"] += 1
    for key, value in state.items():
        assert isinstance(value, (int, float, np.generic)) or hasattr(value, "ndim"), key
        assert not hasattr(value, "dtype") or value.dtype.kind in "iu" or value.dtype == np.float32, key


# ---------------------------------------------------------------------------------- points where one cannot go on


class Broken:
    """2-D functions that are no number anywhere, or from some place on."""

    @staticmethod
    def nowhere(p):
        return (p["x"] + p["y"]) * math.nan

    @staticmethod
    def slope(p):
        return p["x"] ** 2 + mg.where(p["y"] > 1.0, p["y"], -p["y"]) * (0.0 * p["x"] + 1.0) + p["y"] ** 2


def hard_points():
    """Objectives on which a deciding method has to give up: NaN, minima, saddles, no minimum."""
    start = mg.Params
    yield mg.Objective(Broken.nowhere, start(x=1.0, y=2.0))
    yield mg.Objective(lambda p: p["x"] + p["y"] * math.inf, start(x=1.0, y=2.0))
    for f in (functions.saddle, functions.cubic, functions.beale, functions.valley):
        yield f.objective(rng=1)
        yield f.objective(start=(0.0, 0.0))
    yield functions.rosenbrock.objective(start=(1.0, 1.0))
    broken = chain()
    yield mg.Objective(broken.net, broken.loss, broken.params, broken.args[0] * math.nan, broken.targets)
    at_rest = functions.linear_regression
    yield at_rest.objective(start=at_rest.minimisers[0])


def kept(f, state):
    return f.params.vector.copy(), {k: v.copy() if hasattr(v, "ndim") else v for k, v in state.items()}


@every
def test_a_method_that_stops_leaves_everything_as_it_was(label):
    method = VARIANTS[label]
    for f in hard_points():
        state = method.init(f.params, rng=0)
        with np.errstate(all="ignore"):
            for _ in range(STEPS):
                theta, before = kept(f, state)
                try:
                    method.step(f, state)
                except Stopped as stop:
                    told = str(stop)
                    assert told and "\n" not in told and len(told) < 300
                    np.testing.assert_array_equal(f.params.vector, theta)
                    assert list(state) == list(before)
                    for key, value in before.items():
                        np.testing.assert_array_equal(state[key], value, err_msg=key)
                    break
                except (TypeError, ValueError):  # a refusal, or a factorisation of NaN
                    np.testing.assert_array_equal(f.params.vector, theta)
                    break


# -------------------------------------------------------------------------------------------------------- the table


@pytest.mark.parametrize("name", {**METHODS, **INNER})
def test_entries_are_complete(name):
    entry = {**METHODS, **INNER}[name]
    assert entry.about and entry.equation and entry.source and not entry.about.endswith(".")
    assert entry.kind.__doc__
    settings = {s: v for s, v in vars(entry.kind).items() if s in getattr(entry.kind, "__dataclass_fields__", {})}
    fields = set(getattr(entry.kind, "__dataclass_fields__", {}))
    assert set(entry.ranges) <= fields
    for setting in fields - {"inner"}:
        default = settings.get(setting, getattr(entry.kind, setting, None))
        if isinstance(default, (int, float)) and not isinstance(default, bool):
            assert setting in entry.ranges or setting in NOT_TUNED, f"{setting}: give it a Range or list it"
        if isinstance(default, str):
            assert isinstance(entry.ranges.get(setting), Choice) or setting in NOT_TUNED, f"{setting}: give it a Choice"


def test_every_entry_is_tested():
    assert {spec.partition(":")[0] for spec in SPECS} == set(METHODS)
