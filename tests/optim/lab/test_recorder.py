"""The recorder: the numbers against NumPy, what it must not change, its file and its picture."""

import json
import math

import numpy as np
import pytest
from cases import chain, host

import minigrad as mg
import optim
from minigrad import backend, losses, nn
from optim.lab import layers_figure
from optim.lab.errors import LabError
from optim.lab.recorder import QUANTITIES, Recorded, history, read, spread
from optim.lab.runs import Budget, compare


def steps(method, f, count):
    state = method.init(f.params, rng=1)
    for _ in range(count):
        method.step(f, state)
    return state


@pytest.mark.parametrize("inner", [optim.SGD(0.1), optim.UBP(optim.ACP(lr=0.1, every=2)), optim.Adam(0.01)])
def test_the_numbers_of_a_step(inner, device):
    f = chain(device=device)
    twin = chain(device=device)
    before = f.params.copy()
    state, method = twin.params, Recorded(inner, dear_every=1)
    delta = twin.params.windows(inner.update(twin, inner.init(state, rng=1)))
    steps(method, f, 1)
    lines = {line["layer"]: line for line in method.lines()}
    assert list(lines) == ["0", "1", "2", "3"]
    for site in twin.sweep():
        line, h, da = lines[site.name], host(site.h), host(site.da)
        expected = {
            "h": np.sqrt(np.mean(np.sum(h**2, 1))),
            "da": np.sqrt(np.mean(np.sum(da**2, 1))),
            "W": np.linalg.norm(host(before[f"{site.name}.W"])),
            "dW": np.linalg.norm(host(delta[f"{site.name}.W"])),
        }
        for name, value in expected.items():
            assert line[name] == pytest.approx(value, rel=1e-12), name
        assert (line["step"], line["bad"], line["method"]) == (0, 0, type(inner).__name__)
        values = np.linalg.eigvalsh(np.cov(h.T))
        kept = values[values > 1e-12 * values[-1]]
        assert line["rank"] == len(kept)
        assert line["cond"] == pytest.approx(values[-1] / kept[0], rel=1e-8)


@pytest.mark.parametrize("name", ["sgd", "adam", "kfac", "ubp", "es"])
def test_recording_changes_neither_steps_nor_state(name, device):
    inner = {
        "sgd": optim.SGD(0.1),
        "adam": optim.Adam(0.01),
        "kfac": optim.KFAC(0.05, every=2, stats_every=1),
        "ubp": optim.UBP(optim.Centred(0.1), mode="mc"),
        "es": optim.ES(0.1, pairs=4),
    }[name]
    plain, recorded = chain(device=device), chain(device=device)
    state = steps(inner, plain, 5)
    again = steps(Recorded(inner, dear_every=2), recorded, 5)
    np.testing.assert_array_equal(host(plain.params.vector), host(recorded.params.vector))
    assert list(state) == list(again)
    for key, value in state.items():
        np.testing.assert_array_equal(host(value), host(again[key]))


def test_the_schedules():
    method = Recorded(optim.SGD(0.1), every=2, dear_every=4)
    steps(method, chain(), 9)
    lines = [line for line in method.lines() if line["layer"] == "0"]
    assert [line["step"] for line in lines] == [0, 2, 4, 6, 8]
    assert [line["step"] for line in lines if "cond" in line] == [0, 4, 8]
    odd = Recorded(optim.SGD(0.1), every=3, dear_every=4)
    steps(odd, chain(), 13)
    assert sorted({line["step"] for line in odd.lines() if "cond" in line}) == [0, 6, 9, 12]


def test_no_step_waits_for_the_numbers(device, monkeypatch):
    fetched = []
    monkeypatch.setattr(backend, "to_host", lambda a, fetch=backend.to_host: fetched.append(1) or fetch(a))
    method = Recorded(optim.SGD(0.1), dear_every=1000)
    f = chain(device=device)
    state = method.init(f.params)
    method.step(f, state)
    waits = len(fetched)  # the eigenvalues of step 0
    for _ in range(90):
        method.step(f, state)
    assert len(fetched) == waits
    method.lines()
    assert len(fetched) == waits + 1


def test_a_rank_that_is_not_full(device):
    rng = np.random.default_rng(0)
    few = rng.standard_normal((5, 12))
    many = rng.standard_normal((40, 3)) @ rng.standard_normal((3, 12))
    for rows, rank in ((few, 4), (many, 3)):
        condition, found = spread(backend.asarray(rows, device))
        values = np.linalg.eigvalsh(np.cov(rows.T))[-rank:]
        assert found == rank and condition == pytest.approx(values[-1] / values[0], rel=1e-9)
    assert spread(backend.asarray(np.ones((4, 3)), device)) == pytest.approx((math.nan, 0.0), nan_ok=True)
    rows[3, 1] = np.nan
    assert all(map(math.isnan, spread(backend.asarray(rows, device))))


def test_numbers_that_are_not_finite_are_counted(device):
    f = chain(device=device)
    vector = host(f.params.vector).copy()
    start, stop, _ = f.params.layout["2.W"]
    vector[start : start + 3] = np.inf
    f.params.vector = backend.asarray(vector, device)
    method = Recorded(optim.SGD(0.1), dear_every=1)
    with np.errstate(all="ignore"):
        steps(method, f, 1)
    lines = {line["layer"]: line for line in method.lines()}
    assert lines["2"]["W"] is None and lines["2"]["cond"] is not None
    assert lines["3"]["bad"] > 0 and lines["3"]["cond"] is None and lines["0"]["h"] is not None
    json.dumps(method.lines(), allow_nan=False)


def test_batch_norm_and_a_layer_that_stands_twice():
    net = nn.mlp([6, 5, 4, 3], norm="batch")
    params = net.init(rng=0, dtype="float64")
    rng = np.random.default_rng(1)
    x, y = rng.standard_normal((8, 6)), rng.integers(0, 3, 8)
    method = Recorded(optim.SGD(0.1))
    state = method.init(params)
    method.step(mg.Objective(net, losses.softmax_cross_entropy, params, x, y, train=True), state)
    assert [line["layer"] for line in method.lines()] == ["0", "1", "2"]
    inner = nn.Dense(6, 6)
    twice = nn.Sequential(inner, nn.Tanh(), inner, nn.Tanh(), nn.Dense(6, 3))
    params = twice.init(rng=0, dtype="float64")
    method = Recorded(optim.SGD(0.1))
    method.step(mg.Objective(twice, losses.softmax_cross_entropy, params, x, y), method.init(params))
    assert [line["layer"] for line in method.lines()] == ["0@2", "0", "1"]


def test_a_file_and_a_resumed_run(tmp_path):
    path = tmp_path / "layers.jsonl"
    f = chain()
    method = Recorded(optim.SGD(0.1), dear_every=2)
    method.path, method.label = path, "sgd"
    state = method.init(f.params)
    for _ in range(4):
        method.step(f, state)
    method.flush()
    state["t"] = 2  # as a checkpoint of step 2 would
    for _ in range(3):
        method.step(f, state)
    method.flush()
    lines = read(path)
    assert [line["step"] for line in lines if line["layer"] == "3"] == [0, 1, 2, 3, 4]
    assert lines == method.lines() and len(path.read_text().splitlines()) == 7 * 4
    assert set(lines[0]) == {"method", "step", "layer", *QUANTITIES}
    with path.open("a") as stream:
        stream.write('{"torn": ')
    assert read(path) == lines
    path.write_text("no line\n" + path.read_text())
    with pytest.raises(LabError, match="damaged in line 1"):
        read(path)
    with pytest.raises(LabError, match="there is no such file"):
        read(tmp_path / "other")


def test_the_picture(tmp_path):
    method = Recorded(optim.SGD(0.1), dear_every=5)
    steps(method, chain(), 12)
    lines = method.lines()
    layers, found, values = history(lines, "dW")
    assert layers == ["0", "1", "2", "3"] and found == list(range(12)) and values.shape == (4, 12)
    lines[17] |= {"da": None, "bad": 3}
    assert "for the first time at update 4, layer 1 (3 numbers)" in layers_figure.told(lines)
    with (tmp_path / "layers.png").open("wb") as stream:
        layers_figure.draw(lines, "chain", stream)
    assert (tmp_path / "layers.png").read_bytes().startswith(b"\x89PNG")


def test_a_long_run_is_drawn_in_bins_that_keep_what_is_not_finite(monkeypatch):
    monkeypatch.setattr(layers_figure, "WIDEST", 5)
    lines = [{"layer": "0", "step": k, "h": float(k) if k != 3 else None} for k in range(20)]
    _, at, values = layers_figure.tables(lines, "h")
    assert at == [0, 4, 8, 12, 16]
    np.testing.assert_array_equal(values, [[np.nan, 7, 11, 15, 19]])


def test_in_a_comparison():
    methods = {"plain": optim.ACP(lr=0.1), "recorded": Recorded(optim.ACP(lr=0.1), every=5)}
    plain, recorded = compare("digits", methods, Budget("steps", 11))
    assert plain.last["train_loss"] == recorded.last["train_loss"]
    lines = methods["recorded"].lines()
    assert [(line["step"], line["layer"]) for line in lines] == [(s, k) for s in (0, 5, 10) for k in "012"]


def test_settings():
    for wrong in ({"every": 0}, {"dear_every": 1.5}):
        with pytest.raises(ValueError, match=f"Recorded: {next(iter(wrong))} must be a whole number"):
            Recorded(optim.SGD(), **wrong)
    with pytest.raises(ValueError, match="UBP goes over a layer rule"):
        optim.UBP(Recorded(optim.Gradient()))
    f = mg.Objective(lambda p: p["x"] * p["x"], mg.Params(x=1.0))
    with pytest.raises(TypeError, match="a sweep needs a network"):
        steps(Recorded(optim.SGD(0.1)), f, 1)


# ------------------------------------------------------------------------------------------------- the command


def test_train_record(minigrad, tmp_path):
    done = minigrad("train", "digits", "-O", "ubp:acp", "--steps", "20", "--record")
    assert done.code == 0, done.err
    folder = tmp_path / "runs/digits-0"
    assert (folder / "layers.png").read_bytes().startswith(b"\x89PNG")
    assert len(read(folder / "layers.jsonl")) == 60 and read(folder / "layers.jsonl")[0]["method"] == "ubp:acp"
    assert minigrad("train", "--resume", folder, "--steps", "30").code == 0
    assert sorted({line["step"] for line in read(folder / "layers.jsonl")}) == list(range(30))
    again = minigrad("train", "digits", "-O", "sgd", "--steps", "5", "--record", "--overwrite")
    assert again.code == 0 and {line["method"] for line in read(folder / "layers.jsonl")} == {"sgd"}


def test_there_is_nothing_to_record(minigrad, tmp_path):
    done = minigrad("train", "rosenbrock", "-O", "gd", "--steps", "5", "--record")
    assert done.code == 2 and done.error() == "rosenbrock has no dense layers to record; leave --record out"
    assert not (tmp_path / "runs").exists()
