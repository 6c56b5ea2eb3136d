"""The training loop: equal starts, fair clocks, exact resumption, divergence."""

import math

import numpy as np
import pytest

import minigrad as mg
import optim
from minigrad import backend, data
from optim.lab import catalogue, runs
from optim.lab.errors import LabError, UsageError
from optim.lab.folder import Folder
from optim.lab.problems import problem
from optim.lab.runs import Budget, Comparison, compare
from optim.lab.tasks import NetworkTask
from optim.lab.tuned import TUNED, tuned

SPECS = [*TUNED["digits"], "schedule:adam"]


@pytest.fixture(scope="module")
def task():
    return problem("digits").prepare(data.load("digits8"))


def method(spec, **changes):
    return catalogue.parse(spec, {**tuned("digits", spec), **changes})


def trained(task, methods, budget, folder=None, resume=False, **more):
    comparison = Comparison(task, methods, budget, folder=folder, **more)
    if resume:
        comparison.resume()
    assert comparison.train()
    return comparison


def host_state(run):
    return {k: backend.to_host(v) for k, v in run.state.items()}


# ----------------------------------------------------------------------------------------------------- equal starts


class Recorder(optim.SGD):
    """SGD that keeps what it sees."""

    def init(self, params, rng=0):
        self.seen, self.theta = [], params.vector.copy()  # a warm-up's are dropped by the init that follows it
        return super().init(params, rng)

    def update(self, f, state):
        self.seen.append((f.args[0].copy(), f.targets.copy()))
        return super().update(f, state)


def test_every_method_starts_from_one_theta_and_sees_the_same_batches(task):
    methods = {"a": Recorder(lr=0.1), "b": Recorder(lr=0.5)}
    comparison = Comparison(task, methods, Budget("steps", 60))
    for each in methods.values():
        each.seen.clear()  # the warm-up
    comparison.train()
    a, b = methods.values()
    np.testing.assert_array_equal(a.theta, b.theta)
    assert len(a.seen) == len(b.seen) == 60
    for (xa, ya), (xb, yb) in zip(a.seen, b.seen):
        assert np.array_equal(xa, xb) and np.array_equal(ya, yb)
    assert not np.array_equal(a.seen[0][0], a.seen[1][0])
    assert a.seen[56][0].shape == (3600 - 56 * 64, 64)  # the end of an epoch is shorter


def test_a_run_in_company_is_the_run_alone(task):
    alone = trained(task, {"adam": method("adam")}, Budget("steps", 30)).runs[0]
    company = trained(task, {"acp": method("acp"), "adam": method("adam")}, Budget("steps", 30)).runs[1]
    np.testing.assert_array_equal(alone.params.vector, company.params.vector)


def test_seeds_differ(task):
    first, second = (trained(task, {"sgd": method("sgd")}, Budget("steps", 1), seed=s).runs[0] for s in (0, 1))
    assert first.record.lines[0]["train_loss"] != second.record.lines[0]["train_loss"]


def test_full_batch_methods_get_the_whole_training_part(task):
    run = trained(task, {"gd": method("gd", lr=0.5)}, Budget("epochs", 3)).runs[0]
    assert run.step == 3
    params = task.initial(0)
    for _ in range(3):
        f = mg.Objective(task.net, task.problem.loss, params, *task.train)
        params.vector += f.pullback(-0.5)
    np.testing.assert_array_equal(run.params.vector, params.vector)


def test_warming_up_leaves_no_trace(task):
    each = method("adam")
    run = Comparison(task, {"adam": each}, Budget("steps", 5)).runs[0]
    np.testing.assert_array_equal(run.params.vector, task.initial(0).vector)
    assert run.state["t"] == 0 and not run.state["m"].any() and run.seconds == 0.0


# ---------------------------------------------------------------------------------------------- budgets and clocks


def test_budgets():
    assert Budget("steps", 40).marks(10, 20) == list(range(0, 41, 2))
    assert Budget("steps", 40).marks(10, 100) == list(range(41))
    assert Budget("steps", 3).marks(10, 20) == [0, 1, 2, 3]
    assert Budget("epochs", 2).marks(10, 20) == list(range(21))
    assert Budget("epochs", 0.01).marks(10, 20) == [0, 1]
    assert Budget("seconds", 4.0).marks(10, 20) == pytest.approx([0.2 * k for k in range(21)])
    for unit, amount in (("steps", 0), ("seconds", -1.0), ("seconds", math.inf), ("epochs", math.nan), ("years", 1)):
        with pytest.raises(UsageError):
            Budget(unit, amount)


def test_evaluation_points_are_even_and_include_both_ends(task):
    lines = compare("digits", {"sgd": method("sgd")}, Budget("steps", 100))[0].lines
    assert [line["step"] for line in lines] == list(range(0, 101, 5))
    assert all(a["seconds"] < b["seconds"] for a, b in zip(lines, lines[1:]))
    assert list(lines[0]) == ["method", "step", "seconds", "train_loss", "test_loss", "train_error", "test_error"]


class Clock:
    """A clock that only moves when told to."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_the_clock_counts_steps_alone(task, tmp_path, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(runs, "clock", clock)

    def slow(act, seconds):
        def slowed(*args, **kw):
            clock.now += seconds
            return act(*args, **kw)

        return slowed

    monkeypatch.setattr(NetworkTask, "evaluate", slow(NetworkTask.evaluate, 100.0))
    monkeypatch.setattr(Folder, "save", slow(Folder.save, 1000.0))
    monkeypatch.setattr(Folder, "log", slow(Folder.log, 1000.0))
    monkeypatch.setattr(optim.SGD, "step", slow(optim.SGD.step, 0.25))
    comparison = Comparison(
        task, {"sgd": optim.SGD(0.1)}, Budget("seconds", 20.0), folder=Folder.create(tmp_path / "r")
    )
    ticks = []
    comparison.train(tick=lambda run: (ticks.append(run.step), slow(lambda: None, 50.0)()))
    run = comparison.runs[0]
    assert run.step == 80 and run.seconds == 20.0
    assert [line["seconds"] for line in run.record.lines] == [float(k) for k in range(21)]
    assert ticks  # the progress looked, and its 50 s are not in the 20 either


def test_a_long_step_passes_several_evaluation_points(task, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(runs, "clock", clock)

    def step(self, f, state, act=optim.SGD.step):
        clock.now += 0.7
        return act(self, f, state)

    monkeypatch.setattr(optim.SGD, "step", step)
    record = compare("digits", {"sgd": optim.SGD(0.1)}, Budget("seconds", 2.0))[0]
    assert [line["step"] for line in record.lines] == [0, 1, 2, 3]
    assert record.last["seconds"] == pytest.approx(2.1)


def test_stopping_ends_after_the_step_in_progress(task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    comparison = Comparison(task, {"sgd": method("sgd"), "adam": method("adam")}, Budget("steps", 400), folder=folder)
    sgd, adam = comparison.runs
    assert not comparison.train(stopped=lambda: sgd.step >= 7)
    assert sgd.step == 7 and adam.step == 0
    assert folder.checkpoint("sgd")["step"] == 7 and folder.lines()[-1]["step"] == 7


# ----------------------------------------------------------------------------------------------------------- resume


@pytest.mark.parametrize("spec", SPECS)
def test_resumed_is_uninterrupted_bit_for_bit(spec, task, tmp_path):
    each = {spec: method(spec, **({"every": 7} if spec == "acp" else {"inner.every": 7} if spec == "ubp:acp" else {}))}
    whole = trained(task, each, Budget("steps", 40)).runs[0]
    folder = Folder.create(tmp_path / "r")
    half = trained(task, each, Budget("steps", 20), folder).runs[0]
    assert half.step == 20 and not np.array_equal(half.params.vector, whole.params.vector)
    rest = trained(task, each, Budget("steps", 40), folder, resume=True).runs[0]
    assert rest.step == 40 and rest.seconds > half.seconds
    np.testing.assert_array_equal(rest.params.vector, whole.params.vector)
    expected, found = host_state(whole), host_state(rest)
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert type(found[key]) is type(value), key
        np.testing.assert_array_equal(found[key], value, err_msg=key)
    steps = [line["step"] for line in folder.lines()]
    assert steps == sorted(set(steps)) and steps[-1] == 40
    assert folder.lines()[-1]["test_loss"] == whole.record.last["test_loss"]


class Ordered(optim.SGD):
    """SGD with a state whose axes lie the other way in memory: products round by the order."""

    def start(self, params):
        return {"P": np.asfortranarray(np.eye(3)), "t0": np.float32(0.5), "word": "a"}


def test_resumed_state_lies_in_memory_as_it_did(task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    trained(task, {"own": Ordered(0.3)}, Budget("steps", 2), folder)
    run = trained(task, {"own": Ordered(0.3)}, Budget("steps", 4), folder, resume=True).runs[0]
    assert run.state["P"].flags.f_contiguous and not run.state["P"].flags.c_contiguous
    assert type(run.state["t0"]) is np.float32 and run.state["word"] == "a"


def test_lines_after_the_checkpoint_are_cut_and_made_again(task, tmp_path):
    each = {"sgd": method("sgd")}
    folder = Folder.create(tmp_path / "r")
    trained(task, each, Budget("steps", 20), folder)
    saved = folder.checkpoint("sgd")
    trained(task, each, Budget("steps", 40), folder, resume=True)
    before = folder.lines()
    folder.save("sgd", saved)  # as if the later checkpoints had not been written
    with folder.metrics.open("a") as stream:
        stream.write('{"method": "sgd", "step": 42, "sec')  # and the last line is torn
    trained(task, each, Budget("steps", 40), folder, resume=True)
    assert [e["step"] for e in folder.lines()] == [e["step"] for e in before]
    assert [e["train_loss"] for e in folder.lines()] == [e["train_loss"] for e in before]


def test_damaged_metrics_are_named(tmp_path):
    folder = Folder.create(tmp_path / "r")
    folder.metrics.write_text('{"method": "sgd", "step": 0}\nno json\n{"method": "sgd", "step": 2}\n')
    with pytest.raises(LabError, match="damaged in line 2"):
        folder.lines()


def test_a_method_without_a_checkpoint_starts_anew(task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    trained(task, {"sgd": method("sgd")}, Budget("steps", 4), folder)
    both = {"sgd": method("sgd"), "adam": method("adam")}
    found = trained(task, both, Budget("steps", 4), folder, resume=True)
    assert [run.step for run in found.runs] == [4, 4]
    assert found.runs[1].record.lines[0]["step"] == 0


def test_a_checkpoint_of_another_network_is_refused(task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    trained(task, {"sgd": method("sgd")}, Budget("steps", 2), folder)
    other = problem("classifier").prepare(data.load("digits8"))
    with pytest.raises(LabError, match="checkpoint of sgd belongs to another network"):
        trained(other, {"sgd": method("sgd")}, Budget("steps", 2), folder, resume=True)


def test_a_finished_run_is_left_alone(task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    first = trained(task, {"sgd": method("sgd")}, Budget("steps", 6), folder)
    again = trained(task, {"sgd": method("sgd")}, Budget("steps", 3), folder, resume=True)
    assert again.runs[0].step == 6 and again.records[0].lines == first.records[0].lines


# ------------------------------------------------------------------------------------------------------- divergence


class Explodes(optim.SGD):
    """SGD whose eighth step is NaN."""

    def update(self, f, state):
        return super().update(f, state) * (math.nan if state["t"] == 7 else 1.0)


class Fails(optim.SGD):
    def update(self, f, state):
        if state["t"] == 7:
            raise backend.FactorisationError("layer '0': raise the damping")
        return super().update(f, state)


@pytest.mark.parametrize(
    "kind, reason", [(Explodes, "its loss is not finite"), (Fails, "layer '0': raise the damping")]
)
def test_divergence_restores_the_last_good_point(kind, reason, task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    bad, good = trained(task, {"bad": kind(0.3), "sgd": optim.SGD(0.3)}, Budget("steps", 100), folder).runs
    assert bad.record.diverged == reason and good.record.diverged is None and good.step == 100
    assert bad.step == 5 and bad.record.last["step"] == 5  # evaluated every 5 steps
    at_five = trained(task, {"sgd": optim.SGD(0.3)}, Budget("steps", 5)).runs[0]
    np.testing.assert_array_equal(bad.params.vector, at_five.params.vector)
    assert bad.state["t"] == 5
    last = [e for e in folder.lines() if e["method"] == "bad"][-1]
    assert last["diverged"] is True and last["train_loss"] is None and last["test_error"] is None
    saved = folder.checkpoint("bad")
    assert saved["step"] == 5 and saved["diverged"] == reason and np.isfinite(saved["theta"]).all()


def test_a_diverged_run_stays_so_when_resumed(task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    trained(task, {"bad": Explodes(0.3), "sgd": optim.SGD(0.3)}, Budget("steps", 20), folder)
    before = [e for e in folder.lines() if e["method"] == "bad"]
    bad, good = trained(
        task, {"bad": Explodes(0.3), "sgd": optim.SGD(0.3)}, Budget("steps", 40), folder, resume=True
    ).runs
    assert good.step == 40 and bad.record.diverged and bad.record.lines == before


# ------------------------------------------------------------------------------------------------- methods that stop


class Halts(optim.Momentum):
    """Momentum that says at its eighth step, or at its first, that it cannot go on."""

    at = 7

    def update(self, f, state):
        if state["t"] == self.at:
            raise optim.Stopped("Halts: no lower loss along the direction; this may be a minimum.")
        return super().update(f, state)


class Refuses(Halts):
    at = 0


def test_a_method_that_stops_keeps_its_point_and_has_not_diverged(task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    halted, good = trained(task, {"h": Halts(0.1), "sgd": optim.SGD(0.1)}, Budget("steps", 100), folder).runs
    assert halted.record.diverged is None and halted.record.stopped.startswith("no lower loss")
    assert halted.step == 7 == halted.state["t"] and good.step == 100
    at_seven = trained(task, {"m": optim.Momentum(0.1)}, Budget("steps", 7)).runs[0]
    np.testing.assert_array_equal(halted.params.vector, at_seven.params.vector)
    np.testing.assert_array_equal(halted.state["v"], at_seven.state["v"])
    last = [e for e in folder.lines() if e["method"] == "h"][-1]
    assert last["stopped"] is True and last["step"] == 7
    assert last["test_loss"] == at_seven.record.last["test_loss"] == halted.record.last["test_loss"]
    assert folder.checkpoint("h")["stopped"] == halted.record.stopped


def test_a_stopped_run_stays_so_when_resumed(task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    both = {"h": Halts(0.1), "sgd": optim.SGD(0.1)}
    before = trained(task, both, Budget("steps", 20), folder).records[0]
    halted, good = trained(task, both, Budget("steps", 40), folder, resume=True).runs
    assert good.step == 40 and halted.step == 7
    assert halted.record == before and [e for e in folder.lines() if e["method"] == "h"] == before.lines


def test_a_method_may_stop_before_its_first_step(task):
    run = trained(task, {"r": Refuses(0.1)}, Budget("steps", 20)).runs[0]  # the warm-up meets it too
    assert run.record.stopped and run.step == 0 and run.record.last["step"] == 0
    np.testing.assert_array_equal(run.params.vector, task.initial(0).vector)


def test_a_stop_where_the_loss_is_not_finite_is_a_divergence(task):
    class Both(Halts):
        def update(self, f, state):
            return super().update(f, state) * (math.nan if state["t"] == 6 else 1.0)

    run = trained(task, {"b": Both(0.1)}, Budget("steps", 100)).runs[0]
    assert run.record.diverged == "its loss is not finite" and run.record.stopped is None and run.step == 5


def test_an_old_checkpoint_without_the_word_is_taken(task, tmp_path):
    folder = Folder.create(tmp_path / "r")
    trained(task, {"sgd": optim.SGD(0.1)}, Budget("steps", 4), folder)
    saved = folder.checkpoint("sgd")
    folder.save("sgd", {k: v for k, v in saved.items() if k != "stopped"})
    assert trained(task, {"sgd": optim.SGD(0.1)}, Budget("steps", 6), folder, resume=True).runs[0].step == 6


def test_a_refusal_at_the_start_of_a_method_names_it(task):
    class Picky(optim.SGD):
        def start(self, params):
            raise ValueError("no layers called 7")

    with pytest.raises(UsageError, match="picky: no layers called 7"):
        Comparison(task, {"picky": Picky(0.1)}, Budget("steps", 1))


def test_a_method_that_does_not_fit_the_problem_is_refused_before_training():
    with pytest.raises(UsageError, match="ubp: UBP mode 'empirical' is for cross-entropies"):
        compare("autoencoder", {"ubp": optim.UBP(mode="empirical")}, Budget("steps", 1), source="digits8")


def test_the_device_trains_too(device):
    found = compare("digits", {"acp": method("acp"), "ubp": method("ubp")}, Budget("steps", 4), device=device)
    host = compare("digits", {"acp": method("acp"), "ubp": method("ubp")}, Budget("steps", 4))
    for ours, theirs in zip(found, host):
        assert ours.last["train_loss"] == pytest.approx(theirs.last["train_loss"], rel=1e-4)


def test_a_device_run_resumes_bit_for_bit(device, tmp_path):
    there = problem("digits").prepare(data.load("digits8"), device=device)
    both = {"adam": method("adam"), "acp": method("acp", every=3)}
    whole = trained(there, both, Budget("steps", 5))
    folder = Folder.create(tmp_path / "r")
    trained(there, both, Budget("steps", 2), folder)
    for found, expected in zip(trained(there, both, Budget("steps", 5), folder, resume=True).runs, whole.runs):
        assert found.params.device == device == backend.device_of(found.state.get("m", found.state.get("0.P")))
        np.testing.assert_array_equal(*(backend.to_host(run.params.vector) for run in (found, expected)))
