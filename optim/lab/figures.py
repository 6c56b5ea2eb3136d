"""The picture of a comparison: losses by updates and by training seconds, as a PNG without a display."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import BinaryIO

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from .runs import Record

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # Okabe & Ito 2008
AXES = {"step": "updates", "seconds": "training time in seconds"}
ROWS = {"loss": "loss", "error": "error rate"}
MARKERS = ("", "o", "s", "^")  # when there are more methods than colours
LOG_RATIO = 5  # largest ÷ smallest value from which an axis is logarithmic
INK = "#333333"


def draw(records: Sequence[Record], title: str, subtitle: str, stream: BinaryIO) -> None:
    """Write the picture as PNG; the same records give the same bytes.

    Parameters
    ----------
    records : sequence of Record
    title, subtitle : str
    stream : binary stream
    """
    rows = [r for r in ROWS if any(f"train_{r}" in line for record in records for line in record.lines)]
    figure = Figure(figsize=(11, 1.4 + 3.3 * len(rows)), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(rows), len(AXES), squeeze=False, sharey="row", sharex="col")
    for row, quantity in zip(axes, rows):
        for ax, x in zip(row, AXES):
            for k, record in enumerate(records):
                _curves(ax, record, x, quantity, k)
            _style(ax, x)
        _scale(row[0], records, quantity)
        row[0].set_ylabel(ROWS[quantity])
    for ax, label in zip(axes[-1], AXES.values()):
        ax.set_xlabel(label)
    figure.align_ylabels()
    figure.suptitle(f"{title}\n", x=0.01, ha="left", fontsize=14, fontweight="bold", color=INK)
    figure.text(0.01, 0.98 - 0.27 / figure.get_figheight(), subtitle, ha="left", va="top", fontsize=9.5, color=INK)
    _legend(figure, records)
    figure.savefig(stream, format="png", metadata={"Software": None})


def _points(record: Record, name: str) -> list[dict]:
    return [line for line in record.lines if line.get(name) is not None]


def _curves(ax: Axes, record: Record, x: str, quantity: str, k: int) -> None:
    """Training solid, test dashed, in the method's colour; a cross where it diverged."""
    style = {"color": COLOURS[k % len(COLOURS)], "marker": MARKERS[k // len(COLOURS) % len(MARKERS)], "markersize": 3.5}
    for part, dashes, width in (("train", "-", 2.0), ("test", (0, (4, 2)), 1.4)):
        name = f"{part}_{quantity}"
        points = _points(record, name)
        ax.plot([e[x] for e in points], [e[name] for e in points], linestyle=dashes, linewidth=width, **style)
        if part == "train" and record.diverged and points:
            ax.plot(points[-1][x], points[-1][name], marker="X", markersize=10, color=style["color"], clip_on=False)


def _scale(ax: Axes, records: Sequence[Record], quantity: str) -> None:
    """A logarithmic axis where the values ask for one; what exploded does not squeeze the rest."""
    values = [e[n] for r in records for n in (f"train_{quantity}", f"test_{quantity}") for e in _points(r, n)]
    start = max((_points(r, f"train_{quantity}")[0][f"train_{quantity}"] for r in records if r.last), default=1.0)
    top = min(max(values, default=1.0), 2 * start)
    low = min(values, default=0.0)
    if low > 0 and top / low > LOG_RATIO:
        ax.set_yscale("log", subs=(2, 3, 5))
        ax.set_ylim(low / 1.15, top * 1.15)
    elif top > 0:
        ax.set_ylim(0, 1.05 * top)
    plain = FuncFormatter(lambda value, _: f"{100 * value:.3g} %" if quantity == "error" else f"{value:.3g}")
    ax.yaxis.set_major_formatter(plain)
    ax.yaxis.set_minor_formatter(plain)


def _style(ax: Axes, x: str) -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#888888")
    ax.tick_params(colors=INK, labelsize=9, which="both")
    ax.grid(True, which="both", color="#e6e6e6", linewidth=0.8)
    ax.set_axisbelow(True)
    ax.set_xlim(left=0)
    ax.margins(x=0.02)


def _legend(figure: Figure, records: Sequence[Record]) -> None:
    """Methods from the highest final training loss to the lowest, as their lines end; then what the strokes mean."""
    order = sorted(range(len(records)), key=lambda k: -records[k].last.get("train_loss", math.inf))
    handles = []
    for k in order:
        label = records[k].method + (" (diverged)" if records[k].diverged else "")
        colour, marker = COLOURS[k % len(COLOURS)], MARKERS[k // len(COLOURS) % len(MARKERS)]
        handles.append(Line2D([], [], color=colour, marker=marker, markersize=7, linewidth=3, label=label))
    handles.append(Line2D([], [], linestyle="none", label=" "))
    handles.append(Line2D([], [], color=INK, linewidth=2.0, label="training"))
    handles.append(Line2D([], [], color=INK, linewidth=1.4, linestyle=(0, (4, 2)), label="test"))
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize=10, labelcolor=INK)
