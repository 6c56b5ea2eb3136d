"""`minigrad doctor --device`: whether a device computes what NumPy computes, without waits, and how fast.

Every operation runs in its four modes and every method for a few steps, and the numbers are compared with NumPy's in
float64. A step of the methods that have to run without a wait is watched, and steps are timed on both devices. What a
step reports stays on the device until somebody reads it: a run reads it once a line of its log.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigrad import Objective, backend, losses, nn, ops, tensor
from minigrad.nn.normalisation import standardised
from minigrad.tensor import Primitive, Tensor
from minigrad.walk import between, forward, forward_over_reverse, reverse
from optim.wrappers import Wrapper

from . import machine
from .catalogue import parse
from .methods import INNER, METHODS, Choice
from .problems import PROBLEMS

DTYPES = {"cpu": ("float32",), "cuda": ("float64", "float32")}  # NumPy in float64 is what they are compared with
LIMITS = {  # of the largest deviation divided by the largest number, for rounding: float64, float32
    "operations": {"float64": 1e-12, "float32": 1e-5},
    "methods": {"float64": 1e-9, "float32": 1e-3},
}
STEPS = 5
NAMED = 5  # failures that the last line names
NETWORKS = ("autoencoder", "classifier")  # problems of the laboratory, on random pictures
INPUTS = 784
WATCHED = ("sgd", "adam", "acp", "kfac", "ubp:acp")  # none may wait, where it renews no inverse
SECONDS, TURN = 0.5, 5  # a clock runs for so long at least, and is read after so many steps
COUNTED = {"syncs": "waits", "launches": "launches", "blas": "library calls", "h2d": "copies up", "d2h": "copies down"}

Follow = Callable[[str, Iterable], Iterator]  # passes items on and shows how far it is


@dataclass
class Check:
    """One computation that has to give the same numbers everywhere.

    Parameters
    ----------
    name : str
    kind : str
        Of LIMITS.
    compute : callable
        (device, dtype) → arrays; None in place of an array that is zero.
    draws : bool
        Whether its random numbers depend on the dtype: then NumPy in the same dtype is what it is compared with.
    """

    name: str
    kind: str
    compute: Callable[[str, str], list]
    draws: bool = False

    def deviation(self, device: str, dtype: str) -> float | str:
        """Largest deviation, relative to the largest number of each array; or the error that it raised."""
        try:
            expected = self.compute("cpu", dtype if self.draws else "float64")
            return max(map(_off, self.compute(device, dtype), expected))
        except Exception as error:  # whatever the device says is what the report is for
            return _named(error)


def _named(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())


def _off(found: Any, expected: Any) -> float:
    if found is None or expected is None:
        return 0.0 if found is expected else math.inf
    found, expected = (np.asarray(backend.to_host(a), float) for a in (found, expected))
    if found.shape != expected.shape:
        return math.inf
    off = np.abs(found - expected).max() / (np.abs(expected).max() or 1.0)
    return math.inf if np.isnan(off) else float(off)


def _numbers(purpose: str, *shape: int) -> np.ndarray:
    """Normal numbers that float32 holds exactly, the same for every device and dtype."""
    return backend.stream(0, purpose).standard_normal(shape).astype(np.float32)


# --------------------------------------------------------------------------------------------------------- operations


def operations() -> Iterator[tuple[Primitive, tuple, dict[str, Any]]]:
    """(primitive, arrays, settings), every primitive of the package at least once, where it is smooth."""
    x, y, row, column = (_numbers(name, *shape) for name, shape in
                         {"x": (33, 65), "y": (33, 65), "row": (65,), "column": (33, 1)}.items())  # fmt: skip
    positive, inside = 0.4 + np.abs(x), np.tanh(x)
    apart = (backend.stream(0, "apart").permutation(x.size).reshape(x.shape) - x.size // 2) * np.float32(0.25) + 0.125
    between_them = np.roll(apart, 7) + np.float32(0.0625)  # no ties, no kinks
    a, b, square = _numbers("a", 33, 17), _numbers("b", 17, 9), _numbers("square", 17, 17) + 20 * np.eye(17, dtype="f4")
    images, share = _numbers("images", 3, 17), np.abs(y) / np.abs(y).sum(-1, keepdims=True)
    picks = (slice(None, None, -1), np.array([2, 0, 2, 16]))  # one twice

    for op in (ops.add, ops.subtract, ops.multiply):
        yield op, (x, y), {}
        yield op, (row, column), {}
    for op in (ops.negative, ops.square, ops.exp, ops.expm1, ops.sin, ops.cos, ops.tanh, ops.sigmoid, ops.softplus,
               tensor.alias):  # fmt: skip
        yield op, (x,), {}
    for op in (ops.log, ops.log1p, ops.sqrt):
        yield op, (positive,), {}
    for op in (ops.dtanh, ops.dsigmoid):
        yield op, (inside,), {}
    for op in (ops.relu, ops.absolute, ops.sign):
        yield op, (apart,), {}
    for op in (ops.maximum, ops.minimum):
        yield op, (apart, between_them), {}
    for op in (ops.largest, ops.smallest, ops.length):
        yield op, (apart,), {"axes": (-1,)}
    for op in (ops.log_total, ops.normalised):
        yield op, (x,), {"axis": -1}
    for op in (ops.sigmoid_ce, ops.softmax_ce, ops.squares):
        yield op, (x, share), {}
    yield ops.divide, (x, positive), {}
    yield ops.power, (positive, y), {}
    yield ops.leaky, (apart,), {"slope": 0.125}
    yield ops.clipped, (apart,), {"low": -40.0, "high": 90.0}
    yield ops.select, (x, y), {"condition": x > y}
    yield tensor.sum_to, (x,), {"old": (33, 65), "new": (1, 65)}
    yield tensor.stretch, (column,), {"old": (33, 1), "new": (2, 33, 65)}
    yield tensor.refold, (x,), {"old": (33, 65), "new": (65, 33)}
    yield ops.permute, (x,), {"order": (-1, -2)}
    yield ops.joined, (x, column), {"axis": -1}
    yield ops.take, (images,), {"index": picks, "shape": (3, 17)}
    yield ops.scatter, (images[:, :4],), {"index": picks, "shape": (3, 17)}
    yield ops.padded, (x,), {"widths": ((1, 0), (2, 1))}
    yield ops.windows, (images,), {"size": (3,), "stride": 2, "shape": (17,)}
    yield ops.overlap_add, (_numbers("parts", 3, 8, 3),), {"size": (3,), "stride": 2, "shape": (17,)}
    yield ops.total, (x,), {"axes": (-2,), "keepdims": False}
    yield ops.total, (x,), {"axes": (-2, -1), "keepdims": True}
    yield ops.product, (a, b), {}
    yield ops.product, (_numbers("many", 3, 17, 9), images[:, :9, None]), {}
    yield ops.contract, (a, b), {"spec": "ij,jk->ki"}
    yield ops.solution, (square, b), {}
    yield ops.affine, (a, b.T.copy(), _numbers("bias", 9)), {}
    yield standardised, (x,), {"axes": (-2,), "eps": 0.125}


def four_modes(op: Primitive, arrays: list, settings: dict[str, Any]) -> list:
    """Value, cotangents, tangent, and how the cotangents turn along the tangents (forward over reverse)."""
    inputs = [Tensor(a) for a in arrays]
    out = op(*inputs, **settings)
    order, reach = between(out, inputs)
    g, *tangents = (backend.like(_numbers("direction", *v.shape), v.value, v.dtype) for v in (out, *inputs))
    keep = {v.seq for v in inputs}
    back = reverse(order, reach, {out.seq: g}, keep=keep)
    moved = forward(order, {v.seq: t for v, t in zip(inputs, tangents)})
    turned = forward_over_reverse(order, reach, moved, {out.seq: g}, {}, keep=keep)
    return [out.value, *(back.get(v.seq) for v in inputs), moved.get(out.seq), *(turned.get(v.seq) for v in inputs)]


def _placed(value: Any, device: str) -> Any:
    """Masks and indices inside settings, on a device."""
    if isinstance(value, tuple):
        return tuple(_placed(v, device) for v in value)
    return backend.asarray(value, device) if isinstance(value, np.ndarray) else value


def _operation_checks() -> Iterator[Check]:
    cases: dict[Primitive, list] = {}
    for op, *case in operations():
        cases.setdefault(op, []).append(case)
    for op, given in cases.items():

        def compute(device, dtype, op=op, given=given):
            found = []
            for arrays, settings in given:
                placed = {name: _placed(value, device) for name, value in settings.items()}
                found += four_modes(op, [backend.asarray(a, device, dtype) for a in arrays], placed)
            return found

        yield Check(op.name, "operations", compute)
    for name, compute in GUARDED.items():
        yield Check(name, "operations", lambda device, dtype, f=compute: f(*_positive(device, dtype)))


def _positive(device: str, dtype: str) -> tuple[Any, Any]:
    """A positive definite matrix (33, 33) and right-hand sides (33, 2)."""
    half = _numbers("half", 33, 33)
    matrix = half @ half.T + 20 * np.eye(33, dtype="f4")
    return backend.asarray(matrix, device, dtype), backend.asarray(_numbers("sides", 33, 2), device, dtype)


def _refuses(factorise: Callable) -> list:
    """A one where a matrix that is not positive definite is refused: CuPy alone would give back garbage."""
    try:
        factorise()
    except backend.FactorisationError:
        return [np.ones(1)]
    return [np.zeros(1)]


def _spectrum(matrix: Any, sides: Any) -> list:
    values, vectors = backend.eigh(matrix)
    return [values, (vectors * values) @ vectors.T]


GUARDED = {
    "spd_inverse": lambda matrix, sides: [backend.spd_inverse(matrix)],
    "spd_solve": lambda matrix, sides: [backend.spd_solve(matrix, sides)],
    "eigh": _spectrum,
    "spd_inverse refuses": lambda matrix, sides: _refuses(lambda: backend.spd_inverse(-matrix)),
    "spd_solve refuses": lambda matrix, sides: _refuses(lambda: backend.spd_solve(matrix * np.nan, sides)),
}

# ------------------------------------------------------------------------------------------------------------ methods

NET = nn.mlp([4, 5, 4, 3], hidden="tanh")
START = 5  # a seed from where rounding θ and x otherwise changes no decision and less than 5e-5 of what a method does
DRAWS = ("random-search", "weighted-search", "es")  # whose normal numbers are drawn in the dtype of θ
SETTINGS = {  # where the defaults make much of rounding errors: eigenvalues near 0, iterates and ranks that are near
    "adagrad": {"eps": 0.1},
    "newton": {"damping": 2.0},
    "hessian-free": {"tol": 0.0, "max_iterations": 3},
    "es": {"pairs": 8, "sigma": 0.25},
}


def specifications() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(label, specification, settings): every method, again with each other word and switch, UBP over every rule."""
    for name, entry in METHODS.items():
        spec = f"{name}:momentum" if issubclass(entry.kind, Wrapper) else name
        own = SETTINGS.get(name, {})
        yield spec, spec, own
        fields = dataclasses.fields(entry.kind) if dataclasses.is_dataclass(entry.kind) else ()
        for setting in fields:
            words = entry.ranges.get(setting.name)
            switch = ("true", "false") if isinstance(setting.default, bool) else ()
            for word in words.words if isinstance(words, Choice) else switch:
                if word != str(setting.default).lower():
                    yield f"{spec} {setting.name}={word}", spec, {**own, setting.name: word}
    for name in INNER:
        yield f"ubp:{name}", f"ubp:{name}", {}


def trained(spec: str, settings: dict[str, Any], device: str, dtype: str) -> list:
    """[how far θ has moved after some steps] on a small classifier."""
    method, params = parse(spec, settings), NET.init(rng=START, device=device, dtype=dtype)
    start = NET.init(rng=START).vector + 0.125 * _numbers("start", params.size)
    params.vector = backend.asarray(start, device, dtype)
    x, y = _numbers("x", 12, 4), backend.stream(0, "y").integers(0, 3, 12)
    x, y = backend.asarray(x, device, dtype), backend.asarray(y, device)
    f, state = Objective(NET, losses.softmax_cross_entropy, params, x, y), method.init(params, rng=0)
    for _ in range(STEPS):
        method.step(f, state)
    return [params.vector - backend.asarray(start, device, dtype)]


def _method_checks() -> Iterator[Check]:
    for label, spec, settings in specifications():
        compute = lambda device, dtype, spec=spec, settings=settings: trained(spec, settings, device, dtype)  # noqa: E731
        yield Check(label, "methods", compute, spec in DRAWS)


# ---------------------------------------------------------------------------------------------- what a step costs


class Workload:
    """One method on one network of the laboratory, with a batch of random pictures."""

    def __init__(self, network: str, spec: str, device: str):
        problem = PROBLEMS[network]
        outputs = INPUTS if problem.reconstructs else 10
        rate = "inner.lr" if ":" in spec else "lr"
        self.method = parse(spec, {rate: 1e-6})  # the network stays where it is
        self.loss, self.net = problem.loss, problem.net(INPUTS, outputs)
        rng = np.random.default_rng(0)
        self.x = backend.asarray(rng.random((problem.batch, INPUTS)), device, "float32")
        labels = backend.asarray(rng.integers(0, outputs, problem.batch), device)
        self.y = self.x if problem.reconstructs else ops.one_hot(labels, outputs, self.x)
        self.params = self.net.init(rng=0, device=device)
        self.state = self.method.init(self.params)

    def step(self, count: int = 1) -> None:
        for _ in range(count):
            self.method.step(Objective(self.net, self.loss, self.params, self.x, self.y), self.state)

    def seconds(self, count: int) -> float:
        """Seconds of a step, from the first to the moment when the device has done the last."""
        backend.wait(self.params.vector)
        start = time.perf_counter()
        self.step(count)
        backend.wait(self.params.vector)
        return (time.perf_counter() - start) / count

    def clock(self) -> tuple[float, float]:
        """Seconds of a step, and of one that renews the inverses (of those that have any)."""
        self.step(2)  # compiles
        self.state["t"] = 0  # due again
        renewed = self.seconds(1)
        turns, end = [], time.perf_counter() + SECONDS
        while len(turns) < 3 or time.perf_counter() < end:
            turns.append(self.seconds(TURN))
        return statistics.median(turns), renewed


def watched(network: str, spec: str) -> tuple[bool, str]:
    """Whether a step waited for the device, and what it did as far as that is known."""
    try:
        import device_stats  # the counters of the CPU device
    except ImportError:
        device_stats = None
    work = Workload(network, spec, "cuda")
    work.step()  # compiles, and renews the inverses
    if device_stats:
        device_stats.reset()
    try:
        with backend.no_waits():
            work.step()
    except backend.Waited:
        return True, "waits"
    if device_stats is None:
        return False, "no wait"
    counts = device_stats.read()
    return counts["syncs"] > 0, ", ".join(f"{counts[key]} {name}" for key, name in COUNTED.items())


# -------------------------------------------------------------------------------------------------------- the report


@dataclass
class Report:
    """What was found.

    Attributes
    ----------
    lines : list of str
    wrong : list of str
        What does not hold, a few words each; empty where all is well.
    """

    lines: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def text(self) -> str:
        return "\n".join([*self.lines, "", self.verdict(), ""])

    def verdict(self) -> str:
        """One line: all is well, or what is not."""
        if not self.wrong:
            return "all checks pass"
        more = f" and {len(self.wrong) - NAMED} more" if len(self.wrong) > NAMED else ""
        count = "1 check fails" if len(self.wrong) == 1 else f"{len(self.wrong)} checks fail"
        return f"{count}: {', '.join(self.wrong[:NAMED])}{more}"


def examine(device: str, follow: Follow) -> Report:
    """The whole self-test.

    Parameters
    ----------
    device : {"cpu", "cuda"}
    follow : callable
        (what, items) → the items, one by one; for a progress bar.

    Raises
    ------
    DeviceError
        The device cannot be used.
    """
    backend.module(device)
    report = Report([f"self-test of device {device!r}", "", *machine.told()])
    if device == "cuda":
        report.lines += [f"{name:<11} {value}" for name, value in backend.gpu_facts().items()]
    _compare(report, device, "operations", list(_operation_checks()), follow)
    _compare(report, device, "methods", list(_method_checks()), follow)
    if device == "cuda":
        _watch(report, follow)
    _race(report, device, follow)
    return report


def _compare(report: Report, device: str, kind: str, checks: list[Check], follow: Follow) -> None:
    limits = {dtype: LIMITS[kind][dtype] for dtype in DTYPES[device]}
    told = " and ".join(f"{limit:g} in {dtype}" for dtype, limit in limits.items())
    how = "value, reverse, forward, forward over reverse" if kind == "operations" else f"{STEPS} steps of a small net"
    report.lines += ["", f"{kind} ({how}): deviation from NumPy in float64 ÷ largest number, at most {told}"]
    for check in follow(kind, checks):
        cells = []
        for dtype, limit in limits.items():
            off = check.deviation(device, dtype)
            wrong = isinstance(off, str) or not off <= limit
            cells.append(f"{off if isinstance(off, str) else f'{off:.1e}'}{'  WRONG' if wrong else ''}")
            if wrong:
                report.wrong.append(f"{kind[:-1]} {check.name} in {dtype}")
        report.lines.append(f"  {check.name:<40} " + "  ".join(f"{cell:<8}" for cell in cells).rstrip())


def _watch(report: Report, follow: Follow) -> None:
    seen = "CuPy's own detector, which does not see inside libraries; the rest can be counted on the CPU device only"
    report.lines += ["", f"a step that renews no inverse may not wait for the device: {seen}"]
    for network, spec in follow("waits", _pairs()):
        try:
            wrong, told = watched(network, spec)
        except Exception as error:  # goes into the report too
            wrong, told = True, _named(error)
        report.lines.append(f"  {f'{network} {spec}':<40} {told}{'  WRONG' if wrong else ''}")
        if wrong:
            report.wrong.append(f"the waits of {spec} on the {network}")


def _pairs() -> list[tuple[str, str]]:
    return [(network, spec) for network in NETWORKS for spec in WATCHED]


def _race(report: Report, device: str, follow: Follow) -> None:
    devices = ("cpu",) if device == "cpu" else ("cpu", "cuda")
    report.lines += ["", "milliseconds of a step in float32, in brackets of one that renews the inverses"]
    for network, spec in follow("clocks", _pairs()):
        try:
            found = {name: Workload(network, spec, name).clock() for name in devices}
        except Exception as error:  # goes into the report too
            told = [_named(error), "WRONG"]
            report.wrong.append(f"the clock of {spec} on the {network}")
        else:
            told = [f"{name} {1e3 * step:.3g} ({1e3 * renewed:.3g})" for name, (step, renewed) in found.items()]
            if len(found) == 2:
                told.append(f"cpu ÷ cuda {found['cpu'][0] / found['cuda'][0]:.2f}")
        report.lines.append(f"  {f'{network} {spec}':<40} " + "   ".join(told))
