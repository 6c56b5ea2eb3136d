"""How time grows with width, depth, batch, outputs and examples: slopes on log-log axes beside those of theory.

The network is L layers of w units, w inputs, C outputs, tanh, softmax cross-entropy, N examples in the batch. A
theory's slope is that of its multiplications over the very sizes that the measured slope is fitted to, so that what
is left to explain is the machine's: what it pays for each call, each element and each byte.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import optim
from minigrad import backend

from .cases import RATE, Case, Minigrad
from .timing import Settings

FITTED = 3  # of the largest sizes
TOLERANCE = 0.2  # how far two slopes may lie apart without an explanation
PAIRS = 8
WHY = {  # curve: why its slopes may not be those of its multiplications
    "K-FAC refresh": "an inverse of width 128 runs at a tenth of the rate of products, one of 1024 at half of it: "
    "inverses weigh more than they count, and grow as the 2.2nd power of the width",
}
SMALLER = "what every call costs whatever its size, and small products, which run at a lower rate, still show"
LARGER = "arrays leave the caches, and from there on cost by the byte"
TEXT = (
    "Dots: median time of a step.\nLines: the slope of the multiplications over the same sizes,\n"
    "through the last dot.\n\nL layers of w units, w inputs, C outputs, tanh,\nsoftmax cross-entropy, N examples; "
    "unless varied\nw = 256 (128 for depth and outputs, 64 for examples),\nL = 4, N = 128, C = 10."
)


@dataclass(frozen=True)
class Size:
    """One network and batch."""

    w: int = 256
    L: int = 4
    N: int = 128
    C: int = 10

    @property
    def case(self) -> Case:
        sizes = (*(self.w,) * self.L, self.C)
        return Case("growth", sizes, "tanh", "softmax_cross_entropy", self.N, 1)

    @property
    def layer(self) -> float:
        """Multiplications of one product with every layer."""
        return self.N * (self.w**2 * (self.L - 1) + self.w * self.C)

    @property
    def above(self) -> float:
        """Multiplications of a product with every layer above each layer, summed over the layers."""
        L, w, C = self.L, self.w, self.C
        return self.N * (w**2 * (L - 1) * (L - 2) / 2 + w * C * (L - 1))

    @property
    def cubes(self) -> float:
        """Σ in³ + out³ over the layers."""
        return (2 * self.L - 1) * self.w**3 + self.C**3


def _method(method: Any) -> Callable[[Size], Callable[[], Any]]:
    return lambda size: Minigrad(size.case, method).update


def _refresh(size: Size) -> Callable[[], Any]:
    own = Minigrad(size.case, optim.KFAC(RATE))

    def step():
        own.state["t"] = 0
        own.update()

    return step


def _between(size: Size) -> Callable[[], Any]:
    own = Minigrad(size.case, optim.KFAC(RATE))
    own.step()
    return own.update


def _jacobians(size: Size) -> Callable[[], Any]:
    case = size.case
    params = case.params()
    return lambda: case.objective(params).signals("jacobian")


def _preconditioned(s: Size) -> float:
    """A step of K-FAC between: ∇ and its products with both inverses, on rows or on columns, whichever are fewer."""
    inner = min(s.N, s.w)
    return 3 * s.layer + (s.L - 1) * (inner * s.w**2 * 2) + s.w**2 * min(s.N, s.C)


CURVES = {  # name: (what is timed, its multiplications)
    "step": (_method(optim.SGD(RATE)), lambda s: 3 * s.layer),
    "UBP none": (_method(optim.UBP(optim.Gradient(RATE), mode="none")), lambda s: 3 * s.layer),
    "UBP mc": (_method(optim.UBP(optim.Gradient(RATE), mode="mc")), lambda s: 5 * s.layer),
    "UBP gn": (_method(optim.UBP(optim.Gradient(RATE), mode="gn")), lambda s: 5 * s.layer + 2 * s.above),
    "UBP explicit": (
        _method(optim.UBP(optim.Gradient(RATE), mode="explicit")),
        lambda s: (5 + s.C) * s.layer + 2 * s.C * s.N * s.w * (s.L - 1),
    ),
    "K-FAC between": (_between, _preconditioned),
    "K-FAC refresh": (_refresh, lambda s: _preconditioned(s) + 2 * s.layer + s.cubes / 2),
    "J_a": (_jacobians, lambda s: (1 + s.C) * s.layer),
    "ES rank1": (_method(optim.ES(RATE, PAIRS, directions="rank1")), lambda s: 2 * PAIRS * s.layer),
}
AXES = {  # name: (field, sizes, the others)
    "width": ("w", (64, 128, 256, 512, 1024), Size()),
    "depth": ("L", (2, 4, 8, 16, 32), Size(w=128)),
    "batch": ("N", (16, 64, 256, 1024), Size()),
    "outputs": ("C", (4, 16, 64, 256), Size(w=128)),
    "examples": ("N", (1024, 4096, 16384), Size(w=64)),
}
ROUNDS = 3


def points(axis: str) -> list[Size]:
    field, values, others = AXES[axis]
    return [replace(others, **{field: value}) for value in values]


def timed(axis: str, seconds: float) -> dict[str, list[float]]:
    """{curve: median seconds at every size}; all curves and sizes take turns."""
    runs = {(name, k): start(size) for name, (start, _) in CURVES.items() for k, size in enumerate(points(axis))}
    found: dict[tuple, list[float]] = {key: [] for key in runs}
    for run in runs.values():
        run()
    end, done = time.perf_counter() + seconds, 0
    while done < ROUNDS or time.perf_counter() < end:
        for key, run in runs.items():
            start = time.process_time()
            run()
            found[key].append(time.process_time() - start)
        done += 1
    backend.pool.buffers.clear()
    return {name: [float(np.median(found[name, k])) for k in range(len(points(axis)))] for name in CURVES}


def slope(sizes: list[float], values: list[float]) -> float:
    """The exponent of a power law through the largest sizes, by least squares on the logarithms."""
    x, y = np.log(sizes[-FITTED:]), np.log(values[-FITTED:])
    return float(np.polyfit(x, y, 1)[0])


def grown(axis: str, seconds: float) -> list[dict[str, Any]]:
    """A row for each curve: sizes, milliseconds, both slopes."""
    field, values, _ = AXES[axis]
    rows = []
    for name, times in timed(axis, seconds).items():
        theory = [CURVES[name][1](size) for size in points(axis)]
        row = {"axis": axis, "curve": name, "sizes": list(values), "milliseconds": [1e3 * t for t in times]}
        row |= {"slope": slope(values, times), "theory": slope(values, theory)}
        rows.append(row)
    return rows


def explained(row: dict[str, Any]) -> str:
    """Why a slope is not that of the multiplications; empty where it is."""
    apart = row["slope"] - row["theory"]
    if abs(apart) <= TOLERANCE:
        return ""
    why = WHY.get(row["curve"]) or (SMALLER if apart < 0 else LARGER)
    return f"{row['curve']}, {row['axis']}: {row['slope']:.2f} instead of {row['theory']:.2f}: {why}"


def report(case: str, settings: Settings, chosen: tuple[str, ...]) -> tuple[str, list[dict[str, Any]]]:
    """The slopes as text, and all curves."""
    rows = [row for axis in AXES for row in grown(axis, settings.seconds)]
    cells = {(row["curve"], row["axis"]): f"{row['slope']:.2f} ({row['theory']:.2f})" for row in rows}
    lines = [f"slope of time over the {FITTED} largest sizes, log-log; in brackets that of the multiplications"]
    lines.append("".ljust(15) + "".join(axis.rjust(14) for axis in AXES))
    lines += [name.ljust(15) + "".join(cells[name, axis].rjust(14) for axis in AXES) for name in CURVES]
    return "\n  ".join([*lines, *filter(None, map(explained, rows))]) + "\n", rows


def draw(rows: list[dict[str, Any]], path: str | Path) -> None:
    """A panel for each axis, log-log: time as dots, the multiplications' slope as a line through the last of them."""
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(15, 7), layout="constrained")
        panels = figure.subplots(2, 3).ravel()
        for ax, axis in zip(panels, AXES):
            for k, row in enumerate(row for row in rows if row["axis"] == axis):
                _curve(ax, row, f"C{k}")
            ax.set(xscale="log", yscale="log", xlabel=axis, ylabel="ms")
            ax.set_xticks(AXES[axis][1], [str(value) for value in AXES[axis][1]], minor=False)
            ax.minorticks_off()
            ax.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=7, frameon=False, title="slope (theory)")
        panels[-1].axis("off")
        panels[-1].text(0.0, 1.0, TEXT, va="top", wrap=True, fontsize=9)
        FigureCanvasAgg(figure).print_png(str(path))


def _curve(ax: Axes, row: dict[str, Any], colour: str) -> None:
    sizes, times = np.array(row["sizes"], float), np.array(row["milliseconds"])
    label = f"{row['curve']} {row['slope']:.2f} ({row['theory']:.2f})"
    ax.plot(sizes, times, "o", markersize=3.5, color=colour, label=label)
    fitted = sizes[-FITTED:]
    ax.plot(fitted, times[-1] * (fitted / sizes[-1]) ** row["theory"], linewidth=1.0, color=colour)
