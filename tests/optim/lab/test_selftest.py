"""`minigrad doctor --device`: it covers everything there is, passes where all is well, and names what is wrong."""

import sys
from pathlib import Path

import numpy as np
import pytest

import optim
from minigrad import backend, ops, tensor
from minigrad.tensor import Primitive
from optim.lab import selftest
from optim.lab.catalogue import parse
from optim.lab.methods import INNER, METHODS, Choice

NETWORK = "digits"  # the smallest


def all_of(what, items):
    return iter(items)


@pytest.fixture
def quick(monkeypatch):
    """A self-test of two operations and two methods, on a small network, with a short look at the clock."""
    operations = list(selftest.operations())
    monkeypatch.setattr(selftest, "operations", lambda: [case for case in operations if case[0].name in "tanh matmul"])
    chosen = [("adam", "adam", {}), ("random-search", "random-search", {})]
    monkeypatch.setattr(selftest, "specifications", lambda: chosen)
    monkeypatch.setattr(selftest, "NETWORKS", (NETWORK,))
    monkeypatch.setattr(selftest, "SECONDS", 0.0)


def wrong_by(monkeypatch, share):
    """tanh is wrong by this share in float32."""
    right = ops.tanh.forward
    forward = lambda x: right(x) * (1 + share) if x.dtype == np.float32 else right(x)  # noqa: E731
    monkeypatch.setattr(ops.tanh, "forward", forward)


# ------------------------------------------------------------------------------------------------------ what it covers


def test_every_primitive_is_compared():
    there = {p for module in (tensor, ops) for p in vars(module).values() if isinstance(p, Primitive)}
    assert there - {op for op, _, _ in selftest.operations()} == set()


def test_every_method_and_every_word_of_its_settings_is_compared():
    found = {label: (spec, settings) for label, spec, settings in selftest.specifications()}
    assert {label.partition(":")[0] for label in found} >= set(METHODS)
    assert {f"ubp:{name}" for name in INNER} <= set(found)
    built = [parse(spec, settings) for spec, settings in found.values()]
    for entry in METHODS.values():
        for name, words in entry.ranges.items():
            if isinstance(words, Choice):
                seen = {str(getattr(m, name)).lower() for m in built if type(m) is entry.kind}
                assert seen >= set(words.words), (entry.kind, name)


def test_numbers_are_exact_in_float32():
    for op, arrays, _ in selftest.operations():
        for a in arrays:
            np.testing.assert_array_equal(a, a.astype(np.float32), err_msg=op.name)
    x = selftest._numbers("x", 3, 4)
    np.testing.assert_array_equal(x, selftest._numbers("x", 3, 4))
    assert np.abs(x - selftest._numbers("y", 3, 4)).min() > 0


# ------------------------------------------------------------------------------------------------------- what it finds


def test_every_operation_and_method_holds(device):
    checks = [*selftest._operation_checks(), *selftest._method_checks()]
    assert len({(check.kind, check.name) for check in checks}) == len(checks)
    for check in checks:
        for dtype in selftest.DTYPES[device]:
            off = check.deviation(device, dtype)
            assert not isinstance(off, str) and off <= 0.1 * selftest.LIMITS[check.kind][dtype], (
                check.name,
                dtype,
                off,
            )


def test_a_method_moves_far_enough_to_be_compared():
    for label, spec, settings in selftest.specifications():
        (moved,) = selftest.trained(spec, settings, "cpu", "float64")
        assert np.abs(moved).max() > 1e-4, label


def test_all_is_well(quick, device):
    report = selftest.examine(device, all_of)
    assert report.wrong == [] and report.text().endswith("\n\nall checks pass\n")
    lines = {line.split("  ")[1]: line for line in report.lines if line.startswith("  ")}
    assert {"tanh", "matmul", "eigh", "spd_inverse refuses", "adam", f"{NETWORK} ubp:acp"} <= set(lines)
    assert ("cpu ÷ cuda" in lines[f"{NETWORK} sgd"]) is (device == "cuda")


def test_an_operation_that_is_off_is_named(quick, device, monkeypatch):
    wrong_by(monkeypatch, 1e-4)
    report = selftest.examine(device, all_of)
    assert report.wrong == ["operation tanh in float32"]  # a training step forgives so little
    assert any(line.startswith("  tanh") and line.endswith("WRONG") for line in report.lines)


def test_a_method_that_is_off_is_named(quick, device, monkeypatch):
    right = optim.Adam.update
    factor = lambda theta: 1.01 if theta.dtype == np.float32 else 1.0  # noqa: E731
    monkeypatch.setattr(optim.Adam, "update", lambda self, f, state: factor(f.params.vector) * right(self, f, state))
    assert selftest.examine(device, all_of).wrong == ["method adam in float32"]


def test_an_error_is_a_finding_and_the_rest_goes_on(quick, device, monkeypatch):
    right = ops.tanh.forward

    def forward(x):
        if x.dtype == np.float32 and x.shape == (33, 65):
            raise RuntimeError("no such kernel")
        return right(x)

    monkeypatch.setattr(ops.tanh, "forward", forward)
    report = selftest.examine(device, all_of)
    assert report.wrong == ["operation tanh in float32"] and "no such kernel  WRONG" in report.text()
    assert "random-search" in report.text()


@pytest.mark.parametrize("counted", [True, False])
def test_a_planted_wait_is_found(quick, counted, device, monkeypatch):
    if device == "cpu":
        pytest.skip("nothing waits on the host")
    if not counted:
        monkeypatch.setitem(sys.modules, "device_stats", None)
    assert not selftest.watched(NETWORK, "sgd")[0]
    right = optim.SGD.update
    monkeypatch.setattr(optim.SGD, "update", lambda self, f, state: [float(f.value), right(self, f, state)][1])
    assert selftest.watched(NETWORK, "sgd") == (True, "waits")
    assert selftest.examine(device, all_of).wrong == [f"the waits of sgd on the {NETWORK}"]


def test_a_step_that_fails_is_a_finding_too(quick, device, monkeypatch):
    def step(self, count=1):
        raise MemoryError("out of\nmemory")

    monkeypatch.setattr(selftest.Workload, "step", step)
    report = selftest.examine(device, all_of)
    kinds = ("waits", "clock") if device == "cuda" else ("clock",)
    assert report.wrong == [f"the {kind} of {spec} on the {NETWORK}" for kind in kinds for spec in selftest.WATCHED]
    assert sum("MemoryError: out of memory" in line for line in report.lines) == len(report.wrong)


def test_deviations_that_no_number_measures():
    one = np.ones(2)
    assert selftest._off(one, np.ones(3)) == selftest._off(one * np.nan, one) == selftest._off(None, one) == np.inf
    assert selftest._off(None, None) == selftest._off(one * 0, one * 0) == 0
    assert selftest._off(one * 2.02, one * 2) == pytest.approx(0.01)


def test_many_failures_are_one_line():
    report = selftest.Report(wrong=[f"operation {k}" for k in range(40)])
    assert report.verdict() == (
        "40 checks fail: operation 0, operation 1, operation 2, operation 3, operation 4 and 35 more"
    )


# ---------------------------------------------------------------------------------------------------------- the command


def test_the_command_prints_the_report_or_writes_it(quick, minigrad, device):
    shown = minigrad("doctor", "--device", device)
    assert shown.code == 0, shown.err
    assert shown.out.startswith(f"self-test of device {device!r}\n") and shown.out.endswith("all checks pass\n")
    assert f"numpy       {np.__version__}" in shown.out and ("GPU  " in shown.out) is (device == "cuda")
    written = minigrad("doctor", "--device", device, "--out", "report.txt")
    assert written.code == 0 and written.out == "" and written.err.endswith("report: report.txt\n")
    assert Path("report.txt").read_text().endswith("all checks pass\n")


def test_the_exit_code_says_that_something_is_wrong_and_the_report_is_there(quick, minigrad, monkeypatch):
    wrong_by(monkeypatch, 1e-4)
    found = minigrad("doctor", "--device", "cpu", "--out", "report.txt")
    assert found.code == 1 and "error: device 'cpu': 1 check fails: operation tanh in float32" in found.err
    assert "tanh" in Path("report.txt").read_text()


def test_what_the_command_refuses(minigrad, monkeypatch):
    refused = minigrad("doctor", "--out", "report.txt")
    assert refused.code == 2 and refused.error() == "--out is for the report of a test; name the --device too"
    refused = minigrad("doctor", "--device", "cpu", "--out", "no/report.txt")
    assert refused.code == 1 and refused.error() == "no/report.txt: its folder does not exist; create it first"
    monkeypatch.setattr(backend, "gpu_status", lambda: (False, "no GPU here"))
    refused = minigrad("doctor", "--device", "cuda")
    assert refused.code == 1 and refused.error() == "device 'cuda' cannot be used: no GPU here"
