"""Memory: the peak of a step of AE in every library, of each method and its state, and of Jacobians in blocks.

A library's peak is what the resident set of a process of its own grows by during its first steps, parameters, data
and code being there before (JAX compiles in the first one). A method's peak is what NumPy allocates (tracemalloc), the
idle buffers of minigrad's pool included. K-FAC's state is bounded by its factors and an inverse of each; with
every="auto" it also keeps the factors of its last inverses, to see how far they have moved.
"""

from __future__ import annotations

import contextlib
import gc
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import optim
from minigrad import backend

from . import peers, step
from .cases import AE, RATE, Minigrad
from .timing import Settings

MIB = 1 << 20
STEPS = 3
CHUNKS = (1, 8, 64)
METHODS = {
    "SGD": optim.SGD(RATE),
    "Momentum": optim.Momentum(RATE),
    "RMSprop": optim.RMSprop(RATE),
    "Adam": optim.Adam(RATE),
    "Centred": optim.Centred(RATE),
    "ACP": optim.ACP(RATE),
    "PRONG": optim.PRONG(RATE),
    "K-FAC mc": optim.KFAC(RATE),
    "K-FAC mc, every='auto'": optim.KFAC(RATE, every="auto"),
    "K-FAC fisher": optim.KFAC(RATE, curvature="fisher", stats_every=100),
    "EKFAC mc": optim.EKFAC(RATE),
    "UBP gn": optim.UBP(optim.Gradient(RATE), mode="gn"),
    "UBP mc": optim.UBP(optim.Gradient(RATE), mode="mc"),
}
COLUMNS = ("peak", "first step", "next step", "state", "at most", "all at once")


# ------------------------------------------------------------------------------------- a step in every library


def resident_growth(name: str) -> int:
    """Bytes by which the resident set grows during the first steps of one contender; run in a process of its own."""
    step.make("SMALL", name)()  # loads what a library loads at its first use
    run = step.make("AE", name)
    gc.collect()
    before = _resident("VmRSS")
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    for _ in range(STEPS):
        run()
    return _resident("VmHWM") - before


def _resident(what: str) -> int:
    """Bytes of the resident set, now or at most. (`ru_maxrss` also knows the process that this one was forked from.)"""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[what].split()[0]) * 1024


def libraries(chosen: Iterable[str]) -> list[dict[str, Any]]:
    """The growth of minigrad, of NumPy by hand and of the first variant of each peer."""
    rows = []
    for name in ("minigrad", "NumPy", *(next(iter(steps)) for steps in peers.having("STEPS", tuple(chosen)).values())):
        command = [sys.executable, "-m", "benchmarks", "resident", name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append({"what": f"a step, {name}", "peak": int(done.stdout)})
    return rows


# ----------------------------------------------------------------------------------------------- every method


def traced(run: Callable[[], Any]) -> int:
    """Bytes that NumPy holds at most during `run`, above what it held before, from an empty pool."""
    backend.pool.buffers.clear()
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    tracemalloc.reset_peak()
    run()
    return tracemalloc.get_traced_memory()[1] - before


def state_bytes(state: dict[str, Any]) -> int:
    """Bytes of the arrays of a state; one that stands there twice counts once."""
    arrays = [a if a.base is None else a.base for a in state.values() if hasattr(a, "nbytes") and hasattr(a, "base")]
    return sum({id(a): a.nbytes for a in arrays}.values())


def kronecker_bytes(state: dict[str, Any]) -> int:
    """Bytes of the factors A and G of every layer: an inverse of each takes as many."""
    return sum(a.nbytes for key, a in state.items() if key.rpartition(".")[2] in ("A", "G"))


def of_method(name: str) -> dict[str, Any]:
    """Peaks of the first step, with what it refreshes, and of the next; bytes of the state, and K-FAC's bound."""
    own = Minigrad(AE, METHODS[name])
    first, second = traced(own.step), traced(own.step)
    own.state["t"] = 10  # a step that moves averages without new inverses: what "auto" compares with is kept too
    own.step()
    row = {"what": name, "first step": first, "next step": second, "state": state_bytes(own.state)}
    if name in ("K-FAC mc", "K-FAC fisher"):
        row["at most"] = 2 * kronecker_bytes(own.state)
    return _bounded(row, "state")


# ---------------------------------------------------------------------------------------- Jacobians in blocks


def jacobians() -> list[dict[str, Any]]:
    """J of the lowest layer of AE, block after block, against chunk + 1 signals of all layers: one for the slopes."""
    params = AE.params()
    signal = AE.n * sum(AE.sizes[1:]) * params.dtype.itemsize
    rows = []
    for chunk in CHUNKS:
        *_, lowest = AE.objective(params).sweep()

        def walk(lowest=lowest, chunk=chunk):
            for _ in lowest.jacobian(chunk):
                pass

        row = {
            "what": f"site.jacobian({chunk}) of the lowest layer",
            "peak": traced(walk),
            "at most": (chunk + 1) * signal,
        }
        row["all at once"] = AE.sizes[-1] * AE.n * AE.sizes[1] * params.dtype.itemsize
        rows.append(_bounded(row, "peak"))
    return rows


def _bounded(row: dict[str, Any], name: str) -> dict[str, Any]:
    """The row itself, unless it is over the bound that it states."""
    most = row.get("at most", math.inf)
    if row[name] > most:
        raise ValueError(f"{row['what']}: {name} takes {row[name]:,} bytes, more than its bound of {most:,}")
    return row


# --------------------------------------------------------------------------------------------------- the table


def report(case: str, settings: Settings, chosen: tuple[str, ...]) -> tuple[str, list[dict[str, Any]]]:
    """The tables as text, in MiB, and as records, in bytes."""
    theta = AE.params().vector.nbytes
    tracemalloc.start()
    try:
        _ = AE.batch, AE.net
        rows = [*libraries(chosen), *map(of_method, METHODS), *jacobians()]
    finally:
        tracemalloc.stop()
    table = [("", *COLUMNS)]
    for row in rows:
        table.append((row["what"], *(f"{row[name] / MIB:.1f}" if name in row else "" for name in COLUMNS)))
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = [f"{AE.title}: θ takes {theta / MIB:.1f} MiB; sizes in MiB"]
    for name, *cells in table:
        lines.append("  ".join([name.ljust(widths[0]), *(c.rjust(w) for c, w in zip(cells, widths[1:]))]).rstrip())
    return "\n  ".join(lines) + "\n", [{"what": "θ", "peak": theta}, *rows]
