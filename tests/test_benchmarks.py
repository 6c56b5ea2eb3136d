"""The benchmarks' own arithmetic, verdicts and checks; nothing here is timed."""

import gc
import io
import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from click.testing import CliRunner

import benchmarks.__main__ as command
from benchmarks import (
    cases,
    chain,
    curvature,
    gate,
    growth,
    memory,
    methods,
    peers,
    peers_numpy,
    picture,
    pieces,
    step,
    timing,
)
from benchmarks.preconditioning import Preconditioning
from benchmarks.timing import Figure, Limit, Settings
from benchmarks.workers import serve

TINY = cases.Case("tiny", (12, 9, 7, 5), "tanh", "softmax_cross_entropy", 8, 1)


def figure(ratio, spread=0.02, most=1.2, **limit):
    half = ratio * spread / 2
    return Figure("AE", Limit("own", "base", most, **limit), ratio, ratio - half, ratio + half, 1.0, 30)


def before(ratio, spread=0.02):
    return {("AE", "own", "base"): {"ratio": ratio, "spread": spread}}


# ------------------------------------------------------------------------------------------------ the gate


@pytest.mark.parametrize(
    "found, known, word",
    [
        (figure(1.1), {}, "ok"),
        (figure(1.205), {}, "ok"),  # the limit lies within the quartiles
        (figure(1.25), {}, "over"),
        (figure(1.1), before(1.08), "ok"),
        (figure(1.1), before(1.0), "worse"),
        (figure(1.1), before(1.0, spread=0.1), "ok"),
        (figure(1.0, spread=0.06), {}, "too noisy"),
        (figure(1.5, spread=0.06), before(1.0), "too noisy"),
        (figure(1.5, gate=False), before(1.0), "ok"),
        (figure(1.5, most=None), before(1.0), "ok"),
    ],
)
def test_verdicts(found, known, word):
    assert gate.verdict([found], known)[0] == word


def test_the_worst_word_counts_and_noise_is_no_pass():
    noisy, over = figure(1.0, spread=0.06), figure(1.3)
    assert gate.verdict([figure(1.0), noisy], {})[0] == "too noisy"
    word, lines = gate.verdict([noisy, over, figure(1.0)], {})
    assert word == "over" and len(lines) == 2
    assert gate.EXIT["ok"] == 0 and gate.EXIT["over"] == gate.EXIT["worse"] == 1 and gate.EXIT["too noisy"] == 3


def test_a_record_of_another_machine_is_not_compared(tmp_path, monkeypatch):
    about = {"cpu": "A", "blas": "B", "threads": 1, "clock": "cpu"}
    entry = {"case": "AE", "limit": {"name": "own", "over": "base"}, "ratio": 1.0, "spread": 0.01}
    (tmp_path / "step.json").write_text(json.dumps({**about, "figures": [entry]}))
    monkeypatch.setattr(gate, "RECORDS", tmp_path)
    assert gate.committed("step", about) == ({("AE", "own", "base"): entry}, "")
    known, why = gate.committed("step", {**about, "cpu": "C"})
    assert known == {} and "cpu differ" in why
    assert gate.committed("ubp", about)[0] == {}


def test_the_committed_record_has_what_the_gate_compares():
    record = json.loads((gate.RECORDS / "step.json").read_text(encoding="utf-8"))
    known = {(f["case"], f["limit"]["name"], f["limit"]["over"]) for f in record["figures"]}
    for case, limits in step.MUST.items():
        assert {(case, limit.name, limit.over) for limit in limits if limit.gated} <= known


def test_what_the_command_refuses():
    for arguments, word in (
        (["step", "--gate", "--threads", "2"], "one thread"),
        (["step", "--peers", "tensorflow"], "none of torch"),
    ):
        result = CliRunner().invoke(command.main, arguments)
        assert result.exit_code == 2 and word in result.output


# ---------------------------------------------------------------------------------------- rounds and ratios


class Contender:
    def __init__(self, times):
        self.times = iter(times)

    def run(self, count, warm):
        return next(self.times)


class Suite:
    CASES = {"a": TINY}
    SELDOM = ("dear",)

    @staticmethod
    def limits(case, names):
        return [Limit("own", "base", 3.0), Limit("dear", "base")]


def test_ratios_are_taken_round_by_round():
    drift = np.linspace(1.0, 2.0, 10)
    own = {"base": Contender(drift), "own": Contender(2.0 * drift), "dear": Contender(7.0 * drift)}
    found, dear = timing.compare(Suite, "a", own, Settings(seconds=0, rounds=10))
    assert (found.ratio, found.spread, found.rounds) == (2.0, 0.0, 10)
    assert dear.ratio == 7.0 and dear.rounds == timing.SELDOM_ROUNDS
    assert dear.milliseconds == pytest.approx(7e3 * drift[1])


def test_a_noisy_gated_case_is_measured_anew():
    own = {"base": Contender([1.0] * 8), "own": Contender([1.0, 2.0, 1.0, 2.0] + [1.5] * 4), "dear": Contender([1] * 8)}
    found, _ = timing.compare(Suite, "a", own, Settings(seconds=0, rounds=4, tries=3))
    assert found.ratio == 1.5 and found.verdict == "ok"


def test_unmeasured_steps_of_a_worker(monkeypatch, capsys):
    done = []
    monkeypatch.setattr(sys, "stdin", io.StringIO("2 1\n3 0\n"))
    try:
        serve(lambda: done.append(1), "cpu")
    finally:
        gc.enable()
        gc.unfreeze()
    assert len(done) == 3 + 3 and len(capsys.readouterr().out.split()) == 2


# ------------------------------------------------------------------------------------------------ contenders


@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize("name", [name for name in ("torch", "jax", "autograd", "mygrad") if name in peers.installed()])
def test_a_peer_takes_minigrads_step(name):
    cases.check(TINY, peers.module(name).STEPS)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["", *(name for name in peers.installed() if name not in ("autograd", "mygrad"))])
def test_a_peer_computes_minigrads_quantities(name, monkeypatch):
    monkeypatch.setitem(curvature.CASES, "CLS", replace(TINY, name="CLS"))
    curvature.check("CLS", (name,) if name else ())


def test_numpy_takes_minigrads_step_and_another_rate_is_seen():
    cases.check(TINY, {"NumPy": peers_numpy.Handwritten, "β = 1": peers_numpy.Fused})
    with pytest.raises(ValueError, match="careless on tiny is off by"):
        cases.check(TINY, {"careless": lambda case, rate: peers_numpy.Handwritten(case, 1.001 * rate)})


def test_chain_and_pieces_check_themselves():
    chain.check("chain", ())
    pieces.check("pieces", ())


def test_both_ways_of_preconditioning_agree():
    Preconditioning(TINY).check()


def test_the_mean_step_of_an_amortised_method():
    assert methods.kinds("K-FAC mc") == {"between": 90, "statistics": 9, "refresh": 1}
    assert methods.kinds("K-FAC fisher") == methods.kinds("ACP, max") == {"between": 99, "refresh": 1}
    seconds = {name: np.array([2.0]) for name in methods.timed()}
    assert "K-FAC fisher between" not in seconds
    seconds["K-FAC fisher refresh"], seconds["PRONG refresh"] = np.array([302.0]), np.array([np.nan])
    found = methods.derived(seconds)
    assert found["K-FAC mc every 100"] == 2.0 and found["K-FAC fisher every 100"] == 5.0
    assert np.isnan(found["PRONG every 100"])


# -------------------------------------------------------------------------------------------- memory, growth


def test_bytes_of_a_state():
    a, b = np.zeros(8), np.zeros((2, 3), np.float32)
    assert memory.state_bytes({"t": 3, "a": a, "again": a, "part": a[:2], "b": b}) == 64 + 24
    assert memory.kronecker_bytes({"0.A": b, "0.G": b, "0.A_inv": a, "key": 1}) == 48


def test_a_broken_bound_is_refused():
    assert memory._bounded({"what": "x", "state": 10, "at most": 10}, "state")
    with pytest.raises(ValueError, match="x: state takes 11 bytes, more than its bound of 10"):
        memory._bounded({"what": "x", "state": 11, "at most": 10}, "state")


def test_the_slope_of_a_power_law():
    sizes = [1.0, 2.0, 4.0, 8.0, 16.0]
    assert growth.slope(sizes, [3.0 * s**1.5 for s in sizes]) == pytest.approx(1.5)
    assert growth.slope(sizes, [9.0, 9.0, 4.0, 8.0, 16.0]) == pytest.approx(1.0)  # the small ones are left out


@pytest.mark.parametrize("size", [growth.Size(), growth.Size(w=16, L=5, N=3, C=2), growth.Size(L=2)])
def test_multiplications_by_counting(size):
    shapes = list(zip(size.case.sizes[:-1], size.case.sizes[1:]))
    assert size.layer == size.N * sum(i * o for i, o in shapes)
    assert size.above == size.N * sum(i * o for k in range(len(shapes)) for i, o in shapes[k + 1 :])
    assert size.cubes == sum(i**3 + o**3 for i, o in shapes)


def test_every_curve_runs():
    size = growth.Size(w=8, L=2, N=6, C=3)
    for start, multiplications in growth.CURVES.values():
        start(size)()
        assert multiplications(size) > 0


def test_pictures(tmp_path):
    record = {"cpu": "A", "threads": 1, "blas": "B", "versions": {"numpy": "2"}}
    record["figures"] = [figure(r).record() for r in (1.0, 1.1, 40.0)]
    picture.draw(record, tmp_path / "bars.png")
    rows = [{"axis": axis, "curve": "step", "sizes": list(growth.AXES[axis][1])} for axis in growth.AXES]
    for row in rows:
        row |= {"milliseconds": [float(s) for s in row["sizes"]], "slope": 1.0, "theory": 1.1}
    growth.draw(rows, tmp_path / "growth.png")
    for name in ("bars.png", "growth.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_a_slope_apart_from_theory_is_explained():
    row = {"axis": "batch", "curve": "step", "slope": 0.7, "theory": 1.0}
    assert "0.70 instead of 1.00" in growth.explained(row)
    assert growth.explained({**row, "slope": 0.9}) == ""
