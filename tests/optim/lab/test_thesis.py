"""The thesis's experiments on a small network: protocol, records, resuming, costs, figure, table, signals."""

import json
import math
import multiprocessing
import os
from dataclasses import replace

import numpy as np
import pytest

import minigrad as mg
import optim
from minigrad import backend, data, losses, nn
from optim.lab import thesis, thesis_figure, thesis_runs, thesis_signals
from optim.lab.errors import LabError, UsageError
from optim.lab.problems import PROBLEMS
from optim.lab.thesis import CONTENDERS, EXPERIMENTS, SIZES, Experiment, Size
from optim.lab.thesis_runs import Interrupted, Job, Result, conduct, perform, read

TINY = Size("small", trials=2, trial_updates=3, updates=4, seeds=2, points=2)
TWO = Experiment("two methods", "T", "digits", ("sgd", "acp"), {"sgd": (2.0, None, 1.0)}, "ACP, SGD")


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """A figure called tiny, and costs that take no time."""
    monkeypatch.setitem(EXPERIMENTS, "tiny", TWO)
    monkeypatch.setitem(SIZES, "small", TINY)
    monkeypatch.setattr(thesis_runs, "SECONDS", 0.0)
    monkeypatch.setattr(thesis_runs, "ROUNDS", 3)
    monkeypatch.setattr(thesis_runs, "TURN", 0.0)


def job(method="sgd", **changes):
    points = {"settings": {"gain": 2.0, "lr": 0.1}, "kind": "trial", "number": 0, "updates": 4, "points": 1}
    return Job("digits", "digits8", "digits8", 7, method, **{**points, **changes})


# ------------------------------------------------------------------------------------------------------- protocol


@pytest.mark.parametrize("trials", [1, 8])
def test_the_points_are_a_latin_hypercube_and_shared(trials):
    found = {key: thesis.points(contender, "sigmoid", trials) for key, contender in CONTENDERS.items()}
    for key, contender in CONTENDERS.items():
        for name, span in {"gain": thesis.GAINS["sigmoid"], **contender.searched}.items():
            values = np.log([point[name] for point in found[key]])
            share = (values - math.log(span.low)) / (math.log(span.high) - math.log(span.low))
            assert sorted(np.floor(share * trials + 0.01 * (share < 0.5))) == list(range(trials)), name
        assert len(found[key]) == trials
        for name in ("gain", "lr"):
            assert [point[name] for point in found[key]] == [point[name] for point in found["sgd"]]


def test_every_method_gets_the_protocol_of_the_thesis():
    full = SIZES["full"]
    assert full.trials >= 8 and full.trial_updates >= 300 and full.updates >= 1500 and full.seeds >= 3
    for figure in ("fig5.1", "fig6.1", "fig6.2", "fig6.3"):
        what = EXPERIMENTS[figure]
        assert PROBLEMS[what.problem].batch == 200 and full.contenders(what) == list(what.contenders)
        assert set(what.contenders) <= set(CONTENDERS) <= set(thesis_figure.COLOUR_OF)
        colours = [thesis_figure.COLOUR_OF[key] for key in what.contenders]
        assert len(set(colours)) == len(colours)
    for key, contender in CONTENDERS.items():
        method = contender.make(**{name: 0.5 for name in contender.searched})
        assert method.lr == 0.5
        if hasattr(method, "every"):
            assert method.every == 100 and getattr(method, "rho", 0.0) == 0.0
        if key.startswith("kfac"):
            assert method.stats_every == 100 and method.curvature == key.removeprefix("kfac-")
    assert "kfac-fisher" not in SIZES["small"].contenders(EXPERIMENTS["fig6.2"])


def test_the_problems_are_the_thesis_own():
    deep = thesis.task("deep-classifier", "digits8", CONTENDERS["sgd"], 4.0, "valid")
    assert deep.net.size() == 64 * 100 + 7 * 100 * 100 + 100 * 10 + 8 * 100 + 10
    assert PROBLEMS["deep-classifier"].net(3072, 10).size() == 3072 * 100 + 7 * 100 * 100 + 100 * 10 + 8 * 100 + 10
    for key, norm in (("bn", "BatchNorm"), ("mean-bn", "MeanOnlyBatchNorm")):
        task = thesis.task("deep-classifier", "digits8", CONTENDERS[key], 4.0, "valid")
        assert [type(layer).__name__ for layer in task.net.leaves()].count(norm) == 8
        f = task.objectives(task.initial(0), False, 0).at(0)
        assert f.train and len(f.statistics) == (16 if key == "bn" else 8)


def test_a_trial_is_plain_sgd_measured_on_the_validation_part(tmp_path):
    found = perform(job(settings={"gain": 5.0, "lr": 0.3}), tmp_path)
    digits = data.load("digits8")
    net = nn.mlp([64, 32, 32, 10], "tanh")
    params = net.init(rng=0, alpha=5.0)
    f = mg.Objective(net, losses.softmax_cross_entropy, params, *digits.valid)
    first = float(f.value)
    batches = data.batches(*digits.train, 64, rng=0)
    for t in range(4):
        g = mg.Objective(net, losses.softmax_cross_entropy, params, *batches.at(t)).grad
        params.vector -= 0.3 * g
    assert [line["step"] for line in found["lines"]] == [0, 4]
    assert [line["valid_loss"] for line in found["lines"]] == pytest.approx([first, float(f.value)], rel=1e-5)
    assert set(found["lines"][0]) == {"step", "train_loss", "valid_loss", "train_error", "valid_error"}
    final = perform(job(kind="final", number=2, points=2), tmp_path)
    assert final["seed"] == 2 and [line["step"] for line in final["lines"]] == [0, 2, 4]
    assert "test_loss" in final["lines"][0]


def test_training_curves_are_measured_on_a_part(monkeypatch):
    monkeypatch.setattr(thesis, "MEASURED", 50)
    task = thesis.task("digits", "digits8", CONTENDERS["sgd"], 2.0, "test")
    params = task.initial(0)
    x, y = (part[:50] for part in data.load("digits8").train)
    f = mg.Objective(task.net, losses.softmax_cross_entropy, params, x, y)
    assert task.evaluate(params)["train_loss"] == pytest.approx(float(f.value), rel=1e-6)


def test_the_validation_part_decides_and_a_diverged_trial_never_wins():
    def trial(loss, diverged=None):
        return {"settings": {"lr": loss}, "diverged": diverged, "lines": [{"valid_loss": loss, "train_loss": -loss}]}

    assert thesis_runs.best_of([trial(3.0), trial(2.0), trial(1.0, "lost"), trial(2.5)]) == {"lr": 2.0}
    assert thesis_runs.best_of([trial(1.0, "lost")]) is None


# -------------------------------------------------------------------------------------------------------- records


def test_what_is_on_record_is_not_run_again(tmp_path, monkeypatch):
    told = []
    first = conduct("tiny", TINY, tmp_path, told=told.append)
    runs = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*.json"))
    assert len(runs) == 2 * (2 + 2) + 1 and runs[-1] == "tiny-digits8-small-cost.json"
    assert all(name.startswith("digits-digits8/") for name in runs[:-1])
    for key in ("sgd", "acp"):
        assert [r["kind"] for r in first.trials[key] + first.finals[key]] == ["trial"] * 2 + ["final"] * 2
        assert [r["seed"] for r in first.finals[key]] == [1, 2]
        assert all(r["settings"] == first.best[key] for r in first.finals[key])
        assert first.trials[key][0]["all_settings"]["lr"] == first.trials[key][0]["settings"]["lr"]
    assert sum("/4  " in line for line in told) == 8

    monkeypatch.setattr(thesis_runs, "perform", lambda *a: pytest.fail("it was run again"))
    assert conduct("tiny", TINY, tmp_path) == first
    monkeypatch.undo()
    monkeypatch.setitem(EXPERIMENTS, "tiny", replace(TWO, contenders=("sgd", "ubp")))
    told.clear()
    conduct("tiny", TINY, tmp_path, told=told.append)  # shares SGD's runs
    assert sum("/4  " in line for line in told) == 4
    more = conduct("tiny", replace(TINY, seeds=3), tmp_path)
    assert [r["seed"] for r in more.finals["sgd"]] == [1, 2, 3]


def test_a_run_is_named_by_all_that_decides_it(tmp_path):
    names = {
        job(**changes).path(tmp_path)
        for changes in ({}, {"updates": 5}, {"settings": {"gain": 2.0, "lr": 0.2}}, {"points": 2}, {"number": 1})
    }
    assert len(names) == 5
    assert replace(job(), source="/elsewhere").path(tmp_path) == job().path(tmp_path)
    assert replace(job(), fingerprint=8).path(tmp_path) != job().path(tmp_path)


def test_a_stop_loses_the_run_in_progress_alone(tmp_path):
    steps, told = iter(range(1000)), []
    with pytest.raises(Interrupted):
        conduct("tiny", TINY, tmp_path, stopped=lambda: next(steps) > 8, told=told.append)
    done = [p for p in tmp_path.rglob("*.json")]
    assert 0 < len(done) < 4 and all(read(path)["lines"] for path in done)
    told.clear()
    conduct("tiny", TINY, tmp_path, told=told.append)
    assert told[1] == f"{len(done)} of 4 runs are on record"


def test_a_damaged_record_is_named(tmp_path):
    path = job().path(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_text('{"settings": ')
    with pytest.raises(LabError, match=r"trial-0-\w+.json is damaged .*; remove it"):
        thesis_runs.perform_all([job()], tmp_path, 1, lambda: False, print)


def test_processes_do_the_same(tmp_path):
    jobs = [job(), job("kfac-fisher", settings={"gain": 2.0, "lr": 0.1, "damping": 0.1}), job(number=1, updates=5)]
    before = dict(os.environ)
    apart = thesis_runs.perform_all(jobs, tmp_path / "apart", 2, lambda: False, lambda line: None)
    here = thesis_runs.perform_all(jobs, tmp_path / "here", 1, lambda: False, lambda line: None)
    assert dict(os.environ) == before and not multiprocessing.active_children()
    for one, two in zip(apart, here):
        assert one["threads"] == 1 and one["settings"] == two["settings"]
        for a, b in zip(one["lines"], two["lines"]):
            assert a == pytest.approx(b, rel=1e-3)


def test_processes_are_given_up_at_a_stop(tmp_path):
    jobs = [job(number=k, updates=10**7) for k in range(3)]
    with pytest.raises(Interrupted):
        thesis_runs.perform_all(jobs, tmp_path, 2, lambda: True, print)
    assert not multiprocessing.active_children() and not list(tmp_path.rglob("*.json"))


def test_a_run_that_diverges_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setitem(EXPERIMENTS, "tiny", replace(TWO, contenders=("sgd", "acp")))
    rates = {"sgd": CONTENDERS["sgd"], "acp": replace(CONTENDERS["acp"], make=lambda **s: optim.SGD(1e30))}
    for key, contender in rates.items():
        monkeypatch.setitem(CONTENDERS, key, contender)
    found = conduct("tiny", TINY, tmp_path)
    assert list(found.best) == ["sgd"] and [bool(r["diverged"]) for r in found.trials["acp"]] == [True, True]
    assert found.trials["acp"][0]["lines"][-1]["train_loss"] is None
    assert thesis_figure.lost(found, "acp") == (2, 0)
    text = thesis_figure.table(found)
    assert "all diverged" in text and "2/2, 0/2" in text
    with (tmp_path / "x.png").open("wb") as stream:
        thesis_figure.draw(found, stream)


# ---------------------------------------------------------------------------------------------------------- costs


def test_a_refresh_is_spread_over_its_updates(monkeypatch):
    class Stepper:
        def __init__(self, ordinary, refresh):
            self.ordinary, self.refresh, self.turns = ordinary, refresh, 0

        def __call__(self, count, refresh=False):
            self.turns += 1
            return self.refresh if refresh else self.ordinary

    fakes = {"acp": Stepper(0.02, 1.02), "sgd": Stepper(0.01, 0.01)}
    monkeypatch.setattr(thesis_runs, "_stepper", lambda problem, source, key: fakes[key])
    monkeypatch.setattr(thesis_runs, "ROUNDS", 5)
    found = thesis_runs.measure_costs("digits", "digits8", ["acp", "sgd"])
    assert found["contenders"]["acp"]["seconds"] == pytest.approx(0.03)
    assert found["contenders"]["acp"]["ratio"] == pytest.approx([3.0, 3.0, 3.0])
    assert found["contenders"]["sgd"] == {"seconds": 0.01, "refresh": 0.01, "ratio": [1.0, 1.0, 1.0]}
    assert found["rounds"] == 5 and fakes["sgd"].turns == 2 * 5 + 3


def test_refreshes_come_when_they_are_asked_for(monkeypatch):
    inverses = []
    real = backend.spd_inverse
    monkeypatch.setattr(backend, "spd_inverse", lambda matrix: inverses.append(1) or real(matrix))
    step = thesis_runs._stepper("digits", "digits8", "acp")
    counts = []
    for call in ((1, True), (1, False), (98, False), (98, False), (1, True)):
        inverses.clear()
        assert step(*call) > 0
        counts.append(len(inverses))
    assert counts == [3, 0, 0, 0, 3]


# ------------------------------------------------------------------------------------------------ figure and table


def run(losses, diverged=None, every=10):
    lines = [
        {"step": every * k, "train_loss": v, "test_loss": None if v is None else v + 1} for k, v in enumerate(losses)
    ]
    return {"lines": lines, "diverged": diverged, "settings": {"gain": 2.0}}


@pytest.fixture
def result():
    size = Size("full", trials=2, trial_updates=5, updates=20, seeds=3)
    finals = {
        "sgd": [run([9.0, 5.0, 4.0]), run([9.0, 7.0, 4.5]), run([9.0, 6.0, 3.0])],
        "acp": [run([9.0, 3.0, 2.0]), run([9.0, 2.0, None], "lost"), run([9.0, 1.0, 1.0])],
    }
    trials = {"sgd": [run([9.0, 5.0]), run([9.0, 10.0])], "acp": [run([9.0, 1.0]), run([9.0, None], "lost")]}
    costs = {"sgd": {"seconds": 0.1, "ratio": [1, 1, 1]}, "acp": {"seconds": 0.4, "ratio": [3.9, 4, 4.1]}}
    facts = {"rounds": 12, "threads": 1, "processor": "a processor", "load_before": 3.14}
    examples = {"train": 54_000, "measured": 10_000, "test": 10, "batch": 200}
    best = {"sgd": {"gain": 2.0, "lr": 0.1}, "acp": {"gain": 2.0, "lr": 0.2}}
    return Result("fig6.1", "digits", TWO, size, trials, finals, best, {"contenders": costs, **facts}, examples)


def test_a_curve_is_the_median_over_the_seeds_that_are_left(result):
    steps, median, low, high = thesis_figure.curve(result.finals["acp"], "train_loss")
    np.testing.assert_array_equal(steps, [0, 10, 20])
    np.testing.assert_array_equal(median, [9, 2, 1.5])
    np.testing.assert_array_equal(low, [9, 1, 1])
    np.testing.assert_array_equal(high, [9, 3, 2])


def test_the_rows(result):
    sgd, acp = thesis_figure.rows(result)
    assert (sgd["method"], acp["method"]) == ("sgd", "acp")  # ACP is lower, but lost a run
    assert acp["train_loss"] == [1.5, 1.0, 2.0] and sgd["train_loss"] == [4.0, 3.0, 4.5]
    assert sgd["at_equal_time"] == 4.0  # SGD's 20 updates take 2 s, in which ACP takes 5: half way from 9 to 2
    assert acp["at_equal_time"] == pytest.approx(5.5)
    assert acp["best_test_loss"] == 2.5 and sgd["thesis"] == (2.0, None, 1.0) and acp["thesis"] is None
    assert (sgd["trials_diverged"], sgd["finals_diverged"]) == (1, 0)  # one trial ended above where it began
    assert (acp["trials_diverged"], acp["finals_diverged"]) == (1, 1)
    result.finals["acp"].pop(1)
    assert [row["method"] for row in thesis_figure.rows(result)] == ["acp", "sgd"]


def test_the_table_and_the_protocol(result):
    text = thesis_figure.table(result)
    head, sgd, acp = text.splitlines()[:3]
    assert head.split()[:3] == ["method", "train", "loss"] and "T: step" in head and "step ÷ SGD" in head
    assert acp.startswith("ACP (α fixed)   1.5 (1–2)") and "4.00 (3.90–4.10)" in acp and "1/2, 1/3" in acp
    assert sgd.split()[:2] == ["SGD", "4"] and "gain 2, lr 0.1" in sgd
    assert "training loss by updates: SGD, ACP (α fixed) [1 of 3 runs diverged]" in text.replace("  ", " ")
    result.finals["acp"].pop(1)
    said = " ".join(thesis_figure.table(result).split())
    assert "training loss by updates: ACP (α fixed), SGD at equal time: SGD, ACP (α fixed) best" in said
    told = thesis_figure.protocol(result)
    for words in ("2 trials of 5 updates", "the validation part decides", "20 updates from 3 seeds", "batch 200",
                  "every 100 updates", "measured on 10,000 of them", "load before it was 3.1"):  # fmt: skip
        assert words in told
    assert "small version" not in told
    assert "The small version" in thesis_figure.protocol(replace(result, size=TINY))


def test_the_picture(result, tmp_path):
    for record in [*result.finals["sgd"], *result.finals["acp"]]:
        for line in record["lines"]:
            line |= {name: line["train_loss"] and line["train_loss"] / 10 for name in ("train_error", "test_error")}
    with (tmp_path / "x.png").open("wb") as stream:
        thesis_figure.draw(result, stream)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


# --------------------------------------------------------------------------------------------------------- signals


def test_the_norms_of_the_signals():
    task = thesis.task("digits", "digits8", CONTENDERS["sgd"], 2.0, "valid")
    f = task.objectives(task.initial(0), False, 0).at(0)
    theta = f.params.vector.copy()
    found = thesis_signals.norms(f, 0.5)
    np.testing.assert_array_equal(f.params.vector, theta)
    assert list(found) == ["plain", *thesis_signals.MODES]
    for name, s in f.signals("empirical").items():
        assert found["plain"][name] == pytest.approx(np.sqrt((s[0] ** 2).sum() / f.n), rel=1e-5)
    assert all(list(seen) == ["2", "1", "0"] for seen in found.values())
    sites = {}
    for site in f.sweep():  # T-alg 2 by hand, mode none
        sites[site.name] = np.sqrt((site.da**2).sum() / f.n)
        dW, _ = site.gradient(-0.5)
        site.dh = site.da @ (site.W + dW)
    assert found["none"] == pytest.approx(sites, rel=1e-5)
    assert found["gn"] != pytest.approx(found["plain"], rel=1e-3)
    small = thesis_signals.norms(f, 1e-9)
    for mode in thesis_signals.MODES:
        assert small[mode] == pytest.approx(small["plain"], rel=1e-5)


def test_the_picture_and_the_table_of_the_signals(tmp_path):
    found = thesis_signals.measure("digits", "digits8", updates=3, rates=(0.1, 1.0))
    assert [(each["update"], each["lr"]) for each in found["norms"]] == [(0, 0.1), (0, 1.0), (3, 0.1), (3, 1.0)]
    lines = list(thesis_signals.table(found))
    first = found["norms"][0]["norms"]
    assert len(lines) == 6 and lines[2].split()[:2] == ["0", "0.1"]
    assert float(lines[2].split()[4]) == pytest.approx(first["gn"]["0"] / first["plain"]["0"], rel=1e-2)
    found["norms"][2]["norms"]["gn"]["0"] = None  # beyond float32
    assert "overflow" in list(thesis_signals.table(found))[4]
    with (tmp_path / "x.png").open("wb") as stream:
        thesis_signals.draw(found, stream)
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


# ----------------------------------------------------------------------------------------------------- the command


def test_the_command(minigrad, tmp_path):
    done = minigrad("thesis", "tiny", "--jobs", 1, "--out", "found")
    assert done.code == 0, done.err
    files = sorted(p.name for p in (tmp_path / "found").iterdir())
    stem = "tiny-digits8-small"
    assert files == ["digits-digits8", f"{stem}-cost.json", f"{stem}.json", f"{stem}.png"]
    assert done.out.splitlines()[-1] == f"figure: found/{stem}.png" and "The small version" in done.out
    summary = json.loads((tmp_path / "found" / f"{stem}.json").read_text())
    assert {row["method"] for row in summary["rows"]} == {"sgd", "acp"} and "trials of 3 updates" in summary["protocol"]
    again = minigrad("thesis", "tiny", "--jobs", 1, "--out", "found", "--seeds", 1)
    assert (
        again.code == 0 and "4 of 4 runs are on record" in again.err and "from 1 seed:" in " ".join(again.out.split())
    )


def test_what_the_command_refuses(minigrad, tmp_path):
    wrong = minigrad("thesis", "fig6.4")
    assert wrong.code == 2 and wrong.error().startswith("unknown figure 'fig6.4'; there are fig5.1, fig6.1, fig6.2")
    missing = minigrad("thesis", "fig6.3", "--data", "cifar-10-binary.tar.gz")
    assert missing.code == 1 and "cifar-10-binary.tar.gz: there is no such file" in missing.err
    (tmp_path / "x.tar.gz").write_bytes(b"no archive")
    damaged = minigrad("thesis", "fig6.3", "--data", "x.tar.gz")
    assert damaged.code == 1 and "it cannot be read" in damaged.err
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "own.npz", x=rng.standard_normal((50, 7)), y=rng.integers(0, 2, 50))
    unfit = minigrad("thesis", "fig6.1", "--data", "own.npz", "--jobs", 1)
    assert unfit.code == 1 and "autoencoder gives outputs between 0 and 1" in unfit.err
    with pytest.raises(UsageError, match="unknown figure"):
        thesis_runs.experiment("fig9")


def test_a_stop_of_the_command(minigrad, monkeypatch):
    def conduct(*args, stopped, **rest):
        os.kill(os.getpid(), 15)
        while not stopped():
            pass
        raise Interrupted("stopped")

    monkeypatch.setattr("optim.lab.thesis_command.conduct", conduct)
    done = minigrad("thesis", "tiny", "--jobs", 1)
    assert done.code == 128 + 15 and "the same command goes on where it was" in done.err
