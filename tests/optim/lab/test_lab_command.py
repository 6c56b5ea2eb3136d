"""The `minigrad` command: results, error sentences, exit codes, signals."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from minigrad.io import read_npz
from optim.lab.methods import INNER, METHODS
from optim.lab.tuned import tuned

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
COMMAND = [sys.executable, "-m", "optim.lab.cli"]


def document(outcome):
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


# ---------------------------------------------------------------------------------------------------------- results


def test_train_leaves_a_folder_and_prints_a_table(minigrad):
    done = minigrad("train", "digits", "-O", "acp", "--set", "lr=.2,every=5", "--steps", "20", "--seed", "3")
    assert done.code == 0, done.err
    folder = Path("runs/digits-3")
    assert sorted(p.name for p in folder.iterdir()) == ["acp.npz", "figure.png", "metrics.jsonl", "run.json"]
    head, row = done.out.splitlines()
    assert head.split("  ")[0] == "method" and "train error" in head
    assert row.split()[:2] == ["acp", "20"] and "*" not in row
    assert "figure: runs/digits-3/figure.png" in done.err and "100 %" in done.err

    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in lines] == list(range(21))
    assert f"{lines[-1]['train_loss']:.4g}" == row.split()[3]

    facts = json.loads((folder / "run.json").read_text())
    (method,) = facts["methods"]
    assert method["spec"] == "acp" and method["changed"] == {"lr": 0.2, "every": 5}
    assert method["settings"]["lr"] == 0.2 and method["settings"]["eps"] == tuned("digits", "acp")["eps"]
    expected = {"problem": "digits", "data": "digits8", "seed": 3, "budget": {"steps": 20}, "dtype": "float32"}
    assert expected.items() <= facts.items() and facts["train"] == 3600 and facts["batch"] == 64
    assert {"versions", "blas", "threads", "processor", "device", "results"} <= set(facts)
    assert facts["versions"]["numpy"] == np.__version__
    saved = read_npz(folder / "acp.npz")
    assert saved["step"] == 20 and saved["theta"].size == facts["parameters"] and "state/0.P" in saved


def test_compare_prints_json_alone_on_stdout(minigrad):
    done = minigrad("compare", "digits", "-O", "sgd", "-O", "sgd", "--set", "sgd-2.lr=.01", "--steps", "10", "--json")
    found = document(done)
    assert [r["method"] for r in found["results"]] == ["sgd", "sgd-2"]
    assert [r["settings"]["lr"] for r in found["results"]] == [tuned("digits", "sgd")["lr"], 0.01]
    assert found["results"][0]["train_loss"] < found["results"][1]["train_loss"]
    assert found["results"][0]["step"] == 10 and found["results"][0]["diverged"] is False
    assert found["folder"] == "runs/digits-0" and found["remarks"] == []


def test_the_best_value_is_marked(minigrad):
    done = minigrad("compare", "digits", "-O", "adam", "-O", "sgd", "--set", "sgd.lr=1e-4", "--epochs", ".2")
    adam, sgd = done.out.splitlines()[1:3]
    assert adam.count("*") == 4 and "*" not in sgd and adam.split()[1] == "11"


def test_progress_without_a_terminal_is_a_line_for_every_tenth(minigrad):
    done = minigrad("compare", "digits", "-O", "sgd", "-O", "adam", "--steps", "40")
    tenths = [line[:5] for line in done.err.splitlines() if "%" in line]
    assert tenths == [f"{k:3d} %" for k in range(10, 101, 10)] and "\r" not in done.err


def test_ones_own_method(minigrad, own_file):
    done = minigrad("train", "digits", "-O", f"{own_file.name}:Mine", "--set", "Mine.lr=.3", "--steps", "10", "--json")
    mine = document(done)["results"][0]
    sgd = document(minigrad("train", "digits", "-O", "sgd", "--set", "lr=.3", "--steps", "10", "--json", "--out", "b"))
    assert mine["method"] == "mine.py:Mine" and mine["train_loss"] == sgd["results"][0]["train_loss"]
    resumed = document(minigrad("train", "--resume", "runs/digits-0", "--steps", "12", "--json"))
    assert resumed["results"][0]["step"] == 12 and Path("runs/digits-0/mine.py-Mine.npz").is_file()
    below = minigrad("train", "digits", "-O", f"ubp:{own_file}:Half", "--steps", "2", "--out", "c")
    assert below.code == 0 and below.out.splitlines()[1].startswith("ubp:mine.py:Half")


def test_ones_own_data(minigrad):
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 200)
    np.savez("own.npz", x=(rng.standard_normal((200, 5)) + y[:, None]), y=y)
    found = document(minigrad("train", "classifier", "-O", "adam", "--data", "own.npz", "--steps", "4", "--json"))
    assert (
        found["train"] == 144
        and found["batch"] == 128
        and found["parameters"] == 5 * 512 + 512 * 514 + 513 * 10 - 7 * 513
    )
    assert found["data"] == str(Path("own.npz").resolve())
    np.savez("own.npz", x=rng.standard_normal((200, 5)), y=y)
    changed = minigrad("train", "--resume", "runs/classifier-0", "--steps", "6")
    assert changed.code == 1 and "is no longer what runs/classifier-0 was trained on" in changed.error()


def test_resume_takes_a_new_budget_or_the_old_one(minigrad):
    minigrad("compare", "digits", "-O", "sgd", "-O", "acp", "--steps", "8", "--dtype", "float64")
    more = document(minigrad("compare", "--resume", "runs/digits-0", "--steps", "12", "--json"))
    assert [r["step"] for r in more["results"]] == [12, 12] and more["dtype"] == "float64"
    assert read_npz("runs/digits-0/sgd.npz")["theta"].dtype == np.float64
    same = document(minigrad("train", "--resume", "runs/digits-0", "--json"))
    assert same["budget"] == {"steps": 12} and [r["step"] for r in same["results"]] == [12, 12]
    whole = document(minigrad("compare", "digits", "-O", "sgd", "-O", "acp", "--steps", "12", "--dtype", "float64",
                              "--json", "--out", "b"))  # fmt: skip
    assert [r["test_loss"] for r in more["results"]] == [r["test_loss"] for r in whole["results"]]


def test_a_function_is_a_problem_too(minigrad):
    call = ["quadratic", "-O", "gd", "-O", "nesterov", "--set", "problem.kappa=1e2,nesterov.lr=.5", "--set", "gd.lr=1"]
    found = document(minigrad("compare", *call, "--set", "problem.dim=30", "--steps", "50", "--json"))
    gd, nesterov = found["results"]
    assert nesterov["gap"] == nesterov["train_loss"] < gd["train_loss"] and "test_loss" not in gd
    expected = {"problem": "quadratic", "problem_settings": {"kappa": 100.0, "dim": 30}, "data": None, "minimum": 0.0}
    expected |= {"train": None, "batch": None, "parameters": 30, "dtype": "float64", "budget": {"steps": 50}}
    assert expected.items() <= found.items() and "fingerprint" in found
    lines = [json.loads(text) for text in Path("runs/quadratic-0/metrics.jsonl").read_text().splitlines()]
    assert list(lines[0]) == ["method", "step", "seconds", "train_loss", "gap"] and len(lines) == 2 * 51
    more = document(minigrad("compare", "--resume", "runs/quadratic-0", "--steps", "80", "--json"))
    whole = document(minigrad("compare", *call, "--set", "problem.dim=30", "--steps", "80", "--json", "--out", "b"))
    for here, there in zip(more["results"], whole["results"]):
        assert here["step"] == 80 and here["train_loss"] == there["train_loss"]
    facts = json.loads(Path("runs/quadratic-0/run.json").read_text())
    Path("runs/quadratic-0/run.json").write_text(json.dumps({**facts, "problem_settings": {"kappa": 50.0}}))
    changed = minigrad("compare", "--resume", "runs/quadratic-0")
    assert changed.code == 1 and "quadratic is no longer what runs/quadratic-0 was trained on" in changed.error()


def test_functions_are_float64_and_networks_float32_unless_told(minigrad):
    call = ["-O", "sgd", "--set", "lr=.01", "--steps", "2", "--json"]
    assert document(minigrad("train", "valley", *call))["dtype"] == "float64"
    assert document(minigrad("train", "digits", *call))["dtype"] == "float32"
    assert document(minigrad("train", "valley", *call, "--dtype", "float32", "--seed", "1"))["dtype"] == "float32"
    assert read_npz("runs/valley-1/sgd.npz")["theta"].dtype == np.float32


def test_a_method_that_stops_is_no_failure(minigrad, own_file):
    done = minigrad("train", "saddle", "-O", "sgd", "--set", "lr=.3")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].endswith("R is below -100, and saddle has no minimum.")
    done = minigrad("train", "digits", "-O", f"{own_file}:Halts", "--steps", "20", "--json")
    (found,) = document(done)["results"]
    assert found["stopped"] is True and found["diverged"] is False and found["step"] == 3
    assert found["reason"] == "the line search finds no lower loss; take another start"
    again = document(minigrad("train", "--resume", "runs/digits-0", "--steps", "30", "--json"))
    assert again["remarks"] == [
        "mine.py:Halts stopped at update 3: the line search finds no lower loss; take another start."
    ]
    assert again["results"][0]["step"] == 3


def test_a_folder_in_use_is_kept_unless_told_otherwise(minigrad):
    call = ["train", "digits", "-O", "sgd", "--steps", "2"]
    assert minigrad(*call).code == 0
    before = Path("runs/digits-0/run.json").read_text()
    refused = minigrad(*call)
    assert refused.code == 2
    for way in ("--resume runs/digits-0", "--overwrite", "--out"):
        assert way in refused.error()
    assert Path("runs/digits-0/run.json").read_text() == before
    Path("runs/digits-0/notes.txt").write_text("mine")
    assert minigrad("train", "digits", "-O", "adam", "--steps", "2", "--overwrite").code == 0
    kept = sorted(p.name for p in Path("runs/digits-0").iterdir())
    assert kept == ["adam.npz", "figure.png", "metrics.jsonl", "notes.txt", "run.json"]
    assert minigrad(*call, "--seed", "1").code == 0  # another folder


def test_a_refused_call_leaves_nothing(minigrad):
    assert minigrad("train", "autoencoder", "-O", "ubp", "--set", "mode=empirical", "--data", "digits8").code == 2
    assert not Path("runs").exists()


# ----------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    "call, code, words",
    [
        ("trian digits", 2, "unknown command 'trian'; there are compare, doctor,"),
        ("trian digits", 2, "did you mean 'train'?"),
        (
            "train digts -O sgd",
            2,
            "unknown problem 'digts'; there are autoencoder, classifier, deep-classifier, digits, quadratic,",
        ),
        ("train digts -O sgd", 2, "logistic-regression; did you mean 'digits'?"),
        ("train rosenbrok -O sgd", 2, "did you mean 'rosenbrock'?"),
        ("train rosenbrock -O sgd --set problem.kappa=3", 2, "rosenbrock has no setting 'kappa'; there are dim"),
        (
            "train quadratic -O sgd --set problem.kappa=.5",
            2,
            "quadratic: kappa must be a number of at least 1, not 0.5",
        ),
        ("train quadratic -O sgd --set problem.dim=many", 2, "quadratic: dim=many is not a whole number"),
        ("train beale -O sgd --set problem.dim=3", 2, "beale has no setting 'dim'; it has none"),
        ("train digits -O sgd --set problem.dim=3", 2, "problem.dim: digits is a network and has no settings"),
        ("train beale -O sgd --data digits8", 2, "beale takes no data: it is a test function; leave --data out"),
        ("train beale -O sgd --epochs 2", 2, "beale has no examples, hence no epochs; give --steps or --seconds"),
        ("train linear-regression -O sgd --data digits8", 2, "linear-regression takes no data"),
        (
            "train beale -O hessian-free",
            2,
            "hessian-free: curvature 'ggn' needs a network and its loss; on a plain function set curvature='hessian'",
        ),
        (
            "train beale -O acp",
            2,
            "acp: a sweep needs a network and its loss, and beale is a function without one",
        ),
        ("train digits -O sdg", 2, "did you mean 'sgd'?"),
        ("train -O sgd", 2, "name a problem: autoencoder, classifier, deep-classifier, digits, quadratic,"),
        ("train digits", 2, "name a method with -O; there are gd, sgd,"),
        ("train digits -O sgd -O adam", 2, "train takes one -O, not 2; use compare for several"),
        ("train digits -O sgd --set lrr=1", 2, "sgd has no setting 'lrr'; there are lr; did you mean 'lr'?"),
        ("train digits -O sgd --set lr=x", 2, "sgd: lr=x is not a number"),
        ("train digits -O sgd --steps 2 --seconds 1", 2, "give one of --steps, --epochs and --seconds, not 2"),
        ("train digits -O sgd --steps 0", 2, "the number of steps must be positive, not 0"),
        ("train digits -O sgd --seconds nan", 2, "the number of seconds must be positive, not nan"),
        ("train digits -O sgd --steps x", 2, "invalid value for '--steps': 'x' is not a valid integer"),
        ("train digits -O sgd --stesp 2", 2, "unknown option '--stesp'; did you mean '--steps'?"),
        ("train digits -O", 2, "option '-O' requires an argument"),
        ("train digits extra -O sgd", 2, "got unexpected extra argument"),
        ("train digits -O sgd --device gpu", 2, "'gpu' is not one of 'cpu', 'cuda'"),
        ("train digits -O sgd --dtype half", 2, "'half' is not one of"),
        ("train digits -O sgd --seed -1", 2, "a seed is an integer from 0 to"),
        ("train digits -O no.py:Mine", 2, "no.py: there is no such file"),
        ("train digits -O mine.py:Mien", 2, "mine.py has no class 'Mien'; did you mean 'Mine'?"),
        ("train digits -O mine.py:Fails", 2, "mine.py:Fails: no step for this"),
        (
            "train digits -O sgd --data digts",
            1,
            "'digts' is neither the name of a data set nor a folder or file; did you mean",
        ),
        ("train digits -O sgd --data empty", 1, "train-images-idx3-ubyte"),
        ("train digits -O sgd --data empty/targets.npz", 1, "there is no such file"),
        ("train digits -O sgd --data mine.npz", 1, "it is not an .npz file"),
        ("train digits -O sgd --out mine.py", 1, "cannot be written"),
        ("train --resume empty", 1, "empty holds no run"),
        ("train digits --resume empty", 2, "--resume takes the problem from the folder"),
        ("compare -O sgd --resume empty", 2, "--resume takes the methods from the folder"),
        ("train --seed 0 --resume empty", 2, "--resume takes the seed from the folder"),
    ],
)
def test_errors_are_one_sentence(call, code, words, minigrad, own_file):
    Path("empty").mkdir()
    Path("mine.npz").write_text("no zip")
    found = minigrad(*call.split())
    assert found.code == code and words in found.error() and found.out == ""


def test_a_device_that_is_not_there(minigrad, monkeypatch):
    from minigrad import backend

    monkeypatch.setattr(backend, "gpu_status", lambda: (False, "no GPU here"))
    found = minigrad("train", "digits", "-O", "sgd", "--steps", "1", "--device", "cuda")
    assert found.code == 1 and found.error() == "device 'cuda' cannot be used: no GPU here"


def test_labels_that_are_targets(minigrad):
    rng = np.random.default_rng(0)
    np.savez("own.npz", x=rng.standard_normal((50, 5)), y=rng.standard_normal(50))
    found = minigrad("train", "classifier", "-O", "sgd", "--data", "own.npz")
    assert found.code == 1 and "classifier needs labels, but the y of own" in found.error()


def test_divergence_is_a_failure_with_a_remedy(minigrad):
    found = minigrad("compare", "digits", "-O", "sgd", "-O", "adam", "--set", "sgd.lr=1e25", "--steps", "40")
    assert found.code == 1
    assert "sgd diverged at update 2 (its loss is not finite) and is saved as it was at update 0" in found.error()
    assert "--set sgd.lr=1e+24" in found.error()
    assert "diverged" in found.out and "NaN" not in Path("runs/digits-0/metrics.jsonl").read_text()
    assert found.out.splitlines()[2].split()[1] == "40"  # adam went on
    results = json.loads(Path("runs/digits-0/run.json").read_text())["results"]
    assert results[0]["diverged"] is True and results[0]["train_loss"] is None and results[1]["diverged"] is False


def test_a_method_that_makes_nan_of_a_function_diverges(minigrad, own_file):
    found = minigrad("train", "beale", "-O", "mine.py:NaN")
    assert found.code == 1 and found.out.splitlines()[1].split()[-1] == "diverged"
    assert "NaN diverged at update 2 (its loss is not finite) and is saved as it was at update 0" in found.error()
    assert read_npz("runs/beale-0/mine.py-NaN.npz")["theta"].tolist() == [1.0, 1.0]


def test_damaged_folders(minigrad):
    minigrad("train", "digits", "-O", "sgd", "--steps", "2")
    whole = Path("runs/digits-0/sgd.npz").read_bytes()
    Path("runs/digits-0/sgd.npz").write_bytes(whole[:500])
    cut = minigrad("train", "--resume", "runs/digits-0", "--steps", "4")
    assert cut.code == 1 and "sgd.npz: it is damaged or cut short" in cut.error()
    Path("runs/digits-0/run.json").write_text('{"problem": "digits"')
    assert "run.json is damaged" in minigrad("train", "--resume", "runs/digits-0").error()
    Path("runs/digits-0/run.json").write_text('{"problem": "digits"}')
    assert "run.json is damaged (KeyError: 'data')" in minigrad("train", "--resume", "runs/digits-0").error()


def test_an_unforeseen_error_is_one_sentence_too(minigrad, monkeypatch):
    from optim.lab import session

    def broken(*args):
        raise ZeroDivisionError("division\nby zero")

    monkeypatch.setattr(session, "_check_seed", broken)
    found = minigrad("train", "digits", "-O", "sgd")
    assert found.code == 1 and found.error() == "ZeroDivisionError: division by zero; add --debug to see where"


def test_debug_shows_the_traceback():
    done = subprocess.run([*COMMAND, "train", "digts", "--debug"], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" in done.stderr and "UsageError: unknown problem 'digts'" in done.stderr


# --------------------------------------------------------------------------------------------- signals, pipes, start


def started(*args):
    return subprocess.Popen(
        [*COMMAND, *args], env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_says_how_to_go_on(number, tmp_path, minigrad):
    process = started(
        "compare", "digits", "-O", "sgd", "-O", "acp", "--steps", "100000000", "--out", str(tmp_path / "my runs")
    )
    folder = tmp_path / "my runs" / "digits-0"
    patience = time.monotonic() + 30
    while not (folder / "acp.npz").exists():  # then both have been saved at step 0
        assert time.monotonic() < patience and process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    time.sleep(0.2)
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 128 + number and out == ""
    assert f"continue with: minigrad compare --resume '{folder}'" in err and "Traceback" not in err
    saved = read_npz(folder / "sgd.npz")
    assert saved["step"] > 0 and (folder / "figure.png").exists()
    assert not [p for p in folder.iterdir() if p.name.startswith(".")]

    again = document(minigrad("compare", "--resume", folder, "--steps", saved["step"] + 3, "--json"))
    assert [r["step"] for r in again["results"]] == [saved["step"] + 3] * 2
    lines = [json.loads(text) for text in (folder / "metrics.jsonl").read_text().splitlines()]
    steps = [e["step"] for e in lines if e["method"] == "sgd"]
    assert steps == sorted(set(steps)) and saved["step"] in steps


def test_a_closed_pipe_is_no_error():
    process = started("optimizers")
    process.stdout.close()
    assert "Traceback" not in process.stderr.read() and process.wait(timeout=30) != 0
    process.stderr.close()


def test_the_command_starts_without_what_it_does_not_need():
    code = "import sys, optim.lab.cli; print(*sorted({'matplotlib', 'scipy', 'cupy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


# ----------------------------------------------------------------------------------------------------------- tables


@pytest.mark.parametrize("command", ["train", "compare", "problems", "optimizers", "gallery", "doctor"])
def test_help_has_an_example(command, minigrad):
    shown = minigrad(command, "--help")
    assert shown.code == 0 and f"minigrad {command}" in shown.out
    assert minigrad().out == minigrad("--help").out and command in minigrad("--help").out


def test_tables(minigrad):
    problems = minigrad("problems").out
    assert "D-1000-500-250-30-250-500-1000-D, sigmoid, squared_error, batch 200" in problems
    for words in (
        "R = (x² + y − 11)² + (x + y² − 7)²",
        "d = 2, no minimum: a run ends when R is below −100; 200 steps unless a budget is given",
        "settings: problem.kappa = 1000, problem.dim = 50",
        "d = 11, batch 20, minimum 0.2412",
    ):
        assert words in problems
    methods = minigrad("optimizers").out
    for name, entry in {**METHODS, **INNER}.items():
        assert entry.about in methods and f"{entry.equation}   [{entry.source}]" in methods and name in methods
    assert "schedule:INNER" in methods and "settings of the method that it goes over: inner.NAME" in methods
    for words in (
        "inner.alpha_floor = 0.001",
        "lr = 0.1   search 0.001 to 1, log",
        "T-6.1, T-alg 4",
        "mode = gn   one of gn,",
        "rest_lr = none",
        "centred = false   ",
    ):
        assert words in methods
    doctor = minigrad("doctor").out
    for words in (
        f"numpy       {np.__version__}",
        "BLAS",
        "processor",
        "cuda",
        "digits8     found",
        "fashion",
        "cache",
    ):
        assert words in doctor
